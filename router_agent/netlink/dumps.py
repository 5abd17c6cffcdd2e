"""Dumps that fit in memory: links, addresses, next hops. Made again when the table changed meanwhile."""

from __future__ import annotations

from router_agent.netlink import constants as c
from router_agent.netlink.links import LINK_REQUEST, LinkState, parse_link
from router_agent.netlink.sockets import DumpInterruptedError, DumpSocket

_TRIES = 5


async def bodies(namespace: str | None, kind: int, request: bytes) -> list[bytes]:
    """Return the bodies of the messages of a dump.

    Args:
        namespace: whose; None is the caller's own.
        kind: RTM_GET*.
        request: the request after its header.

    Raises:
        NamespaceError: there is no such namespace.
        NetlinkError: the kernel refuses.
        NetlinkDecodeError: it answers with what is no netlink.
        DumpInterruptedError: the table never held still.
    """
    for attempt in range(1, _TRIES + 1):
        sock = DumpSocket(namespace)
        found: list[bytes] = []
        try:
            async for messages in sock.dump(kind, request):
                found += [messages.body(number) for number in range(len(messages))]
        except DumpInterruptedError:
            if attempt == _TRIES:
                raise
            continue
        finally:
            sock.close()
        return found
    raise AssertionError("unreachable")


async def links(namespace: str | None) -> list[LinkState]:
    """Return every link of a namespace, the loopback among them.

    Raises:
        NamespaceError: as for `bodies`, and so the other three.
    """
    found = (parse_link(body) for body in await bodies(namespace, c.RTM_GETLINK, LINK_REQUEST))
    return [state for state in found if state is not None]
