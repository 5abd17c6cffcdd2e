"""Whose a TCP connection of this host is, as the kernel lists them (proc(5), ``/proc/net/tcp``).

A port of the loopback is open to every local user, and what is told there may be worth a privilege.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TypeAlias

from router_agent.model import Address
from router_agent.namespaces import inside

End: TypeAlias = tuple[Address, int]
"""Address and port of one end of a connection."""

_LOCAL, _REMOTE, _UID = 1, 2, 7
"""Columns of the file."""


def owner_of(near: End, far: End, namespace: str | None = None) -> int | None:
    """Return the user id that made the socket bound to `near` and connected to `far`.

    Args:
        near: that socket's own end.
        far: the end it is connected to.
        namespace: where it is; None is the current one.

    Returns:
        None where there is no such socket.

    Raises:
        OSError: the kernel does not show its connections.
    """
    name = "tcp" if near[0].version == 4 else "tcp6"
    with inside(namespace):
        lines = Path("/proc/thread-self/net", name).read_text().splitlines()[1:]
    wanted = [_listed(near), _listed(far)]
    for line in lines:
        columns = line.split()
        if columns[_LOCAL : _REMOTE + 1] == wanted:
            return int(columns[_UID])
    return None


def _listed(end: End) -> str:
    """Return an end as the file has it: 32-bit words in the processor's order, as numbers."""
    octets = end[0].packed
    words = struct.unpack(f"={len(octets) // 4}I", octets)
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
