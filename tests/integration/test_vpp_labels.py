"""Routes of MPLS labels in a real VPP: what is written is what is read, and no more is touched."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from router_agent.vpp.labels import POP, Entry, LabelPath, Paths, VppLabels
from router_agent.vpp.process import VppProcess
from router_agent.vpp.routes import NO_INTERFACE
from router_agent.vpp.session import VppSession

pytestmark = [pytest.mark.vpp, pytest.mark.root]

FOUR, SIX = ip_address("10.0.0.1").packed, ip_address("fe80::1").packed
NO_SUCH_INTERFACE = -54

KINDS: dict[str, Paths] = {
    "swap": (LabelPath(1, FOUR, (200,)),),
    "swap for two": (LabelPath(1, FOUR, (200, 300)),),
    "swap towards ipv6": (LabelPath(2, SIX, (200,)),),
    "pop": (LabelPath(1, FOUR, (POP,)),),
    "pop towards ipv6": (LabelPath(2, SIX, (POP,)),),
    "weights": (LabelPath(1, FOUR, (200,), 3), LabelPath(2, FOUR, (201,), 1)),
}


@pytest.fixture
def vpp() -> Iterator[VppProcess]:
    with (
        tempfile.TemporaryDirectory(prefix="vpp") as directory,
        VppProcess(runtime_dir=Path(directory), heap="256M", buffers=2048, plugins=()) as process,
    ):
        process.cli("mpls table add 0")
        process.cli("ip table add 10")
        for number in range(2):
            process.cli("create loopback interface")
            process.cli(f"set interface state loop{number} up")
            process.cli(f"set interface mpls loop{number} enable")
        yield process


@asynccontextmanager
async def labels(vpp: VppProcess) -> AsyncIterator[VppLabels]:
    session = VppSession(api_socket=vpp.api_socket, name="test")
    await session.open()
    try:
        found = VppLabels(session)
        await found.learn()
        yield found
    finally:
        await session.close()


def wanted() -> dict[Entry, Paths]:
    entries = {(100 + n, last): paths for n, paths in enumerate(KINDS.values()) for last in (True, False)}
    entries[99, True] = (LabelPath(NO_INTERFACE, table=10),)
    return entries


async def test_every_kind_of_entry_reads_back_as_written(vpp: VppProcess) -> None:
    async with labels(vpp) as fib:
        assert fib.held == {}
        assert await fib.write(wanted()) == {}
        assert fib.held == wanted()
    async with labels(vpp) as fib:
        assert fib.held == wanted()
        assert await fib.write(wanted()) == {}
        assert await fib.write({}) == {}
    async with labels(vpp) as fib:
        assert fib.held == {}


async def test_an_entry_is_replaced_and_reserved_labels_stay(vpp: VppProcess) -> None:
    before = vpp.cli("show mpls fib table 0 0")
    async with labels(vpp) as fib:
        await fib.write({(100, True): KINDS["swap"]})
        await fib.write({(100, True): KINDS["pop"]})
        assert fib.held == {(100, True): KINDS["pop"]}
        assert "200" not in vpp.cli("show mpls fib table 0 100")
        await fib.write({})
    assert vpp.cli("show mpls fib table 0 0") == before


async def test_what_vpp_refuses_is_told(vpp: VppProcess) -> None:
    async with labels(vpp) as fib:
        refused = await fib.write({(100, True): (LabelPath(77, FOUR, (200,)),), (101, True): KINDS["swap"]})
        assert refused == {(100, True): NO_SUCH_INTERFACE}
        assert fib.held == {(101, True): KINDS["swap"]}
