"""What role preflight reports as wrong, out of what ansible-playbook prints."""

from __future__ import annotations

import re
from dataclasses import dataclass

_PROBLEM = re.compile(
    r"^\s*\d+\. (?P<host>\S+): (?P<variable>\S.*)\n\s+found +(?P<found>.*)\n\s+expected +(?P<expected>.*)$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where, and what was found instead of what."""

    host: str
    variable: str
    found: str
    expected: str


def problems(output: str) -> list[Problem]:
    """Return every problem in the output of a playbook, in order, each once."""
    return list(dict.fromkeys(Problem(**match.groupdict()) for match in _PROBLEM.finditer(output)))
