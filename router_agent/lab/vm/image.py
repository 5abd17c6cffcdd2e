"""The disk image of the virtual POP host: a bare Debian 13 that boots, see `router_agent.lab.debian`."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from router_agent.lab import debian
from router_agent.lab.debian import SUITE, chroot
from router_agent.lab.errors import LabError
from router_agent.lab.vm.archive import pack_testpmd
from router_agent.lab.vm.disk import write_disk
from router_agent.lab.vm.plan import HOST, MANAGEMENT, MANAGEMENT_INTERFACE

PACKAGES = (*debian.PACKAGES, "grub-pc", "linux-image-amd64")

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
_LAYOUT = 6
"""Raised when the way an image is put together changes."""

_DISK, _KEY, _HOST_KEY = "disk.raw", "id_ed25519", "ssh_host_ed25519_key"


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
        return self.directory / _DISK

    @property
    def kernel(self) -> Path:
        """The kernel that is on the disk, for a probe that boots nothing but it."""
        return self.directory / "vmlinuz"

    @property
    def key(self) -> Path:
        """Private key that root accepts."""
        return self.directory / _KEY

    @property
    def testpmd(self) -> Path:
        """Debian's dpdk-testpmd with its libraries, packed; the host's disk does not have it."""
        return self.directory / "testpmd.tar.gz"

    @property
    def host_key(self) -> str:
        """The host's public key, ``ssh-ed25519 AAAA...``, as known_hosts has it after the name."""
        return debian.public_key(self.directory / _HOST_KEY)


def recipe() -> dict[str, object]:
    """Return everything that decides what is in an image."""
    return {
        "layout": _LAYOUT,
        "sources": debian.SOURCES,
        "packages": sorted(PACKAGES),
        "files": _FILES,
        "masked": debian.MASKED_UNITS,
        "grub": [_GRUB_CONFIG, *_CORE_MODULES],
        "size_bytes": _SIZE_BYTES,
    }


def digest() -> str:
    """Return the name of the image that the recipe makes."""
    return debian.digest(recipe())


def find(images: Path, *, now: float | None = None) -> Image | None:
    """Return the image of the recipe if it is built and not too old.

    Args:
        images: directory that keeps images.
        now: seconds since the epoch; None asks the clock.
    """
    found = debian.find(images, digest(), _DISK, now=now)
    return Image(found) if found else None


def build(images: Path, progress: Callable[[str], None]) -> Image:
    """Build the image of the recipe; images that nobody has asked for in a day are removed.

    Args:
        images: directory that keeps images.
        progress: told what is going on.

    Raises:
        LabError: not root, a tool is missing, or one fails.
    """
    return Image(debian.build(images, digest(), _DISK, lambda work: _make(work, progress), progress))


def _make(work: Path, progress: Callable[[str], None]) -> None:
    root = work / "root"
    root.mkdir()
    progress(f"Debian {SUITE} and {len(PACKAGES)} packages")
    debian.bootstrap(root, PACKAGES)
    progress("dpdk-testpmd, to be copied to hosts that prove VFIO with it")
    pack_testpmd(root, work / "testpmd.tar.gz")
    identifier = str(uuid.uuid4())
    progress("host key, network, boot loader")
    _make_keys(work, root)
    debian.configure(root, _FILES | {"etc/fstab": f"UUID={identifier} / ext4 defaults 0 1\n"})
    core = _boot_loader(root, identifier)
    progress("disk")
    shutil.copy(_newest(root, "vmlinuz-*"), work / "vmlinuz")
    boot_image = (root / _GRUB_MODULES / "boot.img").read_bytes()
    write_disk(work / _DISK, root, uuid=identifier, size_bytes=_SIZE_BYTES, boot_image=boot_image, core=core)
    shutil.rmtree(root)


def _make_keys(work: Path, root: Path) -> None:
    debian.remove_host_keys(root)
    chroot(root, "ssh-keygen", "-q", "-A")
    shutil.copy(root / f"etc/ssh/{_HOST_KEY}.pub", work)
    debian.let_root_in(root, debian.new_key(work / _KEY, f"lab of {HOST}"))


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
    chroot(
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
