"""linux-cp's pairs as interface map: found at start, followed while they come and go.

Pairs need /dev/vhost-net to be made in earnest, which `tests/guest` has. Here VPP's own plugin for testing
linux-cp (linux_cp_unittest) makes them out of loopbacks; its kernel interfaces have the numbers 1, 2, ...
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path as FilePath

import pytest

from router_agent.fibs.fib import FibError
from router_agent.fibs.vpp import VppFib
from router_agent.model import Link, Path, PathSet, Reason
from router_agent.vpp.pairs import Pair, is_in, read_pairs
from router_agent.vpp.process import VppProcess, startup_conf
from router_agent.vpp.session import VppSession

pytestmark = [pytest.mark.vpp, pytest.mark.root]

LINUX_CP, TESTING = "linux_cp_plugin.so", "linux_cp_unittest_plugin.so"
FURTHER_PLUGINS = os.environ.get("VPP_PLUGIN_PATH", "")
"""Directories of further plugins, with colons between, for a VPP installed without those for testing."""
GATEWAY = ip_address("192.0.2.1").packed


def start(directory: str, *plugins: str) -> VppProcess:
    path = FilePath(directory)
    config = startup_conf(runtime_dir=path, heap="256M", buffers=2048, plugins=plugins)
    if FURTHER_PLUGINS:
        config = config.replace("plugins {", f"plugins {{\n  add-path {FURTHER_PLUGINS}", 1)
    return VppProcess(runtime_dir=path, config=config)


@pytest.fixture
def vpp() -> Iterator[VppProcess]:
    """A VPP with four loopbacks and linux-cp, and what makes pairs without TAPs."""
    with tempfile.TemporaryDirectory(prefix="vpp") as directory, start(directory, LINUX_CP, TESTING) as vpp:
        if TESTING not in vpp.cli("show plugins"):
            pytest.skip(f"this VPP has no {TESTING}; set VPP_PLUGIN_PATH to where it is")
        for number in range(4):
            vpp.cli("create loopback interface")
            vpp.cli(f"set interface state loop{number} up")
        yield vpp


def add_pair(vpp: VppProcess, port: str, host: str) -> None:
    assert vpp.cli(f"test lcp add phy {port} host {host}").strip() == ""
    # As linux-cp does last when it makes a pair in earnest.
    vpp.cli(f"set interface state {host} down")
    vpp.cli(f"set interface state {host} up")


def link(index: int) -> Link:
    return Link(index, f"tap{index}", True, True, bytes(6), 1500)


@asynccontextmanager
async def opened(vpp: VppProcess) -> AsyncIterator[VppFib]:
    fib = VppFib(interfaces=None, api_socket=vpp.api_socket)
    await fib.open()
    try:
        yield fib
    finally:
        await fib.close()


async def until(changed: asyncio.Event) -> None:
    async with asyncio.timeout(20):
        await changed.wait()
    changed.clear()


def over(index: int) -> PathSet:
    return PathSet.unicast(Path(index, GATEWAY))


async def test_pairs_are_read(vpp: VppProcess) -> None:
    session = VppSession(api_socket=vpp.api_socket, name="test")
    await session.open()
    try:
        assert await read_pairs(session) == []
        add_pair(vpp, "loop0", "loop1")
        add_pair(vpp, "loop2", "loop3")
        assert await read_pairs(session) == [Pair(1, 2, 1, "tap1", ""), Pair(3, 4, 2, "tap2", "")]
    finally:
        await session.close()


async def test_a_pair_that_is_there_stands_for_its_kernel_interface(vpp: VppProcess) -> None:
    add_pair(vpp, "loop0", "loop1")
    async with opened(vpp) as fib:
        assert fib.path_id(over(1)) is Reason.UNRESOLVED_INTERFACE
        assert fib.links([link(1), link(2)], [])
        assert fib.counterpart(1) == "loop0"
        number = fib.path_id(over(1))
        assert isinstance(number, int)
        assert fib.path_set(number) == PathSet.unicast(Path(2, GATEWAY))
        assert fib.path_id(over(2)) is Reason.UNRESOLVED_INTERFACE


async def test_pairs_are_followed_without_opening_the_fib_anew(vpp: VppProcess) -> None:
    changed = asyncio.Event()
    async with opened(vpp) as fib:
        fib.on_change(changed.set)
        lost = asyncio.create_task(fib.wait_lost())
        assert not fib.links([link(1), link(2)], [])
        add_pair(vpp, "loop0", "loop1")
        await until(changed)
        assert fib.counterpart(1) == "loop0"
        add_pair(vpp, "loop2", "loop3")
        await until(changed)
        assert fib.counterpart(2) == "loop2"
        vpp.cli("test lcp del phy loop0")
        vpp.cli("set interface state loop1 down")
        await until(changed)
        assert fib.counterpart(1) is None
        assert fib.path_id(over(1)) is Reason.UNRESOLVED_INTERFACE
        assert not lost.done()
        # With the port its number goes: whoever gets it next is another interface.
        vpp.cli("delete loopback interface intfc loop2")
        async with asyncio.timeout(20):
            await lost


async def test_a_vpp_without_linux_cp_is_refused_with_what_to_do() -> None:
    with tempfile.TemporaryDirectory(prefix="vpp") as directory, start(directory) as vpp:
        fib = VppFib(interfaces=None, api_socket=vpp.api_socket)
        with pytest.raises(FibError, match=r"without linux-cp.*enable linux_cp_plugin.so"):
            await fib.open()


def test_the_namespace_of_a_pair_is_told_by_what_the_name_stands_for() -> None:
    own = f"/proc/{os.getpid()}/ns/net"
    assert is_in(Pair(1, 2, 3, "eth0", ""), None)
    assert is_in(Pair(1, 2, 3, "eth0", ""), own)
    assert is_in(Pair(1, 2, 3, "eth0", own), None)
    assert not is_in(Pair(1, 2, 3, "eth0", "no-such-namespace"), None)
    assert not is_in(Pair(1, 2, 3, "eth0", ""), "no-such-namespace")
