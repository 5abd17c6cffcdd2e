"""The report of a check as data: what report.json holds, and what every other form is made from.

The field `schema` names the version, within which fields are only ever added; `json_schema` describes them,
and tests/unit/data/traffic-check-2.schema.json is what was promised. What could not be known is null.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from router_agent.traffic.counters.source import Side
from router_agent.traffic.generators.generator import Series
from router_agent.traffic.generators.latency import Latency
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.report.environment import Environment
from router_agent.traffic.scenario import Tier

_MOST_INTERVALS = 3_600
"""A longer series is reported in longer intervals."""

_QUANTILES = (0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99, 99.995, 99.999, 100.0)


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


def _listed(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _by_port(value: object, info: ValidationInfo) -> object:
    """Name the ports of counts that come in the order of the check's ports; by number where none are told."""
    if isinstance(value, dict) or not isinstance(value, tuple):
        return value
    names = (info.context or {}).get("ports") or [str(i) for i in range(len(value))]
    return dict(zip(names, value, strict=True))


def _coarse(value: object) -> object:
    """Bound the length of a series."""
    if isinstance(value, Series) and len(value.sent) > _MOST_INTERVALS:
        return value.per(value.interval_s * -(-len(value.sent) // _MOST_INTERVALS))
    return value


def _histogram(value: object) -> object:
    if not isinstance(value, Latency):
        return value
    if not len(value):
        return None
    return {
        "what": value.what,
        "packets": len(value),
        "least_ns": value.least,
        "mean_ns": value.mean,
        "percentiles": value.percentiles(),
        "curve": [(percent, value.percentile(percent)) for percent in _curve_percents(len(value))],
        "histogram": value.encoded(),
    }


def _curve_percents(count: int) -> list[float]:
    """Return percentiles, five to each nine, up to what so many packets can tell."""
    percents = [*np.arange(0.0, 90.0, 10.0).tolist(), *(90.0 + np.arange(10)).tolist()]
    nines = 2
    while 10 ** (nines + 1) <= count and nines < 7:
        percents += [100.0 - 10.0 ** (2 - nines) * part for part in (1.0, 0.7, 0.5, 0.3, 0.2)]
        nines += 1
    return [*percents, 100.0]


def _quantiles(value: object) -> object:
    """Turn one figure a prefix into a distribution: there may be a million of them."""
    if not isinstance(value, tuple):
        return value
    found = np.percentile(np.array(value), _QUANTILES) if value else []
    return {"prefixes": len(value), "quantiles": list(zip(_QUANTILES, map(float, found), strict=False))}


Column: TypeAlias = Annotated[list[int], BeforeValidator(_listed)]


class VerdictReport(_Model):
    """PASS, FAIL or INVALID, and why."""

    outcome: Outcome
    reason: str
    notes: list[str] = Field(default=[], description="remarks that did not decide")


class SizesReport(_Model):
    """Frame sizes of a stream, in bytes with FCS."""

    label: str = Field(description='as people call it: "64", "imix"')
    shares: list[tuple[int, int]] = Field(description="(size, weight), ascending")
    mean: float


class ScenarioReport(_Model):
    """What was asked for; what each frame size was offered is in the measurements."""

    name: str
    sha256: str = Field(description="of what is sent and what is good enough, whatever tier it runs on")
    destinations_sha256: str = Field(description="of the addresses, prefix lengths and expected ports")
    document: dict[str, Any] | None = Field(default=None, description="the scenario file, when there was one")
    generator: str = Field(description="kind of the generator")
    destinations: int
    ipv6_destinations: int
    shadowed: int = Field(description="prefixes left out because more specific ones cover them")
    loss_ratio: float = Field(description="lost / sent that is still a pass")
    unsent_ratio: float = Field(description="unsent / intended up to which a trial is valid")
    ports: list[str]
    ingress: list[str]
    sources: list[str] = Field(default=[], description="source prefixes of the packets")
    seed: int


class PartReport(_Model):
    """One part of a check: what was measured, at which frame sizes (null: whatever they are), its verdict."""

    what: str
    frames: str | None
    verdict: VerdictReport
    name: str = Field(description='as people call it: "target, 64 bytes"')


class SeriesReport(_Model):
    """Packets per interval; `lost` by the time of sending, or a difference where packets are not followed."""

    interval_s: float
    intended: Column
    sent: Column
    received: Column
    lost: Column


class LatencyReport(_Model):
    """How long packets took, in nanoseconds."""

    what: str = Field(description="what lies between the two time stamps")
    packets: int
    least_ns: int
    mean_ns: float
    percentiles: dict[float, int]
    curve: list[tuple[float, int]] = Field(description="(percentile, ns), as far as there are packets for it")
    histogram: str = Field(description="HdrHistogram, V2, compressed, base64")


LatencyField: TypeAlias = Annotated[LatencyReport | None, BeforeValidator(_histogram)]


class TrialReport(_Model):
    """One trial."""

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
    received_by_port: Annotated[dict[str, int], BeforeValidator(_by_port)]
    tester_drops: dict[str, int] = {}
    series: Annotated[SeriesReport, BeforeValidator(_coarse)]
    latency: LatencyField = None

    @property
    def loss_ratio(self) -> float:
        """Lost / sent; 0 when nothing was sent."""
        return self.lost / self.sent if self.sent else 0.0


class DropReport(_Model):
    """One named drop class."""

    name: str
    count: int
    side: Side = Field(description="the tester's own drops say nothing about the device")
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


class DeviationsReport(_Model):
    """How many prefixes deviate in one way, and the first 100 of them."""

    count: int
    first: list[DeviationReport]


class ProofReport(_Model):
    """The port proof."""

    prefixes: int
    right: int
    wrong: DeviationsReport
    missing: DeviationsReport
    recovered: DeviationsReport
    unsent: int
    shadowed: int
    rate_pps: float
    retry_pps: float
    tester_drops: int = 0
    by_port: dict[str, int]


class TargetReport(_Model):
    """A trial at the rate that is asked for."""

    kind: Literal["target"] = "target"
    sizes: SizesReport
    trial: TrialReport
    ledger: LedgerReport
    verdict: VerdictReport
    culprits: list[str] = Field(default=[], description="why not, in words, the likeliest first")


class SearchTrialReport(_Model):
    """One trial of a search."""

    rate_pps: float
    duration_s: float
    sent: int
    lost: int
    unsent: int
    valid: bool


class FoundReport(_Model):
    """Outcome of a search (RFC 9971)."""

    outcome: Outcome
    reason: str
    rate_pps: float | None = Field(description="relevant lower bound; null when there is none")
    upper_pps: float | None = Field(description="relevant upper bound; null: the result is irregular")
    forwarded_pps: float | None = Field(default=None, description="conditional throughput")
    limited: bool = Field(default=False, description="the tester could not do the highest rate asked for")
    trials: list[SearchTrialReport]


class RateSearchReport(_Model):
    """A search for the highest rate of a loss ratio."""

    kind: Literal["rate"] = "rate"
    name: str = Field(description='"NDR", "PDR", "RFC 2544 throughput", with what was changed in brackets')
    sizes: SizesReport
    loss_ratio: float
    exceed_ratio: float | None = None
    trial_s: float = Field(description="goal final trial duration")
    duration_sum_s: float | None = None
    relative_width: float | None = None
    found: FoundReport
    verdict: VerdictReport
    culprits: list[str] = Field(default=[], description="why no more, in words, the likeliest first")


class LossPointReport(_Model):
    """One trial of a frame loss curve."""

    share: float
    rate_pps: float
    sent: int
    lost: int
    valid: bool


class LossCurveReport(_Model):
    """Frame loss rate at falling rates (RFC 2544 26.3)."""

    kind: Literal["loss curve"] = "loss curve"
    sizes: SizesReport
    points: list[LossPointReport]
    verdict: VerdictReport


class BackToBackReport(_Model):
    """Longest bursts at the highest rate without loss (RFC 9004)."""

    kind: Literal["back to back"] = "back to back"
    sizes: SizesReport
    rate_pps: float
    bursts: list[int]
    corrected_buffer_s: float | None
    verdict: VerdictReport
    throughput_pps: float | None = Field(default=None, description="the device's forwarding rate, if known")
    longest_frames: int = Field(default=0, description="the longest burst that was tried")


class LatencyRunReport(_Model):
    """Latency percentiles at one rate; `share` is its part of the rate found or asked for."""

    kind: Literal["latency"] = "latency"
    sizes: SizesReport
    share: float
    rate_pps: float
    latency: LatencyField
    verdict: VerdictReport
    duration_s: float | None = Field(default=None, description="length of the stream")


class SoakReport(_Model):
    """A long trial: loss, and how steady the rate was."""

    kind: Literal["soak"] = "soak"
    sizes: SizesReport
    trial: TrialReport
    ledger: LedgerReport
    variation: float = Field(description="standard deviation over mean of packets received each second")
    worst_second_lost: int
    verdict: VerdictReport
    culprits: list[str] = []


class BatchReport(_Model):
    """Route changes made at once; unless `reachable`, losses to these prefixes afterwards are no fault."""

    at_s: float
    changes: int
    what: str
    reachable: bool = True


class BlockedReport(_Model):
    """A time in which packets were sent and none arrived."""

    at_s: float
    seconds: float


class BudgetReport(_Model):
    """What route changes may cost; null is no bound."""

    lost: int | None
    blocked_s: float | None
    convergence_s: float | None = Field(description="99th percentile by prefix")


class ConvergenceReport(_Model):
    """Time without packets of each prefix that lost some."""

    prefixes: int
    quantiles: list[tuple[float, float]] = Field(description="(percent of these prefixes, seconds)")


class ChurnReport(_Model):
    """Traffic while routes change (RFC 7747)."""

    kind: Literal["churn"] = "churn"
    sizes: SizesReport
    trial: TrialReport
    ledger: LedgerReport
    batches: list[BatchReport]
    blocked_s: float
    convergence_s: Annotated[ConvergenceReport, BeforeValidator(_quantiles)]
    budget_lost: int | None
    verdict: VerdictReport
    blocked: list[BlockedReport] = []
    blocked_resolution_s: float = 0.0
    convergence_resolution_s: float = 0.0
    lost: int = Field(default=0, description="without those to prefixes that were withdrawn")
    budget: BudgetReport | None = None
    culprits: list[str] = []


MeasurementReport: TypeAlias = Annotated[
    TargetReport
    | RateSearchReport
    | LossCurveReport
    | BackToBackReport
    | LatencyRunReport
    | SoakReport
    | ChurnReport,
    Field(discriminator="kind"),
]


def culprits_of(measurement: MeasurementReport) -> list[str]:
    """Return why a measurement is no better, in words; none for kinds that name nobody."""
    return list(getattr(measurement, "culprits", ()))


def title_of(measurement: MeasurementReport) -> str:
    """Return what a measurement is called among others of its frame sizes: "NDR", "latency at 50 %"."""
    match measurement:
        case RateSearchReport():
            return measurement.name
        case LatencyRunReport():
            return f"latency at {100 * measurement.share:.4g} % of the rate"
        case _:
            return str(measurement.kind)


class LimitReport(_Model):
    """One thing that bounds the rate."""

    what: str
    pps: float


class PredictionReport(_Model):
    """What the rate should be: the least of its limits."""

    sizes: SizesReport
    limits: list[LimitReport] = Field(description="the least first")
    measured_pps: float | None
    difference: str
    unknown: list[str] = []


class Status(StrEnum):
    """Whether a clause of an RFC was followed."""

    MET = "met"
    NOT_MET = "not met"
    NOT_APPLICABLE = "not applicable"


class ClauseReport(_Model):
    """One requirement of an RFC, whether it was followed, and why; see `clauses`."""

    rfc: int
    section: str
    title: str
    status: Status
    reason: str


class TrafficReport(_Model):
    """A whole traffic check."""

    schema_: Literal["router-agent/traffic-check/2"] = Field(
        alias="schema", default="router-agent/traffic-check/2"
    )
    started: datetime
    ended: datetime
    tier: Tier
    verdict: VerdictReport
    parts: list[PartReport]
    scenario: ScenarioReport
    proof: ProofReport | None
    measurements: list[MeasurementReport]
    predictions: list[PredictionReport]
    tester: Environment
    device: Environment | None
    clauses: list[ClauseReport] = []

    @property
    def seconds(self) -> float:
        """How long the check took."""
        return (self.ended - self.started).total_seconds()


class ForwardingRunReport(_Model):
    """What one forwarder does with one table."""

    forwarder: str
    wires: str = Field(description="what its ports are made of, in words")
    routes: int
    sizes: SizesReport
    highest_pps: float = Field(description="maximum forwarding rate (RFC 2285 3.6.2)")
    limit: str = Field(description="what it was limited by, in words")
    share: float = Field(description="part of the highest rate that the steady trial offered")
    trial: TrialReport
    ledger: LedgerReport
    variation: float = Field(description="standard deviation over mean of packets received each 100 ms")
    verdict: VerdictReport
    culprits: list[str] = []
    cycles: float | None = Field(default=None, description="of the forwarder for each packet")


class ForwardingReport(_Model):
    """Kernel and VPP forwarding in one run: same machine, same frames, same tables."""

    schema_: Literal["router-agent/traffic-forwarding/1"] = Field(
        alias="schema", default="router-agent/traffic-forwarding/1"
    )
    started: datetime
    ended: datetime
    sizes: SizesReport
    runs: list[ForwardingRunReport]
    gain: dict[int, float] = Field(
        description="by routes in the table, how many times the kernel's highest rate VPP's is"
    )
    tester: Environment

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended - self.started).total_seconds()


def report_json(report: TrafficReport | ForwardingReport) -> str:
    """Return report.json."""
    return report.model_dump_json(by_alias=True, indent=2)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of report.json."""
    return TrafficReport.model_json_schema(by_alias=True, mode="serialization")
