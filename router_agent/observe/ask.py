"""Programs that are asked what they know, such as vtysh and ip(8): an answer, or why there is none."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any

SECONDS = 10.0
"""How long a program may take unless told otherwise."""


class NotKnownError(Exception):
    """Nobody could be asked; the message says why."""


class NotHereError(NotKnownError):
    """There is no such program on this host."""


def text_of(command: Sequence[str], *, seconds: float = SECONDS) -> str:
    """Return what a program prints.

    Raises:
        NotHereError: it is not installed.
        NotKnownError: it may not be run, fails, or takes longer than `seconds`.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except FileNotFoundError as error:
        raise NotHereError(f"there is no {command[0]} here") from error
    except PermissionError as error:
        raise NotKnownError(f"not allowed to run {command[0]}") from error
    except subprocess.TimeoutExpired as error:
        raise NotKnownError(f"{command[0]} did not answer within {seconds:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise NotKnownError(f"{' '.join(command)}: {said[-1] if said else f'ended with {done.returncode}'}")
    return done.stdout


def json_of(command: Sequence[str], *, seconds: float = SECONDS) -> Any:
    """Return what a program prints, which is JSON or nothing; nothing is an empty list.

    Raises:
        NotKnownError: as for `text_of`, or it prints something else.
    """
    said = text_of(command, seconds=seconds)
    try:
        return json.loads(said or "[]")
    except ValueError as error:
        lines = said.strip().splitlines()
        raise NotKnownError(f"{command[0]} says: {lines[0] if lines else 'nothing'}") from error
