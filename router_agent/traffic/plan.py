"""What a check would do, before anything is sent: trials, rates, and the time they take at most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from router_agent.traffic.scenario.asked import RateOptions
from router_agent.traffic.scenario.document import Document
from router_agent.traffic.scenario.offered import Offered

_BURST_TRIALS = 12
"""A binary search for a burst takes about so many trials."""


@dataclass(frozen=True)
class Step:
    """One measurement at one frame size.

    Attributes:
        frames: label of the frame sizes; empty for what does not depend on them.
        what: name of the measurement.
        rate: offered load in words.
        trials: in words.
        most_s: the time it takes at most.
        when: "always", "asked for", or "if the target is missed".
    """

    frames: str
    what: str
    rate: str
    trials: str
    most_s: float
    when: str


def steps(document: Document, plans: Sequence[Offered]) -> tuple[Step, ...]:
    """Return what is done, in order.

    Args:
        document: the scenario.
        plans: what is offered at each of its frame sizes.
    """
    return tuple(_steps(document, plans))


def _steps(document: Document, plans: Sequence[Offered]) -> Iterator[Step]:
    if document.proof is not None and document.proof.rate.pps is not None:
        count = document.destinations.count
        pps = document.proof.rate.pps
        known = isinstance(count, int)
        yield Step(
            "",
            "port proof",
            f"{pps:,.0f} pps",
            f"{count:,} prefixes" if isinstance(count, int) else "every prefix",
            5 * count / pps if known and isinstance(count, int) else 0.0,
            "always",
        )
    for plan in plans:
        yield from _of_size(document, plan)


def _of_size(document: Document, plan: Offered) -> Iterator[Step]:
    asked, frames = document.measurements, plan.sizes.label
    offered = f"{plan.pps:,.0f} pps"
    yield Step(frames, "target", offered, f"1 of {plan.duration_s:g} s", plan.duration_s, "always")
    rates = [(name, options) for name, options in (("NDR", asked.ndr), ("PDR", asked.pdr)) if options]
    if rates:
        most_s = max(options.limit for _, options in rates)
        yield _search(frames, " and ".join(name for name, _ in rates), rates[0][1], most_s, "asked for")
    if asked.rfc2544 is not None:
        options = asked.rfc2544
        yield _search(frames, "RFC 2544 throughput", options, options.limit, "asked for")
    if not rates and asked.rfc2544 is None:
        quick = RateOptions()
        yield _search(frames, "short search", quick, 120.0, "if the target is missed")
    if asked.loss_curve is not None:
        count, trial = ceil(1 / asked.loss_curve.step), asked.loss_curve.trial
        text = f"up to {count} of {trial:g} s"
        yield Step(frames, "loss curve", "from the highest down", text, count * trial, "asked for")
    if asked.back_to_back is not None:
        bursts = asked.back_to_back
        yield Step(
            frames,
            "back-to-back",
            "the highest",
            f"{bursts.repetitions} searches of bursts up to {bursts.longest:g} s",
            bursts.repetitions * _BURST_TRIALS * bursts.longest,
            "asked for",
        )
    if asked.latency is not None:
        shares = ", ".join(f"{share:.0%}" for share in asked.latency.at)
        count, trial = len(asked.latency.at), asked.latency.trial
        yield Step(
            frames,
            "latency",
            f"{shares} of what was found",
            f"{count} of {trial:g} s",
            count * trial,
            "asked for",
        )
    if asked.soak is not None:
        yield Step(
            frames, "soak", offered, f"1 of {asked.soak.duration:g} s", asked.soak.duration, "asked for"
        )
    if asked.churn is not None:
        churn = asked.churn
        yield Step(
            frames,
            "churn",
            offered,
            f"{churn.prefixes:,} prefixes withdrawn and announced {churn.rounds} times",
            2 * churn.rounds * churn.every,
            "asked for",
        )


def _search(frames: str, what: str, options: RateOptions, most_s: float, when: str) -> Step:
    return Step(frames, what, "searched", f"of {options.trial:g} s, {options.sum:g} s a load", most_s, when)
