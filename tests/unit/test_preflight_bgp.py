"""What preflight says of AS numbers, router ids, prefixes, peers, services and RPKI caches."""

from __future__ import annotations

from typing import Any

import pytest

from preflight_bgp import preflight_bgp

PEER = {
    "name": "transit_a",
    "speaker": "frr",
    "address": "198.51.100.1",
    "asn": 64501,
    "maximum_prefixes": 1000,
}
VARIABLES: dict[str, Any] = {
    "router_asn": 3333,
    "router_id": "203.0.113.1",
    "router_networks": {"ipv4": ["203.0.113.0/24"], "ipv6": ["2001:db8:100::/48"]},
    "router_ports": [
        {"name": "uplink", "addresses": ["198.51.100.2/30", "2001:db8:0:1::2/64"]},
        {"name": "lan", "vlans": [{"id": 7, "addresses": ["198.51.100.9/30"]}]},
    ],
    "router_loopbacks": [{"name": "lo1", "addresses": ["203.0.113.1/32"]}],
    "router_peers": [PEER],
}


def check(**changes: Any) -> dict[str, Any]:
    """Result for a good router with these changes."""
    return preflight_bgp({**VARIABLES, **changes}, {"ams1-r2": "203.0.113.2"})


def with_peer(**changes: Any) -> dict[str, Any]:
    """Result for a good peer with these changes; None takes a key out."""
    peer = {key: value for key, value in {**PEER, **changes}.items() if value is not None}
    return check(router_peers=[peer])


def test_a_good_router() -> None:
    assert check() == {"problems": [], "notes": []}


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "2001:db8:0:1::1"},
        {"address": "198.51.100.10"},
        {"address": "192.0.2.99", "multihop": 3},
        {"address": "192.0.2.99", "ttl_security_hops": 3},
        {"address": "192.0.2.99", "multihop": 3, "local_address": "203.0.113.1"},
        {"speaker": "exabgp", "local_address": "198.51.100.2"},
        {"password": "Fjord-7/Lamp.Oak"},
        {"timers": {"keepalive": 3, "hold": 9}},
        {"communities": ["64500:100", "no-export"]},
        {"ttl_security_hops": 0, "local_preference": 0, "prepend": 10, "bfd": True},
    ],
    ids="-".join,
)
def test_a_good_peer(changes: dict[str, Any]) -> None:
    assert with_peer(**changes)["problems"] == []


@pytest.mark.parametrize(
    ("changes", "key", "found", "expected"),
    [
        ({"name": "Transit-A"}, "name", "'Transit-A'", "a-z"),
        ({"asn": 0}, "asn", "0", "reserved"),
        ({"asn": 23456}, "asn", "23456", "reserved"),
        ({"asn": 4294967296}, "asn", "4294967296", "4294967294"),
        ({"asn": 3333}, "asn", "the router's own", "another network"),
        ({"address": "198.51.100.1/30"}, "address", "'198.51.100.1/30'", "without prefix length"),
        ({"address": "198.51.100.300"}, "address", "'198.51.100.300'", "an address"),
        ({"address": "198.51.100.2"}, "address", "an address of this router", "neighbour"),
        ({"address": "224.0.0.1"}, "address", "224.0.0.1", "unicast"),
        ({"address": "192.0.2.99"}, "address", "192.0.2.99", "198.51.100.0/30 (uplink)"),
        ({"speaker": "exabgp"}, "local_address", "nothing", "which ExaBGP needs"),
        (
            {"local_address": "198.51.100.5"},
            "local_address",
            "198.51.100.5",
            "an address of this router: 198.51.100.2",
        ),
        (
            {"local_address": "198.51.100.9"},
            "local_address",
            "198.51.100.9",
            "in the neighbour's subnet: 198.51.100.2",
        ),
        ({"local_address": "2001:db8:0:1::2"}, "local_address", "2001", "an IPv4 address"),
        ({"maximum_prefixes": 0}, "maximum_prefixes", "0", "1 to"),
        ({"ttl_security_hops": 255}, "ttl_security_hops", "255", "0 to 254"),
        ({"multihop": 1, "address": "198.51.100.1"}, "multihop", "1", "2 to 255"),
        (
            {"multihop": 3, "ttl_security_hops": 1},
            "ttl_security_hops",
            "together with multihop",
            "one of the two",
        ),
        ({"prepend": 11}, "prepend", "11", "1 to 10"),
        ({"communities": ["64500:70000"]}, "communities[0]", "'64500:70000'", "65535"),
        ({"communities": ["nothing"]}, "communities[0]", "'nothing'", "no-export"),
        ({"timers": {"keepalive": 30, "hold": 60}}, "timers.keepalive", "30", "1 to 20"),
        ({"timers": {"keepalive": 1, "hold": 2}}, "timers.hold", "2", "3 to 65535"),
        ({"description": "two\nlines"}, "description", "two", "one line"),
        ({"speaker": "exabgp", "local_address": "198.51.100.2", "bfd": True}, "bfd", "ExaBGP", "no BFD"),
        (
            {"speaker": "exabgp", "local_address": "198.51.100.2", "local_preference": 200},
            "local_preference",
            "200 with ExaBGP",
            "nothing",
        ),
    ],
)
def test_a_broken_peer(changes: dict[str, Any], key: str, found: str, expected: str) -> None:
    problems = with_peer(**changes)["problems"]
    name = changes.get("name", "transit_a")
    assert [problem["variable"] for problem in problems] == [f"router_peers[{name}].{key}"]
    assert found in problems[0]["found"]
    assert expected in problems[0]["expected"]


@pytest.mark.parametrize(
    "password",
    ["", "changeme", "CHANGE_ME", "change-me", "todo", "<password>", "{{ vault_a }}", "vault_a", "xxxx",
     "$ANSIBLE_VAULT;1.1;AES256", "has blank", 'has"quote', "back\\slash", "ümlaut", "x" * 81],
)  # fmt: skip
def test_a_password_that_is_none_is_found_and_never_shown(password: str) -> None:
    problems = with_peer(password=password)["problems"]
    assert [problem["variable"] for problem in problems] == ["router_peers[transit_a].password"]
    assert not password or password not in str(problems)


def test_peers_of_one_name_and_address_however_it_is_written() -> None:
    first = {**PEER, "address": "2001:db8:0:1::1"}
    second = {**PEER, "address": "2001:DB8:0:1:0:0:0:1"}
    problems = check(router_peers=[first, second])["problems"]
    assert [problem["variable"] for problem in problems] == [
        "router_peers[1].name",
        "router_peers[1].address",
    ]


def test_a_peer_of_which_everything_is_missing_was_reported_elsewhere() -> None:
    assert check(router_peers=[{}])["problems"] == []


@pytest.mark.parametrize(
    ("changes", "variable", "found"),
    [
        ({"router_asn": 65535}, "router_asn", "65535"),
        ({"router_asn": 4294967295}, "router_asn", "4294967295"),
        ({"router_id": "2001:db8::1"}, "router_id", "'2001:db8::1'"),
        ({"router_id": "0.0.0.0"}, "router_id", "0.0.0.0"),
        ({"router_id": "203.0.113.2"}, "router_id", "which ams1-r2 has too"),
        ({"router_networks": {"ipv4": ["203.0.113.1/24"]}}, "router_networks.ipv4[0]", "host bits"),
        ({"router_networks": {"ipv4": ["2001:db8::/32"]}}, "router_networks.ipv4[0]", "2001:db8::/32"),
        ({"router_networks": {"ipv4": ["0.0.0.0/0"]}}, "router_networks.ipv4[0]", "0.0.0.0/0"),
        ({"router_networks": {"ipv6": ["2001:db8::/32"] * 2}}, "router_networks.ipv6[1]", "twice"),
        ({"router_rpki_caches": [{"address": "cache"}]}, "router_rpki_caches[0].address", "'cache'"),
        ({"router_rpki_caches": [{"address": "192.0.2.1", "port": 0}]}, "router_rpki_caches[0].port", "0"),
        ({"router_rpki_caches": [{"address": "192.0.2.1"}] * 2}, "router_rpki_caches[1].address", "twice"),
        ({"router_services": [{"name": "DNS"}]}, "router_services[DNS].name", "'DNS'"),
        ({"router_services": [{"name": "dns", "rise": 0}]}, "router_services[dns].rise", "0"),
        (
            {"router_services": [{"name": "dns", "addresses": ["203.0.113.0/25"]}]},
            "router_services[dns].addresses[0]",
            "203.0.113.0/25",
        ),
        (
            {"router_services": [{"name": "dns", "addresses": ["203.0.113.53"]}]},
            "router_services[dns].addresses[0]",
            "203.0.113.53",
        ),
        ({"router_services": [{"name": "dns"}, {"name": "dns"}]}, "router_services[1].name", "dns twice"),
    ],
)
def test_a_wrong_variable(changes: dict[str, Any], variable: str, found: str) -> None:
    problems = check(**changes)["problems"]
    assert [problem["variable"] for problem in problems] == [variable]
    assert found in problems[0]["found"]


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"router_asn": 64500}, "for documentation"),
        ({"router_asn": 65550}, "for documentation"),
        ({"router_asn": 64512}, "for private use"),
        ({"router_asn": 4200000000}, "for private use"),
        ({"router_networks": {"ipv4": [], "ipv6": []}}, "nothing is announced"),
        ({"router_networks": {"ipv4": ["203.0.113.0/25"]}}, "longer than /24"),
        ({"router_networks": {"ipv6": ["2001:db8::/56"]}}, "longer than /48"),
        ({"router_peers": []}, "speaks to nobody"),
        (
            {"router_services": [{"name": "dns", "addresses": ["192.0.2.53/32"]}]},
            "in none of router_networks",
        ),
    ],
)
def test_what_may_not_be_meant_is_a_note(changes: dict[str, Any], note: str) -> None:
    result = check(**changes)
    assert result["problems"] == []
    assert [note in entry for entry in result["notes"]] == [True]
