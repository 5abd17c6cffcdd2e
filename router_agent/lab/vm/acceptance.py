"""The virtual POP host through ``playbooks/acceptance.yml``, as an operator runs it: taps are the ports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from router_agent.lab.host import Host
from router_agent.lab.vm.neighbours import Neighbours, expected_positions
from router_agent.lab.vm.network import Network
from router_agent.lab.vm.plan import PORTS
from router_agent.lab.vm.traffic import PROGRAM, PROOF_PPS, TRIAL_SECONDS
from router_agent.model import Family, prefixes_of

_SECONDS = 900
_FRAME = 128
"""Bytes; room for the signature in IPv4 and IPv6 alike."""


def prefixes_by_port(neighbours: Neighbours) -> dict[str, list[str]]:
    """Return every announced prefix by the name of the port it must leave by."""
    found: dict[str, list[str]] = {port.name: [] for port in PORTS}
    for family in Family:
        keys = neighbours.keys[family]
        positions = expected_positions(keys)
        for position, port in enumerate(PORTS):
            found[port.name] += map(str, prefixes_of(keys[np.flatnonzero(positions == position)]))
    return found


def acceptance_variables(
    host: Host, network: Network, neighbours: Neighbours, *, ingress: str, prefixes: int, reports: Path
) -> dict[str, Any]:
    """Return the variables of role acceptance for the virtual POP host.

    Which port a prefix must leave by is what the neighbours announced, not what the router believes.

    Args:
        host: how it is reached.
        network: has the taps.
        neighbours: know what was announced.
        ingress: port that sends.
        prefixes: how many are sent to.
        reports: directory that gets the reports.
    """
    return {
        "acceptance_tier": "functional",
        "acceptance_become": False,
        "acceptance_frames": [_FRAME],
        "acceptance_destinations": {"by_port": prefixes_by_port(neighbours), "count": prefixes},
        "acceptance_direction": {"from": ingress},
        "acceptance_goal": {"rate": f"{PROOF_PPS:g} pps", "duration": f"{TRIAL_SECONDS:g} s"},
        "acceptance_proof": {"rate": f"{PROOF_PPS:g} pps"},
        "acceptance_seconds": _SECONDS,
        "acceptance_ports": {
            port.name: {
                "interface": port.far_name,
                "namespace": network.namespace(port),
                "faces": port.name,
                "gateway_mac": port.mac,
            }
            for port in PORTS
        },
        "acceptance_ssh": {
            "host": "127.0.0.1",
            "port": host.ssh_port,
            "user": "root",
            "key_file": str(host.key.resolve()),
            "known_hosts": str(host.known_hosts.resolve()),
            "router_agent": PROGRAM,
        },
        "acceptance_reports": str(reports.resolve()),
    }
