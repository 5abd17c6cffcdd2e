"""The device's counters read over a real ssh connection, on a host that has the agent and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.counters.remote import kernel_counters, vpp_counters
from router_agent.traffic.counters.source import CounterError
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import run_check
from router_agent.traffic.reach import LocalReach
from router_agent.traffic.reach.ssh import SshReach
from router_agent.vpp.process import VppProcess

from .sshd import AVAILABLE, EXTRA, Sshd, program, running
from .test_traffic_namespaces import PREFIXES, Router, scenario

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not AVAILABLE, reason="needs root and a real sshd: apt-get install openssh-server"),
]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(Sshd(tmp_path_factory.mktemp("sshd"))) as daemon:
        yield daemon


@pytest.fixture
def router() -> Iterator[Router]:
    built = Router()
    try:
        built.up()
        yield built
    finally:
        built.down()


@pytest.fixture
def agent(tmp_path: Path) -> str:
    """The agent's program as a router has it."""
    return program(tmp_path, without=EXTRA)


def test_a_check_with_counters_over_ssh_names_the_same_drops(router: Router, sshd: Sshd, agent: str) -> None:
    """Whether a port is a veth, and so which of its counters are drops, is known on the router alone."""
    ports = [f"to-{port}" for port in ("west", "east", "south")]
    router.batch(*(f"route replace blackhole {prefix}" for prefix in PREFIXES[::2]))
    with SshReach(sshd.target) as reach:
        remote = kernel_counters(reach, namespace=router.device, ports=ports, program=agent)
        result = run_check(scenario(proof_pps=None), router.endpoints, [remote])
        assert remote.drops({}) == KernelForwarder(router.device, ports).drops({})
    assert result.verdict.outcome is Outcome.FAIL
    assert result.ledger is not None
    assert result.ledger.unaccounted == 0
    assert all("discarded by a route (blackhole" in drop.name for drop in result.ledger.drops)
    assert "kernel forwarding on 127.0.0.1" in result.ledger.moved


def test_counters_that_cannot_be_read_make_the_check_invalid(router: Router, sshd: Sshd, agent: str) -> None:
    with SshReach(sshd.target) as reach:
        remote = kernel_counters(reach, namespace=router.device, ports=["no-such"], program=agent)
        result = run_check(scenario(proof_pps=None), router.endpoints, [remote])
    assert result.verdict.outcome is Outcome.INVALID
    assert "there is no interface 'no-such'" in result.verdict.reason


def test_a_connection_that_is_lost_is_an_error_and_the_next_reading_starts_anew(agent: str) -> None:
    with LocalReach() as reach:
        remote = kernel_counters(reach, program=agent)
        before = remote.read()
        reach.close()
        with pytest.raises(CounterError, match="kernel forwarding on this host: "):
            remote.read()
        assert remote.read().keys() == before.keys()


def test_a_lost_ssh_connection_is_named(sshd: Sshd, agent: str) -> None:
    with SshReach(sshd.target) as reach:
        remote = kernel_counters(reach, program=agent)
        remote.read()
        sshd.cut()
        with pytest.raises(CounterError, match=r"127\.0\.0\.1: the connection (broke|is gone)"):
            remote.read()


def test_a_host_without_the_kit_is_named() -> None:
    with LocalReach() as reach, pytest.raises(CounterError, match="found no program '/nowhere/router-agent'"):
        kernel_counters(reach, program="/nowhere/router-agent").read()


def test_a_program_that_answers_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("#!/bin/sh\necho hello\ncat >/dev/null\n")
    other.chmod(0o755)
    with (
        LocalReach() as reach,
        pytest.raises(CounterError, match="found b'hello', expected an answer of the"),
    ):
        kernel_counters(reach, program=str(other)).read()


def test_growth_is_printed_for_people_and_programs(agent: str) -> None:
    words = [agent, "traffic", "counters", "--kernel", "--port", "lo", "--seconds", "0.1"]
    done = subprocess.run([*words, "--json"], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["seconds"] == 0.1
    assert found["counters"]["dev.lo.rx_errors"] == 0
    plain = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "dev.lo.rx_errors 0\n" in plain
    none = subprocess.run([agent, "traffic", "counters"], capture_output=True, text=True, check=False)
    assert (none.returncode, none.stdout) == (2, "")
    assert "expected one of --kernel and --vpp" in none.stderr


@pytest.mark.vpp
def test_a_vpps_counters_are_read_like_those_of_one_beside_us(tmp_path: Path, sshd: Sshd, agent: str) -> None:
    vpp = VppProcess(runtime_dir=tmp_path, heap="256M", buffers=2048, plugins=())
    with vpp, SshReach(sshd.target) as reach:
        stats = tmp_path / "stats.sock"
        here, remote = VppForwarder(stats), vpp_counters(reach, stats, program=agent)
        found = remote.read()
        assert found.keys() == here.read().keys()
        growth = dict.fromkeys(found, 7)
        assert remote.drops(growth) == here.drops(growth)
    with LocalReach() as reach, pytest.raises(CounterError, match="cannot read the stats segment"):
        vpp_counters(reach, tmp_path / "gone", program=agent).read()
