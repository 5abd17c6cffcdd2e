"""The raw stream: framing, window, contexts and loss, against a peer that answers over a socket pair."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router_agent.fibs.fib import FibLostError
from router_agent.vpp.stream import HEADER, Frames, ReplyLayout, Stream, framed

REQUEST, REPLY, FOREIGN, DETAILS, END = 10, 11, 12, 13, 14
LAYOUT = ReplyLayout(
    message_id=REPLY, length=HEADER.size + 10, context=HEADER.size + 2, retval=HEADER.size + 6
)


def encode(start: int, count: int, context: int) -> bytes:
    """A request is its id, its context (little-endian) and its row number."""
    return b"".join(
        framed(struct.pack(">H", REQUEST) + struct.pack("<II", (context + i) % 2**32, start + i))
        for i in range(count)
    )


def reply(context: bytes, retval: int) -> bytes:
    return framed(struct.pack(">H", REPLY) + context + struct.pack(">i", retval))


class Peer:
    """The other end: reads requests whole, and sends what it is told to."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()
        self._data = b""

    async def requests(self, count: int) -> list[bytes]:
        found: list[bytes] = []
        while len(found) < count:
            while len(self._data) < HEADER.size or len(self._data) < self._size():
                part = await self._loop.sock_recv(self._socket, 65536)
                assert part, "the stream closed"
                self._data += part
            found.append(self._data[HEADER.size : self._size()])
            self._data = self._data[self._size() :]
        return found

    async def send(self, data: bytes, size: int | None = None) -> None:
        step = size or len(data)
        for at in range(0, len(data), step):
            await self._loop.sock_sendall(self._socket, data[at : at + step])
            await asyncio.sleep(0)

    def close(self) -> None:
        self._socket.close()

    def _size(self) -> int:
        return int(HEADER.size + HEADER.unpack_from(self._data)[1])


class Wire:
    """A stream and its peer, with the foreign messages that were handed over."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self.foreign: list[tuple[int, bytes]] = []
        self.answer: Callable[[bytes], bytes | None] = lambda message: None
        self.stream = Stream(ours, Path("test.sock"), self._take)
        self.peer = Peer(theirs)

    def _take(self, number: int, message: bytes) -> bytes | None:
        self.foreign.append((number, message[2:]))
        return self.answer(message)

    def close(self) -> None:
        self.stream.close()
        self.peer.close()


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    found = Wire()
    yield found
    found.close()


async def test_retvals_come_back_by_request(wire: Wire) -> None:
    writing = asyncio.create_task(wire.stream.transact(5, encode, LAYOUT, 16))
    asked = await wire.peer.requests(5)
    await wire.peer.send(b"".join(reply(m[2:6], -struct.unpack_from("<I", m, 6)[0]) for m in asked))
    assert (await writing).tolist() == [0, -1, -2, -3, -4]


async def test_nothing_is_sent_for_nothing(wire: Wire) -> None:
    assert len(await wire.stream.transact(0, encode, LAYOUT, 16)) == 0


async def test_the_window_is_never_exceeded(wire: Wire) -> None:
    total, window = 500, 16
    writing = asyncio.create_task(wire.stream.transact(total, encode, LAYOUT, window))
    answered = 0
    while answered < total:
        asked = await wire.peer.requests(min(window // 2, total - answered))
        await wire.peer.send(b"".join(reply(m[2:6], 0) for m in asked))
        answered += len(asked)
    assert not (await writing).any()
    assert 1 <= wire.stream.highest_unanswered <= window


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    step=st.integers(1, 200),
    others=st.lists(st.tuples(st.integers(0, 40), st.binary(max_size=30)), max_size=6),
    count=st.integers(1, 80),
)
def test_answers_arrive_whole_however_the_stream_is_cut(
    step: int, others: list[tuple[int, bytes]], count: int
) -> None:
    async def scenario() -> None:
        wire = Wire()
        writing = asyncio.create_task(wire.stream.transact(count, encode, LAYOUT, 128))
        asked = await wire.peer.requests(count)
        messages = [reply(m[2:6], -7) for m in asked]
        for at, body in others:
            messages.insert(min(at, len(messages)), framed(struct.pack(">H", FOREIGN) + body))
        await wire.peer.send(b"".join(messages), step)
        assert (await writing).tolist() == [-7] * count
        await asyncio.sleep(0)
        tail = framed(struct.pack(">H", FOREIGN) + b"tail")
        await wire.peer.send(tail)
        async with asyncio.timeout(5):
            while len(wire.foreign) < len(others) + 1:
                await asyncio.sleep(0)
        assert sorted(body for _, body in wire.foreign) == sorted([*(body for _, body in others), b"tail"])
        assert {number for number, _ in wire.foreign} == {FOREIGN}
        wire.close()

    asyncio.run(scenario())


async def test_a_foreign_message_of_the_replys_length_is_no_reply(wire: Wire) -> None:
    writing = asyncio.create_task(wire.stream.transact(2, encode, LAYOUT, 16))
    asked = await wire.peer.requests(2)
    foreign = framed(struct.pack(">H", FOREIGN) + bytes(8))
    await wire.peer.send(reply(asked[0][2:6], 0) + foreign + reply(asked[1][2:6], -1))
    assert (await writing).tolist() == [0, -1]
    assert wire.foreign == [(FOREIGN, bytes(8))]


async def test_a_keepalive_is_answered_within_an_operation_and_without(wire: Wire) -> None:
    answer = framed(struct.pack(">H", 99) + b"alive")
    wire.answer = lambda message: answer
    keepalive = framed(struct.pack(">H", FOREIGN))
    await wire.peer.send(keepalive)
    assert (await wire.peer.requests(1))[0][2:] == b"alive"
    writing = asyncio.create_task(wire.stream.transact(1, encode, LAYOUT, 16))
    asked = await wire.peer.requests(1)
    await wire.peer.send(keepalive + reply(asked[0][2:6], 0))
    await writing
    again = asyncio.create_task(wire.stream.transact(1, encode, LAYOUT, 16))
    alive, request = await wire.peer.requests(2)
    assert alive[2:] == b"alive"
    await wire.peer.send(reply(request[2:6], 0))
    await again


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param(lambda a, b: reply(b, 0) + reply(a, 0), "contexts are not those", id="out of order"),
        pytest.param(lambda a, b: reply(a, 0) + reply(a, 0), "contexts are not those", id="twice"),
        pytest.param(
            lambda a, b: reply(a, 0) + reply(b, 0) + reply(b, 0), "3 answers to 2 requests", id="too many"
        ),
    ],
)
async def test_answers_that_do_not_match_lose_the_stream(
    wire: Wire, answers: Callable[[bytes, bytes], bytes], said: str
) -> None:
    writing = asyncio.create_task(wire.stream.transact(2, encode, LAYOUT, 16))
    first, second = await wire.peer.requests(2)
    await wire.peer.send(answers(first[2:6], second[2:6]))
    with pytest.raises(FibLostError, match=said):
        await writing
    assert wire.stream.lost.done()


async def test_the_end_of_the_stream_is_noticed_idle_and_busy(wire: Wire) -> None:
    wire.peer.close()
    async with asyncio.timeout(5):
        assert "closed by VPP" in await wire.stream.lost
    with pytest.raises(FibLostError, match="closed by VPP"):
        await wire.stream.transact(1, encode, LAYOUT, 16)
    other = Wire()
    writing = asyncio.create_task(other.stream.transact(3, encode, LAYOUT, 16))
    await other.peer.requests(3)
    other.peer.close()
    async with asyncio.timeout(5):
        with pytest.raises(FibLostError, match="closed by VPP"):
            await writing


async def test_a_silent_peer_is_given_up(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router_agent.vpp.stream.ANSWER_SECONDS", 0.05)
    with pytest.raises(FibLostError, match="owes answers"):
        await wire.stream.transact(1, encode, LAYOUT, 16)


@pytest.mark.parametrize("mixed", [False, True])
async def test_a_dump_is_given_whole_and_grouped_by_length(wire: Wire, mixed: bool) -> None:
    count = 300
    bodies = [struct.pack(">HI", DETAILS, n) + bytes(n % 3 * 8 if mixed else 8) for n in range(count)]
    seen: list[bytes] = []

    async def read() -> None:
        async for frames in wire.stream.dump(framed(b"??"), END):
            assert isinstance(frames, Frames)
            assert (frames.message_ids == DETAILS).all()
            seen.extend(row[HEADER.size :].tobytes() for row in frames.rows)

    reading = asyncio.create_task(read())
    await wire.peer.requests(1)
    await wire.peer.send(b"".join(framed(body) for body in bodies), 1000)
    await wire.peer.send(framed(struct.pack(">HI", END, 0) + bytes(8)))
    async with asyncio.timeout(5):
        await reading
    assert sorted(seen) == sorted(bodies)


async def test_a_message_larger_than_the_buffer_arrives(wire: Wire) -> None:
    body = struct.pack(">H", DETAILS) + bytes(3 << 20)
    sizes: list[int] = []

    async def read() -> None:
        async for frames in wire.stream.dump(framed(b"??"), END):
            sizes.extend([frames.rows.shape[1]] * len(frames.rows))

    reading = asyncio.create_task(read())
    await wire.peer.requests(1)
    await wire.peer.send(framed(body) + framed(struct.pack(">H", END)))
    async with asyncio.timeout(5):
        await reading
    assert sizes == [HEADER.size + len(body)]


async def test_a_cancelled_operation_closes_the_stream(wire: Wire) -> None:
    writing = asyncio.create_task(wire.stream.transact(3, encode, LAYOUT, 16))
    await wire.peer.requests(3)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    with pytest.raises(FibLostError, match="broken off midway"):
        wire.stream.check()


def test_contexts_are_compared_modulo_2_to_the_32() -> None:
    async def scenario() -> None:
        wire = Wire()
        wire.stream._context = 2**32 - 2
        writing = asyncio.create_task(wire.stream.transact(4, encode, LAYOUT, 16))
        asked = await wire.peer.requests(4)
        assert [struct.unpack_from("<I", m, 2)[0] for m in asked] == [2**32 - 2, 2**32 - 1, 0, 1]
        await wire.peer.send(b"".join(reply(m[2:6], 0) for m in asked))
        assert np.array_equal(await writing, np.zeros(4, np.int32))
        wire.close()

    asyncio.run(scenario())
