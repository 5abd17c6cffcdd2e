"""The filter of route events in a real kernel: what it lets through, and that the rest is never queued."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import closing

import pytest

from router_agent.netlink import constants as c
from router_agent.netlink.messages import Messages
from router_agent.netlink.sockets import EventSocket

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root"),
]

STATIC, BGP = 4, 186
_GROUPS = (c.RTNLGRP_LINK, c.RTNLGRP_IPV4_ROUTE, c.RTNLGRP_IPV6_ROUTE)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"filter-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def events(namespace: str, commands: list[str], protocols: set[int] | None) -> list[tuple[int, int]]:
    """Message type and, of routes, protocol of each event that the commands lead to."""
    with closing(EventSocket(namespace, _GROUPS, protocols=protocols)) as listening:
        text = "".join(f"{command}\n" for command in commands)
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], check=True, input=text, text=True)
        found = []
        while len(data := listening.receive()):
            messages = Messages.find(data)
            for number, kind in enumerate(messages.types.tolist()):
                is_route = kind in (c.RTM_NEWROUTE, c.RTM_DELROUTE)
                found.append((kind, messages.body(number)[5] if is_route else 0))
        return found


COMMANDS = [
    "route add blackhole 10.0.0.0/24 proto static",
    "route add blackhole 10.0.1.0/24 proto bgp",
    "route add blackhole 2001:db8::/48 proto bgp metric 20",
    "route replace unreachable 10.0.0.0/24 proto bgp",
    "route replace unreachable 10.0.0.0/24 proto static",
    "route del 10.0.0.0/24 proto static",
    "route del 10.0.1.0/24 proto bgp",
    "link set lo mtu 9000",
]


def test_followed_protocols_replacements_and_all_that_are_no_routes_pass(namespace: str) -> None:
    assert events(namespace, COMMANDS, {STATIC, 42}) == [
        (c.RTM_NEWROUTE, STATIC),
        # what replaces a route may end one that is followed
        (c.RTM_NEWROUTE, BGP),
        (c.RTM_NEWROUTE, STATIC),
        (c.RTM_DELROUTE, STATIC),
        (c.RTM_NEWLINK, 0),
    ]


@pytest.mark.parametrize(
    ("protocols", "passed"), [(None, 7), (set(), 2), (set(range(1, 200)), 7), (set(range(1, 256)), 7)]
)
def test_all_and_none_can_be_asked_for(namespace: str, protocols: set[int] | None, passed: int) -> None:
    found = events(namespace, COMMANDS, protocols)
    assert [kind for kind, _ in found if kind != c.RTM_NEWLINK] == [kind for kind, _ in found][:-1]
    assert len(found) - 1 == passed
