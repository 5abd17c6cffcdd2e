"""What a mirror of interfaces decides to do."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_interface

import pytest

from router_agent.agent import Agent
from router_agent.config import parse
from router_agent.fibs.fib import FibError
from router_agent.mirror.aspects import Aspect
from router_agent.mirror.kernel import Address, KernelInterface
from router_agent.mirror.mirror import refuse_other_owner
from router_agent.mirror.plan import plan
from router_agent.mirror.vpp import VppInterface, VppState
from router_agent.model import Family
from router_agent.vpp.pairs import Pair

PAIR = Pair(port=1, host=2, link=7, name="eth0", namespace="cp")
TAP = VppInterface(2, "tap4096", up=True, mtu=1500, parent=2)
TABLES = {254: 0, 10: 10}


def addresses(*texts: str) -> frozenset[Address]:
    return frozenset(ip_interface(text) for text in texts)


def link(**options: object) -> KernelInterface:
    return KernelInterface(**{"index": 7, "name": "eth0", "up": True, "mtu": 1500, **options})  # type: ignore[arg-type]


def port(**options: object) -> VppInterface:
    return VppInterface(**{"index": 1, "name": "port0", "up": True, "mtu": 1500, "parent": 1, **options})  # type: ignore[arg-type]


def steps(
    links: list[KernelInterface],
    ports: list[VppInterface],
    *aspects: Aspect,
    pairs: tuple[Pair, ...] = (PAIR,),
    tables: frozenset[tuple[Family, int]] = frozenset(),
) -> list[str]:
    state = VppState({p.index: p for p in [*ports, TAP]}, pairs, tables)
    found = plan({k.index: k for k in links}, state, aspects=aspects or tuple(Aspect), tables=TABLES)
    return [step.words for step in found]


def test_nothing_is_done_when_both_are_the_same() -> None:
    held = addresses("192.0.2.1/24", "2001:db8::1/64")
    both = held | addresses("fe80::1/64")
    assert steps([link(addresses=both)], [port(addresses=held, link_local=IPv6Address("fe80::1"))]) == []


def test_nothing_is_done_to_what_has_no_pair() -> None:
    assert steps([link(addresses=addresses("192.0.2.1/24"))], [port()], pairs=()) == []
    other = VppInterface(9, "port9", addresses=addresses("192.0.2.9/24"))
    assert steps([link()], [port(), other]) == []


def test_what_is_not_mirrored_is_left_alone() -> None:
    there = port(up=False, mtu=9000, addresses=addresses("192.0.2.1/24"))
    wanted = link(addresses=addresses("192.0.2.9/24"), table=10, labelled=True)
    assert steps([wanted], [there], Aspect.VLANS) == []
    assert steps([wanted], [there], Aspect.LINKS) == ["set port0 MTU 1500", "set port0 up"]


def test_addresses_go_before_others_come() -> None:
    wanted = link(addresses=addresses("192.0.2.1/25", "fe80::7/64"))
    assert steps([wanted], [port(addresses=addresses("192.0.2.1/24", "198.51.100.1/32"))]) == [
        "take port0 192.0.2.1/24",
        "take port0 198.51.100.1/32",
        "give port0 192.0.2.1/25",
        "give port0 fe80::7",
        "leave router advertisements on port0 to Linux",
    ]


def test_an_interface_is_without_addresses_while_it_changes_its_table() -> None:
    same = addresses("192.0.2.1/24")
    assert steps([link(addresses=same, table=10)], [port(addresses=same)]) == [
        "take port0 192.0.2.1/24",
        "make IPv4 table 10",
        "put port0 into IPv4 table 10",
        "make IPv6 table 10",
        "put port0 into IPv6 table 10",
        "give port0 192.0.2.1/24",
    ]


def test_addresses_that_others_own_are_put_back_after_a_change_of_table() -> None:
    there = port(addresses=addresses("192.0.2.1/24"), tables=(10, 0))
    assert steps([link()], [there], Aspect.VRFS, tables=frozenset({(Family.IPV4, 0)})) == [
        "take port0 192.0.2.1/24",
        "put port0 into IPv4 table 0",
        "give port0 192.0.2.1/24",
    ]


def test_ipv4_is_taken_where_there_are_only_link_local_addresses() -> None:
    wanted, alone = link(addresses=addresses("fe80::1/64")), {"link_local": IPv6Address("fe80::1")}
    assert steps([wanted], [port(**alone)]) == ["take IPv4 on port0 without an address"]
    assert steps([wanted], [port(**alone, unnumbered=True)]) == []
    numbered = link(addresses=addresses("fe80::1/64", "192.0.2.1/24"))
    assert steps([numbered], [port(**alone, unnumbered=True)]) == [
        "end borrowing of addresses on port0",
        "give port0 192.0.2.1/24",
    ]
    assert steps([link()], [port()]) == []


def test_borrowing_ends_for_a_change_of_table() -> None:
    wanted = link(addresses=addresses("fe80::1/64"), table=10)
    there = port(link_local=IPv6Address("fe80::1"), unnumbered=True)
    assert steps([wanted], [there], Aspect.ADDRESSES, Aspect.VRFS)[0] == "end borrowing of addresses on port0"


def test_a_vlan_is_made_then_paired_then_set() -> None:
    vlan = KernelInterface(8, "transit", up=True, mtu=1500, parent=7, vlan=100)
    assert steps([link(), vlan], [port()]) == ["make port0.100 for transit"]
    sub = VppInterface(3, "port0.100", mtu=1500, parent=1, vlan=100)
    assert steps([link(), vlan], [port(), sub]) == ["set port0.100 up", "pair port0.100 with transit"]


def test_a_vlan_that_went_takes_its_pair_along() -> None:
    sub = VppInterface(3, "port0.100", up=True, mtu=1500, parent=1, vlan=100)
    pairs = (PAIR, Pair(3, 4, 8, "transit", "cp"))
    assert steps([link()], [port(), sub], pairs=pairs) == ["remove the pair of port0.100", "remove port0.100"]


def test_a_port_whose_kernel_interface_went_is_left_alone() -> None:
    assert steps([], [port(addresses=addresses("192.0.2.1/24"))]) == []


@pytest.mark.parametrize("feed", ["kernel", "fpm"])
async def test_the_agent_mirrors_what_the_configuration_names(feed: str) -> None:
    text = f"""
pipelines:
  - name: vpp
    feed: {{kind: {feed}, namespace: blue, tables: [254, 10]}}
    fib: {{kind: vpp, interfaces: auto, mirror: [links, vrfs]}}
  - name: other
    feed: {{kind: kernel}}
    fib: {{kind: vpp, source: other}}
"""
    status = Agent(parse(text.encode())).status()
    mirror = status.pipelines[0].mirror
    assert mirror is not None
    assert mirror.aspects == ("links", "vrfs")
    assert status.pipelines[1].mirror is None


@pytest.mark.parametrize(
    ("shown", "aspects", "refused"),
    [
        ("lcp lcp-sync on", (Aspect.ADDRESSES,), True),
        ("lcp lcp-sync on", (Aspect.VRFS, Aspect.VLANS), False),
        ("lcp lcp-auto-subint on\nlcp lcp-sync off", (Aspect.VLANS,), True),
        ("lcp lcp-auto-subint on\nlcp lcp-sync off", (Aspect.ADDRESSES,), False),
        ("lcp lcp-auto-subint off\nlcp lcp-sync off", tuple(Aspect), False),
    ],
)
def test_two_owners_are_refused(shown: str, aspects: tuple[Aspect, ...], refused: bool) -> None:
    if not refused:
        refuse_other_owner(shown, aspects)
        return
    with pytest.raises(FibError, match="take"):
        refuse_other_owner(shown, aspects)
