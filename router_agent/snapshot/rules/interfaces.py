"""Interfaces of the kernel and of VPP: gone, down, with another MTU, with errors that grow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from router_agent.snapshot.changes import Change, Judged
from router_agent.snapshot.model import Link
from router_agent.snapshot.span import Growth, Span
from router_agent.snapshot.tolerances import Part, Tolerances


def interface_changes(
    where: str,
    before: Mapping[str, Link],
    after: Mapping[str, Link],
    span: Span,
    tolerances: Tolerances,
    *,
    restarted: bool = False,
) -> Iterator[Change]:
    """Yield what changed.

    Args:
        where: whose they are, ``kernel`` or ``VPP``.
        before: in the earlier snapshot, by name.
        after: in the later one.
        span: between the two.
        tolerances: what may change.
        restarted: whoever counts was started anew meanwhile.
    """
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        subject = f"{where} {name}"
        if was is None or now is None:
            yield _there(subject, was, now, tolerances)
            continue
        if (was.up, was.carrier) != (now.up, now.carrier):
            yield _state(subject, name, was, now, tolerances)
        if was.mtu != now.mtu:
            yield _mtu(subject, was, now, tolerances)
        anew = restarted or span.rebooted or was.identity != now.identity
        yield from _errors(subject, was, now, span, tolerances, anew=anew)


def _there(subject: str, was: Link | None, now: Link | None, tolerances: Tolerances) -> Change:
    judged, why = Judged.WITHIN, ""
    if was is not None:
        judged, why = Judged.BEYOND, "the interface is gone"
    if tolerances.expects(Part.INTERFACES):
        judged = Judged.EXPECTED
    return Change(
        what="interface",
        subject=subject,
        aspect="there",
        before=_words(was) if was else "none",
        after=_words(now) if now else "none",
        judged=judged,
        why=why,
    )


def _state(subject: str, name: str, was: Link, now: Link, tolerances: Tolerances) -> Change:
    worse = was.up and was.carrier
    judged, why = (Judged.BEYOND, "it no longer carries packets") if worse else (Judged.WITHIN, "")
    if worse and name in tolerances.interfaces_down:
        judged, why = Judged.EXPECTED, f"{why}, as it may be"
    return Change(
        what="interface",
        subject=subject,
        aspect="state",
        before=_words(was),
        after=_words(now),
        judged=judged,
        why=why,
    )


def _words(link: Link) -> str:
    return "up" if link.up and link.carrier else "no carrier" if link.up else "down"


def _mtu(subject: str, was: Link, now: Link, tolerances: Tolerances) -> Change:
    return Change(
        what="interface",
        subject=subject,
        aspect="MTU",
        before=str(was.mtu),
        after=str(now.mtu),
        judged=Judged.EXPECTED if tolerances.expects(Part.INTERFACES) else Judged.BEYOND,
    )


def _errors(
    subject: str, was: Link, now: Link, span: Span, tolerances: Tolerances, *, anew: bool
) -> Iterator[Change]:
    for name in sorted(was.errors.keys() | now.errors.keys()):
        had, has = was.errors.get(name, 0), now.errors.get(name, 0)
        if had == has and not (anew and has):
            continue
        growth = Growth.of(had, has, anew=anew)
        rate = growth.per_second(span)
        beyond = rate > tolerances.errors_per_second
        how = "since it began to count anew" if growth.anew else "more"
        yield Change(
            what="errors",
            subject=subject,
            aspect=name,
            before=f"{had:,}",
            after=f"{has:,}",
            judged=Judged.BEYOND if beyond else Judged.WITHIN,
            why=f"{growth.count:,} {how}, {rate:.3g} a second; "
            f"up to {tolerances.errors_per_second:g} is tolerated",
        )
