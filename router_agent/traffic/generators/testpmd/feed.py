"""The FIFOs that testpmd's capture devices read from, and the processes that write into them."""

from __future__ import annotations

import os
import subprocess
import sys
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import TypeVar

from router_agent.traffic.generators import pcap
from router_agent.traffic.generators.coordinated import Failed, Ready
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.testpmd.feeder import Fed, FeederSetup, FeedJob, Open, Stop

_FEEDER = "router_agent.traffic.generators.testpmd.feeder"
_ANSWER_S = 20.0
_LEAVE_S = 2.0

Answer = TypeVar("Answer", Ready, Fed)


class Fifo:
    """A FIFO that a capture device reads from.

    A device that reads from an empty one waits without using its CPU, which is what one does whose port only
    receives. The end of the capture lets it go.

    Args:
        path: of the FIFO; it is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path, 0o600)
        self._held = -1

    def begin(self) -> None:
        """Begin a capture: whoever opens the FIFO finds a writer, and pcap's header."""
        # for reading as well: opened for writing alone it would wait for a reader (fifo(7))
        self._held = os.open(self.path, os.O_RDWR)
        os.write(self._held, pcap.HEADER)

    def release(self) -> None:
        """Let go of it; when nobody else writes, the capture ends. Idempotent."""
        if self._held >= 0:
            os.close(self._held)
            self._held = -1


class Feeder:
    """A process that writes one port's stream into a FIFO.

    Args:
        what: what it is called in messages.
        setup: what it needs to know.
    """

    def __init__(self, what: str, setup: FeederSetup) -> None:
        self.what = what
        self.line, theirs = Pipe()
        command = [sys.executable, "-m", _FEEDER, str(theirs.fileno())]
        with theirs:
            # a group of its own: Ctrl-C reaches the coordinator alone, whose end of the line ends the feeder
            self.process = subprocess.Popen(
                command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, process_group=0
            )
        self._send(setup)

    def wait_ready(self) -> None:
        """Wait until it has done what it was last told.

        Raises:
            GeneratorError: it failed, died, or did not answer.
        """
        self._answer(Ready, _ANSWER_S)

    def open(self, rate_pps: float) -> None:
        """Have it open its FIFO, which somebody must be reading.

        Raises:
            GeneratorError: it failed, died, or did not answer.
        """
        self._send(Open(rate_pps))
        self.wait_ready()

    def begin(self, job: FeedJob) -> None:
        """Have it write a stream.

        Raises:
            GeneratorError: it has died.
        """
        self._send(job)

    def stop(self) -> None:
        """Have it end the stream.

        Raises:
            GeneratorError: it has died.
        """
        self._send(Stop())

    def ended(self, timeout_s: float) -> bool:
        """Return whether it has something to say, waiting so long for it."""
        return self.line.poll(timeout_s)

    def result(self) -> Fed:
        """Return the account of the stream.

        Raises:
            GeneratorError: it failed, died, or did not answer.
        """
        return self._answer(Fed, _ANSWER_S)

    def close(self) -> None:
        """End the process."""
        self.line.close()
        try:
            self.process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _send(self, message: object) -> None:
        try:
            self.line.send(message)
        except OSError as error:
            raise self._death() from error

    def _answer(self, kind: type[Answer], timeout_s: float) -> Answer:
        try:
            if not self.line.poll(timeout_s):
                raise GeneratorError(f"the {self.what} has not answered for {timeout_s:.0f} s")
            message: object = self.line.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if isinstance(message, Failed):
            raise GeneratorError(f"the {self.what} failed: {message.reason}\n{message.trace}")
        if not isinstance(message, kind):
            raise GeneratorError(f"the {self.what} answers {message}, expected {kind.__name__}")
        return message

    def _death(self) -> GeneratorError:
        try:
            code: object = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            code = "none yet"
        return GeneratorError(f"the {self.what} process has ended (exit code {code}); see its error output")
