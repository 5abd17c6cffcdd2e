"""What the agent answers when it is asked: shapes of every control answer, and of the questions.

The agent fills these, `router_agent.control` carries them as JSON, the command line prints them. A reader
ignores keys it does not know, so that an older client can still ask a newer agent. Units are in the names:
seconds, bytes; everything else is a count.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from router_agent.model import Family, Reason


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Question(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _network(value: object) -> object:
    """Read a prefix, or an address as a prefix of full length; host bits must be zero."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError("expected a prefix such as 192.0.2.0/24 or 2001:db8::/32")  # noqa: TRY004 - for pydantic
    return ip_network(value)


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class State(StrEnum):
    """What a pipeline is doing."""

    STARTING = "starting"
    """Nothing has been read yet."""
    READING_FIB = "reading-fib"
    """The FIB's content is being read; nothing is written before that is complete (invariant 1)."""
    SYNCING = "syncing"
    """Changes are on their way to the FIB."""
    IN_SYNC = "in-sync"
    """The FIB holds what it should, except what is counted in `FamilyCounts.not_in_fib`."""
    FEED_LOST = "feed-lost"
    """The feed went away; the FIB keeps what it holds."""
    FIB_LOST = "fib-lost"
    """The FIB went away; it will be opened and read again."""
    FAILED = "failed"
    """The pipeline cannot go on by itself; `PipelineStatus.error` says what to do."""


class FamilyCounts(_Answer):
    """Routes of one address family in one pipeline.

    ``desired`` is the sum of the other four: in the FIB, on the way there, nobody knows, and not there for a
    reason. Nobody knows while the FIB is away, and until it has been read.
    """

    family: Family
    desired: int = 0
    in_fib: int = 0
    pending: int = 0
    unknown: int = 0
    not_in_fib: Mapping[Reason, int] = Field(default_factory=dict)

    @property
    def absent(self) -> int:
        """How many wanted routes are not in the FIB for a reason."""
        return sum(self.not_in_fib.values())


class TableCounts(FamilyCounts):
    """The same of one table: `table` as the kernel numbers it, `fib_table` as the FIB does."""

    table: int
    fib_table: int


class LagHistogram(_Answer):
    """How far the FIB was behind, of every pass since the agent started.

    Attributes:
        bounds: upper bounds in seconds, ascending.
        counts: passes in each bucket: above the bound before, up to and with its own; the last has no bound.
        sum_seconds: of all passes.
    """

    bounds: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    sum_seconds: float = 0.0


class FibLoad(_Answer):
    """What a FIB has under way, and what it keeps beside routes.

    Attributes:
        unanswered: requests that wait for an answer now.
        window: most that may.
        highest_unanswered: most that ever did since the FIB was opened.
        entries: next-hop entries that routes lead through; None where there are none.
        refused_neighbours: neighbours the FIB did not take the last time.
    """

    unanswered: int = 0
    highest_unanswered: int = 0
    window: int = 0
    entries: int | None = None
    refused_neighbours: int = 0


class FeedSession(_Answer):
    """A BGP session that a feed takes routes from.

    Attributes:
        peer: its address.
        peer_as: its AS.
        up: established.
        up_seconds: for how long, as far as the agent has seen; None when it is not up.
        routes: that it announced, by family.
    """

    peer: str
    peer_as: int
    up: bool
    up_seconds: float | None = None
    routes: Mapping[Family, int] = Field(default_factory=dict)


class Writes(_Answer):
    """Writes to a FIB since the agent started, by kind."""

    added: int = 0
    replaced: int = 0
    deleted: int = 0
    refused: int = 0
    """Of the above, those the FIB answered with an error."""


class MirrorStatus(_Answer):
    """How VPP's interfaces are kept as Linux has them.

    Attributes:
        aspects: what is mirrored.
        passes: comparisons that were carried out.
        problem: why nothing is mirrored now.
        refused: what VPP could not be given in the last pass, and why.
    """

    aspects: tuple[str, ...]
    passes: int = 0
    problem: str | None = None
    refused: tuple[str, ...] = ()


class CapacityStatus(_Answer):
    """Whether a FIB has room for more routes.

    Attributes:
        exhausted: the alarm: no more routes are added, and those in the FIB stay; see ``shortage``.
        shortage: which resource is short, how much of it is used, and what to do.
        unknown: why the FIB's resources cannot be seen, so that everything is let in.
        withheld: wanted routes that wait for room.
        room: how many more routes there is room for at least; None while nothing is known.
        used_bytes: by resource.
        total_bytes: by resource.
    """

    exhausted: bool
    shortage: str | None = None
    unknown: str | None = None
    withheld: int = 0
    room: int | None = None
    used_bytes: Mapping[str, int] = Field(default_factory=dict)
    total_bytes: Mapping[str, int] = Field(default_factory=dict)


class Confirmations(_Answer):
    """What a feed that asks for it was told of its routes."""

    confirmed: int = 0
    """In the FIB."""
    failed: int = 0
    """Refused, lost, or not possible in this FIB; `FamilyCounts.not_in_fib` has the reasons."""
    waiting: int = 0
    """Not decided yet."""
    connected: bool = False
    """Whether zebra is there to be told."""
    answered: int = 0
    """Answers it was sent since the agent started: in the FIB."""
    answered_failed: int = 0
    """Likewise: not in the FIB."""


class PipelineStatus(_Answer):
    """One feed into one FIB.

    Attributes:
        name: as configured.
        feed: kind of the feed.
        fib: kind of the FIB.
        state: what it is doing.
        error: why it is lost or failed, and what to do; None otherwise.
        counts: one entry for each family that is followed.
        tables: one entry for each family and table; `counts` are their sums.
        lag_seconds: age of the oldest change that is not in the FIB yet; 0 when there is none.
        lag_p50_seconds: of the last passes, from the first change of a pass to its last answer: the median.
        lag_p99_seconds: likewise the 99th percentile.
        lags: of all passes.
        last_resync: when the last full reading of the feed ended cleanly.
        resyncs: full readings that ended cleanly since the agent started.
        unclean_resyncs: those that did not, and were done again.
        fib_losses: times the FIB went away since the agent started.
        feed_losses: times the feed failed.
        overruns: times the feed lost events and had to read everything again.
        events: route changes the feed told of, besides readings of everything; more than the writes where
            changes of one prefix met before they were written.
        path_sets: path sets that feed and FIB keep memory for, with those that nobody has any more and that
            were not looked for yet.
        passed_over: routes that no FIB can be asked to hold, by reason.
        writes: what was written.
        neighbours: neighbours copied into the FIB.
        fib_load: what the FIB has under way.
        sessions: BGP sessions of a feed that has some.
        confirmations: what the feed was told of its routes; None for a feed that does not ask.
        audit: how the comparison of the FIB with what was written goes.
        mirror: how interfaces are mirrored, None where they are not.
        capacity: the FIB's resources; None where routes cannot outgrow them.
    """

    name: str
    feed: str
    fib: str
    state: State
    error: str | None = None
    counts: tuple[FamilyCounts, ...] = ()
    tables: tuple[TableCounts, ...] = ()
    lag_seconds: float = 0.0
    lag_p50_seconds: float = 0.0
    lag_p99_seconds: float = 0.0
    lags: LagHistogram = Field(default_factory=LagHistogram)
    last_resync: datetime | None = None
    resyncs: int = 0
    unclean_resyncs: int = 0
    fib_losses: int = 0
    feed_losses: int = 0
    overruns: int = 0
    events: int = 0
    path_sets: int = 0
    passed_over: dict[str, int] = Field(default_factory=dict)
    writes: Writes = Field(default_factory=Writes)
    neighbours: int = 0
    fib_load: FibLoad = Field(default_factory=FibLoad)
    sessions: tuple[FeedSession, ...] = ()
    confirmations: Confirmations | None = None
    audit: AuditStatus | None = None
    mirror: MirrorStatus | None = None
    capacity: CapacityStatus | None = None


class Status(_Answer):
    """The agent as a whole."""

    version: str
    pid: int
    uptime_seconds: float
    rss_bytes: int
    cpu_seconds: float = 0.0
    pipelines: tuple[PipelineStatus, ...]

    @property
    def in_sync(self) -> bool:
        """Whether every pipeline has brought its FIB to what it should hold."""
        return all(pipeline.state is State.IN_SYNC for pipeline in self.pipelines)


class InterfaceCounters(_Answer):
    """What a forwarding plane counted on one interface since it started; packets where nothing else is said.

    Attributes:
        name: the forwarding plane's own.
        drops: packets that came in by it and were dropped by the forwarding plane, for whatever reason.
        punts: packets handed to the control plane.
        rx_misses: packets that found the receive queue full: the workers were too slow.
        rx_no_buffers: packets that found no buffer to be put into.
        rx_errors: broken packets, as the NIC counts them.
        tx_errors: packets that could not be sent.
    """

    name: str
    rx_packets: int = 0
    rx_bytes: int = 0
    tx_packets: int = 0
    tx_bytes: int = 0
    drops: int = 0
    punts: int = 0
    rx_misses: int = 0
    rx_no_buffers: int = 0
    rx_errors: int = 0
    tx_errors: int = 0


class NodeCounters(_Answer):
    """What one graph node did on one thread: ``vectors`` are packets, ``clocks`` ticks of the processor."""

    node: str
    calls: int
    vectors: int
    clocks: int


class ThreadCounters(_Answer):
    """One thread of a forwarding plane.

    Attributes:
        name: ``main`` or ``worker-N``.
        vectors_per_call: packets that a graph node took at a time, in the last update interval; 256 is the
            most.
        loops_per_second: turns of its loop, likewise.
        nodes: of the packet's way through the graph, those that were called.
    """

    name: str
    vectors_per_call: float = 0.0
    loops_per_second: float = 0.0
    nodes: tuple[NodeCounters, ...] = ()


class BufferPool(_Answer):
    """Packet buffers of one NUMA node."""

    name: str
    available: int
    cached: int
    used: int


class ForwarderCounters(_Answer):
    """The counters of one VPP, from its stats segment.

    Attributes:
        pipelines: those that write to it.
        version: of VPP; empty when it is not known.
        problem: why there are no counters.
        heartbeat_age_seconds: since its main thread last renewed the segment; None before that was seen
            twice.
        started: when it started, seconds since 1970.
        interfaces: all but those of VPP's own (``local0``).
        errors: packets by graph node and reason, as ``node/reason``, without those that are 0.
        threads: its threads.
        buffers: its buffer pools.
    """

    pipelines: tuple[str, ...]
    version: str = ""
    problem: str | None = None
    heartbeat_age_seconds: float | None = None
    started: float = 0.0
    interfaces: tuple[InterfaceCounters, ...] = ()
    errors: Mapping[str, int] = Field(default_factory=dict)
    threads: tuple[ThreadCounters, ...] = ()
    buffers: tuple[BufferPool, ...] = ()


class Counters(_Answer):
    """What the forwarding planes have counted: an entry for each VPP. A kernel's are node_exporter's."""

    forwarders: tuple[ForwarderCounters, ...] = ()


class InFib(StrEnum):
    """Whether a route is in the FIB."""

    YES = "yes"
    PENDING = "pending"
    """A write is on its way, or waits for its turn."""
    UNKNOWN = "unknown"
    """The FIB is away, or has not been read yet."""
    NO = "no"
    """`RouteRow.reason` says why."""


class RouteFilter(_Question):
    """Which routes to list.

    Attributes:
        prefix: this prefix and everything inside it; all when None.
        table: of this kernel table only.
        pipeline: of this pipeline only.
        absent: only those that are not in the FIB.
        limit: stop after this many rows.
    """

    prefix: Network | None = None
    table: int | None = Field(default=None, ge=0, le=0xFFFFFFFF)
    pipeline: str | None = None
    absent: bool = False
    limit: int | None = Field(default=None, ge=1)


class RouteRow(_Answer):
    """A route that is wanted.

    Attributes:
        pipeline: whose it is.
        prefix: as text, for example ``192.0.2.0/24``.
        table: kernel table.
        metric: metric of the chosen candidate.
        paths: its legs in words, for example ``via 192.0.2.1 dev eth0 weight 2``; a single word such as
            ``blackhole`` for a route without legs.
        in_fib: whether the FIB holds it.
        fib_table: the FIB table it belongs to.
        reason: why it is not in the FIB.
        detail: the FIB's own words about the reason, for example an error number.
    """

    pipeline: str
    prefix: str
    table: int
    metric: int
    paths: tuple[str, ...]
    in_fib: InFib
    fib_table: int
    reason: Reason | None = None
    detail: str | None = None


class NeighbourRow(_Answer):
    """A neighbour of the control plane; ``fib_interface`` is None where the FIB has no such interface."""

    pipeline: str
    interface: str
    address: str
    mac: str
    fib_interface: str | None = None


class AuditRequest(_Question):
    """How to audit; without ``now`` and ``full`` the answer tells of the last pass.

    Attributes:
        now: look every prefix up at once, as fast as VPP's other work is not delayed by it.
        full: read the whole FIB in one go, which also finds stale routes, and stops VPP's main thread.
    """

    now: bool = False
    full: bool = False


class AuditFinding(_Answer):
    """One prefix that was not as it should be.

    Attributes:
        at: when it was found.
        prefix: as text.
        fib_table: FIB table it belongs to.
        reason: ``lost``, ``altered`` or ``stale``.
        wanted: its legs as they were acknowledged.
        held: those that were found.
        repaired: whether it was written again.
    """

    at: datetime
    prefix: str
    fib_table: int
    reason: Reason
    wanted: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    repaired: bool


class AuditStatus(_Answer):
    """The audit of one pipeline's FIB.

    Attributes:
        action: ``repair`` or ``report``.
        rate: prefixes a second; 0 when the FIB is audited only on request.
        passes: how often every prefix was looked at since the agent started.
        readings: full readings among them.
        progress: prefixes looked at in the pass that is under way.
        last_pass_age_seconds: since the last pass ended; None before the first.
        last_pass_seconds: how long it took.
        checked: prefixes it looked at.
        compared: routes of the feed's source that the agent's were compared with in it; 0 when they were not.
        covered: of these, those that another owner's entry beats in the FIB.
        unexplained: entries of the FIB that are neither ours nor others' when it was last read in full.
        found: prefixes found wrong since the agent started, by reason.
        repaired: of these, those that were written again.
        shared: next-hop entries, which routes lead through, found altered or lost since the agent started.
        standing: wanted routes that are wrong now and left so, because the action is ``report``.
    """

    action: str
    rate: int
    passes: int = 0
    readings: int = 0
    progress: int = 0
    last_pass_age_seconds: float | None = None
    last_pass_seconds: float | None = None
    checked: int = 0
    compared: int = 0
    covered: int = 0
    unexplained: int = 0
    found: Mapping[Reason, int] = Field(default_factory=dict)
    repaired: int = 0
    shared: int = 0
    standing: int = 0


class BgpComparison(_Answer):
    """BGP's table of one family against the kernel's; the command line compares, not the agent.

    Attributes:
        chosen: prefixes that BGP chose a peer's path for.
        in_kernel: prefixes the kernel has of protocol bgp.
        missing: chosen and not in the kernel.
        extra: in the kernel and not chosen.
        missing_prefixes: the first of them.
        extra_prefixes: the first of them.
        problem: why there is no comparison.
    """

    family: Family
    chosen: int = 0
    in_kernel: int = 0
    missing: int = 0
    extra: int = 0
    missing_prefixes: tuple[str, ...] = ()
    extra_prefixes: tuple[str, ...] = ()
    problem: str | None = None


class PipelineAudit(_Answer):
    """What an audit of one pipeline found; ``rows`` holds the first (or, unasked, the last) findings."""

    pipeline: str
    status: AuditStatus
    found: Mapping[Reason, int] = Field(default_factory=dict)
    """In this pass, or the last one."""
    shared: int = 0
    """Next-hop entries that were altered or lost in it."""
    rows: tuple[AuditFinding, ...] = ()
    feed: str = ""
    namespace: str | None = None
    tables: tuple[int, ...] = ()
    """Of the feed: its kind, the network namespace it reads and the kernel tables it follows."""
    bgp: tuple[BgpComparison, ...] = ()

    @property
    def total(self) -> int:
        """How many prefixes and next-hop entries were wrong."""
        return sum(self.found.values()) + self.shared


class Audit(_Answer):
    """The audit of every FIB."""

    pipelines: tuple[PipelineAudit, ...]

    @property
    def total(self) -> int:
        """How many prefixes were wrong in all pipelines together."""
        return sum(p.total for p in self.pipelines)

    @property
    def clean(self) -> bool:
        """Whether every FIB has been looked at and nothing was, or is, wrong."""
        compared = (c for p in self.pipelines for c in p.bgp)
        if any(c.missing or c.extra or c.problem for c in compared):
            return False
        return all(p.status.passes and not p.total and not p.status.standing for p in self.pipelines)


class ExplainRequest(_Question):
    """The prefix to explain: matched exactly if it is known, else by the longest prefix around it."""

    prefix: Network


class Stage(StrEnum):
    """The rooms a route goes through, in order."""

    BGP = "bgp"
    """The paths BGP has; asked by the command line, as are the next two."""
    ZEBRA = "zebra"
    """FRR's RIB."""
    KERNEL = "kernel"
    """The kernel's route, and the next-hop object it names."""
    CANDIDATE = "candidate"
    """What the feed offers for the prefix; one step for each."""
    CHOSEN = "chosen"
    PATHS = "paths"
    """What the chosen candidate leads to, here and in the FIB's own terms."""
    FIB = "fib"
    """What the FIB acknowledged."""
    ENTRY = "entry"
    """What the FIB says now that it holds."""
    ADJACENCY = "adjacency"
    """Where packets end up: interface, neighbour, rewrite."""
    COUNTERS = "counters"
    """What went there."""


class Step(_Answer):
    """One step of an explanation.

    Attributes:
        stage: which.
        words: what is there.
        holds: False where the route got no further.
        known: False where nobody could be asked; ``words`` says why.
    """

    stage: Stage
    words: str
    holds: bool = True
    known: bool = True


class Match(StrEnum):
    """How the prefix that was asked for was found."""

    EXACT = "exact"
    LONGEST = "longest"
    NONE = "none"


class PipelineExplanation(_Answer):
    """The way of one prefix through one pipeline.

    Attributes:
        pipeline: which.
        table: kernel table that was looked in.
        feed: kind of the feed.
        namespace: network namespace the feed reads; None is the agent's own.
        match: how it was found.
        prefix: what was found; None without a match.
        steps: from the feed to the FIB.
        forwards: whether the FIB does with the prefix what the feed wants.
        verdict: the same in a sentence, with the reason where it does not.
    """

    pipeline: str
    table: int
    feed: str = ""
    namespace: str | None = None
    match: Match
    prefix: str | None = None
    steps: tuple[Step, ...] = ()
    forwards: bool
    verdict: str


class Explanation(_Answer):
    """The way of one prefix through every pipeline that could hold it."""

    asked: str
    pipelines: tuple[PipelineExplanation, ...]

    @property
    def forwards(self) -> bool:
        """Whether every FIB that should have the prefix does with it what its feed wants."""
        known = [pipeline for pipeline in self.pipelines if pipeline.match is not Match.NONE]
        return bool(known) and all(pipeline.forwards for pipeline in known)


class ResyncRequest(_Question):
    """Read every feed and FIB again; with ``wait``, answer when the pipelines are in sync."""

    wait: bool = False
    timeout_seconds: float = Field(default=120.0, gt=0, le=3600)


class Resync(_Answer):
    """What became of a resync.

    Attributes:
        pipelines: names of those that were asked to.
        in_sync: whether all of them are in sync now; None when nobody waited.
        took_seconds: time until the answer.
    """

    pipelines: tuple[str, ...]
    in_sync: bool | None = None
    took_seconds: float = 0.0


class ErrorKind(StrEnum):
    """Why a request has no answer."""

    BAD_REQUEST = "bad-request"
    """The request is malformed or asks for what does not exist; the agent is fine."""
    FORBIDDEN = "forbidden"
    """Not over this socket: it is the readers'."""
    BUSY = "busy"
    """Too many clients or requests; try again."""
    UNAVAILABLE = "unavailable"
    """The agent cannot answer now, for example because the FIB is lost."""
    TIMEOUT = "timeout"
    INTERNAL = "internal"
    """A fault of the agent's; its log has the details."""


class AnswerError(_Answer):
    """Sent in place of (the rest of) an answer."""

    kind: ErrorKind
    message: str


class End(_Answer):
    """The last line of a complete answer; ``rows`` lines came before it."""

    end: Literal[True] = True
    rows: int
