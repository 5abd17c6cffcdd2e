"""Invariant 6: a host whose FIB cannot be made right drains itself, and takes back only what it did itself.

The watcher and what acts for it are processes as their units run them. What router-agent-fail-safe.path does
on a host, starting the latter when the watcher has written its request, is done here by a thread.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.lab import FibKind, Lab
from router_agent.lab.plan import ANNOUNCED
from router_agent.lab.table import generated_table
from router_agent.model import Family

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.timeout(180)]
GRACEFUL = "(65535,0)"


class Host:
    """A lab's POP with a watcher."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        assert lab.frr is not None
        self.lab = lab
        self.config = directory / "drain.yaml"
        self.mark = directory / "drained"
        self._request = directory / "watch" / "request"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "frr": {
                        "vtysh": list(lab.frr.vtysh),
                        "configuration": str(lab.frr.directory / "frr.conf"),
                    },
                    "mark": {"current": str(self.mark), "kept": str(directory / "kept")},
                    "fail_safe": {
                        "control_socket": str(lab.agent.socket),
                        "request": str(self._request),
                        "wrong_seconds": 2,
                        "silent_seconds": 2,
                        "right_seconds": 2,
                        "interval_seconds": 0.2,
                    },
                }
            )
        )
        argv = [sys.executable, "-m", "router_agent.cli", "fail-safe", "watch", "--config", str(self.config)]
        self.watcher = Daemon("watcher", argv, namespace=None, directory=directory)
        self._over = threading.Event()
        self._path_unit = threading.Thread(target=self._follow)

    def __enter__(self) -> Host:
        self.watcher.start()
        self._path_unit.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._path_unit.join()
        self.watcher.stop()

    def _follow(self) -> None:
        last = 0
        while not self._over.wait(0.1):
            now = self._request.stat().st_ino if self._request.exists() else 0
            if now != last:
                last = now
                self.agent("fail-safe", "act")

    def agent(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "router_agent.cli", *arguments, "--config", str(self.config)]
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )

    def told(self) -> bool:
        """Whether the neighbour hears GRACEFUL_SHUTDOWN."""
        return GRACEFUL in self.lab.upstream.command(f"show route for {ANNOUNCED[Family.IPV4]} all")

    def by(self) -> str:
        """Return who drained it; nothing when it is not."""
        if not self.mark.exists():
            return ""
        mark: dict[str, Any] = json.loads(self.mark.read_text())
        return str(mark["by"])

    def wait(self, *, told: bool, by: str) -> None:
        wait_until(
            lambda: (self.told(), self.by()) == (told, by), f"told {told} by {by!r}", seconds=60,
            daemons=[self.watcher], found=lambda: f"{self.told()} by {self.by()!r}\n{self.watcher.tail()}",
        )  # fmt: skip


def _heard(lab: Lab) -> bool:
    """Whether the neighbour has the route; asked for by name, BIRD makes an error of its absence."""
    return ANNOUNCED[Family.IPV4] in lab.upstream.command("show route")


@pytest.fixture(params=[FibKind.KERNEL, pytest.param(FibKind.VPP, marks=pytest.mark.vpp)])
def host(request: pytest.FixtureRequest, lab_name: str, tmp_path: Path) -> Iterator[Host]:
    with Lab(lab_name, table=generated_table(200, 50), fib=request.param) as lab:
        lab.start()
        lab.wait_settled()
        # What it announces may come to the neighbour after all that it hears.
        wait_until(lambda: _heard(lab), "the neighbour to hear what the POP announces", seconds=60)
        with Host(lab, tmp_path) as host:
            wait_until(lambda: "the FIB is right" in host.watcher.tail(), "a first look", seconds=30)
            yield host


def test_the_host_drains_itself_and_takes_that_back(host: Host) -> None:
    """The agent is gone for good; with VPP, VPP is."""
    lab = host.lab
    if lab.plane.kind == "vpp":
        lab.plane.kill()
    else:
        lab.agent.daemon.kill()
    host.wait(told=True, by="fail-safe")
    reason = json.loads(host.mark.read_text())["reason"]
    assert ("fib-lost" if lab.plane.kind == "vpp" else "the agent does not answer") in reason

    if lab.plane.kind == "vpp":
        lab.plane.start()
    else:
        lab.agent.start()
    host.wait(told=False, by="")


def test_an_operators_drain_is_not_taken_back(host: Host) -> None:
    assert host.agent("drain", "--no-wait", "--by", "noc").returncode == 0
    host.wait(told=True, by="noc")
    host.lab.agent.daemon.kill()
    wait_until(lambda: "the FIB is silent, drained" in host.watcher.tail(), "the watcher to see", seconds=30)
    host.lab.agent.start()
    wait_until(lambda: "the FIB is right, drained" in host.watcher.tail(), "the watcher to see", seconds=30)
    # Longer than the host would wait with a drain of its own.
    threading.Event().wait(4)
    assert (host.told(), host.by()) == (True, "noc")

    # What the host did itself becomes the operator's when they drain, too.
    assert host.agent("undrain").returncode == 0
    host.wait(told=False, by="")
    host.lab.agent.daemon.kill()
    host.wait(told=True, by="fail-safe")
    assert host.agent("drain", "--no-wait", "--by", "noc").returncode == 0
    host.lab.agent.start()
    threading.Event().wait(4)
    assert (host.told(), host.by()) == (True, "noc")
