"""The kernel's links, addresses and routes: what they were, and how to have them so again.

A change may take an address from an interface that no file of the kit describes, such as the one the host
is managed through, and no file brings it back. Interfaces that VPP mirrors are VPP's business (`vpp-
interfaces`), routes of BGP their daemons'. Routes of several next hops are not kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from router_agent.lastgood.commands import json_of

Link = dict[str, Any]
"""index, name, up, mtu, addresses: [[words of `ip address add`]]."""
Route = dict[str, Any]
"""family: the option of ip(8); words of `ip route add`."""

FAMILIES = ("-4", "-6")
_SCOPES = ("global", "site")
_MIRROR = "tun"
"""What VPP's linux-cp makes."""
_PROTOCOLS = ("boot", "static", "dhcp", "ra")
"""Routes of whoever manages the host; iproute2 names `boot` by silence."""
_FOREVER = 0xFFFFFFFF


def read_links() -> list[Link]:
    """Return the links of this host, without mirrors."""
    found = json_of("ip", "-json", "-details", "address", "show")
    return [_link(row) for row in found if row.get("linkinfo", {}).get("info_kind") != _MIRROR]


def read_routes() -> list[Route]:
    """Return the routes of the main table that whoever manages the host has put there."""
    return [
        {"family": family, "words": words}
        for family in FAMILIES
        for row in json_of("ip", "-json", family, "route", "show", "table", "main")
        if (words := _route(row))
    ]


def changes(links: Sequence[Link], routes: Sequence[Route]) -> Iterator[list[str]]:
    """Yield the commands that are left to do, in order: names, then links, addresses, routes.

    Args:
        links: what `read_links` returned.
        routes: what `read_routes` returned.
    """
    now = read_links()
    renamed = list(_names(links, now))
    if renamed:
        yield from renamed
        return
    by_index, by_name = {link["index"]: link for link in now}, {link["name"]: link for link in now}
    for link in links:
        # A link that was taken away and made again has another index.
        found = by_index.get(link["index"]) or by_name.get(link["name"])
        if found is not None:
            yield from _link_changes(link, found)
    have = [(route["family"], route["words"]) for route in read_routes()]
    for route in routes:
        if (route["family"], route["words"]) not in have:
            yield ["ip", route["family"], "route", "replace", *route["words"]]


def _link(row: Mapping[str, Any]) -> Link:
    return {
        "index": row["ifindex"],
        "name": row["ifname"],
        "up": "UP" in row.get("flags", []),
        "mtu": row.get("mtu"),
        "addresses": [words for entry in row.get("addr_info", []) if (words := _address(entry))],
    }


def _address(entry: Mapping[str, Any]) -> list[str]:
    """Return the words that `ip address add` takes; none for an address the kernel makes by itself."""
    if entry.get("scope") not in _SCOPES or "local" not in entry or entry.get("temporary"):
        return []
    length = entry["prefixlen"]
    words = [f"{entry['local']}/{length}"]
    if "address" in entry:
        words = [entry["local"], "peer", f"{entry['address']}/{length}"]
    if "broadcast" in entry:
        words += ["broadcast", entry["broadcast"]]
    if entry.get("dynamic") and entry.get("valid_life_time", _FOREVER) != _FOREVER:
        words += ["valid_lft", str(entry["valid_life_time"])]
        words += ["preferred_lft", str(entry.get("preferred_life_time", 0))]
    return words


def _route(row: Mapping[str, Any]) -> list[str]:
    protocol = row.get("protocol", "boot")
    if (
        protocol not in _PROTOCOLS
        or "dev" not in row
        or "nexthops" in row
        or row.get("type", "unicast") != "unicast"
    ):
        return []
    words = [row["dst"]]
    if "via" in row:
        words += ["via", row["via"]["family"], row["via"]["host"]]
    elif "gateway" in row:
        words += ["via", row["gateway"]]
    words += ["dev", row["dev"], "proto", protocol]
    for word, key in {"src": "prefsrc", "metric": "metric"}.items():
        words += [word, str(row[key])] if key in row else []
    return words


def _names(wanted: Sequence[Link], now: Sequence[Link]) -> Iterator[list[str]]:
    """Yield what gives links their names back; one that is in the way steps aside first."""
    names = {link["index"]: link["name"] for link in now}
    wrong = {
        link["index"]: link["name"]
        for link in wanted
        if link["index"] in names and names[link["index"]] != link["name"]
    }
    for index in wrong:
        yield ["ip", "link", "set", "dev", names[index], "down"]
        yield ["ip", "link", "set", "dev", names[index], "name", f"lastgood{index}"]
    for index, name in wrong.items():
        yield ["ip", "link", "set", "dev", f"lastgood{index}", "name", name]


def _link_changes(wanted: Link, found: Link) -> Iterator[list[str]]:
    name = found["name"]
    if wanted["mtu"] and wanted["mtu"] != found["mtu"]:
        yield ["ip", "link", "set", "dev", name, "mtu", str(wanted["mtu"])]
    if wanted["up"] and not found["up"]:
        yield ["ip", "link", "set", "dev", name, "up"]
    have = [words[0].partition("/")[0] for words in found["addresses"]]
    for words in wanted["addresses"]:
        if words[0].partition("/")[0] not in have:
            yield ["ip", "address", "replace", *words, "dev", name]
