"""The whole agent as a process: first load, restart on an unchanged table, single changes, memory, lag.

``rows()`` puts a full table into a scratch namespace and runs ``router-agent`` from it into a kernel FIB and,
where it is installed, into a VPP. Then the lab carries a full table from BIRD through FRR, and its lag is
taken from its report. ``ROUTES_FILE`` names a prefix list or an MRT dump; without it a table is generated.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from socket import AF_INET, AF_NETLINK, AF_UNIX, SOCK_DGRAM, SOCK_RAW, if_nametoindex, socket
from typing import Any, Self

import numpy as np

from router_agent.config import ROUTE_PROTOCOLS
from router_agent.control import ControlClient
from router_agent.fibs.kernel import KernelFib
from router_agent.lab.table import Table, generated_table, read_table
from router_agent.model import Changes, Family, PathSet
from router_agent.model import Path as Leg
from router_agent.namespaces import inside
from router_agent.netlink import constants as c
from router_agent.netlink.messages import Messages, attribute, message
from router_agent.netlink.sockets import EventSocket
from router_agent.observe.answers import Status
from router_agent.vpp.process import VppProcess
from router_agent.vpp.session import VppSession

GATEWAYS = 200
SINGLE_CHANGES = 300
RESTART_TARGET = 4.0
CHANGE_TARGET = 5.0
RESIDENT_TARGET = 350
LAG_TARGET = 1.0
_PATIENCE_SECONDS = 120.0
_PROTOCOL = 77

Seen = Callable[[int], Awaitable[None]]
"""Waits until the FIB has the n-th single route."""


def rows() -> list[dict[str, Any]]:
    """Return what was measured; an empty list without root."""
    if os.geteuid() != 0:
        return []
    chosen = os.environ.get("ROUTES_FILE")
    table = read_table(Path(chosen)) if chosen else generated_table()
    name = f"bench-{secrets.token_hex(4)}"
    forwarder = f"{name}-f"
    found: list[dict[str, Any]] = []
    with _namespaces(name, forwarder), tempfile.TemporaryDirectory(prefix="rab") as directory:
        asyncio.run(_load(name, table))
        fib: dict[str, Any] = {
            "kind": "kernel",
            "namespace": forwarder,
            "interfaces": {"p0": "q0"},
        }
        outsider = Outsider(forwarder)
        found += _measure(table, name, Path(directory), fib, "kernel FIB", outsider.seen, outsider.prepare)
        if shutil.which("vpp"):
            found += _with_vpp(table, name, Path(directory))
    return found + _lag(chosen)


def _with_vpp(table: Table, name: str, directory: Path) -> list[dict[str, Any]]:
    runtime = directory / "vpp"
    with VppProcess(runtime_dir=runtime, heap="3G", statseg="512M", plugins=()) as vpp:
        vpp.cli("create loopback interface")
        vpp.cli("set interface state loop0 up")
        fib = {"kind": "vpp", "api_socket": str(vpp.api_socket), "interfaces": {"p0": "loop0"}}

        session = VppSession(api_socket=vpp.api_socket, name="bench-reader")

        async def seen(number: int) -> None:
            prefix = f"10.{number >> 8}.{number & 255}.0/24"
            answer = None
            while answer is None or str(answer.route.prefix) != prefix:
                answer = await session.call("ip_route_lookup", table_id=0, exact=0, prefix=prefix)

        return _measure(table, name, directory, fib, "VPP FIB", seen, session.open)


def _measure(
    table: Table,
    name: str,
    directory: Path,
    fib: dict[str, Any],
    what: str,
    seen: Seen,
    prepare: Callable[[], Awaitable[None]],
) -> list[dict[str, Any]]:
    origin = Path(table.origin).name
    conditions = f"{len(table):,} routes ({origin}), {GATEWAYS} gateways, {what}, {os.cpu_count()} CPUs"
    config, control = directory / "agent.yaml", directory / "control.sock"
    feed = {"kind": "kernel", "namespace": name}
    config.write_text(
        json.dumps(
            {"pipelines": [{"name": "fib", "feed": feed, "fib": fib}], "control": {"socket": str(control)}}
        )
    )
    began = time.monotonic()
    with _Agent(config, control) as first:
        first.wait_in_sync()
        loaded = time.monotonic() - began
        first.status(len(table))
        peak_load = _peak_mebibytes(first.pid)
        first.kill()
    began = time.monotonic()
    with _Agent(config, control) as second:
        second.wait_in_sync()
        restarted = time.monotonic() - began
        writes = second.status(len(table)).pipelines[0].writes
        milliseconds = asyncio.run(_single_changes(name, seen, prepare))
        lag = second.status(len(table)).pipelines[0].lag_p99_seconds * 1000
        peak = _peak_mebibytes(second.pid)
    p50, p99 = np.percentile(milliseconds, [50, 99])

    def row(title: str, value: float, unit: str, target: float | None = None) -> dict[str, Any]:
        reached = None if target is None else bool(value <= target)
        return {
            "name": f"{title}, {what}", "value": round(float(value), 2), "unit": unit, "target": target,
            "reached": reached, "conditions": conditions,
        }  # fmt: skip

    written = writes.added + writes.replaced + writes.deleted
    return [
        row("first load, start of the process to in-sync", loaded, "s"),
        row("restart on an unchanged table, to in-sync", restarted, "s", RESTART_TARGET),
        row("writes at that restart", written, "routes", 0),
        row("one route change, kernel to FIB, p50", p50, "ms"),
        row("one route change, kernel to FIB, p99", p99, "ms", CHANGE_TARGET),
        row("the same as the agent sees it, event read to the FIB's answer, p99", lag, "ms", CHANGE_TARGET),
        row("peak resident memory, first load", peak_load, "MiB", RESIDENT_TARGET),
        row("peak resident memory, restart", peak, "MiB", RESIDENT_TARGET),
    ]


async def _single_changes(name: str, seen: Seen, prepare: Callable[[], Awaitable[None]]) -> list[float]:
    """Add routes one by one, each when the one before is in the FIB; return the milliseconds each took.

    A bare socket and a message made beforehand: what is measured is the kernel, the agent and the FIB.
    """
    await prepare()
    found = []
    with inside(name):
        kernel = socket(AF_NETLINK, SOCK_RAW, c.NETLINK_ROUTE)
        index = if_nametoindex("p0")
    with closing(kernel):
        for number in range(SINGLE_CHANGES):
            request = _new_route(number, index)
            await asyncio.sleep(0.01)
            began = time.perf_counter()
            kernel.send(request)
            await seen(number)
            found.append((time.perf_counter() - began) * 1000)
    subprocess.run(["ip", "-n", name, "route", "flush", "proto", str(_PROTOCOL)], check=True)
    return found


def _new_route(number: int, interface: int) -> bytes:
    """Return RTM_NEWROUTE for ``10.N.N.0/24 via 10.255.0.2`` (linux/rtnetlink.h, struct rtmsg)."""
    header = struct.pack("=BBBBBBBBI", AF_INET, 24, 0, 0, 254, _PROTOCOL, 0, 1, 0)
    destination = struct.pack(">I", 10 << 24 | number << 8)
    body = header + attribute(c.RTA_DST, destination) + attribute(c.RTA_GATEWAY, bytes((10, 255, 0, 2)))
    body += attribute(c.RTA_OIF, struct.pack("=I", interface))
    return message(c.RTM_NEWROUTE, c.NLM_F_REQUEST | c.NLM_F_CREATE, number + 1, body)


class Outsider:
    """Sees what the agent writes into a namespace by its route events."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._socket: EventSocket | None = None

    async def prepare(self) -> None:
        """Listen from now on."""
        self._socket = EventSocket(self._namespace, (c.RTNLGRP_IPV4_ROUTE,))

    async def seen(self, _number: int) -> None:
        """Wait for the next new route."""
        assert self._socket is not None
        while True:
            select.select([self._socket.fileno()], [], [])
            data = self._socket.receive()
            if len(data) and c.RTM_NEWROUTE in Messages.find(data).types:
                return


def _lag(chosen: str | None) -> list[dict[str, Any]]:
    """Run the lab at full size and take the lag it found."""
    with tempfile.TemporaryDirectory(prefix="rab") as report:
        argv = [
            sys.executable,
            "-m",
            "router_agent.lab",
            "--name",
            "bench",
            "--seconds",
            "2",
            "--no-acceptance",
            "--report",
            report,
        ]
        done = subprocess.run(
            [*argv, *(["--table", chosen] if chosen else [])], check=False, capture_output=True
        )
        summary = Path(report) / "lab.json"
        if not summary.exists():
            raise RuntimeError(f"the lab did not run: {done.stdout.decode()[-500:]}")
        lab = json.loads(summary.read_text())
    origin = Path(lab["table"]).name
    conditions = (
        f"{sum(lab['prefixes'].values()):,} prefixes ({origin}), BIRD to {lab['speaker']} to "
        f"the kernel in {lab['kernel_seconds']:.0f} s, {lab['fib']} FIB, verdict {lab['outcome']}"
    )
    lag = lab["lag_seconds"]
    return [
        {
            "name": "last route in zebra's kernel to last route in the FIB, at most", "value": round(lag, 2),
            "unit": "s", "target": LAG_TARGET, "reached": lag <= LAG_TARGET, "conditions": conditions,
        }
    ]  # fmt: skip


class _Agent:
    """``router-agent run``, which says by itself when it is in sync (sd_notify): asking costs it time."""

    def __init__(self, config: Path, control: Path) -> None:
        self._client = ControlClient(control)
        self._stack = ExitStack()
        self._notices = self._stack.enter_context(socket(AF_UNIX, SOCK_DGRAM))
        address = config.with_name("notify.sock")
        address.unlink(missing_ok=True)
        self._notices.bind(str(address))
        self._notices.settimeout(_PATIENCE_SECONDS)
        argv = [sys.executable, "-m", "router_agent.cli", "run", "--config", str(config)]
        environment = {**os.environ, "NOTIFY_SOCKET": str(address)}
        self._process = subprocess.Popen(argv, stderr=subprocess.DEVNULL, env=environment)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._stack.close()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def wait_in_sync(self) -> None:
        while b"in-sync" not in self._notices.recv(4096):
            pass

    def status(self, at_least: int) -> Status:
        found = self._client.status()
        held = sum(counts.in_fib for counts in found.pipelines[0].counts)
        if held < at_least:
            raise RuntimeError(f"found {held:,} routes in the FIB, expected {at_least:,}")
        return found


def _peak_mebibytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM"))
    return int(peak.split()[1]) / 1024


@contextmanager
def _namespaces(name: str, forwarder: str) -> Iterator[None]:
    try:
        for each in (name, forwarder):
            subprocess.run(["ip", "netns", "add", each], check=True)
            subprocess.run(["ip", "-n", each, "link", "set", "lo", "up"], check=True)
        pair = f"link add p0 netns {name} type veth peer name q0 netns {forwarder}"
        subprocess.run(["ip", *pair.split()], check=True)
        subprocess.run(["ip", "-n", forwarder, "link", "set", "q0", "up"], check=True)
        for command in (
            "link set p0 up",
            "addr add 10.255.0.1/16 dev p0",
            "addr add 2001:db8:ff::1/64 dev p0 nodad",
        ):
            subprocess.run(["ip", "-n", name, *command.split()], check=True)
        yield
    finally:
        for each in (name, forwarder):
            subprocess.run(["ip", "netns", "del", each], check=False)


def _index(name: str) -> int:
    with inside(name):
        return if_nametoindex("p0")


async def _load(name: str, table: Table) -> None:
    """Put the table into the namespace's kernel, as a routing daemon would."""
    writer = KernelFib(namespace=name, protocol=ROUTE_PROTOCOLS["bgp"], metric=20, shared_protocol=True)
    await writer.open()
    index = _index(name)
    prefixes = {Family.IPV4: bytes((10, 255, 1)), Family.IPV6: bytes.fromhex("20010db800ff0000") + bytes(7)}
    try:
        for family in Family:
            keys = table.keys(family)
            ids = [
                writer.path_id(PathSet.unicast(Leg(index, prefixes[family] + bytes((2 + n,)))))
                for n in range(GATEWAYS)
            ]
            paths = np.array(ids, np.uint32)[np.arange(len(keys)) // 7 % GATEWAYS]
            for start in range(0, len(keys), 1 << 16):
                part = slice(start, start + (1 << 16))
                failures = await writer.write(
                    Changes(family, 254, keys[part], paths[part], np.zeros(len(paths[part]), np.uint32))
                )
                assert not len(failures), failures.codes[:5]
    finally:
        await writer.close()
