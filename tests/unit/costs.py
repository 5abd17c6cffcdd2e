"""What tests have measured: a table at the end of their run, and a file beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_WIDTH = 150


def write_down(
    terminal: pytest.TerminalReporter, table: Table, rows: Sequence[DataclassInstance], file: Path
) -> None:
    """Print a table, and write its rows as JSON to a file in build/."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    console = Console(width=_WIDTH)
    with console.capture() as captured:
        console.print(table)
    terminal.write(captured.get())
