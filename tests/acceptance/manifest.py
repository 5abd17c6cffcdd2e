"""What is on the host's disk, to tell whether a run has written anything."""

from __future__ import annotations

from router_agent.lab.host import Host

_ELSEWHERE = (
    "/root/.ansible",  # where Ansible puts the modules it runs
    "/tmp",
    "/var/tmp",
    "/var/log",  # the system's own, and that somebody logged in
    "/var/lib/systemd",  # timers, random seed
    "/var/cache/apt",  # made anew by whoever reads the package lists
)
"""Not what a run is asked about."""

_SECONDS = 600.0


def manifest(host: Host) -> dict[str, str]:
    """Return of each file on the disk when it was changed last, its size, mode and owner.

    Not of directories: what comes and goes in them shows by itself.

    Raises:
        HostError: the host does not answer.
    """
    left_out = " -o ".join(f"-path {path}" for path in _ELSEWHERE)
    found = host.run(
        f"find / -xdev \\( {left_out} \\) -prune -o ! -type d -printf '%p\\t%T@ %s %m %U:%G\\n'",
        seconds=_SECONDS,
    )
    return dict(line.rsplit("\t", 1) for line in found.splitlines())


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return files that were written, came or went, one a line."""
    names = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return [f"{name}: {before.get(name, 'none')} -> {after.get(name, 'none')}" for name in names]
