"""What queueing disciplines dropped on transmission: the kernel's own queues, before a port's driver.

An interface's ``tx_dropped`` does not have it. Only the discipline at the root of an interface is read: one
with children (mq, for NICs of several queues) tells the sum of theirs (linux/pkt_sched.h, linux/gen_stats.h).
"""

from __future__ import annotations

from typing import Any

from pyroute2 import IPRoute, NetlinkError

from router_agent.namespaces import NamespaceError, inside
from router_agent.traffic.counters.source import CounterError

_ROOT = 0xFFFFFFFF
"""``TC_H_ROOT``."""


def egress_drops(namespace: str | None) -> dict[str, int]:
    """Return packets dropped by the root queueing discipline of each interface that has one, by name.

    Raises:
        CounterError: there is no such namespace, or the kernel does not tell.
    """
    try:
        with inside(namespace), IPRoute() as routing:
            names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in routing.get_links()}
            return {
                names[qdisc["index"]]: _drops(qdisc)
                for qdisc in routing.get_qdiscs()
                if qdisc["parent"] == _ROOT and qdisc["index"] in names
            }
    except (OSError, NamespaceError, NetlinkError) as error:
        raise CounterError(f"queueing disciplines of namespace {namespace}: {error}") from error


def _drops(qdisc: Any) -> int:
    statistics = qdisc.get_attr("TCA_STATS2")
    queue = statistics.get_attr("TCA_STATS_QUEUE") if statistics is not None else None
    return int(queue["drops"]) if queue is not None else 0
