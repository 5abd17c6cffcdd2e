"""The role as a whole: it changes nothing, and one run over a bad inventory names everything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from preflight_report import preflight_report

if TYPE_CHECKING:
    from conftest import HostTree

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles/preflight"
READ_ONLY = {
    "ansible.builtin.assert",
    "ansible.builtin.import_tasks",
    "ansible.builtin.set_fact",
    "package_versions",
    "router_host_facts",
}
KEYWORDS = {"name", "when", "register", "no_log", "vars", "tags"}

# What a real run needs of a host is in its facts, so these take the place of the host.
RECORDED = """\
- name: Check a recorded host
  hosts: routers
  gather_facts: false
  connection: local
  roles: [preflight]
"""


def tasks() -> list[dict[str, Any]]:
    """Every task of the role."""
    files = sorted((ROLE / "tasks").glob("*.yml"))
    return [task for file in files for task in yaml.safe_load(file.read_text())]


def test_no_task_can_change_a_host() -> None:
    used = {key for task in tasks() for key in task if key not in KEYWORDS}
    assert used == READ_ONLY


def test_modules_of_the_role_run_no_command_that_writes() -> None:
    for name in ("router_host_facts", "package_versions"):
        text = (ROLE / f"library/{name}.py").read_text()
        assert "supports_check_mode=True" in text
        for word in ("apt-get", "sysctl", "ip link set", ".symlink_to", "os.remove"):
            assert word not in text
    # The one file that is written is apt's download, below a temporary directory.
    assert "write_text" not in text


def test_passwords_stay_out_of_the_output() -> None:
    for task in tasks():
        facts = task.get("ansible.builtin.set_fact", {})
        if set(facts) & {"__preflight_read", "__preflight_variables", "__preflight_values"}:
            assert task["no_log"] is True


def test_the_report_has_everything_of_a_problem() -> None:
    problem = {"variable": "router_asn", "found": "0", "expected": "1", "remedy": "correct it"}
    row = dict.fromkeys(("port", "device", "nic", "driver", "node", "group", "link", "at_64_bytes"), "x")
    parts = [{"problems": [problem], "notes": ["n"], "nics": [row]}, {"problems": [problem], "notes": ["n"]}]
    assert preflight_report(parts, "r1") == {
        "problems": [{"host": "r1", **problem}],
        "lines": [
            "r1: 1 problem",
            "port  PCI address  NIC  driver  NUMA  IOMMU group  link  64-byte frames",
            "x     x            x    x       x     x            x     x",
            "note: n",
            "1. r1: router_asn",
            "   found    0",
            "   expected 1",
            "   remedy   correct it",
        ],
    }
    assert preflight_report([{"problems": [], "notes": []}], "r1")["lines"] == ["r1: nothing wrong"]


@pytest.fixture
def run_role(tmp_path: Path, pop_host: HostTree) -> Any:
    """Run the role's own tasks with ansible-playbook; modules answer with the facts of the recorded host."""
    library = tmp_path / "library"
    library.mkdir()
    facts = pop_host.facts(connection_address="192.0.2.11")
    versions = {
        "architecture": "amd64",
        "installed": {},
        "candidates": {"frr": "10.3-1", "frr-pythontools": "10.3-1"},
        "lists": True,
        "repositories": [
            {"url": "http://192.0.2.9", "suite": "trixie", "error": "Could not connect", "versions": {}}
        ],
    }
    for name, answer in (
        ("router_host_facts", {"ansible_facts": {"router_host": facts}}),
        ("package_versions", versions),
    ):
        (library / f"{name}.py").write_text(
            "#!/usr/bin/python\n# WANT_JSON\nprint(r'''" + json.dumps({"changed": False, **answer}) + "''')\n"
        )
    # A role's own modules come first, so the role is copied without them.
    roles = tmp_path / "roles"
    roles.mkdir()
    for role in (ROOT / "roles").iterdir():
        if role.name != "preflight":
            (roles / role.name).symlink_to(role)
    (roles / "preflight").mkdir()
    for part in ROLE.iterdir():
        if part.name != "library":
            (roles / "preflight" / part.name).symlink_to(part)
    playbook = tmp_path / "playbook.yml"
    playbook.write_text(RECORDED)

    def run(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LIBRARY": str(library),
            "ANSIBLE_ROLES_PATH": str(roles),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_HOME": str(tmp_path / "home"),
            "ANSIBLE_NOCOLOR": "1",
        }
        program = str(Path(sys.executable).parent / "ansible-playbook")
        command = [program, "-i", str(inventory), str(playbook), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path
        )

    return run


def test_a_bad_inventory_is_told_everything_at_once(run_role: Any, tmp_path: Path) -> None:
    inventory = tmp_path / "hosts.yml"
    variables = yaml.safe_load((ROOT / "inventory/example/hosts.yml").read_text())["routers"]
    host = variables["hosts"]["ams1-r1"]
    host["router_ports"][0]["device"] = "eno1"
    host["router_ports"][1] |= {"mtu": "big", "speed": 1}
    host["router_peers"][0]["password"] = "{{ vault_nowhere }}"
    host["router_peers"][1]["asn"] = 64500
    host |= {
        "router_forwardin": "kernel",
        "hugepages_per_node": [{"node": 0, "size": "2M", "count": 99999}],
        "vpp_package_source": {"kind": "repository", "url": "http://192.0.2.9"},
    }
    variables["hosts"]["ams1-r2"]["router_id"] = host["router_id"]
    inventory.write_text(yaml.safe_dump({"routers": variables}))
    done = run_role(inventory, "--limit", "ams1-r1")
    assert done.returncode == 2, done.stdout + done.stderr
    for variable in (
        "router_peers[0].password",
        "router_ports[lan].mtu",
        "router_ports[lan].speed",
        "router_forwardin",
        "router_id",
        "hugepages_per_node",
        "router_ports[uplink].device",
        "router_peers[transit_a_v6].asn",
        "vpp_package_source.url",
    ):
        assert f"ams1-r1: {variable}\n" in done.stdout, done.stdout
    assert "ams1-r1: 9 problems" in done.stdout
    assert "changed=0" in done.stdout


@pytest.mark.parametrize("arguments", [[], ["--check", "--diff"]], ids=["run", "check mode"])
def test_the_example_has_nothing_wrong_on_a_host_that_fits(run_role: Any, arguments: list[str]) -> None:
    done = run_role(
        ROOT / "inventory/example/hosts.yml",
        "--limit",
        "ams1-r1",
        "-e",
        "preflight_packages=false",
        *arguments,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ams1-r1: nothing wrong" in done.stdout
    assert "failed=0" in done.stdout
    assert "changed=0" in done.stdout
