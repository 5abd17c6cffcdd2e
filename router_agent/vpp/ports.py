"""Ports of a VPP that forwards for a control plane elsewhere: made over a kernel interface, with no address.

A mirrored port carries the control plane's MAC but none of its addresses. For VPP to forward on it:

- IP must be enabled on it. Without an address VPP sends what it receives there to ``ip4-not-enabled`` and
  ``ip6-not-enabled``, which drop. Making the port unnumbered (``sw_interface_set_unnumbered``) to an
  interface that has no address either, ``local0``, lifts that for both families and nothing else: VPP gets
  nothing it could answer ARP or neighbour discovery for, and sends no router advertisements.
- ``sw_interface_ip4_enable_disable`` would be the obvious call; in 26.06 its handler hands ``enable`` to
  the feature ``ip4-not-enabled``, so it does the reverse. ``sw_interface_ip6_enable_disable`` works, but
  makes VPP advertise itself as a router.
- Routes out of it must carry the interface and the gateway (attached next hop), and a static neighbour must
  give the gateway's MAC: VPP resolves nothing itself, since it has no address to ask from.
- Hosts of a connected prefix need host routes. Neighbours become routes by themselves only below a prefix
  that the interface, the API or the CLI source attaches (``fib_entry_flags_update`` in
  src/vnet/fib/fib_entry_src.c), not below one of a source of our own.

What the control plane must get (ARP, neighbour discovery, packets for its addresses) VPP sees too: an
AF_PACKET socket is handed a packet before ``tc`` ingress is. VPP drops it: it has no address, and no route
but ours.
"""

from __future__ import annotations

from router_agent.vpp.session import VppSession

DEFAULT_MTU = 1500
DEFAULT_RECEIVE_RING = 32_768
_FRAME_BYTES = 2048

_AF_PACKET_QUEUES = 1
_LOCAL0 = 0
"""sw_if_index of ``local0``, which every VPP has, which is down and has no address."""


async def create_host_port(
    session: VppSession,
    *,
    host_interface: str,
    mac: bytes,
    mtu: int = DEFAULT_MTU,
    offload: bool = True,
    receive_ring: int = DEFAULT_RECEIVE_RING,
) -> int:
    """Take over a kernel interface of VPP's namespace as port ``host-NAME``, up and forwarding IP.

    Args:
        session: an open session.
        host_interface: kernel name of the interface; must be up for packets to pass.
        mac: the port's address, 6 bytes: what senders address, that is, the control plane's.
        mtu: largest IP packet sent, in bytes.
        offload: exchange checksum and segmentation offload with the kernel
            (``AF_PACKET_API_FLAG_CKSUM_GSO``). Needed where the peer is a veth whose sender leaves checksums
            to the hardware.
        receive_ring: packets, of at most 2,048 bytes, that wait in the kernel while VPP's main thread is busy
            (it is, for a second or more, while it dumps a full table), at 2 KiB each. 0 takes VPP's default
            ring, which holds any size, so segmentation offload too, but no more than about 0.2 s of traffic.

    Returns:
        The port's sw_if_index.

    Raises:
        FibError: VPP lacks the af_packet plugin, or refused (no such kernel interface, port exists).
    """
    known = session.enumeration("vl_api_af_packet_flags_t")
    flags = known["AF_PACKET_API_FLAG_QDISC_BYPASS"]
    if offload:
        flags |= known["AF_PACKET_API_FLAG_CKSUM_GSO"]
    if receive_ring:
        flags |= known["AF_PACKET_API_FLAG_VERSION_2"]
    modes = session.enumeration("vl_api_af_packet_mode_t")
    answer = await session.call(
        "af_packet_create_v3",
        mode=modes["AF_PACKET_API_MODE_ETHERNET"],
        hw_addr=mac,
        use_random_hw_addr=False,
        host_if_name=host_interface,
        flags=flags,
        rx_frame_size=_FRAME_BYTES if receive_ring else 0,
        rx_frames_per_block=receive_ring,
        num_rx_queues=_AF_PACKET_QUEUES,
        num_tx_queues=_AF_PACKET_QUEUES,
    )
    index = int(answer.sw_if_index)
    await set_mtu(session, index, mtu)
    await enable_ip(session, index)
    await set_up(session, index)
    return index


async def delete_host_port(session: VppSession, *, host_interface: str) -> None:
    """Remove a port made by `create_host_port`.

    Raises:
        FibError: there is none.
    """
    await session.call("af_packet_delete", host_if_name=host_interface)


async def enable_ip(session: VppSession, index: int) -> None:
    """Let a port forward IPv4 and IPv6 without an address of its own; idempotent.

    Raises:
        FibError: there is no such interface.
    """
    await session.call(
        "sw_interface_set_unnumbered", sw_if_index=_LOCAL0, unnumbered_sw_if_index=index, is_add=True
    )


async def set_up(session: VppSession, index: int, *, up: bool = True) -> None:
    """Set a port administratively up or down.

    Raises:
        FibError: there is no such interface.
    """
    flags = session.enumeration("vl_api_if_status_flags_t")
    await session.call(
        "sw_interface_set_flags", sw_if_index=index, flags=flags["IF_STATUS_API_FLAG_ADMIN_UP"] if up else 0
    )


async def set_mtu(session: VppSession, index: int, mtu: int) -> None:
    """Set the largest packet a port sends, in bytes, for IPv4, IPv6 and MPLS alike.

    Raises:
        FibError: there is no such interface.
    """
    await session.call("sw_interface_set_mtu", sw_if_index=index, mtu=[mtu, 0, 0, 0])
