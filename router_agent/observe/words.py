"""Routes in the words people use for them."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from router_agent.model import Path, PathSet, RouteType


def describe_paths(path_set: PathSet | None, name_of: Callable[[int], str | None]) -> tuple[str, ...]:
    """Return one phrase for each leg, or the route type of a route without legs.

    Args:
        path_set: None for a path that leads nowhere.
        name_of: gives an interface's name, None if it is not known.
    """
    if path_set is None:
        return ("nowhere",)
    if path_set.type is not RouteType.UNICAST:
        return (path_set.type.name.lower(),)
    return tuple(_describe(leg, name_of) for leg in path_set.paths)


def _describe(leg: Path, name_of: Callable[[int], str | None]) -> str:
    words = []
    if leg.tunnel:
        words.append(f"encap {leg.tunnel}")
    if leg.labels:
        words.append(f"push {'/'.join(map(str, leg.labels))}")
    if leg.gateway:
        words.append(f"via {ip_address(leg.gateway)}")
    if leg.interface:
        words.append(f"dev {name_of(leg.interface) or f'interface {leg.interface}'}")
    if leg.weight != 1:
        words.append(f"weight {leg.weight}")
    return " ".join(words)
