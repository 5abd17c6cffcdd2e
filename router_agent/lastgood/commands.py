"""Programs of the host, each with a time limit."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 120.0
_TOO_LONG = 124
"""As of timeout(1)."""
_NOT_FOUND = 127
"""As of a shell."""


@dataclass(frozen=True)
class Done:
    """What a command did.

    Attributes:
        status: its exit status; 124 when it was too slow, 127 when it cannot be run.
        output: what it wrote to standard output.
        said: its last words, for a message.
    """

    status: int
    output: str
    said: str

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.status == 0


def run(*words: str, seconds: float = SECONDS) -> Done:
    """Run a command to its end, whatever comes of it."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Done(_TOO_LONG, "", f"no end after {seconds:.0f} s")
    except OSError as error:
        return Done(_NOT_FOUND, "", f"{words[0]}: {error.strerror}")
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return Done(done.returncode, done.stdout, lines[-1].strip() if lines else "nothing")


def json_of(*words: str) -> list[dict[str, Any]]:
    """Return the rows that a command prints as JSON; none when it fails."""
    done = run(*words)
    try:
        found = json.loads(done.output or "[]") if done.ok else []
    except ValueError:
        found = []
    return [row for row in found if isinstance(row, dict) and row]


def units(names: Sequence[str]) -> dict[str, str]:
    """Return the state of units (ActiveState of systemctl(1)), by name; `inactive` for those not there."""
    done = run("systemctl", "show", "--property=Id,ActiveState", *names)
    found = dict.fromkeys(names, "inactive")
    for block in done.output.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id") in found:
            found[values["Id"]] = values.get("ActiveState", "inactive")
    return found
