"""Next-hop objects, links, addresses, neighbours and path ids, on a kernel's own bytes and on rubbish."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg

from router_agent.model import Family, Neighbour, Path, PathSet, RouteType
from router_agent.netlink.links import parse_address, parse_link
from router_agent.netlink.messages import Messages, NetlinkDecodeError
from router_agent.netlink.neighbours import encode_neighbour, parse_neighbour
from router_agent.netlink.nexthops import Nexthop, NexthopTable, parse_nexthop
from router_agent.netlink.paths import KernelPath, Leg, PathIds

RECORDED = json.loads((FilePath(__file__).parent / "recorded.json").read_text())


def dump(name: str) -> Messages:
    return Messages.find(next(bytes.fromhex(d["hex"]) for d in RECORDED["dumps"] if d["name"] == name))


def parsed_by_pyroute2(messages: Messages, kind: Any) -> list[Any]:
    found = [kind(messages.message(number)) for number in range(len(messages))]
    for one in found:
        one.decode()
    return found


def test_links_agree_with_pyroute2() -> None:
    messages = dump("link")
    ours = [parse_link(messages.body(n)) for n in range(len(messages))]
    assert len(ours) == 5
    for state, theirs in zip(ours, parsed_by_pyroute2(messages, ifinfmsg), strict=True):
        assert state is not None
        link = state.link
        assert (link.index, link.name) == (theirs["index"], theirs.get_attr("IFLA_IFNAME"))
        assert (link.up, link.carrier) == (bool(theirs["flags"] & 1), bool(theirs["flags"] & 0x10000))
        assert link.mac.hex(":") == theirs.get_attr("IFLA_ADDRESS")
        assert link.mtu == theirs.get_attr("IFLA_MTU")
        assert state.master == 0


def test_addresses_agree_with_pyroute2() -> None:
    messages = dump("address")
    assert len(messages) >= 4
    for number, theirs in enumerate(parsed_by_pyroute2(messages, ifaddrmsg)):
        index, address, length = parse_address(messages.body(number))
        shown = theirs.get_attr("IFA_LOCAL") or theirs.get_attr("IFA_ADDRESS")
        assert (index, str(ip_address(address)), length) == (theirs["index"], shown, theirs["prefixlen"])


def test_neighbours_agree_with_pyroute2() -> None:
    messages = dump("neighbour")
    usable = 0
    for number, theirs in enumerate(parsed_by_pyroute2(messages, ndmsg)):
        state = parse_neighbour(messages.body(number))
        assert state is not None
        assert str(ip_address(state.neighbour.address)) == theirs.get_attr("NDA_DST")
        assert state.neighbour.mac.hex(":") == (theirs.get_attr("NDA_LLADDR") or "")
        assert state.usable == bool(theirs["state"] & 0x9E)
        usable += state.usable
    assert usable >= 1


@given(st.integers(1, 2**31 - 1), st.binary(min_size=6, max_size=6), st.booleans(), st.data())
def test_a_neighbour_that_is_written_is_read(index: int, mac: bytes, v6: bool, data: st.DataObject) -> None:
    width = 16 if v6 else 4
    neighbour = Neighbour(index, data.draw(st.binary(min_size=width, max_size=width)), mac)
    state = parse_neighbour(encode_neighbour(neighbour, protocol=201))
    assert state is not None
    assert (state.neighbour, state.usable, state.protocol) == (neighbour, True, 201)


NEXTHOPS = {
    5: Nexthop(5, 3, ip_address("10.0.0.9").packed),
    6: Nexthop(6, 3, ip_address("2001:db8::2").packed),
    7: Nexthop(7, blackhole=True),
    8: Nexthop(8, members=((5, 3),)),
    10: Nexthop(10, members=((5, 1),)),
    11: Nexthop(11, 3),
}
"""The objects that were there when the dump was recorded: 9 had been deleted, 6 not yet."""


def test_next_hop_objects_are_what_was_added() -> None:
    messages = dump("nexthop")
    found = [parse_nexthop(messages.body(n)) for n in range(len(messages))]
    recorded_before_deletion = {n: NEXTHOPS[n] for n in NEXTHOPS if n != 6}
    assert {n.id: n for n in found} == recorded_before_deletion


def test_weights_of_groups_are_whole() -> None:
    events = {e["command"]: bytes.fromhex(e["hex"]) for e in RECORDED["events"]}
    group = parse_nexthop(Messages.find(events["ip nexthop add id 8 group 5,3/9,20"]).body(0))
    assert group.members == ((5, 3), (9, 20))
    resilient = Messages.find(events["ip nexthop add id 10 group 5/9 type resilient buckets 8"])
    assert parse_nexthop(resilient.body(0)).members == ((5, 1), (9, 1))


def table(*nexthops: Nexthop) -> NexthopTable:
    made = NexthopTable()
    for nexthop in nexthops:
        made.put(nexthop)
    return made


ONE, TWO = Nexthop(1, 3, b"aaaa"), Nexthop(2, 5, b"bbbb")
GROUP = Nexthop(9, members=((1, 3), (2, 5)))


@pytest.mark.parametrize(
    ("nexthops", "number", "leads_to"),
    [
        ((ONE,), 1, PathSet.unicast(Path(3, b"aaaa"))),
        ((Nexthop(1, blackhole=True),), 1, PathSet(RouteType.BLACKHOLE)),
        ((ONE, TWO, GROUP), 9, PathSet.unicast(Path(3, b"aaaa", 3), Path(5, b"bbbb", 5))),
        ((ONE, GROUP), 9, PathSet.unicast(Path(3, b"aaaa"))),
        ((GROUP,), 9, None),
        ((Nexthop(1, blackhole=True), Nexthop(9, members=((1, 1),))), 9, PathSet(RouteType.BLACKHOLE)),
        ((Nexthop(1, 3, b"aaaa", usable=False),), 1, None),
        ((Nexthop(1, 3, b"aaaa", usable=False), TWO, GROUP), 9, PathSet.unicast(Path(5, b"bbbb"))),
        (
            (ONE, TWO, Nexthop(9, members=((1, 65536), (2, 1)))),
            9,
            PathSet.unicast(Path(3, b"aaaa", 256), Path(5, b"bbbb", 1)),
        ),
        ((), 1, None),
    ],
    ids=["single", "blackhole", "group", "half-group", "empty-group", "blackhole-group", "dead",
         "group-with-dead", "16-bit-weights", "unknown"],
)  # fmt: skip
def test_where_next_hop_objects_lead(nexthops: tuple[Nexthop, ...], number: int, leads_to: PathSet) -> None:
    assert table(*nexthops).resolve(number) == leads_to


def test_a_change_reaches_the_groups_it_is_in() -> None:
    made = table(ONE, TWO, GROUP)
    assert made.put(ONE) == set()
    assert made.put(Nexthop(1, 3, b"cccc")) == {1, 9}
    assert made.remove(1) == ({1}, {9})
    assert made.resolve(9) == PathSet.unicast(Path(5, b"bbbb"))
    assert made.remove(2) == ({2, 9}, set())
    assert len(made) == 0
    assert made.remove(2) == (set(), set())


def test_a_fresh_dump_tells_what_went_and_what_changed() -> None:
    made = table(ONE, TWO, GROUP)
    gone, changed = made.replace_all([Nexthop(1, 3, b"cccc"), GROUP, Nexthop(4, 3)])
    assert (gone, changed) == ({2}, {1, 4, 9})
    assert made.on_interface(3) == [1, 4]


@pytest.mark.parametrize("parse", [parse_link, parse_address, parse_neighbour, parse_nexthop])
@given(data=st.binary(max_size=120))
def test_any_body_is_parsed_or_refused(parse: Callable[[bytes], object], data: bytes) -> None:
    try:
        parse(data)
    except NetlinkDecodeError as error:
        found = error.found
    else:
        found = "something"
    assert found


@pytest.mark.parametrize("name", ["link", "address", "neighbour", "nexthop"])
@given(data=st.data())
def test_damaged_bodies_are_parsed_or_refused(name: str, data: st.DataObject) -> None:
    parse: dict[str, Callable[[bytes], object]] = {
        "link": parse_link,
        "address": parse_address,
        "neighbour": parse_neighbour,
        "nexthop": parse_nexthop,
    }
    messages = dump(name)
    body = bytearray(messages.body(data.draw(st.integers(0, len(messages) - 1))))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(body[: data.draw(st.integers(0, len(body)))])
    try:
        parse[name](cut)
    except NetlinkDecodeError as error:
        assert str(error).startswith("netlink bytes at offset")  # noqa: PT017


def path(number: int) -> KernelPath:
    return KernelPath(Family.IPV4, legs=(Leg(number, b"aaaa"),))


def test_path_ids_are_released_and_given_again() -> None:
    ids = PathIds()
    numbers = [ids.id(path(n)) for n in range(1, 6)]
    assert numbers == [1, 2, 3, 4, 5]
    ids.retire(2, KernelPath(Family.IPV4))
    again = ids.id(path(2))
    assert again == 6
    used = np.zeros(ids.limit, np.bool_)
    used[[1, 6]] = True
    late = ids.id(path(77))
    epoch = ids.epoch
    assert ids.release(used) == 4
    assert ids.epoch != epoch
    assert [number for number, _ in ids.items()] == [1, 6, late]
    assert ids.id(path(2)) == 6
    assert ids.id(path(1)) == 1
    assert {ids.id(path(n)) for n in (101, 102, 103, 104)} == {2, 3, 4, 5}
    assert ids.limit == 8
    with pytest.raises(KeyError, match="path id 9 is not in use"):
        ids[9]


def test_a_retired_value_does_not_take_the_id_of_its_equal() -> None:
    ids = PathIds()
    lesser = KernelPath(Family.IPV4)
    first = ids.id(path(1))
    ids.retire(first, lesser)
    second = ids.id(lesser)
    assert second != first
    ids.release(np.array([False, False, True]))
    assert ids.id(lesser) == second
