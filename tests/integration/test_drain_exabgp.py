"""A drain and ExaBGP's own sessions: the announcements carry GRACEFUL_SHUTDOWN, and no session breaks.

ExaBGP runs the template with what role exabgp gives it; BIRD is its neighbour. Both are in one namespace.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exabgp_variables import exabgp_graceful_shutdown, exabgp_peers
from router_agent.drain import exabgp_announcer
from router_agent.feeds import exabgp_relay
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.render import render

ROOT = Path(__file__).parents[2]
EXABGP = Path(sys.executable).with_name("exabgp")
OURS, THEIRS = "127.0.9.1", "127.0.9.2"
ASN = 64500
NETWORKS = ["192.0.2.0/24", "198.51.100.0/24"]
GRACEFUL = "(65535,0)"
pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace"),
    pytest.mark.skipif(not EXABGP.exists(), reason="exabgp is not in this virtual environment"),
]

PEER = {
    "name": "peering",
    "speaker": "exabgp",
    "address": THEIRS,
    "local_address": OURS,
    "asn": 64496,
    "maximum_prefixes": 10,
    "communities": ["64500:9"],
    "prepend": 1,
    "ttl_security_hops": 0,
}


class Speaker:
    """ExaBGP, its neighbour and a host's drain.yaml."""

    def __init__(self, directory: Path, namespace: str) -> None:
        self.directory = directory
        self.namespace = namespace
        self.mark = directory / "drained"
        self.status = directory / "status.json"
        self._control = directory / "bird.ctl"
        bird = directory / "bird.conf"
        bird.write_text(
            f"log stderr {{ fatal, error }}; router id {THEIRS}; protocol device {{}}\n"
            f"protocol bgp pop {{ local {THEIRS} port 1790 as 64496; strict bind; passive;\n"
            f" neighbor {OURS} as {ASN}; multihop; ipv4 {{ import all; export none; }}; }}\n"
        )
        self.bird = Daemon(
            "bird", ["bird", "-f", "-c", str(bird), "-s", str(self._control)],
            namespace=namespace, directory=directory,
        )  # fmt: skip
        self.exabgp = Daemon(
            "exabgp",
            [str(EXABGP), "server", str(directory / "exabgp.conf")],
            namespace=namespace,
            directory=directory,
            environment={
                **os.environ,
                "exabgp_daemon_drop": "false",
                "exabgp_daemon_user": "root",
                "exabgp_api_cli": "false",
                "exabgp_tcp_bind": "",
                "exabgp_tcp_port": "1790",
                "exabgp_log_destination": "stdout",
            },
        )
        (directory / "drain.yaml").write_text(
            yaml.safe_dump(
                {
                    "frr": None,
                    "agent": False,
                    "exabgp": {"status": str(self.status), "seconds": 20},
                    "mark": {"current": str(self.mark), "kept": str(directory / "kept")},
                }
            )
        )

    def configure(self, **changes: Any) -> None:
        """Write exabgp.conf as the role does."""
        peers = exabgp_peers([PEER | changes], asn=ASN)
        announce = {"ipv4": NETWORKS, "ipv6": []}
        program = Path(exabgp_announcer.__file__)
        command = f"{sys.executable} -I -S {program} {self.mark} {self.status}"
        (self.directory / "exabgp.conf").write_text(
            render(
                "exabgp.conf.j2",
                hostname="one",
                router_id=OURS,
                asn=ASN,
                relay=f"{sys.executable} -I -S {exabgp_relay.__file__} {self.directory / 'no.sock'}",
                graceful_restart_seconds=120,
                announce=announce,
                peers=peers,
                graceful_shutdown=exabgp_graceful_shutdown(
                    peers, announce, asn=ASN, command=command, source=program.read_text()
                ),
            )
        )
        path = str(self.directory / "exabgp.conf")
        subprocess.run([EXABGP, "validate", "-nr", path], check=True, capture_output=True)

    def birdc(self, *words: str) -> str:
        argv = ["birdc", "-s", str(self._control), *words]
        return subprocess.run(argv, capture_output=True, text=True, check=False).stdout

    def routes(self) -> dict[str, tuple[str, str]]:
        """Return prefix to AS path and communities, as the neighbour has them."""
        found = {}
        shown = self.birdc("show", "route", "protocol", "pop", "all")
        for text in re.split(r"^(?=\d+\.)", shown, flags=re.MULTILINE):
            prefix = text.split()[0] if text.strip() else ""
            path, told = re.search(r"BGP\.as_path: (.*)", text), re.search(r"BGP\.community: (.*)", text)
            if path:
                found[prefix] = (path[1].strip(), told[1].strip() if told else "")
        return found

    def said(self) -> str:
        """Return the status file; nothing before there is one."""
        return self.status.read_text() if self.status.exists() else ""

    def since(self) -> str:
        """Return when the session came up."""
        return self.birdc("show", "protocols", "pop").splitlines()[-1].split()[4]

    def agent(self, *arguments: str) -> dict[str, Any]:
        argv = [sys.executable, "-m", "router_agent.cli", *arguments, "--json"]
        argv += ["--config", str(self.directory / "drain.yaml")]
        done = subprocess.run(
            argv, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout) | {"code": done.returncode, "stderr": done.stderr}
        return found

    def wait(self, *communities: str, path: str = "64500 64500") -> None:
        wanted = dict.fromkeys(NETWORKS, (path, " ".join(communities)))
        wait_until(
            lambda: self.routes() == wanted, "routes", seconds=60, daemons=[self.bird, self.exabgp],
            found=lambda: str(self.routes()),
        )  # fmt: skip


@pytest.fixture
def speaker(tmp_path: Path) -> Iterator[Speaker]:
    namespace = f"drain-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    speaker = Speaker(tmp_path, namespace)
    try:
        subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
        speaker.configure()
        speaker.bird.start()
        speaker.exabgp.start()
        speaker.wait("(64500,9)")
        yield speaker
    finally:
        speaker.exabgp.stop()
        speaker.bird.stop()
        subprocess.run(["ip", "netns", "delete", namespace], check=True)


def test_announcements_carry_it_and_no_session_breaks(speaker: Speaker) -> None:
    since = speaker.since()
    assert speaker.agent("drained")["code"] == 1
    done = speaker.agent("drain", "--no-wait")
    assert (done["code"], done["drained"], done["changed"]) == (0, True, True), done
    assert done["speakers"] == [
        {"name": "ExaBGP", "ok": True, "words": "ExaBGP has taken 2 announcements with 65535:0"}
    ]
    speaker.wait("(64500,9)", GRACEFUL)
    assert speaker.agent("drained")["code"] == 0

    # ExaBGP reads the same configuration again, as after a run of the role that changed something else.
    speaker.exabgp.signal(signal.SIGUSR1)
    wait_until(lambda: speaker.exabgp.log.read_text().count("loaded new") > 0, "a reload", seconds=20)
    speaker.wait("(64500,9)", GRACEFUL)

    done = speaker.agent("undrain")
    assert (done["code"], done["drained"], done["changed"]) == (0, False, True), done
    speaker.wait("(64500,9)")
    assert speaker.since() == since


def test_it_outlives_a_restart_and_begins_with_it(speaker: Speaker) -> None:
    assert speaker.agent("drain", "--no-wait")["code"] == 0
    speaker.exabgp.stop()
    speaker.status.unlink()  # as its directory goes with the service
    assert speaker.agent("drained")["code"] == 0, "it announces nothing"
    speaker.exabgp.start()
    speaker.wait("(64500,9)", GRACEFUL)
    assert speaker.agent("drained")["code"] == 0


def test_a_reload_brings_new_attributes_to_neighbours(speaker: Speaker) -> None:
    """ExaBGP alone would not announce a prefix again whose attributes are all that changed."""
    assert speaker.agent("drain", "--no-wait")["code"] == 0
    speaker.configure(communities=["64500:10"], prepend=0)
    speaker.exabgp.signal(signal.SIGUSR1)
    speaker.wait("(64500,10)", GRACEFUL, path="64500")
    assert speaker.agent("undrain")["code"] == 0
    speaker.wait("(64500,10)", path="64500")


def test_it_says_when_exabgp_does_not_take_it(speaker: Speaker) -> None:
    """A neighbour that ExaBGP does not have, as when its configuration was written by hand."""
    path = speaker.directory / "exabgp.conf"
    text = path.read_text()
    path.write_text(
        text.replace(f"{THEIRS} prefixes=", "127.0.9.3 prefixes=").replace("-shutdown-", "-shut-")
    )
    speaker.exabgp.signal(signal.SIGUSR1)
    wait_until(lambda: "127.0.9.3" in speaker.said(), "the process", seconds=30)
    (speaker.directory / "drain.yaml").write_text(
        (speaker.directory / "drain.yaml").read_text().replace("seconds: 20", "seconds: 2")
    )
    done = speaker.agent("drain", "--no-wait")
    assert done["code"] == 4
    assert "ExaBGP: ExaBGP refuses:" in done["stderr"]
    assert "neighbor 127.0.9.3 announce route 192.0.2.0/24" in done["stderr"]
