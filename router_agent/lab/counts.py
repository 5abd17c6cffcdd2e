"""How many routes a kernel holds, read from counters of /proc instead of the table itself.

A million routes take ``ip route`` some ten seconds to print; the counters take milliseconds.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pyroute2 import netns

from router_agent.lab.errors import LabError
from router_agent.model import Family

_MAIN_PREFIXES = re.compile(rb"^Main:$.*?^\s*Prefixes:\s*(\d+)$", re.MULTILINE | re.DOTALL)


class RouteCounter:
    """Counts the routes of one network namespace; a context manager.

    The files are opened once from inside the namespace and read again and again from outside: the kernel
    ties an open file of /proc/net to the namespace of whoever opened it.

    Args:
        namespace: name of the network namespace.

    Raises:
        LabError: the kernel does not have the counters.
    """

    def __init__(self, namespace: str) -> None:
        # A thread of its own: network namespaces belong to threads, and this one ends right after.
        with ThreadPoolExecutor(1) as executor:
            self._ipv4, self._ipv6 = executor.submit(_open, namespace).result()

    def __enter__(self) -> RouteCounter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the namespace."""
        self._ipv4.close()
        self._ipv6.close()

    def count(self, family: Family) -> int:
        """Return how many routes there are: IPv4 those of the main table, IPv6 all, local ones included."""
        if family is Family.IPV4:
            found = _MAIN_PREFIXES.search(_again(self._ipv4))
            return int(found[1]) if found else 0
        return int(_again(self._ipv6).split()[3], 16)

    def counts(self) -> dict[Family, int]:
        """Return the counts of both families."""
        return {family: self.count(family) for family in Family}


def _open(namespace: str) -> tuple[BinaryIO, BinaryIO]:
    netns.setns(namespace)
    directory = Path("/proc/thread-self/net")
    try:
        return (
            (directory / "fib_triestat").open("rb", buffering=0),
            (directory / "rt6_stats").open("rb", buffering=0),
        )
    except FileNotFoundError as error:
        raise LabError(
            f"found no {error.filename}, expected a kernel with IPv6 and CONFIG_IP_FIB_TRIE_STATS"
        ) from error


def _again(file: BinaryIO) -> bytes:
    file.seek(0)
    parts = []
    while part := file.read(1 << 16):
        parts.append(part)
    return b"".join(parts)
