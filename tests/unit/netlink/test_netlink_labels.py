"""Labels, VLANs and VRFs: against what a kernel that has them sent, and against rubbish."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_agent.mirror.kernel import KernelInterface
from router_agent.mirror.labels import entries
from router_agent.model import Path, PathSet, keys_of
from router_agent.netlink.label_routes import LabelLeg, LabelRoute, parse_label_route
from router_agent.netlink.links import LinkState, parse_link
from router_agent.netlink.messages import Messages, NetlinkDecodeError
from router_agent.netlink.nexthops import Nexthop, NexthopTable, parse_nexthop
from router_agent.netlink.paths import PathIds, path_set_of
from router_agent.netlink.routes import RouteDecoder
from router_agent.observe.words import describe_paths
from router_agent.vpp.labels import POP, LabelPath
from router_agent.vpp.routes import NO_INTERFACE

RECORDED = json.loads((FilePath(__file__).parent / "recorded_labels.json").read_text())
"""Messages of Linux 6.12: what the event groups sent after each command."""

BODIES = {
    e["command"]: [m.body(n) for m in (Messages.find(bytes.fromhex(e["hex"])),) for n in range(len(m))]
    for e in RECORDED["events"]
}
FOUR, OTHER, SIX = (ip_address(a).packed for a in ("10.0.0.2", "10.0.0.3", "2001:db8::2"))


def messages(command: str) -> Messages:
    return Messages.find(bytes.fromhex(next(e["hex"] for e in RECORDED["events"] if e["command"] == command)))


def label_route(command: str) -> LabelRoute:
    (body,) = BODIES[f"ip -f mpls route {command}"]
    route = parse_label_route(body)
    assert route is not None
    return route


P0 = label_route("add 300 as 400 via inet 10.0.0.2").legs[0].interface
BLUE = label_route("add 304 dev blue0").legs[0].interface


@pytest.mark.parametrize(
    ("command", "prefix", "legs"),
    [
        ("ip route add 20.0.0.0/24 encap mpls 100 via 10.0.0.2", "20.0.0.0/24", [(FOUR, 1, (100,))]),
        (
            "ip route add 20.0.1.0/24 encap mpls 100/200/300 via 10.0.0.2",
            "20.0.1.0/24",
            [(FOUR, 1, (100, 200, 300))],
        ),
        (
            "ip route add 20.0.2.0/24 nexthop encap mpls 100 via 10.0.0.2 dev p0 "
            "nexthop via 10.0.0.3 dev p0 weight 2",
            "20.0.2.0/24",
            [(FOUR, 1, (100,)), (OTHER, 2, ())],
        ),
        ("ip route add 20.0.3.0/24 encap mpls 100 ttl 9 via 10.0.0.2", "20.0.3.0/24", [(FOUR, 1, (100,))]),
        (
            "ip -6 route add 2001:db8:1::/48 encap mpls 100/200 via 2001:db8::2",
            "2001:db8:1::/48",
            [(SIX, 1, (100, 200))],
        ),
    ],
)
def test_routes_that_push_labels(
    command: str, prefix: str, legs: list[tuple[bytes, int, tuple[int, ...]]]
) -> None:
    paths = PathIds()
    decoder = RouteDecoder(tables=(254,), protocols=None, paths=paths)
    (batch,) = decoder.decode(messages(command))
    assert (batch.keys == keys_of([ip_network(prefix)])).all()
    wanted = PathSet.unicast(*(Path(P0, gateway, weight, labels) for gateway, weight, labels in legs))
    assert path_set_of(paths[int(batch.paths[0])]) == wanted


def test_a_next_hop_object_that_pushes_labels() -> None:
    (body,) = BODIES["ip nexthop add id 20 encap mpls 100/200 via 10.0.0.2 dev p0"]
    found = parse_nexthop(body)
    assert found == Nexthop(20, P0, FOUR, labels=(100, 200))
    table = NexthopTable()
    table.put(found)
    assert table.resolve(20) == PathSet.unicast(Path(P0, FOUR, labels=(100, 200)))


@pytest.mark.parametrize(
    ("command", "route"),
    [
        ("add 300 as 400 via inet 10.0.0.2", LabelRoute(300, (LabelLeg(P0, FOUR, (400,)),))),
        ("add 301 as 400/500 via inet6 2001:db8::2", LabelRoute(301, (LabelLeg(P0, SIX, (400, 500)),))),
        ("add 302 via inet 10.0.0.2", LabelRoute(302, (LabelLeg(P0, FOUR),))),
        ("add 303 dev lo", LabelRoute(303, (LabelLeg(1),))),
        ("add 304 dev blue0", LabelRoute(304, (LabelLeg(BLUE),))),
        (
            "add 305 nexthop as 400 via inet 10.0.0.2 dev p0 nexthop via inet6 2001:db8::2 dev p0",
            LabelRoute(305, (LabelLeg(P0, FOUR, (400,)), LabelLeg(P0, SIX))),
        ),
        (
            "add 306 as 400 via link 02:00:00:00:00:02 dev p0",
            LabelRoute(306, (LabelLeg(P0, b"", (400,), reachable=False),)),
        ),
        ("del 302", LabelRoute(302, (LabelLeg(P0, FOUR),))),
    ],
)
def test_routes_of_labels(command: str, route: LabelRoute) -> None:
    assert label_route(command) == route


def test_what_vpp_is_to_hold_for_labels() -> None:
    kernel = {
        1: KernelInterface(1, "lo", up=True, mtu=65536),
        P0: KernelInterface(P0, "p0", up=True, mtu=1500),
        BLUE: KernelInterface(BLUE, "blue0", up=True, mtu=1500, vrf=77),
    }
    commands = [c.removeprefix("ip -f mpls route ") for c in BODIES if c.startswith("ip -f mpls route add")]
    routes = [label_route(command) for command in commands]
    wanted, problems = entries(routes, kernel, {P0: 5}, {254: 0, 77: 7})
    both = {
        300: (LabelPath(5, FOUR, (400,)),),
        301: (LabelPath(5, SIX, (400, 500)),),
        302: (LabelPath(5, FOUR, (POP,)),),
        305: (LabelPath(5, FOUR, (400,)), LabelPath(5, SIX, (POP,))),
    }
    assert wanted == {
        **{(label, last): paths for label, paths in both.items() for last in (True, False)},
        (303, True): (LabelPath(NO_INTERFACE, table=0),),
        (304, True): (LabelPath(NO_INTERFACE, table=7),),
    }
    assert problems == {306: "a next hop is dead, or given by its MAC address"}
    _, problems = entries(routes[:1], kernel, {}, {})
    assert problems == {300: "interface p0 has no counterpart in VPP"}


def test_labels_and_tunnels_in_words() -> None:
    paths = PathSet.unicast(Path(3, FOUR, 2, (16, 17)), Path(3, tunnel="seg6"))
    assert describe_paths(paths, lambda _: "eth0") == (
        "encap seg6 dev eth0",
        "push 16/17 via 10.0.0.2 dev eth0 weight 2",
    )


def last_link(command: str, name: str) -> LinkState:
    states = [parse_link(body) for body in BODIES[command] if len(body) > 16 and body[0] == 0]
    return [state for state in states if state is not None and state.link.name == name][-1]


def test_vlans_and_vrfs_are_told_from_other_links() -> None:
    vlan = last_link("ip link add link p0 name transit type vlan id 100", "transit")
    assert (vlan.vlan, vlan.lower, vlan.vrf_table) == (100, P0, 0)
    provider = last_link("ip link add link p0 name qinq type vlan proto 802.1ad id 7", "qinq")
    assert (provider.vlan, provider.lower) == (None, P0)
    vrf = last_link("ip link add red type vrf table 1234", "red")
    assert (vrf.vlan, vrf.vrf_table) == (None, 1234)
    assert last_link("ip link set transit master red", "transit").master == vrf.link.index
    dummy = last_link("ip link add under type dummy", "under")
    assert (dummy.vlan, dummy.lower, dummy.vrf_table) == (None, 0, 0)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bodies_end_in_a_value_or_a_decode_error(data: st.DataObject) -> None:
    command = data.draw(st.sampled_from(sorted(BODIES)))
    body = bytearray(data.draw(st.sampled_from(BODIES[command])))
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    parse: Callable[[bytes], object] = parse_link if command.startswith("ip link") else parse_label_route
    if command.startswith("ip nexthop"):
        parse = parse_nexthop
    try:
        parse(bytes(body[: data.draw(st.integers(0, len(body)))]))
    except NetlinkDecodeError:
        return
