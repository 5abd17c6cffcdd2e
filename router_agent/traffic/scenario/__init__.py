"""What a traffic check shall do: where to send, how fast, how long, and what is good enough."""

from router_agent.traffic.scenario.asked import MEASUREMENTS, Asked
from router_agent.traffic.scenario.binding import Binding, GeneratorBinding
from router_agent.traffic.scenario.check import Check
from router_agent.traffic.scenario.destinations import ANY_PORT, LEAST_FRAME, Destinations
from router_agent.traffic.scenario.document import Document
from router_agent.traffic.scenario.errors import ScenarioError
from router_agent.traffic.scenario.frame_sizes import FCS_BYTES, IMIX, FrameSizes
from router_agent.traffic.scenario.goal import ChurnBudget, Goal, LatencyBound
from router_agent.traffic.scenario.ports import Endpoints, Port, Tier, Wire
from router_agent.traffic.scenario.scenario import Scenario, Search

__all__ = [
    "ANY_PORT",
    "FCS_BYTES",
    "IMIX",
    "LEAST_FRAME",
    "MEASUREMENTS",
    "Asked",
    "Binding",
    "Check",
    "ChurnBudget",
    "Destinations",
    "Document",
    "Endpoints",
    "FrameSizes",
    "GeneratorBinding",
    "Goal",
    "LatencyBound",
    "Port",
    "Scenario",
    "ScenarioError",
    "Search",
    "Tier",
    "Wire",
]
