"""The way of a prefix before the agent: BGP's paths, zebra's route, the kernel's; each is asked.

The agent runs without the right to open vtysh, so the command line asks, with the rights of who runs it. What
cannot be had (no FRR, no right, no answer in time) is a step that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from router_agent.model import Prefix
from router_agent.observe import ask
from router_agent.observe.answers import Stage, Step

FEEDS_BEHIND_ZEBRA = ("kernel", "fpm")
"""Feeds that have zebra, and mostly FRR's BGP, before them."""
_SHOWN = 8
"""Paths of a prefix that are put into words."""


def steps(prefix: Prefix, *, vtysh: Sequence[str], table: int, namespace: str | None) -> Iterator[Step]:
    """Ask BGP, zebra and the kernel for one prefix.

    Args:
        prefix: matched exactly.
        vtysh: the command that runs vtysh, for example ``("vtysh",)``.
        table: kernel table.
        namespace: network namespace of the kernel's routes, by name or path; None is the caller's own.

    Yields:
        At least one step for each that was asked.
    """
    family = "ipv4" if prefix.version == 4 else "ipv6"
    word = "ip" if prefix.version == 4 else "ipv6"
    yield from _asked(Stage.BGP, lambda: _bgp(_vtysh(vtysh, f"show bgp {family} unicast {prefix} json")))
    yield from _asked(Stage.ZEBRA, lambda: _zebra(_vtysh(vtysh, f"show {word} route {prefix} json")))
    yield from _asked(Stage.KERNEL, lambda: _kernel(prefix, table, namespace))


def _asked(stage: Stage, answers: Callable[[], Iterator[tuple[bool, str]]]) -> Iterator[Step]:
    try:
        for holds, words in answers():
            yield Step(stage=stage, words=words, holds=holds)
    except ask.NotKnownError as error:
        yield Step(stage=stage, words=str(error), known=False)


def _bgp(answer: Any) -> Iterator[tuple[bool, str]]:
    paths = answer.get("paths", []) if isinstance(answer, Mapping) else []
    if not paths:
        yield False, "BGP has no path"
    for path in paths[:_SHOWN]:
        hops = ", ".join(str(hop.get("ip", "?")) for hop in path.get("nexthops", ()))
        peer = path.get("peer", {}).get("peerId", "?")
        words = f"from {peer} via {hops}, AS path {path.get('aspath', {}).get('string') or 'empty'}"
        words += ", best" if path.get("bestpath", {}).get("overall") else ""
        valid = bool(path.get("valid", True))
        yield True, words if valid else f"{words}, not valid: its next hop cannot be reached"
    if paths and not any(path.get("bestpath", {}).get("overall") for path in paths):
        yield False, "BGP has chosen none of them"


def _zebra(answer: Any) -> Iterator[tuple[bool, str]]:
    routes = [route for found in answer.values() for route in found] if isinstance(answer, Mapping) else []
    if not routes:
        yield False, "zebra has no route"
        return
    for route in routes[:_SHOWN]:
        hops = ", ".join(_zebra_hop(hop) for hop in route.get("nexthops", ()))
        group = f", next-hop group {route['nexthopGroupId']}" if "nexthopGroupId" in route else ""
        state = [
            word for word in ("selected", "installed", "offloaded", "queued", "failed") if route.get(word)
        ]
        words = f"{route.get('protocol', '?')} {hops}{group} ({', '.join(state) or 'not selected'})"
        yield not route.get("selected") or bool(route.get("installed")), words
    if not any(route.get("selected") for route in routes):
        yield False, "zebra has selected none of them"


def _zebra_hop(hop: Mapping[str, Any]) -> str:
    words = [f"via {hop['ip']}"] if "ip" in hop else []
    words += [f"dev {hop['interfaceName']}"] if "interfaceName" in hop else []
    return " ".join(words + ([] if hop.get("active", True) else ["inactive"]))


def _kernel(prefix: Prefix, table: int, namespace: str | None) -> Iterator[tuple[bool, str]]:
    version = "-4" if prefix.version == 4 else "-6"
    routes = _ip(namespace, version, "route", "show", "table", str(table), "exact", str(prefix))
    if not routes:
        yield False, f"the kernel has no route in table {table}"
    for route in routes[:_SHOWN]:
        legs = route.get("nexthops") or [route]
        words = ", ".join(_kernel_leg(leg) for leg in legs)
        kind = "" if route.get("type", "unicast") == "unicast" else f"{route['type']} "
        words = f"{kind}{words} proto {route.get('protocol', '?')} metric {route.get('metric', 0)}".strip()
        yield not route.get("flags") or "dead" not in route["flags"], words
        if "nhid" in route:
            yield from _nexthop(namespace, int(route["nhid"]))


def _nexthop(namespace: str | None, number: int) -> Iterator[tuple[bool, str]]:
    found = _ip(namespace, "nexthop", "get", "id", str(number))
    if not found:
        yield False, f"next-hop object {number} is gone"
        return
    hop = found[0]
    members = [str(member.get("id")) for member in hop.get("group", ())]
    words = f"group of {', '.join(members)}" if members else _kernel_leg(hop)
    yield True, f"next-hop object {number}: {words or 'blackhole'}"
    for member in members[:_SHOWN]:
        yield from _nexthop(namespace, int(member))


def _kernel_leg(leg: Mapping[str, Any]) -> str:
    via = leg.get("via")
    gateway = leg.get("gateway") or (via.get("host") if isinstance(via, Mapping) else None)
    words = [f"via {gateway}"] if gateway else []
    words += [f"dev {leg['dev']}"] if "dev" in leg else []
    return " ".join([*words, *leg.get("flags", ())])


def _vtysh(command: Sequence[str], words: str) -> Any:
    return ask.json_of([*command, "-c", words])


def _ip(namespace: str | None, *words: str) -> list[dict[str, Any]]:
    within: tuple[str, ...] = ()
    if namespace is not None:
        within = (
            ("nsenter", f"--net={namespace}")
            if namespace.startswith("/")
            else ("ip", "netns", "exec", namespace)
        )
    found = ask.json_of([*within, "ip", "-j", "-d", *words])
    return [entry for entry in found if entry] if isinstance(found, list) else []
