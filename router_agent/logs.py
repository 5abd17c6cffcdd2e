"""Log lines on standard error, as the journal likes them, and never a flood.

Under systemd each line starts with its priority (``<3>``, sd-daemon(3)), which the journal takes off again;
at a terminal it starts with the time. A line that repeats is written a few times, then counted.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from router_agent.config import LogConfig

REPEATS = 5
"""Lines of one kind that are written in one window."""
WINDOW_SECONDS = 10.0
KINDS = 1024
"""Kinds of lines that are told apart; the oldest is forgotten first."""


def set_up(config: LogConfig, stream: TextIO | None = None) -> None:
    """Send what is logged to a stream (standard error), as configured; replaces what was set up before."""
    stream = stream or sys.stderr
    handler = LimitedHandler(stream)
    handler.setFormatter(LineFormatter(as_json=config.as_json, journal=to_journal(stream)))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    logging.captureWarnings(capture=True)


def to_journal(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a stream is the journal's (``JOURNAL_STREAM`` holds its device and inode)."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


class LineFormatter(logging.Formatter):
    """Text or JSON, with the journal's priority or the time in front.

    Args:
        as_json: one object a line: ``time`` (RFC 3339), ``level``, ``logger``, ``message`` and, after an
            exception, ``traceback``.
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
        content = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            content["traceback"] = self.formatException(record.exc_info)
        return json.dumps(content)


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


@dataclass(slots=True)
class _Repeated:
    since: float
    seen: int
    last: logging.LogRecord


class LimitedHandler(logging.StreamHandler[TextIO]):
    """Writes at most `REPEATS` lines of one kind in `WINDOW_SECONDS`, then says how many it left out.

    Lines are of one kind when logger, level and message before its arguments are put in are the same.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._kinds: OrderedDict[tuple[str, int, str], _Repeated] = OrderedDict()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, count it, or write the counts that are due first."""
        self._forget(record.created - WINDOW_SECONDS)
        kind = (record.name, record.levelno, str(record.msg))
        repeated = self._kinds.get(kind)
        if repeated is None:
            self._kinds[kind] = _Repeated(record.created, 1, record)
            while len(self._kinds) > KINDS:
                self._report(self._kinds.popitem(last=False)[1])
        else:
            repeated.seen += 1
            repeated.last = record
            if repeated.seen > REPEATS:
                return
        super().emit(record)

    def close(self) -> None:
        """Write the counts that are left, then close."""
        self._forget(float("inf"))
        super().close()

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
        super().emit(last)
