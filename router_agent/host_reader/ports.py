"""The kernel's network interfaces and what they have counted."""

from __future__ import annotations

from pathlib import Path

from router_agent.host_reader.answers import Port, Ports

_PROC_NET_DEV = Path("/proc/self/net/dev")
_OPERSTATES = Path("/sys/class/net")
_UP = {"up": True, "down": False, "lowerlayerdown": False}


def read(proc_net_dev: Path = _PROC_NET_DEV, operstates: Path = _OPERSTATES) -> Ports:
    """Return every interface but the loopback (``/proc/net/dev``, net/core/net-procfs.c).

    Args:
        proc_net_dev: two lines of titles, then one for each interface.
        operstates: directory with the ``operstate`` of each interface in it (RFC 2863, ifOperStatus).
    """
    try:
        lines = proc_net_dev.read_text(encoding="utf-8", errors="replace").splitlines()[2:]
        ports = [_port(line, operstates) for line in lines if ":" in line]
    except (OSError, ValueError, IndexError) as error:
        return Ports(problem=f"{proc_net_dev} cannot be read: {error}")
    return Ports(rows=tuple(port for port in ports if port.name != "lo"))


def _port(line: str, operstates: Path) -> Port:
    """Columns: 8 of receive (bytes packets errs drop fifo frame compressed multicast), 8 of transmit."""
    name, _, rest = line.rpartition(":")
    name, numbers = name.strip(), [int(word) for word in rest.split()]
    return Port(
        name=name,
        up=_up(operstates / name / "operstate"),
        rx_bytes=numbers[0],
        rx_packets=numbers[1],
        rx_errors=numbers[2],
        drops=numbers[3] + numbers[11],
        rx_misses=numbers[4],
        tx_bytes=numbers[8],
        tx_packets=numbers[9],
        tx_errors=numbers[10] + numbers[12],
    )


def _up(operstate: Path) -> bool | None:
    try:
        return _UP.get(operstate.read_text().strip())
    except OSError:
        return None
