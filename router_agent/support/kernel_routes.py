"""Counts the kernel's routes by table, protocol and family, without a text of each: a second for a million.

Run as ``python -m router_agent.support.kernel_routes``; prints JSON.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import numpy as np

from router_agent.model import Family
from router_agent.netlink import constants as c
from router_agent.netlink.messages import HEADER_BYTES
from router_agent.netlink.sockets import DumpInterruptedError, DumpSocket

_RTMSG_BYTES = 12
_TABLE, _PROTOCOL = 4, 5
"""Offsets in ``struct rtmsg`` (linux/rtnetlink.h). A table above 255 is shown as 252 (RT_TABLE_COMPAT)."""
_NAMES = (Path("/etc/iproute2/rt_protos"), Path("/usr/share/iproute2/rt_protos"))
_TRIES = 3


async def counts(namespace: str | None = None) -> Counter[tuple[str, int, int]]:
    """Return how many routes there are by (family, table, protocol).

    Args:
        namespace: network namespace; None is the caller's own.

    Raises:
        NamespaceError: there is no such namespace.
        NetlinkError: the kernel refuses.
    """
    found: Counter[tuple[str, int, int]] = Counter()
    for family in Family:
        found += await _family(namespace, family)
    return found


async def _family(namespace: str | None, family: Family) -> Counter[tuple[str, int, int]]:
    """Count a family's. While routes change, a dump is not exact: the last try is taken as it is."""
    body = bytes([family]) + bytes(_RTMSG_BYTES - 1)
    found: Counter[tuple[str, int, int]] = Counter()
    for _ in range(_TRIES):
        found.clear()
        dumps = DumpSocket(namespace)
        try:
            async for messages in dumps.dump(c.RTM_GETROUTE, body):
                at = messages.starts + HEADER_BYTES
                pairs = messages.buffer[at + _TABLE].astype(np.int64) << 8 | messages.buffer[at + _PROTOCOL]
                for pair, count in enumerate(np.bincount(pairs)):
                    if count:
                        found[family.label, pair >> 8, pair & 0xFF] += int(count)
        except DumpInterruptedError:
            continue
        finally:
            dumps.close()
        break
    return found


def _protocol_names() -> dict[int, str]:
    """Return iproute2's names of route protocols."""
    names = {1: "redirect", 2: "kernel", 3: "boot", 4: "static"}
    for path in _NAMES:
        if not path.exists():
            continue
        for line in path.read_text(errors="replace").splitlines():
            words = line.partition("#")[0].split()
            if len(words) == 2 and words[0].isdecimal():
                names[int(words[0])] = words[1]
    return names


def main() -> None:
    """Print the counts of the network namespace this runs in."""
    names = _protocol_names()
    rows = [
        {"family": family, "table": table, "protocol": names.get(protocol, str(protocol)), "routes": count}
        for (family, table, protocol), count in sorted(asyncio.run(counts()).items())
    ]
    print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
