"""Ports of the generator's VPP: memif, a kernel interface by af_packet, or a NIC that VPP's DPDK drives.

Each is a sink as well. VPP gives it a MAC that nobody sends to, so that ethernet-input lets go of every
unicast frame at once (``l3 mac mismatch``): nothing looks beyond the frame's first six bytes. Multicast
goes on and so is told apart: neighbour and router discovery of the device's is none of our packets.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.sockets import link
from router_agent.traffic.generators.vpp_pg.api import Api
from router_agent.traffic.scenario import Port, Wire

MEMIF_RING = 2_048
"""Packets that fit between us and the device, each way; as many as a NIC's queue usually has."""

_AF_PACKET_RING = 32_768
_FRAME_BYTES = 2_048
_LINK_SECONDS = 15.0
"""A memif client tries every 3 s to reach its server."""
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class VppPort:
    """A port as the generator's VPP has it.

    Attributes:
        index: its sw_if_index.
        name: VPP's name of it.
    """

    port: Port
    index: int
    name: str


def nic_name(position: int) -> str:
    """Return the name that startup.conf gives the NIC of a port."""
    return f"port{position}"


class PortMaker:
    """Makes the ports of a VPP, and takes back what they left in the file system.

    Args:
        api: the generator's VPP.
    """

    def __init__(self, api: Api) -> None:
        self._api = api
        self._sockets: dict[Path, int] = {}
        self._serving: set[Path] = set()

    def make(self, ports: Sequence[Port]) -> list[VppPort]:
        """Make all ports, up, each a sink; return once the links are up.

        Raises:
            GeneratorError: one cannot be made, or its link does not come up.
        """
        numbers = [self._make(position, port) for position, port in enumerate(ports)]
        up = self._api.value("vl_api_if_status_flags_t", "IF_STATUS_API_FLAG_ADMIN_UP")
        polling = self._api.value("vl_api_rx_mode_t", "RX_MODE_API_POLLING")
        for index in numbers:
            self._api.call("sw_interface_set_flags", sw_if_index=index, flags=up)
            # A thread that is busy sending sees an interrupt late, and rings overflow meanwhile.
            self._api.call("sw_interface_set_rx_mode", sw_if_index=index, queue_id_valid=False, mode=polling)
        found = {int(row.sw_if_index): row for row in self._api.call("sw_interface_dump")}
        made = [
            VppPort(port, index, str(found[index].interface_name))
            for port, index in zip(ports, numbers, strict=True)
        ]
        self._wait_links(made)
        return made

    def require_links(self, ports: Sequence[VppPort]) -> None:
        """Refuse ports that cannot carry packets now.

        Raises:
            GeneratorError: a link is down, or VPP went away.
        """
        if down := self._down(ports):
            raise GeneratorError(f"the link of port {', '.join(down)} is down: see whether the router runs")
        for port in ports:
            if port.port.wire is Wire.KERNEL:
                link.require_up(port.port)  # VPP's af_packet calls every link up

    def clean(self) -> None:
        """Remove the memif sockets that we served."""
        for path in self._serving:
            path.unlink(missing_ok=True)

    def _make(self, position: int, port: Port) -> int:
        if port.wire is Wire.MEMIF:
            return self._memif(port)
        if port.wire is Wire.KERNEL:
            return self._af_packet(port)
        wanted = nic_name(position)
        for row in self._api.call("sw_interface_dump"):
            if str(row.interface_name) == wanted:
                return self._nic(int(row.sw_if_index))
        raise GeneratorError(
            f"port {port.name}: VPP did not take the NIC {port.interface}: see that it is bound to vfio-pci"
        )

    def _nic(self, index: int) -> int:
        self._api.call("sw_interface_set_mac_address", sw_if_index=index, mac_address=_sink_mac())
        # Else the NIC itself would keep what is not for this MAC.
        self._api.call("sw_interface_set_promisc", sw_if_index=index, promisc_on=True)
        return index

    def _memif(self, port: Port) -> int:
        """Make a memif: the client where the device listens on the socket already, the server otherwise.

        A client of VPP's copies nothing, its server copies both ways. Whoever is to be measured without that
        cost is the client.
        """
        path = Path(port.interface)
        if path not in self._sockets:
            if not path.exists():
                self._serving.add(path)
            number = len(self._sockets) + 1
            self._api.call(
                "memif_socket_filename_add_del_v2",
                is_add=True,
                socket_id=number,
                socket_filename=str(path),
            )
            self._sockets[path] = number
        role = "MASTER" if path in self._serving else "SLAVE"
        answer = self._api.call(
            "memif_create_v2",
            role=self._api.value("vl_api_memif_role_t", f"MEMIF_ROLE_API_{role}"),
            mode=self._api.value("vl_api_memif_mode_t", "MEMIF_MODE_API_ETHERNET"),
            rx_queues=1,
            tx_queues=1,
            id=port.memif_id,
            socket_id=self._sockets[path],
            ring_size=MEMIF_RING,
            buffer_size=_FRAME_BYTES,
            hw_addr=_sink_mac(),
        )
        return int(answer.sw_if_index)

    def _af_packet(self, port: Port) -> int:
        known = "vl_api_af_packet_flags_t"
        bypass = self._api.value(known, "AF_PACKET_API_FLAG_QDISC_BYPASS")
        ring = self._api.value(known, "AF_PACKET_API_FLAG_VERSION_2")
        answer = self._api.call(
            "af_packet_create_v3",
            mode=self._api.value("vl_api_af_packet_mode_t", "AF_PACKET_API_MODE_ETHERNET"),
            hw_addr=_sink_mac(),
            use_random_hw_addr=False,
            host_if_name=port.interface,
            flags=bypass | ring,
            rx_frame_size=_FRAME_BYTES,
            rx_frames_per_block=_AF_PACKET_RING,
            num_rx_queues=1,
            num_tx_queues=1,
        )
        return int(answer.sw_if_index)

    def _down(self, ports: Sequence[VppPort]) -> list[str]:
        up = self._api.value("vl_api_if_status_flags_t", "IF_STATUS_API_FLAG_LINK_UP")
        flags = {int(row.sw_if_index): int(row.flags) for row in self._api.call("sw_interface_dump")}
        return [port.port.name for port in ports if not flags.get(port.index, 0) & up]

    def _wait_links(self, ports: Sequence[VppPort]) -> None:
        deadline = time.monotonic() + _LINK_SECONDS
        while down := self._down(ports):
            if time.monotonic() > deadline:
                raise GeneratorError(
                    f"the link of port {', '.join(down)} did not come up within {_LINK_SECONDS:.0f} s: see "
                    "whether the router runs and has its port up, and who serves the memif's socket"
                )
            time.sleep(_POLL_SECONDS)


def _sink_mac() -> bytes:
    """Return a MAC address for a port, one that nobody knows; locally administered."""
    return b"\x02" + secrets.token_bytes(5)
