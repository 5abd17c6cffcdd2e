"""Admission against a model of VPP's memory: whatever is let in, no pool that grows finds too little room."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from router_agent.model import U64, Family, v4_keys
from router_agent.vpp.capacity import HEAP, SEGMENT, Admission, Look, Memory, Shortage, costs, counter_cost

MIB = 1 << 20
ROOMY = Memory(1 << 30, 1 << 20, (1 << 30) - (1 << 20))


def looked(
    largest: int, *, counters: int = 8, heartbeat: int = 1, total: int = 1 << 30, segment: Memory = ROOMY
) -> Look:
    memory = {HEAP: Memory(total, total - largest, largest), SEGMENT: segment}
    return Look(heartbeat, memory, counters, threads=1)


def routes(count: int, length: int = 24) -> U64:
    return v4_keys(np.arange(count, dtype=np.uint32), np.full(count, length, np.uint8))


class ModelVpp:
    """Pools that grow by half into one new piece, cut from the first hole that fits or from the end."""

    POOLS = (72, 64, 40, 20)
    """Bytes an element: FIB entry, load-balance, entry source, list element."""
    LINEAR = 120

    def __init__(self, total: int) -> None:
        self.total = total
        self.top = total
        self.holes: list[int] = []
        self.elements = dict.fromkeys(self.POOLS, 64)
        self.highest = 0
        self.live = 0
        for size in self.POOLS:
            self._allocate(64 * size)

    def add(self, count: int) -> None:
        reused = min(count, self.highest - self.live)
        self.live += count
        for _ in range(count - reused):
            self.highest += 1
            for size in self.POOLS:
                self._grow(size)
        self._allocate((count - reused) * self.LINEAR)

    def _grow(self, size: int) -> None:
        before = self.elements[size]
        if self.highest <= before:
            return
        self.elements[size] = math.ceil(before * 1.5)
        self._allocate(self.elements[size] * size)
        self.holes.append(before * size)

    def _allocate(self, size: int) -> None:
        for number, hole in enumerate(self.holes):
            if hole >= size:
                self.holes[number] -= size
                return
        self.top -= size
        assert self.top >= 0, f"VPP ended with {self.live} routes"

    def look(self, heartbeat: int) -> Look:
        return looked(self.top, counters=self.highest + 8, heartbeat=heartbeat, total=self.total)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 12),
    st.lists(
        st.tuples(st.sampled_from(["add", "delete", "look"]), st.integers(1, 6_000)), min_size=3, max_size=40
    ),
)
def test_no_pool_that_grows_ever_finds_too_little_room(mib: int, steps: list[tuple[str, int]]) -> None:
    vpp, admission, heartbeat = ModelVpp(mib * MIB), Admission(), 1
    admission.take(vpp.look(heartbeat))
    for step, count in steps:
        if step == "add":
            vpp.add(admission.admit(Family.IPV4, routes(count)))
        elif step == "delete":
            count = min(count, vpp.live)
            vpp.live -= count
            admission.release(count)
        else:
            heartbeat += 1
            admission.take(vpp.look(heartbeat))
    # Left alone, it fills VPP up until it says that it is full.
    while admission.shortage is None:
        heartbeat += 1
        admission.take(vpp.look(heartbeat))
        vpp.add(admission.admit(Family.IPV4, routes(1_000)))


def test_a_fresh_vpp_of_a_gibibyte_takes_a_full_table_at_once() -> None:
    admission = Admission()
    admission.take(looked(960 * MIB))
    assert admission.admit(Family.IPV4, routes(1_055_514)) == 1_055_514
    assert admission.shortage is None


def test_figures_from_before_the_routes_are_not_trusted() -> None:
    """An agent that starts cannot know what the one before it added since VPP's last update."""
    admission = Admission()
    admission.take(looked(700 * MIB, counters=600_000))
    fresh = Admission()
    fresh.take(looked(700 * MIB, counters=8))
    assert admission.admit(Family.IPV4, routes(400_000)) < fresh.admit(Family.IPV4, routes(400_000))


def test_a_shortage_names_the_resource_its_figures_and_the_knob() -> None:
    admission = Admission()
    small = Memory(16 * MIB, 11 * MIB, 5 * MIB)
    admission.take(looked(960 * MIB, counters=240_000, segment=small))
    assert admission.shortage == Shortage(SEGMENT, 11 * MIB, 16 * MIB, 5 * MIB, 48 * 240_000)
    assert "stats segment has 5 MiB left in one piece" in str(admission.shortage)
    assert "statseg { size }" in str(admission.shortage)
    assert not admission.open
    assert admission.admit(Family.IPV4, routes(10)) == 0


def test_room_that_returns_ends_the_shortage() -> None:
    admission = Admission()
    admission.take(looked(10 * MIB, counters=100_000))
    assert admission.shortage is not None
    admission.release(7)
    assert admission.open
    assert admission.admit(Family.IPV4, routes(10)) == 7
    assert not admission.take(looked(900 * MIB, counters=100_000)), "the same figures, not new ones"
    assert admission.take(looked(900 * MIB, counters=100_000, heartbeat=2))
    assert str(admission.shortage) == "None"
    assert admission.admit(Family.IPV4, routes(10)) == 10


def test_what_was_let_in_since_the_last_look_counts_until_figures_are_newer() -> None:
    admission = Admission()
    admission.take(looked(100 * MIB, total=128 * MIB))
    first = admission.admit(Family.IPV4, routes(1_000_000))
    assert 0 < first < 1_000_000
    admission.take(looked(100 * MIB, total=128 * MIB, heartbeat=2))
    assert admission.admit(Family.IPV4, routes(1_000_000)) < first // 10
    admission.take(looked(100 * MIB, total=128 * MIB, heartbeat=3))
    assert admission.admit(Family.IPV4, routes(1_000_000)) > first // 2


def test_host_routes_cost_a_ply_each_and_threads_cost_counters() -> None:
    assert (costs(Family.IPV4, routes(3, 32)) > 4 * costs(Family.IPV4, routes(3, 24))).all()
    assert counter_cost(9) == 9 * counter_cost(1)


def test_without_figures_everything_is_let_in() -> None:
    admission = Admission()
    admission.forget("no stats segment")
    assert admission.admit(Family.IPV4, routes(5)) == 5
    assert admission.open
    assert admission.unknown == "no stats segment"
