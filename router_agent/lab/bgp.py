"""BGP messages in bulk, for a speaker that replays: OPEN, KEEPALIVE, UPDATE (RFC 4271, 4760, 5492, 6793).

Prefixes go in and out as columns of keys; what is per message is plain Python.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from router_agent.model import I64, U8, U64, Family, key_addresses, key_lengths, v4_keys, v6_keys

MARKER = b"\xff" * 16
HEADER_BYTES = 19
MOST_BYTES = 4096
"""Longest message (RFC 4271, 4)."""

VERSION = 4
_AS_TRANS = 23456
_AFI = {Family.IPV4: 1, Family.IPV6: 2}
_FAMILIES = {afi: family for family, afi in _AFI.items()}
_UNICAST = 1
_CAPABILITIES = 2
_MULTIPROTOCOL, _FOUR_OCTET_AS = 1, 65
_TRANSITIVE, _OPTIONAL, _EXTENDED = 0x40, 0x80, 0x10
_ORIGIN, _AS_PATH, _NEXT_HOP, _MP_REACH, _MP_UNREACH = 1, 2, 3, 14, 15
_AS_SEQUENCE = 2
_IGP = b"\x00"


class Kind(IntEnum):
    """Message types (RFC 4271, 4.1)."""

    OPEN = 1
    UPDATE = 2
    NOTIFICATION = 3
    KEEPALIVE = 4


class BgpMessageError(ValueError):
    """Bytes are not the BGP message they should be; the message says what was found and expected."""


@dataclass(frozen=True, slots=True)
class Announcement:
    """What prefixes are announced with.

    Attributes:
        as_path: AS numbers, nearest first.
        next_hop: 4 or 16 bytes, of the prefixes' family.
    """

    as_path: tuple[int, ...]
    next_hop: bytes


@dataclass(slots=True)
class Update:
    """What one UPDATE says. Key columns by family; a family that is not named has none.

    Attributes:
        withdrawn: prefixes that go.
        announced: prefixes that come, or change.
        attributes: what says how `announced` is reached: every path attribute but the prefixes, as bytes.
        as_path: AS numbers of the AS_PATH, nearest first; members of sets in their order.
    """

    withdrawn: dict[Family, U64]
    announced: dict[Family, U64]
    attributes: bytes
    as_path: tuple[int, ...]


def message(kind: Kind, body: bytes) -> bytes:
    """Return a whole message."""
    return MARKER + struct.pack("!HB", HEADER_BYTES + len(body), kind) + body


KEEPALIVE = message(Kind.KEEPALIVE, b"")


def open_message(asn: int, router_id: bytes, *, hold_seconds: int) -> bytes:
    """Return an OPEN for both unicast families and four-octet AS numbers."""
    capabilities = b"".join(
        struct.pack("!BBHBB", _MULTIPROTOCOL, 4, afi, 0, _UNICAST) for afi in _AFI.values()
    ) + struct.pack("!BBI", _FOUR_OCTET_AS, 4, asn)
    parameter = struct.pack("!BB", _CAPABILITIES, len(capabilities)) + capabilities
    short = asn if asn < 1 << 16 else _AS_TRANS
    body = struct.pack("!BHH4sB", VERSION, short, hold_seconds, router_id, len(parameter))
    return message(Kind.OPEN, body + parameter)


def split(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and body of each whole message; a part of one at the end is left out.

    Raises:
        BgpMessageError: there is no message where one should begin.
    """
    at = 0
    while len(data) - at >= HEADER_BYTES:
        if data[at : at + 16] != MARKER:
            raise BgpMessageError(f"found {data[at : at + 16].hex()} at {at}, expected 16 octets of ff")
        length, kind = struct.unpack_from("!HB", data, at + 16)
        if not HEADER_BYTES <= length <= MOST_BYTES:
            raise BgpMessageError(f"found a message of {length} octets at {at}, expected 19 to {MOST_BYTES}")
        if length > len(data) - at:
            return
        yield kind, data[at + HEADER_BYTES : at + length]
        at += length


def pack_prefixes(keys: U64) -> tuple[U8, I64]:
    """Return prefixes as UPDATE writes them (length, then as many octets as it needs) and where each ends."""
    lengths = key_lengths(keys).astype(np.int64)
    octets = (lengths + 7) >> 3
    ends = np.cumsum(octets + 1)
    rows = np.concatenate((lengths.astype(np.uint8)[:, None], key_addresses(keys)), axis=1)
    wanted = np.arange(rows.shape[1])[None, :] <= octets[:, None]
    packed: U8 = rows[wanted]
    return packed, ends


def unpack_prefixes(family: Family, data: bytes) -> U64:
    """Return the keys of prefixes as UPDATE writes them; bits beyond a length are taken as zero.

    Raises:
        BgpMessageError: a length is out of range, or octets are missing.
    """
    bits = 8 * family.address_bytes
    addresses: list[int] = []
    lengths: list[int] = []
    at = 0
    while at < len(data):
        length = data[at]
        octets = (length + 7) >> 3
        if length > bits or at + 1 + octets > len(data):
            raise BgpMessageError(
                f"found length {length} with {len(data) - at - 1} octets, "
                f"expected one up to {bits} and its octets"
            )
        address = int.from_bytes(data[at + 1 : at + 1 + octets]) << (bits - 8 * octets)
        addresses.append(address >> (bits - length) << (bits - length))
        lengths.append(length)
        at += 1 + octets
    columns = np.array(lengths, np.uint8)
    if family is Family.IPV4:
        return v4_keys(np.array(addresses, np.uint32), columns)
    half = (1 << 64) - 1
    high = np.array([address >> 64 for address in addresses], np.uint64)
    return v6_keys(high, np.array([address & half for address in addresses], np.uint64), columns)


def room_for_prefixes(family: Family, announcement: Announcement | None) -> int:
    """Return how many octets of prefixes fit into one UPDATE."""
    return MOST_BYTES - len(update(family, b"", announcement)) - 1


def update(family: Family, prefixes: bytes, announcement: Announcement | None) -> bytes:
    """Return an UPDATE that announces prefixes, or without `announcement` withdraws them."""
    if announcement is None:
        if family is Family.IPV4:
            return message(Kind.UPDATE, struct.pack("!H", len(prefixes)) + prefixes + b"\x00\x00")
        gone = struct.pack("!HB", _AFI[family], _UNICAST) + prefixes
        attributes = _attribute(_OPTIONAL, _MP_UNREACH, gone)
        return message(Kind.UPDATE, struct.pack("!HH", 0, len(attributes)) + attributes)
    hops = announcement.as_path
    attributes = _attribute(_TRANSITIVE, _ORIGIN, _IGP)
    attributes += _attribute(
        _TRANSITIVE,
        _AS_PATH,
        struct.pack(f"!BB{len(hops)}I", _AS_SEQUENCE, len(hops), *hops) if hops else b"",
    )
    if family is Family.IPV4:
        attributes += _attribute(_TRANSITIVE, _NEXT_HOP, announcement.next_hop)
        return message(Kind.UPDATE, struct.pack("!HH", 0, len(attributes)) + attributes + prefixes)
    head = struct.pack("!HBB", _AFI[family], _UNICAST, len(announcement.next_hop))
    attributes += _attribute(_OPTIONAL, _MP_REACH, head + announcement.next_hop + b"\x00" + prefixes)
    return message(Kind.UPDATE, struct.pack("!HH", 0, len(attributes)) + attributes)


def parse_update(body: bytes, *, as_octets: int = 4) -> Update:
    """Return what the body of an UPDATE says of unicast prefixes.

    Args:
        body: without the header.
        as_octets: size of AS numbers in it, 2 or 4.

    Raises:
        BgpMessageError: it is not an UPDATE.
    """
    found = Update({}, {}, b"", ())
    gone, rest = _counted(body)
    attributes, prefixes = _counted(rest)
    if gone:
        found.withdrawn[Family.IPV4] = unpack_prefixes(Family.IPV4, gone)
    if prefixes:
        found.announced[Family.IPV4] = unpack_prefixes(Family.IPV4, prefixes)
    kept = []
    for flags, kind, value in _attributes(attributes):
        if kind == _MP_UNREACH:
            family, prefixes = _multiprotocol(value, 3)
            if family and prefixes:
                found.withdrawn[family] = unpack_prefixes(family, prefixes)
        elif kind == _MP_REACH:
            hop_ends = 4 + value[3] if len(value) > 3 else 4
            # one reserved octet stands between the next hop and the prefixes
            family, prefixes = _multiprotocol(value, hop_ends + 1)
            if family and prefixes:
                found.announced[family] = unpack_prefixes(family, prefixes)
            kept.append(_attribute(flags, kind, value[:hop_ends]))
        else:
            if kind == _AS_PATH:
                found.as_path = _as_path(value, as_octets)
            kept.append(_attribute(flags, kind, value))
    found.attributes = b"".join(kept)
    return found


def _counted(data: bytes) -> tuple[bytes, bytes]:
    """Return what two octets of length say comes next, and the rest."""
    length = int.from_bytes(data[:2])
    if len(data) < 2 + length:
        raise BgpMessageError(
            f"found {len(data)} octets, expected a length of two and {length} that it counts"
        )
    return data[2 : 2 + length], data[2 + length :]


def _attributes(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at < len(data):
        head = 4 if data[at] & _EXTENDED else 3
        if len(data) - at < head:
            raise BgpMessageError(
                f"found {len(data) - at} octets, expected a path attribute of at least {head}"
            )
        length = int.from_bytes(data[at + 2 : at + head])
        if len(data) - at - head < length:
            raise BgpMessageError(
                f"found {len(data) - at - head} octets of attribute {data[at + 1]}, expected {length}"
            )
        yield data[at] & ~_EXTENDED, data[at + 1], data[at + head : at + head + length]
        at += head + length


def _multiprotocol(value: bytes, prefixes_at: int) -> tuple[Family | None, bytes]:
    """Return family and prefixes of an MP attribute; none for what is not unicast."""
    if len(value) < prefixes_at:
        raise BgpMessageError(f"found an MP attribute of {len(value)} octets, expected {prefixes_at} or more")
    afi, safi = struct.unpack_from("!HB", value)
    return (_FAMILIES.get(afi) if safi == _UNICAST else None), value[prefixes_at:]


def _as_path(value: bytes, octets: int) -> tuple[int, ...]:
    path: list[int] = []
    at = 0
    while at < len(value):
        if len(value) - at < 2 or len(value) - at - 2 < value[at + 1] * octets:
            raise BgpMessageError(f"found {len(value) - at} octets of AS_PATH, expected a whole segment")
        count = value[at + 1]
        path += struct.unpack_from(f"!{count}{'I' if octets == 4 else 'H'}", value, at + 2)
        at += 2 + count * octets
    return tuple(path)


def _attribute(flags: int, kind: int, value: bytes) -> bytes:
    if len(value) > 255:
        return struct.pack("!BBH", flags | _EXTENDED, kind, len(value)) + value
    return struct.pack("!BBB", flags, kind, len(value)) + value
