"""What testpmd's ports dropped themselves: the tester's own losses, for the ledger.

``/ethdev/stats`` (rte_ethdev.h: struct rte_eth_stats). An af_packet port has a kernel interface below it.
What that received and the port's ring had no room for is counted by the packet socket alone, whom nobody can
ask, so it is the difference of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from router_agent.traffic.counters.kernel import driver_of, parse_dev, proc_net
from router_agent.traffic.counters.source import CounterError, DropClass, Side
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.scenario import Port, Wire

ETHDEV = (
    "ipackets",
    "opackets",
    "ibytes",
    "obytes",
    "imissed",
    "ierrors",
    "oerrors",
    "rx_nombuf",
)
TAKEN = "taken"
"""Packets that testpmd had for a port to send."""

_DROPS = {
    "imissed": "no room in the receive queue",
    "ierrors": "receive errors",
    "rx_nombuf": "no packet buffer on receipt",
}
_KERNEL = ("rx_packets", "rx_dropped", "rx_errors", "tx_dropped", "tx_errors")


class TestpmdCounters:
    """Counters of the tester's ports while testpmd has them.

    Args:
        ports: the tester's ports.
        read: returns the statistics of each, in their order.
    """

    __test__ = False  # pytest: no test class
    name = "testpmd's ports"

    def __init__(self, ports: Sequence[Port], read: Callable[[], Sequence[Mapping[str, int]]]) -> None:
        self._ports = tuple(ports)
        self._read = read

    def read(self) -> dict[str, int]:
        """Return the counters; see `source.CounterSource`."""
        try:
            rows = self._read()
        except GeneratorError as error:
            raise CounterError(str(error)) from error
        found = {
            f"{port.name}.{counter}": int(row[counter])
            for port, row in zip(self._ports, rows, strict=True)
            for counter in (*ETHDEV, TAKEN)
        }
        for port in self._ports:
            if port.wire is not Wire.KERNEL:
                continue
            below = parse_dev(proc_net(port.namespace, ("dev",))["dev"])
            for counter in _KERNEL:
                key = f"dev.{port.interface}.{counter}"
                if key not in below:
                    raise CounterError(f"port {port.name}: interface {port.interface!r} is gone")
                found[f"{port.name}.kernel.{counter}"] = below[key]
        return found

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes of the tester; see `source.CounterSource`."""
        classes = [
            DropClass(
                f"tester port {port.name}: {words}",
                growth.get(f"{port.name}.{counter}", 0),
                Side.TESTER,
                f"{port.name} {counter}",
            )
            for port in self._ports
            for counter, words in _DROPS.items()
        ]
        for port in self._ports:
            if port.wire is Wire.KERNEL:
                classes += _below(port, growth)
            elif port.wire is Wire.MEMIF:
                classes.append(_ring(port, growth))
        return classes


def _ring(port: Port, growth: Mapping[str, int]) -> DropClass:
    """Return what a memif had no room for: its ring is the device's receive queue."""
    taken, sent = (growth.get(f"{port.name}.{counter}", 0) for counter in (TAKEN, "opackets"))
    source = f"{port.name} {TAKEN} - opackets"
    return DropClass(
        f"device did not empty the memif of port {port.name} in time", taken - sent, Side.DEVICE, source
    )


def _below(port: Port, growth: Mapping[str, int]) -> list[DropClass]:
    """Return what got lost between an af_packet port and the wire of the interface below it."""

    def grown(*names: str) -> int:
        return sum(growth.get(f"{port.name}.kernel.{name}", 0) for name in names)

    taken = growth.get(f"{port.name}.ipackets", 0)
    classes = [
        DropClass(
            f"tester port {port.name}: no room on receipt",
            grown("rx_dropped", "rx_errors"),
            Side.TESTER,
            f"{port.interface} rx_dropped, rx_errors",
        ),
        DropClass(
            f"tester port {port.name}: packet socket's ring full",
            grown("rx_packets") - taken,
            Side.TESTER,
            f"{port.interface} rx_packets - ipackets",
            derived=True,
        ),
    ]
    if driver_of(port.interface, port.namespace) == "veth":
        # what a veth could not hand over is its other end's drop on receipt, which is the device's
        return classes
    return [
        *classes,
        DropClass(
            f"tester port {port.name}: dropped on transmission",
            grown("tx_dropped", "tx_errors"),
            Side.TESTER,
            f"{port.interface} tx_dropped, tx_errors",
        ),
    ]
