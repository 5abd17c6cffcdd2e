"""What the sockets generator and a kernel router between its ports carry on this machine.

``rows()`` builds two namespaces: the tester with ports west and east, and a kernel router between them. The
figure is the highest rate that MLRsearch finds without loss; sender, router and capture share the CPUs. What
the generator does without a router is in bench_sockets.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from router_agent.model import Prefix
from router_agent.namespaces import inside
from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.judgement.ledger import Ledger, LedgerKeeper
from router_agent.traffic.measurements.search import find_rate
from router_agent.traffic.scenario import Destinations, Endpoints, Goal, Port, Scenario, Search

DESTINATIONS = 10_000
ROUTER_MAC, TESTER_MAC = "02:00:00:00:02:00", "02:00:00:00:01:01"


def rows() -> list[dict[str, Any]]:
    """Measure; an empty list where there is no root."""
    if os.geteuid() != 0:
        print("needs root: nothing measured", file=sys.stderr)
        return []
    conditions = f"64-byte frames, {DESTINATIONS:,} destinations, veth, {len(os.sched_getaffinity(0))} CPUs"
    with _router() as (tester, device):
        forwarding, trials = _forwarding(tester, device)
    return [
        _row(
            "traffic: loss-free through a kernel namespace",
            forwarding,
            f"{conditions}, MLRsearch in {trials} trials of up to 1 s, sender and capture on the same CPUs",
        ),
    ]


def _row(name: str, value: float, conditions: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value),
        "unit": "packets/s",
        "target": None,
        "reached": None,
        "conditions": conditions,
    }


def _forwarding(tester: str, device: str) -> tuple[float, int]:
    """Return the loss-free rate through the router and the number of trials it took."""
    keeper = LedgerKeeper([KernelForwarder(device)])
    with SocketsGenerator(_scenario(), _endpoints(tester)) as generator:

        def run(rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
            keeper.open()
            trial = generator.start(rate_pps, duration_s).finish()
            return trial, keeper.close(trial)

        search = Search(min_pps=10_000, max_pps=1_000_000, trial_s=1.0, relative_width=0.05, limit_s=60)
        found = find_rate(search, Goal(unsent_ratio=0.02), run)
    print(found.reason, file=sys.stderr)
    return found.rate_pps or 0.0, len(found.trials)


def _scenario() -> Scenario:
    prefixes: list[Prefix] = [IPv4Network((0x14000000 + (i << 8), 24)) for i in range(DESTINATIONS)]
    return Scenario("bench", Destinations.of(prefixes), drain_s=0.5)


def _endpoints(tester: str) -> Endpoints:
    return Endpoints((Port("west", "west", tester, ROUTER_MAC), Port("east", "east", tester)))


@contextmanager
def _router() -> Iterator[tuple[str, str]]:
    """Build the two namespaces; yield the tester's name and the router's."""
    mark_ = secrets.token_hex(3)
    tester, device = f"trt-{mark_}", f"trd-{mark_}"
    try:
        for name in (tester, device):
            _ip("netns", "add", name)
        for i, (port, near, far) in enumerate(
            (("west", "02:00:00:00:01:00", ROUTER_MAC), ("east", TESTER_MAC, "02:00:00:00:02:01"))
        ):
            link = ("link", "add", port, "netns", tester, "address", near, "type", "veth")
            _ip(*link, "peer", "name", f"to-{port}", "netns", device, "address", far)
            _ip("-n", tester, "link", "set", port, "up")
            _ip("-n", device, "link", "set", f"to-{port}", "up")
            _ip("-n", device, "addr", "add", f"10.0.{i}.1/24", "dev", f"to-{port}")
        _ip(
            "-n",
            device,
            "neigh",
            "replace",
            "10.0.1.2",
            "lladdr",
            TESTER_MAC,
            "dev",
            "to-east",
            "nud",
            "permanent",
        )
        _ip("-n", device, "route", "add", "20.0.0.0/8", "via", "10.0.1.2")
        with inside(device):
            settings = Path("/proc/sys/net/ipv4")
            (settings / "ip_forward").write_text("1")
            for where in ("all", "to-west", "to-east"):
                (settings / "conf" / where / "rp_filter").write_text("0")
        yield tester, device
    finally:
        for name in (tester, device):
            subprocess.run(["ip", "netns", "del", name], check=False)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


if __name__ == "__main__":
    for row in rows():
        print(row)
