"""The kernel's tables, counted: each is dumped and its distinct prefixes are counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from router_agent.config import ExabgpFeedConfig, KernelFibConfig
from router_agent.model import MAIN_TABLE, U64, Family
from router_agent.observe import kernel_table
from router_agent.observe.ask import NotKnownError
from router_agent.observe.kernel_table import BGP_PROTOCOL, TableError
from router_agent.snapshot.model import KernelRoutes
from router_agent.snapshot.sources.router import Router, followed_protocols


def read(router: Router) -> KernelRoutes:
    """Return the counts.

    Raises:
        NotKnownError: a table cannot be read.
    """
    tables = _Tables()
    pipelines = router.config.pipelines if router.config else ()
    try:
        return KernelRoutes(
            bgp=tables.counts(router.control_namespace, (MAIN_TABLE,), (BGP_PROTOCOL,)),
            feeds={
                pipeline.name: tables.counts(
                    pipeline.feed.namespace, pipeline.feed.tables, followed_protocols(pipeline.feed)
                )
                for pipeline in pipelines
                if not isinstance(pipeline.feed, ExabgpFeedConfig)
            },
            fibs={
                pipeline.name: tables.counts(
                    pipeline.fib.namespace, tuple(pipeline.tables.values()), (pipeline.fib.protocol,)
                )
                for pipeline in pipelines
                if isinstance(pipeline.fib, KernelFibConfig)
            },
        )
    except TableError as error:
        raise NotKnownError(str(error)) from error


class _Tables:
    """Tables that were read: each protocol's routes are read once, however many ask for them."""

    def __init__(self) -> None:
        self._read: dict[tuple[str | None, tuple[int, ...], int | None], _Keys] = {}

    def counts(
        self, namespace: str | None, tables: Sequence[int], protocols: Collection[int] | None
    ) -> Mapping[str, int]:
        """Return the number of distinct prefixes of each family, the tables together.

        Raises:
            TableError: they cannot be read.
        """
        found = [
            self._keys(namespace, tuple(tables), protocol)
            for protocol in (sorted(protocols) if protocols is not None else (None,))
        ]
        return {
            family.label: sum(
                len(_together([keys[family, table] for keys in found])) for table in dict.fromkeys(tables)
            )
            for family in Family
        }

    def _keys(self, namespace: str | None, tables: tuple[int, ...], protocol: int | None) -> _Keys:
        what = (namespace, tables, protocol)
        if what not in self._read:
            protocols = None if protocol is None else (protocol,)
            self._read[what] = kernel_table.held(namespace=namespace, tables=tables, protocols=protocols)
        return self._read[what]


_Keys = dict[tuple[Family, int], U64]


def _together(columns: Sequence[U64]) -> U64:
    """Return the distinct keys of several columns, of which each has its own distinct already."""
    filled = [keys for keys in columns if len(keys)]
    if len(filled) <= 1:
        return filled[0] if filled else columns[0]
    return kernel_table.distinct(np.concatenate(filled))
