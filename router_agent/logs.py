"""The log: lines on standard error, or entries of the journal with fields; never a flood, never a wait.

Where a line goes:

- Started by systemd, the agent talks to journald by its native protocol: ``journalctl
  ROUTER_AGENT_EVENT=fib-lost`` finds an event, and a traceback is one entry. journald's stream, which takes
  what is written to standard error, makes the writer wait when the journal stands still; a datagram that is
  not taken is counted instead (`JournalHandler`).
- With ``json``, one object a line on standard error, for whoever collects that; under systemd with the
  priority in front (``<3>``, sd-daemon(3)), which the journal takes off again.
- At a terminal, text that starts with the time.

A line that repeats is written a few times, then counted (`LimitedHandler`).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from router_agent.config import LogConfig
from router_agent.events import Event, Field, about

REPEATS = 5
"""Lines of one kind that are written in one window."""
WINDOW_SECONDS = 10.0
KINDS = 1024
"""Kinds of lines that are told apart; the oldest is forgotten first."""

_ECHOES = ("vpp_papi",)
"""Libraries whose errors the agent reports itself, with what they mean."""

JOURNAL = Path("/run/systemd/journal/socket")
IDENTIFIER = "router-agent"
_MOST_BYTES = 48 << 10
"""Of one text in a journal entry: well below what a datagram can hold (``net.core.wmem_max`` is 208 KiB)."""


def set_up(config: LogConfig, stream: TextIO | None = None, *, journal: Path = JOURNAL) -> None:
    """Send what is logged where it belongs, as configured; replaces what was set up before.

    Args:
        config: level and form.
        stream: for lines; standard error when None.
        journal: socket of the journal, used when the stream leads there anyway.
    """
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(LimitedHandler(_destination(config, stream or sys.stderr, journal)))
    root.setLevel(config.level.upper())
    for name in _ECHOES:
        logging.getLogger(name).setLevel(logging.NOTSET if config.level == "debug" else logging.CRITICAL)
    logging.captureWarnings(capture=True)


def _destination(config: LogConfig, stream: TextIO, journal: Path) -> logging.Handler:
    leads_there = to_journal(stream)
    if leads_there and not config.as_json:
        try:
            return JournalHandler(journal)
        except OSError:
            pass  # lines with a priority are taken in any case
    lines = logging.StreamHandler(stream)
    lines.setFormatter(LineFormatter(as_json=config.as_json, journal=leads_there))
    return lines


def to_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a stream is the journal's (``JOURNAL_STREAM`` holds its device and inode)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class SentenceFormatter(logging.Formatter):
    """The sentence behind the name of its pipeline, and a traceback below it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """See `logging.Formatter`; called by `format` for the first line."""
        pipeline = fields_of(record).get("pipeline")
        return f"{pipeline}: {record.getMessage()}" if pipeline else record.getMessage()


class LineFormatter(SentenceFormatter):
    """Text or JSON, with the journal's priority or the time in front.

    Args:
        as_json: one object a line: ``time`` (RFC 3339), ``level``, ``logger``, ``event`` and its fields where
            there is one, ``message`` and, after an exception, ``traceback``.
        journal: put the priority before each line.
    """

    def __init__(self, *, as_json: bool, journal: bool) -> None:
        super().__init__()
        self._as_json = as_json
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, or the lines of a traceback each with its prefix."""
        text = self._object(record) if self._as_json else self._text(record)
        if not self._journal:
            return text
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(prefix + line for line in text.splitlines())

    def _text(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if self._journal:
            return text
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        return f"{clock}.{int(record.msecs):03d} {record.levelname.lower()} {text}"

    def _object(self, record: logging.LogRecord) -> str:
        content: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        if (event := event_of(record)) is not None:
            content["event"] = event
        content |= fields_of(record)
        content["message"] = record.getMessage()
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content)


def event_of(record: logging.LogRecord) -> Event | None:
    """Return what a record is about; None for lines that name no event, such as those of libraries."""
    return getattr(record, "event", None)


def fields_of(record: logging.LogRecord) -> Mapping[str, Field]:
    """Return the fields of a record's event."""
    return getattr(record, "fields", {})


def _priority(level: int) -> int:
    """Return the syslog priority of a logging level."""
    for least, priority in (
        (logging.CRITICAL, 2),
        (logging.ERROR, 3),
        (logging.WARNING, 4),
        (logging.INFO, 6),
    ):
        if level >= least:
            return priority
    return 7


class JournalHandler(logging.Handler):
    """Sends records to journald with their fields (systemd's Native Journal Protocol).

    Nothing here waits. What the journal does not take at once is counted, and said when it takes more.

    Args:
        address: socket of the journal.

    Attributes:
        lost: entries that were not taken and that nobody was told of yet.

    Raises:
        OSError: no journal listens there.
    """

    def __init__(self, address: Path = JOURNAL) -> None:
        super().__init__()
        self._address = str(address)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(self._address)
        # Never connected: the next journal on the same path is as good as this one.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, after the count of those that were not taken before it."""
        try:
            if self.lost and self._send(_lines_lost(self.lost)):
                self.lost = 0
            if self.lost or not self._send(record):
                self.lost += 1
        except Exception:  # noqa: BLE001 - as every handler of logging: a bad record is no fault of its caller's
            self.handleError(record)

    def close(self) -> None:
        """Say what was not taken, if that is taken, and give the socket back."""
        if self.lost:
            self._send(_lines_lost(self.lost))
        self._socket.close()
        super().close()

    def _send(self, record: logging.LogRecord) -> bool:
        try:
            self._socket.sendto(entry(record), self._address)
        except OSError:
            return False
        return True


def _lines_lost(count: int) -> logging.LogRecord:
    """Return what is said of entries that the journal did not take."""
    words = "the journal did not take %d lines: it stood still, or was away"
    record = logging.LogRecord(__name__, logging.WARNING, __file__, 0, words, (count,), None)
    record.__dict__.update(about(Event.LINES_LOST, lines=count))
    return record


_SENTENCES = SentenceFormatter()


def entry(record: logging.LogRecord) -> bytes:
    """Return a record as a datagram of journald's: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/."""
    return b"".join(_field(name, text) for name, text in _journal_fields(record))


def _journal_fields(record: logging.LogRecord) -> Iterator[tuple[str, str]]:
    yield "MESSAGE", _SENTENCES.format(record)
    yield "PRIORITY", str(_priority(record.levelno))
    yield "SYSLOG_IDENTIFIER", IDENTIFIER
    yield "LOGGER", record.name
    yield "CODE_FILE", record.pathname
    yield "CODE_LINE", str(record.lineno)
    if (event := event_of(record)) is not None:
        yield "ROUTER_AGENT_EVENT", event
    for name, value in fields_of(record).items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"ROUTER_AGENT_{name.upper()}", text


def _field(name: str, text: str) -> bytes:
    value = text.encode(errors="replace")[:_MOST_BYTES]
    if b"\n" not in value:
        return name.encode() + b"=" + value + b"\n"
    return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"


@dataclass(slots=True)
class _Repeated:
    since: float
    seen: int
    last: logging.LogRecord


class LimitedHandler(logging.Handler):
    """Hands on at most `REPEATS` records of one kind in a window, then says how many it left out.

    Records are of one kind when logger, level and message before its arguments are put in are the same. The
    count is said when the window ends, whether anything else is logged or not, and at the end of the process.

    Args:
        to: takes the records.
        window_seconds: length of a window.
        clock: returns seconds that never run backwards.
    """

    def __init__(
        self,
        to: logging.Handler,
        *,
        window_seconds: float = WINDOW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._to = to
        self._window = window_seconds
        self._clock = clock
        self._kinds: OrderedDict[tuple[str, int, str], _Repeated] = OrderedDict()
        self._timer: threading.Timer | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a record on, or count it; the counts that are due come first."""
        now = self._clock()
        self._forget(now - self._window)
        kind = (record.name, record.levelno, str(record.msg))
        repeated = self._kinds.get(kind)
        if repeated is None:
            self._kinds[kind] = _Repeated(now, 1, record)
            while len(self._kinds) > KINDS:
                self._report(self._kinds.popitem(last=False)[1])
        else:
            repeated.seen += 1
            repeated.last = record
            if repeated.seen > REPEATS:
                self._report_later()
                return
        self._to.emit(record)

    def close(self) -> None:
        """Say the counts that are left, then close."""
        self.acquire()
        try:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self._forget(float("inf"))
        finally:
            self.release()
        self._to.close()
        super().close()

    def _report_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._window, self._report_due)
            self._timer.name = "log counts"
            self._timer.daemon = True
            self._timer.start()

    def _report_due(self) -> None:
        self.acquire()
        try:
            self._timer = None
            self._forget(self._clock() - self._window)
            if any(repeated.seen > REPEATS for repeated in self._kinds.values()):
                self._report_later()
        finally:
            self.release()

    def _forget(self, before: float) -> None:
        while self._kinds:
            kind, repeated = next(iter(self._kinds.items()))
            if repeated.since > before:
                return
            del self._kinds[kind]
            self._report(repeated)

    def _report(self, repeated: _Repeated) -> None:
        left_out = repeated.seen - REPEATS
        if left_out <= 0:
            return
        last = logging.makeLogRecord(repeated.last.__dict__)
        last.msg = f"{repeated.last.getMessage()} (the last of {left_out} more like this)"
        last.args = None
        last.__dict__["fields"] = {**fields_of(repeated.last), "left_out": left_out}
        self._to.emit(last)
