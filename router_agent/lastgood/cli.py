"""``router-agent last-good``: hands over to the program on the host.

That is another program than the agent, because the agent's environment is among the things a change
replaces. Role commit_confirm installs it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

PROGRAM = Path("/usr/local/lib/pop-router/last-good")
_FAILED = 4


def last_good(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="save, arm, disarm, rollback or status, and its options.")
    ] = None,
) -> None:
    """Keep the last good configuration, arm and disarm the way back to it, go back."""
    if not os.access(PROGRAM, os.X_OK):
        print(
            f"{PROGRAM}: found no such program, expected that of role commit_confirm: run playbooks/site.yml "
            "with --tags commit_confirm",
            file=sys.stderr,
        )
        raise typer.Exit(_FAILED)
    os.execv(PROGRAM, [str(PROGRAM), *(arguments or ["--help"])])  # noqa: S606 - a program of ours, no shell
