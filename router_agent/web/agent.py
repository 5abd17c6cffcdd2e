"""Asking the agent, from the web process: in time, seldom, and without ever failing.

An agent that is down, busy or slow is a state to show, so `Agent` raises nothing: every answer says what was
heard and when, or why nothing was. Those who ask the same within `SHARED_SECONDS` share one answer, those who
ask while it is under way wait for it: ten viewers cost the agent what one does.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from router_agent.observe.answers import (
    Audit,
    Counters,
    ErrorKind,
    ExplainRequest,
    Explanation,
    NeighbourRow,
    RouteFilter,
    RouteRow,
    Status,
)

SHARED_SECONDS = 1.0
"""An answer is given again for so long."""
ANSWER_SECONDS = 8.0
"""Longest wait for an answer; Prometheus gives up after 10 s."""
ASKED_AT_ONCE = 4
"""Questions that are under way at one time; the agent takes eight clients of this kind."""
WAITING = 32
"""Questions that wait for their turn or an answer; more are not put."""
ANSWERS_KEPT = 64
ANSWER_BYTES = 4 << 20
LINE_BYTES = 1 << 20

A = TypeVar("A", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Heard(Generic[A]):
    """What came of a question.

    Attributes:
        rows: the answer; empty when there is none.
        problem: why there is none; None when there is one.
        at: when that was known, seconds since 1970.
        kind: of the agent's refusal, if it was one.
    """

    rows: tuple[A, ...]
    problem: str | None
    at: float
    kind: ErrorKind | None = None

    @property
    def row(self) -> A | None:
        """The answer, where it is a single row."""
        return self.rows[0] if self.rows else None


@dataclass(slots=True)
class _Question:
    """A question that was put, and when its answer came (of the loop's clock)."""

    task: asyncio.Task[Heard[Any]]
    ended: float = math.inf

    def end(self, _: object) -> None:
        self.ended = asyncio.get_running_loop().time()


class Agent:
    """Asks one agent over its socket for readers.

    Args:
        path: of the socket.
        name: who answers there, for messages.
        unit: its service, likewise.
        shared_seconds: how long an answer is given again.
        answer_seconds: longest wait for one.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str = "the agent",
        unit: str = "router-agent",
        shared_seconds: float = SHARED_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._path = path
        self._name = name
        self._unit = unit
        self._shared_seconds = shared_seconds
        self._answer_seconds = answer_seconds
        self._asked: OrderedDict[str, _Question] = OrderedDict()
        self._turns = asyncio.Semaphore(ASKED_AT_ONCE)

    async def status(self) -> Heard[Status]:
        """Return the state of the agent and its pipelines."""
        return await self.ask("status", Status)

    async def counters(self) -> Heard[Counters]:
        """Return what the forwarding planes have counted."""
        return await self.ask("counters", Counters)

    async def audit(self) -> Heard[Audit]:
        """Return how the audits go, with the last findings."""
        return await self.ask("audit", Audit)

    async def neighbours(self) -> Heard[NeighbourRow]:
        """Return every neighbour."""
        return await self.ask("neighbours", NeighbourRow)

    async def routes(self, wanted: RouteFilter) -> Heard[RouteRow]:
        """Return routes; `wanted` must have a limit of at most 1,000."""
        return await self.ask("routes", RouteRow, wanted.model_dump(mode="json"))

    async def explain(self, wanted: ExplainRequest) -> Heard[Explanation]:
        """Return the way of one prefix from its feed to the FIB."""
        return await self.ask("explain", Explanation, wanted.model_dump(mode="json"))

    async def ask(self, command: str, shape: type[A], arguments: Mapping[str, Any] | None = None) -> Heard[A]:
        """Return what the agent answers, or why it does not; `router_agent.control` lists commands."""
        question = json.dumps({"command": command, "arguments": arguments or {}}, sort_keys=True)
        now = asyncio.get_running_loop().time()
        put = self._asked.get(question)
        if put is None or now - put.ended >= self._shared_seconds:
            if sum(not question.task.done() for question in self._asked.values()) >= WAITING:
                return _nothing(f"{WAITING} questions wait for the agent already; try again")
            put = self._asked[question] = _Question(asyncio.create_task(self._ask(question, shape)))
            put.task.add_done_callback(put.end)
            self._asked.move_to_end(question)
            self._forget()
        # Whoever asked first may leave; the others still want to hear.
        return await asyncio.shield(put.task)

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [question.task for question in self._asked.values()]
        self._asked.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self) -> None:
        """Forget the oldest answers; a question that is under way is remembered."""
        for text, question in list(self._asked.items()):
            if len(self._asked) <= ANSWERS_KEPT:
                return
            if question.task.done():
                del self._asked[text]

    async def _ask(self, question: str, shape: type[A]) -> Heard[A]:
        try:
            async with asyncio.timeout(self._answer_seconds):
                async with self._turns:
                    return await self._converse(question, shape)
        except TimeoutError:
            return _nothing(
                f"no answer of {self._name} within {self._answer_seconds:g} s; it is busy or hangs"
            )
        except OSError as error:
            return _nothing(
                f"{self._name} does not answer on {self._path} ({error.strerror or error}): "
                f"systemctl status {self._unit}"
            )

    async def _converse(self, question: str, shape: type[A]) -> Heard[A]:
        """Put one question on a connection of its own.

        Raises:
            OSError: nobody is there, or it went away.
        """
        reader, writer = await asyncio.open_unix_connection(str(self._path), limit=LINE_BYTES)
        try:
            writer.write(question.encode() + b"\n")
            return await _read(reader, shape)
        finally:
            writer.transport.abort()


async def _read(reader: asyncio.StreamReader, shape: type[A]) -> Heard[A]:
    rows: list[A] = []
    left = ANSWER_BYTES
    while left > 0:
        try:
            line = await reader.readline()
        except ValueError:
            return _nothing(f"found a line of more than {LINE_BYTES} bytes in the agent's answer")
        left -= len(line)
        match _decoded(line):
            case {"row": dict(row)}:
                try:
                    rows.append(shape.model_validate(row))
                except ValidationError as error:
                    return _nothing(
                        f"found no {shape.__name__} in the agent's answer: {error.error_count()} mistakes"
                    )
            case {"error": {"kind": str(kind), "message": str(message)}}:
                known = kind in ErrorKind.__members__.values()
                return _nothing(
                    f"the agent says: {message}", ErrorKind(kind) if known else ErrorKind.INTERNAL
                )
            case {"end": True}:
                return Heard(tuple(rows), None, time.time())
            case _:
                return _nothing("the agent stopped in the middle of its answer")
    return _nothing(f"found an answer of more than {ANSWER_BYTES} bytes")


def _nothing(problem: str, kind: ErrorKind | None = None) -> Heard[Any]:
    return Heard((), problem, time.time(), kind)


def _decoded(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None
