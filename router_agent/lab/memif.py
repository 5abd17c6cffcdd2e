"""A VPP with two memif ports and a table of routes: the device under test of the software ceiling.

    tester's VPP  west ═══ port 0   device   port 1 ═══ east     every route leads out of port 1

Packets go from memory to memory, so what is measured is VPP and nothing below it. The device is the memif
client: a client of VPP's copies no packet, its server (the tester) copies both ways, as a NIC's DMA would.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from router_agent.fibs.fib import FibError
from router_agent.fibs.vpp import VppFib
from router_agent.lab.errors import LabError
from router_agent.lab.render import render
from router_agent.model import ABSENT, U64, Changes, Family, Link, Neighbour, PathSet
from router_agent.model import Path as Leg
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.traffic.scenario import Endpoints, Port, Wire
from router_agent.vpp.ports import enable_ip, set_up
from router_agent.vpp.process import VppProcess, VppProcessError
from router_agent.vpp.session import VppSession

STATS_UPDATE_SECONDS = 0.25
"""How often the device's stats segment tells what each graph node did."""

_RING = 2_048
_BUFFER_BYTES = 2_048
_BUFFERS = 32_768
_SOCKET_ID = 1
_DEVICE_MACS = ("02:00:00:00:02:00", "02:00:00:00:02:01")
_TESTER_MACS = ("02:00:00:00:01:00", "02:00:00:00:01:01")
_GATEWAYS = {Family.IPV4: IPv4Address("10.0.1.2").packed, Family.IPV6: IPv6Address("fd00:1::2").packed}
_EAST = 11
"""Number of port 1 in the routes' path sets; any will do."""
_PLUGINS = ("memif",)


class MemifDevice:
    """The device, as a context manager.

    Args:
        directory: for VPP's files; short, because it holds sockets.
        routes: keys of the prefixes it forwards, by family; all lead out of port 1.
        cpus: the main thread's CPU, then one for each worker; without workers the main thread forwards. The
            first CPU when there are none.
        heap: VPP's main heap.
    """

    def __init__(
        self,
        directory: Path,
        routes: Mapping[Family, U64],
        *,
        cpus: Sequence[int] = (),
        heap: str = "2G",
    ) -> None:
        self._routes = routes
        self._socket = directory / "memif.sock"
        main, *workers = cpus or (min(os.sched_getaffinity(0)),)
        self.process = VppProcess(
            runtime_dir=directory,
            config=render(
                "startup.conf.j2",
                hostname="device",
                runtime_dir=directory,
                api_socket=directory / "api.sock",
                api_prefix="vpp" + str(directory).replace("/", "-"),
                memory={"heap": heap, "stats": "256M", "page_size": "4k"},
                buffers_per_numa=_BUFFERS,
                stats_update_seconds=STATS_UPDATE_SECONDS,
                cpu={"main": main, "workers": workers},
                plugins=_PLUGINS,
            ),
        )

    def __enter__(self) -> Self:
        try:
            self.process.start()
            asyncio.run(self._set_up())
        except (VppProcessError, FibError) as error:
            self.process.stop()
            raise LabError(f"the device's VPP: {error}") from error
        except BaseException:
            self.process.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    @property
    def endpoints(self) -> Endpoints:
        """The tester's ports; both may send, but routes lead to the second."""
        return Endpoints(
            tuple(
                Port(
                    name,
                    str(self._socket),
                    wire=Wire.MEMIF,
                    memif_id=i,
                    gateway_mac=_DEVICE_MACS[i],
                    mac=_TESTER_MACS[i],
                )
                for i, name in enumerate(("west", "east"))
            )
        )

    @property
    def stats_socket(self) -> Path:
        """Its stats segment."""
        return self.process.runtime_dir / "stats.sock"

    def counters(self) -> CounterSource:
        """Return its counters for the packet ledger."""
        return VppForwarder(self.stats_socket)

    async def _set_up(self) -> None:
        session = VppSession(api_socket=self.process.api_socket, name="lab")
        await session.open()
        try:
            await session.call(
                "memif_socket_filename_add_del_v2",
                is_add=True,
                socket_id=_SOCKET_ID,
                socket_filename=str(self._socket),
            )
            for number in range(len(_DEVICE_MACS)):
                await self._make_port(session, number)
        finally:
            await session.close()
        await self._program()

    async def _make_port(self, session: VppSession, number: int) -> None:
        answer = await session.call(
            "memif_create_v2",
            role=session.enumeration("vl_api_memif_role_t")["MEMIF_ROLE_API_SLAVE"],
            mode=session.enumeration("vl_api_memif_mode_t")["MEMIF_MODE_API_ETHERNET"],
            rx_queues=1,
            tx_queues=1,
            id=number,
            socket_id=_SOCKET_ID,
            ring_size=_RING,
            buffer_size=_BUFFER_BYTES,
            hw_addr=_bytes(_DEVICE_MACS[number]),
        )
        index = int(answer.sw_if_index)
        await enable_ip(session, index)
        await set_up(session, index)

    async def _program(self) -> None:
        """Write the routes as the agent does, and the neighbours that they lead to."""
        fib = VppFib(
            api_socket=self.process.api_socket,
            interfaces={"east": f"memif{_SOCKET_ID}/1"},
            recursion=False,
            stats_socket=self.stats_socket,
        )
        fib.links([Link(_EAST, "east", True, True, b"", 1500)], [])
        await fib.open()
        try:
            mac = _bytes(_TESTER_MACS[1])
            await fib.write_neighbours([Neighbour(_EAST, address, mac) for address in _GATEWAYS.values()], [])
            for family, keys in self._routes.items():
                await self._write(fib, family, keys)
        finally:
            await fib.close()

    async def _write(self, fib: VppFib, family: Family, keys: U64) -> None:
        path = fib.path_id(PathSet.unicast(Leg(_EAST, _GATEWAYS[family])))
        if not isinstance(path, int):
            raise LabError(f"a path out of port 1 cannot be written: {path}")
        n = len(keys)
        failures = await fib.write(
            Changes(family, 0, keys, np.full(n, path, np.uint32), np.full(n, ABSENT, np.uint32))
        )
        if len(failures.rows):
            raise LabError(f"VPP refused {len(failures.rows):,} of {n:,} routes, codes {set(failures.codes)}")


def _bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))
