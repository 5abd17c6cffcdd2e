"""A worker process: ``python -m router_agent.traffic.generators.sockets.worker DESCRIPTOR``.

It is started by `sockets.SocketsGenerator` inside the tester's network namespace, and talks to it over the
socket of that descriptor: a set-up first, then one job and one board's descriptor after the other. It ends
when the other side closes.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

from router_agent.traffic.generators.sockets.board import Board
from router_agent.traffic.generators.sockets.receiver import ReceiveJob, Receiver, ReceiverSetup
from router_agent.traffic.generators.sockets.sender import Sender, SenderSetup, SendJob


@dataclass(frozen=True)
class Ready:
    """The worker is set up, or began a job."""


@dataclass(frozen=True)
class Done:
    """The job ended; `drops` are frames each capture ring had to drop."""

    drops: tuple[int, ...] = ()


@dataclass(frozen=True)
class Failed:
    """The worker cannot go on, and why."""

    reason: str
    trace: str


def serve(parent: Connection) -> None:
    """Do what the coordinator says until it closes.

    Raises:
        EOFError: the coordinator closed.
    """
    setup: SenderSetup | ReceiverSetup = parent.recv()
    if isinstance(setup, SenderSetup):
        _serve_sender(Sender(setup), parent)
    else:
        receiver = Receiver(setup)
        try:
            _serve_receiver(receiver, parent)
        finally:
            receiver.close()


def _serve_sender(sender: Sender, parent: Connection) -> None:
    parent.send(Ready())
    while True:
        job: SendJob = parent.recv()
        board = Board(recv_handle(parent), job.layout)
        sender.run(job, board, parent)
        parent.send(Done())
        board.close()


def _serve_receiver(receiver: Receiver, parent: Connection) -> None:
    parent.send(Ready())
    while True:
        job: ReceiveJob = parent.recv()
        board = Board(recv_handle(parent), job.layout)
        receiver.drain()
        parent.send(Ready())
        parent.send(Done(tuple(receiver.run(job, board, parent))))
        board.close()


def main(descriptor: int) -> int:
    """Serve one coordinator; return an exit code."""
    with Connection(descriptor) as parent:
        try:
            serve(parent)
        except (EOFError, KeyboardInterrupt):
            return 0
        except Exception as error:  # noqa: BLE001  the coordinator raises it again
            with contextlib.suppress(OSError):
                parent.send(Failed(f"{type(error).__name__}: {error}", traceback.format_exc()))
            return 1
    return 0


if __name__ == "__main__":
    # messages must be of the module's classes, which those of __main__ are not
    from router_agent.traffic.generators.sockets import worker

    sys.exit(worker.main(int(sys.argv[1])))
