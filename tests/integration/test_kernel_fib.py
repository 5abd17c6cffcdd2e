"""The kernel FIB against a real kernel: what is written is what ``ip route`` shows and what is read back."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import numpy as np
import pytest

from router_agent.fibs.fib import FibError, FibLostError
from router_agent.fibs.kernel import KernelFib
from router_agent.model import (
    ABSENT,
    Changes,
    Failures,
    Family,
    Link,
    Neighbour,
    Path,
    PathSet,
    Prefix,
    Reason,
    RouteType,
    keys_of,
    prefixes_of,
)

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(60),
]

PROTOCOL, METRIC = 201, 20
CONTROL = {"eth1": 11, "eth2": 12}
"""Control-plane interfaces, by index; the namespace's p0 and p2 mirror them."""


class Forwarder:
    """A namespace with ports p0 and p2 that have no addresses, like a mirrored forwarding plane."""

    def __init__(self) -> None:
        self.name = f"fib-{secrets.token_hex(4)}"

    def ip(self, command: str) -> str:
        return subprocess.run(
            ["ip", "-n", self.name, *command.split()], check=True, capture_output=True, text=True
        ).stdout

    def shown(self, what: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ip(f"-j -d {what}") or "[]")
        return found


@pytest.fixture
def forwarder() -> Iterator[Forwarder]:
    made = Forwarder()
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        made.ip("link set lo up")
        made.ip("link add p0 type veth peer name p1")
        made.ip("link add p2 type veth peer name p3")
        for number in range(4):
            made.ip(f"link set p{number} up")
        yield made
    finally:
        # a test may have taken it down itself
        subprocess.run(["ip", "netns", "del", made.name], check=False, capture_output=True)


async def opened(forwarder: Forwarder, **options: Any) -> KernelFib:
    defaults = {
        "namespace": forwarder.name,
        "protocol": PROTOCOL,
        "metric": METRIC,
        "interfaces": {"eth1": "p0", "eth2": "p2"},
    }
    fib = KernelFib(**{**defaults, **options})
    fib.links([Link(index, name, True, True, b"", 1500) for name, index in CONTROL.items()], [])
    await fib.open()
    return fib


def known(fib: KernelFib, paths: PathSet) -> int:
    found = fib.path_id(paths)
    assert not isinstance(found, Reason), found
    return found


async def write(
    fib: KernelFib,
    family: Family,
    wanted: dict[Prefix, PathSet | None],
    held: dict[Prefix, PathSet | None] | None = None,
    table: int = 254,
) -> Failures:
    def ids(sets: Sequence[PathSet | None]) -> np.ndarray[Any, np.dtype[np.uint32]]:
        return np.array([ABSENT if p is None else known(fib, p) for p in sets], np.uint32)

    before = [(held or {}).get(prefix) for prefix in wanted]
    changes = Changes(family, table, keys_of(list(wanted)), ids(list(wanted.values())), ids(before))
    return await fib.write(changes)


async def read(fib: KernelFib, family: Family, table: int = 254) -> dict[Prefix, int]:
    found: dict[Prefix, int] = {}
    async for routes in fib.read(family, table):
        for prefix, path in zip(prefixes_of(routes.keys), routes.paths.tolist(), strict=True):
            assert prefix not in found
            found[prefix] = path
    return found


def gateway(family: Family, number: int) -> bytes:
    return ip_address(f"10.9.0.{number}" if family is Family.IPV4 else f"2001:db8:9::{number}").packed


def kinds(family: Family) -> dict[str, PathSet]:
    one, two, three = (gateway(family, n) for n in (1, 2, 3))
    return {
        "single": PathSet.unicast(Path(11, one)),
        "other-single": PathSet.unicast(Path(12, two)),
        "connected": PathSet.unicast(Path(11)),
        "multipath": PathSet.unicast(Path(11, one), Path(12, two)),
        "weighted": PathSet.unicast(Path(11, one, 3), Path(12, two, 256), Path(12, three)),
        "overlapping": PathSet.unicast(Path(11, one), Path(11, three)),
        "blackhole": PathSet(RouteType.BLACKHOLE),
        "unreachable": PathSet(RouteType.UNREACHABLE),
        "prohibit": PathSet(RouteType.PROHIBIT),
    }


def pair_prefix(family: Family, number: int) -> Prefix:
    return ip_network(f"20.0.{number}.0/24" if family is Family.IPV4 else f"2001:db8:{number + 16:x}::/48")


@pytest.mark.parametrize("family", Family, ids=["ipv4", "ipv6"])
async def test_every_kind_of_path_set_becomes_every_other(forwarder: Forwarder, family: Family) -> None:
    sets = kinds(family)
    pairs = list(itertools.product(sets, repeat=2))
    first = {pair_prefix(family, n): sets[a] for n, (a, _) in enumerate(pairs)}
    second = {pair_prefix(family, n): sets[b] for n, (_, b) in enumerate(pairs)}
    fib = await opened(forwarder)
    try:
        assert len(await write(fib, family, {**first})) == 0, fib.refusals
        assert await read(fib, family) == {p: known(fib, s) for p, s in first.items()}
        assert len(await write(fib, family, {**second}, {**first})) == 0, fib.refusals
        assert await read(fib, family) == {p: known(fib, s) for p, s in second.items()}
        version = "-4" if family is Family.IPV4 else "-6"
        shown = forwarder.shown(f"{version} route show proto {PROTOCOL}")
        assert sorted(row["dst"] for row in shown) == sorted(str(p) for p in second)
        for row in shown:
            expected = second[ip_network(row["dst"])]
            assert row.get("type", "unicast") == expected.type.name.lower()
            assert row["metric"] == METRIC
            assert len(row.get("nexthops", [row])) == max(1, len(expected.paths))
        assert len(await write(fib, family, dict.fromkeys(second), {**second})) == 0
        assert await read(fib, family) == {}
        assert forwarder.shown(f"{version} route show proto {PROTOCOL}") == []
    finally:
        await fib.close()


async def test_an_ipv4_route_with_an_ipv6_gateway(forwarder: Forwarder) -> None:
    fib = await opened(forwarder)
    paths = PathSet.unicast(Path(11, gateway(Family.IPV6, 1)), Path(12, gateway(Family.IPV4, 2)))
    prefix = ip_network("20.0.0.0/24")
    assert len(await write(fib, Family.IPV4, {prefix: paths})) == 0
    assert await read(fib, Family.IPV4) == {prefix: known(fib, paths)}
    await fib.close()


async def test_a_new_process_reads_what_the_last_one_wrote(forwarder: Forwarder) -> None:
    sets = kinds(Family.IPV6)
    wanted = {pair_prefix(Family.IPV6, n): s for n, s in enumerate(sets.values())}
    fib = await opened(forwarder)
    await write(fib, Family.IPV6, {**wanted}, table=1000)
    await fib.close()
    anew = await opened(forwarder)
    assert await read(anew, Family.IPV6) == {}
    held = await read(anew, Family.IPV6, 1000)
    assert held == {prefix: known(anew, paths) for prefix, paths in wanted.items()}
    assert anew.interface_name(anew.path_set(held[pair_prefix(Family.IPV6, 0)]).paths[0].interface) == "p0"
    await anew.close()


async def test_a_table_nobody_has_written_to_is_empty(forwarder: Forwarder) -> None:
    fib = await opened(forwarder)
    for family in Family:
        assert await read(fib, family, 4711) == {}
    await fib.close()


async def test_routes_of_others_are_neither_shown_nor_touched(forwarder: Forwarder) -> None:
    forwarder.ip("route add 20.0.0.0/24 dev p2 proto 99 metric 5")
    forwarder.ip(f"route add 20.0.1.0/24 dev p2 proto 99 metric {METRIC}")
    forwarder.ip(f"route add 20.0.2.0/24 dev p2 proto {PROTOCOL} metric 77")
    forwarder.ip(f"-6 route add 2001:db8:1::/48 dev p2 proto 99 metric {METRIC}")
    before = forwarder.shown("route show proto 99"), forwarder.shown("-6 route show proto 99")
    fib = await opened(forwarder)
    one = PathSet.unicast(Path(11))
    v4: dict[Prefix, PathSet | None] = {ip_network(f"20.0.{n}.0/24"): one for n in range(3)}
    v6: dict[Prefix, PathSet | None] = {ip_network("2001:db8:1::/48"): one}
    assert await read(fib, Family.IPV4) == {}
    failures = await write(fib, Family.IPV4, v4)
    assert (failures.rows.tolist(), failures.codes.tolist()) == ([1], [-errno.EEXIST])
    failures = await write(fib, Family.IPV6, v6)
    assert (failures.rows.tolist(), failures.codes.tolist()) == ([0], [-errno.EEXIST])
    # deleting what is not there, or not ours, is no failure and no deletion
    assert len(await write(fib, Family.IPV4, dict.fromkeys(v4), v4)) == 0
    assert len(await write(fib, Family.IPV6, dict.fromkeys(v6), v6)) == 0
    assert (forwarder.shown("route show proto 99"), forwarder.shown("-6 route show proto 99")) == before
    assert [row["metric"] for row in forwarder.shown(f"route show proto {PROTOCOL}")] == [77]
    await fib.close()


async def test_each_refusal_names_its_row_and_the_rest_is_written(forwarder: Forwarder) -> None:
    forwarder.ip("addr add 10.9.0.254/24 dev p0")
    forwarder.ip(f"route add 20.0.30.0/24 dev p2 proto 99 metric {METRIC}")
    fib = await opened(forwarder, interfaces=None, window=7)
    index = {row["ifname"]: row["ifindex"] for row in forwarder.shown("link show")}
    good = PathSet.unicast(Path(index["p0"], gateway(Family.IPV4, 1)))
    bad = PathSet.unicast(Path(index["p0"], ip_address("10.77.0.1").packed))
    wanted = {ip_network(f"20.0.{n}.0/24"): (bad if n % 10 == 3 else good) for n in range(50)}
    failures = await write(fib, Family.IPV4, {**wanted})
    told = dict(zip(failures.rows.tolist(), failures.codes.tolist(), strict=True))
    assert told == {3: -errno.ENETUNREACH, 13: -errno.ENETUNREACH, 23: -errno.ENETUNREACH,
                    30: -errno.EEXIST, 33: -errno.ENETUNREACH, 43: -errno.ENETUNREACH}  # fmt: skip
    assert "Nexthop has invalid gateway" in fib.refusals
    assert set(await read(fib, Family.IPV4)) == {prefix for n, prefix in enumerate(wanted) if n not in told}
    await fib.close()


async def test_what_ipv6_would_store_as_something_else_is_refused(forwarder: Forwarder) -> None:
    fib = await opened(forwarder)
    two_direct = PathSet.unicast(Path(11), Path(12))
    foreign = PathSet.unicast(Path(11, gateway(Family.IPV4, 1)))
    fine = PathSet.unicast(Path(11, gateway(Family.IPV6, 1)))
    wanted = {pair_prefix(Family.IPV6, n): s for n, s in enumerate((fine, two_direct, fine, foreign, fine))}
    failures = await write(fib, Family.IPV6, {**wanted})
    assert sorted(failures.rows.tolist()) == [1, 3]
    assert set(failures.codes.tolist()) == {-errno.EAFNOSUPPORT}
    assert set(await read(fib, Family.IPV6)) == {p for p, s in wanted.items() if s is fine}
    await fib.close()


async def test_a_gateway_alone_finds_its_interface(forwarder: Forwarder) -> None:
    forwarder.ip("addr add 10.9.0.254/24 dev p2")
    forwarder.ip("addr add 2001:db8:9::fe/64 dev p0 nodad")
    forwarder.ip("route add 10.10.0.0/16 via 10.9.0.1")
    fib = await opened(forwarder, interfaces=None)
    index = {row["ifname"]: row["ifindex"] for row in forwarder.shown("link show")}
    v4 = known(fib, PathSet.unicast(Path(0, gateway(Family.IPV4, 1))))
    assert fib.path_set(v4) == PathSet.unicast(Path(index["p2"], gateway(Family.IPV4, 1)))
    v6 = known(fib, PathSet.unicast(Path(0, gateway(Family.IPV6, 1))))
    assert fib.path_set(v6) == PathSet.unicast(Path(index["p0"], gateway(Family.IPV6, 1)))
    for nowhere in ("10.10.0.1", "10.200.0.1", "2001:db8:77::1"):
        wanted = PathSet.unicast(Path(0, ip_address(nowhere).packed))
        assert fib.path_id(wanted) is Reason.UNRESOLVED_NEXT_HOP
    link_local = PathSet.unicast(Path(0, ip_address("fe80::1").packed))
    assert fib.path_id(link_local) is Reason.UNRESOLVED_INTERFACE
    prefix = ip_network("20.0.0.0/24")
    assert len(await write(fib, Family.IPV4, {prefix: fib.path_set(v4)})) == 0
    assert await read(fib, Family.IPV4) == {prefix: v4}
    await fib.close()


async def test_neighbours_are_copied_kept_apart_and_removed(forwarder: Forwarder) -> None:
    def permanent() -> dict[str, str]:
        shown = [
            row for family in ("-4", "-6") for row in forwarder.shown(f"{family} neigh show nud permanent")
        ]
        return {row["dst"]: f"{row['lladdr']} {row['dev']}" for row in shown}

    forwarder.ip("neigh add 10.9.0.99 lladdr 02:00:00:00:00:99 dev p0 nud permanent")
    foreign = {"10.9.0.99": "02:00:00:00:00:99 p0"}
    v4, v6 = gateway(Family.IPV4, 1), gateway(Family.IPV6, 1)
    fib = await opened(forwarder)
    first, second = (
        Neighbour(11, v4, bytes.fromhex("020000000001")),
        Neighbour(12, v6, bytes.fromhex("020000000002")),
    )
    unknown = Neighbour(77, v4, bytes.fromhex("020000000003"))
    await fib.write_neighbours([first, second, unknown], [])
    copied = {"10.9.0.1": "02:00:00:00:00:01 p0", "2001:db8:9::1": "02:00:00:00:00:02 p2"}
    assert permanent() == foreign | copied
    moved = Neighbour(11, v4, bytes.fromhex("02000000000a"))
    await fib.write_neighbours([moved], [])
    assert permanent()["10.9.0.1"] == "02:00:00:00:00:0a p0"
    await fib.close()

    anew = await opened(forwarder)
    await anew.write_neighbours(
        [moved], [Neighbour(12, v6, b""), Neighbour(11, ip_address("10.9.0.99").packed, b"")]
    )
    assert permanent() == foreign | {"10.9.0.1": "02:00:00:00:00:0a p0"}
    await anew.retain_neighbours([])
    assert permanent() == foreign
    await anew.close()


async def test_interfaces_are_matched_by_name(forwarder: Forwarder) -> None:
    fib = await opened(forwarder)
    assert fib.counterpart(11) == "p0"
    assert fib.counterpart(13) is None
    assert fib.path_id(PathSet.unicast(Path(13, gateway(Family.IPV4, 1)))) is Reason.UNRESOLVED_INTERFACE
    assert fib.links([Link(13, "eth3", True, True, b"", 1500)], [])
    assert not fib.links([Link(13, "eth3", False, True, b"", 1400)], [])
    assert fib.links([Link(13, "eth1", True, True, b"", 1500)], [11])
    assert fib.counterpart(13) == "p0"
    assert fib.links([], [13])
    assert fib.counterpart(13) is None
    await fib.close()


async def lost_after(fib: KernelFib, forwarder: Forwarder, *commands: str) -> bool:
    waiting = asyncio.create_task(fib.wait_lost())
    await asyncio.sleep(0)
    for command in commands:
        forwarder.ip(command)
    try:
        await asyncio.wait_for(waiting, 0.3)
    except TimeoutError:
        return False
    return True


async def test_changes_of_ports_end_the_wait_and_others_do_not(forwarder: Forwarder) -> None:
    fib = await opened(forwarder)
    harmless = (
        "link set p2 mtu 1400",
        "link add p8 type veth peer name p9",
        "link set p8 up",
        "link set lo down",
    )
    assert not await lost_after(fib, forwarder, *harmless)
    assert await lost_after(fib, forwarder, "link set p0 down")
    await fib.open()
    assert await lost_after(fib, forwarder, "link set p2 down", "link set p2 name other")
    await fib.open()
    assert isinstance(fib.path_id(PathSet.unicast(Path(12))), Reason)
    assert await lost_after(fib, forwarder, "link set other name p2")
    await fib.open()
    assert isinstance(fib.path_id(PathSet.unicast(Path(12))), int)
    assert await lost_after(fib, forwarder, "link del p0")
    await fib.close()


async def test_a_change_of_addresses_matters_where_the_kernel_resolves_gateways(forwarder: Forwarder) -> None:
    forwarder.ip("addr add 10.9.0.253/24 dev p0")
    fib = await opened(forwarder, interfaces=None)
    renewed = "addr change 10.9.0.253/24 dev p0 valid_lft 1000 preferred_lft 900"
    assert not await lost_after(fib, forwarder, renewed, "link set p0 mtu 1400")
    assert await lost_after(fib, forwarder, "addr add 10.9.0.254/24 dev p0")
    await fib.open()
    assert await lost_after(fib, forwarder, "addr del 10.9.0.253/24 dev p0")
    await fib.close()


async def test_a_namespace_that_is_gone_is_lost(forwarder: Forwarder) -> None:
    fib = await opened(forwarder)
    waiting = asyncio.create_task(fib.wait_lost())
    await asyncio.sleep(0)
    subprocess.run(["ip", "netns", "del", forwarder.name], check=True)
    await asyncio.wait_for(waiting, 5)
    with pytest.raises(FibLostError, match="was removed"):
        await write(fib, Family.IPV4, {ip_network("20.0.0.0/24"): PathSet(RouteType.BLACKHOLE)})
    with pytest.raises(FibLostError, match="was removed"):
        await read(fib, Family.IPV4)
    with pytest.raises(FibError, match="does not exist"):
        await fib.open()
    with pytest.raises(FibLostError, match="closed"):
        await read(fib, Family.IPV4)


async def test_unused_path_sets_are_forgotten_but_not_while_somebody_reads(forwarder: Forwarder) -> None:
    fib = await opened(forwarder)
    prefixes = [ip_network(f"10.{i}.0.0/16") for i in range(4)]
    paths = [PathSet.unicast(Path(CONTROL["eth1"], bytes((192, 0, 2, 1 + i)))) for i in range(4)]
    await write(fib, Family.IPV4, dict(zip(prefixes, paths, strict=True)))
    kept = known(fib, paths[0])
    in_use = np.zeros(fib.path_limit, np.bool_)
    in_use[kept] = True
    async for routes in fib.read(Family.IPV4, 254):
        await fib.retain_paths(in_use)
        assert {fib.path_set(number).type for number in routes.paths.tolist()} == {RouteType.UNICAST}
    limit = fib.path_limit
    await fib.retain_paths(in_use)
    assert known(fib, paths[0]) == kept
    fresh = [PathSet.unicast(Path(CONTROL["eth2"], bytes((192, 0, 2, 1 + i)))) for i in range(3)]
    assert kept not in {known(fib, path) for path in fresh}
    assert fib.path_limit == limit, "the ids of forgotten path sets are given out again"
    await fib.close()
