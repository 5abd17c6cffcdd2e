"""playbooks/acceptance.yml against the lab's POP: real FRR, a real kernel that forwards, real packets.

The POP is reached locally here, and over ssh by `make lab-vm`; what the playbook does is the same.
"""

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

from router_agent.lab.lab import Lab
from router_agent.lab.plan import IN, OUT
from router_agent.lab.table import generated_table
from router_agent.model import prefixes_of
from router_agent.traffic.counters.kernel import parse_dev, proc_net

from .sshd import program

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.timeout(240),
]
TABLE = generated_table(400, 100)
PASS, FAIL, INVALID, UNDONE, REFUSED = 0, 1, 3, 4, 5


@pytest.fixture(scope="module")
def lab(module_lab_name: str) -> Iterator[Lab]:
    with Lab(module_lab_name, table=TABLE) as lab:
        lab.start()
        lab.wait_settled()
        yield lab


class Playbook:
    """Runs the playbook for the lab's POP.

    Attributes:
        output: of the last run.
        reports: directory of the POP's reports.
    """

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory
        self.host = f"pop-{secrets.token_hex(3)}"
        self.reports = ROOT / "build" / "acceptance" / self.host
        self.output = ""
        self.kit = program(directory)
        self.drain_file = directory / "drain.yaml"

    def run(self, *arguments: str, **variables: Any) -> int:
        """Run it; return the exit code."""
        inventory = self.directory / "inventory.yml"
        given = self.variables() | variables
        inventory.write_text(yaml.safe_dump({"routers": {"hosts": {self.host: given}}}))
        done = subprocess.run(
            [sys.executable, ROOT / "playbooks" / "acceptance_check.py", "-i", inventory, *arguments],
            cwd=ROOT,
            env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        self.output = done.stdout
        return done.returncode

    def variables(self) -> dict[str, Any]:
        """Return what the inventory says: the POP is here, and its planes are namespaces."""
        topology = self.lab.topology
        assert self.lab.frr is not None

        def port(port: Any) -> dict[str, Any]:
            return {"interface": port.far_name, "namespace": topology.tester, "faces": port.name}

        return {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "acceptance_become": False,
            "acceptance_tier": "functional",
            "acceptance_forwarding": "kernel",
            "acceptance_namespace": topology.forwarding,
            "acceptance_control_namespace": topology.pop,
            "acceptance_vtysh": list(self.lab.frr.vtysh),
            "acceptance_ssh": {},
            "acceptance_agent": self.kit,
            "acceptance_drain_config": str(self.drain_file),
            "acceptance_program": self.kit,
            "acceptance_interfaces": [IN.name, OUT.name],
            "acceptance_frames": [128],
            "acceptance_goal": {"rate": "2 kpps", "duration": "1 s", "unsent_ratio": 0.3},
            "acceptance_ports": {"in": port(IN), "out": port(OUT)},
        }

    def result(self) -> dict[str, Any]:
        """Return result.json."""
        found: dict[str, Any] = json.loads((self.reports / "result.json").read_text())
        return found

    def drained(self, *, drained: bool) -> None:
        """Drain the POP, or undrain it."""
        assert self.lab.frr is not None
        settings = {
            "frr": {
                "vtysh": list(self.lab.frr.vtysh),
                "configuration": str(self.lab.frr.directory / "frr.conf"),
            },
            "mark": {"current": str(self.directory / "drained"), "kept": str(self.directory / "kept")},
        }
        self.drain_file.write_text(yaml.safe_dump(settings))
        words = ["drain", "--no-wait"] if drained else ["undrain"]
        subprocess.run([self.kit, *words, "--config", self.drain_file], check=True)


@pytest.fixture
def playbook(lab: Lab, tmp_path: Path) -> Iterator[Playbook]:
    """The playbook, with a POP that is drained."""
    made = Playbook(lab, tmp_path)
    made.drained(drained=True)
    try:
        yield made
    finally:
        made.drained(drained=False)
        shutil.rmtree(made.reports, ignore_errors=True)


def packets_in(lab: Lab) -> int:
    counters = parse_dev(proc_net(lab.topology.forwarding, ("dev",))["dev"])
    return counters[f"dev.{IN.name}.rx_packets"]


def test_a_drained_router_that_forwards_passes_and_its_reports_are_here(playbook: Playbook) -> None:
    """Destinations are drawn from the router's own table; the MAC to send to is the router's."""
    assert playbook.run() == PASS, playbook.output
    result = playbook.result()
    assert (result["outcome"], result["host"], result["as_found"]) == ("PASS", playbook.host, True)
    assert {path.name for path in playbook.reports.iterdir()} >= {
        "report.json",
        "report.xml",
        "report.html",
        "result.json",
        "scenario.yaml",
    }
    report = json.loads((playbook.reports / "report.json").read_text())
    assert report["tier"] == "functional"
    assert report["proof"]["right"] == report["proof"]["prefixes"] > 300
    assert f"PASS  {playbook.host}: " in playbook.output
    assert "as it was found" in playbook.output
    assert "changed=0" in playbook.output


def test_a_live_router_is_refused_by_name_and_no_packet_is_sent(playbook: Playbook) -> None:
    playbook.drained(drained=False)
    before = packets_in(playbook.lab)
    assert playbook.run() == REFUSED, playbook.output
    assert f"REFUSED {playbook.host} is live: it announces 1 prefixes to " in playbook.output
    assert playbook.result()["outcome"] == "REFUSED"
    assert packets_in(playbook.lab) - before < 100
    assert not (playbook.reports / "report.json").exists()


def test_a_live_router_is_checked_when_told(playbook: Playbook) -> None:
    playbook.drained(drained=False)
    assert playbook.run("-e", "acceptance_live=true", acceptance_proof=False) == PASS, playbook.output


def test_a_prefix_that_is_not_forwarded_fails_the_play(playbook: Playbook) -> None:
    v4 = [str(prefix) for prefix in prefixes_of(TABLE.ipv4)]
    wrong = {"by_port": {"in": v4}, "count": 200}
    assert playbook.run(acceptance_destinations=wrong) == FAIL, playbook.output
    assert f"FAIL {playbook.host}: " in playbook.output
    assert playbook.result()["outcome"] == "FAIL"
    assert (playbook.reports / "report.html").exists()


def test_a_tester_that_is_the_limit_is_another_code_than_a_failure(playbook: Playbook) -> None:
    goal = {"rate": "20 Mpps", "duration": "1 s"}
    assert playbook.run(acceptance_goal=goal, acceptance_proof=False) == INVALID, playbook.output
    assert f"INVALID {playbook.host}: " in playbook.output


def test_a_check_that_dies_leaves_the_router_as_it_was(playbook: Playbook) -> None:
    """A stand-in for a check changes the router and is gone; what it changed is put back."""
    forwarding = playbook.lab.topology.forwarding
    dying = playbook.directory / "dying"
    dying.write_text(
        f"#!/bin/sh\nip -n {forwarding} link set {OUT.name} mtu 1400\necho died of thirst >&2\nkill -9 $$\n"
    )
    dying.chmod(0o755)
    assert playbook.run(acceptance_program=str(dying)) == UNDONE, playbook.output
    assert "no report: died of thirst" in playbook.result()["reason"]
    (link,) = json.loads(subprocess.check_output(["ip", "-n", forwarding, "-j", "link", "show", OUT.name]))
    assert link["mtu"] == 1500
    assert playbook.result()["as_found"]


def test_a_scenario_with_a_mistake_is_quoted(playbook: Playbook) -> None:
    assert playbook.run(acceptance_goal={"rate": "fast"}) == UNDONE, playbook.output
    assert "goal.rate" in playbook.result()["reason"]


def test_check_mode_looks_and_sends_nothing(playbook: Playbook) -> None:
    before = packets_in(playbook.lab)
    assert playbook.run("--check") == PASS, playbook.output
    assert packets_in(playbook.lab) - before < 100
    assert not playbook.reports.exists()
    playbook.drained(drained=False)
    assert playbook.run("--check") == UNDONE
    assert "REFUSED" in playbook.output


def test_a_router_that_does_not_answer_is_no_verdict(playbook: Playbook) -> None:
    assert playbook.run(ansible_connection="ssh", ansible_host="127.0.0.1", ansible_port=1) == UNDONE
    assert "UNREACHABLE" in playbook.output
