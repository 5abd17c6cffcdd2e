"""What the agent says of itself and of VPP, as Prometheus reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from router_agent import __version__
from router_agent.drain.mark import FAIL_SAFE
from router_agent.model import Family, Reason
from router_agent.observe.answers import (
    AuditStatus,
    CapacityStatus,
    Confirmations,
    Counters,
    ForwarderCounters,
    InterfaceCounters,
    LagHistogram,
    MirrorStatus,
    PipelineStatus,
    State,
    Status,
    TableCounts,
)
from router_agent.web.agent import Heard
from router_agent.web.drained import Drained
from router_agent.web.families import families

_FAMILIES = families()
_TABLES = {253: "default", 254: "main", 255: "local"}
"""Kernel tables with a name of their own (linux/rtnetlink.h); others go by their number."""
DRIFT = (Reason.LOST, Reason.ALTERED, Reason.STALE, Reason.UNHEARD)
"""What an audit finds; each is told from the first scrape on, so that its first growth shows."""
_PORTS = {
    "vpp_interface_receive_packets_total": "rx_packets",
    "vpp_interface_receive_bytes_total": "rx_bytes",
    "vpp_interface_transmit_packets_total": "tx_packets",
    "vpp_interface_transmit_bytes_total": "tx_bytes",
    "vpp_interface_drops_total": "drops",
    "vpp_interface_punts_total": "punts",
    "vpp_interface_receive_missed_total": "rx_misses",
    "vpp_interface_receive_no_buffer_total": "rx_no_buffers",
    "vpp_interface_receive_errors_total": "rx_errors",
    "vpp_interface_transmit_errors_total": "tx_errors",
}
_CONTENT_TYPES = {True: openmetrics.CONTENT_TYPE_LATEST, False: CONTENT_TYPE_PLAIN_0_0_4}


def page(
    status: Heard[Status], counters: Heard[Counters], drained: Drained | None, *, accept: str = ""
) -> tuple[bytes, str]:
    """Return the figures as text, and the type of that text.

    Args:
        status: what the agent says of itself.
        counters: what it says of VPP.
        drained: the drain that is in force, if there is one.
        accept: the reader's Accept header; OpenMetrics is given where it is named, else Prometheus' own
            format.
    """
    registry = CollectorRegistry()
    registry.register(_Collected(list(figures_of(status, counters, drained))))
    open_metrics = "application/openmetrics-text" in accept
    encode = openmetrics.generate_latest if open_metrics else generate_latest
    return encode(registry), _CONTENT_TYPES[open_metrics]


def figures_of(status: Heard[Status], counters: Heard[Counters], drained: Drained | None) -> Iterator[Metric]:
    """Yield every metric that has a value, in the order of `router_agent.web.families`."""
    figures = _Figures()
    figures.add("router_agent_up", status.row is not None)
    figures.add("router_agent_web_build_info", version=__version__)
    _operation(figures, drained)
    if status.row is not None:
        _agent(figures, status.row, status.at)
    for forwarder in counters.row.forwarders if counters.row else ():
        _vpp(figures, forwarder)
    return figures.metrics()


class _Collected(Collector):
    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Sequence[Metric]:
        return self._metrics


class _Figures:
    """Metrics by name; each is made when it first gets a value."""

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Add a value of a gauge or counter, or the labels of an info."""
        metric = self._metric(name)
        if isinstance(metric, InfoMetricFamily):
            metric.add_metric([], labels)
        else:
            metric.add_metric([labels[label] for label in _FAMILIES[name].labels], float(value))

    def add_histogram(self, name: str, lags: LagHistogram, *labels: str) -> None:
        """Add a histogram; Prometheus' buckets hold those of all buckets below, too."""
        bounds = [*map(_bound, lags.bounds), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(lags.counts)), strict=True))
        self._metric(name).add_metric(list(labels), buckets=buckets, sum_value=lags.sum_seconds)

    def metrics(self) -> Iterator[Metric]:
        return (self._metrics[name] for name in _FAMILIES if name in self._metrics)

    def _metric(self, name: str) -> Any:
        if name not in self._metrics:
            family = _FAMILIES[name]
            made = {
                "gauge": GaugeMetricFamily,
                "counter": CounterMetricFamily,
                "histogram": HistogramMetricFamily,
                "info": InfoMetricFamily,
            }[family.kind]
            labels = () if family.kind == "info" else family.labels
            self._metrics[name] = made(name.removesuffix("_info"), family.words, labels=labels)
        return self._metrics[name]


def _bound(seconds: float) -> str:
    return repr(float(seconds))


def _agent(figures: _Figures, status: Status, at: float) -> None:
    figures.add("router_agent_build_info", version=status.version)
    figures.add("router_agent_uptime_seconds", status.uptime_seconds)
    figures.add("router_agent_cpu_seconds_total", status.cpu_seconds)
    figures.add("router_agent_resident_memory_bytes", status.rss_bytes)
    for pipeline in status.pipelines:
        _pipeline(figures, pipeline, at)


def _operation(figures: _Figures, drained: Drained | None) -> None:
    itself = drained is not None and drained.by == FAIL_SAFE
    figures.add("router_agent_drained", drained is not None and not itself, by="operator")
    figures.add("router_agent_drained", itself, by=FAIL_SAFE)
    if drained is not None and drained.since is not None:
        figures.add("router_agent_drained_since_timestamp_seconds", round(drained.since.timestamp()))


def _pipeline(figures: _Figures, pipeline: PipelineStatus, at: float) -> None:
    name = pipeline.name
    figures.add("router_agent_pipeline_info", pipeline=name, feed=pipeline.feed, fib=pipeline.fib)
    for state in State:
        figures.add("router_agent_pipeline_state", pipeline.state is state, pipeline=name, state=state.value)
    for counts in pipeline.tables:
        _table(figures, name, counts)
    for kind, count in pipeline.passed_over.items():
        figures.add("router_agent_routes_passed_over", count, pipeline=name, kind=kind)
    _writes(figures, pipeline)
    _readings(figures, pipeline)
    load = pipeline.fib_load
    figures.add("router_agent_fib_unanswered_requests", load.unanswered, pipeline=name)
    figures.add("router_agent_fib_unanswered_requests_highest", load.highest_unanswered, pipeline=name)
    figures.add("router_agent_fib_window_requests", load.window, pipeline=name)
    if load.entries is not None:
        figures.add("router_agent_next_hop_entries", load.entries, pipeline=name)
    figures.add("router_agent_path_sets", pipeline.path_sets, pipeline=name)
    figures.add("router_agent_neighbours", pipeline.neighbours, pipeline=name)
    figures.add("router_agent_neighbours_refused", load.refused_neighbours, pipeline=name)
    if pipeline.audit is not None:
        _audit(figures, name, pipeline.audit, at)
    if pipeline.capacity is not None:
        _capacity(figures, name, pipeline.capacity)
    if pipeline.confirmations is not None:
        _zebra(figures, name, pipeline.confirmations)
    if pipeline.mirror is not None:
        _mirror(figures, name, pipeline.mirror)
    for session in pipeline.sessions:
        figures.add(
            "router_agent_session_up",
            session.up,
            pipeline=name,
            peer=session.peer,
            peer_as=str(session.peer_as),
        )
        for family, count in session.routes.items():
            figures.add(
                "router_agent_session_routes", count, pipeline=name, peer=session.peer, family=_family(family)
            )


def _table(figures: _Figures, pipeline: str, counts: TableCounts) -> None:
    labels = {
        "pipeline": pipeline,
        "family": _family(counts.family),
        "table": _TABLES.get(counts.table, str(counts.table)),
    }
    figures.add("router_agent_routes_wanted", counts.desired, **labels)
    figures.add("router_agent_routes_in_fib", counts.in_fib, **labels)
    figures.add("router_agent_routes_pending", counts.pending, **labels)
    figures.add("router_agent_routes_unknown", counts.unknown, **labels)
    for reason, count in counts.not_in_fib.items():
        figures.add("router_agent_routes_not_in_fib", count, **labels, reason=reason.value)


def _writes(figures: _Figures, pipeline: PipelineStatus) -> None:
    name, writes = pipeline.name, pipeline.writes
    figures.add("router_agent_route_events_total", pipeline.events, pipeline=name)
    for operation in ("added", "replaced", "deleted"):
        count = getattr(writes, operation)
        figures.add("router_agent_writes_total", count, pipeline=name, operation=operation)
    figures.add("router_agent_writes_refused_total", writes.refused, pipeline=name)
    if pipeline.lags.counts:
        figures.add_histogram("router_agent_lag_seconds", pipeline.lags, name)
    figures.add("router_agent_oldest_change_seconds", pipeline.lag_seconds, pipeline=name)


def _readings(figures: _Figures, pipeline: PipelineStatus) -> None:
    name = pipeline.name
    for result, count in (("clean", pipeline.resyncs), ("unclean", pipeline.unclean_resyncs)):
        figures.add("router_agent_resyncs_total", count, pipeline=name, result=result)
    if pipeline.last_resync is not None:
        ended = pipeline.last_resync.timestamp()
        figures.add("router_agent_last_resync_timestamp_seconds", round(ended), pipeline=name)
    figures.add("router_agent_overruns_total", pipeline.overruns, pipeline=name)
    figures.add("router_agent_feed_losses_total", pipeline.feed_losses, pipeline=name)
    figures.add("router_agent_fib_losses_total", pipeline.fib_losses, pipeline=name)


def _audit(figures: _Figures, pipeline: str, audit: AuditStatus, at: float) -> None:
    figures.add("router_agent_audit_passes_total", audit.passes, pipeline=pipeline)
    figures.add("router_agent_audit_rate_prefixes", audit.rate, pipeline=pipeline)
    figures.add("router_agent_audit_full_readings_total", audit.readings, pipeline=pipeline)
    if audit.last_pass_age_seconds is not None and audit.last_pass_seconds is not None:
        ended = round(at - audit.last_pass_age_seconds)
        figures.add("router_agent_audit_last_pass_timestamp_seconds", ended, pipeline=pipeline)
        figures.add(
            "router_agent_audit_last_pass_duration_seconds", audit.last_pass_seconds, pipeline=pipeline
        )
    figures.add("router_agent_audit_checked_prefixes", audit.checked, pipeline=pipeline)
    figures.add("router_agent_audit_compared_routes", audit.compared, pipeline=pipeline)
    figures.add("router_agent_audit_covered_routes", audit.covered, pipeline=pipeline)
    figures.add("router_agent_audit_unexplained_entries", audit.unexplained, pipeline=pipeline)
    for reason in DRIFT:
        count = audit.found.get(reason, 0)
        figures.add("router_agent_drift_found_total", count, pipeline=pipeline, reason=reason.value)
    figures.add("router_agent_drift_repaired_total", audit.repaired, pipeline=pipeline)
    figures.add("router_agent_drift_standing_routes", audit.standing, pipeline=pipeline)
    figures.add("router_agent_next_hop_entries_drifted_total", audit.shared, pipeline=pipeline)


def _capacity(figures: _Figures, pipeline: str, capacity: CapacityStatus) -> None:
    for resource, used in capacity.used_bytes.items():
        labels = {"pipeline": pipeline, "resource": resource}
        figures.add("router_agent_capacity_used_bytes", used, **labels)
        figures.add("router_agent_capacity_size_bytes", capacity.total_bytes.get(resource, 0), **labels)
    figures.add("router_agent_capacity_exhausted", capacity.exhausted, pipeline=pipeline)
    figures.add("router_agent_capacity_unknown", capacity.unknown is not None, pipeline=pipeline)
    figures.add("router_agent_capacity_withheld_routes", capacity.withheld, pipeline=pipeline)
    if capacity.room is not None:
        figures.add("router_agent_capacity_room_routes", capacity.room, pipeline=pipeline)


def _zebra(figures: _Figures, pipeline: str, told: Confirmations) -> None:
    figures.add("router_agent_zebra_connected", told.connected, pipeline=pipeline)
    for answer, count in (
        ("confirmed", told.confirmed),
        ("failed", told.failed),
        ("waiting", told.waiting),
    ):
        figures.add("router_agent_zebra_routes", count, pipeline=pipeline, answer=answer)
    for answer, count in (("confirmed", told.answered), ("failed", told.answered_failed)):
        figures.add("router_agent_zebra_answers_total", count, pipeline=pipeline, answer=answer)


def _mirror(figures: _Figures, pipeline: str, mirror: MirrorStatus) -> None:
    figures.add("router_agent_mirror_passes_total", mirror.passes, pipeline=pipeline)
    figures.add("router_agent_mirror_problem", mirror.problem is not None, pipeline=pipeline)
    figures.add("router_agent_mirror_refused", len(mirror.refused), pipeline=pipeline)


def _vpp(figures: _Figures, vpp: ForwarderCounters) -> None:
    pipeline = ",".join(vpp.pipelines)
    figures.add("vpp_up", vpp.problem is None, pipeline=pipeline)
    if vpp.version:
        figures.add("vpp_build_info", pipeline=pipeline, version=vpp.version)
    if vpp.problem is not None:
        return
    figures.add("vpp_start_time_seconds", vpp.started, pipeline=pipeline)
    if vpp.heartbeat_age_seconds is not None:
        figures.add("vpp_heartbeat_age_seconds", vpp.heartbeat_age_seconds, pipeline=pipeline)
    for interface in vpp.interfaces:
        _port(figures, pipeline, interface)
    for name, count in vpp.errors.items():
        node, _, reason = name.partition("/")
        figures.add("vpp_errors_total", count, pipeline=pipeline, node=node, reason=reason)
    for thread in vpp.threads:
        labels = {"pipeline": pipeline, "thread": thread.name}
        figures.add("vpp_thread_vectors_per_call", thread.vectors_per_call, **labels)
        figures.add("vpp_thread_loops_per_second", thread.loops_per_second, **labels)
        for did in thread.nodes:
            figures.add("vpp_node_calls_total", did.calls, **labels, node=did.node)
            figures.add("vpp_node_vectors_total", did.vectors, **labels, node=did.node)
            figures.add("vpp_node_clocks_total", did.clocks, **labels, node=did.node)
    for pool in vpp.buffers:
        states: Mapping[str, int] = {"available": pool.available, "cached": pool.cached, "used": pool.used}
        for state, count in states.items():
            figures.add("vpp_buffers", count, pipeline=pipeline, pool=pool.name, state=state)


def _port(figures: _Figures, pipeline: str, interface: InterfaceCounters) -> None:
    for name, field in _PORTS.items():
        figures.add(name, getattr(interface, field), pipeline=pipeline, interface=interface.name)


def _family(family: Family) -> str:
    return family.label.lower()
