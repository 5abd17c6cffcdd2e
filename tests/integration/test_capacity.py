"""A VPP given too little memory for its table: it must live, forward what it has, and go on with more room.

VPP itself ends when a growing pool finds no room. These VPPs are small enough for the table to be too large;
the same table is shown to end one that is fed without admission.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path as FilePath

import numpy as np
import pytest

from router_agent.audit import Audit
from router_agent.fibs.fib import FibLostError
from router_agent.model import Changes, Family, Link, Path, PathSet, Reason, prefixes_of, v4_keys
from router_agent.observe import inspect
from router_agent.observe.answers import CapacityStatus, InFib, PipelineStatus, RouteFilter, RouteRow
from router_agent.pipeline import Pipeline
from router_agent.vpp.process import VppProcess, startup_conf

from .kernel_to_vpp import SECONDS, ip, new_pipeline, ports_in_namespace, running

pytestmark = [pytest.mark.root, pytest.mark.vpp]

ROUTES = 160_000
OUT = "pg1"
KEPT = {"20.0.0.0/24", "20.0.5.0/24", "10.0.0.0/24"}
"""The prefix that traffic goes to, the one that is replaced, and the connected one."""
MAC = "02:00:00:00:00:09"


@contextmanager
def small_vpp(heap: str, statseg: str) -> Iterator[VppProcess]:
    """A VPP that renews its memory figures ten times a second, with a packet generator's interfaces."""
    with tempfile.TemporaryDirectory(prefix="vpp") as directory:
        runtime = FilePath(directory)
        config = startup_conf(runtime_dir=runtime, heap=heap, statseg=statseg, buffers=4096, plugins=())
        config = config.replace("statseg {", "statseg {\n  update-interval 0.1")
        with VppProcess(runtime_dir=runtime, config=config) as vpp:
            for port in ("pg0", OUT):
                vpp.cli(f"create packet-generator interface {port}")
                vpp.cli(f"set interface state {port} up")
                vpp.cli(f"set interface unnumbered {port} use local0")
            yield vpp


@pytest.fixture
def namespace() -> Iterator[str]:
    with ports_in_namespace("left") as name:
        ip(name, f"neigh replace 10.0.0.9 lladdr {MAC} dev left nud permanent")
        yield name


def prefix(number: int) -> str:
    return f"{20 + (number >> 16)}.{number >> 8 & 255}.{number & 255}.0/24"


def change(namespace: str, verb: str, numbers: range) -> None:
    ip(namespace, *(f"route {verb} {prefix(n)} via 10.0.0.9" for n in numbers))


def status(pipeline: Pipeline) -> PipelineStatus:
    audit = Audit(pipeline, rate=0, repair=True, full_reading_seconds=0)
    return inspect.pipeline_status(pipeline, "kernel", "vpp", audit)


def capacity(pipeline: Pipeline) -> CapacityStatus:
    found = status(pipeline).capacity
    assert found is not None
    return found


async def until(happened: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(SECONDS):
            while not happened():
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"{what} did not happen within {SECONDS} s")


def start_traffic(vpp: VppProcess) -> None:
    """Send to the first prefix for as long as VPP lives."""
    vpp.cli(
        "packet-generator new { name t limit 0 rate 2000 size 64-64 interface pg0 node ip4-input "
        "data { UDP: 192.0.2.1 -> 20.0.0.1 UDP: 1 -> 2 incrementing 8 } }"
    )
    vpp.cli("packet-generator enable-stream t")


def sent(vpp: VppProcess) -> int:
    found = re.search(r"tx packets\s+(\d+)", vpp.cli(f"show interface {OUT}"))
    return int(found[1]) if found else 0


def errors(vpp: VppProcess) -> int:
    """Packets that VPP dropped, for any reason."""
    return sum(int(n) for n in re.findall(r"drops\s+(\d+)", vpp.cli("show interface pg0")))


@pytest.mark.parametrize(
    ("heap", "statseg", "resource", "knob"),
    [
        pytest.param("128M", "96M", "main heap", "main-heap-size", id="heap"),
        pytest.param("512M", "10M", "stats segment", "statseg { size }", id="stats segment"),
    ],
)
async def test_a_vpp_too_small_for_the_table_lives_and_says_what_it_lacks(
    namespace: str, heap: str, statseg: str, resource: str, knob: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with small_vpp(heap, statseg) as vpp:
        change(namespace, "add", range(1))
        async with running(new_pipeline(namespace, vpp, {"left": OUT})) as pipeline:
            start_traffic(vpp)
            await until(lambda: sent(vpp) > 1_000, "traffic")
            assert not capacity(pipeline).exhausted
            change(namespace, "add", range(1, ROUTES))
            await until(lambda: capacity(pipeline).exhausted, "the alarm")
            await until(lambda: status(pipeline).counts[0].desired > ROUTES, "the whole table at the agent")
            await until(lambda: not status(pipeline).counts[0].pending, "an answer for every route")
            found = capacity(pipeline)
            assert found.shortage is not None
            assert resource in found.shortage
            assert knob in found.shortage
            assert 0 < found.withheld < ROUTES
            assert status(pipeline).counts[0].not_in_fib == {Reason.OVER_CAPACITY: found.withheld}
            assert resource in caplog.text
            row = await one_withheld(pipeline)
            assert row.reason is Reason.OVER_CAPACITY
            assert row.detail is not None
            assert resource in row.detail

            # What is there is replaced and deleted all the same, and room that comes back is used.
            held = status(pipeline).counts[0].in_fib
            writes = pipeline.counts.writes
            replaced = writes.replaced
            ip(namespace, f"route replace blackhole {prefix(5)}")
            await until(lambda: writes.replaced > replaced, "a replacement")
            withheld = found.withheld
            ip(namespace, *(f"route del {p}" for p in held_prefixes(pipeline) if p not in KEPT))
            await until(lambda: capacity(pipeline).withheld <= withheld - 9_000, "withheld routes let in")
            await until(lambda: status(pipeline).counts[0].in_fib >= held - 1_000, "as many routes as before")

            before = sent(vpp)
            await until(lambda: sent(vpp) > before + 1_000, "traffic, still")
            assert errors(vpp) == 0
            ip(namespace, "route flush proto boot")
            await until(lambda: not capacity(pipeline).withheld, "an end of the shortage")
            await until(lambda: not status(pipeline).counts[0].not_in_fib, "nothing missing")
        assert vpp.running


def held_prefixes(pipeline: Pipeline) -> list[str]:
    """10,000 prefixes that the FIB holds."""
    (reconciler,) = (r for (family, _), r in pipeline.reconcilers.items() if family is Family.IPV4)
    return [str(p) for p in prefixes_of(reconciler.held.keys(reconciler.held.rows()[:10_000]))]


async def one_withheld(pipeline: Pipeline) -> RouteRow:
    async for row in inspect.routes([pipeline], RouteFilter(absent=True, limit=1)):
        assert row.in_fib is InFib.NO
        return row
    pytest.fail("no route is listed as absent")


async def test_the_same_table_ends_a_vpp_that_is_not_asked(namespace: str) -> None:
    """What the admission is for: without it the table of the test above is VPP's end."""
    with small_vpp("128M", "96M") as vpp:
        pipeline = new_pipeline(namespace, vpp, {"left": OUT})
        fib = pipeline.fib
        fib.links([Link(1, "left", True, True, bytes(6), 1500)], [])
        await fib.open()
        number = fib.path_id(PathSet.unicast(Path(1, bytes([10, 0, 0, 9]))))
        assert isinstance(number, int)
        addresses = (np.arange(ROUTES, dtype=np.uint32) << np.uint32(8)) + np.uint32(20 << 24)
        keys = v4_keys(addresses, np.full(ROUTES, 24, np.uint8))
        paths = np.full(ROUTES, number, np.uint32)
        with pytest.raises(FibLostError):
            await fib.write(Changes(Family.IPV4, 0, keys, paths, np.zeros(ROUTES, np.uint32)))
        await fib.close()


async def test_without_a_stats_segment_routes_are_written_and_status_says_so(namespace: str) -> None:
    with tempfile.TemporaryDirectory(prefix="vpp") as directory:
        runtime = FilePath(directory)
        config = startup_conf(runtime_dir=runtime, heap="512M", statseg="32M", buffers=2048, plugins=())
        config = config.replace(f"socket-name {runtime}/stats.sock", f"socket-name {runtime}/elsewhere.sock")
        with VppProcess(runtime_dir=runtime, config=config) as vpp:
            vpp.cli("create loopback interface")
            vpp.cli("set interface state loop0 up")
            change(namespace, "add", range(100))
            async with running(new_pipeline(namespace, vpp, {"left": "loop0"})) as pipeline:
                found = capacity(pipeline)
                assert not found.exhausted
                assert found.unknown is not None
                assert "stats.sock" in found.unknown
                assert status(pipeline).counts[0].in_fib >= 100
