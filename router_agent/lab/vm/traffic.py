"""Packets through the host's two data NICs: the traffic check of the kit, with the taps as its ports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from router_agent.lab.host import Host, HostError
from router_agent.lab.vm.neighbours import Neighbours, tester_ports
from router_agent.lab.vm.network import Network
from router_agent.lab.vm.plan import LAN, PORTS, UPLINK
from router_agent.traffic.counters.remote import kernel_counters, vpp_counters
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.measurements.check import CheckResult, run_check
from router_agent.traffic.measurements.trial import Progress
from router_agent.traffic.reach import UnreachableError
from router_agent.traffic.reach.ssh import SshReach
from router_agent.traffic.scenario import Scenario

PROOF_PREFIXES = 10_000
PROOF_PPS = 500.0
"""What an emulated processor forwards with room to spare, even while others use the machine."""
TRIAL_SECONDS = 10.0
_STRAIGHT_PREFIXES = 1_000

PROGRAM = "/opt/router-agent/bin/router-agent"
_STATS = Path("/run/vpp/stats.sock")


@contextmanager
def device_counters(host: Host, *, vpp: bool) -> Iterator[CounterSource]:
    """Have the counters of what forwards on the host, read there by its own agent's program.

    Raises:
        HostError: the host does not answer.
    """
    reach = SshReach(host.target)
    try:
        reach.connect()
    except UnreachableError as error:
        raise HostError(str(error)) from error
    with reach:
        if vpp:
            yield vpp_counters(reach, _STATS, program=PROGRAM)
        else:
            yield kernel_counters(reach, ports=[port.name for port in PORTS], program=PROGRAM)


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
