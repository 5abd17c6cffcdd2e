"""verify.yml: what is read on a router, what is expected of it, and the table that says so."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from fib_comparison import best, compare, forwarded, frr_routes, full_prefix, kernel_routes
from router_checks import router_checks, router_faults, router_fib_checks, router_table
from router_state import connections, frr_sessions, links, services

# As FRR 10.3 prints it.
SHOW_IP_ROUTE = """\
Codes: K - kernel route, C - connected, L - local, S - static,
       > - selected route, * - FIB route, q - queued, r - rejected, b - backup
       t - trapped, o - offload failure

IPv4 unicast VRF default:
B>* 0.0.0.0/1 [20/0] via 198.51.100.1, uplink, weight 1, 00:00:01
B>* 11.0.0.0/8 [20/0] via 198.51.100.1, uplink, weight 1, 00:00:01
  *                   via 203.0.113.1, peering, weight 1, 00:00:01
B>  12.0.0.0/8 [200/0] via 192.0.2.9 (recursive), weight 1, 00:00:02
  *                      via 198.51.100.1, uplink, weight 1, 00:00:02
B   13.0.0.0/8 [20/0] via 203.0.113.1 inactive, weight 1, 00:00:02
B>* 192.0.2.53/32 [200/0] unreachable (blackhole), weight 1, 00:00:02
B>q 14.0.0.0/8 [20/0] via 198.51.100.1, uplink, weight 1, 00:00:01
"""
UPLINK = frozenset(["198.51.100.1 uplink"])
ROUTES = {
    "0.0.0.0/1": UPLINK,
    "11.0.0.0/8": frozenset(["198.51.100.1 uplink", "203.0.113.1 peering"]),
    "12.0.0.0/8": UPLINK,
    "192.0.2.53/32": frozenset(["blackhole"]),
}
# As iproute2 6.15 prints it.
IP_ROUTE = """\
0.0.0.0/1 nhid 8 via 198.51.100.1 dev uplink proto bgp metric 20
11.0.0.0/8 nhid 20 proto bgp metric 20 \\\tnexthop via 198.51.100.1 dev uplink weight 1 \\\
\tnexthop via 203.0.113.1 dev peering weight 1
12.0.0.0/8 via 198.51.100.1 dev uplink proto bgp metric 20 onlink
blackhole 192.0.2.53 nhid 30 proto bgp metric 20
"""


def test_frr_means_the_selected_routes_with_their_resolved_next_hops() -> None:
    found = dict(frr_routes(SHOW_IP_ROUTE.splitlines(keepends=True)))
    assert found == ROUTES | {"14.0.0.0/8": frozenset()}


def test_the_kernel_says_the_same_in_other_words() -> None:
    assert best(kernel_routes(IP_ROUTE.splitlines(keepends=True)), "ipv4") == ROUTES


def test_the_lowest_metric_is_best_whichever_comes_first() -> None:
    lines = ["10.0.0.0/8 via 10.0.0.1 dev a metric 20\n", "10.0.0.0/8 via 10.0.0.2 dev b metric 3355443220\n"]
    for given in (lines, lines[::-1]):
        assert best(kernel_routes(given), "ipv4") == {"10.0.0.0/8": frozenset(["10.0.0.1 a"])}


def test_ipv4_over_ipv6_and_connected_legs() -> None:
    lines = ["default via inet6 fe80::1 dev a metric 20 pref medium\n", "2001:db8::/64 dev b metric 20\n"]
    assert best(kernel_routes(lines), "ipv6") == {
        "::/0": frozenset(["fe80::1 a"]),
        "2001:db8::/64": frozenset(["b"]),
    }


@pytest.mark.parametrize(
    ("text", "family", "expected"),
    [
        ("default", "ipv4", "0.0.0.0/0"),
        ("default", "ipv6", "::/0"),
        ("192.0.2.1", "ipv4", "192.0.2.1/32"),
        ("2001:db8::1", "ipv6", "2001:db8::1/128"),
        ("192.0.2.0/24", "ipv4", "192.0.2.0/24"),
    ],
)
def test_prefixes_have_one_form(text: str, family: str, expected: str) -> None:
    assert full_prefix(text, family) == expected


def test_a_comparison_counts_and_names_what_differs() -> None:
    wanted = {"10.0.0.0/8": UPLINK, "11.0.0.0/8": UPLINK, "12.0.0.0/8": UPLINK}
    held = {"10.0.0.0/8": UPLINK, "11.0.0.0/8": frozenset(["blackhole"]), "13.0.0.0/8": UPLINK}
    assert compare(wanted, held.items()) == {
        "wanted": 3,
        "held": 3,
        "missing": 1,
        "stale": 1,
        "different": 1,
        "examples": [
            "11.0.0.0/8: different, held blackhole, expected via 198.51.100.1 uplink",
            "13.0.0.0/8: stale, held via 198.51.100.1 uplink, expected nothing",
            "12.0.0.0/8: missing, expected via 198.51.100.1 uplink",
        ],
    }


def test_a_whole_table_that_is_missing_gives_few_examples() -> None:
    found = compare({f"10.{n}.0.0/16": UPLINK for n in range(200)}, [])
    assert found["missing"] == 200
    assert len(found["examples"]) == 10


def test_vpp_is_to_hold_what_leads_to_its_interfaces_or_nowhere() -> None:
    routes = {
        "10.0.0.0/8": UPLINK,
        "11.0.0.0/8": frozenset(["192.0.2.254 mgmt"]),
        "12.0.0.0/8": frozenset(["blackhole"]),
        "13.0.0.0/8": frozenset(["198.51.100.1 uplink", "192.0.2.254 mgmt"]),
    }
    assert forwarded(routes, ["uplink"]).keys() == {"10.0.0.0/8", "12.0.0.0/8"}


def test_readings_of_the_host() -> None:
    frr = "Id=frr.service\nActiveState=active\nUnitFileState=enabled\n"
    shown = f"{frr}\nId=vpp.service\nActiveState=inactive\nUnitFileState=\n"
    assert services(shown) == {
        "frr.service": {"active": "active", "enabled": "enabled"},
        "vpp.service": {"active": "inactive", "enabled": "no"},
    }
    addresses = [{"local": "198.51.100.2", "prefixlen": 30}]
    record = {"ifname": "uplink", "flags": ["UP"], "mtu": 1500, "addr_info": addresses}
    assert links([record, {}]) == {
        "uplink": {"up": True, "carrier": False, "mtu": 1500, "mac": None, "addresses": ["198.51.100.2/30"]}
    }
    peer = {"state": "Established", "pfxRcd": 3, "pfxSnt": 1}
    summary = {
        "ipv4Unicast": {"peers": {"2001:db8::1": peer}},
        "ipv6Unicast": {"peers": {"2001:db8::1": peer}},
    }
    assert frr_sessions(summary) == {"2001:db8::1": {"state": "Established", "prefixes": 6, "sent": 2}}
    listing = "0 0 198.51.100.2:40000 198.51.100.1:179\n0 0 [2001:db8::2]:40000 [2001:db8::1]:179\n"
    assert connections(listing) == ["198.51.100.1", "2001:db8::1"]


WANTED: dict[str, Any] = {
    "facts": {
        "kernel": "6.12.48",
        "numa_nodes": [{"id": 0, "hugepages": {"2048": {"total": 64, "free": 0}, "1048576": {"total": 0}}}],
        "nics": [{"pci": "0000:03:00.0", "driver": "vfio-pci"}, {"pci": "0000:01:00.0", "driver": "igb"}],
    },
    "reboot_reasons": [],
    "forwarding": "vpp",
    "devices": ["0000:03:00.0"],
    "driver": "vfio-pci",
    "ports": [{"name": "uplink", "addresses": ["198.51.100.2/30", "2001:DB8::2/64"], "vlans": [{"id": 7}]}],
    "bonds": [],
    "loopbacks": [{"name": "lo1", "addresses": ["192.0.2.1/32"]}],
    "peers": [
        {"name": "transit", "address": "198.51.100.1"},
        {"name": "peering", "address": "2001:db8:0::1", "speaker": "exabgp"},
    ],
    "services": {"frr.service": True, "exabgp.service": False},
    "pipelines": [{"name": "vpp"}],
    "interfaces": {"uplink": "uplink"},
}
UP = {"up": True, "carrier": True, "mtu": 1500}
STATE: dict[str, Any] = {
    "services": {
        "frr.service": {"active": "active", "enabled": "enabled"},
        "exabgp.service": {"active": "inactive", "enabled": "disabled"},
    },
    "links": {
        "uplink": UP | {"addresses": ["198.51.100.2/30", "2001:db8::2/64", "fe80::1/64"]},
        "uplink.7": UP | {"addresses": []},
        "lo1": UP | {"addresses": ["192.0.2.1/32"]},
    },
    "frr_sessions": {"198.51.100.1": {"state": "Established", "prefixes": 10}},
    "connections": ["2001:db8::1"],
    "agent": {
        "pipelines": [
            {
                "name": "vpp",
                "state": "in-sync",
                "error": None,
                "counts": [{"family": 2, "desired": 10, "in_fib": 10, "not_in_fib": {}}],
            }
        ]
    },
    "errors": [],
}


def test_a_router_as_wanted_has_no_fault() -> None:
    rows = router_checks(STATE, WANTED)
    assert router_faults(rows) == []
    assert [row["what"] for row in rows] == [
        "kernel",
        "driver 0000:03:00.0",
        "frr.service",
        "exabgp.service",
        "uplink",
        "uplink.7",
        "lo1",
        "session transit",
        "session peering",
        "agent vpp",
    ]


def spoil(state: dict[str, Any], wanted: dict[str, Any], change: Callable[..., object]) -> list[str]:
    state, wanted = deepcopy(state), deepcopy(wanted)
    change(state, wanted)
    return router_faults(router_checks(state, wanted))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda s, w: w["reboot_reasons"].append("CPUs 2 are not isolated"), "CPUs 2 are not isolated"),
        (lambda s, w: w["facts"]["nics"][0].update(driver="ixgbe"), "found ixgbe, expected vfio-pci"),
        (lambda s, w: w["facts"]["nics"][1].update(driver="vfio-pci"), "no port has this NIC"),
        (
            lambda s, w: s["services"]["frr.service"].update(active="failed"),
            "frr.service: found failed, enabled",
        ),
        (lambda s, w: s["services"]["frr.service"].update(enabled="disabled"), "found active, disabled"),
        (lambda s, w: s["services"]["exabgp.service"].update(active="active"), "expected not running"),
        (lambda s, w: s["links"].pop("uplink.7"), "uplink.7: found no such interface"),
        (lambda s, w: s["links"]["uplink"].update(carrier=False), "uplink: found no carrier"),
        (lambda s, w: s["links"]["uplink"]["addresses"].pop(1), "uplink: found up, without 2001:db8::2/64"),
        (
            lambda s, w: s["frr_sessions"]["198.51.100.1"].update(state="Active"),
            "198.51.100.1 Active, 10 prefixes",
        ),
        (lambda s, w: s["frr_sessions"].clear(), "198.51.100.1 not configured"),
        (lambda s, w: s["connections"].clear(), "session peering: found 2001:db8::1 not connected"),
        (lambda s, w: s.update(agent=None), "agent vpp: found no such pipeline"),
        (lambda s, w: s["agent"]["pipelines"][0].update(state="syncing"), "agent vpp: found syncing"),
        (
            lambda s, w: s["agent"]["pipelines"][0]["counts"][0].update(in_fib=9, not_in_fib={"rejected": 1}),
            "IPv4 9 of 10, 1 rejected",
        ),
        (lambda s, w: s["errors"].append("FRR: vtysh: not found"), "readings: found FRR: vtysh: not found"),
    ],
)
def test_each_thing_that_is_not_as_wanted_is_named(change: Callable[..., object], fault: str) -> None:
    found = spoil(STATE, WANTED, change)
    assert len(found) == 1
    assert fault in found[0]


COUNTS = {"wanted": 10, "held": 10, "missing": 0, "stale": 0, "different": 0, "examples": []}
READING: dict[str, Any] = {
    "comparison": {"ipv4": COUNTS, "ipv6": COUNTS},
    "drift": {"exabgp": 0},
    "interfaces": {"uplink": {"up": True, "carrier": True}},
}


def test_a_fib_as_wanted_has_no_fault() -> None:
    assert router_faults(router_fib_checks(READING, WANTED)) == []


@pytest.mark.parametrize("kind", ["missing", "stale", "different"])
def test_a_fib_that_differs_says_how_and_where(kind: str) -> None:
    wrong = COUNTS | {kind: 1, "examples": [f"10.0.0.0/8: {kind}"]}
    faults = router_faults(router_fib_checks(READING | {"comparison": {"ipv4": wrong}}, WANTED))
    assert faults == [
        f"IPv4 in VPP: found 10 routes, 1 {kind}; 10.0.0.0/8: {kind}, expected the 10 of kernel"
    ]


def test_what_the_agent_finds_itself_is_a_fault() -> None:
    faults = router_faults(router_fib_checks(READING | {"drift": {"exabgp": 2}}, WANTED))
    assert faults == ["drift of exabgp: found 2 routes differ, expected 0 routes differ"]


def test_ports_have_to_be_up_in_vpp() -> None:
    down = {"interfaces": {"uplink": {"up": True, "carrier": False}}}
    assert router_faults(router_fib_checks(READING | down, WANTED)) == [
        "uplink in VPP: found down, expected up"
    ]
    assert router_faults(router_fib_checks(READING | {"interfaces": {}}, WANTED)) == [
        "uplink in VPP: found not there, expected up"
    ]


def test_a_fib_that_cannot_be_read_is_a_fault() -> None:
    assert router_faults(router_fib_checks({"failed": True, "msg": "VPP: gone"}, WANTED)) == [
        "FIB: found VPP: gone, expected to be read"
    ]


def test_the_table_has_a_verdict_in_every_row_and_wraps_long_text() -> None:
    rows = [*router_checks(STATE, WANTED), {"what": "x", "found": "word " * 40, "expected": "y", "ok": False}]
    lines = router_table(rows).splitlines()
    assert max(map(len, lines)) <= 110
    assert sum(line.endswith("ok") for line in lines) == len(rows) - 1
    assert sum(line.endswith("FAIL") for line in lines) == 1
