"""A NIC's own counters (``ethtool -S``): what it had no room for, and how flows were dealt to receive queues.

Every driver has names of its own. Those that mean a packet that was lost are listed below, as the drivers of
Linux and their manuals define them; counters of the same packet under a second name are not. Packets of
receive queues are read under one name whatever the driver calls them.

Sources: Documentation/networking/device_drivers/ethernet of the kernel; drivers/net/ethernet/intel/{ixgbe,
i40e,ice,igb}/*_ethtool.c; "Understanding mlx5 ethtool counters" of its maker; drivers/net/ethernet/sfc;
drivers/net/ethernet/broadcom/bnxt/bnxt_ethtool.c; drivers/net/ethernet/amazon/ena/ena_ethtool.c.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Mapping

from router_agent.namespaces import NamespaceError
from router_agent.traffic import nic
from router_agent.traffic.counters.source import CounterError, DropClass, Side

_DESCRIPTORS = "no free receive descriptor: the CPU of the queue is too slow, or the ring too small"
_PORT_BUFFER = "the NIC's own buffer was full: its bus or memory is too slow"
_FIFO = "no room in the NIC's receive FIFO"

_DROPS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"rx_no_dma_resources", _DESCRIPTORS),  # ixgbe, a queue that may drop
        (r"rx_missed_errors", _FIFO),  # ixgbe, igb, e1000e
        (r"port\.rx_dropped", _PORT_BUFFER),  # i40e; no descriptor: the kernel's rx_dropped
        (r"rx_dropped\.nic", _PORT_BUFFER),  # ice; likewise
        (r"rx_out_of_buffer", _DESCRIPTORS),  # mlx5
        (r"rx_discards_phy", _PORT_BUFFER),  # mlx5
        (r"rx_nodesc_drop_cnt|port_rx_nodesc_drops", _DESCRIPTORS),  # sfc
        (r"port_rx_dp_di_dropped_packets", "dropped by the NIC's data path"),  # sfc
        (r"\[\d+\]: rx_discards", _DESCRIPTORS),  # bnxt, bnx2x
        (r"rx_overruns", _DESCRIPTORS),  # ena
        (r"rx_queue_\d+_drops|rx\d+_drops", _DESCRIPTORS),  # igb, virtio_net, veth
    )
)

_QUEUE = re.compile(
    r"rx_queue_(\d+)_packets"  # ixgbe, igb, ice, virtio_net
    r"|rx-(\d+)\.(?:rx_)?packets"  # i40e, sfc
    r"|rx(\d+)_packets"  # mlx5, mlx4
    r"|\[(\d+)\]: rx_ucast_packets"  # bnxt, bnx2x
    r"|queue_(\d+)_rx_cnt"  # ena
    r"|rx_queue_(\d+)_xdp_packets"  # veth
)


def nic_counters(interface: str, namespace: str | None) -> dict[str, int]:
    """Return what a NIC lost by its driver's names, and ``rx_queue_N_packets``; empty if it tells nothing.

    Raises:
        CounterError: its queues were changed meanwhile, or the namespace is not there.
    """
    try:
        return chosen(nic.statistics(interface, namespace))
    except OSError as error:
        if error.errno == errno.ENODEV:
            # it went away after it was listed; what is missing is told by who needs it
            return {}
        raise CounterError(f"ethtool -S {interface}: {error.strerror}") from error
    except NamespaceError as error:
        raise CounterError(f"ethtool -S {interface}: {error}") from error


def chosen(statistics: Mapping[str, int]) -> dict[str, int]:
    """Return the counters above of all that a driver tells; names of queues are made one."""
    found: dict[str, int] = {}
    for name, value in statistics.items():
        if any(pattern.fullmatch(name) for pattern, _ in _DROPS):
            found[name] = value
        elif queue := _QUEUE.fullmatch(name):
            number = next(group for group in queue.groups() if group is not None)
            found[f"rx_queue_{number}_packets"] = value
    return found


def receive_drops(side: Side, port: str, growth: Mapping[str, int], prefix: str) -> list[DropClass]:
    """Return the drop classes of a port's receipt, from its NIC and from the kernel.

    Some drivers count a packet that the NIC lost among the kernel's ``rx_dropped`` or ``rx_errors``, some do
    not. So the kernel's class is only what it names beyond the NIC's.

    Args:
        side: whose port it is.
        port: what it is called.
        growth: of counters, those of the port with a prefix.
        prefix: as said.
    """
    where = f"{side} port {port}"
    own = {name.removeprefix(prefix): n for name, n in growth.items() if name.startswith(prefix)}
    classes = []
    for pattern, words in _DROPS:
        names = sorted(name for name in own if pattern.fullmatch(name))
        count = sum(own[name] for name in names)
        if count:
            shown = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
            classes.append(DropClass(f"{where}: {words}", count, side, f"{port} {shown}"))
    named = sum(drop.count for drop in classes)
    for words, counter in (("no room on receipt", "rx_dropped"), ("receive errors", "rx_errors")):
        count = own.get(counter, 0)
        classes.append(DropClass(f"{where}: {words}", max(0, count - named), side, f"{port} {counter}"))
        named = max(0, named - count)
    return classes


def hash_in_words(hashed: Mapping[str, Iterable[str]]) -> str:
    """Return which fields of UDP packets choose the receive queue, in words; see `nic.udp_hash`."""
    if not hashed:
        return "not told by the driver"
    return "; ".join(f"{family}: {', '.join(fields) or 'nothing'}" for family, fields in hashed.items())
