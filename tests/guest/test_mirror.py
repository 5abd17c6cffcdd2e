"""What Linux has on a paired interface VPP gets, and loses again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from router_agent.mirror.aspects import Aspect
from router_agent.mirror.mirror import Mirror
from router_agent.mirror.vpp import VppInterface, read_vpp
from router_agent.vpp.pairs import read_pairs
from router_agent.vpp.session import VppSession

from .conftest import Router, run, until


@asynccontextmanager
async def mirroring(
    router: Router, *aspects: Aspect, tables: Sequence[int] = (254,)
) -> AsyncIterator[Mirror]:
    mirror = Mirror(
        name="test",
        api_socket=router.vpp.api_socket,
        namespace=router.control,
        aspects=aspects or tuple(Aspect),
        tables={table: 0 if table == 254 else table for table in tables},
    )
    task = asyncio.create_task(mirror.run())
    try:
        yield mirror
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def settled(mirror: Mirror) -> None:
    """Wait for a pass that began after now."""
    passes = mirror.passes
    async with asyncio.timeout(60):
        while mirror.passes < passes + 1:
            mirror._doubt.set()
            await asyncio.sleep(0.05)
        passes = mirror.passes
        while mirror.passes < passes + 1:
            mirror._doubt.set()
            await asyncio.sleep(0.05)


async def eventually(found: object, wanted: object, what: str) -> None:
    await asyncio.to_thread(until, found, wanted, what)  # type: ignore[arg-type]


async def seen(router: Router, port: str) -> VppInterface:
    """What the API tells of a paired interface."""
    session = VppSession(api_socket=router.vpp.api_socket, name="test")
    await session.open()
    try:
        interfaces = (await read_vpp(session, await read_pairs(session))).interfaces.values()
    finally:
        await session.close()
    return next(interface for interface in interfaces if interface.name == port)


def state(router: Router, port: str) -> tuple[str, int]:
    """Administrative state and MTU, as VPP's CLI shows them."""
    line = next(x for x in router.vpp.cli("show interface").splitlines() if x.startswith(port + " "))
    words = line.split()
    return words[2], int(words[3].split("/")[0])


async def test_state_mtu_and_addresses_follow_and_go(router: Router) -> None:
    port = router.port(0)
    async with mirroring(router) as mirror:
        router.ip("link", "set", "eth0", "mtu", "1400", "up")
        router.ip("address", "add", "192.0.2.1/24", "dev", "eth0")
        router.ip("address", "add", "198.51.100.1/31", "dev", "eth0")
        router.ip("address", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
        await eventually(lambda: state(router, port), ("up", 1400), "state")
        wanted = {"192.0.2.1/24", "198.51.100.1/31", "2001:db8::1/64"}
        await eventually(lambda: router.addresses(port), wanted, "addresses")
        await settled(mirror)
        assert mirror.refused == ()
        link_local = re.findall(r"inet6 (fe80\S+)/64", router.ip("-6", "address", "show", "dev", "eth0"))[0]
        assert link_local in router.vpp.cli(f"show ip6 interface {port}")
        assert not (await seen(router, port)).advertises
        router.ip("address", "del", "198.51.100.1/31", "dev", "eth0")
        router.ip("address", "del", "2001:db8::1/64", "dev", "eth0")
        await eventually(lambda: router.addresses(port), {"192.0.2.1/24"}, "addresses")
        router.ip("address", "del", "192.0.2.1/24", "dev", "eth0")
        router.ip("address", "add", "192.0.2.1/25", "dev", "eth0")
        await eventually(lambda: router.addresses(port), {"192.0.2.1/25"}, "prefix length")
        router.ip("link", "set", "eth0", "down")
        await eventually(lambda: state(router, port)[0], "down", "state")
    assert state(router, router.port(1))[0] == "down"


async def test_a_restarted_agent_removes_what_went_meanwhile_and_writes_nothing_else(
    router: Router,
) -> None:
    port = router.port(0)
    router.ip("link", "set", "eth0", "up")
    router.ip("address", "add", "192.0.2.1/24", "dev", "eth0")
    router.ip("address", "add", "198.51.100.1/24", "dev", "eth0")
    async with mirroring(router) as mirror:
        await eventually(lambda: len(router.addresses(port)), 2, "addresses")
        await settled(mirror)
    router.ip("address", "del", "198.51.100.1/24", "dev", "eth0")
    router.vpp.cli("api trace on")
    async with mirroring(router) as mirror:
        await eventually(lambda: router.addresses(port), {"192.0.2.1/24"}, "addresses")
        await settled(mirror)
    written = [x for x in router.vpp.cli("api trace dump").splitlines() if "vl_api_" in x]
    changing = [x for x in written if re.search(r"_(add_del|set)_|_config|create|delete", x)]
    assert len([x for x in changing if "add_del_address" in x]) == 1
    assert len(changing) == 1, changing


async def test_vlans_are_made_and_removed(router: Router) -> None:
    async with mirroring(router) as mirror:
        router.ip("link", "set", "eth0", "up")
        router.ip("link", "add", "link", "eth0", "name", "transit", "type", "vlan", "id", "100")
        router.ip("link", "set", "transit", "up")
        router.ip("address", "add", "192.0.2.1/24", "dev", "transit")
        sub = f"{router.port(0)}.100"
        await eventually(lambda: router.addresses(sub), {"192.0.2.1/24"}, "VLAN")
        assert state(router, sub)[0] == "up"
        await settled(mirror)
        assert mirror.refused == ()
        router.ip("link", "del", "transit")
        await eventually(lambda: sub in router.vpp.cli("show interface"), False, "VLAN")
        assert "transit" not in router.vpp.cli("show lcp")


async def test_an_interface_follows_its_vrf_with_its_addresses(router: Router) -> None:
    port = router.port(0)
    router.ip("link", "set", "eth0", "up")
    router.ip("address", "add", "192.0.2.1/24", "dev", "eth0")
    router.ip("address", "add", "2001:db8::1/64", "dev", "eth0", "nodad")
    router.ip("link", "add", "blue", "type", "vrf", "table", "10")
    router.ip("link", "set", "blue", "up")
    run("ip", "netns", "exec", router.control, "sysctl", "-qw", "net.ipv6.conf.eth0.keep_addr_on_down=1")
    wanted = {"192.0.2.1/24", "2001:db8::1/64"}
    async with mirroring(router, tables=(254, 10)) as mirror:
        await eventually(lambda: router.addresses(port), wanted, "addresses")
        assert "table" not in router.shown(port)
        router.ip("link", "set", "eth0", "master", "blue")
        await eventually(lambda: router.shown(port).count("table-id 10"), 2, "table")
        await eventually(lambda: router.addresses(port), wanted, "addresses")
        await settled(mirror)
        assert mirror.refused == ()
        assert "192.0.2.1/32" in router.vpp.cli("show ip fib table 10")
        router.ip("link", "set", "eth0", "nomaster")
        await eventually(lambda: router.shown(port).count("table-id"), 0, "table")
        await eventually(lambda: router.addresses(port), wanted, "addresses")


async def test_labelled_packets_are_taken_where_linux_takes_them(router: Router) -> None:
    setting = "net.mpls.conf.eth0.input"
    router.ip("link", "set", "eth0", "up")
    async with mirroring(router):
        run("ip", "netns", "exec", router.control, "sysctl", "-qw", f"{setting}=1")
        await eventually(lambda: router.port(0) in router.vpp.cli("show mpls interface"), True, "MPLS")
        run("ip", "netns", "exec", router.control, "sysctl", "-qw", f"{setting}=0")
        await eventually(lambda: router.port(0) in router.vpp.cli("show mpls interface"), False, "MPLS")


async def test_a_restarted_vpp_gets_everything_again(router: Router) -> None:
    async with mirroring(router) as mirror:
        router.ip("link", "set", "eth0", "up")
        router.ip("address", "add", "192.0.2.1/24", "dev", "eth0")
        await eventually(lambda: router.addresses(router.port(0)), {"192.0.2.1/24"}, "addresses")
        router.vpp.kill()
        await eventually(lambda: mirror.problem is not None, True, "loss of VPP")
        router.vpp.start()
        router.add_ports()
        # The TAP went with VPP: Linux has a new one, without addresses.
        router.ip("link", "set", "eth0", "up")
        router.ip("address", "add", "192.0.2.9/24", "dev", "eth0")
        await eventually(lambda: router.addresses(router.port(0)), {"192.0.2.9/24"}, "addresses")


async def test_what_vpp_copies_to_linux_itself_is_not_mirrored_back(router: Router) -> None:
    router.vpp.cli("lcp lcp-sync on")
    async with mirroring(router, Aspect.ADDRESSES) as mirror:
        await eventually(lambda: "lcp-sync" in (mirror.problem or ""), True, "refusal")
