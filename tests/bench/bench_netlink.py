"""rtnetlink: decoding a full table's dump, and programming a kernel FIB against ``ip -batch``.

``rows()`` writes a full IPv4 table into a scratch namespace, first with ``ip -batch`` and then with the
kernel FIB, dumps and decodes it, and takes the namespace down. ``ROUTES_FILE`` names a prefix list (text, or
text in xz); without it a table of the same length mix is generated. Each figure is the better of two runs
where that is affordable, since the machine may be shared.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path as FilePath
from typing import Any

import numpy as np

from router_agent.feeds.kernel import KernelFeed
from router_agent.fibs.kernel import KernelFib
from router_agent.lab.table import generated_table, read_table
from router_agent.model import (
    ABSENT,
    U8,
    U32,
    U64,
    Changes,
    Family,
    Link,
    Neighbour,
    Path,
    PathSet,
    RouteBatch,
    key_addresses,
    key_lengths,
)
from router_agent.netlink import constants as c
from router_agent.netlink.messages import Messages, attribute
from router_agent.netlink.paths import PathIds
from router_agent.netlink.routes import RouteDecoder
from router_agent.netlink.sockets import DumpSocket

ROUTES = 1_055_514
GATEWAYS = 200
DECODE_TARGET = 2_000_000
RATIO_TARGET = 3.5
RESIDENT_TARGET = 350
_CHUNK = 1 << 20


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list without root."""
    if os.geteuid() != 0:
        return []
    chosen = os.environ.get("ROUTES_FILE")
    table = read_table(FilePath(chosen)) if chosen else generated_table(ROUTES, 0)
    keys, origin = table.ipv4, FilePath(table.origin).name
    name = f"bench-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in ("link set lo up", "link add p0 type veth peer name p1", "link set p0 up",
                        "link set p1 up", "addr add 10.255.0.1/16 dev p0"):  # fmt: skip
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        return asyncio.run(_measure(name, keys, origin))
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


async def _measure(name: str, keys: U64, origin: str) -> list[dict[str, Any]]:
    conditions = f"{len(keys)} IPv4 routes ({origin}), {GATEWAYS} gateways, {os.cpu_count()} CPUs"
    gateways = np.arange(len(keys)) % GATEWAYS
    batched = _ip_batch(name, keys, gateways)
    written, replaced, deleted = await _program(name, keys, gateways)
    dumped, rate_decode = await _decode(name)
    whole = await _socket_to_columns(name)
    resident = _resident_of_a_feed(name)
    kernel = f"{conditions}; 1,000 messages a send, Linux {os.uname().release}"
    against = f"ip -batch wrote {batched:.0f} routes/s in the same run"
    process = f"{conditions}; a process that dumps the table twice and keeps nothing of it"
    return [
        _row("decode captured dump", rate_decode, "routes/s", DECODE_TARGET, f"{conditions}; {dumped} bytes"),
        _row("kernel to columns", whole, "routes/s", None, f"{conditions}; with the kernel's own time"),
        _row("write kernel FIB", written, "routes/s", None, kernel),
        _row("write kernel FIB / ip -batch", written / batched, "ratio", RATIO_TARGET, against),
        _row("replace in kernel FIB", replaced, "routes/s", None, kernel),
        _row("delete from kernel FIB", deleted, "routes/s", None, kernel),
        _row("peak RSS of a kernel feed", resident, "MB", RESIDENT_TARGET, process, lower=True),
    ]


def _row(
    name: str, value: float, unit: str, target: float | None, conditions: str, *, lower: bool = False
) -> dict[str, Any]:
    reached = None if target is None else bool(value <= target if lower else value >= target)
    return {
        "name": f"netlink: {name}",
        "value": round(value, 2),
        "unit": unit,
        "target": target,
        "reached": reached,
        "conditions": conditions,
    }


def _gateway(number: int) -> str:
    return f"10.255.1.{number + 1}"


def _ip_batch(name: str, keys: U64, gateways: Any) -> float:
    """Write the table with ip(8), then take it away again; return routes/s."""
    addresses = key_addresses(keys)
    lengths = key_lengths(keys)
    with tempfile.NamedTemporaryFile("w", suffix=".batch") as batch:
        for address, length, gateway in zip(
            addresses.tolist(), lengths.tolist(), gateways.tolist(), strict=True
        ):
            dotted = ".".join(map(str, address))
            batch.write(f"route add {dotted}/{length} via {_gateway(gateway)} proto 77 metric 20\n")
        batch.flush()
        began = time.perf_counter()
        subprocess.run(["ip", "-n", name, "-batch", batch.name], check=True)
        seconds = time.perf_counter() - began
    subprocess.run(["ip", "-n", name, "route", "flush", "proto", "77"], check=True)
    return len(keys) / seconds


async def _program(name: str, keys: U64, gateways: Any) -> tuple[float, float, float]:
    """Write, replace, delete and write again; leave the table in place. Routes/s of each."""
    fib = KernelFib(namespace=name, protocol=201, metric=20)
    await fib.open()
    try:
        sets = [PathSet.unicast(Path(0, IPv4Address(_gateway(n)).packed)) for n in range(GATEWAYS)]
        ids = np.array([fib.path_id(s) for s in sets], np.uint32)
        paths: U32 = ids[gateways]
        others: U32 = ids[(gateways + 1) % GATEWAYS]
        nothing = np.full(len(keys), ABSENT, np.uint32)
        seconds = []
        for wanted, held in ((paths, nothing), (others, paths), (nothing, others), (paths, nothing)):
            began = time.perf_counter()
            failures = await fib.write(Changes(Family.IPV4, c.RT_TABLE_MAIN, keys, wanted, held))
            seconds.append(time.perf_counter() - began)
            if len(failures):
                raise RuntimeError(f"the kernel refused {len(failures)} routes: {fib.refusals}")
    finally:
        await fib.close()
    return len(keys) / min(seconds[0], seconds[3]), len(keys) / seconds[1], len(keys) / seconds[2]


_REQUEST = struct.pack("=BBBBBBBBI", Family.IPV4, 0, 0, 0, c.RT_TABLE_MAIN, 0, 0, 0, 0) + attribute(
    c.RTA_TABLE, c.RT_TABLE_MAIN.to_bytes(4, "little")
)


async def _decode(name: str) -> tuple[int, float]:
    """Capture a dump as it came, then decode it twice from memory; return its bytes and routes/s."""
    chunks: list[U8] = []
    dumps = DumpSocket(name)
    async for messages in dumps.dump(c.RTM_GETROUTE, _REQUEST, chunk_bytes=_CHUNK):
        end = int(messages.starts[-1] + messages.lengths[-1])
        chunks.append(messages.buffer[:end].copy())
    dumps.close()
    best = float("inf")
    for _ in range(2):
        decoder = RouteDecoder(tables=(c.RT_TABLE_MAIN,), protocols=None, paths=PathIds())
        began = time.perf_counter()
        count = sum(len(batch) for chunk in chunks for batch in decoder.decode(Messages.find(chunk)))
        best = min(best, time.perf_counter() - began)
    return sum(map(len, chunks)), count / best


async def _socket_to_columns(name: str) -> float:
    """Dump and decode in one go, as the feed does; routes/s."""
    best = 0.0
    for _ in range(2):
        decoder = RouteDecoder(tables=(c.RT_TABLE_MAIN,), protocols=None, paths=PathIds())
        dumps = DumpSocket(name)
        began = time.perf_counter()
        count = 0
        async for messages in dumps.dump(c.RTM_GETROUTE, _REQUEST, chunk_bytes=_CHUNK):
            count += sum(map(len, decoder.decode(messages)))
        dumps.close()
        best = max(best, count / (time.perf_counter() - began))
    return best


class _Nothing:
    """A sink that keeps nothing, so that what is measured is the feed itself."""

    def __init__(self) -> None:
        self.snapshots = 0
        self.done = asyncio.Event()

    def snapshot_begin(self) -> None: ...

    def snapshot_end(self, *, clean: bool) -> None:
        self.snapshots += 1
        self.done.set()

    def routes(self, batch: RouteBatch) -> None: ...

    def paths_changed(self, paths: U32) -> None: ...

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None: ...

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None: ...


async def _dump_twice(name: str) -> None:
    feed, sink = KernelFeed(namespace=name, resync_interval_seconds=0.0), _Nothing()
    running = asyncio.create_task(feed.run(sink))
    for count in (1, 2):
        while sink.snapshots < count:
            sink.done.clear()
            await sink.done.wait()
        feed.resync()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _resident_of_a_feed(name: str) -> float:
    """Return the peak resident memory of a fresh process that follows the namespace, in MB."""
    command = [sys.executable, __file__, "--dump-twice", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def _peak_megabytes() -> float:
    # VmHWM begins anew at exec; getrusage's maximum is inherited from the parent
    lines = FilePath("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--dump-twice"]:
        asyncio.run(_dump_twice(sys.argv[2]))
        print(_peak_megabytes())
    else:
        for row in rows():
            print(f"{row['name']:40} {row['value']:>14,} {row['unit']:9} {row['target'] or '':>10}")
