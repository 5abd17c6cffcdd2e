"""A newer FRR than the host's: Debian testing in a directory, for daemons that run from there by chroot.

Debian 12 and 13 ship FRR 8.4 and 10.3, neither of which reads what a FIB answers over FPM. The directory is
built once, by mmdebstrap, with FRR and what it needs and nothing else, and kept; the digest of what decides
its content names it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import pwd
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from router_agent.lab.commands import require, run
from router_agent.lab.errors import LabError

SUITE = "testing"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = ("frr",)

ROOTS = Path(__file__).parents[2] / "build" / "frr"
"""Where roots are kept."""

_LAYOUT = 1
"""Raised when the way a root is put together changes."""
_BOOTSTRAP_SECONDS = 900.0
_PROGRAMS = "usr/lib/frr"


@dataclass(frozen=True, slots=True)
class Installation:
    """An FRR that is installed: on this host, or in a root of its own.

    Attributes:
        root: directory that its daemons see as ``/``; None is the host's.
    """

    root: Path | None = None

    def inside(self, *argv: str) -> list[str]:
        """Return a command that runs `argv`, whose paths are the installation's, with it as ``/``."""
        return [*argv] if self.root is None else ["chroot", str(self.root), *argv]

    def path(self, path: Path) -> Path:
        """Return where a path of the installation is for us."""
        return path if self.root is None else self.root / path.relative_to("/")

    def has(self, program: str) -> bool:
        """Return whether a daemon is installed."""
        return self.path(Path("/", _PROGRAMS, program)).exists()

    def give(self, *paths: Path) -> None:
        """Make files, by our paths, the property of the user that the daemons run as.

        Raises:
            LabError: FRR is not installed.
        """
        user, group = self.owner()
        for path in paths:
            os.chown(path, user, group)

    def version(self) -> str:
        """Return FRR's version, such as ``10.7.1``.

        Raises:
            LabError: FRR is not installed or does not say.
        """
        words = run(self.inside(f"/{_PROGRAMS}/zebra", "--version")).split()
        if words[:2] != ["zebra", "version"]:
            raise LabError(f"found {' '.join(words[:6])!r} as zebra's version, expected 'zebra version X'")
        return words[2]

    def owner(self) -> tuple[int, int]:
        """Return the user and group ids of its daemons.

        Raises:
            LabError: it has no such user.
        """
        if self.root is None:
            try:
                entry = pwd.getpwnam("frr")
            except KeyError:
                raise LabError("found no user frr, expected FRR: apt-get install frr") from None
            return entry.pw_uid, entry.pw_gid
        for line in (self.root / "etc/passwd").read_text().splitlines():
            name, _, user, group, *_ = line.split(":")
            if name == "frr":
                return int(user), int(group)
        raise LabError(
            f"found no user frr in {self.root / 'etc/passwd'}; remove {self.root} to build it anew"
        )


HOST = Installation()
"""The FRR that this host has installed, if it has."""


def digest() -> str:
    """Return the name of the root that would be built now."""
    recipe = {"layout": _LAYOUT, "suite": SUITE, "mirror": MIRROR, "packages": sorted(PACKAGES)}
    return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:16]


def unbuildable() -> str | None:
    """Return why no root can be built or used here; None when it can."""
    if os.geteuid() != 0:
        return "found an ordinary user, expected root: mmdebstrap and chroot need it"
    if (ROOTS / digest()).exists() or shutil.which("mmdebstrap"):
        return None
    return "found no mmdebstrap, which builds a root with FRR of Debian testing: apt-get install mmdebstrap"


def newer_frr() -> Installation:
    """Return the FRR of Debian testing, building its root when there is none yet.

    Raises:
        LabError: it cannot be built; with what mmdebstrap says.
    """
    if reason := unbuildable():
        raise LabError(reason)
    finished = ROOTS / digest()
    ROOTS.mkdir(parents=True, exist_ok=True)
    with (ROOTS / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not finished.exists():
            _build(finished)
    return Installation(finished)


def _build(finished: Path) -> None:
    for other in ROOTS.iterdir():
        if other.is_dir():
            shutil.rmtree(other)
    work = finished.with_suffix(".new")
    work.mkdir()
    # testing's Release file may be past its date on a mirror that lags: what is wanted is its content.
    run(
        [
            require("mmdebstrap"),
            "--mode=root",
            "--variant=essential",
            "--format=directory",
            "--quiet",
            '--aptopt=Acquire::Check-Valid-Until "false"',
            '--aptopt=APT::Install-Recommends "false"',
            f"--include={','.join(PACKAGES)}",
            SUITE,
            str(work),
            MIRROR,
        ],
        seconds=_BOOTSTRAP_SECONDS,
    )
    work.rename(finished)


if __name__ == "__main__":
    try:
        installation = newer_frr()
        print(f"FRR {installation.version()} in {installation.root}")
    except LabError as error:
        sys.exit(str(error))
