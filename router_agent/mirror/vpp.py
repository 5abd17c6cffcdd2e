"""The paired interfaces of a VPP, as far as a mirror needs to know, and the calls that change them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, ip_interface
from typing import Any, TypeAlias

from router_agent.mirror.kernel import Address
from router_agent.model import Family
from router_agent.vpp.pairs import PAIR_MESSAGES, Pair
from router_agent.vpp.session import VppSession

MESSAGES: dict[str, tuple[str, ...]] = {
    **PAIR_MESSAGES,
    "sw_interface_dump": ("sw_if_index",),
    "sw_interface_details": (
        "sw_if_index", "sup_sw_if_index", "flags", "link_mtu", "mtu", "sub_outer_vlan_id", "interface_name",
    ),
    "want_interface_events": ("enable_disable", "pid"),
    "sw_interface_set_flags": ("sw_if_index", "flags"),
    "sw_interface_set_mtu": ("sw_if_index", "mtu"),
    "ip_address_dump": ("sw_if_index", "is_ipv6"),
    "ip_address_details": ("prefix",),
    "sw_interface_add_del_address": ("sw_if_index", "is_add", "prefix"),
    "sw_interface_ip6_get_link_local_address": ("sw_if_index",),
    "sw_interface_ip6_set_link_local_address": ("sw_if_index", "ip"),
    "sw_interface_ip6nd_ra_dump": ("sw_if_index",),
    "sw_interface_ip6nd_ra_config": ("sw_if_index", "suppress"),
    "ip_unnumbered_dump": ("sw_if_index",),
    "ip_unnumbered_details": ("sw_if_index",),
    "sw_interface_set_unnumbered": ("sw_if_index", "unnumbered_sw_if_index", "is_add"),
    "sw_interface_get_table": ("sw_if_index", "is_ipv6"),
    "sw_interface_set_table": ("sw_if_index", "is_ipv6", "vrf_id"),
    "ip_table_dump": (),
    "ip_table_add_del_v2": ("table.table_id", "table.is_ip6", "table.name", "is_add"),
    "create_vlan_subif": ("sw_if_index", "vlan_id"),
    "delete_subif": ("sw_if_index",),
    "lcp_itf_pair_add_del": ("is_add", "sw_if_index", "host_if_name", "netns"),
    "mpls_interface_dump": ("sw_if_index",),
    "mpls_table_dump": (),
    "mpls_table_add_del": ("mt_is_add", "mt_table"),
    "sw_interface_set_mpls_enable": ("sw_if_index", "enable"),
}  # fmt: skip
"""What is needed of VPP's API, for `VppSession.require`."""

ADMIN_UP = 1
"""``IF_STATUS_API_FLAG_ADMIN_UP`` of src/vnet/interface_types.api."""

_EVERY_INTERFACE = 0xFFFFFFFF

Table: TypeAlias = tuple[Family, int]


@dataclass(frozen=True, slots=True)
class VppInterface:
    """An interface of VPP.

    Attributes:
        index: sw_if_index.
        name: VPP's name of it.
        up: administratively up.
        mtu: largest packet it sends, in bytes.
        parent: sw_if_index of the interface it is a sub-interface of; its own otherwise.
        vlan: outer VLAN id; 0 for none.
        addresses: with prefix lengths, the link-local one not among them.
        link_local: its link-local address; None where IPv6 is off.
        advertises: sends router advertisements.
        tables: table of each family.
        labelled: takes packets with MPLS labels.
        unnumbered: borrows the addresses of another; see `plan.py`.
    """

    index: int
    name: str
    up: bool = False
    mtu: int = 0
    parent: int = 0
    vlan: int = 0
    addresses: frozenset[Address] = frozenset()
    link_local: IPv6Address | None = None
    advertises: bool = False
    tables: tuple[int, int] = (0, 0)
    labelled: bool = False
    unnumbered: bool = False


@dataclass(frozen=True, slots=True)
class VppState:
    """What VPP holds.

    Attributes:
        interfaces: all of them by sw_if_index; addresses, tables and MPLS of paired ones only.
        pairs: those of the namespace that is mirrored.
        tables: the tables there are.
        label_table: there is the default table of MPLS labels.
    """

    interfaces: dict[int, VppInterface]
    pairs: tuple[Pair, ...] = ()
    tables: frozenset[Table] = frozenset()
    label_table: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One change: an API message, its fields, and what it is in words."""

    words: str
    message: str
    fields: dict[str, Any] = field(hash=False)


async def read_vpp(session: VppSession, pairs: Iterable[Pair]) -> VppState:
    """Return what VPP holds.

    Raises:
        FibLostError: VPP went away.
    """
    pairs = tuple(pairs)
    details = await session.call("sw_interface_dump", sw_if_index=_EVERY_INTERFACE)
    labelled = {int(e.sw_if_index) for e in await session.call("mpls_interface_dump")}
    borrowers = await session.call("ip_unnumbered_dump", sw_if_index=_EVERY_INTERFACE)
    unnumbered = {int(entry.sw_if_index) for entry in borrowers}
    interfaces = {int(entry.sw_if_index): _bare(entry, labelled, unnumbered) for entry in details}
    paired = {pair.port for pair in pairs} & interfaces.keys()
    for index in paired:
        interfaces[index] = await _complete(session, interfaces[index])
    tables = frozenset(
        (Family.IPV6 if entry.table.is_ip6 else Family.IPV4, int(entry.table.table_id))
        for entry in await session.call("ip_table_dump")
    )
    labels = any(entry.mt_table.mt_table_id == 0 for entry in await session.call("mpls_table_dump"))
    return VppState(interfaces, tuple(p for p in pairs if p.port in interfaces), tables, labels)


def _bare(entry: Any, labelled: set[int], unnumbered: set[int]) -> VppInterface:
    index = int(entry.sw_if_index)
    return VppInterface(
        index=index,
        name=str(entry.interface_name),
        up=bool(int(entry.flags) & ADMIN_UP),
        mtu=int(entry.mtu[0]) or int(entry.link_mtu),
        parent=int(entry.sup_sw_if_index),
        vlan=int(entry.sub_outer_vlan_id),
        labelled=index in labelled,
        unnumbered=index in unnumbered,
    )


async def _complete(session: VppSession, bare: VppInterface) -> VppInterface:
    addresses = set[Address]()
    tables = []
    for six in (False, True):
        for entry in await session.call("ip_address_dump", sw_if_index=bare.index, is_ipv6=six):
            addresses.add(ip_interface(str(entry.prefix)))
        reply = await session.call("sw_interface_get_table", sw_if_index=bare.index, is_ipv6=six)
        tables.append(int(reply.vrf_id))
    advertisements = await session.call("sw_interface_ip6nd_ra_dump", sw_if_index=bare.index)
    link_local = None
    if advertisements:
        # Where IPv6 is on: asked elsewhere, the next call is an error.
        reply = await session.call("sw_interface_ip6_get_link_local_address", sw_if_index=bare.index)
        link_local = IPv6Address(str(reply.ip))
    return replace(
        bare,
        addresses=frozenset(a for a in addresses if not a.ip.is_link_local or a.version == 4),
        link_local=link_local,
        advertises=any(entry.send_radv for entry in advertisements),
        tables=(tables[0], tables[1]),
    )
