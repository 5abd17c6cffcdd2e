"""The agent in the lab: a process like any other, configured from the template and asked over its socket."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from router_agent.config import ConfigError, load
from router_agent.control import ControlClient, ControlError, RefusedError
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.errors import LabError
from router_agent.lab.render import render
from router_agent.lab.topology import Topology
from router_agent.model import Family
from router_agent.observe.answers import AuditRequest, PipelineStatus, State, Status

_READY_SECONDS = 30.0


class Agent:
    """``router-agent run`` in the POP's namespace.

    Args:
        topology: of a lab that is built.
        pipelines: what agent.yaml lists.
    """

    def __init__(self, topology: Topology, pipelines: Sequence[Mapping[str, Any]]) -> None:
        self.directory = topology.directory / "agent"
        self.config = self.directory / "agent.yaml"
        self.socket = self.directory / "control.sock"
        self.readers_socket = self.directory / "readers.sock"
        self.client = ControlClient(self.socket)
        self._pipelines = pipelines
        self.daemon = Daemon(
            "router-agent",
            [sys.executable, "-m", "router_agent.cli", "run", "--config", str(self.config)],
            namespace=topology.pop,
            directory=self.directory,
        )

    def configure(self) -> None:
        """Write agent.yaml and check it.

        Raises:
            LabError: the configuration cannot be used.
        """
        self.directory.mkdir(exist_ok=True)
        self.config.write_text(agent_config(self._pipelines, self.socket, self.readers_socket))
        try:
            load(self.config)
        except ConfigError as error:
            raise LabError(str(error)) from error

    def start(self) -> None:
        """Start the agent and wait until it answers.

        Raises:
            LabError: it does not.
        """
        self.daemon.start()
        wait_until(
            lambda: self.status() is not None,
            "the agent to answer",
            seconds=_READY_SECONDS,
            daemons=[self.daemon],
        )

    def stop(self) -> None:
        """Stop the agent; what the FIB holds stays."""
        self.daemon.stop()

    def kill(self) -> None:
        """Kill the agent as a crash would."""
        self.daemon.kill()

    def status(self) -> Status | None:
        """Return what the agent says about itself; None when it does not answer."""
        try:
            return self.client.status()
        except (ControlError, RefusedError):
            return None

    def pipeline(self, name: str = "fib") -> PipelineStatus | None:
        """Return the state of a pipeline; None when the agent does not answer or does not have it."""
        status = self.status()
        found = [pipeline for pipeline in status.pipelines if pipeline.name == name] if status else []
        return found[0] if found else None

    def holds(self, wanted: Mapping[Family, int]) -> bool:
        """Return whether every pipeline is in sync and the last one's FIB has just so many routes."""
        status = self.status()
        if status is None or not status.in_sync:
            return False
        return {counts.family: counts.in_fib for counts in status.pipelines[-1].counts} == dict(wanted)

    def wait_holds(self, wanted: Mapping[Family, int], *, seconds: float) -> None:
        """Wait until every pipeline is in sync and the last one's FIB has just so many routes.

        Raises:
            LabError: it does not get there.
        """
        words = " and ".join(f"{count:,} {family.label}" for family, count in wanted.items())
        wait_until(
            lambda: self.holds(wanted),
            f"the agent to be in sync with {words} routes",
            seconds=seconds,
            daemons=[self.daemon],
            found=self.summary,
        )

    def summary(self) -> str:
        """Return the state of every pipeline in a line, for messages."""
        status = self.status()
        if status is None:
            return "no answer"
        return "; ".join(map(_words, status.pipelines))

    def drift(self) -> int:
        """Have the agent read every FIB back and return how many prefixes differ.

        Raises:
            LabError: the agent cannot compare now.
        """
        try:
            return self.client.audit(AuditRequest(full=True)).total
        except (ControlError, RefusedError) as error:
            raise LabError(f"the agent does not compare its FIBs: {error}") from error


def agent_config(
    pipelines: Sequence[Mapping[str, Any]], socket: Path, readers_socket: Path | None = None
) -> str:
    """Return the lab's agent.yaml."""
    return render(
        "agent.yaml.j2",
        hostname="pop1",
        pipelines=pipelines,
        control_socket=socket,
        readers_socket=readers_socket,
    )


def _words(pipeline: PipelineStatus) -> str:
    counts = ", ".join(
        f"{c.family.label} {c.in_fib:,} of {c.desired:,}"
        + "".join(f", {n} {r}" for r, n in c.not_in_fib.items())
        for c in pipeline.counts
    )
    trouble = f" ({pipeline.error})" if pipeline.error and pipeline.state is not State.IN_SYNC else ""
    return f"{pipeline.name} {pipeline.state}{trouble}: {counts or 'nothing yet'}"
