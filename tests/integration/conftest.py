"""Labs for integration tests: names nobody else has, and everything taken down whatever happens.

A test that wants a lab of its own asks for `lab_name` and enters `Lab`; those that may share one use the
module's. Tests marked ``vpp`` are skipped where there is none.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from costs import write_down
from router_agent.lab.containers.fixtures import containers
from router_agent.lab.plane import vpp_available
from router_agent.lab.topology import Topology
from router_agent.terminal import new_table

__all__ = ["containers"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What a fault cost.

    Attributes:
        name: what was done.
        fib: ``kernel`` or ``vpp``.
        prefixes: in the FIB afterwards.
        sent: packets, from before the fault until after the FIB was right again.
        lost: of those.
        lossy_seconds: how long packets were lost, in intervals of 10 ms that had a loss.
        in_sync_seconds: from the fault until BGP, kernel and FIB agreed again.
        stale: prefixes in the FIB then that the kernel did not have; missing and different likewise.
    """

    name: str
    fib: str
    prefixes: int
    sent: int
    lost: int
    lossy_seconds: float
    in_sync_seconds: float
    stale: int
    missing: int
    different: int


FAULTS = pytest.StashKey[list[Fault]]()
REPORT = Path(__file__).parents[2] / "build" / "faults.json"


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what tests find out."""
    config.stash[FAULTS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each fault cost, and write it to build/faults.json."""
    found = terminalreporter.config.stash[FAULTS]
    if not found:
        return
    headings = ("prefixes", "sent", "lost", "lossy s", "in sync s", "stale", "missing", "different")
    table = new_table("what faults cost", "fault", "FIB", numbers=headings)
    for row in found:
        counts = (f"{n:,}" for n in (row.prefixes, row.sent, row.lost))
        seconds = (f"{s:.2f}" for s in (row.lossy_seconds, row.in_sync_seconds))
        wrong = (f"{n:,}" for n in (row.stale, row.missing, row.different))
        table.add_row(row.name, row.fib, *counts, *seconds, *wrong)
    write_down(terminalreporter, table, found, REPORT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and say why."""
    reasons = {
        "root": None if os.geteuid() == 0 else "needs root",
        "vpp": None if vpp_available() else "needs a real VPP; `vpp` is not on PATH",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def lab_name() -> Iterator[str]:
    """A lab's name; whatever is left of it at the end is removed."""
    yield from _named()


@pytest.fixture(scope="module")
def module_lab_name() -> Iterator[str]:
    """A lab's name for all tests of a module."""
    yield from _named()


def _named() -> Iterator[str]:
    name = f"t{secrets.token_hex(4)}"
    yield name
    topology = Topology(name)
    if topology.present:
        topology.remove()
