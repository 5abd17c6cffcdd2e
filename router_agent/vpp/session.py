"""A session with a running VPP: small calls and events through vpp_papi, bulk through a raw stream.

Connections to one API socket. The first is vpp_papi's own: it blocks and has a thread, so calls run in an
executor and are serialised; message layouts, ids and CRCs come from the VPP that answers (``bootstrapapi``),
never from files. The second is a `Stream`, handshaken here with messages vpp_papi packs. Whoever must not
wait behind it has a stream of its own: VPP takes some 4 KiB from each connection in turn.

Definitions of types are global in vpp_papi and keyed by name only. An agent outlives the VPP it serves, so
when a VPP with another message table answers, they are forgotten and learned anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import vpp_papi
from vpp_papi import vpp_serializer

from router_agent.fibs.fib import FibError, FibLostError
from router_agent.vpp import layout
from router_agent.vpp.stream import HEADER, Stream, framed

log = logging.getLogger(__name__)

CALL_SECONDS = 15.0
"""How long a small call may take. A full dump keeps VPP's main thread busy for about 2 s."""

_SOCKCLNT_CREATE = 15
_SOCKCLNT_CREATE_REPLY = 16
"""Ids of the two handshake messages, fixed by src/vlibmemory/vl_memory_msg_enum.h: they are what makes the
other ids known."""

Event = Callable[[str, Any], None]
Answer = Callable[[int, bytes], None]
"""Called with the message id and the bytes of an answer, message id included."""
T = TypeVar("T")

_definitions = threading.Lock()
_table_of_definitions: Mapping[str, int] = {}


class VppSession:
    """A session; `open` it, then `call` and use `stream`.

    Args:
        api_socket: path of VPP's API socket (``socksvr { socket-name … }``).
        name: what VPP shows as the client's name (``show api clients``), at most 63 bytes.
        on_event: called in the event loop with the name and the fields of every event asked for.
    """

    def __init__(self, *, api_socket: Path, name: str, on_event: Event | None = None) -> None:
        self._path = api_socket
        self._name = name
        self._on_event = on_event
        self._client: Any = None
        self._stream: Stream | None = None
        self._executor: ThreadPoolExecutor | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stream_client = 0
        self._side_streams: list[tuple[Stream, int]] = []
        self.version = ""

    @property
    def stream(self) -> Stream:
        """The bulk connection.

        Raises:
            FibLostError: the session is not open.
        """
        if self._stream is None:
            raise FibLostError(f"no session with VPP on {self._path}; open it first")
        return self._stream

    @property
    def open_stream(self) -> Stream | None:
        """The bulk connection, None when the session is not open."""
        return self._stream

    async def open(self) -> None:
        """Connect both ways.

        Raises:
            FibError: no socket, no permission, no VPP behind it, no answer, or an API that cannot be used.
        """
        await self.close()
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vpp-papi")
        try:
            connection, self._stream_client, table = await self._run(self._shake_hands)
            foreign = functools.partial(self._foreign, self._stream_client, None)
            self._stream = Stream(connection, self._path, foreign)
            self._client = await self._run(functools.partial(self._connect_papi, table))
            self.version = (await self.call("show_version")).version
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnect; idempotent. VPP keeps what it was told."""
        for stream, index in self._side_streams:
            stream.close(last_words=self._farewell(index))
        self._side_streams.clear()
        if self._stream is not None:
            self._stream.close(last_words=self._farewell(self._stream_client))
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(OSError, FibError):
                await self._run(client.disconnect)
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def require(self, needed: Mapping[str, Iterable[str]]) -> None:
        """Check that VPP has these messages with these fields.

        Raises:
            FibError: naming the first that is missing.
        """
        for name, paths in needed.items():
            message = self.message(name)
            try:
                for path in paths:
                    layout.field(message, path)
            except layout.LayoutError as error:
                raise FibError(
                    f"VPP {self.version} speaks another dialect: {error}; use a VPP this agent knows (26.06)"
                ) from error

    def has(self, name: str) -> bool:
        """Return True when VPP offers a message."""
        return name in self._client.messages and self._message_id(name) > 0

    def message(self, name: str) -> Any:
        """Return vpp_papi's definition of a message.

        Raises:
            FibError: VPP does not offer it.
        """
        if self._client is None:
            raise FibLostError(f"no session with VPP on {self._path}; open it first")
        if not self.has(name):
            raise FibError(
                f"VPP {self.version} on {self._path} does not offer the API message {name}: "
                f"upgrade VPP, or enable the plugin it comes from in startup.conf (`plugins {{ … }}`)"
            )
        return self._client.messages[name]

    def message_id(self, name: str) -> int:
        """Return the id VPP gave a message.

        Raises:
            FibError: VPP does not offer it.
        """
        self.message(name)
        return self._message_id(name)

    def enumeration(self, name: str) -> dict[str, int]:
        """Return the names and values of an API enumeration, such as ``vl_api_fib_path_type_t``.

        Raises:
            FibError: VPP has no such enumeration.
        """
        found = None if self._client is None else self._client.get_type(name)
        if found is None:
            raise FibError(
                f"VPP {self.version} has no API enumeration {name}; use a VPP this agent knows (26.06)"
            )
        return {member: int(value) for member, value in found.enum.__members__.items()}

    def pack(self, name: str, **fields: Any) -> bytes:
        """Return a message from the stream's client, without framing; fields not given are zero."""
        packed: bytes = self.message(name).pack(
            {"_vl_msg_id": self._message_id(name), "client_index": self._stream_client, **fields}
        )
        return packed

    async def call(self, name: str, **fields: Any) -> Any:
        """Send one request and return its reply, or the list of details of a dump.

        Raises:
            FibError: VPP does not offer the message, or refused it (retval below zero).
            FibLostError: VPP went away or does not answer.
        """
        self.message(name)
        answer = await self._run(functools.partial(self._call, name, fields))
        retval = getattr(answer, "retval", 0)
        if retval < 0:
            raise FibError(f"VPP refused {name}({_spelled(fields)}): {error_name(retval)}")
        return answer

    async def cli(self, command: str) -> str:
        """Return what a debug CLI command prints. For what no API message tells."""
        answer = await self.call("cli_inband", cmd=command)
        return str(answer.reply)

    async def wait_lost(self) -> None:
        """Return when VPP has closed a stream."""
        streams = [self.stream, *(stream for stream, _ in self._side_streams)]
        lost = [asyncio.shield(stream.lost) for stream in streams]
        try:
            await asyncio.wait(lost, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in lost:
                each.cancel()

    async def open_side_stream(self, on_answer: Answer | None = None) -> tuple[Stream, int]:
        """Open one more bulk connection, whose requests wait behind nobody else's; it ends with the session.

        Args:
            on_answer: called with what VPP sends between operations, keepalives aside: with the answers to
                requests that were posted.

        Returns:
            The stream, and the client index its requests carry (``client_index`` of `pack`).

        Raises:
            FibError: VPP does not take it.
        """
        connection, index, _ = await self._run(self._shake_hands)
        side = Stream(connection, self._path, functools.partial(self._foreign, index, on_answer))
        self._side_streams.append((side, index))
        return side, index

    def _farewell(self, index: int) -> bytes:
        """Return the message that signs a stream's client off; VPP can overlook a mere end of stream."""
        if self._client is None:
            return b""
        return framed(self.pack("sockclnt_delete", client_index=index, index=index))

    def _message_id(self, name: str) -> int:
        definition = self._client.messages[name]
        return int(self._client.transport.get_msg_index(f"{name}_{layout.crc(definition)}"))

    async def _run(self, work: Callable[[], T]) -> T:
        assert self._loop is not None
        return await self._loop.run_in_executor(self._executor, work)

    def _call(self, name: str, fields: dict[str, Any]) -> Any:
        client = self._client
        if client is None:
            raise FibLostError(f"the session with VPP on {self._path} was closed")
        try:
            return getattr(client.api, name)(**fields)
        except (vpp_papi.VPPIOError, OSError) as error:
            raise FibLostError(
                f"VPP on {self._path} went away or did not answer {name} within {CALL_SECONDS:.0f} s "
                f"({error}); see whether it runs (`systemctl status vpp`)"
            ) from error

    def _shake_hands(self) -> tuple[socket.socket, int, dict[str, int]]:
        """Connect the raw socket and introduce ourselves; return it, our client index, the message table."""
        with _definitions:
            bootstrap = vpp_papi.VPPApiClient(bootstrapapi=True, server_address=str(self._path))
        request = bootstrap.messages["sockclnt_create"].pack(
            {"_vl_msg_id": _SOCKCLNT_CREATE, "name": self._name, "context": 1}
        )
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(CALL_SECONDS)
        try:
            self._connect(connection)
            connection.sendall(framed(request))
            message = _read_message(connection)
        except FibError:
            connection.close()
            raise
        except TimeoutError as error:
            connection.close()
            raise FibError(
                f"VPP on {self._path} took the connection but did not answer within {CALL_SECONDS:.0f} s; "
                f"its main thread is stuck or busy: look at `vppctl show runtime` and its log"
            ) from error
        except OSError as error:
            connection.close()
            raise FibError(
                f"{self._path} closed the connection ({error}); is it VPP's API socket, not its CLI or "
                f"statistics socket?"
            ) from error
        definition = bootstrap.messages["sockclnt_create_reply"]
        number = int.from_bytes(message[:2], "big")
        if number != _SOCKCLNT_CREATE_REPLY:
            connection.close()
            raise FibError(
                f"{self._path} answered the handshake with message {number}, expected "
                f"{_SOCKCLNT_CREATE_REPLY} (sockclnt_create_reply); it is no API socket that vpp_papi knows"
            )
        reply, _ = definition.unpack(message)
        connection.setblocking(False)
        return connection, int(reply.index), {entry.name: entry.index for entry in reply.message_table}

    def _connect(self, connection: socket.socket) -> None:
        try:
            connection.connect(str(self._path))
        except FileNotFoundError as error:
            raise FibError(
                f"there is no VPP API socket {self._path}: start VPP, or set the path that its startup.conf "
                f"names in `socksvr {{ socket-name … }}`"
            ) from error
        except PermissionError as error:
            raise FibError(
                f"not allowed to open {self._path}: run the agent as root or in VPP's API group "
                f"(`unix {{ gid … }}` in startup.conf)"
            ) from error
        except ConnectionRefusedError as error:
            raise FibError(f"{self._path} is there but no VPP listens on it: start VPP") from error

    def _connect_papi(self, table: dict[str, int]) -> Any:
        global _table_of_definitions
        with _definitions:
            if _table_of_definitions.keys() != table.keys():
                _forget_definitions()
                _table_of_definitions = table
            client = vpp_papi.VPPApiClient(
                bootstrapapi=True, server_address=str(self._path), read_timeout=CALL_SECONDS
            )
            client.register_event_callback(self._event)
            try:
                client.connect(self._name)
            except AttributeError as error:
                raise FibError(
                    f"VPP on {self._path} cannot describe its own API (no get_api_json of the expected CRC): "
                    f"upgrade VPP to 24.02 or later, or vpp_papi"
                ) from error
            except (vpp_papi.VPPIOError, vpp_papi.VPPRuntimeError, vpp_papi.VPPValueError, OSError) as error:
                raise FibError(f"no session with VPP on {self._path}: {error}") from error
            except TypeError as error:  # what vpp_papi makes of the end of the stream
                raise FibError(
                    f"VPP on {self._path} closed the connection during the handshake; see whether it runs"
                ) from error
        return client

    def _event(self, name: str, fields: Any) -> None:
        """Receive what VPP sent unasked; runs in vpp_papi's thread."""
        if name == "memclnt_keepalive":
            self._answer_keepalive(fields)
            return
        if self._on_event is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._on_event, name, fields)

    def _answer_keepalive(self, fields: Any) -> None:
        """Answer on vpp_papi's connection, between two calls and not within one."""
        client, executor = self._client, self._executor
        if client is None or executor is None:
            return
        index = client.transport.socket_index
        answer = self.pack("memclnt_keepalive_reply", client_index=index, context=fields.context)
        with contextlib.suppress(RuntimeError):
            executor.submit(client.transport.write, answer)

    def _foreign(self, index: int, on_answer: Answer | None, number: int, message: bytes) -> bytes | None:
        """Answer what VPP says unasked on a stream: a keepalive; anything else is dropped, with a note."""
        if self._client is not None and number == self._message_id("memclnt_keepalive"):
            fields, _ = self._client.messages["memclnt_keepalive"].unpack(message)
            return framed(self.pack("memclnt_keepalive_reply", client_index=index, context=fields.context))
        if on_answer is not None:
            on_answer(number, message)
            return None
        log.debug("message %d of %d bytes on the bulk stream was not asked for", number, len(message))
        return None


def error_name(retval: int) -> str:
    """Return a VPP error number with its meaning (src/vnet/error.h) where the number is a common one."""
    meaning = _MEANINGS.get(retval)
    return f"error {retval} ({meaning})" if meaning else f"error {retval}"


_MEANINGS = {
    -1: "unspecified error",
    -2: "invalid sw_if_index",
    -3: "no such FIB table",
    -6: "no such entry",
    -7: "invalid value",
    -11: "system call error",
    -52: "no paths in route",
    -54: "no matching interface",
    -65: "no such table",
    -71: "invalid interface",
    -79: "interface already exists",
    -81: "value already exists",
    -97: "invalid address family",
    -99: "table too big",
    -116: "entry already exists",
    -171: "invalid prefix length",
}


def _spelled(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in fields.items())


def _read_message(connection: socket.socket) -> bytes:
    length = HEADER.unpack(_read_exactly(connection, HEADER.size))[1]
    return _read_exactly(connection, length)


def _read_exactly(connection: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError("end of stream during the handshake")
        data += part
    return bytes(data)


def _forget_definitions() -> None:
    """Drop every API type vpp_papi has learned, so that the next VPP's own are used."""
    for known in (vpp_serializer.types, vpp_serializer.class_types):
        for name in [name for name in known if name.startswith("vl_api_")]:
            del known[name]
    getattr(vpp_serializer, "message_cache", {}).clear()
