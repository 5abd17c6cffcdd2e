"""What the RFCs on benchmarking ask for, and whether this check did it: the checklist of a report.

Every line follows from what the report holds; what was not measured is not met or does not apply, and the
reason says which figure decided. RFC 2544 with its updates (9004: bursts; 9971: searches; 5180: IPv6; 6985:
mixes of sizes), and RFC 7747 for route changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Network, ip_network
from itertools import pairwise
from typing import TypeVar

from router_agent.traffic.report.model import (
    BackToBackReport,
    ChurnReport,
    ClauseReport,
    LatencyRunReport,
    LossCurveReport,
    RateSearchReport,
    SizesReport,
    SoakReport,
    Status,
    TargetReport,
    TrafficReport,
    TrialReport,
)
from router_agent.traffic.scenario import FrameSizes, Tier

ETHERNET_SIZES = (64, 128, 256, 512, 1024, 1280, 1518)
"""RFC 2544 9.1 and RFC 5180 5.1.1."""

_TRIAL_S, _LATENCY_S, _LATENCY_REPETITIONS, _BURST_REPETITIONS = 60.0, 120.0, 20, 50
_LOSS_STEP = 0.1
_NETWORKS = 256
_BENCHMARKING_IPV6 = IPv6Network("2001:2::/48")
_GENOME = {64: "a", 128: "b", 256: "c", 512: "d", 1024: "e", 1280: "f", 1518: "g", 2112: "h", 9000: "i"}
"""RFC 6985 section 4; other sizes are letters of a custom IMIX (section 5)."""

_M = TypeVar("_M")


def checklist(report: TrafficReport) -> list[ClauseReport]:
    """Return every clause, in the order of the RFCs."""
    rooms = (_rfc2544, _rfc5180, _rfc6985, _rfc7747, _rfc9004, _rfc9971)
    return [clause for room in rooms for clause in room(report)]


def genome(sizes: SizesReport) -> str:
    """Return the IMIX genome of a mix (RFC 6985) in sending order, with the letters that are ours."""
    order = FrameSizes(tuple(sizes.shares), sizes.label).assigned(sum(weight for _, weight in sizes.shares))
    custom = {
        size: chr(ord("A") + i) for i, size in enumerate(s for s, _ in sizes.shares if s not in _GENOME)
    }
    letters = "".join(_GENOME.get(size) or custom[size] for size in order.tolist())
    meaning = ", ".join(f"{letter} = {size} bytes" for size, letter in custom.items())
    return f"{letters} ({meaning})" if meaning else letters


def _line(rfc: int, section: str, title: str, status: Status, reason: str) -> ClauseReport:
    return ClauseReport(rfc=rfc, section=section, title=title, status=status, reason=reason)


def _clause(rfc: int, section: str, title: str, reasons: list[str], met: str) -> ClauseReport:
    """Return a clause that is met unless there are reasons why not."""
    if reasons:
        return _line(rfc, section, title, Status.NOT_MET, "; ".join(reasons))
    return _line(rfc, section, title, Status.MET, met)


def _outside(rfc: int, section: str, title: str, reason: str) -> ClauseReport:
    return _line(rfc, section, title, Status.NOT_APPLICABLE, reason)


def _rfc2544(report: TrafficReport) -> Iterator[ClauseReport]:
    yield _frame_sizes(report, 2544, "9.1", "Frame sizes on Ethernet")
    yield _verified(report)
    count = report.scenario.destinations
    spread = f"{count:,} destination prefixes"
    few = [f"{spread}, expected {_NETWORKS} networks or more"] if count < _NETWORKS else []
    yield _clause(2544, "12", "Protocol addresses: many networks at random", few, spread)
    yield _route_set_up(report)
    ingress = report.scenario.ingress
    one_way = [f"sent into {' and '.join(ingress)} only"] if len(ingress) < 2 else []
    yield _clause(2544, "14", "Bidirectional traffic", one_way, f"sent into {' and '.join(ingress)}")
    yield _maximum_rate(report)
    yield _trial_duration(report)
    yield _throughput(report)
    yield _latency(report)
    yield _loss_rate(report)
    for section, what in (("26.5", "System recovery"), ("26.6", "Reset")):
        yield _line(2544, section, what, Status.NOT_MET, "this check has no such measurement")


def _verified(report: TrafficReport) -> ClauseReport:
    title = "Verifying received frames"
    trials = _trials(report)
    if not trials:
        return _outside(2544, "10", title, "no trial was run")
    unfollowed = [trial for trial in trials if trial.duplicates is None]
    reasons = ["the generator counts frames by port and follows none of them"] if unfollowed else []
    met = "each frame carries the stream's tag and its sequence number; others are not counted"
    return _clause(2544, "10", title, reasons, met)


def _route_set_up(report: TrafficReport) -> ClauseReport:
    title = "Route set-up"
    proof = report.proof
    if proof is None:
        return _line(
            2544, "13", title, Status.NOT_MET, "no port proof, so nothing shows that the routes were there"
        )
    seen = proof.right + proof.recovered.count
    reasons = [f"{seen:,} of {proof.prefixes:,} prefixes left by their port"] if seen < proof.prefixes else []
    return _clause(2544, "13", title, reasons, f"each of {proof.prefixes:,} prefixes left by its port before")


def _maximum_rate(report: TrafficReport) -> ClauseReport:
    title = "Maximum frame rate of the medium"
    if report.tier is not Tier.LINE_RATE:
        return _outside(2544, "20", title, f"tier {report.tier.value}: there is no medium with a frame rate")
    link = {
        prediction.sizes.label: limit.pps
        for prediction in report.predictions
        for limit in prediction.limits
        if limit.what.startswith("link")
    }
    if not link:
        return _outside(2544, "20", title, "the link's speed is not known")
    short = [
        f"{label}: {_most_offered(report, label):,.0f} of {pps:,.0f} packets/s offered"
        for label, pps in link.items()
        if _most_offered(report, label) < 0.999 * pps
    ]
    return _clause(2544, "20", title, short, "every frame size was offered at the link's rate")


def _most_offered(report: TrafficReport, label: str) -> float:
    offered = [trial.rate_pps for sizes, trial in _by_size(report) if sizes.label == label]
    offered += [t.rate_pps for search in _searches(report, label) for t in search.found.trials]
    return max(offered, default=0.0)


def _trial_duration(report: TrafficReport) -> ClauseReport:
    title = "Trial duration of 60 s"
    spans = [trial.duration_s for trial in _trials(report)]
    spans += [search.trial_s for search in _kind(report, RateSearchReport)]
    if not spans:
        return _outside(2544, "24", title, "no trial was run")
    short = [f"the shortest trial that decided took {min(spans):g} s"] if min(spans) < _TRIAL_S else []
    return _clause(2544, "24", title, short, f"every trial that decided took {min(spans):g} s or more")


def _throughput(report: TrafficReport) -> ClauseReport:
    title = "Throughput"
    found = [s for s in _kind(report, RateSearchReport) if s.loss_ratio == 0]
    if not found:
        return _line(2544, "26.1", title, Status.NOT_MET, "no rate without loss was searched for")
    whole = [s for s in found if s.trial_s >= _TRIAL_S and not s.exceed_ratio]
    if not whole:
        most = max(s.trial_s for s in found)
        forgiving = any(s.exceed_ratio for s in found)
        why = f"the longest deciding trials took {most:g} s, expected {_TRIAL_S:g} s"
        if most >= _TRIAL_S and forgiving:
            why = "the search forgave trials with loss"
        return _line(2544, "26.1", title, Status.NOT_MET, why)
    lost = [f"{s.sizes.label}: {s.found.reason}" for s in whole if s.found.rate_pps is None]
    rates = ", ".join(f"{s.sizes.label}: {s.found.rate_pps:,.0f}" for s in whole if s.found.rate_pps)
    return _clause(2544, "26.1", title, lost, f"packets/s by frame size {rates}")


def _latency(report: TrafficReport) -> ClauseReport:
    title = "Latency"
    runs = [run for run in _kind(report, LatencyRunReport) if run.latency is not None]
    if not runs:
        return _line(2544, "26.2", title, Status.NOT_MET, "no latency was measured")
    reasons = []
    if not any(run.share > 0.999 for run in runs):
        shares = ", ".join(f"{share:.0%}" for share in sorted({run.share for run in runs}))
        reasons.append(f"measured at {shares} of the rate, not at the throughput itself")
    known = [run.duration_s for run in runs if run.duration_s is not None]
    if not known or min(known) < _LATENCY_S:
        reasons.append(f"streams of {min(known):.0f} s" if known else "streams of unknown length")
        reasons[-1] += f", expected {_LATENCY_S:.0f} s"
    repeated = min(sum(r.sizes == run.sizes and r.share == run.share for r in runs) for run in runs)
    if repeated < _LATENCY_REPETITIONS:
        reasons.append(
            f"{repeated} run of each size and rate, expected {_LATENCY_REPETITIONS}: instead of one tagged "
            "frame a run, all or a sample of the frames are timed"
        )
    return _clause(
        2544, "26.2", title, reasons, "at the throughput, repeated, with percentiles of all frames"
    )


def _loss_rate(report: TrafficReport) -> ClauseReport:
    title = "Frame loss rate"
    curves = _kind(report, LossCurveReport)
    if not curves:
        return _line(2544, "26.3", title, Status.NOT_MET, "no loss curve was measured")
    reasons = [f"{curve.sizes.label}: {why}" for curve in curves for why in _curve_faults(curve)]
    return _clause(2544, "26.3", title, reasons, "from 100 % down until two trials in a row lost nothing")


def _curve_faults(curve: LossCurveReport) -> Iterator[str]:
    shares = [point.share for point in curve.points]
    if not shares or max(shares) < 0.999:
        yield "does not begin at 100 %"
        return
    if max((a - b for a, b in pairwise(shares)), default=0.0) > _LOSS_STEP + 1e-6:
        yield f"steps of more than {_LOSS_STEP:.0%}"
    if any(not point.valid for point in curve.points):
        yield "a trial was invalid"
    if len(shares) < 2 or any(point.lost for point in curve.points[-2:]):
        yield "does not end with two trials without loss"


def _rfc5180(report: TrafficReport) -> Iterator[ClauseReport]:
    if not report.scenario.ipv6_destinations:
        yield _outside(5180, "5", "IPv6 traffic", "no IPv6 destinations")
        return
    yield _frame_sizes(report, 5180, "5.1.1", "Frame sizes for IPv6 on Ethernet")
    sources = [ip_network(source) for source in report.scenario.sources]
    ours = [source for source in sources if isinstance(source, IPv6Network)]
    outside = [str(source) for source in ours if not source.subnet_of(_BENCHMARKING_IPV6)]
    reasons = (
        [f"sources are in {', '.join(outside)}"] if outside else [] if ours else ["sources are not known"]
    )
    yield _clause(5180, "5.2", "Addresses of 2001:2::/48", reasons, "sources are in 2001:2::/48")


def _frame_sizes(report: TrafficReport, rfc: int, section: str, title: str) -> ClauseReport:
    used = {sizes.shares[0][0] for sizes in _sizes(report) if len(sizes.shares) == 1}
    missing = [str(size) for size in ETHERNET_SIZES if size not in used]
    if not used:
        return _outside(rfc, section, title, "only mixes of sizes were sent")
    reasons = [f"not sent: {', '.join(missing)}"] if missing else []
    return _clause(rfc, section, title, reasons, f"sent: {', '.join(map(str, sorted(used)))}")


def _rfc6985(report: TrafficReport) -> Iterator[ClauseReport]:
    mixes = {sizes.label: sizes for sizes in _sizes(report) if len(sizes.shares) > 1}
    if not mixes:
        yield _outside(6985, "4", "Genome of the mix", "no mix of sizes was sent")
        return
    told = "; ".join(f"{label}: {genome(sizes)}" for label, sizes in mixes.items())
    yield _line(6985, "4", "Genome of the mix", Status.MET, told)


def _rfc7747(report: TrafficReport) -> Iterator[ClauseReport]:
    runs = _kind(report, ChurnReport)
    if not runs:
        yield _outside(7747, "5", "Convergence of BGP", "no route was changed during a trial")
        return
    spaces = [report.scenario.destinations / run.trial.rate_pps for run in runs if run.trial.rate_pps]
    every = max(spaces, default=float("inf"))
    slow = [_slowest(run) for run in runs]
    coarse = [
        f"one packet to a prefix each {every * 1e3:,.1f} ms, a convergence was {s * 1e3:,.1f} ms"
        for s in slow
        if 0 < s < every
    ]
    yield _clause(
        7747, "4.6", "Measurement accuracy", coarse[:1], f"one packet to a prefix each {every * 1e3:,.1f} ms"
    )
    withdrawn = [b for run in runs for b in run.batches if "withdr" in b.what.lower()]
    none = [] if withdrawn else ["no batch withdrew routes"]
    yield _clause(
        7747, "5.6", "Route withdrawal", none, f"{sum(b.changes for b in withdrawn):,} routes withdrawn"
    )
    once = [f"{len(runs)} run, expected several"] if len(runs) < 2 else []
    yield _clause(7747, "4.7", "Measurement statistics", once, f"{len(runs)} runs")


def _slowest(run: ChurnReport) -> float:
    return max((seconds for _, seconds in run.convergence_s.quantiles), default=0.0)


def _rfc9004(report: TrafficReport) -> Iterator[ClauseReport]:
    found = _kind(report, BackToBackReport)
    if not found:
        yield _line(9004, "6", "Back-to-back frames", Status.NOT_MET, "no bursts were measured")
        return
    few = [
        f"{b.sizes.label}: {len(b.bursts)} repetitions, expected {_BURST_REPETITIONS}"
        for b in found
        if len(b.bursts) < _BURST_REPETITIONS
    ]
    yield _clause(9004, "6.3", "Repetitions of the burst test", few, "50 repetitions or more of each size")
    unknown = [
        f"{b.sizes.label}: the rate without loss is not known" for b in found if b.corrected_buffer_s is None
    ]
    yield _clause(9004, "6.4", "Corrected buffer time", unknown, "corrected by the rate without loss")


def _rfc9971(report: TrafficReport) -> Iterator[ClauseReport]:
    searches = _kind(report, RateSearchReport)
    if not searches:
        yield _outside(9971, "4", "Multiple loss ratio search", "no rate was searched for")
        return
    silent = [
        f"{_named(s)}: exceed ratio or duration sum not reported"
        for s in searches
        if s.exceed_ratio is None or s.duration_sum_s is None
    ]
    yield _clause(
        9971, "4", "Search goals are reported", silent, f"{len(searches)} goals with all attributes"
    )
    irregular = [
        f"{_named(s)}: {s.found.reason}"
        for s in searches
        if s.found.rate_pps is None or s.found.upper_pps is None
    ]
    yield _clause(
        9971, "4", "Regular results: both relevant bounds", irregular, "each goal has both of its bounds"
    )
    unable = sum(not trial.valid for s in searches for trial in s.found.trials)
    reasons = [f"{unable} trials were invalid, and passed over"] if unable else []
    yield _clause(9971, "4", "Offered load as intended", reasons, "every trial offered what it was asked for")


def _named(search: RateSearchReport) -> str:
    return f"{search.name.partition(' (')[0]}, {search.sizes.label}"


def _kind(report: TrafficReport, kind: type[_M]) -> list[_M]:
    return [m for m in report.measurements if isinstance(m, kind)]


def _searches(report: TrafficReport, label: str) -> Iterable[RateSearchReport]:
    return (s for s in _kind(report, RateSearchReport) if s.sizes.label == label)


def _sizes(report: TrafficReport) -> list[SizesReport]:
    return [measurement.sizes for measurement in report.measurements]


def _by_size(report: TrafficReport) -> list[tuple[SizesReport, TrialReport]]:
    return [
        (m.sizes, m.trial)
        for m in report.measurements
        if isinstance(m, (TargetReport, SoakReport, ChurnReport))
    ]


def _trials(report: TrafficReport) -> list[TrialReport]:
    return [trial for _, trial in _by_size(report)]
