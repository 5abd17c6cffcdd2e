"""`router-agent explain` over a whole router: every step of the way, and the one where it breaks."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from router_agent.lab.daemon import wait_until
from router_agent.lab.lab import FibKind, Lab
from router_agent.lab.plan import PORTS
from router_agent.lab.plane import SOURCE, VppPlane
from router_agent.lab.table import generated_table
from router_agent.model import Family, Reason
from router_agent.observe.answers import InFib, PipelineStatus, RouteFilter, State

from .intruder import Intruder

pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.vpp]

SECONDS = 60.0
WAY = ["bgp", "zebra", "kernel", "candidate", "chosen", "paths", "fib", "entry", "adjacency", "counters"]


@pytest.fixture(scope="module")
def lab(module_lab_name: str) -> Iterator[Lab]:
    with Lab(module_lab_name, table=generated_table(300, 50), fib=FibKind.VPP) as running:
        running.start()
        running.wait_settled(seconds=SECONDS)
        running.meet_neighbours()
        yield running


def explained(lab: Lab, prefix: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """Exit code and the explanation by the pipeline, in JSON."""
    assert lab.frr is not None
    vtysh = shlex.join(lab.frr.vtysh)
    command = [sys.executable, "-m", "router_agent.cli", "explain", prefix, "--json", "--vtysh", vtysh]
    done = subprocess.run(
        [*command, "--socket", str(lab.agent.socket)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
        env=os.environ | environment,
    )
    assert done.returncode in (0, 1), done.stderr
    (pipeline,) = json.loads(done.stdout)["pipelines"]
    return done.returncode, pipeline


def step(pipeline: dict[str, Any], stage: str) -> dict[str, Any]:
    return next(step for step in pipeline["steps"] if step["stage"] == stage)


def pipeline_of(lab: Lab) -> PipelineStatus:
    found = lab.agent.pipeline()
    assert found is not None
    return found


def some_prefix(lab: Lab, family: Family = Family.IPV4) -> str:
    """A prefix that BGP brought into the kernel."""
    version = "-4" if family is Family.IPV4 else "-6"
    routes = subprocess.check_output(
        ["ip", "-n", lab.topology.pop, version, "-j", "route", "show", "proto", "bgp"], text=True
    )
    return str(next(r["dst"] for r in json.loads(routes) if "/" in r["dst"]))


@pytest.mark.parametrize("family", list(Family))
def test_every_step_of_the_way_is_told(lab: Lab, family: Family) -> None:
    prefix = some_prefix(lab, family)
    wait_until(lambda: explained(lab, prefix)[0] == 0, "the prefix to be forwarded", seconds=SECONDS)
    code, pipeline = explained(lab, prefix)
    stages = list(dict.fromkeys(step["stage"] for step in pipeline["steps"]))
    assert (code, stages) == (0, WAY)
    assert all(step["holds"] and step["known"] for step in pipeline["steps"]), pipeline["steps"]
    gateways = {str(port.gateway(family)) for port in PORTS}
    assert any(gateway in step(pipeline, "bgp")["words"] for gateway in gateways)
    assert "selected, installed" in step(pipeline, "zebra")["words"]
    assert "proto bgp" in step(pipeline, "kernel")["words"]
    objects = [s["words"] for s in pipeline["steps"] if s["words"].startswith("next-hop object")]
    assert objects, "FRR installs through next-hop objects"
    assert "host-" in step(pipeline, "adjacency")["words"]
    assert "packets" in step(pipeline, "counters")["words"]


def test_a_neighbour_that_is_lost_is_where_it_breaks(lab: Lab) -> None:
    assert isinstance(lab.plane, VppPlane)
    prefix = some_prefix(lab)
    shown = lab.plane.process.cli("show ip neighbors")
    for line in shown.splitlines()[1:]:
        _, address, *_, interface = line.split()
        if address in {str(port.gateway(Family.IPV4)) for port in PORTS}:
            lab.plane.process.cli(f"set ip neighbor del {interface} {address} {line.split()[3]}")
    code, pipeline = explained(lab, prefix)
    assert code == 1
    assert not step(pipeline, "adjacency")["holds"]
    assert "knows no neighbour" in pipeline["verdict"]
    assert "breaks at adjacency" in pipeline["verdict"]


def test_a_route_somebody_removed_in_vpp_is_where_it_breaks(lab: Lab) -> None:
    assert isinstance(lab.plane, VppPlane)
    prefix, socket = some_prefix(lab), lab.plane.process.api_socket

    async def remove() -> None:
        async with Intruder(socket, SOURCE) as intruder:
            await intruder.put([prefix], None)

    def broken() -> bool:
        # The audit comes by every 10 s and puts it back.
        asyncio.run(remove())
        code, pipeline = explained(lab, prefix)
        return code == 1 and not step(pipeline, "entry")["holds"] and step(pipeline, "fib")["holds"]

    wait_until(broken, "the entry to be found missing", seconds=SECONDS)
    wait_until(lambda: step(explained(lab, prefix)[1], "entry")["holds"], "the repair", seconds=SECONDS)
    audit = lab.agent.client.audit()
    assert audit.pipelines[0].status.found[Reason.LOST] >= 1


def test_bgps_table_is_compared_with_the_kernels(lab: Lab) -> None:
    assert lab.frr is not None
    command = [sys.executable, "-m", "router_agent.cli", "audit", "--bgp", "--json"]

    def compared() -> dict[int, dict[str, Any]]:
        assert lab.frr is not None
        done = subprocess.run(
            [*command, "--vtysh", shlex.join(lab.frr.vtysh), "--socket", str(lab.agent.socket)],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        (pipeline,) = json.loads(done.stdout)["pipelines"]
        return {found["family"]: found for found in pipeline["bgp"]}

    for family, found in compared().items():
        assert found["problem"] is None
        assert found["chosen"] == found["in_kernel"] >= (300 if family == Family.IPV4 else 50)
        assert (found["missing"], found["extra"]) == (0, 0)
    # The other way round cannot be made here: zebra puts back what somebody takes out of the kernel.
    subprocess.run(
        ["ip", "-n", lab.topology.pop, "route", "add", "blackhole", "203.0.113.0/28", "proto", "bgp"],
        check=True,
    )
    found = compared()[Family.IPV4]
    assert (found["missing_prefixes"], found["extra_prefixes"]) == ([], ["203.0.113.0/28"])


def test_what_cannot_be_asked_is_said_to_be_unknown(lab: Lab) -> None:
    prefix = some_prefix(lab)
    command = [sys.executable, "-m", "router_agent.cli", "explain", prefix, "--json"]
    done = subprocess.run(
        [*command, "--vtysh", "/nonexistent/vtysh", "--socket", str(lab.agent.socket)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    (pipeline,) = json.loads(done.stdout)["pipelines"]
    for stage in ("bgp", "zebra"):
        assert not step(pipeline, stage)["known"]
        assert "there is no /nonexistent/vtysh here" in step(pipeline, stage)["words"]
    assert step(pipeline, "kernel")["known"]


def test_what_a_dead_vpp_holds_nobody_knows(lab: Lab) -> None:
    prefix = some_prefix(lab)
    wait_until(lambda: step(explained(lab, prefix)[1], "entry")["holds"], "the entry", seconds=SECONDS)
    lab.plane.kill()
    try:
        # At every moment: before the agent has seen it, too, VPP can be asked no more.
        code, pipeline = explained(lab, prefix)
        assert (code, step(pipeline, "entry")["known"]) == (1, False)
        assert pipeline["verdict"].startswith(
            f"nobody knows whether {prefix} is in the FIB, which cannot be asked"
        )
        wait_until(lambda: pipeline_of(lab).state is State.FIB_LOST, "the loss", seconds=SECONDS)
        assert not step(explained(lab, prefix)[1], "fib")["known"]
        for counts in pipeline_of(lab).counts:
            assert counts.unknown == counts.desired > 0
            assert counts.in_fib == counts.pending == counts.absent == 0
        (row,) = lab.agent.client.routes(RouteFilter.model_validate({"prefix": prefix}))
        assert row.in_fib is InFib.UNKNOWN
        shown = subprocess.run(
            [sys.executable, "-m", "router_agent.cli", "show", "status", "--socket", str(lab.agent.socket)],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert (shown.returncode, shown.stdout.count("unknown")) == (1, 4), shown.stdout
    finally:
        lab.plane.start()
    wait_until(lambda: pipeline_of(lab).state is State.IN_SYNC, "the agent to fill VPP", seconds=SECONDS)
    lab.meet_neighbours()
    wait_until(lambda: explained(lab, prefix)[0] == 0, "the prefix to be forwarded", seconds=SECONDS)
    assert not any(counts.unknown for counts in pipeline_of(lab).counts)


def test_a_prefix_nobody_announces_is_missing_from_the_start(lab: Lab) -> None:
    code, pipeline = explained(lab, "198.51.100.0/24")
    assert code == 1
    assert (pipeline["match"], step(pipeline, "bgp")["holds"], step(pipeline, "kernel")["holds"]) == (
        "none",
        False,
        False,
    )
