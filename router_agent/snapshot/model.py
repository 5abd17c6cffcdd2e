"""A snapshot: everything that is compared before and after a change.

As JSON it has the schema ``router-agent/snapshot/1``. Each source has a `Reading`: what it said, or that this
host has none of it, or why it could not be asked. Nothing is left out silently. A reader ignores keys it does
not know, so that an older program can read a newer one's file of the same schema; a change that would mislead
it gets a new number. Units are in the names, everything else counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA: Literal["router-agent/snapshot/1"] = "router-agent/snapshot/1"
ESTABLISHED = "Established"
"""The state of RFC 4271 in which routes are exchanged."""


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, ser_json_inf_nan="constants"
    )


T = TypeVar("T", bound=BaseModel)


class Asked(StrEnum):
    """What came of asking a source."""

    READ = "read"
    ABSENT = "absent"
    """This host has none of it, which is no fault: ExaBGP on a host that speaks BGP with FRR alone."""
    UNREADABLE = "unreadable"
    """It is to be there and did not answer."""


class Reading(_Part, Generic[T]):
    """What one source said.

    Attributes:
        state: what came of asking.
        reason: why there is no content; None with one.
        seconds: how long asking took.
        content: what it said; None unless it was read.
    """

    state: Asked
    reason: str | None = None
    seconds: float = 0.0
    content: T | None = None

    @model_validator(mode="after")
    def _content_or_reason(self) -> Self:
        if (self.state is Asked.READ) != (self.content is not None):
            raise ValueError(f"found state {self.state} {'with' if self.content else 'without'} content")
        if (self.content is None) != bool(self.reason):
            raise ValueError("expected a reason where there is no content, and nowhere else")
        return self


class Prefixes(_Part):
    """Prefixes that a session carries in one address family.

    Attributes:
        received: before policy; None where the speaker does not keep them, as FRR by default.
        accepted: after policy.
        advertised: that the peer was told of; None where the speaker does not say (ExaBGP).
    """

    received: int | None = None
    accepted: int = 0
    advertised: int | None = None


class Session(_Part):
    """One BGP session.

    Attributes:
        peer: address, or interface of an unnumbered session.
        vrf: of FRR; ``default`` for the main one.
        description: as configured.
        remote_as: of the peer.
        state: `ESTABLISHED`, or another word of the speaker's.
        uptime_seconds: since it was established; None when it is not.
        drops: how often it was lost since the speaker started; None where it does not say.
        families: by name, for example ``ipv4Unicast``.
    """

    peer: str
    vrf: str = "default"
    description: str = ""
    remote_as: int = 0
    state: str
    uptime_seconds: float | None = None
    drops: int | None = None
    families: Mapping[str, Prefixes] = Field(default_factory=dict)

    @property
    def established(self) -> bool:
        """Whether routes can be exchanged."""
        return self.state == ESTABLISHED


class Bgp(_Part):
    """FRR's bgpd.

    Attributes:
        version: of the running FRR.
        graceful_shutdown: whether neighbours are asked to go elsewhere (RFC 8326), by any instance.
        sessions: of every VRF.
        prefixes: in BGP's own table of the default VRF, by family (``IPv4``), whoever they are from.
    """

    version: str
    graceful_shutdown: bool = False
    sessions: tuple[Session, ...] = ()
    prefixes: Mapping[str, int] = Field(default_factory=dict)


class BgpRoutes(_Part):
    """BGP's routes in zebra, of eBGP and iBGP together: those it has, and those it says are installed."""

    rib: int = 0
    fib: int = 0


class Zebra(_Part):
    """FRR's zebra: by family, BGP's routes of the default VRF."""

    routes: Mapping[str, BgpRoutes] = Field(default_factory=dict)


class BfdPeer(_Part):
    """One BFD session; ``status`` is ``up``, ``down``, ``init`` or ``shutdown``."""

    peer: str
    local: str = ""
    vrf: str = "default"
    interface: str = ""
    multihop: bool = False
    status: str
    uptime_seconds: float | None = None
    diagnostic: str = ""

    @property
    def key(self) -> str:
        """What it is known by."""
        words = [self.peer, f"on {self.interface}" if self.interface else ""]
        words += [f"from {self.local}" if self.local and self.multihop else ""]
        words += [f"in {self.vrf}" if self.vrf != "default" else ""]
        return " ".join(filter(None, words))


class Bfd(_Part):
    """FRR's bfdd."""

    peers: tuple[BfdPeer, ...] = ()


class Exabgp(_Part):
    """ExaBGP's sessions, as the agent follows them; ``pipeline`` is whose."""

    sessions: tuple[Session, ...] = ()


class Counts(_Part):
    """Routes of one family in one pipeline; see `router_agent.observe.answers.FamilyCounts`."""

    desired: int = 0
    in_fib: int = 0
    pending: int = 0
    unknown: int = 0
    not_in_fib: Mapping[str, int] = Field(default_factory=dict)


class Pipeline(_Part):
    """One pipeline of the agent.

    Attributes:
        name: as configured.
        feed: kind of the feed.
        fib: kind of the FIB.
        state: what it is doing, for example ``in-sync``.
        error: what is wrong, in the agent's words.
        counts: by family, for example ``IPv4``.
        neighbours: copied into the FIB.
        standing: routes that the audit found wrong and that were left so.
        unexplained: entries of the FIB that nobody accounts for.
    """

    name: str
    feed: str
    fib: str
    state: str
    error: str | None = None
    counts: Mapping[str, Counts] = Field(default_factory=dict)
    neighbours: int = 0
    standing: int = 0
    unexplained: int = 0


class Agent(_Part):
    """The running agent."""

    version: str
    uptime_seconds: float
    pipelines: tuple[Pipeline, ...] = ()


class KernelRoutes(_Part):
    """Distinct prefixes in the kernel's tables, counted there and not taken from anybody's word.

    Attributes:
        bgp: of route protocol bgp in the main table, by family.
        feeds: of the tables and protocols that a pipeline follows, by pipeline and family.
        fibs: of the tables and the protocol that a pipeline writes, where its FIB is a kernel's.
    """

    bgp: Mapping[str, int] = Field(default_factory=dict)
    feeds: Mapping[str, Mapping[str, int]] = Field(default_factory=dict)
    fibs: Mapping[str, Mapping[str, int]] = Field(default_factory=dict)


class Link(_Part):
    """One interface.

    Attributes:
        up: administratively.
        carrier: whether the other end is there.
        mtu: bytes; None where it is not asked for.
        identity: another one when the interface was made anew, and its counters with it.
        errors: counters of errors and drops by name; they only grow.
    """

    up: bool
    carrier: bool
    mtu: int | None = None
    identity: str = ""
    errors: Mapping[str, int] = Field(default_factory=dict)


class Links(_Part):
    """The kernel's interfaces but loopbacks, by name; of other namespaces as ``NAMESPACE/NAME``."""

    links: Mapping[str, Link] = Field(default_factory=dict)


class VppTable(_Part):
    """How many entries VPP's FIB tables of one pipeline and family have, of all sources together."""

    entries: int = 0


class Vpp(_Part):
    """One VPP.

    Attributes:
        version: of the running VPP.
        dpdk: version of the DPDK it runs with; None without that plugin.
        started: when its counters began, in seconds since the epoch; another one after a restart.
        links: its interfaces, with the counters of the stats segment.
        tables: entries of the FIB tables that pipelines write, by pipeline and family.
    """

    version: str
    dpdk: str | None = None
    started: int = 0
    links: Mapping[str, Link] = Field(default_factory=dict)
    tables: Mapping[str, Mapping[str, VppTable]] = Field(default_factory=dict)


class Vpps(_Part):
    """Every VPP that a pipeline writes to, by its API socket."""

    instances: Mapping[str, Vpp] = Field(default_factory=dict)


class Versions(_Part):
    """What is installed; what runs is told by each program itself.

    Attributes:
        kernel: release of the running kernel.
        debian: release, for example ``13.2``; None on another system.
        installed: version by name: ``agent``, ``exabgp``, ``frr``, ``vpp``, ...
    """

    kernel: str
    debian: str | None = None
    installed: Mapping[str, str] = Field(default_factory=dict)


class Configurations(_Part):
    """SHA-256 of each rendered file that is there; why not, of those that are there and cannot be read."""

    hashes: Mapping[str, str] = Field(default_factory=dict)
    unknown: Mapping[str, str] = Field(default_factory=dict)


class Drained(_Part):
    """Whether the router is drained: the mark of `router-agent drain`."""

    drained: bool
    since: str | None = None
    reason: str | None = None
    by: str | None = None


class Snapshot(_Part):
    """A router at one moment.

    Attributes:
        schema_: of this document.
        host: its name.
        label: what the snapshot was taken for, as given.
        taken_at: when, UTC.
        boot: the kernel's id of this boot.
        boot_seconds: since then, suspended time included.
        seconds: how long taking it took.
        readings: how often the counts of routes were read until they agreed.
    """

    schema_: Literal["router-agent/snapshot/1"] = Field(default=SCHEMA, alias="schema")
    host: str
    label: str = ""
    taken_at: datetime
    boot: str
    boot_seconds: float
    seconds: float = 0.0
    readings: int = 1
    bgp: Reading[Bgp]
    zebra: Reading[Zebra]
    bfd: Reading[Bfd]
    exabgp: Reading[Exabgp]
    agent: Reading[Agent]
    kernel: Reading[KernelRoutes]
    links: Reading[Links]
    vpp: Reading[Vpps]
    versions: Reading[Versions]
    configurations: Reading[Configurations]
    drained: Reading[Drained]

    @property
    def sources(self) -> dict[str, Reading[BaseModel]]:
        """Every source's reading, by its name."""
        return {name: getattr(self, name) for name in SOURCES}

    @property
    def unreadable(self) -> dict[str, str]:
        """Why, by name of the source, for those that did not answer."""
        return {
            name: reading.reason or ""
            for name, reading in self.sources.items()
            if reading.state is Asked.UNREADABLE
        }


SOURCES = tuple(
    name
    for name, field in Snapshot.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Reading)
)
"""Names of the sources, in their order."""
