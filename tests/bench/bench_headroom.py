"""More than a full table: 1.1 million IPv4 and 250 thousand IPv6 routes, then 2 million, from kernel to VPP.

``rows()`` has a VPP's FIB of 1.2 million routes read and compared in full. Then it puts a table into a
scratch namespace, lets ``router-agent`` carry it into a VPP, adds routes until there are 2 million, and takes
the memory of both each time. Needs root, VPP and about 4 GB.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from socket import if_nametoindex
from typing import Any

import numpy as np

from router_agent.config import ROUTE_PROTOCOLS
from router_agent.control import ControlClient, ControlError
from router_agent.fibs.kernel import KernelFib
from router_agent.fibs.vpp import VppFib
from router_agent.lab.table import generated_table
from router_agent.model import U64, Changes, Family, Link, PathSet, RouteBatch
from router_agent.model import Operation as Op
from router_agent.model import Path as Leg
from router_agent.namespaces import inside
from router_agent.observe.answers import State
from router_agent.reconcile import CHUNK, Reconciler, Translation
from router_agent.rib import Rib
from router_agent.vpp.process import VppProcess

FIRST = {Family.IPV4: 1_100_000, Family.IPV6: 250_000}
MOST = {Family.IPV4: 1_750_000, Family.IPV6: 250_000}
COMPARED = {Family.IPV4: 1_055_514, Family.IPV6: 144_486}
GATEWAYS = 200
COMPARE_TARGET_SECONDS = 3.0
AGENT_TARGET_MIB = 500
PATIENCE_SECONDS = 400.0


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list where there is no VPP or no root."""
    if shutil.which("vpp") is None or os.geteuid() != 0:
        return []
    table = generated_table(MOST[Family.IPV4], MOST[Family.IPV6])
    keys = {family: table.keys(family) for family in Family}
    with tempfile.TemporaryDirectory(prefix="vpph") as directory:
        return [
            *asyncio.run(_compare(Path(directory, "c"), keys)),
            *_grow(Path(directory), keys),
        ]


def _row(name: str, value: float, unit: str, conditions: str, target: float | None = None) -> dict[str, Any]:
    reached = None if target is None else value <= target
    return {
        "name": f"headroom: {name}", "value": round(float(value), 2), "unit": unit, "target": target,
        "reached": reached, "conditions": conditions,
    }  # fmt: skip


def _vpp(directory: Path) -> VppProcess:
    return VppProcess(runtime_dir=directory, heap="4G", statseg="1G", plugins=())


def _loopback(vpp: VppProcess) -> None:
    vpp.cli("create loopback interface")
    vpp.cli("set interface state loop0 up")


# -- reading the FIB and comparing -------------------------------------------------------------------


class _Sets:
    """Path sets by id, as a feed has them."""

    def __init__(self) -> None:
        gateways = (bytes((10, 0, n >> 8, n & 255)) for n in range(1, GATEWAYS + 1))
        self._sets = [PathSet.unicast(Leg(10, gateway)) for gateway in gateways]

    def resolve(self, path: int) -> PathSet | None:
        return self._sets[path - 1] if path else None

    def path_id(self, path_set: PathSet) -> int:
        return self._sets.index(path_set) + 1


async def _compare(directory: Path, keys: dict[Family, U64]) -> list[dict[str, Any]]:
    """Time what a restart and a full audit do: read everything VPP holds, and find that nothing differs."""
    sets = _Sets()
    with _vpp(directory) as vpp:
        _loopback(vpp)
        fib = VppFib(api_socket=vpp.api_socket, interfaces={"p0": "loop0"})
        fib.links([Link(10, "p0", True, True, b"", 1500)], [])
        await fib.open()

        def translate(path: int, before: int) -> Any:
            wanted = sets.resolve(path)
            return 0 if wanted is None else fib.path_id(wanted, before)

        translation = Translation(translate)
        reconcilers = []
        for family, count in COMPARED.items():
            rib = Rib(family, sets)
            paths = (np.arange(count, dtype=np.uint32) // 7 % GATEWAYS + 1).astype(np.uint32)
            metrics, operations = np.full(count, 20, np.uint32), np.full(count, Op.SET, np.uint8)
            rib.apply(RouteBatch(family, 254, keys[family][:count], metrics, paths, operations))
            reconciler = Reconciler(rib, 0, translation)
            for chunk in reconciler.everything():
                changes = reconciler.changes(chunk)
                reconciler.settle(changes, await fib.write(changes))
            reconcilers.append(reconciler)
        began = time.perf_counter()
        different = 0
        for reconciler in reconcilers:
            reconciler.forget()
            async for routes in fib.read(reconciler.family, 0):
                reconciler.learn(routes.keys, routes.paths)
            different += sum(len(reconciler.changes(chunk)) for chunk in reconciler.everything())
        seconds = time.perf_counter() - began
        held = sum(len(reconciler.held) for reconciler in reconcilers)
        await fib.close()
    if different or held != sum(COMPARED.values()):
        raise RuntimeError(f"read {held:,} routes of which {different:,} differ")
    conditions = f"{held:,} routes, {GATEWAYS} path sets, through next-hop entries, parts of {CHUNK:,}"
    return [_row("read VPP's FIB and compare it", seconds, "s", conditions, COMPARE_TARGET_SECONDS)]


# -- the whole agent -----------------------------------------------------------------------------------


def _grow(directory: Path, keys: dict[Family, U64]) -> list[dict[str, Any]]:
    name = f"bench-{secrets.token_hex(4)}"
    found = []
    try:
        subprocess.run(["ip", "netns", "add", name], check=True)
        for command in (
            "link add p0 type veth peer name q0",
            "link set q0 up",
            "link set p0 up",
            "addr add 10.255.0.1/16 dev p0",
            "addr add 2001:db8:ff::1/64 dev p0 nodad",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        asyncio.run(_load(name, {f: keys[f][:count] for f, count in FIRST.items()}))
        with _vpp(directory / "v") as vpp:
            _loopback(vpp)
            config, control = directory / "agent.yaml", directory / "control.sock"
            fib = {"kind": "vpp", "api_socket": str(vpp.api_socket), "interfaces": {"p0": "loop0"}}
            pipelines = [{"name": "fib", "feed": {"kind": "kernel", "namespace": name}, "fib": fib}]
            config.write_text(json.dumps({"pipelines": pipelines, "control": {"socket": str(control)}}))
            argv = [sys.executable, "-m", "router_agent.cli", "run", "--config", str(config)]
            agent = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
            try:
                client = ControlClient(control)
                for counts in (FIRST, MOST):
                    if counts is MOST:
                        more = {f: keys[f][FIRST[f] :] for f in Family}
                        asyncio.run(_load(name, {f: k for f, k in more.items() if len(k)}))
                    _wait(client, sum(counts.values()))
                    found += _memory(agent.pid, vpp.pid, counts)
            finally:
                agent.terminate()
                agent.wait()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
    return found


def _memory(agent: int, vpp: int, counts: dict[Family, int]) -> list[dict[str, Any]]:
    words = f"{counts[Family.IPV4]:,} IPv4 and {counts[Family.IPV6]:,} IPv6 routes"
    conditions = f"{GATEWAYS} gateways, kernel to VPP through next-hop entries"
    most = _mebibytes(agent, "VmHWM")
    return [
        _row(f"agent resident, {words}", _mebibytes(agent, "VmRSS"), "MiB", conditions),
        _row(f"agent resident at most, {words}", most, "MiB", conditions, AGENT_TARGET_MIB),
        _row(f"VPP resident, {words}", _mebibytes(vpp, "VmRSS"), "MiB", conditions),
    ]


def _mebibytes(pid: int, field: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def _wait(client: ControlClient, at_least: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        try:
            (pipeline,) = client.status().pipelines
        except ControlError:
            time.sleep(0.5)
            continue
        if pipeline.state is State.IN_SYNC and sum(c.in_fib for c in pipeline.counts) >= at_least:
            return
        time.sleep(0.5)
    raise RuntimeError(f"{at_least:,} routes were not in VPP in time: {client.status()}")


async def _load(name: str, keys: dict[Family, U64]) -> None:
    """Put prefixes into the namespace's kernel, as a routing daemon would."""
    writer = KernelFib(namespace=name, protocol=ROUTE_PROTOCOLS["bgp"], metric=20, shared_protocol=True)
    await writer.open()
    with inside(name):
        index = if_nametoindex("p0")
    prefixes = {Family.IPV4: bytes((10, 255, 1)), Family.IPV6: bytes.fromhex("20010db800ff0000") + bytes(7)}
    try:
        for family, column in keys.items():
            sets = [PathSet.unicast(Leg(index, prefixes[family] + bytes((2 + n,)))) for n in range(GATEWAYS)]
            ids = np.array([writer.path_id(paths) for paths in sets], np.uint32)
            for start in range(0, len(column), 1 << 16):
                part = column[start : start + (1 << 16)]
                paths = ids[np.arange(start, start + len(part)) // 7 % GATEWAYS]
                none = np.zeros(len(part), np.uint32)
                failures = await writer.write(Changes(family, 254, part, paths, none))
                if len(failures):
                    raise RuntimeError(f"the kernel refused {len(failures)} routes: {failures.codes[:3]}")
    finally:
        await writer.close()


if __name__ == "__main__":
    for row in rows():
        print(row["name"], row["value"], row["unit"], row["target"], row["reached"])
