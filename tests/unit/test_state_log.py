"""How a pipeline's state is told: a loss once, and for how long it was when it is over."""

from __future__ import annotations

import logging

import pytest

from router_agent.observe.answers import State
from router_agent.state_log import StateLog


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def told(caplog: pytest.LogCaptureFixture, least: int = logging.INFO) -> list[tuple[str, str]]:
    return [(r.__dict__["event"], r.getMessage()) for r in caplog.records if r.levelno >= least]


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "router_agent.state_log")


def test_a_start_is_told_step_by_step(caplog: pytest.LogCaptureFixture) -> None:
    log = StateLog("frr")
    for state in (State.READING_FIB, State.SYNCING):
        log.entered(state)
    log.in_sync(routes=1_055_514, absent=0)
    assert told(caplog) == [
        ("state", "reading-fib"),
        ("state", "syncing"),
        ("in-sync", "in sync: 1,055,514 routes in the FIB"),
    ]


def test_a_loss_is_told_once_however_often_it_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = StateLog("frr", clock)
    log.lost(State.FIB_LOST, "VPP closed the connection")
    for _ in range(20):
        clock.now += 5
        log.entered(State.READING_FIB)
        log.lost(State.FIB_LOST, "cannot connect")
    log.entered(State.SYNCING)
    log.in_sync(routes=10, absent=2)
    assert [event for event, _ in told(caplog)] == ["fib-lost", "fib-lost", "in-sync"]
    assert "VPP closed the connection" in told(caplog)[0][1]
    assert "cannot connect" in told(caplog)[1][1]
    last = caplog.records[-1]
    assert (
        last.getMessage()
        == "in sync: again, 100.0 s after fib-lost: 10 routes in the FIB, 2 are not, for a reason"
    )
    fields = last.__dict__["fields"]
    assert (fields["after"], fields["lost_seconds"], fields["tries"]) == ([State.FIB_LOST], 100.0, 21)
    assert [r.levelno for r in caplog.records if r.levelno >= logging.INFO] == [
        logging.ERROR,
        logging.ERROR,
        logging.INFO,
    ]


def test_the_next_loss_is_told_again(caplog: pytest.LogCaptureFixture) -> None:
    log = StateLog("frr")
    for _ in range(2):
        log.lost(State.FEED_LOST, "no such namespace")
        log.in_sync(routes=1, absent=0)
    assert [event for event, _ in told(caplog)] == ["feed-lost", "in-sync"] * 2
    assert "after feed-lost" in caplog.records[-1].getMessage()


def test_both_can_be_lost_at_one_time(caplog: pytest.LogCaptureFixture) -> None:
    log = StateLog("frr")
    log.lost(State.FEED_LOST, "a")
    log.lost(State.FIB_LOST, "b")
    log.in_sync(routes=1, absent=0)
    assert "after feed-lost and fib-lost" in caplog.records[-1].getMessage()
