"""Log lines: what the journal and people see, and how repeats are counted."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.config import LogConfig
from router_agent.events import PIPELINE, Event, Field, about
from router_agent.logs import (
    KINDS,
    REPEATS,
    WINDOW_SECONDS,
    JournalHandler,
    LimitedHandler,
    LineFormatter,
    entry,
    set_up,
    to_journal,
)


def record(
    message: str = "routes: %d",
    *args: object,
    level: int = logging.WARNING,
    extra: Mapping[str, object] | None = None,
) -> logging.LogRecord:
    made = logging.LogRecord("router_agent.rib", level, __file__, 1, message, args, None)
    made.created = made.msecs = 0.0
    made.__dict__.update(extra or {})
    return made


@dataclass
class Clock:
    """Seconds, as a test wants them."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def limited(stream: io.StringIO, clock: Clock) -> LimitedHandler:
    return LimitedHandler(logging.StreamHandler(stream), clock=clock)


def fields_of_entry(datagram: bytes) -> dict[str, str]:
    """Read a datagram as journald does: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""
    found: dict[str, str] = {}
    while datagram:
        line, _, rest = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, end, datagram = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
            assert end == b"\n"
        else:
            datagram = rest
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found


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


def test_an_event_and_its_fields_are_in_the_object() -> None:
    extra = about(Event.ROUTES_REFUSED, pipeline="frr", routes=3, errors={"-12": 3})
    content = json.loads(LineFormatter(as_json=True, journal=False).format(record("refused", extra=extra)))
    assert {name: content[name] for name in ("event", "pipeline", "routes", "errors", "message")} == {
        "event": "routes-refused",
        "pipeline": "frr",
        "routes": 3,
        "errors": {"-12": 3},
        "message": "refused",
    }


def test_a_line_of_a_pipeline_begins_with_its_name() -> None:
    formatter = LineFormatter(as_json=False, journal=True)
    token = PIPELINE.set("frr")
    try:
        ours, other = about(Event.OVERRUN, overruns=1), about(Event.IN_SYNC, pipeline="second")
    finally:
        PIPELINE.reset(token)
    assert formatter.format(record("lost", extra=ours)) == "<4>frr: lost"
    assert formatter.format(record("lost", extra=other)) == "<4>second: lost"
    assert formatter.format(record("lost", extra=about(Event.OVERRUN, overruns=1))) == "<4>lost"


def test_repeats_are_counted_and_reported_when_their_window_ends() -> None:
    stream, clock = io.StringIO(), Clock()
    handler = limited(stream, clock)
    for number in range(REPEATS + 3):
        clock.now = number / 100
        handler.emit(record("routes: %d", number))
    clock.now = 1.0
    handler.emit(record("other"))
    assert stream.getvalue().splitlines() == [*(f"routes: {n}" for n in range(REPEATS)), "other"]
    clock.now = WINDOW_SECONDS + 0.5
    handler.emit(record("routes: %d", 99))
    tail = stream.getvalue().splitlines()[REPEATS + 1 :]
    assert tail == [f"routes: {REPEATS + 2} (the last of 3 more like this)", "routes: 99"]
    handler.close()


def test_a_count_is_written_though_nothing_else_is_ever_logged() -> None:
    stream = io.StringIO()
    handler = LimitedHandler(logging.StreamHandler(stream), window_seconds=0.05)
    for _ in range(REPEATS + 4):
        handler.handle(record("flood"))
    deadline = time.monotonic() + 30
    while "more like this" not in stream.getvalue() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert stream.getvalue().splitlines()[-1] == "flood (the last of 4 more like this)"
    handler.close()
    assert stream.getvalue().count("more like this") == 1


def test_counts_are_written_at_the_end_and_when_kinds_are_too_many() -> None:
    stream, clock = io.StringIO(), Clock()
    handler = limited(stream, clock)
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
    handler = limited(stream, Clock())
    for level in (logging.INFO, logging.ERROR):
        for _ in range(REPEATS):
            handler.emit(record("x", level=level))
    assert stream.getvalue().count("x\n") == 2 * REPEATS


FLOOD = """
import logging, signal, sys, time
from router_agent import logs
from router_agent.config import LogConfig
from router_agent.events import Event, about
logs.set_up(LogConfig(json=True))
for number in range(9):
    logging.getLogger("x").warning("flood %d", number, extra=about(Event.OVERRUN, overruns=number))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("ready", flush=True)
if sys.argv[1] == "wait":
    time.sleep(60)
"""


@pytest.mark.parametrize("how", ["end", "wait"])
def test_what_was_held_back_is_told_when_the_process_ends(how: str) -> None:
    command = [sys.executable, "-c", FLOOD, how]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    if how == "wait":
        process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    assert len(lines) == REPEATS + 1
    assert (lines[-1]["left_out"], lines[-1]["overruns"], lines[-1]["event"]) == (4, 8, "overrun")


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


# -- the journal's own protocol --------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "journal"))
        yield listener


def test_an_entry_has_the_fields_of_its_event(journal: socket.socket) -> None:
    handler = JournalHandler(Path(journal.getsockname()))
    extra = about(Event.FIB_LOST, pipeline="frr", problem="VPP closed the socket", nothing=None, seconds=1.5)
    handler.emit(record("the FIB is %s", "lost", level=logging.ERROR, extra=extra))
    handler.close()
    found = fields_of_entry(journal.recv(1 << 16))
    assert found["MESSAGE"] == "frr: the FIB is lost"
    assert found["PRIORITY"] == "3"
    assert found["SYSLOG_IDENTIFIER"] == "router-agent"
    assert found["ROUTER_AGENT_EVENT"] == "fib-lost"
    assert found["ROUTER_AGENT_PROBLEM"] == "VPP closed the socket"
    assert found["ROUTER_AGENT_SECONDS"] == "1.5"
    assert "ROUTER_AGENT_NOTHING" not in found
    assert found["CODE_LINE"] == "1"


def test_a_traceback_is_one_entry(journal: socket.socket) -> None:
    failed = record("failed", level=logging.CRITICAL)
    try:
        int("why")
    except ValueError:
        failed.exc_info = sys.exc_info()
    handler = JournalHandler(Path(journal.getsockname()))
    handler.emit(failed)
    handler.close()
    message = fields_of_entry(journal.recv(1 << 16))["MESSAGE"]
    assert message.startswith("failed\nTraceback (most recent call last):\n")
    assert message.endswith("'why'")


TEXT = st.text(st.characters(codec="utf-8"), max_size=200)


@given(
    message=TEXT,
    problem=TEXT,
    name=st.from_regex(r"[a-z][a-z_]{0,20}", fullmatch=True).filter("pipeline".__ne__),
)
def test_any_text_comes_through_an_entry(message: str, problem: str, name: str) -> None:
    fields: dict[str, Field] = {name: problem}
    found = fields_of_entry(entry(record("%s", message, extra=about(Event.DRIFT, **fields))))
    assert found["MESSAGE"] == message
    assert found[f"ROUTER_AGENT_{name.upper()}"] == problem


def test_an_entry_fits_into_a_datagram(journal: socket.socket) -> None:
    handler = JournalHandler(Path(journal.getsockname()))
    handler.emit(
        record("%s", "x" * 10_000_000, extra=about(Event.DRIFT, found={"lost": 1}, prefix="y" * 10_000_000))
    )
    handler.close()
    assert len(fields_of_entry(journal.recv(1 << 20))["MESSAGE"]) < 1 << 17


def test_a_journal_that_stands_still_is_not_waited_for(journal: socket.socket) -> None:
    handler = JournalHandler(Path(journal.getsockname()))
    sent = 0
    while not handler.lost:
        handler.emit(record("line %d", sent))
        sent += 1
    for _ in range(4):
        handler.emit(record("line"))
    taken = [fields_of_entry(journal.recv(1 << 16)) for _ in range(sent - 1)]
    assert all(found["MESSAGE"].startswith("line ") for found in taken)
    handler.emit(record("after"))
    counted, after = (fields_of_entry(journal.recv(1 << 16)) for _ in range(2))
    assert (counted["ROUTER_AGENT_EVENT"], counted["ROUTER_AGENT_LINES"]) == ("lines-lost", "5")
    assert after["MESSAGE"] == "after"
    handler.close()


def test_a_journal_that_was_restarted_is_as_good(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as first:
        first.bind(str(path))
        handler = JournalHandler(path)
    path.unlink()
    handler.emit(record("meanwhile"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as second:
        second.bind(str(path))
        handler.emit(record("again"))
        found = [fields_of_entry(second.recv(1 << 16)) for _ in range(2)]
    handler.close()
    assert [one["MESSAGE"] for one in found] == [
        "the journal did not take 1 lines: it stood still, or was away",
        "again",
    ]


def test_the_journal_is_talked_to_where_standard_error_leads_there(
    root: logging.Logger, journal: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = Path(journal.getsockname())
    with (tmp_path / "stderr").open("w+") as stream:
        found = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        set_up(LogConfig(), stream, journal=address)
        logging.getLogger("x").warning("by the socket")
        assert fields_of_entry(journal.recv(1 << 16))["MESSAGE"] == "by the socket"
        for config, socket_path in ((LogConfig(json=True), address), (LogConfig(), tmp_path / "none")):
            set_up(config, stream, journal=socket_path)
            logging.getLogger("x").warning("on the stream")
        stream.seek(0)
        first, second = stream.read().splitlines()
    assert json.loads(first.removeprefix("<4>"))["message"] == "on the stream"
    assert second == "<4>on the stream"
