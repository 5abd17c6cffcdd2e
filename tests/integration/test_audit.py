"""The audit against a real kernel and a real VPP, whose FIB somebody else changes under our own source.

What a second client removes, changes or adds is found with its reason; it is repaired, or left where only a
report was asked for; and what the pipeline itself is writing is never taken for a fault.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import random
import socket
import struct
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath

import numpy as np
import pytest

from router_agent.audit import Audit, AuditBrokenOffError, _Pace
from router_agent.feeds.kernel import KernelFeed
from router_agent.fibs.fib import LookedUp
from router_agent.fibs.vpp import VppFib
from router_agent.model import (
    ABSENT,
    U64,
    Changes,
    Failures,
    Family,
    Path,
    PathSet,
    Reason,
    RouteType,
    keys_of,
)
from router_agent.observe import inspect
from router_agent.observe.answers import State
from router_agent.pipeline import Pipeline
from router_agent.vpp.next_hops import DEFAULT_TABLE
from router_agent.vpp.process import VppProcess

from .intruder import Intruder
from .kernel_to_vpp import SECONDS, in_sync, ip, new_pipeline, ports_in_namespace, running

pytestmark = [pytest.mark.root, pytest.mark.vpp]

ROUTES = 3_000
PORTS = {"left": "loop0", "right": "loop1"}
FAST = 100_000.0
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
"""asm-generic/socket.h; not in Python's socket module."""
BLACKHOLE = PathSet(RouteType.BLACKHOLE)


def prefix(number: int) -> str:
    return f"20.{number >> 8}.{number & 255}.0/24"


def prefix6(number: int) -> str:
    return f"2001:db8:{number:x}::/48"


@pytest.fixture
def namespace() -> Iterator[str]:
    """Two ports with addresses, and routes through them."""
    with ports_in_namespace(*PORTS) as name:
        add_routes(name, ROUTES)
        yield name


def add_routes(namespace: str, count: int, verb: str = "add") -> None:
    ip(namespace, *(f"route {verb} {prefix(n)} via 10.0.{n % 2}.9" for n in range(count)))
    ip(
        namespace,
        *(f"route {verb} {prefix6(n)} via 2001:db8:ffff:{n % 2}::9" for n in range(count // 10)),
    )


@pytest.fixture
def vpp() -> Iterator[VppProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="vpp") as directory,
        VppProcess(runtime_dir=FilePath(directory), heap="512M", buffers=2048, plugins=()) as process,
    ):
        for number in range(2):
            process.cli("create loopback interface")
            process.cli(f"set interface state loop{number} up")
        yield process


def between(namespace: str, vpp: VppProcess) -> Pipeline:
    return new_pipeline(namespace, vpp, PORTS)


def audit_of(pipeline: Pipeline, *, repair: bool = True, full_reading_seconds: float = 0.0) -> Audit:
    return Audit(pipeline, rate=1_000, repair=repair, full_reading_seconds=full_reading_seconds)


async def test_what_another_client_did_is_found_with_its_reason_and_repaired(
    namespace: str, vpp: VppProcess
) -> None:
    async with running(between(namespace, vpp)) as pipeline, Intruder(vpp.api_socket) as intruder:
        before = await intruder.routes()
        assert len(before) >= ROUTES + ROUTES // 10
        audit = audit_of(pipeline)
        clean = await audit.check(FAST)
        assert not clean.found
        assert clean.checked == len(before)
        gone, changed = [prefix(n) for n in range(5)], [prefix(n) for n in range(100, 107)]
        await intruder.put(gone, None)
        await intruder.put(changed, BLACKHOLE)
        await intruder.put([prefix6(3)], None)
        found = await audit.check(FAST)
        assert found.found == {Reason.LOST: 6, Reason.ALTERED: 7}
        assert {r.prefix for r in found.rows if r.reason is Reason.LOST} == {*gone, prefix6(3)}
        assert {r.prefix for r in found.rows if r.reason is Reason.ALTERED} == set(changed)
        assert {r.held for r in found.rows if r.reason is Reason.ALTERED} == {("blackhole",)}
        assert {r.wanted for r in found.rows if r.prefix == prefix(0)} == {("via 10.0.0.9 dev loop0",)}
        await in_sync(pipeline)
        assert await intruder.routes() == before
        assert not (await audit.check(FAST)).found
        assert audit.repaired == 13


async def test_what_vpp_refused_is_asked_for_again(namespace: str, vpp: VppProcess) -> None:
    async with running(between(namespace, vpp)) as pipeline, Intruder(vpp.api_socket) as intruder:
        before = await intruder.routes()
        reconciler = next(r for r in pipeline.reconcilers.values() if r.family is Family.IPV4)
        key = keys_of([ip_network(prefix(7))])
        async with pipeline.quiet:
            # As it is after VPP refused it for a reason that has passed since.
            await intruder.put([prefix(7)], None)
            path = reconciler.held_paths(key)
            reconciler.correct(key, np.zeros(1, np.uint32))
            write = Changes(Family.IPV4, reconciler.table, key, path, np.zeros(1, np.uint32))
            reconciler.settle(write, Failures(np.array([0]), np.array([-7], np.int32)))
        assert reconciler.unplaced() == {Reason.REJECTED: 1}
        await audit_of(pipeline, repair=False).check(FAST)
        assert reconciler.unplaced() == {Reason.REJECTED: 1}
        await audit_of(pipeline).check(FAST)
        await in_sync(pipeline)
        assert await intruder.routes() == before
        assert reconciler.unplaced() == {}


async def test_next_hop_entries_and_routes_through_them_are_audited_alike(
    namespace: str, vpp: VppProcess
) -> None:
    pipeline = new_pipeline(namespace, vpp, PORTS, recursion=True)
    async with running(pipeline), Intruder(vpp.api_socket) as intruder:
        audit = audit_of(pipeline)
        clean = await audit.check(FAST)
        assert (clean.found, clean.shared) == ({}, 0)
        before, entries = await intruder.routes(), await intruder.routes(DEFAULT_TABLE)
        assert len(entries) >= 4
        four = sorted(p for p in entries if "." in p)
        await intruder.put(four[:1], BLACKHOLE, DEFAULT_TABLE)
        await intruder.put(four[1:2], None, DEFAULT_TABLE)
        await intruder.put([prefix(7)], None)
        found = await audit.check(FAST)
        assert (found.shared, found.found) == (2, {Reason.LOST: 1})
        await in_sync(pipeline)
        assert await intruder.routes(DEFAULT_TABLE) == entries
        assert await intruder.routes() == before
        again = await audit.check(FAST)
        assert (again.found, again.shared) == ({}, 0)


async def test_stale_routes_raise_a_doubt_that_a_full_reading_settles(
    namespace: str, vpp: VppProcess
) -> None:
    async with running(between(namespace, vpp)) as pipeline, Intruder(vpp.api_socket) as intruder:
        before = await intruder.routes()
        strange = [f"30.0.{n}.0/24" for n in range(9)] + ["30.1.0.0/16"]
        await intruder.put(strange, BLACKHOLE)
        await intruder.put(["2001:db8:aaaa::/48"], BLACKHOLE)
        never = audit_of(pipeline)
        doubtful = await never.check(FAST)
        assert not doubtful.found
        assert doubtful.unexplained == 11
        assert never.readings == 0
        audit = audit_of(pipeline, full_reading_seconds=3600)
        found = await audit.check(FAST)
        assert found.found == {Reason.STALE: 11}
        assert audit.readings == 1
        await in_sync(pipeline)
        assert await intruder.routes() == before
        assert (await audit.check(FAST)).unexplained == 0


async def test_routes_of_another_owner_are_a_doubt_once_and_stay(namespace: str, vpp: VppProcess) -> None:
    async with running(between(namespace, vpp)) as pipeline:
        vpp.cli("ip route add 40.0.0.0/24 via drop")
        audit = audit_of(pipeline, full_reading_seconds=3600)
        assert not (await audit.check(FAST)).found
        assert audit.readings == 1
        assert (await audit.check(FAST)).unexplained == 0
        assert audit.readings == 1
        assert "CLI" in vpp.cli("show ip fib 40.0.0.0/24")


async def test_a_report_leaves_everything_and_says_so(namespace: str, vpp: VppProcess) -> None:
    async with running(between(namespace, vpp)) as pipeline, Intruder(vpp.api_socket) as intruder:
        audit = audit_of(pipeline, repair=False)
        await intruder.put([prefix(1)], None)
        await intruder.put([prefix(2)], BLACKHOLE)
        after = await intruder.routes()
        for _ in range(2):
            assert (await audit.check(FAST)).found == {Reason.LOST: 1, Reason.ALTERED: 1}
            await in_sync(pipeline)
            assert await intruder.routes() == after
        counts = inspect.pipeline_status(pipeline, "kernel", "vpp", audit).counts
        assert counts[0].not_in_fib == {Reason.LOST: 1, Reason.ALTERED: 1}
        assert inspect.audit_status(audit).standing == 2
        ip(namespace, f"route replace {prefix(1)} via 10.0.0.9")
        async with asyncio.timeout(SECONDS):
            while inspect.audit_status(audit).standing != 1:
                await asyncio.sleep(0.01)
        pipeline.resync()
        async with asyncio.timeout(SECONDS):
            while prefix(2) not in await intruder.routes() or (await audit.check(FAST)).found:
                await in_sync(pipeline)
        assert inspect.audit_status(audit).standing == 0


async def test_covered_routes_are_no_fault_and_a_restart_writes_nothing(
    namespace: str, vpp: VppProcess
) -> None:
    for number, port in enumerate(PORTS.values()):
        vpp.cli(f"set interface ip address {port} 10.0.{number}.1/24")
    async with running(between(namespace, vpp)) as pipeline:
        found = await audit_of(pipeline).check(FAST)
        assert (found.covered, found.found, found.unexplained) == (2, {}, 0)
        assert not (await audit_of(pipeline).read()).found
    async with running(between(namespace, vpp)) as pipeline:
        writes = pipeline.counts.writes
        assert (writes.added, writes.replaced, writes.deleted) == (0, 0, 0)
        found = await audit_of(pipeline).check(FAST)
        assert (found.covered, found.found, found.unexplained) == (2, {}, 0)
        vpp.cli("set interface ip address del loop1 10.0.1.1/24")
        assert not (await audit_of(pipeline).check(FAST)).found
        assert "attached" in vpp.cli("show ip fib 10.0.1.0/24")


async def test_churn_is_never_taken_for_a_fault(namespace: str, vpp: VppProcess) -> None:
    async with running(between(namespace, vpp)) as pipeline:
        audit = audit_of(pipeline)
        async with churning(namespace) as churn:
            for _ in range(4):
                assert not (await audit.check(FAST)).found
                assert not churn.done()
        await in_sync(pipeline)
        assert not (await audit.read()).found
        assert audit.repaired == 0


async def test_routes_that_go_while_an_audit_waits_are_not_asked_for_by_their_old_places(
    namespace: str, vpp: VppProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table that has become empty begins anew: what stands at a row then is no prefix."""
    async with running(between(namespace, vpp)) as pipeline:
        audit = audit_of(pipeline)
        held = {family: reconciler.held for (family, _), reconciler in pipeline.reconcilers.items()}
        known = {family: set(map(tuple, table.keys(table.rows()))) for family, table in held.items()}
        asked: set[tuple[Family, tuple[int, ...]]] = set()
        look_up, wait = pipeline.fib.look_up, _Pace.wait

        async def noting(family: Family, table: int, keys: U64) -> LookedUp:
            asked.update((family, tuple(key)) for key in keys)
            return await look_up(family, table, keys)

        async def losing_everything(pace: _Pace, count: int, *, busy: bool) -> None:
            ip(namespace, *(f"link set {port} down" for port in PORTS))
            async with asyncio.timeout(SECONDS):
                while any(map(len, held.values())):
                    await asyncio.sleep(0.05)
            await in_sync(pipeline)
            await wait(pace, count, busy=busy)

        monkeypatch.setattr(pipeline.fib, "look_up", noting)
        monkeypatch.setattr(_Pace, "wait", losing_everything)
        assert not (await audit.check(FAST)).found
        assert asked
        assert [key for family, key in asked if key not in known[family]] == []
        assert vpp.running


@asynccontextmanager
async def churning(namespace: str) -> AsyncIterator[asyncio.Task[None]]:
    enough = threading.Event()
    churn = asyncio.create_task(asyncio.to_thread(change, namespace, enough))
    try:
        yield churn
    finally:
        enough.set()
        await churn


def change(namespace: str, enough: threading.Event) -> None:
    """Replace and remove the same prefixes again and again, in another order each time."""
    numbers = list(range(ROUTES))
    chance = random.Random(7)
    for number in itertools.count():
        if enough.is_set():
            break
        chance.shuffle(numbers)
        ip(namespace, *(f"route replace {prefix(n)} via 10.0.{(n + number) % 2}.9" for n in numbers))
        ip(namespace, *(f"route del {prefix(n)}" for n in numbers[: ROUTES // 2]))
    ip(namespace, *(f"route replace {prefix(n)} via 10.0.{n % 2}.9" for n in numbers))


@contextmanager
def deaf(pipeline: Pipeline) -> Iterator[None]:
    """Keep every event from the feed, without a loss that the kernel would report, by its socket's filter."""
    assert isinstance(pipeline.feed, KernelFeed)
    assert pipeline.feed._events_socket is not None
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 bytes
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    with socket.socket(fileno=os.dup(pipeline.feed._events_socket.fileno())) as events:
        events.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        yield
        events.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


async def test_changes_of_the_kernel_that_nobody_reported_are_found(namespace: str, vpp: VppProcess) -> None:
    async with running(between(namespace, vpp)) as pipeline, Intruder(vpp.api_socket) as intruder:
        audit = audit_of(pipeline)
        clean = await audit.check(FAST, feed=True)
        assert not clean.found
        assert clean.compared >= ROUTES + ROUTES // 10
        before = await intruder.routes()
        overruns = pipeline.feed.overruns
        with deaf(pipeline):
            ip(namespace, f"route del {prefix(1)}", f"route del {prefix6(1)}")
            ip(namespace, f"route replace {prefix(2)} via 10.0.1.9", "route add 77.0.0.0/16 via 10.0.0.9")
            ip(namespace, f"route add {prefix(3)} via 10.0.0.9 metric 5")
        await in_sync(pipeline)
        assert await intruder.routes() == before
        assert pipeline.feed.overruns == overruns
        found = await audit.check(FAST, feed=True)
        assert found.found == {Reason.UNHEARD: 5}
        assert {r.prefix for r in found.rows} == {prefix(1), prefix6(1), prefix(2), "77.0.0.0/16", prefix(3)}
        await in_sync(pipeline)
        after = await intruder.routes()
        assert after.keys() == (before.keys() - {prefix(1), prefix6(1)}) | {"77.0.0.0/16"}
        assert after[prefix(2)] != before[prefix(2)]
        assert not (await audit.check(FAST, feed=True)).found


async def test_churn_in_the_kernel_is_never_taken_for_an_unheard_change(
    namespace: str, vpp: VppProcess
) -> None:
    async with running(between(namespace, vpp)) as pipeline:
        audit = audit_of(pipeline)
        async with churning(namespace) as churn:
            for _ in range(4):
                assert not (await audit.check(FAST, feed=True)).found
                assert not churn.done()
        await in_sync(pipeline)
        settled = await audit.check(FAST, feed=True)
        assert not settled.found
        assert settled.compared >= ROUTES


async def test_an_audit_ends_with_the_vpp_it_asks(namespace: str, vpp: VppProcess) -> None:
    async with running(between(namespace, vpp)) as pipeline:
        audit = audit_of(pipeline)
        vpp.kill()
        async with asyncio.timeout(SECONDS):
            while pipeline.state is State.IN_SYNC:
                await asyncio.sleep(0.01)
        with pytest.raises(AuditBrokenOffError, match="pipeline t is"):
            await audit.check(FAST)


async def test_a_look_up_answers_for_every_prefix_of_either_family(vpp: VppProcess) -> None:
    fib = VppFib(api_socket=vpp.api_socket, interfaces=PORTS)
    await fib.open()
    try:
        async with Intruder(vpp.api_socket) as intruder:
            via = PathSet.unicast(Path(2, ip_address("10.0.0.9").packed))
            four, six = [prefix(n) for n in range(2_500)], [prefix6(n) for n in range(1_100)]
            await intruder.put(four, via)
            await intruder.put(six, BLACKHOLE)
        for family, known, paths in ((Family.IPV4, four, via), (Family.IPV6, six, BLACKHOLE)):
            strange = "99.0.0.0/24" if family is Family.IPV4 else "2001:db8:ffff::/64"
            keys = keys_of([ip_network(p) for p in [*known, strange]])
            seen = await fib.look_up(family, 0, keys)
            assert seen.paths[-1] == ABSENT
            assert {fib.path_set(int(number)) for number in np.unique(seen.paths[:-1])} == {paths}
            assert not seen.covered.any()
            assert (seen.counters[:-1] >= 0).all()
            assert len(np.unique(seen.counters[:-1])) == len(known)
    finally:
        await fib.close()
