"""A network namespace with routes and a VPP of its own, and a pipeline from the one into the other."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from router_agent.feeds.kernel import KernelFeed
from router_agent.fibs.vpp import VppFib
from router_agent.observe.answers import State
from router_agent.pipeline import Pipeline
from router_agent.vpp.process import VppProcess

SECONDS = 60.0


def ip(namespace: str, *lines: str) -> None:
    """Run lines of ``ip -batch`` in a namespace."""
    subprocess.run(
        ["ip", "-n", namespace, "-batch", "-"], input="\n".join(lines), text=True, check=True, timeout=120
    )


@contextmanager
def ports_in_namespace(*ports: str) -> Iterator[str]:
    """A namespace with ports 10.0.N.1/24 and 2001:db8:ffff:N::1/64, numbered from 0; yields its name."""
    name = f"t{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        lines = []
        for number, port in enumerate(ports):
            lines += [
                f"link add {port} type veth peer name {port}-far",
                f"link set {port} up",
                f"link set {port}-far up",
                f"addr add 10.0.{number}.1/24 dev {port}",
                f"addr add 2001:db8:ffff:{number}::1/64 dev {port} nodad",
            ]
        ip(name, *lines)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def new_pipeline(
    namespace: str, vpp: VppProcess, interfaces: Mapping[str, str], *, recursion: bool = False
) -> Pipeline:
    """A pipeline from the namespace's main table into VPP's table 0."""
    return Pipeline(
        name="t",
        feed=KernelFeed(namespace=namespace, tables=(254,), resync_interval_seconds=0.1),
        fib=VppFib(api_socket=vpp.api_socket, interfaces=interfaces, recursion=recursion),
        tables={254: 0},
    )


@asynccontextmanager
async def running(pipeline: Pipeline) -> AsyncIterator[Pipeline]:
    """Run a pipeline, from in sync until the end of the block."""
    task = asyncio.create_task(pipeline.run())
    try:
        await in_sync(pipeline)
        yield pipeline
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def in_sync(pipeline: Pipeline) -> None:
    """Wait until nothing waits to be written."""
    async with asyncio.timeout(SECONDS):
        while pipeline.state is not State.IN_SYNC or pipeline.pending or pipeline.quiet.locked():
            await asyncio.sleep(0.01)
