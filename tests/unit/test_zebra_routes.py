"""What zebra's messages make of a sink: next-hop groups, deletions, and bytes that are no messages at all."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from router_agent.feeds.zebra_routes import ZebraRoutes
from router_agent.model import U32, Family, Link, Neighbour, Path, PathSet, RouteBatch, RouteType
from router_agent.netlink import constants as c
from router_agent.netlink.fpm import HEADER_BYTES, split
from router_agent.netlink.messages import NetlinkDecodeError, attribute, message

KINDS = (c.RTM_NEWROUTE, c.RTM_DELROUTE, c.RTM_NEWNEXTHOP, c.RTM_DELNEXTHOP, c.RTM_NEWNEIGH)
GATEWAY = bytes((192, 0, 2, 1))


class Recorder:
    """A sink that keeps what it is told."""

    def __init__(self) -> None:
        self.batches: list[RouteBatch] = []
        self.changed: list[int] = []

    def snapshot_begin(self) -> None:
        raise AssertionError("a session's snapshot is the feed's business")

    def snapshot_end(self, *, clean: bool) -> None:
        raise AssertionError("a session's snapshot is the feed's business")

    def routes(self, batch: RouteBatch) -> None:
        self.batches.append(batch)

    def paths_changed(self, paths: U32) -> None:
        self.changed += paths.tolist()

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        raise AssertionError("links come from the kernel")

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        raise AssertionError("neighbours come from the kernel")


def framed(*messages: bytes) -> bytes:
    return b"".join(struct.pack("!BBH", 1, 1, HEADER_BYTES + len(one)) + one for one in messages)


def u32(kind: int, value: int) -> bytes:
    return attribute(kind, value.to_bytes(4, "little"))


def nexthop(number: int, *attributes: bytes, kind: int = c.RTM_NEWNEXTHOP) -> bytes:
    body = struct.pack("=BBBxI", Family.IPV4, 0, 11, 0) + u32(c.NHA_ID, number)
    return message(kind, c.NLM_F_REQUEST, 0, body + b"".join(attributes))


def single(number: int, interface: int) -> bytes:
    return nexthop(number, attribute(c.NHA_GATEWAY, GATEWAY), u32(c.NHA_OIF, interface))


def route(prefix: bytes, number: int) -> bytes:
    body = struct.pack("=BBBBBBBBI", Family.IPV4, 24, 0, 0, 254, 186, 0, RouteType.UNICAST, 0)
    body += attribute(c.RTA_DST, prefix) + u32(c.RTA_PRIORITY, 20) + u32(c.RTA_NH_ID, number)
    return message(c.RTM_NEWROUTE, c.NLM_F_REQUEST | c.NLM_F_CREATE | c.NLM_F_REPLACE, 0, body)


def told(zebra: ZebraRoutes, sink: Recorder, *messages: bytes) -> None:
    found, used = split(np.frombuffer(framed(*messages), np.uint8))
    assert used
    zebra.apply(found, sink)


def new() -> tuple[ZebraRoutes, Recorder]:
    return ZebraRoutes([254], lambda _: None), Recorder()


def test_a_route_follows_its_group_wherever_it_leads() -> None:
    zebra, sink = new()
    told(zebra, sink, route(b"\x0a\0\0\0", 7))
    path = int(sink.batches[0].paths[0])
    assert zebra.resolve(path) == PathSet()
    told(zebra, sink, single(7, 3))
    assert sink.changed == [path]
    assert zebra.resolve(path) == PathSet.unicast(Path(3, GATEWAY))
    told(zebra, sink, single(8, 4), nexthop(7, attribute(c.NHA_GROUP, struct.pack("=IBBH", 8, 0, 0, 0))))
    assert zebra.resolve(path) == PathSet.unicast(Path(4, GATEWAY))
    told(zebra, sink, nexthop(7, kind=c.RTM_DELNEXTHOP))
    # not None: the route is still zebra's, and is reported as leading nowhere
    assert zebra.resolve(path) == PathSet()


def test_groups_that_are_not_told_again_go() -> None:
    zebra, sink = new()
    told(zebra, sink, single(7, 3), single(8, 4), route(b"\x0a\0\0\0", 7), route(b"\x0a\0\1\0", 8))
    paths = sink.batches[0].paths.tolist()
    zebra.begin()
    told(zebra, sink, single(8, 4))
    sink.changed.clear()
    zebra.end(sink)
    assert sink.changed == [paths[0]]
    assert [zebra.resolve(path) for path in paths] == [PathSet(), PathSet.unicast(Path(4, GATEWAY))]


def link(index: int, *, up: bool) -> Link:
    return Link(index, f"p{index}", True, up, bytes(6), 1500)


def test_a_dead_link_is_left_out_at_once_where_there_is_another() -> None:
    zebra, sink = new()
    both = attribute(c.NHA_GROUP, struct.pack("=IBBHIBBH", 7, 0, 0, 0, 8, 0, 0, 0))
    told(zebra, sink, single(7, 3), single(8, 4), nexthop(9, both))
    told(zebra, sink, route(b"\x0a\0\0\0", 9), route(b"\x0a\0\1\0", 7))
    group, alone = sink.batches[0].paths.tolist()
    whole = PathSet.unicast(Path(3, GATEWAY), Path(4, GATEWAY))
    zebra.links([link(3, up=True), link(4, up=True)], [], sink)
    assert sink.changed == []
    assert zebra.resolve(group) == whole
    zebra.links([link(3, up=False)], [], sink)
    assert sorted(sink.changed) == sorted([group, alone])
    assert zebra.resolve(group) == PathSet.unicast(Path(4, GATEWAY))
    # what has no other way stays until zebra says otherwise
    assert zebra.resolve(alone) == PathSet.unicast(Path(3, GATEWAY))
    zebra.links([], [4], sink)
    assert zebra.resolve(group) == whole
    zebra.links([link(3, up=True)], [], sink)
    assert zebra.resolve(group) == PathSet.unicast(Path(3, GATEWAY))


def test_labelled_paths_and_neighbours_are_passed_over() -> None:
    zebra, sink = new()
    label = bytearray(route(b"\x0a\0\0\0", 7))
    label[16] = 28  # AF_MPLS
    told(zebra, sink, bytes(label), message(c.RTM_NEWNEIGH, 1, 0, bytes(12)), route(b"\x0a\0\1\0", 7))
    assert [len(batch) for batch in sink.batches] == [1]
    assert zebra.ignored == {f"message type {c.RTM_NEWROUTE}": 1, f"message type {c.RTM_NEWNEIGH}": 1}


bodies = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda head, rest: head + b"".join(attribute(kind, value) for kind, value in rest),
        st.binary(min_size=12, max_size=12),
        st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=20)), max_size=5),
    ),
    st.builds(
        lambda family, length, kind, rest: (
            struct.pack("=BBBBBBBBI", family, length, 0, 0, 254, 186, 0, kind, 0)
            + b"".join(attribute(number, value) for number, value in rest)
        ),
        st.sampled_from([2, 10]),
        st.integers(0, 255),
        st.integers(0, 12),
        st.lists(st.tuples(st.integers(0, 32), st.binary(max_size=20)), max_size=5),
    ),
)


@given(st.lists(st.tuples(st.sampled_from(KINDS), bodies), min_size=1, max_size=20))
def test_whatever_comes_is_taken_or_refused_by_name(content: list[tuple[int, bytes]]) -> None:
    zebra, sink = new()
    found, _ = split(np.frombuffer(framed(*(message(kind, 1, 0, body) for kind, body in content)), np.uint8))
    with suppress(NetlinkDecodeError):
        zebra.apply(found, sink)
    for batch in sink.batches:
        for path in batch.paths.tolist():
            zebra.resolve(path)
