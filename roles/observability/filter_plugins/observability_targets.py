# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Which addresses Prometheus scrapes, and under which names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any

JOBS = ("router-agent", "router-node", "router-frr")


def observability_endpoints(
    instance: str, pop: str, listening: Mapping[str, tuple[str, int] | Sequence[Any]]
) -> list[dict[str, Any]]:
    """Return a router's endpoints.

    Args:
        instance: name of the router; the label that alerts name it by.
        pop: name of its POP.
        listening: by job, the address and the port.

    Returns:
        A list of {job, address, reachable, labels}.
    """
    return [
        {
            "job": job,
            "address": _joined(str(address), int(port)),
            "reachable": not ip_address(str(address)).is_loopback,
            "labels": {"instance": instance, "pop": pop},
        }
        for job, (address, port) in listening.items()
    ]


def observability_targets(endpoints: Sequence[Mapping[str, Any]], job: str) -> list[dict[str, Any]]:
    """Return the targets of one job for a file of Prometheus' file_sd, in order of name.

    Args:
        endpoints: of all routers.
        job: name of the job.
    """
    chosen = [e for e in endpoints if e["job"] == job and e["reachable"]]
    return [
        {"targets": [endpoint["address"]], "labels": dict(endpoint["labels"])}
        for endpoint in sorted(chosen, key=lambda e: (e["labels"]["instance"], e["address"]))
    ]


def observability_unreachable(endpoints: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the endpoints that listen where Prometheus cannot come, as ``instance job address``."""
    return sorted(
        f"{endpoint['labels']['instance']} {endpoint['job']} {endpoint['address']}"
        for endpoint in endpoints
        if not endpoint["reachable"]
    )


def observability_exposed_rightly(listen: str, clients: Sequence[str]) -> bool:
    """Tell whether an address is the loopback's and has no clients, or one address that has some."""
    try:
        address = ip_address(listen)
    except ValueError:
        return False
    return not address.is_unspecified and address.is_loopback != bool(clients)


def _joined(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class FilterModule:
    """The filters, by the names they have in templates."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name to filter."""
        return {
            "observability_endpoints": observability_endpoints,
            "observability_exposed_rightly": observability_exposed_rightly,
            "observability_targets": observability_targets,
            "observability_unreachable": observability_unreachable,
        }
