"""What VPP has counted, read from the stats segment of a real one, with packets that were really sent."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from router_agent.observe.answers import ForwarderCounters
from router_agent.observe.forwarder import Forwarder
from router_agent.vpp.process import VppProcess, startup_conf
from router_agent.vpp.stats import StatsError, StatsSegment

pytestmark = [pytest.mark.root, pytest.mark.vpp]

PACKETS = 50
BYTES = 42 + 20
"""IPv4 and UDP with 34 bytes of data; the packet generator counts from the IP header on."""
SECONDS = 30.0


@pytest.fixture
async def vpp() -> AsyncIterator[VppProcess]:
    """A VPP whose port `in` gets packets and whose port `out` sends those to 192.0.2.0/24."""
    with tempfile.TemporaryDirectory(prefix="vpp") as directory:
        runtime = Path(directory)
        config = startup_conf(runtime_dir=runtime, heap="256M", buffers=4096, plugins=())
        config = config.replace("statseg {", "statseg {\n  update-interval 0.1")
        with VppProcess(runtime_dir=runtime, config=config) as running:
            for port in ("pg0", "pg1"):
                running.cli(f"create packet-generator interface {port}")
                running.cli(f"set interface state {port} up")
                running.cli(f"set interface unnumbered {port} use local0")
            running.cli("set ip neighbor pg1 10.0.0.9 02:00:00:00:00:09")
            running.cli("ip route add 192.0.2.0/24 via 10.0.0.9 pg1")
            yield running


def send(vpp: VppProcess, name: str, destination: str) -> None:
    vpp.cli(
        f"packet-generator new {{ name {name} limit {PACKETS} size {BYTES}-{BYTES} interface pg0 "
        f"node ip4-input data {{ UDP: 198.51.100.7 -> {destination} UDP: 1234 -> 1234 incrementing 34 }} }}"
    )
    vpp.cli(f"packet-generator enable-stream {name}")


async def counted(forwarder: Forwarder, enough: Callable[[ForwarderCounters], bool]) -> ForwarderCounters:
    """Return the counters once VPP has renewed them; they follow what happens at its pace."""
    async with asyncio.timeout(SECONDS):
        while not enough(found := await forwarder.read()):
            assert found.problem is None
            await asyncio.sleep(0.05)
    return found


def reader(vpp: VppProcess) -> Forwarder:
    return Forwarder(vpp.runtime_dir / "stats.sock", ["vpp"], lambda: "26.06")


async def test_what_was_sent_is_counted(vpp: VppProcess) -> None:
    send(vpp, "known", "192.0.2.7")
    send(vpp, "unknown", "203.0.113.7")

    def enough(found: ForwarderCounters) -> bool:
        lookups = [n.vectors for t in found.threads for n in t.nodes if n.node == "ip4-lookup"]
        return sum(lookups) == 2 * PACKETS

    found = await counted(reader(vpp), enough)
    ports = {port.name: port for port in found.interfaces}
    assert {"pg0", "pg1"} <= ports.keys()
    assert "local0" not in ports
    assert ports["pg1"].tx_packets == PACKETS
    assert ports["pg1"].tx_bytes >= PACKETS * BYTES
    assert ports["pg0"].drops == PACKETS
    assert sum(found.errors.values()) >= PACKETS
    assert all("/" in name for name in found.errors)
    assert [thread.name for thread in found.threads] == ["main"]
    nodes = {node.node: node for node in found.threads[0].nodes}
    assert 0 < nodes["ip4-lookup"].calls <= 2 * PACKETS
    assert nodes["ip4-lookup"].clocks > 0
    (pool,) = found.buffers
    assert pool.available + pool.used + pool.cached >= pool.available > 0
    assert found.started > 1.7e9
    assert found.version == "26.06"


async def test_every_reason_of_drops_is_what_vpp_itself_says(vpp: VppProcess) -> None:
    send(vpp, "unknown", "203.0.113.7")
    await counted(reader(vpp), lambda found: sum(found.errors.values()) >= PACKETS)
    segment = StatsSegment(vpp.runtime_dir / "stats.sock")
    found = segment.links("/err/")
    assert found == {name: segment.linked(name) for name in found}
    assert len(segment.called("/err/")) > 100 * len(found)
    segment.close()


async def test_a_heartbeat_that_stands_still_is_told(vpp: VppProcess) -> None:
    now = [0.0]
    forwarder = Forwarder(vpp.runtime_dir / "stats.sock", ["vpp"], lambda: "", clock=lambda: now[0])
    assert (await forwarder.read()).heartbeat_age_seconds == 0.0
    vpp.kill()
    await forwarder.read()
    now[0] = 40.0
    assert (await forwarder.read()).heartbeat_age_seconds == 40.0


async def test_a_vpp_that_is_started_anew_is_read_anew(vpp: VppProcess) -> None:
    forwarder = reader(vpp)
    assert {"pg0", "pg1"} <= {port.name for port in (await forwarder.read()).interfaces}
    vpp.stop()
    assert "cannot read VPP's stats segment" in str((await forwarder.read()).problem)
    vpp.start()
    assert (await counted(forwarder, lambda found: found.problem is None)).interfaces == ()


async def test_what_is_no_counter_is_said(vpp: VppProcess) -> None:
    segment = StatsSegment(vpp.runtime_dir / "stats.sock")
    for wrong in (
        lambda: segment.texts("/if/rx"),
        lambda: segment.gauge("/if/names"),
        lambda: segment.per_thread("/if/names"),
        lambda: segment.per_thread("/no/such"),
    ):
        with pytest.raises(StatsError, match=r"expected (names|one value|counters)|has no counter"):
            wrong()
    segment.close()
