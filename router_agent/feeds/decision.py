"""Which of the routes that peers offer for one prefix is used: RFC 4271, section 9.1.2.2.

Each step keeps the best of what the steps before it left, and the last one leaves exactly one route:

1. highest LOCAL_PREF (100 where there is none; ignored from external peers, RFC 4271 5.1.5);
2. shortest AS_PATH (an AS_SET counts one);
3. lowest ORIGIN: IGP, EGP, INCOMPLETE;
4. lowest MULTI_EXIT_DISC among routes of the same neighbouring AS (0 where there is none);
5. external peers before internal ones;
6. lowest BGP identifier of the peer, or ORIGINATOR_ID where there is one (RFC 4456, section 9);
7. shortest CLUSTER_LIST (RFC 4456, section 9);
8. lowest peer address.

Every step looks at the whole set that is left, never at a pair, so the result does not depend on the order in
which routes arrived (what vendors call deterministic MED). The IGP cost to the next hop (RFC 4271's step e)
is not known here and is passed over. Routes that must not be used at all (own AS in the path, no next hop,
...) carry a `fault` and take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from ipaddress import IPv4Address, ip_address
from typing import TypeAlias

DEFAULT_LOCAL_PREFERENCE = 100
UNKNOWN_ROUTER_ID = 0xFFFFFFFF
"""Stands for an identifier that is not known, so that known ones are preferred."""


class Origin(IntEnum):
    """ORIGIN, with the values of RFC 4271, section 4.3."""

    IGP = 0
    EGP = 1
    INCOMPLETE = 2


@dataclass(frozen=True, slots=True)
class Attributes:
    """What the decision needs to know of a path; interned, since a full table has few distinct ones.

    Attributes:
        next_hop: 4 or 16 bytes, network byte order.
        as_path: as people write it, AS_SETs in braces.
        path_length: as counted for step 2.
        neighbour_as: leftmost AS of a leading AS_SEQUENCE, 0 where there is none.
        origin: ORIGIN.
        local_preference: LOCAL_PREF, already `DEFAULT_LOCAL_PREFERENCE` where it does not count.
        med: MULTI_EXIT_DISC, 0 where there is none.
        originator_id: ORIGINATOR_ID as a number, None where there is none.
        cluster_length: number of clusters in CLUSTER_LIST.
        fault: why the route must not be used, in words; empty when it may be.
    """

    next_hop: bytes
    as_path: str = ""
    path_length: int = 0
    neighbour_as: int = 0
    origin: Origin = Origin.IGP
    local_preference: int = DEFAULT_LOCAL_PREFERENCE
    med: int = 0
    originator_id: int | None = None
    cluster_length: int = 0
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Speaker:
    """What the decision needs to know of a peer.

    Attributes:
        address: peer address, 4 or 16 bytes, network byte order.
        router_id: its BGP identifier as a number, `UNKNOWN_ROUTER_ID` until its OPEN was seen.
        external: it is of another AS.
    """

    address: bytes
    router_id: int
    external: bool


Candidate: TypeAlias = tuple[Speaker, Attributes]


class Step(Enum):
    """The steps, in their order; the values say what decides."""

    ELIGIBLE = "may be used"
    LOCAL_PREFERENCE = "local preference"
    PATH_LENGTH = "AS path length"
    ORIGIN = "origin"
    MED = "MED"
    EXTERNAL = "external before internal"
    ROUTER_ID = "router id"
    CLUSTER_LENGTH = "cluster list length"
    PEER_ADDRESS = "peer address"


_Rank: TypeAlias = Callable[[Candidate], int]


def _identifier(candidate: Candidate) -> int:
    speaker, attributes = candidate
    return speaker.router_id if attributes.originator_id is None else attributes.originator_id


def _address(candidate: Candidate) -> int:
    return int.from_bytes(candidate[0].address)


_BEFORE_MED: tuple[tuple[Step, _Rank], ...] = (
    (Step.LOCAL_PREFERENCE, lambda c: -c[1].local_preference),
    (Step.PATH_LENGTH, lambda c: c[1].path_length),
    (Step.ORIGIN, lambda c: c[1].origin),
)
_EXTERNAL: tuple[Step, _Rank] = (Step.EXTERNAL, lambda c: not c[0].external)
_TIE_BREAKS: tuple[tuple[Step, _Rank], ...] = (
    (Step.ROUTER_ID, _identifier),
    (Step.CLUSTER_LENGTH, lambda c: c[1].cluster_length),
    (Step.PEER_ADDRESS, _address),
)


@dataclass(frozen=True, slots=True)
class Decision:
    """Outcome for one prefix; numbers are positions in the candidates that were given.

    Attributes:
        best: the route to use, None when none may be used.
        used: the best one and those used beside it, best first.
        lost: for each candidate the step that put it out; None for the best.
    """

    best: int | None
    used: tuple[int, ...]
    lost: tuple[Step | None, ...]


def decide(candidates: Sequence[Candidate], maximum_paths: int = 1) -> Decision:
    """Choose among the candidates of one prefix.

    Args:
        candidates: at most one of each peer.
        maximum_paths: how many may be used together; those that differ from the best one in nothing before
            the router id, one of each next hop.

    Returns:
        The decision.
    """
    lost: list[Step | None] = [Step.ELIGIBLE if attributes.fault else None for _, attributes in candidates]
    left = [number for number, step in enumerate(lost) if step is None]
    if not left:
        return Decision(None, (), tuple(lost))

    def keep(step: Step, rank: _Rank) -> None:
        nonlocal left
        if len(left) > 1:
            ranks = [rank(candidates[number]) for number in left]
            left = _split(left, ranks, [min(ranks)] * len(left), step, lost)

    for step, rank in _BEFORE_MED:
        keep(step, rank)
    if len(left) > 1:
        left = _keep_lowest_med(candidates, left, lost)
    keep(*_EXTERNAL)
    equal = left
    for step, rank in _TIE_BREAKS:
        keep(step, rank)
    best = left[0]
    used = (best,) if maximum_paths == 1 else _beside(candidates, best, equal, maximum_paths)
    return Decision(best, used, tuple(lost))


def _split(
    left: list[int], ranks: Sequence[int], wanted: Sequence[int], step: Step, lost: list[Step | None]
) -> list[int]:
    kept = []
    for number, rank, lowest in zip(left, ranks, wanted, strict=True):
        if rank == lowest:
            kept.append(number)
        else:
            lost[number] = step
    return kept


def _keep_lowest_med(candidates: Sequence[Candidate], left: list[int], lost: list[Step | None]) -> list[int]:
    lowest: dict[int, int] = {}
    for number in left:
        attributes = candidates[number][1]
        known = lowest.get(attributes.neighbour_as, attributes.med)
        lowest[attributes.neighbour_as] = min(known, attributes.med)
    meds = [candidates[number][1].med for number in left]
    wanted = [lowest[candidates[number][1].neighbour_as] for number in left]
    return _split(left, meds, wanted, Step.MED, lost)


def _beside(
    candidates: Sequence[Candidate], best: int, equal: list[int], maximum_paths: int
) -> tuple[int, ...]:
    """Return the best candidate and equal ones, of every next hop the one the tie-breaks prefer."""
    ordered = sorted(equal, key=lambda n: tuple(rank(candidates[n]) for _, rank in _TIE_BREAKS))
    used = {candidates[best][1].next_hop: best}
    for number in ordered:
        if len(used) == maximum_paths:
            break
        used.setdefault(candidates[number][1].next_hop, number)
    return tuple(used.values())


def why(candidate: Candidate, step: Step | None, best: Candidate | None) -> str:
    """Say in words why a candidate is used or not.

    Args:
        candidate: the one asked about.
        step: what put it out, None for the best one.
        best: the best one, None when there is none.
    """
    if step is None:
        return "best"
    speaker, attributes = candidate
    if step is Step.ELIGIBLE:
        return f"not eligible: {attributes.fault}"
    assert best is not None  # a step after the first leaves one
    winner, chosen = best
    if step is Step.LOCAL_PREFERENCE:
        return f"local preference {attributes.local_preference} is lower than {chosen.local_preference}"
    if step is Step.PATH_LENGTH:
        return f"AS path of {attributes.path_length} is longer than {chosen.path_length}"
    if step is Step.ORIGIN:
        return f"origin {attributes.origin.name.lower()} is behind {chosen.origin.name.lower()}"
    if step is Step.MED:
        return f"MED {attributes.med} is higher than another's of neighbour AS {attributes.neighbour_as}"
    if step is Step.EXTERNAL:
        return "learned from an internal peer, another one from an external peer"
    if step is Step.ROUTER_ID:
        mine, other = _identifier(candidate), _identifier(best)
        return f"router id {IPv4Address(mine)} is higher than {IPv4Address(other)}"
    if step is Step.CLUSTER_LENGTH:
        return f"cluster list of {attributes.cluster_length} is longer than {chosen.cluster_length}"
    return f"peer address {ip_address(speaker.address)} is higher than {ip_address(winner.address)}"
