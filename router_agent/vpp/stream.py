"""One raw connection to VPP's API socket, for messages by the hundred thousand.

Framing (src/vlibmemory/socket_api.c): every message is preceded by 16 bytes, of which bytes 8 to 11 are the
length of what follows, big-endian; the rest is zero from us and meaningless from VPP. Messages are answered
in the order they were sent. Our own answers are told from messages VPP sends by itself (keepalive, events)
by the message id that begins each of them.

All of it runs in the event loop and never blocks it: one step encodes, sends or parses one chunk. Not for
use by several tasks at once; `Stream.lock` is for whoever shares it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from router_agent.fibs.fib import FibError, FibLostError
from router_agent.model import I32, I64, U8

log = logging.getLogger(__name__)

HEADER = struct.Struct(">QII")
"""Framing header: ignored, length of the message, ignored."""

ANSWER_SECONDS = 30.0
"""VPP is taken for stuck when it owes us answers and sends nothing for so long."""

CHUNK = 4096
"""Requests encoded and sent in one step."""

_SO_SNDBUFFORCE = 32
"""asm-generic/socket.h; not in Python's socket module."""
_MUCH_UNANSWERED = 4096
_PACE_SECONDS = 0.005
"""VPP writes each answer by itself, and waking for each costs it and us more than the routes do. While it has
work for 15 ms or more (it does at most some 300 requests a millisecond), answers are looked at so often."""
_DUMP_BATCH_BYTES = 2 << 20
_DUMP_PACE_SECONDS = 0.001
"""A dump is made in one go. What the socket does not take, VPP appends to a vector that it moves down after
each partial write: the more there is, the longer its main thread stands still. So a dump is taken every
millisecond, and taken apart only when much of it is there."""
_LENGTH_AT = 8
_RECEIVE_BYTES = 1 << 20
_SEND_BUFFER_BYTES = 4 << 20
_SHORT_RUN = 32
_LONG_RUN = 8192
_WALK = 2048

Encode = Callable[[int, int, int], "bytearray | memoryview | bytes"]
"""``encode(start, count, context)``: the framed requests of rows `start` to ``start + count``, whose context
fields count up from `context`, modulo 2**32."""


@dataclass(frozen=True, slots=True)
class ReplyLayout:
    """Where the answer to a bulk request keeps its context and its return value.

    Attributes:
        message_id: id of the reply.
        length: bytes of a whole framed reply.
        context: column of the 4-byte context in the framed reply, in the byte order we sent it in.
        retval: column of the 4-byte big-endian return value.
    """

    message_id: int
    length: int
    context: int
    retval: int


@dataclass(slots=True)
class Frames:
    """Messages of one length, as rows of bytes.

    Attributes:
        rows: ``uint8`` of shape (n, 16 + length), framing header included. Writable, valid until the next
            read from the stream.
    """

    rows: U8

    @property
    def message_ids(self) -> I32:
        """Message id of each row."""
        ids = self.rows[:, HEADER.size].astype(np.int32) << 8
        ids |= self.rows[:, HEADER.size + 1]
        return ids


class Stream:
    """A connected, handshaken API socket.

    Args:
        connection: the connected socket, non-blocking.
        path: its address, for messages.
        foreign: called with the id and the bytes of each message that is no answer of ours; what it returns
            is sent back (a framed message), if not None.
    """

    def __init__(
        self, connection: socket.socket, path: Path, foreign: Callable[[int, bytes], bytes | None]
    ) -> None:
        self.lock = asyncio.Lock()
        self.highest_unanswered = 0
        """The most requests that were ever unanswered at one time."""
        self.unanswered = 0
        """Requests that are unanswered now."""
        self._socket = connection
        self._path = path
        self._foreign = foreign
        self._loop = asyncio.get_running_loop()
        self._lost: asyncio.Future[str] = self._loop.create_future()
        self._buffer = bytearray(_RECEIVE_BYTES)
        self._filled = 0
        self._context = 1
        self._urgent: list[bytes] = []
        self._busy = False
        with contextlib.suppress(PermissionError):
            connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SEND_BUFFER_BYTES)
        self._watch_idle()

    @property
    def lost(self) -> asyncio.Future[str]:
        """Done when the connection is gone; the result says why."""
        return self._lost

    def close(self, reason: str = "closed by the agent", *, last_words: bytes = b"") -> None:
        """Close the connection, after a last framed message if no operation is under way; idempotent."""
        if self._lost.done():
            return
        if last_words and not self._busy:
            with contextlib.suppress(OSError):
                self._socket.send(last_words)
        self._lost.set_result(reason)
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()

    def check(self) -> None:
        """Raise FibLostError when the connection is gone."""
        if self._lost.done():
            raise FibLostError(f"VPP API socket {self._path}: {self._lost.result()}; it has to be read again")

    async def transact(self, total: int, encode: Encode, reply: ReplyLayout, window: int) -> I32:
        """Send `total` requests, never more than `window` of them unanswered; return their return values.

        Row i of the answer belongs to the i-th request encoded.

        Raises:
            FibLostError: VPP went away or fell silent, or answered out of order. Requests sent may have been
                carried out. Also when cancelled midway, because the stream then ends inside a message.
        """
        self.check()
        retvals = np.zeros(total, np.int32)
        base, self._context = self._context, (self._context + total) & 0xFFFFFFFF
        with self._exclusive():
            try:
                await self._pipeline(retvals, encode, reply, window, base)
            finally:
                self.unanswered = 0
        return retvals

    async def dump(
        self, request: bytes, end_id: int, *, pace: float = _DUMP_PACE_SECONDS
    ) -> AsyncIterator[Frames]:
        """Send a framed request and yield what comes, by message length, up to a message of id `end_id`.

        Messages other than the end are given as they are: check their ids.

        Args:
            request: framed requests, the last of which is answered by `end_id`.
            end_id: id of the message that ends the answer.
            pace: seconds between two looks at what has come. Whoever is in no hurry looks less often.

        Raises:
            FibLostError: as for `transact`. Abandoning the iterator closes the connection.
        """
        self.check()
        with self._exclusive():
            unsent = memoryview(request)
            ended = False
            while not ended:
                unsent = self._send(unsent)
                fresh = self._receive()
                if fresh is not None and len(fresh) < _DUMP_BATCH_BYTES:
                    await asyncio.sleep(pace)
                    continue
                batch = list(self._split(memoryview(self._buffer)[: self._filled]))
                for frames in batch:
                    final = frames.message_ids == end_id
                    ended = ended or bool(final.any())
                    if not final.all():
                        yield frames if not final.any() else Frames(frames.rows[~final])
                self._consumed()
                if not ended and not batch:
                    await self._wait(writable=bool(unsent))

    def post(self, data: bytes) -> None:
        """Send framed requests at once, ahead of everything that waits; their answers go to `foreign`.

        What the socket does not take now follows as it does, so the caller bounds what is unanswered. Not for
        use while an operation is under way.

        Raises:
            FibLostError: VPP went away.
        """
        self.check()
        if self._busy:
            raise AssertionError("requests posted within another operation on the same stream")
        self._urgent.append(data)
        self._flush()

    def _flush(self) -> None:
        rest = self._send(memoryview(b""))
        self._loop.remove_writer(self._socket)
        if rest:
            # The first bytes of a message are out: the rest of it goes before anything else.
            self._urgent.insert(0, bytes(rest))
            self._loop.add_writer(self._socket, self._flush_later)

    def _flush_later(self) -> None:
        with contextlib.suppress(FibLostError):
            self._flush()

    def hand_to_foreign(self, frames: Frames) -> None:
        """Pass messages that are no answer of ours to the handler."""
        for row, number in zip(frames.rows, frames.message_ids.tolist(), strict=True):
            answer = self._foreign(number, row[HEADER.size :].tobytes())
            if answer is not None:
                self._urgent.append(answer)

    async def _pipeline(
        self, retvals: I32, encode: Encode, reply: ReplyLayout, window: int, base: int
    ) -> None:
        total, sent, answered = len(retvals), 0, 0
        chunk = max(1, min(CHUNK, window // 2))
        unsent = memoryview(b"")
        idle = False
        while answered < total:
            unsent = self._send(unsent)
            count = min(chunk, total - sent)
            room = bool(count) and sent + count - answered <= window
            if room and not unsent:
                unsent = memoryview(encode(sent, count, (base + sent) & 0xFFFFFFFF)).cast("B")
                sent += count
                self.unanswered = sent - answered
                self.highest_unanswered = max(self.highest_unanswered, self.unanswered)
                unsent = self._send(unsent)
            news = self._take_replies(retvals, answered, sent, reply, base)
            answered += news
            self.unanswered = sent - answered
            if answered == total:
                return
            if room:
                await asyncio.sleep(0)
            elif sent - answered > _MUCH_UNANSWERED and not unsent and not idle:
                await asyncio.sleep(_PACE_SECONDS)
            elif not news:
                await self._wait(writable=bool(unsent))
            idle = not news and not room

    def _take_replies(self, retvals: I32, answered: int, sent: int, reply: ReplyLayout, base: int) -> int:
        """Read what is there and file the return values; return how many."""
        data = self._receive()
        if data is None:
            return 0
        news = 0
        for frames in self._split(data):
            ours = frames
            if frames.rows.shape[1] != reply.length:
                self.hand_to_foreign(frames)
                continue
            match = frames.message_ids == reply.message_id
            if not match.all():
                self.hand_to_foreign(Frames(frames.rows[~match]))
                ours = Frames(frames.rows[match])
            count = len(ours.rows)
            start = answered + news
            if start + count > sent:
                self._protocol_error(f"{start + count} answers to {sent} requests")
            expected = np.arange(base + start, base + start + count).astype(np.uint32)
            contexts = np.ascontiguousarray(ours.rows[:, reply.context : reply.context + 4]).view("<u4")[:, 0]
            if not np.array_equal(contexts, expected):
                self._protocol_error("answers whose contexts are not those of the requests, in order")
            values = np.ascontiguousarray(ours.rows[:, reply.retval : reply.retval + 4]).view(">i4")[:, 0]
            retvals[start : start + count] = values
            news += count
        self._consumed()
        return news

    def _protocol_error(self, what: str) -> None:
        self.close(f"VPP sent {what}")
        self.check()

    def _send(self, unsent: memoryview) -> memoryview:
        """Send what the socket takes; urgent answers go first, when no message is half sent."""
        if not unsent and self._urgent:
            unsent = memoryview(b"".join(self._urgent))
            self._urgent.clear()
        while unsent:
            try:
                unsent = unsent[self._socket.send(unsent) :]
            except BlockingIOError:
                break
            except OSError as error:
                self._gone(error)
        return unsent

    def _receive(self) -> memoryview | None:
        """Read what is there behind what is left of the last read; None when there is nothing new."""
        self._make_room()
        try:
            count = self._socket.recv_into(memoryview(self._buffer)[self._filled :])
        except BlockingIOError:
            return None
        except OSError as error:
            self._gone(error)
        if count == 0:
            self._gone(None)
        self._filled += count
        return memoryview(self._buffer)[: self._filled]

    def _gone(self, error: OSError | None) -> NoReturn:
        """Note that VPP closed its end, and say so."""
        seen = "end of stream" if error is None else str(error.strerror)
        self.close(f"closed by VPP ({seen}; did it crash or restart?)")
        self.check()
        raise AssertionError("a closed stream passed its check")

    def _make_room(self) -> None:
        """Grow the buffer when one message is larger than it."""
        if self._filled < len(self._buffer):
            return
        self._buffer = self._buffer + bytearray(len(self._buffer))

    def _split(self, data: memoryview) -> Iterator[Frames]:
        """Yield the whole messages in `data`, runs of one length as one array; keep the tail for later."""
        array = np.frombuffer(data, np.uint8)
        at, end = 0, len(array)
        self._rest = 0
        while (length := self._frame_length(data, at)) is not None and at + length <= end:
            run = _run_length(array[at:], length)
            if run < _SHORT_RUN:
                offsets = self._walk(data, at, end)
                yield from _by_length(array, offsets)
                at = int(offsets[-1])
            else:
                yield Frames(array[at : at + run * length].reshape(run, length))
                at += run * length
            self._rest = at

    def _frame_length(self, data: memoryview, at: int) -> int | None:
        if at + HEADER.size > len(data):
            return None
        length = int(HEADER.unpack_from(data, at)[1])
        return HEADER.size + length

    def _walk(self, data: memoryview, at: int, end: int) -> I64:
        """Return where up to `_WALK` whole messages start, and where the last of them ends."""
        offsets = [at]
        while len(offsets) <= _WALK:
            length = self._frame_length(data, at)
            if length is None or at + length > end:
                break
            at += length
            offsets.append(at)
        return np.array(offsets, np.int64)

    def _consumed(self) -> None:
        """Move the unfinished tail of the buffer to its start."""
        rest = self._filled - self._rest
        self._buffer[:rest] = self._buffer[self._rest : self._filled]
        self._filled, self._rest = rest, 0

    _rest = 0

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Take the socket from the idle watch; close it when what is done with it ends midway."""
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._busy = True
        try:
            yield
        except FibError:
            raise
        except BaseException:
            self.close("an operation was broken off midway")
            raise
        finally:
            self._busy = False
        if not self._lost.done():
            self._watch_idle()

    async def _wait(self, *, writable: bool) -> None:
        """Wait until the socket can be read (or written, if asked)."""
        ready: asyncio.Future[None] = self._loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        self._loop.add_reader(self._socket, wake)
        if writable:
            self._loop.add_writer(self._socket, wake)
        try:
            await asyncio.wait_for(ready, ANSWER_SECONDS)
        except TimeoutError:
            self.close(f"VPP owes answers and has sent nothing for {ANSWER_SECONDS:.0f} s")
            self.check()
        finally:
            if not self._lost.done():
                self._loop.remove_reader(self._socket)
                self._loop.remove_writer(self._socket)

    def _watch_idle(self) -> None:
        self._loop.add_reader(self._socket, self._idle)

    def _idle(self) -> None:
        """Take what VPP says unasked, above all its going away."""
        with contextlib.suppress(FibLostError):
            data = self._receive()
            if data is None:
                return
            for frames in self._split(data):
                self.hand_to_foreign(frames)
            self._consumed()
            self._flush()


def framed(message: bytes) -> bytes:
    """Return a message with its framing header."""
    return HEADER.pack(0, len(message), 0) + message


def _run_length(array: U8, length: int) -> int:
    """Return how many messages from the start of the array have this length."""
    count = min(len(array) // length, _LONG_RUN)
    fields = array[: count * length].reshape(count, length)[:, _LENGTH_AT : _LENGTH_AT + 4]
    same = (fields == fields[0]).all(axis=1)
    return count if same.all() else int(np.argmin(same))


def _by_length(array: U8, offsets: I64) -> Iterator[Frames]:
    """Yield the messages that start at offsets (the last of which is the end), grouped by length."""
    starts, lengths = offsets[:-1], np.diff(offsets)
    for length in np.unique(lengths).tolist():
        chosen = starts[lengths == length]
        windows = np.lib.stride_tricks.sliding_window_view(array, length)
        yield Frames(windows[chosen])
