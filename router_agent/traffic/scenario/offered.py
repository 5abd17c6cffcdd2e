"""What a tier offers at each frame size, and what the goal asks: packets a second of all sending ports.

A rate that is measured by a link needs a tier with links. Where a tier offers something else in place of the
goal's rate, the verdict says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from router_agent.model import Family
from router_agent.traffic.scenario.binding import Binding
from router_agent.traffic.scenario.destinations import LEAST_FRAME
from router_agent.traffic.scenario.document import Document
from router_agent.traffic.scenario.errors import ScenarioError
from router_agent.traffic.scenario.frame_sizes import FrameSizes
from router_agent.traffic.scenario.ports import Endpoints, Port, Tier
from router_agent.traffic.scenario.quantities import Rate

_ROUNDING = 1.000_001
"""A rate that was written with some digits may be above the line by so much."""


@dataclass(frozen=True)
class Offered:
    """What is offered at one frame size.

    Attributes:
        sizes: as they are sent.
        pps: offered load, of all sending ports together.
        goal_pps: what the goal asks; None where nobody can say it here (a share of a line there is not).
        duration_s: length of the target's trial.
    """

    sizes: FrameSizes
    pps: float
    goal_pps: float | None
    duration_s: float


def offered(document: Document, tier: Tier, binding: Binding, endpoints: Endpoints) -> tuple[Offered, ...]:
    """Return what is offered at each frame size.

    Args:
        document: the scenario.
        tier: which its ports were found to carry.
        binding: the tier's.
        endpoints: with the speed of the links that are known.

    Raises:
        ScenarioError: the goal's rate cannot be offered on this tier, or on these links.
    """
    senders = [endpoints.ports[endpoints.position(name)] for name in document.direction.senders]
    goal = document.goal
    if binding.rate is None:
        _require_carried(goal.rate, tier)
    least = LEAST_FRAME[Family.IPV6 if _has_ipv6(document) else Family.IPV4]
    found: list[Offered] = []
    for frames in document.frames:
        if frames.largest < least:
            raise ScenarioError(
                f"frames: found {frames.label} bytes, expected {least} or more: a test packet to IPv6 does "
                "not fit in less; raise it, or leave IPv6 out (destinations.families: [ipv4])"
            )
        sizes = frames.raised_to(least)
        rate = binding.rate or goal.rate
        where = f"tiers.{tier}.rate" if binding.rate else "goal.rate"
        ports = [_of_port(rate, sizes, port, where) for port in senders]
        wanted = [goal.rate.of_port(sizes, port.link_bps) for port in senders]
        goal_pps = None if None in wanted else sum(pps for pps in wanted if pps is not None)
        found.append(Offered(sizes, len(senders) * min(ports), goal_pps, binding.duration or goal.duration))
    return tuple(found)


def notes_on(document: Document, tier: Tier, binding: Binding, plans: Sequence[Offered]) -> tuple[str, ...]:
    """Return what a reader of the verdict must know of the tier and its rate."""
    notes = [f"tier {tier}: {tier.claim}"]
    if binding.rate is not None:
        asked = [f"{plan.goal_pps:,.0f}" for plan in plans if plan.goal_pps is not None]
        figures = f" ({', '.join(asked)} pps)" if asked else ""
        notes.append(
            f"this tier offers {binding.rate.text} at each sending port in place of the goal's "
            f"{document.goal.rate.text}{figures}: the goal itself is not tested"
        )
    elif tier is Tier.SOFTWARE_CEILING and document.goal.rate.names_a_line:
        notes.append(
            f"{document.goal.rate.text} is as many packets as such a link carries; there is no link here"
        )
    if binding.duration is not None and binding.duration != document.goal.duration:
        notes.append(
            f"the target's trial takes {binding.duration:g} s in place of the goal's "
            f"{document.goal.duration:g} s"
        )
    return tuple(notes)


def _has_ipv6(document: Document) -> bool:
    """Return whether packets may go to IPv6 destinations; a file of prefixes may have some."""
    wanted = document.destinations
    if "ipv6" not in wanted.families:
        return False
    listed = wanted.prefixes or tuple(p for part in (wanted.by_port or {}).values() for p in part)
    return not listed or any(prefix.version == 6 for prefix in listed)


def _require_carried(rate: Rate, tier: Tier) -> None:
    """Refuse a rate that is measured by a link where there is none."""
    words = f"goal.rate: found {rate.text!r}, which tier {tier.value!r} cannot carry"
    remedy = f"name what this tier offers in its place (tiers.{tier}.rate: 20 kpps), or take tier 'line rate'"
    if rate.names_a_line and tier is Tier.FUNCTIONAL:
        raise ScenarioError(f"{words}: its ports are no NICs; {remedy}")
    if rate.share is not None and tier is Tier.SOFTWARE_CEILING:
        raise ScenarioError(f"{words}: memory has no line to take a part of; {remedy}")


def _of_port(rate: Rate, sizes: FrameSizes, port: Port, where: str) -> float:
    """Return what one port offers."""
    pps = rate.of_port(sizes, port.link_bps)
    if pps is None:
        raise ScenarioError(
            f"{where}: found {rate.text!r}, and nobody knows the speed of port {port.name}'s link: plug it "
            "in, or give the port its `link`"
        )
    if port.link_bps is not None and pps > _ROUNDING * sizes.line_pps(port.link_bps):
        raise ScenarioError(
            f"{where}: found {rate.text!r}, {pps:,.0f} pps of {sizes.label} bytes, expected at most "
            f"{sizes.line_pps(port.link_bps):,.0f}: port {port.name}'s link has "
            f"{port.link_bps / 1e9:g} Gbit/s"
        )
    return pps
