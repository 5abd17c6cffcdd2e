"""Makes the bundle: collect, take secrets out, write, look again whether any is left.

The archive is a gzipped tar with one directory, in it ``manifest.json`` and a member for each collector that
came to something. Nothing with a secret in it is ever written to a disk: what is collected stays in memory
until it has been gone through. A bundle in which a secret is found after all is removed again.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from router_agent import __version__
from router_agent.support.collect import Collector, Taken, take
from router_agent.support.contents import Host, collectors, explained, sources
from router_agent.support.redact import Secrets, bytes_of, secrets_in, text_of

SCHEMA = "router-agent/support-bundle/1"
MOST_BYTES = 64 << 20
"""Of all members together, before they are compressed: it is all in memory."""
_ROOM_BYTES = 32 << 20
"""Room that the file system of the bundle must have."""
_ABSENT = "agent/routes-absent.jsonl"


class BundleError(Exception):
    """The bundle is not written; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Member:
    """One line of the manifest.

    Attributes:
        name: its path in the bundle, below the bundle's directory.
        command: what was run, or the file that was read.
        exit: exit code of the command; None for a file, or when it did not end by itself.
        seconds: that it took.
        size: bytes that are in the bundle.
        truncated: there was more.
        sha256: of what is in the bundle; None when it is not in there.
        problem: why it is not, or not whole.
        content: what is written.
    """

    name: str
    command: str
    exit: int | None
    seconds: float
    size: int
    truncated: bool
    sha256: str | None
    problem: str | None
    content: bytes

    def line(self) -> dict[str, Any]:
        """Return it as the manifest has it."""
        return {
            "name": self.name,
            "command": self.command,
            "exit": self.exit,
            "seconds": self.seconds,
            "bytes": self.size,
            "truncated": self.truncated,
            "sha256": self.sha256,
            "problem": self.problem,
        }


def default_name(now: datetime | None = None) -> str:
    """Return the name of a bundle of this host, without its suffix."""
    return f"router-support-{socket.gethostname()}-{(now or datetime.now(UTC)):%Y%m%dT%H%M%SZ}"


def make(
    output: Path,
    host: Host,
    *,
    since: str = "-24h",
    progress: Callable[[Taken], None] = lambda _: None,
) -> list[Member]:
    """Make a bundle.

    Args:
        output: file to write; it must not exist yet.
        host: what is looked at.
        since: how far back the journal goes, as journalctl understands it.
        progress: told of each collector that is done.

    Returns:
        What the manifest has.

    Raises:
        BundleError: it cannot be written, or a secret would be in it.
    """
    _check_room(output)
    began = datetime.now(UTC)
    clock = time.monotonic()
    collected = list(_collect(host, since, progress))
    known: set[str] = set()
    unread = []
    for taken in (take(source) for source in sources(host)):
        known |= secrets_in(text_of(taken.content))
        unread += [f"{taken.collector.file}: {taken.problem}"] if taken.problem else []
    for taken in collected:
        if taken.collector.configuration:
            known |= secrets_in(text_of(taken.content))
    secrets = Secrets(known)
    members = [_member(taken, secrets) for taken in collected]
    manifest = {
        "schema": SCHEMA,
        "version": __version__,
        "host": socket.gethostname(),
        "began": began.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 3),
        "user": os.geteuid(),
        "journal_since": since,
        "secrets_removed": len(known),
        "secrets_unread": [secrets.redact(words) for words in unread],
        "members": [member.line() for member in members],
    }
    _write(output, manifest, members, secrets)
    return members


def _collect(host: Host, since: str, progress: Callable[[Taken], None]) -> Iterator[Taken]:
    """Carry out one collector after the other; who did not answer in time is not asked again."""
    silent: set[str] = set()
    total = 0

    def carried_out(wanted: Iterable[Collector]) -> Iterator[Taken]:
        nonlocal total
        for collector in wanted:
            if collector.asks in silent:
                taken = Taken(collector, problem=f"not asked: {collector.asks} did not answer before")
            elif total >= MOST_BYTES:
                taken = Taken(collector, problem=f"left out: the bundle has {MOST_BYTES >> 20} MiB already")
            else:
                taken = take(collector)
                if taken.timed_out and collector.asks is not None:
                    silent.add(collector.asks)
            total += len(taken.content)
            progress(taken)
            yield taken

    for taken in carried_out(collectors(host, since)):
        yield taken
        if taken.collector.member == _ABSENT:
            yield from carried_out(explained(host, taken))


def _member(taken: Taken, secrets: Secrets) -> Member:
    collector = taken.collector
    content = bytes_of(secrets.redact(text_of(taken.content), configuration=collector.configuration))
    there = bool(content) or taken.problem is None
    return Member(
        name=collector.member,
        command=secrets.redact(collector.source),
        exit=taken.exit_code,
        seconds=round(taken.seconds, 3),
        size=len(content),
        truncated=taken.truncated,
        sha256=sha256(content).hexdigest() if there else None,
        problem=None if taken.problem is None else secrets.redact(taken.problem),
        content=content,
    )


def _check_room(output: Path) -> None:
    if output.exists():
        raise BundleError(f"{output} exists already; name another file with --output")
    try:
        free = shutil.disk_usage(output.absolute().parent).free
    except OSError as error:
        raise BundleError(f"{output.absolute().parent}: {error.strerror}") from error
    if free < _ROOM_BYTES:
        raise BundleError(
            f"{output.absolute().parent}: found {free >> 20} MiB free, expected {_ROOM_BYTES >> 20}; "
            "name a file on another file system with --output"
        )


def _write(output: Path, manifest: dict[str, Any], members: Iterable[Member], secrets: Secrets) -> None:
    """Write the archive beside its name, look through it, and give it its name."""
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    directory = output.name.removesuffix(".gz").removesuffix(".tar")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BundleError(f"{unfinished}: {error.strerror}") from error
    try:
        with open(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=6) as tar:  # noqa: PTH123 - a descriptor
            _add(tar, f"{directory}/manifest.json", json.dumps(manifest, indent=2).encode() + b"\n")
            for member in members:
                if member.sha256 is not None:
                    _add(tar, f"{directory}/{member.name}", member.content)
        _check(unfinished, directory, manifest, secrets)
        # Unlike a rename, a link does not replace what somebody put there meanwhile.
        output.hardlink_to(unfinished)
    except OSError as error:
        raise BundleError(f"{output}: {error.strerror or error}") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    entry.mode = 0o600
    entry.mtime = int(time.time())
    tar.addfile(entry, io.BytesIO(content))


def _check(path: Path, directory: str, manifest: dict[str, Any], secrets: Secrets) -> None:
    """Look through what was written.

    Raises:
        BundleError: a secret is in it, or a member is not what the manifest says.
    """
    listed = {line["name"]: line["sha256"] for line in manifest["members"] if line["sha256"] is not None}
    leaking = []
    with tarfile.open(path, mode="r:gz") as tar:
        for entry in tar:
            name = entry.name.removeprefix(f"{directory}/")
            file = tar.extractfile(entry)
            content = b"" if file is None else file.read()
            if name == "manifest.json":
                text = "\n".join(_words(json.loads(content)))
            else:
                text = text_of(content)
                if sha256(content).hexdigest() != listed.pop(name, None):
                    raise BundleError(f"{path}: {name} is not what was collected; the disk may be failing")
            if secrets.found_in(text):
                leaking.append(name)
    if listed:
        raise BundleError(f"{path}: {', '.join(listed)} is missing; the disk may be failing")
    if leaking:
        raise BundleError(
            f"nothing was written: a secret of this host's configuration would still be in "
            f"{', '.join(leaking)}. This is a mistake of this program; report it, and collect these by hand"
        )


def _words(manifest: dict[str, Any]) -> Iterator[str]:
    """Yield what of the manifest comes from the host."""
    yield from manifest["secrets_unread"]
    for line in manifest["members"]:
        yield from (str(line["command"]), str(line["problem"] or ""))
