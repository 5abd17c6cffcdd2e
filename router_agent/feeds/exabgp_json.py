"""Reads the lines of ExaBGP's process API: JSON encoder, version 5 (checked against 5.0.15).

One line is one message. The forms that matter (white space and unused members left out)::

    {"type": "state", "neighbor": {N, "state": "connected" | "up" | "down", "reason": "..."}}
    {"type": "open", "neighbor": {N, "direction": "send" | "receive", "open": {"asn": 65001,
        "router_id": "192.0.2.1", "capabilities": {"1" | "multiprotocol": {"families": ["ipv4/unicast"]}}}}}
    {"type": "update", "neighbor": {N, "direction": "receive", "message": {"update": {
        "attribute": {"origin": "igp", "as-path": {"0": {"element": "as-sequence", "value": [65002]}}},
        "announce": {"ipv4 unicast": {"192.0.2.2": [{"nlri": "198.51.100.0/24"}]}},
        "withdraw": {"ipv6 unicast": [{"nlri": "2001:db8::/32"}]}}}}}
    {"type": "update", "neighbor": {N, ..., "message": {"eor": {"afi": "ipv4", "safi": "unicast"}}}}
    {"type": "refresh", "neighbor": {N, ..., "route-refresh": {"afi", "safi", "subtype": "begin" | "end"}}}
    {"type": "notification", "notification": "shutdown"}

where N is ``"address": {"local", "peer"}, "asn": {"local", "peer"}, "router-id": ours``. Answers to commands
are the lines ``done`` and ``error``; ``show neighbor json`` is answered by one list (`Neighbours`), and the
relay begins a connection with a line of its own (`Hello`). With ``exabgp_api_compact`` an NLRI is a plain
string.

Two things the text does not show: ExaBGP names AS_CONFED segments ``as-sequence`` too, so they count; and an
UPDATE with a global and a link-local next hop (RFC 2545) lists each prefix under both.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, inet_pton
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np

from router_agent.feeds.decision import DEFAULT_LOCAL_PREFERENCE, Attributes, Origin
from router_agent.model import U8, U64, Family, Mask, v4_keys, v6_keys

FAMILIES: Mapping[str, Family] = {"ipv4 unicast": Family.IPV4, "ipv6 unicast": Family.IPV6}
_FOUND_CHARACTERS = 80
_U32_MAX = 0xFFFFFFFF

T = TypeVar("T")


class MalformedError(ValueError):
    """A line, or a part of it, is not of the form described above.

    Attributes:
        kind: where in a line it was; lines malformed in one way share it.
        found: what was there, shortened.
    """

    def __init__(self, kind: str, expected: str, found: object) -> None:
        self.kind = kind
        self.found = shortened(found)
        super().__init__(f"{kind}: found {self.found}, expected {expected}")


def shortened(found: object) -> str:
    """Return a value as it is shown to people: its representation, cut to a few dozen characters."""
    if isinstance(found, bytes | str):
        found = found[: 2 * _FOUND_CHARACTERS]
    text = repr(found)
    return text if len(text) <= _FOUND_CHARACTERS else text[:_FOUND_CHARACTERS] + "..."


class SessionId(NamedTuple):
    """Both addresses of a BGP session, as ExaBGP writes them."""

    local: str
    peer: str


@dataclass(frozen=True, slots=True)
class Header:
    """The part N of a line.

    Attributes:
        session: whose it is.
        local_as: our AS in this session.
        peer_as: theirs.
        router_id: our BGP identifier as a number, None where ExaBGP does not give it.
    """

    session: SessionId
    local_as: int
    peer_as: int
    router_id: int | None


@dataclass(frozen=True, slots=True)
class State:
    """A session changed state: ``connected``, ``up`` or ``down`` (with ExaBGP's reason)."""

    header: Header
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Opened:
    """An OPEN was sent or received.

    Attributes:
        header: whose it is.
        sent: ours; otherwise the peer's.
        router_id: BGP identifier of the sender.
        families: those of the multiprotocol capability that this package knows.
        refresh: ROUTE-REFRESH (RFC 2918) is announced.
        graceful: graceful restart (RFC 4724) is announced, and with it End-of-RIB.
    """

    header: Header
    sent: bool
    router_id: int
    families: frozenset[Family]
    refresh: bool
    graceful: bool


class Announced(NamedTuple):
    """Prefixes announced with one next hop."""

    family: Family
    next_hop: str
    prefixes: list[str]


class Withdrawn(NamedTuple):
    """Prefixes withdrawn."""

    family: Family
    prefixes: list[str]


@dataclass(frozen=True, slots=True)
class Update:
    """An UPDATE was received; withdrawals come before announcements."""

    header: Header
    attributes: Mapping[str, object]
    withdrawn: Sequence[Withdrawn]
    announced: Sequence[Announced]


@dataclass(frozen=True, slots=True)
class EndOfRib:
    """The peer has sent its whole table of a family (RFC 4724, section 2)."""

    header: Header
    family: Family


@dataclass(frozen=True, slots=True)
class Refresh:
    """The peer begins or ends to send its table again (RFC 7313)."""

    header: Header
    family: Family
    begins: bool


@dataclass(frozen=True, slots=True)
class NeighbourSummary:
    """What ``show neighbor json`` tells of a session.

    Attributes:
        header: whose it is.
        up: it is established.
        peer_router_id: identifier of the peer, None when not established.
        families: negotiated families this package knows.
        refresh: both sides announced ROUTE-REFRESH.
        graceful: both sides announced graceful restart.
    """

    header: Header
    up: bool
    peer_router_id: int | None
    families: frozenset[Family]
    refresh: bool
    graceful: bool


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Every session ExaBGP is configured with."""

    sessions: Sequence[NeighbourSummary]


@dataclass(frozen=True, slots=True)
class Hello:
    """The relay's own first line: how many seconds it, and so ExaBGP, has been running."""

    uptime: float


@dataclass(frozen=True, slots=True)
class Answer:
    """ExaBGP took a command, or did not."""

    done: bool


@dataclass(frozen=True, slots=True)
class Shutdown:
    """ExaBGP ends."""


@dataclass(frozen=True, slots=True)
class Ignored:
    """A line that says nothing about routes."""

    type: str


Message: TypeAlias = (
    State | Opened | Update | EndOfRib | Refresh | Neighbours | Hello | Answer | Shutdown | Ignored
)


def parse(line: bytes) -> Message:
    """Return what a line says.

    Args:
        line: one line without its newline.

    Raises:
        MalformedError: the line is not of a form described above.
    """
    if line in (b"done", b"error"):
        return Answer(line == b"done")
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise MalformedError("line", f"JSON ({error})", line) from None
    if isinstance(document, list):
        return Neighbours([_summary(item) for item in document if not _is_range(item)])
    document = _typed("line", document, dict)
    kind = document.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is not None:
        return reader(document)
    if "relay" in document:
        return _hello(document)
    if not isinstance(kind, str):
        raise MalformedError("type", "a text", kind)
    return Ignored(kind)


# -- the forms -----------------------------------------------------------------------------------------------


def _state(document: dict[str, object]) -> Message:
    neighbour = _neighbour(document)
    state = _typed("neighbor.state", neighbour.get("state"), str)
    if state not in ("connected", "up", "down"):
        raise MalformedError("neighbor.state", "connected, up or down", state)
    reason = neighbour.get("reason", "")
    return State(_header(neighbour), state, reason if isinstance(reason, str) else shortened(reason))


def _open(document: dict[str, object]) -> Message:
    neighbour = _neighbour(document)
    message = _typed("open", neighbour.get("open"), dict)
    capabilities = _typed("open.capabilities", message.get("capabilities"), dict)
    offered = capabilities.get("1", capabilities.get("multiprotocol"))
    families: object = ["ipv4/unicast"]  # RFC 4760, section 8: without the capability it is IPv4 unicast
    if offered is not None:
        families = _typed("open.capabilities.multiprotocol", offered, dict).get("families")
    names = _typed("open.capabilities.multiprotocol.families", families, list)
    return Opened(
        header=_header(neighbour),
        sent=neighbour.get("direction") == "send",
        router_id=_ipv4("open.router_id", message.get("router_id")),
        families=_families(name.replace("/", " ") for name in names if isinstance(name, str)),
        refresh=not capabilities.keys().isdisjoint({"2", "128", "route-refresh"}),
        graceful=not capabilities.keys().isdisjoint({"64", "graceful-restart"}),
    )


def _update(document: dict[str, object]) -> Message:
    neighbour = _neighbour(document)
    if neighbour.get("direction") != "receive":
        return Ignored("update")
    header = _header(neighbour)
    message = _typed("message", neighbour.get("message"), dict)
    if "eor" in message:
        family = _afi_safi("message.eor", message["eor"])
        return Ignored("eor") if family is None else EndOfRib(header, family)
    update = _typed("update", message.get("update"), dict)
    withdrawn = [
        Withdrawn(FAMILIES[name], _prefixes("update.withdraw", nlri))
        for name, nlri in _typed("update.withdraw", update.get("withdraw", {}), dict).items()
        if name in FAMILIES
    ]
    announced = [
        Announced(FAMILIES[name], next_hop, _prefixes("update.announce", nlri))
        for name, by_next_hop in _typed("update.announce", update.get("announce", {}), dict).items()
        if name in FAMILIES
        for next_hop, nlri in _without_link_local(_typed("update.announce", by_next_hop, dict))
    ]
    return Update(header, _typed("update.attribute", update.get("attribute", {}), dict), withdrawn, announced)


def _refresh(document: dict[str, object]) -> Message:
    neighbour = _neighbour(document)
    refresh = _typed("route-refresh", neighbour.get("route-refresh"), dict)
    family = _afi_safi("route-refresh", refresh)
    subtype = refresh.get("subtype")
    if family is None or neighbour.get("direction") != "receive" or subtype == "query":
        return Ignored("refresh")
    if subtype not in ("begin", "end"):
        raise MalformedError("route-refresh.subtype", "query, begin or end", subtype)
    return Refresh(_header(neighbour), family, begins=subtype == "begin")


def _notification(document: dict[str, object]) -> Message:
    return Shutdown() if document.get("notification") == "shutdown" else Ignored("notification")


def _hello(document: dict[str, object]) -> Message:
    uptime = _typed("relay", document["relay"], dict).get("uptime")
    if isinstance(uptime, bool) or not isinstance(uptime, int | float):
        raise MalformedError("relay.uptime", "seconds", uptime)
    return Hello(float(uptime))


def _is_range(item: object) -> bool:
    """Tell whether an item is no session but a range of peers to accept some from."""
    peer = item.get("peer") if isinstance(item, dict) else None
    address = peer.get("address") if isinstance(peer, dict) else None
    return isinstance(address, str) and "/" in address


def _summary(item: object) -> NeighbourSummary:
    summary = _typed("neighbour list", item, dict)
    local = _typed("neighbour list: local", summary.get("local"), dict)
    peer = _typed("neighbour list: peer", summary.get("peer"), dict)
    both = [_typed("capabilities", side.get("capabilities"), dict) for side in (local, peer)]
    families = _typed("neighbour list: families", summary.get("families"), list)
    router_id, peer_id = local.get("id"), peer.get("id")
    packed(_address("peer address", peer))
    return NeighbourSummary(
        header=Header(
            SessionId(_address("local address", local), _address("peer address", peer)),
            _number("local as", local.get("as")),
            _number("peer as", peer.get("as")),
            _optional_ipv4("local id", router_id),
        ),
        up=summary.get("fsm") == "ESTABLISHED",
        peer_router_id=_optional_ipv4("peer id", peer_id),
        families=_families(name for name in families if isinstance(name, str)),
        refresh=all(side.get("route-refresh") is True for side in both),
        graceful=all(bool(side.get("graceful-restart")) for side in both),
    )


_READERS: Mapping[str, Callable[[dict[str, object]], Message]] = {
    "update": _update,
    "state": _state,
    "open": _open,
    "refresh": _refresh,
    "notification": _notification,
}


# -- their parts ---------------------------------------------------------------------------------------------


_TYPE_NAMES: Mapping[type, str] = {dict: "an object", list: "a list"}


def _typed(kind: str, value: object, wanted: type[T]) -> T:
    if not isinstance(value, wanted):
        raise MalformedError(
            kind, {"dict": "an object", "list": "a list"}.get(wanted.__name__, "text"), value
        )
    return value


def _number(kind: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _U32_MAX:
        raise MalformedError(kind, "a number of 32 bits", value)
    return value


def _ipv4(kind: str, value: object) -> int:
    try:
        return int.from_bytes(inet_pton(AF_INET, _typed(kind, value, str)))
    except (OSError, ValueError):
        raise MalformedError(kind, "an IPv4 address", value) from None


def _optional_ipv4(kind: str, value: object) -> int | None:
    return None if value in (None, "None") else _ipv4(kind, value)


def packed(address: str) -> bytes:
    """Return an address in network byte order, 4 or 16 bytes.

    Raises:
        MalformedError: it is not an address.
    """
    try:
        return inet_pton(AF_INET6 if ":" in address else AF_INET, address)
    except (OSError, ValueError):
        raise MalformedError("address", "an IPv4 or IPv6 address", address) from None


def _address(kind: str, side: dict[str, object]) -> str:
    """Return one side's address; ``auto`` and the like (nothing is connected) as it is."""
    return _typed(f"neighbour list: {kind}", side.get("address"), str)


def _neighbour(document: dict[str, object]) -> dict[str, object]:
    return _typed("neighbor", document.get("neighbor"), dict)


def _header(neighbour: dict[str, object]) -> Header:
    address = _typed("neighbor.address", neighbour.get("address"), dict)
    asn = _typed("neighbor.asn", neighbour.get("asn"), dict)
    peer = _typed("neighbor.address.peer", address.get("peer"), str)
    packed(peer)
    return Header(
        SessionId(_typed("neighbor.address.local", address.get("local"), str), peer),
        _number("neighbor.asn.local", asn.get("local")),
        _number("neighbor.asn.peer", asn.get("peer")),
        _optional_ipv4("neighbor.router-id", neighbour.get("router-id")),
    )


def _families(names: Iterable[str]) -> frozenset[Family]:
    return frozenset(FAMILIES[name] for name in names if name in FAMILIES)


def _afi_safi(kind: str, value: object) -> Family | None:
    """Return the family of an object with "afi" and "safi", None for one this package does not know."""
    both = _typed(kind, value, dict)
    afi, safi = (_typed(f"{kind}.{name}", both.get(name), str) for name in ("afi", "safi"))
    return FAMILIES.get(f"{afi} {safi}")


def _without_link_local(by_next_hop: dict[str, object]) -> Iterable[tuple[str, object]]:
    """Leave out link-local next hops where there is a global one beside them (RFC 2545, section 3)."""
    if len(by_next_hop) > 1:
        wide = [item for item in by_next_hop.items() if not item[0].lower().startswith("fe80:")]
        return wide or by_next_hop.items()
    return by_next_hop.items()


def _prefixes(kind: str, nlri: object) -> list[str]:
    """Return the prefixes of a list of NLRI as they were written."""
    items = _typed(kind, nlri, list)
    try:
        prefixes = [item["nlri"] for item in items]
        plain = not items or max(map(len, items)) == 1
    except (KeyError, TypeError, IndexError):
        prefixes, plain = items, True
    if not plain:
        odd = next(item for item in items if len(item) != 1)
        raise MalformedError(
            f"{kind}: NLRI", 'nothing beside "nlri" (ADD-PATH is not supported: remove add-path)', odd
        )
    if not _all_text(prefixes):
        odd = next(item for item in prefixes if not isinstance(item, str))
        raise MalformedError(f"{kind}: NLRI", "a prefix", odd)
    return prefixes


def _all_text(values: Sequence[object]) -> bool:
    return set(map(type, values)) <= {str}


# -- prefixes to columns -------------------------------------------------------------------------------------

_LENGTHS: Mapping[Family, Mapping[str, int]] = {
    Family.IPV4: {str(n): n for n in range(33)},
    Family.IPV6: {str(n): n for n in range(129)},
}


def prefix_keys(family: Family, prefixes: Sequence[str]) -> tuple[U64, Mask | None]:
    """Return the keys of prefixes as ExaBGP writes them; bits beyond the length are cleared.

    Args:
        family: of all of them.
        prefixes: "198.51.100.0/24" and the like.

    Returns:
        Keys of shape (n, family.key_width), and which of them are valid: None when all are. The key of an
        invalid one means nothing.
    """
    lengths_of = _LENGTHS[family]
    try:
        pairs = [prefix.split("/") for prefix in prefixes]
        addresses = b"".join([inet_pton(family, address) for address, _ in pairs])
        lengths = bytes([lengths_of[length] for _, length in pairs])
    except (OSError, ValueError, KeyError):
        return _keys_one_by_one(family, prefixes)
    return _keys(family, addresses, lengths), None


def _keys_one_by_one(family: Family, prefixes: Sequence[str]) -> tuple[U64, Mask]:
    valid = np.ones(len(prefixes), np.bool_)
    addresses, lengths = bytearray(), bytearray()
    for number, prefix in enumerate(prefixes):
        try:
            address, length = prefix.split("/")
            one = inet_pton(family, address), _LENGTHS[family][length]
        except (OSError, ValueError, KeyError):
            valid[number] = False
            one = bytes(family.address_bytes), 0
        addresses += one[0]
        lengths.append(one[1])
    return _keys(family, bytes(addresses), bytes(lengths)), valid


def _keys(family: Family, addresses: bytes, lengths: bytes) -> U64:
    bits: U8 = np.frombuffer(lengths, np.uint8)
    if family is Family.IPV4:
        mask = _mask(bits.astype(np.int16), 32).astype(np.uint32)
        return v4_keys(np.frombuffer(addresses, ">u4").astype(np.uint32) & mask, bits)
    halves = np.frombuffer(addresses, ">u8").reshape(-1, 2).astype(np.uint64)
    length = bits.astype(np.int16)
    high, low = np.minimum(length, 64), np.maximum(length - 64, 0)
    return v6_keys(halves[:, 0] & _mask(high, 64), halves[:, 1] & _mask(low, 64), bits)


def _mask(lengths: np.ndarray[tuple[int, ...], np.dtype[np.int16]], width: int) -> U64:
    """Return network masks of the low `width` bits for prefix lengths."""
    masks = np.array([((1 << n) - 1) << (width - n) for n in range(width + 1)], np.uint64)
    return masks[lengths]


# -- attributes ----------------------------------------------------------------------------------------------

_ORIGINS = {"igp": Origin.IGP, "egp": Origin.EGP, "incomplete": Origin.INCOMPLETE}


def attributes_of(
    attributes: Mapping[str, object], next_hop: str, header: Header, local_as: int | None = None
) -> Attributes:
    """Return what the decision needs to know of an UPDATE's attributes.

    Args:
        attributes: the member "attribute" of a line.
        next_hop: as announced with the prefixes.
        header: of the same line.
        local_as: our AS, where it is another one than the session's.

    Raises:
        MalformedError: an attribute is of another form than ExaBGP writes.
    """
    external = header.peer_as != header.local_as
    path, length, first, ases = _as_path(attributes.get("as-path"))
    preference = attributes.get("local-preference")
    originator = attributes.get("originator-id")
    clusters = attributes.get("cluster-list", [])
    gateway, fault = _next_hop(next_hop, header)
    ours = {header.local_as, local_as}
    if not fault:
        fault = _fault(attributes, external, ases, ours)
    originator_id = None
    if not external and originator is not None:
        originator_id = _ipv4("attribute.originator-id", originator)
        if originator_id == header.router_id:
            fault = fault or "ORIGINATOR_ID is this router (RFC 4456)"
    return Attributes(
        next_hop=gateway,
        as_path=path,
        path_length=length,
        neighbour_as=first,
        origin=_origin(attributes.get("origin")),
        local_preference=DEFAULT_LOCAL_PREFERENCE
        if external or preference is None
        else _number("attribute.local-preference", preference),
        med=_number("attribute.med", attributes.get("med", 0)),
        originator_id=originator_id,
        cluster_length=0 if external else len(_typed("attribute.cluster-list", clusters, list)),
        fault=fault,
    )


def _origin(value: object) -> Origin:
    if value is None:
        return Origin.INCOMPLETE
    origin = _ORIGINS.get(value) if isinstance(value, str) else None
    if origin is None:
        raise MalformedError("attribute.origin", "igp, egp or incomplete", value)
    return origin


def _next_hop(next_hop: str, header: Header) -> tuple[bytes, str]:
    """Return the next hop's bytes, and what is wrong with it."""
    try:
        gateway = packed(next_hop)
    except MalformedError:
        return b"", f"no next hop (found {shortened(next_hop)})"
    if not any(gateway):
        return gateway, f"next hop {next_hop} is no address of a router"
    if next_hop == header.session.local:
        return gateway, f"next hop {next_hop} is this router"
    if gateway[0] == 0xFE and gateway[1] & 0xC0 == 0x80 and len(gateway) == 16:
        return gateway, f"next hop {next_hop} is link-local and ExaBGP does not tell the interface"
    return gateway, ""


def _fault(
    attributes: Mapping[str, object], external: bool, ases: frozenset[int], ours: set[int | None]
) -> str:
    """Say why a route must not be used; RFC 4271, sections 5.1 and 9.1.2."""
    if "origin" not in attributes:
        return "mandatory attribute ORIGIN is missing"
    # ExaBGP leaves an empty AS_PATH out, which a route of our own AS may have.
    if external and not ases:
        return "mandatory attribute AS_PATH is missing or empty"
    loops = ases & ours
    if loops:
        return f"own AS {min(n for n in loops if n is not None)} is in the AS path"
    return ""


def _as_path(value: object) -> tuple[str, int, int, frozenset[int]]:
    """Return an AS_PATH in words, its length, its first AS and every AS in it."""
    if value is None:
        return "", 0, 0, frozenset()
    segments = _typed("attribute.as-path", value, dict)
    words: list[str] = []
    ases: set[int] = set()
    length = first = 0
    for position, segment in enumerate(segments.values()):
        element = _typed("attribute.as-path segment", segment, dict).get("element")
        numbers = _typed("attribute.as-path segment", segment.get("value"), list)
        for number in numbers:
            _number("attribute.as-path", number)
        ases.update(numbers)
        text = " ".join(map(str, numbers))
        if element == "as-sequence":
            words.append(text)
            length += len(numbers)
            if position == 0 and numbers:
                first = numbers[0]
        elif element == "as-set":
            words.append("{" + text.replace(" ", ",") + "}")
            length += 1
        else:
            raise MalformedError("attribute.as-path element", "as-sequence or as-set", element)
    return " ".join(words), length, first, frozenset(ases)
