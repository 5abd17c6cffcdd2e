"""Ports of the forwarding plane: their counters, from the agent or from the kernel, made into rates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from router_agent.host_reader.answers import Port
from router_agent.observe.answers import Counters
from router_agent.web.view import PortView

MOST = 64
"""Ports that are shown and kept; of more, the first in order of name."""
_LEAST_SECONDS = 0.2
"""Readings closer together than this say nothing of a rate."""


class PortsError(Exception):
    """The counters cannot be read; the message says why."""


def of_forwarders(counters: Counters) -> list[Port]:
    """Return the ports of every VPP.

    Raises:
        PortsError: one cannot be read.
    """
    problems = [forwarder.problem for forwarder in counters.forwarders if forwarder.problem]
    if problems:
        raise PortsError("; ".join(problems))
    found = (port for forwarder in counters.forwarders for port in forwarder.interfaces)
    return [Port.model_validate(port.model_dump()) for port in found]


class Rates:
    """Rates between one reading and the next."""

    def __init__(self) -> None:
        self._at = 0.0
        self._last: Mapping[str, Port] = {}
        self._views: tuple[PortView, ...] = ()

    def of(self, ports: Iterable[Port], at: float) -> tuple[PortView, ...]:
        """Return the ports with their rates since the reading before, by name.

        Args:
            ports: as they were read.
            at: seconds, when.
        """
        seconds = at - self._at
        if self._views and 0 <= seconds < _LEAST_SECONDS:
            return self._views
        found = {port.name: port for port in sorted(ports, key=lambda port: port.name)}
        self._views = tuple(_view(port, self._last.get(name), seconds) for name, port in found.items())
        self._last, self._at = found, at
        return self._views


def _view(now: Port, before: Port | None, seconds: float) -> PortView:
    if before is None or seconds < _LEAST_SECONDS or any(step < 0 for step in _steps(now, before)):
        return PortView(name=now.name, up=now.up)
    packets_in, bytes_in, packets_out, bytes_out, dropped = (step / seconds for step in _steps(now, before))
    return PortView(
        name=now.name,
        up=now.up,
        received_bits_per_second=8 * bytes_in,
        sent_bits_per_second=8 * bytes_out,
        received_packets_per_second=packets_in,
        sent_packets_per_second=packets_out,
        dropped_per_second=dropped,
    )


def _steps(now: Port, before: Port) -> Iterator[int]:
    """Yield by how much each counter grew; less than 0 where the port is new or somebody cleared it."""
    yield now.rx_packets - before.rx_packets
    yield now.rx_bytes - before.rx_bytes
    yield now.tx_packets - before.tx_packets
    yield now.tx_bytes - before.tx_bytes
    yield _dropped(now) - _dropped(before)


def _dropped(port: Port) -> int:
    return port.drops + port.rx_misses + port.rx_no_buffers + port.rx_errors + port.tx_errors
