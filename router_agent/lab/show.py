"""What a run of the lab shows while it works, and how to look around in a lab that was left up."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.status import Status
from rich.text import Text

from router_agent.lab.lab import Lab
from router_agent.lab.plan import IN
from router_agent.lab.plane import VppPlane
from router_agent.model import Family

_WIDTH = 36


@dataclass
class Stage:
    """One stage of a run.

    Attributes:
        title: what is done.
        seconds: how long it took, once it has ended.
        detail: what came of it.
    """

    title: str
    seconds: float = 0.0
    detail: str = ""
    _status: Status | None = field(default=None, repr=False)

    def now(self, text: str) -> None:
        """Show how far it is."""
        if self._status is not None:
            self._status.update(f"{self.title}: {text}")


class Stages:
    """Shows stages as they go by: a spinner on a terminal, and a line for each that has ended.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self.done: list[Stage] = []

    @contextmanager
    def stage(self, title: str) -> Iterator[Stage]:
        """Show a stage while the body runs; its line is printed when the body ends without an error."""
        stage = Stage(title)
        began = time.monotonic()
        with self.console.status(title) as status:
            stage._status = status
            yield stage
        stage.seconds = time.monotonic() - began
        self.done.append(stage)
        line = Text.assemble(
            ("ok  ", "green"), title.ljust(_WIDTH), (f"{stage.seconds:6.1f} s  ", "dim"), stage.detail
        )
        self.console.print(line, soft_wrap=True)


def ways_in(lab: Lab, scenario: Path) -> str:
    """Return how to look around in a lab that stays up, how to check it, and how to take it down."""
    topology = lab.topology
    lines = [f"The lab {topology.name!r} stays up. Look around:"]
    if lab.frr:
        lines.append(f"  {' '.join(lab.frr.vtysh)}")
    lines += [
        f"  birdc -s {lab.upstream.control} show protocols",
        f"  {sys.executable} -m router_agent.cli show status --socket {lab.agent.socket}",
        f"  {sys.executable} -m router_agent.cli explain 1.1.1.1 --socket {lab.agent.socket}",
    ]
    if isinstance(lab.plane, VppPlane):
        lines.append(f"  vppctl -s {lab.plane.process.cli_socket} show ip fib summary")
    else:
        lines.append(f"  ip -n {topology.forwarding} route get 1.1.1.1 iif in from {IN.gateway(Family.IPV4)}")
    lines += [
        f"  ip netns exec {topology.pop} ip -statistics link",
        f"  tail -n 20 {topology.directory}/*/*.log",
        "Send traffic through it:",
        f"  {sys.executable} -m router_agent.cli traffic check {scenario}",
        "Take it down:",
        f"  {sys.executable} -m router_agent.lab down --name {topology.name}",
    ]
    return "\n".join(lines)
