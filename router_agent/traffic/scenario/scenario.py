"""One traffic check: where to send, how fast, how long, and what is good enough.

Every constructor refuses nonsense; the message says what was found, what was expected and what to do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

from router_agent.traffic.scenario.destinations import Destinations
from router_agent.traffic.scenario.errors import ScenarioError
from router_agent.traffic.scenario.frame_sizes import FrameSizes
from router_agent.traffic.scenario.goal import Goal


@dataclass(frozen=True)
class Search:
    """Bounds of a loss-free-rate search (MLRsearch, RFC 9971).

    Attributes:
        min_pps, max_pps: loads between which the answer is looked for.
        trial_s: length of the trials that decide.
        relative_width: how near the answer shall be, as a part of it.
        limit_s: the search is given up after so long.
    """

    min_pps: float
    max_pps: float
    trial_s: float = 1.0
    relative_width: float = 0.05
    limit_s: float = 120.0

    def __post_init__(self) -> None:
        if not 0 < self.min_pps < self.max_pps:
            raise ScenarioError(
                f"search from {self.min_pps} to {self.max_pps} pps: expected 0 < min_pps < max_pps"
            )
        if not 0.0 < self.relative_width < 1.0:
            raise ScenarioError(f"relative_width is {self.relative_width}, expected between 0 and 1")
        if self.trial_s <= 0 or self.limit_s <= self.trial_s:
            raise ScenarioError(
                f"trials of {self.trial_s} s in at most {self.limit_s} s: expected 0 < trial_s < limit_s"
            )


@dataclass(frozen=True)
class Scenario:
    """One traffic check.

    Attributes:
        name: appears in reports.
        destinations: where to send, see `Destinations`.
        frames: Ethernet frame sizes; None takes the smallest. IMIX sizes below what the test signature needs
            are raised to it, a single size below it is refused.
        rate_pps: offered rate, packets a second, of all sending ports together; each sends an equal part.
        duration_s: length of the fixed-rate trial.
        goal: what is good enough.
        proof_pps: rate of the port proof; low, so that loss is not expected. None leaves the proof out.
        sources: source prefixes by family; addresses in them are used in turn. The defaults are those set
            aside for benchmarking (RFC 2544, RFC 5180).
        udp_port: destination port of the packets.
        interval_s: resolution of the series.
        drain_s: how long to wait for late packets when some are missing (RFC 2544 26.1: two seconds).
        ring_frames: room for this many frames at each capturing port.
        cpus: CPUs to pin to, sender first; empty pins only where there is one for each worker and one more.
        seed: seeds what is drawn at random.
    """

    name: str
    destinations: Destinations
    frames: FrameSizes | None = None
    rate_pps: float = 10_000.0
    duration_s: float = 5.0
    goal: Goal = field(default_factory=Goal)
    proof_pps: float | None = 10_000.0
    sources: tuple[IPv4Network, IPv6Network] = (IPv4Network("198.18.0.0/15"), IPv6Network("2001:2::/48"))
    udp_port: int = 9
    interval_s: float = 0.1
    drain_s: float = 1.0
    ring_frames: int = 65_536
    cpus: tuple[int, ...] = ()
    seed: int = 1

    def __post_init__(self) -> None:
        least = self.destinations.least_frame
        if self.frames is not None and self.frames.largest < least:
            raise ScenarioError(
                f"the largest frame is {self.frames.largest} bytes, expected {least} or more: a test packet "
                "to these destinations does not fit in less"
            )
        for name, value in (
            ("rate_pps", self.rate_pps),
            ("duration_s", self.duration_s),
            ("interval_s", self.interval_s),
            ("drain_s", self.drain_s),
            ("proof_pps", 1.0 if self.proof_pps is None else self.proof_pps),
        ):
            if not 0 < value < float("inf"):
                raise ScenarioError(f"{name} is {value}, expected a positive number")
        if self.rate_pps * self.duration_s < 1:
            raise ScenarioError(
                f"{self.rate_pps} pps for {self.duration_s} s is less than one packet: raise either"
            )
        if not 0 < self.udp_port < 65_536:
            raise ScenarioError(f"udp_port is {self.udp_port}, expected 1 to 65535")
        if self.ring_frames < 16:
            raise ScenarioError(f"ring_frames is {self.ring_frames}, expected at least 16")

    @property
    def sizes(self) -> FrameSizes:
        """Frame sizes as they are sent."""
        least = self.destinations.least_frame
        return FrameSizes.of(least) if self.frames is None else self.frames.raised_to(least)
