"""Packets through the host's two data NICs: the traffic check of the kit, with the taps as its ports."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from router_agent.lab.vm.host import Host, HostError
from router_agent.lab.vm.neighbours import Neighbours, tester_ports
from router_agent.lab.vm.network import Network
from router_agent.lab.vm.plan import LAN, PORTS, UPLINK
from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.counters.source import CounterError, CounterSource, DropClass
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.traffic.measurements.check import CheckResult, run_check
from router_agent.traffic.measurements.trial import Progress
from router_agent.traffic.scenario import Scenario

PROOF_PREFIXES = 10_000
PROOF_PPS = 500.0
"""What an emulated processor forwards with room to spare, even while others use the machine."""
TRIAL_SECONDS = 10.0
_STRAIGHT_PREFIXES = 1_000

_PYTHON = "/opt/router-agent/bin/python"
_READ_SECONDS = 90.0


class RemoteCounters:
    """Counters that the host's own agent package reads, on the host.

    Args:
        host: where.
        source: knows what the counters mean.
        expression: what reads them there, in Python.
    """

    def __init__(self, host: Host, source: CounterSource, expression: str) -> None:
        self._host = host
        self._source = source
        self._program = f"import json; {expression}; print(json.dumps(source.read()))"

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self._source.name

    def read(self) -> dict[str, int]:
        """Return the counters; see `source.CounterSource`."""
        try:
            found = json.loads(self._host.run(f"{_PYTHON} -c '{self._program}'", seconds=_READ_SECONDS))
        except (HostError, ValueError) as error:
            raise CounterError(f"{self.name}: {error}") from error
        return {str(name): int(value) for name, value in found.items()}

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes; see `source.CounterSource`."""
        return self._source.drops(growth)


def kernel_counters(host: Host) -> RemoteCounters:
    """Return the counters of a host whose kernel forwards."""
    names = [port.name for port in PORTS]
    listed = ",".join(f'"{name}"' for name in names)
    return RemoteCounters(
        host,
        KernelForwarder(None, names),
        "from router_agent.traffic.counters.kernel import KernelForwarder; "
        f"source=KernelForwarder(None, [{listed}])",
    )


def vpp_counters(host: Host) -> RemoteCounters:
    """Return the counters of a host that forwards with VPP."""
    socket = Path("/run/vpp/stats.sock")
    return RemoteCounters(
        host,
        VppForwarder(socket),
        "from pathlib import Path; from router_agent.traffic.counters.vpp import VppForwarder; "
        f'source=VppForwarder(Path("{socket}"))',
    )


def prove_forwarding(
    neighbours: Neighbours,
    *,
    ingress: str,
    counters: Sequence[CounterSource],
    report: Path,
    progress: Progress | None = None,
    prefixes: int = PROOF_PREFIXES,
) -> CheckResult:
    """Send one packet to each of many announced prefixes, then a stream; expect each at its right port.

    Args:
        neighbours: know what was announced.
        ingress: port that sends.
        counters: of the host.
        report: directory for the reports.
        progress: told what is going on.
        prefixes: how many.
    """
    scenario = Scenario(
        name=f"virtual POP host, in by {ingress}",
        destinations=neighbours.destinations(prefixes, ingress=ingress),
        rate_pps=PROOF_PPS,
        duration_s=TRIAL_SECONDS,
        proof_pps=PROOF_PPS,
    )
    return run_check(scenario, neighbours.endpoints, counters, report, progress)


def prove_wire(
    network: Network, neighbours: Neighbours, *, report: Path, progress: Progress | None = None
) -> CheckResult:
    """Send frames in at the uplink and expect each of them at the lan, whatever its destination.

    For a program that hands on every frame unread, as testpmd does.
    """
    whole = neighbours.destinations(_STRAIGHT_PREFIXES, ingress=UPLINK.name)
    out = PORTS.index(LAN)
    destinations = replace(whole, expected=np.full(len(whole), out, np.int16))
    scenario = Scenario(
        name="virtual POP host, dpdk-testpmd between two NICs of VFIO",
        destinations=destinations,
        rate_pps=PROOF_PPS,
        duration_s=TRIAL_SECONDS,
        proof_pps=PROOF_PPS,
    )
    return run_check(scenario, tester_ports(network), (), report, progress)
