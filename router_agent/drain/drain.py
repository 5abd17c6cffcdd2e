"""Draining a host: the mark, then every speaker; and the other way.

The mark comes first, so that whatever starts meanwhile starts drained, and frr.conf before what FRR runs. A
speaker that fails does not keep the others from being drained; what was not done is in `Done`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from router_agent.drain.exabgp import ExaBgp, ExaBgpError
from router_agent.drain.frr import Frr, FrrError
from router_agent.drain.mark import FAIL_SAFE, Mark, MarkError, Marks, now
from router_agent.drain.settings import Settings


class DrainError(Exception):
    """Nothing was done; the message says why, and what to do."""


@dataclass(frozen=True)
class Speaker:
    """What became of one speaker.

    Attributes:
        name: FRR or ExaBGP.
        ok: whether it is as it was asked to be.
        words: what it does, or what was found, what was expected and what to do.
    """

    name: str
    ok: bool
    words: str


@dataclass(frozen=True)
class Done:
    """What was done to a host, or is to be known of it.

    Attributes:
        mark: the drain in force, None for none.
        speakers: what became of each.
        changed: whether anything was other than now.
    """

    mark: Mark | None
    speakers: tuple[Speaker, ...]
    changed: bool = False

    @property
    def failed(self) -> tuple[Speaker, ...]:
        """Speakers that are not as they should be."""
        return tuple(speaker for speaker in self.speakers if not speaker.ok)

    @property
    def drained(self) -> bool:
        """Whether the router is drained: by its mark and by its speakers."""
        return self.mark is not None and not self.failed


@dataclass
class _Steps:
    """Speakers as they are gone through."""

    done: list[Speaker] = field(default_factory=list)

    def take(self, name: str, step: Callable[[], str]) -> None:
        try:
            self.done.append(Speaker(name, ok=True, words=step()))
        except (FrrError, ExaBgpError) as error:
            self.done.append(Speaker(name, ok=False, words=str(error)))


class Host:
    """The host that is drained.

    Args:
        settings: of the host.
    """

    def __init__(self, settings: Settings) -> None:
        self.marks = Marks(settings.mark)
        self._lock = settings.mark.current.with_name("drain.lock")
        self._frr = None if settings.frr is None else Frr(settings.frr)
        self._exabgp = None if settings.exabgp is None else ExaBgp(settings.exabgp)

    def state(self) -> Done:
        """Return whether the host is drained, asked of its speakers.

        Raises:
            DrainError: the mark cannot be read.
        """
        mark = self._mark()
        steps = _Steps()
        for name, step in self._questions(mark).items():
            steps.take(name, step)
        return Done(mark, tuple(steps.done))

    def drain(self, *, by: str, reason: str, keep: bool | None) -> Done:
        """Drain the host, or complete a drain that is in force.

        Args:
            by: who wants it.
            reason: why.
            keep: whether it lasts over a reboot; None leaves that as it is, and is no when it was not
                drained.

        Raises:
            DrainError: nothing was done.
        """
        with self._locked():
            before = self.state()
            mark = _merged(before.mark, by=by, reason=reason, keep=keep)
            if mark != before.mark:
                self._mark_as(mark)
            steps = _Steps()
            rewritten = self._prepare(steps, drained=True)
            if self._frr is not None:
                steps.take("FRR", self._frr.drain)
            self._take_exabgp(steps, mark)
            changed = mark != before.mark or bool(before.failed) or rewritten
            return Done(mark, tuple(steps.done), changed)

    def undrain(self, *, only_own: bool = False) -> Done:
        """Take a drain back, and whatever is left of one.

        Args:
            only_own: leave the host alone unless it drained itself.

        Raises:
            DrainError: nothing was done.
        """
        with self._locked():
            try:
                mark = self.marks.read()
            except MarkError:
                mark = Mark(since=now())
            if only_own and (mark is None or not mark.own):
                return Done(mark, ())
            before = self._frr_is_drained()
            steps = _Steps()
            rewritten = self._prepare(steps, drained=False)
            if self._frr is not None:
                steps.take("FRR", self._frr.undrain)
            try:
                self.marks.remove()
            except MarkError as error:
                raise DrainError(f"{error}; FRR is undrained, ExaBGP is not") from error
            self._take_exabgp(steps, None)
            return Done(None, tuple(steps.done), mark is not None or before or rewritten)

    def prepare(self) -> Done:
        """Have what FRR and ExaBGP start with agree with the mark; for before they start, as at boot.

        Raises:
            DrainError: the mark cannot be read or written.
        """
        with self._locked():
            try:
                mark = self.marks.after_boot()
            except MarkError as error:
                raise DrainError(str(error)) from error
            steps = _Steps()
            rewritten = self._prepare(steps, drained=mark is not None)
            return Done(mark, tuple(steps.done), rewritten)

    def _prepare(self, steps: _Steps, *, drained: bool) -> bool:
        if self._frr is None:
            return False
        try:
            return self._frr.prepare(drained=drained)
        except FrrError as error:
            steps.done.append(Speaker("frr.conf", ok=False, words=str(error)))
            return False

    def _take_exabgp(self, steps: _Steps, mark: Mark | None) -> None:
        exabgp = self._exabgp
        if exabgp is not None:
            steps.take("ExaBGP", lambda: exabgp.wait(mark))

    def _questions(self, mark: Mark | None) -> Mapping[str, Callable[[], str]]:
        questions: dict[str, Callable[[], str]] = {}
        if self._frr is not None:
            frr = self._frr
            questions["FRR"] = lambda: frr.as_marked(drained=mark is not None)
        if self._exabgp is not None:
            exabgp = self._exabgp
            questions["ExaBGP"] = lambda: exabgp.as_marked(mark)
        return questions

    def _frr_is_drained(self) -> bool:
        if self._frr is None:
            return False
        try:
            found = self._frr.running()
        except FrrError:
            return False
        return found is not None and found.any

    def _mark(self) -> Mark | None:
        try:
            return self.marks.read()
        except MarkError as error:
            raise DrainError(str(error)) from error

    def _mark_as(self, mark: Mark) -> None:
        try:
            self.marks.write(mark)
        except MarkError as error:
            raise DrainError(f"{error}; nothing was done: drain as root") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one drain or undrain at a time; the kernel frees the lock of one that died."""
        try:
            self._lock.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._lock, flags, 0o600)
        except OSError as error:
            raise DrainError(f"cannot open {self._lock}: {error.strerror}; run it as root") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _merged(mark: Mark | None, *, by: str, reason: str, keep: bool | None) -> Mark:
    """Return the mark after somebody has drained a host that may be drained already.

    An operator takes over what the host did by itself, so that it is not taken back behind their back; the
    host never takes over an operator's.
    """
    if mark is None:
        return Mark(since=now(), by=by, reason=reason, keep=bool(keep))
    changes: dict[str, object] = {}
    if keep is not None and keep is not mark.keep:
        changes["keep"] = keep
    if mark.own and by != FAIL_SAFE:
        changes |= {"by": by, "reason": reason}
    return mark.model_copy(update=changes)
