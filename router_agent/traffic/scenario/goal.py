"""What is good enough."""

from __future__ import annotations

from dataclasses import dataclass

from router_agent.traffic.scenario.errors import ScenarioError


@dataclass(frozen=True)
class Goal:
    """What is good enough.

    Attributes:
        loss_ratio: lost / sent that is still a pass; 0 asks for every packet.
        unsent_ratio: (intended - sent) / intended up to which a trial is valid; above it the generator was
            the limit and nothing is known about the device.
    """

    loss_ratio: float = 0.0
    unsent_ratio: float = 0.005

    def __post_init__(self) -> None:
        for name, value in (("loss_ratio", self.loss_ratio), ("unsent_ratio", self.unsent_ratio)):
            if not 0.0 <= value < 1.0:
                raise ScenarioError(f"{name} is {value}, expected a ratio of at least 0 and below 1")
