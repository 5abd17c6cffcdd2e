"""What a FIB takes, and what it answers.

A FIB holds routes of one owner (a named VPP source, a kernel protocol id) beside those of others, which it
never shows and never touches. It does as it is told: deciding is the reconciler's work.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from router_agent.model import (
    ABSENT,
    I64,
    U32,
    U64,
    Changes,
    Failures,
    Family,
    Link,
    Mask,
    Neighbour,
    PathSet,
    Reason,
)


class FibError(Exception):
    """The FIB cannot be used; the message says what was found, what was expected and what to do."""


class FibLostError(FibError):
    """The FIB went away (process died, socket closed). What it held is unknown until read again."""


@dataclass(slots=True)
class FibRoutes:
    """Routes a FIB holds: keys (n, width) and the ids of their path sets in the FIB's interner."""

    family: Family
    table: int
    keys: U64
    paths: U32


@dataclass(slots=True)
class LookedUp:
    """What a FIB holds for n keys.

    Attributes:
        paths: ``uint32`` ids of path sets in the FIB's interner; `ABSENT` where no entry of ours shows.
        covered: where another owner's entry beats ours, so that ours could not show.
        counters: ``int64`` number of the entry's packet counter, -1 where there is none.
    """

    paths: U32
    covered: Mask
    counters: I64


@dataclass(frozen=True, slots=True)
class Forwarding:
    """What a FIB does with one prefix, asked of it now.

    Attributes:
        path: our path id there, `ABSENT` where no entry of ours shows.
        covered: another owner's entry beats ours.
        counted: packets and bytes that went to it, None where nobody counts.
        resolved: the FIB's own words about where packets end up: interfaces, neighbours, rewrites.
        problem: why packets are dropped though there is a route; None when they are not, or it is not known.
    """

    path: int
    covered: bool = False
    counted: tuple[int, int] | None = None
    resolved: tuple[str, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What a FIB has under way, and what it keeps beside routes.

    Attributes:
        unanswered: requests for routes that wait for an answer.
        highest_unanswered: most that ever did since the FIB was opened.
        window: most that may.
        entries: next-hop entries that routes lead through; None where there are none.
        refused_neighbours: neighbours the FIB did not take the last time.
    """

    unanswered: int = 0
    highest_unanswered: int = 0
    window: int = 0
    entries: int | None = None
    refused_neighbours: int = 0


class Capacity(Protocol):
    """How many routes a FIB has room for; asked before routes are added, never before they are replaced."""

    def look(self) -> bool:
        """Look at the FIB's resources, at once; return whether there may be more room than was known."""

    def admit(self, family: Family, keys: U64) -> int:
        """Return how many of these routes, from the first on, may be added now; they count as added."""

    def release(self, count: int) -> None:
        """Take note that so many routes were deleted, or were let in and then refused."""

    @property
    def open_for_more(self) -> bool:
        """Whether `admit` would let a route in."""

    @property
    def room(self) -> int | None:
        """How many more routes there is room for, at least; None while nothing is known."""

    @property
    def shortage(self) -> str | None:
        """Which resource is short, how much of it is used, and what to do; None when none is."""

    @property
    def unknown(self) -> str | None:
        """Why nothing is known of the FIB's resources, so that everything is let in; None when it is."""

    @property
    def used(self) -> dict[str, tuple[int, int]]:
        """Bytes used and bytes there are, by resource."""

    def counter(self, index: int) -> tuple[int, int] | None:
        """Return packets and bytes sent to the route of a counter (`LookedUp.counters`), if it counts."""


class Fib(Protocol):
    """One forwarding table set, written by us alone under our own source."""

    cheap_to_read: bool
    """Whether a full reading disturbs nobody, so that an audit need not look prefixes up one by one."""

    @property
    def capacity(self) -> Capacity | None:
        """Asked before routes are added; None where they cannot outgrow the FIB."""

    @property
    def load(self) -> Load:
        """What is under way; at any time, open or not."""

    async def open(self) -> None:
        """Connect, check that we are the only writer of our source, learn the interfaces.

        Raises:
            FibError: with what to do about it. Nothing has been written.
        """

    async def close(self) -> None:
        """Disconnect. What the FIB holds stays and keeps forwarding."""

    def read(self, family: Family, table: int) -> AsyncIterator[FibRoutes]:
        """Yield every route of our source in a table, in chunks of bounded size.

        Raises:
            FibLostError: the FIB went away; what was yielded so far is not the whole.
        """

    async def look_up(self, family: Family, table: int, keys: U64) -> LookedUp:
        """Return what the FIB holds for these keys. Waits behind no write, and none behind it.

        Raises:
            FibLostError: the FIB went away.
        """

    async def check_shared(self, *, repair: bool) -> int:
        """Compare what many routes share (next-hop entries) with what was written; return how many are wrong.

        Args:
            repair: write them again.

        Raises:
            FibLostError: the FIB went away.
        """

    async def entries(self, family: Family, table: int) -> I64 | None:
        """Return how many entries of each length the table has, of all owners; None where nobody counts.

        Raises:
            FibLostError: the FIB went away.
        """

    async def covered_paths(self, family: Family, table: int, keys: U64) -> U32:
        """Return our path id for keys that another owner's entry covers; `ABSENT` where it cannot be told.

        Asks for one prefix at a time: for the few that `look_up` calls covered.
        """

    async def forwarding(self, family: Family, table: int, key: U64) -> Forwarding:
        """Return what the FIB does with one prefix (key of shape (1, width)) now; for people who ask.

        Raises:
            FibLostError: the FIB went away.
        """

    async def write(self, changes: Changes) -> Failures:
        """Make the FIB hold these changes; return when every one was answered.

        At most `window` requests are unanswered at any time.

        Raises:
            FibLostError: some changes may have been made and some not.
        """

    def path_id(self, wanted: PathSet, current: int = ABSENT) -> int | Reason:
        """Translate the control plane's path set into an id of this FIB, or say why it cannot be held.

        The answer holds until `links` returns True or what was given to `on_change` is called.

        Args:
            wanted: the path set.
            current: the id it had, if any: the answer when that still stands for the same.
        """

    def repoint(self, number: int, wanted: PathSet) -> bool:
        """Let an id of this FIB stand for another path set, whatever routes have it.

        Nothing is waited for: the FIB is told at once, ahead of routes. False when it cannot be done so, and
        the routes have to be written.
        """

    async def retain_paths(self, in_use: Mask) -> None:
        """Forget the ids that are not marked, so that they can be given again.

        Args:
            in_use: by id; those beyond its end are kept.

        Raises:
            FibLostError: the FIB went away.
        """

    @property
    def path_limit(self) -> int:
        """One more than the largest id ever in use, for arrays indexed by it."""

    def path_set(self, number: int) -> PathSet:
        """Return a path set by id, in this FIB's terms (its own interface numbers)."""

    def interface_name(self, interface: int) -> str:
        """Return the FIB's name of an interface number in its path sets."""

    def counterpart(self, interface: int) -> str | None:
        """Return the FIB's name of a control-plane interface (by ifindex), None if it has none."""

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> bool:
        """Take note of control-plane interfaces; return True when `path_id` may now answer differently."""

    def on_change(self, changed: Callable[[], None]) -> None:
        """Have this called whenever `path_id` may answer differently for reasons of the FIB's own."""

    def neighbours_lost(self, lost: Sequence[Neighbour]) -> None:
        """Take note at once of neighbours that went, which `write_neighbours` will be told as well."""

    async def write_neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        """Copy neighbours, in control-plane interface numbers; unknown interfaces are passed over."""

    async def retain_neighbours(self, current: Sequence[Neighbour]) -> None:
        """Remove the neighbours of ours that are not among these, in control-plane interface numbers.

        A former run left them. Called once the feed has told all it knows: before that, forwarding needs
        what is there.
        """

    async def wait_lost(self) -> None:
        """Return when the FIB has gone away, or its interfaces changed so that it must be opened anew."""
