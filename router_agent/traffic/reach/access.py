"""From what a scenario file says of a host to the way there."""

from __future__ import annotations

from router_agent.traffic.reach.local import LocalReach
from router_agent.traffic.reach.reach import Reach
from router_agent.traffic.reach.ssh import SshReach
from router_agent.traffic.reach.target import SshTarget
from router_agent.traffic.scenario.binding import SshAccess


def reach_of(access: SshAccess | None) -> Reach:
    """Return the way to a host, not opened yet; None is this host."""
    if access is None:
        return LocalReach()
    return SshReach(
        SshTarget(
            access.host,
            user=access.user,
            port=access.port,
            key_files=() if access.key_file is None else (access.key_file.expanduser(),),
            known_hosts=() if access.known_hosts is None else (access.known_hosts.expanduser(),),
        )
    )
