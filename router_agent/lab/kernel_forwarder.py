"""A kernel that forwards, in a namespace of its own, between two veth ports: the device of a comparison.

tester's namespace  west ── veth ── port 0   device   port 1 ── veth ── east     every route leads to port 1
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from router_agent.fibs.fib import FibError
from router_agent.fibs.kernel import KernelFib
from router_agent.lab.errors import LabError
from router_agent.model import ABSENT, U64, Changes, Family, Link, Neighbour, PathSet
from router_agent.model import Path as Leg
from router_agent.namespaces import NamespaceError, inside
from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.scenario import Endpoints, Port

_PORTS = ("west", "east")
_DEVICE_MACS = ("02:00:00:00:02:00", "02:00:00:00:02:01")
_TESTER_MACS = ("02:00:00:00:01:00", "02:00:00:00:01:01")
_GATEWAYS = {Family.IPV4: IPv4Address("10.0.1.2").packed, Family.IPV6: IPv6Address("fd00:1::2").packed}
_PROTOCOL, _METRIC = 44, 20
_EAST = 11
"""Number of port 1 in the routes' path sets; any will do."""


class KernelForwardingDevice:
    """The device, as a context manager; see the module's text.

    Args:
        routes: keys of the prefixes it forwards, by family; all lead out of port 1.
    """

    def __init__(self, routes: Mapping[Family, U64]) -> None:
        mark = secrets.token_hex(3)
        self.tester, self.device = f"cmpt-{mark}", f"cmpd-{mark}"
        self._routes = routes
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name in (self.tester, self.device):
                _ip("netns", "add", name)
                stack.callback(_ip, "netns", "del", name)
            for number, port in enumerate(_PORTS):
                self._wire(number, port)
            # Without any address a namespace has no local table, and the kernel takes no gateway for valid.
            _ip("-n", self.device, "link", "set", "lo", "up")
            self._let_forward()
            try:
                asyncio.run(self._program())
            except (FibError, OSError) as error:
                raise LabError(f"the kernel's routes: {error}") from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def endpoints(self) -> Endpoints:
        """The tester's ports; routes lead to the second."""
        west, east = _PORTS
        return Endpoints((Port("west", west, self.tester, _DEVICE_MACS[0]), Port("east", east, self.tester)))

    def counters(self) -> CounterSource:
        """Return its counters for the packet ledger."""
        return KernelForwarder(self.device, [f"to-{port}" for port in _PORTS])

    def _wire(self, number: int, port: str) -> None:
        near = ("link", "add", port, "netns", self.tester, "address", _TESTER_MACS[number], "type", "veth")
        far = ("peer", "name", f"to-{port}", "netns", self.device, "address", _DEVICE_MACS[number])
        _ip(*near, *far)
        _ip("-n", self.tester, "link", "set", port, "up")
        _ip("-n", self.device, "link", "set", f"to-{port}", "up")

    def _let_forward(self) -> None:
        try:
            with inside(self.device):
                settings = Path("/proc/sys/net")
                (settings / "ipv4/ip_forward").write_text("1")
                (settings / "ipv6/conf/all/forwarding").write_text("1")
                for where in ("all", *(f"to-{port}" for port in _PORTS)):
                    (settings / "ipv4/conf" / where / "rp_filter").write_text("0")
        except (OSError, NamespaceError) as error:
            raise LabError(f"cannot let {self.device} forward: {error}") from error

    async def _program(self) -> None:
        """Write the routes as the agent does, and the neighbours that they lead to."""
        fib = KernelFib(
            namespace=self.device, protocol=_PROTOCOL, metric=_METRIC, interfaces={"east": "to-east"}
        )
        await fib.open()
        try:
            fib.links([Link(_EAST, "east", True, True, b"", 1500)], [])
            mac = bytes.fromhex(_TESTER_MACS[1].replace(":", ""))
            await fib.write_neighbours([Neighbour(_EAST, address, mac) for address in _GATEWAYS.values()], [])
            for family, keys in self._routes.items():
                await self._write(fib, family, keys)
        finally:
            await fib.close()

    async def _write(self, fib: KernelFib, family: Family, keys: U64) -> None:
        path = fib.path_id(PathSet.unicast(Leg(_EAST, _GATEWAYS[family])))
        if not isinstance(path, int):
            raise LabError(f"a path out of port 1 cannot be written: {path}")
        n = len(keys)
        failures = await fib.write(
            Changes(family, 254, keys, np.full(n, path, np.uint32), np.full(n, ABSENT, np.uint32))
        )
        if len(failures.rows):
            raise LabError(f"the kernel refused {len(failures.rows):,} of {n:,} routes: {fib.refusals}")


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise LabError(f"ip {' '.join(words)}: {done.stderr.strip()}")
