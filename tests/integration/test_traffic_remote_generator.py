"""The generator on another host: `sockets`, behind a real sshd, around the kernel router of a namespace."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router_agent.traffic import commands
from router_agent.traffic.as_found import AS_FOUND
from router_agent.traffic.counters.kernel import proc_net
from router_agent.traffic.generators.generator import GeneratorError, Snapshot
from router_agent.traffic.generators.remote.generator import RemoteGenerator
from router_agent.traffic.generators.remote.messages import Message
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import run_check
from router_agent.traffic.reach import LocalReach
from router_agent.traffic.reach.ssh import SshReach
from router_agent.traffic.scenario import (
    Check,
    Destinations,
    GeneratorBinding,
    Goal,
    Tier,
)
from router_agent.traffic.scenario.binding import SshAccess

from .sshd import AVAILABLE, Sshd, program, running
from .test_traffic_namespaces import EAST, EXPECTED, PORTS, PREFIXES, Router, scenario

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(120),
    pytest.mark.skipif(not AVAILABLE, reason="needs root and a real sshd: apt-get install openssh-server"),
]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(Sshd(tmp_path_factory.mktemp("sshd"))) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def router() -> Iterator[Router]:
    built = Router()
    try:
        built.up()
        yield built
    finally:
        built.down()


@pytest.fixture
def kit(tmp_path: Path) -> str:
    """The kit's program as the generator's host has it."""
    return program(tmp_path)


def sent_into(router: Router) -> int:
    """Return how many packets the router's port has received from the tester."""
    line = next(ln for ln in proc_net(router.device, ("dev",))["dev"].splitlines() if "to-west:" in ln)
    return int(line.split()[2])


def workers(router: Router) -> list[str]:
    """Return the processes in the tester's namespace."""
    found = subprocess.run(["ip", "netns", "pids", router.tester], capture_output=True, text=True, check=True)
    return found.stdout.split()


def test_a_check_by_a_generator_over_ssh_is_that_of_one_here(
    router: Router, sshd: Sshd, kit: str, tmp_path: Path
) -> None:
    router.batch(f"route replace blackhole {PREFIXES[0]}")
    try:
        access = SshAccess(
            host="127.0.0.1",
            port=sshd.port,
            user="root",
            key_file=sshd.key,
            known_hosts=sshd.known_hosts,
            router_agent=kit,
        )
        check = Check((scenario(),), Tier.FUNCTIONAL, generator=GeneratorBinding(host=access))
        result = run_check(check, router.endpoints, [router.counters], tmp_path / "report")
    finally:
        router.batch(f"route replace {PREFIXES[0]} via {router.gateway(PREFIXES[0], EAST)}")
    assert result.verdict.outcome is Outcome.FAIL
    assert result.proof is not None
    assert result.trial is not None
    assert result.ledger is not None
    assert [found.prefix for found in result.proof.missing.first] == [str(PREFIXES[0])]
    assert result.proof.right == len(PREFIXES) - 1
    lost = int(result.trial.sent_to[result.trial.arrived.sum(axis=0) == 0].sum())
    assert result.trial.lost == lost > 0
    assert result.ledger.unaccounted == 0
    assert int(result.trial.series.lost.sum()) == lost
    assert "tester on 127.0.0.1" in result.ledger.moved
    assert workers(router) == []


def scenario_file(router: Router, sshd: Sshd, kit: str, path: Path, tier: str) -> Path:
    """Write a scenario whose generator and device are both reached over ssh."""
    access = {
        "host": "127.0.0.1",
        "port": sshd.port,
        "user": "root",
        "key_file": str(sshd.key),
        "known_hosts": str(sshd.known_hosts),
        "router_agent": kit,
    }
    ports = {
        port: {
            "interface": port,
            "namespace": router.tester,
            "faces": f"to-{port}",
            "gateway_mac": f"02:00:00:00:02:0{number}",
        }
        for number, port in enumerate(PORTS)
    }
    binding = {
        "generator": {"kind": "sockets", "host": access},
        "ports": ports,
        "device": {"forwarding": "kernel", "ssh": access, "namespace": router.device},
    }
    document = {
        "schema": "router-agent/traffic-scenario/1",
        "name": "everything over ssh",
        "frames": [128],
        "direction": {"from": "west"},
        "goal": {"rate": "3 kpps", "duration": "1 s", "unsent_ratio": 0.3},
        "tiers": {tier: binding},
    }
    path.write_text(json.dumps(document))
    return path


def test_a_scenario_file_with_both_hosts_over_ssh(
    router: Router, sshd: Sshd, kit: str, tmp_path: Path
) -> None:
    """Table, ports, counters, environments and the state to leave behind are all read on the hosts."""
    path = scenario_file(router, sshd, kit, tmp_path / "scenario.yaml", "functional")
    result = commands.check(path, tier=None, report=tmp_path / "report")
    assert result.verdict.outcome is Outcome.PASS, result.verdict.reason
    assert AS_FOUND in result.verdict.notes
    assert result.proof is not None
    assert result.proof.right == len(PREFIXES)
    assert result.ledger is not None
    assert {"kernel forwarding on 127.0.0.1", "tester on 127.0.0.1"} <= result.ledger.moved.keys()
    assert result.device is not None
    assert result.environment.host == result.device.host
    assert workers(router) == []


def test_a_tier_that_the_other_hosts_ports_cannot_carry_is_refused_in_its_words(
    router: Router, sshd: Sshd, kit: str, tmp_path: Path
) -> None:
    path = scenario_file(router, sshd, kit, tmp_path / "scenario.yaml", "line rate")
    with pytest.raises(commands.CommandError, match="port west is veth, which carries") as error:
        commands.check(path, tier=None)
    assert error.value.code is commands.Exit.USAGE


def test_columns_latencies_and_progress_come_through(router: Router, kit: str) -> None:
    seen: list[Snapshot] = []
    asked = scenario(destinations=Destinations.of(PREFIXES, EXPECTED), goal=Goal(unsent_ratio=0.9))
    with RemoteGenerator(asked, router.endpoints, LocalReach(), program=kit) as generator:
        assert (generator.kind, generator.follows_packets, generator.process_ids) == ("sockets", True, ())
        result = generator.start(2_000, 1.0).finish(seen.append)
    assert result.sent == int(result.sent_to.sum()) == int(result.series.sent.sum())
    assert result.received == result.sent
    assert np.array_equal(result.arrived.sum(axis=0), result.sent_to)
    assert result.latency is not None
    assert 0 < result.latency.percentile(50.0) <= result.latency.percentile(99.0)
    assert len(seen) > 2
    assert seen[-1].sent > seen[0].sent
    assert [now.elapsed_s for now in seen] == sorted(now.elapsed_s for now in seen)


def test_a_stream_can_be_stopped_and_another_started(router: Router, kit: str) -> None:
    with RemoteGenerator(scenario(), router.endpoints, LocalReach(), program=kit) as generator:
        endless = generator.start(1_000, 600.0)
        wait_until(lambda: endless.snapshot().sent > 200, "200 packets to be sent")
        stopped = endless.stop()
        assert 200 < stopped.sent < 100_000
        assert stopped.duration_s < 600
        assert generator.start(1_000, 0.3).finish().sent == pytest.approx(300, rel=0.3)


def test_a_generator_that_fails_there_says_so_here(router: Router, kit: str) -> None:
    ports = tuple(replace(port, interface=f"no-{port.interface}") for port in router.endpoints.ports)
    endpoints = replace(router.endpoints, ports=ports)
    generator = RemoteGenerator(scenario(), endpoints, LocalReach(), program=kit)
    with pytest.raises(GeneratorError, match=r"on this host: .*no-west"), generator:
        pytest.fail("it began")
    assert workers(router) == []


def test_packets_stop_and_the_check_is_invalid_when_the_connection_is_cut(
    router: Router, sshd: Sshd, kit: str
) -> None:
    """The connection's processes are killed in the middle of a stream: nobody says goodbye to anybody."""
    with SshReach(sshd.target) as reach:
        generator = RemoteGenerator(scenario(), router.endpoints, reach, program=kit)
        with generator:
            running_stream = generator.start(2_000, 600.0)
            wait_until(lambda: running_stream.snapshot().sent > 500, "500 packets to be sent")
            sshd.cut()
            with pytest.raises(
                GeneratorError, match=r"was lost \d+\.\d s into a stream.*the connection broke.*stops sending"
            ):
                running_stream.finish()
    wait_until(lambda: workers(router) == [], "the workers to be gone")
    before = sent_into(router)
    threading.Event().wait(0.5)
    assert sent_into(router) - before < 20, "it would have been 1,000"


def test_a_controller_that_falls_silent_is_taken_for_gone(router: Router, kit: str) -> None:
    """Its process is there and its connection is up, but nothing comes any more."""
    with LocalReach() as reach:
        generator = RemoteGenerator(scenario(), router.endpoints, reach, program=kit)
        with generator:
            generator.start(1_000, 600.0)
            assert len(workers(router)) > 1
            generator.line._closing.set()  # no pings
            wait_until(lambda: workers(router) == [], "the workers to be gone")


def test_a_host_without_the_kit_and_one_that_chatters_are_named(router: Router, tmp_path: Path) -> None:
    missing = RemoteGenerator(scenario(), router.endpoints, LocalReach(), program="/nowhere/router-agent")
    with pytest.raises(GeneratorError, match="found no program '/nowhere/router-agent'"), missing:
        pytest.fail("it began")
    chatty = tmp_path / "chatty"
    chatty.write_text("#!/bin/sh\necho Welcome to this host\ncat >/dev/null\n")
    chatty.chmod(0o755)
    other = RemoteGenerator(scenario(), router.endpoints, LocalReach(), program=str(chatty))
    with (
        pytest.raises(GeneratorError, match=r"found b'Welcome to t', expected a message.*login script"),
        other,
    ):
        pytest.fail("it began")


def test_a_program_that_ends_at_once_is_quoted(router: Router, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho found no package hdrh >&2\nexit 2\n")
    broken.chmod(0o755)
    generator = RemoteGenerator(scenario(), router.endpoints, LocalReach(), program=str(broken))
    with pytest.raises(GeneratorError, match="found no package hdrh"), generator:
        pytest.fail("it began")


def test_garbage_ends_the_far_side(kit: str) -> None:
    done = subprocess.run(
        [kit, "traffic", "generate"], input=b"GET / HTTP/1.1\r\n\r\n", capture_output=True, check=False
    )
    assert b"expected a message" in done.stderr
    assert done.stdout == b""
    first = Message("start", {"rate_pps": 1.0}).encoded()
    done = subprocess.run([kit, "traffic", "generate"], input=first, capture_output=True, check=False)
    assert b"expected setup first" in done.stdout


def wait_until(happened: object, what: str, seconds: float = 40.0) -> None:
    waiting, limit = threading.Event(), time.monotonic() + seconds
    assert callable(happened)
    while not happened():
        assert time.monotonic() < limit, f"waited {seconds} s for {what}"
        waiting.wait(0.02)
