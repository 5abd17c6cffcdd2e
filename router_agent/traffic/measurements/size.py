"""Everything a check measures at one frame size: the target first, then what is asked for.

Where the target is missed, and nobody asked for more, a short search says what rate would have been met.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.generators.generator import Generator, Snapshot, TrialResult
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.back_to_back import measure_back_to_back
from router_agent.traffic.measurements.latency import measure_latency
from router_agent.traffic.measurements.loss_curve import measure_loss_curve
from router_agent.traffic.measurements.rates import NDR, PDR, RFC2544_THROUGHPUT, search_rates, shortened
from router_agent.traffic.measurements.results import Measurement, RateSearch
from router_agent.traffic.measurements.search import RateGoal
from router_agent.traffic.measurements.soak import soak
from router_agent.traffic.measurements.target import check_target
from router_agent.traffic.measurements.trial import Progress, RunTrial
from router_agent.traffic.scenario import Check, Endpoints, Scenario, Search
from router_agent.traffic.scenario.asked import RateOptions
from router_agent.traffic.scenario.quantities import Rate

_LOWEST_SHARE = 0.001
"""A search begins at this part of the highest load, unless it is told otherwise."""

_QUICK = RateOptions().model_copy(update={"trial": 1.0, "sum": 5.0, "width": 0.02, "limit": 120.0})
"""The search after a missed target that nobody asked for."""


@dataclass(frozen=True)
class Bench:
    """What trials are run with.

    Attributes:
        generator: open.
        endpoints: the tester's ports.
        counters: of the device.
    """

    generator: Generator
    endpoints: Endpoints
    counters: Sequence[CounterSource]

    def runner(self, progress: Progress, stage: str) -> RunTrial:
        """Return what runs a trial, telling how far it is as `stage`."""
        keeper = LedgerKeeper([*self.counters, *self.generator.counters])

        def run(rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
            keeper.open()
            count = max(1, round(rate_pps * duration_s))
            trial = self.generator.start(rate_pps, duration_s).finish(followed(progress, stage, count))
            return trial, keeper.close(trial)

        return run


def followed(progress: Progress, stage: str, count: int) -> Callable[[Snapshot], None]:
    """Return what tells `progress` of a running stream of so many packets."""

    def follow(now: Snapshot) -> None:
        missing = max(0, now.sent - now.received)
        text = f"{now.sent:,} of {count:,} sent, {missing:,} not back"
        progress(stage, min(1.0, now.sent / count), text)

    return follow


def measure_size(
    check: Check, scenario: Scenario, bench: Bench, progress: Progress
) -> Iterator[tuple[str, tuple[Measurement, ...]]]:
    """Measure one frame size, yielding each part's name and what was found as it comes.

    Args:
        check: what is asked for.
        scenario: its scenario of this frame size.
        bench: what trials are run with.
        progress: told of each part by its name.
    """
    asked, sizes, goal = check.asked, scenario.sizes, scenario.goal
    bounds = _Bounds(scenario, bench.endpoints)

    def run(stage: str) -> RunTrial:
        return bench.runner(progress, stage)

    target = check_target(run("target"), sizes, scenario.rate_pps, scenario.duration_s, goal=goal)
    yield "target", (target,)
    met = target.verdict.outcome is Outcome.PASS

    searches: list[RateSearch] = []
    for what, goals, options in _searches(check, met=met, loss_ratio=goal.loss_ratio):
        found = search_rates(
            run(what),
            sizes,
            bounds.search(options),
            goals,
            unsent_ratio=goal.unsent_ratio,
            progress=_as(what, progress),
        )
        searches += found
        for one, wanted in zip(found, goals, strict=True):
            yield _base_name(wanted), (one,)

    loss_free = max(
        (s.found.rate_pps for s in searches if s.loss_ratio == 0 and s.found.rate_pps), default=None
    )
    rate = loss_free or scenario.rate_pps
    if asked.loss_curve is not None:
        curve = measure_loss_curve(
            run("loss curve"),
            sizes,
            bounds.highest,
            asked.loss_curve.trial,
            step=asked.loss_curve.step,
            unsent_ratio=goal.unsent_ratio,
            progress=progress,
        )
        yield "loss curve", (curve,)
    if asked.back_to_back is not None:
        bursts = measure_back_to_back(
            run("back-to-back"),
            sizes,
            bounds.highest,
            throughput_pps=loss_free,
            repetitions=asked.back_to_back.repetitions,
            longest_s=asked.back_to_back.longest,
            unsent_ratio=goal.unsent_ratio,
            progress=_as("back-to-back", progress),
        )
        yield "back-to-back", (bursts,)
    if asked.latency is not None:
        runs = measure_latency(
            run("latency"),
            sizes,
            rate,
            asked.latency.trial,
            shares=asked.latency.at,
            goal=goal,
            progress=progress,
        )
        yield "latency", runs
    if asked.soak is not None:
        yield "soak", (soak(run("soak"), sizes, scenario.rate_pps, asked.soak.duration, goal=goal),)


def _searches(
    check: Check, *, met: bool, loss_ratio: float
) -> Iterator[tuple[str, tuple[RateGoal, ...], RateOptions]]:
    """Return the searches to run: progress name, goals, options; NDR and PDR are one search."""
    asked = check.asked
    rates = [
        (goal, options)
        for goal, options in (
            (NDR, asked.ndr),
            (replace(PDR, loss_ratio=asked.pdr.loss_ratio) if asked.pdr else PDR, asked.pdr),
        )
        if options is not None
    ]
    if rates:
        goals = tuple(_as_asked(goal, options) for goal, options in rates)
        yield " and ".join(goal.name for goal, _ in rates), goals, _widest([o for _, o in rates])
    if asked.rfc2544 is not None:
        goal = _as_asked(RFC2544_THROUGHPUT, asked.rfc2544)
        yield RFC2544_THROUGHPUT.name, (goal,), asked.rfc2544
    if not met and check.search_when_missed and not rates and asked.rfc2544 is None:
        wanted = NDR if loss_ratio == 0 else replace(PDR, loss_ratio=loss_ratio)
        yield wanted.name, (_as_asked(wanted, _QUICK),), _QUICK


def _as_asked(goal: RateGoal, options: RateOptions) -> RateGoal:
    return shortened(goal, trial_s=options.trial, duration_sum_s=options.sum, relative_width=options.width)


def _widest(options: Sequence[RateOptions]) -> RateOptions:
    """Return options with the bounds of one search for several goals."""
    first, limit = options[0], max(option.limit for option in options)
    lowest = next((option.lowest for option in options if option.lowest), None)
    highest = next((option.highest for option in options if option.highest), None)
    return first.model_copy(update={"limit": limit, "lowest": lowest, "highest": highest})


def _base_name(goal: RateGoal) -> str:
    """Return the name of a part: a goal's without how it was shortened."""
    return goal.name.partition(" (")[0]


def _as(stage: str, progress: Progress) -> Progress:
    """Return what tells `progress` of this stage, whatever a measurement calls it."""

    def told(_stage: str, share: float, text: str) -> None:
        progress(stage, share, text)

    return told


class _Bounds:
    """Loads between which to look, of all sending ports together."""

    def __init__(self, scenario: Scenario, endpoints: Endpoints) -> None:
        self._scenario = scenario
        senders = [endpoints.sender(i) for i in scenario.destinations.ingress_ports]
        self._ports = len(senders)
        speeds = [port.link_bps for port in senders if port.link_bps is not None]
        self._link_bps = min(speeds) if len(speeds) == len(senders) else None

    @property
    def highest(self) -> float:
        """The lines' rate; twice the goal's where there are none, or they are not known."""
        if self._link_bps is None:
            return 2 * self._scenario.rate_pps
        return self._ports * self._scenario.sizes.line_pps(self._link_bps)

    def search(self, options: RateOptions) -> Search:
        """Return the bounds of a search."""
        highest = self._of(options.highest) or self.highest
        lowest = self._of(options.lowest) or _LOWEST_SHARE * highest
        return Search(lowest, highest, options.trial, options.width, options.limit)

    def _of(self, rate: Rate | None) -> float | None:
        if rate is None:
            return None
        of_port = rate.of_port(self._scenario.sizes, self._link_bps)
        return None if of_port is None else self._ports * of_port
