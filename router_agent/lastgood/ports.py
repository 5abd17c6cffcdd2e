"""Files of systemd-networkd taken into use; it never takes away what it has made.

What the files of a failed change made has to go by hand: their devices, and their addresses. So what they
said is noted before they are replaced.
"""

from __future__ import annotations

import configparser
import time
from collections.abc import Sequence
from typing import Any

from router_agent.lastgood.commands import json_of, run
from router_agent.lastgood.links import changes
from router_agent.lastgood.steps import Steps

_SETTLE_SECONDS = 20.0
_POLL_SECONDS = 0.2
_ROUNDS = 5
"""Names, then links, then routes that addresses bring: each may need the one before."""


def made_by(name: str, text: str) -> dict[str, Any]:
    """Return what a file of systemd-networkd made: `device`, or `interface` and `addresses`; else nothing."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(_with_lists(text))
    except configparser.Error:
        return {}
    if name.endswith(".netdev") and parser.has_option("NetDev", "Name"):
        return {"device": parser.get("NetDev", "Name")}
    if name.endswith(".network") and parser.has_option("Match", "Name"):
        addresses = parser.get("Network", "Address", fallback="").split()
        return {"interface": parser.get("Match", "Name"), "addresses": addresses}
    return {}


def _with_lists(text: str) -> str:
    """Return a text whose repeated keys Address are one: a parser of Python keeps the last alone."""
    addresses = [line.partition("=")[2].strip() for line in text.splitlines() if line.startswith("Address=")]
    lines = [line for line in text.splitlines() if not line.startswith("Address=")]
    if addresses and "[Network]" in lines:
        lines.insert(lines.index("[Network]") + 1, f"Address={' '.join(addresses)}")
    return "\n".join(lines)


def bring_back(
    steps: Steps,
    *,
    made: Sequence[dict[str, Any]],
    kept: Sequence[dict[str, Any]],
    links: Sequence[dict[str, Any]],
    routes: Sequence[dict[str, Any]],
) -> None:
    """Take away what the change has made, and have the kernel's interfaces as they were.

    Args:
        steps: notes what is done.
        made: what the files that were replaced made; see `made_by`.
        kept: what those say that are there now.
        links: of the kernel, as they were; see `links`.
        routes: likewise.
    """
    _take_away(steps, made, kept)
    _apply(steps, links, routes)


def read_files(
    steps: Steps,
    *,
    links: Sequence[dict[str, Any]],
    routes: Sequence[dict[str, Any]],
    runs: bool,
    restart: bool,
) -> None:
    """Have systemd-networkd read its files, and do by hand what it does not.

    Args:
        steps: notes what is done.
        links: of the kernel, as they were; see `links`.
        routes: likewise.
        runs: whether systemd-networkd is to run.
        restart: whether its own configuration has changed.
    """
    _networkd(steps, runs=runs, restart=restart)
    _settle(links, routes, managed=runs)
    _apply(steps, links, routes)


def _networkd(steps: Steps, *, runs: bool, restart: bool) -> None:
    """Have systemd-networkd read its files, if it is to run."""
    if not runs:
        if run("systemctl", "is-active", "--quiet", "systemd-networkd.service").ok:
            steps.do("systemctl", "stop", "systemd-networkd.socket", "systemd-networkd.service")
    elif not run("systemctl", "is-active", "--quiet", "systemd-networkd.service").ok:
        steps.do("systemctl", "start", "systemd-networkd.service")
    elif restart:
        steps.do("systemctl", "restart", "systemd-networkd.service")
    else:
        steps.do("networkctl", "reload")


def _take_away(steps: Steps, made: Sequence[dict[str, Any]], kept: Sequence[dict[str, Any]]) -> None:
    stay = {(entry["interface"], address) for entry in kept for address in entry.get("addresses", [])}
    present = {link["ifname"]: link for link in json_of("ip", "-json", "address", "show")}
    for entry in made:
        name = entry.get("device") or entry.get("interface", "")
        if name not in present:
            continue
        if "device" in entry:
            steps.do("ip", "link", "delete", "dev", name)
            continue
        have = {
            f"{found['local']}/{found['prefixlen']}"
            for found in present[name]["addr_info"]
            if "local" in found
        }
        for address in entry["addresses"]:
            if address in have and (name, address) not in stay:
                steps.do("ip", "address", "delete", address, "dev", name)


def _settle(links: Sequence[dict[str, Any]], routes: Sequence[dict[str, Any]], *, managed: bool) -> None:
    """Wait while systemd-networkd does its part; what is left then is done by hand."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    while managed and _busy() and any(True for _ in changes(links, routes)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


def _busy() -> bool:
    """Whether systemd-networkd is at work on a link (networkctl(1), SETUP)."""
    listed = run("networkctl", "list", "--no-legend", "--no-pager").output
    return any(
        line.split()[-1:] in (["pending"], ["initialized"], ["configuring"]) for line in listed.splitlines()
    )


def _apply(steps: Steps, links: Sequence[dict[str, Any]], routes: Sequence[dict[str, Any]]) -> None:
    """Do what is left to do; one change may be what the next one needs."""
    for _ in range(_ROUNDS):
        left = list(changes(links, routes))
        for words in left:
            steps.do(*words)
        if not left:
            return
