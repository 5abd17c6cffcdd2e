"""Next hops that nobody speaks to, against a real kernel: resolved because a route needs them."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import ip_address

import pytest

from router_agent.feeds.fpm import FpmFeed
from router_agent.feeds.kernel import KernelFeed
from router_agent.model import U32, Neighbour, RouteBatch
from router_agent.namespaces import inside
from router_agent.netlink import constants as c
from router_agent.netlink.messages import attribute, message

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
    pytest.mark.timeout(60),
]

HERE, THERE = "02:00:00:00:00:01", "02:00:00:00:00:02"


def ip(namespace: str, *words: str) -> str:
    return subprocess.run(["ip", "-n", namespace, *words], check=True, capture_output=True, text=True).stdout


class Sink:
    """Keeps the neighbours it is told of."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.snapshots = 0

    def snapshot_begin(self) -> None: ...

    def snapshot_end(self, *, clean: bool) -> None:
        self.snapshots += clean

    def routes(self, batch: RouteBatch) -> None: ...

    def paths_changed(self, paths: U32) -> None: ...

    def links(self, links: object, removed: object) -> None: ...

    def neighbours(self, learned: list[Neighbour], removed: list[Neighbour]) -> None:
        self.known |= {str(ip_address(n.address)): n.mac.hex(":") for n in learned}
        for neighbour in removed:
            self.known.pop(str(ip_address(neighbour.address)), None)


@pytest.fixture
def here() -> Iterator[str]:
    """A namespace with p0 (10.0.0.1, 2001:db8::1), its cable's other end in another (.2 and ::2)."""
    name = f"sol-{secrets.token_hex(3)}"
    near, far = f"{name}-n", f"{name}-f"
    for namespace in (near, far):
        subprocess.run(["ip", "netns", "add", namespace], check=True)
    try:
        ip(near, "link", "add", "p0", "address", HERE, "type", "veth", "peer", "name", "q0", "netns", far)
        ip(far, "link", "set", "q0", "address", THERE)
        for namespace, device, number in ((near, "p0", 1), (far, "q0", 2)):
            ip(namespace, "address", "add", f"10.0.0.{number}/24", "dev", device)
            ip(namespace, "-6", "address", "add", f"2001:db8::{number}/64", "dev", device, "nodad")
            ip(namespace, "link", "set", device, "up")
        yield near
    finally:
        for namespace in (near, far):
            subprocess.run(["ip", "netns", "del", namespace], check=True)


async def wait(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.02)


async def test_next_hops_of_routes_are_resolved_and_again_after_a_flush(here: str) -> None:
    sink = Sink()
    feed = KernelFeed(namespace=here, solicit=True)
    task = asyncio.create_task(feed.run(sink))  # type: ignore[arg-type]
    try:
        ip(here, "route", "add", "192.0.2.0/24", "via", "10.0.0.2")
        await wait(lambda: sink.known.get("10.0.0.2") == THERE)
        ip(here, "route", "add", "198.51.100.0/24", "via", "inet6", "2001:db8::2", "dev", "p0")
        await wait(lambda: sink.known.get("2001:db8::2") == THERE)
        ip(here, "neigh", "flush", "dev", "p0")
        await wait(lambda: "10.0.0.2" not in sink.known or "2001:db8::2" not in sink.known)
        await wait(lambda: sink.known.get("10.0.0.2") == sink.known.get("2001:db8::2") == THERE)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_next_hops_that_zebra_tells_are_resolved(here: str) -> None:
    ip(here, "link", "set", "lo", "up")
    index = int(ip(here, "-o", "link", "show", "dev", "p0").split(":")[0])
    sink = Sink()
    feed = FpmFeed(namespace=here, port=0, solicit=True)
    task = asyncio.create_task(feed.run(sink))  # type: ignore[arg-type]
    body = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 186, 0, 1, 0)
    body += attribute(c.RTA_DST, bytes((192, 0, 2, 0))) + attribute(c.RTA_GATEWAY, bytes((10, 0, 0, 2)))
    body += attribute(c.RTA_OIF, struct.pack("=I", index))
    route = message(c.RTM_NEWROUTE, c.NLM_F_CREATE, 1, body)
    try:
        await wait(lambda: feed.listening_port != 0)
        with inside(here):
            zebra = socket.create_connection(("127.0.0.1", feed.listening_port))
        with zebra:
            zebra.sendall(struct.pack(">BBH", 1, 1, 4 + len(route)) + route)
            await wait(lambda: sink.known.get("10.0.0.2") == THERE)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_next_hop_that_is_not_there_is_not_asked_for_all_the_time(here: str) -> None:
    sink = Sink()
    feed = KernelFeed(namespace=here, solicit=True)
    assert feed._solicitor is not None
    task = asyncio.create_task(feed.run(sink))  # type: ignore[arg-type]
    try:
        ip(here, "route", "add", "192.0.2.0/24", "via", "10.0.0.99")
        await wait(lambda: "FAILED" in ip(here, "neigh", "show", "10.0.0.99"))
        # Every failure is an event, and every event a reason to look.
        assert feed._solicitor.asked <= 2
        assert sink.known.get("10.0.0.99") is None
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_without_it_nobody_asks(here: str) -> None:
    sink = Sink()
    task = asyncio.create_task(KernelFeed(namespace=here).run(sink))  # type: ignore[arg-type]
    try:
        ip(here, "route", "add", "192.0.2.0/24", "via", "10.0.0.2")
        await wait(lambda: sink.snapshots > 0)
        ip(here, "route", "add", "192.0.3.0/24", "via", "10.0.0.2")
        assert ip(here, "neigh", "show", "10.0.0.2") == ""
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
