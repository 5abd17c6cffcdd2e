"""A POP of two FRR routers behind one ISP (BIRD), with traffic: what a drain is about.

            +-- one --+
    isp ----+    |    +---- lan      one and two announce 203.0.113.0/24; isp prefers one, and
            +-- two --+              whoever does not say GRACEFUL_SHUTDOWN (RFC 8326)

Each has a network namespace and a mount namespace of its own, in which FRR runs as its unit runs it: /etc/frr
and /run are the machine's. `isp` sends to a host behind both.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import yaml

from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.render import render

ROOT = Path(__file__).parents[2]
TARGET = "203.0.113.10"
NETWORK = "203.0.113.0/24"
COMMUNITY = "64500:7"
GRACEFUL = "(65535,0)"
PREFIXES = 300
POP_AS, ISP_AS = 64500, 64496
ADDRESSES = {"one": "10.0.1.2", "two": "10.0.2.2"}
FRRINIT = "/usr/lib/frr/frrinit.sh"

_SENDER = """
import socket, sys, time
target, pps = sys.argv[1], int(sys.argv[2])
way = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
start, sent = time.monotonic(), 0
while True:
    due = int((time.monotonic() - start) * pps)
    for _ in range(due - sent):
        try:
            way.sendto(b"x" * 64, (target, 9))
        except OSError:
            pass
    sent = due
    time.sleep(0.005)
"""

_BIRD = """
log stderr {{ fatal, error, remote }};
router id 10.0.1.1;
protocol device {{ }}
protocol kernel {{ ipv4 {{ import none; export where source = RTS_BGP; }}; }}
protocol bfd {{ interface "*" {{ min rx interval 50 ms; min tx interval 50 ms; }}; }}
protocol static {{ ipv4; {routes} }}
{sessions}
"""
_SESSION = """
protocol bgp {name} {{
  local {ours} as {isp};
  neighbor {theirs} as {pop};
  bfd on;
  connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 {{
    import filter {{
      bgp_local_pref = {preference};
      {honour}
      accept;
    }};
    export where source = RTS_STATIC;
  }};
}}
"""


class Machine:
    """Namespaces of a machine.

    Attributes:
        directory: its files.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.directory = directory / name
        self.directory.mkdir()
        self.directory.chmod(0o755)
        etc = self.directory / "frr"
        etc.mkdir()
        script = (
            f"mount --bind {etc} /etc/frr && mount -t tmpfs -o mode=755 tmpfs /run"
            " && install -d -o frr -g frr /run/frr && ip link set lo up"
            " && sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1"
            " net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0"
            " net.ipv4.conf.all.send_redirects=0"
        )
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c",
             f"{script} && echo ready && exec sleep infinity"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        return self._holder.pid

    @property
    def configuration(self) -> Path:
        """FRR's, as seen from outside."""
        return self.directory / "frr" / "frr.conf"

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait()
        if self._holder.stdout:
            self._holder.stdout.close()

    def inside(self, *argv: str) -> list[str]:
        return ["nsenter", f"--target={self.pid}", "--net", "--mount", "--", *argv]

    def run(self, *argv: str, check: bool = True) -> str:
        done = subprocess.run(self.inside(*argv), capture_output=True, text=True, check=False, timeout=120)
        assert not check or done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
        return done.stdout

    def link(self, name: str, address: str, other: Machine, far_name: str, far_address: str) -> None:
        pid = str(other.pid)
        self.run("ip", "link", "add", name, "type", "veth", "peer", "name", far_name, "netns", pid)
        for machine, interface, its in ((self, name, address), (other, far_name, far_address)):
            machine.run("ip", "address", "add", its, "dev", interface)
            machine.run("ip", "link", "set", interface, "up")

    def start_frr(self, configuration: str) -> None:
        etc = self.configuration.parent
        (etc / "vtysh.conf").write_text("service integrated-vtysh-config\n")
        daemons = render(
            "daemons.j2", bfd=True, rpki=False, netlink_buffer=9_000_000, retain_seconds=300,
            maximum_files=1024,
        )  # fmt: skip
        (etc / "daemons").write_text(daemons)
        self.configuration.write_text(configuration)
        self.configuration.chmod(0o640)
        self.run("chown", "-R", "frr:frr", "/etc/frr")
        self.frr("start")
        wait_until(lambda: "bgpd" in self.vtysh("show daemons"), "bgpd", seconds=30)

    def frr(self, verb: str) -> None:
        """Start, stop or restart FRR as its unit does; its daemons keep pipes open, so to a file."""
        with (self.directory / "frrinit.log").open("a") as log:
            subprocess.run(self.inside(FRRINIT, verb), stdout=log, stderr=log, check=True, timeout=120)

    def vtysh(self, *commands: str) -> str:
        return self.run("vtysh", *(word for line in commands for word in ("-c", line)), check=False)

    def shown(self, command: str) -> Any:
        return json.loads(self.vtysh(command) or "{}")

    def bgp_prefixes(self) -> int:
        """Prefixes of BGP in the kernel."""
        return len(self.run("ip", "route", "show", "proto", "bgp").splitlines())

    def received(self, interface: str) -> int:
        """Packets that came in."""
        lines = self.run("cat", "/proc/net/dev").splitlines()
        (line,) = (each for each in lines if each.strip().startswith(f"{interface}:"))
        return int(line.split(":")[1].split()[1])

    def agent(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the kit's program with this machine's drain.yaml."""
        argv = [sys.executable, "-m", "router_agent.cli", *arguments, "--config", str(self.drain_file)]
        return subprocess.run(
            self.inside(*argv), capture_output=True, text=True, check=False, timeout=120,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def asked(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Return the exit code and the JSON of it."""
        done = self.agent(*arguments, "--json")
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    @property
    def drain_file(self) -> Path:
        return self.directory / "drain.yaml"

    def configure_drain(self, **parts: Any) -> None:
        """Write drain.yaml; what is not given is as on a host, but for files that all machines share."""
        settings: dict[str, Any] = {
            "agent": False,
            "mark": {"kept": str(self.directory / "kept")},
            "traffic": {"ports": ["wan", "lan"], "quiet_seconds": 1, "interval_seconds": 0.2, "seconds": 30},
        }
        self.drain_file.write_text(yaml.safe_dump(settings | parts))

    def reboot(self) -> None:
        """Forget what a reboot forgets of a drain."""
        self.run("rm", "-rf", "/run/router-agent")


class Pop:
    """The two routers, their ISP and a host behind them: a context manager, that builds and removes them."""

    def __init__(self, directory: Path) -> None:
        for parent in (directory, *directory.parents[:2]):
            parent.chmod(0o755)
        self.directory = directory
        self._ends = ExitStack()
        self.isp, self.one, self.two, self.lan = (
            self._machine(name) for name in ("isp", "one", "two", "lan")
        )
        self.routers = {"one": self.one, "two": self.two}
        self._bird = self.directory / "bird.conf"
        self._bird_socket = str(self.directory / "bird.ctl")
        self.bird = Daemon(
            "bird", self.isp.inside("bird", "-f", "-c", str(self._bird), "-s", self._bird_socket),
            namespace=None, directory=directory,
        )  # fmt: skip

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _machine(self, name: str) -> Machine:
        machine = Machine(name, self.directory)
        self._ends.callback(machine.close)
        return machine

    def _start(self) -> None:
        for number, (name, router) in enumerate(self.routers.items(), 1):
            self.isp.link(name, f"10.0.{number}.1/30", router, "wan", f"10.0.{number}.2/30")
            self.lan.link(name, f"10.0.1{number}.2/30", router, "lan", f"10.0.1{number}.1/30")
            router.run("ip", "route", "add", TARGET, "via", f"10.0.1{number}.2")
            router.configure_drain()
        self.one.link("two", "10.0.3.1/30", self.two, "one", "10.0.3.2/30")
        self.lan.run("ip", "address", "add", f"{TARGET}/32", "dev", "lo")
        self.isp.run("ip", "address", "add", "198.51.100.1/32", "dev", "lo")
        self.honour(honour=True, start=True)
        for name, router in self.routers.items():
            router.start_frr(frr_configuration(name))
            self._ends.callback(self._stop_frr, router)
        self.wait_settled()

    def _stop_frr(self, router: Machine) -> None:
        with contextlib.suppress(subprocess.SubprocessError):
            router.frr("stop")

    def _close(self) -> None:
        self.bird.stop()
        self._ends.close()

    def honour(self, *, honour: bool, start: bool = False) -> None:
        """Have the ISP honour GRACEFUL_SHUTDOWN, or not."""
        words = f"if {GRACEFUL} ~ bgp_community then bgp_local_pref = 0;" if honour else ""
        routes = " ".join(f"route 5.{n >> 8}.{n & 255}.0/24 blackhole;" for n in range(PREFIXES))
        sessions = "".join(
            _SESSION.format(
                name=name, ours=f"10.0.{n}.1", theirs=ADDRESSES[name], isp=ISP_AS, pop=POP_AS,
                preference=300 - 100 * n, honour=words,
            )
            for n, name in enumerate(self.routers, 1)
        )  # fmt: skip
        self._bird.write_text(_BIRD.format(routes=routes, sessions=sessions))
        if start:
            self.bird.start()
        else:
            self.birdc("configure")

    def birdc(self, *words: str) -> str:
        return self.isp.run("birdc", "-s", self._bird_socket, *words, check=False)

    def communities(self, name: str) -> str:
        """Return the communities that the ISP has of the POP's network from a router; - without a route."""
        shown = self.birdc("show", "route", "for", TARGET, "protocol", name, "all")
        if NETWORK not in shown:
            return "-"
        match = re.search(r"BGP\.community: (.*)", shown)
        return match[1] if match else ""

    def way(self) -> str:
        """Return the router that the ISP sends through."""
        shown = self.isp.run("ip", "-json", "route", "get", TARGET)
        device = str(json.loads(shown)[0]["dev"])
        return device if device in self.routers else "none"

    def wait_settled(self) -> None:
        def settled() -> bool:
            told = all(COMMUNITY.replace(":", ",") in self.communities(name) for name in self.routers)
            full = all(router.bgp_prefixes() == PREFIXES for router in self.routers.values())
            return told and full and self.way() == "one"

        wait_until(settled, "sessions and tables", seconds=60, daemons=[self.bird])

    @contextmanager
    def traffic(self, pps: int) -> Iterator[None]:
        sender = subprocess.Popen(self.isp.inside(sys.executable, "-c", _SENDER, TARGET, str(pps)))
        try:
            yield
        finally:
            sender.kill()
            sender.wait()


def frr_configuration(name: str) -> str:
    """Return frr.conf of a router: the template's, and a session with the other inside the AS."""
    number, other = (1, "10.0.3.2") if name == "one" else (2, "10.0.3.1")
    text = render(
        "frr.conf.j2",
        hostname=name,
        log="syslog",
        router_id=f"10.0.0.{number}",
        asn=POP_AS,
        graceful_restart=False,
        announce={"ipv4": [NETWORK], "ipv6": ["2001:db8:100::/48"]},
        reserved={"ipv4": [], "ipv6": []},
        accept_longest={"ipv4": 24, "ipv6": 48},
        peers=[
            {
                "name": "ISP",
                "description": "the ISP",
                "family": "ipv4",
                "address": f"10.0.{number}.1",
                "asn": ISP_AS,
                "maximum_prefixes": 100_000,
                "communities": [COMMUNITY],
                "bfd": True,
            }
        ],
    )
    text = text.replace(" no bgp default ipv4-unicast\n",
                        f" no bgp default ipv4-unicast\n neighbor {other} remote-as {POP_AS}\n")  # fmt: skip
    return text.replace(f"  network {NETWORK}\n", f"  network {NETWORK}\n  neighbor {other} activate\n")
