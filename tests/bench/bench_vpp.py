"""VPP: programming, replacing, deleting and reading back a full IPv4 table, against the bytes alone.

``rows()`` starts a private VPP without workers, programs the table from an empty FIB, and compares with the
same requests encoded beforehand and written raw by a loop that checks nothing. Routes have their paths
themselves; `bench_recursion` compares with those that lead through next-hop entries. ``ROUTES_FILE`` names
a prefix list (text, or text in xz); without it a table of the same length mix is generated.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import time
from collections import deque
from ipaddress import IPv4Network
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import psutil

from router_agent.fibs.vpp import VppFib
from router_agent.lab.table import generated_table, read_table
from router_agent.model import (
    ABSENT,
    U32,
    U64,
    Changes,
    Family,
    Link,
    Path,
    PathSet,
)
from router_agent.vpp.process import VppProcess
from router_agent.vpp.routes import RouteCodec
from router_agent.vpp.session import VppSession

ROUTES = 1_055_514
PATH_SETS = 600
RATE_TARGET = 200_000
RATIO_TARGET = 0.85
_RAW_PAUSE_SECONDS = 0.005


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list where there is no VPP."""
    if shutil.which("vpp") is None:
        return []
    chosen = os.environ.get("ROUTES_FILE")
    table = read_table(FilePath(chosen)) if chosen else generated_table(ROUTES, 0)
    keys, origin = table.ipv4, FilePath(table.origin).name
    with tempfile.TemporaryDirectory(prefix="vppb") as directory:
        vpp = VppProcess(runtime_dir=FilePath(directory), heap="3G", statseg="512M", plugins=())
        return [
            *asyncio.run(_through_the_agent(vpp, keys, origin)),
            *asyncio.run(_one_at_a_time(vpp, keys, origin)),
        ]


def _fib(vpp: VppProcess) -> VppFib:
    interfaces = {"up0": "loop0", "up1": "loop1"}
    fib = VppFib(api_socket=vpp.api_socket, interfaces=interfaces, recursion=False)
    fib.links([Link(index, f"up{index - 10}", True, True, b"", 1500) for index in (10, 11)], [])
    return fib


def _configure(vpp: VppProcess) -> None:
    for number in (0, 1):
        vpp.cli("create loopback interface")
        vpp.cli(f"set interface state loop{number} up")


def _gateways(fib: VppFib) -> U32:
    """Return the ids of as many path sets as a full table has, one in twenty with two legs."""
    ids = []
    for number in range(PATH_SETS):
        gateway = (IPv4Network("10.0.0.0/16").network_address + 1 + number).packed
        legs = [Path(10, gateway)] if number % 20 else [Path(10, gateway), Path(11, gateway)]
        ids.append(fib.path_id(PathSet.unicast(*legs)))
    return np.array(ids, np.uint32)


def _paths(ids: U32, count: int, shift: int) -> U32:
    """Return path ids in runs, as neighbouring prefixes of one origin share a next hop."""
    random = np.random.default_rng(7)
    runs = random.integers(0, len(ids), count // 6 + 1)
    return ids[(np.repeat(runs, 6)[:count] + shift) % len(ids)]


async def _through_the_agent(vpp: VppProcess, keys: U64, origin: str) -> list[dict[str, Any]]:
    count = len(keys)
    conditions = f"{origin}, {PATH_SETS} path sets, VPP without workers, 2 loopbacks, window 16384"
    with vpp:
        _configure(vpp)
        raw = await _raw_seconds(vpp, keys)
    with vpp:
        _configure(vpp)
        fib = _fib(vpp)
        await fib.open()
        ids = _gateways(fib)
        none, first, second = np.zeros(count, np.uint32), _paths(ids, count, 0), _paths(ids, count, 1)
        added = await _timed(fib, keys, first, none)
        vpp_rss = psutil.Process(vpp.pid).memory_info().rss
        began = time.perf_counter()
        read = 0
        async for routes in fib.read(Family.IPV4, 0):
            read += len(routes.keys)
        dumped = time.perf_counter() - began
        if read != count:
            raise RuntimeError(f"read {read} routes back, expected {count}")
        replaced = await _timed(fib, keys, second, first)
        agent_rss = psutil.Process().memory_info().rss
        deleted = await _timed(fib, keys, np.full(count, ABSENT, np.uint32), second)
        await fib.close()
    rate = count / added
    return [
        _row("program a full table into an empty VPP FIB", rate, "routes/s", RATE_TARGET, conditions),
        _row("the same against its bytes written raw", raw / added, "ratio", RATIO_TARGET, conditions),
        _row("the same bytes written raw", count / raw, "routes/s", None, conditions),
        _row("replace every route's next hop", count / replaced, "routes/s", None, conditions),
        _row("delete every route", count / deleted, "routes/s", RATE_TARGET, conditions),
        _row("dump and decode the table", dumped, "s", None, conditions),
        _row("VPP resident memory with the table", vpp_rss / 2**20, "MiB", None, conditions),
        _row(
            "resident memory of this process", agent_rss / 2**20, "MiB", None, f"{conditions}; with test data"
        ),
    ]


async def _one_at_a_time(vpp: VppProcess, keys: U64, origin: str) -> list[dict[str, Any]]:
    """Time one route at a time, on a quiet VPP."""
    with vpp:
        _configure(vpp)
        fib = _fib(vpp)
        await fib.open()
        ids = _gateways(fib)
        seconds = []
        for number in range(2000):
            row = slice(number, number + 1)
            began = time.perf_counter()
            await fib.write(Changes(Family.IPV4, 0, keys[row], ids[:1], np.zeros(1, np.uint32)))
            seconds.append(time.perf_counter() - began)
        await fib.close()
    late = float(np.percentile(seconds, 99)) * 1e3
    return [_row("write one route, p99", late, "ms", None, "2,000 writes one after the other, quiet VPP")]


async def _timed(fib: VppFib, keys: U64, paths: U32, held: U32) -> float:
    began = time.perf_counter()
    failures = await fib.write(Changes(Family.IPV4, 0, keys, paths, held))
    seconds = time.perf_counter() - began
    if len(failures):
        raise RuntimeError(f"VPP refused {len(failures)} routes, the first with {failures.codes[0]}")
    return seconds


async def _raw_seconds(vpp: VppProcess, keys: U64) -> float:
    """Return how long VPP takes for the same requests, encoded beforehand, with nobody looking at answers."""
    fib = _fib(vpp)
    await fib.open()
    ids = _gateways(fib)
    session: VppSession = fib._session
    codec: RouteCodec = fib._open_codec()
    paths = fib._numbering.to_codec(Family.IPV4, _paths(ids, len(keys), 0))
    parts = [
        codec.encode(Family.IPV4, 0, keys[at : at + 4096], paths[at : at + 4096], at)[0]
        for at in range(0, len(keys), 4096)
    ]
    expected = len(keys) * codec.reply.length
    stream = session.stream
    asyncio.get_running_loop().remove_reader(stream._socket)
    seconds = await asyncio.to_thread(_write_raw, stream._socket, parts, expected)
    stream._watch_idle()
    await fib.close()
    return seconds


def _write_raw(connection: socket.socket, parts: list[Any], expected: int) -> float:
    """Write as much as the socket takes, throw away what has come, and give VPP 5 ms."""
    left, scratch = expected, bytearray(1 << 20)
    waiting = deque(memoryview(part) for part in parts)
    began = time.perf_counter()
    while left:
        with contextlib.suppress(BlockingIOError):
            while waiting:
                sent = connection.send(waiting[0])
                waiting[0] = waiting[0][sent:]
                if not waiting[0]:
                    waiting.popleft()
        with contextlib.suppress(BlockingIOError):
            while left:
                left -= connection.recv_into(scratch)
        if left:
            time.sleep(_RAW_PAUSE_SECONDS)
    return time.perf_counter() - began


def _row(name: str, value: float, unit: str, target: float | None, conditions: str) -> dict[str, Any]:
    reached = None if target is None else value >= target
    return {
        "name": f"vpp: {name}",
        "value": round(value, 3),
        "unit": unit,
        "target": target,
        "reached": reached,
        "conditions": conditions,
    }


if __name__ == "__main__":
    for row in rows():
        print(row["name"], row["value"], row["unit"], row["target"], row["reached"])
