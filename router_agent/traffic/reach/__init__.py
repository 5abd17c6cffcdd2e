"""How the generator's host and the router are reached: here, or over ssh."""

from router_agent.traffic.reach.errors import (
    AuthenticationError,
    CommandError,
    HostKeyError,
    LostError,
    ReachError,
    UnreachableError,
)
from router_agent.traffic.reach.local import LocalReach
from router_agent.traffic.reach.reach import Completed, Reach
from router_agent.traffic.reach.session import Session
from router_agent.traffic.reach.target import SshTarget

__all__ = [
    "AuthenticationError",
    "CommandError",
    "Completed",
    "HostKeyError",
    "LocalReach",
    "LostError",
    "Reach",
    "ReachError",
    "Session",
    "SshTarget",
    "UnreachableError",
]
