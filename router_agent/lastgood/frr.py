"""FRR's files taken into use: sessions that they do not concern stay up."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterable
from pathlib import Path

from router_agent.lastgood.commands import run
from router_agent.lastgood.entries import digest_of
from router_agent.lastgood.steps import Steps

CONFIGURATION = "/etc/frr/frr.conf"
SERVICE = "frr.service"
_RELOAD = "/usr/lib/frr/frr-reload.py"
_COMMAND_SECONDS = 300.0
_READY_SECONDS = 60.0
_POLL_SECONDS = 0.5
_HOSTNAME = re.compile(r"(no )?hostname \S+")


def take(steps: Steps, *, restart: bool, usual: Collection[str]) -> None:
    """Have FRR run its files: by frr-reload.py, or by a restart where that is needed.

    Args:
        steps: notes what is done.
        restart: whether another set of daemons or another unit is to run.
        usual: what `differences` said when all was well.
    """
    if not restart and _reload(steps, usual):
        return
    run("systemctl", "reset-failed", SERVICE)
    if steps.do("systemctl", "restart", SERVICE, seconds=_COMMAND_SECONDS) and not _settled(usual):
        steps.failed(f"FRR does not run all of {CONFIGURATION}: {_RELOAD} --test says what is left")


def differences() -> set[str] | None:
    """Return what stands for each line that FRR's file and what it runs differ in; None when it does not say.

    A default that a file says in words is a difference that stays, and no fault.
    """
    done = run(_RELOAD, "--test", CONFIGURATION, seconds=_COMMAND_SECONDS)
    # The lines themselves may hold passwords.
    return {digest_of(line.encode()) for line in delta_of(done.output)} if done.ok else None


def _reload(steps: Steps, usual: Collection[str]) -> bool:
    """Reload; return whether FRR runs its file then, whatever frr-reload.py said of itself."""
    if not Path(_RELOAD).exists() or not run("systemctl", "is-active", "--quiet", SERVICE).ok:
        return False
    # Its log file would hold passwords; what is printed goes nowhere.
    options = ("--reload", "--stdout", "--log-level", "critical")
    run(_RELOAD, *options, CONFIGURATION, seconds=_COMMAND_SECONDS)
    if not _runs_its_file(usual):
        return False
    steps.did(f"frr-reload.py --reload {CONFIGURATION}")
    return True


def _runs_its_file(usual: Collection[str]) -> bool:
    found = differences()
    return found is not None and found <= set(usual)


def delta_of(output: str) -> list[str]:
    """Return the lines that ``frr-reload.py --test`` would delete or add, without the host's name.

    vtysh shows its host's name beside the one that the daemons were given.
    """
    lines, within = [], False
    for line in output.splitlines():
        if line in ("Lines To Delete", "Lines To Add"):
            within = True
        elif within and line.strip() and set(line) != {"="} and not _HOSTNAME.fullmatch(line):
            lines.append(line)
    return lines


def _settled(usual: Collection[str]) -> bool:
    """Wait until FRR runs its file after a restart; return whether it does."""
    deadline = time.monotonic() + _READY_SECONDS
    while not _runs_its_file(usual):
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def established() -> list[str]:
    """Return the neighbours with an established session; none when FRR does not say."""
    done = run("vtysh", "-c", "show bgp summary json")
    try:
        summary = json.loads(done.output or "{}") if done.ok else {}
    except ValueError:
        return []
    found = {
        address
        for family in summary.values()
        for address, peer in family.get("peers", {}).items()
        if peer.get("state") == "Established"
    }
    return sorted(found)


def missing(sessions: Iterable[str], seconds: float) -> list[str]:
    """Wait until sessions are established again; return those that are not in time."""
    deadline = time.monotonic() + seconds
    while absent := sorted(set(sessions) - set(established())):
        if time.monotonic() > deadline:
            return absent
        time.sleep(_POLL_SECONDS)
    return []
