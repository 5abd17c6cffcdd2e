"""The batches of a rollout: every router once, never two of one POP together; and what is asked for in "
"words."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from upgrade_order import (
    upgrade_allowed,
    upgrade_batches,
    upgrade_components,
    upgrade_exact,
    upgrade_versions,
    upgrade_words,
)

ROOT = Path(__file__).parents[2]
SERIAL: list[int | str] = [1, "25%", "100%"]

hosts = st.text(st.sampled_from("abr-0123456789"), min_size=1, max_size=6)
fleets = st.dictionaries(hosts, st.sampled_from(["ams1", "ams2", "fra1", "lon1", "nyc1"]), max_size=40)
sizes = st.one_of(
    st.integers(min_value=1, max_value=50), st.integers(min_value=1, max_value=100).map(lambda n: f"{n}%")
)


@given(fleets, st.lists(sizes, min_size=1, max_size=4))
def test_every_router_once_and_no_pop_twice_in_a_batch(pops: dict[str, str], serial: list[int | str]) -> None:
    batches = upgrade_batches(pops, serial)
    assert Counter(host for batch in batches for host in batch) == Counter(pops.keys())
    for batch in batches:
        assert batch
        assert len({pops[host] for host in batch}) == len(batch)


@given(fleets, st.lists(sizes, min_size=1, max_size=4))
def test_no_batch_is_larger_than_its_size(pops: dict[str, str], serial: list[int | str]) -> None:
    for number, batch in enumerate(upgrade_batches(pops, serial)):
        size = serial[min(number, len(serial) - 1)]
        most = size if isinstance(size, int) else max(1, len(pops) * int(size[:-1]) // 100)
        assert len(batch) <= most


@given(fleets.filter(bool))
def test_the_first_is_one_router(pops: dict[str, str]) -> None:
    assert len(upgrade_batches(pops, SERIAL)[0]) == 1


@given(fleets.filter(bool))
def test_whole_batches_are_as_few_as_the_largest_pop_needs(pops: dict[str, str]) -> None:
    assert len(upgrade_batches(pops, ["100%"])) == max(Counter(pops.values()).values())


@given(fleets)
def test_the_order_does_not_depend_on_that_of_the_inventory(pops: dict[str, str]) -> None:
    backwards = dict(reversed(pops.items()))
    assert upgrade_batches(pops, SERIAL) == upgrade_batches(backwards, SERIAL)


def test_first_routers_of_all_pops_come_before_second_ones() -> None:
    pops = {f"{pop}-r{number}": pop for pop in ("ams1", "fra1", "lon1", "nyc1") for number in (1, 2)}
    assert upgrade_batches(pops, SERIAL) == [
        ["ams1-r1"],
        ["fra1-r1", "lon1-r1"],
        ["nyc1-r1", "ams1-r2", "fra1-r2", "lon1-r2"],
        ["nyc1-r2"],
    ]


def test_numbers_in_names_count_as_numbers() -> None:
    pops = {f"r{number}": "ams1" for number in (10, 9, 1)}
    assert upgrade_batches(pops, ["100%"]) == [["r1"], ["r9"], ["r10"]]


@pytest.mark.parametrize("serial", [[], [0], ["0%"], ["-1"], ["some"], [""], ["1.5"], ["%"], [None], ["²"]])
def test_a_size_that_is_none_is_refused(serial: list[Any]) -> None:
    with pytest.raises(AnsibleFilterError, match=r"upgrade_serial: found .*, expected"):
        upgrade_batches({"r1": "a"}, serial)


@pytest.mark.parametrize("wanted", ["vpp, frr,kernel", ["frr", "kernel", "vpp"], "kernel,kernel,vpp,frr,"])
def test_components_come_in_the_order_in_which_they_are_changed(wanted: Any) -> None:
    assert upgrade_components(wanted) == ["kernel", "vpp", "frr"]


@pytest.mark.parametrize("wanted", ["", [], "bgp", "frr,linux"])
def test_an_unknown_component_is_refused(wanted: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"upgrade_components: found .*, expected some of kernel"):
        upgrade_components(wanted)


@pytest.mark.parametrize(
    "wanted", ["frr=10.3-3,vpp=26.06-release", {"frr": "10.3-3", "vpp": "26.06-release"}]
)
def test_versions_are_a_mapping_or_words(wanted: Any) -> None:
    assert upgrade_versions(wanted) == {"frr": "10.3-3", "vpp": "26.06-release"}
    assert upgrade_words(["frr", "router_agent"], upgrade_versions(wanted)) == "frr 10.3-3, router_agent"


@pytest.mark.parametrize(
    "wanted", ["frr", "frr=", "bgp=1", "configuration=1", {"vpp": "26.06*"}, "frr=10.3-?", {"frr": ""}]
)
def test_a_version_that_is_not_exact_is_refused(wanted: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=r"upgrade_versions.*found .*, expected"):
        upgrade_versions(wanted)


def test_a_version_of_the_inventory_counts_when_it_is_exact() -> None:
    assert upgrade_exact("10.3-3") == "10.3-3"
    assert upgrade_exact("26.06*") == ""
    assert upgrade_allowed("26.06-release", "26.06*")
    assert upgrade_allowed("1:10.3-3", "10.3*")
    assert upgrade_allowed("", "")
    assert not upgrade_allowed("26.10-release", "26.06*")


PROBE = [
    {
        "name": "Say who is in it",
        "ansible.builtin.debug": {"msg": "BATCH {{ ansible_play_batch | join(',') }}"},
        "run_once": True,
    }
]
"""In place of a turn."""
PLANNED = {
    "name": "Be as if planned",
    "ansible.builtin.set_fact": {
        "upgrade_asked": ["frr"],
        "upgrade_asked_versions": {"frr": "2"},
        "upgrade_plan": {"frr": {"before": "1", "wanted": "2", "due": True}},
        "upgrade_due": ["frr"],
        "upgrade_has_turn": "{{ done is not defined }}",
    },
}
"""In place of what only a router can tell."""


def playbook(directory: Path) -> Path:
    """Write upgrade.yml with its own plays, order and sizes, and nothing that needs a router."""
    plan, rollout = yaml.safe_load((ROOT / "playbooks" / "upgrade.yml").read_text())
    order = next(task for task in plan["tasks"] if "batches" in task["name"])
    plan |= {"become": False, "tasks": [PLANNED, order]}
    rollout |= {"become": False, "tasks": copy.deepcopy(PROBE)}
    path = directory / "upgrade.yml"
    path.write_text(yaml.safe_dump([plan, rollout], sort_keys=False))
    return path


def rolled_out(directory: Path, routers: dict[str, dict[str, Any]], *arguments: str) -> list[list[str]]:
    """Run it on these routers, none of which is there; return the batches as Ansible made them."""
    inventory = directory / "hosts.yml"
    local = {name: variables | {"ansible_connection": "local"} for name, variables in routers.items()}
    inventory.write_text(yaml.safe_dump({"routers": {"hosts": local}}))
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", inventory, playbook(directory), *arguments],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (line.strip() for line in done.stdout.splitlines())
    return [line.removeprefix("msg: BATCH ").split(",") for line in lines if line.startswith("msg: BATCH ")]


ROUTERS: dict[str, dict[str, Any]] = {
    f"pop{pop}-r{number}": {"router_pop": f"pop{pop}"}
    for pop, count in enumerate((2, 2, 3, 1, 2, 2), start=1)
    for number in range(1, count + 1)
}


def test_ansible_makes_the_planned_batches(tmp_path: Path) -> None:
    planned = upgrade_batches({name: router["router_pop"] for name, router in ROUTERS.items()}, SERIAL)
    assert rolled_out(tmp_path, ROUTERS) == planned


def test_a_limit_and_routers_that_are_done_leave_the_others_apart(tmp_path: Path) -> None:
    routers = ROUTERS | {"pop1-r1": {"router_pop": "pop1", "done": True}}
    left = {
        name: router["router_pop"]
        for name, router in routers.items()
        if "done" not in router and router["router_pop"] != "pop3"
    }
    found = rolled_out(tmp_path, routers, "--limit", "routers,!pop3-*")
    assert found == upgrade_batches(left, SERIAL)


def test_nobody_has_a_turn_in_check_mode_or_when_all_are_done(tmp_path: Path) -> None:
    assert rolled_out(tmp_path, ROUTERS, "--check") == []
    done = {name: router | {"done": True} for name, router in ROUTERS.items()}
    assert rolled_out(tmp_path, done) == []
