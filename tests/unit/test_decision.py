"""The decision process: each step by a table of cases, the whole against a plain second writing of it."""

from __future__ import annotations

import random
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.feeds.decision import Attributes, Candidate, Origin, Speaker, Step, decide, why


def route(
    peer: int = 1, *, external: bool = True, router_id: int | None = None, **attributes: object
) -> Candidate:
    base = Attributes(next_hop=bytes([192, 0, 2, peer]), as_path="65001", path_length=1, neighbour_as=65001)
    speaker = Speaker(bytes([10, 0, 0, peer]), peer if router_id is None else router_id, external)
    return speaker, replace(base, **attributes)  # type: ignore[arg-type]


CASES = [
    pytest.param([route(1)], 0, [None], id="alone"),
    pytest.param([], None, [], id="nothing"),
    pytest.param([route(1, fault="loop")], None, [Step.ELIGIBLE], id="only-ineligible"),
    pytest.param(
        [route(1, fault="loop", local_preference=900), route(2)],
        1,
        [Step.ELIGIBLE, None],
        id="ineligible-never-wins",
    ),
    pytest.param(
        [route(1), route(2, local_preference=200, path_length=9)],
        1,
        [Step.LOCAL_PREFERENCE, None],
        id="local-preference-before-path-length",
    ),
    pytest.param(
        [route(1, path_length=2, origin=Origin.IGP), route(2, path_length=1, origin=Origin.INCOMPLETE)],
        1,
        [Step.PATH_LENGTH, None],
        id="path-length-before-origin",
    ),
    pytest.param(
        [route(1, origin=Origin.EGP), route(2, origin=Origin.IGP, med=500)],
        1,
        [Step.ORIGIN, None],
        id="origin-before-med",
    ),
    pytest.param(
        [route(1, origin=Origin.INCOMPLETE), route(2, origin=Origin.EGP)], 1, [Step.ORIGIN, None], id="egp"
    ),
    pytest.param(
        [route(1, med=10), route(2, med=5, external=False)], 1, [Step.MED, None], id="med-before-external"
    ),
    pytest.param(
        [route(1, med=10), route(2, med=5, neighbour_as=65002)],
        0,
        [None, Step.ROUTER_ID],
        id="med-of-different-neighbours-is-not-compared",
    ),
    pytest.param([route(1, med=1), route(2)], 1, [Step.MED, None], id="no-med-is-the-lowest"),
    pytest.param([route(1, external=False), route(2)], 1, [Step.EXTERNAL, None], id="external-first"),
    pytest.param([route(1, router_id=9), route(2, router_id=8)], 1, [Step.ROUTER_ID, None], id="router-id"),
    pytest.param(
        [route(1, external=False, originator_id=7), route(2, external=False, router_id=6)],
        1,
        [Step.ROUTER_ID, None],
        id="originator-id-stands-for-router-id",
    ),
    pytest.param(
        [
            route(1, external=False, originator_id=7, cluster_length=2),
            route(2, external=False, originator_id=7, cluster_length=1),
        ],
        1,
        [Step.CLUSTER_LENGTH, None],
        id="cluster-list",
    ),
    pytest.param(
        [route(2, router_id=5), route(1, router_id=5)], 1, [Step.PEER_ADDRESS, None], id="peer-address"
    ),
    pytest.param(
        # Compared by pairs, A beats B, B beats C and C beats A: only looking at the set gives one answer.
        [
            route(3, router_id=1, neighbour_as=1, med=10),
            route(2, router_id=2, neighbour_as=2, med=0),
            route(1, router_id=3, neighbour_as=1, med=5),
        ],
        1,
        [Step.MED, None, Step.ROUTER_ID],
        id="med-is-deterministic",
    ),
]


@pytest.mark.parametrize(("candidates", "best", "lost"), CASES)
def test_step(candidates: list[Candidate], best: int | None, lost: list[Step | None]) -> None:
    decision = decide(candidates)
    assert decision.best == best
    assert list(decision.lost) == lost
    assert decision.used == (() if best is None else (best,))


def test_multipath_takes_equal_routes_of_different_next_hops() -> None:
    candidates = [
        route(4),
        route(3),
        route(2),
        route(1, path_length=2),
        route(5, next_hop=bytes([192, 0, 2, 2])),
    ]
    assert decide(candidates, 8).used == (2, 1, 0)
    assert decide(candidates, 2).used == (2, 1)
    assert decide(candidates, 1).used == (2,)


def test_multipath_does_not_mix_external_and_internal() -> None:
    assert decide([route(1), route(2, external=False)], 4).used == (0,)


@pytest.mark.parametrize(
    ("loser", "winner", "words"),
    [
        (route(1), route(2, local_preference=200), "local preference 100 is lower than 200"),
        (route(1, path_length=3), route(2), "AS path of 3 is longer than 1"),
        (route(1, origin=Origin.EGP), route(2), "origin egp is behind igp"),
        (route(1, med=9), route(2, med=3), "MED 9 is higher than another's of neighbour AS 65001"),
        (
            route(1, external=False),
            route(2),
            "learned from an internal peer, another one from an external peer",
        ),
        (route(1, router_id=300), route(2), "router id 0.0.1.44 is higher than 0.0.0.2"),
        (
            route(1, external=False, cluster_length=2, router_id=1),
            route(2, external=False, router_id=1),
            "cluster list of 2 is longer than 0",
        ),
        (route(2, router_id=1), route(1), "peer address 10.0.0.2 is higher than 10.0.0.1"),
        (route(2, fault="own AS 1 is in the AS path"), route(1), "not eligible: own AS 1 is in the AS path"),
    ],
)
def test_says_why(loser: Candidate, winner: Candidate, words: str) -> None:
    decision = decide([loser, winner])
    assert decision.best == 1
    assert why(loser, decision.lost[0], winner) == words
    assert why(winner, decision.lost[1], winner) == "best"


def attributes() -> st.SearchStrategy[Attributes]:
    return st.builds(
        Attributes,
        next_hop=st.sampled_from([b"\xc0\0\2\1", b"\xc0\0\2\2"]),
        path_length=st.integers(0, 2),
        neighbour_as=st.integers(0, 2),
        origin=st.sampled_from(Origin),
        local_preference=st.sampled_from([100, 200]),
        med=st.integers(0, 2),
        originator_id=st.none() | st.integers(0, 3),
        cluster_length=st.integers(0, 2),
        fault=st.sampled_from(["", "", "", "loop"]),
    )


def candidate_sets() -> st.SearchStrategy[list[Candidate]]:
    speakers = st.builds(Speaker, st.binary(min_size=4, max_size=4), st.integers(0, 2), st.booleans())
    return st.lists(st.tuples(speakers, attributes()), max_size=6, unique_by=lambda c: c[0].address)


def reference(candidates: list[Candidate]) -> Candidate | None:
    """RFC 4271, section 9.1.2.2, as its text goes, with RFC 4456's additions."""
    left = [c for c in candidates if not c[1].fault]
    if not left:
        return None
    left = [c for c in left if c[1].local_preference == max(o[1].local_preference for o in left)]
    left = [c for c in left if c[1].path_length == min(o[1].path_length for o in left)]
    left = [c for c in left if c[1].origin == min(o[1].origin for o in left)]
    left = [
        c
        for c in left
        if not any(o[1].neighbour_as == c[1].neighbour_as and o[1].med < c[1].med for o in left)
    ]
    if any(c[0].external for c in left):
        left = [c for c in left if c[0].external]

    def tie(candidate: Candidate) -> tuple[int, int, int]:
        speaker, of = candidate
        identifier = speaker.router_id if of.originator_id is None else of.originator_id
        return identifier, of.cluster_length, int(ip_address(speaker.address))

    return min(left, key=tie)


@given(candidate_sets(), st.randoms(use_true_random=False))
def test_equals_the_reference_in_any_order(candidates: list[Candidate], chance: random.Random) -> None:
    wanted = reference(candidates)
    chance.shuffle(candidates)
    decision = decide(candidates)
    assert (None if decision.best is None else candidates[decision.best]) == wanted
    assert [step is None for step in decision.lost].count(True) == (wanted is not None)


@given(candidate_sets(), st.integers(1, 4))
def test_multipath_keeps_the_best_and_distinct_next_hops(candidates: list[Candidate], most: int) -> None:
    decision = decide(candidates, most)
    assert decision.best == decide(candidates).best
    assert len(decision.used) <= most
    next_hops = [candidates[n][1].next_hop for n in decision.used]
    assert len(set(next_hops)) == len(next_hops)
    assert decision.used[:1] == (() if decision.best is None else (decision.best,))
