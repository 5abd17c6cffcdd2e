"""What the testpmd generator carries on this machine: paced, through a FIFO, out by memif and back in.

``rows()`` puts testpmd as a reflector where a device would be, so the figures are the tester's own. Feeder,
generator and reflector poll on the CPUs that there are: with fewer than five they take turns.
"""

from __future__ import annotations

import os
import sys
import tempfile
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from router_agent.model import Prefix
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.generators.testpmd.generator import TestpmdGenerator
from router_agent.traffic.generators.testpmd.process import PACKAGES, installed
from router_agent.traffic.generators.testpmd.reflector import Reflector
from router_agent.traffic.scenario import IMIX, Destinations, Endpoints, FrameSizes, Port, Scenario, Wire

DESTINATIONS = 100_000
SECONDS = 3.0
OUT_OF_REACH_PPS = 20e6
KEPT_PPS = 250_000.0


def rows() -> list[dict[str, Any]]:
    """Measure; an empty list where there is no testpmd, or no root."""
    if os.geteuid() != 0 or not installed():
        print(f"needs root and dpdk-testpmd ({PACKAGES}): nothing measured", file=sys.stderr)
        return []
    prefixes: list[Prefix] = [IPv4Network((0x14000000 + (i << 8), 24)) for i in range(DESTINATIONS)]
    destinations = Destinations.of(prefixes, [1] * DESTINATIONS)
    conditions = f"{DESTINATIONS:,} destinations, memif, {len(os.sched_getaffinity(0))} CPUs"
    found = []
    for frames in (FrameSizes.of(64), IMIX):
        fastest, kept = _measure(Scenario("bench", destinations, frames=frames))
        size = "IMIX" if frames is IMIX else f"{frames.label}-byte frames"
        found.append(
            _row(
                f"traffic: testpmd's highest rate, {size}",
                fastest.sent / fastest.offered_s,
                "packets/s",
                f"{conditions}, {SECONDS:.0f} s, out of a memif into a reflector that shares the CPUs",
            )
        )
        found.append(
            _row(
                f"traffic: testpmd's error at {KEPT_PPS:,.0f} packets/s, {size}",
                abs(kept.sent / kept.offered_s / KEPT_PPS - 1) * 100,
                "%",
                f"{conditions}, {SECONDS:.0f} s; unsent {kept.unsent:,} of {kept.intended:,}",
            )
        )
    return found


def _measure(scenario: Scenario) -> tuple[TrialResult, TrialResult]:
    """Return a stream as fast as it goes, and one at a rate that is to be kept."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        ends = Endpoints(
            tuple(
                Port(name, str(Path(directory) / name), None, "02:00:00:00:02:00", Wire.MEMIF)
                for name in ("west", "east")
            )
        )
        with Reflector(ends), TestpmdGenerator(scenario, ends) as generator:
            return (
                generator.start(OUT_OF_REACH_PPS, SECONDS).finish(),
                generator.start(KEPT_PPS, SECONDS).finish(),
            )


def _row(name: str, value: float, unit: str, conditions: str) -> dict[str, Any]:
    return {
        "name": name,
        "value": round(value) if unit == "packets/s" else round(value, 3),
        "unit": unit,
        "target": None,
        "reached": None,
        "conditions": conditions,
    }


if __name__ == "__main__":
    for row in rows():
        print(row)
