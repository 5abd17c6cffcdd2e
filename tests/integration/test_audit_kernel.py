"""The audit of a kernel FIB: read in one go beside the writes, which wait for none of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from router_agent.audit import Audit
from router_agent.feeds.kernel import KernelFeed
from router_agent.fibs.fib import FibRoutes
from router_agent.fibs.kernel import KernelFib
from router_agent.model import Family, Reason
from router_agent.pipeline import Pipeline

from .kernel_to_vpp import SECONDS, in_sync, ip, ports_in_namespace, running
from .test_kernel_fib import Forwarder

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

ROUTES = 3_000
PORTS = ("left", "right")
PROTOCOL = 201
FAST = 100_000.0


def prefix(number: int) -> str:
    return f"20.{number >> 8}.{number & 255}.0/24"


class Pausing(KernelFib):
    """A kernel FIB whose reading can be made to stand still after its first part."""

    def __init__(self, namespace: str, interfaces: dict[str, str]) -> None:
        super().__init__(namespace=namespace, protocol=PROTOCOL, metric=20, interfaces=interfaces)
        self.going = asyncio.Event()
        self.going.set()
        self.paused = asyncio.Event()

    async def read(self, family: Family, table: int) -> AsyncIterator[FibRoutes]:
        async for routes in super().read(family, table):
            yield routes
            if not self.going.is_set():
                self.paused.set()
                await self.going.wait()


class Plant:
    """A control plane with routes by two ports, and a forwarding plane which has ports for them."""

    def __init__(self, control: str, forwarding: str) -> None:
        self.control, self.forwarding = control, forwarding
        self.shown = Forwarder()
        self.shown.name = forwarding
        self.fib = Pausing(forwarding, {port: port for port in PORTS})
        self.pipeline = Pipeline(
            name="t",
            feed=KernelFeed(namespace=control, tables=(254,), resync_interval_seconds=0.1),
            fib=self.fib,
            tables={254: 254},
        )

    def routes(self) -> dict[str, str]:
        found = self.shown.shown(f"route show proto {PROTOCOL}")
        return {route["dst"]: f"{route['type']} {route.get('gateway')}" for route in found}


@pytest.fixture
def plant() -> Iterator[Plant]:
    with ExitStack() as stack:
        control = stack.enter_context(ports_in_namespace(*PORTS))
        forwarding = stack.enter_context(ports_in_namespace(*PORTS))
        ip(control, *(f"route add {prefix(n)} via 10.0.{n % 2}.9" for n in range(ROUTES)))
        yield Plant(control, forwarding)


def audit_of(plant: Plant, *, repair: bool = True) -> Audit:
    return Audit(plant.pipeline, rate=1_000, repair=repair, full_reading_seconds=0.0)


def spoil(plant: Plant) -> None:
    """Do under our own protocol what nobody but us should."""
    ip(
        plant.forwarding,
        *(f"route del {prefix(n)} proto {PROTOCOL} metric 20" for n in range(5)),
        *(f"route replace blackhole {prefix(n)} proto {PROTOCOL} metric 20" for n in range(100, 107)),
        f"route add blackhole 99.0.0.0/24 proto {PROTOCOL} metric 20",
    )


FAULTS = {Reason.LOST: 5, Reason.ALTERED: 7, Reason.STALE: 1}


async def test_what_another_did_is_found_with_its_reason_and_repaired(plant: Plant) -> None:
    async with running(plant.pipeline) as pipeline:
        before = plant.routes()
        assert len(before) >= ROUTES
        audit = audit_of(plant)
        clean = await audit.check(FAST)
        assert not clean.found
        assert clean.checked >= ROUTES
        spoil(plant)
        found = await audit.check(FAST)
        assert found.found == FAULTS
        await in_sync(pipeline)
        assert plant.routes() == before
        assert not (await audit.check(FAST)).found


async def test_a_report_stands_until_the_route_is_right_again(plant: Plant) -> None:
    async with running(plant.pipeline) as pipeline:
        audit = audit_of(plant, repair=False)
        before = plant.routes()
        spoil(plant)
        spoilt = plant.routes()
        assert (await audit.check(FAST)).found == FAULTS
        await in_sync(pipeline)
        assert plant.routes() == spoilt != before
        reconciler = next(r for r in pipeline.reconcilers.values() if r.family is Family.IPV4)
        assert len(reconciler.drifted) == 12
        ip(plant.forwarding, f"route add {prefix(0)} via 10.0.0.9 dev left proto {PROTOCOL} metric 20")
        assert (await audit.check(FAST)).found == {**FAULTS, Reason.LOST: 4}
        assert len(reconciler.drifted) == 11


async def test_changes_are_written_while_the_fib_is_read_and_are_no_fault(plant: Plant) -> None:
    async with running(plant.pipeline) as pipeline:
        audit = audit_of(plant)
        plant.fib.going.clear()
        checking = asyncio.create_task(audit.check(FAST))
        async with asyncio.timeout(SECONDS):
            await plant.fib.paused.wait()
        ip(
            plant.control,
            *(f"route replace {prefix(n)} via 10.0.{(n + 1) % 2}.9" for n in range(300)),
            *(f"route del {prefix(n)}" for n in range(300, 350)),
            *(f"route add 21.0.{n}.0/24 via 10.0.0.9" for n in range(50)),
        )
        async with asyncio.timeout(SECONDS):
            while (
                len(found := plant.routes()) < ROUTES or prefix(300) in found or "21.0.49.0/24" not in found
            ):
                await asyncio.sleep(0.01)
        assert not checking.done()
        await in_sync(pipeline)
        plant.fib.going.set()
        tally = await checking
        assert not tally.found
        assert not audit.repaired
        assert plant.routes()[prefix(0)] == "unicast 10.0.1.9"


def test_a_table_that_is_read_in_a_moment_is_not_read_all_the_time(plant: Plant) -> None:
    async def shortest() -> tuple[float, float]:
        async with running(plant.pipeline):
            held = sum(len(reconciler.held) for reconciler in plant.pipeline.reconcilers.values())
            audit = Audit(plant.pipeline, rate=100, repair=True, full_reading_seconds=0.0)
            return audit._shortest_pass(), held / 100

    found, wanted = asyncio.run(shortest())
    assert found == wanted >= ROUTES / 100
