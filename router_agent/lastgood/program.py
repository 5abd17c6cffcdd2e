"""The command line of `last-good`: keep a copy, promise to go back to it, take the promise back, go back.

    save              keep everything as it is now
    arm --minutes N   keep it, and go back to it in N minutes, or at the next boot, unless somebody says
                      `disarm`. While it is armed: the same promise, N minutes from now
    disarm            stay as the host is now
    rollback [COPY]   go back now: to what is armed, else to the newest copy that differs
    status            what is armed, what has changed since, what came of the last time

Exit codes, as those of router-agent: 0 done, and the answer is yes; 1 done, and the answer is no (nothing
to go back to, nothing armed, something is not as it was); 2 wrong usage, or a copy that cannot be used; 4
it failed.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from router_agent.lastgood import frr, links, taking
from router_agent.lastgood.armed import Armed, ArmError, Promise, now, promise, start_timer, stop_timer
from router_agent.lastgood.catalogue import PARTS, UNITS, Part, with_further
from router_agent.lastgood.commands import run
from router_agent.lastgood.copies import Copies, Copy, CopyError
from router_agent.lastgood.entries import EntryError, below
from router_agent.lastgood.journal import ERROR, INFO, say
from router_agent.lastgood.rollback import Attempts, Outcome, go_back, read_outcome, tell, write_outcome

OK, NO, USAGE, FAILED = 0, 1, 2, 4
SETTINGS = "/etc/pop-router/last-good.json"
"""{"kept": how many copies, "files": {part: [further patterns]}}; role commit_confirm writes it."""
KEPT = 5
MOST_MINUTES = 24 * 60
_LOCK = "/run/last-good.lock"
_LOCK_SECONDS = 10.0
_WAY_BACK_SECONDS = 1800.0
_POLL_SECONDS = 0.2
_BOOT, _NOW = "boot", "now"
"""Instances of the service besides those of timers: before anything else at boot, and by hand."""
_BGP = ("frr.service", "exabgp.service")
Answer = tuple[int, dict[str, Any], str]
"""Exit code, what --json prints, and the same for people."""


class BusyError(Exception):
    """Somebody else is at it, or the host is on its way back."""


class Program:
    """What the commands do.

    Args:
        root: where the host's files are.

    Raises:
        ValueError: the settings cannot be used.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        settings = _settings(below(root, SETTINGS))
        self._root = root
        self._kept = int(settings.get("kept", KEPT))
        self._parts: tuple[Part, ...] = with_further(PARTS, settings.get("files", {}))
        self._patterns = tuple(pattern for part in self._parts for pattern in part.patterns)
        self._copies, self._promise, self._attempts = Copies(root), Promise(root), Attempts(root)

    def save(self, reason: str) -> Answer:
        """Keep everything as it is now, unless it is armed: nobody has said yet that it is good."""
        with self._alone():
            if self._promise.read() is not None:
                raise BusyError("it is armed: what is there now is not good before somebody says disarm")
            copy = self._copy(reason)
            self._copies.prune(self._kept)
        return OK, {"copy": copy.name}, f"copy {copy.name} holds everything as it is now"

    def arm(self, minutes: float, reason: str, *, extend: bool = False) -> Answer:
        """Promise to go back; with `extend`, only where that is promised already."""
        with self._alone():
            former = self._promise.read()
            if former is not None:
                return self._extend(former, minutes)
            if extend:
                return self._not_armed()
            if not self._copies.names() and not any(taking.running(self._parts).get(name) for name in _BGP):
                words = (
                    "no last good configuration: no copy is kept, and no BGP daemon runs; nothing is armed"
                )
                return NO, {"armed": False, "why": words}, words
            copy = self._copy(reason)
            self._attempts.take_room()
            state = {
                "links": links.read_links(),
                "routes": links.read_routes(),
                "sessions": frr.established(),
            }
            armed = promise(copy.name, minutes * 60, **state)
            self._begin(armed, former=None)
            self._copies.prune(self._kept, needed=copy.name)
        return self._armed(armed)

    def disarm(self) -> Answer:
        """Take the promise back."""
        with self._alone():
            armed = self._promise.read()
            if armed is None:
                return self._not_armed()
            self._refuse_on_the_way()
            changed = self._changed(armed)
            self._promise.take_back()
            stop_timer()
            self._attempts.forget()
        words = f"the host stays as it is; changed since {armed.since}: {', '.join(changed) or 'nothing'}"
        return OK, {"armed": False, "changed": changed}, words

    def rollback(self, name: str | None) -> Answer:
        """Go back now, by the service: it outlives the session of whoever asks."""
        with self._alone():
            armed = self._promise.read()
            if armed is None or (name and name != armed.copy):
                copy = self._copies.load(name) if name else self._newest_that_differs()
                if copy is None:
                    words = "nothing to go back to: no copy differs from what is there"
                    return NO, {"why": words}, words
                armed = promise(
                    copy.name, 0, links=armed.links if armed else [], routes=armed.routes if armed else []
                )
                try:
                    self._promise.write(armed)
                except OSError as error:
                    say(ERROR, f"{error.strerror}: going back here; a reboot in the middle would end it")
                    return self._told(self._go_back(armed, "by hand", boot=False))
        began = now()
        service = f"last-good@{_NOW}.service"
        if not below(self._root, f"{UNITS}/last-good@.service").exists():
            code = self.go_back(_NOW)
        else:
            code = run("systemctl", "start", service, seconds=_WAY_BACK_SECONDS).status
        outcome = read_outcome(self._root)
        if outcome is None or outcome.at < began:
            words = f"systemctl start {service} ended with {code}; see journalctl --unit {service}"
            return FAILED, {"why": words}, words
        return self._told(outcome)

    def status(self) -> Answer:
        """Say what is armed; 0 when nothing is and nothing was wrong the last time."""
        armed, last = self._promise.read(), read_outcome(self._root)
        copies = list(self._whole())
        newest = next(
            (copy for copy in copies if armed and copy.name == armed.copy), copies[-1] if copies else None
        )
        found: dict[str, Any] = {
            "armed": armed is not None,
            "changed": self._copies.changed(newest) if newest else [],
            "copies": [{"name": copy.name, "taken": copy.taken, "reason": copy.reason} for copy in copies],
            "left_out": list(newest.left_out) if newest else [],
            "last": asdict(last) if last else None,
        }
        if armed is not None:
            found |= {key: getattr(armed, key) for key in ("copy", "since", "until")}
            found |= {
                "changed": self._changed(armed),
                "seconds_left": int(armed.seconds_left),
                "timer": armed.watched,
                "going_back": self._on_the_way(),
            }
        code = NO if armed is not None or (last and last.faults) else OK
        return code, found, "\n".join(_words(found))

    def go_back(self, instance: str) -> int:
        """Keep the promise, if it is due; the service runs this."""
        with self._alone(seconds=_WAY_BACK_SECONDS):
            armed = self._promise.read()
            if armed is None:
                say(INFO, "nothing is armed")
                return OK
            by_timer = instance not in (_BOOT, _NOW)
            if by_timer and armed.seconds_left > 0:
                say(INFO, f"armed until {armed.until}: not yet")
                return OK
            reason = {_BOOT: "a reboot came before anybody said disarm", _NOW: "by hand"}.get(
                instance, f"nobody said disarm until {armed.until}"
            )
            outcome = self._go_back(armed, reason, boot=instance == _BOOT)
        return NO if outcome.faults else OK

    def _go_back(self, armed: Armed, reason: str, *, boot: bool) -> Outcome:
        copy = self._copies.load(armed.copy)
        outcome = go_back(self._copies, copy, armed, self._parts, self._root, reason=reason, boot=boot)
        write_outcome(outcome, self._root)
        self._promise.take_back()
        self._attempts.forget()
        if not boot:
            stop_timer()
        tell(outcome)
        return outcome

    def _extend(self, former: Armed, minutes: float) -> Answer:
        """Move the deadline; what to go back to stays, for nobody has said that this is good."""
        self._refuse_on_the_way()
        if not former.this_boot:
            raise ArmError(
                "found a promise of another boot, expected none: say rollback, or disarm to stay as it is"
            )
        copy = self._copies.load(former.copy)
        for path in copy.contents:
            self._copies.content(copy, path)
        armed = former.extended(minutes * 60)
        self._begin(armed, former=former)
        return self._armed(armed)

    def _begin(self, armed: Armed, *, former: Armed | None) -> None:
        """Start the timer first: a promise without one would wait for a reboot that comes months later."""
        start_timer(armed)
        try:
            self._promise.write(armed)
        except OSError:
            stop_timer(armed.timer)
            raise
        if former is not None:
            stop_timer(former.timer)

    def _copy(self, reason: str) -> Copy:
        """Return a copy of what is there now: the newest if nothing differs."""
        running = taking.running(self._parts)
        for name in self._copies.names()[-1:]:
            try:
                newest = self._copies.load(name)
                whole = all(self._copies.content(newest, path) is not None for path in newest.contents)
            except CopyError as error:
                say(ERROR, f"{error}; a new copy is made")
                break
            same = newest.patterns == self._patterns and newest.running == running
            if whole and same and not self._copies.changed(newest):
                return newest
        return self._copies.save(
            self._patterns, running, taken=now(), reason=reason, frr=sorted(frr.differences() or ())
        )

    def _newest_that_differs(self) -> Copy | None:
        return next((copy for copy in reversed([*self._whole()]) if self._copies.changed(copy)), None)

    def _whole(self) -> Iterator[Copy]:
        """Yield the copies whose list is not damaged, the oldest first."""
        for name in self._copies.names():
            try:
                yield self._copies.load(name)
            except CopyError as error:
                say(ERROR, str(error))

    def _changed(self, armed: Armed) -> list[str]:
        """Return what is not as it was when it was armed: paths, and units that run or do not."""
        copy = self._copies.load(armed.copy)
        states = taking.running(self._parts)
        units = [name for name, runs in copy.running.items() if states.get(name, False) != runs]
        return [*self._copies.changed(copy), *units]

    def _armed(self, armed: Armed) -> Answer:
        found = {"armed": True, "copy": armed.copy, "until": armed.until, "since": armed.since}
        return (
            OK,
            found,
            f"armed: the host goes back to copy {armed.copy} at {armed.until} unless somebody says disarm",
        )

    def _not_armed(self) -> Answer:
        last = read_outcome(self._root)
        words = "nothing is armed" + (f"; the host went back at {last.at}: {last.reason}" if last else "")
        return NO, {"armed": False, "why": words, "last": asdict(last) if last else None}, words

    def _told(self, outcome: Outcome) -> Answer:
        words = [*outcome.steps, *(f"not as it was: {fault}" for fault in outcome.faults)]
        words.append(f"went back to copy {outcome.copy}")
        return NO if outcome.faults else OK, asdict(outcome), "\n".join(words)

    def _on_the_way(self) -> bool:
        found = self._attempts.read()
        return bool(found.changed or found.everything)

    def _refuse_on_the_way(self) -> None:
        if self._on_the_way():
            raise BusyError(
                "the host is on its way back, which was cut short: say rollback to have it end now"
            )

    @contextmanager
    def _alone(self, *, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
        """Be the only one.

        Raises:
            BusyError: another one does not end in time.
        """
        deadline = time.monotonic() + seconds
        with below(self._root, _LOCK).open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise BusyError(
                            "another last-good is at work: the host may be on its way back"
                        ) from None
                    time.sleep(_POLL_SECONDS)
            yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    # Who called may be cut off by what it does.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.umask(0o022)
    given = _parser().parse_args(arguments)
    try:
        program = Program()
        if given.command == "go-back":
            return program.go_back(given.instance)
        code, found, words = _answer(program, given)
    except (CopyError, ValueError) as error:
        return _fail(USAGE, error)
    except (ArmError, BusyError, EntryError, OSError) as error:
        return _fail(FAILED, error)
    print(json.dumps(found, indent=1) if given.json else words)
    return code


def _answer(program: Program, given: argparse.Namespace) -> Answer:
    match given.command:
        case "save":
            return program.save(given.reason)
        case "arm":
            return program.arm(given.minutes, given.reason, extend=given.extend)
        case "disarm":
            return program.disarm()
        case "rollback":
            return program.rollback(given.copy)
        case _:
            return program.status()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="last-good", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = argparse.ArgumentParser(add_help=False)
    asked.add_argument("--json", action="store_true", help="print one JSON object")
    why = argparse.ArgumentParser(add_help=False)
    why.add_argument("--reason", default="", help="why, kept with the copy")
    commands.add_parser("save", parents=[asked, why], help="keep everything as it is now")
    arm = commands.add_parser("arm", parents=[asked, why], help="keep it, and go back to it unless disarmed")
    arm.add_argument("--minutes", type=_minutes, required=True, help="until then")
    arm.add_argument("--extend", action="store_true", help="only move the time of what is armed already")
    commands.add_parser("disarm", parents=[asked], help="stay as the host is now")
    back = commands.add_parser("rollback", parents=[asked], help="go back now")
    back.add_argument("copy", nargs="?", help="copy to go back to")
    commands.add_parser("status", parents=[asked], help="what is armed, and what has changed")
    commands.add_parser("go-back").add_argument("instance")
    return parser


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= MOST_MINUTES:
        raise argparse.ArgumentTypeError(f"found {text}, expected more than 0 and at most {MOST_MINUTES}")
    return minutes


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found {found!r}, expected an object")  # noqa: TRY004 - of the file, not of us
    return found


def _words(found: dict[str, Any]) -> Iterator[str]:
    """Yield status for people, a line each."""
    changed = ", ".join(found["changed"]) or "nothing"
    if found["armed"]:
        yield f"armed since {found['since']}: goes back to copy {found['copy']} at {found['until']}"
        yield f"that is {found['seconds_left']} s from now"
        yield f"changed since: {changed}"
        if found["going_back"]:
            yield "the host is on its way back"
        elif not found["timer"]:
            yield "its timer does not run, so it waits for a reboot: say arm again, rollback or disarm"
    else:
        yield "nothing is armed"
        if found["copies"]:
            yield f"not as in the newest copy: {changed}"
    for copy in found["copies"]:
        yield f"copy {copy['name']} of {copy['taken']} {copy['reason']}".rstrip()
    for path in found["left_out"]:
        yield f"not kept: {path}, which is on a file system of its own"
    if last := found["last"]:
        yield f"went back to copy {last['copy']} at {last['at']}: {last['reason']}"
        for fault in last["faults"]:
            yield f"not as it was: {fault}"


def _fail(code: int, error: Exception) -> int:
    say(ERROR, str(error))
    return code


if __name__ == "__main__":
    sys.exit(main())
