"""Log lines: what the journal and people see, and how repeats are counted."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from router_agent.config import LogConfig
from router_agent.logs import (
    KINDS,
    REPEATS,
    WINDOW_SECONDS,
    LimitedHandler,
    LineFormatter,
    set_up,
    to_journal,
)


def record(
    message: str = "routes: %d", *args: object, level: int = logging.WARNING, at: float = 0.0
) -> logging.LogRecord:
    made = logging.LogRecord("router_agent.rib", level, __file__, 1, message, args, None)
    made.created = at
    made.msecs = 0.0
    return made


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    logger.handlers[:] = []
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.parametrize(
    ("level", "prefix"),
    [
        (logging.CRITICAL, "<2>"),
        (logging.ERROR, "<3>"),
        (logging.WARNING, "<4>"),
        (logging.INFO, "<6>"),
        (logging.DEBUG, "<7>"),
    ],
)
def test_journal_lines_carry_their_priority(level: int, prefix: str) -> None:
    formatter = LineFormatter(as_json=False, journal=True)
    assert formatter.format(record("found %s", "x", level=level)) == f"{prefix}found x"


def test_every_line_of_a_traceback_carries_the_priority() -> None:
    failed = record("failed", level=logging.ERROR)
    try:
        int("why")
    except ValueError:
        failed.exc_info = sys.exc_info()
    lines = LineFormatter(as_json=False, journal=True).format(failed).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("<3>") for line in lines)
    assert lines[-1].startswith("<3>ValueError: ")
    content = json.loads(LineFormatter(as_json=True, journal=False).format(failed))
    assert content["traceback"].endswith("'why'")


def test_terminal_lines_start_with_the_time_and_level() -> None:
    line = LineFormatter(as_json=False, journal=False).format(record("found %d", 5))
    assert line.endswith(".000 warning found 5")


def test_json_lines_are_objects() -> None:
    content = json.loads(LineFormatter(as_json=True, journal=False).format(record("two\nlines %d", 5)))
    assert content == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "warning",
        "logger": "router_agent.rib",
        "message": "two\nlines 5",
    }


def test_repeats_are_counted_and_reported_when_their_window_ends() -> None:
    stream = io.StringIO()
    handler = LimitedHandler(stream)
    for number in range(REPEATS + 3):
        handler.emit(record("routes: %d", number, at=number / 100))
    handler.emit(record("other", at=1.0))
    assert stream.getvalue().splitlines() == [*(f"routes: {n}" for n in range(REPEATS)), "other"]
    handler.emit(record("routes: %d", 99, at=WINDOW_SECONDS + 0.5))
    tail = stream.getvalue().splitlines()[REPEATS + 1 :]
    assert tail == [f"routes: {REPEATS + 2} (the last of 3 more like this)", "routes: 99"]


def test_counts_are_written_at_the_end_and_when_kinds_are_too_many() -> None:
    stream = io.StringIO()
    handler = LimitedHandler(stream)
    for _ in range(REPEATS + 1):
        handler.emit(record("first"))
    for number in range(KINDS):
        handler.emit(record(f"kind {number}"))
    assert stream.getvalue().count("first (the last of 1 more like this)") == 1
    for _ in range(REPEATS + 2):
        handler.emit(record("last"))
    handler.close()
    assert stream.getvalue().endswith("last (the last of 2 more like this)\n")


def test_same_text_at_another_level_is_another_kind() -> None:
    stream = io.StringIO()
    handler = LimitedHandler(stream)
    for level in (logging.INFO, logging.ERROR):
        for _ in range(REPEATS):
            handler.emit(record("x", level=level))
    assert stream.getvalue().count("x\n") == 2 * REPEATS


def test_set_up_applies_level_and_replaces_itself(root: logging.Logger) -> None:
    first, second = io.StringIO(), io.StringIO()
    set_up(LogConfig(level="error"), first)
    set_up(LogConfig(level="warning", json=True), second)
    logging.getLogger("router_agent.x").warning("seen")
    logging.getLogger("router_agent.x").info("unseen")
    assert first.getvalue() == ""
    assert json.loads(second.getvalue())["message"] == "seen"


def test_journal_is_known_by_its_inode(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w") as stream:
        found = os.fstat(stream.fileno())
        ours = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert to_journal(stream, ours)
        assert not to_journal(stream, {"JOURNAL_STREAM": "1:2"})
        assert not to_journal(stream, {})
    assert not to_journal(io.StringIO(), ours)
