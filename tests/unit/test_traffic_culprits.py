"""Each culprit, with figures that name it and with such that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from router_agent.traffic.counters import schedule
from router_agent.traffic.counters.source import DropClass, Side
from router_agent.traffic.generators.generator import ByDestination, Series, TrialResult
from router_agent.traffic.judgement.culprits import name_culprits
from router_agent.traffic.judgement.culprits.queues import by_queue
from router_agent.traffic.judgement.ledger import balance
from router_agent.traffic.judgement.route_change import RouteChange
from router_agent.traffic.judgement.verdict import Outcome, judge_trial
from router_agent.traffic.scenario import Goal
from simulated_device import column

SENT = 100_000
SECONDS = 10.0


def trial(lost: int = 0, unsent: int = 0, refused: int = 0, **more: Any) -> TrialResult:
    """A trial of ten seconds to a hundred prefixes, whose losses are spread over time and prefixes."""
    n = 100
    even = np.full(n, SENT // n, np.int64)
    gone = np.diff(np.arange(n + 1) * lost // n)
    result = TrialResult(
        rate_pps=(SENT + unsent) / SECONDS,
        duration_s=SECONDS,
        offered_s=SECONDS,
        intended=SENT + unsent,
        sent=SENT,
        received=SENT - lost,
        received_by_port=(SENT - lost,),
        series=Series(SECONDS / n, even, even, even - gone, gone),
        by_destination=ByDestination(even, (even - gone)[None, :]),
        refused=refused,
    )
    return replace(result, **more)


def named(
    result: TrialResult,
    *drops: DropClass,
    moved: dict[str, dict[str, int]] | None = None,
    changes: Sequence[RouteChange] = (),
    restarted: tuple[str, ...] = (),
) -> tuple[str, ...]:
    return name_culprits(result, balance(result.sent, result.received, drops, moved, restarted), changes)


def device(name: str, count: int, source: str = "x") -> DropClass:
    return DropClass(name, count, Side.DEVICE, source)


def rx_miss(count: int) -> DropClass:
    return device("VPP port one: receive queue full", count, "/if/rx-miss")


def vpp(*threads: tuple[int, int]) -> dict[str, dict[str, int]]:
    """What VPP's threads did, (calls, vectors) of the look-up node of each."""
    moved: dict[str, int] = {}
    for number, (calls, vectors) in enumerate(threads):
        moved[f"/sys/node/calls/{number}/ip4-lookup"] = calls
        moved[f"/sys/node/vectors/{number}/ip4-lookup"] = vectors
        moved[f"/sys/node/calls/{number}/TenGigabitEthernet0/8/0-output"] = calls
    return {"VPP": moved}


def test_a_clean_trial_has_no_culprit() -> None:
    assert named(trial(), moved={"host": {"dropped": 5, "time_squeeze": 3, "IpExt.InNoRoutes": 7}}) == ()


# the tester


def test_a_nic_that_refuses_packets_could_not_send() -> None:
    (words,) = named(trial(unsent=5_000, refused=12_345))
    assert words.startswith("tester's NIC could not send: 5,000 of 105,000 packets were not sent")
    assert "12,345 times" in words


def test_a_generator_that_was_too_slow_is_no_nic() -> None:
    (words,) = named(trial(unsent=5_000))
    assert words.startswith("tester's CPU could not send")
    assert "NIC could" not in words


def test_a_few_unsent_packets_do_not_come_first() -> None:
    words = named(
        trial(lost=1_000, unsent=3), device("x", 1_000), moved={"kernel": {"IpExt.InNoRoutes": 1_000}}
    )
    assert [w.split(":")[0] for w in words] == ["no route for 1,000 packets", "tester's CPU could not send"]


def test_a_nic_that_drops_what_it_took_could_not_send() -> None:
    dropped = DropClass("tester port west: could not send", 40, Side.TESTER, "west tx_dropped, tx_errors")
    (words,) = named(trial(lost=40), dropped)
    assert words == (
        "tester's NIC could not send: it took 40 packets and dropped them (west tx_dropped, tx_errors)"
    )
    result = trial(lost=40)
    verdict = judge_trial(result, balance(result.sent, result.received, [dropped]), Goal())
    assert verdict.outcome is Outcome.INVALID


def test_a_full_egress_queue_is_named() -> None:
    (words,) = named(trial(lost=40), device("device port to-east: egress queue full", 40))
    assert words.startswith(
        "device port to-east: egress queue full, 40 packets: more left by it than it sends"
    )


def test_the_testers_own_losses_come_first() -> None:
    ours = DropClass("tester's capture of port east full", 10, Side.TESTER, "capture")
    words = named(
        trial(lost=1_000), device("anything", 990), ours, moved={"device": {"IpExt.InNoRoutes": 990}}
    )
    assert words[0].startswith("tester's capture of port east full: 10 packets")
    assert words[1].startswith("no route for 990 packets")


@pytest.mark.parametrize(("waited_s", "found"), [(2.3, True), (0.9, False)])
def test_a_tester_without_a_cpu_is_named_and_noted(waited_s: float, *, found: bool) -> None:
    moved = {schedule.NAME: {"11.waited_ns": int(waited_s * 1e9), "12.waited_ns": 5, "11.ran_ns": 10**10}}
    result = trial(lost=10)
    ledger = balance(result.sent, result.received, [], moved)
    words = name_culprits(result, ledger)
    assert any("had to wait for a CPU, one of them for 23%" in w for w in words) is found
    notes = judge_trial(result, ledger, Goal()).notes
    assert ("a process of the tester waited for a CPU for 23% of the trial" in notes) is found


# VPP


@pytest.mark.parametrize(
    ("threads", "words"),
    [
        (
            [(1_000, 250_000)],
            "port one rx-miss (500 packets) while workers ran at 250 vectors/call: add a worker",
        ),
        ([(0, 0), (1_000, 250_000), (10, 20)], "250 vectors/call: add a worker"),
        ([(1_000, 30_000)], "at 30 vectors/call: a stall, not the load: look at"),
        ([(1_000, 120_000)], "at 120 vectors/call: bursts: give the port more receive descriptors"),
        ([], "nobody counted vectors"),
    ],
)
def test_a_full_receive_queue_is_read_beside_the_workers(threads: list[tuple[int, int]], words: str) -> None:
    (found,) = named(trial(lost=500), rx_miss(500), moved=vpp(*threads))
    assert words in found


def test_vectors_say_nothing_without_a_full_queue() -> None:
    assert not any("vectors" in w for w in named(trial(lost=500), device("x", 500), moved=vpp((1, 250))))


def test_buffers_routes_and_neighbours_of_vpp_are_named() -> None:
    words = named(
        trial(lost=600),
        device("VPP port one: no packet buffer", 300, "/if/rx-no-buf"),
        device("VPP dropped by a FIB entry, or no reason given", 200, "/err/null-node/no error"),
        device("VPP ip4-glean: ARP requests sent", 100, "/err/ip4-glean/ARP requests sent"),
    )
    assert [w.split(":")[0] for w in words] == [
        "VPP port one",
        "VPP had no route, or one that drops, for 200 packets",
        "VPP knew no neighbour for 100 packets (ip4-glean)",
    ]
    assert "buffers-per-numa" in words[0]


@pytest.mark.parametrize(
    ("taken", "found"),
    [((95_000, 5_000), True), ((50_000, 50_000), False), ((100_000,), False), ((900, 0), False)],
)
def test_one_worker_that_takes_everything_is_named(taken: tuple[int, ...], *, found: bool) -> None:
    moved: dict[str, int] = {}
    for thread, vectors in enumerate(taken, 1):
        moved |= {
            f"/sys/node/calls/{thread}/dpdk-input": 10**6,
            f"/sys/node/vectors/{thread}/dpdk-input": vectors,
            f"/sys/node/calls/{thread}/ip4-input": 10,
        }
    words = named(trial(lost=10), device("x", 10), moved={"VPP": moved})
    assert any("VPP thread 1 took 95% of what dpdk-input polls" in w for w in words) is found
    assert all("ip4-input" not in w for w in words)


# receive queues


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("rx_queue_0_packets", "rx_queue_1_packets"), True),
        (("west.rx_queue_0_packets", "west.rx_queue_1_packets"), True),
        (("rx_packets", "tx_queue_0_packets"), False),
        (("rx_queue_0_bytes", "rx_queue_1_bytes"), False),
    ],
)
def test_one_queue_that_takes_everything_is_named(names: tuple[str, str], *, found: bool) -> None:
    moved = {"NIC": {names[0]: 90_000, names[1]: 10_000}}
    words = named(trial(lost=10), device("x", 10), moved=moved)
    assert any("(0) took 90% of the packets: more flows, or another hash" in w for w in words) is found
    even = {"NIC": dict.fromkeys(names, 50_000)}
    assert not any("RSS" in w for w in named(trial(lost=10), device("x", 10), moved=even))
    assert named(trial(), moved=moved) == ()


def test_queues_are_told_apart_by_port() -> None:
    moved = {"west.rx_queue_0_packets": 1, "west.rx_queue_1_packets": 2, "east.rx_queue_0_packets": 3}
    assert by_queue(moved) == {"west": {"0": 1, "1": 2}, "east": {"0": 3}}


# the kernel


@pytest.mark.parametrize(
    ("counters", "words"),
    [
        ({"Udp.RcvbufErrors": 400}, "UDP RcvbufErrors at the receiver, 400 packets: raise rmem"),
        ({"Udp6RcvbufErrors": 400}, "UDP RcvbufErrors at the receiver, 400 packets"),
        ({"nf_conntrack.drop": 400}, "conntrack dropped 400 packets, its table is full"),
        ({"nf_conntrack.insert_failed": 400}, "conntrack could not enter 400 flows"),
        ({"IpExt.InNoRoutes": 300, "Ip6InNoRoutes": 100}, "no route for 400 packets"),
        ({"TcpExt.IPReversePathFilter": 400}, "reverse path filter dropped 400 packets"),
        ({"softnet.dropped": 400}, "softnet dropped 400 packets"),
        ({"softnet.time_squeeze": 9}, "softirqs ended 9 times with packets left (time_squeeze)"),
    ],
)
def test_the_kernels_counters_have_words(counters: dict[str, int], words: str) -> None:
    found = named(trial(lost=400), device("x", 400), moved={"kernel": counters})
    assert [w for w in found if w.startswith(words)]
    assert not named(trial(lost=400), device("x", 400), moved={"kernel": {"Udp.InDatagrams": 400}})


def test_a_tester_on_another_host_is_understood() -> None:
    """All its counters come in one source, each called after its own."""
    moved = {"tester on gen1": {"host backlog: dropped": 400, f"{schedule.NAME}: 11.waited_ns": 5 * 10**9}}
    words = named(trial(lost=400), device("x", 400), moved=moved)
    assert [w.split(",")[0] for w in words] == [
        "softnet dropped 400 packets",
        "tester's processes had to wait for a CPU",
    ]


def test_one_host_read_twice_counts_once() -> None:
    (words,) = named(
        trial(lost=400),
        device("x", 400),
        moved={"kernel": {"softnet.dropped": 400}, "host backlog": {"dropped": 400}},
    )
    assert words.startswith("softnet dropped 400 packets")


def test_neighbours_and_black_holes_of_the_kernel_are_named() -> None:
    words = named(
        trial(lost=500),
        device("forwarded but left by no port (neighbour unresolved)", 300),
        device("IPv4 discarded by a route (blackhole, unreachable, prohibit) or without any counter", 200),
        moved={"kernel": {"neighbour.unresolved_discards": 120}},
    )
    assert words[0].startswith("the kernel knew no neighbour for 300 packets, 120 of them waiting for it")
    assert words[1].startswith("200 packets met a route that drops")


# where and when


def test_dead_prefixes_are_told_from_a_load_that_is_too_high() -> None:
    sent = column(*[100] * 10)
    arrived = column(*[0, 0, *[100] * 8])
    words = named(trial(lost=200, by_destination=ByDestination(sent, arrived[None, :])), device("x", 200))
    assert words == (
        "2 of 10 prefixes lost every packet and the others next to none: look at their routes, not at the "
        "load",
    )
    for other in ([80] * 10, [0] * 10, [0, 0, *[50] * 8]):
        lost = 1000 - sum(other)
        spread = trial(lost=lost, by_destination=ByDestination(sent, column(*other)[None, :]))
        assert named(spread, device("x", lost)) == ()


def test_a_stall_is_told_from_a_load_that_is_too_high() -> None:
    calm = trial()
    lost = np.zeros(100, np.int64)
    lost[[17, 18]] = 300
    stalled = trial(lost=600, series=replace(calm.series, lost=lost, received=calm.series.sent - lost))
    assert named(stalled, device("x", 600)) == (
        "packets were lost in 2 of 100 intervals of 100 ms only, at 1.70 s, 1.80 s: a stall or a burst, not "
        "the load",
    )
    assert named(trial(lost=600), device("x", 600)) == (), "spread over the whole trial"
    short = replace(stalled, series=stalled.series.per(1.0))
    assert named(short, device("x", 600)) == (), "ten intervals are too few to tell"


def test_route_changes_are_named_with_what_followed() -> None:
    words = named(
        trial(lost=120),
        device("x", 120),
        changes=[
            RouteChange(12.34, "1,000 withdrawn", 0.004, 100),
            RouteChange(15.0, "1,000 announced", 0.0, 20),
            RouteChange(20.0, "5 announced", 0.0, 0),
        ],
    )
    assert words == (
        "route change at 12.3 s (1,000 withdrawn), 4 ms blocked, 100 packets lost",
        "route change at 15.0 s (1,000 announced), 20 packets lost",
    )
    assert named(trial(), changes=[RouteChange(1.0, "1 announced", 0.004, 0)]) == (
        "route change at 1.0 s (1 announced), 4 ms blocked",
    )


def test_a_device_that_was_restarted_is_named() -> None:
    result = trial(lost=10)
    ledger = balance(result.sent, result.received, [device("x", 10)], None, ("VPP at /run/vpp/stats.sock",))
    (words,) = name_culprits(result, ledger)
    assert words.startswith("VPP at /run/vpp/stats.sock counts anew: it was restarted")
    assert any("counts anew" in note for note in judge_trial(result, ledger, Goal()).notes)


def test_packets_nobody_counted_are_said_to_be_in_no_counter() -> None:
    assert named(trial(lost=10), device("x", 4)) == (
        "6 packets are in no counter that was read: look between the ports (cable, switch), or at counters "
        "that nobody reads",
    )


def test_the_likeliest_comes_first() -> None:
    words = named(
        trial(lost=1_000),
        rx_miss(100),
        device("VPP dropped by a FIB entry, or no reason given", 880, "/err/null-node/no error"),
    )
    assert [w.split()[1] for w in words] == ["had", "port", "packets"]


# bursts of the generator


def bursty(lost_in_burst: int, lost_elsewhere: int) -> TrialResult:
    """The generator stood still for half a second and caught up in the half second that followed."""
    calm = trial()
    sent = calm.series.sent.copy()
    sent[40:45], sent[45:50] = 0, 2_000
    lost = np.zeros(100, np.int64)
    lost[47], lost[80] = lost_in_burst, lost_elsewhere
    total = lost_in_burst + lost_elsewhere
    return trial(lost=total, series=Series(0.1, calm.series.intended, sent, sent - lost, lost))


@pytest.mark.parametrize(
    ("inside", "outside", "outcome", "words"),
    [
        (500, 0, "INVALID", "500 of 500 packets lost were sent in bursts, when it was late"),
        (500, 1, "FAIL", "501 of 100,000 packets lost"),
        (0, 500, "FAIL", "500 of 100,000 packets lost"),
        (0, 0, "PASS", "no packet lost"),
    ],
)
def test_losses_of_the_generators_own_bursts_are_invalid(
    inside: int, outside: int, outcome: str, words: str
) -> None:
    result = bursty(inside, outside)
    verdict = judge_trial(result, balance(result.sent, result.received, [device("x", result.lost)]), Goal())
    assert (verdict.outcome, words in verdict.reason) == (Outcome(outcome), True), verdict.reason


def test_bursts_of_a_generator_that_does_not_follow_packets_decide_nothing() -> None:
    result = replace(bursty(500, 0), by_destination=None)
    verdict = judge_trial(result, balance(result.sent, result.received, []), Goal())
    assert verdict.outcome is Outcome.FAIL
