"""Takes one thing for the bundle, a file or what a program prints: in time, in size, and whatever happens."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

_READ_BYTES = 64 << 10
_COMPLAINT_BYTES = 2 << 10
_QUIET = {
    "LC_ALL": "C.UTF-8",
    "COLUMNS": "200",
    "PAGER": "cat",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
    "VTYSH_PAGER": "cat",
}
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Collector:
    """One member of the bundle, and where it comes from.

    Attributes:
        member: its path in the bundle.
        command: program and arguments; none for a file.
        file: what is read where there is no command.
        seconds: how long the command may take.
        most: bytes that are kept.
        keep_end: keep the last bytes instead of the first: of logs.
        configuration: it is one, so secrets are looked for in it.
        asks: whom it asks; when that one has not answered in time, it is not asked again.
        environment: further variables of the command.
    """

    member: str
    command: Sequence[str] = ()
    file: Path | None = None
    seconds: float = 15.0
    most: int = 2 << 20
    keep_end: bool = False
    configuration: bool = False
    asks: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """What is read or run, in words."""
        return " ".join(self.command) if self.command else str(self.file)


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of a collector.

    Attributes:
        collector: whose it is.
        content: at most `Collector.most` bytes.
        exit_code: of the command; None for a file, and for a command that did not end by itself.
        seconds: that it took.
        truncated: there was more.
        problem: why there is nothing, or not everything.
        timed_out: the command did not end in time.
    """

    collector: Collector
    content: bytes = b""
    exit_code: int | None = None
    seconds: float = 0.0
    truncated: bool = False
    problem: str | None = None
    timed_out: bool = False


def take(collector: Collector) -> Taken:
    """Carry out a collector. Whatever goes wrong is in the answer."""
    began = time.monotonic()
    try:
        taken = _run(collector) if collector.command else _read(collector)
    except FileNotFoundError:
        what = f"program {collector.command[0]}" if collector.command else "such file"
        taken = Taken(collector, problem=f"there is no {what} here")
    except OSError as error:
        taken = Taken(collector, problem=error.strerror or str(error))
    return replace(taken, seconds=time.monotonic() - began)


def _read(collector: Collector) -> Taken:
    assert collector.file is not None
    # Of a FIFO nobody would ever read the end.
    descriptor = os.open(collector.file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
        size = os.fstat(descriptor).st_size
        if collector.keep_end and size > collector.most:
            file.seek(size - collector.most)
            return Taken(collector, content=file.read(collector.most) or b"", truncated=True)
        content = file.read(collector.most + 1) or b""
    return Taken(collector, content=content[: collector.most], truncated=len(content) > collector.most)


def _run(collector: Collector) -> Taken:
    path = f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"
    environment = {**os.environ, **_QUIET, "PATH": path, **collector.environment}
    process = subprocess.Popen(
        collector.command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )
    with process:
        try:
            kept, complaint, in_time = _listen(process, collector)
        finally:
            if process.poll() is None:
                _end(process)
    ended = in_time and not kept.full
    problem = None
    if not in_time:
        problem = f"did not end within {collector.seconds:g} s"
    elif ended and process.returncode and not kept.content:
        problem = complaint or f"ended with {process.returncode}"
    elif complaint and not kept.content:
        problem = complaint
    return Taken(
        collector,
        content=kept.content,
        exit_code=process.returncode if ended else None,
        truncated=kept.truncated or not in_time,
        problem=problem,
        timed_out=not in_time,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Give the command and what it started a second to go, then no choice."""
    for number, seconds in ((signal.SIGTERM, 1.0), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(seconds)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
        return


class _Kept:
    """The first or the last bytes of a stream."""

    def __init__(self, most: int, *, end: bool) -> None:
        self._most, self._end = most, end
        self._content = bytearray()
        self.truncated = False

    @property
    def content(self) -> bytes:
        return bytes(self._content[-self._most :] if self._end else self._content[: self._most])

    @property
    def full(self) -> bool:
        """Whether nothing more is wanted."""
        return self.truncated and not self._end

    def add(self, data: bytes) -> None:
        self._content += data
        if len(self._content) > self._most:
            self.truncated = True
            if self._end and len(self._content) > 2 * self._most:
                del self._content[: -self._most]


def _listen(process: subprocess.Popen[bytes], collector: Collector) -> tuple[_Kept, str, bool]:
    """Read what a command prints until it ends, has printed enough, or has taken too long.

    Returns:
        What it printed, the end of what it complained, and whether it was in time.
    """
    assert process.stdout is not None
    assert process.stderr is not None
    kept = _Kept(collector.most, end=collector.keep_end)
    complaint = _Kept(_COMPLAINT_BYTES, end=True)
    deadline = time.monotonic() + collector.seconds
    streams: dict[IO[bytes], _Kept] = {process.stdout: kept, process.stderr: complaint}
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and not kept.full:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            for key, _ in selector.select(left):
                data = os.read(key.fd, _READ_BYTES)
                if data:
                    streams[key.fileobj].add(data)  # type: ignore[index]
                else:
                    selector.unregister(key.fileobj)
        in_time = not selector.get_map() or kept.full
    if in_time and not kept.full:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            in_time = False
    words = " ".join(complaint.content.decode(errors="replace").split())
    return kept, words, in_time
