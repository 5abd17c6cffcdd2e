"""The RFC checklist follows from what was done: checks that meet a clause, and checks that do not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import traffic_reports
from router_agent.traffic.judgement.verdict import Outcome, Verdict
from router_agent.traffic.measurements.results import BackToBack, LossCurve, LossPoint, Measurement
from router_agent.traffic.report.clauses import ETHERNET_SIZES, checklist, genome
from router_agent.traffic.report.model import SizesReport, Status, TrafficReport
from router_agent.traffic.scenario import IMIX, FrameSizes, Tier

SIZE = FrameSizes.of(64)
PASSED = Verdict(Outcome.PASS, "as wanted")


def clause(report: TrafficReport, rfc: int, section: str, title: str = "") -> tuple[Status, str]:
    found = [
        c
        for c in checklist(report)
        if (c.rfc, c.section) == (rfc, section) and c.title.lower().startswith(title.lower())
    ]
    assert len(found) == 1
    return found[0].status, found[0].reason


def of(*found: Measurement, tier: Tier = Tier.FUNCTIONAL, proven: bool = True) -> TrafficReport:
    return traffic_reports.report(found=found, tier=tier, proven=proven)


def test_frame_sizes_name_those_that_are_missing() -> None:
    few = of(traffic_reports.target(SIZE, 1e4))
    assert clause(few, 2544, "9.1") == (Status.NOT_MET, "not sent: 128, 256, 512, 1024, 1280, 1518")
    every = of(*(traffic_reports.target(FrameSizes.of(size), 1e4) for size in ETHERNET_SIZES))
    assert clause(every, 2544, "9.1")[0] is Status.MET
    assert clause(every, 5180, "5.1.1")[0] is Status.MET
    assert clause(of(traffic_reports.target(IMIX, 1e4)), 2544, "9.1")[0] is Status.NOT_APPLICABLE


def test_frames_are_verified_only_by_a_generator_that_follows_them() -> None:
    followed = traffic_reports.target(SIZE, 1e4)
    counted = replace(followed, trial=replace(followed.trial, duplicates=None, reordered=None))
    assert clause(of(followed), 2544, "10")[0] is Status.MET
    assert clause(of(counted), 2544, "10")[0] is Status.NOT_MET


def test_routes_are_set_up_when_every_prefix_left_by_its_port() -> None:
    target = traffic_reports.target(SIZE, 1e4)
    assert clause(of(target), 2544, "13") == (
        Status.NOT_MET,
        "699 of 1,000 prefixes left by their port",
    )
    assert clause(of(target, proven=False), 2544, "13")[0] is Status.NOT_MET
    report = of(target)
    assert report.proof is not None
    whole = report.model_copy(update={"proof": report.proof.model_copy(update={"right": 1000})})
    assert clause(whole, 2544, "13")[0] is Status.MET


def test_only_the_tier_with_a_medium_has_a_maximum_frame_rate() -> None:
    target = traffic_reports.target(SIZE, 1e4)
    assert clause(of(target), 2544, "20")[0] is Status.NOT_APPLICABLE
    status, reason = clause(of(target, tier=Tier.LINE_RATE), 2544, "20")
    assert (status, reason) == (Status.NOT_MET, "64: 10,000 of 14,880,000 packets/s offered")
    fast = traffic_reports.search(SIZE, "NDR", 0.0, 14.88e6)
    assert clause(of(target, fast, tier=Tier.LINE_RATE), 2544, "20")[0] is Status.MET


def test_trials_of_sixty_seconds() -> None:
    short = traffic_reports.target(SIZE, 1e4)
    assert clause(of(short), 2544, "24")[0] is Status.NOT_MET
    long = replace(short, trial=replace(short.trial, duration_s=60.0))
    assert clause(of(long), 2544, "24")[0] is Status.MET


def test_throughput_is_found_in_trials_of_sixty_seconds_that_forgive_nothing() -> None:
    search = traffic_reports.search(SIZE, "NDR", 0.0, 1e4)
    assert clause(of(search), 2544, "26.1") == (
        Status.NOT_MET,
        "the longest deciding trials took 1 s, expected 60 s",
    )
    forgiving = replace(search, trial_s=60.0)
    assert clause(of(forgiving), 2544, "26.1") == (Status.NOT_MET, "the search forgave trials with loss")
    strict = replace(forgiving, exceed_ratio=0.0)
    assert clause(of(strict), 2544, "26.1") == (Status.MET, "packets/s by frame size 64: 10,000")
    partial = traffic_reports.search(SIZE, "PDR", 0.005, 1e4)
    assert clause(of(partial), 2544, "26.1")[1] == "no rate without loss was searched for"


def test_latency_at_the_throughput_long_enough_and_often_enough() -> None:
    once = traffic_reports.latency_run(SIZE, 0.5, 1e4)
    status, reason = clause(of(once), 2544, "26.2")
    assert status is Status.NOT_MET
    assert "measured at 50%" in reason
    assert "streams of 20 s" in reason
    assert "1 run" in reason
    often = [replace(traffic_reports.latency_run(SIZE, 1.0, 1e4), duration_s=120.0)] * 20
    assert clause(of(*often), 2544, "26.2")[0] is Status.MET


def curve(*points: tuple[float, int]) -> LossCurve:
    return LossCurve(SIZE, tuple(LossPoint(s, 1e4 * s, 1000, lost, True) for s, lost in points), PASSED)


def test_loss_rate_from_the_top_until_two_trials_lose_nothing() -> None:
    good = curve((1.0, 30), (0.9, 0), (0.8, 0))
    assert clause(of(good), 2544, "26.3")[0] is Status.MET
    for faulty, why in (
        (curve((0.9, 0), (0.8, 0)), "does not begin"),
        (curve((1.0, 3), (0.7, 0), (0.6, 0)), "steps of more"),
        (curve((1.0, 3), (0.9, 0)), "two trials without loss"),
    ):
        status, reason = clause(of(faulty), 2544, "26.3")
        assert status is Status.NOT_MET
        assert why in reason


def test_bursts_are_repeated_fifty_times_and_corrected() -> None:
    few = BackToBack(SIZE, 1e4, (100,) * 49, 0.01, PASSED)
    assert clause(of(few), 9004, "6.3")[0] is Status.NOT_MET
    assert clause(of(replace(few, bursts=(100,) * 50)), 9004, "6.3")[0] is Status.MET
    assert clause(of(replace(few, corrected_buffer_s=None)), 9004, "6.4")[0] is Status.NOT_MET
    assert clause(of(traffic_reports.target(SIZE, 1e4)), 9004, "6")[0] is Status.NOT_MET


def test_a_mix_is_reported_by_its_genome() -> None:
    report = of(traffic_reports.target(IMIX, 1e4))
    status, reason = clause(report, 6985, "4")
    assert status is Status.MET
    letters, _, meaning = reason.removeprefix("imix: ").partition(" ")
    assert sorted(letters) == sorted("aaaaaaaAAAAg")
    assert meaning == "(A = 594 bytes)"
    assert genome(SizesReport(label="two", shares=[(64, 1), (128, 1)], mean=96.0)) in ("ab", "ba")
    assert clause(of(traffic_reports.target(SIZE, 1e4)), 6985, "4")[0] is Status.NOT_APPLICABLE


def test_convergence_is_as_accurate_as_packets_are_dense() -> None:
    run = traffic_reports.churn(SIZE, 1e4)  # to two prefixes: one packet each 0.2 ms
    assert clause(of(run), 7747, "4.6")[0] is Status.MET
    fast = replace(run, convergence_s=(0.0001,))
    status, reason = clause(of(fast), 7747, "4.6")
    assert status is Status.NOT_MET
    assert "0.2 ms" in reason
    assert clause(of(run), 7747, "5.6")[0] is Status.MET
    assert clause(of(replace(run, batches=run.batches[1:2])), 7747, "5.6")[0] is Status.NOT_MET
    assert clause(of(run), 7747, "4.7")[0] is Status.NOT_MET
    assert clause(of(run, run), 7747, "4.7")[0] is Status.MET


def test_a_search_reports_its_goal_and_both_bounds() -> None:
    search = traffic_reports.search(SIZE, "NDR", 0.0, 1e4)
    assert clause(of(search), 9971, "4", "search goals")[0] is Status.MET
    unknown = replace(search, exceed_ratio=None)
    assert clause(of(unknown), 9971, "4", "search goals")[0] is Status.NOT_MET
    assert clause(of(search), 9971, "4", "regular")[0] is Status.MET
    open_ended = traffic_reports.search(SIZE, "NDR", 0.0, 1e4, regular=False)
    assert clause(of(open_ended), 9971, "4", "regular")[0] is Status.NOT_MET
    assert clause(of(search), 9971, "4", "offered") == (
        Status.NOT_MET,
        "1 trials were invalid, and passed over",
    )


def test_every_clause_has_a_reason() -> None:
    reports: Sequence[TrafficReport] = [traffic_reports.report(), of(traffic_reports.target(IMIX, 1e4))]
    for report in reports:
        lines = checklist(report)
        assert len({(c.rfc, c.section, c.title) for c in lines}) == len(lines)
        assert all(c.reason for c in lines)
        assert {c.rfc for c in lines} == {2544, 5180, 6985, 7747, 9004, 9971}
