"""The report for Prometheus: a file for node_exporter's textfile collector.

Every figure is a gauge in base units, as the last check found it; each has the labels scenario and tier, so
that no dashboard takes one tier's figure for another's, and frames where it depends on their size.
"""

from __future__ import annotations

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest, write_to_textfile

from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.report.model import (
    ChurnReport,
    LatencyReport,
    LatencyRunReport,
    MeasurementReport,
    RateSearchReport,
    SoakReport,
    TargetReport,
    TrafficReport,
    title_of,
)

_PREFIX = "router_agent_traffic"


def textfile_of(report: TrafficReport) -> str:
    """Return the report in Prometheus' text format."""
    return generate_latest(registry_of(report)).decode()


def write_textfile(report: TrafficReport, path: Path) -> None:
    """Write it so that a reader sees the former file or the whole new one."""
    write_to_textfile(str(path), registry_of(report))


def registry_of(report: TrafficReport) -> CollectorRegistry:
    """Return the figures of a report."""
    registry = _Figures(report)
    for outcome in Outcome:
        registry.set(
            "verdict",
            "1 for the verdict of the check",
            report.verdict.outcome is outcome,
            outcome=outcome.value,
        )
    registry.set("end_timestamp_seconds", "When the check ended", report.ended.timestamp())
    registry.set("duration_seconds", "How long the check took", report.seconds)
    for part in report.parts:
        for outcome in Outcome:
            registry.set(
                "part_verdict",
                "1 for the verdict of a part of the check",
                part.verdict.outcome is outcome,
                part=part.what,
                frames=part.frames or "",
                outcome=outcome.value,
            )
    if report.proof is not None:
        for fate, count in (
            ("right", report.proof.right),
            ("wrong", report.proof.wrong.count),
            ("missing", report.proof.missing.count),
            ("recovered", report.proof.recovered.count),
        ):
            registry.set("proof_prefixes", "Prefixes by what the port proof saw", count, fate=fate)
    for measurement in report.measurements:
        _measurement(registry, measurement)
    for prediction in report.predictions:
        if prediction.limits:
            registry.set(
                "predicted_packets_per_second",
                "The least of the limits that are known",
                prediction.limits[0].pps,
                frames=prediction.sizes.label,
            )
    return registry.registry


class _Figures:
    """Gauges by name; each is registered when it first gets a value."""

    def __init__(self, report: TrafficReport) -> None:
        self.registry = CollectorRegistry()
        self._common = {"scenario": report.scenario.name, "tier": report.tier.value}
        self._gauges: dict[str, Gauge] = {}

    def set(self, name: str, words: str, value: float, **labels: str) -> None:
        if name not in self._gauges:
            names = (*self._common, *labels)
            self._gauges[name] = Gauge(f"{_PREFIX}_{name}", words, names, registry=self.registry)
        self._gauges[name].labels(**self._common, **labels).set(value)


def _measurement(figures: _Figures, found: MeasurementReport) -> None:
    labels = {"frames": found.sizes.label, "measurement": title_of(found)}
    match found:
        case TargetReport() | SoakReport() | ChurnReport():
            _trial(figures, found, labels)
        case RateSearchReport():
            if found.found.rate_pps is not None:
                words = "Highest rate that meets the goal's loss ratio"
                figures.set("rate_packets_per_second", words, found.found.rate_pps, **labels)
        case LatencyRunReport() if found.latency is not None:
            _latency(figures, found.latency, labels)
        case _:
            return


def _trial(figures: _Figures, found: TargetReport | SoakReport | ChurnReport, labels: dict[str, str]) -> None:
    trial, ledger = found.trial, found.ledger
    figures.set("offered_packets_per_second", "Offered load", trial.rate_pps, **labels)
    for fate, count in (
        ("sent", trial.sent),
        ("received", trial.received),
        ("unsent", trial.unsent),
        ("unaccounted", max(0, ledger.unaccounted)),
    ):
        figures.set("trial_packets", "Packets by what became of them", count, fate=fate, **labels)
    for drop in ledger.drops:
        words = "Packets in a named drop class"
        figures.set(
            "dropped_packets",
            words,
            drop.count,
            side=drop.side.value,
            reason=drop.name,
            counter=drop.source,
            **labels,
        )
    figures.set("loss_ratio", "Lost / sent", trial.loss_ratio, **labels)
    if trial.latency is not None:
        _latency(figures, trial.latency, labels)
    if isinstance(found, ChurnReport):
        figures.set("blocked_seconds", "Time in which nothing arrived", found.blocked_s, **labels)
        for percent, seconds in found.convergence_s.quantiles:
            words = "Time without packets of the prefixes that lost some"
            figures.set("convergence_seconds", words, seconds, quantile=f"{percent / 100:g}", **labels)


def _latency(figures: _Figures, found: LatencyReport, labels: dict[str, str]) -> None:
    for percent, nanoseconds in found.percentiles.items():
        words = "Latency that so many of the packets did not exceed"
        figures.set("latency_seconds", words, nanoseconds / 1e9, quantile=f"{percent / 100:g}", **labels)
