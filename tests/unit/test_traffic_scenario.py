"""Scenarios refuse nonsense, and destinations are drawn where the caller expects them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import Family, Prefix, keys_of
from router_agent.traffic.scenario import (
    ANY_PORT,
    Destinations,
    Endpoints,
    FrameSizes,
    Goal,
    Port,
    Scenario,
    ScenarioError,
    Search,
)

MAC = "02:00:00:00:00:01"


def few() -> Destinations:
    return Destinations.of([IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/32")], [0, 1])


def address(destinations: Destinations, row: int) -> str:
    octets = destinations.addresses[row].tobytes()
    return str(ip_address(octets[:4] if destinations.families[row] == Family.IPV4 else octets))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Port("", "eth0"), "a name and an interface"),
        (lambda: Port("a", "eth0", None, "not a mac"), "gateway_mac is 'not a mac'"),
        (lambda: Port("a", "eth0", None, None, mac="02:00"), "port a: mac is '02:00'"),
        (lambda: Endpoints(()), "at least one port"),
        (lambda: Endpoints((Port("a", "x", None, MAC),)).sender(1), "expected 0 to 0"),
        (lambda: Endpoints((Port("a", "x", None, MAC), Port("a", "y"))), "names must differ"),
        (lambda: Endpoints((Port("a", "x"),)).sender(0), "give it gateway_mac"),
        (lambda: Goal(loss_ratio=1.0), "loss_ratio is 1.0"),
        (lambda: Goal(unsent_ratio=-0.1), "unsent_ratio is -0.1"),
        (lambda: Search(10, 10), "min_pps < max_pps"),
        (lambda: Search(1, 10, trial_s=5, limit_s=5), "trial_s < limit_s"),
        (lambda: Search(1, 10, relative_width=0), "relative_width is 0"),
        (lambda: Scenario("x", few(), rate_pps=0), "rate_pps is 0"),
        (lambda: Scenario("x", few(), rate_pps=float("nan")), "rate_pps is nan"),
        (lambda: Scenario("x", few(), duration_s=float("inf")), "duration_s is inf"),
        (lambda: Scenario("x", few(), rate_pps=1, duration_s=0.5), "less than one packet"),
        (lambda: Scenario("x", few(), frames=FrameSizes.of(64)), "expected 78 or more"),
        (lambda: Scenario("x", few(), udp_port=0), "udp_port is 0"),
        (lambda: Scenario("x", few(), ring_frames=1), "at least 16"),
        (lambda: Scenario("x", few(), proof_pps=-1), "proof_pps is -1"),
        (lambda: Destinations.of([]), "no destination"),
        (
            lambda: Destinations.draw({Family.IPV4: keys_of([IPv4Network("10.0.0.0/8")])}, count=0),
            "count is 0",
        ),
        (
            lambda: Destinations.draw(
                {Family.IPV4: keys_of([IPv4Network("10.0.0.0/8")])}, {Family.IPV4: np.zeros(2, np.int16)}
            ),
            "2 expected ports for 1 prefixes",
        ),
        (lambda: replace(few(), lengths=np.zeros(5, np.uint8)), "destination columns"),
    ],
)
def test_nonsense_is_refused_in_words(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ScenarioError, match=message):
        make()


def test_the_smallest_frame_holds_the_signature() -> None:
    assert Scenario("x", few()).sizes.largest == 78
    assert Scenario("x", Destinations.of([IPv4Network("192.0.2.0/24")])).sizes.largest == 64


def test_expected_ports_follow_their_prefixes() -> None:
    networks: list[Prefix] = [IPv4Network(f"10.{i}.0.0/16") for i in range(50)]
    networks += [IPv6Network(f"2001:db8:{i:x}::/48") for i in range(50)]
    drawn = Destinations.of(networks, [i % 3 for i in range(100)])
    wanted = {p: i % 3 for i, p in enumerate(networks)}
    assert {drawn.prefix(row): int(drawn.expected[row]) for row in range(len(drawn))} == wanted
    assert (Destinations.of(networks).expected == ANY_PORT).all()


def test_a_sample_is_shared_between_families_and_repeats_with_its_seed() -> None:
    keys = {
        Family.IPV4: keys_of([IPv4Network((i << 8, 24)) for i in range(900)]),
        Family.IPV6: keys_of([IPv6Network((i << 64, 64)) for i in range(100)]),
    }
    one = Destinations.draw(keys, count=200, seed=7)
    assert len(one) == 200
    assert int((one.families == Family.IPV6).sum()) == 20
    again, other = Destinations.draw(keys, count=200, seed=7), Destinations.draw(keys, count=200, seed=8)
    assert np.array_equal(one.addresses, again.addresses)
    assert not np.array_equal(one.addresses, other.addresses)


def test_a_prefix_covered_by_more_specific_ones_is_left_out_and_counted() -> None:
    whole = IPv4Network("10.0.0.0/24")
    table: list[Prefix] = [whole, *whole.subnets(1)]
    drawn = Destinations.draw({Family.IPV4: keys_of(table)})
    assert {drawn.prefix(row) for row in range(len(drawn))} == set(table[1:])
    assert drawn.shadowed == 1


def test_a_sample_is_made_up_when_some_of_it_is_shadowed() -> None:
    covered: list[Prefix] = [IPv4Network((10 << 24 | i << 8, 24)) for i in range(40)]
    halves = [half for prefix in covered for half in prefix.subnets(1)]
    drawn = Destinations.draw({Family.IPV4: keys_of([*covered, *halves])}, count=80)
    assert len(drawn) == 80
    assert (drawn.lengths == 25).all()
    assert 0 < drawn.shadowed <= 40


def prefixes() -> st.SearchStrategy[Prefix]:
    v4 = st.builds(
        lambda a, n: ip_network((a, n), strict=False), st.integers(0, (1 << 32) - 1), st.integers(1, 32)
    )
    v6 = st.builds(
        lambda a, n: IPv6Network((a, n), strict=False), st.integers(0, (1 << 128) - 1), st.integers(1, 128)
    )
    return st.one_of(v4, v6)


@given(st.sets(prefixes(), min_size=1, max_size=30), st.integers(0, 1000))
def test_every_address_has_its_own_prefix_as_longest_match(networks: set[Prefix], seed: int) -> None:
    keys = {
        family: keys_of([p for p in networks if p.version == version])
        for family, version in ((Family.IPV4, 4), (Family.IPV6, 6))
        if any(p.version == version for p in networks)
    }
    try:
        drawn = Destinations.draw(keys, seed=seed)
    except ScenarioError:
        pytest.fail("the most specific prefix can always be drawn from")
    assert len(drawn) + drawn.shadowed == len(networks)
    for row in range(len(drawn)):
        target = ip_address(address(drawn, row))
        matches = [p for p in networks if p.version == target.version and target in p]
        assert max(matches, key=lambda p: p.prefixlen) == drawn.prefix(row)
