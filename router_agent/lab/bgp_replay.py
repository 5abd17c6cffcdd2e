"""A churn stream as UPDATEs of a BGP session, by a speaker that does nothing else."""

from __future__ import annotations

import errno
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np

from router_agent.lab.bgp import (
    HEADER_BYTES,
    KEEPALIVE,
    Announcement,
    BgpMessageError,
    Kind,
    open_message,
    pack_prefixes,
    room_for_prefixes,
    split,
    update,
)
from router_agent.lab.churn import WITHDRAWN, Churn
from router_agent.lab.commands import run
from router_agent.lab.errors import LabError
from router_agent.lab.frr import Frr
from router_agent.lab.plan import POP_AS
from router_agent.lab.replay import Progress, Script, begun, play
from router_agent.model import U8, Family
from router_agent.namespaces import inside

_PORT = 179
_CONNECT_SECONDS = 10.0
_RETRY_SECONDS = 0.5
_HOLD_SECONDS = 0
"""No keepalives: a session of a speaker that is held up must not end for that (RFC 4271, 4.2)."""
_LOOSE_SECONDS = 0.01
"""Changes of one path that are due this close together share an UPDATE, as a real speaker packs them."""
_MOST_HOPS = 200
"""Longer AS paths are cut: one segment holds 255 numbers, and a prefix must fit beside it."""
_DOCUMENTATION_AS = 65536
"""First of the 16 four-byte AS numbers for documentation (RFC 5398)."""


def admit(frr: Frr, address: IPv4Address, asn: int) -> None:
    """Have FRR take a further neighbour, for both families, with the policy of the upstream.

    Raises:
        LabError: FRR refuses.
    """
    lines = [
        f"router bgp {POP_AS}",
        f"neighbor {address} remote-as {asn}",
        f"neighbor {address} passive",
    ]
    for family, policy in (("ipv4", "UPSTREAM-V4"), ("ipv6", "UPSTREAM-V6")):
        lines += [
            f"address-family {family} unicast",
            f"neighbor {address} activate",
            f"neighbor {address} route-map {policy}-IN in",
            f"neighbor {address} route-map {policy}-OUT out",
            "exit-address-family",
        ]
    run([*frr.vtysh, "-c", "configure terminal", *(word for line in lines for word in ("-c", line))])


class BgpReplay:
    """A BGP speaker that sends what was encoded beforehand, and reads what it is told without a thought.

    Args:
        namespace: where it speaks from.
        local: its address.
        neighbour: whom it connects to.
        asn: its AS.
        next_hops: by family, gateways in network byte order; path number n takes the one at (n - 1) modulo
            their count.
    """

    def __init__(
        self,
        namespace: str,
        *,
        local: IPv4Address,
        neighbour: IPv4Address,
        asn: int,
        next_hops: Mapping[Family, Sequence[bytes]],
    ) -> None:
        self._namespace = namespace
        self._local = local
        self._neighbour = neighbour
        self._asn = asn
        self._next_hops = next_hops
        self._session: _Session | None = None

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _CONNECT_SECONDS
        while self._session is None:
            try:
                self._session = _Session(self._namespace, self._local, self._neighbour, self._asn)
            except LabError:
                # A neighbour that is about to connect itself refuses (RFC 4271, 6.8); it does not for long.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RETRY_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def script(self, churn: Churn) -> Script:
        """Encode a stream. Changes that follow each other and lead to the same share an UPDATE."""
        packed = {family: pack_prefixes(churn.keys(family)) for family in Family}
        messages: list[bytes] = []
        due: list[float] = []
        changes: list[int] = []
        position = dict.fromkeys(Family, 0)
        for begin, end in _runs(churn):
            family, number = Family(int(churn.families[begin])), int(churn.paths[begin])
            data, ends = packed[family]
            announcement = None if number == WITHDRAWN else self._announcement(churn, family, number)
            room = room_for_prefixes(family, announcement)
            first = position[family]
            last = position[family] = first + end - begin
            while first < last:
                start = int(ends[first - 1]) if first else 0
                stop = min(int(np.searchsorted(ends, start + room, side="right")), last)
                messages.append(update(family, data[start : int(ends[stop - 1])].tobytes(), announcement))
                due.append(float(churn.seconds[begin + stop - first - 1]))
                changes.append(begin + stop - first)
                begin += stop - first
                first = stop
        lengths = np.array([len(found) for found in messages], np.int64)
        return Script(
            np.frombuffer(b"".join(messages), np.uint8),
            np.cumsum(lengths),
            np.maximum.accumulate(np.array(due, np.float64)),
            np.array(changes, np.int64),
        )

    def run(self, script: Script, progress: Progress | None = None) -> Progress:
        """Replay a stream to its end: until the neighbour's kernel has taken the last octet.

        Raises:
            LabError: the neighbour ended the session.
        """
        if self._session is None:
            raise LabError("there is no session: use the replay in a `with` block")
        progress = progress or begun(script)
        session = self._session
        play(script, lambda begin, end: session.send(script.part(begin, end)), progress)
        return progress

    def legs(self, family: Family, number: int) -> frozenset[bytes]:
        """Return the gateway that a path number stands for."""
        return frozenset({self._next_hop(family, number)})

    def _next_hop(self, family: Family, number: int) -> bytes:
        hops = self._next_hops[family]
        return hops[(number - 1) % len(hops)]

    def _announcement(self, churn: Churn, family: Family, number: int) -> Announcement:
        behind = churn.as_paths[number - 1] if churn.as_paths else _invented_as_path(number)
        return Announcement((self._asn, *behind[:_MOST_HOPS]), self._next_hop(family, number))


def _invented_as_path(number: int) -> tuple[int, ...]:
    """Return an AS path for a path number below 4,096: another for each."""
    return tuple(_DOCUMENTATION_AS + (number >> shift & 15) for shift in (0, 4, 8))


def _runs(churn: Churn) -> Iterator[tuple[int, int]]:
    """Return the first and one after the last of changes that may share an UPDATE."""
    starts = np.ones(len(churn), np.bool_)
    starts[1:] = (
        (churn.families[1:] != churn.families[:-1])
        | (churn.paths[1:] != churn.paths[:-1])
        | (churn.seconds[1:] - churn.seconds[:-1] > _LOOSE_SECONDS)
    )
    return pairwise([*np.flatnonzero(starts).tolist(), len(churn)])


@dataclass
class _Session:
    """An established BGP session. A thread reads what comes, so that the neighbour is never held up."""

    namespace: str
    local: IPv4Address
    neighbour: IPv4Address
    asn: int
    ended: str | None = None
    _established: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        try:
            with inside(self.namespace):
                self._socket = socket.create_connection(
                    (str(self.neighbour), _PORT), _CONNECT_SECONDS, (str(self.local), 0)
                )
        except OSError as error:
            raise LabError(f"BGP from {self.local} to {self.neighbour}: {error}") from error
        self._socket.settimeout(None)
        self._reader = threading.Thread(target=self._read, name=f"BGP with {self.neighbour}", daemon=True)
        self._reader.start()
        self._socket.sendall(open_message(self.asn, self.local.packed, hold_seconds=_HOLD_SECONDS))
        if not self._established.wait(_CONNECT_SECONDS) or self.ended:
            self.close()
            raise LabError(
                f"BGP from {self.local} to {self.neighbour}: {self.ended or 'no OPEN and KEEPALIVE came'}"
            )

    def send(self, data: U8) -> None:
        """Send whole messages; waits while the neighbour takes no more.

        Raises:
            LabError: the neighbour ended the session.
        """
        try:
            self._socket.sendall(data.data)
        except OSError as error:
            raise LabError(f"BGP with {self.neighbour} ended: {self.ended or error}") from error

    def close(self) -> None:
        """End the session."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno != errno.ENOTCONN:
                raise
        self._reader.join()
        self._socket.close()

    def _read(self) -> None:
        waiting = b""
        try:
            while data := self._socket.recv(1 << 16):
                waiting += data
                for kind, body in split(waiting):
                    self._take(kind, body)
                    waiting = waiting[HEADER_BYTES + len(body) :]
            self.ended = self.ended or "the neighbour closed the connection"
        except (OSError, BgpMessageError) as error:
            self.ended = self.ended or str(error)
        self._established.set()

    def _take(self, kind: int, body: bytes) -> None:
        if kind == Kind.OPEN:
            self._socket.sendall(KEEPALIVE)
        elif kind == Kind.KEEPALIVE:
            self._established.set()
        elif kind == Kind.NOTIFICATION:
            code, subcode = struct.unpack_from("!BB", body)
            self.ended = f"found NOTIFICATION {code}/{subcode} (RFC 4271, 4.5)"
