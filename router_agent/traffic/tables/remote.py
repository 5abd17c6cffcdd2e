"""The table of a device that is another host, read there by the kit's own program."""

from __future__ import annotations

from collections.abc import Sequence

from router_agent.traffic.reach import Reach, ReachError
from router_agent.traffic.tables.live import LiveTable, TableError

_READ_S = 300.0


def read_remote_table(reach: Reach, arguments: Sequence[str], *, program: str = "router-agent") -> LiveTable:
    """Return what ``router-agent traffic table`` reads on a host.

    Args:
        reach: the host.
        arguments: what chooses the table: ``--kernel``, or ``--vpp`` and the API socket, and so on.
        program: the kit's program there.

    Raises:
        TableError: it cannot be read.
    """
    try:
        done = reach.run([program, "traffic", "table", *arguments, "--npz"], timeout_s=_READ_S)
    except ReachError as error:
        raise TableError(f"the table of {reach.host} cannot be read: {error}") from error
    return LiveTable.from_bytes(done.stdout)
