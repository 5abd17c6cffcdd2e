"""The audit: does the FIB hold what the agent believes it to hold, all the time and at a pace nobody feels.

The agent's own account of the FIB (`Reconciler.held`) rests on acknowledgements. An audit asks the FIB
itself, prefix by prefix: what is acknowledged and not there was *lost*, what is there with other paths was
*altered*, what is there under our name and not in the account is *stale*. The repair is no machinery of its
own: the account is corrected, the prefixes are touched, and the reconciler writes what is
wanted. Each pass also asks once more for what the FIB refused: the reason may have passed, unseen by us.

No false alarm. A look-up runs beside writes, so one that does not agree with the account is only a suspicion.
Suspects are looked up again while the pipeline may neither read nor write: then the account is exact.

What no look-up finds. A stale route is under no prefix we know. VPP counts its entries by prefix length; at a
reading of the FIB we note how many of them are other owners'. When there are more than those and ours
together, a *doubt* arises, and only a full reading tells. That stops VPP's main thread (1.3 s at a million
routes), so it happens not more often than `full_reading_seconds` allows. A doubt may be a false one: another
owner came to have more routes.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from router_agent.events import PIPELINE, Event, about
from router_agent.feeds.feed import Rereadable
from router_agent.fibs.fib import FibError
from router_agent.model import ABSENT, I64, U32, U64, Mask, Reason, key_lengths, prefixes_of
from router_agent.observe.answers import AuditFinding, State
from router_agent.observe.words import describe_paths
from router_agent.pipeline import Pipeline
from router_agent.prefix_table import PrefixTable
from router_agent.recheck import Recheck
from router_agent.reconcile import Reconciler

_log = logging.getLogger(__name__)

MOST_AT_ONCE = 1024
"""Prefixes looked up together: some 10 ms of VPP's time, which it shares with all its other work."""

FINDINGS_KEPT = 500
_DESCRIBED = 50
"""Findings of one table and step that are put into words; the others are counted."""
_ROUNDS_A_SECOND = 4.0
"""Few large steps cost less than many small ones; VPP takes them apart again, eighty look-ups at a time."""
_BUSY_FACTOR = 8
"""The pace is this many times slower while the pipeline has changes of its own to write."""
_POLITENESS = 3.0
"""Pause after a step, in times of what it took: with workers that are busy, VPP's barrier makes it long."""
_STATE_SECONDS = 0.5


class AuditBrokenOffError(Exception):
    """The pipeline left the state in which an audit means something; the message says for which."""


@dataclass(slots=True)
class Tally:
    """What one pass over the FIB found."""

    checked: int = 0
    covered: int = 0
    compared: int = 0
    """Routes of the feed's source that the RIB was compared with; 0 when it was not."""
    found: Counter[Reason] = field(default_factory=Counter)
    shared: int = 0
    """Next-hop entries, which routes lead through, that were not as written."""
    unexplained: int = 0
    """Entries that VPP has beyond ours and those of other owners known at the last full reading."""
    rows: list[AuditFinding] = field(default_factory=list)
    seconds: float = 0.0


class Audit:
    """Audits one pipeline's FIB; `run` does so for ever.

    Args:
        pipeline: whose FIB.
        rate: prefixes a second; 0 never audits unasked.
        repair: whether to repair what is found, or only to report it.
        full_reading_seconds: least time between two full readings because of doubt; 0 never reads for it.
        feed_seconds: least time between two comparisons of the RIB with its source; 0 compares only when
            asked to.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        rate: int,
        repair: bool,
        full_reading_seconds: float,
        feed_seconds: float = 0.0,
    ) -> None:
        self.pipeline = pipeline
        self.rate = rate
        self.repair = repair
        self.passes = 0
        self.readings = 0
        self.found: Counter[Reason] = Counter()
        self.repaired = 0
        self.shared = 0
        self.findings: deque[AuditFinding] = deque(maxlen=FINDINGS_KEPT)
        self.last: Tally | None = None
        self.last_ended: float | None = None
        self.progress = 0
        self._full_reading_seconds = full_reading_seconds
        self._last_reading = -math.inf
        feed = pipeline.feed
        self._recheck = Recheck(pipeline, feed) if isinstance(feed, Rereadable) else None
        self._feed_seconds = feed_seconds
        self._last_feed_check = time.monotonic()

    async def run(self) -> None:
        """Audit again and again, in the pauses that the pipeline leaves."""
        if not self.rate:
            return
        PIPELINE.set(self.pipeline.name)
        while True:
            while self.pipeline.state is not State.IN_SYNC:
                await asyncio.sleep(_STATE_SECONDS)
            began = time.monotonic()
            try:
                due = time.monotonic() - self._last_feed_check >= self._feed_seconds > 0
                await self.check(self.rate, feed=due)
            except (AuditBrokenOffError, FibError) as error:
                _log.info(
                    "audit broken off, it begins anew: %s",
                    error,
                    extra=about(Event.AUDIT_BROKEN_OFF, problem=str(error)),
                )
            # An empty or tiny table is not audited round the clock.
            least = self._shortest_pass()
            await asyncio.sleep(max(_STATE_SECONDS, began + least - time.monotonic()))

    async def check(self, rate: float, *, feed: bool = False, polite: bool = True) -> Tally:
        """Look at every prefix once, `rate` a second; repair or report what is wrong.

        Args:
            rate: prefixes a second.
            feed: compare the RIB with the feed's source first.
            polite: go slower where look-ups take VPP long, so that it has most of its time for other work.

        Raises:
            AuditBrokenOffError: the pipeline is not in sync any more.
            FibError: the FIB went away.
        """
        tally = Tally()
        began = time.monotonic()
        self._require_in_sync()
        if self.repair:
            self._retry_refused()
        if feed:
            await self._check_feed(tally)
        if self.pipeline.fib.cheap_to_read:
            for reconciler in self.pipeline.reconcilers.values():
                await self._read_beside(reconciler, tally)
        else:
            await self._check_shared(tally)
            pace = _Pace(rate, _POLITENESS if polite else 0.0)
            for reconciler in self.pipeline.reconcilers.values():
                await self._look_up_everything(reconciler, pace, tally)
            if tally.unexplained and self._may_read():
                await self._read_everything(tally)
        self._finish(tally, began)
        return tally

    async def read(self) -> Tally:
        """Read the FIB in one go and compare; for VPP see the module's text about what that costs.

        Raises:
            AuditBrokenOffError: the pipeline is not in sync.
            FibError: the FIB went away.
        """
        tally = Tally()
        began = time.monotonic()
        self._require_in_sync()
        await self._read_everything(tally)
        self._finish(tally, began)
        return tally

    def _finish(self, tally: Tally, began: float) -> None:
        tally.seconds = time.monotonic() - began
        self.last, self.last_ended = tally, time.monotonic()
        self.passes += 1
        self.progress = 0
        total = sum(tally.found.values())
        if total:
            done = "they are written again" if self.repair else "left as they are (audit.action is report)"
            counts = ", ".join(f"{count} {reason}" for reason, count in tally.found.items())
            first = tally.rows[0].prefix if tally.rows else "none kept"
            _log.warning(
                "audit found routes that the FIB does not hold as acknowledged: %s, among them %s; %s. "
                "`router-agent audit` lists them",
                *(counts, first, done),
                extra=about(
                    Event.DRIFT,
                    pipeline=self.pipeline.name,
                    found={str(reason): count for reason, count in tally.found.items()},
                    prefix=first,
                    repaired=total if self.repair else 0,
                ),
            )
        if tally.unexplained:
            _log.warning(
                "VPP has %d entries more than ours and those of others known at the last full reading; "
                "`router-agent audit --full` tells whether stale ones of ours are among them",
                tally.unexplained,
                extra=about(Event.UNEXPLAINED, pipeline=self.pipeline.name, entries=tally.unexplained),
            )

    def _shortest_pass(self) -> float:
        reconcilers = self.pipeline.reconcilers.values()
        if not reconcilers:
            return _STATE_SECONDS
        # A reading takes a moment whatever the rate is; the next one is due when look-ups were through.
        return max(10.0, sum(len(reconciler.held) for reconciler in reconcilers) / self.rate)

    def _require_in_sync(self) -> None:
        state = self.pipeline.state
        if state is not State.IN_SYNC:
            raise AuditBrokenOffError(f"pipeline {self.pipeline.name} is {state}")

    def _retry_refused(self) -> None:
        for reconciler in self.pipeline.reconcilers.values():
            if len(reconciler.refused):
                self.pipeline.look_again(reconciler, reconciler.retry())

    # -- the feed --------------------------------------------------------------------------------

    async def _check_feed(self, tally: Tally) -> None:
        if self._recheck is None:
            return
        self._last_feed_check = time.monotonic()
        unheard = await self._recheck.check()
        self._require_in_sync()
        if unheard is None:
            return
        tally.compared = unheard.compared
        if not unheard.total:
            return
        tally.found[Reason.UNHEARD] += unheard.total
        self.found[Reason.UNHEARD] += unheard.total
        for reconciler, keys in unheard.keys.items():
            held = reconciler.held_paths(keys)
            for finding in self._findings(reconciler, Reason.UNHEARD, keys, np.zeros_like(held), held):
                tally.rows.append(finding)
                self.findings.append(finding)
        if self.repair:
            self.repaired += unheard.total
            await self.pipeline.resync()

    # -- what routes share -----------------------------------------------------------------------

    async def _check_shared(self, tally: Tally) -> None:
        """See to what routes lead through before the routes: one entry may be a million of them."""
        async with self.pipeline.quiet:
            self._require_in_sync()
            tally.shared = await self.pipeline.fib.check_shared(repair=self.repair)
        if not tally.shared:
            return
        _log.warning(
            "audit found %d next-hop entries altered or lost, which many routes lead through%s",
            *(tally.shared, "; they are written again" if self.repair else ""),
            extra=about(Event.DRIFT_SHARED, pipeline=self.pipeline.name, entries=tally.shared),
        )
        self.shared += tally.shared

    # -- by look-ups -----------------------------------------------------------------------------

    async def _look_up_everything(self, reconciler: Reconciler, pace: _Pace, tally: Tally) -> None:
        fib, covered = self.pipeline.fib, np.zeros(8 * reconciler.family.address_bytes + 1, np.int64)
        for rows in reconciler.held.chunks(pace.step):
            # Row numbers are good for as long as nothing else runs: routes may go while we wait.
            keys = reconciler.held.keys(rows)
            await pace.wait(len(rows), busy=self.pipeline.pending > pace.step)
            self._require_in_sync()
            began = time.monotonic()
            seen = await fib.look_up(reconciler.family, reconciler.table, keys)
            pace.took(time.monotonic() - began)
            suspect = self._suspect(reconciler, keys, seen.paths, seen.covered)
            if suspect.any():
                await self._settle_suspects(reconciler, keys[suspect], tally)
            self.pipeline.look_again(reconciler, reconciler.unmark_drifted(keys[~suspect]))
            covered += np.bincount(key_lengths(keys[seen.covered]), minlength=len(covered))
            tally.checked += len(keys)
            self.progress = tally.checked
        tally.covered += int(covered.sum())
        tally.unexplained += await self._count(reconciler, covered)

    def _suspect(self, reconciler: Reconciler, keys: U64, seen: U32, covered: Mask) -> Mask:
        suspect: Mask = (seen != reconciler.held_paths(keys)) & ~covered
        return suspect

    async def _settle_suspects(self, reconciler: Reconciler, keys: U64, tally: Tally) -> None:
        """Look again while nothing is written, and deal with what is still wrong."""
        async with self.pipeline.quiet:
            self._require_in_sync()
            seen = await self.pipeline.fib.look_up(reconciler.family, reconciler.table, keys)
            wrong = self._suspect(reconciler, keys, seen.paths, seen.covered)
            self._deal_with(reconciler, keys[wrong], seen.paths[wrong], tally)

    async def _count(self, reconciler: Reconciler, covered: I64) -> int:
        """Return how many entries the FIB has that nobody accounts for."""
        async with self.pipeline.quiet:
            self._require_in_sync()
            entries = await self.pipeline.fib.entries(reconciler.family, reconciler.table)
            if entries is None or reconciler.others is None or reconciler.pending:
                return 0
            excess = entries - (reconciler.held_lengths() - covered) - reconciler.others
        # Neighbours come and go, and bring host routes of other sources with them.
        excess[-1] -= 2 * len(self.pipeline.neighbours_known)
        return int(np.maximum(excess, 0).sum())

    # -- by reading ------------------------------------------------------------------------------

    def _may_read(self) -> bool:
        limit = self._full_reading_seconds
        return bool(limit) and time.monotonic() - self._last_reading >= limit

    async def _read_everything(self, tally: Tally) -> None:
        self._last_reading = time.monotonic()
        self.readings += 1
        tally.unexplained = 0
        for reconciler in self.pipeline.reconcilers.values():
            async with self.pipeline.quiet:
                self._require_in_sync()
                await self._read(reconciler, tally)

    async def _read_beside(self, reconciler: Reconciler, tally: Tally) -> None:
        """Read the FIB while it is written. What seems wrong twice is looked at in quiet.

        A reading of a full table takes a second, for which no change may have to wait.
        """
        fib, family, table = self.pipeline.fib, reconciler.family, reconciler.table
        self._require_in_sync()
        read, suspects = PrefixTable(family.key_width), PrefixTable(family.key_width)
        async for routes in fib.read(family, table):
            # A route that is written meanwhile may be shown twice.
            read.find_or_insert(routes.keys)
            suspects.find_or_insert(routes.keys[routes.paths != reconciler.held_paths(routes.keys)])
            tally.checked += len(routes.keys)
            self.progress = tally.checked
        for rows in reconciler.held.chunks(MOST_AT_ONCE):
            keys = reconciler.held.keys(rows)
            suspects.find_or_insert(keys[read.find(keys) < 0])
        keys = suspects.keys(suspects.rows())
        if len(keys):
            seen = await fib.look_up(family, table, keys)
            keys = keys[self._suspect(reconciler, keys, seen.paths, seen.covered)]
        if len(keys):
            await self._settle_suspects(reconciler, keys, tally)
        self._forgive(reconciler, keys)

    def _forgive(self, reconciler: Reconciler, suspects: U64) -> None:
        """Take back what earlier passes reported of prefixes that are right now."""
        reported = reconciler.drifted.keys(reconciler.drifted.rows())
        wrong = PrefixTable(reconciler.family.key_width)
        wrong.insert(suspects)
        right = reported[wrong.find(reported) < 0]
        self.pipeline.look_again(reconciler, reconciler.unmark_drifted(right))

    async def _read(self, reconciler: Reconciler, tally: Tally) -> None:
        fib, family, table = self.pipeline.fib, reconciler.family, reconciler.table
        read = PrefixTable(family.key_width)
        lengths = np.zeros(8 * family.address_bytes + 1, np.int64)
        async for routes in fib.read(family, table):
            read.insert(routes.keys)
            lengths += np.bincount(key_lengths(routes.keys), minlength=len(lengths))
            wrong = routes.paths != reconciler.held_paths(routes.keys)
            self._deal_with(reconciler, routes.keys[wrong], routes.paths[wrong], tally)
            tally.checked += len(routes.keys)
        entries = await fib.entries(family, table)
        reconciler.others = None if entries is None else entries - lengths
        for rows in reconciler.held.chunks(MOST_AT_ONCE):
            keys = reconciler.held.keys(rows)
            keys = keys[read.find(keys) < 0]
            if len(keys):
                await self._unread(reconciler, keys, tally)

    async def _unread(self, reconciler: Reconciler, keys: U64, tally: Tally) -> None:
        """Deal with what is held by our account and was not read; the FIB may show it only to who asks."""
        seen = await self.pipeline.fib.look_up(reconciler.family, reconciler.table, keys)
        wrong = self._suspect(reconciler, keys, seen.paths, seen.covered)
        tally.checked += len(keys)
        tally.covered += int(seen.covered.sum())
        self._deal_with(reconciler, keys[wrong], seen.paths[wrong], tally)

    # -- what is wrong ---------------------------------------------------------------------------

    def _deal_with(self, reconciler: Reconciler, keys: U64, seen: U32, tally: Tally) -> None:
        """Repair or report prefixes that the FIB holds otherwise than by our account."""
        if not len(keys):
            return
        believed = reconciler.held_paths(keys)
        kinds = {
            Reason.LOST: (believed != ABSENT) & (seen == ABSENT),
            Reason.ALTERED: (believed != ABSENT) & (seen != ABSENT),
            Reason.STALE: (believed == ABSENT) & (seen != ABSENT),
        }
        for reason, those in kinds.items():
            count = int(those.sum())
            if not count:
                continue
            tally.found[reason] += count
            self.found[reason] += count
            for finding in self._findings(reconciler, reason, keys[those], believed[those], seen[those]):
                tally.rows.append(finding)
                self.findings.append(finding)
            if not self.repair and reason is not Reason.STALE:
                reconciler.mark_drifted(keys[those], reason)
                self.pipeline.look_again(reconciler, keys[those])
        if self.repair:
            self.pipeline.correct(reconciler, keys, seen)
            self.repaired += len(keys)

    def _findings(
        self, reconciler: Reconciler, reason: Reason, keys: U64, believed: U32, seen: U32
    ) -> Iterator[AuditFinding]:
        now = datetime.now(UTC)
        for row, prefix in enumerate(prefixes_of(keys[:_DESCRIBED])):
            yield AuditFinding(
                at=now,
                prefix=str(prefix),
                fib_table=reconciler.table,
                reason=reason,
                wanted=self._words(int(believed[row])),
                held=self._words(int(seen[row])),
                repaired=self.repair,
            )

    def _words(self, path: int) -> tuple[str, ...]:
        if path == ABSENT:
            return ()
        return describe_paths(self.pipeline.fib.path_set(path), self.pipeline.fib.interface_name)


class _Pace:
    """So many a second, in steps."""

    def __init__(self, rate: float, politeness: float) -> None:
        self.step = max(1, min(MOST_AT_ONCE, math.ceil(rate / _ROUNDS_A_SECOND)))
        self._rate = rate
        self._next = time.monotonic()
        self._politeness = politeness

    def took(self, seconds: float) -> None:
        """Take note of how long a step took; the next one waits a multiple of that at least."""
        self._next = max(self._next, time.monotonic() + seconds * self._politeness)

    async def wait(self, count: int, *, busy: bool) -> None:
        """Wait until `count` more are due; longer while there is better to do."""
        now = time.monotonic()
        # What was missed is not made up for: a burst is what the pace is there to avoid.
        self._next = max(self._next, now)
        delay = self._next - now
        self._next += count / self._rate * (_BUSY_FACTOR if busy else 1)
        await asyncio.sleep(delay)
