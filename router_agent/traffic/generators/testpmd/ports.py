"""testpmd with some ports and no others, whatever it is to do with them: its start, and the ports' links."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.sockets import link
from router_agent.traffic.generators.testpmd import devices
from router_agent.traffic.generators.testpmd.process import Testpmd
from router_agent.traffic.scenario import Endpoints, Port, Wire

_BUFFERS = 16_384
_BUFFERS_PER_PORT = 8_192
_HEADROOM = 256
"""Bytes before the frame in each buffer (``RTE_PKTMBUF_HEADROOM`` is 128), and some more."""
_OTHER_MEMORY_MB = 192
_LEAST_FRAME, _LEAST_BUFFER = 1_518, 2_048
_LINK_S = 15.0
_LOOK_S = 0.01


def program(
    directory: Path,
    endpoints: Endpoints,
    *,
    frame_bytes: int,
    threads: int,
    cpus: Sequence[int] = (),
    others: Sequence[str] = (),
    serve: bool = False,
) -> Testpmd:
    """Return a testpmd for the ports; it is not started yet.

    Args:
        directory: for its sockets.
        endpoints: its ports.
        frame_bytes: the longest frame with its FCS.
        threads: how many forward.
        cpus: of its console and these threads in turn; all that this process may use when there are none.
        others: arguments for devices besides the ports.
        serve: whether it is to be the server of its memifs, as a device under test is.

    Raises:
        GeneratorError: a port cannot be used, and what to do.
    """
    count = len(endpoints.ports)
    buffers = _BUFFERS + _BUFFERS_PER_PORT * count
    buffer_bytes = _HEADROOM + max(_LEAST_BUFFER, frame_bytes)
    megabytes = _OTHER_MEMORY_MB + buffers * (buffer_bytes + _HEADROOM) // 1_000_000
    return Testpmd(
        directory,
        devices=[*devices.arguments(endpoints, frame_bytes, serve=serve), *others],
        lcores=_cpus(cpus, 1 + threads),
        memory=devices.memory(endpoints, megabytes),
        options=[
            f"--nb-cores={threads}",
            f"--total-num-mbufs={buffers}",
            f"--mbuf-size={buffer_bytes}",
            f"--max-pkt-len={max(_LEAST_FRAME, frame_bytes)}",
        ],
        namespace=devices.namespace_of(endpoints.ports),
    )


def numbers(testpmd: Testpmd, ports: Sequence[Port], others: Sequence[str] = ()) -> list[int]:
    """Return testpmd's numbers of ports, then those of other devices by name.

    Raises:
        GeneratorError: it does not have one of them.
    """
    listed = testpmd.ask("/ethdev/list")
    known = {str(testpmd.ask("/ethdev/info", number)["name"]): int(number) for number in listed}
    return devices.numbers([*(devices.name_of(port, i) for i, port in enumerate(ports)), *others], known)


def statistics(testpmd: Testpmd, number: int) -> Mapping[str, int]:
    """Return the counters of a device."""
    found: Mapping[str, int] = testpmd.ask("/ethdev/stats", number)
    return found


def wait_links(testpmd: Testpmd, ports: Sequence[Port], known: Sequence[int]) -> None:
    """Wait for links that were not there before testpmd had the ports.

    Raises:
        GeneratorError: one does not come, or testpmd has ended.
    """
    limit = time.monotonic() + _LINK_S
    for port, number in zip(ports, known, strict=True):
        while port.wire is not Wire.KERNEL and not _is_up(testpmd, number) and time.monotonic() < limit:
            testpmd.pause(_LOOK_S)
    require_links(testpmd, ports, known)


def require_links(testpmd: Testpmd, ports: Sequence[Port], known: Sequence[int]) -> None:
    """Check that every port has its link.

    Raises:
        GeneratorError: one has not.
    """
    for port, number in zip(ports, known, strict=True):
        if port.wire is Wire.KERNEL:
            link.require_up(port)  # DPDK's driver for packet sockets calls every link up
        elif not _is_up(testpmd, number):
            raise GeneratorError(f"port {port.name} ({port.interface}) has no link; {_remedy(port)}")


def _is_up(testpmd: Testpmd, number: int) -> bool:
    return str(testpmd.ask("/ethdev/link_status", number)["status"]).upper() == "UP"


def _remedy(port: Port) -> str:
    if port.wire is Wire.MEMIF:
        return "the device's end of the memif is down, gone or taken: set its interface up"
    return "look after the cable, and whether the device's port is up"


def _cpus(wanted: Sequence[int], threads: int) -> list[tuple[int, ...]]:
    """Return the CPUs of each thread: one each of those wanted, or all that this process may use."""
    if not wanted:
        return [tuple(sorted(os.sched_getaffinity(0)))] * threads
    return [(wanted[i % len(wanted)],) for i in range(threads)]
