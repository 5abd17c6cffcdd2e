"""The log under a real journald: fields, priorities, one entry for a traceback, a flood's count."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

JOURNALD = Path("/usr/lib/systemd/systemd-journald")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        not JOURNALD.exists() or not shutil.which("journalctl"), reason="needs systemd's journald"
    ),
]

PROGRAM = """
import logging, os, sys
from pathlib import Path
from router_agent import logs
from router_agent.config import LogConfig
from router_agent.events import PIPELINE, Event, about

found = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
logs.set_up(LogConfig(), journal=Path(sys.argv[1]))
log = logging.getLogger("router_agent.test")
PIPELINE.set("frr")
log.error("the FIB is lost: %s", "VPP\\nhas gone", extra=about(Event.FIB_LOST, problem="VPP\\nhas gone"))
try:
    int("why")
except ValueError:
    log.critical("the agent failed", exc_info=True, extra=about(Event.STOPPED_BY_FAULT))
for number in range(50):
    log.warning("flood %d", number, extra=about(Event.OVERRUN, overruns=number))
"""


class Journal:
    """A journal of our own, beside the host's if there is one: ``systemd-journald NAMESPACE``."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.runtime = Path(f"/run/systemd/journal.{name}")
        self.socket = self.runtime / "socket"
        self._process = subprocess.Popen(
            [JOURNALD, name], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 60
        while not self.socket.is_socket() and time.monotonic() < deadline:
            if self._process.poll() is not None:
                assert self._process.stderr is not None
                pytest.skip(f"journald does not run here: {self._process.stderr.read().decode()[-300:]}")
            time.sleep(0.02)

    def entries(self, least: int) -> list[dict[str, str]]:
        deadline = time.monotonic() + 60
        while True:
            command = ["journalctl", f"--namespace={self.name}", "--output=json", "--no-pager", "--all"]
            done = subprocess.run(
                [*command, "SYSLOG_IDENTIFIER=router-agent"], capture_output=True, text=True, check=False
            )
            found = [json.loads(line) for line in done.stdout.splitlines()]
            if len(found) >= least or time.monotonic() > deadline:
                return found
            time.sleep(0.05)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)
        shutil.rmtree(self.runtime, ignore_errors=True)
        for base in ("/run/log/journal", "/var/log/journal"):
            for directory in Path(base).glob(f"*.{self.name}"):
                shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def journal() -> Iterator[Journal]:
    if not Path("/etc/machine-id").exists() or not Path("/etc/machine-id").read_text().strip():
        pytest.skip("journald needs /etc/machine-id")
    made = Journal(f"t{secrets.token_hex(4)}")
    try:
        made.wait()
        yield made
    finally:
        made.stop()


def test_events_can_be_looked_for_in_the_journal(journal: Journal) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(journal.socket)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = journal.entries(least=8)
    lost, failed, *flood = found
    assert lost["MESSAGE"] == "frr: the FIB is lost: VPP\nhas gone"
    assert (lost["PRIORITY"], lost["ROUTER_AGENT_EVENT"], lost["ROUTER_AGENT_PIPELINE"]) == (
        "3",
        "fib-lost",
        "frr",
    )
    assert lost["ROUTER_AGENT_PROBLEM"] == "VPP\nhas gone"
    assert lost["_TRANSPORT"] == "journal"
    assert failed["PRIORITY"] == "2"
    assert failed["MESSAGE"].endswith("ValueError: invalid literal for int() with base 10: 'why'")
    assert [entry["MESSAGE"] for entry in flood] == [
        *(f"frr: flood {n}" for n in range(5)),
        "frr: flood 49 (the last of 45 more like this)",
    ]
    assert flood[-1]["ROUTER_AGENT_LEFT_OUT"] == "45"
    one = subprocess.run(
        [
            "journalctl",
            f"--namespace={journal.name}",
            "--quiet",
            "--output=cat",
            "ROUTER_AGENT_EVENT=stopped-by-fault",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert one.stdout.startswith("frr: the agent failed\nTraceback")
