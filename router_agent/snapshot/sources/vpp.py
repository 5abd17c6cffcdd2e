"""VPP: versions and interfaces over its binary API, counters from its stats segment, the sizes of FIB tables.

Nothing of it stops forwarding: VPP keeps the sizes (``show ip fib table N summary``), no table is dumped.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from router_agent.config import PipelineConfig, VppFibConfig
from router_agent.fibs.fib import FibError
from router_agent.model import Family
from router_agent.observe.ask import NotHereError, NotKnownError
from router_agent.snapshot.model import Link, Vpp, Vpps, VppTable
from router_agent.snapshot.sources.router import Router
from router_agent.traffic.counters.source import COUNTS_SINCE, CounterError
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.vpp.lookups import entries_by_length
from router_agent.vpp.session import VppSession

_CLIENT = "router-agent-snapshot"
_ERRORS = ("drops", "rx-miss", "rx-no-buf", "rx-error", "tx-error")
"""Counters of interfaces in the stats segment (vnet/interface.h) that tell of packets that were lost."""
_EVERY_INTERFACE = 0xFFFFFFFF
_LOCAL = "local0"
"""VPP's own, which is never up."""
_DPDK_PLUGIN = "dpdk_plugin.so"
_DPDK = re.compile(r"DPDK Version:\s+(?:DPDK\s+)?(\S+)")
_FAMILIES = {Family.IPV4: "ip", Family.IPV6: "ip6"}


def read(router: Router) -> Vpps:
    """Return what every VPP says that a pipeline writes to.

    Raises:
        NotHereError: no pipeline writes to VPP.
        NotKnownError: one does not answer.
    """
    if not router.vpps:
        raise NotHereError("no pipeline of the agent leads to VPP")
    return Vpps(
        instances={
            name: _read(api_socket, stats_socket, _pipelines(router, api_socket))
            for name, (api_socket, stats_socket) in router.vpps.items()
        }
    )


def _pipelines(router: Router, api_socket: Path) -> list[PipelineConfig]:
    pipelines = router.config.pipelines if router.config else ()
    return [p for p in pipelines if isinstance(p.fib, VppFibConfig) and p.fib.api_socket == api_socket]


def _read(api_socket: Path, stats_socket: Path, pipelines: list[PipelineConfig]) -> Vpp:
    try:
        counters = VppForwarder(stats_socket).read()
        return asyncio.run(_ask(api_socket, counters, pipelines))
    except (CounterError, FibError) as error:
        raise NotKnownError(str(error)) from error


async def _ask(api_socket: Path, counters: Mapping[str, int], pipelines: list[PipelineConfig]) -> Vpp:
    session = VppSession(api_socket=api_socket, name=_CLIENT)
    await session.open()
    try:
        interfaces = await session.call("sw_interface_dump", sw_if_index=_EVERY_INTERFACE)
        return Vpp(
            version=session.version,
            dpdk=await _dpdk(session),
            started=counters.get(COUNTS_SINCE, 0),
            links={
                str(entry.interface_name): _link(entry, counters)
                for entry in interfaces
                if entry.interface_name != _LOCAL
            },
            tables={pipeline.name: await _tables(session, pipeline) for pipeline in pipelines},
        )
    finally:
        await session.close()


async def _dpdk(session: VppSession) -> str | None:
    if _DPDK_PLUGIN not in await session.cli("show plugins"):
        return None  # VPP does not know the command then
    found = _DPDK.search(await session.cli("show dpdk version"))
    return found[1] if found else None


def _link(entry: Any, counters: Mapping[str, int]) -> Link:
    name = str(entry.interface_name)
    return Link(
        up=bool(entry.flags & 1),
        carrier=bool(entry.flags & 2),
        mtu=int(entry.mtu[0]),
        identity=str(entry.sw_if_index),
        errors={kind: counters.get(f"/if/{kind}/{name}", 0) for kind in _ERRORS},
    )


async def _tables(session: VppSession, pipeline: PipelineConfig) -> dict[str, VppTable]:
    found = {}
    for family, word in _FAMILIES.items():
        entries = 0
        for table in dict.fromkeys(pipeline.tables.values()):
            summary = await session.cli(f"show {word} fib table {table} summary")
            entries += int(entries_by_length(summary, family).sum())
        found[family.label] = VppTable(entries=entries)
    return found
