"""The kernel feed against a real kernel: what it tells equals what ``ip route`` shows, whatever happens.

The truth is read with iproute2; the sink is the agent's own RIB. Where a test forbids a second dump (a long
`resync_interval_seconds`), equality can only come from events and from what the feed infers itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest

import router_agent.feeds.kernel as kernel_feed
from router_agent.feeds.feed import FeedError
from router_agent.feeds.kernel import KernelFeed
from router_agent.model import (
    ABSENT,
    U32,
    Family,
    Link,
    Neighbour,
    Operation,
    Path,
    PathSet,
    Prefix,
    RouteBatch,
    RouteType,
    keys_of,
    prefixes_of,
)
from router_agent.namespaces import inside
from router_agent.netlink import constants as c
from router_agent.netlink.messages import Messages
from router_agent.netlink.nexthops import REQUEST as NEXTHOP_REQUEST
from router_agent.netlink.paths import unicast
from router_agent.netlink.sockets import DumpInterruptedError, DumpSocket
from router_agent.rib import Rib

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(60),
]

NEVER = 3600.0
Table = dict[Prefix, PathSet]


class Namespace:
    """A namespace with p0 (10.0.0.1, 2001:db8::1) and p2 (10.1.0.1, 2001:db8:f::1), each with a peer."""

    def __init__(self) -> None:
        self.name = f"feed-{secrets.token_hex(4)}"
        self.compatible = True

    def show_next_hops_in_routes(self, *, compatible: bool) -> None:
        """Set nexthop_compat_mode: whether routes show the legs of their next-hop object, and follow them."""
        with inside(self.name):
            FilePath("/proc/sys/net/ipv4/nexthop_compat_mode").write_text(str(int(compatible)))

    def ip(self, command: str, *, check: bool = True) -> str:
        done = subprocess.run(
            ["ip", "-n", self.name, *command.split()], check=False, capture_output=True, text=True
        )
        if check and done.returncode:
            raise AssertionError(f"ip {command}: {done.stderr}")
        return done.stdout

    def batch(self, commands: Sequence[str]) -> None:
        # a batch takes no options of ip itself; the family shows from the prefix
        text = "".join(command.removeprefix("-6 ") + "\n" for command in commands)
        subprocess.run(["ip", "-n", self.name, "-batch", "-"], check=True, input=text, text=True)

    def indexes(self) -> dict[str, int]:
        return {link["ifname"]: link["ifindex"] for link in json.loads(self.ip("-j link show"))}

    def truth(self, table: int = 254) -> Table:
        """What ip(8) shows: of each prefix the first route of the lowest metric."""
        if not self.compatible:
            self.show_next_hops_in_routes(compatible=True)
        indexes = self.indexes()
        best: dict[Prefix, tuple[int, PathSet]] = {}
        for family in ("-4", "-6"):
            shown = self.ip(f"-j -d {family} route show table {table}", check=False)
            for row in json.loads(shown or "[]"):
                prefix, metric, paths = _shown(row, family, indexes)
                if paths and prefix and (prefix not in best or metric < best[prefix][0]):
                    best[prefix] = metric, paths
        if not self.compatible:
            self.show_next_hops_in_routes(compatible=False)
        return {prefix: paths for prefix, (_, paths) in best.items()}


def _shown(row: dict[str, Any], family: str, indexes: dict[str, int]) -> tuple[Any, int, PathSet | None]:
    bare = "0.0.0.0/0" if family == "-4" else "::/0"
    prefix = ip_network(bare if row["dst"] == "default" else row["dst"])
    if prefix.version == 6 and prefix.is_link_local:
        return None, 0, None
    kind = RouteType[row.get("type", "unicast").upper()]
    if kind is RouteType.THROW:
        return None, 0, None
    if kind is not RouteType.UNICAST:
        return prefix, row.get("metric", 0), PathSet(kind)
    legs = []
    for hop in row.get("nexthops") or [row]:
        gateway = hop.get("gateway") or hop.get("via", {}).get("host")
        if "dead" not in hop.get("flags", []):
            packed = ip_address(gateway).packed if gateway else b""
            legs.append(Path(indexes[hop["dev"]], packed, hop.get("weight", 1)))
    return prefix, row.get("metric", 0), unicast(legs)


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    made = Namespace()
    subprocess.run(["ip", "netns", "add", made.name], check=True)
    try:
        with inside(made.name):
            # without duplicate address detection, addresses and routes are there at once
            for name in ("all", "default"):
                FilePath(f"/proc/sys/net/ipv6/conf/{name}/accept_dad").write_text("0")
        made.batch(
            [
                "link set lo up",
                "link add p0 type veth peer name p1",
                "link add p2 type veth peer name p3",
                *(f"link set p{n} up" for n in range(4)),
                "addr add 10.0.0.1/24 dev p0",
                "addr add 10.1.0.1/24 dev p2",
                "addr add 2001:db8::1/64 dev p0 nodad",
                "addr add 2001:db8:f::1/64 dev p2 nodad",
            ]
        )
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.name], check=True)


class Follower:
    """A sink with real RIBs that remembers what else it was told."""

    def __init__(self, feed: KernelFeed) -> None:
        self.feed = feed
        self.ribs = {space: Rib(space[0], feed) for space in feed.spaces}
        self.snapshots: list[bool] = []
        self.links_known: dict[int, Link] = {}
        self.neighbours_known: dict[tuple[int, bytes], bytes] = {}
        self.operations: list[str] = []
        self.on_routes: Callable[[RouteBatch], None] = lambda batch: None
        self.on_end: Callable[[bool], None] = lambda clean: None
        self._told = asyncio.Event()

    def snapshot_begin(self) -> None:
        for rib in self.ribs.values():
            rib.snapshot_begin()

    def snapshot_end(self, *, clean: bool) -> None:
        self.snapshots.append(clean)
        if clean:
            for rib in self.ribs.values():
                rib.snapshot_end()
            limit = self.feed.path_limit
            used = np.zeros(limit, np.bool_)
            for rib in self.ribs.values():
                used |= rib.paths_in_use(limit)
            self.feed.retain(used)
        self.on_end(clean)
        self._told.set()

    def routes(self, batch: RouteBatch) -> None:
        self.operations += [Operation(o).name for o in batch.operations.tolist()]
        rib = self.ribs[batch.family, batch.table]
        rib.apply(batch)
        if rib.ambiguous:
            rib.ambiguous = False
            self.feed.resync()
        self.on_routes(batch)
        self._told.set()

    def paths_changed(self, paths: U32) -> None:
        void = np.array([p for p in paths if self.feed.resolve(int(p)) is None], np.uint32)
        for rib in self.ribs.values():
            rib.purge(void)
        self._told.set()

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        self.links_known.update((link.index, link) for link in links)
        for index in removed:
            del self.links_known[index]
        self._told.set()

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        self.neighbours_known.update(((n.interface, n.address), n.mac) for n in learned)
        for neighbour in removed:
            del self.neighbours_known[neighbour.interface, neighbour.address]
        self._told.set()

    def table(self, table: int = 254) -> Table:
        found: Table = {}
        for family in Family:
            rib = self.ribs[family, table]
            keys = rib.prefixes.keys(rib.prefixes.rows())
            for prefix, path in zip(prefixes_of(keys), rib.best(keys).tolist(), strict=True):
                paths = self.feed.resolve(path) if path != ABSENT else None
                if paths is not None:
                    found[prefix] = paths
        return found

    async def until(self, condition: Callable[[], bool], seconds: float = 5) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self._told.clear()
                await self._told.wait()


@asynccontextmanager
async def following(
    namespace: Namespace, *, resync_interval_seconds: float = NEVER, **options: Any
) -> AsyncIterator[Follower]:
    """Follow a namespace from its first clean snapshot on."""
    feed = KernelFeed(namespace=namespace.name, resync_interval_seconds=resync_interval_seconds, **options)
    follower = Follower(feed)
    running = asyncio.create_task(feed.run(follower))
    try:
        await follower.until(lambda: True in follower.snapshots)
        yield follower
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def agree(follower: Follower, namespace: Namespace, table: int = 254) -> None:
    """Wait until the sink holds what the kernel holds; on time-out show the difference."""
    truth = namespace.truth(table)
    try:
        await follower.until(lambda: follower.table(table) == truth)
    except TimeoutError:
        assert follower.table(table) == truth


STEPS = """
route add 20.0.0.0/24 via 10.0.0.2
route add 20.0.0.0/24 via 10.0.0.3 metric 256
route add 20.0.0.0/24 via 10.0.0.4 metric 1024
route del 20.0.0.0/24 via 10.0.0.2
route replace 20.0.0.0/24 via 10.0.0.9 metric 256
route del 20.0.0.0/24 metric 256
route add default via 10.0.0.2
route add blackhole 20.1.0.0/24
route add unreachable 20.1.1.0/24
route add prohibit 20.1.2.0/24
route add throw 20.1.3.0/24
route replace 20.1.0.0/24 via 10.0.0.2
route add 20.2.0.0/24 nexthop via 10.0.0.2 weight 3 nexthop via 10.1.0.4 weight 200
route replace 20.2.0.0/24 nexthop via 10.0.0.2 nexthop via 10.0.0.4
route add 20.3.0.0/24 via inet6 2001:db8::5 dev p0
nexthop add id 5 via 10.0.0.2 dev p0
nexthop add id 9 via 10.1.0.2 dev p2
nexthop add id 7 blackhole
nexthop add id 8 group 5,3/9,20
nexthop add id 10 group 5/9 type resilient buckets 8
nexthop add id 6 via 2001:db8::2 dev p0
nexthop add id 16 via 2001:db8:f::2 dev p2
nexthop add id 17 group 6/16
route add 20.6.0.0/24 nhid 5
route add 20.6.1.0/24 nhid 7
route add 20.6.2.0/24 nhid 8
route add 20.6.3.0/24 nhid 10
-6 route add 2001:db8:36::/48 nhid 6
-6 route add 2001:db8:37::/48 nhid 17
nexthop replace id 5 via 10.0.0.77 dev p0
nexthop replace id 6 via 2001:db8::77 dev p0
nexthop replace id 8 group 5,1/9,2
nexthop del id 9
nexthop del id 16
nexthop del id 5
nexthop del id 6
-6 route add 2001:db8:1::/48 via 2001:db8::2
-6 route append 2001:db8:1::/48 via 2001:db8::3
-6 route append 2001:db8:1::/48 via 2001:db8:f::4
-6 route del 2001:db8:1::/48 via 2001:db8::3
-6 route replace 2001:db8:1::/48 nexthop via 2001:db8::2 weight 2 nexthop via 2001:db8::3 weight 7
-6 route add 2001:db8:1::/48 via 2001:db8::9 metric 256
-6 route del 2001:db8:1::/48 metric 256
-6 route replace 2001:db8:1::/48 via 2001:db8::7
-6 route del 2001:db8:1::/48
-6 route add blackhole 2001:db8:2::/48
-6 route add unreachable 2001:db8:2:1::/64
-6 route add prohibit 2001:db8:2:2::/64
-6 route add default via 2001:db8::2
addr add 10.7.0.1/24 dev p0
addr del 10.7.0.1/24 dev p0
""".strip().splitlines()


@pytest.fixture(params=[True, False], ids=["legs-shown", "only-nhid"])
def either_mode(namespace: Namespace, request: pytest.FixtureRequest) -> Namespace:
    """The namespace, with routes that show the legs of their next-hop objects, and without."""
    namespace.compatible = request.param
    namespace.show_next_hops_in_routes(compatible=request.param)
    return namespace


async def test_every_kind_of_route_is_followed_without_a_second_dump(either_mode: Namespace) -> None:
    namespace = either_mode
    async with following(namespace) as follower:
        for step in STEPS:
            namespace.ip(step)
            await agree(follower, namespace)
        assert follower.snapshots == [True]
        assert follower.feed.overruns == 0
        followed = follower.table()
    async with following(namespace) as anew:
        assert anew.table() == followed == namespace.truth()


async def test_routes_of_one_prefix_and_metric_come_to_the_truth(namespace: Namespace) -> None:
    async with following(namespace, resync_interval_seconds=0.05) as follower:
        for step in (
            "route add 20.0.0.0/24 via 10.0.0.2",
            "route append 20.0.0.0/24 via 10.0.0.3",
            "route prepend 20.0.0.0/24 via 10.0.0.4",
            "route del 20.0.0.0/24 via 10.0.0.4",
            "route del 20.0.0.0/24 via 10.0.0.3",
            "route append 20.0.0.0/24 via 10.0.0.5",
            "route del 20.0.0.0/24 via 10.0.0.2",
            "route del 20.0.0.0/24",
        ):
            namespace.ip(step)
            await agree(follower, namespace)
    assert {"SET", "APPEND", "PREPEND", "DELETE", "FOUND"} <= set(follower.operations)


ROUTED = (
    "route add 20.0.0.0/24 via 10.0.0.2",
    "route add 20.0.1.0/24 nexthop via 10.0.0.2 weight 3 nexthop via 10.1.0.2 weight 5",
    "route add 20.0.2.0/24 via 10.1.0.2",
    "route add 20.0.2.0/24 via 10.0.0.2 metric 5",
    "nexthop add id 5 via 10.0.0.2 dev p0",
    "nexthop add id 9 via 10.1.0.2 dev p2",
    "nexthop add id 8 group 5/9",
    "route add 20.6.0.0/24 nhid 5",
    "route add 20.6.2.0/24 nhid 8",
    "route add 20.7.0.0/24 via inet6 2001:db8::5 dev p0",
    "-6 route add 2001:db8:1::/48 via 2001:db8::2",
    "-6 route add 2001:db8:2::/48 nexthop via 2001:db8::2 nexthop via 2001:db8:f::2",
)


@pytest.mark.parametrize(
    "fault",
    [
        "link set p0 down",
        "link set p2 down",
        "addr del 10.0.0.1/24 dev p0",
        "addr flush dev p2",
        "link del p0",
        "nexthop del id 5",
        "nexthop flush",
    ],
)
async def test_what_the_kernel_drops_in_silence_is_inferred_at_once(
    either_mode: Namespace, fault: str
) -> None:
    namespace = either_mode
    namespace.batch(ROUTED)
    async with following(namespace) as follower:
        assert follower.table() == namespace.truth()
        before = len(follower.table())
        namespace.ip(fault)
        assert len(namespace.truth()) < before
        await agree(follower, namespace)
        assert follower.snapshots == [True]


async def test_carrier_loss_keeps_plain_routes_and_drops_next_hop_objects(namespace: Namespace) -> None:
    namespace.batch(ROUTED)
    async with following(namespace) as follower:
        namespace.ip("link set p1 down")
        p0 = namespace.indexes()["p0"]
        await follower.until(lambda: not follower.links_known[p0].carrier)
        await agree(follower, namespace)
        table = follower.table()
        assert ip_network("20.0.0.0/24") in table
        assert ip_network("20.6.0.0/24") not in table
        assert follower.snapshots == [True]


async def test_a_link_that_comes_back_does_not_revive_what_the_kernel_forgot(namespace: Namespace) -> None:
    namespace.batch(ROUTED)
    async with following(namespace, resync_interval_seconds=0.05) as follower:
        for step in ("link set p0 down", "link set p0 up", "route add 20.0.0.0/24 via 10.0.0.2"):
            namespace.ip(step)
            await agree(follower, namespace)
        await follower.until(lambda: follower.snapshots.count(True) >= 2)
        await agree(follower, namespace)
        assert ip_network("20.0.0.0/24") in follower.table()


async def test_a_route_added_after_an_address_was_lost_is_there_at_once(namespace: Namespace) -> None:
    namespace.ip("route add 20.0.0.0/24 via 10.0.0.2 onlink dev p0")
    namespace.ip("route add 20.0.1.0/24 via 10.0.0.2 onlink dev p0")
    async with following(namespace) as follower:
        namespace.batch(["addr del 10.0.0.1/24 dev p0", "route add 20.0.0.0/24 via 10.0.0.2 onlink dev p0"])
        await agree(follower, namespace)
        assert ip_network("20.0.0.0/24") in follower.table()
        assert ip_network("20.0.1.0/24") not in follower.table()
        assert follower.snapshots == [True]


async def test_lost_events_lead_to_another_dump_and_to_equality(namespace: Namespace) -> None:
    async with following(namespace, resync_interval_seconds=0.05, event_buffer_bytes=32 << 10) as follower:
        # the event loop stands still meanwhile, so nobody reads
        namespace.batch(
            [f"route add 20.{n // 250}.{n % 250}.0/24 via 10.0.0.{n % 200 + 2}" for n in range(5000)]
        )
        namespace.batch([f"route del 20.{n // 250}.{n % 250}.0/24" for n in range(0, 5000, 3)])
        assert follower.feed.drops() > 0
        await agree(follower, namespace)
        assert follower.feed.overruns > 0
        assert follower.snapshots.count(True) >= 2


def many(first: int, count: int, gateway: int) -> list[str]:
    return [
        f"route replace 30.{n // 250}.{n % 250}.0/24 via 10.0.0.{gateway}"
        for n in range(first, first + count)
    ]


async def test_what_changes_while_a_dump_runs_comes_out_right(namespace: Namespace) -> None:
    namespace.batch(many(0, 3000, 2))
    async with following(namespace, resync_interval_seconds=0.01, chunk_bytes=32 << 10) as follower:
        chunks, dumped = 0, False

        def interfere(batch: RouteBatch) -> None:
            nonlocal chunks, dumped
            if dumped or batch.family is not Family.IPV4 or batch.operations[0] != Operation.FOUND:
                return
            chunks += 1
            if chunks == 2:
                dumped = True
                # on both sides of where the dump has come to
                namespace.batch(["route del 30.0.5.0/24", "route del 30.11.200.0/24"])
                namespace.batch(["route add 29.0.0.0/24 via 10.0.0.9", "route add 31.0.0.0/24 via 10.0.0.9"])
                namespace.batch([*many(20, 10, 7), *many(2900, 10, 8)])

        at_end: list[Table] = []
        follower.on_routes = interfere
        follower.on_end = lambda clean: at_end.append(follower.table())
        follower.feed.resync()
        await follower.until(lambda: len(at_end) > 0)
        assert dumped
        assert follower.snapshots == [True, True]
        assert at_end[0] == namespace.truth()


async def test_too_many_events_during_a_dump_make_it_unclean_and_delete_nothing(namespace: Namespace) -> None:
    namespace.batch(many(0, 2000, 2))
    async with following(
        namespace, resync_interval_seconds=0.01, chunk_bytes=32 << 10, backlog_bytes=1000
    ) as follower:
        interfered = False

        def interfere(batch: RouteBatch) -> None:
            nonlocal interfered
            if not interfered and batch.operations[0] == Operation.FOUND:
                interfered = True
                namespace.batch([f"route del 30.{n // 250}.{n % 250}.0/24" for n in range(500)])

        follower.on_routes = interfere
        follower.feed.resync()
        await follower.until(lambda: len(follower.snapshots) == 2)
        assert follower.snapshots == [True, False]
        assert len(follower.table()) >= 2000
        await agree(follower, namespace)
        assert follower.snapshots[-1]


async def test_a_dump_of_a_table_that_changes_is_found_out(namespace: Namespace) -> None:
    namespace.batch([f"nexthop add id {n} via 10.0.0.2 dev p0" for n in range(1, 3001)])
    dumps = DumpSocket(namespace.name)

    async def read_while_it_changes() -> None:
        async for _ in dumps.dump(c.RTM_GETNEXTHOP, NEXTHOP_REQUEST, chunk_bytes=4096):
            namespace.ip("nexthop replace id 2900 via 10.0.0.3 dev p0")
            namespace.ip("nexthop del id 2999", check=False)

    try:
        with pytest.raises(DumpInterruptedError):
            await read_while_it_changes()
    finally:
        dumps.close()


async def test_an_interrupted_dump_deletes_nothing_and_is_taken_again(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace.batch(many(0, 1500, 2))
    interruptions = 2

    class Interrupted(DumpSocket):
        """Breaks off the first route dumps after one chunk, as NLM_F_DUMP_INTR would."""

        async def dump(
            self, kind: int, body: bytes, *, chunk_bytes: int = 1 << 20
        ) -> AsyncGenerator[Messages, None]:
            nonlocal interruptions
            async for messages in super().dump(kind, body, chunk_bytes=chunk_bytes):
                yield messages
                if kind == c.RTM_GETROUTE and interruptions:
                    interruptions -= 1
                    raise DumpInterruptedError("on purpose")

    async with following(namespace, resync_interval_seconds=0.01, chunk_bytes=32 << 10) as follower:
        monkeypatch.setattr(kernel_feed, "DumpSocket", Interrupted)
        follower.feed.resync()
        await follower.until(lambda: len(follower.snapshots) == 2)
        assert follower.table() == namespace.truth()
        await follower.until(lambda: len(follower.snapshots) == 4)
        assert follower.snapshots == [True, False, False, True]
        assert follower.table() == namespace.truth()


async def test_tables_and_protocols_are_chosen(namespace: Namespace) -> None:
    namespace.batch(
        [
            "route add 20.0.0.0/24 via 10.0.0.2 proto 186",
            "route add 20.0.1.0/24 via 10.0.0.2 proto 99",
            "route add 20.0.2.0/24 via 10.0.0.2 proto 186 table 70000",
            "-6 route add 2001:db8:1::/48 via 2001:db8::2 proto 186 table 70000",
            "route add 20.0.3.0/24 via 10.0.0.2 table 1000",
        ]
    )
    async with following(namespace, tables=(254, 70000), protocols=frozenset({186})) as follower:
        assert {str(prefix) for prefix in follower.table()} == {"20.0.0.0/24"}
        assert follower.table(70000) == namespace.truth(70000)
    async with following(namespace, ignore_protocols=frozenset({99})) as follower:
        assert ip_network("20.0.1.0/24") not in follower.table()
        namespace.ip("route replace 20.0.0.0/24 via 10.0.0.3 proto 99")
        gone = keys_of([ip_network("20.0.0.0/24")])
        rib = follower.ribs[Family.IPV4, 254]
        await follower.until(lambda: int(rib.best(gone)[0]) == ABSENT)


async def test_links_and_neighbours_are_told(namespace: Namespace) -> None:
    namespace.ip("neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev p0")
    async with following(namespace) as follower:
        p0 = namespace.indexes()["p0"]
        first, second = (p0, ip_address("10.0.0.2").packed), (p0, ip_address("2001:db8::9").packed)
        assert follower.neighbours_known == {first: bytes.fromhex("020000000002")}
        assert {link.name for link in follower.links_known.values()} == set(namespace.indexes())
        assert follower.links_known[p0].up
        namespace.ip("neigh add 2001:db8::9 lladdr 02:00:00:00:00:09 dev p0 nud reachable")
        namespace.ip("neigh replace 10.0.0.2 lladdr 02:00:00:00:00:0a dev p0")
        expected = {first: bytes.fromhex("02000000000a"), second: bytes.fromhex("020000000009")}
        await follower.until(lambda: follower.neighbours_known == expected)
        namespace.ip("neigh del 10.0.0.2 dev p0")
        await follower.until(lambda: first not in follower.neighbours_known)
        namespace.ip("link set p0 name wan")
        await follower.until(lambda: follower.links_known[p0].name == "wan")
        namespace.ip("link del wan")
        await follower.until(lambda: p0 not in follower.links_known and not follower.neighbours_known)


async def test_path_ids_of_the_past_are_given_again(namespace: Namespace) -> None:
    async with following(namespace, resync_interval_seconds=0.0) as follower:
        limits = []
        for cycle in range(1, 5):
            namespace.batch([f"route replace 20.0.0.0/24 via 10.0.0.{n}" for n in range(2, 60)])
            await agree(follower, namespace)
            follower.feed.resync()
            await follower.until(lambda cycle=cycle: follower.snapshots.count(True) > cycle)  # type: ignore[misc]
            limits.append(follower.feed.path_limit)
        assert limits[0] > 50
        assert limits[-1] <= limits[0] + 2
        assert follower.table() == namespace.truth()


async def failure_of(feed: KernelFeed) -> str:
    with pytest.raises(FeedError) as caught:
        await asyncio.wait_for(feed.run(Follower(feed)), 10)
    return str(caught.value)


async def test_a_namespace_that_does_not_exist_is_a_clear_error() -> None:
    told = await failure_of(KernelFeed(namespace="no-such-namespace"))
    assert "'no-such-namespace' does not exist" in told
    assert "ip netns add" in told


async def test_a_namespace_that_is_removed_ends_the_feed(namespace: Namespace) -> None:
    other = Namespace()
    subprocess.run(["ip", "netns", "add", other.name], check=True)
    feed = KernelFeed(namespace=other.name, resync_interval_seconds=NEVER)
    follower = Follower(feed)
    running: Awaitable[None] = asyncio.create_task(feed.run(follower))
    try:
        await follower.until(lambda: follower.snapshots == [True])
    finally:
        subprocess.run(["ip", "netns", "del", other.name], check=True)
    with pytest.raises(FeedError, match="was removed"):
        await asyncio.wait_for(running, 10)


def test_a_thread_is_back_in_its_namespace_after_an_error(namespace: Namespace) -> None:
    own = FilePath("/proc/thread-self/ns/net")
    before = own.readlink()
    within = before

    def fail_inside() -> None:
        nonlocal within
        with inside(namespace.name):
            within = own.readlink()
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert within != before
    assert own.readlink() == before
