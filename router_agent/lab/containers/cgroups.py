"""A control group for each container where no systemd hands them out.

systemd-nspawn puts its container beside itself, in groups called "payload" and "supervisor". Two that were
started from one group would share them, and each would take the other's services for its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from router_agent.lab.errors import LabError

_MOUNTS = Path("/proc/self/mountinfo")
_SYSTEMD = Path("/run/systemd/system")
_END_SECONDS = 10.0
_POLL_SECONDS = 0.02


def systemd_runs() -> bool:
    """Return whether this machine was booted with systemd (sd_booted(3)): nspawn then asks it for a scope."""
    return _SYSTEMD.is_dir()


def create(name: str) -> list[Path]:
    """Make a group in each hierarchy that systemd tracks processes in; return its ``cgroup.procs`` files.

    Args:
        name: of the group.

    Raises:
        LabError: there is no such hierarchy, or it cannot be written to.
    """
    roots = _roots()
    if not roots:
        raise LabError(f"found no hierarchy for systemd in {_MOUNTS}, expected one of type cgroup2")
    try:
        for root in roots:
            (root / name).mkdir(exist_ok=True)
    except OSError as error:
        raise LabError(
            f"cannot make a control group: {error}; containers need a hierarchy to write to"
        ) from error
    return [root / name / "cgroup.procs" for root in roots]


def remove(name: str) -> None:
    """Remove the groups of this name; whatever was in them has ended or is about to. Idempotent.

    Raises:
        LabError: something in them does not end.
    """
    deadline = time.monotonic() + _END_SECONDS
    for root in _roots():
        for group in _from_the_leaves(root / name):
            while group.exists():
                with suppress(OSError):
                    group.rmdir()
                    break
                if time.monotonic() > deadline:
                    left = (group / "cgroup.procs").read_text().split()
                    raise LabError(f"processes {', '.join(left)} in {group} do not end")
                time.sleep(_POLL_SECONDS)


def _roots() -> list[Path]:
    """Return where cgroup2, and version 1's hierarchy for systemd, are mounted (proc_pid_mountinfo(5))."""
    found = []
    for line in _MOUNTS.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(fields.split(" ")[4]))
    return found


def _from_the_leaves(group: Path) -> Iterator[Path]:
    for directory, _, _ in os.walk(group, topdown=False):
        yield Path(directory)
