"""The agent's configuration file: what it may say, and what is wrong with it.

`load` reads agent.yaml into a frozen `Config`. Everything that is wrong is reported at once, one line each,
with the file, the line, the dotted key, what was found and what was expected. `schema` gives the same rules
as JSON Schema for editors and for the roles that render the file.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    IPvAnyAddress,
    Tag,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from router_agent.mirror.aspects import Aspect
from router_agent.model import MAIN_TABLE
from router_agent.netlink.constants import SYSTEM_PROTOCOLS, ZEBRA_PROTOCOLS
from router_agent.strict_yaml import (
    FileError,
    Where,
    content_of,
    dotted,
    expected,
    items_failed,
    model_of,
    one_of,
    shown,
)

DEFAULT_SOCKET = Path("/run/router-agent/control.sock")
"""Where the agent listens when the configuration does not say."""

ROUTE_PROTOCOLS: Mapping[str, int] = {
    "redirect": 1,
    "kernel": 2,
    "boot": 3,
    "static": 4,
    "gated": 8,
    "ra": 9,
    "mrt": 10,
    "zebra": 11,
    "bird": 12,
    "dnrouted": 13,
    "xorp": 14,
    "ntk": 15,
    "dhcp": 16,
    "mrouted": 17,
    "keepalived": 18,
    "babel": 42,
    "ovn": 84,
    "openr": 99,
    "bgp": 186,
    "isis": 187,
    "ospf": 188,
    "rip": 189,
    "ripng": 190,
    "nhrp": 191,
    "eigrp": 192,
    "ldp": 193,
    "sharp": 194,
    "pbr": 195,
    "zstatic": 196,
    "openfabric": 197,
    "srte": 198,
}
"""Route protocol ids in use: ``RTPROT_*`` of linux/rtnetlink.h, and FRR's zebra/rt_netlink.h from 186 on."""

VPP_SOURCES = frozenset(
    {
        "6RD",
        "API",
        "BIER",
        "CLI",
        "DHCP",
        "IPv6-nd",
        "IPv6-proxy-nd",
        "LISP",
        "MAP",
        "SR",
        "adjacency",
        "attached_export",
        "classify",
        "default-route",
        "interface",
        "interpose",
        "invalid",
        "lcp-rt",
        "lcp-rt-dynamic",
        "mpls",
        "proxy",
        "recursive-resolution",
        "special",
        "urpf-exempt",
    }
)
"""FIB sources that VPP and its linux-cp plugin own (vnet/fib/fib_source.h, linux-cp/lcp_router.c)."""


class ConfigError(FileError):
    """The configuration cannot be used."""


def _refuse(expected: str) -> PydanticCustomError:
    """Return the error of a value that has the right type and still cannot be meant."""
    return PydanticCustomError("refused", "{expected}", {"expected": expected})


def _protocol_number(value: object) -> object:
    if not isinstance(value, str):
        return value
    number = ROUTE_PROTOCOLS.get(value)
    if number is None:
        raise _refuse(f"a protocol id from 1 to 255 or one of {', '.join(ROUTE_PROTOCOLS)}")
    return number


def _octal_digits(value: object) -> object:
    if isinstance(value, str):
        return value
    raise _refuse('octal digits in quotes, such as "0660"')


def _our_protocol(number: int) -> int:
    owners = [name for name, taken in ROUTE_PROTOCOLS.items() if taken == number]
    if owners:
        raise _refuse(
            f"an id of the agent's own: {number} is {owners[0]}'s, and whoever owns an id deletes the routes "
            "that carry it; 201 is free"
        )
    return number


def _not_zebras(number: int) -> int:
    if number in ZEBRA_PROTOCOLS:
        raise _refuse("a protocol that is not zebra's: what zebra installs comes over FPM")
    return number


def _own_source(name: str) -> str:
    if name in VPP_SOURCES:
        raise _refuse("a name of the agent's own: VPP itself writes under this one")
    return name


def _table_number(number: int) -> int:
    if number == 255:
        raise _refuse("a table that holds routes to forward: 255 is the kernel's own list of local addresses")
    return number


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise _refuse("an absolute path")
    if not str(path).isprintable() or len(bytes(path)) > 107:
        raise _refuse("a printable path of at most 107 bytes: the kernel's limit for a socket")
    return path


def _namespace_name(name: str) -> str:
    """Return one name for one namespace, so that two spellings of it are seen to clash."""
    return name.removeprefix("/var").removeprefix("/run/netns/")


def _distinct_numbers(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(numbers)) != len(numbers):
        raise _refuse("each number once")
    return numbers


def _distinct_aspects(aspects: tuple[Aspect, ...]) -> tuple[Aspect, ...]:
    if len(set(aspects)) != len(aspects):
        raise _refuse("each of them once")
    return aspects


def _distinct_interfaces(names: dict[str, str]) -> dict[str, str]:
    if len(set(names.values())) != len(names):
        raise _refuse("a different forwarding interface for each control-plane interface")
    return names


_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
_NAMESPACE = r"^([A-Za-z0-9][A-Za-z0-9_.-]{0,62}|/[^\s]+)$"
_SOURCE = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,56}$"
_KERNEL_INTERFACE = r"^[^\s/]{1,15}$"
_VPP_INTERFACE = r"^[^\s]{1,63}$"
_WORD, _MAP = "interface word", "interface map"
_MODE = r"^0?[0-7]{3}$"

Name: TypeAlias = Annotated[str, Field(pattern=_NAME)]
Namespace: TypeAlias = Annotated[str, Field(pattern=_NAMESPACE), AfterValidator(_namespace_name)]
Mode: TypeAlias = Annotated[str, Field(pattern=_MODE), BeforeValidator(_octal_digits)]
KernelInterface: TypeAlias = Annotated[str, Field(pattern=_KERNEL_INTERFACE)]
VppInterface: TypeAlias = Annotated[str, Field(pattern=_VPP_INTERFACE)]
VppInterfaces: TypeAlias = Annotated[
    Annotated[Literal["auto"], Tag(_WORD)]
    | Annotated[dict[KernelInterface, VppInterface], AfterValidator(_distinct_interfaces), Tag(_MAP)],
    Discriminator(lambda value: _WORD if isinstance(value, str) else _MAP),
]
SocketPath: TypeAlias = Annotated[Path, AfterValidator(_absolute)]
Bool: TypeAlias = Annotated[bool, Field(strict=True)]
Metric: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=0xFFFFFFFF)]
KernelTable: TypeAlias = Annotated[
    int, Field(strict=True, ge=1, le=0xFFFFFFFF), AfterValidator(_table_number)
]
FibTable: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=0xFFFFFFFE)]
ProtocolId: TypeAlias = Annotated[
    int,
    Field(strict=True, ge=1, le=255),
    BeforeValidator(_protocol_number),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 255}, {"enum": [*ROUTE_PROTOCOLS]}]}
    ),
]
SystemProtocolId: TypeAlias = Annotated[ProtocolId, AfterValidator(_not_zebras)]
OwnProtocol: TypeAlias = Annotated[
    int,
    Field(strict=True, ge=1, le=255),
    BeforeValidator(_protocol_number),
    AfterValidator(_our_protocol),
    WithJsonSchema(
        {"type": "integer", "minimum": 5, "maximum": 255, "not": {"enum": sorted(ROUTE_PROTOCOLS.values())}}
    ),
]
Seconds: TypeAlias = Annotated[float, Field(strict=True, ge=0, le=86_400, allow_inf_nan=False)]
UserId: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=0xFFFFFFFE)]
Window: TypeAlias = Annotated[int, Field(strict=True, ge=1, le=1 << 20)]
Tables: TypeAlias = Annotated[tuple[KernelTable, ...], Field(min_length=1), AfterValidator(_distinct_numbers)]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _TableFeedConfig(_Model):
    """What feeds that follow a kernel's tables have in common."""

    kind: str
    namespace: Namespace | None = Field(
        default=None, description="Network namespace, by name or path; the agent's own when null."
    )
    tables: Tables = Field(default=(MAIN_TABLE,), description="Kernel tables to follow.")
    table_map: dict[KernelTable, FibTable] = Field(
        default_factory=dict,
        description="Kernel table to FIB table, for those that differ from the default: the same number, "
        "except that main (254) is table 0 of VPP.",
    )

    @model_validator(mode="after")
    def _map_followed_tables_only(self) -> Self:
        strange = [table for table in self.table_map if table not in self.tables]
        if strange:
            raise _refuse(
                f"table_map to name only what 'tables' lists, {list(self.tables)}; it names {strange}"
            )
        return self


class KernelFeedConfig(_TableFeedConfig):
    """Routes of a kernel, read by rtnetlink."""

    kind: Literal["kernel"]
    protocols: (
        Annotated[tuple[ProtocolId, ...], Field(min_length=1), AfterValidator(_distinct_numbers)] | None
    ) = Field(default=None, description="Follow routes of these protocols only; all when null.")
    resync_seconds: Seconds = Field(
        default=2.0, description="Least time between two readings of the whole table after lost events."
    )
    solicit: Bool = Field(
        default=True, description="Have the kernel resolve next hops that have no usable neighbour."
    )


class FpmFeedConfig(_TableFeedConfig):
    """Routes of FRR's zebra over its FIB push interface, and answers that the FIB holds them."""

    kind: Literal["fpm"]
    address: IPvAnyAddress = Field(
        default=IPv4Address("127.0.0.1"), description="Address to listen on for zebra (fpm address)."
    )
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(
        default=2620, description="TCP port to listen on."
    )
    kernel_protocols: tuple[SystemProtocolId, ...] = Field(
        default=tuple(sorted(SYSTEM_PROTOCOLS)),
        description="Protocols whose routes are read from the kernel: its own, an administrator's, those of "
        "router advertisements and DHCP; none with `[]`.",
    )
    allowed_peers: tuple[IPvAnyAddress, ...] = Field(
        default=(), description="Addresses that zebra may connect from, beside those of this host itself."
    )
    users: tuple[Annotated[str, Field(strict=True, min_length=1)] | UserId, ...] = Field(
        default=("frr",),
        description="Users, by name or number, whose processes on this host may connect: zebra's. Those of "
        "root and of the agent's own user always may.",
    )
    quiet_seconds: Annotated[Seconds, Field(gt=0)] = Field(
        default=10.0,
        description="zebra does not mark the end of its table: it has sent everything when hardly any routes "
        "came for so long. Until then nothing that it did not send is removed.",
    )
    hold_seconds: Seconds = Field(
        default=300.0, description="zebra's routes are kept this long when it has gone and does not return."
    )
    lost_seconds: Seconds = Field(
        default=10.0,
        description="When the FIB has gone, zebra is told after so long that it no longer holds the routes.",
    )
    solicit: Bool = Field(
        default=True, description="Have the kernel resolve next hops that have no usable neighbour."
    )


class ExabgpFeedConfig(_Model):
    """Routes that ExaBGP's process API reports over a unix socket; the agent chooses the best."""

    kind: Literal["exabgp"]
    socket: SocketPath = Field(description="Unix socket that the relay run by ExaBGP connects to.")
    local_as: Annotated[int, Field(strict=True, ge=1, le=0xFFFFFFFF)] | None = Field(
        default=None,
        description="Our AS where it is not that of the sessions; paths that hold it are refused too.",
    )
    table: KernelTable = Field(default=MAIN_TABLE, description="Table the routes belong to.")
    metric: Metric = Field(default=20, description="Metric the routes are given.")
    maximum_paths: Annotated[int, Field(strict=True, ge=1, le=64)] = Field(
        default=1, description="Equal-cost paths of one prefix that are used together."
    )
    quiet_seconds: Seconds = Field(
        default=10.0, description="A peer without End-of-RIB counts as complete after this much silence."
    )
    stale_seconds: Seconds = Field(
        default=0.0, description="Routes of a peer that went down are kept this long, for it to return."
    )
    hold_seconds: Seconds = Field(
        default=120.0, description="All routes are kept this long when ExaBGP itself has gone."
    )
    socket_mode: Mode = Field(
        default="0660",
        description="Permissions of the socket, octal digits in quotes; ExaBGP has its own user.",
    )
    socket_group: Name | None = Field(
        default=None, description="Group of the socket, by name; ours when null."
    )


class KernelFibConfig(_Model):
    """A kernel as FIB: routes under a protocol id of our own."""

    kind: Literal["kernel"]
    namespace: Namespace | None = Field(
        default=None, description="Network namespace, by name or path; the agent's own when null."
    )
    protocol: OwnProtocol = Field(
        default=201, description="Protocol id the agent's routes carry; nobody else's."
    )
    metric: Annotated[Metric, Field(ge=1)] = Field(
        default=20, description="Metric of the routes that are written; IPv6 knows no 0."
    )
    on_link: Bool | None = Field(
        default=None,
        description="Take gateways as directly reachable, for ports that have no address; "
        "when null, so with an interface map and not so without.",
    )
    interfaces: (
        Annotated[dict[KernelInterface, KernelInterface], AfterValidator(_distinct_interfaces)] | None
    ) = Field(
        default=None,
        description="Control-plane interface to forwarding interface; null within one namespace.",
    )
    window: Window = Field(default=1000, description="Most requests that are unanswered at any time.")


class VppFibConfig(_Model):
    """VPP as FIB, over its binary API, under a FIB source of our own."""

    kind: Literal["vpp"]
    api_socket: SocketPath = Field(default=Path("/run/vpp/api.sock"), description="VPP's API socket.")
    source: Annotated[str, Field(pattern=_SOURCE), AfterValidator(_own_source)] = Field(
        default="router-agent", description="Name of the FIB source the agent's routes carry."
    )
    priority: Annotated[int, Field(strict=True, ge=4, le=126)] = Field(
        default=64,
        description="Priority of the source, lower wins: connected routes have 3, the API 128.",
    )
    interfaces: VppInterfaces = Field(
        default_factory=dict,
        description="Control-plane interface to VPP interface, or `auto`: linux-cp's pairs, followed live.",
    )
    mirror: Annotated[tuple[Aspect, ...], AfterValidator(_distinct_aspects)] = Field(
        default=(),
        description="What of paired interfaces VPP is given as Linux has it: `links`, `addresses`, `vlans`, "
        "`vrfs`, `mpls`; nothing where VPP's own configuration owns them.",
    )
    window: Window = Field(default=16_384, description="Most requests that are unanswered at any time.")
    recursion: Bool = Field(
        default=True,
        description="Whether routes lead through entries of a next-hop table, one a path set: the loss or "
        "change of a next hop is then one write for all routes.",
    )
    recursion_table: Annotated[int, Field(strict=True, ge=1, le=0xFFFFFFF0)] = Field(
        default=4_000_000_000,
        description="VPP table id of the next-hop tables; the next free one is used where it is taken.",
    )
    stats_socket: SocketPath | None = Field(
        default=None,
        description="VPP's stats segment, which tells how much room for routes it has; stats.sock beside the "
        "API socket when null.",
    )

    @property
    def stats(self) -> Path:
        """The stats segment's socket, configured or not."""
        return self.stats_socket or self.api_socket.with_name("stats.sock")

    @model_validator(mode="after")
    def _mirror_pairs_only(self) -> VppFibConfig:
        if self.mirror and self.interfaces != "auto":
            raise _refuse("interfaces: auto beside mirror: only linux-cp's pairs can be mirrored")
        return self


FeedConfig: TypeAlias = Annotated[
    KernelFeedConfig | FpmFeedConfig | ExabgpFeedConfig, Field(discriminator="kind")
]
FibConfig: TypeAlias = Annotated[KernelFibConfig | VppFibConfig, Field(discriminator="kind")]


class AuditConfig(_Model):
    """How the FIB is compared with what the agent wrote, all the time."""

    rate: Annotated[int, Field(strict=True, ge=0, le=100_000)] = Field(
        default=5_000, description="Prefixes looked up in the FIB a second; 0 audits only when asked to."
    )
    action: Literal["repair", "report"] = Field(
        default="repair", description="What to do with a route that is lost, altered or stale."
    )
    full_reading_seconds: Annotated[float, Field(strict=True, ge=0, le=31_536_000, allow_inf_nan=False)] = (
        Field(
            default=3_600.0,
            description="Least time between two full readings of VPP's FIB when it has entries that nobody "
            "accounts for; 0 reads only when asked to. One stops VPP's main thread for 1.3 s at a million "
            "routes.",
        )
    )
    feed_seconds: Annotated[float, Field(strict=True, ge=0, le=31_536_000, allow_inf_nan=False)] = Field(
        default=600.0,
        description="Least time between two comparisons of what the agent knows with the kernel's own table, "
        "for changes that it was never told of; 0 compares only when asked to.",
    )


class PipelineConfig(_Model):
    """One feed into one FIB."""

    name: Name = Field(description="Shown in status, logs and metrics.")
    feed: FeedConfig
    fib: FibConfig
    audit: AuditConfig = Field(default_factory=AuditConfig)

    def fib_table(self, table: int) -> int:
        """Return the FIB table that routes of a kernel table go to."""
        if isinstance(self.feed, _TableFeedConfig) and table in self.feed.table_map:
            return self.feed.table_map[table]
        return 0 if table == MAIN_TABLE and isinstance(self.fib, VppFibConfig) else table

    @property
    def tables(self) -> Mapping[int, int]:
        """Kernel tables that are followed, and the FIB table each goes to."""
        followed = self.feed.tables if isinstance(self.feed, _TableFeedConfig) else (self.feed.table,)
        return {table: self.fib_table(table) for table in followed}


class ControlConfig(_Model):
    """The control socket that `router-agent show` and others ask."""

    socket: SocketPath = Field(default=DEFAULT_SOCKET, description="Unix socket the agent listens on.")
    mode: Mode = Field(default="0660", description="Permissions of the socket, octal digits in quotes.")
    group: Name | None = Field(
        default=None, description="Group of the socket, by name or number; unchanged when null."
    )
    readers_socket: SocketPath | None = Field(
        default=None,
        description="Second socket, mode 0660, for those who may only look: the web process. Nobody can "
        "change anything over it, and questions that cost much are refused.",
    )
    readers_group: Name | None = Field(
        default=None, description="Group of the second socket, by name or number; unchanged when null."
    )

    @property
    def mode_bits(self) -> int:
        """The permissions as a number for ``os.chmod``."""
        return int(self.mode, 8)


class LogConfig(_Model):
    """What is logged, to standard error, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    as_json: Bool = Field(default=False, alias="json", description="One JSON object a line instead of text.")


class Config(_Model):
    """agent.yaml."""

    pipelines: Annotated[tuple[PipelineConfig, ...], Field(min_length=1)]
    control: ControlConfig = Field(default_factory=ControlConfig)
    log: LogConfig = Field(default_factory=LogConfig)

    @model_validator(mode="after")
    def _cross_check(self) -> Config:
        problems = [
            *_clashes(self),
            *_table_problems(self),
            *_missing_maps(self),
            *_shared_with_zebra(self),
            *_loops(self),
        ]
        if problems:
            text = "; ".join(f"{dotted(where)}: {words}" for where, words in problems)
            raise PydanticCustomError("cross_check", "{text}", {"text": text, "problems": problems})
        return self


_Problem: TypeAlias = tuple[Where, str]


class _Claim(NamedTuple):
    """Something that only one part of the configuration may have."""

    what: Hashable
    where: Where
    found: str
    expected: str
    owner: str


def _claims(config: Config) -> Iterator[_Claim]:
    control = config.control.socket
    yield _Claim(("socket", control), ("control", "socket"), str(control), "", "the control socket")
    if (readers := config.control.readers_socket) is not None:
        where, expected = ("control", "readers_socket"), "a socket of its own"
        yield _Claim(("socket", readers), where, str(readers), expected, "the readers' socket")
    for number, pipeline in enumerate(config.pipelines):
        at, owner, fib, feed = ("pipelines", number), f"pipeline {number}", pipeline.fib, pipeline.feed
        yield _Claim(("name", pipeline.name), (*at, "name"), repr(pipeline.name), "a name of its own", owner)
        if isinstance(fib, VppFibConfig):
            what, expected = ("vpp", fib.api_socket, fib.source), "a FIB source with one writer"
            yield _Claim(what, (*at, "fib", "source"), repr(fib.source), expected, owner)
        else:
            owned, expected = ("kernel", fib.namespace, fib.protocol), "a protocol id with one writer"
            yield _Claim(owned, (*at, "fib", "protocol"), str(fib.protocol), expected, owner)
        if isinstance(feed, ExabgpFeedConfig):
            socket = ("socket", feed.socket)
            yield _Claim(socket, (*at, "feed", "socket"), str(feed.socket), "a socket of its own", owner)
        if isinstance(feed, FpmFeedConfig):
            port = ("fpm", feed.namespace, feed.port)
            yield _Claim(port, (*at, "feed", "port"), str(feed.port), "a port of its own", owner)


def _clashes(config: Config) -> Iterator[_Problem]:
    """Find what two parts of the configuration both claim."""
    first: dict[Hashable, _Claim] = {}
    for claim in _claims(config):
        holder = first.setdefault(claim.what, claim)
        if holder is not claim:
            yield claim.where, f"found {claim.found}, expected {claim.expected}; {holder.owner} has this one"


def _table_problems(config: Config) -> Iterator[_Problem]:
    """Find kernel tables that are merged into one FIB table, and FIB tables a kernel cannot have."""
    for number, pipeline in enumerate(config.pipelines):
        where = ("pipelines", number, "feed", "table_map")
        sources: dict[int, int] = {}
        for table, target in pipeline.tables.items():
            other = sources.setdefault(target, table)
            if other != table:
                yield (
                    where,
                    f"found tables {other} and {table} both going to {target}, expected one table each",
                )
            if isinstance(pipeline.fib, KernelFibConfig) and target in (0, 255):
                yield (
                    where,
                    f"found FIB table {target}, expected a table that a kernel forwards by (254 is main)",
                )


def _missing_maps(config: Config) -> Iterator[_Problem]:
    """Find kernel FIBs in another namespace than their feed's interfaces, without a map between the two."""
    for number, pipeline in enumerate(config.pipelines):
        feed, fib = pipeline.feed, pipeline.fib
        if not isinstance(feed, _TableFeedConfig) or not isinstance(fib, KernelFibConfig):
            continue
        if fib.interfaces is None and fib.namespace != feed.namespace:
            yield (
                ("pipelines", number, "fib", "interfaces"),
                f"found nothing, expected a map of interfaces: the feed is in namespace "
                f"{shown(feed.namespace)}, the FIB in {shown(fib.namespace)}",
            )


def _shared_with_zebra(config: Config) -> Iterator[_Problem]:
    """Find kernel FIBs in a table that zebra, whose routes they are, writes itself."""
    for number, pipeline in enumerate(config.pipelines):
        feed, fib = pipeline.feed, pipeline.fib
        if not isinstance(feed, FpmFeedConfig) or not isinstance(fib, KernelFibConfig):
            continue
        shared = set(pipeline.tables.values()) & set(feed.tables)
        if fib.namespace == feed.namespace and shared:
            yield (
                ("pipelines", number, "feed", "table_map"),
                f"found kernel table {min(shared)} as the FIB, which zebra writes itself; expected another "
                "table, or a FIB in another namespace",
            )


def _feeds_into(writer: PipelineConfig, reader: PipelineConfig) -> bool:
    """Tell whether the routes one pipeline writes are routes another one follows."""
    fib, feed = writer.fib, reader.feed
    if not isinstance(fib, KernelFibConfig) or not isinstance(feed, KernelFeedConfig):
        return False
    if fib.namespace != feed.namespace:
        return False
    followed = feed.protocols is None or fib.protocol in feed.protocols
    return followed and not set(writer.tables.values()).isdisjoint(feed.tables)


def _loops(config: Config) -> Iterator[_Problem]:
    """Find pipelines that follow, directly or through others, the routes they write themselves."""
    pipelines = config.pipelines
    readers = [[n for n, p in enumerate(pipelines) if _feeds_into(writer, p)] for writer in pipelines]
    for number, pipeline in enumerate(pipelines):
        reached, waiting = set[int](), list(readers[number])
        while waiting:
            reader = waiting.pop()
            if reader not in reached:
                reached.add(reader)
                waiting.extend(readers[reader])
        if number in reached and isinstance(pipeline.fib, KernelFibConfig):
            yield (
                ("pipelines", number, "feed", "protocols"),
                f"found a loop: pipeline {pipeline.name!r} follows the routes it writes (protocol "
                f"{pipeline.fib.protocol}), expected 'protocols' to list the ones to follow, without that",
            )


def load(path: Path | str) -> Config:
    """Read and check a configuration file.

    Args:
        path: the file; YAML, UTF-8, at most `FILE_LIMIT` bytes.

    Raises:
        ConfigError: with everything that is wrong.
    """
    try:
        return parse(content_of(Path(path)), str(path))
    except FileError as error:
        raise ConfigError(error.problems) from error


def parse(content: bytes, name: str = "configuration") -> Config:
    """Check the content of a configuration file; `name` is what errors call it.

    Raises:
        ConfigError: with everything that is wrong.
    """
    try:
        return model_of(Config, content, name, _problems)
    except FileError as error:
        raise ConfigError(error.problems) from error


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(),
        "title": "router-agent configuration",
    }


def _problems(error: ValidationError) -> list[_Problem]:
    found: list[_Problem] = []
    for details in error.errors(include_url=False):
        if details["type"] == "cross_check":
            found.extend(details["ctx"]["problems"])
        elif not items_failed(details):
            found.append(_problem(details))
    return found


def _problem(details: ErrorDetails) -> _Problem:
    """Put one of pydantic's errors into our words."""
    kind, where = details["type"], _location(details)
    context = details.get("ctx", {})
    if kind == "missing":
        return where, "found nothing, expected this key"
    if kind == "extra_forbidden":
        return where, f"found an unknown key, expected {_known_keys(details['loc'])}"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        found = f"kind {context['tag']!r}" if "tag" in context else "no kind"
        return where, f"found {found}, expected kind {' or '.join(_KINDS[str(where[-1])])}"
    return where, f"found {shown(details['input'])}, expected {_expected(details)}"


def _location(details: ErrorDetails) -> Where:
    """Return where an error is, in the file's own keys."""
    where = tuple(part for part in details["loc"] if part != "[key]")
    if len(where) > 3 and where[0] == "pipelines" and where[2] in _KINDS:
        where = where[:3] + where[4:]  # pydantic names the chosen member of the union after the field
    return tuple(part for part in where if part not in (_WORD, _MAP))  # tags, with a blank as no name has


_KINDS: Mapping[str, Mapping[str, type[_Model]]] = {
    "feed": {"kernel": KernelFeedConfig, "fpm": FpmFeedConfig, "exabgp": ExabgpFeedConfig},
    "fib": {"kernel": KernelFibConfig, "vpp": VppFibConfig},
}

_PATTERNS: Mapping[str, str] = {
    _NAME: "a name of letters, digits, '.', '_' and '-' that starts with a letter or digit, at most 63 long",
    _NAMESPACE: "the name of a network namespace (ip netns) or an absolute path to one",
    _SOURCE: "a name of letters, digits, '.', '_' and '-', at most 57 long: VPP knows 63, some are added",
    _KERNEL_INTERFACE: "an interface name of 1 to 15 characters without blanks and '/'",
    _VPP_INTERFACE: "an interface name of 1 to 63 characters without blanks",
    _MODE: 'octal digits in quotes, such as "0660"',
}


def _expected(details: ErrorDetails) -> str:
    kind = details["type"]
    if _WORD in details["loc"] or (_MAP in details["loc"] and kind == "dict_type"):
        return "'auto' or a mapping"
    return expected(details, _PATTERNS)


def _known_keys(location: Where) -> str:
    """Return which keys may stand where pydantic found an unknown one."""
    known = [field.alias or name for name, field in _model_at(location[:-1]).model_fields.items()]
    return one_of(known, str(location[-1]))


def _model_at(location: Where) -> type[_Model]:
    match location:
        case ("pipelines", _, "feed" | "fib" as side, kind):
            return _KINDS[side][str(kind)]
        case ("pipelines", _):
            return PipelineConfig
        case ("control",):
            return ControlConfig
        case ("log",):
            return LogConfig
        case _:
            return Config
