"""The control socket: how a running agent is asked, and asks nothing in return.

Protocol, over a unix stream socket: a request is one line of JSON,

    {"command": "routes", "arguments": {"prefix": "192.0.2.0/24"}}

and its answer is any number of lines ``{"row": {...}}`` followed by ``{"end": true, "rows": N}`` when it is
complete or by ``{"error": {"kind": "...", "message": "..."}}`` when it is not. Requests on one connection are
answered in order. Commands, their arguments and rows (shapes in `router_agent.observe.answers`):

    status       -                 one `Status`
    counters     -                 one `Counters`
    routes       `RouteFilter`     a `RouteRow` each
    neighbours   -                 a `NeighbourRow` each
    audit        `AuditRequest`    one `Audit`
    explain      `ExplainRequest`  one `Explanation`
    resync       `ResyncRequest`   one `Resync`

Where a second socket is configured, the agent answers readers on it, who may neither change anything nor cost
much: see `READERS_COMMANDS` and `READERS_PAUSE`.

Whatever a client sends or fails to read costs the agent a bounded amount of memory and time and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, ClassVar, Protocol, Self, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from router_agent.config import ControlConfig
from router_agent.events import Event, about
from router_agent.fibs.fib import FibError
from router_agent.listening import ListeningError, UnixListener
from router_agent.observe.answers import (
    AnswerError,
    Audit,
    AuditRequest,
    Counters,
    End,
    ErrorKind,
    ExplainRequest,
    Explanation,
    NeighbourRow,
    Resync,
    ResyncRequest,
    RouteFilter,
    RouteRow,
    Status,
)

REQUEST_BYTES = 16 << 10
"""Longest request line."""
CLIENTS = 32
"""Most connections at one time."""
IDLE_SECONDS = 60.0
"""A connection that asks nothing for this long is closed."""
WRITE_SECONDS = 30.0
"""A client that reads nothing of its answer for this long is cut off."""
ANSWER_SECONDS = 60.0
"""Longest wait for (the next rows of) an answer, besides what a resync was told to wait."""
AUDIT_SECONDS = 600.0
"""Longest wait for an audit that was asked for: two million routes take 40 s, and longer beside work."""
CHUNK_BYTES = 64 << 10
"""Rows are written this much at a time; the event loop runs in between."""
READERS = 8
"""Most connections of readers at one time."""
READERS_MODE = 0o660
READERS_COMMANDS = frozenset({"status", "counters", "neighbours", "explain"})
"""What readers may ask whatever the arguments; for others see `_refuse_readers`."""
READERS_ROWS = 1_000
"""Most routes that a reader may ask for."""
READERS_PAUSE = 4.0
"""One reader is answered at a time, and then none for so many times as long as that took: whatever readers
ask, most of the agent's time is left to routes."""
READERS_LONGEST_PAUSE = 1.0

_log = logging.getLogger(__name__)


class ControlError(Exception):
    """The control socket cannot be opened, reached or understood; the message says what to do."""


class RefusedError(Exception):
    """A request that cannot be answered; handlers raise it, clients see it.

    Attributes:
        kind: why.
    """

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Handlers(Protocol):
    """What the agent can be asked. Any of these may raise `RefusedError` or `FibError`."""

    def status(self) -> Status:
        """Return counts and states; must be quick."""

    async def counters(self) -> Counters:
        """Return what the forwarding planes have counted."""

    def routes(self, wanted: RouteFilter) -> AsyncIterator[RouteRow]:
        """Yield the routes that are asked for."""

    def neighbours(self) -> Sequence[NeighbourRow]:
        """Return every neighbour."""

    async def audit(self, wanted: AuditRequest) -> Audit:
        """Tell how the audits go, or audit every FIB now."""

    async def explain(self, wanted: ExplainRequest) -> Explanation:
        """Follow one prefix from its feed to the FIB."""

    async def resync(self, wanted: ResyncRequest) -> Resync:
        """Read every feed again, and wait for the outcome if asked to."""


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")

    command: str
    arguments: dict[str, JsonValue] = {}


class _NoArguments(BaseModel):
    model_config = ConfigDict(extra="forbid")


_Rows: TypeAlias = AsyncGenerator[BaseModel, None]
A = TypeVar("A", bound=BaseModel)


class ControlServer:
    """Listens on the control socket and on the readers', and answers from the agent's handlers.

    Use as an asynchronous context manager, or call `start` and `close`.

    Args:
        config: where to listen, and who may connect.
        handlers: where answers come from.
    """

    def __init__(self, *, config: ControlConfig, handlers: Handlers) -> None:
        self._handlers = handlers
        self._auditing = asyncio.Lock()
        listener = UnixListener(
            config.socket, mode=config.mode_bits, group=config.group, key="control.socket"
        )
        self._doors = [_Door(listener, CLIENTS)]
        if config.readers_socket is not None:
            readers = UnixListener(
                config.readers_socket,
                mode=READERS_MODE,
                group=config.readers_group,
                key="control.readers_socket",
            )
            self._doors.append(_Door(readers, READERS, turns=_Turns()))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen.

        Raises:
            ControlError: another agent listens there, or a socket cannot be made.
        """
        try:
            for door in self._doors:
                await door.open(self._converse)
        except ListeningError as error:
            await self.close()
            raise ControlError(str(error)) from error

    async def close(self) -> None:
        """Stop listening, cut off clients, remove the sockets. Does nothing when not listening."""
        for door in self._doors:
            await door.close()

    async def _converse(
        self, door: _Door, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the requests of one client until it leaves, goes silent or stops reading."""
        writer.transport.set_write_buffer_limits(high=4 * CHUNK_BYTES)
        try:
            while (line := await _read_request(reader, writer)) is not None:
                if line.strip():
                    await self._answer(line, writer, door.turns)
        except _ClientLostError:
            writer.transport.abort()  # closing would wait for the client to read what is buffered
        finally:
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter, turns: _Turns | None) -> None:
        try:
            name, arguments = _parse(line)
            if turns is not None:
                _refuse_readers(name, arguments)
            async with aclosing(self.commands[name][1](self, arguments)) as rows:
                counted, patience = _Counted(rows, turns), _patience(arguments)
                while chunk := await _within(patience, counted.chunk()):
                    await _send(writer, chunk)
            await _send(writer, End(rows=counted.count).model_dump_json().encode() + b"\n")
        except _ClientLostError:
            raise
        except RefusedError as error:
            await _send(writer, _error_line(error.kind, str(error)))
        except FibError as error:
            await _send(writer, _error_line(ErrorKind.UNAVAILABLE, str(error)))
        except Exception:  # noqa: BLE001 - a fault while answering must not reach the routing side
            _log.exception(
                "no answer to control request %.200r; routing goes on. Report this",
                line,
                extra=about(Event.CONTROL_FAULT),
            )
            message = "the agent failed to answer; see its log for the reason, and report it"
            await _send(writer, _error_line(ErrorKind.INTERNAL, message))

    async def _status(self, _: BaseModel) -> _Rows:
        yield self._handlers.status()

    async def _counters(self, _: BaseModel) -> _Rows:
        yield await self._handlers.counters()

    async def _routes(self, wanted: RouteFilter) -> _Rows:
        async for row in self._handlers.routes(wanted):
            yield row

    async def _neighbours(self, _: BaseModel) -> _Rows:
        for row in self._handlers.neighbours():
            yield row

    async def _audit(self, wanted: AuditRequest) -> _Rows:
        if not (wanted.now or wanted.full):
            yield await self._handlers.audit(wanted)
            return
        if self._auditing.locked():
            raise RefusedError(ErrorKind.BUSY, "an audit is running already; wait for its answer")
        async with self._auditing:
            yield await self._handlers.audit(wanted)

    async def _explain(self, wanted: ExplainRequest) -> _Rows:
        yield await self._handlers.explain(wanted)

    async def _resync(self, wanted: ResyncRequest) -> _Rows:
        yield await self._handlers.resync(wanted)

    commands: ClassVar[Mapping[str, tuple[type[BaseModel], Callable[[Any, Any], _Rows]]]] = {
        "status": (_NoArguments, _status),
        "counters": (_NoArguments, _counters),
        "routes": (RouteFilter, _routes),
        "neighbours": (_NoArguments, _neighbours),
        "audit": (AuditRequest, _audit),
        "explain": (ExplainRequest, _explain),
        "resync": (ResyncRequest, _resync),
    }
    """Every command: the shape of its arguments, and who answers it."""


class _ClientLostError(Exception):
    """The client left, or reads nothing."""


class _Turns:
    """Answers one reader at a time, and then none for a while; see `READERS_PAUSE`."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._rest_until = 0.0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn; it lasts as long as the block."""
        clock = asyncio.get_running_loop().time
        async with self._lock:
            await asyncio.sleep(max(0.0, self._rest_until - clock()))
            began = clock()
            try:
                yield
            finally:
                took = clock() - began
                self._rest_until = clock() + min(READERS_PAUSE * took, READERS_LONGEST_PAUSE)


_Converse: TypeAlias = Callable[
    ["_Door", asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]
]


class _Door:
    """One socket, and those who came in by it.

    Args:
        listener: makes the socket.
        most: clients at one time.
        turns: taken by whoever is answered; None where everything may be asked at once.
    """

    def __init__(self, listener: UnixListener, most: int, *, turns: _Turns | None = None) -> None:
        self.turns = turns
        self._listener = listener
        self._most = most
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def open(self, converse: _Converse) -> None:
        """Listen; `converse` serves each client.

        Raises:
            ListeningError: the socket cannot be had.
        """

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if len(self._clients) >= self._most:
                message = f"{self._most} clients are connected already; try again"
                writer.write(_error_line(ErrorKind.BUSY, message))
                writer.close()
                return
            client = asyncio.create_task(converse(self, reader, writer))
            self._clients[client] = writer
            client.add_done_callback(self._clients.pop)

        self._server = await asyncio.start_unix_server(
            connected, sock=self._listener.open(), limit=REQUEST_BYTES
        )

    async def close(self) -> None:
        """Stop listening, cut off clients, remove the socket; idempotent."""
        if self._server is None:
            return
        self._server.close()
        for client, writer in self._clients.items():
            client.cancel()
            writer.transport.abort()  # closing would wait for clients that do not read
        await asyncio.gather(*self._clients, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None
        self._listener.close()


class _Counted:
    """Rows as JSON lines, in chunks, and how many there were; a turn for each chunk where turns are taken."""

    def __init__(self, rows: _Rows, turns: _Turns | None) -> None:
        self._rows = rows
        self._turns = turns
        self.count = 0

    async def chunk(self) -> bytes:
        """Return the next lines, about `CHUNK_BYTES` of them; nothing at the end."""
        if self._turns is None:
            return await self._lines()
        async with self._turns.turn():
            return await self._lines()

    async def _lines(self) -> bytes:
        lines = bytearray()
        async for row in self._rows:
            lines += b'{"row":' + row.model_dump_json().encode() + b"}\n"
            self.count += 1
            if len(lines) >= CHUNK_BYTES:
                break
        return bytes(lines)


def _refuse_readers(command: str, arguments: BaseModel) -> None:
    """Refuse what a reader may not ask: what changes something, and what costs much.

    Raises:
        RefusedError: it is such a thing.
    """
    match arguments:
        case _ if command in READERS_COMMANDS:
            return
        case AuditRequest(now=False, full=False):
            return
        case RouteFilter(limit=int(limit)) if limit <= READERS_ROWS:
            return
        case RouteFilter():
            what = f"routes without a limit of at most {READERS_ROWS}"
        case AuditRequest():
            what = "audit now or full"
        case _:
            what = command
    raise RefusedError(
        ErrorKind.FORBIDDEN,
        f"found {what} on the readers' socket, expected it on the agent's own (control.socket)",
    )


def _parse(line: bytes) -> tuple[str, BaseModel]:
    """Return the name of a command, and its arguments."""
    try:
        request = _Request.model_validate_json(line)
    except ValidationError as error:
        expected = 'expected one line of JSON such as {"command": "status"}'
        raise RefusedError(ErrorKind.BAD_REQUEST, f"{_first(error)}; {expected}") from error
    if request.command not in ControlServer.commands:
        known = ", ".join(ControlServer.commands)
        message = f"found command {request.command[:60]!r}, expected one of {known}"
        raise RefusedError(ErrorKind.BAD_REQUEST, message)
    shape, _ = ControlServer.commands[request.command]
    try:
        return request.command, shape.model_validate(request.arguments)
    except ValidationError as error:
        raise RefusedError(ErrorKind.BAD_REQUEST, f"{request.command}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """Return the first problem of a request in one short line."""
    details = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in details["loc"])
    text = f"{where}: {details['msg']}" if where else details["msg"]
    return " ".join(text.split())[:300]


def _patience(arguments: BaseModel) -> float:
    """Return how long the next rows of an answer may take, in seconds."""
    if isinstance(arguments, ResyncRequest) and arguments.wait:
        return ANSWER_SECONDS + arguments.timeout_seconds
    if isinstance(arguments, AuditRequest) and (arguments.now or arguments.full):
        return AUDIT_SECONDS
    return ANSWER_SECONDS


async def _within(seconds: float, answer: Awaitable[bytes]) -> bytes:
    try:
        async with asyncio.timeout(seconds) as scope:
            return await answer
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise RefusedError(ErrorKind.TIMEOUT, f"no answer within {seconds:g} s; the agent is busy") from error


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
    """Return the next request line, or None when there will be none."""
    try:
        async with asyncio.timeout(IDLE_SECONDS):
            return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial or None  # the last line may lack its newline; the next read finds nothing
    except asyncio.LimitOverrunError:
        message = f"found a request of more than {REQUEST_BYTES} bytes; the connection is closed"
        await _send(writer, _error_line(ErrorKind.BAD_REQUEST, message))
        return None
    except (ConnectionError, TimeoutError):
        return None


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    try:
        writer.write(data)
        async with asyncio.timeout(WRITE_SECONDS):
            await writer.drain()
    except (ConnectionError, TimeoutError) as error:
        raise _ClientLostError from error
    await asyncio.sleep(0)  # a fast reader never makes drain wait, and routing comes first


def _error_line(kind: ErrorKind, message: str) -> bytes:
    error = AnswerError(kind=kind, message=message)
    return b'{"error":' + error.model_dump_json().encode() + b"}\n"


class UnreachableError(ControlError):
    """No agent listens on the socket, or it went away."""


class ControlClient:
    """Asks a running agent. Each question is a connection of its own.

    Args:
        path: the control socket.
        timeout_seconds: longest silence that is waited through.
    """

    def __init__(self, path: Path, *, timeout_seconds: float = ANSWER_SECONDS + 10) -> None:
        self._path = path
        self._timeout = timeout_seconds

    def rows(self, command: str, arguments: Mapping[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Ask, and yield each row of the answer as it arrives.

        Raises:
            UnreachableError: no agent there, or it went away before the answer was complete.
            RefusedError: the agent says why it does not answer.
            ControlError: what came is no answer.
        """
        request = json.dumps({"command": command, "arguments": arguments or {}}).encode() + b"\n"
        with self._connect() as connection, connection.makefile("rb") as answer:
            try:
                with suppress(BrokenPipeError):  # an agent that refuses closes early; its reason is readable
                    connection.sendall(request)
                yield from self._read(answer)
            except OSError as error:
                raise UnreachableError(
                    f"{self._path}: the answer stopped ({error}); is the agent running well?"
                ) from error

    def status(self) -> Status:
        """Return the state of the agent and its pipelines."""
        return self._one(Status, "status")

    def routes(self, wanted: RouteFilter | None = None) -> Iterator[RouteRow]:
        """Yield the routes that are asked for."""
        arguments = (wanted or RouteFilter()).model_dump(mode="json")
        return map(RouteRow.model_validate, self.rows("routes", arguments))

    def neighbours(self) -> Iterator[NeighbourRow]:
        """Yield every neighbour."""
        return map(NeighbourRow.model_validate, self.rows("neighbours"))

    def audit(self, wanted: AuditRequest | None = None) -> Audit:
        """Return how the audits go; with ``now`` or ``full``, audit every FIB first."""
        wanted = wanted or AuditRequest()
        patience = AUDIT_SECONDS if wanted.now or wanted.full else 0.0
        patient = ControlClient(self._path, timeout_seconds=self._timeout + patience)
        return patient._one(Audit, "audit", wanted.model_dump())

    def explain(self, prefix: str) -> Explanation:
        """Return the way of one prefix from its feed to the FIB."""
        return self._one(Explanation, "explain", {"prefix": prefix})

    def resync(self, *, wait: bool = False, timeout_seconds: float = 120.0) -> Resync:
        """Have every feed read again; with `wait`, return when the pipelines are in sync."""
        patient = ControlClient(self._path, timeout_seconds=self._timeout + (timeout_seconds if wait else 0))
        return patient._one(Resync, "resync", {"wait": wait, "timeout_seconds": timeout_seconds})

    def _one(self, shape: type[A], command: str, arguments: Mapping[str, Any] | None = None) -> A:
        rows = list(self.rows(command, arguments))
        if len(rows) != 1:
            raise ControlError(f"{self._path}: found {len(rows)} rows in answer to {command}, expected 1")
        try:
            return shape.model_validate(rows[0])
        except ValidationError as error:
            raise ControlError(f"{self._path}: found no {shape.__name__} in the answer: {error}") from error

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(self._timeout)
        try:
            connection.connect(str(self._path))
        except OSError as error:
            connection.close()
            raise UnreachableError(
                f"{self._path}: {error.strerror or error}; is the agent running "
                "(systemctl status router-agent), and is this its control.socket?"
            ) from error
        return connection

    def _read(self, answer: BinaryIO) -> Iterator[dict[str, Any]]:
        for line in answer:
            match _decode(line):
                case {"row": dict(row)}:
                    yield row
                case {"error": {"kind": str(kind), "message": str(message)}}:
                    known = kind in ErrorKind.__members__.values()
                    raise RefusedError(ErrorKind(kind) if known else ErrorKind.INTERNAL, message)
                case {"end": True}:
                    return
                case _:
                    raise ControlError(
                        f"{self._path}: found {line[:80]!r}, expected a row, an error or the end"
                    )
        raise UnreachableError(f"{self._path}: the agent stopped in the middle of its answer; ask again")


def _decode(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
