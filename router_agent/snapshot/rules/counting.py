"""Counts of prefixes that may shrink by some percent, and be none at all."""

from __future__ import annotations

from router_agent.snapshot.changes import Change, Judged
from router_agent.snapshot.tolerances import Tolerances


def count_changed(
    what: str, subject: str, aspect: str, before: int | None, after: int | None, tolerances: Tolerances
) -> Change:
    """Return the row of a count that is not as it was.

    Args:
        what: see `Change`, as the next two.
        subject: which one.
        aspect: of it.
        before: None where nobody counted.
        after: likewise; a count that is no longer kept is no fall.
        tolerances: how much it may fall or rise.
    """
    judged, why = Judged.WITHIN, ""
    if before is not None and after is not None:
        judged, why = _judge(before, after, tolerances)
    return Change(
        what=what,
        subject=subject,
        aspect=aspect,
        before=_words(before),
        after=_words(after),
        judged=judged,
        why=why,
    )


def _judge(before: int, after: int, tolerances: Tolerances) -> tuple[Judged, str]:
    percent = 100.0 * abs(after - before) / before if before else float("inf")
    if after < before:
        most = tolerances.prefixes_fall_percent
        beyond = percent > most
        return _verdict(beyond=beyond), f"fell by {_percent(percent)}, up to {_percent(most)} is tolerated"
    rise = tolerances.prefixes_rise_percent
    if rise is None:
        return Judged.WITHIN, f"rose by {_percent(percent)}"
    return (
        _verdict(beyond=percent > rise),
        f"rose by {_percent(percent)}, up to {_percent(rise)} is tolerated",
    )


def _verdict(*, beyond: bool) -> Judged:
    return Judged.BEYOND if beyond else Judged.WITHIN


def _percent(value: float) -> str:
    return "more than it was" if value == float("inf") else f"{value:.3g} %"


def _words(count: int | None) -> str:
    return "not known" if count is None else f"{count:,}"
