"""Ansible filter: the report of a host, as lines of text."""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADINGS = {
    "port": "port",
    "device": "PCI address",
    "nic": "NIC",
    "driver": "driver",
    "node": "NUMA",
    "group": "IOMMU group",
    "link": "link",
    "at_64_bytes": "64-byte frames",
}
FIELDS = ("found", "expected", "remedy")


def preflight_report(parts: Sequence[Mapping[str, Any]], host: str) -> dict[str, Any]:
    """Put the results of all checks together.

    Args:
        parts: results of the checks, {problems, notes} and, as wanted, {nics}.
        host: name of the host in the inventory.

    Returns:
        {problems: [{host, variable, found, expected, remedy}], lines: [text]}.
    """
    problems = unique([{"host": host, **entry} for part in parts for entry in part["problems"]])
    notes = list(dict.fromkeys(note for part in parts for note in part["notes"]))
    rows = [row for part in parts for row in part.get("nics", [])]
    lines = [verdict(len(problems), host), *table(rows), *remarks(notes), *listing(problems)]
    return {"problems": problems, "lines": lines}


def verdict(count: int, host: str) -> str:
    """The report in a line."""
    return f"{host}: {count} problem{'' if count == 1 else 's'}" if count else f"{host}: nothing wrong"


def unique(problems: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Each problem once, in its place."""
    return [entry for index, entry in enumerate(problems) if entry not in problems[:index]]


def table(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows under headings, in columns."""
    if not rows:
        return []
    cells = [HEADINGS, *rows]
    widths = {key: max(len(row[key]) for row in cells) for key in HEADINGS}
    return ["  ".join(row[key].ljust(widths[key]) for key in HEADINGS).rstrip() for row in cells]


def remarks(notes: Sequence[str]) -> list[str]:
    """What need not be changed."""
    return [f"note: {note}" for note in notes]


def listing(problems: Sequence[Mapping[str, str]]) -> list[str]:
    """Every problem: host and variable, what was found, what was expected, what to do."""
    lines: list[str] = []
    for number, entry in enumerate(problems, start=1):
        lines.append(f"{number}. {entry['host']}: {entry['variable']}")
        lines += [f"   {field.ljust(8)} {entry[field]}" for field in FIELDS]
    return lines


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {"preflight_report": preflight_report}
