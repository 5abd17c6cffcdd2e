"""The agent's role: which pipelines follow from the inventory, and that the agent takes what is rendered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from role_variables import rendered_by_ansible
from router_agent.config import load
from router_agent.host_reader.cli import SOCKET as HOST_SOCKET
from router_agent.lab.render import render
from router_agent.web.config import READERS_SOCKET
from router_agent.web.config import load as load_web
from router_agent_pipelines import (
    router_agent_groups,
    router_agent_interfaces,
    router_agent_listens,
    router_agent_namespaces,
    router_agent_pipelines,
    router_agent_state,
)

DEFAULTS = yaml.safe_load(
    (Path(__file__).parents[2] / "roles" / "router_agent" / "defaults" / "main.yml").read_text()
)
FRR = {"name": "transit", "address": "198.51.100.1", "asn": 64501}
EXABGP = {**FRR, "name": "peering", "speaker": "exabgp"}
INTERFACES = {"uplink": "uplink", "bond0.100": "BondEthernet0.100"}


def pipelines(forwarding: str, *peers: dict[str, Any], confirmed: bool = False) -> list[dict[str, Any]]:
    return router_agent_pipelines(
        {"forwarding": forwarding, "asn": 64500, "peers": peers},
        interfaces=INTERFACES,
        protocols=DEFAULTS["router_agent_protocols"],
        exabgp=DEFAULTS["router_agent_exabgp"],
        vpp=DEFAULTS["router_agent_vpp"],
        confirmed=confirmed,
    )


@pytest.mark.parametrize(
    ("forwarding", "peers", "expected"),
    [
        ("kernel", [FRR], []),
        ("kernel", [FRR, EXABGP], [("exabgp", "kernel")]),
        ("vpp", [FRR], [("kernel", "vpp")]),
        ("vpp", [EXABGP], [("exabgp", "kernel"), ("kernel", "vpp")]),
        ("vpp", [], [("kernel", "vpp")]),
    ],
)
def test_pipelines_follow_from_forwarding_and_speakers(
    forwarding: str, peers: list[dict[str, Any]], expected: list[tuple[str, str]]
) -> None:
    found = pipelines(forwarding, *peers)
    assert [(p["feed"]["kind"], p["fib"]["kind"]) for p in found] == expected


@pytest.mark.parametrize(
    ("forwarding", "peers", "expected", "own"),
    [
        ("kernel", [FRR], [], []),
        ("vpp", [FRR], [("fpm", "vpp")], []),
        ("vpp", [FRR, EXABGP], [("exabgp", "kernel"), ("fpm", "vpp")], [201]),
    ],
)
def test_zebra_is_told_what_vpp_has_where_it_shall_wait(
    forwarding: str, peers: list[dict[str, Any]], expected: list[tuple[str, str]], own: list[int]
) -> None:
    found = pipelines(forwarding, *peers, confirmed=True)
    assert [(p["feed"]["kind"], p["fib"]["kind"]) for p in found] == expected
    assert all(p["feed"]["kernel_protocols"] == own for p in found if p["feed"]["kind"] == "fpm")
    assert router_agent_listens(found) is any(kind == "fpm" for kind, _ in expected)
    assert not router_agent_listens(pipelines(forwarding, *peers))


def test_vpp_gets_the_routes_of_exabgp_only_where_it_speaks() -> None:
    without, with_it = pipelines("vpp", FRR)[-1], pipelines("vpp", EXABGP)[-1]
    assert without["feed"]["protocols"] == ["bgp", "zstatic"]
    assert with_it["feed"]["protocols"] == ["bgp", "zstatic", 201]


def test_frr_prefers_what_it_learned_itself() -> None:
    # zebra/rt_netlink.c: the distance of a kernel route is the upper 8 bits of its metric.
    metric = DEFAULTS["router_agent_exabgp"]["metric"]
    assert metric >> 24 == 200
    assert metric & 0xFFFFFF == 20


@pytest.mark.parametrize("forwarding", ["kernel", "vpp"])
def test_the_agent_takes_what_the_role_renders(forwarding: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    wanted = pipelines(forwarding, FRR, EXABGP)
    variables = {
        "hostname": "ams1-r1",
        "control_socket": DEFAULTS["router_agent_control_socket"],
        "control_group": "netops",
        "log_level": "warning",
        "audit": {"rate": 200, "action": "report"},
        "pipelines": wanted,
    }
    text = render("agent.yaml.j2", **variables)
    assert rendered_by_ansible("agent.yaml.j2", variables) == text
    path.write_text(text)
    config = load(path)
    assert config.control.group == "netops"
    assert config.log.level == "warning"
    assert {(p.audit.rate, p.audit.action) for p in config.pipelines} == {(200, "report")}
    said = config.model_dump(mode="json", exclude_unset=True)["pipelines"]
    protocols = {"bgp": 186, "zstatic": 196}
    for pipeline, asked in zip(said, wanted, strict=True):
        feed = dict(asked["feed"])
        if "protocols" in feed:
            feed["protocols"] = [protocols.get(name, name) for name in feed["protocols"]]
        assert pipeline["feed"] == feed
        assert pipeline["fib"] == asked["fib"]


def test_interfaces_are_those_a_next_hop_can_be_behind() -> None:
    ports: list[dict[str, Any]] = [
        {"name": "uplink", "vlans": [{"id": 100}, {"id": 200}]},
        {"name": "left", "bond": "bond0"},
        {"name": "right", "bond": "bond0"},
    ]
    bonds: list[dict[str, Any]] = [{"name": "bond0", "vlans": [{"id": 7}]}, {"name": "bond1"}]
    assert router_agent_interfaces(ports, bonds) == {
        "uplink": "uplink",
        "uplink.100": "uplink.100",
        "uplink.200": "uplink.200",
        "bond0": "BondEthernet0",
        "bond0.7": "BondEthernet0.7",
        "bond1": "BondEthernet1",
    }


def test_the_service_is_in_the_groups_of_the_sockets_it_uses_and_gives() -> None:
    both = pipelines("vpp", EXABGP)
    assert router_agent_groups(both, "vpp", "netops") == ["exabgp", "netops", "vpp"]
    assert router_agent_groups(pipelines("vpp", FRR), "vpp", "") == ["vpp"]
    assert router_agent_groups(pipelines("kernel", EXABGP), "vpp", "") == ["exabgp"]
    assert router_agent_groups([], "vpp", "") == []


def test_namespaces_are_entered_only_where_a_pipeline_names_one() -> None:
    usual = pipelines("vpp", EXABGP)
    assert not router_agent_namespaces(usual)
    other = {"name": "x", "feed": {"kind": "kernel", "namespace": "dataplane"}, "fib": {"kind": "vpp"}}
    assert router_agent_namespaces([*usual, other])


@pytest.mark.parametrize(
    ("found", "changed", "state"),
    [([], True, "stopped"), ([{}], False, "started"), ([{}], True, "restarted")],
)
def test_the_service_restarts_only_when_something_changed(
    found: list[dict[str, Any]], changed: bool, state: str
) -> None:
    assert router_agent_state(found, changed) == state


def unit(*, namespaces: bool) -> dict[str, list[str]]:
    text = render(
        "router-agent.service.j2",
        executable="/opt/router-agent/bin/router-agent",
        config_file="/etc/router-agent/agent.yaml",
        user="router-agent",
        socket_groups=["vpp"],
        namespaces=namespaces,
        after=["frr.service"],
        watchdog_seconds=30,
        start_seconds=120,
    )
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, separator, value = line.partition("=")
        if separator and not name.startswith("#"):
            settings.setdefault(name, []).append(value)
    return settings


def test_the_service_has_one_capability() -> None:
    settings = unit(namespaces=False)
    assert settings["CapabilityBoundingSet"] == settings["AmbientCapabilities"] == ["CAP_NET_ADMIN"]
    assert settings["User"] == ["router-agent"]
    assert settings["RestrictNamespaces"] == ["yes"]
    assert settings["ProtectSystem"] == ["strict"]


def test_other_namespaces_cost_a_second_capability() -> None:
    settings = unit(namespaces=True)
    assert settings["CapabilityBoundingSet"] == ["CAP_NET_ADMIN CAP_SYS_ADMIN"]
    assert settings["RestrictNamespaces"] == ["net"]
    assert "setns" in settings["SystemCallFilter"][0]


def test_the_web_process_takes_what_the_role_renders(tmp_path: Path) -> None:
    variables = {
        "hostname": "ams1-r1",
        "listen": "192.0.2.11",
        "listen_port": 9101,
        "clients": ["192.0.2.9", "2001:db8::/64"],
        "host_names": ["ams1-r1"],
        "readers_socket": DEFAULTS["router_agent_readers_socket"],
        "host_socket": DEFAULTS["router_agent_host_socket"],
        "log_level": "warning",
    }
    text = render("router-agent-web.yaml.j2", **variables)
    assert rendered_by_ansible("router-agent-web.yaml.j2", variables) == text
    path = tmp_path / "web.yaml"
    path.write_text(text)
    config = load_web(path)
    assert (str(config.address), config.port, config.hosts) == ("192.0.2.11", 9101, ("ams1-r1",))
    assert list(map(str, config.clients)) == ["192.0.2.9/32", "2001:db8::/64"]
    assert config.control_socket == READERS_SOCKET
    assert (config.host_socket, config.router) == (HOST_SOCKET, "ams1-r1")
    assert config.log.level == "warning"


@pytest.mark.parametrize(
    ("listen", "clients", "stream", "allowed"),
    [
        ("127.0.0.1", [], "127.0.0.1:9101", "localhost"),
        ("2001:db8::1", ["192.0.2.9", "2001:db8::/64"], "[2001:db8::1]:9101", "192.0.2.9 2001:db8::/64"),
    ],
)
def test_only_those_who_are_named_reach_the_web_process(
    listen: str, clients: list[str], stream: str, allowed: str
) -> None:
    variables = {"listen": listen, "listen_port": 9101, "clients": clients}
    text = render("router-agent-web.socket.j2", **variables)
    assert rendered_by_ansible("router-agent-web.socket.j2", variables) == text
    lines = text.splitlines()
    assert f"ListenStream={stream}" in lines
    assert lines.index("IPAddressDeny=any") < lines.index(f"IPAddressAllow={allowed}")


def test_the_web_process_may_do_nothing_but_answer() -> None:
    text = render(
        "router-agent-web.service.j2",
        executable="/opt/router-agent/bin/router-agent",
        config_file="/etc/router-agent/web.yaml",
        user="router-agent-web",
    )
    lines = text.splitlines()
    assert "SupplementaryGroups" not in text
    for line in (
        "User=router-agent-web",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "PrivateNetwork=yes",
        "RestrictAddressFamilies=AF_UNIX",
        "ProtectSystem=strict",
    ):
        assert line in lines


def test_the_hosts_reader_is_in_frrs_group_and_has_no_network() -> None:
    variables = {
        "executable": "/opt/router-agent/bin/router-agent",
        "user": DEFAULTS["router_agent_host_user"],
        "socket": DEFAULTS["router_agent_host_socket"],
        "socket_group": "router-agent-web",
        "frr_group": DEFAULTS["router_agent_frr_group"],
    }
    text = render("router-agent-host-reader.service.j2", **variables)
    assert rendered_by_ansible("router-agent-host-reader.service.j2", variables) == text
    lines = text.splitlines()
    for line in (
        "User=router-agent-host",
        "SupplementaryGroups=frrvty router-agent-web",
        "ExecStart=/opt/router-agent/bin/router-agent host-reader "
        "--socket /run/router-agent-host/reader.sock --group router-agent-web",
        "RuntimeDirectory=router-agent-host",
        "CapabilityBoundingSet=",
        "IPAddressDeny=any",
        "NoNewPrivileges=yes",
        "RestrictAddressFamilies=AF_UNIX AF_NETLINK",
        "SystemCallFilter=@chown capset",
        "ProtectSystem=strict",
    ):
        assert line in lines


def test_the_agent_gives_readers_a_socket_where_the_web_process_runs() -> None:
    found = pipelines("vpp", FRR)
    assert router_agent_groups(found, "vpp", "", "router-agent-web") == ["router-agent-web", "vpp"]
    variables = {
        "hostname": "ams1-r1",
        "control_socket": "/run/c",
        "pipelines": found,
        "readers_socket": "/run/r",
        "readers_group": "router-agent-web",
    }
    config = yaml.safe_load(render("agent.yaml.j2", **variables))
    assert config["control"] == {
        "socket": "/run/c",
        "readers_socket": "/run/r",
        "readers_group": "router-agent-web",
    }
    without = yaml.safe_load(render("agent.yaml.j2", **(variables | {"readers_socket": ""})))
    assert without["control"] == {"socket": "/run/c"}
