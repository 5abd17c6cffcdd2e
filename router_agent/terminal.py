"""Tables for people, on a terminal or in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

_FILE_WIDTH = 200


def print_tables(*tables: Table) -> None:
    """Print tables to standard output."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH  # a file or pipe has no width to fit into
    for table in tables:
        console.print(table)


def new_table(title: str, *columns: str, numbers: Sequence[str] = ()) -> Table:
    """Return a table without rows; columns of numbers come last and are aligned to the right."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in (*columns, *numbers):
        table.add_column(column, justify="right" if column in numbers else "left", overflow="fold")
    return table
