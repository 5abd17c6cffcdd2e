"""The scenario file of a lab that stays up: the documentation's, with the lab's own functional tier."""

from __future__ import annotations

from pathlib import Path

import yaml

from router_agent.lab.lab import Lab
from router_agent.lab.plan import IN, OUT
from router_agent.lab.plane import VppPlane
from router_agent.traffic.scenario import Binding, Document, Tier
from router_agent.traffic.scenario.document import load

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "traffic-scenario.yaml"
_RATE, _DURATION = "2 kpps", "12 s"


def binding(lab: Lab) -> Binding:
    """Return what the functional tier of a lab is: its tester's ports and its forwarding plane."""
    vpp = isinstance(lab.plane, VppPlane)
    ports = {
        name: {
            "interface": port.far_name,
            "namespace": lab.topology.tester,
            "gateway_mac": port.mac,
            "faces": f"host-{port.name}" if vpp else port.name,
        }
        for name, port in (("uplink", IN), ("downlink", OUT))
    }
    device = {"forwarding": "vpp" if vpp else "kernel", "namespace": lab.topology.forwarding}
    if isinstance(lab.plane, VppPlane):
        process = lab.plane.process
        device |= {
            "api_socket": str(process.api_socket),
            "stats_socket": str(process.runtime_dir / "stats.sock"),
        }
    return Binding.model_validate({"ports": ports, "device": device, "rate": _RATE, "duration": _DURATION})


def document(lab: Lab) -> Document:
    """Return the documentation's scenario, bound to this lab alone."""
    return load(EXAMPLE).model_copy(update={"tiers": {Tier.FUNCTIONAL: binding(lab)}})


def write(lab: Lab, path: Path) -> None:
    """Write it as a file that `router-agent traffic check` takes."""
    data = document(lab).model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"schema": data.pop("schema"), **data}, sort_keys=False))
