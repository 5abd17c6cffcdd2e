"""Routes from ExaBGP: who is up, what they announced, and which of it is used.

ExaBGP 5 runs `exabgp_relay.py` as its API process, and that connects to the unix socket this feed listens on.
ExaBGP chooses nothing and keeps nothing, so both are done here: one Adj-RIB-In per session (`exabgp_rib`) and
the decision process (`decision`).

What is done when something goes away (invariant 2: stale routes go only on certainty):

* **The agent restarts.** It knows nothing, ExaBGP goes on. The agent asks ExaBGP who is up (``show neighbor
  json``) and every such peer for its table (``announce route-refresh``, RFC 2918). The snapshot ends when all
  of them have sent it; until then nothing is swept. Peers that are configured but not up are waited for until
  ExaBGP has run for `startup_seconds`.
* **A peer without ROUTE-REFRESH** is made to send its table by resetting its session (Cease, RFC 4486:
  administrative reset); its routes are held meanwhile. With `reset_without_refresh` off it is only logged,
  and its routes appear as it happens to announce them.
* **A session goes down.** Its routes go at once and the next best ones take over. With `stale_seconds` they
  are kept that long instead, for the session to return (RFC 4724, section 4.2), unless a NOTIFICATION ended
  it or it was taken out of ExaBGP's configuration.
* **A session comes up.** What it had before is stale and goes with End-of-RIB.
* **ExaBGP or the relay ends, or the agent was too slow for the relay's buffer.** Every route is held for
  `hold_seconds`, so that a restart of ExaBGP drops no packet; routes that were not announced again go with
  the End-of-RIB of their peer, or when the time is over. When ExaBGP never connects in this life of the
  agent, what an earlier one left in the FIB stays: nothing is known, so nothing is swept.

What ExaBGP has to be configured with: the relay as process with ``encoder json``; for every neighbour
``peer-as`` as a number, ``capability { route-refresh; graceful-restart N; }`` and ``api { processes [ NAME ];
neighbor-changes; receive { parsed; open; update; refresh; } }``; no ``add-path``. FRR sends End-of-RIB only
to a peer that announces graceful restart; the price is that ExaBGP then ends its sessions without a
NOTIFICATION, and peers keep what it announced for N seconds: withdraw before stopping it.

The end of a table is told by End-of-RIB (RFC 4724) or, after a refresh, by the marker of RFC 7313. Where a
peer sends neither, it is when the table has stopped growing for `quiet_seconds`: fewer than one in a thousand
of its routes are new in that time, since a full table is never silent. A peer that announces nothing at all
has `startup_seconds` to begin, and one that promised a marker and falls silent without it has `hold_seconds`.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import socket
import stat
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from router_agent.events import Event, about
from router_agent.feeds.exabgp_json import (
    Answer,
    EndOfRib,
    Header,
    Hello,
    Ignored,
    MalformedError,
    Message,
    Neighbours,
    NeighbourSummary,
    Opened,
    Refresh,
    SessionId,
    Shutdown,
    State,
    Update,
    attributes_of,
    parse,
    prefix_keys,
    shortened,
)
from router_agent.feeds.exabgp_rib import CHUNK, AdjRibIn, CandidateView, Ribs, last_of_each
from router_agent.feeds.feed import FeedError, Sink
from router_agent.model import (
    ABSENT,
    MAIN_TABLE,
    U32,
    U64,
    Family,
    Mask,
    Operation,
    PathSet,
    Prefix,
    RouteBatch,
)

_log = logging.getLogger(__name__)

_READ_BYTES = 1 << 18
_LINE_BYTES = 4 << 20
"""Far above the longest UPDATE (RFC 8654: 65,535 bytes, some 850 kB as JSON)."""
_SESSIONS = 1024
"""Sessions held at most: more is not a configuration but a fault of the other side."""
_CHURN_SHARE = 1000
"""A table grows when more than one in this many of its routes are new."""
_GATHERED_PREFIXES = 1 << 16
_ANSWER_SECONDS = 30.0
"""How long ExaBGP may take to answer: its stream may have a whole table before the answer."""
_NEIGHBOUR_QUESTION = "show neighbor json"
_FAMILY_NAMES = {Family.IPV4: "ipv4 unicast", Family.IPV6: "ipv6 unicast"}


@dataclass(slots=True, eq=False)
class _Session:
    """A BGP session of ExaBGP's.

    Attributes:
        rib: what it announced.
        up: established, as far as is known.
        followed: seen coming up on this connection, so that no line of it was missed.
        awaiting: families whose table is not complete yet.
        marked: of those, the ones whose end a marker will tell.
        refreshing: families between the markers of RFC 7313.
        families: what both sides announced, by direction of the OPEN.
        graceful: graceful restart was announced, by direction of the OPEN.
        progress_at: when its tables grew for the last time.
        freshened: routes that became fresh since then.
        heard: an UPDATE came since its tables began to be awaited.
        stale_until: when its routes go unless it is up by then.
        expected_until: it was reset by us and is waited for.
        up_since: when it came up, or was first found up.
    """

    rib: AdjRibIn
    up: bool = False
    followed: bool = False
    awaiting: set[Family] = field(default_factory=set)
    marked: set[Family] = field(default_factory=set)
    refreshing: set[Family] = field(default_factory=set)
    families: dict[bool, frozenset[Family]] = field(default_factory=dict)
    graceful: dict[bool, bool] = field(default_factory=dict)
    progress_at: float = 0.0
    freshened: int = 0
    heard: bool = False
    stale_until: float | None = None
    expected_until: float = 0.0
    up_since: float | None = None

    def lose(self) -> None:
        """Nothing more comes from it for now."""
        self.up = self.followed = False
        self.up_since = None
        self.awaiting.clear()
        self.marked.clear()
        self.refreshing.clear()

    def await_tables(self, families: frozenset[Family], now: float) -> None:
        self.up = True
        self.up_since = now if self.up_since is None else self.up_since
        self.stale_until = None
        self.awaiting = set(families)
        self.marked.clear()
        self.refreshing.clear()
        self.heard = False
        self.progress_at = now
        self.freshened = 0


@dataclass(slots=True)
class _Gathered:
    """Prefixes of one session and family that wait to become columns, in the order they came."""

    prefixes: list[str] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    attributes: list[int] = field(default_factory=list)

    def add(self, prefixes: list[str], attributes: int) -> None:
        self.prefixes += prefixes
        self.counts.append(len(prefixes))
        self.attributes.append(attributes)


@dataclass(slots=True)
class Counts:
    """Events of a feed since the agent started.

    Attributes:
        lines: lines read.
        malformed: lines or parts of lines that were refused, by kind.
        connections: times a relay connected.
        losses: times it was lost, and every peer had to be asked again.
        refreshes: tables asked for.
        resets: sessions reset because they know no ROUTE-REFRESH.
        errors: commands ExaBGP did not take.
    """

    lines: int = 0
    malformed: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    losses: int = 0
    refreshes: int = 0
    resets: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class SessionView:
    """State of a session, for people.

    Attributes:
        session: its addresses.
        peer_as: AS of the peer.
        up: established.
        routes: number of routes it has announced, by family.
        awaiting: families whose table is not complete yet.
        stale_seconds: for how long its routes will still be held, None when they are not on hold.
        up_seconds: for how long it has been up, as far as the agent has seen; None when it is not.
    """

    session: SessionId
    peer_as: int
    up: bool
    routes: dict[Family, int]
    awaiting: frozenset[Family]
    stale_seconds: float | None
    up_seconds: float | None


class ExabgpFeed:
    """Follows the sessions of one ExaBGP. Implements `Feed`.

    Args:
        socket_path: unix socket to listen on; its directory must be there.
        table: kernel table id the routes are given.
        metric: metric the routes are given.
        local_as: our AS where it is not the session's (``local-as``): checked for in AS paths as well.
        families: address families to follow.
        maximum_paths: equal routes used together for one prefix.
        quiet_seconds: a peer without End-of-RIB is complete when its table has not grown for so long.
        stale_seconds: routes of a session that was lost are kept so long; 0 removes them at once.
        hold_seconds: all routes are kept so long when ExaBGP has gone; 0 removes them at once.
        startup_seconds: configured peers are waited for until ExaBGP has run so long.
        reset_without_refresh: reset sessions whose tables are needed and that know no ROUTE-REFRESH.
        socket_mode: permissions of the socket; ExaBGP runs the relay as its own user.
        socket_group: group of the socket, by name; ours when None.
        line_bytes: longest line that is read.
        clock: seconds of a clock that never goes back.
    """

    def __init__(
        self,
        *,
        socket_path: Path | str,
        table: int = MAIN_TABLE,
        metric: int = 20,
        local_as: int | None = None,
        families: Sequence[Family] = (Family.IPV4, Family.IPV6),
        maximum_paths: int = 1,
        quiet_seconds: float = 10.0,
        stale_seconds: float = 0.0,
        hold_seconds: float = 120.0,
        startup_seconds: float = 60.0,
        reset_without_refresh: bool = True,
        socket_mode: int = 0o660,
        socket_group: str | None = None,
        line_bytes: int = _LINE_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = Path(socket_path)
        self._table = table
        self._metric = metric
        self._local_as = local_as
        self._quiet_seconds = quiet_seconds
        self._stale_seconds = stale_seconds
        self._hold_seconds = hold_seconds
        self._startup_seconds = startup_seconds
        self._reset_without_refresh = reset_without_refresh
        self._socket_mode = socket_mode
        self._socket_group = socket_group
        self._line_bytes = line_bytes
        self._clock = clock
        self.counts = Counts()
        self.ribs = Ribs(families, maximum_paths)
        self._sessions: dict[SessionId, _Session] = {}
        self._gathered: dict[tuple[SessionId, Family], _Gathered] = {}
        self._gathered_prefixes = 0
        self._sink: Sink | None = None
        self._relay: socket.socket | None = None
        self._rest = b""
        self._skipping = False
        self._listed = False
        """ExaBGP has told on this connection which sessions there are."""
        self._ask_again_at = 0.0
        self._exabgp_since = 0.0
        self._begun = self._synchronised = False
        self._resync_wanted = False
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        """Held while routes are worked on: that pauses now and then to let others run."""

    # -- Feed ------------------------------------------------------------------------------------------------

    async def run(self, sink: Sink) -> None:
        """Listen for the relay and follow it until cancelled; see `Feed`.

        Raises:
            FeedError: the socket cannot be made.
        """
        self._sink = sink
        listener = self._listen()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._watch())
                await self._accept(listener, tasks)
        finally:
            listener.close()
            self._hang_up()
            with contextlib.suppress(OSError):
                self._path.unlink()

    def resync(self) -> None:
        """Give the sink everything again, from memory; see `Feed`."""
        self._resync_wanted = True
        self._wake.set()

    def resolve(self, path: int) -> PathSet | None:
        """Return a path set by id; see `Feed`."""
        return self.ribs.paths.get(path)

    def path_id(self, path_set: PathSet) -> int:
        """Return the id of a path set; see `Feed`."""
        return self.ribs.paths.id(path_set)

    def retain(self, in_use: Mask) -> None:
        """Forget path ids that are not in use; see `Feed`."""
        self.ribs.retain_paths(in_use)

    @property
    def overruns(self) -> int:
        """How often the stream was lost and every table had to be asked for again."""
        return self.counts.losses

    @property
    def problem(self) -> str | None:
        """See `Feed`."""
        return None

    @property
    def passed_over(self) -> Mapping[str, int]:
        """See `Feed`: routes of families that are not asked for never come."""
        return {}

    @property
    def path_limit(self) -> int:
        """One more than the largest path id; see `Feed`."""
        return self.ribs.paths.limit

    @property
    def paths_kept(self) -> int:
        """See `Feed`."""
        return len(self.ribs.paths)

    @property
    def spaces(self) -> Sequence[tuple[Family, int]]:
        """The (family, table) pairs this feed follows."""
        return [(family, self._table) for family in self.ribs.families]

    # -- for people ------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """The relay, and so ExaBGP, is there."""
        return self._relay is not None

    @property
    def synchronised(self) -> bool:
        """The first snapshot of this life of the agent is complete."""
        return self._synchronised

    def candidates(self, prefix: Prefix) -> list[CandidateView]:
        """Return every route peers offer for exactly this prefix, the used ones first, with reasons."""
        return self.ribs.candidates(prefix)

    def sessions(self) -> list[SessionView]:
        """Return the state of every session."""
        now = self._clock()
        return [
            SessionView(
                session=identity,
                peer_as=session.rib.header.peer_as,
                up=session.up,
                routes={family: len(table) for family, table in session.rib.tables.items()},
                awaiting=frozenset(session.awaiting),
                stale_seconds=None if session.stale_until is None else max(0.0, session.stale_until - now),
                up_seconds=None if session.up_since is None else now - session.up_since,
            )
            for identity, session in self._sessions.items()
        ]

    # -- the socket ------------------------------------------------------------------------------------------

    def _listen(self) -> socket.socket:
        _clear_stale(self._path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.setblocking(False)
            listener.bind(str(self._path))
            self._path.chmod(self._socket_mode)
            if self._socket_group is not None:
                os.chown(self._path, -1, grp.getgrnam(self._socket_group).gr_gid)
            # Only from here on can anyone connect, and so never with the permissions of bind().
            listener.listen(2)
        except (OSError, KeyError) as error:
            listener.close()
            raise FeedError(
                f"cannot listen on {self._path} for ExaBGP's relay: {error}; the directory must be there and"
                f" writable for the agent, and the group {self._socket_group} must be known"
            ) from error
        return listener

    async def _accept(self, listener: socket.socket, tasks: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            relay, _ = await loop.sock_accept(listener)
            if self._relay is not None:
                relay.close()
                self._complain("connection", "a second relay was turned away: two ExaBGP use one socket")
                continue
            relay.setblocking(False)
            self._relay = relay
            tasks.create_task(self._serve(relay))

    async def _serve(self, relay: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        async with self._turn:
            self._connected()
        while True:
            try:
                data = await loop.sock_recv(relay, _READ_BYTES)
            except OSError as error:
                # Its end is told by what follows.
                _log.debug("reading from the relay: %s", error.strerror)
                data = b""
            if not data or self._relay is not relay:
                break
            async with self._turn:
                await self.receive(data)
        async with self._turn:
            if self._relay is relay:
                await self._lost()

    def _command(self, text: str) -> None:
        if self._relay is None:
            return
        command = text.encode() + b"\n"
        try:
            sent = self._relay.send(command)
        except OSError as error:
            sent, reason = 0, f"{error.strerror}"
        else:
            reason = "it does not take commands"
        if sent != len(command):
            _log.warning(
                "ExaBGP's relay is given up and connects anew: %s",
                reason,
                extra=about(Event.SPEAKER_FAULT, speaker="exabgp", problem=reason),
            )
            # The end of the stream follows, and with it all that has to be done.
            with contextlib.suppress(OSError):
                self._relay.shutdown(socket.SHUT_RDWR)

    def _hang_up(self) -> None:
        if self._relay is not None:
            self._relay.close()
            self._relay = None

    def _connected(self) -> None:
        self.counts.connections += 1
        self._rest = b""
        self._skipping = self._listed = False
        self._exabgp_since = self._clock()
        _log.info(
            "ExaBGP is connected at %s", self._path, extra=about(Event.SPEAKER_CONNECTED, speaker="exabgp")
        )
        self._ask()

    async def _lost(self) -> None:
        self._hang_up()
        await self._flush()
        self.counts.losses += 1
        self._listed = False
        held = len([session for session in self._sessions.values() if len(session.rib)])
        _log.error(
            "ExaBGP has gone: the routes of %d sessions are held for %g s",
            *(held, self._hold_seconds),
            extra=about(
                Event.SPEAKER_LOST,
                speaker="exabgp",
                problem="its stream ended",
                hold_seconds=self._hold_seconds,
            ),
        )
        now = self._clock()
        for session in self._sessions.values():
            session.lose()
            session.families.clear()
            session.graceful.clear()
            if session.stale_until is None:
                session.stale_until = now + self._hold_seconds
        await self.tick()

    async def _watch(self) -> None:
        interval = min(1.0, max(0.05, self._quiet_seconds / 4))
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await self._wake.wait()
            self._wake.clear()
            async with self._turn:
                await self.tick()

    # -- lines -----------------------------------------------------------------------------------------------

    async def receive(self, data: bytes) -> None:
        """Take bytes of the relay; a line may begin and end in different ones."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        lines = data[:end].split(b"\n")[:-1]
        if self._skipping and lines:
            lines = lines[1:]
            self._skipping = False
        for line in lines:
            if len(line) > self._line_bytes:
                self._refuse_long(line)
                continue
            await self._take(line)
        if len(self._rest) > self._line_bytes:
            if not self._skipping:
                self._refuse_long(self._rest)
            self._skipping, self._rest = True, b""
        await self._flush()
        await self._end_snapshot()

    def _refuse_long(self, line: bytes) -> None:
        self._complain(
            "line length", f"found a line of more than {self._line_bytes} bytes that begins {shortened(line)}"
        )

    async def _take(self, line: bytes) -> None:
        self.counts.lines += 1
        try:
            message = parse(line)
            if isinstance(message, Update):
                self._gather(message)
            elif not isinstance(message, Ignored):
                await self._flush()
                await self._act(message)
        except MalformedError as error:
            self._complain(error.kind, f"{error}; in {shortened(line)}")
        if self._gathered_prefixes >= _GATHERED_PREFIXES:
            await self._flush()

    def _complain(self, kind: str, text: str) -> None:
        self.counts.malformed[kind] += 1
        if self.counts.malformed[kind] == 1:
            _log.error(
                "ExaBGP's stream: %s (passed over; further ones of this kind are only counted)",
                text,
                extra=about(Event.STREAM_MALFORMED, speaker="exabgp", problem=kind),
            )

    def _gather(self, update: Update) -> None:
        session = self._session(update.header)
        session.heard = True
        for family, prefixes in update.withdrawn:
            self._gather_prefixes(update.header.session, family, prefixes, ABSENT)
        for family, next_hop, prefixes in update.announced:
            attributes = attributes_of(update.attributes, next_hop, update.header, self._local_as)
            number = self.ribs.attributes.id(attributes)
            self._gather_prefixes(update.header.session, family, prefixes, number)

    def _gather_prefixes(self, session: SessionId, family: Family, prefixes: list[str], number: int) -> None:
        if family not in self.ribs.families or not prefixes:
            return
        self._gathered.setdefault((session, family), _Gathered()).add(prefixes, number)
        self._gathered_prefixes += len(prefixes)

    async def _flush(self) -> None:
        """Put what was gathered into the Adj-RIBs-In and decide about it."""
        if not self._gathered:
            return
        gathered, self._gathered, self._gathered_prefixes = self._gathered, {}, 0
        changed: dict[Family, list[U64]] = {}
        now = self._clock()
        for (identity, family), rows in gathered.items():
            session = self._sessions[identity]
            keys = self._apply(session, family, rows, now)
            changed.setdefault(family, []).append(keys)
        for family, parts in changed.items():
            keys = parts[0]
            if len(parts) > 1:
                both = np.concatenate(parts)
                keys, _ = last_of_each(both, np.zeros(len(both), np.uint32))
            await self._decide(family, keys)
        self.ribs.retain_attributes()

    def _apply(self, session: _Session, family: Family, rows: _Gathered, now: float) -> U64:
        keys, valid = prefix_keys(family, rows.prefixes)
        attributes: U32 = np.repeat(np.array(rows.attributes, np.uint32), rows.counts)
        if valid is not None:
            for number in np.flatnonzero(~valid):
                self._complain(
                    "prefix", f"found {shortened(rows.prefixes[number])}, expected an {family.label} prefix"
                )
            keys, attributes = keys[valid], attributes[valid]
        keys, attributes = last_of_each(keys, attributes)
        session.freshened += session.rib.set(family, keys, attributes)
        if session.freshened > len(session.rib) // _CHURN_SHARE:
            session.freshened = 0
            session.progress_at = now
        return keys

    # -- what lines mean -------------------------------------------------------------------------------------

    async def _act(self, message: Message) -> None:
        match message:
            case State():
                await self._state(message)
            case Opened():
                await self._opened(message)
            case EndOfRib():
                session = self._session(message.header)
                # A table whose beginning was missed is not in memory: a refresh was asked for.
                if session.followed:
                    await self._complete(session, message.family)
            case Refresh():
                await self._refresh(message)
            case Neighbours():
                await self._neighbours(message.sessions)
            case Hello():
                self._exabgp_since = self._clock() - message.uptime
            case Answer(done=False):
                self.counts.errors += 1
                _log.warning(
                    "ExaBGP did not take a command (its log says why)",
                    extra=about(Event.SPEAKER_FAULT, speaker="exabgp", problem="refused a command"),
                )
            case Shutdown():
                _log.info("ExaBGP shuts down", extra=about(Event.SPEAKER_STOPPING, speaker="exabgp"))
            case _:
                pass

    def _session(self, header: Header) -> _Session:
        session = self._sessions.get(header.session)
        if session is None:
            if len(self._sessions) >= _SESSIONS:
                raise MalformedError("sessions", f"at most {_SESSIONS} of them", header.session)
            session = self._sessions[header.session] = _Session(self.ribs.session(header))
        return session

    async def _describe(self, session: _Session, header: Header, router_id: int | None = None) -> None:
        if self.ribs.describe(session.rib, header, router_id):
            for family, table in session.rib.tables.items():
                await self._decide(family, table.keys(table.rows()))

    async def _state(self, message: State) -> None:
        session = self._session(message.header)
        await self._describe(session, message.header)
        if message.state == "up":
            await self._up(session)
        elif message.state == "down":
            await self._down(session, message.reason)

    async def _opened(self, message: Opened) -> None:
        session = self._session(message.header)
        session.families[message.sent] = message.families
        session.graceful[message.sent] = message.graceful
        if not message.sent:
            await self._describe(session, message.header, message.router_id)

    async def _up(self, session: _Session) -> None:
        families = frozenset(self.ribs.families).intersection(*session.families.values())
        peer = session.rib.header.session.peer
        _log.info("session with %s is up", peer, extra=about(Event.SESSION_UP, peer=peer))
        session.await_tables(families, self._clock())
        session.followed = True
        session.expected_until = 0.0
        if len(session.graceful) == 2 and all(session.graceful.values()):
            session.marked = set(families)
        self._begin_snapshot()
        await self._expect(session, families)
        if False not in session.families:
            self._complain(
                "open", 'no OPEN of the peer was seen: add "open" to the receive section of the api'
            )
        if len(session.families) < 2:
            self._ask()

    async def _expect(self, session: _Session, families: frozenset[Family]) -> None:
        """Mark what a session has as stale; families it no longer carries go."""
        for family in self.ribs.families:
            session.rib.mark_stale(family)
            if family not in families:
                await self._decide(family, session.rib.clear(family))

    async def _down(self, session: _Session, reason: str) -> None:
        if not session.up:
            return
        now = self._clock()
        was_reset = session.expected_until > now
        session.lose()
        session.families.clear()
        session.graceful.clear()
        peer = session.rib.header.session.peer
        if "shutting down" in reason or was_reset:
            session.stale_until = now + self._hold_seconds
        elif self._stale_seconds and not reason.startswith("notification") and "[removed]" not in reason:
            session.stale_until = now + self._stale_seconds
        else:
            session.stale_until = now
        _log.warning(
            "session with %s went down (%s): its %d routes are held for %g s",
            peer,
            reason,
            len(session.rib),
            session.stale_until - now,
            extra=about(
                Event.SESSION_DOWN,
                peer=peer,
                problem=reason,
                routes=len(session.rib),
                hold_seconds=round(session.stale_until - now, 3),
            ),
        )
        await self.tick()

    async def _refresh(self, message: Refresh) -> None:
        session = self._session(message.header)
        family = message.family
        if family not in self.ribs.families:
            return
        if not message.begins:
            if family in session.refreshing:
                await self._complete(session, family)
            return
        session.rib.mark_stale(family)
        session.refreshing.add(family)
        session.marked.add(family)
        session.awaiting.add(family)
        session.progress_at = self._clock()

    async def _complete(self, session: _Session, family: Family) -> None:
        """A table has been sent whole: what was not in it goes."""
        for families in (session.awaiting, session.marked, session.refreshing):
            families.discard(family)
        if family not in self.ribs.families:
            return
        gone = session.rib.remove_stale(family)
        peer, routes = session.rib.header.session.peer, len(session.rib.tables[family])
        _log.info(
            "%s table of %s is complete: %d routes, %d stale ones removed",
            *(family.label, peer, routes, len(gone)),
            extra=about(
                Event.TABLE_COMPLETE, peer=peer, family=family.label, routes=routes, removed=len(gone)
            ),
        )
        await self._decide(family, gone)

    def _ask(self) -> None:
        self._ask_again_at = self._clock() + _ANSWER_SECONDS
        self._command(_NEIGHBOUR_QUESTION)

    async def _neighbours(self, summaries: Sequence[NeighbourSummary]) -> None:
        """ExaBGP told which sessions there are; ask those that came up unseen for their tables."""
        self._listed = True
        now = self._clock()
        for summary in summaries:
            session = self._session(summary.header)
            await self._describe(session, summary.header, summary.peer_router_id)
            if summary.up and session.up:
                session.awaiting &= summary.families
                if summary.graceful and session.followed:
                    session.marked |= session.awaiting
            elif summary.up:
                await self._ask_for_tables(session, summary)
            elif not session.up and session.stale_until is None:
                session.stale_until = now + self._hold_seconds
        # By peer alone: with "local-address auto" the local one is only known while connected.
        peers = {summary.header.session.peer for summary in summaries}
        for identity in [identity for identity in self._sessions if identity.peer not in peers]:
            _log.info(
                "session with %s is no longer configured: its routes go",
                identity.peer,
                extra=about(Event.SESSION_REMOVED, peer=identity.peer),
            )
            await self._drop(self._sessions.pop(identity))
            self.ribs.forget(identity)

    async def _ask_for_tables(self, session: _Session, summary: NeighbourSummary) -> None:
        peer = summary.header.session.peer
        families = summary.families & frozenset(self.ribs.families)
        session.await_tables(families, self._clock())
        self._begin_snapshot()
        await self._expect(session, families)
        if summary.refresh:
            for family in sorted(families):
                self.counts.refreshes += 1
                self._command(f"neighbor {peer} announce route-refresh {_FAMILY_NAMES[family]}")
        elif self._reset_without_refresh:
            _log.warning(
                "%s knows no ROUTE-REFRESH: its session is reset to have its table again",
                peer,
                extra=about(Event.SESSION_RESET, peer=peer),
            )
            self.counts.resets += 1
            session.expected_until = self._clock() + max(self._startup_seconds, self._hold_seconds)
            self._command(f"neighbor {peer} teardown 4")
        else:
            _log.error(
                "%s knows no ROUTE-REFRESH and must not be reset: its table stays incomplete",
                peer,
                extra=about(Event.SESSION_INCOMPLETE, peer=peer),
            )

    # -- time ------------------------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Do what is due by now."""
        now = self._clock()
        for session in list(self._sessions.values()):
            if session.stale_until is not None and now >= session.stale_until:
                session.stale_until = None
                await self._drop(session)
            if session.awaiting and now >= session.progress_at + self._patience(session):
                # What follows says that the table is complete.
                _log.debug("%s sends no more", session.rib.header.session.peer)
                for family in sorted(session.awaiting):
                    await self._complete(session, family)
        if self._relay is not None and not self._listed and now >= self._ask_again_at:
            self._ask()
        await self._end_snapshot()
        if self._resync_wanted:
            self._resync_wanted = False
            await self._replay()

    def _patience(self, session: _Session) -> float:
        """Return for how many seconds a table may stand still before it is complete."""
        if session.awaiting & session.marked or session.expected_until:
            return max(self._hold_seconds, self._startup_seconds, self._quiet_seconds)
        return self._quiet_seconds if session.heard else max(self._startup_seconds, self._quiet_seconds)

    async def _drop(self, session: _Session) -> None:
        if len(session.rib):
            _log.warning(
                "%d routes of %s are removed",
                *(len(session.rib), session.rib.header.session.peer),
                extra=about(
                    Event.ROUTES_EXPIRED, peer=session.rib.header.session.peer, routes=len(session.rib)
                ),
            )
        for family in self.ribs.families:
            await self._decide(family, session.rib.clear(family))

    # -- what the sink is told -------------------------------------------------------------------------------

    async def _decide(self, family: Family, keys: U64) -> None:
        """Choose for these distinct prefixes anew and tell the sink."""
        for start in range(0, len(keys), CHUNK):
            part = keys[start : start + CHUNK]
            paths = self.ribs.decide(family, part)
            if self._sink is not None:
                self._sink.routes(self._batch(family, part, paths))
            if start + CHUNK < len(keys):
                await asyncio.sleep(0)

    def _batch(self, family: Family, keys: U64, paths: U32) -> RouteBatch:
        operations = np.where(paths == ABSENT, np.uint8(Operation.DELETE), np.uint8(Operation.SET))
        metrics = np.full(len(keys), self._metric, np.uint32)
        return RouteBatch(family, self._table, keys, metrics, paths, operations)

    def _begin_snapshot(self) -> None:
        if self._begun or self._sink is None:
            return
        self._begun = True
        self._sink.snapshot_begin()

    async def _end_snapshot(self) -> None:
        if self._synchronised or not self._begun or self._sink is None or not self._settled():
            return
        self._synchronised = True
        _log.info(
            "every peer's table is complete: %d sessions",
            len(self._sessions),
            extra=about(Event.SPEAKER_COMPLETE, speaker="exabgp", sessions=len(self._sessions)),
        )
        self._sink.snapshot_end(clean=True)

    def _settled(self) -> bool:
        """Tell whether every session that can be waited for has sent its tables."""
        if not self._listed or any(session.awaiting for session in self._sessions.values()):
            return False
        now = self._clock()
        started = now >= self._exabgp_since + self._startup_seconds
        away = [session for session in self._sessions.values() if not session.up]
        if len(away) == len(self._sessions):
            return False
        return all(started and now >= session.expected_until for session in away)

    async def _replay(self) -> None:
        if self._sink is None or not self._begun:
            return
        self._sink.snapshot_begin()
        for family in self.ribs.families:
            for keys in self.ribs.prefixes(family):
                await self._decide(family, keys)
                await asyncio.sleep(0)
        if self._synchronised:
            self._sink.snapshot_end(clean=True)


def _clear_stale(path: Path) -> None:
    """Remove a socket nobody listens on any more.

    Raises:
        FeedError: something else is there, or somebody listens.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise FeedError(f"cannot look at {path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise FeedError(f"{path} is not a socket: remove it, or give the feed another socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise FeedError(f"cannot tell whether {path} is in use: {error.strerror}") from error
    raise FeedError(f"another process listens on {path}: is the agent already running?")
