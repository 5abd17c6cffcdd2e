"""Role exabgp: what the inventory becomes in exabgp.conf, and when its module restarts ExaBGP.

After a wanted change: ``GOLDEN=write pytest tests/unit/test_role_exabgp.py``, then look at the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from exabgp_configuration import action_for, digest, masked
from exabgp_variables import (
    exabgp_graceful_shutdown,
    exabgp_peers,
    exabgp_services,
    exabgp_services_sessions,
)
from role_variables import rendered_by_ansible
from router_agent.lab.render import render

ROLES = Path(__file__).parents[2] / "roles"
GOLDEN = Path(__file__).with_name("golden")
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLES / "exabgp" / "defaults" / "main.yml").read_text())

PEERS: list[dict[str, Any]] = [
    {
        "name": "transit_b",
        "speaker": "exabgp",
        "address": "198.51.100.5",
        "local_address": "198.51.100.6",
        "asn": 64502,
        "maximum_prefixes": 1_300_000,
        "password": "s#c;et{1}",
        "timers": {"keepalive": 10, "hold": 30},
        "communities": ["64500:100"],
        "prepend": 1,
    },
    {
        "name": "far_v6",
        "speaker": "exabgp",
        "description": "far away",
        "address": "2001:db8:0:9::1",
        "local_address": "2001:db8:0:1::2",
        "asn": 64503,
        "maximum_prefixes": 300_000,
        "multihop": 5,
    },
    {"name": "transit_a", "address": "198.51.100.1", "asn": 64501, "maximum_prefixes": 9},
]
SERVICES: list[dict[str, Any]] = [
    {
        "name": "dns",
        "addresses": ["192.0.2.53/32", "2001:db8:53::53/128", "192.0.2.54/32"],
        "check": "dig +short @192.0.2.53 'health.example' | grep -q '^ok$' # one; two",
        "interval": 2,
        "fall": 2,
    },
    {"name": "ntp", "addresses": ["192.0.2.123/32"], "check": """x='it"s'\ntest "$x" = 'it"s'"""},
]


def services(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return exabgp_services(
        of,
        neighbors=DEFAULTS["exabgp_services_neighbors"],
        next_hops=DEFAULTS["exabgp_services_discard"],
        checks="/etc/exabgp/checks",
        drain=DEFAULTS["exabgp_drain_directory"],
    )


def sessions(of: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return exabgp_services_sessions(
        of,
        neighbors=DEFAULTS["exabgp_services_neighbors"],
        addresses=DEFAULTS["exabgp_services_addresses"],
        hold_seconds=DEFAULTS["exabgp_services_hold_seconds"],
    )


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "role-exabgp.conf": (
        "exabgp.conf.j2",
        {
            "hostname": "ams1-r1",
            "router_id": "192.0.2.1",
            "asn": 64500,
            "relay": "/usr/bin/python3 -I -S /usr/local/lib/pop-router/exabgp_relay.py /run/agent.sock",
            "relay_process": "router-agent-0a1b2c3d",
            "graceful_restart_seconds": 120,
            "announce": {"ipv4": ["192.0.2.0/24"], "ipv6": ["2001:db8:53::/48"]},
            "peers": exabgp_peers(PEERS, asn=64500),
            "graceful_shutdown": exabgp_graceful_shutdown(
                exabgp_peers(PEERS, asn=64500),
                {"ipv4": ["192.0.2.0/24"], "ipv6": ["2001:db8:53::/48"]},
                asn=64500,
                command="/usr/bin/python3 -I -S /usr/local/lib/exabgp_announcer.py /run/mark /run/status",
                source="",
            ),
            "healthcheck": "/opt/exabgp/bin/exabgp healthcheck",
            "services": services(SERVICES),
            "services_sessions": sessions(SERVICES),
        },
    ),
    "role-exabgp-checks": ("exabgp-checks.sh.j2", {"services": SERVICES}),
    "role-exabgp.env": ("exabgp.env.j2", {"log_level": "INFO"}),
    "role-exabgp.service": (
        "exabgp.service.j2",
        {
            "executable": "/opt/exabgp/bin/exabgp",
            "config_file": "/etc/exabgp/exabgp.conf",
            "environment_file": "/etc/exabgp/exabgp.env",
            "user": "exabgp",
            "after": ["frr.service", "router-agent.service"],
            "writable": ["/var/lib/checks"],
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_template_renders_to_what_was_looked_at(name: str) -> None:
    template, variables = CASES[name]
    rendered = render(template, **variables)
    assert rendered_by_ansible(template, variables) == rendered
    golden = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(rendered)
    assert rendered == golden.read_text()


def test_both_ends_of_the_services_session_agree() -> None:
    frr = yaml.safe_load((ROLES / "frr" / "defaults" / "main.yml").read_text())
    for name in ("services_addresses", "services_discard"):
        assert frr[f"frr_{name}"] == DEFAULTS[f"exabgp_{name}"]


def test_a_peer_gets_what_is_right_for_it() -> None:
    near, far = exabgp_peers(PEERS, asn=64500)
    assert near["incoming_ttl"] == 255
    assert (near["family"], near["hold_seconds"], near["prepend"]) == ("ipv4", 30, 1)
    assert "incoming_ttl" not in far
    assert far["outgoing_ttl"] == 5
    (off,) = exabgp_peers([PEERS[0] | {"ttl_security_hops": 0}], asn=64500)
    (wide,) = exabgp_peers([PEERS[0] | {"ttl_security_hops": 3}], asn=64500)
    assert "incoming_ttl" not in off
    assert wide["incoming_ttl"] == 253


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asn": 64500}, r"router_peers\[transit_b\]\.asn: found the router's own 64500"),
        ({"bfd": True}, r"\.bfd: found True, expected none with speaker exabgp: ExaBGP knows no BFD"),
        ({"local_preference": 200}, r"\.local_preference: found 200, expected none with speaker exabgp"),
        ({"local_address": None}, r"\.local_address: found none, expected our address"),
        ({"password": "it's"}, r"\.password: found a quote, a backslash or a control character"),
        ({"password": "x" * 81}, r"\.password: found 81 characters"),
        ({"description": 'the "best"'}, r"\.description: found 'the \"best\"', expected text without quotes"),
        ({"multihop": 3, "ttl_security_hops": 2}, r"found both multihop and ttl_security_hops"),
    ],
)
def test_a_peer_that_cannot_be_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message) as raised:
        exabgp_peers([PEERS[0] | change], asn=64500)
    assert "it's" not in str(raised.value), "a password must not be quoted"


def test_a_service_has_a_process_for_each_family() -> None:
    assert [re.sub(r"[0-9a-f]{8}$", "", service["process"]) for service in services(SERVICES)] == [
        "service-ipv4-dns-",
        "service-ipv6-dns-",
        "service-ipv4-ntp-",
    ]
    dns, dns_v6, ntp = (service["arguments"] for service in services(SERVICES))
    assert "--neighbor 127.0.0.1 --ip 192.0.2.53/32 --ip 192.0.2.54/32 --next-hop 192.0.0.8 " in dns
    assert "--neighbor ::1 --ip 2001:db8:53::53/128 --next-hop 100::1 " in dns_v6
    assert "--rise 2 --fall 3 " in ntp
    assert "--withdraw-on-down" in ntp


def test_a_change_of_a_check_changes_the_name_of_its_process_alone() -> None:
    before = services(SERVICES)
    after = services([SERVICES[0], SERVICES[1] | {"interval": 9}])
    assert [old["process"] == new["process"] for old, new in zip(before, after, strict=True)] == [
        True,
        True,
        False,
    ]


def test_each_process_announces_to_the_session_of_its_family() -> None:
    v4, v6 = sessions(SERVICES)
    for service in services(SERVICES):
        matching = [one["family"] for one in (v4, v6) if re.match(one["processes"], service["process"])]
        assert matching == [service["process"].split("-")[1]]
    assert v6["router_id"] == v4["router_id"]
    assert [one["family"] for one in sessions(SERVICES[1:])] == ["ipv4"]
    assert sessions([]) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "n t;p"}, r"router_services\[n t;p\]\.name: found 'n t;p', expected letters"),
        ({"addresses": ["192.0.2.300/32"]}, r"router_services\[ntp\]\.addresses: found '192\.0\.2\.300/32'"),
    ],
)
def test_a_service_that_cannot_be_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        services([SERVICES[1] | change])


def test_passwords_are_masked() -> None:
    said = masked("    md5-password 'one two';\n    hold-time 30;\n")
    assert said == "    md5-password ********\n    hold-time 30;\n"


@pytest.mark.parametrize(
    ("applied", "active", "action"),
    [
        ({"restart": "r", "reload": "l"}, True, "none"),
        ({"restart": "r", "reload": "old"}, True, "reload"),
        ({"restart": "old", "reload": "old"}, True, "restart"),
        ({}, True, "restart"),
        ({"restart": "r", "reload": "l"}, False, "start"),
    ],
)
def test_exabgp_is_disturbed_no_more_than_needed(applied: dict[str, str], active: bool, action: str) -> None:
    assert action_for(applied, {"restart": "r", "reload": "l"}, active=active) == action


def test_a_digest_knows_where_one_text_ends() -> None:
    assert digest("a", "bc") != digest("ab", "c")
