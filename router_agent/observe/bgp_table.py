"""BGP's own table against the kernel's: what BGP chose and the kernel has not, and the other way round.

``show bgp … json`` of a full table is half a gigabyte. It is read as it comes, a prefix at a time, and kept
as prefix keys; the kernel's routes of protocol bgp are read by the feed's own codec. Both are asked by the
command line, with the rights of who runs it. In FRR's answer (seen with 8.4) ``"PREFIX":[`` comes before the
paths of a prefix, and in each path ``bestpath`` before ``peerId``.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network

import numpy as np

from router_agent.model import U64, Family, Prefix, keys_of, prefixes_of
from router_agent.observe import kernel_table
from router_agent.observe.answers import BgpComparison
from router_agent.observe.kernel_table import BGP_PROTOCOL, TableError
from router_agent.prefix_table import PrefixTable

_TOKEN = re.compile(
    r'"(?P<prefix>[0-9a-fA-F.:]+\\?/\d+)"\s*:\s*\[|"bestpath"\s*:\s*(?P<best>true)|"peerId"\s*:\s*"(?P<peer>[^"]*)"'
)
_LONGEST_TOKEN = 256
_READ_BYTES = 1 << 20
_OURSELVES = "(unspec)"
"""Peer of what this router originates, which BGP does not put into the kernel."""
_BATCH = 8_192
_SHOWN = 20


def compare(family: Family, *, vtysh: Sequence[str], table: int, namespace: str | None) -> BgpComparison:
    """Compare BGP's chosen prefixes of one family with the kernel's; what differs twice, differs.

    Args:
        family: address family.
        vtysh: the command that runs vtysh.
        table: kernel table.
        namespace: network namespace of the kernel's routes; None is the caller's own.
    """
    try:
        chosen, held = _both(family, vtysh, table, namespace)
        missing, extra = _without(chosen, held), _without(held, chosen)
        if len(missing) or len(extra):
            chosen, held = _both(family, vtysh, table, namespace)
            missing = _without(missing, _without(missing, _without(chosen, held)))
            extra = _without(extra, _without(extra, _without(held, chosen)))
    except TableError as error:
        return BgpComparison(family=family, problem=str(error))
    return BgpComparison(
        family=family,
        chosen=len(chosen),
        in_kernel=len(held),
        missing=len(missing),
        extra=len(extra),
        missing_prefixes=tuple(str(p) for p in prefixes_of(missing[:_SHOWN])),
        extra_prefixes=tuple(str(p) for p in prefixes_of(extra[:_SHOWN])),
    )


def best_prefixes(text: Iterable[str]) -> Iterator[Prefix]:
    """Yield the prefixes that BGP chose a path of from a peer for, from the parts of FRR's answer."""
    rest, prefix, best = "", "", False
    for part in text:
        window = rest + part
        end = 0
        for token in _TOKEN.finditer(window):
            end = token.end()
            if token["prefix"]:
                prefix, best = token["prefix"].replace("\\", ""), False
            elif token["best"]:
                best = True
            elif best and token["peer"] != _OURSELVES:
                best = False
                yield _network(prefix)
            else:
                best = False
        # A token may be cut in two; what was taken apart already must not be seen again.
        rest = window[max(end, len(window) - _LONGEST_TOKEN) :]


def _network(text: str) -> Prefix:
    try:
        return ip_network(text)
    except ValueError as error:
        raise TableError(f"FRR names {text!r}, which is no prefix: {error}") from error


def _both(family: Family, vtysh: Sequence[str], table: int, namespace: str | None) -> tuple[U64, U64]:
    chosen = _chosen(family, vtysh)
    held = kernel_table.held(namespace=namespace, tables=(table,), protocols=(BGP_PROTOCOL,))
    return chosen, held[family, table]


def _chosen(family: Family, vtysh: Sequence[str]) -> U64:
    word = "ipv4" if family is Family.IPV4 else "ipv6"
    command = [*vtysh, "-c", f"show bgp {word} unicast json"]
    found, batch = [np.empty((0, family.key_width), np.uint64)], list[Prefix]()
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError as error:
        raise TableError(f"cannot run {command[0]}: {error.strerror or error}") from error
    with process:
        assert process.stdout is not None
        output = process.stdout
        for prefix in best_prefixes(iter(lambda: output.read(_READ_BYTES), "")):
            batch.append(prefix)
            if len(batch) >= _BATCH:
                found.append(keys_of(batch))
                batch.clear()
    if process.returncode != 0:
        raise TableError(
            f"{' '.join(command)} ended with {process.returncode}: is FRR running, may you ask it?"
        )
    if batch:
        found.append(keys_of(batch))
    return np.unique(np.concatenate(found), axis=0)


def _without(keys: U64, others: U64) -> U64:
    """Return the keys that are not among the others; both are distinct."""
    table = PrefixTable(keys.shape[1])
    table.insert(others)
    left: U64 = keys[table.find(keys) < 0]
    return left
