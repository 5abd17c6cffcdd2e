"""Which prefixes a check sends to, by which port, and where each packet shall leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

import numpy as np
from numpy.typing import NDArray

from router_agent.model import U64, Family, Mask, Prefix, keys_of
from router_agent.prefix_list import distinct
from router_agent.traffic.scenario.destinations import ANY_PORT, Destinations
from router_agent.traffic.scenario.document import DestinationsWanted, Direction
from router_agent.traffic.scenario.errors import ScenarioError
from router_agent.traffic.scenario.ports import Endpoints

_NEVER_FORWARDED: dict[Family, tuple[str, ...]] = {
    Family.IPV4: ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3"),
    Family.IPV6: ("::/8", "fe80::/10", "ff00::/8"),
}
"""This network, loopback, multicast and above (RFC 6890): a default route covers them, no router forwards."""

_FAMILIES = {"ipv4": Family.IPV4, "ipv6": Family.IPV6}


@dataclass(frozen=True, eq=False)
class Reachable:
    """Prefixes that may be sent to, by family.

    Attributes:
        keys: see router_agent.model.
        expected: for each of them the position in `Endpoints.ports` it leaves by, or `ANY_PORT`; ``int16``.
        others: keys of prefixes that no packet shall go to, nor to what they cover.
        origin: where they come from, for people.
    """

    keys: Mapping[Family, U64]
    expected: Mapping[Family, NDArray[np.int16]]
    others: Mapping[Family, U64]
    origin: str

    @classmethod
    def of_keys(cls, keys: Mapping[Family, U64], origin: str) -> Reachable:
        """Return prefixes that may leave by any port."""
        whole = {family: keys.get(family, _none(family)) for family in Family}
        anywhere = {family: np.full(len(column), ANY_PORT, np.int16) for family, column in whole.items()}
        return cls(whole, anywhere, {family: _none(family) for family in Family}, origin)

    @classmethod
    def of_ports(cls, prefixes: Mapping[int, tuple[Prefix, ...]], origin: str) -> Reachable:
        """Return prefixes by the position of the port they leave by; `ANY_PORT` for any.

        Raises:
            ScenarioError: a prefix is listed twice.
        """
        listed = [prefix for part in prefixes.values() for prefix in part]
        twice = {prefix for prefix in listed if listed.count(prefix) > 1} if len(listed) < 1_000 else set()
        if twice or len(set(listed)) != len(listed):
            shown = f", {sorted(map(str, twice))[0]} among them" if twice else ""
            raise ScenarioError(f"{origin}: found prefixes listed twice{shown}, expected each of them once")
        keys: dict[Family, U64] = {}
        expected: dict[Family, NDArray[np.int16]] = {}
        for family, version in ((Family.IPV4, 4), (Family.IPV6, 6)):
            rows = [(p, port) for port, part in prefixes.items() for p in part if p.version == version]
            keys[family] = keys_of([p for p, _ in rows]) if rows else _none(family)
            expected[family] = np.array([port for _, port in rows], np.int16)
        return cls(keys, expected, {family: _none(family) for family in Family}, origin)


def aim(
    wanted: DestinationsWanted, direction: Direction, endpoints: Endpoints, reachable: Reachable
) -> Destinations:
    """Draw destinations for each sending port.

    Raises:
        ScenarioError: there is no prefix that a port could send to.
    """
    families = [_FAMILIES[name] for name in wanted.families]
    keys = {family: reachable.keys[family] for family in families}
    if not any(len(column) for column in keys.values()):
        raise ScenarioError(
            f"found no {' or '.join(family.label for family in families)} prefix to send to in "
            f"{reachable.origin}, expected at least one; see that it has routes with next hops"
        )
    table = {family: _table(family, reachable) for family in families}
    senders = [endpoints.position(name) for name in direction.senders]
    parts: list[Destinations] = []
    for number, sender in enumerate(senders):
        out = _out(direction, endpoints, number)
        rows = {family: _rows(wanted, reachable.expected[family], out) for family in families}
        chosen = {family: column[rows[family]] for family, column in keys.items()}
        if not any(len(column) for column in chosen.values()):
            raise ScenarioError(
                f"found no prefix in {reachable.origin} that leaves by port "
                f"{endpoints.names[out if out is not None else sender]}, expected some for port "
                f"{endpoints.names[sender]} to send to; name the router's interface (`faces`) of each port, "
                "or list prefixes in destinations.by_port"
            )
        expected = {
            family: np.full(int(rows[family].sum()), out, np.int16)
            if out is not None
            else reachable.expected[family][rows[family]]
            for family in families
        }
        count = None if wanted.count == "all" else -(-wanted.count // len(senders))
        parts.append(
            Destinations.draw(
                chosen, expected, count=count, table=table, ingress=sender, seed=wanted.seed + number
            )
        )
    return parts[0] if len(parts) == 1 else Destinations.joined(parts)


def _out(direction: Direction, endpoints: Endpoints, number: int) -> int | None:
    """Return the port that packets of the n-th sender shall leave by; None where the table says it."""
    if direction.between is not None:
        return endpoints.position(direction.between[1 - number])
    return None if direction.receiver is None else endpoints.position(direction.receiver)


def _rows(wanted: DestinationsWanted, expected: NDArray[np.int16], out: int | None) -> Mask:
    """Return the prefixes that leave by a port; of a list that names no ports all of them shall."""
    if out is None:
        return np.ones(len(expected), np.bool_)
    silent = not wanted.from_table and wanted.by_port is None
    return np.asarray((expected == out) | (silent & (expected == ANY_PORT)), np.bool_)


def _table(family: Family, reachable: Reachable) -> U64:
    """Return everything that a longest match is looked for in."""
    never = keys_of([ip_network(text) for text in _NEVER_FORWARDED[family]])
    return distinct(np.concatenate((reachable.keys[family], reachable.others[family], never)))


def _none(family: Family) -> U64:
    return np.empty((0, family.key_width), np.uint64)
