"""Recorded update streams: MRT files of BGP4MP messages (RFC 6396, 4.4), as route collectors publish them.

A collector's file holds the sessions of many peers; a router has one with each, so one peer is replayed. What
the peer had announced before the file begins is not in it: each prefix of the file counts as announced then,
by a path that the file does not have.
"""

from __future__ import annotations

import lzma
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from router_agent.lab.bgp import BgpMessageError, Kind, parse_update, split
from router_agent.lab.churn import WITHDRAWN, Churn
from router_agent.lab.errors import TableError
from router_agent.lab.mrt import BGP4MP_ST, MRT_T, MrtFormatError, Reader
from router_agent.lab.reserved import touches_reserved
from router_agent.lab.table import Table
from router_agent.model import I64, U64, Address, Family
from router_agent.prefix_list import unpacked

_BGP4MP, _BGP4MP_ET = MRT_T["BGP4MP"], MRT_T["BGP4MP_ET"]
_AS_OCTETS = {BGP4MP_ST["BGP4MP_MESSAGE"]: 2, BGP4MP_ST["BGP4MP_MESSAGE_AS4"]: 4}
_ADDRESS_BYTES = {1: 4, 2: 16}


_Path: TypeAlias = tuple[bytes, tuple[int, ...]]
"""Path attributes as bytes, and the AS path among them."""


class Peer(NamedTuple):
    """A peer of a collector."""

    asn: int
    address: Address


@dataclass(frozen=True, slots=True)
class _Message:
    seconds: float
    peer: Peer
    as_octets: int
    body: bytes


class _MessageReader(Reader):  # type: ignore[misc]
    """mrtparse's reader, stopping in each record before the BGP message: decoding takes it too long."""

    def unpack_msg(self, mrt: Any) -> None:
        body = self.f.read(mrt.data["length"])
        if len(body) < mrt.data["length"]:
            raise MrtFormatError(f"{len(body)} octets of a record of {mrt.data['length']}")
        kind, subtype = (next(iter(mrt.data[name])) for name in ("type", "subtype"))
        if kind not in (_BGP4MP, _BGP4MP_ET):
            raise MrtFormatError(f"MRT type {kind} ({MRT_T[kind]})")
        seconds = float(next(iter(mrt.data["timestamp"])))
        if kind == _BGP4MP_ET:
            seconds += int.from_bytes(body[:4]) / 1e6
            body = body[4:]
        self.data["message"] = _message(seconds, subtype, body)


def read_churn(path: Path, *, peer: Address | None = None) -> Churn:
    """Read what one peer said.

    Args:
        path: an MRT file of updates, plain or packed with gzip, bzip2 or xz.
        peer: whose updates to take; None takes who sent most.

    Raises:
        TableError: the file cannot be read, is another kind of MRT, or has nothing of this peer.
    """
    try:
        with unpacked(path) as file:
            messages = list(_messages(_MessageReader(file), str(path)))
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise TableError(f"{path}: cannot be read: {error}; expected an MRT file of updates") from error
    spoke = Counter(found.peer for found in messages)
    chosen = [p for p, _ in spoke.most_common() if peer in (None, p.address)]
    if not chosen:
        known = (
            ", ".join(f"{p.address} (AS {p.asn}): {n}" for p, n in spoke.most_common(8)) or "no update at all"
        )
        raise TableError(f"{path}: found no update of {peer or 'any peer'}, expected one; found {known}")
    return _churn(
        [found for found in messages if found.peer == chosen[0]], f"{path}, AS {chosen[0].asn}", str(path)
    )


def _messages(reader: Iterable[Any], name: str) -> Iterator[_Message]:
    for number, record in enumerate(reader, 1):
        if record.err:
            raise TableError(
                f"{name}, record {number}: found {record.err_msg}, expected BGP4MP (RFC 6396 4.4): "
                "take a file of updates, not a RIB dump"
            )
        if record.data["message"] is not None:
            yield record.data["message"]


def _message(seconds: float, subtype: int, body: bytes) -> _Message | None:
    """Return the UPDATE of a record, None for state changes, other messages and paths with ids."""
    octets = _AS_OCTETS.get(subtype)
    if octets is None:
        return None
    try:
        asn = int.from_bytes(body[:octets])
        (afi,) = struct.unpack_from("!H", body, 2 * octets + 2)
        at = 2 * octets + 4
        size = _ADDRESS_BYTES[afi]
        peer = Peer(asn, ip_address(body[at : at + size]))
        for kind, update in split(body[at + 2 * size :]):
            if kind == Kind.UPDATE:
                return _Message(seconds, peer, octets, update)
    except (struct.error, KeyError, ValueError) as error:
        raise MrtFormatError(f"a BGP4MP message that is none: {error}") from error
    return None


def _churn(messages: list[_Message], origin: str, name: str) -> Churn:
    keys: dict[Family, list[U64]] = {family: [] for family in Family}
    runs: list[tuple[Family, int, float]] = []
    counts: list[int] = []
    paths: dict[_Path, int] = {}
    for found in messages:
        for family, path, column in _said(found, paths, name):
            keys[family].append(column)
            counts.append(len(column))
            runs.append((family, path, found.seconds - messages[0].seconds))
    families, numbers, seconds = (
        np.repeat(np.array(column), counts) for column in (zip(*runs, strict=True) if runs else ((), (), ()))
    )
    tables, rows = _rows(keys, families)
    taken = rows >= 0
    if not taken.any():
        raise TableError(f"{name}: found no prefix of {origin} that may be announced, expected at least one")
    unknown = len(paths) + 1
    return Churn(
        Table(tables[Family.IPV4], tables[Family.IPV6], origin),
        families[taken].astype(np.uint8),
        rows[taken],
        numbers[taken].astype(np.uint32),
        np.maximum.accumulate(seconds)[taken],
        unknown,
        {family: np.full(len(tables[family]), unknown, np.uint32) for family in Family},
        origin,
        as_paths=(*(as_path for _, as_path in paths), (messages[0].peer.asn,)),
    )


def _said(found: _Message, paths: dict[_Path, int], name: str) -> Iterator[tuple[Family, int, U64]]:
    """Yield family, path number and keys of what an UPDATE withdraws and announces; number new paths."""
    try:
        update = parse_update(found.body, as_octets=found.as_octets)
    except BgpMessageError as error:
        raise TableError(f"{name}: an UPDATE of {found.peer.address}: {error}") from error
    for family, column in update.withdrawn.items():
        yield family, WITHDRAWN, column
    for family, column in update.announced.items():
        yield family, paths.setdefault((update.attributes, update.as_path), len(paths) + 1), column


def _rows(keys: dict[Family, list[U64]], families: I64) -> tuple[dict[Family, U64], I64]:
    """Return the distinct prefixes that may be announced, and which each change is of; -1: none of them."""
    rows: I64 = np.full(len(families), -1, np.int64)
    tables: dict[Family, U64] = {}
    for family, found in keys.items():
        column = np.concatenate(found) if found else np.empty((0, family.key_width), np.uint64)
        distinct, which = np.unique(column, axis=0, return_inverse=True)
        kept = ~touches_reserved(family, distinct)
        number: I64 = np.where(kept, np.cumsum(kept) - 1, -1)
        rows[families == family] = number[which.reshape(-1)]
        tables[family] = distinct[kept]
    return tables, rows
