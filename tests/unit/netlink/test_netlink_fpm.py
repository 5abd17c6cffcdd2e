"""FPM: any cut of a stream gives the same messages, garbage gives an error, answers say what they must."""

from __future__ import annotations

import struct
from ipaddress import ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import U8, Family, Operation, Outcomes, PathSet, RouteType, keys_of, prefixes_of
from router_agent.netlink import constants as c
from router_agent.netlink.fpm import FRAME_BYTES, HEADER_BYTES, encode, split
from router_agent.netlink.messages import Messages, NetlinkDecodeError, attribute, message
from router_agent.netlink.paths import KernelPath, Leg, PathIds, path_set_of
from router_agent.netlink.routes import RouteDecoder, route_places

BGP = 186
REPLACE = c.NLM_F_REQUEST | c.NLM_F_CREATE | c.NLM_F_REPLACE


def frame(*messages: bytes) -> bytes:
    body = b"".join(messages)
    return struct.pack("!BBH", 1, 1, HEADER_BYTES + len(body)) + body


def route(
    prefix: str, *attributes: bytes, kind: int = c.RTM_NEWROUTE, protocol: int = BGP, rtm_type: int = 1
) -> bytes:
    """A route as zebra/rt_netlink.c, netlink_route_multipath_msg_encode, puts it on the wire."""
    network = ip_network(prefix)
    family = Family.IPV4 if network.version == 4 else Family.IPV6
    body = struct.pack("=BBBBBBBBI", family, network.prefixlen, 0, 0, 254, protocol, 0, rtm_type, 0)
    body += attribute(c.RTA_DST, network.network_address.packed)
    body += attribute(c.RTA_PRIORITY, (20).to_bytes(4, "little"))
    flags = REPLACE if kind == c.RTM_NEWROUTE else c.NLM_F_REQUEST | c.NLM_F_CREATE
    return message(kind, flags, 0, body + b"".join(attributes))


def through(number: int) -> bytes:
    return attribute(c.RTA_NH_ID, number.to_bytes(4, "little"))


def data_of(stream: bytes) -> U8:
    return np.frombuffer(stream, np.uint8)


def bodies(messages: Messages) -> list[bytes]:
    return [messages.message(number) for number in range(len(messages))]


message_bytes = st.binary(max_size=40).map(lambda body: message(24, 1, 7, body + bytes(-len(body) % 4)))
frames_of_messages = st.lists(
    st.one_of(
        st.lists(message_bytes, min_size=1, max_size=4),
        st.builds(lambda one: [one], st.just(message(24, 1, 7, bytes(40)))),
    ),
    max_size=60,
)


@given(frames_of_messages, st.integers(0, 5_000))
def test_any_cut_gives_the_same_messages(content: list[list[bytes]], cut: int) -> None:
    stream = b"".join(frame(*messages) for messages in content)
    cut = min(cut, len(stream))
    first, used = split(data_of(stream[:cut]))
    rest, end = split(data_of(stream[used:]))
    assert used + end == len(stream)
    assert bodies(first) + bodies(rest) == [one for messages in content for one in messages]


@given(st.binary(max_size=400), st.integers(0, 300))
def test_garbage_is_an_error_or_the_beginning_of_a_frame(garbage: bytes, times: int) -> None:
    good = frame(message(24, 1, 7, bytes(40)))
    try:
        messages, used = split(data_of(good * times + garbage))
    except NetlinkDecodeError:
        return
    assert len(messages) >= times
    assert len(good) * times <= used <= len(good) * times + len(garbage)


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (b"\1\2\0\x20" + bytes(28), "found FPM version 1, type 2, expected version 1, type 1"),
        (b"\1\1\0\4", "found FPM frame length 4"),
        (b"\1\1\0\x17" + bytes(19), "found FPM frame length 23"),
        (b"\1\1\0\x14" + struct.pack("=I", 40) + bytes(12), "found message length 40 in an FPM frame"),
        (b"\1\1\0\x14" + bytes(16), "found message length 0 in an FPM frame"),
    ],
    ids=["protobuf", "empty", "unaligned", "longer-than-frame", "no-length"],
)
def test_what_is_wrong_with_a_stream_is_said(stream: bytes, words: str) -> None:
    with pytest.raises(NetlinkDecodeError, match=words):
        split(data_of(frame(message(24, 1, 7, bytes(12))) + stream))


def test_the_longest_frame_is_taken() -> None:
    longest = message(24, 1, 7, bytes((FRAME_BYTES & ~3) - HEADER_BYTES - 16))
    messages, used = split(data_of(frame(longest)))
    assert (len(messages), used) == (1, FRAME_BYTES & ~3)


def decoder(paths: PathIds) -> RouteDecoder:
    return RouteDecoder(
        tables=[254],
        protocols=c.ZEBRA_PROTOCOLS,
        paths=paths,
        knows_nexthop=lambda _: True,
        from_zebra=True,
    )


def test_zebras_routes_set_and_delete_whatever_their_type() -> None:
    paths = PathIds()
    update = [
        route("192.0.2.0/24", through(7)),
        route("192.0.2.0/24", kind=c.RTM_DELROUTE, rtm_type=0),
        route("198.51.100.0/24", rtm_type=RouteType.BLACKHOLE, protocol=196),
        route("203.0.113.0/24", protocol=c.RTPROT_KERNEL),
    ]
    messages, _ = split(data_of(frame(*update)))
    (batch,) = decoder(paths).decode(messages)
    assert [str(prefix) for prefix in prefixes_of(batch.keys)] == [
        "192.0.2.0/24", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24",
    ]  # fmt: skip
    # what the kernel or a connected network has taken over is no longer zebra's
    assert batch.operations.tolist() == [Operation.SET, Operation.DELETE, Operation.SET, Operation.DELETE]
    assert batch.metrics.tolist() == [20] * 4
    assert batch.paths[1] == batch.paths[3] == 0
    assert paths[int(batch.paths[0])] == KernelPath(Family.IPV4, nexthop=7, protocol=BGP)
    assert paths[int(batch.paths[2])] == KernelPath(Family.IPV4, RouteType.BLACKHOLE, protocol=196)


def test_ipv6_routes_without_gateway_replace_each_other() -> None:
    paths = PathIds()
    out = [attribute(c.RTA_OIF, number.to_bytes(4, "little")) for number in (3, 4)]
    messages, _ = split(
        data_of(frame(route("2001:db8::/32", out[0])) + frame(route("2001:db8::/32", out[1])))
    )
    (batch,) = decoder(paths).decode(messages)
    assert batch.operations.tolist() == [Operation.SET] * 2


def test_protocols_are_told_apart() -> None:
    paths = PathIds()
    stream = b"".join(frame(route(f"10.{n}.0.0/16", through(7), protocol=BGP + n % 2)) for n in range(20))
    messages, _ = split(data_of(stream))
    (batch,) = decoder(paths).decode(messages)
    assert [paths[int(number)].protocol for number in batch.paths] == [BGP, BGP + 1] * 10


PATHS = {
    1: KernelPath(Family.IPV4, nexthop=77, protocol=BGP),
    2: KernelPath(Family.IPV4, RouteType.PROHIBIT, protocol=196),
    3: KernelPath(Family.IPV4, legs=(Leg(4, b"\x0a\0\0\1"), Leg(5, b"\x0a\0\0\2", 3)), protocol=BGP),
    4: None,
}
"""Path 4 is not zebra's."""


@given(st.lists(st.tuples(st.sampled_from(sorted(PATHS)), st.booleans()), max_size=300), st.booleans())
def test_answers_name_each_route_and_what_became_of_it(rows: list[tuple[int, bool]], large: bool) -> None:
    prefixes = [ip_network(f"10.{n >> 8}.{n & 255}.0/24") for n in range(len(rows))]
    table = 1000 if large else 254
    outcomes = Outcomes(
        Family.IPV4,
        table,
        keys_of(list(prefixes)),
        np.array([path for path, _ in rows], np.uint32),
        np.array([in_fib for _, in_fib in rows], np.bool_),
    )
    answered = {}
    for block in encode(outcomes, PATHS.__getitem__):
        assert not len(block) % 4
        at = 0
        while at < len(block):
            version, kind, length = struct.unpack_from("!BBH", block.data, at)
            assert (version, kind) == (1, 1)
            answer = block[at + HEADER_BYTES : at + length].tobytes()
            at += length
            prefix, value = read_answer(answer, table)
            assert prefix not in answered
            answered[prefix] = value
    wanted = {
        str(prefix): (PATHS[path], in_fib)
        for prefix, (path, in_fib) in zip(prefixes, rows, strict=True)
        if PATHS[path] is not None
    }
    assert answered == wanted


def read_answer(answer: bytes, table: int) -> tuple[str, tuple[KernelPath, bool]]:
    """Read one as zebra does: the length fits, it is a request, and table, prefix and protocol are there."""
    length, kind, flags = struct.unpack_from("=IHH", answer)
    assert (length, kind, flags) == (len(answer), c.RTM_NEWROUTE, c.NLM_F_REQUEST)
    _, size, source, _, short, protocol, _, route_type, route_flags = struct.unpack_from(
        "=BBBBBBBBI", answer, 16
    )
    assert source == 0
    assert route_flags in (c.RTM_F_OFFLOAD, c.RTM_F_OFFLOAD_FAILED)
    places = route_places(answer)
    values = {number: answer[at : at + size_] for number, (at, size_) in places.items()}
    assert int.from_bytes(values[c.RTA_TABLE], "little") == table
    assert short == (table if table < 256 else 0)
    network = ip_network((values[c.RTA_DST], size))
    messages, _ = split(data_of(frame(answer)))
    paths = PathIds()
    (batch,) = RouteDecoder(
        tables=[table],
        protocols=frozenset([protocol]),
        paths=paths,
        knows_nexthop=lambda _: True,
        from_zebra=True,
    ).decode(messages)
    found = paths[int(batch.paths[0])]
    assert route_type == found.type
    return str(network), (found, route_flags == c.RTM_F_OFFLOAD)


def test_legs_of_an_answer_are_the_routes_own() -> None:
    path = PATHS[3]
    assert path is not None
    assert path_set_of(path) == PathSet.unicast(*(leg.path() for leg in path.legs))
