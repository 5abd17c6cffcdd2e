"""A traffic check from one end to the other: port proof, fixed-rate trial, search, ledger, verdict, report.

result = run_check(scenario, endpoints, [KernelForwarder("pop1-fwd")], report_dir=Path("build/traffic"))
sys.exit(result.exit_code)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from router_agent.model import I64
from router_agent.traffic.counters.source import CounterError, CounterSource
from router_agent.traffic.generators.generator import GeneratorError, Snapshot, TrialResult
from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.judgement.proof import Proof, missing_rows, prove
from router_agent.traffic.judgement.verdict import Outcome, Verdict, combine, judge_proof, judge_trial
from router_agent.traffic.measurements.search import SearchResult, find_rate
from router_agent.traffic.measurements.trial import Progress, silent
from router_agent.traffic.report.environment import Environment, this_host
from router_agent.traffic.scenario import Endpoints, Scenario

_RETRY_SLOWDOWN = 4


@dataclass(frozen=True, eq=False)
class CheckResult:
    """Everything a check found.

    Attributes:
        scenario, endpoints: what was asked for.
        verdict: the answer.
        parts: verdict of each part that was run: "port proof", "trial", "search".
        proof, trial, ledger, search: what was measured; None when it was not run.
        environment: the host it was measured on.
        started, ended: UTC.
        reports: files written, by kind: "json", "junit", "html".
    """

    scenario: Scenario
    endpoints: Endpoints
    verdict: Verdict
    parts: dict[str, Verdict]
    proof: Proof | None
    trial: TrialResult | None
    ledger: Ledger | None
    search: SearchResult | None
    environment: Environment
    started: datetime
    ended: datetime
    reports: dict[str, Path]

    @property
    def exit_code(self) -> int:
        """0 for PASS, 1 for FAIL, 2 for INVALID."""
        return self.verdict.outcome.exit_code


def run_check(
    scenario: Scenario,
    endpoints: Endpoints,
    counters: Sequence[CounterSource] = (),
    report_dir: Path | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Run a whole check and write its reports.

    A generator that fails, or counters that cannot be read, make the check INVALID; they raise nothing.

    Args:
        scenario: what to do.
        endpoints: the tester's ports.
        counters: counters of the device under test, for the ledger.
        report_dir: where to write report.json, report.xml and report.html; None writes none.
        progress: told what is going on.
    """
    check = _Check(scenario, endpoints, counters, progress or silent)
    started = datetime.now(UTC)
    try:
        check.run()
    except (GeneratorError, CounterError) as error:
        check.parts["check"] = Verdict(Outcome.INVALID, str(error))
    result = CheckResult(
        scenario=scenario,
        endpoints=endpoints,
        verdict=combine(*check.parts.values()),
        parts=check.parts,
        proof=check.proof,
        trial=check.trial,
        ledger=check.ledger,
        search=check.search,
        environment=this_host(),
        started=started,
        ended=datetime.now(UTC),
        reports={},
    )
    if report_dir is None:
        return result
    from router_agent.traffic.report.files import write_reports

    check.progress("report", 0.0, str(report_dir))
    return replace(result, reports=write_reports(result, report_dir))


class _Check:
    """The parts of a check as they come in."""

    def __init__(
        self,
        scenario: Scenario,
        endpoints: Endpoints,
        counters: Sequence[CounterSource],
        progress: Progress,
    ) -> None:
        self.scenario = scenario
        self.endpoints = endpoints
        self.progress = progress
        self.names = endpoints.names
        self._generator = SocketsGenerator(scenario, endpoints)
        self._keeper = LedgerKeeper([*counters, *self._generator.counters])
        self.parts: dict[str, Verdict] = {}
        self.proof: Proof | None = None
        self.trial: TrialResult | None = None
        self.ledger: Ledger | None = None
        self.search: SearchResult | None = None

    def run(self) -> None:
        with self._generator as generator:
            if self.scenario.proof_pps is not None:
                self._prove(generator, self.scenario.proof_pps)
            self._fixed_rate(generator)
            if self.scenario.search is not None:
                self._search(generator)

    def _prove(self, generator: SocketsGenerator, rate_pps: float) -> None:
        first = self._once(generator, rate_pps, "port proof")
        rows = missing_rows(first)
        again = None
        if len(rows):
            slower = rate_pps / _RETRY_SLOWDOWN
            again = rows, self._retry(rows, slower)
        self.proof = prove(self.scenario.destinations, self.names, first, again)
        self.parts["port proof"] = judge_proof(self.proof)

    def _retry(self, rows: I64, rate_pps: float) -> TrialResult:
        subset = replace(
            self.scenario, destinations=self.scenario.destinations.rows(rows), frames=self.scenario.sizes
        )
        with SocketsGenerator(subset, self.endpoints) as generator:
            return self._once(generator, rate_pps, "port proof")

    def _once(self, generator: SocketsGenerator, rate_pps: float, stage: str) -> TrialResult:
        """Send one packet to each destination of a generator."""
        count = len(generator.scenario.destinations)
        running = generator.start(rate_pps, count / rate_pps + 1.0, packets=count)
        return running.finish(self._follow(stage, count))

    def _fixed_rate(self, generator: SocketsGenerator) -> None:
        scenario = self.scenario
        self.trial, self.ledger = self._measure(
            generator, scenario.rate_pps, scenario.duration_s, self._follow("trial", self._planned())
        )
        self.parts["trial"] = judge_trial(self.trial, self.ledger, scenario.goal)

    def _planned(self) -> int:
        return max(1, round(self.scenario.rate_pps * self.scenario.duration_s))

    def _search(self, generator: SocketsGenerator) -> None:
        search = self.scenario.search
        if search is None:
            return
        count = 0

        def run(rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
            nonlocal count
            count += 1
            self.progress("search", 0.0, f"trial {count} at {rate_pps:,.0f} pps")
            return self._measure(generator, rate_pps, duration_s, None)

        self.search = find_rate(search, self.scenario.goal, run)
        self.progress("search", 1.0, self.search.reason)
        self.parts["search"] = Verdict(self.search.outcome, self.search.reason)

    def _measure(
        self,
        generator: SocketsGenerator,
        rate_pps: float,
        duration_s: float,
        follow: Callable[[Snapshot], None] | None,
    ) -> tuple[TrialResult, Ledger]:
        self._keeper.open()
        trial = generator.start(rate_pps, duration_s).finish(follow)
        return trial, self._keeper.close(trial)

    def _follow(self, stage: str, count: int) -> Callable[[Snapshot], None]:
        def follow(now: Snapshot) -> None:
            missing = max(0, now.sent - now.received)
            self.progress(
                stage, min(1.0, now.sent / count), f"{now.sent:,} of {count:,} sent, {missing:,} not back"
            )

        return follow
