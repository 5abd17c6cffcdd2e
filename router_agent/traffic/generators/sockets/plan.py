"""Who sends and who receives: how ports and destinations are dealt to worker processes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from router_agent.model import I64
from router_agent.traffic.scenario import Destinations, Port


@dataclass(frozen=True)
class Queues:
    """Receive and transmit queues of a port."""

    receive: int = 1
    transmit: int = 1


@dataclass(frozen=True, eq=False)
class Sending:
    """A worker that sends from one port.

    Attributes:
        port: position in `Endpoints.ports`.
        rows: its destinations, positions in `Destinations`.
    """

    port: int
    rows: I64


@dataclass(frozen=True)
class Receiving:
    """A worker that captures: some ports of one namespace, or one port together with others.

    Attributes:
        ports: positions in `Endpoints.ports`.
        sharing: how many workers share its port.
    """

    ports: tuple[int, ...]
    sharing: int = 1


@dataclass(frozen=True)
class Plan:
    """The workers, in the order in which CPUs are given to them."""

    senders: tuple[Sending, ...]
    receivers: tuple[Receiving, ...]

    def __len__(self) -> int:
        return len(self.senders) + len(self.receivers)


def plan(
    ports: Sequence[Port], destinations: Destinations, queues: Mapping[int, Queues], workers: int
) -> Plan:
    """Deal ports and destinations to about so many workers.

    There is at least a sender for each port that sends and a receiver for each namespace (and another where
    ports are UDP hosts). More workers give
    a receiver to each port first, then in turn a sender to each transmit queue and a receiver to each
    receive queue.
    """
    sending = Counter(destinations.ingress_ports)
    namespaces: dict[tuple[str | None, bool], list[int]] = {}
    for position, port in enumerate(ports):
        namespaces.setdefault((port.namespace, port.udp_host), []).append(position)
    spare = workers - len(sending) - len(namespaces)
    hands = dict.fromkeys(namespaces, 1)
    for namespace, members in namespaces.items():
        more = max(0, min(spare, len(members) - 1))
        hands[namespace] += more
        spare -= more
    receiving = Counter(range(len(ports)))
    if all(hands[namespace] == len(members) for namespace, members in namespaces.items()):
        _deal_queues(sending, receiving, queues, destinations, spare)
    return Plan(
        tuple(
            Sending(port, rows)
            for port, count in sorted(sending.items())
            for rows in _dealt(np.flatnonzero(destinations.ingress == port), count)
        ),
        tuple(
            Receiving(tuple(members[i::hand]), receiving[members[i]])
            for namespace, members in namespaces.items()
            for hand in (hands[namespace],)
            for i in range(hand)
            for _ in range(receiving[members[i]])
        ),
    )


def _deal_queues(
    sending: Counter[int],
    receiving: Counter[int],
    queues: Mapping[int, Queues],
    destinations: Destinations,
    spare: int,
) -> None:
    """Add workers to ports that have more queues, senders and receivers in turn."""
    most_sending = {
        port: min(queues.get(port, Queues()).transmit, int((destinations.ingress == port).sum()))
        for port in sending
    }
    most_receiving = {port: queues.get(port, Queues()).receive for port in receiving}
    sides = ((sending, most_sending), (receiving, most_receiving))
    while spare > 0:
        given = 0
        for counts, most in sides:
            wanting = [port for port in counts if counts[port] < most[port]]
            if wanting and given < spare:
                counts[min(wanting, key=lambda port: (counts[port], port))] += 1
                given += 1
        if not given:
            return
        spare -= given


def _dealt(rows: I64, hands: int) -> list[I64]:
    return [rows[i::hands] for i in range(hands)]
