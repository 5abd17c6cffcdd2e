"""What the ports of the generator's VPP sent and received, from its stats segment.

``/if/tx`` counts what reached a port's output node, before its driver takes it; each driver then has counters
of its own for what it could not send. On a memif that is the device's doing: the ring is the wire and the
device's receive queue in one, and is full when the device does not empty it. Such packets count as sent, and
as dropped by the device, as a NIC's ``rx-miss`` would. On every other port they were never sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from router_agent.traffic.counters.kernel import parse_dev, proc_net
from router_agent.traffic.counters.source import CounterError, DropClass, Side
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.vpp_pg.ports import VppPort
from router_agent.traffic.scenario import Wire
from router_agent.vpp.stats import StatsBusyError, StatsError, StatsSegment

T = TypeVar("T")

_SETTLE_SECONDS = 5.0
_POLL_SECONDS = 0.001

_UNSENT = {
    Wire.KERNEL: ("tx frame not ready", "tx ring overrun"),
    Wire.MEMIF: ("no_free_slots", "rollback"),
    Wire.PCI: (),
}
"""Reasons in ``/err/PORT-tx/`` that count packets: plugins/af_packet/device.c, plugins/memif/device.c. The
DPDK plugin counts in ``/if/tx-error``."""

_NOT_OURS = "/err/ethernet-input/l3 mac mismatch"
"""Frames for a MAC that is not the port's: what makes a port a sink, see `ports`."""

_ON_RECEIPT = {
    "rx-miss": "receive queue full",
    "rx-no-buf": "no packet buffer",
    "rx-error": "receive errors",
}


@dataclass(frozen=True)
class PortCounts:
    """Packets of one port since VPP started; `refused`: its driver did not take them, or had no link."""

    offered: int
    refused: int
    received: int


class Counts:
    """Reads the counts of all ports: some microseconds each, at no cost to VPP.

    Args:
        stats_socket: the generator's stats segment.
        ports: in the order of `Endpoints.ports`.

    Raises:
        StatsError: it cannot be read.
    """

    def __init__(self, stats_socket: Path, ports: Sequence[VppPort]) -> None:
        self.ports = ports
        self._segment = StatsSegment(stats_socket)
        self._ports = [(port, self._settled(partial(self._reasons, port))) for port in ports]

    def read(self) -> list[PortCounts]:
        """Return the counts of each port.

        Raises:
            StatsError: the segment cannot be read.
        """
        return self._settled(self._read)

    def _read(self) -> list[PortCounts]:
        # What came is read before what went, else more would have come than went.
        received = [self._taken(port) for port, _ in self._ports]
        sending = [self._sending(port, reasons) for port, reasons in self._ports]
        return [PortCounts(*row, came) for row, came in zip(sending, received, strict=True)]

    def _settled(self, read: Callable[[], T]) -> T:
        """Return what was read, once VPP is not within a change: it may have lost its CPU there."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while True:
            try:
                return read()
            except StatsBusyError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)

    def named(self) -> dict[str, int]:
        """Return all counts by name, what was lost on receipt included.

        Raises:
            StatsError: the segment cannot be read.
            CounterError: those of a kernel interface cannot.
        """
        found: dict[str, int] = {}
        for port, count in zip(self.ports, self.read(), strict=True):
            name = port.port.name
            found |= {
                f"{name}.offered": count.offered,
                f"{name}.refused": count.refused,
                f"{name}.received": count.received,
            }
            for kind in _ON_RECEIPT:
                found[f"{name}.{kind}"] = self._settled(partial(self._on_receipt, kind, port))
            if port.port.wire is Wire.KERNEL:
                found[f"{name}.kernel"] = _below(port)
        return found

    def close(self) -> None:
        """Let the segment go."""
        self._segment.close()

    def _reasons(self, port: VppPort) -> list[str]:
        """Return the counters of packets that the driver did not take; a driver may lack one."""
        names = [f"/err/{port.name}-tx/{reason}" for reason in _UNSENT[port.port.wire]]
        return [name for name in names if self._segment.has(name)]

    def _on_receipt(self, kind: str, port: VppPort) -> int:
        return self._segment.combined(f"/if/{kind}", port.index)[0]

    @property
    def received(self) -> int:
        """Unicast frames of all ports, which are ours: exact, where a port's own may have ARP among them.

        Raises:
            StatsError: the segment cannot be read.
        """
        return self._settled(lambda: self._segment.linked(_NOT_OURS))

    def _taken(self, port: VppPort) -> int:
        """Return the frames that ended at a port, without those that got as far as IP."""
        ended, further = (
            sum(self._segment.combined(f"/if/{kind}", port.index)[0] for kind in kinds)
            for kinds in (("punt", "drops"), ("ip4", "ip6"))
        )
        return max(0, ended - further)

    def _sending(self, port: VppPort, reasons: Sequence[str]) -> tuple[int, int]:
        """Return packets that should have gone out, and those of them that did not."""
        down = self._segment.combined("/if/tx-error", port.index)[0]
        refused = sum(self._segment.linked(reason) for reason in reasons) + down
        offered = self._segment.combined("/if/tx", port.index)[0]
        if port.port.wire is not Wire.PCI:
            offered += down  # the link was down, which is found out before /if/tx counts
        return offered, refused


class GeneratorPorts:
    """The generator's ports as a `source.CounterSource`: what they lost on receipt, and full memif rings.

    Args:
        running: returns the counts of the generator's VPP while it runs.
    """

    name = "generator's VPP"

    def __init__(self, running: Callable[[], Counts]) -> None:
        self._running = running
        self._ports: Sequence[VppPort] = ()

    def read(self) -> dict[str, int]:
        """Return the counters; see `source.CounterSource`."""
        try:
            counts = self._running()
            self._ports = counts.ports
            return counts.named()
        except (StatsError, GeneratorError) as error:
            raise CounterError(f"counters of the {self.name}: {error}") from error

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes; see `source.CounterSource`."""
        classes: list[DropClass] = []
        for port in self._ports:
            name = port.port.name
            classes += [
                DropClass(
                    f"tester port {name}: {words}",
                    growth.get(f"{name}.{kind}", 0),
                    Side.TESTER,
                    f"/if/{kind}",
                )
                for kind, words in _ON_RECEIPT.items()
            ]
            if port.port.wire is Wire.KERNEL:
                count = growth.get(f"{name}.kernel", 0) - growth.get(f"{name}.received", 0)
                words = f"tester's packet ring of port {name} full"
                source = f"{port.port.interface} rx_packets against {port.name}"
                classes.append(DropClass(words, count, Side.TESTER, source, derived=True))
            if port.port.wire is Wire.MEMIF:
                count = growth.get(f"{name}.refused", 0)
                words = f"router did not empty the memif of port {name} in time, or has gone"
                classes.append(DropClass(words, count, Side.DEVICE, f"{port.name}-tx, no free slots"))
        return classes


def _below(port: VppPort) -> int:
    """Return the packets that the kernel interface below a port has received.

    Raises:
        CounterError: they cannot be read.
    """
    name = port.port.interface
    counters = parse_dev(proc_net(port.port.namespace, ("dev",))["dev"])
    if (found := counters.get(f"dev.{name}.rx_packets")) is None:
        raise CounterError(f"port {port.port.name}: there is no interface {name!r} any more")
    return found
