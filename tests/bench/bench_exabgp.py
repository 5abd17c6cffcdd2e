"""ExaBGP: reading a full IPv4 table from its JSON, and deciding between two peers for every prefix.

``rows()`` writes the lines ExaBGP would write to files, and gives them to the feed in pieces of the size the
relay's socket gives, in a process of its own so that the memory is the feed's. ``ROUTES_FILE`` names a prefix
list (text, or text in xz); without it a table of the same length mix is generated. Attributes are dealt out
at random to the prefixes of each peer, so two peers give many more combinations than two real ones.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from router_agent.feeds.exabgp import ExabgpFeed
from router_agent.model import U32, Family, Link, Neighbour, RouteBatch

ROUTES = 1_055_514
ATTRIBUTE_SETS = 700
PREFIXES_A_LINE = 600
PIECE_BYTES = 200_000
SECONDS_TARGET = 8.0
RSS_TARGET_MB = 350
PEERS = ("192.0.2.2", "192.0.2.3")

LENGTHS = {16: 0.014, 18: 0.013, 19: 0.025, 20: 0.046, 21: 0.052, 22: 0.11, 23: 0.10, 24: 0.64}
"""Share of the prefix lengths that matter in a table of the default-free zone."""


class _Sink:
    """Takes routes and keeps nothing, so that only the feed is measured."""

    def __init__(self) -> None:
        self.routes_taken = 0
        self.ended = False

    def snapshot_begin(self) -> None:
        pass

    def snapshot_end(self, *, clean: bool) -> None:
        self.ended = clean

    def routes(self, batch: RouteBatch) -> None:
        self.routes_taken += len(batch)

    def paths_changed(self, paths: U32) -> None:
        pass

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        pass

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        pass


def rows() -> list[dict[str, Any]]:
    """Return what was measured."""
    table, origin = prefixes()
    with tempfile.TemporaryDirectory(prefix="exabgpb") as directory:
        for peer in PEERS:
            with (Path(directory) / peer).open("w") as stream:
                stream.writelines(line + "\n" for line in lines(peer, table))
        command = [sys.executable, str(Path(__file__).resolve()), directory, str(len(table)), origin]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: list[dict[str, Any]] = json.loads(done.stdout)
    return measured


def prefixes() -> tuple[list[str], str]:
    """Return the table, and where it is from."""
    name = os.environ.get("ROUTES_FILE")
    if name is not None:
        data = Path(name).read_bytes()
        text = (lzma.decompress(data) if name.endswith(".xz") else data).decode()
        return [line for line in text.split() if "." in line], Path(name).name
    chance = random.Random(1)
    lengths = chance.choices(list(LENGTHS), list(LENGTHS.values()), k=ROUTES)
    found: dict[str, None] = {}
    for number, length in enumerate(lengths):
        address = (0x01000000 + number * 3331) & (0xFFFFFFFF << (32 - length)) & 0xFFFFFFFF
        octets = ".".join(str(address >> shift & 255) for shift in (24, 16, 8, 0))
        found[f"{octets}/{length}"] = None
    return list(found), "generated"


def _neighbour(peer: str, rest: str) -> str:
    number = PEERS.index(peer)
    return (
        f'"neighbor": {{ "address": {{ "local": "192.0.2.1", "peer": "{peer}" }}, "asn": {{ "local": 65001, '
        f'"peer": {65002 + number} }}, "router-id": "192.0.2.1" , {rest} }} }}'
    )


def _start(kind: str) -> str:
    return (
        '{ "exabgp": "5.0.0", "time": 1795258642.43, "host" : "pop", "pid" : 15841, "ppid" : 15840, '
        f'"counter": 1, "type": "{kind}", '
    )


def lines(peer: str, table: Sequence[str]) -> Iterator[str]:
    """Yield a session's coming up, its table and its End-of-RIB as ExaBGP writes them."""
    capabilities = '"capabilities": { "1": { "families": [ "ipv4/unicast" ] }, "2": { } }'
    for direction in ("send", "receive"):
        opened = f'"direction": "{direction}", "open": {{ "router_id": "{peer}", {capabilities} }}'
        yield _start("open") + _neighbour(peer, opened)
    yield _start("state") + _neighbour(peer, '"state": "up"')
    chance = random.Random(peer)
    first = 65002 + PEERS.index(peer)
    sets: list[list[str]] = [[] for _ in range(ATTRIBUTE_SETS)]
    for prefix in table:
        sets[chance.randrange(ATTRIBUTE_SETS)].append(prefix)
    for number, members in enumerate(sets):
        path = [first, *(chance.randrange(1, 64000) for _ in range(1 + number % 5))]
        attribute = f'"origin": "igp", "as-path": {{"0": {{"element": "as-sequence", "value": {path}}}}}'
        for start in range(0, len(members), PREFIXES_A_LINE):
            nlri = ", ".join(
                f'{{ "nlri": "{prefix}" }}' for prefix in members[start : start + PREFIXES_A_LINE]
            )
            announce = f'"announce": {{ "ipv4 unicast": {{ "{peer}": [ {nlri} ] }} }}'
            update = f'"attribute": {{ {attribute} }}, {announce}'
            message = f'"direction": "receive", "message": {{ "update": {{ {update} }} }}'
            yield _start("update") + _neighbour(peer, message)
    eor = '"direction": "receive", "message": { "eor": { "afi" : "ipv4", "safi" : "unicast" } }'
    yield _start("update") + _neighbour(peer, eor)


async def _feed(feed: ExabgpFeed, stream: BinaryIO) -> float:
    """Give the feed a stream in pieces; return the seconds of processor time it took."""
    began = time.process_time()
    while piece := stream.read(PIECE_BYTES):
        await feed.receive(piece)
    return time.process_time() - began


def _row(name: str, value: float, unit: str, conditions: str, target: float | None = None) -> dict[str, Any]:
    reached = None if target is None else (value <= target if unit in ("s", "MB") else value >= target)
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "target": target,
        "reached": reached,
        "conditions": conditions,
    }


async def _measure(directory: Path, count: int, origin: str) -> list[dict[str, Any]]:
    process = psutil.Process()
    sink = _Sink()
    feed = ExabgpFeed(socket_path=directory / "socket", families=[Family.IPV4])
    feed._sink = sink
    before = process.memory_info().rss
    seconds, memory = [], []
    for peer in PEERS:
        with (directory / peer).open("rb") as stream:
            seconds.append(await _feed(feed, stream))
        memory.append((process.memory_info().rss - before) / 1e6)
    held = sum(sum(view.routes.values()) for view in feed.sessions())
    if held != 2 * count or sink.routes_taken != 2 * count:
        raise SystemExit(f"{held} routes are held and {sink.routes_taken} were decided, expected {2 * count}")
    began = time.process_time()
    for keys in feed.ribs.prefixes(Family.IPV4):
        feed.ribs.decide(Family.IPV4, keys)
    again = time.process_time() - began
    down = _start("state") + _neighbour(PEERS[0], '"state": "down", "reason": "closing connection"') + "\n"
    lost = await _feed(feed, BytesIO(down.encode()))
    size = f"{(directory / PEERS[0]).stat().st_size / 1e6:.0f} MB of JSON"
    of = f"{count} routes ({origin}), {ATTRIBUTE_SETS} attribute sets"
    each = f"{of} a peer"
    return [
        _row("exabgp: full table from JSON", seconds[0], "s", f"{size}, {of}, one core", SECONDS_TARGET),
        _row("exabgp: routes from JSON", count / seconds[0], "routes/s", of, count / SECONDS_TARGET),
        _row("exabgp: a second peer's routes from JSON", count / seconds[1], "routes/s", each),
        _row("exabgp: decisions between two peers", count / again, "routes/s", each),
        _row("exabgp: decisions when one of two peers is lost", count / lost, "routes/s", each),
        _row("exabgp: memory for one peer", memory[0], "MB", f"growth of RSS, {of}", RSS_TARGET_MB),
        _row("exabgp: memory for two peers", memory[1], "MB", f"growth of RSS, {each}"),
    ]


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_measure(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))))
