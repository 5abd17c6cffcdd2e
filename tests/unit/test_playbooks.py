"""The playbooks as a whole: they parse with the example, and every variable of theirs is described, once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from inventory import PAGE, PLAYBOOK_OPTIONS, page

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.parents[1].name for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"))
PLAYBOOKS = sorted(path.name for path in (ROOT / "playbooks").glob("*.yml"))


def ansible_playbook(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("ansible-playbook")
    return subprocess.run(
        [program, *arguments],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook_parses_with_the_example(playbook: str) -> None:
    done = ansible_playbook("--syntax-check", f"playbooks/{playbook}")
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_filters_are_loaded_without_what_the_agent_needs() -> None:
    """Ansible loads those of every role of a play in the process of each task, skipped ones too."""
    found = [*ROOT.glob("roles/*/filter_plugins/*.py"), *ROOT.glob("playbooks/filter_plugins/*.py")]
    filters = sorted(map(str, found))
    assert any(path.endswith("drain_carriers.py") for path in filters)
    script = (
        "import runpy, sys\n"
        "for path in sys.argv[1:]: runpy.run_path(path)\n"
        "print(*sorted({'numpy', 'pydantic', 'router_agent'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *filters], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == []


def loops(node: object) -> Iterator[str]:
    """Yield the expressions that tasks, and those in their blocks, go through."""
    if isinstance(node, list):
        for item in node:
            yield from loops(item)
    elif isinstance(node, dict):
        if isinstance(node.get("loop"), str):
            yield node["loop"]
        for key in ("tasks", "block", "rescue", "always"):
            yield from loops(node.get(key))


def test_loops_keep_their_order() -> None:
    """Ansible's filters of sets do not: components were changed in an order that was another each time."""
    paths = [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]
    found = [(str(path), loop) for path in paths for loop in loops(yaml.safe_load(path.read_text()))]
    assert len(found) > 10
    sets = re.compile(r"\b(intersect|difference|symmetric_difference|union)\(")
    assert [(path, loop) for path, loop in found if sets.search(loop)] == []


def test_site_goes_through_the_stages_in_order() -> None:
    done = ansible_playbook("--list-tasks", "playbooks/site.yml")
    assert done.returncode == 0, done.stderr
    seen = [
        line.split(" : ")[0].strip() for line in done.stdout.splitlines() if " : Validating arguments" in line
    ]
    assert seen == [
        "preflight",
        "kernel_cmdline",
        "hugepages",
        "cpu_isolation",
        "vfio",
        "reboot",
        "commit_confirm",  # arm
        "sriov",
        "vfio",
        "vpp",
        "vfio",
        "interfaces",
        "commit_confirm",  # extend
        "frr",
        "exabgp",
        "router_agent",
        "commit_confirm",  # confirm
    ]


def changes(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the tasks between arming the way back and confirming, those of the stages themselves."""
    for task in tasks:
        if task["ansible.builtin.import_role"]["name"] != "commit_confirm":
            yield task


def test_whatever_part_of_the_changes_is_run_the_way_back_is_armed_and_confirmed() -> None:
    tasks = yaml.safe_load((ROOT / "playbooks" / "tasks" / "build.yml").read_text())
    block = next(task for task in tasks if "block" in task)
    assert tasks[-1] is block
    guards = [
        task for task in block["block"] if task["ansible.builtin.import_role"]["name"] == "commit_confirm"
    ]
    assert [task["ansible.builtin.import_role"].get("tasks_from", "main") for task in guards] == [
        "main",
        "extend",
        "confirm",
    ]
    assert (block["block"][0], block["block"][-1]) == (guards[0], guards[-1])
    tags = {tag for task in changes(block["block"]) for tag in task["tags"]}
    for guard in guards:
        assert set(guard["tags"]) == tags | {"commit_confirm"}
    assert [task["tags"] for task in block["rescue"]] == [["always"]]


def test_no_host_is_touched_before_every_host_was_checked() -> None:
    first, second = yaml.safe_load((ROOT / "playbooks" / "site.yml").read_text())
    assert first["any_errors_fatal"] is True
    assert "serial" not in first
    assert [task["ansible.builtin.import_role"]["name"] for task in first["tasks"]] == ["preflight"]
    assert second["serial"] == "{{ site_serial | default('100%') }}"


def options(role: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield entry point, name and specification of every option of a role."""
    entries = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())
    for entry, specification in entries["argument_specs"].items():
        for name, option in (specification.get("options") or {}).items():
            yield entry, name, option


def defaults(role: str) -> dict[str, Any]:
    path = ROOT / "roles" / role / "defaults" / "main.yml"
    loaded: dict[str, Any] = yaml.safe_load(path.read_text()) if path.exists() else {}
    return loaded or {}


def is_expression(value: object) -> bool:
    return "{{" in str(value)


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_described(role: str) -> None:
    assert defaults(role).keys() <= {name for _, name, _ in options(role)}


@pytest.mark.parametrize("role", ROLES)
def test_every_described_default_is_the_one_in_force(role: str) -> None:
    """`allow_reboot` and `router_*` are the inventory's: their defaults are where they are used."""
    held = defaults(role)
    for entry, name, option in options(role):
        if "default" not in option or not name.startswith(f"{role}_"):
            continue
        assert name in held, f"{role} {entry}: {name} is described with a default and has none"
        if not is_expression(held[name]) and not is_expression(option["default"]):
            assert held[name] == option["default"], f"{role} {entry}: {name}"


def described(option: dict[str, Any], name: str) -> Iterator[str]:
    """Yield the options that lack a description, at every depth."""
    if not option.get("description"):
        yield name
    for inner, specification in (option.get("options") or {}).items():
        yield from described(specification, f"{name}.{inner}")


@pytest.mark.parametrize("role", ROLES)
def test_every_option_has_a_description(role: str) -> None:
    assert [missing for _, name, option in options(role) for missing in described(option, name)] == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_owns_the_names_that_begin_with_its_own(role: str) -> None:
    shared = ("router_", "allow_reboot")
    foreign = [name for _, name, _ in options(role) if not name.startswith((f"{role}_", *shared))]
    assert foreign == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_says_what_it_is(role: str) -> None:
    directory = ROOT / "roles" / role
    assert (directory / "README.md").read_text().startswith(f"# {role}\n")
    assert yaml.safe_load((directory / "meta" / "main.yml").read_text())["galaxy_info"]["description"]


def test_the_reference_is_fresh() -> None:
    assert PAGE.read_text() == page(ROOT / "roles"), "docs/inventory.md is stale: run 'make docs'"


def test_the_reference_names_every_option() -> None:
    text = PAGE.read_text()
    for role in ROLES:
        for _, name, _ in options(role):
            assert f"| `{name}` |" in text


def test_the_playbooks_variables_are_those_in_the_reference() -> None:
    texts = "".join((ROOT / "playbooks" / playbook).read_text() for playbook in PLAYBOOKS)
    for name, option in PLAYBOOK_OPTIONS.items():
        assert f"{name} | default('{option['default']}')" in texts
