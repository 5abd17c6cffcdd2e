"""One virtual POP host for all acceptance tests: bare, then converged, and back to that after each test.

Its whole state, memory and disk, is kept twice: when the bare Debian has booted, and when site.yml has made a
router of it. A test that changes the router says so by asking for `converged` instead of `router`: it is put
back afterwards.

    VPP_DEBS=DIR make acceptance        VPP forwards; without, the kernel
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import testinfra
import testinfra.host

from router_agent.lab.errors import LabError
from router_agent.lab.vm.plan import HOST
from router_agent.lab.vm.play import PlayResult
from router_agent.lab.vm.pop import VirtualPop

BUILD = Path(__file__).parents[2] / "build" / "vm"
NAME = "accept"

BARE, CONVERGED = "bare", "converged"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and say why."""
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs root: namespaces, taps, an image owned by root"))


@dataclass(frozen=True, slots=True)
class Router:
    """The host after site.yml has run on it for the first time.

    Attributes:
        pop: the host and what is around it.
        first: what the first run did.
        reboots: how many kernels started during it.
    """

    pop: VirtualPop
    first: PlayResult
    reboots: int


@pytest.fixture(scope="session")
def pop(pytestconfig: pytest.Config) -> Iterator[VirtualPop]:
    """The host, off, with a fresh disk; its neighbours run."""
    debs = os.environ.get("VPP_DEBS")
    found = VirtualPop(NAME, build=BUILD, vpp_debs=Path(debs) if debs else None)
    with found.lock():
        try:
            found.prepare(lambda text: print(text, flush=True))
            found.fresh_disk()
            found.neighbours.start()
            yield found
        finally:
            found.take_down()
            print(f"logs: {found.logs}")


@pytest.fixture(scope="session")
def bare(pop: VirtualPop) -> VirtualPop:
    """The host, a bare Debian that has booted."""
    pop.machine.pull_the_plug()
    pop.fresh_disk()
    pop.boot()
    settle(pop)
    pop.host.disconnect()
    pop.machine.save(BARE)
    return pop


@pytest.fixture(scope="session")
def router(bare: VirtualPop) -> Router:
    """The host as a router, for tests that leave it as it is."""
    before = bare.boots()
    first = bare.site(allow_reboot=True).require_success()
    reboots = bare.boots() - before
    bare.wait_sessions()
    bare.meet_neighbours()
    bare.host.disconnect()
    bare.machine.save(CONVERGED)
    return Router(bare, first, reboots)


@pytest.fixture
def converged(router: Router) -> Iterator[VirtualPop]:
    """The host as a router, for tests that change it: it is put back afterwards."""
    yield router.pop
    go_back(router.pop, CONVERGED)


@pytest.fixture
def server(router: Router) -> testinfra.host.Host:
    """The router as testinfra sees it."""
    return testinfra.get_host(f"ssh://{HOST}", ssh_config=str(router.pop.host.ssh_config))


def go_back(pop: VirtualPop, state: str) -> None:
    """Bring a state back: memory, disk, and the neighbours' sessions; the clock is set right."""
    pop.host.disconnect()
    if not pop.machine.running:
        pop.machine.power_on(pop.hardware)
    pop.machine.restore(state)
    pop.wait_up()
    pop.host.run(f"date --set=@{time.time():.0f}")
    if state == CONVERGED:
        # Their connections are those of the state that was left.
        pop.neighbours.restart_sessions()
        pop.wait_sessions()


def power_cycle(pop: VirtualPop) -> None:
    """Take the power away, give it back, and wait until everything that starts at boot has started."""
    booted = pop.host.boot_id()
    pop.host.disconnect()
    pop.machine.pull_the_plug()
    pop.machine.power_on(pop.hardware)
    pop.wait_up(other_than=booted)
    settle(pop)


def settle(pop: VirtualPop) -> None:
    """Wait until everything that starts at boot has started.

    Raises:
        LabError: something failed.
    """
    state = pop.host.try_run("systemctl is-system-running --wait", seconds=600).stdout.strip()
    if state != "running":
        failed = pop.host.run("systemctl --failed --no-legend --plain")
        raise LabError(f"{HOST}: found the system {state}, expected it running; failed: {failed}")
