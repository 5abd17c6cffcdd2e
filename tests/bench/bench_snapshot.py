"""A snapshot of a router with a full table: seconds and memory, and how long each source took.

``rows()`` has a lab's FRR take a full table from BIRD and the agent carry it into VPP (the kernel where there
is none), then takes snapshots, without and with ``soft-reconfiguration inbound``. ``ROUTES_FILE`` names a
prefix list or an MRT dump.
"""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from router_agent.lab.lab import Lab, default_fib
from router_agent.lab.plan import UPLINK
from router_agent.lab.table import generated_table, read_table
from router_agent.model import Family
from router_agent.snapshot.model import Snapshot

TAKES = 3
PATIENCE_SECONDS = 600.0
TARGET_SECONDS = 10.0
TARGET_MB = 300


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list without root."""
    if os.geteuid() != 0:
        return []
    chosen = os.environ.get("ROUTES_FILE")
    table = read_table(Path(chosen)) if chosen else generated_table()
    with Lab(f"bench{secrets.token_hex(3)}", table=table, fib=default_fib()) as lab:
        lab.start()
        lab.wait_settled(seconds=PATIENCE_SECONDS)
        size = f"{len(table.ipv4):,} IPv4 and {len(table.ipv6):,} IPv6 prefixes, {lab.plane.kind} forwards"
        found = _takes(lab, "", size)
        _keep_received(lab)
        return found + _takes(lab, ", prefixes received counted", size)


def _takes(lab: Lab, words: str, size: str) -> list[dict[str, Any]]:
    seconds, memory, snapshot = min((_take(lab) for _ in range(TAKES)), key=lambda found: found[0])
    slowest = sorted(snapshot.sources.items(), key=lambda source: -source[1].seconds)[:4]
    parts = ", ".join(f"{name} {reading.seconds:.2f} s" for name, reading in slowest)
    return [
        {
            "name": f"snapshot of a full table{words}",
            "value": seconds,
            "unit": "s",
            "target": TARGET_SECONDS,
            "reached": seconds <= TARGET_SECONDS,
            "conditions": f"best of {TAKES}: {parts}; {size}",
        },
        {
            "name": f"memory of a snapshot{words}",
            "value": memory,
            "unit": "MB",
            "target": TARGET_MB,
            "reached": memory <= TARGET_MB,
            "conditions": f"largest resident set; {size}",
        },
    ]


def _take(lab: Lab) -> tuple[float, float, Snapshot]:
    """Return the seconds of a whole command, its memory in MB, and what it noted."""
    assert lab.frr is not None
    command = [sys.executable, "-m", "router_agent.cli", "snapshot", "take", "--json"]
    options = ["--config", str(lab.agent.config), "--vtysh", shlex.join(lab.frr.vtysh)]
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen([*command, *options], stdout=output)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"snapshot take ended with {process.returncode}")
        output.seek(0)
        return seconds, usage.ru_maxrss / 1e3, Snapshot.model_validate_json(output.read())


def _keep_received(lab: Lab) -> None:
    """Have FRR keep what the upstream sends as it is, and wait until it has sent everything again."""
    assert lab.frr is not None
    for family in Family:
        words = (
            "configure terminal",
            "router bgp",
            f"address-family {family.label.lower()} unicast",
            f"neighbor {UPLINK.gateway(family)} soft-reconfiguration inbound",
        )
        subprocess.run([*lab.frr.vtysh, *(part for word in words for part in ("-c", word))], check=True)
    lab.wait_settled(seconds=PATIENCE_SECONDS)
