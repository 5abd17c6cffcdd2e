"""Prefix-independent convergence with a real kernel, a real VPP and packets: the right leg, for all routes.

A control plane with two uplinks, a VPP with two ports that stand for them, and a far end that sends through
the VPP and counts what leaves by which port. After each event the packets go where the kernel's next hops
say, and not one route was written for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path as FilePath

import numpy as np
import pytest

from router_agent.audit import Audit
from router_agent.feeds.kernel import KernelFeed
from router_agent.fibs.fib import FibError
from router_agent.fibs.vpp import DEFAULT_SOURCE, VppFib
from router_agent.model import Changes, Family, Interner, Link, Neighbour, Path, PathSet, RouteType, v4_keys
from router_agent.namespaces import inside
from router_agent.observe.answers import State
from router_agent.pipeline import Pipeline
from router_agent.vpp import ports
from router_agent.vpp.next_hops import NextHopTables, entry_key, find_tables
from router_agent.vpp.process import VppProcess
from router_agent.vpp.routes import RouteCodec
from router_agent.vpp.session import VppSession

from . import vpp_reader
from .vpp_reader import Held

pytestmark = [
    pytest.mark.vpp,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("vpp") is None, reason="vpp is not on PATH"),
]

LEGS = (1, 2)
ROUTES = 400
FLOWS = 64
SECONDS = 60
DESTINATIONS = {Family.IPV4: "198.18.7.1", Family.IPV6: "2001:db8:7::1"}
ETHERTYPES = {Family.IPV4: 0x0800, Family.IPV6: 0x86DD}


def ip(namespace: str, *lines: str) -> None:
    subprocess.run(
        ["ip", "-n", namespace, "-batch", "-"], input="\n".join(lines), text=True, check=True, timeout=60
    )


def gateway(leg: int, family: Family = Family.IPV4, host: int = 2) -> str:
    return f"10.{leg}.0.{host}" if family is Family.IPV4 else f"fd0{leg}::{host}"


def packed(address: str) -> bytes:
    return ip_address(address).packed


@dataclass
class Plant:
    """Namespaces ctl (control plane: p1, p2), fwd (VPP: host-o0, host-o1, host-o2) and far (the other ends).

    The far end sends on w0 and counts on w1 and w2. The far ends of p1 and p2 are q1 and q2.
    """

    mark: str
    vpp: VppProcess

    @property
    def ctl(self) -> str:
        return f"ctl{self.mark}"

    @property
    def far(self) -> str:
        return f"far{self.mark}"

    async def make_ports(self) -> None:
        session = VppSession(api_socket=self.vpp.api_socket, name="test")
        await session.open()
        try:
            for number in (0, *LEGS):
                mac = bytes((2, 0, 0, 0, 0, number))
                await ports.create_host_port(session, host_interface=f"o{number}", mac=mac)
        finally:
            await session.close()

    def pipeline(self, *, recursion: bool = True) -> Pipeline:
        return Pipeline(
            name="t",
            feed=KernelFeed(namespace=self.ctl, resync_interval_seconds=0.1),
            fib=VppFib(
                api_socket=self.vpp.api_socket,
                interfaces={f"p{leg}": f"host-o{leg}" for leg in LEGS},
                recursion=recursion,
            ),
            tables={254: 0},
        )

    async def held(self) -> Held:
        return await vpp_reader.read(self.vpp.api_socket, DEFAULT_SOURCE)

    def passed(self, family: Family = Family.IPV4) -> Counter[int]:
        """Send `FLOWS` flows through the VPP; return how many left by each leg, of which none was lost."""
        mark = secrets.token_bytes(8)
        with ExitStack() as stack:
            with inside(self.far):
                sockets = {
                    number: stack.enter_context(
                        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETHERTYPES[family]))
                    )
                    for number in (0, *LEGS)
                }
                for number, each in sockets.items():
                    each.bind((f"w{number}", ETHERTYPES[family]))
                    each.setblocking(False)
            for flow in range(FLOWS):
                sockets[0].send(frame(family, flow, mark))
            return self._count(sockets, mark)

    def _count(self, sockets: dict[int, socket.socket], mark: bytes) -> Counter[int]:
        found: Counter[int] = Counter()
        with selectors.DefaultSelector() as selector:
            for leg in LEGS:
                selector.register(sockets[leg], selectors.EVENT_READ, leg)
            while found.total() < FLOWS:
                ready = selector.select(timeout=2.0)
                if not ready:
                    break
                for key, _ in ready:
                    with suppress(BlockingIOError):
                        if mark in sockets[key.data].recv(2048):  # else the kernel's, as a solicitation
                            found[key.data] += 1
        return found


def frame(family: Family, flow: int, mark: bytes) -> bytes:
    """Return an Ethernet frame of one UDP flow to the VPP's first port."""
    udp = struct.pack(">HHHH", 1024 + flow, 9, 8 + len(mark), 0) + mark
    to = packed(DESTINATIONS[family])
    ethernet = bytes((2, 0, 0, 0, 0, 0)) + bytes((2, 0, 0, 0, 9, 9)) + struct.pack(">H", ETHERTYPES[family])
    if family is Family.IPV6:
        return (
            ethernet + struct.pack(">IHBB", 6 << 28, len(udp), 17, 64) + packed("2001:db8:ff::1") + to + udp
        )
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), flow, 0, 64, 17, 0, packed("203.0.113.1"), to)
    return ethernet + head[:10] + checksum(head) + head[12:] + udp


def checksum(head: bytes) -> bytes:
    total = sum(struct.unpack(">10H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack(">H", ~total & 0xFFFF)


@pytest.fixture
def plant() -> Iterator[Plant]:
    mark = secrets.token_hex(3)
    names = [f"{kind}{mark}" for kind in ("ctl", "fwd", "far")]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True)
        ctl, fwd, far = names
        for number in (0, *LEGS):
            ip(fwd, f"link add o{number} type veth peer name w{number} netns {far}", f"link set o{number} up")
            ip(far, f"link set w{number} up")
        for leg in LEGS:
            ip(ctl, f"link add p{leg} type veth peer name q{leg} netns {far}")
            ip(far, f"link set q{leg} up")
            connect(ctl, leg)
        with tempfile.TemporaryDirectory(prefix="vpp") as directory:
            process = VppProcess(runtime_dir=FilePath(directory), namespace=fwd, heap="512M", buffers=4096)
            with process:
                yield Plant(mark, process)
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


def connect(ctl: str, leg: int) -> None:
    """Give an uplink its addresses and neighbours, as after every time it was down."""
    ip(ctl, f"link set p{leg} up")
    for family, length, extra in ((Family.IPV4, 24, ""), (Family.IPV6, 64, "nodad")):
        ip(ctl, f"addr replace {gateway(leg, family, 1)}/{length} dev p{leg} {extra}")
        for host in (2, 3):
            ip(
                ctl,
                f"neigh replace {gateway(leg, family, host)} lladdr 02:00:00:00:0{leg}:0{host} dev p{leg}",
            )


def add_objects(ctl: str, legs: tuple[int, ...] = LEGS, host: int = 2, verb: str = "add") -> None:
    """One next-hop object a leg and a group of them, as zebra does: 1, 2 and 10; IPv6 101, 102 and 110."""
    for family, base in ((Family.IPV4, 0), (Family.IPV6, 100)):
        for leg in legs:
            ip(ctl, f"nexthop replace id {base + leg} via {gateway(leg, family, host)} dev p{leg}")
        group = "/".join(str(base + leg) for leg in legs)
        ip(ctl, f"nexthop {verb} id {base + 10} group {group}")


def add_routes(ctl: str, count: int = ROUTES) -> None:
    ip(ctl, *(f"route add 198.{18 + (n >> 8)}.{n & 255}.0/24 nhid 10" for n in range(count)))
    ip(ctl, *(f"route add 2001:db8:{n:x}::/48 nhid 110" for n in range(count // 4)))


@asynccontextmanager
async def running(pipeline: Pipeline) -> AsyncIterator[Pipeline]:
    task = asyncio.create_task(pipeline.run())
    try:
        await in_sync(pipeline)
        yield pipeline
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def in_sync(pipeline: Pipeline) -> None:
    await until(
        lambda: pipeline.state is State.IN_SYNC and not pipeline.pending and not pipeline.quiet.locked()
    )


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not happened():
            await asyncio.sleep(0.005)


async def until_held(plant: Plant, right: Callable[[Held], bool]) -> Held:
    async with asyncio.timeout(SECONDS):
        while True:
            held = await plant.held()
            if right(held):
                return held


def leads(family: Family, *legs: int, host: int = 2) -> Callable[[Held], bool]:
    """Whether the destination leads to these legs, and every entry of the family that routes use does."""
    prefix = {Family.IPV4: "198.18.7.0/24", Family.IPV6: "2001:db8:7::/48"}[family]
    wanted = {(f"host-o{leg}", packed(gateway(leg, family, host))) for leg in legs}
    return lambda held: held.legs(prefix) == wanted


def writes(pipeline: Pipeline) -> tuple[int, int, int]:
    done = pipeline.counts.writes
    return done.added, done.replaced, done.deleted


async def same_legs(plant: Plant, legs: dict[Family, tuple[int, ...]], host: int = 2) -> None:
    for family, expected in legs.items():
        await until_held(plant, leads(family, *expected, host=host))
        found = await asyncio.to_thread(plant.passed, family)
        assert found.total() == FLOWS, f"{FLOWS - found.total()} of {FLOWS} lost over legs {expected}"
        assert set(found) == set(expected)


async def test_a_replaced_object_or_group_moves_every_route_without_writing_one(plant: Plant) -> None:
    await plant.make_ports()
    add_objects(plant.ctl)
    add_routes(plant.ctl)
    async with running(plant.pipeline()) as pipeline:
        await same_legs(plant, dict.fromkeys(Family, LEGS))
        held = await plant.held()
        assert len(held.recursive) == ROUTES + ROUTES // 4
        assert {p for p in held.routes if p not in held.recursive} >= {"10.1.0.0/24", "fd01::/64"}
        before = writes(pipeline)

        add_objects(plant.ctl, (1,), verb="replace")
        await same_legs(plant, dict.fromkeys(Family, (1,)))
        add_objects(plant.ctl, LEGS, host=3, verb="replace")
        await same_legs(plant, dict.fromkeys(Family, LEGS), host=3)
        ip(
            plant.ctl,
            f"nexthop replace id 1 via {gateway(2)} dev p2",
            f"nexthop replace id 2 via {gateway(2)} dev p2",
        )
        await same_legs(plant, {Family.IPV4: (2,)})
        await in_sync(pipeline)
        assert writes(pipeline) == before
        after = await plant.held()
        assert set(after.entries) == set(held.entries), "no entry was made for it"


async def test_a_leg_that_goes_with_its_link_and_comes_back(plant: Plant) -> None:
    await plant.make_ports()
    add_objects(plant.ctl)
    add_routes(plant.ctl)
    async with running(plant.pipeline()) as pipeline:
        await same_legs(plant, dict.fromkeys(Family, LEGS))
        before, resyncs = writes(pipeline), pipeline.counts.snapshots
        ip(plant.far, "link set q2 down")
        await same_legs(plant, dict.fromkeys(Family, (1,)))
        await until(lambda: pipeline.counts.snapshots > resyncs)
        await in_sync(pipeline)
        assert writes(pipeline) == before

        ip(plant.far, "link set q2 up")
        connect(plant.ctl, 2)
        add_objects(plant.ctl, verb="replace")
        await same_legs(plant, dict.fromkeys(Family, LEGS))
        await in_sync(pipeline)
        assert writes(pipeline) == before


async def test_a_leg_of_routes_without_objects_goes_with_its_link(plant: Plant) -> None:
    await plant.make_ports()
    legs = " ".join(f"nexthop via {gateway(leg)} dev p{leg}" for leg in LEGS)
    ip(plant.ctl, *(f"route add 198.18.{n}.0/24 {legs}" for n in range(200)))
    async with running(plant.pipeline()) as pipeline:
        await same_legs(plant, {Family.IPV4: LEGS})
        before = writes(pipeline)
        ip(plant.far, "link set q2 down")
        await same_legs(plant, {Family.IPV4: (1,)})
        await in_sync(pipeline)
        assert writes(pipeline) == before
        ip(plant.far, "link set q2 up")
        await same_legs(plant, {Family.IPV4: LEGS})
        assert writes(pipeline) == before, "the kernel never said that its routes had changed"


async def test_a_lost_neighbour_takes_its_leg_along_until_it_is_back(plant: Plant) -> None:
    await plant.make_ports()
    add_objects(plant.ctl)
    add_routes(plant.ctl)
    async with running(plant.pipeline()) as pipeline:
        await same_legs(plant, dict.fromkeys(Family, LEGS))
        before = writes(pipeline)
        ip(plant.ctl, f"neigh del {gateway(2)} dev p2")
        await same_legs(plant, {Family.IPV4: (1,), Family.IPV6: LEGS})
        ip(plant.ctl, f"neigh del {gateway(1)} dev p1")
        await until_held(plant, leads(Family.IPV4, *LEGS))  # no leg is better than another
        connect(plant.ctl, 1)
        await same_legs(plant, {Family.IPV4: (1,)})
        connect(plant.ctl, 2)
        await same_legs(plant, dict.fromkeys(Family, LEGS))
        assert writes(pipeline) == before


@pytest.mark.parametrize("whole", [True, False], ids=["all legs", "a leg lost"])
async def test_a_restarted_agent_writes_neither_routes_nor_entries(plant: Plant, whole: bool) -> None:
    await plant.make_ports()
    add_objects(plant.ctl)
    add_routes(plant.ctl)
    legs = LEGS if whole else (1,)
    async with running(plant.pipeline()):
        if not whole:
            ip(plant.ctl, f"neigh del {gateway(2)} dev p2", f"neigh del {gateway(2, Family.IPV6)} dev p2")
        await same_legs(plant, dict.fromkeys(Family, legs))
    before = await plant.held()
    pipeline = plant.pipeline()
    async with running(pipeline):
        assert writes(pipeline) == (0, 0, 0)
        next_hops = next_hop_tables(pipeline)
        assert next_hops.writes == 0
        assert await plant.held() == before
        connect(plant.ctl, 2)
        await same_legs(plant, dict.fromkeys(Family, LEGS))
        assert writes(pipeline) == (0, 0, 0)


def next_hop_tables(pipeline: Pipeline) -> NextHopTables:
    assert isinstance(pipeline.fib, VppFib)
    return pipeline.fib._open_next_hops()


async def test_the_mode_of_a_running_router_changes_without_loss(plant: Plant) -> None:
    await plant.make_ports()
    add_objects(plant.ctl)
    add_routes(plant.ctl)
    async with running(plant.pipeline(recursion=False)):
        await same_legs(plant, dict.fromkeys(Family, LEGS))
    direct = await plant.held()
    assert not direct.recursive
    assert not direct.entries

    sent = asyncio.Event()
    losses: list[int] = []

    async def send() -> None:
        while not sent.is_set():
            found = await asyncio.to_thread(plant.passed)
            losses.append(FLOWS - found.total())

    sending = asyncio.create_task(send())
    async with running(plant.pipeline()) as pipeline:
        held = await plant.held()
        assert len(held.recursive) == ROUTES + ROUTES // 4
        assert held.routes == direct.routes
        assert writes(pipeline) == (0, ROUTES + ROUTES // 4, 0)
    async with running(plant.pipeline(recursion=False)) as pipeline:
        assert writes(pipeline) == (0, ROUTES + ROUTES // 4, 0)
        await until_held(plant, lambda held: not held.entries)
    sent.set()
    await sending
    assert len(losses) > 1
    assert sum(losses) == 0
    assert (await plant.held()) == direct
    assert "next-hops" not in plant.vpp.cli("show ip fib") + plant.vpp.cli("show ip6 fib")


async def test_entries_that_nothing_uses_go_after_a_clean_reading_only(plant: Plant) -> None:
    await plant.make_ports()
    add_objects(plant.ctl)
    add_routes(plant.ctl)
    async with running(plant.pipeline()) as pipeline:
        before = await plant.held()
        ip(plant.ctl, f"nexthop add id 7 via {gateway(1, host=3)} dev p1", "route add 192.0.2.0/24 nhid 7")
        extra = await until_held(plant, lambda held: "192.0.2.0/24" in held.routes)
        (added,) = set(extra.entries) - set(before.entries)
        ip(plant.ctl, "route del 192.0.2.0/24")
        gone = await until_held(plant, lambda held: "192.0.2.0/24" not in held.routes)
        assert added in gone.entries, "nobody has read everything since"
        await pipeline.resync()
        await until_held(plant, lambda held: set(held.entries) == set(before.entries))


async def test_an_ipv4_route_by_an_ipv6_gateway_recurses(plant: Plant) -> None:
    """RFC 8950."""
    await plant.make_ports()
    legs = " ".join(f"nexthop via inet6 {gateway(leg, Family.IPV6)} dev p{leg}" for leg in LEGS)
    ip(plant.ctl, f"route add 198.18.7.0/24 {legs}")
    async with running(plant.pipeline()) as pipeline:
        held = await plant.held()
        assert "198.18.7.0/24" in held.recursive
        assert held.legs("198.18.7.0/24") == {(f"host-o{n}", packed(gateway(n, Family.IPV6))) for n in LEGS}
        found = await asyncio.to_thread(plant.passed)
        assert set(found) == set(LEGS)
        assert found.total() == FLOWS
        before = writes(pipeline)
        ip(plant.far, "link set q1 down")
        await until_held(plant, lambda h: {name for name, _ in h.legs("198.18.7.0/24")} == {"host-o2"})
        assert writes(pipeline) == before
        assert set(await asyncio.to_thread(plant.passed)) == {2}


async def test_vpp_killed_and_started_again(plant: Plant) -> None:
    await plant.make_ports()
    add_objects(plant.ctl)
    add_routes(plant.ctl)
    async with running(plant.pipeline()) as pipeline:
        before = await plant.held()
        plant.vpp.kill()
        await until(lambda: pipeline.state is State.FIB_LOST)
        ip(plant.far, "link set q2 down")  # while there is nothing to repoint
        plant.vpp.start()
        await plant.make_ports()
        await in_sync(pipeline)
        await same_legs(plant, dict.fromkeys(Family, (1,)))
        ip(plant.far, "link set q2 up")
        connect(plant.ctl, 2)
        add_objects(plant.ctl, verb="replace")
        await same_legs(plant, dict.fromkeys(Family, LEGS))
        assert (await plant.held()).routes.keys() == before.routes.keys()


async def test_an_entry_that_somebody_changed_is_found_and_repaired(plant: Plant) -> None:
    await plant.make_ports()
    add_objects(plant.ctl)
    add_routes(plant.ctl)
    async with running(plant.pipeline()) as pipeline:
        held = await plant.held()
        ((_, number),) = [entry for entry in held.entries if entry[0] is Family.IPV4]
        await overwrite_entry(plant, number)
        audit = Audit(pipeline, rate=1_000_000, repair=True, full_reading_seconds=0.0)
        before = writes(pipeline)
        tally = await audit.check(1e6)
        assert tally.shared == 1
        await in_sync(pipeline)
        await same_legs(plant, dict.fromkeys(Family, LEGS))
        assert (await plant.held()).routes == held.routes
        assert writes(pipeline) == before


async def overwrite_entry(plant: Plant, number: int) -> None:
    """Let an entry of the agent's lead nowhere, as another client of VPP that uses its source."""
    session = VppSession(api_socket=plant.vpp.api_socket, name="intruder")
    await session.open()
    try:
        sources = {entry.src.name: int(entry.src.id) for entry in await session.call("fib_source_dump")}
        sets: Interner[PathSet] = Interner()
        codec = RouteCodec(session, sources[DEFAULT_SOURCE], sets)
        table = (await find_tables(session, DEFAULT_SOURCE))[Family.IPV4]
        path = np.array([sets.id(PathSet(RouteType.BLACKHOLE))], np.uint32)
        assert not (await codec.write(Family.IPV4, table, entry_key(Family.IPV4, number), path, 1)).any()
    finally:
        await session.close()


async def test_a_repointed_entry_overtakes_a_bulk_write(plant: Plant) -> None:
    await plant.make_ports()
    fib = VppFib(
        api_socket=plant.vpp.api_socket,
        interfaces={f"p{leg}": f"host-o{leg}" for leg in LEGS},
        recursion=True,
    )
    fib.links([Link(leg, f"p{leg}", True, True, bytes((2, 0, 0, 0, 0, leg)), 1500) for leg in LEGS], [])
    await fib.open()
    try:
        await fib.write_neighbours(
            [Neighbour(leg, packed(gateway(leg)), bytes((2, 0, 0, 0, leg, 2))) for leg in LEGS], []
        )
        number = fib.path_id(PathSet.unicast(*(Path(leg, packed(gateway(leg))) for leg in LEGS)))
        assert isinstance(number, int)
        count = 400_000
        addresses = (np.arange(count, dtype=np.uint32) << np.uint32(8)) + np.uint32(20 << 24)
        paths = np.full(count, number, np.uint32)
        changes = Changes(
            Family.IPV4,
            0,
            v4_keys(addresses, np.full(count, 24, np.uint8)),
            paths,
            np.zeros(count, np.uint32),
        )
        writing = asyncio.create_task(fib.write(changes))
        async with asyncio.timeout(SECONDS):
            while fib.highest_unanswered < 16_000:
                await asyncio.sleep(0)
            fib.links([Link(2, "p2", True, False, bytes((2, 0, 0, 0, 0, 2)), 1500)], [])
            next_hops = fib._open_next_hops()
            await next_hops.settled()
            assert not writing.done(), "the entry was written while routes were still waiting"
            shown = plant.vpp.cli(f"show ip fib table {next_hops.tables[Family.IPV4]} 0.0.0.1/32")
            assert "host-o1" in shown
            assert "host-o2" not in shown.partition("forwarding")[2]
            assert not writing.done()
            assert len(await writing) == 0
    finally:
        await fib.close()


async def test_an_agent_killed_while_it_writes_leaves_what_its_successor_needs(plant: Plant) -> None:
    await plant.make_ports()
    add_objects(plant.ctl)
    for start in range(0, 60_000, 20_000):
        ip(
            plant.ctl,
            *(
                f"route add 20.{n >> 8}.{n & 255}.0/24 nhid {10 if n % 3 else 1 + n % 2}"
                for n in range(start, start + 20_000)
                if n < 60_000
            ),
        )
    with tempfile.TemporaryDirectory(prefix="rak") as directory:
        config = FilePath(directory, "agent.yaml")
        fib = {
            "kind": "vpp",
            "api_socket": str(plant.vpp.api_socket),
            "interfaces": {f"p{leg}": f"host-o{leg}" for leg in LEGS},
            "recursion": True,
            "window": 64,
        }
        pipelines = [{"name": "t", "feed": {"kind": "kernel", "namespace": plant.ctl}, "fib": fib}]
        control = {"socket": str(FilePath(directory, "control.sock"))}
        config.write_text(json.dumps({"pipelines": pipelines, "control": control}))
        argv = [sys.executable, "-m", "router_agent.cli", "run", "--config", str(config)]
        agent = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env={**os.environ})
        try:
            partly = await until_held_or_absent(plant)
        finally:
            agent.send_signal(signal.SIGKILL)
            agent.wait()
    assert partly.recursive
    left = await plant.held()
    assert 0 < len(left.recursive) < 60_000, "killed too late to prove anything"
    async with running(plant.pipeline()) as pipeline:
        held = await plant.held()
        assert len(held.recursive) == 60_000
        added, replaced, deleted = writes(pipeline)
        assert (replaced, deleted) == (0, 0), "what was there was right"
        assert added < 60_000
        assert {leg for p in ("20.0.1.0/24", "20.0.2.0/24") for leg in held.legs(p)} == {
            (f"host-o{leg}", packed(gateway(leg))) for leg in LEGS
        }


async def until_held_or_absent(plant: Plant) -> Held:
    """Return as soon as the agent's source is there and has routes."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(FibError):
                held = await plant.held()
                if held.recursive:
                    return held
