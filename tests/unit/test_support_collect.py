"""One collector at a time: in time, in size, and whatever goes wrong is said."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from router_agent.support.collect import Collector, take


def shell(script: str, **limits: object) -> Collector:
    return Collector("x", ("sh", "-c", script), **limits)  # type: ignore[arg-type]


def test_output_and_exit_code_are_kept() -> None:
    taken = take(shell("echo one; echo two >&2; exit 3"))
    assert (taken.content, taken.exit_code, taken.truncated) == (b"one\n", 3, False)
    assert taken.problem is None
    assert taken.seconds > 0


def test_a_command_that_only_complains_is_a_problem() -> None:
    taken = take(shell("echo 'no   such\nthing' >&2; exit 1"))
    assert (taken.content, taken.problem) == (b"", "no such thing")
    assert take(shell("exit 4")).problem == "ended with 4"


def test_a_program_or_file_that_is_not_there_is_said() -> None:
    assert (
        take(Collector("x", ("no-such-program-anywhere",))).problem
        == "there is no program no-such-program-anywhere here"
    )
    assert take(Collector("x", file=Path("/no/such/file"))).problem == "there is no such file here"


def test_one_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    taken = take(shell(f"trap '' TERM; sleep 600 & echo $! > {pid}; echo begun; wait; wait", seconds=0.5))
    assert taken.timed_out
    assert (taken.content, taken.exit_code) == (b"begun\n", None)
    assert taken.problem == "did not end within 0.5 s"
    gone = Path(f"/proc/{pid.read_text().strip()}")
    deadline = time.monotonic() + 30
    while gone.exists() and "Z (zombie)" not in _status(gone) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not gone.exists() or "Z (zombie)" in _status(gone)


def _status(process: Path) -> str:
    try:
        return (process / "status").read_text()
    except OSError:
        return "Z (zombie)"


def test_a_descendant_that_keeps_the_pipe_open_does_not_hold_us() -> None:
    taken = take(shell("sleep 600 & echo done", seconds=0.5))
    assert taken.content == b"done\n"
    assert taken.timed_out


@pytest.mark.parametrize(("keep_end", "kept"), [(False, b"0123456789"), (True, b"56789abcde")])
def test_only_so_much_is_kept(keep_end: bool, kept: bytes, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789abcde")
    for collector in (
        shell("printf 0123456789abcde", most=10, keep_end=keep_end),
        Collector("x", file=file, most=10, keep_end=keep_end),
    ):
        taken = take(collector)
        assert (taken.content, taken.truncated) == (kept, True)


def test_one_that_never_stops_talking_is_cut_off() -> None:
    taken = take(Collector("x", ("yes",), most=1 << 20, seconds=60))
    assert (len(taken.content), taken.truncated, taken.timed_out) == (1 << 20, True, False)
    endless = take(Collector("x", ("yes",), most=1 << 10, seconds=0.3, keep_end=True))
    assert (len(endless.content), endless.truncated, endless.timed_out) == (1 << 10, True, True)


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert take(Collector("x", file=pipe)).content == b""


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    assert take(Collector("x", file=tmp_path)).problem == "Is a directory"
