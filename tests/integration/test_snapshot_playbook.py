"""playbooks/snapshot.yml against the lab's POP: taken, compared, brought to the controller."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_agent.lab.daemon import wait_until
from router_agent.lab.lab import Lab
from router_agent.lab.table import generated_table
from router_agent.model import Family
from router_agent.snapshot.model import Snapshot

from .sshd import program

pytestmark = [pytest.mark.root, pytest.mark.daemons]

ROOT = Path(__file__).parents[2]
SECONDS = 60.0
TOLERANCES = {"fib_gap_percent": 0.5, "errors_per_second": 1_000_000, "unreadable": ["links", "versions"]}
"""The host's interfaces and packages are nobody's business here."""


class Playbook:
    """Runs the playbook for the lab's POP, which is this host.

    Attributes:
        output: of the last run.
        brought: directory of the POP's snapshots on the controller.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.host = f"pop-{secrets.token_hex(3)}"
        self.brought = directory / "brought" / self.host
        self.kept = directory / "kept"
        self.tolerances = directory / "tolerances.yaml"
        self.output = ""

    def run(self, *arguments: str, **variables: Any) -> int:
        """Run it; return the exit code."""
        assert self.lab.frr is not None
        given = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "snapshot_agent": program(self.directory),
            "snapshot_config": str(self.lab.agent.config),
            "snapshot_vtysh": list(self.lab.frr.vtysh),
            "snapshot_directory": str(self.kept),
            "snapshot_fetch": str(self.brought.parent),
            "snapshot_tolerances_file": str(self.tolerances),
            "snapshot_tolerances": TOLERANCES,
        }
        inventory = self.directory / "inventory.yml"
        inventory.write_text(yaml.safe_dump({"routers": {"hosts": {self.host: given | variables}}}))
        done = subprocess.run(
            [
                Path(sys.executable).with_name("ansible-playbook"),
                "playbooks/snapshot.yml",
                "-i",
                inventory,
                *arguments,
            ],
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=3 * SECONDS,
        )
        self.output = done.stdout
        return done.returncode


@pytest.fixture
def playbook(lab_name: str, tmp_path: Path) -> Iterator[Playbook]:
    with Lab(lab_name, table=generated_table(200, 50)) as lab:
        lab.start()
        lab.wait_settled(seconds=SECONDS)
        wait_until(
            lambda: all(lab.upstream.imported(family) == 1 for family in Family),
            "the POP's announcement",
            seconds=SECONDS,
        )
        yield Playbook(lab, tmp_path)
        shutil.rmtree(tmp_path / "kept", ignore_errors=True)


def test_snapshots_are_taken_compared_and_brought_here(playbook: Playbook) -> None:
    assert playbook.run("--check", snapshot_label="monday") == 0, playbook.output
    assert not playbook.kept.exists()
    assert not playbook.brought.exists()

    assert playbook.run(snapshot_label="monday") == 0, playbook.output
    (monday,) = playbook.brought.iterdir()
    taken = Snapshot.model_validate_json(monday.read_text())
    assert (taken.label, taken.unreadable) == ("monday", {})
    assert "2 of 2 sessions up" in playbook.output
    assert yaml.safe_load(playbook.tolerances.read_text()) == TOLERANCES

    assert playbook.run(snapshot_label="friday", snapshot_before="monday") == 0, playbook.output
    assert "within tolerances: " in playbook.output
    # the tolerances were there already, and taking a snapshot is no change
    assert "changed=0" in playbook.output
    assert len(list(playbook.brought.iterdir())) == 2

    playbook.lab.upstream.command("disable pop1_v4")
    wait_until(lambda: playbook.lab.bgp_routes()[Family.IPV4] <= 1, "routes to go", seconds=SECONDS)
    lost = {"snapshot_label": "lost", "snapshot_before": "monday"}
    assert playbook.run(**lost) == 2, playbook.output
    assert "the session is lost" in playbook.output
    assert f"{playbook.host}: NOT within tolerances: " in playbook.output
    assert playbook.run(snapshot_enforce=False, snapshot_tolerances={}, **lost) == 0, playbook.output
    assert not playbook.tolerances.exists()


def test_a_router_that_does_not_answer_in_full_fails_a_take_and_not_a_comparison(playbook: Playbook) -> None:
    assert playbook.run(snapshot_label="before") == 0, playbook.output
    playbook.lab.agent.stop()
    assert playbook.run(snapshot_label="without") == 2, playbook.output
    assert "unreadable" in playbook.output
    silent = TOLERANCES | {"unreadable": ["links", "versions", "agent"]}
    compared = {"snapshot_label": "without", "snapshot_before": "before", "snapshot_tolerances": silent}
    assert playbook.run(**compared) == 0, playbook.output
    names = sorted(json.loads(path.read_text())["label"] for path in playbook.brought.iterdir())
    assert names == ["before", "without"]
