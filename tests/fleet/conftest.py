"""One fleet for all tests: three routers of two POPs, built by the unmodified playbooks, in containers.

What each change cost is printed as a table at the end of the run, and written to build/fleet.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from costs import write_down
from router_agent.lab.containers.fixtures import containers
from router_agent.lab.containers.hosts import Containers
from router_agent.terminal import new_table

from .plan import ROOMS, ROUTERS, WIRES
from .pops import Fleet, Traffic

__all__ = ["containers"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a change cost, as the tester saw it.

    Attributes:
        what: was done.
        pop: whose packets: those to it and those from it.
        sent: packets.
        lost: of those.
        lossy_seconds: how long packets of any POP were lost, in intervals of 10 ms that had a loss.
        seconds: how long it took in all.
    """

    what: str
    pop: str
    sent: int
    lost: int
    lossy_seconds: float
    seconds: float


COSTS = pytest.StashKey[list[Cost]]()
REPORT = Path(__file__).parents[2] / "build" / "fleet.json"


def pytest_configure(config: pytest.Config) -> None:
    """Make room for what tests find out."""
    config.stash[COSTS] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what each change cost, and write it down."""
    found = terminalreporter.config.stash[COSTS]
    if not found:
        return
    numbers = ("sent", "lost", "lossy s", "in all s")
    table = new_table("what changes cost", "change", "POP", numbers=numbers)
    for row in found:
        seconds = (f"{row.lossy_seconds:.2f}", f"{row.seconds:.0f}")
        table.add_row(row.what, row.pop, f"{row.sent:,}", f"{row.lost:,}", *seconds)
    write_down(terminalreporter, table, found, REPORT)


@pytest.fixture(scope="session")
def fleet(containers: Callable[..., Containers]) -> Iterator[Fleet]:
    """The routers, built, with traffic going everywhere; a test leaves them so."""
    names = [router.name for router in ROUTERS]
    with containers(*names, rooms=ROOMS, wires=WIRES) as lab:
        fleet = Fleet(lab)
        fleet.build()
        yield fleet


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[[str, Traffic], dict[str, int]]:
    """What writes down the cost of a change, once its traffic has ended; it returns the losses by POP."""

    def write(what: str, traffic: Traffic) -> dict[str, int]:
        account = traffic.account()
        request.config.stash[COSTS] += [
            Cost(what, pop, sent, lost, traffic.lossy_seconds(), traffic.result.duration_s)
            for pop, (sent, lost) in account.items()
        ]
        return {pop: lost for pop, (_, lost) in account.items()}

    return write
