"""What the roles frr and exabgp configure, before the daemons themselves.

* The rendered files that were looked at are accepted, and refused when broken.
* The module frr_configuration against a real FRR, which has a network and a mount namespace of its own, and
  BIRD as its neighbour: what changes is applied and nothing else, what is refused leaves all as it was.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from frr_configuration import delta_of
from frr_variables import frr_peers, frr_reserved, frr_rpki_transport
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.render import render

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "unit" / "golden"
MODULE = ROOT / "roles" / "frr" / "library" / "frr_configuration.py"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROOT / "roles/frr/defaults/main.yml").read_text())
EXABGP = str(Path(sys.executable).with_name("exabgp"))
RELOAD = Path("/usr/lib/frr/frr-reload.py")

SECRETS = ("first-secret", "second-secret")
NEIGHBOUR, ROUTER = "198.18.7.2", "198.18.7.1"

Command = Callable[[Path], Sequence[str]]

CHECKS: dict[str, tuple[Command, str]] = {
    "role-frr.conf": (lambda path: ["vtysh", "-C", "-f", str(path)], "neighbour here\n"),
    "role-exabgp.conf": (lambda path: [EXABGP, "validate", "-nr", str(path)], "neighbor here {\n"),
    "role-exabgp.service": (
        lambda path: ["systemd-analyze", "verify", "--man=no", str(path)],
        "[Service]\nExecStart=nowhere\n",
    ),
    "role-exabgp-checks": (lambda path: ["sh", "-n", str(path)], "case 'x\n"),
    "role-frr-confirmed.conf": (lambda path: ["vtysh", "-C", "-f", str(path)], "neighbour here\n"),
    "role-daemons-confirmed": (lambda path: ["sh", "-n", str(path)], "bgpd=(\n"),
    "role-daemons": (lambda path: ["sh", "-n", str(path)], "bgpd=(\n"),
}

pytestmark = [pytest.mark.root, pytest.mark.daemons]


@pytest.fixture
def rendered(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    name: str = request.param
    text = (GOLDEN / name).read_text()
    # Programs that the role installs.
    text = text.replace("/opt/exabgp/bin/exabgp", EXABGP).replace("User=exabgp", "User=root")
    path = tmp_path / name.removeprefix("role-")
    path.write_text(text.replace("Group=exabgp", "Group=root"))
    return path


def checked(name: str, path: Path) -> subprocess.CompletedProcess[str]:
    argv = CHECKS[name][0](path)
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip(f"{argv[0]} is not installed")


@pytest.mark.parametrize(("rendered", "name"), [(name, name) for name in CHECKS], indirect=["rendered"])
def test_the_daemon_accepts_what_is_rendered(rendered: Path, name: str) -> None:
    done = checked(name, rendered)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("rendered", "name"), [(name, name) for name in CHECKS], indirect=["rendered"])
def test_the_daemon_refuses_what_is_broken(rendered: Path, name: str) -> None:
    rendered.write_text(rendered.read_text() + CHECKS[name][1])
    assert checked(name, rendered).returncode != 0


def test_exabgp_understands_what_is_quoted(tmp_path: Path) -> None:
    script = (
        "import json, sys; from exabgp.configuration.configuration import Configuration;"
        "from exabgp.environment import getenv; from exabgp.logger import log; log.init(getenv());"
        "c = Configuration(sys.argv[1:]); assert c.reload(), c.error;"
        "print(json.dumps([[process['run'] for process in c.processes.values()],"
        "[str(neighbor['md5-password']) for neighbor in c.neighbors.values()]]))"
    )
    path = tmp_path / "exabgp.conf"
    path.write_text((GOLDEN / "role-exabgp.conf").read_text().replace("/opt/exabgp/bin/exabgp", EXABGP))
    argv = [sys.executable, "-c", script, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    commands, passwords = json.loads(done.stdout.splitlines()[-1])
    assert [words[-1] for words in commands if "--command" in words] == [
        "/etc/exabgp/checks dns",
        "/etc/exabgp/checks dns",
        "/etc/exabgp/checks ntp",
    ]
    assert "s#c;et{1}" in passwords


def test_a_check_is_run_by_its_name() -> None:
    checks = str(GOLDEN / "role-exabgp-checks")
    done = subprocess.run(["sh", checks, "ntp"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["sh", checks, "none"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (64, "found no check named 'none'\n")


@dataclass(frozen=True)
class Session:
    """State of a session, how often it came up, and when (Unix time)."""

    state: str
    count: int
    since: int

    def same(self, before: Session) -> bool:
        """Whether it has stayed up; bgpd computes the time from two clocks and may be a second off."""
        return (self.state, self.count) == (before.state, before.count) and abs(
            self.since - before.since
        ) <= 1


class Router:
    """FRR as frr.service runs it, in a network and a mount namespace of its own, and a neighbour's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.configuration = directory / "etc" / "frr.conf"
        self._holders: list[subprocess.Popen[str]] = []

    def start(self, daemons: str) -> None:
        etc = self.directory / "etc"
        etc.mkdir()
        (etc / "vtysh.conf").write_text("service integrated-vtysh-config\n")
        (etc / "daemons").write_text(daemons)
        self.configuration.write_text("log syslog informational\n")
        script = (
            f"mount --bind {etc} /etc/frr && mount -t tmpfs tmpfs /run && install -d -o frr -g frr /run/frr"
            " && chown -R frr:frr /etc/frr && ip link set lo up"
            " && sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
        )
        self._hold("--mount", "--propagation", "private", script=script)
        self._hold(script="ip link set lo up")
        first, second = (holder.pid for holder in self._holders)
        self.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", str(second))
        self.run("ip", "address", "add", f"{ROUTER}/24", "dev", "near")
        self.run("ip", "link", "set", "near", "up")
        self.run("ip", "address", "add", f"{NEIGHBOUR}/24", "dev", "far", holder=1)
        self.run("ip", "link", "set", "far", "up", holder=1)
        assert first != second
        self.run("/usr/lib/frr/frrinit.sh", "start", output=self.directory / "frrinit.log")
        wait_until(lambda: "bgpd" in self.vtysh("show daemons"), "bgpd", seconds=30)

    def stop(self) -> None:
        if self._holders:
            with contextlib.suppress(subprocess.SubprocessError):
                self.run("/usr/lib/frr/frrinit.sh", "stop", output=self.directory / "frrinit.log")
        for holder in self._holders:
            holder.kill()
            holder.wait()
            if holder.stdout:
                holder.stdout.close()

    def inside(self, *argv: str, holder: int = 0) -> list[str]:
        return ["nsenter", f"--target={self._holders[holder].pid}", "--net", "--mount", "--", *argv]

    def run(self, *argv: str, holder: int = 0, output: Path | None = None, stdin: str | None = None) -> str:
        """Run a command inside; FRR's daemons keep a pipe open, so what starts them prints to a file."""
        command = self.inside(*argv, holder=holder)
        if output is None:
            done = subprocess.run(
                command, input=stdin, capture_output=True, text=True, check=True, timeout=120
            )
            return done.stdout
        with output.open("a") as file:
            subprocess.run(command, stdout=file, stderr=file, check=True, timeout=120)
        return output.read_text()

    def vtysh(self, *commands: str) -> str:
        words = [word for command in commands for word in ("-c", command)]
        done = subprocess.run(self.inside("vtysh", *words), capture_output=True, text=True, check=False)
        return done.stdout

    def apply(self, configuration: str, *, check: bool = False) -> dict[str, Any]:
        """Run the module as Ansible does; returns its result, in which no password may be."""
        arguments = {
            "configuration": configuration,
            "_ansible_check_mode": check,
            "_ansible_remote_tmp": str(self.directory),
        }
        done = subprocess.run(
            self.inside(sys.executable, str(MODULE)),
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.stdout, done.stderr
        for secret in SECRETS:
            assert secret not in done.stdout
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def left(self) -> str:
        """What frr-reload.py would still have to apply."""
        return delta_of(self.run(str(RELOAD), "--test", "/etc/frr/frr.conf"))

    def session(self) -> Session:
        """Look at the session with the neighbour."""
        answer = json.loads(self.vtysh(f"show bgp neighbors {NEIGHBOUR} json") or "{}").get(NEIGHBOUR, {})
        return Session(
            str(answer.get("bgpState")),
            int(answer.get("connectionsEstablished", 0)),
            int(answer.get("bgpTimerUpEstablishedEpoch", 0)),
        )

    def established(self) -> bool:
        return self.session().state == "Established"

    def accepted(self) -> set[str]:
        table = json.loads(self.vtysh("show bgp ipv4 unicast json"))
        return {prefix for prefix, paths in table["routes"].items() if not paths[0].get("weight")}

    def _hold(self, *options: str, script: str) -> None:
        argv = ["unshare", "--net", *options, "sh", "-c", f"{script} && echo ready && exec sleep infinity"]
        holder = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self._holders.append(holder)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"


BIRD = f"""
router id {NEIGHBOUR};
protocol device {{ }}
protocol static {{
  ipv4;
  route 5.5.0.0/16 blackhole;
  route 6.6.6.0/24 blackhole;
  route 7.7.7.0/25 blackhole;            # too long
  route 10.1.0.0/16 blackhole;           # reserved
  route 192.0.2.0/24 blackhole;          # ours
  route 192.0.2.64/26 blackhole;         # a part of ours
  route 8.8.8.0/24 blackhole {{ bgp_path.prepend(65000); }};    # private AS number
  route 9.9.9.0/24 blackhole {{ bgp_path.prepend(64500); }};    # our own AS
}}
protocol bgp pop {{
  local {NEIGHBOUR} as 3320;
  neighbor {ROUTER} as 64500;
  password "first-secret";
  ttl security on;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{ import all; export all; next hop self; }};
}}
"""

PEER: dict[str, Any] = {
    "name": "upstream",
    "address": NEIGHBOUR,
    "asn": 3320,
    "local_address": ROUTER,
    "password": SECRETS[0],
    "maximum_prefixes": 1000,
    "timers": {"keepalive": 5, "hold": 15},
    "local_preference": 200,
}
SECOND: dict[str, Any] = {
    "name": "second",
    "address": "198.18.7.9",
    "asn": 64999,
    "password": SECRETS[1],
    "maximum_prefixes": 10,
    "bfd": True,
    "communities": ["64500:1", "64500:2"],
    "prepend": 2,
}


def configuration(*peers: dict[str, Any], version: str, **changes: object) -> str:
    rpki = {"caches": [{"address": "198.18.7.8", "port": 3323}], "transport": frr_rpki_transport(version)}
    variables = {
        "hostname": "router",
        "router_id": ROUTER,
        "asn": 64500,
        "log": "syslog",
        "graceful_restart": False,
        "log_neighbor_changes": True,
        "announce": {"ipv4": ["192.0.2.0/24"], "ipv6": ["2001:db8:53::/48"]},
        "reserved": frr_reserved(DEFAULTS["frr_reserved_prefixes"], []),
        "accept_longest": DEFAULTS["frr_accept_longest"],
        "peers": frr_peers(peers, asn=64500, refuse_reserved_asns=True),
        "refused_as_paths": DEFAULTS["frr_reserved_as_paths"],
        "rpki": rpki if has_rpki() else None,
        "services": {
            "ipv4": ["192.0.2.53/32"],
            "ipv6": ["2001:db8:53::53/128"],
            "addresses": DEFAULTS["frr_services_addresses"],
            "discard": DEFAULTS["frr_services_discard"],
        },
    }
    return render("frr.conf.j2", **variables | changes)


def has_rpki() -> bool:
    return any(Path("/usr/lib").glob("*/frr/modules/bgpd_rpki.so"))


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    if not RELOAD.exists():
        pytest.skip(f"found no {RELOAD}: apt-get install frr-pythontools")
    directory = tmp_path_factory.mktemp("router")
    directory.chmod(0o755)
    for parent in directory.parents[:2]:
        parent.chmod(0o755)
    router = Router(directory)
    try:
        daemons = render(
            "daemons.j2",
            bfd=True,
            rpki=has_rpki(),
            netlink_buffer=9_000_000,
            retain_seconds=300,
            maximum_files=1024,
        )
        router.start(daemons)
        yield router
    finally:
        router.stop()


@pytest.fixture(scope="module")
def version(router: Router) -> str:
    match = re.search(r"FRRouting (\S+)", router.vtysh("show version"))
    assert match
    return match[1]


@pytest.fixture(scope="module")
def upstream(router: Router, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("bird")
    config = directory / "bird.conf"
    config.write_text(BIRD)
    argv = ["bird", "-f", "-c", str(config), "-s", str(directory / "bird.ctl")]
    daemon = Daemon("bird", router.inside(*argv, holder=1), namespace=None, directory=directory)
    daemon.start()
    yield daemon
    daemon.stop()


@pytest.fixture
def running(router: Router, upstream: Daemon, version: str) -> str:
    """What FRR runs at the beginning of a test, its session with the neighbour established."""
    wanted = configuration(PEER, version=version)
    result = router.apply(wanted)
    assert not result.get("failed"), result["msg"]
    wait_until(router.established, "the session", seconds=60, daemons=[upstream])
    return wanted


def test_nothing_is_left_to_apply_and_nothing_is_done_twice(router: Router, running: str) -> None:
    before = router.session()
    assert router.left() == ""
    for check in (True, False):
        result = router.apply(running, check=check)
        assert (result["changed"], result["action"], result["delta"]) == (False, "none", "")
        assert result["diff"] == {"prepared": ""}
    assert router.session().same(before)
    status = router.configuration.stat()
    assert oct(status.st_mode)[-4:] == "0640"


def test_what_has_no_business_here_is_not_accepted(router: Router, running: str) -> None:
    wait_until(lambda: len(router.accepted()) > 0, "routes", seconds=30)
    assert router.accepted() == {"5.5.0.0/16", "6.6.6.0/24"}


def test_a_new_peer_leaves_the_other_session_alone(router: Router, running: str, version: str) -> None:
    before = router.session()
    wanted = configuration(PEER, SECOND, version=version)

    planned = router.apply(wanted, check=True)
    assert planned["changed"]
    assert "+  neighbor 198.18.7.9 remote-as 64999\n" in planned["delta"]
    assert "password ********" in planned["delta"]
    assert NEIGHBOUR not in planned["delta"]
    assert planned["diff"]["prepared"].endswith(planned["delta"])
    assert router.configuration.read_text() == running, "a check writes nothing"
    assert "198.18.7.9" not in router.vtysh("show running-config")

    done = router.apply(wanted)
    assert (done["changed"], done["action"], done["delta"]) == (True, "reload", planned["delta"])
    assert router.left() == ""
    assert router.apply(wanted)["changed"] is False
    assert router.session().same(before)

    assert "-  no neighbor 198.18.7.9" in router.apply(running)["delta"]
    assert router.left() == ""
    assert router.session().same(before)


def test_a_password_that_changes_is_shown_masked(router: Router, running: str) -> None:
    result = router.apply(running.replace(*SECRETS), check=True)
    assert f"+  neighbor {NEIGHBOUR} password ********\n" in result["delta"]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("neighbor here\n", "vtysh -C refuses the configuration, the old one stays in place and runs"),
        (
            "route-map UPSTREAM-OUT permit 10\n set community 64500:nonsense\nexit\n",
            "The old configuration was put back, and runs as before",
        ),
    ],
    ids=["by vtysh", "by bgpd"],
)
def test_what_is_refused_leaves_everything_as_it_was(
    router: Router, running: str, broken: str, message: str
) -> None:
    before = router.session()
    result = router.apply(running.replace("router bgp", f"{broken}!\nrouter bgp"))
    assert result["failed"]
    assert message in result["msg"]
    assert router.configuration.read_text() == running
    assert router.left() == ""
    assert router.session().same(before)


@pytest.mark.parametrize(
    "announce",
    [
        {"ipv4": ["192.0.2.0/24"], "ipv6": []},
        {"ipv4": [], "ipv6": ["2001:db8:53::/48"]},
        {"ipv4": [], "ipv6": []},
    ],
    ids=["IPv4", "IPv6", "nothing"],
)
def test_a_family_that_is_not_used_is_not_waited_for(
    router: Router, running: str, version: str, announce: dict[str, list[str]]
) -> None:
    wanted = configuration(PEER, version=version, announce=announce, services=None)
    result = router.apply(wanted)
    assert not result.get("failed"), result["msg"]
    assert router.left() == ""
    assert router.apply(wanted)["changed"] is False


def test_what_somebody_changed_by_hand_is_put_right(router: Router, running: str) -> None:
    router.vtysh(
        "configure terminal", "router bgp 64500", "address-family ipv4 unicast",
        f"no neighbor {NEIGHBOUR} maximum-prefix",
    )  # fmt: skip
    planned = router.apply(running, check=True)
    assert "maximum-prefix 1000" in planned["delta"]
    assert router.apply(running)["action"] == "reload"
    assert router.left() == ""


def test_a_comment_changes_the_file_and_nothing_else(router: Router, running: str) -> None:
    before = router.session()
    result = router.apply("! seen\n" + running)
    assert (result["changed"], result["action"], result["delta"]) == (True, "none", "")
    assert "+! seen\n" in result["diff"]["prepared"]
    assert router.configuration.read_text().startswith("! seen\n")
    assert router.session().same(before)
