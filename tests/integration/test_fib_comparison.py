"""verify.yml's comparison of VPP with the kernel, against both, with the agent the inventory asks for."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from router_agent.control import ControlClient, ControlError, RefusedError
from router_agent.lab.daemon import wait_until
from router_agent.lab.render import render
from router_agent.vpp.process import VppProcess
from router_agent_pipelines import router_agent_pipelines

pytestmark = [
    pytest.mark.vpp,
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("vpp") is None, reason="vpp is not on PATH"),
]
MODULE = Path(__file__).parents[2] / "playbooks" / "library" / "fib_comparison.py"
INTERFACES = {"left": "loop0", "right": "loop1"}
ROUTES = """\
route add 10.1.0.0/16 via 198.51.100.1 dev left proto 186 metric 20
route add 10.2.0.0/16 proto 186 metric 20 nexthop via 198.51.100.1 dev left nexthop via 203.0.113.1 dev right
route add blackhole 192.0.2.0/24 proto 196 metric 20
route add 10.3.0.0/16 via 203.0.113.1 dev right proto 201 metric 3355443220
route add 10.3.0.0/16 via 198.51.100.1 dev left proto 186 metric 20
route add 10.4.0.0/16 via 198.51.100.1 dev left proto 4
route add 10.5.0.0/16 via 192.0.2.254 dev management onlink proto 186 metric 20
route add 2001:db8:1::/48 via 2001:db8::1 dev left proto 186 metric 20
"""


@dataclass
class Router:
    namespace: str
    directory: Path
    vpp: VppProcess

    def ip(self, commands: str) -> None:
        subprocess.run(["ip", "-netns", self.namespace, "-batch", "-"], input=commands, text=True, check=True)

    def compare(self) -> dict[str, Any]:
        arguments = {
            "forwarding": "vpp",
            "protocols": ["bgp", "zstatic", "201"],
            "interfaces": INTERFACES,
            "api_socket": str(self.vpp.api_socket),
        }
        path = self.directory / "arguments.json"
        path.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        command = ["ip", "netns", "exec", self.namespace, sys.executable, str(MODULE), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture
def router(lab_name: str) -> Iterator[Router]:
    with (
        tempfile.TemporaryDirectory(prefix="compare") as directory,
        VppProcess(runtime_dir=Path(directory), heap="512M", buffers=2048, plugins=()) as vpp,
    ):
        for number in range(2):
            vpp.cli("create loopback interface")
            vpp.cli(f"set interface state loop{number} up")
        subprocess.run(["ip", "netns", "add", lab_name], check=True)
        try:
            router = Router(lab_name, Path(directory), vpp)
            router.ip(
                "link add left type veth peer name left-end\nlink add right type veth peer name right-end\n"
                "link add management type veth peer name management-end\n"
                + "".join(
                    f"link set {name} up\nlink set {name}-end up\n"
                    for name in ("left", "right", "management")
                )
                + "address add 198.51.100.2/30 dev left\naddress add 203.0.113.2/30 dev right\n"
                "address add 2001:db8::2/64 dev left nodad\n" + ROUTES
            )
            yield router
        finally:
            subprocess.run(["ip", "netns", "delete", lab_name], check=True)


def run_agent(router: Router) -> None:
    """Let the agent bring VPP in sync, and end."""
    socket, config = router.directory / "control.sock", router.directory / "agent.yaml"
    wanted = {"forwarding": "vpp", "asn": 64500, "peers": [{"speaker": "exabgp"}]}
    exabgp = {
        "socket": str(router.directory / "x.sock"),
        "socket_group": "root",
        "protocol": 201,
        "metric": 30,
    }
    vpp = {"api_socket": str(router.vpp.api_socket), "source": "router-agent"}
    pipelines = router_agent_pipelines(
        wanted, interfaces=INTERFACES, protocols=["bgp", "zstatic"], exabgp=exabgp, vpp=vpp
    )
    config.write_text(
        render("agent.yaml.j2", hostname="pop1", control_socket=socket, pipelines=pipelines[1:])
    )
    command = ["ip", "netns", "exec", router.namespace, sys.executable, "-m", "router_agent.cli", "run"]
    with subprocess.Popen([*command, "--config", config], env=os.environ) as agent:
        try:
            wait_until(lambda: in_sync(socket), "the agent to be in sync", seconds=30)
        finally:
            agent.send_signal(signal.SIGTERM)


def in_sync(socket: Path) -> bool:
    try:
        return ControlClient(socket).status().in_sync
    except (ControlError, RefusedError):
        return False


def test_vpp_holds_what_the_kernel_says_route_by_route(router: Router) -> None:
    assert "found no FIB source router-agent" in router.compare()["msg"]
    run_agent(router)
    answer = router.compare()
    assert answer["interfaces"]["loop0"] == {"up": True, "carrier": True}
    equal = {"missing": 0, "stale": 0, "different": 0, "examples": []}
    assert answer["comparison"] == {
        "ipv4": {"wanted": 4, "held": 4} | equal,
        "ipv6": {"wanted": 1, "held": 1} | equal,
    }

    # The agent does not run now: what changes in the kernel is missing, stale or different in VPP.
    router.ip(
        "route del 10.1.0.0/16 proto 186\n"
        "route add 10.6.0.0/16 via 198.51.100.1 dev left proto 186 metric 20\n"
        "route del 10.3.0.0/16 via 198.51.100.1 dev left proto 186\n"
    )
    found = router.compare()["comparison"]
    assert found["ipv6"]["examples"] == []
    found["ipv4"]["examples"].sort()
    assert found["ipv4"] == {
        "wanted": 4,
        "held": 4,
        "missing": 1,
        "stale": 1,
        "different": 1,
        "examples": [
            "10.1.0.0/16: stale, held via 198.51.100.1 left, expected nothing",
            "10.3.0.0/16: different, held via 198.51.100.1 left, expected via 203.0.113.1 right",
            "10.6.0.0/16: missing, expected via 198.51.100.1 left",
        ],
    }
