"""What a router carries, for another router of the POP whose place it is to take.

    {"drained": false, "mark": null,                 the drain in force, and whether anything speaks of one
     "sessions": {"ipv4": {"198.51.100.1": {"state": "Established", "received": 1000000, "sent": 1}}},
     "announced": {"192.0.2.0/24": ["198.51.100.1"]},                        to whom FRR announces it
     "agent": {"vpp": "in-sync"},                                            the state of each pipeline
     "tables": {"ipv4": {"prefixes": 1000000, "keys": "..."}},
     "problems": []}                                                         what could not be asked

Prefixes are those of BGP in the kernel's main table: what FRR and ExaBGP chose and what is forwarded by. They
are sent as a column of keys, sorted, their differences compressed: a full table is some 3 MB. Whether one
table covers another is `missing` here: a prefix is covered by itself or by a shorter one, such as a default
route.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import numpy as np

from router_agent.control import ControlClient, ControlError, RefusedError
from router_agent.drain.drain import DrainError, Host
from router_agent.drain.settings import Settings
from router_agent.feeds.feed import FeedError
from router_agent.feeds.kernel import KernelFeed
from router_agent.model import MAIN_TABLE, U64, Family, RouteBatch, key_lengths, prefixes_of
from router_agent.namespaces import NamespaceError
from router_agent.netlink.sockets import NetlinkError
from router_agent.prefix_table import PrefixTable

PROTOCOLS = frozenset({186, 201})
"""``RTPROT_BGP``, and role router_agent's protocol of ExaBGP's routes."""
_SECONDS = 60.0
_ADDRESS_BITS = {Family.IPV4: 32, Family.IPV6: 128}
_NAMES = {"ipv4": Family.IPV4, "ipv6": Family.IPV6}


class TableError(Exception):
    """A table cannot be read; the message says why."""


def read(settings: Settings, prefixes: Sequence[str]) -> dict[str, Any]:
    """Return what this router carries, see above; what cannot be asked is among ``problems``.

    Args:
        settings: of the host.
        prefixes: prefixes of which is told to whom FRR announces them.
    """
    found: dict[str, Any] = {"sessions": {}, "announced": {}, "tables": {}, "agent": {}, "problems": []}
    try:
        state = Host(settings).state()
        found["drained"] = state.mark is not None or bool(state.failed)
        found["mark"] = None if state.mark is None else state.mark.model_dump(mode="json", by_alias=True)
        found["problems"] += [f"{speaker.name}: {speaker.words}" for speaker in state.failed]
    except DrainError as error:
        found |= {"drained": True, "mark": None}
        found["problems"].append(str(error))
    if settings.frr is not None:
        try:
            found["sessions"] = sessions_of(_json([*settings.frr.vtysh, "-c", "show bgp summary json"]))
            found["announced"] = {
                prefix: told_of(_json([*settings.frr.vtysh, "-c", _question(prefix)])) for prefix in prefixes
            }
        except TableError as error:
            found["problems"].append(f"FRR: {error}")
    if settings.agent:
        try:
            status = ControlClient(settings.fail_safe.control_socket, timeout_seconds=_SECONDS).status()
            found["agent"] = {pipeline.name: str(pipeline.state) for pipeline in status.pipelines}
        except (ControlError, RefusedError) as error:
            found["problems"].append(f"agent: {error}")
    for name, family in _NAMES.items():
        try:
            keys = asyncio.run(bgp_keys(family, settings.traffic.control_namespace))
            found["tables"][name] = {"prefixes": len(keys), "keys": packed(keys)}
        except TableError as error:
            found["problems"].append(f"the kernel's {family.label} routes: {error}")
    return found


def _question(prefix: str) -> str:
    return f"show bgp ipv{ip_network(prefix).version} unicast {prefix} json"


def sessions_of(summary: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what ``show bgp summary json`` says: by family, the neighbour's address to its state and counts.

    Sessions within the host (ExaBGP's services) carry nothing to a neighbour and are left out.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for afi, told in summary.items() if isinstance(summary, Mapping) else ():
        name = {"ipv4Unicast": "ipv4", "ipv6Unicast": "ipv6"}.get(afi)
        if name is None or not isinstance(told, Mapping):
            continue
        found[name] = {
            address: {
                "state": str(peer.get("state", "unknown")),
                "received": int(peer.get("pfxRcd", 0)),
                "sent": int(peer.get("pfxSnt", 0)),
            }
            for address, peer in told.get("peers", {}).items()
            if not _within_the_host(address)
        }
    return found


def told_of(answer: Any) -> list[str]:
    """Return the neighbours that ``show bgp ... PREFIX json`` says the prefix is advertised to."""
    told = answer.get("advertisedTo", {}) if isinstance(answer, Mapping) else {}
    # A neighbour that names itself is listed by that name, its address is not told.
    return sorted(address for address in told if not _within_the_host(address))


def _within_the_host(address: str) -> bool:
    try:
        return ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


async def bgp_keys(family: Family, namespace: str | None) -> U64:
    """Return the keys of BGP's prefixes in the kernel's main table, distinct and sorted.

    Raises:
        TableError: it cannot be read.
    """
    found = [np.empty((0, family.key_width), np.uint64)]

    def take(batch: RouteBatch) -> None:
        if batch.family is family:
            found.append(batch.keys)

    try:
        feed = KernelFeed(namespace=namespace, tables=(MAIN_TABLE,), protocols=PROTOCOLS)
        clean = await feed.reread(take, pause_seconds=0.0)
    except (FeedError, NamespaceError, NetlinkError, OSError) as error:
        raise TableError(str(error)) from error
    if not clean:
        raise TableError("they changed too much while they were read; ask again")
    return np.unique(np.concatenate(found), axis=0)


def packed(keys: U64) -> str:
    """Return sorted keys as text."""
    differences = np.diff(keys, axis=0, prepend=np.zeros((1, keys.shape[1]), np.uint64))
    return base64.b64encode(zlib.compress(differences.astype("<u8").tobytes(), 1)).decode()


def unpacked(text: str, family: Family) -> U64:
    """Return the keys of a text of `packed`'s."""
    data = zlib.decompress(base64.b64decode(text))
    differences = np.frombuffer(data, "<u8").reshape(-1, family.key_width).astype(np.uint64)
    return np.cumsum(differences, axis=0, dtype=np.uint64)


def missing(wanted: U64, held: U64, family: Family) -> U64:
    """Return the wanted prefixes that no held prefix covers: neither the same nor a shorter one around it."""
    table = PrefixTable(family.key_width)
    table.insert(held)
    left = wanted
    for length in np.unique(key_lengths(held))[::-1].tolist():
        longer = np.flatnonzero(key_lengths(left) >= length)
        covered = longer[table.find(_cut(left[longer], length, family)) >= 0]
        left = np.delete(left, covered, axis=0)
    return left


def examples(keys: U64, count: int = 3) -> list[str]:
    """Return the first few prefixes in words."""
    return [str(prefix) for prefix in prefixes_of(keys[:count])]


def _cut(keys: U64, length: int, family: Family) -> U64:
    """Return prefixes shortened to a length."""
    bits = _ADDRESS_BITS[family]
    mask = ((1 << length) - 1) << (bits - length) if length else 0
    cut = keys.copy()
    if family is Family.IPV4:
        cut[:, 0] = (keys[:, 0] & np.uint64(mask << 8)) | np.uint64(length)
        return cut
    cut[:, 0] &= np.uint64(mask >> 64)
    cut[:, 1] &= np.uint64(mask & ((1 << 64) - 1))
    cut[:, 2] = np.uint64(length)
    return cut


def _json(command: Sequence[str]) -> Any:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except OSError as error:
        raise TableError(f"cannot run {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise TableError(f"{' '.join(command)}: found no answer within {_SECONDS:.0f} s") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["nothing"]
        raise TableError(f"{' '.join(command)}: ended with {done.returncode} and said: {said[0]}")
    try:
        return json.loads(done.stdout or "{}")
    except ValueError as error:
        raise TableError(f"{' '.join(command)}: found no JSON: {error}") from error
