"""BGP sessions of FRR and of ExaBGP: lost, new, dropped meanwhile, with fewer prefixes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from router_agent.snapshot.changes import Change, Judged
from router_agent.snapshot.model import Prefixes, Session
from router_agent.snapshot.rules.counting import count_changed
from router_agent.snapshot.span import Growth, Span
from router_agent.snapshot.tolerances import Tolerances

_ASPECTS = ("received", "accepted", "advertised")
_CLOCKS_SECONDS = 10.0
"""What a session's uptime and the time of its snapshot may be apart: a busy bgpd takes a while to answer."""


def session_changes(
    speaker: str,
    before: Iterable[Session],
    after: Iterable[Session],
    span: Span,
    tolerances: Tolerances,
) -> Iterator[Change]:
    """Yield what changed.

    Args:
        speaker: whose they are, ``FRR`` or ``ExaBGP``.
        before: in the earlier snapshot.
        after: in the later one.
        span: between the two.
        tolerances: what may change.
    """
    earlier, later = ({_key(session): session for session in found} for found in (before, after))
    for key in sorted(earlier.keys() | later.keys()):
        was, now = earlier.get(key), later.get(key)
        subject = f"{speaker} {_name(was or now)}"
        if _state(was) != _state(now):
            yield _state_changed(subject, was, now, tolerances)
        elif was and now and now.established:
            yield from _established(subject, was, now, span, tolerances)


def _key(session: Session) -> tuple[str, str]:
    return session.vrf, session.peer


def _name(session: Session | None) -> str:
    assert session is not None
    return session.peer if session.vrf == "default" else f"{session.peer} in {session.vrf}"


def _state(session: Session | None) -> str:
    """Return what is compared: a session that is down goes through several states all the time."""
    if session is None:
        return "none"
    return "established" if session.established else "down"


def _state_changed(subject: str, was: Session | None, now: Session | None, tolerances: Tolerances) -> Change:
    lost = was is not None and was.established
    judged, why = Judged.WITHIN, "" if now and now.established else "it was not up before either"
    if lost:
        judged, why = Judged.BEYOND, "the session is lost" if now else "the session is no longer configured"
        if _peer(was, now) in tolerances.sessions_lost:
            judged, why = Judged.EXPECTED, f"{why}, as it may be"
    return Change(
        what="session",
        subject=subject,
        aspect="state",
        before=was.state if was else "none",
        after=now.state if now else "none",
        judged=judged,
        why=why,
    )


def _peer(was: Session | None, now: Session | None) -> str:
    session = was or now
    return session.peer if session else ""


def _established(
    subject: str, was: Session, now: Session, span: Span, tolerances: Tolerances
) -> Iterator[Change]:
    drops = _drops(was, now, span)
    if drops is not None:
        yield _dropped(subject, was, now, drops, tolerances)
    for family in sorted(was.families.keys() | now.families.keys()):
        yield from _family(
            f"{subject}, {family}", was.families.get(family), now.families.get(family), tolerances
        )


def _drops(was: Session, now: Session, span: Span) -> int | None:
    """Return how often the session was lost meanwhile; None when it was not, or nobody counts."""
    if was.drops is None or now.drops is None or was.uptime_seconds is None or now.uptime_seconds is None:
        return None
    if was.drops != now.drops:
        # a restarted bgpd counts anew, and that alone was one loss
        growth = Growth.of(was.drops, now.drops, anew=False)
        return growth.count + growth.anew
    moved = abs(now.uptime_seconds - was.uptime_seconds - span.elapsed)
    return 1 if moved > _CLOCKS_SECONDS else None


def _dropped(subject: str, was: Session, now: Session, drops: int, tolerances: Tolerances) -> Change:
    most = tolerances.session_drops
    beyond = most is not None and drops > most
    return Change(
        what="session",
        subject=subject,
        aspect="drops",
        before=_up(was),
        after=_up(now),
        judged=Judged.BEYOND if beyond else Judged.WITHIN,
        why=f"lost {drops} times and up again" + ("" if most is None else f", up to {most} are tolerated"),
    )


def _up(session: Session) -> str:
    return "up" if session.uptime_seconds is None else f"up for {session.uptime_seconds:,.0f} s"


def _family(
    subject: str, was: Prefixes | None, now: Prefixes | None, tolerances: Tolerances
) -> Iterator[Change]:
    if was is None or now is None:
        yield Change(
            what="session",
            subject=subject,
            aspect="family",
            before="carried" if was else "none",
            after="carried" if now else "none",
            judged=Judged.BEYOND if was else Judged.WITHIN,
            why="the session no longer carries the family" if was else "",
        )
        return
    for aspect in _ASPECTS:
        had, has = getattr(was, aspect), getattr(now, aspect)
        if had != has:
            yield count_changed("prefixes", subject, aspect, had, has, tolerances)
