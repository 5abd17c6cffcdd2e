"""The FPM feed on a real TCP socket and a real kernel: who may speak, and what a broken stream does.

How zebra itself and BGP neighbours take it is in test_confirmed.py.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from ipaddress import IPv4Address, ip_network
from typing import Any

import numpy as np
import pytest

from router_agent.feeds.feed import FeedError
from router_agent.feeds.fpm import FpmFeed
from router_agent.model import (
    U32,
    Family,
    Link,
    Neighbour,
    Outcomes,
    Path,
    PathSet,
    RouteBatch,
    RouteType,
    prefixes_of,
)
from router_agent.namespaces import inside
from router_agent.netlink import constants as c
from router_agent.netlink.messages import attribute, message
from router_agent.rib import Rib

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(60),
]

SPACE = (Family.IPV4, 254)
QUIET = 0.2
GATEWAY = bytes((10, 0, 0, 2))


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"fpm-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        lines = ["link set lo up", "link add p0 type veth peer name p1", "link set p0 up", "link set p1 up"]
        lines += ["addr add 10.0.0.1/24 dev p0", "addr add 192.0.2.77/32 dev lo"]
        batch = "".join(f"{line}\n" for line in lines)
        subprocess.run(["ip", "-n", name, "-batch", "-"], check=True, input=batch, text=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


class Follower:
    """A sink with real RIBs."""

    def __init__(self, feed: FpmFeed) -> None:
        self.feed = feed
        self.ribs = {space: Rib(space[0], feed) for space in feed.spaces}
        self.snapshots: list[bool] = []
        self.links_known: set[str] = set()
        self.told = asyncio.Event()

    def snapshot_begin(self) -> None:
        for rib in self.ribs.values():
            rib.snapshot_begin()

    def snapshot_end(self, *, clean: bool) -> None:
        if clean:
            for rib in self.ribs.values():
                rib.snapshot_end()
        self.snapshots.append(clean)
        self.told.set()

    def routes(self, batch: RouteBatch) -> None:
        self.ribs[batch.family, batch.table].apply(batch)
        self.told.set()

    def paths_changed(self, paths: U32) -> None:
        self.told.set()

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        self.links_known |= {link.name for link in links}

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None: ...

    def table(self) -> dict[str, PathSet | None]:
        rib = self.ribs[SPACE]
        keys = rib.prefixes.keys(rib.prefixes.rows())
        prefixes = map(str, prefixes_of(keys))
        return dict(zip(prefixes, map(self.feed.resolve, rib.best(keys).tolist()), strict=True))

    def outcomes(self, *, in_fib: bool) -> Outcomes:
        rib = self.ribs[SPACE]
        keys = rib.prefixes.keys(rib.prefixes.rows())
        return Outcomes(*SPACE, keys, rib.best(keys), np.full(len(keys), in_fib))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.told.clear()
                await self.told.wait()


@asynccontextmanager
async def following(namespace: str, **options: Any) -> AsyncIterator[Follower]:
    feed = FpmFeed(namespace=namespace, **{"quiet_seconds": QUIET} | options)
    follower = Follower(feed)
    running = asyncio.create_task(feed.run(follower))
    try:
        # the kernel is read at once, whether zebra is there or not
        await follower.until(lambda: "10.0.0.0/24" in follower.table())
        yield follower
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


class Zebra:
    """Bytes as zebra sends them."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answers(self, count: int) -> dict[str, int]:
        """Return so many answers: prefix to flags."""
        found = {}
        for _ in range(count):
            version, kind, length = struct.unpack("!BBH", await self.reader.readexactly(4))
            assert (version, kind) == (1, 1)
            answer = await self.reader.readexactly(length - 4)
            size, flags = answer[17], int.from_bytes(answer[24:28], "little")
            found[str(ip_network((answer[32:36], size)))] = flags
        return found


@asynccontextmanager
async def connected(
    namespace: str, *, source: str | None = None, to: str = "127.0.0.1"
) -> AsyncIterator[Zebra]:
    with inside(namespace):
        sock = socket.socket()
        if source:
            sock.bind((source, 0))
        sock.connect((to, 2620))
    reader, writer = await asyncio.open_connection(sock=sock)
    try:
        yield Zebra(reader, writer)
    finally:
        writer.close()


def frame(*messages: bytes) -> bytes:
    body = b"".join(messages)
    return struct.pack("!BBH", 1, 1, 4 + len(body)) + body


def route(prefix: str, *, kind: int = c.RTM_NEWROUTE) -> bytes:
    network = ip_network(prefix)
    body = struct.pack("=BBBBBBBBI", 2, network.prefixlen, 0, 0, 254, 186, 0, RouteType.UNICAST, 0)
    body += attribute(c.RTA_DST, network.network_address.packed) + attribute(c.RTA_PRIORITY, b"\x14\0\0\0")
    body += attribute(c.RTA_GATEWAY, GATEWAY) + attribute(c.RTA_OIF, b"\x03\0\0\0")
    return message(kind, c.NLM_F_REQUEST | c.NLM_F_CREATE | c.NLM_F_REPLACE, 0, body)


LEADS = PathSet.unicast(Path(3, GATEWAY))
CONNECTED = {"10.0.0.0/24"}


async def test_a_session_is_a_snapshot_and_what_follows_it(namespace: str) -> None:
    async with following(namespace) as follower:
        async with connected(namespace) as zebra:
            # several messages a frame, a frame in two parts
            stream = frame(route("20.0.0.0/24"), route("20.0.1.0/24")) + frame(route("20.0.2.0/24"))
            await zebra.send(stream[:50])
            await zebra.send(stream[50:])
            await follower.until(lambda: follower.snapshots == [True])
            assert follower.table().keys() == {*CONNECTED, "20.0.0.0/24", "20.0.1.0/24", "20.0.2.0/24"}
            assert follower.table()["20.0.0.0/24"] == LEADS
            await zebra.send(frame(route("20.0.1.0/24", kind=c.RTM_DELROUTE)))
            await follower.until(lambda: "20.0.1.0/24" not in follower.table())
        async with connected(namespace) as zebra:
            await zebra.send(frame(route("20.0.2.0/24")))
            await follower.until(lambda: follower.snapshots == [True, True])
            assert follower.table().keys() == {*CONNECTED, "20.0.2.0/24"}
        assert {"lo", "p0", "p1"} <= follower.links_known


async def test_what_became_of_routes_is_answered_and_only_of_zebras(namespace: str) -> None:
    async with following(namespace) as follower, connected(namespace) as zebra:
        await zebra.send(frame(route("20.0.0.0/24")) + frame(route("20.0.1.0/24")))
        await follower.until(lambda: len(follower.table()) == 3)
        follower.feed.tell(follower.outcomes(in_fib=True))
        assert await zebra.answers(2) == dict.fromkeys(["20.0.0.0/24", "20.0.1.0/24"], c.RTM_F_OFFLOAD)
        follower.feed.tell(follower.outcomes(in_fib=False))
        assert set((await zebra.answers(2)).values()) == {c.RTM_F_OFFLOAD_FAILED}


async def test_answers_wait_once_for_a_prefix_while_zebra_reads_none(namespace: str) -> None:
    async with following(namespace) as follower, connected(namespace) as zebra:
        prefixes = [f"20.{n >> 8}.{n & 255}.0/24" for n in range(20_000)]
        await zebra.send(b"".join(frame(route(prefix)) for prefix in prefixes))
        await follower.until(lambda: len(follower.table()) == 1 + len(prefixes))
        for turn in range(200):
            follower.feed.tell(follower.outcomes(in_fib=bool(turn % 2)))
            await asyncio.sleep(0)
        # the last word of each, behind what the socket's buffers had taken already
        open_ = set(prefixes)
        while open_:
            for prefix, flags in (await zebra.answers(1)).items():
                (open_.discard if flags == c.RTM_F_OFFLOAD else open_.add)(prefix)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"\1\1\0\4",
        frame(message(c.RTM_NEWROUTE, 1, 0, struct.pack("=BBBBBBBBI", 2, 33, 0, 0, 254, 186, 0, 1, 0))),
    ],
    ids=["another-protocol", "empty-frame", "longer-than-an-address"],
)
async def test_a_broken_stream_ends_the_session_and_takes_nothing_away(
    namespace: str, garbage: bytes
) -> None:
    async with following(namespace, hold_seconds=3600.0) as follower:
        async with connected(namespace) as zebra:
            await zebra.send(frame(route("20.0.0.0/24")))
            await follower.until(lambda: follower.snapshots == [True])
            await zebra.send(garbage)
            assert await zebra.reader.read() == b""
        assert follower.feed.malformed == 1
        assert follower.table().keys() == {*CONNECTED, "20.0.0.0/24"}
        async with connected(namespace) as zebra:
            await follower.until(lambda: follower.snapshots[-2:] == [True, True])
            assert follower.table().keys() == CONNECTED


async def test_one_zebra_at_a_time_and_no_strangers(namespace: str) -> None:
    async with following(namespace, address=IPv4Address("192.0.2.77")) as follower:
        async with connected(namespace, source="10.0.0.1", to="192.0.2.77") as stranger:
            assert await stranger.reader.read() == b""
        async with connected(namespace, to="192.0.2.77") as first:
            await first.send(frame(route("20.0.0.0/24")))
            await follower.until(lambda: "20.0.0.0/24" in follower.table())
            async with connected(namespace, to="192.0.2.77") as second:
                assert await second.reader.read() == b""
            await first.send(frame(route("20.0.1.0/24")))
            await follower.until(lambda: "20.0.1.0/24" in follower.table())
        assert (follower.feed.sessions, follower.feed.refused) == (1, 2)


CONNECT = "import socket; print(socket.create_connection(('127.0.0.1', 2620)).recv(1))"


async def test_only_zebras_user_may_tell_routes(namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    """The port is open to every user of the host; what is told there goes into the FIB."""
    nobody = pwd.getpwnam("nobody").pw_uid
    program = [sys.executable, "-S", "-c", CONNECT]
    as_nobody = ["ip", "netns", "exec", namespace, "setpriv", f"--reuid={nobody}", "--clear-groups", *program]
    async with following(namespace) as follower:
        stranger = await asyncio.create_subprocess_exec(*as_nobody, stdout=subprocess.PIPE)
        assert (await stranger.communicate())[0] == b"b''\n"
        assert (follower.feed.sessions, follower.feed.refused) == (0, 1)
        assert "a process of user nobody, expected one of frr (feed.users)" in caplog.text
    async with following(namespace, users=(nobody,)) as follower:
        welcome = await asyncio.create_subprocess_exec(*as_nobody, stdout=subprocess.PIPE)
        await follower.until(lambda: follower.feed.sessions == 1)
        welcome.kill()
        await welcome.wait()


async def test_routes_go_when_zebra_does_not_come_back(namespace: str) -> None:
    async with following(namespace, hold_seconds=0.3) as follower:
        async with connected(namespace) as zebra:
            await zebra.send(frame(route("20.0.0.0/24")))
            await follower.until(lambda: follower.snapshots == [True])
        await follower.until(lambda: len(follower.snapshots) == 2)
        assert follower.table().keys() == CONNECTED


async def test_a_port_that_is_taken_is_named(namespace: str) -> None:
    with inside(namespace):
        taken = socket.create_server(("127.0.0.1", 2620))
    with closing(taken), pytest.raises(FeedError, match=r"port 2620.*feed\.port"):
        await FpmFeed(namespace=namespace).run(Follower(FpmFeed(namespace=namespace)))


async def test_connected_networks_come_and_go_without_zebra(namespace: str) -> None:
    async with following(namespace) as follower, connected(namespace) as zebra:
        await zebra.send(frame(route("20.0.0.0/24")))
        await follower.until(lambda: follower.snapshots == [True])
        subprocess.run(["ip", "-n", namespace, "addr", "add", "10.9.0.1/24", "dev", "p1"], check=True)
        await follower.until(lambda: "10.9.0.0/24" in follower.table())
        subprocess.run(["ip", "-n", namespace, "addr", "del", "10.9.0.1/24", "dev", "p1"], check=True)
        await follower.until(lambda: follower.table().keys() == {*CONNECTED, "20.0.0.0/24"})
