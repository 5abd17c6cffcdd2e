"""The templates: each renders to the text a person has looked at, and to nothing when a variable is missing.

After a wanted change: ``GOLDEN=write pytest tests/unit/test_lab_templates.py``, then look at the difference.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from router_agent.config import load
from router_agent.lab.agent import agent_config
from router_agent.lab.errors import LabError
from router_agent.lab.frr import frr_config
from router_agent.lab.render import TEMPLATES, render
from router_agent.lab.reserved import RESERVED
from router_agent.model import Family

GOLDEN = Path(__file__).with_name("golden")

ANNOUNCE = {"ipv4": ["192.0.2.0/24"], "ipv6": ["2001:db8:ffff::/48"]}

CASES: dict[str, dict[str, Any]] = {
    "agent.yaml": {
        "hostname": "pop1",
        "control_socket": "/run/router-agent/control.sock",
        "pipelines": [
            {
                "name": "bgp",
                "feed": {"kind": "exabgp", "socket": "/run/router-agent/exabgp.sock", "local_as": 64500},
                "fib": {"kind": "kernel", "protocol": 45, "metric": 20},
            },
            {
                "name": "lab",
                "feed": {"kind": "kernel", "namespace": "pop1", "tables": [254, 100]},
                "fib": {
                    "kind": "kernel",
                    "namespace": "pop1-fwd",
                    "protocol": 44,
                    "metric": 20,
                    "on_link": True,
                    "interfaces": {"uplink": "uplink", "out": "out"},
                },
            },
            {
                "name": "confirmed",
                "feed": {"kind": "fpm", "tables": [254], "kernel_protocols": [201, 4], "port": 2621},
                "fib": {"kind": "vpp", "api_socket": "/run/vpp/other.sock", "source": "router-agent"},
            },
            {
                "name": "fib",
                "feed": {"kind": "kernel", "tables": [254]},
                "fib": {
                    "kind": "vpp",
                    "api_socket": "/run/vpp/api.sock",
                    "source": "router-agent",
                    "interfaces": {"xe0": "TenGigabitEthernet2/0/0"},
                },
            },
        ],
    },
    "bird.conf": {
        "hostname": "upstream",
        "router_id": "198.18.1.2",
        "asn": 64496,
        "log_file": "/run/bird.log",
        "table_file": "/run/table.conf",
        "peers": [
            {
                "name": "pop1_v4",
                "description": "POP, IPv4",
                "family": "ipv4",
                "local_address": "198.18.1.2",
                "address": "198.18.1.1",
                "asn": 64500,
                "accept": ["192.0.2.0/24"],
                "password": "secret",
            },
        ],
    },
    "exabgp.conf": {
        "hostname": "pop1",
        "router_id": "198.18.1.1",
        "asn": 64500,
        "relay": "/usr/bin/python3 -I -S /usr/lib/exabgp_relay.py /run/router-agent/exabgp.sock",
        "graceful_restart_seconds": 120,
        "announce": ANNOUNCE | {"ipv6": []},
        "peers": [
            {
                "description": "upstream, IPv4",
                "family": "ipv4",
                "address": "198.18.1.2",
                "local_address": "198.18.1.1",
                "asn": 64496,
                "password": "secret",
                "hold_seconds": 30,
            },
            {
                "description": "upstream, IPv6",
                "family": "ipv6",
                "address": "2001:db8:0:1::2",
                "local_address": "2001:db8:0:1::1",
                "asn": 64496,
            },
        ],
    },
    "frr.conf": {
        "hostname": "pop1",
        "router_id": "198.18.1.1",
        "asn": 64500,
        "log": "syslog",
        "graceful_restart": True,
        "announce": ANNOUNCE,
        "reserved": {
            "ipv4": [str(p) for p in RESERVED[Family.IPV4]],
            "ipv6": [str(p) for p in RESERVED[Family.IPV6]],
        },
        "accept_longest": {"ipv4": 24, "ipv6": 48},
        "peers": [
            {
                "name": "TRANSIT-V4",
                "description": "transit, IPv4",
                "family": "ipv4",
                "address": "198.18.1.2",
                "asn": 64496,
                "maximum_prefixes": 1_300_000,
                "password": "secret",
                "bfd": True,
                "timers": {"keepalive": 10, "hold": 30},
                "local_preference": 200,
                "communities": ["64496:100", "64496:200"],
                "prepend": 2,
            },
            {
                "name": "TRANSIT-V6",
                "description": "transit, IPv6",
                "family": "ipv6",
                "address": "2001:db8:0:1::2",
                "asn": 64496,
                "maximum_prefixes": 250_000,
            },
        ],
    },
    "router-agent.service": {
        "executable": "/opt/router-agent/bin/router-agent",
        "config_file": "/etc/router-agent/agent.yaml",
        "user": "router-agent",
        "socket_groups": ["exabgp", "vpp"],
        "namespaces": False,
        "after": ["frr.service", "vpp.service"],
        "watchdog_seconds": 10,
        "start_seconds": 300,
    },
    "startup.conf": {
        "hostname": "pop1",
        "runtime_dir": "/run/vpp",
        "api_socket": "/run/vpp/api.sock",
        "api_prefix": "vpp",
        "log_file": "/var/log/vpp/vpp.log",
        "memory": {"heap": "3G", "stats": "512M", "page_size": "1G"},
        "buffers_per_numa": 65_536,
        "plugins": ["dpdk", "linux_cp"],
        "cpu": {"main": 1, "workers": [2, 3]},
        "linux_cp": {"namespace": "dataplane"},
        "dpdk": {
            "ports": [
                {
                    "pci": "0000:02:00.0",
                    "name": "xe0",
                    "rx_queues": 2,
                    "rx_descriptors": 1024,
                    "tx_descriptors": 1024,
                }
            ]
        },
    },
}


def test_every_configuration_of_the_lab_has_a_case() -> None:
    """Templates that only roles render are tested with the roles."""
    rendered = {path.name.removesuffix(".j2") for path in TEMPLATES.glob("*.j2") if ".html." not in path.name}
    assert set(CASES) <= rendered
    roles = TEMPLATES.parent / "roles"
    text = "".join(path.read_text() for suffix in ("yml", "py") for path in roles.glob(f"*/*/*.{suffix}"))
    assert [name for name in sorted(rendered - set(CASES)) if name not in text] == []


@pytest.mark.parametrize("name", CASES)
def test_a_template_renders_to_what_was_looked_at(name: str) -> None:
    rendered = render(f"{name}.j2", **CASES[name])
    golden = GOLDEN / name
    if os.environ.get("GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(rendered)
    assert rendered == golden.read_text()


@pytest.mark.parametrize(("name", "variable"), [(n, v) for n, case in CASES.items() for v in case])
def test_a_missing_variable_is_an_error_unless_it_is_optional(name: str, variable: str) -> None:
    optional = {"startup.conf": {"log_file", "cpu", "linux_cp", "dpdk"}}.get(name, set())
    rest = {key: value for key, value in CASES[name].items() if key != variable}
    if variable in optional:
        assert render(f"{name}.j2", **rest)
        return
    with pytest.raises(LabError, match=f"{name}.j2: UndefinedError: '{variable}' is undefined"):
        render(f"{name}.j2", **rest)


@pytest.mark.parametrize("name", CASES)
def test_a_rendered_file_is_tidy(name: str) -> None:
    rendered = render(f"{name}.j2", **CASES[name])
    assert not re.search(r"[ \t]$", rendered, re.MULTILINE)
    assert "\n\n\n" not in rendered
    assert rendered.endswith("\n")
    assert not rendered.endswith("\n\n")
    assert not re.search(r"\{[{%#]|[}%#]\}", rendered)


def test_a_template_that_is_not_there_is_named() -> None:
    with pytest.raises(LabError, match=r"templates/missing.j2: TemplateNotFound"):
        render("missing.j2")


def test_the_agent_understands_what_is_rendered_for_it(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(agent_config(CASES["agent.yaml"]["pipelines"], tmp_path / "control.sock"))
    config = load(path)
    assert [pipeline.name for pipeline in config.pipelines] == ["bgp", "lab", "confirmed", "fib"]
    assert config.control.socket == tmp_path / "control.sock"
    said = config.model_dump(mode="json", exclude_unset=True)["pipelines"]
    for pipeline, wanted in zip(said, CASES["agent.yaml"]["pipelines"], strict=True):
        assert pipeline["feed"] == wanted["feed"]
        assert pipeline["fib"] == wanted["fib"]


def test_interfaces_as_linux_has_them_are_rendered(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    fib: dict[str, object] = {"kind": "vpp", "api_socket": "/run/vpp/api.sock", "source": "a"}
    fib |= {"interfaces": "auto", "mirror": ["links", "vrfs"]}
    feed = {"kind": "kernel", "tables": [254, 10], "table_map": {10: 7}, "solicit": False}
    path.write_text(agent_config([{"name": "vpp", "feed": feed, "fib": fib}], tmp_path / "control.sock"))
    said = load(path).model_dump(mode="json", exclude_unset=True)["pipelines"]
    assert said[0]["fib"] == fib
    assert said[0]["feed"] == feed | {"table_map": {"10": 7}}


def test_a_session_has_a_policy_in_both_directions_and_a_limit() -> None:
    config = frr_config({Family.IPV4: 1_000_000, Family.IPV6: 0})
    sessions = re.findall(r"^ neighbor (\S+) remote-as", config, re.MULTILINE)
    assert len(sessions) == 2
    for address in sessions:
        said = [line.split()[2:] for line in config.splitlines() if line.startswith(f"  neighbor {address} ")]
        assert [words[0] for words in said] == ["activate", "maximum-prefix", "route-map", "route-map"]
        assert [words[-1] for words in said[2:]] == ["in", "out"]
    assert "maximum-prefix 1250000" in config
    assert "maximum-prefix 1000\n" in config
    for prefix in RESERVED[Family.IPV4]:
        assert f" deny {prefix} le 32\n" in config
