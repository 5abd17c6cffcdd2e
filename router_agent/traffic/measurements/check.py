"""A traffic check from one end to the other: port proof, then for each frame size target and what is asked.

result = run_check(scenario, endpoints, [KernelForwarder("pop1-fwd")], report_dir=Path("build/traffic"))
sys.exit(result.exit_code)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

import numpy as np

from router_agent.model import I64
from router_agent.traffic.counters.source import CounterError, CounterSource
from router_agent.traffic.generators import registry
from router_agent.traffic.generators.generator import ByDestination, Generator, GeneratorError, TrialResult
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.judgement.prediction import Processor, predict, sending
from router_agent.traffic.judgement.proof import Proof, missing_rows, prove
from router_agent.traffic.judgement.verdict import Outcome, Verdict, combine, judge_proof
from router_agent.traffic.measurements.churn import MakeChanges, measure_churn
from router_agent.traffic.measurements.results import ChurnRun, Measurement, Prediction, Target
from router_agent.traffic.measurements.size import Bench, followed, measure_size
from router_agent.traffic.measurements.trial import Progress, silent
from router_agent.traffic.reach import ReachError
from router_agent.traffic.report.environment import Environment, this_host
from router_agent.traffic.scenario import Check, Destinations, Endpoints, Scenario, ScenarioError
from router_agent.traffic.wiring import tier_of

ChangesTo: TypeAlias = Callable[[Destinations], AbstractContextManager[MakeChanges]]
"""Gives, for its block, what makes route changes to some destinations, and puts them back at the end."""

_RETRY_SLOWDOWN = 4

_REASONS = 2
"""Parts whose reasons are the verdict's, when more of them decided."""
_SENDINGS = 3
"""So often a proof tries to send to every prefix: a short stream has no time to make up for a pause."""
_CHURN_INTERVAL_S = 0.005
"""Resolution of the times in which nothing arrives."""


@dataclass(frozen=True)
class Part:
    """One part of a check and its verdict.

    Attributes:
        what: "port proof", "target", "NDR", "PDR", "RFC 2544 throughput", "loss curve", "back-to-back",
            "latency", "soak", "churn"; "check" for a check that could not go on.
        frames: label of the frame sizes; None where it does not depend on them.
        verdict: of this part.
    """

    what: str
    frames: str | None
    verdict: Verdict

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return named(self.what, self.frames)


@dataclass(frozen=True, eq=False)
class CheckResult:
    """Everything a check found.

    Attributes:
        check, endpoints: what was asked for; with the tier, which says what the verdict may claim.
        verdict: the answer.
        parts: verdict of each part that was run, in the order in which they ran.
        proof: None when there was none.
        measurements: for each frame size its target, then the others.
        predictions: what the rate should have been, for each frame size.
        environment: the tester's host.
        device: the device's host, where it is another one and could be read.
        started, ended: UTC.
        reports: files written, by kind: "json", "junit", "html".
    """

    check: Check
    endpoints: Endpoints
    verdict: Verdict
    parts: tuple[Part, ...]
    proof: Proof | None
    measurements: tuple[Measurement, ...]
    predictions: tuple[Prediction, ...]
    environment: Environment
    started: datetime
    ended: datetime
    device: Environment | None = None
    reports: dict[str, Path] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 for PASS, 1 for FAIL, 2 for INVALID."""
        return self.verdict.outcome.exit_code

    @property
    def target(self) -> Target | None:
        """The target of the first frame size; None when the check did not get so far."""
        return next((found for found in self.measurements if isinstance(found, Target)), None)

    @property
    def trial(self) -> TrialResult | None:
        """The trial of `target`."""
        return None if self.target is None else self.target.trial

    @property
    def ledger(self) -> Ledger | None:
        """The ledger of `target`."""
        return None if self.target is None else self.target.ledger

    def part(self, what: str, frames: str | None = None) -> Verdict:
        """Return the verdict of a part, of the first frame size unless another is named.

        Raises:
            KeyError: it was not run.
        """
        for part in self.parts:
            if part.what == what and frames in (None, part.frames):
                return part.verdict
        raise KeyError(what)


def named(what: str, frames: str | None) -> str:
    """Return the name of a part: "target, 64 bytes", "target, imix"."""
    if frames is None:
        return what
    return f"{what}, {frames} bytes" if frames.isdecimal() else f"{what}, {frames}"


def overall(parts: Sequence[Part]) -> Verdict:
    """Return one verdict of all parts; with more than two, reasons and notes say which part they are of."""
    if len(parts) <= 2:
        return combine(*(part.verdict for part in parts))
    named = [
        Verdict(
            part.verdict.outcome,
            f"{part.name}: {part.verdict.reason}",
            tuple(n if n.startswith(part.what) else f"{part.name}: {n}" for n in part.verdict.notes),
        )
        for part in parts
    ]
    verdict = combine(*named)
    if verdict.outcome is Outcome.PASS:
        sizes = list(dict.fromkeys(part.frames for part in parts if part.frames is not None))
        return replace(verdict, reason=f"all {len(parts)} parts passed, with frames of {', '.join(sizes)}")
    reasons = [one.reason for one in named if one.outcome is verdict.outcome]
    more = len(reasons) - _REASONS
    told = [
        *reasons[:_REASONS],
        *([f"and {more} more parts are {verdict.outcome.value}"] if more > 0 else []),
    ]
    return replace(verdict, reason="; ".join(told))


def run_check(
    check: Check | Scenario,
    endpoints: Endpoints,
    counters: Sequence[CounterSource] = (),
    report_dir: Path | None = None,
    progress: Progress | None = None,
    *,
    changes: ChangesTo | None = None,
    processor: Processor | None = None,
) -> CheckResult:
    """Run a whole check and write its reports.

    A generator that fails, or counters that cannot be read, make the check INVALID; they raise nothing.

    Args:
        check: what to do; a scenario alone is a check of its target at its one frame size.
        endpoints: the tester's ports.
        counters: counters of the device under test, for the ledger.
        report_dir: where to write report.json, .xml, .html and .prom; None writes none.
        progress: told what is going on.
        changes: makes route changes for a churn measurement.
        processor: of the device, for the prediction.
    """
    whole = Check((check,), tier_of(endpoints)) if isinstance(check, Scenario) else check
    run = _Run(whole, endpoints, counters, progress or silent, changes, processor or Processor())
    started = datetime.now(UTC)
    environment = this_host(ports=[port.interface for port in endpoints.ports if port.namespace is None])
    try:
        run.all()
    except (GeneratorError, CounterError, ReachError, ScenarioError) as error:
        run.parts.append(Part("check", None, Verdict(Outcome.INVALID, str(error))))
    verdict = overall(run.parts)
    result = CheckResult(
        check=whole,
        endpoints=endpoints,
        verdict=replace(verdict, notes=(*whole.notes, *run.notes, *verdict.notes)),
        parts=tuple(run.parts),
        proof=run.proof,
        measurements=tuple(run.measurements),
        predictions=tuple(run.predictions),
        environment=environment,
        started=started,
        ended=datetime.now(UTC),
    )
    if report_dir is None:
        return result
    from router_agent.traffic.report.files import write_reports

    run.progress("report", 0.0, str(report_dir))
    return replace(result, reports=write_reports(result, report_dir))


class _Run:
    """A check under way, with what it has found so far."""

    def __init__(
        self,
        check: Check,
        endpoints: Endpoints,
        counters: Sequence[CounterSource],
        progress: Progress,
        changes: ChangesTo | None,
        processor: Processor,
    ) -> None:
        self.check = check
        self.endpoints = endpoints
        self.progress = progress
        self._counters = counters
        self._changes = changes
        self._processor = processor
        self.parts: list[Part] = []
        self.notes: list[str] = []
        self.measurements: list[Measurement] = []
        self.predictions: list[Prediction] = []
        self.proof: Proof | None = None

    def all(self) -> None:
        """Run everything."""
        for number, scenario in enumerate(self.check.scenarios):
            with self._generator(scenario) as generator:
                if number == 0 and scenario.proof_pps is not None:
                    self._prove(generator, scenario, scenario.proof_pps)
                bench = Bench(generator, self.endpoints, self._counters)
                for what, found in measure_size(self.check, scenario, bench, self._told(scenario)):
                    self._take(what, scenario, found)
            if self.check.asked.churn is not None:
                self._take("churn", scenario, (self._churn(scenario),))
            sizes = scenario.sizes
            own = [one for one in self.measurements if one.sizes == sizes]
            ports = [self.endpoints.ports[i] for i in scenario.destinations.ingress_ports]
            self.predictions.append(predict(sizes, sending(ports), own, self._processor))

    def _take(self, what: str, scenario: Scenario, found: Sequence[Measurement]) -> None:
        self.measurements += found
        trials = (one.trial for one in found if isinstance(one, Target))
        self.notes += (note for trial in trials for note in trial.setup if note not in self.notes)
        verdict = combine(*(one.verdict for one in found))
        self.parts.append(Part(what, scenario.sizes.label, verdict))

    def _churn(self, scenario: Scenario) -> ChurnRun:
        """Measure route changes with a stream of its own, whose intervals are short."""
        if self._changes is None:
            raise ScenarioError("churn is to be measured, and nobody is named who changes routes")
        fine = replace(scenario, interval_s=min(scenario.interval_s, _CHURN_INTERVAL_S))
        with self._generator(fine) as generator, self._changes(scenario.destinations) as changes:
            return measure_churn(
                generator,
                LedgerKeeper([*self._counters, *generator.counters]),
                scenario.sizes,
                scenario.rate_pps,
                changes,
                goal=scenario.goal,
                progress=self._told(scenario),
            )

    def _told(self, scenario: Scenario) -> Progress:
        def told(stage: str, share: float, text: str) -> None:
            self.progress(named(stage, scenario.sizes.label), share, text)

        return told

    def _generator(self, scenario: Scenario) -> Generator:
        return registry.make(scenario, self.endpoints, self.check.generator)

    def _prove(self, generator: Generator, scenario: Scenario, rate_pps: float) -> None:
        if not generator.follows_packets:
            self.notes.append(
                f"no port proof: generator {generator.kind} counts packets by port and follows none"
            )
            return
        first = self._to_all(generator, scenario, rate_pps)
        rows = missing_rows(first)
        again = None
        if len(rows):
            again = rows, self._retry(scenario, rows, rate_pps / _RETRY_SLOWDOWN)
        self.proof = prove(scenario.destinations, self.endpoints.names, first, again)
        self.parts.append(Part("port proof", None, judge_proof(self.proof)))

    def _to_all(self, generator: Generator, scenario: Scenario, rate_pps: float) -> TrialResult:
        """Send one packet to each destination; to those that a held-up generator left out once more."""
        first = self._once(generator, scenario, rate_pps)
        for _ in range(_SENDINGS - 1):
            rows = np.flatnonzero(first.sent_to == 0)
            if not len(rows):
                break
            first = _merged(first, rows, self._retry(scenario, rows, rate_pps))
        return first

    def _retry(self, scenario: Scenario, rows: I64, rate_pps: float) -> TrialResult:
        subset = replace(scenario, destinations=scenario.destinations.rows(rows), frames=scenario.sizes)
        with self._generator(subset) as generator:
            return self._once(generator, subset, rate_pps)

    def _once(self, generator: Generator, scenario: Scenario, rate_pps: float) -> TrialResult:
        """Send one packet to each destination of a generator."""
        count = len(scenario.destinations)
        running = generator.start(rate_pps, count / rate_pps + 1.0, packets=count)
        return running.finish(followed(self.progress, "port proof", count))


def _merged(first: TrialResult, rows: I64, more: TrialResult) -> TrialResult:
    """Return a trial with another one to some of its destinations, to which it had sent nothing."""
    sent, arrived = first.sent_to.copy(), first.arrived.copy()
    sent[rows] += more.sent_to
    arrived[:, rows] += more.arrived
    drops = {port: n + more.tester_drops.get(port, 0) for port, n in first.tester_drops.items()}
    by_port = tuple(a + b for a, b in zip(first.received_by_port, more.received_by_port, strict=True))
    return replace(
        first,
        by_destination=ByDestination(sent, arrived),
        sent=first.sent + more.sent,
        received=first.received + more.received,
        received_by_port=by_port,
        tester_drops=drops,
    )
