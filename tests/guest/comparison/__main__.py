"""Compare on this machine; it needs what linux-cp needs (vhost-net), VPP with both plugins, and root.

    python3 -m tests.guest.comparison --ipv4 100000 --ipv6 20000

Prints the tables and writes them as JSON. Exit code 0 when every step was measured, whatever came of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from router_agent.model import Family

from .bed import BareBed, Bed
from .contenders import contenders
from .report import show
from .steps import compare_one


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    known = contenders()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ipv4", type=int, default=100_000, help="IPv4 routes")
    parser.add_argument("--ipv6", type=int, default=20_000, help="IPv6 routes")
    parser.add_argument("--patience", type=float, default=90.0, help="seconds a step may take")
    parser.add_argument("--who", action="append", choices=sorted(known), help="whom, in this order")
    parser.add_argument("--twice", action="store_true", help="a second time in the opposite order")
    parser.add_argument("--bare", action="store_true", help="without TAPs: no links, any kernel will do")
    parser.add_argument("--vpp", default="vpp", metavar="PROGRAM", help="VPP with linux-nl beside it")
    parser.add_argument("--json", type=Path, default=Path("comparison.json"), metavar="FILE")
    options = parser.parse_args(arguments)
    order = options.who or list(known)
    sizes = {Family.IPV4: options.ipv4, Family.IPV6: options.ipv6}
    bed = BareBed if options.bare else Bed
    runs: list[dict[str, Any]] = []
    document: dict[str, Any] = {
        "title": "Without TAPs" if options.bare else "With TAPs",
        "conditions": _conditions(sizes, options.vpp, bed),
        "settings": {name: known[name].settings for name in order},
        "runs": runs,
    }
    for names in [order, order[::-1]] if options.twice else [order]:
        run: dict[str, Any] = {"order": names, "steps": [], "cases": []}
        runs.append(run)
        for name in names:
            steps, cases = asyncio.run(
                compare_one(
                    contenders()[name],
                    sizes,
                    bed_of=partial(bed, binary=options.vpp),
                    patience=options.patience,
                    say=_say,
                )
            )
            run["steps"] += [result.as_json() for result in steps]
            run["cases"] += [case.as_json() for case in cases]
            options.json.write_text(json.dumps(document, indent=1) + "\n")
    show(document)
    return 0


def _conditions(sizes: dict[Family, int], program: str, bed: type[Bed]) -> str:
    version = subprocess.run([program, "-version"], check=True, capture_output=True, text=True).stdout
    model = next(
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    routes = ", ".join(f"{count:,} {family.label} routes" for family, count in sizes.items())
    return (
        f"{routes}; {' '.join(version.split()[:2])}, "
        f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} x {model}; "
        f"VPP looked at every {bed.poll} s.{bed.remark}"
    )


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
