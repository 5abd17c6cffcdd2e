"""The prefixes that a kernel has in a table, read in bulk by the feed's own codec."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

import numpy as np

from router_agent.feeds.feed import FeedError
from router_agent.feeds.kernel import KernelFeed
from router_agent.model import U64, Family, RouteBatch
from router_agent.namespaces import NamespaceError
from router_agent.netlink.sockets import NetlinkError
from router_agent.prefix_table import unique_last

BGP_PROTOCOL = 186
"""``RTPROT_BGP`` of linux/rtnetlink.h."""


class TableError(Exception):
    """A table cannot be read; the message says why."""


def held(
    *, namespace: str | None, tables: Sequence[int], protocols: Collection[int] | None
) -> dict[tuple[Family, int], U64]:
    """Return the distinct prefix keys of each family and table.

    Args:
        namespace: network namespace; None is the caller's own.
        tables: kernel tables.
        protocols: of these route protocols only; None takes all.

    Raises:
        TableError: they cannot be read.
    """
    return asyncio.run(_held(namespace, tuple(tables), None if protocols is None else frozenset(protocols)))


async def _held(
    namespace: str | None, tables: tuple[int, ...], protocols: frozenset[int] | None
) -> dict[tuple[Family, int], U64]:
    parts = {(family, table): [_none(family)] for family in Family for table in tables}

    def take(batch: RouteBatch) -> None:
        parts[batch.family, batch.table].append(batch.keys)

    try:
        feed = KernelFeed(namespace=namespace, tables=tables, protocols=protocols)
        clean = await feed.reread(take, pause_seconds=0.0)
    except (FeedError, NamespaceError, NetlinkError, OSError) as error:
        raise TableError(f"cannot read the kernel's routes: {error}") from error
    if not clean:
        raise TableError("the kernel's routes changed too much while they were read; ask again")
    return {space: distinct(np.concatenate(keys)) for space, keys in parts.items()}


def distinct(keys: U64) -> U64:
    """Return each key once."""
    once: U64 = keys[unique_last(*(keys[:, word] for word in range(keys.shape[1])))]
    return once


def _none(family: Family) -> U64:
    return np.empty((0, family.key_width), np.uint64)
