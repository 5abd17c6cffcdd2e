"""The disk image of the virtual POP host: a bare Debian 13, built once and kept.

What an image is made of is its recipe, and the recipe's digest names the directory that holds it: a changed
recipe is another image. An image also holds the package lists of its day, so one that is too old is built
anew: the mirror would no longer have what they name.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from router_agent.lab.commands import require, run
from router_agent.lab.errors import LabError
from router_agent.lab.vm.archive import pack_testpmd
from router_agent.lab.vm.disk import write_disk
from router_agent.lab.vm.plan import HOST, MANAGEMENT, MANAGEMENT_INTERFACE

SUITE = "trixie"
MIRROR = "http://deb.debian.org"

PACKAGES = (
    "ca-certificates",
    "dbus",
    "grub-pc",
    "ifupdown",
    "iproute2",
    "iputils-ping",
    "kmod",
    "linux-image-amd64",
    "openssh-server",
    "procps",
    "python3",
    "systemd-sysv",
    "udev",
)
"""What an installation with nothing but the SSH server has, as far as a router's kit meets it."""

_SOURCES = (
    f"deb {MIRROR}/debian {SUITE} main",
    f"deb {MIRROR}/debian-security {SUITE}-security main",
)

_FILES = {
    "etc/hostname": f"{HOST}\n",
    "etc/hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOST}\n::1 localhost ip6-localhost ip6-loopback\n",
    "etc/resolv.conf": f"nameserver {MANAGEMENT.resolver}\n",
    "etc/network/interfaces": f"""\
auto lo
iface lo inet loopback

allow-hotplug {MANAGEMENT_INTERFACE}
iface {MANAGEMENT_INTERFACE} inet static
    address {MANAGEMENT.host}
    gateway {MANAGEMENT.client}
""",
    # What is written here is what is there after a reboot: the roles' own drop-ins come after it.
    "etc/default/grub.d/00-console.cfg": """\
GRUB_TIMEOUT=0
GRUB_TERMINAL="console serial"
GRUB_CMDLINE_LINUX="console=ttyS0 panic=5"
GRUB_CMDLINE_LINUX_DEFAULT=""
""",
}

_MASKED_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "e2scrub_all.timer")
"""Work that starts by itself would hold apt's lock and the emulated processor while something is measured."""

_GRUB_CONFIG = """\
set timeout=0
search --no-floppy --fs-uuid --set=root {uuid}
linux {kernel} root=UUID={uuid} ro console=ttyS0 panic=5
initrd {initrd}
boot
"""
"""Until update-grub runs on the host for the first time. It cannot run in a chroot: there is no disk yet."""

_GRUB_MODULES = "usr/lib/grub/i386-pc"
_CORE_MODULES = ("biosdisk", "part_msdos", "ext2")
_SIZE_BYTES = 6 * 2**30
_OLDEST_SECONDS = 7 * 86_400
_UNUSED_SECONDS = 86_400
_LAYOUT = 6
"""Raised when the way an image is put together changes."""

_BOOTSTRAP_SECONDS = 900.0
_STEP_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is built.

    Attributes:
        directory: what it is made of: the disk, the kernel beside it, and the keys.
    """

    directory: Path

    @property
    def disk(self) -> Path:
        """The disk, raw; never written to, machines run from overlays of it."""
        return self.directory / "disk.raw"

    @property
    def kernel(self) -> Path:
        """The kernel that is on the disk, for a probe that boots nothing but it."""
        return self.directory / "vmlinuz"

    @property
    def key(self) -> Path:
        """Private key that root accepts."""
        return self.directory / "id_ed25519"

    @property
    def testpmd(self) -> Path:
        """Debian's dpdk-testpmd with its libraries, packed; the host's disk does not have it."""
        return self.directory / "testpmd.tar.gz"

    @property
    def host_key(self) -> str:
        """The host's public key, ``ssh-ed25519 AAAA...``, as known_hosts has it after the name."""
        return " ".join((self.directory / "ssh_host_ed25519_key.pub").read_text().split()[:2])


def recipe() -> dict[str, object]:
    """Return everything that decides what is in an image."""
    return {
        "layout": _LAYOUT,
        "sources": _SOURCES,
        "packages": sorted(PACKAGES),
        "files": _FILES,
        "masked": _MASKED_UNITS,
        "grub": [_GRUB_CONFIG, *_CORE_MODULES],
        "size_bytes": _SIZE_BYTES,
    }


def digest() -> str:
    """Return the name of the image that the recipe makes."""
    return hashlib.sha256(json.dumps(recipe(), sort_keys=True).encode()).hexdigest()[:16]


def find(images: Path, *, now: float | None = None) -> Image | None:
    """Return the image of the recipe if it is built and not too old.

    Args:
        images: directory that keeps images.
        now: seconds since the epoch; None asks the clock.
    """
    image = Image(images / digest())
    if not image.disk.exists():
        return None
    age = (time.time() if now is None else now) - image.disk.stat().st_mtime
    if age > _OLDEST_SECONDS:
        return None
    # What was asked for last shows in the directory's time, the age of what is in it in the disk's.
    os.utime(image.directory)
    return image


def build(images: Path, progress: Callable[[str], None]) -> Image:
    """Build the image of the recipe; images that nobody has asked for in a day are removed.

    Only one process builds at a time; one that had to wait takes what the other has built.

    Args:
        images: directory that keeps images.
        progress: told what is going on.

    Raises:
        LabError: not root, a tool is missing, or one fails.
    """
    if os.geteuid() != 0:
        raise LabError("found an ordinary user, expected root: files of the image belong to root and others")
    images.mkdir(parents=True, exist_ok=True)
    with (images / "lock").open("w") as held:
        progress("waiting for another process that builds it")
        fcntl.flock(held, fcntl.LOCK_EX)
        return find(images) or _build(images, progress)


def _build(images: Path, progress: Callable[[str], None]) -> Image:
    finished = images / digest()
    work = images / f"{digest()}.new"
    for other in images.iterdir():
        # Of another recipe, machines may run from it now.
        unused = time.time() - other.stat().st_mtime > _UNUSED_SECONDS
        if other.is_dir() and (other in (finished, work) or unused):
            shutil.rmtree(other)
    root = work / "root"
    root.mkdir(parents=True)
    progress(f"Debian {SUITE} and {len(PACKAGES)} packages")
    _bootstrap(root)
    progress("dpdk-testpmd, to be copied to hosts that prove VFIO with it")
    pack_testpmd(root, work / "testpmd.tar.gz")
    identifier = str(uuid.uuid4())
    progress("host key, network, boot loader")
    _make_keys(work, root)
    _configure(root, identifier)
    core = _boot_loader(root, identifier)
    progress("disk")
    shutil.copy(_newest(root, "vmlinuz-*"), work / "vmlinuz")
    boot_image = (root / _GRUB_MODULES / "boot.img").read_bytes()
    write_disk(
        work / "disk.raw", root, uuid=identifier, size_bytes=_SIZE_BYTES, boot_image=boot_image, core=core
    )
    shutil.rmtree(root)
    work.rename(finished)
    return Image(finished)


def _bootstrap(root: Path) -> None:
    # The package lists stay: a host that was installed has them, and apt would fetch them again.
    run(
        [
            require("mmdebstrap"),
            "--mode=root",
            "--variant=apt",
            "--format=directory",
            "--skip=cleanup/apt/lists",
            "--quiet",
            f"--include={','.join(PACKAGES)}",
            SUITE,
            str(root),
            *_SOURCES,
        ],
        seconds=_BOOTSTRAP_SECONDS,
    )


def _make_keys(work: Path, root: Path) -> None:
    for kind in ("rsa", "ecdsa", "ed25519"):
        (root / f"etc/ssh/ssh_host_{kind}_key").unlink(missing_ok=True)
    _chroot(root, "ssh-keygen", "-q", "-A")
    shutil.copy(root / "etc/ssh/ssh_host_ed25519_key.pub", work)
    key = work / "id_ed25519"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab of {HOST}", "-f", str(key)])
    directory = root / "root/.ssh"
    directory.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(key.with_suffix(".pub"), directory / "authorized_keys")


def _configure(root: Path, identifier: str) -> None:
    for name, text in (_FILES | {"etc/fstab": f"UUID={identifier} / ext4 defaults 0 1\n"}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # The host's own may have come in as a link.
        path.unlink(missing_ok=True)
        path.write_text(text)
    for unit in _MASKED_UNITS:
        _chroot(root, "systemctl", "--quiet", "mask", unit)


def _boot_loader(root: Path, identifier: str) -> bytes:
    """Install GRUB's modules and first configuration; return core.img."""
    directory = root / "boot/grub"
    modules = directory / "i386-pc"
    modules.mkdir(parents=True, exist_ok=True)
    for path in (root / _GRUB_MODULES).iterdir():
        if path.suffix in (".mod", ".lst"):
            shutil.copy(path, modules)
    kernel, initrd = (_newest(root, pattern) for pattern in ("vmlinuz-*", "initrd.img-*"))
    (directory / "grub.cfg").write_text(
        _GRUB_CONFIG.format(uuid=identifier, kernel=f"/boot/{kernel.name}", initrd=f"/boot/{initrd.name}")
    )
    core = root / "core.img"
    _chroot(
        root,
        *("grub-mkimage", "--format=i386-pc", "--output=/core.img", "--prefix=(hd0,msdos1)/boot/grub"),
        *_CORE_MODULES,
    )
    content = core.read_bytes()
    core.unlink()
    return content


def _newest(root: Path, pattern: str) -> Path:
    found = sorted((root / "boot").glob(pattern))
    if not found:
        raise LabError(f"found no {pattern} in {root / 'boot'}, expected one from linux-image-amd64")
    return found[-1]


def _chroot(root: Path, *argv: str) -> None:
    run(["chroot", str(root), *argv], seconds=_STEP_SECONDS)
