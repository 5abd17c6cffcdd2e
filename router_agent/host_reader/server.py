"""Answers three questions about this host on a unix socket, and can be made to say or do nothing else.

FRR has no door for readers only: whoever may open its vty sockets (group frrvty) may configure it. So the
process that talks HTTP is not let near them, nor near the network. This one is, and what reaches it is one
line of JSON, of which two things are passed on, both written anew from numbers: a prefix and a table number.

Requests and answers have the form of the agent's control socket (`router_agent.control`). Commands:

    sessions     -                 one `Sessions`
    prefix       `PrefixRequest`   one `PrefixSteps`
    ports        -                 one `Ports`

One question is put to FRR at a time, sessions not more often than every `SESSIONS_SECONDS`: whatever is asked
here, bgpd has its time for BGP.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from router_agent.host_reader import ports, sessions
from router_agent.host_reader.answers import PrefixRequest, PrefixSteps, Sessions
from router_agent.listening import UnixListener
from router_agent.observe import control_plane
from router_agent.observe.answers import AnswerError, End, ErrorKind
from router_agent.systemd import Notifier

REQUEST_BYTES = 1 << 10
"""Longest request line."""
CLIENTS = 4
"""Most connections at one time; a further one is told so."""
CLIENT_SECONDS = 30.0
"""Longest life of a connection."""
SESSIONS_SECONDS = 2.0
"""An answer about sessions is given again for so long."""
PAUSE_SECONDS = 0.2
"""Between two questions to FRR."""

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    command: str
    arguments: dict[str, JsonValue] = {}


class HostReader:
    """Asks FRR and the kernel, one question at a time.

    Args:
        vtysh: the command that runs vtysh; empty where there is no FRR.
    """

    def __init__(self, vtysh: Sequence[str]) -> None:
        self._vtysh = tuple(vtysh)
        self._asking = asyncio.Lock()
        self._sessions: Sessions | None = None
        self._sessions_at = 0.0

    async def sessions(self) -> Sessions:
        """Return every session, as FRR said not longer than `SESSIONS_SECONDS` ago."""
        if not self._vtysh:
            return Sessions()
        async with self._asking:
            age = time.monotonic() - self._sessions_at
            if self._sessions is None or age > SESSIONS_SECONDS:
                self._sessions = await asyncio.to_thread(sessions.read, self._vtysh)
                self._sessions_at, age = time.monotonic(), 0.0
                await asyncio.sleep(PAUSE_SECONDS)
            return self._sessions.model_copy(update={"age_seconds": age})

    async def prefix(self, wanted: PrefixRequest) -> PrefixSteps:
        """Return what BGP, zebra and the kernel say of one prefix."""
        async with self._asking:
            found = await asyncio.to_thread(self._steps, wanted)
            await asyncio.sleep(PAUSE_SECONDS)
            return found

    def _steps(self, wanted: PrefixRequest) -> PrefixSteps:
        steps = control_plane.steps(wanted.prefix, vtysh=self._vtysh, table=wanted.table, namespace=None)
        return PrefixSteps(steps=tuple(steps))


async def run(listener: UnixListener, reader: HostReader) -> None:
    """Answer until SIGTERM or SIGINT.

    Raises:
        ListeningError: the socket cannot be had.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(listener, reader):
        notifier = Notifier()
        notifier.ready()
        await stop.wait()
        notifier.stopping()


@asynccontextmanager
async def serving(listener: UnixListener, reader: HostReader) -> AsyncIterator[None]:
    """Answer as long as the block lasts.

    Args:
        listener: makes the socket.
        reader: whom answers come from.

    Raises:
        ListeningError: the socket cannot be had.
    """
    clients: set[asyncio.Task[None]] = set()

    def connected(lines: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(clients) >= CLIENTS:
            writer.write(_error(ErrorKind.BUSY, f"{CLIENTS} clients are connected already; try again"))
            writer.close()
            return
        client = asyncio.create_task(_converse(reader, lines, writer))
        clients.add(client)
        client.add_done_callback(clients.discard)

    server = await asyncio.start_unix_server(connected, sock=listener.open(), limit=REQUEST_BYTES)
    try:
        yield
    finally:
        server.close()
        for client in list(clients):
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await server.wait_closed()
        listener.close()


async def _converse(reader: HostReader, lines: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one client until it leaves, has had its time, or sends what is no line."""
    try:
        with suppress(ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(CLIENT_SECONDS):
                while True:
                    writer.write(await _answered(reader, await lines.readuntil(b"\n")))
                    await writer.drain()
    except asyncio.LimitOverrunError:
        writer.write(_error(ErrorKind.BAD_REQUEST, f"found a request of more than {REQUEST_BYTES} bytes"))
    finally:
        writer.close()


async def _answered(reader: HostReader, line: bytes) -> bytes:
    try:
        row = await _row(reader, line)
    except _RefusedError as error:
        return _error(error.kind, str(error))
    except Exception:  # noqa: BLE001 - the client gets no traceback, the log does
        _log.exception("no answer to a request")
        return _error(ErrorKind.INTERNAL, "the reader failed to answer; see its log for the reason")
    return (
        b'{"row":' + row.model_dump_json().encode() + b"}\n" + End(rows=1).model_dump_json().encode() + b"\n"
    )


async def _row(reader: HostReader, line: bytes) -> BaseModel:
    try:
        request = _Request.model_validate(json.loads(line))
        match request.command:
            case "sessions" if not request.arguments:
                return await reader.sessions()
            case "ports" if not request.arguments:
                return ports.read()
            case "prefix":
                return await reader.prefix(PrefixRequest.model_validate(request.arguments))
    except (ValueError, RecursionError) as error:  # pydantic's ValidationError is one
        kind = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else "no JSON"
        raise _RefusedError(ErrorKind.BAD_REQUEST, f"found a request that cannot be read: {kind}") from error
    raise _RefusedError(
        ErrorKind.BAD_REQUEST, f"found command {request.command[:60]!r}, expected sessions, prefix or ports"
    )


def _error(kind: ErrorKind, message: str) -> bytes:
    error = AnswerError(kind=kind, message=message[:300])
    return b'{"error":' + error.model_dump_json().encode() + b"}\n"
