"""A host that ssh leads to, with paramiko.

    with SshReach(SshTarget("pop1")) as reach:
        reach.run(["uname", "-r"]).text

The host's key is always checked, and a connection that is dead is found out within `DEAD_S`: keepalives are
sent every few seconds, and what is not acknowledged in time ends the connection (TCP_USER_TIMEOUT, tcp(7)).
"""

from __future__ import annotations

import errno
import os
import secrets
import shlex
import stat
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import paramiko

from router_agent.traffic.reach.errors import LostError, ReachError
from router_agent.traffic.reach.reach import COMMAND_S, MOST_OUTPUT, Completed
from router_agent.traffic.reach.session import BY_SIGNAL, SEND_S, Session
from router_agent.traffic.reach.ssh_connection import connect
from router_agent.traffic.reach.target import SshTarget, way_to

_OPEN_S = 30.0
_FILE_S = 60.0
_GRACE_S = 5
_LOOK_S, _LEAST_S = 1.0, 0.05
_NO_CODE = -1
_TIMED_OUT = (124, 137)
"""Exit codes of timeout(1) when it ended the command: by TERM, by KILL."""


class SshReach:
    """A host over ssh; see `reach.Reach`. The connection is made on entry.

    Args:
        target: which host.
    """

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self._transports: list[paramiko.Transport] = []

    @property
    def host(self) -> str:
        """The host as it was asked for."""
        return self._target.host

    def __enter__(self) -> Self:
        self.connect()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self) -> None:
        """Connect, unless it is connected.

        Raises:
            UnreachableError: there is no way, the host's key is not the known one, or it lets us not in.
        """
        if not self._transports:
            self._transports = connect(self.host, way_to(self._target))

    def close(self) -> None:
        """Close the connection and those it went through; commands see the end of their input."""
        while self._transports:
            self._transports.pop().close()

    @property
    def connected(self) -> bool:
        """Whether the connection is up, as far as is known."""
        return bool(self._transports) and self._transports[-1].is_active()

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = COMMAND_S,
        exit_codes: Sequence[int] = (0,),
    ) -> Completed:
        """Run a command to its end; see `reach.Reach`.

        It runs under timeout(1), so that it ends there too when the connection is gone.
        """
        limit = ["timeout", f"--kill-after={_GRACE_S}", f"{timeout_s:g}"]
        with self._start(argv, limit) as session:
            # what ends it is timeout(1); ours is for a host that is gone
            patience = timeout_s + 2 * _GRACE_S
            stdout = session.read_all(stdin, patience, MOST_OUTPUT)
            try:
                code = session.exit_code(patience)
            except TimeoutError:
                raise session.overdue(timeout_s) from None
            if code not in exit_codes:
                raise session.overdue(timeout_s) if code in _TIMED_OUT else session.failure(code)
            return Completed(tuple(argv), code, stdout, session.errors)

    def open(self, argv: Sequence[str]) -> Session:
        """Start a command and talk to it; see `reach.Reach`."""
        return self._start(argv, [])

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy a file there; see `reach.Reach`."""

        def copy(sftp: paramiko.SFTPClient) -> None:
            part = f"{remote}.{secrets.token_hex(4)}"
            try:
                sftp.put(str(local), part)
                sftp.chmod(part, stat.S_IMODE(mode))
                sftp.posix_rename(part, remote)
            except BaseException:
                with suppress(OSError, paramiko.SSHException):
                    sftp.remove(part)
                raise

        self._with_files(copy, f"cannot copy {local} to {remote} there")

    def get(self, remote: str, local: Path) -> None:
        """Copy a file from there; see `reach.Reach`."""
        part = local.with_name(f".{local.name}.{os.getpid()}")

        def copy(sftp: paramiko.SFTPClient) -> None:
            sftp.get(remote, str(part))
            part.replace(local)

        try:
            self._with_files(copy, f"cannot copy {remote} from there to {local}")
        finally:
            part.unlink(missing_ok=True)

    def _start(self, argv: Sequence[str], before: Sequence[str]) -> Session:
        transport = self._transport()
        words = shlex.join([*before, *argv])
        try:
            channel = transport.open_session(timeout=_OPEN_S)
            channel.settimeout(_OPEN_S)
            channel.exec_command(words)
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise LostError(
                self.host, f"the connection takes no command ({error or 'it ended'}): try again"
            ) from error
        return Session(self.host, argv, _Channel(channel, transport))

    def _with_files(self, copy: Callable[[paramiko.SFTPClient], None], problem: str) -> None:
        transport = self._transport()
        try:
            with transport.open_sftp_client() as sftp:
                channel: Any = sftp.get_channel()
                channel.settimeout(_FILE_S)
                copy(sftp)
        except TimeoutError as error:
            raise LostError(self.host, f"{problem}: no answer for {_FILE_S:.0f} s") from error
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise ReachError(self.host, f"{problem}: {error or 'the connection ended'}") from error

    def _transport(self) -> paramiko.Transport:
        if not self._transports:
            raise ReachError(self.host, "is not connected: use it in a `with` block")
        if not self.connected:
            raise LostError(self.host, "the connection is gone: the host, or the way to it, is down")
        return self._transports[-1]


class _Channel:
    """A command's streams in an ssh channel; see `session.Wire`.

    A channel has one time limit for everything. The one that receives sets it; the others go on waiting.
    """

    def __init__(self, channel: paramiko.Channel, transport: paramiko.Transport) -> None:
        self._channel = channel
        self._transport = transport
        channel.settimeout(_LOOK_S)

    def send(self, data: bytes) -> None:
        view = memoryview(data)
        deadline = time.monotonic() + SEND_S
        while view:
            try:
                view = view[self._channel.send(view) :]
                deadline = time.monotonic() + SEND_S
            except TimeoutError:
                if time.monotonic() > deadline:
                    raise

    def end_input(self) -> None:
        self._channel.shutdown_write()

    def receive(self, most: int, timeout_s: float | None) -> bytes:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
            self._channel.settimeout(max(left, _LEAST_S))
            try:
                data: bytes = self._channel.recv(most)
            except TimeoutError:
                if deadline is None or time.monotonic() < deadline:
                    continue
                raise
            if not data and not self._transport.is_active() and self._channel.exit_status == _NO_CODE:
                raise ConnectionResetError(errno.ECONNRESET, "the host, or the way to it, is gone")
            return data

    def receive_error(self, most: int) -> bytes:
        while True:
            try:
                data: bytes = self._channel.recv_stderr(most)
            except TimeoutError:
                continue
            return data

    def exit_code(self, timeout_s: float) -> int | None:
        if not self._channel.status_event.wait(timeout_s):
            raise TimeoutError
        code: int = self._channel.exit_status
        if code != _NO_CODE:
            return code
        # no code: a signal ended it, or nobody is left to tell
        return BY_SIGNAL if self._transport.is_active() else None

    def close(self) -> None:
        with suppress(paramiko.SSHException, OSError, EOFError):
            self._channel.close()
