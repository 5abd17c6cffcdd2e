"""The interface pairs of linux-cp: a VPP interface, and the kernel interface that mirrors it.

``lcp_itf_pair_get`` (src/plugins/linux-cp/lcp.api) answers in parts: while the reply says EAGAIN, the next
request goes on at the cursor it carries. ``lcp_itf_pair_get_v2`` would do the same, but in 26.06 its handler
sends the reply of the first version, which no client waits for.

There is no event for pairs. But none comes or goes without an interface: the TAP, or a sub-interface of it,
is set up last when a pair is made and deleted last when it goes. So an interface event is when to read again.
"""

from __future__ import annotations

from dataclasses import dataclass

from router_agent.fibs.fib import FibError
from router_agent.namespaces import identity
from router_agent.vpp.session import VppSession, error_name

PAIR_MESSAGES: dict[str, tuple[str, ...]] = {
    "lcp_itf_pair_get": ("cursor",),
    "lcp_itf_pair_get_reply": ("retval", "cursor"),
    "lcp_itf_pair_details": ("phy_sw_if_index", "host_sw_if_index", "vif_index", "host_if_name", "netns"),
}
"""What is needed of VPP's API, for `VppSession.require`."""

_AGAIN = -165
"""``VNET_API_ERROR_EAGAIN`` of src/vnet/error.h."""


@dataclass(frozen=True, slots=True, order=True)
class Pair:
    """One pair.

    Attributes:
        port: sw_if_index of the interface that forwards.
        host: sw_if_index of the TAP, or of the sub-interface of a TAP, behind which the kernel is.
        link: ifindex of the kernel interface, in its namespace.
        name: the kernel interface's name when the pair was made.
        namespace: the kernel interface's network namespace, by name; empty for VPP's own.
    """

    port: int
    host: int
    link: int
    name: str
    namespace: str


async def read_pairs(session: VppSession) -> list[Pair]:
    """Return all pairs, sorted.

    Raises:
        FibError: VPP runs without linux-cp, or refuses.
        FibLostError: VPP went away.
    """
    if not session.has("lcp_itf_pair_get"):
        raise FibError(
            f"VPP {session.version} runs without linux-cp, whose pairs `interfaces: auto` needs: enable "
            "linux_cp_plugin.so in startup.conf (`plugins { plugin linux_cp_plugin.so { enable } }`) and "
            "restart VPP, or list the interfaces"
        )
    session.require(PAIR_MESSAGES)
    found: set[Pair] = set()
    cursor = 0
    while True:
        reply, details = await session.call("lcp_itf_pair_get", cursor=cursor)
        found.update(
            Pair(
                int(entry.phy_sw_if_index),
                int(entry.host_sw_if_index),
                int(entry.vif_index),
                str(entry.host_if_name),
                str(entry.netns),
            )
            for entry in details
        )
        if reply.retval == 0:
            return sorted(found)
        # A pool that shrank meanwhile leaves the cursor behind its end (-7): what was read is all there is.
        if reply.retval != _AGAIN and not (cursor and reply.retval == -7):
            raise FibError(f"VPP refused lcp_itf_pair_get(cursor={cursor}): {error_name(reply.retval)}")
        if reply.retval != _AGAIN or reply.cursor <= cursor:
            return sorted(found)
        cursor = int(reply.cursor)


def is_in(pair: Pair, namespace: str | None) -> bool:
    """Tell whether a pair's kernel interface is in a namespace.

    Args:
        pair: the pair; VPP's own namespace is taken to be the agent's.
        namespace: by name or path; None for the agent's own.
    """
    wanted = _identity(namespace or "")
    return wanted is not None and _identity(pair.namespace) == wanted


def _identity(namespace: str) -> tuple[int, int] | None:
    return identity(namespace or "/proc/self/ns/net")
