#!/usr/bin/env python3
"""What ExaBGP runs as its API process: carries bytes between ExaBGP and the agent, and knows nothing of BGP.

    process router-agent {
        run /usr/bin/python3 -I -S /path/to/exabgp_relay.py /run/router-agent/exabgp.sock;
        encoder json;
    }

ExaBGP writes to this process with blocking writes from its only thread: while they block it sends no
keepalives and its sessions expire. So standard input is read as fast as it comes, whatever the agent does.

* The agent is there: what is read goes to its socket; what the socket does not take waits in a buffer. The
  unix socket carries commands of the agent the other way, to ExaBGP.
* The agent is away: what is read is thrown away. Nothing is lost by that, because an agent that connects
  first asks ExaBGP who is up, and then the peers for their whole tables (ROUTE-REFRESH, RFC 2918).
* The agent is too slow and the buffer is full: the connection is closed, the agent connects anew, and the
  line above holds. Half a stream is never carried on with.

A connection begins with one line of this process, {"relay": {"version": 1, "uptime": SECONDS}}, and goes on
at the beginning of a line of ExaBGP's. This process lives as long as ExaBGP, so its uptime tells the agent
how long peers that are not up have had to come up.

Only the standard library is used and nothing of this package, so that a plain interpreter starts it in
milliseconds as ExaBGP's unprivileged user.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import select
import signal
import socket
import sys
import time
from collections import deque

VERSION = 1
READ_BYTES = 1 << 20
PIPE_BYTES = 1 << 20
"""Size asked for the pipe from ExaBGP; the most an unprivileged process may ask for by default."""
COMMAND_BYTES = 1 << 20
"""Commands of the agent that ExaBGP has not taken yet; more is an agent out of its mind."""
RETRY_SECONDS = 0.5
DRAIN_SECONDS = 1.0
"""How long to go on after ExaBGP told us to end: it kills what is left after 2 s."""


class _GoneError(Exception):
    """ExaBGP has gone or wants this process to end."""


class _Outgoing:
    """Bytes that wait for a file descriptor to take them."""

    def __init__(self) -> None:
        self._chunks: deque[memoryview] = deque()
        self.size = 0

    def add(self, data: bytes | memoryview) -> None:
        if data:
            self._chunks.append(memoryview(data))
            self.size += len(data)

    def clear(self) -> None:
        self._chunks.clear()
        self.size = 0

    def write_to(self, descriptor: int) -> None:
        """Write until the descriptor takes no more.

        Raises:
            OSError: the other end has gone.
        """
        while self._chunks:
            chunk = self._chunks[0]
            try:
                written = os.write(descriptor, chunk)
            except BlockingIOError:
                return
            self.size -= written
            if written == len(chunk):
                self._chunks.popleft()
            else:
                self._chunks[0] = chunk[written:]


class Relay:
    """Standard input and output on one side, the agent's socket on the other.

    Args:
        path: unix socket the agent listens on.
        limit: bytes that may wait for the agent before the connection is given up.
    """

    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._started = time.monotonic()
        self._agent: socket.socket | None = None
        self._to_agent = _Outgoing()
        self._to_exabgp = _Outgoing()
        self._retry_at = 0.0
        self._midline = False
        """The last byte read was not the end of a line."""
        self._skipping = False
        """Throw away what is left of a line whose beginning the agent did not get."""
        self._complained = ""
        self._signals, writer = os.pipe()
        for descriptor in (self._signals, writer):
            os.set_blocking(descriptor, False)
        # A handler that raised could do so between a write and taking note of it.
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self) -> None:
        """Carry until ExaBGP ends."""
        for descriptor in (0, 1):
            os.set_blocking(descriptor, False)
        with contextlib.suppress(OSError):
            fcntl.fcntl(0, getattr(fcntl, "F_SETPIPE_SZ", 1031), PIPE_BYTES)
        try:
            while True:
                self._turn()
        except _GoneError:
            self._drain()

    def _turn(self) -> None:
        if self._agent is None:
            self._connect()
        poller = select.poll()
        poller.register(0, select.POLLIN)
        poller.register(self._signals, select.POLLIN)
        if self._to_exabgp.size:
            poller.register(1, select.POLLOUT)
        if self._agent is not None:
            poller.register(self._agent, select.POLLIN | (select.POLLOUT if self._to_agent.size else 0))
        timeout = None if self._agent is not None else 1000 * max(0.0, self._retry_at - time.monotonic())
        for descriptor, events in poller.poll(timeout):
            if descriptor == 0:
                self._read_exabgp()
            elif descriptor == 1:
                self._write_exabgp()
            elif descriptor == self._signals:
                raise _GoneError
            elif self._agent is not None and descriptor == self._agent.fileno():
                self._serve_agent(events)

    def _connect(self) -> None:
        now = time.monotonic()
        if now < self._retry_at:
            return
        self._retry_at = now + RETRY_SECONDS
        agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        agent.setblocking(False)
        try:
            agent.connect(self._path)
        except OSError as error:
            agent.close()
            self._say(f"no agent at {self._path}: {error.strerror}; what ExaBGP says is passed over")
            return
        self._agent = agent
        self._skipping = self._midline
        uptime = now - self._started
        self._to_agent.add(b'{"relay": {"version": %d, "uptime": %.3f}}\n' % (VERSION, uptime))
        self._say(f"connected to the agent at {self._path}")

    def _disconnect(self, reason: str) -> None:
        if self._agent is None:
            return
        self._agent.close()
        self._agent = None
        self._to_agent.clear()
        self._retry_at = time.monotonic() + RETRY_SECONDS
        self._say(f"left the agent: {reason}")

    def _read_exabgp(self) -> bool:
        """Read once and pass it on; return whether there was anything.

        Raises:
            _GoneError: ExaBGP has closed the pipe.
        """
        try:
            data = os.read(0, READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            raise _GoneError
        self._midline = not data.endswith(b"\n")
        if self._agent is None:
            return True
        if self._skipping:
            end = data.find(b"\n") + 1
            if not end:
                return True
            self._skipping = False
            self._to_agent.add(memoryview(data)[end:])
        else:
            self._to_agent.add(data)
        self._write_agent()
        if self._to_agent.size > self._limit:
            self._disconnect(f"it left {self._to_agent.size} bytes unread, the most allowed is {self._limit}")
        return True

    def _write_agent(self) -> None:
        if self._agent is None:
            return
        try:
            self._to_agent.write_to(self._agent.fileno())
        except OSError as error:
            self._disconnect(f"{error.strerror}")

    def _write_exabgp(self) -> None:
        try:
            self._to_exabgp.write_to(1)
        except OSError as error:
            raise _GoneError from error

    def _serve_agent(self, events: int) -> None:
        if events & select.POLLOUT:
            self._write_agent()
        if self._agent is None or not events & ~select.POLLOUT:
            return
        try:
            commands = self._agent.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._disconnect(f"{error.strerror}")
            return
        if not commands:
            self._disconnect("it closed the connection")
            return
        self._to_exabgp.add(commands)
        self._write_exabgp()
        if self._to_exabgp.size > COMMAND_BYTES:
            self._disconnect(f"it sent {self._to_exabgp.size} bytes of commands that ExaBGP does not read")

    def _drain(self) -> None:
        """Bring to the agent what ExaBGP had still to say."""
        end = time.monotonic() + DRAIN_SECONDS
        if self._agent is None:
            return
        with contextlib.suppress(_GoneError):
            while self._read_exabgp() and time.monotonic() < end:
                pass
        while self._agent is not None and self._to_agent.size and time.monotonic() < end:
            poller = select.poll()
            poller.register(self._agent, select.POLLOUT)
            poller.poll(100)
            self._write_agent()

    def _say(self, text: str) -> None:
        """Tell it once: ExaBGP's log is where standard error goes."""
        if text == self._complained:
            return
        self._complained = text
        with contextlib.suppress(OSError):
            os.write(2, f"router-agent relay: {text}\n".encode(errors="replace"))


def main(arguments: list[str]) -> int:
    """Run the relay; return its exit code."""
    parser = argparse.ArgumentParser(description="Carries ExaBGP's JSON to router-agent.")
    parser.add_argument("socket", help="unix socket that the agent listens on")
    parser.add_argument(
        "--buffer", type=int, default=64, metavar="MIB", help="what may wait for the agent (default 64 MiB)"
    )
    options = parser.parse_args(arguments)
    Relay(options.socket, options.buffer << 20).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
