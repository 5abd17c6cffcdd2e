"""The way back: files first, then those who read them, then a look whether all is as it was.

It may be cut short anywhere: killed, or by a power cut. What it found changed is written down before the
first file is touched, in room that was taken when the promise was made, and the promise stands until the
end. So the next attempt, by systemd or at the next boot, finds the files that are left and knows which
programs are still to be told.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router_agent.lastgood import durable, frr, links, ports, taking
from router_agent.lastgood.armed import Armed, now
from router_agent.lastgood.catalogue import UNITS, Part
from router_agent.lastgood.commands import run
from router_agent.lastgood.copies import STATE, Copies, Copy
from router_agent.lastgood.entries import below, differences, digest_of
from router_agent.lastgood.journal import ERROR, NOTICE, WARNING, say
from router_agent.lastgood.restore import GoneError, put_back
from router_agent.lastgood.steps import Steps

SCHEMA = "last-good/outcome/1"
_ROOM = 1 << 16
"""Bytes kept free for the list of what was found changed."""
_SESSION_SECONDS = 90.0


@dataclass(frozen=True)
class Outcome:
    """What came of going back.

    Attributes:
        at: when it was done, in UTC.
        reason: what made it go back.
        copy: what it went back to.
        changed: paths that were not as they were kept.
        steps: what was done, in words.
        faults: what is not as it was, and why.
    """

    at: str
    reason: str
    copy: str
    changed: list[str]
    steps: list[str]
    faults: list[str]


@dataclass
class Found:
    """What was found changed, by this attempt and those before it.

    Attributes:
        changed: paths.
        made: what their files of systemd-networkd made; see `ports.made_by`.
        everything: nobody knows; every program is told.
    """

    changed: list[str]
    made: list[dict[str, Any]]
    everything: bool = False


class Attempts:
    """The list of what was found changed, in a file whose room is taken beforehand.

    Args:
        root: where the host's files are.
    """

    def __init__(self, root: Path) -> None:
        self.path = below(root, STATE) / "pending.json"

    def take_room(self) -> None:
        """Have room for the list, empty as it is.

        Raises:
            OSError: there is none.
        """
        durable.write(self.path, b" " * _ROOM)

    def read(self) -> Found:
        """Return what attempts before this one found; empty when there was none."""
        try:
            text = self.path.read_bytes().strip()
        except FileNotFoundError:
            return Found([], [])
        if not text:
            return Found([], [])
        digest, _, found = text.partition(b" ")
        if digest_of(found) != digest.decode(errors="replace"):
            # It was cut short while it wrote this.
            return Found([], [], everything=True)
        return Found(**json.loads(found))

    def write(self, found: Found) -> None:
        """Write the list into its room; a failure to do so stops nothing."""
        content = json.dumps(asdict(found)).encode()
        text = (digest_of(content).encode() + b" " + content).ljust(_ROOM)
        try:
            with self.path.open("r+b" if self.path.exists() else "wb") as file:
                file.write(text)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            say(WARNING, f"{self.path}: {error.strerror}: if this is cut short, every program will be told")

    def forget(self) -> None:
        """Remove the list."""
        durable.remove(self.path)


def go_back(
    copies: Copies,
    copy: Copy,
    armed: Armed | None,
    parts: Sequence[Part],
    root: Path,
    *,
    reason: str,
    boot: bool,
) -> Outcome:
    """Make the host what a copy says.

    Args:
        copies: of this host.
        copy: what to go back to.
        armed: the promise, with the kernel's links as they were when it was made.
        parts: the catalogue.
        root: where the host's files are.
        reason: what makes it go back.
        boot: whether nothing that reads the files has started yet.

    Raises:
        CopyError: the copy is damaged; nothing was touched.
        OSError: a file cannot be put back; the next attempt goes on.
        EntryError: a directory is in a file's place.
    """
    attempts, steps = Attempts(root), Steps()
    before = differences(copy.entries, copy.patterns, root)
    for name in before:
        if name in copy.contents:
            copies.content(copy, name)
    found = _found(attempts.read(), before)
    attempts.write(found)
    say(NOTICE, f"going back to copy {copy.name} of {copy.taken}, {reason}: {len(before)} files differ")

    target = _target(copy, found, armed, parts, root)
    if not boot:
        taking.stop_strangers(steps, target)
    for name in before:
        try:
            steps.did(put_back(copies, copy, name, root))
        except GoneError as error:
            steps.failed(str(error))
    if boot:
        _tell_systemd(steps, found, target)
    else:
        taking.take(steps, target)
        _look(steps, copies, copy, armed, target)
    return Outcome(now(), reason, copy.name, found.changed, steps.done, steps.faults)


def write_outcome(outcome: Outcome, root: Path) -> None:
    """Keep what came of it, for `status`; it is in the journal too."""
    text = json.dumps(asdict(outcome) | {"schema": SCHEMA}, indent=1)
    try:
        durable.write(below(root, STATE) / "outcome.json", text.encode())
    except OSError as error:
        say(WARNING, f"the outcome is in the journal alone: {error.strerror}")


def read_outcome(root: Path) -> Outcome | None:
    """Return what came of the last time; None when there was none, or nobody could write it down."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = json.loads((below(root, STATE) / "outcome.json").read_bytes())
        if found.pop("schema", None) == SCHEMA:
            return Outcome(**found)
    return None


def _found(former: Found, before: Mapping[str, tuple[Any, bytes]]) -> Found:
    made = [
        entry
        for name, (_, content) in before.items()
        if name.startswith("/etc/systemd/network/")
        if (entry := ports.made_by(name, content.decode(errors="replace")))
    ]
    changed = dict.fromkeys([*former.changed, *before])
    return Found(
        list(changed), [*former.made, *(one for one in made if one not in former.made)], former.everything
    )


def _target(
    copy: Copy, found: Found, armed: Armed | None, parts: Sequence[Part], root: Path
) -> taking.Target:
    changed = [*found.changed, *copy.entries] if found.everything else found.changed
    # The kernel's links and routes of another boot say nothing about this one's.
    here = armed if armed is not None and armed.this_boot else None
    return taking.Target(
        parts=parts,
        changed=changed,
        running=copy.running,
        made=found.made,
        links=here.links if here else (),
        routes=here.routes if here else (),
        frr=copy.frr,
        root=root,
    )


def _tell_systemd(steps: Steps, found: Found, target: taking.Target) -> None:
    """Have the boot go on with the units as they are on the disk now.

    systemd read them before this could change them. Those that are not to start any more are taken out of the
    boot while it still knows them, and those that are to start are asked for.
    """
    if not any(path.startswith(UNITS) for path in found.changed):
        return
    links = [path for path in found.changed if ".wants/" in path or ".requires/" in path]
    wanted = {Path(path).name: False for path in links}
    for name in wanted:
        wanted[name] = any((target.root / UNITS.lstrip("/")).glob(f"*.wants/{name}"))
    for name, starts in wanted.items():
        # One that systemd does not know is not going to start.
        if not starts and run("systemctl", "stop", "--no-block", name).ok:
            steps.did(f"systemctl stop --no-block {name}")
    steps.do("systemctl", "daemon-reload")
    for name, starts in wanted.items():
        if starts:
            steps.do("systemctl", "start", "--no-block", name)


def _look(steps: Steps, copies: Copies, copy: Copy, armed: Armed | None, target: taking.Target) -> None:
    """Note what is not as it was."""
    for name in copies.changed(copy):
        if not any(name in fault for fault in steps.faults):
            steps.failed(f"{name} is not as it was kept")
    for name, runs in taking.running(target.parts).items():
        if target.runs(name) != runs:
            steps.failed(f"{name} {'runs, and did not' if runs else 'does not run, and did'}")
    if armed is None:
        return
    left = links.changes(target.links, target.routes)
    for words in left:
        steps.failed(f"left to do: {' '.join(words)}")
    if absent := frr.missing(armed.sessions, _SESSION_SECONDS):
        steps.failed(f"BGP sessions that were established are not: {', '.join(absent)}")


def tell(outcome: Outcome) -> None:
    """Say in one line what came of it."""
    counts = f"{len(outcome.changed)} files, {len(outcome.steps)} steps"
    what = f"went back to copy {outcome.copy}, {outcome.reason}: {counts}"
    if outcome.faults:
        say(ERROR, f"{what}; not as it was: {'; '.join(outcome.faults)}")
    else:
        say(NOTICE, f"{what}; everything is as it was")
