"""What a feed gives, and to whom.

A feed reads routes from one place (a kernel, an ExaBGP process) and hands columns of them to a `Sink`.
What becomes of them it learns only if it is a `Teller`, which passes that on to where they came from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from router_agent.model import U32, Family, Link, Mask, Neighbour, Outcomes, PathSet, RouteBatch


class FeedError(Exception):
    """The feed cannot go on; the message says what was found, what was expected and what to do."""


class Sink(Protocol):
    """Receives what a feed reads. All calls return at once; none blocks."""

    def snapshot_begin(self) -> None:
        """A full reading of every table begins: routes not seen until its end are stale."""

    def snapshot_end(self, *, clean: bool) -> None:
        """The reading ended. Only a clean one (see invariant 2) lets stale routes go."""

    def routes(self, batch: RouteBatch) -> None:
        """Routes were added, replaced or deleted, in this order."""

    def paths_changed(self, paths: U32) -> None:
        """What these path ids lead to has changed though the routes that use them have not.

        The feed has already updated its resolution of them (see `Feed.resolve`): a next-hop object was
        replaced or deleted, a leg's interface went down.
        """

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        """Interfaces appeared or changed, or went (by ifindex)."""

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        """Neighbours were resolved (or their MAC changed), or are no longer valid."""


class Feed(Protocol):
    """One source of routes."""

    async def run(self, sink: Sink) -> None:
        """Read for ever: a snapshot first, then changes; snapshots again whenever events were lost.

        Raises:
            FeedError: the source cannot be read at all.
        """

    def resync(self) -> None:
        """Ask for a new snapshot; coalesced and rate-limited by the feed."""

    def resolve(self, path: int) -> PathSet | None:
        """Return what a path id leads to right now; None when it leads nowhere (route is void)."""

    def path_id(self, path_set: PathSet) -> int:
        """Return the id of a path set, giving it one if it is new."""

    def retain(self, in_use: Mask) -> None:
        """Forget the path ids that are not marked, so that they can be given again.

        Args:
            in_use: which ids are in use, shape (path_limit,).
        """

    @property
    def overruns(self) -> int:
        """How often events were lost, so that everything had to be read again."""

    @property
    def problem(self) -> str | None:
        """What keeps the feed from telling anything new though it has not failed, and what to do; or None."""

    @property
    def passed_over(self) -> Mapping[str, int]:
        """Routes no FIB can be asked to hold, by what they are (``tos``); seen since the last reading."""

    @property
    def path_limit(self) -> int:
        """One more than the largest path id in use, for arrays indexed by it."""

    @property
    def paths_kept(self) -> int:
        """How many path ids stand for something: those in use, and those nobody has said are not."""

    @property
    def spaces(self) -> Sequence[tuple[Family, int]]:
        """The (family, table) pairs this feed follows."""


@runtime_checkable
class Rereadable(Protocol):
    """A feed whose source can be read once more, beside the events."""

    async def reread(self, take: Callable[[RouteBatch], None], *, pause_seconds: float) -> bool:
        """Read every table and hand over what is there; return whether the reading was clean.

        Path ids are the feed's, and may be given up soon after: compare them at once.

        Args:
            take: called with each part.
            pause_seconds: waited after each part.
        """

    def read_waiting_events(self) -> None:
        """Tell the sink of every event that the source has sent so far."""


@runtime_checkable
class Teller(Protocol):
    """A feed whose source waits to be told what became of each route."""

    def tell(self, outcomes: Outcomes) -> None:
        """Pass on what became of routes; returns at once, and holds one answer for a prefix at most."""
