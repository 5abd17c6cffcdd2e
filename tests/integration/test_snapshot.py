"""`router-agent snapshot` on a whole router: real FRR, BIRD as its upstream, a kernel or a VPP that forwards.

The lab's planes are namespaces, and the host's own interfaces are in a snapshot too: what becomes of those
meanwhile is nobody's business here.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.lab import FibKind, Lab, SpeakerKind
from router_agent.lab.plan import IN, UPLINK
from router_agent.lab.plane import PROTOCOL, VppPlane
from router_agent.lab.root import HOST
from router_agent.lab.table import generated_table
from router_agent.model import Family
from router_agent.namespaces import inside
from router_agent.snapshot.model import Asked, Reading, Snapshot

pytestmark = [pytest.mark.root, pytest.mark.daemons]

SECONDS = 60.0
IPV4, IPV6 = 400, 100
WITHIN, NOT, USAGE = 0, 1, 2
PEER = str(UPLINK.gateway(Family.IPV4))
LOCAL_EXPERIMENTAL = 0x88B5
"""Ethertype (IEEE 802) that nobody takes, so that the kernel counts a drop."""


class Router:
    """The command line against a lab's POP."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        self.directory = directory

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "router_agent.cli", "snapshot", *arguments]
        return subprocess.run(
            [*command, "--directory", str(self.directory)],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def take(self, label: str, *, code: int = 0, settle: float = 5.0) -> Snapshot:
        """Take a snapshot and return it."""
        vtysh = shlex.join(self.lab.frr.vtysh) if self.lab.frr else "/nonexistent/vtysh"
        options = ["--config", str(self.lab.agent.config), "--vtysh", vtysh, "--settle", str(settle)]
        done = self.run("take", "--label", label, *options)
        assert done.returncode == code, done.stdout + done.stderr
        listed = json.loads(self.run("list", "--json").stdout)
        path = [entry["path"] for entry in listed if entry["label"] == label][-1]
        return Snapshot.model_validate_json(Path(path).read_text())

    def diff(self, before: str, after: str, *options: str) -> tuple[int, dict[str, Any]]:
        """Compare two snapshots; without what became of the host's own interfaces."""
        done = self.run("diff", before, after, "--json", *options)
        assert done.returncode in (WITHIN, NOT), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        found["changes"] = [
            change
            for change in found["changes"]
            if not change["subject"].startswith("kernel ") or "/" in change["subject"]
        ]
        return done.returncode, found

    def beyond(self, before: str, after: str, *options: str) -> set[tuple[str, str, str]]:
        """What is beyond the tolerances: kind, which, and what of it; errors when they are asked about."""
        errors = () if "--errors-per-second" in options else ("--errors-per-second", "1000000")
        _, found = self.diff(before, after, *options, *errors)
        return {
            (change["what"], change["subject"], change["aspect"])
            for change in found["changes"]
            if change["judged"] == "beyond"
        }


@pytest.fixture(scope="module")
def lab(module_lab_name: str) -> Iterator[Lab]:
    with Lab(module_lab_name, table=generated_table(IPV4, IPV6), fib=FibKind.KERNEL) as running:
        # The upstream answers BFD; nobody asks it before the test that does.
        running.upstream.further = f"protocol bfd liveness {{ neighbor {UPLINK.address(Family.IPV4).ip}; }}\n"
        running.start()
        wait_as_ever(running)
        yield running


def wait_as_ever(lab: Lab) -> None:
    """Wait until the upstream announces everything and hears what the POP announces."""
    lab.wait_established(seconds=SECONDS)
    lab.wait_settled(seconds=SECONDS)
    wait_until(
        lambda: all(lab.upstream.imported(family) == 1 for family in Family),
        "the POP's announcement",
        seconds=SECONDS,
    )


@pytest.fixture
def router(lab: Lab, tmp_path: Path) -> Iterator[Router]:
    """The lab's POP, as the upstream announces everything, and so again afterwards."""
    yield Router(lab, tmp_path)
    lab.upstream.command('enable "pop1_*"')
    lab.upstream.announce_again()
    wait_as_ever(lab)


def content(reading: Reading[Any]) -> Any:
    assert reading.state is Asked.READ, reading.reason
    return reading.content


def test_everything_that_is_there_is_read_and_nothing_has_changed(router: Router) -> None:
    taken = router.take("before")
    assert taken.unreadable == {}
    assert (taken.bfd.state, taken.bfd.reason) == (Asked.ABSENT, "FRR runs without bfdd")
    assert (taken.vpp.state, taken.exabgp.state) == (Asked.ABSENT, Asked.ABSENT)
    sessions = {session.peer: session for session in content(taken.bgp).sessions}
    assert sessions.keys() == {str(UPLINK.gateway(family)) for family in Family}
    session = sessions[PEER]
    assert (session.established, session.remote_as, session.drops) == (True, 64496, 0)
    prefixes = session.families["ipv4Unicast"]
    assert (prefixes.received, prefixes.accepted, prefixes.advertised) == (None, IPV4, 1)
    # what the POP announces itself is in BGP's table and not of BGP in zebra and the kernel
    assert content(taken.bgp).prefixes == {"IPv4": IPV4 + 1, "IPv6": IPV6 + 1}
    routes = content(taken.zebra).routes
    assert {family: (found.rib, found.fib) for family, found in routes.items()} == {
        "IPv4": (IPV4, IPV4),
        "IPv6": (IPV6, IPV6),
    }
    kernel = content(taken.kernel)
    assert kernel.bgp == {"IPv4": IPV4, "IPv6": IPV6}
    (pipeline,) = content(taken.agent).pipelines
    assert pipeline.state == "in-sync"
    for family, counts in pipeline.counts.items():
        assert counts.desired == counts.in_fib == kernel.feeds["fib"][family] == kernel.fibs["fib"][family]
    assert f"{router.lab.topology.pop}/{UPLINK.name}" in content(taken.links).links
    assert content(taken.versions).installed["agent"]
    assert str(router.lab.agent.config) in content(taken.configurations).hashes
    assert not content(taken.drained).drained
    router.take("after")
    _, found = router.diff("before", "after")
    changes = [change for change in found["changes"] if change["what"] != "errors"]
    assert (changes, found["faults"], found["unknown"]) == ([], [], [])


def test_a_session_that_is_lost_is_named(router: Router) -> None:
    router.take("before")
    router.lab.upstream.command("disable pop1_v4")
    wait_until(lambda: router.lab.bgp_routes()[Family.IPV4] <= 1, "BGP's routes to go", seconds=SECONDS)
    router.take("after")
    code, found = router.diff("before", "after")
    assert (code, found["within"]) == (NOT, False)
    beyond = router.beyond("before", "after")
    assert ("session", f"FRR {PEER}", "state") in beyond
    assert ("table", "kernel, BGP's, IPv4", "routes") in beyond
    assert not any("IPv6" in subject for _, subject, _ in beyond)
    # The tables are as small as they have become.
    assert found["faults"] == []
    tolerated = router.beyond("before", "after", "--session-lost", PEER, "--prefixes-fall", "100")
    assert tolerated == set()


def test_prefixes_that_are_withdrawn_are_judged_by_their_share(router: Router) -> None:
    router.take("before")
    gone = router.lab.upstream.withdraw(40)
    router.lab.wait_settled(seconds=SECONDS)
    after = router.take("after")
    left = IPV4 - gone[Family.IPV4]
    assert content(after.kernel).bgp["IPv4"] == left
    _, found = router.diff("before", "after")
    change = next(c for c in found["changes"] if c["what"] == "prefixes" and c["aspect"] == "accepted")
    assert (change["subject"], change["before"], change["after"]) == (
        f"FRR {PEER}, ipv4Unicast",
        f"{IPV4}",
        f"{left}",
    )
    assert change["judged"] == "beyond"
    assert router.beyond("before", "after", "--prefixes-fall", "90") == set()
    router.lab.upstream.announce_again()
    wait_as_ever(router.lab)
    router.take("again")
    assert router.beyond("after", "again") == router.beyond("before", "again") == set()


def test_an_interface_that_drops_packets_is_judged_by_its_rate(router: Router) -> None:
    router.take("before")
    topology, frames = router.lab.topology, 4000
    with inside(topology.tester), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((IN.far_name, 0))
        header = b"\xff" * 6 + b"\x02\x00\x00\x00\x00\x01" + LOCAL_EXPERIMENTAL.to_bytes(2, "big")
        for _ in range(frames):
            sender.send(header + bytes(46))
    router.take("after")
    _, found = router.diff("before", "after", "--errors-per-second", "0")
    (change,) = [c for c in found["changes"] if c["subject"] == f"kernel {topology.forwarding}/{IN.name}"]
    assert (change["what"], change["aspect"], change["judged"]) == ("errors", "rx_dropped", "beyond")
    grown = int(change["after"].replace(",", "")) - int(change["before"].replace(",", ""))
    assert grown >= frames
    assert router.beyond("before", "after", "--errors-per-second", "1000000") == set()


def test_a_link_that_lost_its_carrier_is_named(router: Router) -> None:
    router.take("before")
    topology = router.lab.topology
    subprocess.run(["ip", "-n", topology.tester, "link", "set", "dev", IN.far_name, "down"], check=True)
    try:
        router.take("after", settle=0)
    finally:
        subprocess.run(["ip", "-n", topology.tester, "link", "set", "dev", IN.far_name, "up"], check=True)
    name = f"{topology.forwarding}/{IN.name}"
    assert ("interface", f"kernel {name}", "state") in router.beyond("before", "after")
    down = router.beyond("before", "after", "--interface-down", name)
    assert ("interface", f"kernel {name}", "state") not in down


def test_a_fib_with_other_routes_than_the_kernel_is_wrong(router: Router) -> None:
    """Somebody writes routes under the agent's protocol into the FIB."""
    router.take("before")
    namespace = router.lab.topology.forwarding
    prefixes = [f"203.0.113.{host}/32" for host in range(10)]

    def change(verb: str) -> None:
        lines = "".join(f"route {verb} blackhole {prefix} proto {PROTOCOL}\n" for prefix in prefixes)
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=lines, text=True, check=True)

    change("add")
    try:
        router.take("after", settle=0)
    finally:
        change("del")
    code, found = router.diff("before", "after")
    assert code == NOT
    (fault,) = found["faults"]
    assert fault["subject"].startswith("pipeline fib, IPv4: ")
    assert "10 apart" in fault["words"]
    code, found = router.diff("before", "after", "--fib-gap", "50")
    assert found["faults"] == []


def test_a_configuration_that_was_changed_is_expected_or_not(router: Router) -> None:
    config = router.lab.agent.config
    router.take("before")
    text = config.read_text()
    config.write_text(f"{text}# another\n")
    try:
        router.take("after")
    finally:
        config.write_text(text)
    assert router.beyond("before", "after") == {("configuration", str(config), "SHA-256")}
    assert router.beyond("before", "after", "--changed", "configuration") == set()
    assert router.beyond("before", "after", "--changed", str(config)) == set()


def test_an_agent_that_does_not_answer_is_unknown_and_never_the_same(router: Router) -> None:
    router.take("before")
    router.lab.agent.stop()
    try:
        taken = router.take("after", code=NOT)
        router.take("again", code=NOT)
    finally:
        router.lab.agent.start()
    assert taken.agent.state is Asked.UNREADABLE
    assert "control.sock" in (taken.agent.reason or "")
    for before in ("before", "after"):
        code, found = router.diff(before, "again")
        assert (code, [unknown["source"] for unknown in found["unknown"]]) == (NOT, ["agent"])
    _, found = router.diff("before", "after", "--unreadable", "agent")
    assert found["unknown"][0]["tolerated"]


def test_a_restarted_frr_is_no_negative_growth(router: Router) -> None:
    router.take("before")
    assert router.lab.frr is not None
    router.lab.frr.restart()
    wait_as_ever(router.lab)
    router.take("after")
    _, found = router.diff("before", "after")
    drops = [change for change in found["changes"] if change["aspect"] == "drops"]
    assert {change["judged"] for change in drops} <= {"within"}
    assert router.beyond("before", "after") == set()
    # FRR counts anew; what tells of the restart is that sessions are younger than the earlier snapshot.
    older = [s.uptime_seconds for s in content(router.take("third").bgp).sessions]
    assert all(seconds is not None for seconds in older)


def test_bfd_that_goes_down_is_named(router: Router) -> None:
    lab = router.lab
    assert lab.frr is not None
    vtysh = lab.frr.vtysh
    runtime = Path("/var/run/frr") / lab.frr.pathspace
    program = HOST.inside("/usr/lib/frr/bfdd", "-N", lab.frr.pathspace, "--log", "stdout")
    bfdd = Daemon("bfdd", program, namespace=lab.topology.pop, directory=lab.frr.directory)
    bfdd.start()
    try:
        wait_until((runtime / "bfdd.vty").is_socket, "bfdd's shell socket", seconds=SECONDS, daemons=[bfdd])
        peer = f"peer {PEER} local-address {UPLINK.address(Family.IPV4).ip}"
        subprocess.run(
            [*vtysh, "-c", "configure terminal", "-c", "bfd", "-c", peer, "-c", "no shutdown"],
            check=True,
            capture_output=True,
        )

        def status() -> str:
            found = json.loads(subprocess.check_output([*vtysh, "-c", "show bfd peers json"], text=True))
            return str(found[0]["status"]) if found else "none"

        wait_until(lambda: status() == "up", "BFD to come up", seconds=SECONDS, found=status)
        assert [p.status for p in content(router.take("before").bfd).peers] == ["up"]
        lab.upstream.command("disable liveness")
        wait_until(lambda: status() != "up", "BFD to go down", seconds=SECONDS, found=status)
        router.take("after")
        beyond = router.beyond("before", "after")
        assert {(what, aspect) for what, _, aspect in beyond} == {("bfd", "status")}
        assert router.beyond("before", "after", "--session-lost", PEER) == set()
        lab.upstream.command("enable liveness")
    finally:
        bfdd.kill()
    # what was there and no longer is, is not the same either
    router.take("without")
    assert ("source", "bfd", "there") in router.beyond("before", "without")


def test_soft_reconfiguration_tells_what_was_received(router: Router) -> None:
    assert router.lab.frr is not None
    words = ["configure terminal", "router bgp 64500", "address-family ipv4 unicast"]
    line = f"neighbor {PEER} soft-reconfiguration inbound"
    for change in (line, f"no {line}"):
        commands = [word for command in (*words, change) for word in ("-c", command)]
        subprocess.run([*router.lab.frr.vtysh, *commands], check=True, capture_output=True)
        router.lab.wait_settled(seconds=SECONDS)
        session = next(s for s in content(router.take("soft").bgp).sessions if s.peer == PEER)
        expected = IPV4 if change == line else None
        assert session.families["ipv4Unicast"].received == expected


def test_words_for_people_and_mistakes(router: Router) -> None:
    router.take("before")
    router.lab.upstream.withdraw(40)
    router.lab.wait_settled(seconds=SECONDS)
    router.take("after")
    done = router.run("diff", "before", "after")
    assert done.returncode == NOT
    assert "NOT within tolerances: " in done.stdout.splitlines()[-1]
    assert "beyond" in done.stdout
    assert "up to 1 % is tolerated" in done.stdout
    for arguments in (
        ["diff", "before", "never"],
        ["diff", "after", "before"],
        ["diff", "before", "after", "--changed", "vpq"],
        ["take", "--label", "a/b"],
        ["take", "--config", "/nonexistent/agent.yaml"],
    ):
        done = router.run(*arguments)
        assert (done.returncode, done.stdout) == (USAGE, ""), done.stdout
        assert done.stderr


def test_a_host_without_any_of_it_is_told_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "router_agent.cli", "snapshot", "take", "--json"]
    done = subprocess.run(
        [*command, "--vtysh", "/nonexistent/vtysh", "--output", str(tmp_path / "taken.json")],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    taken = Snapshot.model_validate_json(done.stdout)
    assert Snapshot.model_validate_json((tmp_path / "taken.json").read_text()) == taken
    assert {name for name, reading in taken.sources.items() if reading.state is Asked.ABSENT} == {
        *("bgp", "zebra", "bfd", "exabgp", "agent", "vpp")
    }


@pytest.mark.vpp
def test_vpp_is_read_and_its_restart_begins_counters_anew(lab_name: str, tmp_path: Path) -> None:
    with Lab(lab_name, table=generated_table(300, 50), fib=FibKind.VPP) as lab:
        lab.start()
        lab.wait_settled(seconds=SECONDS)
        router = Router(lab, tmp_path)
        before = router.take("before")
        assert isinstance(lab.plane, VppPlane)
        vpp = content(before.vpp).instances[str(lab.plane.process.api_socket)]
        assert vpp.version
        assert vpp.dpdk is None
        counts = content(before.agent).pipelines[0].counts
        for family, table in vpp.tables["fib"].items():
            assert table.entries >= counts[family].in_fib > 0
        link = vpp.links[f"host-{IN.name}"]
        assert (link.up, link.carrier) == (True, True)
        assert "rx-miss" in link.errors
        lab.plane.kill()
        lab.plane.start()
        lab.meet_neighbours()
        lab.wait_settled(seconds=SECONDS)
        router.take("after")
        _, found = router.diff("before", "after")
        assert ("vpp", "VPP", "started") in {(c["what"], c["subject"], c["aspect"]) for c in found["changes"]}
        assert router.beyond("before", "after") == {("vpp", "VPP", "started")}
        assert router.beyond("before", "after", "--changed", "vpp") == set()
        assert found["faults"] == []


def test_exabgps_sessions_are_told_by_the_agent(lab_name: str, tmp_path: Path) -> None:
    with Lab(lab_name, table=generated_table(200, 40), speaker=SpeakerKind.EXABGP) as lab:
        lab.start()
        lab.wait_settled(seconds=SECONDS)
        router = Router(lab, tmp_path)
        taken = router.take("before")
        assert taken.bgp.state is Asked.ABSENT
        sessions = {session.peer: session for session in content(taken.exabgp).sessions}
        assert sessions.keys() == {str(UPLINK.gateway(family)) for family in Family}
        assert sessions[PEER].established
        assert sessions[PEER].families["ipv4Unicast"].accepted == 200
        lab.upstream.command("disable pop1_v4")
        wait_until(lambda: lab.bgp_routes()[Family.IPV4] == 0, "routes to go", seconds=SECONDS)
        router.take("after")
        assert ("session", f"ExaBGP {PEER}", "state") in router.beyond("before", "after")
