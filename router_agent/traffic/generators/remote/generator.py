"""A generator on another host, as if it were here; see `serve` for the other side."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from router_agent import __version__
from router_agent.traffic.counters.answers import Drop
from router_agent.traffic.counters.source import CounterError, CounterSource, DropClass
from router_agent.traffic.generators.generator import GeneratorError, Snapshot, TrialResult
from router_agent.traffic.generators.remote.messages import Message, MessageError, Reader
from router_agent.traffic.generators.remote.values import Columns, ValueFormatError, packed, unpacked
from router_agent.traffic.reach import Reach, ReachError, Session
from router_agent.traffic.scenario import Endpoints, GeneratorBinding, Scenario

PROGRAM = "router-agent"
_SETUP_S = 120.0
_ANSWER_S = 60.0
_SILENCE_S = 30.0
"""A generator's host that says nothing for so long while it sends is given up."""

_LEAVE_S = 10.0
_PING_S = 1.0
_PROGRESS_S = 0.1
_WAITING = 64


class RemoteGenerator:
    """A generator on another host; see `generator.Generator`.

    Args:
        scenario: what to send.
        endpoints: ports of that host.
        reach: the host; it is entered and left with the generator.
        binding: which generator it is there.
        program: the kit's program there.
    """

    process_ids: tuple[int, ...] = ()
    """None of this host's processes sends."""

    def __init__(
        self,
        scenario: Scenario,
        endpoints: Endpoints,
        reach: Reach,
        *,
        binding: GeneratorBinding | None = None,
        program: str = PROGRAM,
    ) -> None:
        self.scenario = scenario
        self.endpoints = endpoints
        self._reach = reach
        self._binding = binding or GeneratorBinding()
        self._program = program
        self._line: _Line | None = None
        self._stack = ExitStack()
        self._ready: dict[str, Any] = {}

    @property
    def kind(self) -> str:
        """Its name in scenarios and reports."""
        return str(self._ready.get("kind", self._binding.kind))

    @property
    def follows_packets(self) -> bool:
        """Whether it knows the fate of each packet; known once it is open."""
        return bool(self._ready.get("follows_packets", False))

    @property
    def counters(self) -> tuple[CounterSource, ...]:
        """Counters of the tester's ports, which are on that host."""
        return (_TesterCounters(self),)

    @property
    def host(self) -> str:
        """The host it is on."""
        return self._reach.host

    @property
    def line(self) -> _Line:
        """The line to the other side.

        Raises:
            GeneratorError: it is not open.
        """
        if self._line is None:
            raise GeneratorError("the generator is not open: use it in a `with` block")
        return self._line

    def __enter__(self) -> Self:
        columns: Columns = {}
        setup = {
            "scenario": packed(self.scenario, columns),
            "endpoints": packed(self.endpoints, columns),
            # the host is reached from here; there it is at home
            "binding": self._binding.model_copy(update={"host": None}).model_dump(mode="json"),
        }
        with ExitStack() as stack:
            try:
                session = stack.enter_context(self._reach).open([self._program, "traffic", "generate"])
            except ReachError as error:
                raise GeneratorError(f"the generator's host {error}") from error
            self._line = line = _Line(session)
            stack.callback(self._hang_up)
            self._ready = line.ask(Message("setup", setup, columns), "ready", _SETUP_S).fields
            if (version := self._ready.get("version")) != __version__:
                raise GeneratorError(
                    f"the generator's host {self.host} has version {version} of the kit, expected "
                    f"{__version__}: install the same on both"
                )
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def start(self, rate_pps: float, duration_s: float, *, packets: int | None = None) -> RemoteRunning:
        """Begin to send; see `generator.Generator`."""
        order = {"rate_pps": rate_pps, "duration_s": duration_s, "packets": packets}
        self.line.ask(Message("start", order), "started", _ANSWER_S)
        return RemoteRunning(self.line)

    def _hang_up(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class RemoteRunning:
    """A stream under way on another host; see `generator.Running`."""

    def __init__(self, line: _Line) -> None:
        self._line = line

    def snapshot(self) -> Snapshot:
        """Return where it was a moment ago."""
        return self._line.snapshot

    def finish(self, progress: Callable[[Snapshot], None] | None = None) -> TrialResult:
        """Wait for its end; see `generator.Running`."""
        while True:
            message = self._line.answer("result", _PROGRESS_S)
            if message is not None:
                break
            if progress is not None:
                progress(self.snapshot())
            self._line.require_heard(_SILENCE_S)
        try:
            return unpacked(TrialResult, message.fields.get("result"), message.columns)
        except ValueFormatError as error:
            raise GeneratorError(f"{self._line.host}: {error}") from error

    def stop(self) -> TrialResult:
        """End it now; see `generator.Running`."""
        self._line.send(Message("stop"))
        return self.finish()


class _TesterCounters:
    """Counters of the generator's host; see `source.CounterSource`."""

    def __init__(self, generator: RemoteGenerator) -> None:
        self._generator = generator
        self.name = f"tester on {generator.host}"

    def read(self) -> dict[str, int]:
        found = self._ask(Message("read"), "counters").fields["counters"]
        return {str(name): int(value) for name, value in found.items()}

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        moved = {name: n for name, n in growth.items() if n}
        found = self._ask(Message("drops", {"growth": moved}), "drops").fields["drops"]
        try:
            return [Drop.model_validate(drop).drop_class() for drop in found]
        except (ValidationError, ValueError) as error:
            raise CounterError(f"{self.name}: found an answer that is none: {error}") from error

    def _ask(self, question: Message, kind: str) -> Message:
        try:
            return self._generator.line.ask(question, kind, _ANSWER_S)
        except GeneratorError as error:
            raise CounterError(str(error)) from error


class _Line:
    """The line to the other side: takes what it says as it comes, and says every second that we are here."""

    def __init__(self, session: Session) -> None:
        self.host = session.host
        self.snapshot = Snapshot(0.0, 0, 0)
        self._session = session
        self._reader = Reader(lambda most: session.receive(most))
        self._answers: queue.Queue[Message] = queue.Queue(_WAITING)
        self._broken: str | None = None
        self._heard = time.monotonic()
        self._sending = threading.Lock()
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=work, name=f"{what} {self.host}", daemon=True)
            for what, work in (("hear", self._listen), ("ping", self._ping))
        ]
        for thread in self._threads:
            thread.start()

    def send(self, message: Message) -> None:
        """Send a message.

        Raises:
            GeneratorError: nobody is there to hear it.
        """
        try:
            with self._sending:
                self._session.send(message.encoded())
        except ReachError as error:
            raise self._lost(str(error)) from error

    def ask(self, question: Message, kind: str, timeout_s: float) -> Message:
        """Send a message and return the answer.

        Raises:
            GeneratorError: there is none, or another one, or it says what failed.
        """
        if question.kind == "start":
            self.snapshot = Snapshot(0.0, 0, 0)
        self.send(question)
        answer = self.answer(kind, timeout_s)
        if answer is None:
            raise GeneratorError(
                f"the generator's host {self.host} has not answered {question.kind!r} for {timeout_s:.0f} s"
            )
        return answer

    def answer(self, kind: str, timeout_s: float) -> Message | None:
        """Return the next answer; None when there is none in so long.

        Raises:
            GeneratorError: it is another one, or says what failed, or the line is broken.
        """
        try:
            message = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            if self._broken is None:
                return None
            raise self._lost(self._broken) from None
        if message.kind == "failed":
            raise GeneratorError(f"on {self.host}: {message.fields.get('reason')}")
        if message.kind == "lost":
            raise self._lost(str(message.fields["reason"]))
        if message.kind != kind:
            raise GeneratorError(f"{self.host}: found answer {message.kind!r}, expected {kind!r}")
        return message

    def require_heard(self, seconds: float) -> None:
        """Check that the other side has said something lately.

        Raises:
            GeneratorError: it has not.
        """
        silent = time.monotonic() - self._heard
        if silent > seconds:
            raise self._lost(f"nothing heard of it for {silent:.0f} s")

    def close(self) -> None:
        """Hang up, and wait for the other side to take its generator away."""
        self._closing.set()
        with suppress(ReachError, TimeoutError):
            self._session.end_input()
            self._session.exit_code(_LEAVE_S)
        self._session.close()
        for thread in self._threads:
            thread.join(5.0)

    def _lost(self, reason: str) -> GeneratorError:
        sent = self.snapshot
        where = f" {sent.elapsed_s:.1f} s into a stream" if sent.elapsed_s else ""
        return GeneratorError(
            f"the generator's host was lost{where}: {reason}; it stops sending by itself. Nothing is known "
            "of the device"
        )

    def _listen(self) -> None:
        try:
            while (message := self._reader.next()) is not None:
                self._heard = time.monotonic()
                if message.kind == "snapshot":
                    self.snapshot = unpacked(Snapshot, message.fields, {})
                else:
                    self._answers.put(message)
            reason = str(self._session.failure(self._session.exit_code(_ANSWER_S)))
        except (MessageError, ReachError, TimeoutError, ValueFormatError, OSError) as error:
            reason = f"{self.host}: {error}" if not isinstance(error, ReachError) else str(error)
        self._broken = reason
        self._answers.put(Message("lost", {"reason": reason}))

    def _ping(self) -> None:
        while not self._closing.wait(_PING_S):
            try:
                with self._sending:
                    self._session.send(Message("ping").encoded())
            except ReachError:
                return  # whoever waits for an answer learns of it
