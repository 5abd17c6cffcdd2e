"""The rate a device should reach, the reason it does not, and what nobody knows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import router_host_facts
from router_agent.traffic.counters.source import DropClass
from router_agent.traffic.generators.generator import Series, TrialResult
from router_agent.traffic.judgement.ledger import balance
from router_agent.traffic.judgement.prediction import Processor, Sending, clock_hz, cycles, predict
from router_agent.traffic.judgement.verdict import Outcome, Verdict, judge_trial
from router_agent.traffic.measurements.results import Measurement, RateSearch, Target
from router_agent.traffic.measurements.search import SearchResult
from router_agent.traffic.nics import NicModel, model_of, models
from router_agent.traffic.scenario import FrameSizes, Goal

SMALL = FrameSizes.of(64)
TEN = Sending("west", 10e9, NicModel("a 10G NIC", 10e9, None))
HZ = 2e9


def nodes(
    *, packets: int, calls: int, work: int, poll: int, threads: int = 1, sleeping: int = 0
) -> dict[str, dict[str, int]]:
    """Return what VPP's counters grew by: look-ups of so many packets on each of some workers.

    `work` clocks go to look-ups and rewrites, `poll` to memif-input, `sleeping` to waiting for events.
    """
    moved: dict[str, int] = {"/if/rx/memif0/0": packets}
    for thread in range(1, threads + 1):
        for node, clocks in (
            ("ip4-lookup", work // 2),
            ("ip4-rewrite", work - work // 2),
            ("memif-input", poll),
        ):
            moved[f"/sys/node/calls/{thread}/{node}"] = calls
            moved[f"/sys/node/vectors/{thread}/{node}"] = packets
            moved[f"/sys/node/clocks/{thread}/{node}"] = clocks
        moved[f"/sys/node/clocks/{thread}/unix-epoll-input"] = sleeping
    return {"VPP": {name: n for name, n in moved.items() if n}}


def target(
    *,
    received: int,
    sent: int = 1_000_000,
    intended: int = 1_000_000,
    moved: dict[str, dict[str, int]] | None = None,
    culprits: tuple[str, ...] = (),
    drops: tuple[DropClass, ...] = (),
) -> Target:
    """Return a target of a second."""
    column = np.array([sent], np.int64)
    series = Series(1.0, column, column, column, column - column)
    trial = TrialResult(float(intended), 1.0, 1.0, intended, sent, received, (0, received), series)
    ledger = balance(sent, received, drops, moved or {})
    return Target(SMALL, trial, ledger, judge_trial(trial, ledger, Goal()), culprits)


def test_the_link_is_the_least_of_what_is_known_and_is_met() -> None:
    found = predict(
        SMALL, [TEN], [target(received=14_600_000, sent=14_600_000, intended=14_600_000)], Processor()
    )
    assert [limit.what for limit in found.limits] == ["link (west 10 Gbit/s)"]
    assert found.limits[0].pps == pytest.approx(14_880_952, abs=1)
    assert found.measured_pps == pytest.approx(14_600_000)
    assert found.difference == "link (west 10 Gbit/s) is the limit, as predicted"


def test_a_nic_below_its_link_is_the_limit() -> None:
    port = Sending("west", 40e9, model_of("8086:1583"))
    found = predict(SMALL, [port, port], [target(received=1_000_000)], Processor())
    assert [(limit.what.split(" (")[0], round(limit.pps)) for limit in found.limits] == [
        ("NIC", 37_500_000),
        ("link", 119_047_619),
    ]


def test_full_frames_give_cycles_a_packet_with_polling_and_a_busy_forwarder() -> None:
    moved = nodes(packets=1_000_000, calls=4_000, work=180_000_000, poll=20_000_000)
    cost = cycles(moved)
    assert cost is not None
    assert (cost.per_packet, cost.whole, cost.busy, cost.threads, cost.vectors) == (200, True, 1.0, 1, 250)
    culprits = ("port 1 rx-miss while workers ran at 250 vectors/call: add a worker",)
    found = predict(SMALL, [TEN], [target(received=900_000, moved=moved, culprits=culprits)], Processor(HZ))
    assert [round(limit.pps) for limit in found.limits] == [10_000_000, 14_880_952]
    assert found.limits[0].what == "1 worker at 2.00 GHz, 200 cycles a packet"
    assert found.difference == (
        "measured 91% below 1 worker at 2.00 GHz, 200 cycles a packet: the forwarder ran 100% busy: CPU bound"
    )


def test_cpu_bound_as_predicted() -> None:
    moved = nodes(packets=9_800_000, calls=39_200, work=1_800_000_000, poll=160_000_000, sleeping=40_000_000)
    found = predict(SMALL, [TEN], [target(received=9_800_000, sent=10_000_000, moved=moved)], Processor(HZ))
    assert "is the limit, as predicted; the forwarder ran 98% busy" in found.difference


def test_half_empty_frames_leave_polling_out_and_say_so() -> None:
    moved = nodes(packets=1_000_000, calls=100_000, work=150_000_000, poll=1_850_000_000)
    cost = cycles(moved)
    assert cost is not None
    assert (cost.per_packet, cost.whole, cost.vectors) == (150, False, 10)
    assert cost.busy == pytest.approx(0.075)
    found = predict(SMALL, [TEN], [target(received=1_000_000, moved=moved)], Processor(HZ, workers=2))
    assert found.limits[-1].what == "2 workers at 2.00 GHz, at least 150 cycles a packet"
    assert found.limits[-1].pps == pytest.approx(26_666_667, abs=1)
    assert "no more than the goal's rate was asked for; the forwarder ran 8% busy" in found.difference


def test_a_stall_is_no_lack_of_cpu() -> None:
    moved = nodes(packets=600_000, calls=20_000, work=60_000_000, poll=1_940_000_000)
    culprit = "port 1 rx-miss (400,000 packets) while workers ran at 30 vectors/call: a stall, not the load"
    missed = target(received=600_000, moved=moved, culprits=(culprit,))
    found = predict(SMALL, [Sending("west", 0.672e9)], [missed], Processor(HZ))
    assert found.limits[0].pps == pytest.approx(1_000_000, rel=1e-3)
    assert found.difference.startswith("measured 40% below link (west 0.672 Gbit/s): port 1 rx-miss")
    assert "a stall" in found.difference
    assert "3% busy" in found.difference


def test_a_tester_that_was_the_limit_is_named() -> None:
    found = predict(SMALL, [TEN], [target(received=300_000, sent=300_000)], Processor())
    assert "the tester was the limit: the generator was the limit" in found.difference


def test_a_search_says_more_than_a_target() -> None:
    no_more = "the generator could offer no more"
    measured: list[Measurement] = [
        target(received=1_000_000),
        RateSearch(
            "NDR",
            SMALL,
            0.0,
            1.0,
            SearchResult(
                Outcome.PASS,
                "met",
                7e6,
                None,
                (),
                forwarded_pps=7e6,
                limit=no_more,
            ),
            Verdict(Outcome.PASS, "met"),
        ),
    ]
    found = predict(SMALL, [TEN], measured, Processor())
    assert found.measured_pps == 7e6
    assert found.difference.endswith("below link (west 10 Gbit/s): the generator could offer no more")


def test_what_nobody_knows_is_listed() -> None:
    kernel = predict(
        SMALL, [Sending("west")], [target(received=1, moved={"kernel": {"Ip.InReceives": 9}})], Processor()
    )
    assert kernel.limits == ()
    assert [text.split(":")[0] for text in kernel.unknown] == ["link of port west", "cycles per packet"]
    assert "does not count them" in kernel.unknown[1]
    silent = predict(SMALL, [TEN], [target(received=1, moved={"VPP": {"/if/rx/a": 9}})], Processor())
    assert "per-node-counters on" in silent.unknown[0]
    moved = nodes(packets=100, calls=10, work=1_000, poll=10)
    assert "clock" in predict(SMALL, [TEN], [target(received=1, moved=moved)], Processor()).unknown[0]
    nothing = predict(SMALL, [TEN], [], Processor())
    assert (nothing.measured_pps, nothing.difference) == (None, "nothing was measured")


@given(
    st.integers(1, 10**9),
    st.integers(1, 10**7),
    st.integers(1, 10**12),
    st.integers(0, 10**12),
    st.integers(1, 8),
)
def test_busy_is_a_share_and_the_limit_grows_with_workers(
    packets: int, calls: int, work: int, poll: int, threads: int
) -> None:
    cost = cycles(nodes(packets=packets, calls=calls, work=work, poll=poll, threads=threads))
    assert cost is not None
    assert 0 <= cost.busy <= 1
    assert cost.threads == threads
    measured = target(received=1, moved=nodes(packets=packets, calls=calls, work=work, poll=poll))
    one, two = (predict(SMALL, [], [measured], Processor(HZ, workers=n)).limits[0].pps for n in (1, 2))
    assert two == pytest.approx(2 * one)


def test_the_clock_is_the_nominal_one_where_the_model_names_it() -> None:
    named = "model name\t: Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz\ncpu MHz\t\t: 1200.000\n"
    assert clock_hz(named) == 2.4e9
    assert clock_hz("model name\t: AMD EPYC\ncpu MHz\t: 2596.1\ncpu MHz\t: 2000.0\n") == pytest.approx(
        2.5961e9
    )
    assert clock_hz("") is None


def test_there_is_one_list_of_nics_and_it_is_read_whole() -> None:
    found = {
        pci_id: (model.name, (model.link_bps or 0) / 1e6, (model.ceiling_pps or 0) / 1e6)
        for pci_id, model in models().items()
    }
    wanted = {pci_id: tuple(model) for pci_id, model in router_host_facts.NIC_MODELS.items()}
    assert found == wanted
