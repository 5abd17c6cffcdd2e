"""What FRR's daemons say by vtysh, in JSON; seen with 8.4 and 10.7."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from router_agent.observe import ask
from router_agent.observe.ask import NotKnownError

SECONDS = 60.0
"""How long one answer may take: bgpd walks its table for some, and may be busy."""

_VERSION = re.compile(r"^FRRouting (?P<version>\S+)", re.MULTILINE)


def running(vtysh: Sequence[str]) -> frozenset[str]:
    """Return the daemons that answer.

    Raises:
        NotHereError: FRR is not installed.
        NotKnownError: none answers, or vtysh may not be run.
    """
    return frozenset(text(vtysh, "show daemons").split())


def require(vtysh: Sequence[str], daemon: str) -> None:
    """Check that a daemon answers.

    Raises:
        NotHereError: FRR is not installed.
        NotKnownError: the daemon does not answer.
    """
    if daemon not in running(vtysh):
        raise NotKnownError(f"FRR is here and its {daemon} does not answer; see systemctl status frr")


def version(vtysh: Sequence[str]) -> str:
    """Return the version of the running FRR.

    Raises:
        NotKnownError: FRR does not say.
    """
    said = text(vtysh, "show version")
    found = _VERSION.search(said)
    if not found:
        raise NotKnownError(f"FRR calls its version {said[:60]!r}, expected 'FRRouting X'")
    return found["version"]


def text(vtysh: Sequence[str], command: str) -> str:
    """Return what FRR prints.

    Raises:
        NotKnownError: it does not answer.
    """
    return ask.text_of([*vtysh, "-c", command], seconds=SECONDS)


def mapping(vtysh: Sequence[str], command: str) -> Mapping[str, Any]:
    """Return an answer that is a JSON object; an empty answer is an empty one.

    Raises:
        NotKnownError: FRR does not answer, or says something else.
    """
    found = ask.json_of([*vtysh, "-c", command], seconds=SECONDS)
    if not found:
        return {}
    if not isinstance(found, Mapping):
        raise NotKnownError(f"FRR answers {command!r} with a list, expected an object")
    return found


def count(found: Mapping[str, Any], key: str, where: str) -> int:
    """Return a number out of an answer.

    Raises:
        NotKnownError: it is not there, or is none.
    """
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotKnownError(f"FRR's {where}: found {value!r} as {key}, expected a number")
    return value
