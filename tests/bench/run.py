"""Run the benchmarks: print a table, write build/bench.json, put the figures into the documentation.

Each tests/bench/bench_NAME.py has ``rows()``, which measures and returns ``{name, value, unit, target,
reached, conditions}`` for each figure; an empty list says that this machine cannot be measured. Every file
runs in a process of its own, so that one's memory and crashes are not another's. Benchmarks report and never
fail for being slow.

Exit code: 0 when every file gave its figures, 1 when one could not be run, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence, Set
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table

Row: TypeAlias = dict[str, Any]

HERE = Path(__file__).parent
RESULT = HERE.parents[1] / "build" / "bench.json"
FIELDS = ("name", "value", "unit", "target", "reached", "conditions")
SECONDS = 900
"""Longest time one file may take."""
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", metavar="NAME", help="run only bench_NAME.py; keep the other figures")
    parser.add_argument(
        "--document", type=Path, metavar="FILE", help="put the figures there; measure nothing"
    )
    parser.add_argument("--measure", nargs=2, type=Path, metavar=("FILE", "RESULT"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        return _measure(*options.measure)
    if options.document:
        return _document(options.document)
    files = sorted(HERE.glob("bench_*.py"))
    if options.only:
        files = [file for file in files if file.stem == f"bench_{options.only.removeprefix('bench_')}"]
    if not files:
        known = ", ".join(sorted(file.stem.removeprefix("bench_") for file in HERE.glob("bench_*.py")))
        parser.error(f"found no bench_{options.only}.py, expected one of: {known}")
    return _run(files, keep=options.only is not None)


def _run(files: Sequence[Path], *, keep: bool) -> int:
    console = Console(stderr=True)
    rows: list[Row] = []
    failed = False
    for file in files:
        console.print(f"[bold]{file.stem}[/] ...")
        measured, problem = _measured_apart(file)
        if problem:
            failed = True
            measured = [_row(name=file.stem, value=None, unit="", conditions=f"could not be run: {problem}")]
        elif not measured:
            console.print(f"{file.stem} cannot be measured on this machine")
        rows.extend(measured)
    replaced = {row["name"] for row in rows} | {file.stem for file in files}
    _write([*(_kept(replaced) if keep else []), *rows])
    _print(rows)
    return 1 if failed else 0


def _measured_apart(file: Path) -> tuple[list[Row], str]:
    """Run one file in a process of its own; return its rows, or what went wrong in one line."""
    with tempfile.TemporaryDirectory() as directory:
        result = Path(directory) / "rows.json"
        command = [sys.executable, __file__, "--measure", str(file), str(result)]
        try:
            done = subprocess.run(command, check=False, timeout=SECONDS, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return [], f"no end after {SECONDS} s"
        if not result.exists():
            return [], f"exit status {done.returncode} and no figures"
        answer = json.loads(result.read_text())
        return answer["rows"], answer["problem"]


def _measure(file: Path, result: Path) -> int:
    """In the process of its own: import one file, call its ``rows``, write what came of it."""
    rows: list[Row] = []
    problem = ""
    before = _loop_seconds()
    try:
        module = _imported(file)
        measured = module.rows()
        speed = f"loop {before:.2f} s before, {_loop_seconds():.2f} s after"
        rows = [_row(**{**row, "conditions": f"{row['conditions']}; {speed}"}) for row in measured]
    except Exception as error:  # noqa: BLE001 - any failure of a benchmark is a row of the table
        traceback.print_exc()
        problem = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    result.write_text(json.dumps({"rows": rows, "problem": problem}))
    return 0


def _imported(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _row(
    *, name: str, value: float | None, unit: str, conditions: str, target: float | str | None = None,
    reached: bool | None = None,
) -> Row:  # fmt: skip
    conditions = f"{conditions}; {_machine()}"
    values = (name, value if value is None else float(value), unit, target, reached, conditions)
    return dict(zip(FIELDS, values, strict=True))


def _loop_seconds() -> float:
    """Time five million additions in Python: on a shared host the same CPU is not always as fast."""
    began = time.perf_counter()
    total = 0
    for number in range(5_000_000):
        total += number
    return time.perf_counter() - began


def _machine() -> str:
    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    cpus = len(os.sched_getaffinity(0))
    return f"{cpus} x {model}, Linux {platform.release()}, Python {platform.python_version()}"


def _kept(replaced: Set[str]) -> list[Row]:
    """Return the figures of earlier runs, without those that were measured again."""
    if not RESULT.exists():
        return []
    return [row for row in json.loads(RESULT.read_text()) if row["name"] not in replaced]


def _write(rows: Sequence[Row]) -> None:
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(rows, indent=2) + "\n")


def _print(rows: Sequence[Row]) -> None:
    machine, cells = _cells(rows)
    table = Table(title=machine, title_justify="left", box=box.SIMPLE_HEAD)
    for column, justify in (("figure", "left"), ("value", "right"), ("target", "right"), ("reached", "left")):
        table.add_column(column, justify=justify, no_wrap=column != "figure")  # type: ignore[arg-type]
    table.add_column("conditions")
    for row in cells:
        table.add_row(*row)
    console = Console()
    if not console.is_terminal:
        console.width = 200  # a file or pipe has no width to fit into
    console.print(table)
    console.print(f"written to {RESULT}")


def _document(file: Path) -> int:
    """Put the table between the markers of a Markdown file."""
    if not RESULT.exists():
        print(f"found no {RESULT}, expected the figures of a run; run make bench first", file=sys.stderr)
        return 2
    text = file.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        print(f"found no {BEGIN} ... {END} in {file}, expected the place for the figures", file=sys.stderr)
        return 2
    machine, cells = _cells(json.loads(RESULT.read_text()))
    lines = [f"Measured on {machine}.", "", "| figure | value | target | reached | conditions |"]
    lines += ["|---|---:|---:|---|---|", *(f"| {' | '.join(_escaped(row))} |" for row in cells)]
    file.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after)
    return 0


def _escaped(cells: Sequence[str]) -> list[str]:
    return [cell.replace("|", "\\|") for cell in cells]


def _cells(rows: Sequence[Row]) -> tuple[str, list[tuple[str, ...]]]:
    """Return the machine that all rows share, if they do, and the table's cells."""
    machines = {row["conditions"].rpartition("; ")[2] for row in rows}
    shared = machines.pop() if len(machines) == 1 else ""
    cells: list[tuple[str, ...]] = []
    for row in rows:
        reached = {None: "", True: "yes", False: "no"}[row["reached"]]
        conditions = row["conditions"].removesuffix(f"; {shared}") if shared else row["conditions"]
        value = "failed" if row["value"] is None else f"{_figure(row['value'])} {row['unit']}".strip()
        cells.append((row["name"], value, _target(row), reached, conditions))
    return shared or "several machines", cells


def _target(row: Row) -> str:
    """Return a target with its direction, which follows from whether it was reached."""
    target, value = row["target"], row["value"]
    if target is None or isinstance(target, str) or value is None:
        return target or ""
    if value == target:
        return _figure(target)
    at_least = (value >= target) is row["reached"]
    return f"{'>=' if at_least else '<='} {_figure(target)}"


def _figure(value: float) -> str:
    """Return a number with three significant digits, or all digits before the point."""
    if not math.isfinite(value):
        return str(value)
    decimals = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{min(decimals, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


if __name__ == "__main__":
    raise SystemExit(main())
