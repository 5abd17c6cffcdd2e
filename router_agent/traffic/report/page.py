"""The report for people: one HTML page that needs nothing but itself, and no script.

The verdict comes first, with the tier beside it, because a figure means nothing without either.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from statistics import fmean, pstdev
from typing import Any

import yaml
from markupsafe import Markup

from router_agent.page_templates import directory_of, templates_in
from router_agent.traffic.report import figures
from router_agent.traffic.report.environment import Environment
from router_agent.traffic.report.model import (
    BackToBackReport,
    ChurnReport,
    ForwardingReport,
    LatencyReport,
    LatencyRunReport,
    LossCurveReport,
    MeasurementReport,
    RateSearchReport,
    SeriesReport,
    SizesReport,
    SoakReport,
    TargetReport,
    TrafficReport,
    TrialReport,
    culprits_of,
    title_of,
)
from router_agent.traffic.report.plots import Plot, key, svg
from router_agent.traffic.report.words import CLAIMS, chief_culprits, duration, rate, routes, share, span

_MOST_ROWS = 120
"""Of the table of figures over time."""


@dataclass(frozen=True)
class View:
    """One measurement as the page shows it."""

    title: str
    measurement: MeasurementReport
    plots: list[Plot] = field(default_factory=list)
    tiles: list[tuple[str, str]] = field(default_factory=list)
    latency: list[tuple[str, LatencyReport]] = field(default_factory=list)
    trial: TrialReport | None = None

    @property
    def culprits(self) -> list[str]:
        """Why it is no better, in words."""
        return culprits_of(self.measurement)


@dataclass(frozen=True)
class Group:
    """Measurements of one frame size."""

    name: str
    title: str
    anchor: str
    views: list[View]


@dataclass(frozen=True)
class Row:
    """One frame size in the summary."""

    title: str
    anchor: str
    cells: dict[str, str]


def html_of(report: TrafficReport) -> str:
    """Return the page of a check."""
    groups = _groups(report)
    return _rendered(
        "page.html.j2",
        report=report,
        claim=CLAIMS[report.tier],
        culprits=chief_culprits(report),
        groups=groups,
        rows=_rows(report, groups),
        overview=figures.rates_by_size(report),
        clauses=[(rfc, list(lines)) for rfc, lines in groupby(report.clauses, key=lambda c: c.rfc)],
    )


def forwarding_html(report: ForwardingReport) -> str:
    """Return the page of a comparison of forwarders."""
    largest = max((run.routes for run in report.runs), default=0)
    return _rendered(
        "forwarding.html.j2",
        report=report,
        rates=figures.rates_by_routes(report.runs),
        steady=figures.steadiness([run for run in report.runs if run.routes == largest]),
        views=[(run, _of_trial(run.trial)) for run in report.runs],
    )


def _rendered(name: str, **content: object) -> str:
    directory = directory_of("traffic_report")
    templates = templates_in(directory)
    templates.filters |= {
        "count": lambda value: f"{value:,}",
        "rate": rate,
        "routes": routes,
        "share": share,
        "span": span,
        "duration": duration,
        "frames": _frames,
        "facts": facts,
        "per_second": _per_second,
        "svg": lambda plot: Markup(svg(plot)),  # noqa: S704
        "key": lambda curve: Markup(key(curve)),  # noqa: S704
        "yaml": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True),
    }
    style = Markup((directory / "style.css").read_text())  # noqa: S704
    return templates.get_template(name).render(style=style, **content)


def facts(host: Environment) -> list[tuple[str, str]]:
    """Return what is known of a host as names and words, in the order people look for them."""
    found = [("Kernel", host.kernel), ("Processor", _processor(host))]
    found += [("Machine", host.virtual)] if host.virtual else []
    found.append(("CPUs for the check", f"{host.cpus}; load {host.load:g} before it"))
    if host.cpu is not None:
        cpu = host.cpu
        power = [
            f"governor {cpu.governor or 'unknown'}",
            f"turbo {'unknown' if cpu.turbo is None else 'on' if cpu.turbo else 'off'}",
            f"SMT {cpu.smt or 'unknown'}",
            f"isolated CPUs {cpu.isolated or 'none'}",
        ]
        found.append(("Processor settings", ", ".join(power)))
        mitigated = [f"{name}: {word}" for name, word in cpu.mitigations.items()]
        found.append(("Mitigations", "; ".join(mitigated) or "not affected by anything the kernel knows"))
    found += [
        (f"NUMA node {node.node}", _numa(node.cpus, node.memory_bytes, node.hugepages)) for node in host.numa
    ]
    found += [(f"NIC {nic.name}", _nic(nic.model_dump(exclude_none=True))) for nic in host.nics]
    found.append(("Kernel arguments", " ".join(host.kernel_arguments) or "none that matter"))
    found.append(("Versions", ", ".join(f"{name} {number}" for name, number in host.versions.items())))
    found += [(f"SHA-256 of {path}", digest) for path, digest in host.configurations.items()]
    found.append(
        ("Not known", "; ".join(f"{what} ({why})" for what, why in host.unknown.items()) or "nothing")
    )
    return found


def _processor(host: Environment) -> str:
    if host.cpu is None:
        return host.processor
    cpu = host.cpu
    mhz = f" at {cpu.mhz:,.0f} MHz" if cpu.mhz else ""
    return f"{cpu.model}, {cpu.sockets} sockets, {cpu.cores} cores, {cpu.threads} threads{mhz}"


def _numa(cpus: str, memory: int | None, pages: dict[int, int]) -> str:
    words = [f"CPUs {cpus}"] + ([f"{memory / 2**30:.1f} GiB"] if memory else [])
    words += [f"{count} huge pages of {size // 1024} MiB" for size, count in sorted(pages.items()) if count]
    return ", ".join(words)


def _nic(nic: dict[str, object]) -> str:
    order = ("pci", "device_id", "driver", "driver_version", "firmware", "numa_node", "pcie", "state")
    words = [f"{name.replace('_', ' ')} {nic[name]}" for name in (*order, "link_mbps", "mtu") if name in nic]
    for name in ("rings", "queues"):
        inside = nic.get(name)
        if isinstance(inside, dict) and inside:
            words.append(f"{name} " + "/".join(f"{kind} {count}" for kind, count in inside.items()))
    return ", ".join(words)


def _groups(report: TrafficReport) -> list[Group]:
    labels = list(dict.fromkeys(m.sizes.label for m in report.measurements))
    return [_group(label, [m for m in report.measurements if m.sizes.label == label]) for label in labels]


def _group(label: str, measurements: Sequence[MeasurementReport]) -> Group:
    runs = [m for m in measurements if isinstance(m, LatencyRunReport)]
    views = [_view(m) for m in measurements if not isinstance(m, LatencyRunReport)]
    views += _latency_views(runs)
    anchor = "frames-" + "".join(c if c.isalnum() else "-" for c in label)
    sizes = measurements[0].sizes
    name = _frames(sizes) if len(sizes.shares) == 1 else sizes.label
    return Group(name, _frames(sizes), anchor, views)


def _view(found: MeasurementReport) -> View:
    name = title_of(found)
    name = name[0].upper() + name[1:]
    match found:
        case TargetReport():
            return View(f"{name} rate", found, **_of_trial(found.trial))
        case SoakReport():
            shown = _of_trial(found.trial)
            shown["tiles"] += [
                ("Variation", f"{100 * found.variation:.3f} %"),
                ("Lost in the worst second", f"{found.worst_second_lost:,}"),
            ]
            return View(name, found, **shown)
        case ChurnReport():
            return _churn_view(found)
        case RateSearchReport():
            return View(name, found, [figures.search_trials(found)], _search_tiles(found))
        case LossCurveReport():
            return View("Frame loss rate", found, [figures.loss_curve(found)])
        case BackToBackReport():
            return View("Back-to-back frames", found, [], _burst_tiles(found))
        case _:
            return View(name, found)


def _of_trial(trial: TrialReport) -> dict[str, Any]:
    plots = [figures.rate_over_time(trial)] if trial.series.sent else []
    plots += [figures.loss_over_time(trial)] if any(n > 0 for n in trial.series.lost) else []
    timed = [] if trial.latency is None else [("this trial", trial.latency)]
    plots += [figures.latency(timed)] if timed else []
    return {"plots": plots, "tiles": _trial_tiles(trial), "latency": timed, "trial": trial}


def _churn_view(found: ChurnReport) -> View:
    events = figures.churn_events(found)
    plots = [figures.rate_over_time(found.trial, events), figures.loss_over_time(found.trial, events)]
    plots += [plot for plot in (figures.convergence(found),) if plot is not None]
    budget = "none stated" if found.budget_lost is None else f"{found.budget_lost:,} packets"
    tiles = [
        *_trial_tiles(found.trial),
        ("Lost, not withdrawn", f"{found.lost:,}"),
        ("Loss budget", budget),
        ("Nothing arrived for", duration(found.blocked_s * 1e9)),
        ("Resolution by prefix", duration(found.convergence_resolution_s * 1e9)),
        ("Route changes", f"{sum(batch.changes for batch in found.batches):,}"),
    ]
    return View("Route changes under load", found, plots, tiles, [], found.trial)


def _latency_views(runs: Sequence[LatencyRunReport]) -> Iterable[View]:
    """Show the runs of one frame size in one plot, under the verdict of the worst."""
    if not runs:
        return []
    timed = [(f"{100 * run.share:.4g} % of the rate, {rate(run.rate_pps)} pps", run.latency) for run in runs]
    known = [(label, found) for label, found in timed if found is not None]
    worst = min(runs, key=lambda run: ("FAIL", "INVALID", "PASS").index(run.verdict.outcome.value))
    plots = [figures.latency(known)] if known else []
    return [View("Latency", worst, plots, [], known)]


def _trial_tiles(trial: TrialReport) -> list[tuple[str, str]]:
    return [
        ("Offered load", f"{rate(trial.rate_pps)} pps"),
        ("Duration", span(trial.duration_s)),
        ("Sent", f"{trial.sent:,}"),
        ("Received", f"{trial.received:,}"),
        ("Lost", f"{trial.lost:,}"),
        ("Loss ratio", share(trial.lost, trial.sent)),
    ]


def _search_tiles(search: RateSearchReport) -> list[tuple[str, str]]:
    found = search.found
    tiles = [
        ("Relevant lower bound", "none" if found.rate_pps is None else f"{rate(found.rate_pps)} pps"),
        (
            "Relevant upper bound",
            "none: irregular result" if found.upper_pps is None else f"{rate(found.upper_pps)} pps",
        ),
        ("Goal loss ratio", f"{search.loss_ratio:g}"),
        ("Final trial duration", span(search.trial_s)),
    ]
    if found.forwarded_pps is not None:
        tiles.insert(2, ("Conditional throughput", f"{rate(found.forwarded_pps)} pps"))
    if search.exceed_ratio is not None:
        tiles.append(("Goal exceed ratio", f"{search.exceed_ratio:g}"))
    if search.duration_sum_s is not None:
        tiles.append(("Goal duration sum", span(search.duration_sum_s)))
    return tiles


def _burst_tiles(found: BackToBackReport) -> list[tuple[str, str]]:
    tiles = [("Rate", f"{rate(found.rate_pps)} pps"), ("Repetitions", str(len(found.bursts)))]
    if found.bursts:
        tiles += [
            ("Mean burst", f"{fmean(found.bursts):,.0f} frames"),
            ("Shortest, longest", f"{min(found.bursts):,}, {max(found.bursts):,}"),
            ("Standard deviation", f"{pstdev(found.bursts):,.0f} frames"),
        ]
    buffer = found.corrected_buffer_s
    return [*tiles, ("Corrected buffer time", "not known" if buffer is None else duration(buffer * 1e9))]


def _rows(report: TrafficReport, groups: Sequence[Group]) -> list[Row]:
    names = list(dict.fromkeys(name for group in groups for name in _cells(report, group)))
    return [
        Row(group.name, group.anchor, {name: _cells(report, group).get(name, "") for name in names})
        for group in groups
    ]


def _cells(report: TrafficReport, group: Group) -> dict[str, str]:
    cells: dict[str, str] = {}
    for view in group.views:
        found = view.measurement
        if isinstance(found, TargetReport):
            cells |= {
                "Asked for": rate(found.trial.rate_pps),
                "Verdict": found.verdict.outcome.value,
                "Loss ratio": share(found.trial.lost, found.trial.sent),
            }
        elif isinstance(found, RateSearchReport):
            pps = found.found.rate_pps
            cells[found.name.partition(" (")[0]] = found.verdict.outcome.value if pps is None else rate(pps)
        if view.latency:
            cells["99 % within"] = duration(view.latency[-1][1].percentiles.get(99.0, 0))
    sizes = group.views[0].measurement.sizes
    predicted = [p.limits[0].pps for p in report.predictions if p.sizes == sizes and p.limits]
    return cells | ({"Predicted": rate(predicted[0])} if predicted else {})


def _per_second(series: SeriesReport) -> list[tuple[float, int, int, int, int]]:
    count = len(series.sent)
    step = max(1, round(1.0 / series.interval_s), -(-count // _MOST_ROWS))
    columns = (series.intended, series.sent, series.received, series.lost)
    return [
        (i * series.interval_s, *(sum(column[i : i + step]) for column in columns))  # type: ignore[misc]
        for i in range(0, count, step)
    ]


def _frames(sizes: SizesReport) -> str:
    if len(sizes.shares) == 1:
        return f"{sizes.shares[0][0]} bytes"
    mix = ", ".join(f"{weight} of {size}" for size, weight in sizes.shares)
    return f"{sizes.label} ({mix} bytes)"
