"""Scenario files run on a real kernel router: destinations from its table, the command line, exit codes.

tester  west ----- in   router   out-a ----- east     80 IPv4 and 40 IPv6 prefixes,
        (sends)                  out-b ----- south    half by east, half by south
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest

from router_agent.model import Family, prefixes_of
from router_agent.traffic.commands import Exit
from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.device import reachable
from router_agent.traffic.reach import LocalReach
from router_agent.traffic.tables.kernel import read_kernel_table
from router_agent.traffic.tables.live import TableError
from router_agent.traffic.tables.remote import read_remote_table

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]

PORTS = ("west", "east", "south")
V4 = [f"20.{i}.0.0/16" for i in range(80)]
V6 = [str(ip_network(f"2001:db8:{i:x}::/48")) for i in range(40)]
ROUTER_MAC = "02:00:00:00:02:00"


class Router:
    """A kernel router in a namespace, and the tester's namespace around it."""

    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self.tester, self.device = f"tst-{mark}", f"tsd-{mark}"

    def up(self) -> None:
        for name in (self.tester, self.device):
            run("ip", "netns", "add", name)
        lines: list[str] = []
        for i, port in enumerate(PORTS):
            mac, peer = f"02:00:00:00:01:0{i}", f"02:00:00:00:02:0{i}"
            run("ip", "link", "add", port, "netns", self.tester, "address", mac, "type", "veth",
                "peer", "name", f"to-{port}", "netns", self.device, "address", peer)  # fmt: skip
            run("ip", "-n", self.tester, "link", "set", port, "up")
            lines += [
                f"link set to-{port} up",
                f"addr add 10.0.{i}.1/24 dev to-{port}",
                f"addr add fd00:{i}::1/64 dev to-{port} nodad",
                f"neigh replace 10.0.{i}.2 lladdr {mac} dev to-{port} nud permanent",
                f"neigh replace fd00:{i}::2 lladdr {mac} dev to-{port} nud permanent",
            ]
        lines += [self.route(prefix) for prefix in (*V4, *V6)]
        self.batch(*lines, "route add blackhole 30.0.0.0/8", "route add 40.0.0.0/8 dev to-east")
        for path, value in (("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")):
            run("ip", "netns", "exec", self.device, "sysctl", "-qw", f"net.{path.replace('/', '.')}={value}")

    def down(self) -> None:
        for name in (self.tester, self.device):
            with suppress(AssertionError):
                run("ip", "netns", "del", name)

    def batch(self, *lines: str) -> None:
        run("ip", "-n", self.device, "-batch", "-", stdin="\n".join(lines) + "\n")

    @staticmethod
    def route(prefix: str) -> str:
        number = (V4 if "." in prefix else V6).index(prefix)
        port = 1 + number % 2
        gateway = f"10.0.{port}.2" if "." in prefix else f"fd00:{port}::2"
        return f"route replace {prefix} via {gateway}"


def run(*argv: str, stdin: str | None = None) -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built() -> Iterator[Router]:
    router = Router()
    try:
        router.up()
        yield router
    finally:
        router.down()


@pytest.fixture
def router(built: Router) -> Iterator[Router]:
    """The router with its first routes; a test may change them, they are put back."""
    yield built
    built.batch(*(built.route(prefix) for prefix in (*V4, *V6)))


def scenario(
    router: Router, path: Path, *, goal: str = "rate: 2 kpps", rest: str = "", tier: str = "functional"
) -> Path:
    path.write_text(f"""\
schema: router-agent/traffic-scenario/1
name: a router in a namespace
frames: [128, imix]
direction: {{from: west}}
goal: {{{goal}, duration: 500 ms, unsent_ratio: 0.3}}
proof: {{rate: 1 kpps}}
{rest}
tiers:
  {tier}:
    ports:
      west: {{interface: west, namespace: {router.tester}, gateway_mac: "{ROUTER_MAC}", faces: to-west}}
      east: {{interface: east, namespace: {router.tester}, faces: to-east}}
      south: {{interface: south, namespace: {router.tester}, faces: to-south}}
    device: {{forwarding: kernel, namespace: {router.device}}}
""")
    return path


def changed(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def traffic(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "router_agent.cli", "traffic", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def test_the_kernels_table_says_where_each_prefix_leaves(router: Router) -> None:
    table = read_kernel_table(router.device)
    assert sorted(str(p) for p in prefixes_of(table.keys[Family.IPV4])) == sorted(V4)
    assert sorted(str(p) for p in prefixes_of(table.keys[Family.IPV6])) == sorted(V6)
    others = {str(p) for p in prefixes_of(table.others[Family.IPV4])}
    assert {"30.0.0.0/8", "40.0.0.0/8", "10.0.1.0/24"} <= others
    found = reachable(table, ["to-west", "to-east", "to-south"])
    for family, prefixes in ((Family.IPV4, V4), (Family.IPV6, V6)):
        names = [str(p) for p in prefixes_of(found.keys[family])]
        expected = [1 + prefixes.index(name) % 2 for name in names]
        assert found.expected[family].tolist() == expected


def test_routes_through_next_hop_objects_and_groups_are_followed(router: Router) -> None:
    router.batch(
        "nexthop add id 71 via 10.0.1.2 dev to-east",
        "nexthop add id 72 via 10.0.2.2 dev to-south",
        "nexthop add id 73 group 71/72",
        "route replace 20.0.0.0/16 nhid 71",
        "route replace 20.1.0.0/16 nhid 73",
    )
    try:
        found = reachable(read_kernel_table(router.device), [None, "to-east", "to-south"])
        by = dict(
            zip(map(str, prefixes_of(found.keys[Family.IPV4])), found.expected[Family.IPV4], strict=True)
        )
        assert by["20.0.0.0/16"] == 1
        assert by["20.1.0.0/16"] == -1
        assert by["20.2.0.0/16"] == 1
    finally:
        router.batch(*(router.route(prefix) for prefix in V4[:2]))
        router.batch("nexthop del id 73", "nexthop del id 72", "nexthop del id 71")


def test_a_table_is_read_on_another_host_by_the_kits_own_program(router: Router, tmp_path: Path) -> None:
    program = tmp_path / "router-agent"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m router_agent.cli "$@"\n')
    program.chmod(0o755)
    with LocalReach() as reach:
        found = read_remote_table(reach, ["--kernel", "--namespace", router.device], program=str(program))
        assert len(found) == 120
        with pytest.raises(TableError, match="namespace 'absent' does not exist"):
            read_remote_table(reach, ["--kernel", "--namespace", "absent"], program=str(program))
        with pytest.raises(TableError, match="is the same version of the kit there"):
            read_remote_table(reach, [], program="/bin/echo")


def test_a_file_is_checked_at_each_frame_size_and_passes(router: Router, tmp_path: Path) -> None:
    path = scenario(router, tmp_path / "pop.yaml")
    done = traffic("check", path, "--report", tmp_path / "report")
    assert done.returncode == Exit.PASS, done.stdout + done.stderr
    assert "PASS" in done.stdout
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [part["name"] for part in report["parts"]] == ["port proof", "target, 128 bytes", "target, imix"]
    assert report["proof"]["right"] == 120
    assert report["tier"] == "functional"
    assert "nothing about what NICs" in " ".join(report["verdict"]["notes"])


def test_a_black_hole_fails_and_the_search_says_so_too(router: Router, tmp_path: Path) -> None:
    router.batch(*(f"route replace blackhole {prefix}" for prefix in V4[:40]))
    live = read_kernel_table(router.device)
    assert len(live.keys[Family.IPV4]) == 40
    listed = "destinations: {prefixes: [" + ", ".join(V4) + "]}"
    path = scenario(router, tmp_path / "pop.yaml", rest=listed)
    done = traffic("check", path, "--only", "target", "--json")
    assert done.returncode == Exit.FAIL, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"]["outcome"] == "FAIL"
    assert report["proof"]["missing"]["count"] == 40


@pytest.mark.parametrize(
    ("goal", "rest", "tier", "code", "words"),
    [
        ("rate: 10GbE line rate", "", "functional", Exit.USAGE, "which tier 'functional' cannot carry"),
        ("rate: 1 kpps", "", "line rate", Exit.USAGE, "port west is veth, which carries tier 'functional'"),
        ("rate: 1 kpps", "", "software ceiling", Exit.USAGE, "expected memif ports, or NICs"),
        ("rate: 1 kpps, los: 1", "", "functional", Exit.USAGE, "goal.los: found an unknown key"),
        ("rate: 1 kpps", "destinations: {file: absent.txt}", "functional", Exit.USAGE, "absent.txt: cannot"),
        ("rate: 1 kpps", "destinations: {families: [ipv6], prefixes: [1.0.0.0/8]}", "functional", 2, "IPv6"),
        ("rate: 5 Mpps", "proof: false", "functional", Exit.INVALID, "the generator was the limit"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_told_apart_by_exit_code(
    router: Router, tmp_path: Path, goal: str, rest: str, tier: str, code: Exit, words: str
) -> None:
    path = scenario(router, tmp_path / "pop.yaml", goal=goal, rest=rest, tier=tier)
    if rest == "proof: false":
        changed(path, "proof: {rate: 1 kpps}\n", "")
    done = traffic("check", path, "--only", "target")
    assert done.returncode == code, done.stdout + done.stderr
    assert words in " ".join((done.stdout + done.stderr).split())


def test_a_device_that_is_not_there_is_no_verdict(router: Router, tmp_path: Path) -> None:
    path = scenario(router, tmp_path / "pop.yaml")
    changed(path, f"namespace: {router.device}}}", "namespace: absent}")
    done = traffic("check", path)
    assert done.returncode == Exit.UNDONE
    assert "network namespace 'absent' does not exist" in done.stderr


def test_a_port_that_is_not_there_is_no_verdict(router: Router, tmp_path: Path) -> None:
    path = scenario(router, tmp_path / "pop.yaml")
    changed(path, "interface: east", "interface: absent0")
    done = traffic("check", path, "--only", "target")
    assert done.returncode == Exit.UNDONE, done.stdout + done.stderr
    assert "absent0" in done.stdout


def test_explaining_sends_nothing(router: Router, tmp_path: Path) -> None:
    path = scenario(router, tmp_path / "pop.yaml", rest="measurements: [ndr, latency]")
    before = forwarded(router)
    done = traffic("explain", path)
    assert done.returncode == Exit.PASS, done.stderr
    for words in ("port proof", "target", "NDR", "latency", "port west: veth", "note: tier functional"):
        assert words in done.stdout, words
    assert forwarded(router) == before


def forwarded(router: Router) -> int:
    """Return how many IPv4 packets the router has forwarded."""
    counters = KernelForwarder(router.device).read()
    return counters["Ip.ForwDatagrams"]


def test_a_cancelled_check_leaves_nothing_behind(router: Router, tmp_path: Path) -> None:
    path = scenario(router, tmp_path / "pop.yaml", goal="rate: 1 kpps")
    path.write_text(path.read_text().replace("500 ms", "60 s"))
    argv = [sys.executable, "-m", "router_agent.cli", "traffic", "check", str(path), "--only", "target"]
    routes = run("ip", "-n", router.device, "route")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("target"):
                break
        workers = children(process.pid)
        assert workers
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
        assert process.wait(20) == 130, rest
    assert "cancelled" in rest
    limit = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < limit, f"{workers} outlive their check"
        os.sched_yield()
    assert run("ip", "-n", router.device, "route") == routes


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_route_changes_are_made_by_the_named_commands_and_undone(router: Router, tmp_path: Path) -> None:
    """The upstream here is ip(8): it turns prefixes into blackholes and back."""
    helper = tmp_path / "upstream.sh"
    routes = {prefix: router.route(prefix) for prefix in V4}
    back = tmp_path / "routes"
    back.write_text("".join(f"{prefix} {line}\n" for prefix, line in routes.items()))
    helper.write_text(f"""\
#!/bin/sh
while read -r prefix; do
  if [ "$1" = withdraw ]; then echo "route replace blackhole $prefix"
  else grep "^$prefix " {back} | cut -d' ' -f2-
  fi
done | ip -n {router.device} -batch -
""")
    helper.chmod(0o755)
    rest = "destinations: {families: [ipv4]}\nmeasurements: {churn: {prefixes: 20, rounds: 1, every: 500 ms}}"
    goal = "rate: 2 kpps, churn: {lost: 0}"
    path = scenario(router, tmp_path / "pop.yaml", goal=goal, rest=rest)
    commands = f"\n    upstream: {{withdraw: [{helper}, withdraw], announce: [{helper}, announce]}}\n"
    path.write_text(path.read_text().rstrip("\n").replace("[128, imix]", "[128]") + commands)
    before = run("ip", "-n", router.device, "route")
    done = traffic("check", path, "--json")
    assert run("ip", "-n", router.device, "route") == before
    report = json.loads(done.stdout)
    names = [part["name"] for part in report["parts"]]
    assert names == ["port proof", "target, 128 bytes", "churn, 128 bytes"], done.stdout
    churn = report["measurements"][-1]
    assert [batch["what"] for batch in churn["batches"]] == ["withdrawn", "announced"]
    assert churn["trial"]["lost"] > 100
    assert all(ip_network(p) for p in V4)
    assert np.isfinite(churn["blocked_s"])
