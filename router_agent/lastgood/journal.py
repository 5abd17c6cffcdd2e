"""What is done, a line each: to the journal with its priority, or to the person who called."""

from __future__ import annotations

import contextlib
import os
import sys

ERROR, WARNING, NOTICE, INFO = 3, 4, 5, 6
"""Priorities of syslog(3), as sd-daemon(3) writes them before a line."""


def say(priority: int, text: str) -> None:
    """Write a line. Nobody to read it is no reason to stop."""
    prefix = f"<{priority}>" if "JOURNAL_STREAM" in os.environ else ""
    with contextlib.suppress(OSError, ValueError):
        print("".join(f"{prefix}{line}\n" for line in text.splitlines()), end="", file=sys.stderr, flush=True)
