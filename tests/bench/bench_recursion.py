"""Prefix-independent convergence in VPP: what it gives, and what it costs the forwarder.

``rows()`` measures, with routes that lead through next-hop entries and with routes that have their paths
themselves: programming a full table; moving all of it to other next hops; and the cycles of forwarding, by
VPP's packet generator. Then the whole agent follows a kernel whose full table has two legs, one of which
loses its link under traffic: the time from the kernel's event to VPP, and the packets that left by the dead
leg since that event. ``ROUTES_FILE`` names a prefix list; without it a table of the same length mix is
generated.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import re
import secrets
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from router_agent.config import ROUTE_PROTOCOLS
from router_agent.control import ControlClient
from router_agent.fibs.fib import FibError
from router_agent.fibs.vpp import VppFib
from router_agent.lab.table import generated_table, read_table
from router_agent.model import U8, U32, U64, Changes, Family, Link, Neighbour, Path, PathSet, key_addresses
from router_agent.namespaces import inside
from router_agent.netlink import constants as c
from router_agent.netlink.links import parse_link
from router_agent.netlink.messages import Messages, attribute, message
from router_agent.netlink.sockets import EventSocket
from router_agent.observe.answers import State
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.vpp import ports
from router_agent.vpp.next_hops import DEFAULT_TABLE
from router_agent.vpp.process import VppProcess
from router_agent.vpp.session import VppSession

ROUTES = 1_055_514
PATH_SETS = 600
LEGS = (1, 2)
PPS = 20_000
EVENT_TARGET_MS = 10.0
CUTS = 5
PACKETS = 4_000_000
TRIALS = 5
PATIENCE_SECONDS = 300.0
QUIET_SECONDS = 3.0

MODES = {True: "with recursion", False: "without"}

_SOL_PACKET, _PACKET_STATISTICS = 263, 6
"""linux/if_packet.h: packets seen and dropped since the last time it was asked."""
_PACKET_LOOP_SECONDS = 0.0005


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list where there is no VPP or no root."""
    if shutil.which("vpp") is None or os.geteuid() != 0:
        return []
    chosen = os.environ.get("ROUTES_FILE")
    table = read_table(FilePath(chosen)) if chosen else generated_table(ROUTES, 0)
    keys, origin = table.ipv4, FilePath(table.origin).name
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="vppr") as directory:
        found += asyncio.run(_programming(FilePath(directory, "p"), keys, origin))
        found += _forwarding(FilePath(directory, "f"), keys, origin)
    for mode in MODES:
        found += _link_down(keys, origin, recursion=mode)
    return found


def _row(name: str, value: float, unit: str, conditions: str, target: float | None = None) -> dict[str, Any]:
    reached = None if target is None else value <= target
    return {
        "name": f"recursion: {name}", "value": round(float(value), 3), "unit": unit, "target": target,
        "reached": reached, "conditions": conditions,
    }  # fmt: skip


def _vpp(directory: FilePath, **options: Any) -> VppProcess:
    return VppProcess(runtime_dir=directory, heap="3G", statseg="512M", **options)


def _leg_set(number: int, shift: int = 0) -> PathSet:
    """Return one of the path sets of a full table: one in twenty has two legs."""
    gateway = bytes((10, 0, (number + shift) >> 8, (number + shift) & 255))
    return PathSet.unicast(*(Path(leg, gateway) for leg in (LEGS[:1] if number % 20 else LEGS)))


# -- programming ---------------------------------------------------------------------------------


async def _programming(directory: FilePath, keys: U64, origin: str) -> list[dict[str, Any]]:
    conditions = f"{len(keys):,} routes ({origin}), {PATH_SETS} path sets, VPP without workers, 2 loopbacks"
    found = []
    for recursion, mode in MODES.items():
        with _vpp(directory, plugins=()) as vpp:
            for number in range(2):
                vpp.cli("create loopback interface")
                vpp.cli(f"set interface state loop{number} up")
            fib = VppFib(
                api_socket=vpp.api_socket, interfaces={"a": "loop0", "b": "loop1"}, recursion=recursion
            )
            fib.links(
                [Link(leg, name, True, True, b"", 1500) for leg, name in zip(LEGS, "ab", strict=True)], []
            )
            await fib.open()
            loaded, moved = await _load_and_move(fib, keys, recursion=recursion)
            await fib.close()
        found += [
            _row(f"program a full table, {mode}", len(keys) / loaded, "routes/s", conditions),
            _row(f"move every route to another next hop, {mode}", moved * 1000, "ms", conditions),
        ]
    return found


async def _load_and_move(fib: VppFib, keys: U64, *, recursion: bool) -> tuple[float, float]:
    count = len(keys)
    ids = _ids(fib, [_leg_set(n + 1) for n in range(PATH_SETS)])
    which = np.repeat(np.random.default_rng(7).integers(0, PATH_SETS, count // 6 + 1), 6)[:count]
    none = np.zeros(count, np.uint32)
    loaded = await _timed(fib, Changes(Family.IPV4, 0, keys, ids[which], none))
    sets = [_leg_set(n + 1, 5000) for n in range(PATH_SETS)]
    if not recursion:
        return loaded, await _timed(fib, Changes(Family.IPV4, 0, keys, _ids(fib, sets)[which], ids[which]))
    began = time.perf_counter()
    for number, wanted in zip(ids.tolist(), sets, strict=True):
        if not fib.repoint(number, wanted):
            raise RuntimeError(f"path id {number} did not move to {wanted}")
    await fib._open_next_hops().settled()
    return loaded, time.perf_counter() - began


def _ids(fib: VppFib, sets: list[PathSet]) -> U32:
    return np.array([fib.path_id(paths) for paths in sets], np.uint32)


async def _timed(fib: VppFib, changes: Changes) -> float:
    began = time.perf_counter()
    failures = await fib.write(changes)
    if len(failures):
        raise RuntimeError(f"VPP refused {len(failures)} routes, the first with {failures.codes[0]}")
    return time.perf_counter() - began


# -- forwarding ----------------------------------------------------------------------------------


def _forwarding(directory: FilePath, keys: U64, origin: str) -> list[dict[str, Any]]:
    """Measure both modes turn by turn, so that whatever else the machine does falls on both alike."""
    found = []
    for legs in (1, 2):
        for spread in (64, 40_000):
            seen: dict[bool, list[dict[str, float]]] = {mode: [] for mode in MODES}
            with ExitStack() as stack:
                planes = {
                    mode: stack.enter_context(
                        _generating(directory / f"{legs}-{spread}-{mode}", keys, legs, spread, mode)
                    )
                    for mode in MODES
                }
                for _ in range(TRIALS):
                    for mode, vpp in planes.items():
                        seen[mode].append(_trial(vpp))
            conditions = (
                f"{len(keys):,} routes ({origin}) by {legs} leg(s), {spread:,} destinations at random, "
                f"64 bytes a packet, VPP's generator on its main thread, median of {TRIALS} x {PACKETS:,}"
            )
            for mode, words in MODES.items():
                for what, unit in (("Mpps", "Mpps"), ("lookup", "cycles/packet"), ("total", "cycles/packet")):
                    label = {
                        "Mpps": "forwarding rate",
                        "lookup": "look-up and load balance",
                        "total": "all of forwarding",
                    }
                    value = statistics.median(trial[what] for trial in seen[mode])
                    name = f"{label[what]}, {legs} leg(s), {spread:,} destinations, {words}"
                    found.append(_row(name, value, unit, conditions))
    return found


@contextmanager
def _generating(
    directory: FilePath, keys: U64, legs: int, spread: int, recursion: bool
) -> Iterator[VppProcess]:
    directory.mkdir(parents=True)
    capture = directory / "packets.pcap"
    capture.write_bytes(_capture(keys, spread))
    with _vpp(directory, plugins=(), buffers=65_536) as vpp:
        for number in (0, *LEGS):
            vpp.cli(f"create packet-generator interface pg{number}")
            vpp.cli(f"set interface state pg{number} up")
            vpp.cli(f"set interface ip address pg{number} 10.255.{number}.1/24")
        vpp.cli("set interface mac address pg0 02:00:00:00:00:01")
        vpp.cli("set interface promiscuous on pg0")
        asyncio.run(_one_path_set(vpp, keys, legs, recursion))
        stream = f"name x limit {PACKETS} node ethernet-input interface pg0 pcap {capture}"
        vpp.cli(f"packet-generator new {{ {stream} }}")
        yield vpp


async def _one_path_set(vpp: VppProcess, keys: U64, legs: int, recursion: bool) -> None:
    fib = VppFib(api_socket=vpp.api_socket, interfaces={"a": "pg1", "b": "pg2"}, recursion=recursion)
    fib.links([Link(leg, name, True, True, b"", 1500) for leg, name in zip(LEGS, "ab", strict=True)], [])
    await fib.open()
    gateways = {leg: bytes((10, 255, leg, 2)) for leg in LEGS}
    await fib.write_neighbours([Neighbour(n, g, bytes((2, 0, 0, 0, n, 2))) for n, g in gateways.items()], [])
    ids = _ids(fib, [PathSet.unicast(*(Path(leg, gateways[leg]) for leg in LEGS[:legs]))])
    paths = np.repeat(ids, len(keys))
    await _timed(fib, Changes(Family.IPV4, 0, keys, paths, np.zeros(len(keys), np.uint32)))
    await fib.close()


def _capture(keys: U64, spread: int) -> bytes:
    """Return a pcap of packets to so many prefixes of the table, chosen at random."""
    chosen = np.random.default_rng(5).integers(0, len(keys), spread)
    parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)]
    for number, address in enumerate(key_addresses(keys[chosen])):
        packet = bytes((2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 8, 0)) + _datagram(address, number)
        parts += [struct.pack("<IIII", 0, 0, len(packet), len(packet)), packet]
    return b"".join(parts)


def _datagram(to: U8, flow: int) -> bytes:
    """Return an IPv4 packet of 50 bytes, of one of 5,000 flows."""
    source = bytes((203, 0, 113, 1))
    ahead = struct.pack(">BBHHHBBH", 0x45, 0, 50, flow & 0xFFFF, 0, 64, 17, 0)
    head = ahead + source + bytes(to)
    total: int = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    total = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    head = head[:10] + total.to_bytes(2, "big") + head[12:]
    return head + struct.pack(">HHHH", 1024 + flow % 5000, 9, 30, 0) + bytes(22)


def _trial(vpp: VppProcess) -> dict[str, float]:
    """Send the packets once; VPP is asked by its stats segment alone until they are through."""
    counters = VppForwarder(vpp.runtime_dir / "stats.sock")

    def sent() -> int:
        found = counters.read()
        return sum(found.get(f"/if/tx/pg{leg}", 0) for leg in LEGS)

    vpp.cli("clear runtime")
    before, deadline = sent(), time.monotonic() + PATIENCE_SECONDS
    began = time.perf_counter()
    vpp.cli("packet-generator enable-stream x")
    while sent() < before + PACKETS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{sent() - before:,} of {PACKETS:,} packets left VPP")
        time.sleep(0.02)
    seconds = time.perf_counter() - began
    clocks = dict(_clocks(vpp.cli("show runtime")))
    forwarding = {name: value for name, value in clocks.items() if not name.startswith("pg-input")}
    lookup = sum(clocks.get(node, 0.0) for node in ("ip4-lookup", "ip4-load-balance"))
    return {"Mpps": PACKETS / seconds / 1e6, "lookup": lookup, "total": sum(forwarding.values())}


def _clocks(runtime: str) -> Iterator[tuple[str, float]]:
    """Yield the cycles a packet of each node all packets went through, or with legs their share of them."""
    pattern = r"^(\S+)\s+.*?(\d+)\s+(\d+)\s+\d+\s+([\d.e+]+)\s+[\d.]+\s*$"
    for name, _, vectors, clocks in re.findall(pattern, runtime, re.MULTILINE):
        if int(vectors) >= PACKETS // 4:
            yield name, float(clocks) * int(vectors) / PACKETS


# -- a link goes down ----------------------------------------------------------------------------


def _link_down(keys: U64, origin: str, *, recursion: bool) -> list[dict[str, Any]]:
    mark = secrets.token_hex(3)
    names = {kind: f"{kind}{mark}" for kind in ("ctl", "fwd", "far")}
    try:
        for name in names.values():
            subprocess.run(["ip", "netns", "add", name], check=True)
        _plug(names)
        _load(names["ctl"], keys)
        with tempfile.TemporaryDirectory(prefix="vppl") as directory:
            vpp = _vpp(FilePath(directory, "v"), namespace=names["fwd"])
            with vpp:
                asyncio.run(_make_ports(vpp))
                with _agent(FilePath(directory), names["ctl"], vpp, recursion=recursion, at_least=len(keys)):
                    cuts = [
                        _cut(names, keys, vpp, recursion=recursion) for _ in range(CUTS if recursion else 1)
                    ]
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "del", name], check=False)
    words = MODES[recursion]
    conditions = (
        f"{len(keys):,} routes ({origin}) by one next-hop group of 2 legs, agent as a process, {PPS:,} "
        f"packets/s over both legs to destinations all over the table, median of {len(cuts)}"
    )
    seconds, lost, rate = (statistics.median(column) for column in zip(*cuts, strict=True))
    target = EVENT_TARGET_MS if recursion else None
    name = f"link-down event to the last packet by the dead leg, {words}"
    found = [
        _row(name, seconds * 1000, "ms", conditions, target),
        _row(f"packets by the dead leg after the event, {words}", lost, "packets", conditions,
             EVENT_TARGET_MS / 1000 * rate if recursion else None),
    ]  # fmt: skip
    if recursion:
        worst = max(cut[0] for cut in cuts) * 1000
        found.append(_row(f"the same, longest of {CUTS}", worst, "ms", conditions, EVENT_TARGET_MS))
    return found


def _ip(namespace: str, *lines: str) -> None:
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(lines), text=True, check=True)


def _plug(names: dict[str, str]) -> None:
    for number in (0, *LEGS):
        _ip(names["fwd"], f"link add o{number} type veth peer name w{number} netns {names['far']}")
        _ip(names["fwd"], f"link set o{number} up")
        _ip(names["far"], f"link set w{number} up")
    for leg in LEGS:
        _ip(names["ctl"], f"link add p{leg} type veth peer name q{leg} netns {names['far']}")
        _ip(names["far"], f"link set q{leg} up")
        _connect(names["ctl"], leg)
    _ip(names["ctl"], *(f"nexthop add id {leg} via 10.{leg}.0.2 dev p{leg}" for leg in LEGS))
    _ip(names["ctl"], "nexthop add id 10 group 1/2")


def _connect(ctl: str, leg: int) -> None:
    _ip(
        ctl,
        f"link set p{leg} up",
        f"addr replace 10.{leg}.0.1/24 dev p{leg}",
        f"neigh replace 10.{leg}.0.2 lladdr 02:00:00:00:0{leg}:02 dev p{leg}",
    )


def _load(ctl: str, keys: U64) -> None:
    """Put the table into the kernel, every route by next-hop object 10, as zebra does."""
    lengths = (keys[:, -1] & np.uint64(0xFF)).tolist()
    with inside(ctl):
        kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, c.NETLINK_ROUTE)
    kernel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 << 20)
    protocol = ROUTE_PROTOCOLS["bgp"]
    with closing(kernel):
        batch: list[bytes] = []
        for address, length in zip(key_addresses(keys), lengths, strict=True):
            head = struct.pack("=BBBBBBBBI", socket.AF_INET, length, 0, 0, 254, protocol, 0, 1, 0)
            body = (
                head + attribute(c.RTA_DST, address.tobytes()) + attribute(c.RTA_NH_ID, struct.pack("=I", 10))
            )
            batch.append(message(c.RTM_NEWROUTE, c.NLM_F_REQUEST | c.NLM_F_CREATE, 1, body))
            if len(batch) == 500:
                kernel.send(b"".join(batch))
                batch.clear()
        if batch:
            kernel.send(b"".join(batch))


async def _make_ports(vpp: VppProcess) -> None:
    session = VppSession(api_socket=vpp.api_socket, name="bench")
    await session.open()
    try:
        for number in (0, *LEGS):
            mac = bytes((2, 0, 0, 0, 0, number))
            await ports.create_host_port(session, host_interface=f"o{number}", mac=mac)
    finally:
        await session.close()


@contextmanager
def _agent(
    directory: FilePath, ctl: str, vpp: VppProcess, *, recursion: bool, at_least: int
) -> Iterator[ControlClient]:
    fib = {
        "kind": "vpp", "api_socket": str(vpp.api_socket), "recursion": recursion,
        "interfaces": {f"p{leg}": f"host-o{leg}" for leg in LEGS},
    }  # fmt: skip
    config, control = directory / "agent.yaml", directory / "control.sock"
    pipelines = [{"name": "fib", "feed": {"kind": "kernel", "namespace": ctl}, "fib": fib}]
    config.write_text(json.dumps({"pipelines": pipelines, "control": {"socket": str(control)}}))
    argv = [sys.executable, "-m", "router_agent.cli", "run", "--config", str(config)]
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        client = ControlClient(control)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _settled(client, at_least):
            if time.monotonic() > deadline:
                raise RuntimeError("the agent was not in sync in time")
            time.sleep(0.2)
        yield client
    finally:
        process.terminate()
        process.wait()


def _settled(client: ControlClient, at_least: int) -> bool:
    try:
        (pipeline,) = client.status().pipelines
    except Exception:  # noqa: BLE001 - it is still starting
        return False
    held = sum(counts.in_fib for counts in pipeline.counts)
    return pipeline.state is State.IN_SYNC and held >= at_least


def _cut(names: dict[str, str], keys: U64, vpp: VppProcess, *, recursion: bool) -> tuple[float, float, float]:
    """Take a leg's link down under traffic.

    Returns:
        Seconds from the kernel's event to the last packet that left by the dead leg, packets that left by it
        since the event, and packets a second that leg had before.
    """
    # A process of its own: threads of one interpreter would wait for each other for milliseconds.
    processes = multiprocessing.get_context("fork")
    stop = processes.Event()
    with ExitStack() as stack:
        with inside(names["far"]):
            sender = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            sender.bind(("w0", 0))
            seen = stack.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)))
            seen.bind(("w2", 0x0800))
        events = EventSocket(names["ctl"], (c.RTNLGRP_LINK,))
        sending = processes.Process(target=_send, args=(sender, keys, stop))
        sending.start()
        try:
            time.sleep(1.0)
            _packets(seen)
            time.sleep(1.0)
            rate = float(_packets(seen))
            down = subprocess.Popen(["ip", "-n", names["far"], "link", "set", "q2", "down"])
            _wait_down(events, "p2")
            began = last = time.perf_counter()
            _packets(seen)
            lost, quiet_from = 0, began
            while time.perf_counter() - quiet_from < QUIET_SECONDS:
                time.sleep(_PACKET_LOOP_SECONDS)
                news = _packets(seen)
                if news:
                    lost, last = lost + news, time.perf_counter()
                    quiet_from = last
            down.wait()
        finally:
            stop.set()
            sending.join()
    if recursion:
        _restore(names, vpp)
    return last - began, float(lost), rate


def _send(sender: socket.socket, keys: U64, stop: Event) -> None:
    """Send `PPS` packets a second, some every millisecond, to prefixes all over the table."""
    chosen = np.random.default_rng(3).integers(0, len(keys), 4000)
    ethernet = bytes((2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 9, 8, 0))
    frames = [ethernet + _datagram(to, n) for n, to in enumerate(key_addresses(keys[chosen]))]
    at, due = 0, time.perf_counter()
    while not stop.is_set():
        for _ in range(PPS // 1000):
            sender.send(frames[at])
            at = (at + 1) % len(frames)
        due += 0.001
        time.sleep(max(0.0, due - time.perf_counter()))


def _packets(seen: socket.socket) -> int:
    """Return how many packets came since it was last asked, read or not."""
    return int(struct.unpack("II", seen.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[0])


def _wait_down(events: EventSocket, name: str) -> None:
    """Return as soon as the kernel tells that a link has lost its carrier."""
    while True:
        select.select([events.fileno()], [], [])
        data = events.receive()
        if not len(data):
            continue
        messages = Messages.find(data)
        for number in range(len(messages)):
            state = parse_link(messages.body(number))
            if state is not None and state.link.name == name and not state.link.carrier:
                return


def _restore(names: dict[str, str], vpp: VppProcess) -> None:
    """Bring the leg back as zebra would, and wait until VPP uses it."""
    _ip(names["far"], "link set q2 up")
    _connect(names["ctl"], 2)
    _ip(names["ctl"], "nexthop replace id 2 via 10.2.0.2 dev p2", "nexthop replace id 10 group 1/2")
    asyncio.run(_wait_two_legs(vpp))


async def _wait_two_legs(vpp: VppProcess) -> None:
    """Wait for an entry of two legs, by the API: ``show ip fib`` lists every route that leads through one."""
    session = VppSession(api_socket=vpp.api_socket, name="bench")
    await session.open()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while all([await _legs(session, entry) != len(LEGS) for entry in range(1, 4)]):
                await asyncio.sleep(0.1)
    finally:
        await session.close()


async def _legs(session: VppSession, entry: int) -> int:
    prefix = f"0.0.0.{entry}/32"
    try:
        answer = await session.call("ip_route_lookup", table_id=DEFAULT_TABLE, exact=1, prefix=prefix)
    except FibError:
        return 0
    return int(answer.route.n_paths)


if __name__ == "__main__":
    for row in rows():
        print(row["name"], row["value"], row["unit"], row["target"], row["reached"])
