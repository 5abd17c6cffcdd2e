"""The example inventory: Ansible reads it, the checks pass it, and its forms show what the roles have."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from preflight_addresses import preflight_addresses
from preflight_bgp import preflight_bgp
from preflight_nics import preflight_nics
from preflight_variables import preflight_variables

if TYPE_CHECKING:
    from conftest import HostTree

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "inventory/example"
FORMS = sorted((EXAMPLE / "group_vars/routers").glob("*.yml"))
# Ansible's own, and those that the forms show by an example because their default is computed.
NOT_OURS = {"ansible_become", "ansible_user"}
COMPUTED = {"cpu_isolation_worker_count", "hugepages_per_node", "preflight_reserved_memory_mb"}


@cache
def specs() -> dict[str, Any]:
    """{role: {entry point: options}} of all roles."""
    found = {}
    for path in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        points = yaml.safe_load(path.read_text())["argument_specs"]
        found[path.parts[-3]] = {name: point.get("options") or {} for name, point in points.items()}
    return found


@cache
def defaults() -> dict[str, Any]:
    """Defaults of all roles and of the router's variables."""
    found: dict[str, Any] = {}
    for path in sorted((ROOT / "roles").glob("*/defaults/main.yml")):
        found |= yaml.safe_load(path.read_text()) or {}
    return found | {name: option.get("default") for name, option in specs()["preflight"]["router"].items()}


@cache
def hostvars() -> dict[str, Any]:
    """Variables of each router, as ansible-inventory reads them."""
    program = str(Path(sys.executable).parent / "ansible-inventory")
    command = [program, "-i", str(EXAMPLE / "hosts.yml"), "--list"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    inventory = json.loads(done.stdout)
    assert sorted(inventory["routers"]["hosts"]) == ["ams1-r1", "ams1-r2"]
    found: dict[str, Any] = inventory["_meta"]["hostvars"]
    return found


def filled_in(form: Path) -> dict[str, Any]:
    """A form's variables with the # taken off every line of it; explanations have two."""
    lines = [re.sub(r"^# ?", "", line) for line in form.read_text().splitlines() if not line.startswith("##")]
    found: dict[str, Any] = yaml.safe_load("\n".join(lines))
    return found


@pytest.mark.parametrize("host", ["ams1-r1", "ams1-r2"])
def test_the_example_passes_the_checks(host: str, pop_host: HostTree) -> None:
    own = {name: value for name, value in hostvars()[host].items() if name.startswith("router_")}
    others = {other: variables["router_id"] for other, variables in hostvars().items() if other != host}
    facts = pop_host.facts(connection_address="192.0.2.11")
    variables = preflight_variables(own, specs())
    results = [
        variables,
        preflight_nics(variables["values"], facts),
        preflight_addresses(variables["values"], facts),
        preflight_bgp(variables["values"], others),
    ]
    assert [problem for result in results for problem in result["problems"]] == []


def test_the_example_uses_documentation_numbers_only() -> None:
    text = (EXAMPLE / "hosts.yml").read_text()
    for address in re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text):
        assert address.startswith(("192.0.2.", "198.51.100.", "203.0.113."))
    for asn in re.findall(r"asn: (\d+)", text):
        assert 64496 <= int(asn) <= 64511
    for address in re.findall(r"[0-9a-f]+:[0-9a-f:]*::?[0-9a-f:/]*", text):
        assert address.startswith(("2001:db8:", "0000:03:00"))


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_as_it_comes_sets_nothing(form: Path) -> None:
    assert yaml.safe_load(form.read_text()) is None


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_that_is_filled_in_is_right(form: Path) -> None:
    variables = {name: value for name, value in filled_in(form).items() if name not in NOT_OURS}
    required = {name for name, option in specs()["preflight"]["router"].items() if option.get("required")}
    problems = preflight_variables(variables, specs())["problems"]
    assert [problem for problem in problems if problem["variable"] not in required] == []


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_shows_the_defaults(form: Path) -> None:
    variables = {name: value for name, value in filled_in(form).items() if name not in NOT_OURS | COMPUTED}
    assert variables == {name: defaults().get(name) for name in variables}


def test_every_variable_of_a_router_is_somewhere_to_fill_in() -> None:
    shown = {name for form in FORMS for name in filled_in(form)} | set(hostvars()["ams1-r1"])
    assert set(specs()["preflight"]["router"]) - shown == set()


def test_the_vaults_example_is_never_taken_for_passwords() -> None:
    example = yaml.safe_load((EXAMPLE / "group_vars/routers/vault.yml.example").read_text())
    peer = {"name": "a", "address": "198.51.100.1", "asn": 64501}
    for password in example.values():
        found = preflight_bgp({"router_peers": [{**peer, "multihop": 2, "password": password}]})["problems"]
        assert [problem["variable"] for problem in found] == ["router_peers[a].password"]


def test_every_option_is_described() -> None:
    def undescribed(path: str, options: dict[str, Any]) -> list[str]:
        found = []
        for name, option in options.items():
            if not option.get("description") or "type" not in option:
                found.append(f"{path}{name}")
            found += undescribed(f"{path}{name}.", option.get("options") or {})
        return found

    assert undescribed("", specs()["preflight"]["router"] | specs()["preflight"]["main"]) == []


def test_defaults_and_specification_of_preflight_agree() -> None:
    own = yaml.safe_load((ROOT / "roles/preflight/defaults/main.yml").read_text())
    specified = specs()["preflight"]["main"]
    assert own == {name: option["default"] for name, option in specified.items() if "default" in option}
