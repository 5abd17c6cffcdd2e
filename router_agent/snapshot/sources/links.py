"""The kernel's interfaces: whether they are up, their counters of errors and drops, the driver's own too."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from router_agent.namespaces import NamespaceError
from router_agent.netlink import dumps
from router_agent.netlink.messages import NetlinkDecodeError
from router_agent.netlink.sockets import DumpInterruptedError, NetlinkError
from router_agent.observe.ask import NotKnownError
from router_agent.snapshot.model import Link, Links
from router_agent.snapshot.sources.router import Router
from router_agent.traffic.counters.ethtool import nic_counters
from router_agent.traffic.counters.kernel import parse_dev, proc_net
from router_agent.traffic.counters.source import CounterError

_COUNTERS = ("rx_errors", "rx_dropped", "tx_errors", "tx_dropped")
_QUEUE = "rx_queue_"
"""What begins the names of counters of packets that were received, beside those that were lost."""
_LOOPBACK = "lo"


def read(router: Router) -> Links:
    """Return the interfaces of every namespace that the agent's configuration names, the host's first.

    Raises:
        NotKnownError: they cannot be read.
    """
    try:
        return Links(links=dict(link for name in router.namespaces for link in _links(name)))
    except (
        CounterError,
        DumpInterruptedError,
        NamespaceError,
        NetlinkDecodeError,
        NetlinkError,
        OSError,
    ) as error:
        raise NotKnownError(f"cannot read the kernel's interfaces: {error}") from error


def _links(namespace: str | None) -> Iterator[tuple[str, Link]]:
    counters = parse_dev(proc_net(namespace, ("dev",))["dev"])
    for state in asyncio.run(dumps.links(namespace)):
        link = state.link
        if link.name == _LOOPBACK:
            continue
        errors = {name: counters.get(f"dev.{link.name}.{name}", 0) for name in _COUNTERS}
        own = nic_counters(link.name, namespace)
        errors |= {name: count for name, count in own.items() if not name.startswith(_QUEUE)}
        yield (
            f"{namespace}/{link.name}" if namespace else link.name,
            Link(up=link.up, carrier=link.carrier, mtu=link.mtu, identity=str(link.index), errors=errors),
        )
