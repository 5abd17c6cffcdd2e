"""What a check must leave on a device as it found it: links, settings that decide forwarding, routes.

A check changes nothing there by itself. Its packets may: a driver resets under load, a link flaps, a session
runs into its hold time. So the state is read before and after, what can be put back is put back, and what
differs is said.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from router_agent.config import ROUTE_PROTOCOLS
from router_agent.model import Family, RouteType
from router_agent.namespaces import NamespaceError, inside
from router_agent.netlink import constants as c
from router_agent.netlink import dumps
from router_agent.netlink.messages import HEADER_BYTES, NetlinkDecodeError
from router_agent.netlink.sockets import DumpInterruptedError, DumpSocket, NetlinkError

MANY_ROUTES = 0.01
"""Part of a protocol's routes that may come or go meanwhile: a BGP table is never quite still."""

_SETTINGS = (
    "net/ipv4/ip_forward",
    "net/ipv4/conf/*/forwarding",
    "net/ipv4/conf/*/rp_filter",
    "net/ipv6/conf/*/forwarding",
    "net/core/netdev_max_backlog",
    "net/core/netdev_budget",
    "net/core/rmem_max",
    "net/core/wmem_max",
)
_PROC = Path("/proc/sys")
_TRIES = 5
_IP_SECONDS = 30
_RTMSG_BYTES = 12
_PROTOCOL, _TYPE = 5, 7
"""Offsets in ``struct rtmsg`` (linux/rtnetlink.h): rtm_protocol, rtm_type."""

_NAMES = {number: name for name, number in ROUTE_PROTOCOLS.items()}
_LOOPBACK = "lo"


class DeviceStateError(Exception):
    """The state cannot be read; the message says why."""


class LinkFound(BaseModel):
    """A link as it is.

    Attributes:
        up: whether it is meant to be up.
        carrier: whether the other end is there.
        mtu: bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    up: bool
    carrier: bool
    mtu: int


class DeviceState(BaseModel):
    """What is compared.

    Attributes:
        links: by name, the loopback left out.
        settings: sysctl to value; names with slashes, as interfaces may have dots.
        routes: how many unicast routes there are, by "IPv4 bgp" and the like.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    links: dict[str, LinkFound]
    settings: dict[str, str]
    routes: dict[str, int]


def read_state(namespace: str | None = None) -> DeviceState:
    """Return the state of a network namespace; None is the current one.

    Raises:
        DeviceStateError: it cannot be read.
    """
    try:
        links, routes = asyncio.run(_dumps(namespace))
        with inside(namespace):
            settings = dict(_settings())
    except (NetlinkError, NetlinkDecodeError, DumpInterruptedError, NamespaceError, OSError) as error:
        where = f"namespace {namespace}" if namespace else "this host"
        raise DeviceStateError(f"links, settings and routes of {where} cannot be read: {error}") from error
    return DeviceState(links=links, settings=settings, routes=routes)


def differences(before: DeviceState, after: DeviceState) -> list[str]:
    """Return in words what is not as it was."""
    return [
        *_link_differences(before.links, after.links),
        *_setting_differences(before.settings, after.settings),
        *_route_differences(before.routes, after.routes),
    ]


def put_back(before: DeviceState, namespace: str | None = None) -> list[str]:
    """Put back settings, and links' MTUs and whether they are up; return in words what was.

    Carriers and routes come back by themselves or not at all: whoever owns them is told.

    Raises:
        DeviceStateError: the kernel refuses.
    """
    done: dict[str, None] = {}
    try:
        with inside(namespace):
            # one setting may change others (ip_forward those of every interface), so it is looked at twice
            for _ in range(2):
                done |= dict.fromkeys(_put_back_settings(before.settings))
            done |= dict.fromkeys(_put_back_links(before.links, read_state(namespace).links))
    except (OSError, NamespaceError, subprocess.SubprocessError) as error:
        raise DeviceStateError(f"cannot put back what was changed: {error}") from error
    return list(done)


def _put_back_settings(before: dict[str, str]) -> Iterator[str]:
    now = dict(_settings())
    for name, value in before.items():
        if now.get(name, value) != value:
            (_PROC / name).write_text(value)
            yield f"{name} = {value}"


def _put_back_links(before: dict[str, LinkFound], now: dict[str, LinkFound]) -> Iterator[str]:
    for name, link in before.items():
        found = now.get(name)
        if found is None or (found.up, found.mtu) == (link.up, link.mtu):
            continue
        words = ["mtu", str(link.mtu), "up" if link.up else "down"]
        subprocess.run(["ip", "link", "set", "dev", name, *words], check=True, timeout=_IP_SECONDS)
        yield f"{name} {words[-1]} with MTU {link.mtu}"


async def _dumps(namespace: str | None) -> tuple[dict[str, LinkFound], dict[str, int]]:
    links: dict[str, LinkFound] = {}
    for link in (state.link for state in await dumps.links(namespace)):
        if link.name != _LOOPBACK:
            links[link.name] = LinkFound(up=link.up, carrier=link.carrier, mtu=link.mtu)
    routes: Counter[str] = Counter()
    for family in Family:
        routes.update(await _routes(namespace, family))
    return links, dict(sorted(routes.items()))


async def _routes(namespace: str | None, family: Family) -> Counter[str]:
    """Count unicast routes by protocol; a dump during which the table changed is made again."""
    body = bytes([family.value]) + bytes(_RTMSG_BYTES - 1)
    for attempt in range(_TRIES):
        counts: Counter[str] = Counter()
        sock = DumpSocket(namespace)
        try:
            async with aclosing(sock.dump(c.RTM_GETROUTE, body)) as chunks:
                async for found in chunks:
                    at = found.starts + HEADER_BYTES
                    unicast = found.buffer[at + _TYPE] == RouteType.UNICAST
                    numbers, sizes = np.unique(found.buffer[at + _PROTOCOL][unicast], return_counts=True)
                    for number, size in zip(numbers.tolist(), sizes.tolist(), strict=True):
                        counts[f"{family.label} {_NAMES.get(number, number)}"] += size
        except DumpInterruptedError:
            if attempt == _TRIES - 1:
                raise
            continue
        finally:
            sock.close()
        return counts
    raise AssertionError("unreachable")


def _settings() -> Iterator[tuple[str, str]]:
    for pattern in _SETTINGS:
        for path in sorted(_PROC.glob(pattern)):
            try:
                value = path.read_text().strip()
            except OSError:
                continue  # an interface that has just gone
            yield str(path.relative_to(_PROC)), value


def _link_differences(before: dict[str, LinkFound], after: dict[str, LinkFound]) -> Iterator[str]:
    for name, link in before.items():
        found = after.get(name)
        if found is None:
            yield f"link {name} is gone"
        elif found != link:
            yield f"link {name}: found {_link_words(found)}, expected {_link_words(link)}"
    for name in after.keys() - before.keys():
        yield f"link {name} is new"


def _link_words(link: LinkFound) -> str:
    carrier = "with" if link.carrier else "without"
    return f"{'up' if link.up else 'down'} {carrier} carrier, MTU {link.mtu}"


def _setting_differences(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    for name, value in before.items():
        # those of a link that is gone went with it, and the link is named
        if after.get(name, value) != value:
            yield f"{name}: found {after[name]}, expected {value}"


def _route_differences(before: dict[str, int], after: dict[str, int]) -> Iterator[str]:
    for kind in sorted(before.keys() | after.keys()):
        had, has = before.get(kind, 0), after.get(kind, 0)
        if abs(has - had) > MANY_ROUTES * had:
            yield f"{kind} routes: found {has:,}, expected {had:,}"
