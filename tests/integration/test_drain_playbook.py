"""playbooks/drain.yml and undrain.yml against a POP of two routers with real FRR: who is refused, and why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .drained_pop import GRACEFUL, NETWORK, ROOT, Pop

pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not Path("/usr/lib/frr/frr-reload.py").exists(), reason="frr is not installed"),
]


@pytest.fixture(scope="module")
def pop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pop]:
    with Pop(tmp_path_factory.mktemp("pop")) as pop:
        yield pop


def play(pop: Pop, playbook: str, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Run a playbook; each router is reached by a program that enters its namespaces."""
    hosts: dict[str, Any] = {}
    for name, router in pop.routers.items():
        program = router.directory / "router-agent"
        inside = " ".join(router.inside(sys.executable, "-m", "router_agent.cli"))
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {inside} "$@"\n')
        program.chmod(0o755)
        hosts[name] = {"drain_agent": str(program), "drain_config": str(router.drain_file)}
    shared = {
        "ansible_connection": "local",
        "ansible_become": False,
        "ansible_python_interpreter": sys.executable,
        "router_pop": "ams1",
        "router_networks": {"ipv4": [NETWORK]},
    }
    elsewhere = {"three": {"router_pop": "fra1", "drain_agent": "/bin/false"}}
    inventory = pop.directory / "inventory.yml"
    inventory.write_text(
        yaml.safe_dump({"routers": {"hosts": hosts | elsewhere, "vars": shared | variables}})
    )
    return subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, f"playbooks/{playbook}",
         *arguments],
        cwd=ROOT, env=os.environ | {"ANSIBLE_NOCOLOR": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip


def test_a_router_is_drained_when_the_other_carries_it_and_then_the_other_is_refused(pop: Pop) -> None:
    done = play(pop, "drain.yml", "--limit", "one", "--check")
    assert done.returncode == 0, done.stdout
    assert "changed=1" in done.stdout
    assert pop.one.asked("drained")[0] == 1, "a check drains nothing"

    done = play(pop, "drain.yml", "--limit", "one", drain_reason="new NIC", drain_by="noc")
    assert done.returncode == 0, done.stdout
    assert "can carry it" in done.stdout
    assert "changed=1" in done.stdout
    code, state = pop.one.asked("drained")
    assert (code, state["mark"]["reason"], state["mark"]["by"]) == (0, "new NIC", "noc")
    assert pop.communities("one").endswith(GRACEFUL)
    assert "changed=0" in play(pop, "drain.yml", "--limit", "one").stdout

    done = play(pop, "drain.yml", "--limit", "two")
    assert done.returncode == 2
    assert "REFUSED two of POP ams1: one: is drained (by noc: new NIC)" in " ".join(done.stdout.split())
    assert pop.two.asked("drained")[0] == 1

    done = play(pop, "undrain.yml", "--limit", "one")
    assert done.returncode == 0, done.stdout
    assert "changed=1" in done.stdout
    assert pop.one.asked("drained")[0] == 1
    assert "changed=0" in play(pop, "undrain.yml", "--limit", "one").stdout


def test_two_routers_of_a_pop_are_refused_together(pop: Pop) -> None:
    done = play(pop, "drain.yml", "--limit", "one,two")
    assert done.returncode == 2
    said = " ".join(done.stdout.split())
    assert "REFUSED one: two of POP ams1 would be drained at the same time" in said
    assert "REFUSED two: one of POP ams1 would be drained at the same time" in said
    assert {pop.one.asked("drained")[0], pop.two.asked("drained")[0]} == {1}


def test_a_router_that_lacks_what_the_other_carries_is_named(pop: Pop) -> None:
    pop.two.vtysh("configure terminal", "router bgp 64500", "neighbor 10.0.2.1 shutdown",
                  "neighbor 10.0.3.1 shutdown")  # fmt: skip
    try:
        done = play(pop, "drain.yml", "--limit", "one")
        assert done.returncode == 2
        said = " ".join(done.stdout.split())
        assert "two: has no established IPv4 session" in said
        assert f"announces no {NETWORK}" in said
        assert "has no route for 300 of 300 IPv4 prefixes" in said
        assert pop.one.asked("drained")[0] == 1

        done = play(pop, "drain.yml", "--limit", "one", drain_alone=True)
        assert done.returncode == 0, done.stdout
        assert pop.one.asked("drained")[0] == 0
        assert play(pop, "undrain.yml", "--limit", "one").returncode == 0
    finally:
        pop.two.vtysh("configure terminal", "router bgp 64500", "no neighbor 10.0.2.1 shutdown",
                      "no neighbor 10.0.3.1 shutdown")  # fmt: skip
