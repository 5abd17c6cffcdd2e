# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible module: what runs on a router now: services, links, BGP sessions, the agent.

It reads and judges nothing; filter `router_checks` does that. Every command has a time limit, and one that
fails is part of the answer, because a router that is down is what one wants to know about.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: router_state
short_description: Read what runs on a router
description:
  - Reads services, links with their addresses, BGP sessions and the agent's status. Changes nothing.
options:
  units:
    description: Services to ask systemd about.
    type: list
    elements: str
    default: []
  frr:
    description: Whether to ask FRR for its BGP sessions.
    type: bool
    default: false
  vtysh:
    description: The command that speaks to FRR.
    type: list
    elements: str
    default: [vtysh]
  namespace:
    description: Network namespace whose links and connections are looked at; that of the module when empty.
    type: str
    default: ""
  agent:
    description: The agent's program, when it is to be asked; empty otherwise.
    type: path
  control_socket:
    description: The agent's control socket.
    type: path
    default: /run/router-agent/control.sock
  timeout:
    description: Seconds one command may take.
    type: int
    default: 60
author: ["The authors of the router kit"]
"""

RETURN = r"""
state:
  description: >-
    C(services) (unit to C(active), C(enabled)), C(links) (name to C(up), C(carrier), C(mtu), C(mac),
    C(addresses)), C(frr_sessions) (address to C(state), C(prefixes), C(sent)), C(graceful_shutdown)
    (whether FRR asks its neighbours to go elsewhere, RFC 8326), C(connections) (addresses that a TCP
    connection to port 179 leads to), C(agent) (its status, or null), C(errors) (what could not be asked,
    and why).
  type: dict
  returned: success
"""


class AskError(Exception):
    """Something on the host cannot be asked."""


def services(listing: str) -> dict[str, dict[str, str]]:
    """Return what ``systemctl show`` says: unit to `active` and `enabled`."""
    found = {}
    for block in listing.strip().split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        found[values["Id"]] = {"active": values["ActiveState"], "enabled": values["UnitFileState"] or "no"}
    return found


def links(shown: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return what ``ip -json address show`` says: name to `up`, `carrier`, `mtu`, `mac` and `addresses`."""
    return {
        link["ifname"]: {
            "up": "UP" in link["flags"],
            "carrier": "LOWER_UP" in link["flags"],
            "mtu": link["mtu"],
            "mac": link.get("address"),
            "addresses": [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if "local" in a],
        }
        for link in shown
        if link.get("ifname")
    }


def frr_sessions(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what ``show bgp summary json`` says: the neighbour's address to `state`, `prefixes` and `sent`.

    A session that carries several families counts the prefixes of all of them.
    """
    found: dict[str, dict[str, Any]] = {}
    for family in summary.values():
        for address, peer in family.get("peers", {}).items():
            session = found.setdefault(address, {"state": peer["state"], "prefixes": 0, "sent": 0})
            session["prefixes"] += int(peer.get("pfxRcd", 0))
            session["sent"] += int(peer.get("pfxSnt", 0))
    return found


def graceful_shutdown(configuration: str) -> bool:
    """Return whether a running configuration has graceful shutdown, for all of BGP or for an instance."""
    return any(line.strip() == "bgp graceful-shutdown" for line in configuration.splitlines())


def connections(listing: str) -> list[str]:
    """Return the far addresses that ``ss -Htn`` lists."""
    return sorted({line.split()[-1].rpartition(":")[0].strip("[]") for line in listing.splitlines() if line})


def ask(command: Sequence[str], seconds: int, *, answers: Sequence[int] = (0,)) -> str:
    """Return what a command prints.

    Raises:
        AskError: it cannot be run, takes too long, or ends with another code than those of `answers`.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except OSError as error:
        raise AskError(f"{command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise AskError(f"{' '.join(command)}: found no answer within {seconds} s") from error
    if done.returncode not in answers:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["nothing"]
        raise AskError(f"{' '.join(command)}: ended with {done.returncode} and said: {said[0]}")
    return done.stdout


def read_state(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state, see RETURN."""
    seconds = wanted["timeout"]
    state: dict[str, Any] = {"services": {}, "frr_sessions": {}, "graceful_shutdown": False}
    state |= {"agent": None, "errors": []}
    if wanted["units"]:
        properties = "--property=Id,ActiveState,UnitFileState"
        state["services"] = services(ask(["systemctl", "show", properties, *wanted["units"]], seconds))
    where = ["nsenter", f"--net=/run/netns/{wanted['namespace']}", "--"] if wanted["namespace"] else []
    state["links"] = links(json.loads(ask([*where, "ip", "-json", "address", "show"], seconds)))
    ours = ["ss", "--no-header", "--tcp", "--numeric", "state", "established", "dport", "=", ":179"]
    state["connections"] = connections(ask([*where, *ours], seconds))
    try:
        if wanted["frr"]:
            said = ask([*wanted["vtysh"], "-c", "show bgp summary json"], seconds)
            state["frr_sessions"] = frr_sessions(json.loads(said or "{}"))
            shown = ask([*wanted["vtysh"], "-c", "show running-config bgpd"], seconds)
            state["graceful_shutdown"] = graceful_shutdown(shown)
    except (AskError, json.JSONDecodeError) as error:
        state["errors"].append(f"FRR: {error}")
    try:
        if wanted["agent"]:
            show = [wanted["agent"], "show", "status", "--json", "--socket", wanted["control_socket"]]
            state["agent"] = json.loads(ask(show, seconds, answers=(0, 1)))
    except (AskError, json.JSONDecodeError) as error:
        state["errors"].append(f"agent: {error}")
    return state


def main() -> None:
    """Run the module, see DOCUMENTATION."""
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "str", "default": []},
            "frr": {"type": "bool", "default": False},
            "vtysh": {"type": "list", "elements": "str", "default": ["vtysh"]},
            "namespace": {"type": "str", "default": ""},
            "agent": {"type": "path"},
            "control_socket": {"type": "path", "default": "/run/router-agent/control.sock"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(changed=False, state=read_state(module.params))
    except AskError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
