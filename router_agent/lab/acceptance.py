"""A lab's router through ``playbooks/acceptance.yml``, as an operator runs it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from router_agent.lab.errors import LabError
from router_agent.lab.lab import Lab
from router_agent.lab.plan import IN, OUT
from router_agent.lab.plane import VppPlane
from router_agent.lab.vm.play import Playbooks, PlayResult
from router_agent.traffic.judgement.verdict import Outcome

PREFIXES = 2_000
"""Prefixes of the router's own table that are sent to; the lab's own proof sends to more."""

_REFUSED = "REFUSED"
_FRAME = 128
"""Bytes; room for the signature in IPv4 and IPv6 alike."""


@dataclass(frozen=True)
class Accepted:
    """What the playbook found.

    Attributes:
        outcome: PASS, FAIL or INVALID; None when it refused the router.
        reason: why.
        play: the run itself.
    """

    outcome: Outcome | None
    reason: str
    play: PlayResult


def accept(
    playbooks: Playbooks,
    variables: Mapping[str, Any],
    *,
    live: bool,
    progress: Callable[[str], None] = lambda _text: None,
) -> Accepted:
    """Run the playbook.

    Args:
        playbooks: runs it.
        variables: of role acceptance.
        live: go on although the router is live.
        progress: told the task that runs.

    Raises:
        LabError: it has no verdict: something could not be carried out.
    """
    reports = Path(variables["acceptance_reports"])
    reports.mkdir(parents=True, exist_ok=True)
    file = reports / "variables.json"
    # the prefixes may be too many for a command line
    file.write_text(json.dumps(dict(variables) | {"acceptance_live": live}))
    play = playbooks.run("acceptance.yml", None, "-e", f"@{file}", progress=progress)
    try:
        result = json.loads((reports / playbooks.host / "result.json").read_text())
    except (OSError, ValueError) as error:
        raise LabError(
            f"acceptance.yml left no result ({error}); its output: {play.log}\n{play.tail}"
        ) from error
    if result["outcome"] == _REFUSED:
        return Accepted(None, result["reason"], play)
    if result["outcome"] not in list(Outcome):
        raise LabError(f"acceptance.yml: {result['outcome']}: {result['reason']}; its output: {play.log}")
    return Accepted(Outcome(result["outcome"]), result["reason"], play)


def lab_variables(lab: Lab, *, rate_pps: float, reports: Path) -> dict[str, Any]:
    """Return the variables of role acceptance for a lab in namespaces, which is reached without ssh.

    Args:
        lab: the lab, settled.
        rate_pps: offered load.
        reports: directory that gets the reports.
    """
    program = str(Path(sys.executable).with_name("router-agent"))
    vpp = lab.plane if isinstance(lab.plane, VppPlane) else None
    faces = {port: f"host-{port.name}" if vpp else port.name for port in (IN, OUT)}
    found: dict[str, Any] = {
        "acceptance_tier": "functional",
        "acceptance_become": False,
        "acceptance_forwarding": "vpp" if vpp else "kernel",
        "acceptance_namespace": lab.topology.forwarding,
        "acceptance_control_namespace": lab.topology.pop,
        "acceptance_frr": lab.frr is not None,
        "acceptance_vtysh": list(lab.frr.vtysh) if lab.frr else [],
        "acceptance_peers": [],
        "acceptance_ssh": {},
        "acceptance_agent": program,
        "acceptance_program": program,
        "acceptance_interfaces": list(faces.values()),
        "acceptance_frames": [_FRAME],
        "acceptance_destinations": {"count": PREFIXES},
        "acceptance_goal": {"rate": f"{rate_pps:g} pps", "duration": "2 s"},
        "acceptance_proof": {"rate": f"{rate_pps:g} pps"},
        "acceptance_ports": {
            port.name: {
                "interface": port.far_name,
                "namespace": lab.topology.tester,
                "faces": faces[port],
                "gateway_mac": port.mac,
            }
            for port in (IN, OUT)
        },
        "acceptance_reports": str(reports.resolve()),
    }
    if vpp:
        found["acceptance_api_socket"] = str(vpp.process.api_socket)
        found["acceptance_stats_socket"] = str(vpp.process.runtime_dir / "stats.sock")
    return found


def lab_playbooks(lab: Lab, reports: Path) -> Playbooks:
    """Return what runs playbooks for a lab in namespaces."""
    reports.mkdir(parents=True, exist_ok=True)
    inventory = reports / "inventory.yml"
    connection = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
    }
    host = lab.topology.pop
    inventory.write_text(yaml.safe_dump({"routers": {"hosts": {host: connection}}}))
    return Playbooks(inventory, host=host, logs=reports, sockets=lab.topology.directory)
