"""What is good enough."""

from __future__ import annotations

from dataclasses import dataclass

from router_agent.traffic.scenario.errors import ScenarioError


@dataclass(frozen=True)
class LatencyBound:
    """Most nanoseconds that a percentile of the latencies may take."""

    percentile: float
    most_ns: int

    def __post_init__(self) -> None:
        if not 0.0 < self.percentile <= 100.0 or self.most_ns < 1:
            raise ScenarioError(
                f"a latency bound is {self.most_ns} ns at percentile {self.percentile}, expected 1 ns or "
                "more and a percentile above 0 up to 100"
            )


@dataclass(frozen=True)
class ChurnBudget:
    """What route changes may cost; None is no bound.

    Attributes:
        lost: packets.
        blocked_s: longest time in which nothing arrives.
        convergence_s: 99th percentile of the times in which a prefix lost packets.
    """

    lost: int | None = None
    blocked_s: float | None = None
    convergence_s: float | None = None


@dataclass(frozen=True)
class Goal:
    """What is good enough.

    Attributes:
        loss_ratio: lost / sent that is still a pass; 0 asks for every packet.
        unsent_ratio: (intended - sent) / intended up to which a trial is valid; above it the generator was
            the limit and nothing is known about the device.
        latency: bounds of latency measurements.
        churn: bounds of route changes under load.
    """

    loss_ratio: float = 0.0
    unsent_ratio: float = 0.005
    latency: tuple[LatencyBound, ...] = ()
    churn: ChurnBudget | None = None

    def __post_init__(self) -> None:
        for name, value in (("loss_ratio", self.loss_ratio), ("unsent_ratio", self.unsent_ratio)):
            if not 0.0 <= value < 1.0:
                raise ScenarioError(f"{name} is {value}, expected a ratio of at least 0 and below 1")
