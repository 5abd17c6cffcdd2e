"""The generator's VPP while it runs: its ports, its streams, and how they are set, started and stopped."""

from __future__ import annotations

from dataclasses import dataclass

from router_agent.traffic.generators.vpp_pg.api import Api
from router_agent.traffic.generators.vpp_pg.counts import Counts
from router_agent.traffic.generators.vpp_pg.ports import PortMaker, VppPort
from router_agent.traffic.generators.vpp_pg.streams import Stream, shares
from router_agent.vpp.process import VppProcess


@dataclass(frozen=True, eq=False)
class Tester:
    """A VPP with ports and streams.

    Attributes:
        vpp: the process.
        api: its API, before and after trials.
        maker: made its ports.
        ports: in the order of `Endpoints.ports`.
        streams: of all sending ports.
        counts: reads what the ports did.
    """

    vpp: VppProcess
    api: Api
    maker: PortMaker
    ports: list[VppPort]
    streams: list[Stream]
    counts: Counts

    def configure(self, rate_pps: float, packets: int) -> None:
        """Set the streams to a rate and a number of packets of all ports together, in equal parts.

        Raises:
            GeneratorError: VPP refused, or went away.
        """
        senders = sorted({stream.port for stream in self.streams})
        for port, of_port in zip(senders, shares(packets, len(senders)), strict=True):
            mine = [stream for stream in self.streams if stream.port == port]
            for stream, count in zip(mine, shares(of_port, len(mine)), strict=True):
                self.api.command(stream.configure(rate_pps * count / packets, count))

    def send(self) -> None:
        """Start all streams at once.

        Raises:
            GeneratorError: VPP refused, or went away.
        """
        self.api.call("pg_enable_disable", is_enabled=True)

    def hush(self) -> None:
        """Stop all streams; when it returns nothing is sent any more.

        Raises:
            GeneratorError: VPP refused, or went away.
        """
        self.api.call("pg_enable_disable", is_enabled=False)
