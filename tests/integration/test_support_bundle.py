"""The support bundle of a host with a real FRR that has passwords, and with a kernel that has routes."""

from __future__ import annotations

import grp
import json
import os
import pwd
import secrets
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from router_agent.lab.commands import run
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.support.bundle import make
from router_agent.support.contents import Host

FRR = Path("/usr/lib/frr")
pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(not (FRR / "bgpd").exists(), reason="needs FRR"),
]

SECRETS = {
    "neighbour": "neighbour-s3cret-of-today",
    "group": "Gr0up&secret/with=signs",
    "vty": "vtyPass77",
    "enable": "enablePass78",
}
CONFIGURATION = f"""\
frr defaults traditional
hostname r1
password {SECRETS["vty"]}
enable password {SECRETS["enable"]}
log stdout debugging
log commands
router bgp 64500
 bgp router-id 192.0.2.1
 no bgp ebgp-requires-policy
 neighbor transit peer-group
 neighbor transit remote-as 64502
 neighbor transit password {SECRETS["group"]}
 neighbor 192.0.2.9 remote-as 64501
 neighbor 192.0.2.9 description transit of today
 neighbor 192.0.2.9 password {SECRETS["neighbour"]}
 neighbor 192.0.2.10 peer-group transit
"""
FORMER = "former-s3cret-99"


class Router:
    """bgpd in a network namespace, with a path space and files of its own."""

    def __init__(self, directory: Path) -> None:
        self.name = f"bundle{secrets.token_hex(3)}"
        self.root = directory / "root"
        self.output = directory / "bundle.tar.gz"
        configurations = self.root / "etc/frr" / self.name
        configurations.mkdir(parents=True)
        (configurations / "frr.conf").write_text(CONFIGURATION)
        (configurations / "vtysh.conf").write_text("")
        (self.root / "etc/frr/frr.conf").write_text(CONFIGURATION)
        (self.root / "etc/frr/frr.conf.sav").write_text(f" neighbor 192.0.2.9 password {FORMER}\n")
        self.vtysh = ("vtysh", "-N", self.name, "--config_dir", str(self.root / "etc/frr"))
        self.runtime = Path("/run/frr") / self.name
        self.runtime.mkdir(parents=True)
        os.chown(self.runtime, pwd.getpwnam("frr").pw_uid, grp.getgrnam("frrvty").gr_gid)
        self.bgpd = Daemon(
            "bgpd",
            [str(FRR / "bgpd"), "-N", self.name, "--log", "stdout"],
            namespace=self.name,
            directory=directory,
        )

    def start(self) -> None:
        run(["ip", "netns", "add", self.name])
        for words in (
            "link set lo up",
            "address add 192.0.2.1/24 dev lo",
            "route add 198.51.100.0/24 dev lo proto bgp",
            "route add blackhole 203.0.113.0/24 proto static",
        ):
            run(["ip", "-n", self.name, *words.split()])
        self.bgpd.start()
        socket = self.runtime / "bgpd.vty"
        wait_until(socket.is_socket, "bgpd's shell socket", seconds=30, daemons=[self.bgpd])
        run([*self.vtysh, "-b"])

    def stop(self) -> None:
        self.bgpd.stop()
        subprocess.run(["ip", "netns", "del", self.name], check=False, capture_output=True)
        shutil.rmtree(self.runtime, ignore_errors=True)


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    made = Router(tmp_path)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = {}
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            found[entry.name.partition("/")[2]] = file.read()
        return found


def test_a_running_frr_gives_its_state_and_keeps_its_passwords(router: Router, tmp_path: Path) -> None:
    agent_yaml = tmp_path / "agent.yaml"
    feed = f"{{kind: kernel, namespace: {router.name}}}"
    agent_yaml.write_text(f"pipelines: [{{name: a, feed: {feed}, fib: {{kind: vpp, interfaces: auto}}}}]")
    log = router.bgpd.log
    assert (
        SECRETS["neighbour"]
        in subprocess.run(
            [*router.vtysh, "-c", "show running-config"], capture_output=True, text=True, check=True
        ).stdout
    )
    host = Host(
        root=router.root,
        config=agent_yaml,
        socket=tmp_path / "none",
        vtysh=router.vtysh,
        further=(log,),
    )
    make(router.output, host, since="-1min")
    found = members(router.output)
    running = found["frr/running-config.txt"].decode()
    assert " neighbor 192.0.2.9 password <removed>\n" in running
    assert " neighbor 192.0.2.9 description transit of today\n" in running
    assert "bgp router-id 192.0.2.1" in running
    assert "192.0.2.9" in json.loads(found["frr/bgp-neighbors.json"])
    assert b"router bgp 64500" in found["configuration/etc/frr/frr.conf"]
    everything = b"".join(found.values())
    for secret in (*SECRETS.values(), FORMER):
        assert secret.encode() not in everything
    assert json.loads(found["manifest.json"])["secrets_removed"] >= len(SECRETS) + 1


def test_routes_of_a_namespace_are_counted_by_protocol(router: Router) -> None:
    command = ["nsenter", f"--net=/run/netns/{router.name}", "--", sys.executable]
    done = subprocess.run(
        [*command, "-m", "router_agent.support.kernel_routes"], capture_output=True, text=True, check=True
    )
    rows = {(r["family"], r["table"], r["protocol"]): r["routes"] for r in json.loads(done.stdout)}
    assert rows["IPv4", 254, "bgp"] == 1
    assert rows["IPv4", 254, "static"] == 1
    assert rows["IPv4", 255, "kernel"] >= 1
