"""A worker process: ``python -m router_agent.traffic.generators.sockets.worker DESCRIPTOR``.

It is started by `sockets.SocketsGenerator` inside the tester's network namespace, and talks to it over the
socket of that descriptor: a set-up first, then one job and one board's descriptor after the other. It ends
when the other side closes.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle

from router_agent.traffic.generators.coordinated import Ready, coordinated
from router_agent.traffic.generators.sockets.board import Board
from router_agent.traffic.generators.sockets.receiver import ReceiveJob, Receiver, ReceiverSetup
from router_agent.traffic.generators.sockets.sender import Sender, SenderSetup, SendJob


@dataclass(frozen=True)
class Done:
    """The job ended; `drops` are frames each capture ring had to drop."""

    drops: tuple[int, ...] = ()


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


if __name__ == "__main__":
    # messages must be of the module's classes, which those of __main__ are not
    from router_agent.traffic.generators.sockets import worker

    sys.exit(coordinated(int(sys.argv[1]), worker.serve))
