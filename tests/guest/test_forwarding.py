"""Packets through a VPP that follows Linux: what leaves it is looked at on the wire."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from ipaddress import ip_address

from router_agent.feeds.kernel import KernelFeed
from router_agent.fibs.vpp import VppFib
from router_agent.mirror.aspects import Aspect
from router_agent.mirror.mirror import Mirror
from router_agent.model import Family, Link
from router_agent.namespaces import inside
from router_agent.observe.answers import State
from router_agent.pipeline import Pipeline

from .conftest import Router, run, until

STATIC = 4
IPV4, IPV6, MPLS = 0x0800, 0x86DD, 0x8847
FAR_MACS = ("02:00:00:00:10:00", "02:00:00:00:10:01")
PAYLOAD = b"through the forwarding plane"


@asynccontextmanager
async def agent(router: Router, tables: Sequence[int] = (254,)) -> AsyncIterator[Pipeline]:
    """A pipeline and a mirror, as the agent runs them."""
    numbers = {table: 0 if table == 254 else table for table in tables}
    fib = VppFib(
        interfaces=None,
        namespace=router.control,
        api_socket=router.vpp.api_socket,
        tables=[(family, table) for family in Family for table in numbers.values()],
    )
    feed = KernelFeed(namespace=router.control, tables=tables, protocols=frozenset({STATIC}), solicit=True)
    pipeline = Pipeline(name="test", feed=feed, fib=fib, tables=numbers)
    mirror = Mirror(
        name="test",
        api_socket=router.vpp.api_socket,
        namespace=router.control,
        aspects=tuple(Aspect),
        tables=numbers,
    )
    async with AsyncExitStack() as stack:
        for work in (pipeline.run(), mirror.run()):
            task = asyncio.create_task(work)
            stack.push_async_callback(_end, task)
        await asyncio.to_thread(until, lambda: pipeline.state, State.IN_SYNC, "state")
        yield pipeline


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def prepare(router: Router) -> None:
    """Addresses on both sides of both cables; nobody has spoken to anybody."""
    for number, mac in enumerate(FAR_MACS):
        port = f"p{number}"
        run("ip", "-n", router.far, "link", "set", port, "address", mac)
        run("ip", "-n", router.far, "address", "add", f"198.51.{100 + number}.2/24", "dev", port)
        run("ip", "-n", router.far, "address", "add", f"2001:db8:{number}::2/64", "dev", port, "nodad")
    prepare_control(router)


def prepare_control(router: Router) -> None:
    """Linux's side of it."""
    for number in range(2):
        router.ip("link", "set", f"eth{number}", "up")
        router.ip("address", "add", f"198.51.{100 + number}.1/24", "dev", f"eth{number}")
        router.ip("address", "add", f"2001:db8:{number}::1/64", "dev", f"eth{number}", "nodad")


def packet(destination: str) -> bytes:
    """A UDP packet over IPv4, complete with checksums."""
    udp = struct.pack(">HHHH", 9000, 9000, 8 + len(PAYLOAD), 0) + PAYLOAD
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    head += ip_address("198.51.100.2").packed + ip_address(destination).packed
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:] + udp


def stack(*labels: int) -> bytes:
    return b"".join(
        struct.pack(">I", label << 12 | (place == len(labels) - 1) << 8 | 64)
        for place, label in enumerate(labels)
    )


def labels_of(payload: bytes) -> tuple[int, ...]:
    """The labels at the start of an MPLS packet."""
    found = []
    for at in range(0, len(payload), 4):
        (entry,) = struct.unpack_from(">I", payload, at)
        found.append(entry >> 12)
        if entry & 0x100:
            return tuple(found)
    raise AssertionError("no end of the label stack")


def send(router: Router, kind: int, payload: bytes, *, seconds: float = 60.0) -> tuple[str, int, bytes]:
    """Send into port 0 until something of ours comes out of port 1; return destination, type and payload."""
    mac = router.ip("-br", "link", "show", "dev", "eth0").split()[2]
    frame = bytes.fromhex((mac + FAR_MACS[0]).replace(":", "")) + struct.pack(">H", kind) + payload
    with inside(router.far):
        sender, receiver = (
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)) for _ in range(2)
        )
    with sender, receiver:
        sender.bind(("p0", 0))
        receiver.bind(("p1", 0))
        receiver.settimeout(0.5)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            sender.send(frame)
            with suppress(TimeoutError):
                while True:
                    data = receiver.recv(2048)
                    if PAYLOAD in data:
                        return data[:6].hex(":"), struct.unpack_from(">H", data, 12)[0], data[14:]
    raise AssertionError(
        f"nothing came out of port 1:\n{router.vpp.cli('show errors')}\n{router.vpp.cli('show ip fib')}"
    )


async def test_plain_labelled_and_ipv6_next_hops(router: Router) -> None:
    prepare(router)
    router.ip("route", "add", "203.0.113.0/28", "via", "198.51.101.2", "proto", "static")
    push = ("encap", "mpls", "100/200", "via", "198.51.101.2")
    router.ip("route", "add", "203.0.113.16/28", *push, "proto", "static")
    router.ip(
        "route", "add", "203.0.113.32/28", "via", "inet6", "2001:db8:1::2", "dev", "eth1", "proto", "static"
    )
    compatible = ("via", "169.254.0.1", "dev", "eth1", "onlink")
    router.ip("neigh", "add", "169.254.0.1", "lladdr", FAR_MACS[1], "dev", "eth1", "nud", "permanent")
    router.ip("route", "add", "203.0.113.48/28", *compatible, "proto", "static")
    async with agent(router):
        for last in (1, 33, 49):
            mac, kind, payload = await asyncio.to_thread(send, router, IPV4, packet(f"203.0.113.{last}"))
            assert (mac, kind) == (FAR_MACS[1], IPV4)
            assert payload[8] == 63
        mac, kind, payload = await asyncio.to_thread(send, router, IPV4, packet("203.0.113.17"))
        assert (mac, kind, labels_of(payload)) == (FAR_MACS[1], MPLS, (100, 200))


async def test_ipv4_between_interfaces_without_an_ipv4_address(router: Router) -> None:
    """BGP unnumbered: link-local addresses alone, IPv4 routes by IPv6 next hops (RFC 8950)."""
    for number, mac in enumerate(FAR_MACS):
        run("ip", "-n", router.far, "link", "set", f"p{number}", "address", mac)
        run("ip", "-n", router.far, "address", "add", f"fe80::{number + 2}/64", "dev", f"p{number}", "nodad")
        router.ip("link", "set", f"eth{number}", "up")
    six = ("via", "inet6", "fe80::3", "dev", "eth1")
    router.ip("route", "add", "203.0.113.0/28", *six, "proto", "static")
    async with agent(router):
        mac, kind, payload = await asyncio.to_thread(send, router, IPV4, packet("203.0.113.1"))
        assert (mac, kind, payload[8]) == (FAR_MACS[1], IPV4, 63)
        # With an address of its own it borrows none any more.
        router.ip("address", "add", "198.51.101.1/24", "dev", "eth1")
        await asyncio.to_thread(
            until, lambda: router.addresses(router.port(1)), {"198.51.101.1/24"}, "addresses"
        )
        await asyncio.to_thread(send, router, IPV4, packet("203.0.113.1"))


async def test_labels_are_swapped_and_popped(router: Router) -> None:
    prepare(router)
    for setting in ("platform_labels=1000", "conf.eth0.input=1"):
        run("ip", "netns", "exec", router.control, "sysctl", "-qw", f"net.mpls.{setting}")
    router.ip("route", "add", "203.0.113.0/28", "via", "198.51.101.2", "proto", "static")
    for route in ("300 as 400/500 via inet 198.51.101.2", "301 via inet 198.51.101.2", "302 dev lo"):
        router.ip("-f", "mpls", "route", "add", *route.split())
    inner = packet("203.0.113.1")
    async with agent(router):
        _, kind, payload = await asyncio.to_thread(send, router, MPLS, stack(300) + inner)
        assert (kind, labels_of(payload)) == (MPLS, (400, 500))
        _, kind, payload = await asyncio.to_thread(send, router, MPLS, stack(300, 600) + inner)
        assert (kind, labels_of(payload)) == (MPLS, (400, 500, 600))
        for label in (301, 302):
            _, kind, payload = await asyncio.to_thread(send, router, MPLS, stack(label) + inner)
            assert (kind, payload[16:20]) == (IPV4, ip_address("203.0.113.1").packed)
        assert "400" in router.vpp.cli("show mpls fib table 0 300")
        router.ip("-f", "mpls", "route", "del", "300")
        await asyncio.to_thread(
            until, lambda: "400" in router.vpp.cli("show mpls fib table 0 300"), False, "label 300"
        )


async def test_a_vrf_forwards_by_its_own_table(router: Router) -> None:
    prepare(router)
    router.ip("link", "add", "blue", "type", "vrf", "table", "10")
    router.ip("link", "set", "blue", "up")
    run("ip", "netns", "exec", router.control, "sysctl", "-qw", "net.ipv6.conf.all.keep_addr_on_down=1")
    for number in range(2):
        router.ip("link", "set", f"eth{number}", "master", "blue")
    router.ip("route", "add", "203.0.113.0/28", "via", "198.51.101.2", "table", "10", "proto", "static")
    async with agent(router, tables=(254, 10)):
        mac, kind, _ = await asyncio.to_thread(send, router, IPV4, packet("203.0.113.1"))
        assert (mac, kind) == (FAR_MACS[1], IPV4)
    assert "203.0.113.0/28" not in router.vpp.cli("show ip fib table 0")


async def test_a_restarted_vpp_forwards_again_once_it_has_its_pairs(router: Router) -> None:
    prepare(router)
    route = ("203.0.113.0/28", "via", "198.51.101.2", "proto", "static")
    router.ip("route", "add", *route)
    async with agent(router) as pipeline:
        await asyncio.to_thread(send, router, IPV4, packet("203.0.113.1"))
        router.vpp.kill()
        await asyncio.to_thread(until, lambda: pipeline.state, State.FIB_LOST, "state")
        router.vpp.start()
        await asyncio.to_thread(until, lambda: pipeline.state, State.IN_SYNC, "state")
        # The TAPs went with VPP, their addresses and routes with them: all of it is made anew, in this order.
        router.add_ports()
        prepare_control(router)
        router.ip("route", "add", *route)
        mac, kind, _ = await asyncio.to_thread(send, router, IPV4, packet("203.0.113.1"))
        assert (mac, kind) == (FAR_MACS[1], IPV4)


async def test_each_namespace_has_its_own_pairs(router: Router) -> None:
    router.vpp.cli(f"lcp delete {router.port(1)}")
    said = router.vpp.cli(f"lcp create {router.port(1)} host-if eth1 netns {router.far}")
    assert not said.strip(), said
    index = int(run("ip", "-n", router.far, "-o", "link", "show", "dev", "eth1").split(":")[0])
    cases = ((router.control, router.index("eth0"), router.port(0)), (router.far, index, router.port(1)))
    for place, (namespace, number, port) in enumerate(cases):
        fib = VppFib(
            interfaces=None, namespace=namespace, api_socket=router.vpp.api_socket, source_name=f"test{place}"
        )
        await fib.open()
        try:
            # Numbers of interfaces are a namespace's own: the other's may be the same.
            fib.links([Link(n, f"x{n}", True, True, bytes(6), 1500) for n in range(1, 50)], [])
            assert {fib.counterpart(n) for n in range(1, 50)} == {port, None}
            assert fib.counterpart(number) == port
        finally:
            await fib.close()


async def test_a_bond_is_paired_like_any_port(router: Router) -> None:
    for number in range(2):
        router.vpp.cli(f"lcp delete {router.port(number)}")
    router.vpp.cli("create bond mode active-backup id 0")
    for number in range(2):
        router.vpp.cli(f"bond add BondEthernet0 {router.port(number)}")
        router.vpp.cli(f"set interface state {router.port(number)} up")
    router.pair("BondEthernet0", "bond0")
    router.ip("link", "set", "bond0", "up")
    router.ip("address", "add", "198.51.100.1/24", "dev", "bond0")
    router.ip("route", "add", "203.0.113.0/28", "via", "198.51.100.2", "proto", "static")
    async with agent(router) as pipeline:
        assert pipeline.fib.counterpart(router.index("bond0")) == "BondEthernet0"
        await asyncio.to_thread(
            until, lambda: router.addresses("BondEthernet0"), {"198.51.100.1/24"}, "addresses"
        )
        await asyncio.to_thread(
            until, lambda: "BondEthernet0" in router.vpp.cli("show ip fib 203.0.113.0/28"), True, "route"
        )


async def test_neighbours_come_and_go_both_families(router: Router) -> None:
    prepare(router)
    for address in ("198.51.101.9", "2001:db8:1::9"):
        router.ip("neigh", "add", address, "lladdr", FAR_MACS[1], "dev", "eth1", "nud", "permanent")
    async with agent(router):
        for address in ("198.51.101.9", "2001:db8:1::9"):

            def known(address: str = address) -> bool:
                return address in router.vpp.cli("show ip neighbors")

            await asyncio.to_thread(until, known, True, address)
            router.ip("neigh", "del", address, "dev", "eth1")
            await asyncio.to_thread(until, known, False, address)
