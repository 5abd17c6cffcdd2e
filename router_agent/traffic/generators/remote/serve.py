"""The far side of a generator on another host: ``router-agent traffic generate``.

    setup {scenario, endpoints, binding}  ->  ready {kind, follows_packets}
    start {rate_pps, duration_s, packets} ->  started, snapshot ..., result
    stop                                  ->  (the result comes sooner)
    read, drops {growth}                  ->  counters, drops
    ping                                  ->
    whatever goes wrong                   ->  failed {reason}

Packets must not go on without somebody who counts them: when standard input ends, or nothing has been heard
for `SILENCE_S`, the stream is stopped at once and the generator taken away.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pydantic import ValidationError

from router_agent import __version__
from router_agent.traffic.counters.answers import Drop
from router_agent.traffic.counters.source import CounterError
from router_agent.traffic.counters.together import Together
from router_agent.traffic.generators import registry
from router_agent.traffic.generators.generator import (
    Generator,
    GeneratorError,
    Running,
    Snapshot,
    TrialResult,
)
from router_agent.traffic.generators.remote.messages import Message, MessageError, Reader
from router_agent.traffic.generators.remote.values import ValueFormatError, packed, unpacked
from router_agent.traffic.scenario import Endpoints, GeneratorBinding, Scenario, ScenarioError

SILENCE_S = 10.0
"""Who is in charge says something every second."""

_SETUP_S = 60.0
_TELL_S = 0.1
_WAITING = 64


class _GoneError(Exception):
    """Nobody is in charge any more."""


class _StopError(Exception):
    """The stream shall end now, while its end is being waited for."""


class Server:
    """Does what one controller says.

    Args:
        receive: returns bytes from the controller, at most as many as asked for; none at the end.
        send: sends bytes to it.
    """

    def __init__(self, receive: Callable[[int], bytes], send: Callable[[bytes], None]) -> None:
        self._reader = Reader(receive)
        self._send = send
        self._inbox: queue.Queue[Message | None] = queue.Queue(_WAITING)
        self._heard = time.monotonic()

    def run(self) -> None:
        """Serve until the controller is gone."""
        threading.Thread(target=self._listen, name="controller", daemon=True).start()
        with suppress(_GoneError, OSError):
            self._serve()

    def _serve(self) -> None:
        message = self._next(_SETUP_S)
        try:
            generator = self._set_up(message)
            with generator:
                self._tell(
                    "ready",
                    kind=generator.kind,
                    follows_packets=generator.follows_packets,
                    version=__version__,
                )
                self._obey(generator, Together("tester", generator.counters))
        except (GeneratorError, ScenarioError, ValueFormatError, CounterError) as error:
            self._tell("failed", reason=str(error))

    def _set_up(self, message: Message) -> Generator:
        if message.kind != "setup":
            raise GeneratorError(f"found message {message.kind!r}, expected setup first")
        given, columns = message.fields, message.columns
        try:
            binding = GeneratorBinding.model_validate(given.get("binding"))
        except ValidationError as error:
            raise GeneratorError(f"found a binding that is not known here: {error}") from error
        scenario = unpacked(Scenario, given.get("scenario"), columns)
        endpoints = unpacked(Endpoints, given.get("endpoints"), columns)
        return registry.make(scenario, endpoints, binding)

    def _obey(self, generator: Generator, counters: Together) -> None:
        while True:
            message = self._next(SILENCE_S)
            try:
                match message.kind:
                    case "start":
                        self._stream(generator, message.fields)
                    case "read":
                        self._tell("counters", counters=counters.read())
                    case "drops":
                        drops = [Drop.of(drop) for drop in counters.drops(message.fields["growth"])]
                        self._tell("drops", drops=[drop.model_dump() for drop in drops])
            except (GeneratorError, CounterError) as error:
                self._tell("failed", reason=str(error))

    def _stream(self, generator: Generator, order: dict[str, Any]) -> None:
        rate_pps, duration_s, packets = order["rate_pps"], order["duration_s"], order["packets"]
        running = generator.start(rate_pps, duration_s, packets=packets)
        self._tell("started")
        columns: dict[str, Any] = {}
        result = packed(self._follow(running, duration_s), columns)
        self._send(Message("result", {"result": result}, columns).encoded())

    def _follow(self, running: Running, duration_s: float) -> TrialResult:
        """Wait for a stream's end, or for somebody to want it, and tell where it is meanwhile."""
        try:
            while running.snapshot().elapsed_s < duration_s:
                self._report(running.snapshot())
                self._look(_TELL_S)
            return running.finish(self._watch)
        except _StopError:
            return running.stop()
        except _GoneError:
            # packets first; what became of them nobody asks any more
            with suppress(GeneratorError):
                running.stop()
            raise

    def _watch(self, now: Snapshot) -> None:
        self._report(now)
        self._look(0.0)

    def _look(self, timeout_s: float) -> None:
        """Take what the controller says during a stream, waiting for it as long."""
        try:
            message = self._inbox.get(timeout=timeout_s) if timeout_s else self._inbox.get_nowait()
        except queue.Empty:
            if time.monotonic() - self._heard > SILENCE_S:
                raise _GoneError from None
            return
        if message is None:
            raise _GoneError
        if message.kind == "stop":
            raise _StopError

    def _report(self, now: Snapshot) -> None:
        try:
            self._tell("snapshot", **asdict(now))
        except OSError as error:
            raise _GoneError from error

    def _next(self, timeout_s: float) -> Message:
        """Return what the controller says next."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                message = self._inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise _GoneError from None
            if message is None:
                raise _GoneError
            if message.kind != "ping":
                return message
            deadline = time.monotonic() + timeout_s

    def _tell(self, what: str, /, **fields: Any) -> None:
        self._send(Message(what, fields).encoded())

    def _listen(self) -> None:
        """Take messages as they come; a line that ends, or brings anything else, is the end."""
        try:
            while (message := self._reader.next()) is not None:
                self._heard = time.monotonic()
                self._inbox.put(message)
        except (MessageError, OSError) as error:
            print(f"the controller: {error}", file=sys.stderr)
        self._inbox.put(None)


def main() -> None:
    """Serve the controller at standard input and output."""
    # what a generator's processes print must not get between messages
    output = os.dup(1)
    os.dup2(2, 1)
    lock = threading.Lock()

    def send(data: bytes) -> None:
        view = memoryview(data)
        with lock:
            while view:
                view = view[os.write(output, view) :]

    Server(lambda most: os.read(0, most), send).run()
