"""Who keeps VPP's FIB as the kernel's is."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from router_agent.control import ControlClient, ControlError, RefusedError
from router_agent.observe.answers import PipelineStatus

_STOP_SECONDS = 30.0
RECEIVE_BYTES = 128 << 20

Interfaces = Literal["auto"] | dict[str, str]
"""linux-cp's pairs, or kernel interface to VPP interface."""

AUDIT_RATE = 250
"""Look-ups a second of the agent's audit. Its default, 5,000, would keep an emulated processor busy."""


@dataclass(slots=True)
class Contender:
    """linux-nl: everything happens in VPP.

    Attributes:
        name: as it is called in the tables.
        plugins: of VPP, beside those of both.
        linux_cp: options of the ``linux-cp`` stanza, beside those of both.
        stanzas: further stanzas of startup.conf.
        settings: what was set, for people.
    """

    name: str
    plugins: tuple[str, ...] = ()
    linux_cp: tuple[str, ...] = ()
    stanzas: tuple[str, ...] = ()
    settings: str = ""

    @property
    def pid(self) -> int | None:
        """The process that follows the kernel, where it is not VPP."""
        return None

    def start(self, directory: Path, namespace: str, interfaces: Interfaces) -> None:
        """Start what runs beside VPP.

        Args:
            directory: with VPP's API socket.
            namespace: of the control plane.
            interfaces: which VPP interface stands for which of the kernel's.
        """

    def stop(self) -> None:
        """Stop it."""

    def said(self) -> str:
        """What it reports of itself when something is wrong."""
        return ""


@dataclass(slots=True)
class Agent(Contender):
    """router-agent, a process beside VPP."""

    _process: subprocess.Popen[bytes] | None = field(default=None)
    _client: ControlClient | None = field(default=None)

    @property
    def pid(self) -> int | None:
        """See `Contender`."""
        return self._process.pid if self._process else None

    def start(self, directory: Path, namespace: str, interfaces: Interfaces) -> None:
        """See `Contender`."""
        socket = directory / "agent.sock"
        config = directory / "agent.yaml"
        pipeline = {
            "name": "frr",
            "feed": {"kind": "kernel", "namespace": namespace, "protocols": ["bgp"]},
            "fib": {
                "kind": "vpp",
                "api_socket": str(directory / "api.sock"),
                "interfaces": interfaces,
                "mirror": ["links", "addresses"] if interfaces == "auto" else [],
            },
            "audit": {"rate": AUDIT_RATE},
        }
        config.write_text(yaml.safe_dump({"pipelines": [pipeline], "control": {"socket": str(socket)}}))
        with (directory / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "router_agent.cli", "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._client = ControlClient(socket)

    def stop(self) -> None:
        """See `Contender`."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def status(self) -> PipelineStatus | None:
        """Return the state of the pipeline, None while the agent does not answer."""
        try:
            return self._client.status().pipelines[0] if self._client else None
        except (ControlError, RefusedError):
            return None

    def wait_answers(self, seconds: float) -> None:
        """Wait until the agent answers.

        Raises:
            RuntimeError: it ended, or does not in time.
        """
        deadline = time.monotonic() + seconds
        while self.status() is None:
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("router-agent does not answer; see agent.log")
            time.sleep(0.2)

    def said(self) -> str:
        """See `Contender`."""
        status = self.status()
        if status is None:
            return "no answer"
        absent = {str(r): n for counts in status.counts for r, n in counts.not_in_fib.items()}
        return f"{status.state}, {absent or 'nothing absent'}" + (f", {status.error}" if status.error else "")


def contenders() -> dict[str, Contender]:
    """Return all of them by name."""
    follow = ("del-static-on-link-down", "del-dynamic-on-link-down")
    large = f"nl-rx-buffer-size {RECEIVE_BYTES}"
    return {
        "router-agent": Agent(
            "router-agent",
            settings=f"`interfaces: auto`, `mirror: [links, addresses]`, audit rate {AUDIT_RATE}",
        ),
        "linux-nl": Contender(
            "linux-nl",
            ("linux_nl_plugin.so",),
            follow,
            (f"linux-nl {{\n  {large}\n}}",),
            f"{', '.join(follow)}; {large}, net.core.rmem_max as much; batches as built in",
        ),
        "linux-nl, large batches": Contender(
            "linux-nl, large batches",
            ("linux_nl_plugin.so",),
            follow,
            (f"linux-nl {{\n  {large}\n  nl-batch-size 20480\n  nl-batch-delay-ms 10\n}}",),
            f"{', '.join(follow)}; {large}, nl-batch-size 20480, nl-batch-delay-ms 10",
        ),
    }
