"""BGP messages of the lab's replaying speaker, against the layouts of the RFCs and against themselves."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.lab.bgp import (
    HEADER_BYTES,
    KEEPALIVE,
    MOST_BYTES,
    Announcement,
    BgpMessageError,
    Kind,
    open_message,
    pack_prefixes,
    parse_update,
    room_for_prefixes,
    split,
    unpack_prefixes,
    update,
)
from router_agent.lab.generator import generate
from router_agent.model import Family, keys_of

HOPS = {Family.IPV4: bytes((198, 18, 3, 2)), Family.IPV6: bytes.fromhex("20010db8000000030000000000000002")}
families = st.sampled_from(list(Family))


def body_of(message: bytes) -> bytes:
    ((kind, body),) = split(message)
    assert kind == Kind.UPDATE
    return body


def test_open_says_who_and_what() -> None:
    """RFC 4271 4.2; the capabilities of RFC 4760 8 and RFC 6793 3."""
    message = open_message(4_200_000_001, bytes((192, 0, 2, 1)), hold_seconds=90)
    assert message[:16] == b"\xff" * 16
    assert int.from_bytes(message[16:18]) == len(message)
    body = message[HEADER_BYTES:]
    assert body[:10] == bytes((4, 0x5B, 0xA0, 0, 90, 192, 0, 2, 1, 20))
    assert body[10:] == bytes.fromhex("02120104000100010104000200014104fa56ea01")


def test_a_known_update() -> None:
    """RFC 4271 4.3, octet by octet: ORIGIN, AS_PATH of four-octet numbers, NEXT_HOP, one prefix."""
    keys = keys_of([ip_network("203.0.112.0/20")])
    packed, _ = pack_prefixes(keys)
    assert packed.tobytes() == bytes((20, 203, 0, 112))
    message = update(Family.IPV4, packed.tobytes(), Announcement((64501, 65536), HOPS[Family.IPV4]))
    assert message[HEADER_BYTES:] == bytes.fromhex(
        "000000184001010040020a02020000fbf500010000400304c612030214cb0070"
    )


@given(family=families, count=st.integers(1, 300), withdraw=st.booleans())
def test_what_is_announced_or_withdrawn_is_read_back(family: Family, count: int, *, withdraw: bool) -> None:
    keys = generate(family, 1_000)[:count]
    packed, ends = pack_prefixes(keys)
    assert ends[-1] == len(packed)
    announcement = None if withdraw else Announcement((64501, 4_200_000_000), HOPS[family])
    found = parse_update(body_of(update(family, packed.tobytes(), announcement)))
    said, other = (found.withdrawn, found.announced) if withdraw else (found.announced, found.withdrawn)
    assert not other
    assert (said[family] == keys).all()
    if not withdraw:
        assert found.as_path == (64501, 4_200_000_000)


def test_the_path_of_a_prefix_is_part_of_its_attributes_the_prefix_is_not() -> None:
    hop = HOPS[Family.IPV6]
    packed = [pack_prefixes(generate(Family.IPV6, 8)[n : n + 1])[0].tobytes() for n in (0, 1)]
    one, same, other = (
        parse_update(body_of(update(Family.IPV6, prefix, Announcement(path, hop)))).attributes
        for prefix, path in ((packed[0], (1, 2)), (packed[1], (1, 2)), (packed[0], (1, 3)))
    )
    assert one == same != other


@given(family=families, withdraw=st.booleans())
def test_as_many_prefixes_as_there_is_room_for_fit(family: Family, *, withdraw: bool) -> None:
    announcement = None if withdraw else Announcement((64501,) * 200, HOPS[family])
    room = room_for_prefixes(family, announcement)
    _, ends = pack_prefixes(generate(family, 2_000))
    fits = int(np.searchsorted(ends, room, side="right"))
    message = update(family, bytes(int(ends[fits - 1])), announcement)
    assert MOST_BYTES - 20 < len(message) <= MOST_BYTES


def test_messages_are_split_and_a_part_is_left_for_later() -> None:
    whole = KEEPALIVE + update(Family.IPV4, b"", None)
    assert [kind for kind, _ in split(whole + KEEPALIVE[:-1])] == [Kind.KEEPALIVE, Kind.UPDATE]
    with pytest.raises(BgpMessageError, match="octets of ff"):
        list(split(b"\x00" * 19))
    with pytest.raises(BgpMessageError, match="19 to 4096"):
        list(split(b"\xff" * 16 + b"\x00\x05\x04"))


def test_two_octet_as_numbers_and_sets_are_read() -> None:
    attributes = bytes.fromhex("4001010040020a0202fbf50d1c0101ff00400304c6120302")
    body = b"\x00\x00" + len(attributes).to_bytes(2) + attributes + bytes((8, 11))
    assert parse_update(body, as_octets=2).as_path == (0xFBF5, 0x0D1C, 0xFF00)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_update_are_refused_not_crashed_on(data: bytes) -> None:
    with suppress(BgpMessageError):
        parse_update(data)


@given(families, st.binary(max_size=60))
def test_bytes_that_are_no_prefixes_are_refused(family: Family, data: bytes) -> None:
    with suppress(BgpMessageError):
        keys = unpack_prefixes(family, data)
        assert keys.shape == (len(keys), family.key_width)
