"""The tables of a comparison: in a terminal, and in docs/comparison.md.

python -m tests.guest.comparison.report build/comparison.json build/comparison-bare.json docs/comparison.md
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

_STEP_COLUMNS = (
    "step",
    "who",
    "right after",
    "routes/s",
    "CPU s: VPP, agent",
    "MiB: VPP, agent",
    "wrong at the end",
)


def show(document: Mapping[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    if not console.is_terminal:
        console.width = 200
    for number, run in enumerate(document["runs"], 1):
        table = Table(
            title=f"run {number}: {', '.join(run['order'])}", box=box.SIMPLE_HEAD, title_justify="left"
        )
        for column in _STEP_COLUMNS:
            table.add_column(column)
        for cells in _step_cells(run["steps"]):
            table.add_row(*cells)
        console.print(table)
        table = Table(box=box.SIMPLE_HEAD)
        for column in ("case", *run["order"]):
            table.add_column(column)
        for cells in _case_cells(run["cases"], run["order"]):
            table.add_row(*cells)
        console.print(table)


def markdown(document: Mapping[str, Any]) -> str:
    """Return the tables as docs/comparison.md holds them."""
    lines = [f"### {document['title']}", "", document["conditions"], ""]
    for who, settings in document["settings"].items():
        lines.append(f"- **{who}**: {settings}.")
    for number, run in enumerate(document["runs"], 1):
        lines += ["", f"#### Run {number}: {', then '.join(run['order'])}", ""]
        lines += _table(
            _STEP_COLUMNS, ("---", "---", "---:", "---:", "---:", "---:", "---"), _step_cells(run["steps"])
        )
        lines += ["", f"Single prefixes, run {number}:", ""]
        columns = ("case", *run["order"])
        lines += _table(columns, ("---",) * len(columns), _case_cells(run["cases"], run["order"]))
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rule: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [
        f"| {' | '.join(columns)} |",
        f"|{'|'.join(rule)}|",
        *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows),
    ]


def _step_cells(results: Sequence[Row]) -> list[tuple[str, ...]]:
    steps = list(dict.fromkeys(result["step"] for result in results))
    rows = []
    for step in steps:
        for place, result in enumerate(r for r in results if r["step"] == step):
            rows.append((step if place == 0 else "", result["contender"], *_figures(result)))
    return rows


def _figures(result: Row) -> tuple[str, ...]:
    seconds = result["seconds"]
    wrong = [f"{result[kind]:,} {kind}" for kind in ("missing", "stale", "different") if result[kind]]
    return (
        f"{seconds:.1f} s" if seconds is not None else f"not in {result['patience']:.0f} s",
        f"{result['routes'] / seconds:,.0f}" if seconds and result["routes"] else "",
        f"{result['vpp_cpu']:.1f}, {result['agent_cpu']:.1f}"
        if result["agent_rss"]
        else f"{result['vpp_cpu']:.1f}",
        f"{result['vpp_rss']:.0f}, {result['agent_rss']:.0f}"
        if result["agent_rss"]
        else f"{result['vpp_rss']:.0f}",
        ", ".join(wrong) or "nothing",
    )


def _case_cells(cases: Sequence[Row], order: Sequence[str]) -> list[tuple[str, ...]]:
    names = list(dict.fromkeys(case["case"] for case in cases))
    found = {(case["case"], case["contender"]): case for case in cases}
    return [(name, *(_verdict(found.get((name, who))) for who in order)) for name in names]


def _verdict(case: Row | None) -> str:
    if case is None:
        return ""
    return "right" if case["right"] else f"**wrong**, {case['found']}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Put the figures of a comparison between the markers of a Markdown file; return the exit code."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("figures", type=Path, nargs="+")
    parser.add_argument("document", type=Path)
    options = parser.parse_args(arguments)
    if absent := [str(file) for file in options.figures if not file.exists()]:
        print(f"found no {', '.join(absent)}; run make compare and make compare-bare", file=sys.stderr)
        return 2
    before, begin, rest = options.document.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"found no {BEGIN} ... {END} in {options.document}", file=sys.stderr)
        return 2
    tables = "\n".join(markdown(json.loads(file.read_text())) for file in options.figures)
    options.document.write_text(f"{before}{BEGIN}\n{tables}{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
