"""FRR in versions that nobody has released: Debian's packages with another number, and one that is broken."""

from __future__ import annotations

import re
from pathlib import Path

from router_agent.lab.commands import require, run
from router_agent.lab.containers.image import FRR_PACKAGES, Image

_BGPD = "usr/lib/frr/bgpd"
_DAMAGED = "#!/bin/sh\necho 'damaged in the making' >&2\nexit 1\n"
_SECONDS = 120.0


def released(image: Image) -> str:
    """Return the version of FRR that hosts are born with."""
    return _field(_original(image, "frr"), "Version")


def release(image: Image, directory: Path, suffix: str, *, damaged: bool = False) -> str:
    """Put a new version of FRR beside the others in a directory of packages; return its version.

    Args:
        image: has Debian's packages.
        directory: gets the new ones, and Debian's own.
        suffix: what the version has more than Debian's.
        damaged: its bgpd ends as soon as it is started.
    """
    directory.mkdir(parents=True, exist_ok=True)
    version = f"{released(image)}{suffix}"
    for name in FRR_PACKAGES:
        original = _original(image, name)
        (directory / original.name).unlink(missing_ok=True)
        (directory / original.name).hardlink_to(original)
        tree = directory / f"{name}.tree"
        run([require("dpkg-deb"), "-R", str(original), str(tree)], seconds=_SECONDS)
        control = tree / "DEBIAN" / "control"
        control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {version}", control.read_text()))
        if damaged and name == "frr":
            (tree / _BGPD).write_text(_DAMAGED)
        file = directory / original.name.replace(f"_{_file_version(original)}_", f"_{version}_")
        run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "-b", str(tree), str(file)], seconds=_SECONDS)
        run(["rm", "-r", str(tree)])
    return version


def _original(image: Image, name: str) -> Path:
    (found,) = image.packages.glob(f"{name}_*.deb")
    return found


def _file_version(package: Path) -> str:
    return package.name.split("_")[1]


def _field(package: Path, field: str) -> str:
    return run([require("dpkg-deb"), "-f", str(package), field]).strip()
