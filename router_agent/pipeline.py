"""One feed into one FIB: the state machine that keeps the second equal to the first.

    starting ──► reading-fib ──► syncing ──► in-sync
                     ▲                          │
                     └────────── fib-lost ◄─────┘

The FIB is read before the first write (invariant 1); stale routes go only after a clean reading of the feed
(invariant 2). Whatever the feed reports while the FIB is away is in the RIB when it comes back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from router_agent.confirm import Confirmer
from router_agent.events import PIPELINE, Event, about
from router_agent.feeds.feed import Feed, FeedError
from router_agent.fibs.fib import Capacity, Fib, FibError, FibLostError
from router_agent.model import (
    ABSENT,
    FORWARDED_TYPES,
    U32,
    U64,
    Changes,
    Failures,
    Family,
    Link,
    Mask,
    Neighbour,
    Operation,
    Outcomes,
    Reason,
    RouteBatch,
    prefixes_of,
)
from router_agent.observe.answers import State
from router_agent.reconcile import CHUNK, Reconciler, Translation
from router_agent.rib import Rib
from router_agent.state_log import StateLog

_log = logging.getLogger(__name__)

_BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_LAGS_KEPT = 4096
LAG_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds: a change of one route takes 1 to 5 ms, a full table some 5 s."""
_PATHS_ALLOWED = 1024
"""The feed's path ids are looked through for unused ones when there are more, and again when they double."""
_CAPACITY_SECONDS = 1.0
_MOST_WITHHELD = 65_536
"""Withheld routes that are let in at a time."""
_MOST_COVERED = 256
"""Wanted routes that a reading did not show are asked about one by one when they are no more than so many."""


class Lags:
    """How far the FIB was behind: seconds from the first change of a pass to its last acknowledgement.

    Attributes:
        buckets: passes by the first of `LAG_BOUNDS` that they did not exceed; the last are those beyond all
            of them.
        total: seconds of all passes together.
    """

    def __init__(self) -> None:
        self.buckets = [0] * (len(LAG_BOUNDS) + 1)
        self.total = 0.0
        self._seconds = np.zeros(_LAGS_KEPT)
        self._count = 0

    def add(self, seconds: float) -> None:
        """Note one pass."""
        self._seconds[self._count % _LAGS_KEPT] = seconds
        self._count += 1
        self.buckets[bisect_left(LAG_BOUNDS, seconds)] += 1
        self.total += seconds

    def percentile(self, percent: float) -> float:
        """Return a percentile over the last passes, 0 before the first."""
        kept = self._seconds[: min(self._count, _LAGS_KEPT)]
        return float(np.percentile(kept, percent)) if len(kept) else 0.0

    @property
    def last(self) -> float:
        """Lag of the last pass in seconds."""
        return float(self._seconds[(self._count - 1) % _LAGS_KEPT]) if self._count else 0.0


@dataclass(slots=True)
class Writes:
    """What was written to the FIB since the agent started."""

    added: int = 0
    replaced: int = 0
    deleted: int = 0
    refused: int = 0

    def count(self, changes: Changes, refused: int) -> None:
        """Add one answered write."""
        self.deleted += int((changes.paths == ABSENT).sum())
        self.added += int((changes.held == ABSENT).sum())
        self.replaced += int(((changes.paths != ABSENT) & (changes.held != ABSENT)).sum())
        self.refused += refused


@dataclass(slots=True)
class Counts:
    """Events of a pipeline since the agent started."""

    route_events: int = 0
    snapshots: int = 0
    unclean_snapshots: int = 0
    fib_losses: int = 0
    feed_losses: int = 0
    writes: Writes = field(default_factory=Writes)


class Pipeline:
    """Keeps one FIB equal to one feed. It is the feed's `Sink`.

    Args:
        name: as in the configuration.
        feed: where routes come from.
        fib: where they go.
        tables: kernel table id to FIB table id; tables that are not named keep their number.
        observer: called after every change of state.
        tell: takes what became of the feed's routes, for a feed that wants to know.
        lost_seconds: when the FIB has gone, what the feed was told of its routes stands this long.
    """

    def __init__(
        self,
        *,
        name: str,
        feed: Feed,
        fib: Fib,
        tables: Mapping[int, int] | None = None,
        observer: Callable[[], None] | None = None,
        tell: Callable[[Outcomes], None] | None = None,
        lost_seconds: float = 0.0,
    ) -> None:
        self.name = name
        self.feed = feed
        self.fib = fib
        self.state = State.STARTING
        self.problem: str | None = None
        self.counts = Counts()
        self.lags = Lags()
        self.last_snapshot: float | None = None
        self.in_sync_since: float | None = None
        self.fib_known = False
        """Whether the FIB was read and has not gone since, so that the reconcilers know what it holds."""
        self.heard: Callable[[Reconciler, U64], None] | None = None
        """Told of every prefix that the feed tells of, when set."""
        self.shortage: str | None = None
        """Why the FIB is given no more routes; None when it is."""
        self.neighbours_known: dict[tuple[int, bytes], bytes] = {}
        self.links_known: dict[int, Link] = {}
        self._observer = observer
        self._state_log = StateLog(name)
        self._refused: Counter[int] = Counter()
        """Of the write that is under way: routes by the FIB's error."""
        self._refused_prefix = ""
        self._translation = Translation(self._translate)
        self.reconcilers: dict[tuple[Family, int], Reconciler] = {
            (family, table): Reconciler(
                Rib(family, feed), (tables or {}).get(table, table), self._translation
            )
            for family, table in feed.spaces
        }
        self.confirmers: dict[Reconciler, Confirmer] = {}
        if tell is not None:
            self.confirmers = {r: Confirmer(r, table, tell) for (_, table), r in self.reconcilers.items()}
        self._lost_seconds = lost_seconds
        self._giving_up: asyncio.TimerHandle | None = None
        self._neighbours_dirty: set[tuple[int, bytes]] = set()
        self._following = False
        self._reread = False
        self._sweep_paths = False
        self._paths_allowed = _PATHS_ALLOWED
        self._resynced: asyncio.Future[None] | None = None
        self._resync_asked = 0.0
        self._oldest: float | None = None
        self._wake = asyncio.Event()
        self._fib_tried = asyncio.Event()
        self._snapshot_taken = asyncio.Event()
        self._fib_free = asyncio.Lock()
        fib.on_change(self._fib_changed)

    # -- what the feed tells (Sink) --------------------------------------------------------------

    def snapshot_begin(self) -> None:
        """See `Sink`."""
        for reconciler in self.reconcilers.values():
            reconciler.rib.snapshot_begin()

    def snapshot_end(self, *, clean: bool) -> None:
        """See `Sink`."""
        if not clean:
            self.counts.unclean_snapshots += 1
            return
        for reconciler in self.reconcilers.values():
            self._touch(reconciler, reconciler.rib.snapshot_end())
        self._forget_unused_paths()
        self.counts.snapshots += 1
        self.last_snapshot = time.monotonic()
        self._snapshot_taken.set()
        if self._resynced is not None:
            self._reread = True
            self._wake.set()
        if self.state is State.FEED_LOST and self._following:
            self._enter(State.IN_SYNC)

    def routes(self, batch: RouteBatch) -> None:
        """See `Sink`."""
        reconciler = self.reconcilers.get((batch.family, batch.table))
        if reconciler is None:
            return
        self.counts.route_events += int((batch.operations != Operation.FOUND).sum())
        if self.heard is not None:
            self.heard(reconciler, batch.keys)
        changed = reconciler.rib.apply(batch)
        if confirmer := self.confirmers.get(reconciler):
            # The same path as before asks for an answer, too.
            changed = confirmer.received(batch)
        self._touch(reconciler, changed)
        if reconciler.rib.ambiguous:
            reconciler.rib.ambiguous = False
            self.feed.resync()

    def paths_changed(self, paths: U32) -> None:
        """See `Sink`."""
        void = np.array([p for p in paths if self.feed.resolve(int(p)) is None], np.uint32)
        self._repoint(paths)
        moved = self._translation.refresh(paths)
        for reconciler in self.reconcilers.values():
            if len(moved):
                self._touch(reconciler, reconciler.rib.using(moved))
            if len(void):
                self._touch(reconciler, reconciler.rib.purge(void))

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        """See `Sink`."""
        for link in links:
            self._note_carrier(self.links_known.get(link.index), link)
            self.links_known[link.index] = link
        for index in removed:
            self.links_known.pop(index, None)
        if self.fib.links(links, removed):
            self._fib_changed()

    def _note_carrier(self, before: Link | None, link: Link) -> None:
        now = link.up and link.carrier
        if before is None or (before.up and before.carrier) == now:
            return
        if now:
            _log.info("link %s is up again", link.name, extra=about(Event.LINK_UP, interface=link.name))
            return
        _log.warning(
            "link %s went down (%s): what led over it takes other legs where there are any",
            *(link.name, "no carrier" if link.up else "set down"),
            extra=about(Event.LINK_DOWN, interface=link.name),
        )

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        """See `Sink`."""
        for neighbour in learned:
            key = (neighbour.interface, neighbour.address)
            if self.neighbours_known.get(key) != neighbour.mac:
                self.neighbours_known[key] = neighbour.mac
                self._neighbours_dirty.add(key)
        if removed:
            self.fib.neighbours_lost(removed)
        for neighbour in removed:
            key = (neighbour.interface, neighbour.address)
            if self.neighbours_known.pop(key, None) is not None:
                self._neighbours_dirty.add(key)
        if self._neighbours_dirty:
            self._wake.set()

    # -- running ---------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the feed until cancelled; whatever the FIB holds then stays and keeps forwarding."""
        PIPELINE.set(self.name)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._read_feed(), name=f"{self.name}: feed")
                tasks.create_task(self._drive_fib(), name=f"{self.name}: fib")
                if self.fib.capacity is not None:
                    tasks.create_task(self._watch_capacity(self.fib.capacity), name=f"{self.name}: capacity")
        finally:
            self._keep_confirmations()
            await self.fib.close()

    def resync(self) -> asyncio.Future[None]:
        """Read the feed, then the FIB again and write the difference; the future is done when it is."""
        if self._resynced is None:
            self._resynced = asyncio.get_running_loop().create_future()
            self._resync_asked = time.monotonic()
            _log.info(
                "asked to read the feed and the FIB again",
                extra=about(Event.RESYNC_ASKED, pipeline=self.name),
            )
        self.feed.resync()
        return self._resynced

    @property
    def quiet(self) -> asyncio.Lock:
        """Held by whoever reads or writes the FIB; meanwhile what the reconcilers hold is exact."""
        return self._fib_free

    def look_again(self, reconciler: Reconciler, keys: U64) -> None:
        """Look at prefixes again: write what is missing, and tell who wants to know what became of them."""
        self._touch(reconciler, keys)

    def correct(self, reconciler: Reconciler, keys: U64, paths: U32) -> None:
        """Take note of what the FIB was found to hold for these prefixes, and write what it should."""
        reconciler.correct(keys, paths)
        self._touch(reconciler, keys)

    @property
    def pending(self) -> int:
        """Prefixes and neighbours that wait to be looked at."""
        return sum(r.pending for r in self.reconcilers.values()) + len(self._neighbours_dirty)

    @property
    def waiting_seconds(self) -> float:
        """For how long the oldest change that is not in the FIB yet has been waiting."""
        return 0.0 if self._oldest is None else time.monotonic() - self._oldest

    async def _read_feed(self) -> None:
        # The FIB is read first, alone: VPP stands still while a dump of it is not taken as fast as it comes.
        await self._fib_tried.wait()
        for pause in _pauses():
            try:
                await self.feed.run(self)
            except FeedError as error:
                self.counts.feed_losses += 1
                self._enter(State.FEED_LOST, str(error))
            await asyncio.sleep(pause)

    async def _drive_fib(self) -> None:
        pauses = _pauses()
        while True:
            try:
                self._enter(State.READING_FIB)
                async with self._fib_free:
                    await self.fib.open()
                    self._translation.clear()
                    await self._read_fib()
                pauses = _pauses()
                self._fib_tried.set()
                await self._follow()
            except FibError as error:
                self._fib_tried.set()
                self._following = self.fib_known = False
                self.counts.fib_losses += 1
                self._doubt_confirmations()
                self._enter(State.FIB_LOST, str(error))
                await self.fib.close()
            await asyncio.sleep(next(pauses))

    async def _follow(self) -> None:
        """Write the whole difference, then every further one, until the FIB is lost."""
        async with self._watching_fib() as lost:
            self._neighbours_dirty.update(self.neighbours_known)
            await _first(lost, self._snapshot_taken.wait())
            self._enter(State.SYNCING)
            self._following = True
            await self._write_neighbours()
            async with self._fib_free:
                await self.fib.retain_neighbours(
                    [Neighbour(*key, mac) for key, mac in self.neighbours_known.items()]
                )
            await self._learn_covered()
            await self._pass_everything()
            await self._forget_unused_targets()
            self._keep_confirmations()
            self._finish_resync()
            self.in_sync_since = time.monotonic()
            self._enter(State.IN_SYNC)
            while True:
                await _first(lost, self._wake.wait())
                self._wake.clear()
                await self._write_neighbours()
                if self._reread:
                    async with self._fib_free:
                        await self._read_fib()
                    await self._pass_everything()
                    self._finish_resync()
                await self._pass_touched()
                if self.feed.paths_kept > self._paths_allowed:
                    self._forget_unused_paths()
                await self._forget_unused_targets()

    def _finish_resync(self) -> None:
        if self._reread and self._resynced is not None:
            self._resynced.set_result(None)
            self._resynced = None
            seconds = time.monotonic() - self._resync_asked
            _log.info(
                "feed and FIB are read again and agree, after %.1f s",
                seconds,
                extra=about(Event.RESYNC_DONE, pipeline=self.name, seconds=round(seconds, 3)),
            )
        self._reread = False

    @asynccontextmanager
    async def _watching_fib(self) -> AsyncIterator[asyncio.Task[None]]:
        lost = asyncio.create_task(self.fib.wait_lost(), name=f"{self.name}: fib watch")
        try:
            yield lost
        finally:
            lost.cancel()
            await asyncio.gather(lost, return_exceptions=True)

    async def _read_fib(self) -> None:
        self.fib_known = False
        for reconciler in self.reconcilers.values():
            reconciler.forget()
            async for routes in self.fib.read(reconciler.family, reconciler.table):
                reconciler.learn(routes.keys, routes.paths)
            reconciler.expect()
            entries = await self.fib.entries(reconciler.family, reconciler.table)
            reconciler.others = None if entries is None else entries - reconciler.held_lengths()
        self.fib_known = True

    async def _learn_covered(self) -> None:
        """Find what a reading does not show: routes of ours under another owner's, which forwards instead."""
        for reconciler in self.reconcilers.values():
            async with self._fib_free:
                keys = reconciler.unread(_MOST_COVERED)
                if not len(keys):
                    continue
                seen = await self.fib.look_up(reconciler.family, reconciler.table, keys)
                keys = keys[seen.covered]
                paths = await self.fib.covered_paths(reconciler.family, reconciler.table, keys)
                reconciler.learn(keys[paths != ABSENT], paths[paths != ABSENT])

    async def _pass_everything(self) -> None:
        began = time.monotonic()
        for reconciler in self.reconcilers.values():
            await self._write(reconciler, reconciler.everything())
        self.lags.add(time.monotonic() - began)

    async def _pass_touched(self) -> None:
        began, self._oldest = self._oldest, None
        for reconciler in self.reconcilers.values():
            if reconciler.pending:
                keys = reconciler.take()
                await self._write(reconciler, _chunks(keys))
        if began is not None:
            self.lags.add(time.monotonic() - began)

    async def _write(self, reconciler: Reconciler, parts: Iterable[U64]) -> None:
        """Write the difference over parts whose keys are all distinct.

        While the FIB works on one part the next one is decided, which needs nothing of the first.
        """
        async with self._fib_free:
            writing: asyncio.Task[None] | None = None
            try:
                for keys in parts:
                    changes = reconciler.changes(keys)
                    if writing is not None:
                        await writing
                        writing = None
                    changes = reconciler.admit(changes, self.fib.capacity)
                    if len(changes) or self.confirmers:
                        writing = asyncio.create_task(self._write_changes(reconciler, changes, keys))
                    # Lets the write start, and the feed's events in.
                    await asyncio.sleep(0)
                if writing is not None:
                    await writing
            except BaseException:
                if writing is not None:
                    writing.cancel()
                    await asyncio.gather(writing, return_exceptions=True)
                raise
            finally:
                self._report_refused()

    async def _write_changes(self, reconciler: Reconciler, changes: Changes, keys: U64) -> None:
        """Write changes and settle them; `keys` are all that were looked at, those without change too."""
        if len(changes):
            await self._settle(reconciler, changes)
        if confirmer := self.confirmers.get(reconciler):
            confirmer.report(keys)

    async def _settle(self, reconciler: Reconciler, changes: Changes) -> None:
        failures = await self.fib.write(changes)
        reconciler.settle(changes, failures)
        if self.fib.capacity is not None:
            self.fib.capacity.release(_room_left(changes, failures))
        self.counts.writes.count(changes, len(failures))
        if len(failures):
            self._refused.update(failures.codes.tolist())
            self._refused_prefix = str(prefixes_of(changes.keys[failures.rows[:1]])[0])

    def _report_refused(self) -> None:
        """Say once of a whole write how many routes the FIB refused."""
        if not self._refused:
            return
        errors, self._refused = {str(code): count for code, count in self._refused.items()}, Counter()
        count = sum(errors.values())
        words = ", ".join(f"error {code} {number} times" for code, number in errors.items())
        _log.warning(
            "the FIB refused %d routes (%s), among them %s: packets to them take another way or are dropped; "
            "`router-agent show routes --absent` lists them",
            *(count, words, self._refused_prefix),
            extra=about(
                Event.ROUTES_REFUSED,
                pipeline=self.name,
                routes=count,
                prefix=self._refused_prefix,
                errors=errors,
            ),
        )

    async def _write_neighbours(self) -> None:
        if not self._neighbours_dirty:
            return
        dirty, self._neighbours_dirty = self._neighbours_dirty, set()
        learned, removed = [], []
        for interface, address in dirty:
            mac = self.neighbours_known.get((interface, address))
            if mac is None:
                removed.append(Neighbour(interface, address, b""))
            else:
                learned.append(Neighbour(interface, address, mac))
        async with self._fib_free:
            await self.fib.write_neighbours(learned, removed)

    def _repoint(self, paths: U32) -> None:
        """Let the FIB's path ids follow what these path ids lead to now, before any route is looked at.

        A FIB path id follows when every path id that has it, and that routes have, leads to the same.
        """
        moved = 0
        for number, sharing in self._translation.sharing(paths):
            wanted = {self.feed.resolve(path) for path in sharing.tolist()}
            if len(wanted) > 1:
                wanted = {self.feed.resolve(path) for path in self._used(sharing)}
            if len(wanted) != 1:
                continue
            path_set = wanted.pop()
            if path_set is not None and path_set.type in FORWARDED_TYPES:
                moved += self.fib.repoint(number, path_set)
        if moved:
            _log.info(
                "next hops changed: %d path sets follow at once, and all their routes with them",
                moved,
                extra=about(Event.REPOINTED, pipeline=self.name, sets=moved),
            )

    def _used(self, paths: U32) -> list[int]:
        """Return those of the feed's path ids that routes have."""
        in_use = self._paths_in_use()
        return [path for path in paths.tolist() if in_use[path]]

    async def _watch_capacity(self, capacity: Capacity) -> None:
        """Look at the FIB's room again and again, and let withheld routes in when there is some."""
        while True:
            await asyncio.sleep(_CAPACITY_SECONDS)
            if not self._following:
                continue
            capacity.look()
            self._note_shortage(capacity.shortage)
            if capacity.open_for_more:
                for reconciler in self.reconcilers.values():
                    self._touch(reconciler, reconciler.some_withheld(_MOST_WITHHELD))

    def _note_shortage(self, shortage: str | None) -> None:
        if (shortage is None) == (self.shortage is None):
            self.shortage = shortage
            return
        self.shortage = shortage
        withheld = sum(len(r.withheld) for r in self.reconcilers.values())
        if shortage is not None:
            _log.error(
                "no more routes are added, %d wait: %s. What is there forwards on",
                *(withheld, shortage),
                extra=about(Event.CAPACITY_REACHED, pipeline=self.name, waiting=withheld, shortage=shortage),
            )
        else:
            _log.info(
                "there is room for routes again; %d waited for it",
                withheld,
                extra=about(Event.CAPACITY_AGAIN, pipeline=self.name, waiting=withheld),
            )
        for reconciler in self.reconcilers.values():
            reconciler.out_of_room = shortage is not None
            # Whoever is told what becomes of routes is told of these.
            self._touch(reconciler, reconciler.some_withheld(len(reconciler.withheld)))

    def _translate(self, path: int, before: int) -> int | Reason:
        path_set = self.feed.resolve(path)
        if path_set is None:
            return ABSENT
        if path_set.type not in FORWARDED_TYPES:
            return Reason.UNSUPPORTED_TYPE
        return self.fib.path_id(path_set, before)

    def _fib_changed(self) -> None:
        self._translate_anew()
        self._neighbours_dirty.update(self.neighbours_known)
        self._wake.set()

    def _translate_anew(self) -> None:
        moved = self._translation.refresh()
        for reconciler in self.reconcilers.values():
            self._touch(reconciler, reconciler.rib.using(moved))

    def _forget_unused_paths(self) -> None:
        in_use = self._paths_in_use()
        self.feed.retain(in_use)
        self._translation.forget(in_use)
        self._sweep_paths = True
        self._paths_allowed = max(_PATHS_ALLOWED, 2 * int(in_use.sum()))

    def _paths_in_use(self) -> Mask:
        limit = self.feed.path_limit
        in_use = np.zeros(limit, np.bool_)
        for reconciler in self.reconcilers.values():
            in_use |= reconciler.rib.paths_in_use(limit)
        return in_use

    async def _forget_unused_targets(self) -> None:
        """Once the feed's were forgotten and all is written, let the FIB forget path ids that nothing has."""
        if not self._sweep_paths or any(r.pending for r in self.reconcilers.values()):
            return
        async with self._fib_free:
            in_use = np.zeros(self.fib.path_limit, np.bool_)
            self._translation.mark_wanted(in_use)
            for reconciler in self.reconcilers.values():
                reconciler.mark_held(in_use)
            self._sweep_paths = False
            await self.fib.retain_paths(in_use)

    def _touch(self, reconciler: Reconciler, keys: U64) -> None:
        # Before the first pass over everything there is nothing to remember: it looks at every prefix.
        if not len(keys) or not self._following:
            return
        reconciler.touch(keys)
        if self._oldest is None:
            self._oldest = time.monotonic()
        self._wake.set()

    def _doubt_confirmations(self) -> None:
        """Withdraw what the feed was told, unless the FIB is back in time."""
        if self.confirmers and self._giving_up is None:
            loop = asyncio.get_running_loop()
            self._giving_up = loop.call_later(self._lost_seconds, self._withdraw_confirmations)

    def _keep_confirmations(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _withdraw_confirmations(self) -> None:
        self._giving_up = None
        failed = sum(confirmer.withdraw(lost=not self.fib_known) for confirmer in self.confirmers.values())
        _log.warning(
            "%g s after the FIB went, %d routes that the feed was told of are not in it: it is told so, and "
            "withdraws them from neighbours",
            *(self._lost_seconds, failed),
            extra=about(Event.CONFIRMATIONS_WITHDRAWN, pipeline=self.name, routes=failed),
        )

    def _enter(self, state: State, problem: str | None = None) -> None:
        self.state, self.problem = state, problem
        if problem is not None:
            self._state_log.lost(state, problem)
        elif state is State.IN_SYNC:
            self._state_log.in_sync(
                routes=sum(len(r.held) for r in self.reconcilers.values()),
                absent=sum(sum(r.unplaced().values()) for r in self.reconcilers.values()),
                waiting=sum(len(r.withheld) for r in self.reconcilers.values() if not r.out_of_room),
            )
        else:
            self._state_log.entered(state)
        if self._observer is not None:
            self._observer()


def _pauses() -> Iterator[float]:
    """Seconds to wait before each further try."""
    yield from _BACKOFF_SECONDS
    while True:
        yield _BACKOFF_SECONDS[-1]


def _room_left(changes: Changes, failures: Failures) -> int:
    """Return how many routes fewer a write left in the FIB than it was let in for."""
    deleted = (changes.paths == ABSENT) & (changes.held != ABSENT)
    refused = np.zeros(len(changes), np.bool_)
    refused[failures.rows] = True
    added = (changes.paths != ABSENT) & (changes.held == ABSENT)
    return int((deleted & ~refused).sum() + (added & refused).sum())


def _chunks(keys: U64) -> Iterator[U64]:
    return (keys[start : start + CHUNK] for start in range(0, len(keys), CHUNK))


async def _first(lost: asyncio.Task[None], awaited: Awaitable[object]) -> None:
    """Wait for something, but not beyond the loss of the FIB.

    Raises:
        FibLostError: the FIB went away first.
    """
    waiting = asyncio.ensure_future(awaited)
    try:
        await asyncio.wait({lost, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not waiting.done():
            waiting.cancel()
    if lost.done():
        lost.result()
        raise FibLostError("the FIB went away or its interfaces changed; it is opened and read again")
