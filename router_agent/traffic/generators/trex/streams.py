"""A scenario's stream as streams of TRex: packets and the programs that change them.

One TRex stream goes to many destinations: its *field engine* takes what differs between their packets from
lists, one value a packet (flow_var with value_list and write_flow_var of doc/trex_rpc_server_spec). Addresses
and UDP source ports differ, and with them checksums, which are in lists as well: no core computes them again.
A list may have 65,535 values (check_value_list of trex_stl_rpc_cmds.cpp), and a call 999,999 bytes, so a
large table is many streams; each has one frame size and one family.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from router_agent.model import I64, U8
from router_agent.traffic.generators.frames import Frames

_PER_STREAM = {4: 16_384, 6: 8_192}
"""Destinations of one stream at most, by family: some 34 and 97 bytes of JSON for each."""

_OWN_SOURCE_MAC, _OWN_DESTINATION_MAC = 1, 1 << 1
"""Flags: MACs are the packet's, not those of TRex's configuration."""

_FIELDS = {
    4: (("checksum", 24, 2), ("addresses", 26, 8), ("port", 34, 2)),
    6: (
        *(
            ("source_high", 22, 8),
            ("source_low", 30, 8),
            ("destination_high", 38, 8),
            ("destination_low", 46, 8),
        ),
        *(("port", 54, 2), ("checksum", 60, 2)),
    ),
}
"""What differs between packets of one family and size: name, offset and bytes."""


@dataclass(frozen=True, eq=False)
class Part:
    """Packets of one family and one length.

    Attributes:
        family: 4 or 6.
        length: bytes of each without its FCS.
        packets: their heads, ``uint8`` (n, bytes).
    """

    family: int
    length: int
    packets: U8

    def __len__(self) -> int:
        return len(self.packets)


def parts(frames: Frames) -> list[Part]:
    """Return one round of a stream in parts that each fit a stream of TRex."""
    heads = frames.unnumbered()
    found = []
    for family in (4, 6):
        for length in np.unique(frames.lengths).tolist():
            rows = np.flatnonzero((frames.ipv6 == (family == 6)) & (frames.lengths == length))
            found += [
                Part(family, int(length), heads[chosen]) for chosen in _dealt(rows, _PER_STREAM[family])
            ]
    return found


def calls(found: list[Part], rate_pps: float, packets: int) -> Iterator[dict[str, Any]]:
    """Return the streams that send so many packets at such a rate, all parts alike.

    Args:
        found: the parts; all of them together are one round.
        rate_pps: of all of them together.
        packets: of all of them together.
    """
    whole = sum(map(len, found))
    ends = np.cumsum([0, *(len(part) for part in found)])
    # so that each stream has its share of the packets, and their sum is exact
    edges = [packets * int(end) // whole for end in ends]
    for number, part in enumerate(found):
        count = edges[number + 1] - edges[number]
        if count:
            share = len(part) / whole
            yield {
                "stream_id": number + 1,
                "stream": _stream(part, rate_pps * share, count, number / rate_pps),
            }


def _stream(part: Part, rate_pps: float, packets: int, begin_s: float) -> dict[str, Any]:
    binary = part.packets[0].tobytes().ljust(part.length, b"\0")
    return {
        "enabled": True,
        "self_start": True,
        "isg": begin_s * 1e6,
        "next_stream_id": -1,
        "action_count": 0,
        "random_seed": 0,
        "flags": _OWN_SOURCE_MAC | _OWN_DESTINATION_MAC,
        "packet": {"binary": base64.b64encode(binary).decode(), "meta": ""},
        "mode": {
            "type": "single_burst",
            "total_pkts": packets,
            "rate": {"type": "pps", "value": rate_pps},
        },
        "vm": {"instructions": [*_program(part)]},
        "flow_stats": {"enabled": False},
    }


def _program(part: Part) -> Iterator[dict[str, Any]]:
    if len(part) == 1:
        return
    for name, offset, octets in _FIELDS[part.family]:
        values = np.ascontiguousarray(part.packets[:, offset : offset + octets]).view(f">u{octets}")[:, 0]
        yield {
            "type": "flow_var",
            "name": name,
            "size": octets,
            "op": "inc",
            "step": 1,
            "value_list": values.tolist(),
        }
        yield {
            "type": "write_flow_var",
            "name": name,
            "pkt_offset": offset,
            "add_value": 0,
            "is_big_endian": True,
        }


def _dealt(rows: I64, most: int) -> list[I64]:
    """Return rows in pieces of at most so many."""
    return [rows[first : first + most] for first in range(0, len(rows), most)]
