"""Framing: boundaries against a plain walk, acknowledgements, and bytes that are no netlink at all."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.netlink import constants as c
from router_agent.netlink.messages import (
    Messages,
    NetlinkDecodeError,
    acknowledgements,
    attribute,
    attribute_map,
    boundaries,
    extended_text,
    message,
)


def walk(data: bytes) -> list[tuple[int, int]]:
    """Find messages the plain way."""
    found, offset = [], 0
    while offset < len(data):
        (length,) = struct.unpack_from("=I", data, offset)
        found.append((offset, length))
        offset += (length + 3) & ~3
    return found


runs = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 200)), min_size=1, max_size=8)


@given(runs, st.booleans())
def test_boundaries_equal_a_plain_walk(parts: list[tuple[int, int]], cut_padding: bool) -> None:
    data = b"".join(message(24, 0, 7, bytes(size)) * count for size, count in parts)
    if cut_padding:
        data = data[: len(data) - (-parts[-1][0] % 4)]
    starts, lengths = boundaries(np.frombuffer(data, np.uint8))
    assert list(zip(starts.tolist(), lengths.tolist(), strict=True)) == walk(data)


def test_a_payload_that_looks_like_a_header_is_not_taken_for_one() -> None:
    inner = message(24, 0, 1, bytes(16))
    data = (message(24, 0, 1, inner) + message(25, 0, 2, bytes(16))) * 30
    starts, _ = boundaries(np.frombuffer(data, np.uint8))
    assert starts.tolist() == [start for start, _ in walk(data)]


@pytest.mark.parametrize(
    ("tail", "found"),
    [
        (struct.pack("=I", 0) + bytes(12), "message length 0"),
        (struct.pack("=I", 15) + bytes(12), "message length 15"),
        (struct.pack("=I", 17) + bytes(12), "message length 17"),
        (struct.pack("=I", 0xFFFFFFFF) + bytes(12), "message length 4294967295"),
        (b"\x10\0\0\0", "4 bytes at the end"),
    ],
    ids=["zero", "shorter-than-header", "past-the-end", "huge", "no-header"],
)
def test_an_impossible_length_is_named(tail: bytes, found: str) -> None:
    data = message(24, 0, 1, bytes(20)) * 50 + tail
    with pytest.raises(NetlinkDecodeError) as caught:
        Messages.find(data)
    assert caught.value.offset == 50 * 36
    assert caught.value.found == found


@given(st.binary(max_size=400))
def test_any_bytes_end_in_messages_or_a_decode_error(data: bytes) -> None:
    try:
        known = int(Messages.find(data).lengths.sum())
    except NetlinkDecodeError as error:
        known = error.offset
    assert 0 <= known <= len(data)


@given(st.binary(max_size=120))
def test_any_attribute_bytes_end_in_a_map_or_a_decode_error(data: bytes) -> None:
    try:
        found = attribute_map(data, 0)
    except NetlinkDecodeError:
        return
    assert sum(4 + len(value) for value in found.values()) <= len(data) + 3


def test_attributes_round_trip() -> None:
    data = attribute(1, b"abc") + attribute(0x8002, b"") + attribute(3, b"12345678")
    assert attribute_map(data, 0) == {1: b"abc", 2: b"", 3: b"12345678"}


def answer(sequence: int, error: int, text: str = "", *, capped: bool = True) -> bytes:
    echoed = struct.pack("=IHHII", 60, 24, 5, sequence, 0) + (b"" if capped else bytes(44))
    flags = (c.NLM_F_CAPPED if capped else 0) | (c.NLM_F_ACK_TLVS if text else 0)
    told = attribute(c.NLMSGERR_ATTR_MSG, text.encode() + b"\0") if text else b""
    return message(c.NLMSG_ERROR, flags, sequence, struct.pack("=i", error) + echoed + told)


def test_acknowledgements_are_read_as_columns() -> None:
    data = answer(1, 0) + answer(2, -17, "File exists, says the kernel") + message(24, 0, 9, bytes(12))
    data += answer(0xFFFFFFFF, -22, "whole request echoed", capped=False)
    messages = Messages.find(data)
    found = acknowledgements(messages)
    assert found.sequences.tolist() == [1, 2, 0xFFFFFFFF]
    assert found.errors.tolist() == [0, -17, -22]
    texts = [extended_text(messages, int(n)) for n in found.numbers]
    assert texts == ["", "File exists, says the kernel", "whole request echoed"]


def test_a_short_acknowledgement_is_refused() -> None:
    with pytest.raises(NetlinkDecodeError, match="NLMSG_ERROR of 20 bytes"):
        acknowledgements(Messages.find(message(c.NLMSG_ERROR, 0, 1, bytes(4))))
