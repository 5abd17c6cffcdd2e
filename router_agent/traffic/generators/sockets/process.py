"""A worker process as the coordinator sees it: started in a namespace, given work, waited for, ended."""

from __future__ import annotations

import signal
import subprocess
import sys
from multiprocessing.connection import Pipe
from multiprocessing.reduction import send_handle

from router_agent.namespaces import NamespaceError, inside
from router_agent.traffic.generators.coordinated import Failed, Ready
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.sockets.board import Board
from router_agent.traffic.generators.sockets.worker import Done

_MODULE = "router_agent.traffic.generators.sockets.worker"
_ANSWER_S = 20.0


class WorkerProcess:
    """One worker process and the line to it.

    Args:
        namespace: network namespace to run in.
        what: how errors call it.

    Raises:
        GeneratorError: there is no such namespace, or it may not be entered.
    """

    def __init__(self, namespace: str | None, what: str) -> None:
        self.what = what
        self.line, theirs = Pipe()
        command = [sys.executable, "-m", _MODULE, str(theirs.fileno())]
        try:
            with theirs, inside(namespace):
                # a group of its own: Ctrl-C reaches the coordinator alone, whose end of the line ends it
                self.process = subprocess.Popen(
                    command, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL, process_group=0
                )
        except NamespaceError as error:
            self.line.close()
            raise GeneratorError(f"{what}: {error}") from error

    def send(self, message: object) -> None:
        """Send a message, a broken line being a failure of the generator."""
        try:
            self.line.send(message)
        except OSError as error:
            raise GeneratorError(self._death()) from error

    def send_board(self, board: Board) -> None:
        """Give the worker a board."""
        try:
            send_handle(self.line, board.descriptor, self.process.pid)
        except OSError as error:
            raise GeneratorError(self._death()) from error

    def answer(self, timeout_s: float = _ANSWER_S) -> Ready | Done:
        """Return the worker's next word.

        Raises:
            GeneratorError: it failed, died, or said nothing for so long.
        """
        try:
            if not self.line.poll(timeout_s):
                raise GeneratorError(f"the {self.what} has not answered for {timeout_s:.0f} s")
            message: Ready | Done | Failed = self.line.recv()
        except (EOFError, OSError) as error:
            raise GeneratorError(self._death()) from error
        if isinstance(message, Failed):
            raise GeneratorError(f"the {self.what} failed: {message.reason}\n{message.trace}")
        return message

    def close(self) -> None:
        """End the process."""
        self.line.close()
        try:
            self.process.wait(2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _death(self) -> str:
        try:
            code = self.process.wait(1.0)
        except subprocess.TimeoutExpired:
            return f"the {self.what} process (pid {self.process.pid}) has closed its line and still runs"
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return f"the {self.what} process has ended ({how}); see its error output"
