"""The report of a check as data: what report.json holds, and what the HTML page is rendered from.

The field `schema` names the version, within which fields are only ever added; `json_schema` describes them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.proof import Deviations, Proof
from router_agent.traffic.judgement.verdict import Outcome, Verdict
from router_agent.traffic.measurements.check import CheckResult
from router_agent.traffic.measurements.results import RateSearch
from router_agent.traffic.measurements.search import SearchResult


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class VerdictReport(_Model):
    """PASS, FAIL or INVALID, and why."""

    outcome: Outcome
    reason: str
    notes: list[str] = Field(description="remarks that did not decide")


class ScenarioReport(_Model):
    """What was asked for."""

    name: str
    destinations: int
    ipv6_destinations: int
    shadowed: int = Field(description="prefixes left out because more specific ones cover them")
    frames: str = Field(description="Ethernet frame size with FCS, or the name of a mix")
    frame_sizes: dict[int, int] = Field(description="weight of each size")
    rate_pps: float
    duration_s: float
    loss_ratio: float = Field(description="lost / sent that is still a pass")
    unsent_ratio: float = Field(description="unsent / intended up to which a trial is valid")
    ports: list[str]
    ingress: list[str]
    seed: int


class SeriesReport(_Model):
    """Packets per interval; `lost` by the time of sending."""

    interval_s: float
    intended: list[int]
    sent: list[int]
    received: list[int]
    lost: list[int]


class TrialReport(_Model):
    """The fixed-rate trial."""

    rate_pps: float
    duration_s: float
    offered_s: float
    intended: int
    sent: int
    received: int
    lost: int
    unsent: int
    duplicates: int | None = Field(description="null when the generator does not follow single packets")
    reordered: int | None
    refused: int
    received_by_port: dict[str, int]
    series: SeriesReport
    per_second: SeriesReport


class DropReport(_Model):
    """One named drop class."""

    name: str
    count: int
    side: str = Field(description="device, or tester: the tester's own drops say nothing about the device")
    source: str
    derived: bool = Field(description="a difference of counters, entered only as far as loss is unexplained")


class LedgerReport(_Model):
    """sent = received + drops + unaccounted."""

    sent: int
    received: int
    lost: int
    drops: list[DropReport]
    unaccounted: int
    moved: dict[str, dict[str, int]] = Field(description="every counter that moved, by source")


class DeviationReport(_Model):
    """A prefix whose packet was not seen where it should have been."""

    prefix: str
    expected: str
    seen: str


class ProofReport(_Model):
    """The port proof; lists hold the first 100, counts are complete."""

    prefixes: int
    right: int
    wrong: int
    missing: int
    recovered: int
    unsent: int
    shadowed: int
    rate_pps: float
    retry_pps: float
    by_port: dict[str, int]
    wrong_list: list[DeviationReport]
    missing_list: list[DeviationReport]
    recovered_list: list[DeviationReport]


class SearchTrialReport(_Model):
    """One trial of the search."""

    rate_pps: float
    duration_s: float
    sent: int
    lost: int
    unsent: int
    valid: bool


class SearchReport(_Model):
    """The loss-free-rate search (MLRsearch, RFC 9971)."""

    outcome: Outcome
    reason: str
    rate_pps: float | None
    upper_pps: float | None
    trials: list[SearchTrialReport]


class EnvironmentReport(_Model):
    """The host it was measured on."""

    host: str
    kernel: str
    processor: str
    cpus: int
    load: float
    versions: dict[str, str]


class TrafficReport(_Model):
    """A whole traffic check."""

    schema_: Literal["router-agent/traffic-check/1"] = Field(
        alias="schema", default="router-agent/traffic-check/1"
    )
    started: datetime
    ended: datetime
    verdict: VerdictReport
    parts: dict[str, VerdictReport]
    scenario: ScenarioReport
    trial: TrialReport | None
    ledger: LedgerReport | None
    proof: ProofReport | None
    search: SearchReport | None
    environment: EnvironmentReport


def report_of(result: CheckResult) -> TrafficReport:
    """Return the report of a check."""
    scenario, ports = result.check.scenarios[0], result.endpoints.names
    found = next((m.found for m in result.measurements if isinstance(m, RateSearch)), None)
    return TrafficReport(
        started=result.started,
        ended=result.ended,
        verdict=_verdict(result.verdict),
        parts={part.name: _verdict(part.verdict) for part in result.parts},
        scenario=ScenarioReport(
            name=scenario.name,
            destinations=len(scenario.destinations),
            ipv6_destinations=int((scenario.destinations.families == 10).sum()),
            shadowed=scenario.destinations.shadowed,
            frames=scenario.sizes.label,
            frame_sizes=dict(scenario.sizes.shares),
            rate_pps=scenario.rate_pps,
            duration_s=scenario.duration_s,
            loss_ratio=scenario.goal.loss_ratio,
            unsent_ratio=scenario.goal.unsent_ratio,
            ports=ports,
            ingress=[ports[i] for i in scenario.destinations.ingress_ports],
            seed=scenario.seed,
        ),
        trial=None if result.trial is None else _trial(result.trial, ports),
        ledger=None if result.ledger is None else _ledger(result.ledger),
        proof=None if result.proof is None else _proof(result.proof),
        search=None if found is None else _search(found),
        environment=EnvironmentReport.model_validate(result.environment, from_attributes=True),
    )


def report_json(report: TrafficReport) -> str:
    """Return report.json."""
    return report.model_dump_json(by_alias=True, indent=2)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of report.json."""
    return TrafficReport.model_json_schema(by_alias=True)


def _verdict(verdict: Verdict) -> VerdictReport:
    return VerdictReport(outcome=verdict.outcome, reason=verdict.reason, notes=list(verdict.notes))


def _trial(trial: TrialResult, ports: list[str]) -> TrialReport:
    def columns(seconds: float | None) -> SeriesReport:
        series = trial.series if seconds is None else trial.series.per(seconds)
        return SeriesReport(
            interval_s=series.interval_s,
            intended=series.intended.tolist(),
            sent=series.sent.tolist(),
            received=series.received.tolist(),
            lost=series.lost.tolist(),
        )

    return TrialReport(
        rate_pps=trial.rate_pps,
        duration_s=trial.duration_s,
        offered_s=trial.offered_s,
        intended=trial.intended,
        sent=trial.sent,
        received=trial.received,
        lost=trial.lost,
        unsent=trial.unsent,
        duplicates=trial.duplicates,
        reordered=trial.reordered,
        refused=trial.refused,
        received_by_port=dict(zip(ports, trial.received_by_port, strict=True)),
        series=columns(None),
        per_second=columns(1.0),
    )


def _ledger(ledger: Ledger) -> LedgerReport:
    return LedgerReport(
        sent=ledger.sent,
        received=ledger.received,
        lost=ledger.lost,
        drops=[DropReport.model_validate(drop, from_attributes=True) for drop in ledger.drops],
        unaccounted=ledger.unaccounted,
        moved=ledger.moved,
    )


def _proof(proof: Proof) -> ProofReport:
    def listed(deviations: Deviations) -> list[DeviationReport]:
        return [DeviationReport.model_validate(d, from_attributes=True) for d in deviations.first]

    return ProofReport(
        prefixes=proof.prefixes,
        right=proof.right,
        wrong=len(proof.wrong),
        missing=len(proof.missing),
        recovered=len(proof.recovered),
        unsent=proof.unsent,
        shadowed=proof.shadowed,
        rate_pps=proof.rate_pps,
        retry_pps=proof.retry_pps,
        by_port=proof.by_port,
        wrong_list=listed(proof.wrong),
        missing_list=listed(proof.missing),
        recovered_list=listed(proof.recovered),
    )


def _search(search: SearchResult) -> SearchReport:
    return SearchReport(
        outcome=search.outcome,
        reason=search.reason,
        rate_pps=search.rate_pps,
        upper_pps=search.upper_pps,
        trials=[SearchTrialReport.model_validate(t, from_attributes=True) for t in search.trials],
    )
