"""The relay as a process of its own: what it carries, what it throws away, and when it ends."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from router_agent.feeds import exabgp_relay

SECONDS = 10.0
MIB = 1 << 20


class Agent:
    """The agent's end of the socket."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.listener.settimeout(SECONDS)

    def accept(self) -> Stream:
        connection, _ = self.listener.accept()
        connection.settimeout(SECONDS)
        return Stream(connection)


class Stream:
    """One connection of the relay; begins with its own line."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.file = connection.makefile("rb")
        self.hello = json.loads(self.file.readline())["relay"]

    def line(self) -> bytes:
        return self.file.readline()

    def close(self) -> None:
        self.file.close()
        self.connection.close()


class Running:
    """A relay with pipes where ExaBGP's would be."""

    def __init__(self, path: Path, *options: str) -> None:
        # As ExaBGP runs it: a plain isolated interpreter.
        command = [sys.executable, "-I", "-S", exabgp_relay.__file__, str(path), *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    @property
    def stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    def write(self, data: bytes) -> None:
        """Write as ExaBGP does: it blocks when the relay does not read, which here must not last."""
        view = memoryview(data)
        while view:
            assert select.select([], [self.stdin], [], SECONDS)[1], "the relay stopped reading"
            view = view[os.write(self.stdin.fileno(), view[:4096]) :]

    def said(self, text: str) -> None:
        """Wait until it says something on standard error."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if text in line.decode():
                return
        pytest.fail(f"the relay ended without saying {text!r}")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.sock"


@contextlib.contextmanager
def running(path: Path, *options: str) -> Iterator[Running]:
    relay = Running(path, *options)
    try:
        yield relay
    finally:
        relay.end()


def test_carries_lines_and_commands(path: Path) -> None:
    agent = Agent(path)
    with running(path) as relay:
        stream = agent.accept()
        assert stream.hello["version"] == exabgp_relay.VERSION
        assert 0 <= stream.hello["uptime"] < SECONDS
        relay.write(b'{"type": 1}\n{"ty')
        assert stream.line() == b'{"type": 1}\n'
        relay.write(b'pe": 2}\n')
        assert stream.line() == b'{"type": 2}\n'
        stream.connection.sendall(b"show neighbor json\n")
        assert relay.process.stdout is not None
        assert relay.process.stdout.readline() == b"show neighbor json\n"


def test_reads_on_while_the_agent_is_away_and_begins_with_a_whole_line(path: Path) -> None:
    with running(path) as relay:
        relay.said("no agent at")
        relay.write(b"lost\n" * MIB)
        relay.write(b"half a li")
        agent = Agent(path)
        stream = agent.accept()
        relay.write(b"ne, then\nwhole\n")
        assert stream.line() == b"whole\n"


def test_connects_again(path: Path) -> None:
    agent = Agent(path)
    with running(path) as relay:
        stream = agent.accept()
        relay.write(b"one\n")
        assert stream.line() == b"one\n"
        stream.close()
        stream = agent.accept()
        relay.write(b"two\n")
        assert stream.line() == b"two\n"


def test_leaves_an_agent_that_does_not_read(path: Path) -> None:
    agent = Agent(path)
    with running(path, "--buffer", "1") as relay:
        stream = agent.accept()
        relay.write(b"x" * 99 + b"\n")
        relay.write((b"y" * 99 + b"\n") * (8 * MIB // 100))
        relay.said("bytes unread")
        again = agent.accept()
        relay.write(b"\nz\n")
        assert stream.line() == b"x" * 99 + b"\n"
        got = stream.file.read()
        assert len(got) < 4 * MIB
        lines = iter(again.line, b"z\n")
        assert all(line in (b"y" * 99 + b"\n", b"\n") for line in lines)


def test_holds_what_a_slow_agent_will_read(path: Path) -> None:
    agent = Agent(path)
    with running(path, "--buffer", "16") as relay:
        stream = agent.accept()
        data = b"".join(b"%099d\n" % number for number in range(8 * MIB // 100))
        relay.write(data)
        assert stream.file.read(len(data)) == data


def test_leaves_an_agent_that_floods_it_with_commands(path: Path) -> None:
    agent = Agent(path)
    with running(path) as relay:
        stream = agent.accept()
        with contextlib.suppress(OSError):
            stream.connection.sendall(b"command\n" * MIB)
        relay.said("bytes of commands")
        relay.write(b"still read\n")
        assert relay.process.poll() is None


@pytest.mark.parametrize("how", ["end of file", "SIGTERM"])
def test_brings_the_last_words_and_ends(path: Path, how: str) -> None:
    agent = Agent(path)
    with running(path) as relay:
        stream = agent.accept()
        data = b"last words\n" * 20_000
        relay.write(data)
        if how == "SIGTERM":
            assert stream.line() == b"last words\n"
            relay.process.send_signal(signal.SIGTERM)
        else:
            relay.stdin.close()
            relay.process.stdin = None
            assert stream.line() == b"last words\n"
        assert len(stream.file.read()) == len(data) - len(b"last words\n")
        assert relay.process.wait(SECONDS) == 0


def test_ends_without_an_agent(path: Path) -> None:
    with running(path) as relay:
        relay.said("no agent at")
        relay.stdin.close()
        relay.process.stdin = None
        assert relay.process.wait(SECONDS) == 0


def test_does_not_spin_while_it_waits(path: Path) -> None:
    with running(path) as relay:
        relay.said("no agent at")
        before = _cpu_seconds(relay.process.pid)
        time.sleep(1.2)  # the time itself is what is tested
        assert _cpu_seconds(relay.process.pid) - before < 0.5


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_needs_nothing_of_the_package() -> None:
    source = Path(exabgp_relay.__file__).read_text()
    assert "router_agent." not in source.replace("/run/router-agent", "")
    assert "import numpy" not in source
