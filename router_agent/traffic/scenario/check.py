"""A whole check: one stream at some frame sizes, the tier it runs on, and what is measured of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from router_agent.traffic.scenario.asked import Asked
from router_agent.traffic.scenario.binding import GeneratorBinding
from router_agent.traffic.scenario.document import Document
from router_agent.traffic.scenario.errors import ScenarioError
from router_agent.traffic.scenario.ports import Tier
from router_agent.traffic.scenario.scenario import Scenario


@dataclass(frozen=True, eq=False)
class Check:
    """What is to be done.

    Attributes:
        scenarios: one for each frame size, in the order in which they run: the same but for frame sizes,
            rate and duration. Only the first has a port proof, which does not depend on sizes.
        tier: what the tester's ports are made of, and so what the result may claim.
        asked: what is measured beside the target.
        generator: what sends, and where.
        document: the scenario file it was made from; None for a check that a program put together.
        goal_pps: what the goal asks of each size, in the order of `scenarios`, all sending ports together,
            where the tier offers something else; empty where it offers the goal's rate.
        search_when_missed: look for the rate of the goal where the target is missed, also unasked.
        notes: what a reader of the verdict must know of the tier and the rate.
    """

    scenarios: tuple[Scenario, ...]
    tier: Tier
    asked: Asked = field(default_factory=Asked)
    generator: GeneratorBinding = field(default_factory=GeneratorBinding)
    document: Document | None = None
    goal_pps: tuple[float, ...] = ()
    search_when_missed: bool = False
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.scenarios:
            raise ScenarioError("a check needs at least one frame size, found none")
        labels = [scenario.sizes.label for scenario in self.scenarios]
        if len(set(labels)) != len(labels):
            raise ScenarioError(f"frame sizes are {', '.join(labels)}, expected each of them once")
        if self.goal_pps and len(self.goal_pps) != len(self.scenarios):
            raise ScenarioError(
                f"there are {len(self.goal_pps)} rates of the goal for {len(self.scenarios)} frame sizes"
            )

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return self.scenarios[0].name
