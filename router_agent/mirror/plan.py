"""What has to be done for VPP's paired interfaces to be as Linux's are.

Linux is the truth for every aspect that is mirrored, of paired interfaces and of nothing else: what VPP has
there and Linux has not is removed. So nobody has to remember what was written by whom, and a restarted agent
that finds everything equal plans nothing.

Prune, then create, then set: an address moves between interfaces, or changes its length, only if it goes
first; and VPP moves an interface to another table only while it has no address of the family.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from router_agent.mirror.aspects import Aspect
from router_agent.mirror.kernel import Address, KernelInterface
from router_agent.mirror.vpp import ADMIN_UP, Step, VppInterface, VppState
from router_agent.model import MAIN_TABLE, Family
from router_agent.vpp.pairs import Pair

_LOCAL0 = 0
"""sw_if_index of ``local0``, which every VPP has and which has no address."""

Matched = list[tuple[KernelInterface, VppInterface, Pair]]


def plan(
    kernel: Mapping[int, KernelInterface],
    vpp: VppState,
    *,
    aspects: Collection[Aspect],
    tables: Mapping[int, int],
) -> list[Step]:
    """Return what is to be done, in this order; nothing when VPP is as Linux is.

    A new VLAN takes two plans: it is made by the first, and what it is to be like is in the second.

    Args:
        kernel: interfaces by ifindex.
        vpp: what VPP holds.
        aspects: what is mirrored.
        tables: kernel table to VPP table, for those whose numbers differ.
    """
    matched = [
        (kernel[pair.link], vpp.interfaces[pair.port], pair) for pair in vpp.pairs if pair.link in kernel
    ]
    steps: list[Step] = []
    if Aspect.VLANS in aspects:
        steps += _vlans_gone(kernel, vpp)
    moved = set(_moved(matched, tables)) if Aspect.VRFS in aspects else set()
    if Aspect.ADDRESSES in aspects:
        steps += _numbered(matched, {index for index, _ in moved})
        steps += _addresses_gone(matched, moved)
    if Aspect.VRFS in aspects:
        steps += _bind(matched, vpp, tables, moved, whole=Aspect.ADDRESSES in aspects)
    if Aspect.VLANS in aspects:
        steps += _vlans_new(kernel, vpp)
    if Aspect.LINKS in aspects:
        steps += _links(matched, vpp)
    if Aspect.MPLS in aspects:
        steps += _labels(matched, vpp)
    if Aspect.ADDRESSES in aspects:
        steps += _addresses_new(matched, moved)
        steps += _unnumbered(matched)
    return steps


def _vlans_gone(kernel: Mapping[int, KernelInterface], vpp: VppState) -> Iterator[Step]:
    for pair in vpp.pairs:
        port = vpp.interfaces[pair.port]
        if pair.link in kernel or not port.vlan:
            continue
        gone = {"is_add": False, "sw_if_index": port.index}
        yield Step(f"remove the pair of {port.name}", "lcp_itf_pair_add_del", gone)
        yield Step(f"remove {port.name}", "delete_subif", {"sw_if_index": port.index})


def _vlans_new(kernel: Mapping[int, KernelInterface], vpp: VppState) -> Iterator[Step]:
    paired = {pair.link: pair for pair in vpp.pairs}
    subs = {(i.parent, i.vlan): i for i in vpp.interfaces.values() if i.vlan and i.parent != i.index}
    for link in kernel.values():
        above = paired.get(link.parent)
        if link.vlan is None or above is None or link.index in paired:
            continue
        sub = subs.get((above.port, link.vlan))
        if sub is None:
            fields = {"sw_if_index": above.port, "vlan_id": link.vlan}
            name = vpp.interfaces[above.port].name
            yield Step(f"make {name}.{link.vlan} for {link.name}", "create_vlan_subif", fields)
            continue
        if sub.up != link.up:
            # Making a pair copies VPP's state to Linux, and it is Linux's that counts.
            yield _set_state(sub, up=link.up)
        pair = {
            "is_add": True,
            "sw_if_index": sub.index,
            "host_if_name": link.name,
            "netns": above.namespace,
        }
        yield Step(f"pair {sub.name} with {link.name}", "lcp_itf_pair_add_del", pair)


def _wanted_table(link: KernelInterface, tables: Mapping[int, int]) -> int:
    if not link.table or link.table == MAIN_TABLE:
        return tables.get(MAIN_TABLE, 0)
    return tables.get(link.table, link.table)


def _moved(matched: Matched, tables: Mapping[int, int]) -> Iterator[tuple[int, Family]]:
    """Yield the interfaces, by sw_if_index, that go to another table, and of which family."""
    for link, port, _ in matched:
        wanted = _wanted_table(link, tables)
        for family, table in zip(Family, port.tables, strict=True):
            if table != wanted:
                yield port.index, family


def _bind(
    matched: Matched, vpp: VppState, tables: Mapping[int, int], moved: set[tuple[int, Family]], *, whole: bool
) -> Iterator[Step]:
    made = set(vpp.tables)
    for link, port, _ in matched:
        table = _wanted_table(link, tables)
        for family in Family:
            if (port.index, family) not in moved:
                continue
            if (family, table) not in made:
                made.add((family, table))
                entry = {"table_id": table, "is_ip6": family is Family.IPV6, "name": f"vrf-{link.table}"}
                words = f"make {family.label} table {table}"
                yield Step(
                    words, "ip_table_add_del_v2", {"table": entry, "is_add": True, "create_mfib": True}
                )
            kept = [] if whole else [a for a in port.addresses if _family(a) is family]
            yield from (_address(port, address, add=False) for address in kept)
            fields = {"sw_if_index": port.index, "is_ipv6": family is Family.IPV6, "vrf_id": table}
            yield Step(f"put {port.name} into {family.label} table {table}", "sw_interface_set_table", fields)
            yield from (_address(port, address, add=True) for address in kept)


def _addresses_gone(matched: Matched, moved: set[tuple[int, Family]]) -> Iterator[Step]:
    for link, port, _ in matched:
        for address in sorted(port.addresses, key=str):
            if address not in link.addresses or (port.index, _family(address)) in moved:
                yield _address(port, address, add=False)


def _is_unnumbered(link: KernelInterface) -> bool:
    """Tell whether an interface has nothing but link-local addresses, as BGP unnumbered leaves it."""
    return bool(link.addresses) and all(a.version == 6 and a.ip.is_link_local for a in link.addresses)


def _unnumbered(matched: Matched) -> Iterator[Step]:
    """Have VPP take IPv4 packets on interfaces without an IPv4 address, as Linux does (RFC 8950).

    VPP drops them (``ip4-not-enabled``) unless the interface borrows another's addresses: here ``local0``'s,
    which has none. See `router_agent.vpp.ports` for why not otherwise.
    """
    for link, port, _ in matched:
        if _is_unnumbered(link) and not port.unnumbered:
            fields = {"sw_if_index": _LOCAL0, "unnumbered_sw_if_index": port.index, "is_add": True}
            yield Step(f"take IPv4 on {port.name} without an address", "sw_interface_set_unnumbered", fields)


def _numbered(matched: Matched, moved: set[int]) -> Iterator[Step]:
    for link, port, _ in matched:
        if port.unnumbered and (port.index in moved or not _is_unnumbered(link)):
            fields = {"sw_if_index": _LOCAL0, "unnumbered_sw_if_index": port.index, "is_add": False}
            yield Step(f"end borrowing of addresses on {port.name}", "sw_interface_set_unnumbered", fields)


def _addresses_new(matched: Matched, moved: set[tuple[int, Family]]) -> Iterator[Step]:
    for link, port, _ in matched:
        six = False
        for address in sorted(link.addresses, key=str):
            six |= address.version == 6
            if address.version == 6 and address.ip.is_link_local:
                continue
            if address not in port.addresses or (port.index, _family(address)) in moved:
                yield _address(port, address, add=True)
        yield from _link_local(link, port)
        if six and (port.advertises or port.link_local is None):
            fields = {"sw_if_index": port.index, "suppress": 1}
            yield Step(
                f"leave router advertisements on {port.name} to Linux", "sw_interface_ip6nd_ra_config", fields
            )


def _link_local(link: KernelInterface, port: VppInterface) -> Iterator[Step]:
    """VPP has one link-local address an interface; any that Linux has will do, the first for a start."""
    wanted = sorted(a.ip for a in link.addresses if a.version == 6 and a.ip.is_link_local)
    if not wanted or port.link_local in wanted:
        return
    fields = {"sw_if_index": port.index, "ip": str(wanted[0])}
    yield Step(f"give {port.name} {wanted[0]}", "sw_interface_ip6_set_link_local_address", fields)


def _links(matched: Matched, vpp: VppState) -> Iterator[Step]:
    for link, port, pair in sorted(matched, key=lambda one: one[1].parent != one[1].index):
        for index in (port.index, pair.host):
            other = vpp.interfaces.get(index)
            if other is not None and other.mtu != link.mtu:
                fields = {"sw_if_index": index, "mtu": [link.mtu, 0, 0, 0]}
                yield Step(f"set {other.name} MTU {link.mtu}", "sw_interface_set_mtu", fields)
        if port.up != link.up:
            yield _set_state(port, up=link.up)


def _labels(matched: Matched, vpp: VppState) -> Iterator[Step]:
    if not vpp.label_table and any(link.labelled for link, _, _ in matched):
        # VPP itself wants it before an interface takes labels.
        table = {"mt_table_id": 0, "mt_name": "default"}
        yield Step(
            "make the table of MPLS labels", "mpls_table_add_del", {"mt_is_add": True, "mt_table": table}
        )
    for link, port, _ in matched:
        if link.labelled != port.labelled:
            words = f"{'take' if link.labelled else 'refuse'} labelled packets on {port.name}"
            fields = {"sw_if_index": port.index, "enable": link.labelled}
            yield Step(words, "sw_interface_set_mpls_enable", fields)


def _set_state(port: VppInterface, *, up: bool) -> Step:
    fields = {"sw_if_index": port.index, "flags": ADMIN_UP if up else 0}
    return Step(f"set {port.name} {'up' if up else 'down'}", "sw_interface_set_flags", fields)


def _family(address: Address) -> Family:
    return Family.IPV4 if address.version == 4 else Family.IPV6


def _address(port: VppInterface, address: Address, *, add: bool) -> Step:
    words = f"{'give' if add else 'take'} {port.name} {address}"
    fields = {"sw_if_index": port.index, "is_add": add, "prefix": str(address)}
    return Step(words, "sw_interface_add_del_address", fields)
