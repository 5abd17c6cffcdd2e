"""VppFib against a real VPP: what is written is what is read, and what is not ours is left alone."""

from __future__ import annotations

import asyncio
import logging
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest

from router_agent.fibs.fib import FibError, FibLostError
from router_agent.fibs.vpp import VppFib
from router_agent.model import (
    ABSENT,
    U32,
    U64,
    Changes,
    Failures,
    Family,
    Link,
    Neighbour,
    Path,
    PathSet,
    Reason,
    RouteType,
    keys_of,
    prefixes_of,
    v4_keys,
)
from router_agent.traffic.tables.vpp import read_vpp_table
from router_agent.vpp.process import VppProcess
from router_agent.vpp.session import VppSession

pytestmark = [
    pytest.mark.vpp,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("vpp") is None, reason="vpp is not on PATH"),
]

LEFT, RIGHT = 5, 6
"""Control-plane interface numbers of the two loopbacks."""
NO_SUCH_FIB = -3
OPTIONS: dict[str, Any] = {}
"""Options of every FIB of a test; see `recursion`."""


def packed(address: str) -> bytes:
    return ip_address(address).packed


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


@pytest.fixture(autouse=True, params=[False, True], ids=["direct", "recursive"])
def recursion(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether routes lead through entries: what is read and refused is the same either way."""
    monkeypatch.setitem(OPTIONS, "recursion", request.param)
    return bool(request.param)


def make_fib(vpp: VppProcess, **options: Any) -> VppFib:
    interfaces = {"left": "loop0", "right": "loop1"}
    fib = VppFib(api_socket=vpp.api_socket, interfaces=interfaces, **OPTIONS | options)
    links = [Link(LEFT, "left", True, True, bytes(6), 1500), Link(RIGHT, "right", True, True, bytes(6), 1500)]
    assert not fib.links(links, [])
    return fib


@asynccontextmanager
async def opened(vpp: VppProcess, **options: Any) -> AsyncIterator[VppFib]:
    fib = make_fib(vpp, **options)
    await fib.open()
    try:
        yield fib
    finally:
        await fib.close()


def changes(fib: VppFib, wanted: dict[str, PathSet | None], table: int = 0) -> Changes:
    """Return a write of prefixes of one family; None deletes."""
    keys = keys_of([ip_network(prefix) for prefix in wanted])
    ids = [ABSENT if paths is None else fib.path_id(paths) for paths in wanted.values()]
    assert not any(isinstance(number, Reason) for number in ids)
    family = Family.IPV4 if keys.shape[1] == 1 else Family.IPV6
    return Changes(family, table, keys, np.array(ids, np.uint32), np.zeros(len(keys), np.uint32))


async def put(fib: VppFib, wanted: dict[str, PathSet | None], table: int = 0) -> Failures:
    return await fib.write(changes(fib, wanted, table))


async def held(fib: VppFib, family: Family = Family.IPV4, table: int = 0) -> dict[str, PathSet]:
    found: dict[str, PathSet] = {}
    async for routes in fib.read(family, table):
        assert (routes.family, routes.table) == (family, table)
        for prefix, number in zip(prefixes_of(routes.keys), routes.paths.tolist(), strict=True):
            assert str(prefix) not in found
            found[str(prefix)] = fib.path_set(number)
    return found


def many(count: int) -> U64:
    addresses = (np.arange(count, dtype=np.uint32) << np.uint32(8)) + np.uint32(20 << 24)
    return v4_keys(addresses, np.full(count, 24, np.uint8))


def bulk(keys: U64, number: int) -> Changes:
    paths: U32 = np.full(len(keys), number, np.uint32)
    return Changes(Family.IPV4, 0, keys, paths, np.zeros(len(keys), np.uint32))


PATH_SETS = {
    "gateway": PathSet.unicast(Path(LEFT, packed("10.0.0.1"))),
    "connected": PathSet.unicast(Path(RIGHT)),
    "ecmp": PathSet.unicast(Path(LEFT, packed("10.0.0.1")), Path(RIGHT, packed("10.0.0.9"))),
    "weights": PathSet.unicast(Path(LEFT, packed("10.0.0.1"), 7), Path(RIGHT, packed("10.0.0.9"), 200)),
    "connected and gateway": PathSet.unicast(Path(LEFT), Path(RIGHT, packed("10.0.0.9"), 3)),
    "recursive": PathSet.unicast(Path(0, packed("10.0.0.77"))),
    "ipv6 gateway": PathSet.unicast(Path(LEFT, packed("fe80::1"))),
    "ipv6 ecmp": PathSet.unicast(Path(LEFT, packed("fe80::1"), 2), Path(RIGHT, packed("2001:db8::9"))),
    "labels": PathSet.unicast(Path(LEFT, packed("10.0.0.1"), labels=(100, 1048575))),
    "labels on some legs": PathSet.unicast(
        Path(LEFT, packed("10.0.0.1"), 3, (16,)), Path(RIGHT, packed("10.0.0.9"), 2)
    ),
    "ipv6 gateway and labels": PathSet.unicast(Path(LEFT, packed("fe80::1"), labels=(0,))),
    "as many labels as there are": PathSet.unicast(
        Path(LEFT, packed("10.0.0.1"), labels=tuple(range(100, 116)))
    ),
    "blackhole": PathSet(RouteType.BLACKHOLE),
    "unreachable": PathSet(RouteType.UNREACHABLE),
    "prohibit": PathSet(RouteType.PROHIBIT),
}


def in_vpp_terms(paths: PathSet) -> PathSet:
    index = {LEFT: 1, RIGHT: 2, 0: -1}
    legs = (replace(path, interface=index[path.interface] + 1) for path in paths.paths)
    return PathSet(paths.type, tuple(sorted(legs)))


async def test_every_kind_of_route_reads_back_as_written(vpp: VppProcess) -> None:
    v6_only = ("ipv6 ecmp", "ipv6 gateway")
    four = {f"192.0.{n}.0/24": p for n, (name, p) in enumerate(PATH_SETS.items()) if name != "ipv6 ecmp"}
    six = {
        f"2001:db8:{n:x}::/48": p
        for n, (name, p) in enumerate(PATH_SETS.items())
        if name in v6_only or name == "connected" or p.type is not RouteType.UNICAST
    }
    four |= {"198.51.100.7/32": PATH_SETS["connected"], "198.51.100.8/32": PATH_SETS["weights"]}
    six |= {"2001:db8:ffff::7/128": PATH_SETS["connected"], "::/0": PATH_SETS["ipv6 gateway"]}
    async with opened(vpp) as fib:
        assert len(await put(fib, dict(four))) == 0
        assert len(await put(fib, dict(six))) == 0
        assert await held(fib, Family.IPV4) == {p: in_vpp_terms(s) for p, s in four.items()}
        assert await held(fib, Family.IPV6) == {p: in_vpp_terms(s) for p, s in six.items()}


async def test_the_traffic_check_expects_each_family_at_its_own_port(vpp: VppProcess) -> None:
    """Both families' first entries have the same number."""
    wanted = {
        "192.0.2.0/24": PathSet.unicast(Path(LEFT, packed("10.0.0.1"))),
        "2001:db8:1::/48": PathSet.unicast(Path(RIGHT, packed("2001:db8::9"))),
    }
    async with opened(vpp) as fib:
        for prefix, paths in wanted.items():
            assert len(await put(fib, {prefix: paths})) == 0
        table = await asyncio.to_thread(read_vpp_table, vpp.api_socket)
        found = {
            str(prefix): table.interfaces[port]
            for family in Family
            for prefix, port in zip(
                prefixes_of(table.keys[family]), table.leaves_by[family].tolist(), strict=True
            )
        }
    assert found == {"192.0.2.0/24": "loop0", "2001:db8:1::/48": "loop1"}


@pytest.mark.parametrize(
    "leg",
    [Path(LEFT, tunnel="seg6"), Path(LEFT, packed("10.0.0.1"), labels=tuple(range(100, 117)))],
    ids=["other-tunnel", "too-many-labels"],
)
async def test_what_vpp_cannot_put_around_a_packet_has_a_reason(vpp: VppProcess, leg: Path) -> None:
    async with opened(vpp) as fib:
        assert fib.path_id(PathSet.unicast(leg)) is Reason.UNSUPPORTED_ENCAPSULATION


@pytest.mark.parametrize("recursion", [False, True], ids=["direct", "recursive"])
async def test_pushed_labels_leave_by_the_neighbour(vpp: VppProcess, recursion: bool) -> None:
    async with opened(vpp, recursion=recursion) as fib:
        await fib.write_neighbours([Neighbour(LEFT, packed("10.0.0.1"), bytes([2, 0, 0, 0, 0, 1]))], [])
        await put(fib, {"192.0.2.0/24": PATH_SETS["labels"]})
        shown = vpp.cli("show ip fib 192.0.2.0/24")
        assert "mpls-label" in shown
        assert re.search(r"\[100:\d+:0:neos\] *\[1048575:\d+:0:eos\]", shown), shown
        assert "020000000001" in shown


@pytest.mark.parametrize("recursion", [False, True], ids=["direct", "recursive"])
async def test_an_ipv4_route_leaves_by_an_ipv6_neighbour(vpp: VppProcess, recursion: bool) -> None:
    """RFC 8950: the next hop's protocol is IPv6, the packet's IPv4."""
    async with opened(vpp, recursion=recursion) as fib:
        await fib.write_neighbours([Neighbour(LEFT, packed("fe80::1"), bytes([2, 0, 0, 0, 0, 7]))], [])
        await put(fib, {"192.0.2.0/24": PATH_SETS["ipv6 gateway"]})
        forwarding = vpp.cli("show ip fib 192.0.2.0/24").partition("forwarding:")[2]
        assert "ipv4 via fe80::1 loop0" in forwarding
        assert "020000000007" in forwarding


async def test_replace_and_delete(vpp: VppProcess) -> None:
    async with opened(vpp) as fib:
        await put(fib, {"192.0.2.0/24": PATH_SETS["ecmp"], "192.0.3.0/24": PATH_SETS["gateway"]})
        await put(fib, {"192.0.2.0/24": PATH_SETS["blackhole"], "192.0.3.0/24": None})
        assert await held(fib) == {"192.0.2.0/24": PathSet(RouteType.BLACKHOLE)}


async def test_routes_of_others_are_never_shown_and_never_touched(vpp: VppProcess) -> None:
    vpp.cli("ip route add 192.0.2.0/24 via 10.0.0.5 loop0")
    vpp.cli("ip route add 192.0.9.0/24 via 10.0.0.5 loop0")
    async with opened(vpp) as fib:
        assert await held(fib) == {}
        await put(fib, {"192.0.2.0/24": PATH_SETS["gateway"], "192.0.9.0/24": None})
        assert set(await held(fib)) == {"192.0.2.0/24"}
        await put(fib, {"192.0.2.0/24": None})
        assert await held(fib) == {}
    for prefix in ("192.0.2.0/24", "192.0.9.0/24"):
        assert "10.0.0.5 loop0" in vpp.cli(f"show ip fib {prefix}")


async def test_ours_win_over_the_operators_cli_and_lose_to_an_interface_address(vpp: VppProcess) -> None:
    vpp.cli("ip route add 192.0.2.0/24 via 10.0.0.5 loop0")
    vpp.cli("set interface ip address loop1 198.51.100.1/24")
    async with opened(vpp) as fib:
        await put(fib, {"192.0.2.0/24": PATH_SETS["blackhole"], "198.51.100.0/24": PATH_SETS["blackhole"]})
        assert await held(fib) == {"192.0.2.0/24": PathSet(RouteType.BLACKHOLE)}
        vpp.cli("set interface ip address del loop1 198.51.100.1/24")
        assert set(await held(fib)) == {"192.0.2.0/24", "198.51.100.0/24"}


async def test_a_new_client_finds_the_former_routes(vpp: VppProcess) -> None:
    wanted: dict[str, PathSet | None] = {
        "192.0.2.0/24": PATH_SETS["ecmp"],
        "192.0.3.0/24": PATH_SETS["connected"],
    }
    async with opened(vpp) as fib:
        await put(fib, wanted)
        before = await held(fib)
    async with opened(vpp) as fib:
        assert await held(fib) == before
    sources = [line for line in vpp.cli("show fib source").splitlines() if "router-agent" in line]
    assert len(sources) == 2


async def test_open_changes_no_route_of_any_source(vpp: VppProcess) -> None:
    vpp.cli("ip route add 192.0.2.0/24 via 10.0.0.5 loop0")
    commands = [f"show {family} fib table 0 summary" for family in ("ip", "ip6")]
    before = [vpp.cli(command) for command in commands]
    async with opened(vpp):
        assert [vpp.cli(command) for command in commands] == before


async def test_a_second_agent_with_the_same_source_is_refused(vpp: VppProcess) -> None:
    async with opened(vpp):
        other = make_fib(vpp)
        with pytest.raises(FibError, match=r"another agent \(process \d+\) writes"):
            await other.open()
        async with opened(vpp, source_name="another") as third:
            assert await held(third) == {}


async def test_tables_are_created_once_and_kept_apart(vpp: VppProcess) -> None:
    tables = ((Family.IPV4, 7), (Family.IPV6, 7))
    async with opened(vpp, tables=tables) as fib:
        await put(fib, {"192.0.2.0/24": PATH_SETS["recursive"]}, table=7)
        await put(fib, {"192.0.2.0/24": PATH_SETS["gateway"]}, table=0)
        assert await held(fib, table=7) == {"192.0.2.0/24": in_vpp_terms(PATH_SETS["recursive"])}
        assert await held(fib, table=0) == {"192.0.2.0/24": in_vpp_terms(PATH_SETS["gateway"])}
    async with opened(vpp, tables=tables) as fib:
        assert set(await held(fib, table=7)) == {"192.0.2.0/24"}


async def test_refused_routes_are_named_by_row_with_vpps_number(vpp: VppProcess) -> None:
    async with opened(vpp) as fib:
        failures = await put(fib, {"192.0.2.0/24": PATH_SETS["gateway"]}, table=99)
        assert (failures.rows.tolist(), failures.codes.tolist()) == ([0], [NO_SUCH_FIB])
        good = changes(fib, {f"192.0.{n}.0/24": PATH_SETS["gateway"] for n in range(9)})
        good.keys[4, 0] = (good.keys[4, 0] & ~np.uint64(0xFF)) | np.uint64(60)
        failures = await fib.write(good)
        assert failures.rows.tolist() == [4]
        assert failures.codes[0] < 0
        assert len(await held(fib)) == 8


async def test_what_cannot_be_held_has_a_reason(vpp: VppProcess) -> None:
    async with opened(vpp) as fib:
        assert fib.path_id(PathSet.unicast(Path(99, packed("10.0.0.1")))) is Reason.UNRESOLVED_INTERFACE
        assert fib.path_id(PathSet.unicast(Path(0))) is Reason.UNRESOLVED_NEXT_HOP
        assert fib.path_id(PathSet.unicast()) is Reason.UNRESOLVED_NEXT_HOP
        assert fib.path_id(PathSet(RouteType.THROW)) is Reason.UNSUPPORTED_TYPE
        legs = [Path(LEFT, bytes([10, 0, n >> 8, n & 255])) for n in range(256)]
        assert fib.path_id(PathSet.unicast(*legs)) is Reason.OVER_CAPACITY
        assert isinstance(fib.path_id(PathSet.unicast(*legs[:255])), int)
        assert len(await put(fib, {"192.0.2.0/24": PathSet.unicast(*legs[:255])})) == 0
        assert await held(fib) == {"192.0.2.0/24": in_vpp_terms(PathSet.unicast(*legs[:255]))}


async def test_interfaces_are_matched_by_name(vpp: VppProcess) -> None:
    async with opened(vpp) as fib:
        over_right = PathSet.unicast(Path(RIGHT, packed("10.0.0.1")))
        assert fib.counterpart(RIGHT) == "loop1"
        assert fib.interface_name(fib.path_set(int(fib.path_id(over_right))).paths[0].interface) == "loop1"
        assert fib.links([], [RIGHT])
        assert fib.path_id(over_right) is Reason.UNRESOLVED_INTERFACE
        assert fib.counterpart(RIGHT) is None
        assert fib.links([Link(77, "right", True, True, bytes(6), 1500)], [])
        assert fib.counterpart(77) == "loop1"
        assert not fib.links([Link(78, "unrelated", True, True, bytes(6), 1500)], [])


async def test_a_hundred_thousand_routes_within_the_window(vpp: VppProcess) -> None:
    keys = many(100_000)
    async with opened(vpp, window=1000) as fib:
        ecmp, gateway = (fib.path_id(PATH_SETS[name]) for name in ("ecmp", "gateway"))
        mixed = bulk(keys, 0)
        mixed.paths[:] = np.where(np.arange(len(keys)) % 3 == 0, ecmp, gateway)
        assert len(await fib.write(mixed)) == 0
        assert 1 <= fib.highest_unanswered <= 1000
        parts = [(routes.keys, routes.paths) async for routes in fib.read(Family.IPV4, 0)]
        found = np.concatenate([keys for keys, _ in parts])[:, 0]
        paths = np.concatenate([paths for _, paths in parts])
        order = np.argsort(found)
        assert np.array_equal(found[order], keys[:, 0])
        assert np.array_equal(paths[order], mixed.paths)
        assert len(await fib.write(bulk(keys, ABSENT))) == 0
        assert await held(fib) == {}


async def test_vpp_killed_within_a_bulk_write_is_noticed(vpp: VppProcess) -> None:
    async with opened(vpp) as fib:
        number = fib.path_id(PATH_SETS["gateway"])
        assert isinstance(number, int)
        writing = asyncio.create_task(fib.write(bulk(many(400_000), number)))
        lost = asyncio.create_task(fib.wait_lost())
        async with asyncio.timeout(30):
            while fib.highest_unanswered < 16_000:
                await asyncio.sleep(0)
            assert not writing.done()
            vpp.kill()
            with pytest.raises(FibLostError, match="closed by VPP"):
                await writing
            await lost
            with pytest.raises(FibLostError):
                await held(fib)


async def test_an_idle_connection_notices_vpp_going_and_finds_the_next_one(vpp: VppProcess) -> None:
    async with opened(vpp) as fib:
        await put(fib, {"192.0.2.0/24": PATH_SETS["gateway"]})
        lost = asyncio.create_task(fib.wait_lost())
        await asyncio.sleep(0)
        vpp.kill()
        async with asyncio.timeout(10):
            await lost
        await fib.close()
        with pytest.raises(FibError, match="no VPP listens"):
            await fib.open()
        vpp.start()
        for number in (1, 0):
            vpp.cli(f"create loopback interface instance {number}")
        await fib.open()
        assert await held(fib) == {}
        left = fib.path_set(int(fib.path_id(PATH_SETS["gateway"])))
        assert fib.interface_name(left.paths[0].interface) == "loop0"
        assert left.paths[0].interface == 3


async def test_an_interface_that_goes_or_comes_asks_for_a_new_start(vpp: VppProcess) -> None:
    async with opened(vpp) as fib:
        lost = asyncio.create_task(fib.wait_lost())
        vpp.cli("create loopback interface")
        vpp.cli("delete loopback interface intfc loop1")
        async with asyncio.timeout(10):
            await lost
        await fib.close()
        await fib.open()
        assert fib.path_id(PATH_SETS["connected"]) is Reason.UNRESOLVED_INTERFACE
        lost = asyncio.create_task(fib.wait_lost())
        vpp.cli("create loopback interface instance 1")
        async with asyncio.timeout(10):
            await lost


@pytest.mark.parametrize("agent", ["stays", "restarts"])
async def test_routes_over_an_interface_made_anew_forward_again(
    vpp: VppProcess, agent: str, recursion: bool
) -> None:
    wanted: dict[str, PathSet | None] = {
        "192.0.2.0/24": PATH_SETS["connected"],
        "192.0.3.0/24": PATH_SETS["ecmp"],
        "192.0.4.0/24": PathSet.unicast(Path(RIGHT, packed("10.0.0.7"))),
        "192.0.5.0/24": PATH_SETS["gateway"],
    }
    host = Neighbour(RIGHT, packed("192.0.2.9"), bytes([2, 0, 0, 0, 0, 9]))
    async with opened(vpp) as fib:
        await put(fib, wanted)
        await fib.write_neighbours([host], [])
        before = await held(fib)
        if agent == "restarts":
            await fib.close()
        vpp.cli("delete loopback interface intfc loop1")
        vpp.cli("create loopback interface instance 1")
        vpp.cli("set interface state loop1 up")
        await fib.close()
        await fib.open()
        left = await held(fib)
        if recursion:
            assert left.pop("192.0.4.0/24") == PathSet(RouteType.BLACKHOLE), "its entry drops"
        assert set(left) == {"192.0.3.0/24", "192.0.5.0/24"}, "what only led to the dead interface went"
        assert left["192.0.3.0/24"] == in_vpp_terms(PATH_SETS["gateway"])
        await put(fib, {p: s for p, s in wanted.items() if s and left.get(p) != in_vpp_terms(s)})
        assert await held(fib) == before
        for prefix in ("192.0.2.0/24", "192.0.3.0/24", "192.0.4.0/24", "192.0.2.9/32"):
            forwarding = vpp.cli(f"show ip fib table 0 {prefix}").partition("forwarding:")[2]
            assert "loop1" in forwarding
            assert "drop" not in forwarding


async def test_neighbours_are_static_replaced_removed_and_swept(vpp: VppProcess) -> None:
    one, two, six = (
        Neighbour(LEFT, packed(a), bytes([2, 0, 0, 0, 0, n]))
        for n, a in enumerate(("10.0.0.1", "10.0.0.2", "2001:db8::1"))
    )
    unknown = Neighbour(99, packed("10.9.9.9"), bytes([2, 0, 0, 0, 9, 9]))
    async with opened(vpp) as fib:
        await fib.write_neighbours([one, two, six, unknown], [])
        shown = vpp.cli("show ip neighbors")
        assert all(text in shown for text in ("02:00:00:00:00:00", "02:00:00:00:00:01", "02:00:00:00:00:02"))
        assert "10.9.9.9" not in shown
        await fib.write_neighbours([Neighbour(LEFT, one.address, bytes([2, 0, 0, 0, 7, 7]))], [two])
        shown = vpp.cli("show ip neighbors")
        assert "02:00:00:00:07:07" in shown
        assert "10.0.0.2" not in shown
    vpp.cli("set ip neighbor loop0 10.0.0.3 0200.0000.0303 static")
    async with opened(vpp) as fib:
        await fib.write_neighbours([six], [])
        assert "10.0.0.1" in vpp.cli("show ip neighbors"), "nothing is removed before the sweep"
        await fib.retain_neighbours([six])
        shown = vpp.cli("show ip neighbors")
        assert "10.0.0." not in shown
        assert "2001:db8::1" in shown
        assert fib.refused_neighbours == ()


async def test_hosts_of_connected_prefixes_follow_neighbours_and_prefixes(vpp: VppProcess) -> None:
    host = Neighbour(RIGHT, packed("198.51.100.9"), bytes([2, 0, 0, 0, 0, 9]))
    elsewhere = Neighbour(LEFT, packed("198.51.100.10"), bytes([2, 0, 0, 0, 0, 10]))

    def forwards(address: str) -> bool:
        return f"ipv4 via {address} loop1" in vpp.cli(f"show ip fib {address}/32").partition("forwarding:")[2]

    async with opened(vpp) as fib:
        await fib.write_neighbours([host, elsewhere], [])
        assert not forwards("198.51.100.9")
        await put(fib, {"198.51.100.0/24": PATH_SETS["connected"]})
        assert forwards("198.51.100.9")
        assert "router-agent:hosts" not in vpp.cli("show ip fib 198.51.100.10/32")
        assert set(await held(fib)) == {"198.51.100.0/24"}
    async with opened(vpp) as fib:
        assert set(await held(fib)) == {"198.51.100.0/24"}
        await fib.write_neighbours([host], [])
        assert forwards("198.51.100.9")
        await put(fib, {"198.51.100.0/24": None})
        assert not forwards("198.51.100.9")
        await put(fib, {"198.51.100.0/24": PATH_SETS["connected"]})
        assert forwards("198.51.100.9")
        await fib.write_neighbours([], [host])
        assert "198.51.100.9" not in vpp.cli("show ip neighbors")
        assert not forwards("198.51.100.9")


async def test_a_vpp_restart_gets_its_neighbours_back_with_the_next_write(vpp: VppProcess) -> None:
    async with opened(vpp) as fib:
        await fib.write_neighbours([Neighbour(LEFT, packed("10.0.0.1"), bytes([2, 0, 0, 0, 0, 1]))], [])
        vpp.kill()
        await fib.close()
        vpp.start()
        vpp.cli("create loopback interface")
        vpp.cli("set interface state loop0 up")
        await fib.open()
        await put(fib, {"192.0.2.0/24": PATH_SETS["gateway"]})
        assert "02:00:00:00:00:01" in vpp.cli("show ip neighbors")


async def test_a_vpp_without_a_configured_interface_is_used_all_the_same(
    vpp: VppProcess, caplog: pytest.LogCaptureFixture
) -> None:
    fib = VppFib(api_socket=vpp.api_socket, interfaces={"left": "loop0", "gone": "loop77"})
    with caplog.at_level(logging.WARNING):
        await fib.open()
    assert "no interface loop77 (configured for gone)" in caplog.text
    await fib.close()


async def test_a_message_vpp_does_not_offer_is_named(vpp: VppProcess) -> None:
    session = VppSession(api_socket=vpp.api_socket, name="test")
    await session.open()
    try:
        with pytest.raises(
            FibError, match=r"does not offer the API message af_packet_create_v3.*enable the plugin"
        ):
            await session.call("af_packet_create_v3")
        with pytest.raises(FibError, match=r"ip_route_add_del_v2 \(CRC .*\) has no field route.flavour"):
            session.require({"ip_route_add_del_v2": ("route.flavour",)})
        with pytest.raises(FibError, match="invalid sw_if_index"):
            await session.call("sw_interface_set_flags", sw_if_index=999, flags=1)
    finally:
        await session.close()


async def test_the_command_line_socket_is_told_from_the_api_socket(
    vpp: VppProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router_agent.vpp.session.CALL_SECONDS", 1.0)
    fib = VppFib(api_socket=vpp.cli_socket, interfaces={})
    with pytest.raises(FibError, match=r"API socket|did not answer"):
        await fib.open()


async def test_a_cancelled_write_leaves_no_half_message_behind(vpp: VppProcess) -> None:
    async with opened(vpp) as fib:
        number = fib.path_id(PATH_SETS["gateway"])
        assert isinstance(number, int)
        writing = asyncio.create_task(fib.write(bulk(many(200_000), number)))
        while fib.highest_unanswered < 4000:
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        with pytest.raises(FibLostError, match="broken off"):
            await put(fib, {"192.0.2.0/24": PATH_SETS["gateway"]})
        await fib.close()
        await fib.open()
        assert len(await put(fib, {"192.0.2.0/24": PATH_SETS["gateway"]})) == 0
