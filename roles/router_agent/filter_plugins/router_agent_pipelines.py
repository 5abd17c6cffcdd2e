# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Which pipelines a router's agent has, from the router's own variables.

FRR's routes are in the kernel already; ExaBGP's get there by the agent. Where VPP forwards, both go on from
there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

MAIN_TABLE = 254


def router_agent_pipelines(
    router: Mapping[str, Any],
    *,
    interfaces: Mapping[str, str],
    protocols: Sequence[str | int],
    exabgp: Mapping[str, Any],
    vpp: Mapping[str, Any],
    confirmed: bool = False,
) -> list[dict[str, Any]]:
    """Return the pipelines for agent.yaml; none when the kernel forwards and FRR alone speaks BGP.

    Args:
        router: `forwarding` (vpp or kernel), `asn`, and `peers`, a list of mappings with a `speaker`.
        interfaces: control plane's interface to VPP's, for `forwarding: vpp`.
        protocols: kernel route protocols that go to VPP, besides the agent's own.
        exabgp: the `socket`, `socket_group`, `protocol` and `metric` of ExaBGP's routes.
        vpp: the `api_socket` and the `source` of VPP's routes.
        confirmed: zebra gives its routes to the agent itself, and is told which of them VPP has.
    """
    pipelines = []
    has_exabgp = any(peer.get("speaker", "frr") == "exabgp" for peer in router["peers"])
    if has_exabgp:
        feed = {"kind": "exabgp", "local_as": int(router["asn"])}
        feed |= {name: exabgp[name] for name in ("socket", "socket_group")}
        fib = {"kind": "kernel", "protocol": int(exabgp["protocol"]), "metric": int(exabgp["metric"])}
        pipelines.append({"name": "exabgp", "feed": feed, "fib": fib})
    if router["forwarding"] == "vpp":
        agents_own = [int(exabgp["protocol"])] if has_exabgp else []
        feed = {"kind": "kernel", "tables": [MAIN_TABLE], "protocols": [*protocols, *agents_own]}
        if confirmed:
            # Connected networks are VPP's own: its interfaces have the addresses.
            feed = {"kind": "fpm", "tables": [MAIN_TABLE], "kernel_protocols": agents_own}
        pipelines.append(
            {"name": "vpp", "feed": feed, "fib": {"kind": "vpp", **vpp, "interfaces": dict(interfaces)}}
        )
    return pipelines


def router_agent_interfaces(
    ports: Sequence[Mapping[str, Any]], bonds: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Return control-plane interface to VPP interface, for everything a next hop can be behind.

    A port and its VLANs have one name in both. VPP names bonds itself, by their place in the list.

    Args:
        ports: `router_ports`; members of bonds have no address and are left out.
        bonds: `router_bonds`.
    """
    carriers = [(port["name"], port["name"], port) for port in ports if not port.get("bond")]
    carriers += [(bond["name"], f"BondEthernet{number}", bond) for number, bond in enumerate(bonds)]
    names = {}
    for linux, vpp, carrier in carriers:
        names[linux] = vpp
        names |= {f"{linux}.{vlan['id']}": f"{vpp}.{vlan['id']}" for vlan in carrier.get("vlans") or []}
    return names


def router_agent_groups(
    pipelines: Sequence[Mapping[str, Any]], vpp: str, control: str, readers: str = ""
) -> list[str]:
    """Return the groups the service has to be in: of sockets it uses, and of those it gives to others.

    Args:
        pipelines: as in agent.yaml.
        vpp: group of VPP's API socket.
        control: group of the control socket, empty for the service's own.
        readers: group of the socket for readers, empty where there is none.
    """
    groups = {vpp for pipeline in pipelines if pipeline["fib"]["kind"] == "vpp"}
    groups |= {pipeline["feed"].get("socket_group", "") for pipeline in pipelines} | {control, readers}
    return sorted(groups - {""})


def router_agent_listens(pipelines: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a pipeline listens on a TCP port, as zebra's feed does."""
    return any(pipeline["feed"]["kind"] == "fpm" for pipeline in pipelines)


def router_agent_namespaces(pipelines: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a pipeline names a network namespace other than the service's."""
    return any(pipeline[side].get("namespace") for pipeline in pipelines for side in ("feed", "fib"))


def router_agent_state(pipelines: Sequence[Mapping[str, Any]], changed: bool) -> str:
    """Return the state the service has to have: stopped with nothing to do, restarted when it changed."""
    if not pipelines:
        return "stopped"
    return "restarted" if changed else "started"


class FilterModule:
    """The filters, by the names they have in templates."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name to filter."""
        return {
            "router_agent_groups": router_agent_groups,
            "router_agent_interfaces": router_agent_interfaces,
            "router_agent_listens": router_agent_listens,
            "router_agent_namespaces": router_agent_namespaces,
            "router_agent_pipelines": router_agent_pipelines,
            "router_agent_state": router_agent_state,
        }
