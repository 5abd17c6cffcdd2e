"""What measurements find: plain data, from which verdicts were made and reports are written.

A check runs some of them for each frame size, in this order: port proof, target, and the others when they
are asked for or the target was missed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from statistics import fmean, pstdev
from typing import TypeAlias

from router_agent.model import I64
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.generators.latency import Latency
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.verdict import Verdict
from router_agent.traffic.measurements.search import SearchResult
from router_agent.traffic.scenario import ChurnBudget, FrameSizes


@dataclass(frozen=True, eq=False)
class Target:
    """A trial at the rate that is asked for.

    Attributes:
        sizes: frame sizes.
        trial, ledger: what became of the packets.
        verdict: whether the goal is met.
        culprits: why not, in words, the likeliest first.
    """

    sizes: FrameSizes
    trial: TrialResult
    ledger: Ledger
    verdict: Verdict
    culprits: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RateSearch:
    """A search for the highest rate of a loss ratio.

    Attributes:
        name: "NDR" (no loss, RFC 9971), "PDR" (partial loss, RFC 9971) or "RFC 2544 throughput"; one with
            other durations than these goals have says so in its name.
        sizes: frame sizes.
        loss_ratio: what was allowed.
        trial_s: length of the trials that decide.
        found: the outcome.
        verdict: that of the outcome by the goal's rate.
        culprits: why no more, in words, the likeliest first: of the slowest trial that missed the goal.
        exceed_ratio, duration_sum_s, relative_width: the goal's other attributes (RFC 9971), see
            `search.RateGoal`; None where they are not known.
    """

    name: str
    sizes: FrameSizes
    loss_ratio: float
    trial_s: float
    found: SearchResult
    verdict: Verdict
    culprits: tuple[str, ...] = ()
    exceed_ratio: float | None = None
    duration_sum_s: float | None = None
    relative_width: float | None = None


@dataclass(frozen=True)
class LossPoint:
    """One trial of a frame loss curve; `share` is the part of the highest rate that was offered."""

    share: float
    rate_pps: float
    sent: int
    lost: int
    valid: bool


@dataclass(frozen=True, eq=False)
class LossCurve:
    """Frame loss rate at falling rates (RFC 2544 26.3)."""

    sizes: FrameSizes
    points: tuple[LossPoint, ...]
    verdict: Verdict


@dataclass(frozen=True, eq=False)
class BackToBack:
    """Longest bursts at the highest rate without loss (RFC 9004).

    Attributes:
        sizes: frame sizes.
        rate_pps: the highest rate that was offered.
        bursts: longest burst without loss of each repetition, frames.
        corrected_buffer_s: time that the device's buffer holds, with its forwarding rate taken into account
            (RFC 9004 6.4); None where the forwarding rate is not known.
        verdict: INVALID when the generator could not keep the rate.
        throughput_pps: the device's forwarding rate; None where it is not known.
        longest_frames: the longest burst that was tried.
    """

    sizes: FrameSizes
    rate_pps: float
    bursts: tuple[int, ...]
    corrected_buffer_s: float | None
    verdict: Verdict
    throughput_pps: float | None = None
    longest_frames: int = 0

    @property
    def average(self) -> float:
        """Mean of the bursts, frames; 0 of none."""
        return fmean(self.bursts) if self.bursts else 0.0

    @property
    def deviation(self) -> float:
        """Standard deviation of the bursts, frames; 0 of none."""
        return pstdev(self.bursts) if self.bursts else 0.0

    @property
    def least(self) -> int:
        """The shortest of them, frames; 0 of none."""
        return min(self.bursts, default=0)

    @property
    def most(self) -> int:
        """The longest of them, frames; 0 of none."""
        return max(self.bursts, default=0)

    @property
    def implied_buffer_s(self) -> float:
        """Time that the average burst takes at the highest rate (RFC 9004 6.4)."""
        return self.average / self.rate_pps


@dataclass(frozen=True, eq=False)
class LatencyRun:
    """Latency percentiles at one rate; `share` is its part of the rate found or asked for.

    `duration_s` is the length of the stream; None where it is not known.
    """

    sizes: FrameSizes
    share: float
    rate_pps: float
    latency: Latency | None
    verdict: Verdict
    duration_s: float | None = None


@dataclass(frozen=True, eq=False)
class Soak:
    """A long trial: loss, and how steady the rate was.

    Attributes:
        sizes: frame sizes.
        trial, ledger: what became of the packets.
        variation: standard deviation over mean of the packets received each second.
        worst_second_lost: packets lost in the worst second.
        verdict: whether the goal is met.
        culprits: why not, in words, the likeliest first.
    """

    sizes: FrameSizes
    trial: TrialResult
    ledger: Ledger
    variation: float
    worst_second_lost: int
    verdict: Verdict
    culprits: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """Route changes made at once.

    Attributes:
        at_s: seconds since the first packet.
        changes: how many.
        what: what was done, in words.
        rows: destinations they are of, positions in `Destinations`; None where that is not known.
        reachable: whether packets to these shall arrive afterwards. False is a withdrawal of the only route,
            whose losses are no fault until a later batch names the same destinations; it must name them.
    """

    at_s: float
    changes: int
    what: str
    rows: I64 | None = None
    reachable: bool = True

    def __post_init__(self) -> None:
        if not self.reachable and self.rows is None:
            raise ValueError(f"a batch ({self.what}) makes destinations unreachable: name their rows")


@dataclass(frozen=True)
class Blocked:
    """A time in which packets were sent and none arrived: seconds since the first packet, and how long."""

    at_s: float
    seconds: float


@dataclass(frozen=True, eq=False)
class ChurnRun:
    """Traffic while routes change (RFC 7747 for convergence by the loss method).

    Attributes:
        sizes: frame sizes.
        trial, ledger: what became of the packets.
        batches: the changes, in time.
        blocked_s: time in which nothing at all arrived.
        convergence_s: by prefix that lost packets: 2 x lost / rate of that prefix would be an upper bound;
            this is lost / rate, one figure a prefix, ascending. Losses to destinations that a batch had made
            unreachable are left out.
        budget_lost: packets that may be lost; None for none stated.
        verdict: whether the budget was kept.
        blocked: each time in which nothing arrived, by time.
        blocked_resolution_s: a shorter one is not seen.
        convergence_resolution_s: time from one packet to a prefix to the next; 0 where single packets are not
            followed.
        lost: packets lost, without those to destinations that a batch had made unreachable.
        budget: all bounds.
        culprits: why packets were lost, in words, the likeliest first.
    """

    sizes: FrameSizes
    trial: TrialResult
    ledger: Ledger
    batches: tuple[Batch, ...]
    blocked_s: float
    convergence_s: tuple[float, ...]
    budget_lost: int | None
    verdict: Verdict
    blocked: tuple[Blocked, ...] = ()
    blocked_resolution_s: float = 0.0
    convergence_resolution_s: float = 0.0
    lost: int = 0
    budget: ChurnBudget | None = None
    culprits: tuple[str, ...] = ()

    @property
    def longest_blocked_s(self) -> float:
        """The longest time in which nothing arrived."""
        return max((time.seconds for time in self.blocked), default=0.0)

    @property
    def convergence_p99_s(self) -> float:
        """Time that 99 % of the prefixes that lost packets did not exceed (nearest rank); 0 of none."""
        if not self.convergence_s:
            return 0.0
        return self.convergence_s[ceil(0.99 * len(self.convergence_s)) - 1]


@dataclass(frozen=True, eq=False)
class ForwardingRun:
    """What one forwarder does with one table.

    Attributes:
        forwarder: "kernel" or "VPP".
        wires: what its ports are made of, in words.
        routes: routes in its table.
        sizes: frame sizes.
        highest_pps: maximum forwarding rate (RFC 2285 3.6.2).
        limit: what it was limited by, in words.
        share: part of it that the steady trial offered.
        trial, ledger: what became of the packets of the steady trial; its series has 100 ms or less.
        variation: standard deviation over mean of the packets received in each 100 ms of it.
        verdict: that of the steady trial.
        culprits: why packets were lost, in words, the likeliest first.
        cycles: of the forwarder's graph nodes for each packet; None where nobody counts them.
    """

    forwarder: str
    wires: str
    routes: int
    sizes: FrameSizes
    highest_pps: float
    limit: str
    share: float
    trial: TrialResult
    ledger: Ledger
    variation: float
    verdict: Verdict
    culprits: tuple[str, ...] = ()
    cycles: float | None = None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Kernel and VPP forwarding in one run: same machine, same frames, same tables.

    Attributes:
        sizes: frame sizes.
        runs: each forwarder with each table.
        gain: by routes in the table, how many times the kernel's highest rate is VPP's.
    """

    sizes: FrameSizes
    runs: tuple[ForwardingRun, ...]
    gain: dict[int, float]


Measurement: TypeAlias = Target | RateSearch | LossCurve | BackToBack | LatencyRun | Soak | ChurnRun


@dataclass(frozen=True)
class Limit:
    """One thing that bounds the rate, in words with its figures, and the bound in packets a second."""

    what: str
    pps: float


@dataclass(frozen=True)
class Prediction:
    """What the rate should be: the least of its limits (link, NIC, workers x cycles per packet).

    Attributes:
        sizes: frame sizes.
        limits: every bound that is known, the least first.
        measured_pps: the highest rate that was measured; None when none was.
        difference: why they differ, in words.
    """

    sizes: FrameSizes
    limits: tuple[Limit, ...] = ()
    measured_pps: float | None = None
    difference: str = ""
    unknown: tuple[str, ...] = field(default=())
