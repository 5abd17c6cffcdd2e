"""Turns what a check found into its report."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import numpy as np

from router_agent.model import Family
from router_agent.traffic.measurements.check import CheckResult
from router_agent.traffic.measurements.results import (
    BackToBack,
    ChurnRun,
    LatencyRun,
    LossCurve,
    Measurement,
    RateSearch,
    Soak,
    Target,
)
from router_agent.traffic.report.clauses import checklist
from router_agent.traffic.report.model import (
    BackToBackReport,
    ChurnReport,
    LatencyRunReport,
    LossCurveReport,
    MeasurementReport,
    PartReport,
    PredictionReport,
    ProofReport,
    RateSearchReport,
    ScenarioReport,
    SoakReport,
    TargetReport,
    TrafficReport,
    VerdictReport,
)
from router_agent.traffic.scenario import Check

_REPORTS: dict[type[Any], type[Any]] = {
    Target: TargetReport,
    RateSearch: RateSearchReport,
    LossCurve: LossCurveReport,
    BackToBack: BackToBackReport,
    LatencyRun: LatencyRunReport,
    Soak: SoakReport,
    ChurnRun: ChurnReport,
}


def report_of(result: CheckResult) -> TrafficReport:
    """Return the report of a check."""
    ports = result.endpoints.names
    report = TrafficReport(
        started=result.started,
        ended=result.ended,
        tier=result.check.tier,
        verdict=VerdictReport.model_validate(result.verdict),
        parts=[PartReport.model_validate(part) for part in result.parts],
        scenario=_scenario(result.check, ports),
        proof=None if result.proof is None else ProofReport.model_validate(result.proof),
        measurements=[measured(found, ports) for found in result.measurements],
        predictions=[PredictionReport.model_validate(prediction) for prediction in result.predictions],
        tester=result.environment,
        device=result.device,
    )
    return report.model_copy(update={"clauses": checklist(report)})


def measured(found: Measurement, ports: list[str]) -> MeasurementReport:
    """Return the report of one measurement; `ports` are the names of the tester's ports in order."""
    validated: MeasurementReport = _REPORTS[type(found)].model_validate(found, context={"ports": ports})
    return validated


def _scenario(check: Check, ports: list[str]) -> ScenarioReport:
    first = check.scenarios[0]
    destinations = first.destinations
    document = None if check.document is None else check.document.model_dump(mode="json", by_alias=True)
    return ScenarioReport(
        name=check.name,
        sha256=_digest(_asked(check, document)),
        destinations_sha256=_digest(
            *(
                np.ascontiguousarray(column).tobytes()
                for column in (
                    destinations.families,
                    destinations.addresses,
                    destinations.lengths,
                    destinations.expected,
                )
            )
        ),
        document=document,
        generator=check.generator.kind,
        destinations=len(destinations),
        ipv6_destinations=int((destinations.families == Family.IPV6).sum()),
        shadowed=destinations.shadowed,
        loss_ratio=first.goal.loss_ratio,
        unsent_ratio=first.goal.unsent_ratio,
        ports=ports,
        ingress=[ports[i] for i in destinations.ingress_ports],
        sources=[str(prefix) for prefix in first.sources],
        seed=first.seed,
    )


def _asked(check: Check, document: dict[str, Any] | None) -> bytes:
    """Return what two checks must share to be the same check, as bytes: not name, tier and its bindings."""
    if document is not None:
        asked: Any = {key: value for key, value in document.items() if key not in ("name", "tiers")}
    else:
        asked = [
            (scenario.sizes.shares, scenario.rate_pps, scenario.duration_s, str(scenario.goal), scenario.seed)
            for scenario in check.scenarios
        ]
    return json.dumps(asked, sort_keys=True).encode()


def _digest(*parts: bytes) -> str:
    found = sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()
