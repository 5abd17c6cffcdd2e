"""Confirmed advertisement: what the FPM path carries, and what waiting for VPP costs a full table's load.

``rows()`` sends a full table of zebra's messages through a TCP socket into the feed and its RIB, then answers
for all of it. Then labs with the same FRR and table load it from BIRD to a downstream neighbour in turn: one
announces at once, one what the agent has confirmed, and in one each route is confirmed as it comes and
programmed nowhere. ``ROUTES_FILE`` names a prefix list or an MRT dump.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router_agent.feeds.fpm import FpmFeed
from router_agent.lab.daemon import wait_until
from router_agent.lab.lab import Advertise, FibKind, Lab
from router_agent.lab.plane import VppPlane, vpp_available
from router_agent.lab.root import newer_frr, unbuildable
from router_agent.lab.table import Table, generated_table, read_table
from router_agent.lab.watch import Use
from router_agent.model import U8, U32, Family, Link, Neighbour, Operation, Outcomes, RouteBatch
from router_agent.netlink import constants as c
from router_agent.netlink.encode import fill
from router_agent.netlink.messages import attribute, message
from router_agent.observe.answers import State
from router_agent.reconcile import CHUNK
from router_agent.rib import Rib

FPM_TARGET = 200_000
RATIO_TARGET = 1.1
GROUPS = 200
TURNS = 3
_FRR_ALONE = "FRR alone"
_PATIENCE_SECONDS = 600.0
_SPACE = (Family.IPV4, 254)


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list without root."""
    if os.geteuid() != 0:
        return []
    chosen = os.environ.get("ROUTES_FILE")
    table = read_table(Path(chosen)) if chosen else generated_table()
    found = asyncio.run(_feed(table))
    if unbuildable() is None and vpp_available():
        found += _loads(table)
    return found


# -- the feed alone --------------------------------------------------------------------------------


class Taker:
    """A sink with RIBs and nothing behind them."""

    def __init__(self, feed: FpmFeed) -> None:
        self.ribs = {space: Rib(space[0], feed) for space in feed.spaces}
        self.came = asyncio.Event()

    def snapshot_begin(self) -> None:
        for rib in self.ribs.values():
            rib.snapshot_begin()

    def snapshot_end(self, *, clean: bool) -> None: ...

    def routes(self, batch: RouteBatch) -> None:
        self.ribs[batch.family, batch.table].apply(batch)
        self.came.set()

    def paths_changed(self, paths: U32) -> None: ...

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None: ...

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None: ...


async def _feed(table: Table) -> list[dict[str, Any]]:
    feed = FpmFeed(port=0, quiet_seconds=3600.0)
    sink = Taker(feed)
    running = asyncio.create_task(feed.run(sink))
    while not feed.listening_port:
        await asyncio.sleep(0.01)
    stream = _zebras(table)
    rib, count = sink.ribs[_SPACE], len(table.ipv4)
    peer = socket.create_connection(("127.0.0.1", feed.listening_port))
    sender = threading.Thread(target=peer.sendall, args=(stream.data,), daemon=True)
    began, used = time.monotonic(), time.thread_time()
    sender.start()
    while len(rib) < count:
        sink.came.clear()
        await sink.came.wait()
    took, cpu = time.monotonic() - began, time.thread_time() - used
    answered, answer_cpu = await _answer(feed, rib, peer, count)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    peer.close()
    origin = Path(table.origin).name
    conditions = f"{count:,} IPv4 routes ({origin}), {GROUPS} next-hop groups, one frame a route"
    return [
        {
            "name": "FPM: routes from the socket into the RIB",
            "value": count / took,
            "unit": "routes/s",
            "target": FPM_TARGET,
            "reached": count / took >= FPM_TARGET,
            "conditions": f"{conditions}; {cpu:.2f} s of the agent's CPU",
        },
        {
            "name": "FPM: answers to zebra",
            "value": count / answered,
            "unit": "routes/s",
            "target": FPM_TARGET,
            "reached": count / answered >= FPM_TARGET,
            "conditions": f"{conditions}; {answer_cpu:.2f} s of the agent's CPU",
        },
    ]


def _zebras(table: Table) -> U8:
    """Return the table as zebra sends it: its next-hop groups first, then a frame for each route."""
    groups = []
    for number in range(1, GROUPS + 1):
        body = struct.pack("=BBBxI", Family.IPV4, 0, 11, 0)
        body += attribute(c.NHA_ID, number.to_bytes(4, "little"))
        body += attribute(c.NHA_GATEWAY, bytes((10, 0, number >> 8, number & 255)))
        body += attribute(c.NHA_OIF, (1).to_bytes(4, "little"))
        groups.append(_framed(np.frombuffer(message(c.RTM_NEWNEXTHOP, c.NLM_F_REQUEST, 0, body), np.uint8)))
    keys = table.ipv4
    chosen = np.arange(len(keys)) % GROUPS
    blocks = []
    for number in range(GROUPS):
        body = struct.pack("=BBBBBBBBI", Family.IPV4, 0, 0, 0, 254, 186, 0, 1, 0)
        body += attribute(c.RTA_DST, bytes(4)) + attribute(c.RTA_PRIORITY, (20).to_bytes(4, "little"))
        body += attribute(c.RTA_NH_ID, (number + 1).to_bytes(4, "little"))
        route = message(c.RTM_NEWROUTE, c.NLM_F_REQUEST | c.NLM_F_CREATE | c.NLM_F_REPLACE, 0, body)
        blocks.append(_framed(fill(route, keys[chosen == number], 0), len(route)))
    # zebra walks its table in the order of prefixes, in which groups alternate
    routes = np.concatenate(blocks).reshape(len(keys), -1)
    order = np.argsort(np.concatenate([np.flatnonzero(chosen == number) for number in range(GROUPS)]))
    return np.concatenate((*groups, routes[order].reshape(-1)))


def _framed(data: U8, length: int | None = None) -> U8:
    rows_ = data.reshape(-1, length or len(data))
    header = np.frombuffer(struct.pack("!BBH", 1, 1, 4 + rows_.shape[1]), np.uint8)
    framed: U8 = np.concatenate((np.broadcast_to(header, (len(rows_), 4)), rows_), axis=1)
    return framed.reshape(-1)


async def _answer(feed: FpmFeed, rib: Rib, peer: socket.socket, count: int) -> tuple[float, float]:
    """Answer for the whole RIB, `count` routes of which are zebra's; return seconds, and those of CPU."""

    def drain() -> None:
        left = count * length
        while left:
            left -= len(peer.recv(1 << 20))

    length = 4 + 28 + 4 * 8  # frame, header and rtmsg; destination, table, metric, next-hop group
    reader = threading.Thread(target=drain, daemon=True)
    began, used = time.monotonic(), time.thread_time()
    reader.start()
    for chunk in rib.prefixes.chunks(CHUNK):
        keys = rib.prefixes.keys(chunk)
        feed.tell(Outcomes(*_SPACE, keys, rib.best(keys), np.ones(len(keys), np.bool_)))
        await asyncio.sleep(0)
    while reader.is_alive():
        await asyncio.sleep(0.005)
    return time.monotonic() - began, time.thread_time() - used


# -- the whole POP ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Load:
    """One load of a full table.

    Attributes:
        seconds: from the upstream's start until all was where it should be.
        cpu: seconds of it by process, kernel's work for it included.
    """

    seconds: float
    cpu: Mapping[str, float]

    def __str__(self) -> str:
        parts = (f"{name} {seconds:.1f}" for name, seconds in self.cpu.items())
        return f"CPU seconds: {', '.join(parts)}"


def _loads(table: Table) -> list[dict[str, Any]]:
    """Return rows of loads in turn, `TURNS` times: the speed of a machine that others share wanders."""
    turns: list[dict[str, Load]] = []
    for _ in range(TURNS):
        turns.append({str(advertise): _load(table, advertise) for advertise in Advertise})
        turns[-1][_FRR_ALONE] = _answered_by_nothing_else(table)
    conditions = f"{len(table):,} routes of both families, BIRD, FRR of Debian testing, one neighbour"
    at_once, confirmed = str(Advertise.AT_ONCE), str(Advertise.CONFIRMED)
    heard = "Full table until the neighbour has heard it"
    return [
        _seconds(f"{heard}, announced at once", turns, at_once, f"{conditions}, VPP FIB"),
        _seconds(f"{heard}, announced once VPP has it", turns, confirmed, f"{conditions}, VPP FIB"),
        _seconds(f"{heard}, answered at once without a FIB", turns, _FRR_ALONE, conditions),
        _ratio("Confirmed against immediate load of a full table", turns, at_once, conditions),
        _ratio("Confirmed load of a full table against what FRR alone takes", turns, _FRR_ALONE, conditions),
    ]


def _seconds(name: str, turns: Sequence[Mapping[str, Load]], kind: str, conditions: str) -> dict[str, Any]:
    """Return the row of the load that took the middle of all times."""
    loads = sorted((turn[kind] for turn in turns), key=lambda load: load.seconds)
    middle, spread = loads[TURNS // 2], _between([load.seconds for load in loads], "s")
    return {
        "name": name,
        "value": middle.seconds,
        "unit": "s",
        "conditions": f"{conditions}, {spread}; {middle}",
    }


def _ratio(name: str, turns: Sequence[Mapping[str, Load]], to: str, conditions: str) -> dict[str, Any]:
    """Return the row of the middle of each turn's ratio."""
    ratios = sorted(turn[str(Advertise.CONFIRMED)].seconds / turn[to].seconds for turn in turns)
    return {
        "name": name,
        "value": ratios[TURNS // 2],
        "unit": "times",
        "target": RATIO_TARGET,
        "reached": ratios[TURNS // 2] <= RATIO_TARGET,
        "conditions": f"{conditions}, {_between(ratios, 'times')}",
    }


def _between(values: Sequence[float], unit: str) -> str:
    return f"the middle of {len(values)} turns, {min(values):.3g} to {max(values):.3g} {unit}"


class Answerer(Taker):
    """Tells zebra of every route at once that it is installed, and installs none."""

    def __init__(self, feed: FpmFeed) -> None:
        super().__init__(feed)
        self._feed = feed

    def routes(self, batch: RouteBatch) -> None:
        kept = batch.operations != Operation.DELETE
        installed = np.ones(int(kept.sum()), np.bool_)
        self._feed.tell(Outcomes(batch.family, batch.table, batch.keys[kept], batch.paths[kept], installed))


@contextmanager
def _answering(namespace: str, user: str | int) -> Iterator[None]:
    """Answer zebra in a thread of its own."""
    loop = asyncio.new_event_loop()
    feed = FpmFeed(namespace=namespace, users=[user])
    running = loop.create_task(feed.run(Answerer(feed)))

    def run() -> None:
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(running)
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(running.cancel)
        thread.join()


def _answered_by_nothing_else(table: Table) -> Load:
    """Load the table where nothing but FRR has work to do."""
    name = f"b{secrets.token_hex(4)}"
    with Lab(name, table=table, fib=FibKind.VPP, advertise=Advertise.CONFIRMED) as lab:
        lab.configure()
        downstream, frr = lab.downstream, lab.frr
        assert downstream is not None
        assert frr is not None
        with _answering(lab.topology.pop, newer_frr().owner()[0]):
            downstream.start()
            frr.start()
            wait_until(downstream.all_established, "the neighbour", seconds=60.0)
            return _timed(lab, {}, lambda: True)


def _load(table: Table, advertise: Advertise) -> Load:
    """Load the table into VPP and into what the neighbour has heard of."""
    with Lab(f"b{secrets.token_hex(4)}", table=table, fib=FibKind.VPP, advertise=advertise) as lab:
        _start_without_table(lab)
        assert isinstance(lab.plane, VppPlane)
        watched = {"router-agent": lab.agent.daemon.pid, "VPP": lab.plane.process.pid}
        return _timed(lab, watched, lambda: lab.agent.holds(lab.fib_sizes))


def _timed(lab: Lab, further: Mapping[str, int], held: Callable[[], bool]) -> Load:
    """Start the upstream and wait until the neighbour has heard of its table, and it is held."""
    downstream, frr = lab.downstream, lab.frr
    assert downstream is not None
    assert frr is not None
    wanted = {family: count + 1 for family, count in lab.upstream.announced.items()}
    watched = {name: frr.daemons[name].pid for name in ("bgpd", "zebra")} | dict(further)
    before = {name: Use.of(pid).cpu_seconds for name, pid in watched.items()}
    began = time.monotonic()
    lab.upstream.start()
    wait_until(
        lambda: downstream.heard() == wanted and held(),
        "the neighbour to hear of the table",
        seconds=_PATIENCE_SECONDS,
        poll_seconds=0.2,
        found=lambda: f"{downstream.heard()}; {lab.agent.summary() if further else 'no agent'}",
    )
    took = time.monotonic() - began
    return Load(took, {name: Use.of(pid).cpu_seconds - before[name] for name, pid in watched.items()})


def _start_without_table(lab: Lab) -> None:
    lab.configure()
    lab.plane.start()
    lab.meet_neighbours()
    lab.agent.start()
    downstream, frr = lab.downstream, lab.frr
    assert downstream is not None
    assert frr is not None
    downstream.start()
    frr.start()

    def ready() -> bool:
        found = lab.agent.pipeline()
        return found is not None and found.state is State.IN_SYNC and downstream.all_established()

    wait_until(ready, "an empty table to be in sync", seconds=60.0, found=lab.agent.summary)
