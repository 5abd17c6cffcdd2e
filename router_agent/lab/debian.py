"""A bare Debian 13 in a directory, and images made of it: built once, kept, and found by their recipe.

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
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from router_agent.lab.commands import require, run
from router_agent.lab.errors import LabError

SUITE = "trixie"
MIRROR = "http://deb.debian.org"

PACKAGES = (
    "ca-certificates",
    "dbus",
    "ifupdown",
    "iproute2",
    "iputils-ping",
    "kmod",
    "openssh-server",
    "procps",
    "python3",
    "systemd-sysv",
    "udev",
)
"""What an installation with nothing but the SSH server has, as far as a router's kit meets it. A kernel and a
boot loader are further packages."""

SOURCES = (
    f"deb {MIRROR}/debian {SUITE} main",
    f"deb {MIRROR}/debian-security {SUITE}-security main",
)

MASKED_UNITS = ("apt-daily.timer", "apt-daily-upgrade.timer", "fstrim.timer", "e2scrub_all.timer")
"""Work that starts by itself would hold apt's lock and the processor while something is measured."""

_OLDEST_SECONDS = 7 * 86_400
_UNUSED_SECONDS = 86_400
_BOOTSTRAP_SECONDS = 900.0
_STEP_SECONDS = 120.0


def digest(recipe: Mapping[str, object]) -> str:
    """Return the name of the image that a recipe makes.

    Args:
        recipe: everything that decides what is in it; JSON can write it.
    """
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def find(images: Path, name: str, proof: str, *, now: float | None = None) -> Path | None:
    """Return the directory of an image that is built and not too old; None when there is none.

    Args:
        images: directory that keeps images.
        name: `digest` of its recipe.
        proof: a file in it whose time says when it was built.
        now: seconds since the epoch; None asks the clock.
    """
    directory = images / name
    try:
        built = (directory / proof).stat().st_mtime
    except FileNotFoundError:
        return None
    if (time.time() if now is None else now) - built > _OLDEST_SECONDS:
        return None
    # What was asked for last shows in the directory's time, the age of what is in it in the proof's.
    os.utime(directory)
    return directory


def build(
    images: Path, name: str, proof: str, make: Callable[[Path], None], progress: Callable[[str], None]
) -> Path:
    """Build an image; those that nobody has asked for in a day are removed. Return its directory.

    Only one process builds at a time; one that had to wait takes what the other has built.

    Args:
        images: directory that keeps images.
        name: `digest` of its recipe.
        proof: see `find`.
        make: makes the image in an empty directory.
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
        if found := find(images, name, proof):
            return found
        finished, work = images / name, images / f"{name}.new"
        for other in images.iterdir():
            # Of another recipe, machines may run from it now.
            unused = time.time() - other.stat().st_mtime > _UNUSED_SECONDS
            if other.is_dir() and (other in (finished, work) or unused):
                shutil.rmtree(other)
        work.mkdir()
        make(work)
        work.rename(finished)
        return finished


def bootstrap(root: Path, packages: Iterable[str]) -> None:
    """Install Debian with some packages into a directory.

    Raises:
        LabError: mmdebstrap is missing or fails; with what it says.
    """
    # The package lists stay: a host that was installed has them, and apt would fetch them again.
    run(
        [
            require("mmdebstrap"),
            "--mode=root",
            "--variant=apt",
            "--format=directory",
            "--skip=cleanup/apt/lists",
            "--quiet",
            f"--include={','.join(packages)}",
            SUITE,
            str(root),
            *SOURCES,
        ],
        seconds=_BOOTSTRAP_SECONDS,
    )


def configure(root: Path, files: Mapping[str, str]) -> None:
    """Write files below a root, and mask what would start by itself.

    Args:
        root: the Debian.
        files: path below it to content.

    Raises:
        LabError: systemctl fails.
    """
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # The host's own may have come in as a link.
        path.unlink(missing_ok=True)
        path.write_text(text)
    for unit in MASKED_UNITS:
        chroot(root, "systemctl", "--quiet", "mask", unit)


def remove_host_keys(root: Path) -> None:
    """Remove the keys that the package of the ssh server has made: whoever has the image has them too."""
    for kind in ("rsa", "ecdsa", "ed25519"):
        for suffix in ("", ".pub"):
            (root / f"etc/ssh/ssh_host_{kind}_key{suffix}").unlink(missing_ok=True)


def new_key(path: Path, comment: str) -> Path:
    """Make a key pair without a passphrase; return the private key's file.

    Raises:
        LabError: ssh-keygen is missing or fails.
    """
    run([require("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return path


def public_key(path: Path) -> str:
    """Return the public key beside a private key, ``ssh-ed25519 AAAA...``, as known_hosts has it."""
    return " ".join(path.with_name(f"{path.name}.pub").read_text().split()[:2])


def let_root_in(root: Path, key: Path) -> None:
    """Have root's ssh take a key."""
    directory = root / "root/.ssh"
    directory.mkdir(mode=0o700, exist_ok=True)
    shutil.copy(key.with_name(f"{key.name}.pub"), directory / "authorized_keys")


def chroot(root: Path, *argv: str, seconds: float = _STEP_SECONDS) -> None:
    """Run a command with a directory as its root.

    Raises:
        LabError: it fails.
    """
    run(["chroot", str(root), *argv], seconds=seconds)
