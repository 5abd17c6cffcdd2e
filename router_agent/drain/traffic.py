"""How much traffic a router attracts: packets that its ports receive, less BGP's and BFD's own.

What is forwarded and what is served here came in by a port, so the ports' counters of receipt have all of it,
the kernel's or VPP's. They also have what the control plane is sent, which does not end with a drain: BGP's
segments are counted by each connection (``tcpi_segs_in``, RFC 4898 tcpEStatsPerfSegsIn), BFD's by bfdd, and
both are taken off. What is left of ARP, neighbour discovery and scans is below a threshold that says what
no traffic is.
"""

from __future__ import annotations

import errno
import json
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from router_agent.drain.settings import TrafficSettings
from router_agent.namespaces import path_of
from router_agent.traffic.counters.kernel import parse_dev, proc_net
from router_agent.traffic.counters.source import CounterError
from router_agent.vpp.stats import StatsError, StatsSegment

_SECONDS = 10.0
_SEGMENTS = re.compile(r"\bsegs_in:(\d+)")
_NOBODY = (errno.ENOENT, errno.ECONNREFUSED)


class TrafficError(Exception):
    """Traffic cannot be measured; the message says what to do."""


@dataclass(frozen=True)
class Reading:
    """Counters at one time.

    Attributes:
        at: seconds of the monotonic clock.
        received: packets by port.
        control: packets that BGP and BFD received, by session.
        forwards: whether what forwards runs at all.
    """

    at: float
    received: Mapping[str, int]
    control: Mapping[str, int] = field(default_factory=dict)
    forwards: bool = True


@dataclass(frozen=True)
class Rate:
    """What came in between two readings.

    Attributes:
        pps: packets a second without the control plane's, all ports together.
        ports: packets a second by port, all of them.
        control_pps: those of the control plane.
        forwards: whether what forwards ran.
    """

    pps: float
    ports: Mapping[str, float]
    control_pps: float
    forwards: bool = True

    @property
    def words(self) -> str:
        """Which ports it came in by, the busiest first."""
        busy = sorted(((pps, name) for name, pps in self.ports.items() if pps >= 1), reverse=True)
        return ", ".join(f"{name} {pps:,.0f} pps" for pps, name in busy) or "no port"


def rate(before: Reading, after: Reading) -> Rate | None:
    """Return what came in between two readings; None when a counter began anew in between.

    A session of BGP or BFD that is only in the second reading has begun in between, one that is only in the
    first has ended and counts nothing: traffic is rather taken for more than for less.
    """
    seconds = after.at - before.at
    if seconds <= 0 or before.forwards is not after.forwards:
        return None
    grown = {name: after.received[name] - count for name, count in before.received.items()}
    if any(count < 0 for count in grown.values()):
        return None
    control = sum(max(0, count - before.control.get(name, 0)) for name, count in after.control.items())
    return Rate(
        pps=max(0.0, (sum(grown.values()) - control) / seconds),
        ports={name: count / seconds for name, count in grown.items()},
        control_pps=control / seconds,
        forwards=after.forwards,
    )


class Meter:
    """Reads the counters.

    Args:
        settings: which ports, and who counts.
        vtysh: the command that speaks to FRR, for BFD's counters; none without FRR.
    """

    def __init__(self, settings: TrafficSettings, vtysh: Sequence[str] = ()) -> None:
        self._settings = settings
        self._vtysh = vtysh

    def read(self) -> Reading:
        """Return the counters as they are now.

        Raises:
            TrafficError: they cannot be read.
        """
        if not self._settings.ports:
            raise TrafficError(
                "found no ports to measure, expected traffic.ports of drain.yaml: name them with --port, or "
                "drain without waiting (--no-wait)"
            )
        control = self._control()
        if self._settings.forwarding == "kernel":
            return Reading(time.monotonic(), self._kernel(), control)
        received = self._vpp()
        at = time.monotonic()
        if received is None:
            return Reading(at, dict.fromkeys(self._settings.ports, 0), control, forwards=False)
        return Reading(at, received, control)

    def _kernel(self) -> dict[str, int]:
        try:
            counters = parse_dev(proc_net(self._settings.namespace, ("dev",))["dev"])
        except CounterError as error:
            raise TrafficError(str(error)) from error
        names = {f"dev.{port}.rx_packets": port for port in self._settings.ports}
        found = {port: counters[name] for name, port in names.items() if name in counters}
        self._require(found)
        return found

    def _require(self, found: Mapping[str, int]) -> None:
        missing = [port for port in self._settings.ports if port not in found]
        if missing:
            raise TrafficError(
                f"found no interface {', '.join(missing)}, expected the ports of drain.yaml: correct "
                "router_ports, or drain without waiting (--no-wait)"
            )

    def _vpp(self) -> dict[str, int] | None:
        """Return what VPP's ports received; None when there is no VPP that could forward.

        Each reading connects anew: the segment of a VPP that was restarted stays readable and stands still.
        """
        try:
            segment = StatsSegment(self._settings.stats_socket)
            try:
                names = segment.texts("/if/names")
                found = {
                    port: segment.combined("/if/rx", names.index(port))[0]
                    for port in self._settings.ports
                    if port in names
                }
            finally:
                segment.close()
        except StatsError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _NOBODY:
                return None
            raise TrafficError(str(error)) from error
        self._require(found)
        return found

    def _control(self) -> dict[str, int]:
        return {**segments_of(_said(self._ss())), **self._bfd()}

    def _ss(self) -> list[str]:
        namespace = self._settings.control_namespace
        within = [] if namespace is None else ["nsenter", f"--net={path_of(namespace)}", "--"]
        asked = ["ss", "--no-header", "--oneline", "--tcp", "--numeric", "--info", "state", "established"]
        return [*within, *asked, "( sport = :179 or dport = :179 )"]

    def _bfd(self) -> dict[str, int]:
        if not self._vtysh:
            return {}
        try:
            return bfd_packets_of(_said([*self._vtysh, "-c", "show bfd peers counters json"]))
        except TrafficError:
            # No bfdd, or no FRR: no BFD packets either.
            return {}


def segments_of(listing: str) -> dict[str, int]:
    """Return the TCP segments that each connection of ``ss -Otni`` received, without those in the host."""
    found = {}
    for line in listing.splitlines():
        words, match = line.split(), _SEGMENTS.search(line)
        if len(words) < 4 or match is None:
            continue
        local, far = words[2], words[3]
        address = far.rpartition(":")[0].strip("[]").partition("%")[0]
        if not ip_address(address).is_loopback:
            found[f"BGP {local} {far}"] = int(match[1])
    return found


def bfd_packets_of(listing: str) -> dict[str, int]:
    """Return the packets that each session of ``show bfd peers counters json`` received."""
    try:
        sessions = json.loads(listing or "[]")
    except ValueError:
        return {}
    if not isinstance(sessions, list):
        return {}
    return {
        f"BFD {session.get('local', '')} {session.get('peer')}": sum(
            int(session.get(kind, 0)) for kind in ("control-packet-input", "echo-packet-input")
        )
        for session in sessions
        if isinstance(session, dict)
    }


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
    except OSError as error:
        raise TrafficError(f"cannot run {command[0]}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise TrafficError(
            f"{' '.join(command)}: found no answer within {_SECONDS:.0f} s; is it stuck?"
        ) from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["nothing"]
        raise TrafficError(f"{' '.join(command)}: ended with {done.returncode} and said: {said[0]}")
    return done.stdout
