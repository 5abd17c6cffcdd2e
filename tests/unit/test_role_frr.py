"""Role frr: what the inventory becomes in frr.conf, and what its module makes of FRR's answers.

After a wanted change: ``GOLDEN=write pytest tests/unit/test_role_frr.py``, then look at the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from frr_configuration import delta_of, difference, masked, wanted_daemons
from frr_variables import (
    frr_apt_names,
    frr_files,
    frr_installed,
    frr_missing,
    frr_networks,
    frr_peers,
    frr_reads_confirmations,
    frr_reserved,
    frr_rpki_transport,
    frr_service_prefixes,
)
from role_variables import rendered_by_ansible
from router_agent.lab.render import render
from router_agent.lab.reserved import RESERVED
from router_agent.model import Family

ROLE = Path(__file__).parents[2] / "roles" / "frr"
GOLDEN = Path(__file__).with_name("golden")
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())

PEERS: list[dict[str, Any]] = [
    {
        "name": "transit_a",
        "description": "transit A, IPv4",
        "address": "198.51.100.1",
        "asn": 3320,
        "local_address": "198.51.100.2",
        "password": "secret#1",
        "maximum_prefixes": 1_300_000,
        "bfd": True,
        "local_preference": 200,
        "timers": {"keepalive": 10, "hold": 30},
    },
    {
        "name": "transit_a_v6",
        "address": "2001:db8:0:1::1",
        "asn": 3320,
        "maximum_prefixes": 300_000,
        "communities": ["64500:100", "64500:200"],
        "prepend": 2,
    },
    {"name": "far", "address": "203.0.113.9", "asn": 64999, "maximum_prefixes": 10, "multihop": 4},
    {"name": "second", "speaker": "exabgp", "address": "198.51.100.5", "asn": 64502, "maximum_prefixes": 9},
]
TOLD_ALL: dict[str, Any] = {
    "name": "inside",
    "address": "203.0.113.1",
    "asn": 64999,
    "maximum_prefixes": 10,
    "announce_all": True,
}
SERVICES = [
    {"name": "dns", "addresses": ["192.0.2.53/32", "2001:db8:53::53/128"], "check": "true"},
    {"name": "ntp", "addresses": ["192.0.2.123/32", "192.0.2.53/32"], "check": "true"},
]


def role_variables(**changes: Any) -> dict[str, Any]:
    """What tasks/configure.yml gives the template."""
    services = frr_service_prefixes(SERVICES)
    variables: dict[str, Any] = {
        "hostname": "ams1-r1",
        "router_id": "192.0.2.1",
        "asn": 64500,
        "log": "syslog",
        "graceful_restart": DEFAULTS["frr_graceful_restart"],
        "log_neighbor_changes": True,
        "announce": {"ipv4": ["192.0.2.0/24"], "ipv6": ["2001:db8:53::/48"]},
        "reserved": frr_reserved(DEFAULTS["frr_reserved_prefixes"], []),
        "accept_longest": DEFAULTS["frr_accept_longest"],
        "peers": frr_peers(PEERS, asn=64500, refuse_reserved_asns=True),
        "refused_as_paths": DEFAULTS["frr_reserved_as_paths"],
        "rpki": {"caches": [{"address": "192.0.2.10", "port": 3323}], "transport": ""},
        "services": services
        | {"addresses": DEFAULTS["frr_services_addresses"], "discard": DEFAULTS["frr_services_discard"]},
    }
    return variables | changes


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "role-frr.conf": ("frr.conf.j2", role_variables()),
    "role-frr-confirmed.conf": (
        "frr.conf.j2",
        role_variables(
            peers=frr_peers([*PEERS, TOLD_ALL], asn=64500, refuse_reserved_asns=True),
            rpki=None,
            services=None,
            confirmed={"address": "127.0.0.1"},
        ),
    ),
    "role-daemons-confirmed": (
        "daemons.j2",
        {
            "bfd": False,
            "rpki": False,
            "netlink_buffer": 90_000_000,
            "retain_seconds": 300,
            "maximum_files": 4096,
            "confirmed": True,
        },
    ),
    "role-daemons": (
        "daemons.j2",
        {
            "bfd": True,
            "rpki": True,
            "netlink_buffer": 90_000_000,
            "retain_seconds": 300,
            "maximum_files": 4096,
        },
    ),
    "role-frr.sources": (
        "frr-repository.sources.j2",
        {
            "url": "https://deb.frrouting.org/frr",
            "suite": "trixie",
            "components": ["frr-stable"],
            "signing_key": "/etc/apt/keyrings/frr.gpg",
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


def test_every_route_map_list_and_neighbour_that_is_named_is_defined() -> None:
    config = render("frr.conf.j2", **role_variables())
    maps = set(re.findall(r"^route-map (\S+) ", config, re.MULTILINE))
    lists = set(re.findall(r"^(?:ip|ipv6) prefix-list (\S+) ", config, re.MULTILINE))
    paths = set(re.findall(r"^bgp as-path access-list (\S+) ", config, re.MULTILINE))
    assert set(re.findall(r" route-map (\S+) (?:in|out)$", config, re.MULTILINE)) == maps
    assert set(re.findall(r"address prefix-list (\S+)$", config, re.MULTILINE)) == lists
    assert set(re.findall(r"match as-path (\S+)$", config, re.MULTILINE)) == paths


def test_every_session_has_a_policy_in_both_directions() -> None:
    config = render("frr.conf.j2", **role_variables())
    assert "ebgp-requires-policy" not in config
    activated = re.findall(r"^  neighbor (\S+) activate$", config, re.MULTILINE)
    assert len(activated) == 5
    for address in activated:
        for direction in ("in", "out"):
            assert re.search(rf"^  neighbor {address} route-map \S+ {direction}$", config, re.MULTILINE)


def test_only_own_prefixes_and_services_leave() -> None:
    config = render("frr.conf.j2", **role_variables())
    permitted = re.findall(r"^ip(?:v6)? prefix-list OWN-V[46] seq \d+ permit (.*)$", config, re.MULTILINE)
    assert permitted == [
        "192.0.2.0/24",
        "192.0.2.53/32",
        "192.0.2.123/32",
        "2001:db8:53::/48",
        "2001:db8:53::53/128",
    ]
    assert "route-map services-out deny 10\nexit" in config


def test_the_template_takes_none_for_what_is_not_wanted() -> None:
    without = render("frr.conf.j2", **role_variables(services=None, rpki=None, refused_as_paths=None))
    for word in ("services", "rpki", "127.0.0.2", "192.0.0.8"):
        assert word not in without


def test_only_a_peer_that_asks_for_it_is_told_everything() -> None:
    config = CASES["role-frr-confirmed.conf"]
    text = render(config[0], **config[1])
    unlimited = re.findall(r"^route-map (\S+)-OUT permit 10\nexit", text, re.MULTILINE)
    assert unlimited == ["INSIDE"]
    assert re.findall(r"^  neighbor (\S+) next-hop-self$", text, re.MULTILINE) == ["203.0.113.1"]


def test_the_kernel_needs_nobody_to_confirm() -> None:
    with_agent = render("frr.conf.j2", **role_variables(confirmed={"address": "127.0.0.1"}))
    kernel = render("frr.conf.j2", **role_variables(confirmed={}))
    without = render("frr.conf.j2", **role_variables(confirmed=None))
    words = ("fpm address 127.0.0.1", "bgp suppress-fib-pending")
    assert [[word in text for word in words] for text in (with_agent, kernel, without)] == [
        [True, True], [False, True], [False, False],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "can"),
    [
        ("8.4.4-1.1~deb12u1", False),
        ("8.5-1", True),
        ("10.2.6-0~deb13u1", True),
        ("10.3-1+b1", False),
        ("10.3.4", False),
        ("10.4.0", True),
        ("1:10.7.1-2", True),
        ("", True),
        ("unknown", False),
    ],
)
def test_versions_that_read_confirmations(version: str, can: bool) -> None:
    assert frr_reads_confirmations(version) is can


def test_a_peer_gets_what_is_right_for_it() -> None:
    near, near_v6, far = frr_peers(PEERS, asn=64500, refuse_reserved_asns=True)
    assert (near["name"], near["family"], near["update_source"]) == ("TRANSIT-A", "ipv4", "198.51.100.2")
    assert near["ttl_security_hops"] == 1
    assert near["refuse_as_paths"]
    assert (near_v6["family"], near_v6["description"]) == ("ipv6", "transit_a_v6")
    assert "password" not in near_v6
    assert "timers" not in near_v6
    assert "ttl_security_hops" not in far
    assert far["multihop"] == 4
    assert not far["refuse_as_paths"], "all of its own paths would be refused"


def test_ttl_security_can_be_turned_off_and_widened() -> None:
    peer = PEERS[1]
    off, wide = frr_peers(
        [peer | {"ttl_security_hops": 0}, peer | {"ttl_security_hops": 3}],
        asn=64500,
        refuse_reserved_asns=True,
    )
    assert "ttl_security_hops" not in off
    assert wide["ttl_security_hops"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asn": 64500}, r"router_peers\[transit_a_v6\]\.asn: found the router's own 64500"),
        ({"password": "two words"}, r"router_peers\[transit_a_v6\]\.password: found a blank"),
        ({"password": "x" * 81}, r"found 81 characters, expected 80 at most"),
        ({"description": "two\nlines"}, r"\.description: found 'two\\nlines', expected one line"),
        ({"multihop": 3, "ttl_security_hops": 2}, r"found both multihop and ttl_security_hops"),
    ],
)
def test_a_peer_that_cannot_be_is_refused_by_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message) as raised:
        frr_peers([PEERS[1] | change], asn=64500, refuse_reserved_asns=True)
    assert "two words" not in str(raised.value), "a password must not be quoted"


def test_the_reserved_prefixes_are_those_of_the_lab() -> None:
    ours = DEFAULTS["frr_reserved_prefixes"]
    assert ours["ipv4"] == [str(prefix) for prefix in RESERVED[Family.IPV4]]
    assert ours["ipv6"] == [str(prefix) for prefix in RESERVED[Family.IPV6]]


def test_a_laboratory_lifts_documentation_prefixes() -> None:
    reserved = {"ipv4": ["10.0.0.0/8", "192.0.2.0/24", "198.18.0.0/15"], "ipv6": ["2001:db8::/32"]}
    assert frr_reserved(reserved, ["192.0.2.0/24", "198.16.0.0/12", "2001:db8::/32"]) == {
        "ipv4": ["10.0.0.0/8"],
        "ipv6": [],
    }
    for part in ("10.1.0.0/16", "203.0.113.0/24"):
        with pytest.raises(AnsibleFilterError, match=f"found {part}, expected a prefix that covers"):
            frr_reserved(reserved, [part])
    with pytest.raises(AnsibleFilterError, match="found '10/8', expected a prefix"):
        frr_reserved(reserved, ["10/8"])


def as_python(expression: str) -> re.Pattern[str]:
    """An expression of FRR's, where _ is a border of AS numbers."""
    return re.compile(expression.replace("_", r"(^|[,{}() ]|$)"))


@pytest.mark.parametrize(
    "asn",
    [0, 23456, 64496, 64500, 64511, 64512, 65000, 65534, 65535, 65536, 65551, 70000, 99999, 100000, 129999,
     130000, 130999, 131000, 131069, 131070, 131071, 4200000000, 4294967294, 4294967295],
)  # fmt: skip
def test_a_reserved_as_number_is_refused_wherever_it_stands(asn: int) -> None:
    (expression,) = DEFAULTS["frr_reserved_as_paths"]
    for path in (f"{asn}", f"3320 {asn}", f"{asn} 3320", f"3320 {asn} 174", f"3320 {{174,{asn}}}"):
        assert as_python(expression).search(path), path


@pytest.mark.parametrize(
    "asn",
    [1, 174, 2345, 3320, 23455, 23457, 64495, 131072, 131080, 132000, 140000, 199999, 420000000, 4199999999],
)
def test_a_public_as_number_is_not_refused(asn: int) -> None:
    (expression,) = DEFAULTS["frr_reserved_as_paths"]
    assert not as_python(expression).search(f"3320 {asn} 174")


def test_networks_are_written_as_frr_writes_them() -> None:
    given = {"ipv6": ["2001:0DB8:0053::/48"]}
    assert frr_networks(given) == {"ipv4": [], "ipv6": ["2001:db8:53::/48"]}
    with pytest.raises(AnsibleFilterError, match=r"router_networks\.ipv4: found '192\.0\.2\.1/24'"):
        frr_networks({"ipv4": ["192.0.2.1/24"]})
    with pytest.raises(AnsibleFilterError, match=r"router_networks\.ipv4: found 2001:db8::/32"):
        frr_networks({"ipv4": ["2001:db8::/32"]})


def test_the_installed_packages_are_read() -> None:
    listing = (
        "frr 8.4.4-1.1~deb12u2 installed\nfrr-pythontools 8.4.4-1.1~deb12u2 config-files\n"
        "frr-rpki-rtrlib  not-installed\n"
    )
    assert frr_installed(listing) == {"frr": "8.4.4-1.1~deb12u2"}


@pytest.mark.parametrize(
    ("version", "word"),
    [("8.4.4-1.1~deb12u2", ""), ("10.0-1", ""), ("10.1-1", "tcp"), ("10.3-3+deb13u1", "tcp"), ("", "tcp")],
)
def test_a_cache_is_written_as_the_version_writes_it(version: str, word: str) -> None:
    assert frr_rpki_transport(version) == word


def test_passwords_are_masked_to_the_end_of_the_line() -> None:
    text = " neighbor 192.0.2.1 password one\nline 3: % Unknown: neighbor ::1 password two three\n desc x"
    said = masked(text)
    assert "one" not in said
    assert "two" not in said
    assert "three" not in said
    assert said.count("password ********") == 2
    assert said.endswith("\n desc x")


def test_the_delta_is_read_from_what_frr_reload_prints() -> None:
    printed = (
        "\nLines To Delete\n===============\n"
        "router bgp 64500\n no neighbor 192.0.2.1 remote-as 64501\nexit\n\n"
        "Lines To Add\n============\nip route 192.0.2.0/24 blackhole\n"
    )
    assert delta_of(printed).splitlines() == [
        "- router bgp 64500",
        "-  no neighbor 192.0.2.1 remote-as 64501",
        "- exit",
        "+ ip route 192.0.2.0/24 blackhole",
    ]
    assert delta_of("") == ""


def test_the_name_of_the_host_makes_no_difference() -> None:
    deleted = "\nLines To Delete\n===============\nno hostname debian\n"
    added = "\nLines To Add\n============\nhostname ams1-r1\n"
    assert delta_of(deleted + added) == ""


def test_daemons_and_their_options_are_read() -> None:
    text = render(
        "daemons.j2", bfd=False, rpki=True, netlink_buffer=1000, retain_seconds=60, maximum_files=4096
    )
    assert wanted_daemons(text) == {
        "zebra": ["-A", "127.0.0.1", "-s", "1000", "-K", "60"],
        "mgmtd": ["-A", "127.0.0.1"],
        "staticd": ["-A", "127.0.0.1"],
        "bgpd": ["-A", "127.0.0.1", "-M", "rpki"],
    }


def test_a_new_daemon_is_started_and_other_differences_want_a_restart() -> None:
    local = ["-A", "127.0.0.1"]
    wanted = {"zebra": [*local, "-s", "1000"], "mgmtd": local, "bgpd": [*local, "-M", "rpki"], "bfdd": local}
    zebra = ["/usr/lib/frr/zebra", "-d", "-F", "traditional", "-A", "127.0.0.1", "-s", "1000"]
    bgpd = ["/usr/lib/frr/bgpd", "-d", "-A", "127.0.0.1", "-M", "rpki"]
    known = {"zebra", "bgpd", "bfdd", "ripd"}
    assert difference(wanted, {"zebra": zebra, "bgpd": bgpd}, known) == (["bfdd"], [])
    bfdd = ["/usr/lib/frr/bfdd", "-d", "-A", "127.0.0.1"]
    running = {"zebra": [*zebra[:-1], "900"], "bgpd": bgpd, "bfdd": bfdd, "ripd": ["/usr/lib/frr/ripd"]}
    new, reasons = difference(wanted, running, known)
    assert new == []
    assert reasons == ["zebra runs without '-A 127.0.0.1 -s 1000'", "ripd runs and is not wanted"]


def test_only_what_is_not_in_the_version_wanted_is_missing() -> None:
    installed = {"frr": "10.3-3", "frr-pythontools": "1:10.3-4"}
    packages = ["frr", "frr-pythontools", "frr-rpki-rtrlib"]
    assert frr_missing(packages, installed, "*") == ["frr-rpki-rtrlib"]
    assert frr_missing(packages, installed, "10.3-3") == ["frr-pythontools", "frr-rpki-rtrlib"]
    assert frr_missing(packages[:2], installed, "10.3*") == []
    assert frr_missing(packages[:2], installed, "10.4-1") == packages[:2]


def test_apt_is_told_the_version_unless_any_will_do() -> None:
    assert frr_apt_names(["frr", "frr-pythontools"], "*") == ["frr", "frr-pythontools"]
    assert frr_apt_names(["frr"], "10.3-3") == ["frr=10.3-3"]


def test_of_a_directory_frrs_packages_are_those_of_the_version_and_all_others() -> None:
    files = ["frr_10.3-3_amd64.deb", "frr_10.3-4_amd64.deb", "libyang2_2.1.30-2_amd64.deb"]
    assert frr_files(files, ["frr"], "10.3-4") == ["frr_10.3-4_amd64.deb", "libyang2_2.1.30-2_amd64.deb"]
    assert frr_files(files, ["frr"], "*") == files
