"""Every metric there is: its name, type, labels and meaning. docs/metrics.md is made from this.

Names follow Prometheus' conventions: base units (seconds, bytes), ``_total`` for what only grows, names and
not numbers in labels. Labels have few values: pipelines, tables, interfaces and peers come from the
configuration, reasons and states from lists in the code, VPP's reasons of drops are cut off at a hundred.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["gauge", "counter", "histogram", "info"]


@dataclass(frozen=True, slots=True)
class MetricFamily:
    """One metric.

    Attributes:
        name: as Prometheus has it; of a counter with ``_total``, of an info with ``_info``.
        kind: its type.
        labels: beside what Prometheus itself adds.
        words: what it is, and what to do about it.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Section:
    """Metrics that belong together.

    Attributes:
        title: of the section in the documentation.
        words: when they are there.
        families: the metrics.
    """

    title: str
    words: str
    families: tuple[MetricFamily, ...]


def _gauge(name: str, words: str, *labels: str) -> MetricFamily:
    return MetricFamily(name, "gauge", labels, words)


def _counter(name: str, words: str, *labels: str) -> MetricFamily:
    return MetricFamily(name, "counter", labels, words)


_P = "pipeline"
_TABLE = ("pipeline", "family", "table")
_PORT = ("pipeline", "interface")

SECTIONS: tuple[Section, ...] = (
    Section(
        "The process",
        "`router_agent_up` and those of the web process are always there; everything else comes from the "
        "agent, and is absent while that does not answer.",
        (
            _gauge(
                "router_agent_up",
                "Whether the agent answered. While it is 0 the FIB keeps what it holds and follows no "
                "change: systemctl status router-agent, journalctl -u router-agent.",
            ),
            MetricFamily("router_agent_build_info", "info", ("version",), "Version of the agent that runs."),
            MetricFamily(
                "router_agent_web_build_info",
                "info",
                ("version",),
                "Version of the web process; another than the agent's means that one of them was not "
                "restarted.",
            ),
            _gauge("router_agent_uptime_seconds", "Since the agent started. Counters begin at 0 then."),
            _counter("router_agent_cpu_seconds_total", "Processor time of the agent, user and system."),
            _gauge(
                "router_agent_resident_memory_bytes",
                "Memory of the agent; some 220 MB with a full table. Growth without growth of the table is "
                "a fault: report it.",
            ),
        ),
    ),
    Section(
        "Pipelines",
        "One feed into one FIB; `pipeline` is its name in agent.yaml.",
        (
            MetricFamily(
                "router_agent_pipeline_info", "info", ("pipeline", "feed", "fib"), "Kinds of feed and FIB."
            ),
            _gauge(
                "router_agent_pipeline_state",
                "1 for the state it is in. In sync is the only good one that lasts: router-agent show "
                "status says why it is another.",
                _P,
                "state",
            ),
            _gauge(
                "router_agent_routes_wanted",
                "Best routes of the feed: the sum of in_fib, pending, unknown and not_in_fib. Plan room for "
                "it (router_expected_routes).",
                *_TABLE,
            ),
            _gauge(
                "router_agent_routes_in_fib",
                "Routes that the FIB acknowledged; 0 while it is away, and what it holds is unknown.",
                *_TABLE,
            ),
            _gauge(
                "router_agent_routes_pending",
                "Routes on their way to the FIB; not near 0 for long means that it takes less than comes.",
                *_TABLE,
            ),
            _gauge(
                "router_agent_routes_unknown",
                "Routes of which nobody knows whether the FIB holds them, because it is away or has not been "
                "read yet.",
                *_TABLE,
            ),
            _gauge(
                "router_agent_routes_not_in_fib",
                "Wanted routes that the FIB does not hold, by reason; packets to them are dropped or go by "
                "a shorter prefix: router-agent show routes --absent.",
                *_TABLE,
                "reason",
            ),
            _gauge(
                "router_agent_routes_passed_over",
                "Routes that no FIB can be asked to hold, by what they are; they are in none of the counts "
                "above.",
                _P,
                "kind",
            ),
            _counter("router_agent_route_events_total", "Route changes the feed told of.", _P),
            _counter(
                "router_agent_writes_total",
                "Writes to the FIB by operation: added, replaced, deleted. Fewer than events, for changes "
                "of one prefix meet while they wait.",
                _P,
                "operation",
            ),
            _counter(
                "router_agent_writes_refused_total",
                "Of these, those that the FIB answered with an error: router-agent show routes --absent has "
                "it.",
                _P,
            ),
            MetricFamily(
                "router_agent_lag_seconds",
                "histogram",
                (_P,),
                "From the first change of a pass over what changed to the last acknowledgement of the FIB; "
                "one observation a pass. Milliseconds are normal, seconds while a whole table comes.",
            ),
            _gauge(
                "router_agent_oldest_change_seconds",
                "Age of the oldest change that is not in the FIB yet; 0 without one. It grows while the FIB "
                "does not answer.",
                _P,
            ),
            _gauge("router_agent_fib_unanswered_requests", "Requests that wait for the FIB's answer.", _P),
            _gauge(
                "router_agent_fib_unanswered_requests_highest",
                "Most that ever did since the FIB was opened.",
                _P,
            ),
            _gauge("router_agent_fib_window_requests", "Most that may (fib.window).", _P),
            _counter(
                "router_agent_resyncs_total",
                "Full readings of the feed by result: clean, or unclean where the table changed meanwhile "
                "and it was read again.",
                _P,
                "result",
            ),
            _gauge("router_agent_last_resync_timestamp_seconds", "When the last clean one ended.", _P),
            _counter(
                "router_agent_overruns_total",
                "Times the feed lost events and everything was read again. Now and then is harmless; steady "
                "growth means that the agent gets too little processor time.",
                _P,
            ),
            _counter(
                "router_agent_feed_losses_total",
                "Times the feed failed and was begun anew; the log says why.",
                _P,
            ),
            _counter(
                "router_agent_fib_losses_total",
                "Times the FIB went away and was read again: VPP restarted, crashed, or its interfaces "
                "changed.",
                _P,
            ),
            _gauge(
                "router_agent_path_sets",
                "Distinct sets of paths kept in memory; below 1,000 for a full table.",
                _P,
            ),
            _gauge(
                "router_agent_next_hop_entries",
                "Next-hop entries in VPP that routes lead through; one write to one of them moves all its "
                "routes.",
                _P,
            ),
            _gauge("router_agent_neighbours", "Neighbours of the control plane.", _P),
            _gauge(
                "router_agent_neighbours_refused",
                "Neighbours the FIB did not take; what leads through them is dropped: router-agent show "
                "neighbours.",
                _P,
            ),
        ),
    ),
    Section(
        "Audit and drift",
        "Whether the FIB holds what it acknowledged (docs/architecture.md).",
        (
            _counter("router_agent_audit_passes_total", "How often every prefix was looked up.", _P),
            _gauge(
                "router_agent_audit_rate_prefixes",
                "Prefixes looked up a second (audit.rate); 0 audits only when asked to.",
                _P,
            ),
            _counter(
                "router_agent_audit_full_readings_total",
                "Full readings of the FIB; each stops VPP's main thread for 1.3 s at a million routes.",
                _P,
            ),
            _gauge(
                "router_agent_audit_last_pass_timestamp_seconds",
                "When the last pass ended; absent before the first. Old: the pipeline was not in sync for "
                "long enough, or VPP is too busy.",
                _P,
            ),
            _gauge("router_agent_audit_last_pass_duration_seconds", "How long it took.", _P),
            _gauge("router_agent_audit_checked_prefixes", "Prefixes it looked up.", _P),
            _gauge(
                "router_agent_audit_compared_routes",
                "Routes of the feed's source (the kernel) that the agent's were compared with in it; 0 when "
                "they were not: that is done every audit.feed_seconds.",
                _P,
            ),
            _gauge(
                "router_agent_audit_covered_routes", "Routes that another owner's entry beats in the FIB.", _P
            ),
            _gauge(
                "router_agent_audit_unexplained_entries",
                "Entries of the FIB that are nobody's known: router-agent audit --full.",
                _P,
            ),
            _counter(
                "router_agent_drift_found_total",
                "Prefixes that were wrong in the FIB, by reason: lost, altered, stale, unheard. Somebody "
                "else writes there, or the FIB lost them: router-agent audit, vppctl show api clients.",
                _P,
                "reason",
            ),
            _counter("router_agent_drift_repaired_total", "Of these, those that were written again.", _P),
            _gauge(
                "router_agent_drift_standing_routes",
                "Routes that are wrong now and left so, because audit.action is report.",
                _P,
            ),
            _counter(
                "router_agent_next_hop_entries_drifted_total",
                "Next-hop entries found altered or lost; each may be many routes.",
                _P,
            ),
        ),
    ),
    Section(
        "Room in VPP",
        "Pipelines into VPP.",
        (
            _gauge(
                "router_agent_capacity_used_bytes",
                "Used of VPP's main heap and stats segment. VPP ends when one is full.",
                _P,
                "resource",
            ),
            _gauge("router_agent_capacity_size_bytes", "How large they are.", _P, "resource"),
            _gauge(
                "router_agent_capacity_exhausted",
                "Whether no more routes are added: raise router_expected_routes and run the playbook, or "
                "take fewer prefixes.",
                _P,
            ),
            _gauge(
                "router_agent_capacity_unknown",
                "Whether VPP's memory cannot be looked at, so that everything is let in: router-agent show "
                "status.",
                _P,
            ),
            _gauge(
                "router_agent_capacity_room_routes",
                "Routes that VPP has room for beside those it holds, at least; VPP's pools grow in steps, "
                "so this falls faster than the table grows. Less than a tenth of the table: raise "
                "router_expected_routes.",
                _P,
            ),
            _gauge("router_agent_capacity_withheld_routes", "Wanted routes that wait for room.", _P),
        ),
    ),
    Section(
        "Confirmed advertisement",
        "Pipelines with a feed of kind fpm.",
        (
            _gauge(
                "router_agent_zebra_connected",
                "Whether zebra is connected. While it is not, nothing new is announced to neighbours: "
                "systemctl status frr.",
                _P,
            ),
            _gauge(
                "router_agent_zebra_routes",
                "Routes by what zebra was told of them: confirmed, failed, or waiting.",
                _P,
                "answer",
            ),
            _counter("router_agent_zebra_answers_total", "Answers zebra was sent.", _P, "answer"),
        ),
    ),
    Section(
        "ExaBGP's sessions",
        "Pipelines with a feed of kind exabgp. FRR's sessions are frr_exporter's.",
        (
            _gauge(
                "router_agent_session_up",
                "Whether the session is established: journalctl -u exabgp.",
                _P,
                "peer",
                "peer_as",
            ),
            _gauge("router_agent_session_routes", "Routes the peer announces.", _P, "peer", "family"),
        ),
    ),
    Section(
        "Mirrored interfaces",
        "Pipelines whose FIB mirrors linux-cp's pairs.",
        (
            _counter("router_agent_mirror_passes_total", "Comparisons that were carried out.", _P),
            _gauge(
                "router_agent_mirror_problem",
                "Whether interfaces are not mirrored now: router-agent show status says why.",
                _P,
            ),
            _gauge("router_agent_mirror_refused", "What VPP could not be given in the last pass.", _P),
        ),
    ),
    Section(
        "Operation",
        "From the web process itself, whether the agent answers or not.",
        (
            _gauge(
                "router_agent_drained",
                "Whether it is drained, by an operator or by itself (fail-safe): router-agent drained.",
                "by",
            ),
            _gauge(
                "router_agent_drained_since_timestamp_seconds",
                "Since when; absent while it is not drained.",
            ),
        ),
    ),
    Section(
        "VPP",
        "From VPP's stats segment, read by the agent. VPP renews what threads, nodes and buffers did every "
        "10 s. Where the kernel forwards there is none of this: node_exporter has the kernel's interfaces.",
        (
            _gauge(
                "vpp_up",
                "Whether the stats segment could be read: systemctl status vpp, journalctl -u vpp.",
                _P,
            ),
            MetricFamily("vpp_build_info", "info", ("pipeline", "version"), "Version of VPP that runs."),
            _gauge("vpp_start_time_seconds", "When VPP started. Counters begin at 0 then.", _P),
            _gauge(
                "vpp_heartbeat_age_seconds",
                "Since VPP's main thread last renewed its figures, as far as was seen; more than 30 s is a "
                "stalled or dead main thread: vppctl show runtime.",
                _P,
            ),
            _counter("vpp_interface_receive_packets_total", "Packets received.", *_PORT),
            _counter(
                "vpp_interface_receive_bytes_total", "Bytes received, frames without their checksum.", *_PORT
            ),
            _counter("vpp_interface_transmit_packets_total", "Packets sent.", *_PORT),
            _counter("vpp_interface_transmit_bytes_total", "Bytes sent.", *_PORT),
            _counter(
                "vpp_interface_drops_total",
                "Packets that came in by it and that VPP dropped, for any reason; vpp_errors_total has "
                "reasons.",
                *_PORT,
            ),
            _counter(
                "vpp_interface_punts_total",
                "Packets that came in by it and were given to the kernel: BGP, ping, ARP.",
                *_PORT,
            ),
            _counter(
                "vpp_interface_receive_missed_total",
                "Packets that found the receive queue full: the workers are too slow or stood still. Near "
                "256 vectors_per_call it is too few workers, far below it is a stall.",
                *_PORT,
            ),
            _counter(
                "vpp_interface_receive_no_buffer_total",
                "Packets that found no buffer: raise buffers-per-numa (vpp_buffers_per_numa).",
                *_PORT,
            ),
            _counter(
                "vpp_interface_receive_errors_total",
                "Broken packets, as the NIC counts them: cable, optics, MTU.",
                *_PORT,
            ),
            _counter("vpp_interface_transmit_errors_total", "Packets that could not be sent.", *_PORT),
            _counter(
                "vpp_errors_total",
                "VPP's own counters of events by graph node, most of them reasons of drops; those above 0, "
                "the hundred largest.",
                _P,
                "node",
                "reason",
            ),
            _gauge(
                "vpp_thread_vectors_per_call",
                "Packets a graph node took at a time; a worker near 256 is at its limit, a low figure is "
                "normal.",
                _P,
                "thread",
            ),
            _gauge(
                "vpp_thread_loops_per_second",
                "Turns of a thread's loop; they fall as it gets busy.",
                _P,
                "thread",
            ),
            _counter(
                "vpp_node_calls_total",
                "Calls of graph nodes that packets go through.",
                _P,
                "thread",
                "node",
            ),
            _counter("vpp_node_vectors_total", "Packets in them.", _P, "thread", "node"),
            _counter(
                "vpp_node_clocks_total",
                "Processor clocks in them; clocks divided by vectors is the cost of a packet.",
                _P,
                "thread",
                "node",
            ),
            _gauge(
                "vpp_buffers",
                "Packet buffers by pool and state: available, cached by threads, used. Used near all of "
                "them loses packets.",
                _P,
                "pool",
                "state",
            ),
        ),
    ),
)


def families() -> Mapping[str, MetricFamily]:
    """Return every metric by its name."""
    return {family.name: family for family in _each()}


def _each() -> Iterator[MetricFamily]:
    for section in SECTIONS:
        yield from section.families
