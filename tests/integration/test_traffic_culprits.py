"""Culprits of losses that are really produced: by a kernel, by a VPP, and by the tester itself."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from router_agent.namespaces import inside
from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.generators.generator import Series, TrialResult
from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.judgement.culprits import name_culprits
from router_agent.traffic.judgement.culprits.vpp import vectors_per_call
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.judgement.verdict import Outcome, judge_trial
from router_agent.traffic.scenario import Destinations, Goal, Scenario

from .forwarders import KernelRouter, VppRouter, kernel_router, prefixes, vpp_router

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

PREFIXES = prefixes(100)
with_vpp = [pytest.mark.vpp, pytest.mark.skipif(shutil.which("vpp") is None, reason="vpp is not on PATH")]


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelRouter]:
    with kernel_router() as router:
        router.add(PREFIXES)
        yield router


@pytest.fixture(scope="module")
def vpp() -> Iterator[VppRouter]:
    with vpp_router() as router:
        router.add(PREFIXES)
        yield router


def scenario(**changes: object) -> Scenario:
    base = Scenario(
        "culprits",
        Destinations.of([*PREFIXES], [1] * len(PREFIXES)),
        rate_pps=4_000,
        duration_s=1.0,
        goal=Goal(unsent_ratio=0.3),
        drain_s=0.4,
        interval_s=0.02,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def tried(
    router: KernelRouter | VppRouter,
    scene: Scenario,
    meanwhile: Callable[[], None] = lambda: None,
) -> tuple[TrialResult, Ledger, tuple[str, ...]]:
    """Run one trial, and something else while it runs; return its culprits too."""
    with SocketsGenerator(scene, router.endpoints) as generator:
        keeper = LedgerKeeper([router.counters, *generator.counters])
        keeper.open()
        running = generator.start(scene.rate_pps, scene.duration_s)
        try:
            meanwhile()
        finally:
            result = running.finish()
        ledger = keeper.close(result)
    return result, ledger, name_culprits(result, ledger)


def test_a_kernel_without_routes_is_told_from_one_with_too_much_load(kernel: KernelRouter) -> None:
    kernel.remove(PREFIXES[:10])
    try:
        result, _, words = tried(kernel, scenario())
    finally:
        kernel.add(PREFIXES[:10])
    assert any(w.startswith("no route for") for w in words), words
    assert any(w.startswith("10 of 100 prefixes lost every packet") for w in words), words
    assert result.lost > 0


def test_a_moment_without_routes_is_told_from_too_much_load(kernel: KernelRouter) -> None:
    pause = threading.Event()

    def stumble() -> None:
        pause.wait(1.0)
        kernel.remove(PREFIXES)
        kernel.add(PREFIXES)

    result, _, words = tried(kernel, scenario(duration_s=6.0), stumble)
    assert result.lost > 0
    assert any("a stall or a burst, not the load" in w for w in words), (words, result.series.lost)
    assert not any("prefixes lost every packet" in w for w in words)


def test_a_next_hop_that_does_not_answer_is_named(kernel: KernelRouter) -> None:
    routes = [f"route replace {prefix} via 10.0.1.99" for prefix in PREFIXES[:20]]
    subprocess.run(["ip", "-n", kernel.device, "-batch", "-"], input="\n".join(routes), text=True, check=True)
    try:
        result, ledger, words = tried(kernel, scenario())
    finally:
        kernel.add(PREFIXES[:20])
    assert result.lost > 0
    assert any(w.startswith("the kernel knew no neighbour for") for w in words), (words, ledger)


def test_sources_without_a_way_back_are_named(kernel: KernelRouter) -> None:
    """Strict reverse path filtering: the router has no route to the test's sources (RFC 3704)."""
    settings = Path("/proc/sys/net/ipv4/conf/to-west/rp_filter")
    with inside(kernel.device):
        settings.write_text("1")
    try:
        result, ledger, words = tried(kernel, scenario())
    finally:
        with inside(kernel.device):
            settings.write_text("0")
    assert result.received == 0
    assert words[0].startswith(f"reverse path filter dropped {result.lost:,} packets"), (words, ledger)


def test_sockets_that_are_read_too_slowly_are_named() -> None:
    """A receiver on UDP sockets in a namespace of its own, with room for a few packets only."""
    count = 2_000
    with kernel_router() as router, inside(router.tester):
        with inside(router.tester):
            ip_up = subprocess.run(["ip", "link", "set", "lo", "up"], check=False)
            assert ip_up.returncode == 0
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with receiver, sender:
            receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            receiver.bind(("127.0.0.1", 0))
            receiver.setblocking(False)
            keeper = LedgerKeeper([KernelForwarder(router.tester)])
            keeper.open()
            for _ in range(count):
                sender.sendto(b"x" * 100, receiver.getsockname())
            got = 0
            while _readable(receiver):
                got += 1
        result = _counted(count, got)
        words = name_culprits(result, keeper.close(result))
    assert 0 < got < count
    assert words[0].startswith(f"UDP RcvbufErrors at the receiver, {count - got:,} packets"), words


def _readable(receiver: socket.socket) -> bool:
    try:
        receiver.recv(200)
    except BlockingIOError:
        return False
    return True


def _counted(sent: int, received: int) -> TrialResult:
    column = [np.array([n], np.int64) for n in (sent, sent, received, sent - received)]
    return TrialResult(
        rate_pps=sent,
        duration_s=1.0,
        offered_s=1.0,
        intended=sent,
        sent=sent,
        received=received,
        received_by_port=(received,),
        series=Series(1.0, *column),
    )


def test_a_generator_asked_for_too_much_blames_itself(kernel: KernelRouter) -> None:
    scene = scenario(rate_pps=20e6, duration_s=0.2, goal=Goal())
    result, ledger, words = tried(kernel, scene)
    assert judge_trial(result, ledger, scene.goal).outcome is Outcome.INVALID
    assert words[0].startswith("tester's ")
    assert "could not send" in words[0]


def test_a_capture_ring_that_is_too_small_is_the_testers_own(kernel: KernelRouter) -> None:
    scene = scenario(ring_frames=16, rate_pps=60_000, duration_s=0.5, goal=Goal(unsent_ratio=0.9))
    result, ledger, words = tried(kernel, scene)
    assert judge_trial(result, ledger, scene.goal).outcome is Outcome.INVALID
    ours = [w for w in words if w.startswith("tester's capture of port east full")]
    assert ours
    assert "the tester lost them" in ours[0]


@contextmanager
def hogs(cpu: int, count: int) -> Iterator[None]:
    """Keep a CPU busy with so many processes."""
    code = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def test_a_tester_that_shares_its_cpu_is_noted(kernel: KernelRouter) -> None:
    cpu = min(os.sched_getaffinity(0))
    with hogs(cpu, 3):
        scene = scenario(cpus=(cpu,), rate_pps=40_000, goal=Goal())
        result, ledger, words = tried(kernel, scene)
    verdict = judge_trial(result, ledger, scene.goal)
    assert any("waited for a CPU for" in note for note in verdict.notes), verdict
    if words:
        assert any("had to wait for a CPU" in w for w in words), words


@pytest.mark.vpp
@pytest.mark.skipif(shutil.which("vpp") is None, reason="vpp is not on PATH")
class TestVpp:
    """Culprits of a VPP."""

    def test_missing_routes_are_named(self, vpp: VppRouter) -> None:
        vpp.remove(PREFIXES[:10])
        try:
            _, _, words = tried(vpp, scenario())
        finally:
            vpp.add(PREFIXES[:10])
        assert any(w.startswith("VPP had no route, or one that drops, for") for w in words), words
        assert any(w.startswith("10 of 100 prefixes lost every packet") for w in words), words

    def test_a_next_hop_that_does_not_answer_is_named(self, vpp: VppRouter) -> None:
        for prefix in PREFIXES[:20]:
            vpp.vpp.cli(f"ip route del {prefix}")
            vpp.vpp.cli(f"ip route add {prefix} via 10.0.1.99 host-to-east")
        try:
            result, ledger, words = tried(vpp, scenario())
        finally:
            for prefix in PREFIXES[:20]:
                vpp.vpp.cli(f"ip route del {prefix} via 10.0.1.99 host-to-east")
            vpp.add(PREFIXES[:20])
        assert result.lost > 0
        assert any(w.startswith("VPP knew no neighbour for") for w in words), (words, ledger.drops)

    def test_a_vpp_that_stood_still_did_not_take_packets_in(self, vpp: VppRouter) -> None:
        """Its receive ring holds less than what comes while it stands still."""
        pid, pause = vpp.vpp.pid, threading.Event()

        def stand_still() -> None:
            pause.wait(0.5)
            os.kill(pid, signal.SIGSTOP)
            try:
                pause.wait(1.0)
            finally:
                os.kill(pid, signal.SIGCONT)

        result, ledger, _ = tried(vpp, scenario(rate_pps=20_000, duration_s=3.0), stand_still)
        (missed,) = [d for d in ledger.drops if d.name == "not taken in by VPP port host-to-west"]
        assert missed.count > 0.8 * result.lost > 0, ledger.drops

    def test_its_workers_are_seen_at_work(self, vpp: VppRouter) -> None:
        """Node counters come with the stats segment's next update."""
        result, ledger, _ = tried(vpp, scenario(duration_s=2.5))
        found = vectors_per_call(ledger.moved)
        assert found is not None
        assert 1 <= found <= 256
        moved = ledger.moved[vpp.counters.name]
        assert moved["/sys/heartbeat"] >= 1
        assert 0 < moved["/sys/node/vectors/0/ip4-lookup"] <= result.sent + 100
        assert moved["/sys/node/clocks/0/ip4-lookup"] > 0

    def test_a_vpp_that_was_restarted_is_named(self) -> None:
        with vpp_router() as router:
            router.add(PREFIXES)
            tried(router, scenario())

            def restart() -> None:
                router.vpp.kill()
                router.vpp.start()
                router.configure()

            scene = scenario(duration_s=6.0, rate_pps=1_000)
            result, ledger, words = tried(router, scene, restart)
        assert result.lost > 0
        assert ledger.restarted == (router.counters.name,), ledger.moved
        assert any("counts anew: it was restarted" in w for w in words), words
