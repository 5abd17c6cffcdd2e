"""The routes of FRR's zebra, over its FIB push interface (FPM), and answers to it.

zebra's module dplane_fpm_nl connects to us and sends every route it selects, as netlink messages. With
``--asic-offload=notify_on_offload`` it tells bgpd that a route is installed only after we have answered that
the FIB holds it, and with ``bgp suppress-fib-pending`` bgpd announces nothing before that: a neighbour never
hears of a prefix that would be dropped here.

What comes from where
    Routes that zebra installs come over FPM, with their next-hop groups. Connected routes, those of an
    administrator, links and neighbours come from the kernel (see `SystemRoutes`).

Order and completeness
    TCP loses nothing, so a session is one snapshot and what follows it. Its end is not marked: zebra sends
    everything at tens of thousands of routes a second, so the snapshot has ended when hardly any came for
    `quiet_seconds`. When the session goes, what was known stays, for zebra comes back within seconds and
    sends everything again; only what it does not send again is dropped, at the end of that snapshot.

Back-pressure
    We always read: zebra gives up a session that takes nothing for 15 s. Answers wait in a table, one for a
    prefix, however long zebra reads none; a newer route of a prefix drops the answer to the older one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Coroutine, Iterator, Mapping, Sequence
from contextlib import closing
from ipaddress import IPv4Address, ip_address
from typing import Any, TypeVar

import numpy as np

from router_agent.connections import End, owner_of
from router_agent.events import Event, about
from router_agent.feeds.feed import FeedError, Sink
from router_agent.feeds.kernel import KernelFeed
from router_agent.feeds.system_routes import SystemRoutes
from router_agent.feeds.zebra_routes import ZebraRoutes
from router_agent.model import Address, Family, Mask, Outcomes, PathSet, RouteBatch
from router_agent.namespaces import NamespaceError, inside
from router_agent.netlink import constants as c
from router_agent.netlink.fpm import encode, split
from router_agent.netlink.messages import NetlinkDecodeError
from router_agent.netlink.paths import kernel_path
from router_agent.prefix_table import PrefixTable

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

PORT = 2620
"""``FPM_DEFAULT_PORT`` of fpm/fpm.h."""

_BUFFER_BYTES = 1 << 20
"""Read at a time; a read is decoded at once, so this bounds what is in our hands."""
_SOCKET_BYTES = 4 << 20
_ANSWERS_AT_A_TIME = 32_768
_TRICKLE = 100
_TRICKLE_SHARE = 200
"""Fewer routes than 100, or than one in 200 of the session's, in `quiet_seconds`: everything was sent."""
_QUIET_PARTS = 4
"""In so many parts of `quiet_seconds` it is looked how many came."""


class FpmFeed:
    """Takes one zebra at a time.

    Keyword Args:
        address: to listen on.
        port: TCP port; 0 takes a free one, see `listening_port`.
        namespace: network namespace of zebra, as in ``ip netns``, or a path; None is the process's own.
        tables: kernel table ids.
        kernel_protocols: whose routes are read from the kernel.
        allowed_peers: who may connect, beside this host itself.
        users: whose processes of this host may connect, by name or number; root's and our own always may.
        quiet_seconds: see the module's text.
        hold_seconds: routes are kept this long when zebra does not come back.
        solicit: have the kernel resolve next hops that have no neighbour.

    Attributes:
        sessions: sessions that were taken.
        refused: connections that were not.
        malformed: sessions that ended with bytes that are not FPM.
        answered: routes zebra was told of, by whether the FIB holds them.
        listening_port: the TCP port, once `run` has begun.
    """

    def __init__(
        self,
        *,
        address: Address = IPv4Address("127.0.0.1"),  # noqa: B008 - immutable
        port: int = PORT,
        namespace: str | None = None,
        tables: Sequence[int] = (c.RT_TABLE_MAIN,),
        kernel_protocols: frozenset[int] = c.SYSTEM_PROTOCOLS,
        allowed_peers: frozenset[Address] = frozenset(),
        users: Sequence[str | int] = ("frr",),
        quiet_seconds: float = 10.0,
        hold_seconds: float = 300.0,
        solicit: bool = False,
    ) -> None:
        self._address = address
        self._port = port
        self._namespace = namespace
        self._allowed = allowed_peers
        self._users = users
        self._quiet_seconds = quiet_seconds
        self._hold_seconds = hold_seconds
        self._kernel = KernelFeed(
            namespace=namespace,
            tables=tables,
            protocols=kernel_protocols,
            solicit=solicit,
            further_hops=lambda: self._zebra.hops(),
        )
        self._zebra = ZebraRoutes(tables, self._forget_answers)
        self._answers = {
            space: PrefixTable(space[0].key_width, {"path": np.uint32, "in_fib": np.bool_})
            for space in self.spaces
        }
        self._answers_wait = asyncio.Event()
        self._kernel_read = asyncio.Event()
        self._complete = False
        self._peer: str | None = None
        self._socket: socket.socket | None = None
        self._free = asyncio.Event()
        self.sessions = 0
        self.refused = 0
        self.malformed = 0
        self.answered: Counter[bool] = Counter()
        self.listening_port = port

    # -- Feed ------------------------------------------------------------------------------------

    @property
    def spaces(self) -> Sequence[tuple[Family, int]]:
        """See `Feed`."""
        return self._kernel.spaces

    @property
    def path_limit(self) -> int:
        """See `Feed`."""
        return self._zebra.paths.limit

    @property
    def paths_kept(self) -> int:
        """See `Feed`."""
        return len(self._zebra.paths)

    @property
    def overruns(self) -> int:
        """See `Feed`. Over TCP nothing is lost; this counts the kernel's part."""
        return self._kernel.overruns

    @property
    def problem(self) -> str | None:
        """See `Feed`."""
        if self._peer is None:
            where = f"{self._address} port {self.listening_port}"
            return (
                f"zebra is not connected to {where}, what it told before stays: is it running, with "
                f"`-M dplane_fpm_nl` and `fpm address {self._address}`?"
            )
        if not self._complete:
            return "zebra is sending its table; what it does not send is removed once it has sent everything"
        return None

    @property
    def passed_over(self) -> Mapping[str, int]:
        """See `Feed`."""
        return self._zebra.skipped + self._kernel.passed_over

    def resolve(self, path: int) -> PathSet | None:
        """See `Feed`."""
        return self._zebra.resolve(path)

    def path_id(self, path_set: PathSet) -> int:
        """See `Feed`."""
        return self._zebra.paths.id(kernel_path(path_set))

    def retain(self, in_use: Mask) -> None:
        """See `Feed`."""
        self._zebra.paths.release(in_use)

    def resync(self) -> None:
        """See `Feed`. The kernel is read anew; of zebra everything is known that it has sent."""
        self._kernel.resync()

    async def run(self, sink: Sink) -> None:
        """See `Feed`."""
        self._kernel_read.clear()
        system = SystemRoutes(
            self._kernel,
            self.path_id,
            sink,
            read=lambda: self._kernel_was_read(sink),
            links=lambda links, removed: self._zebra.links(links, removed, sink),
        )
        with closing(self._listen()) as listener:
            await _first_to_end(self._kernel.run(system), self._accept(listener, sink, system))

    @property
    def connected(self) -> bool:
        """Whether a zebra is there."""
        return self._peer is not None

    # -- answers ---------------------------------------------------------------------------------

    def tell(self, outcomes: Outcomes) -> None:
        """Tell zebra what became of routes; returns at once. Without a session nobody waits for it."""
        if self._peer is None or not len(outcomes):
            return
        waiting = self._answers[outcomes.family, outcomes.table]
        rows = waiting.find_or_insert(outcomes.keys)
        waiting["path"][rows] = outcomes.paths
        waiting["in_fib"][rows] = outcomes.in_fib
        self._answers_wait.set()

    async def _write_answers(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._answers_wait.wait()
            self._answers_wait.clear()
            for outcomes in self._take_answers():
                blocks = list(encode(outcomes, self._zebra.told_path))
                if blocks:
                    await loop.sock_sendall(sock, np.concatenate(blocks).data)
                told = int(np.count_nonzero(outcomes.in_fib))
                self.answered[True] += told
                self.answered[False] += len(outcomes) - told

    def _take_answers(self) -> Iterator[Outcomes]:
        """Take waiting answers out of their tables, some at a time, until there are none."""
        for (family, table), waiting in self._answers.items():
            while len(waiting):
                rows = next(waiting.chunks(_ANSWERS_AT_A_TIME))
                outcomes = Outcomes(
                    family, table, waiting.keys(rows), waiting["path"][rows], waiting["in_fib"][rows]
                )
                waiting.remove(rows)
                yield outcomes

    # -- sessions --------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        family = socket.AF_INET if self._address.version == 4 else socket.AF_INET6
        try:
            with inside(self._namespace):
                listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SOCKET_BYTES)
                listener.bind((str(self._address), self._port))
                listener.listen()
            except OSError:
                listener.close()
                raise
        except (OSError, NamespaceError) as error:
            raise FeedError(
                f"cannot listen for zebra on {self._address} port {self._port}: {error}; "
                "expected an address of this host and a port that nobody else has (feed.address, feed.port)"
            ) from error
        self.listening_port = listener.getsockname()[1]
        return listener

    async def _accept(self, listener: socket.socket, sink: Sink, system: SystemRoutes) -> None:
        """Take one session after the other."""
        loop = asyncio.get_running_loop()
        session: asyncio.Task[None] | None = None
        try:
            while True:
                sock, peer = await _beside(loop.sock_accept(listener), session)
                name = f"{peer[0]} port {peer[1]}"
                if self._socket is not None and _closed_by_peer(self._socket):
                    # zebra has come back before its end was read.
                    await self._free.wait()
                if refusal := self._refusal(sock, peer):
                    self.refused += 1
                    _log.warning(
                        "refused an FPM connection from %s: %s",
                        *(name, refusal),
                        extra=about(Event.SPEAKER_REFUSED, speaker="zebra", problem=refusal),
                    )
                    sock.close()
                    continue
                if session is not None:
                    await _end(session)
                self._peer, self._socket = name, sock
                self._free.clear()
                session = asyncio.create_task(self._serve(sock, sink, system), name=f"FPM session {name}")
        finally:
            if session is not None:
                await _end(session)

    def _refusal(self, sock: socket.socket, name: tuple[Any, ...]) -> str | None:
        peer = ip_address(name[0])
        local = peer.is_loopback or peer == self._address
        if not local and peer not in self._allowed:
            return "it is neither this host nor one of feed.allowed_peers"
        if local and (stranger := self._stranger((peer, name[1]), sock.getsockname())):
            return stranger
        if self._peer is not None:
            return f"zebra is connected from {self._peer}, and one table has one owner"
        return None

    def _stranger(self, peer: End, here: tuple[Any, ...]) -> str | None:
        """Return why a process of this host may not tell us routes; None when it may."""
        try:
            owner = owner_of(peer, (ip_address(here[0]), here[1]), self._namespace)
        except OSError as error:
            return f"whose it is cannot be seen: {error}"
        if owner in {0, os.geteuid(), *map(_user_id, self._users)} - {None}:
            return None
        expected = ", ".join(map(str, self._users))
        return f"it is a process of user {_user_name(owner)}, expected one of {expected} (feed.users)"

    async def _serve(self, sock: socket.socket, sink: Sink, system: SystemRoutes) -> None:
        """Follow one session to its end, then keep what it told for a while."""
        self.sessions += 1
        name, self._complete = self._peer, False
        _log.info("zebra is connected from %s", name, extra=about(Event.SPEAKER_CONNECTED, speaker="zebra"))
        self._zebra.begin()
        sink.snapshot_begin()
        for batch in system.everything():
            sink.routes(batch)
        try:
            with closing(sock):
                await _first_to_end(
                    self._read(sock, sink), self._write_answers(sock), self._watch_for_quiet(sink)
                )
        except NetlinkDecodeError as error:
            self.malformed += 1
            self._note_lost(name, f"dropped, for what it sent: {error}")
        except OSError as error:
            self._note_lost(name, os.strerror(error.errno or 0))
        else:
            self._note_lost(name, "zebra closed it")
        finally:
            if not self._complete:
                sink.snapshot_end(clean=False)
            self._complete = False
            for waiting in self._answers.values():
                waiting.clear()
            self._peer = self._socket = None
            self._free.set()
        await self._expire(sink, system)

    def _note_lost(self, name: str | None, problem: str) -> None:
        _log.error(
            "zebra's FPM session from %s ended (%s): its routes stay for %g s, and nothing new is announced",
            *(name, problem, self._hold_seconds),
            extra=about(
                Event.SPEAKER_LOST, speaker="zebra", problem=problem, hold_seconds=self._hold_seconds
            ),
        )

    async def _expire(self, sink: Sink, system: SystemRoutes) -> None:
        """Give zebra's routes up when it does not come back in time; the next session ends the wait."""
        await asyncio.sleep(self._hold_seconds)
        _log.error(
            "zebra has not come back for %g s: its routes go",
            self._hold_seconds,
            extra=about(Event.SPEAKER_EXPIRED, speaker="zebra", hold_seconds=self._hold_seconds),
        )
        sink.snapshot_begin()
        for batch in system.everything():
            sink.routes(batch)
        sink.snapshot_end(clean=True)

    async def _read(self, sock: socket.socket, sink: Sink) -> None:
        """Take what comes until the other side closes."""
        loop = asyncio.get_running_loop()
        buffer = np.empty(_BUFFER_BYTES, np.uint8)
        held = 0
        while size := await loop.sock_recv_into(sock, buffer.data[held:]):
            held += size
            messages, used = split(buffer[:held])
            self._zebra.apply(messages, sink)
            self._kernel.look_for_hops()
            buffer[: held - used] = buffer[used:held].copy()
            held -= used
            # A busy stream is always readable: others get their turn.
            await asyncio.sleep(0)

    def _forget_answers(self, batch: RouteBatch) -> None:
        """Drop the answers that wait for an older route of these prefixes."""
        waiting = self._answers[batch.family, batch.table]
        if not len(waiting):
            return
        rows = waiting.find(batch.keys)
        waiting.remove(np.unique(rows[rows >= 0]))

    # -- completeness ----------------------------------------------------------------------------

    async def _watch_for_quiet(self, sink: Sink) -> None:
        """End the snapshot once hardly any routes come any more, and the kernel has been read."""
        came = deque([0], maxlen=_QUIET_PARTS + 1)
        while not self._is_quiet(came):
            await asyncio.sleep(self._quiet_seconds / _QUIET_PARTS)
            came.append(self._zebra.received)
        await self._kernel_read.wait()
        sink.snapshot_end(clean=True)
        self._zebra.end(sink)
        self._complete = True
        _log.info(
            "zebra has sent everything: %d route messages",
            self._zebra.received,
            extra=about(Event.SPEAKER_COMPLETE, speaker="zebra", messages=self._zebra.received),
        )
        await asyncio.Event().wait()

    def _is_quiet(self, came: deque[int]) -> bool:
        if len(came) <= _QUIET_PARTS:
            return False
        return came[-1] - came[0] < max(_TRICKLE, came[-1] // _TRICKLE_SHARE)

    def _kernel_was_read(self, sink: Sink) -> None:
        self._kernel_read.set()
        if self._complete:
            # Nothing of zebra's is stale: its session is one snapshot, and it is over.
            sink.snapshot_end(clean=True)


def _user_id(user: str | int) -> int | None:
    """Return the number of a user; None where this host has none of that name."""
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _user_name(number: int | None) -> str:
    if number is None:
        return "unknown (the connection has ended)"
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _closed_by_peer(sock: socket.socket) -> bool:
    """Tell whether nothing but the end of the stream is left to read."""
    try:
        return not sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


async def _beside(awaited: Awaitable[_T], task: asyncio.Task[None] | None) -> _T:
    """Wait for something while a task runs; a task that fails ends the wait with its failure."""
    waiting = asyncio.ensure_future(awaited)
    try:
        if task is not None:
            await asyncio.wait((waiting, task), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        return await waiting
    finally:
        waiting.cancel()


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _first_to_end(*parts: Coroutine[Any, Any, None]) -> None:
    """Run until one of the parts ends or fails; then end the others."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
