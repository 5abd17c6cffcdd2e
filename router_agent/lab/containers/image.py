"""The root file system that containers start from: a bare Debian 13 and FRR, see `router_agent.lab.debian`.

It has no kernel and no boot loader: those are the machine's that runs the lab. FRR is installed, as the
distribution ships it, so that hosts need no network; its packages are kept beside the root as files, for
those who want to install them once more.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from router_agent.lab import debian
from router_agent.lab.debian import SUITE, chroot
from router_agent.lab.errors import LabError

FRR_PACKAGES = ("frr", "frr-pythontools")
PACKAGES = (*debian.PACKAGES, *FRR_PACKAGES)

_FILES = {"etc/fstab": ""}
_UNUSED_UNITS = ("console-getty.service", "getty@.service", "systemd-networkd-wait-online.service")
"""Nobody sits at a container's console; and what a host waits for at boot is its ssh server."""
_LAYOUT = 1
"""Raised when the way an image is put together changes."""
_DOWNLOAD_SECONDS = 300.0

_PROOF, _KEY = "built", "id_ed25519"


@dataclass(frozen=True, slots=True)
class Image:
    """An image that is built.

    Attributes:
        directory: what it is made of: the root, the packages, the key.
    """

    directory: Path

    @property
    def root(self) -> Path:
        """The root file system; never written to, containers run from overlays of it."""
        return self.directory / "root"

    @property
    def packages(self) -> Path:
        """Directory with FRR's packages, as files."""
        return self.directory / "packages"

    @property
    def key(self) -> Path:
        """Private key that root accepts."""
        return self.directory / _KEY


def recipe() -> dict[str, object]:
    """Return everything that decides what is in an image."""
    return {
        "layout": _LAYOUT,
        "sources": debian.SOURCES,
        "packages": sorted(PACKAGES),
        "kept": FRR_PACKAGES,
        "files": _FILES,
        "masked": [*debian.MASKED_UNITS, *_UNUSED_UNITS],
    }


def find(images: Path, *, now: float | None = None) -> Image | None:
    """Return the image of the recipe if it is built and not too old.

    Args:
        images: directory that keeps images.
        now: seconds since the epoch; None asks the clock.
    """
    found = debian.find(images, debian.digest(recipe()), _PROOF, now=now)
    return Image(found) if found else None


def build(images: Path, progress: Callable[[str], None]) -> Image:
    """Build the image of the recipe; images that nobody has asked for in a day are removed.

    Args:
        images: directory that keeps images.
        progress: told what is going on.

    Raises:
        LabError: not root, a tool is missing, or one fails.
    """
    name = debian.digest(recipe())
    return Image(debian.build(images, name, _PROOF, lambda work: _make(work, progress), progress))


def _make(work: Path, progress: Callable[[str], None]) -> None:
    root = work / "root"
    root.mkdir()
    progress(f"Debian {SUITE} and {len(PACKAGES)} packages")
    debian.bootstrap(root, PACKAGES)
    progress("FRR's packages, keys")
    _keep_packages(root, work / "packages")
    debian.configure(root, _FILES)
    for unit in _UNUSED_UNITS:
        chroot(root, "systemctl", "--quiet", "mask", unit)
    # Each container has a key and an id of its own.
    debian.remove_host_keys(root)
    (root / "etc/machine-id").write_text("")
    debian.let_root_in(root, debian.new_key(work / _KEY, "lab of containers"))
    (work / _PROOF).touch()


def _keep_packages(root: Path, directory: Path) -> None:
    """Download FRR's packages once more: apt does not keep what mmdebstrap has installed."""
    inside = root / "var/cache/apt/archives"
    options = ("-o", "APT::Sandbox::User=root", "--reinstall", "--download-only")
    chroot(root, "apt-get", "-qq", "-y", *options, "install", *FRR_PACKAGES, seconds=_DOWNLOAD_SECONDS)
    directory.mkdir()
    for name in FRR_PACKAGES:
        found = sorted(inside.glob(f"{name}_*.deb"))
        if len(found) != 1:
            raise LabError(f"found {len(found)} files {name}_*.deb in {inside}, expected one from apt")
        shutil.move(found[0], directory)
    chroot(root, "apt-get", "clean")
