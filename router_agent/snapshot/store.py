"""Snapshots kept on the host: one file each, the oldest removed when there are more than are to be kept."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from router_agent.snapshot.model import SCHEMA, Snapshot
from router_agent.snapshot.places import DIRECTORY, KEEP

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

_FILE = re.compile(r"(?P<moment>\d{8}T\d{12}Z)(?:-(?P<label>.+))?\.json")
_MOMENT = "%Y%m%dT%H%M%S%fZ"
_LARGEST = 64 << 20
_NAMED_SCHEMA = re.compile(rb'"schema"\s*:\s*"([^"]{1,80})"')


class StoreError(Exception):
    """A snapshot cannot be read or kept; the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot that is kept.

    Attributes:
        path: of the file.
        taken_at: when it was taken.
        label: what for; empty without one.
    """

    path: Path
    taken_at: datetime
    label: str


def kept(directory: Path = DIRECTORY) -> list[Kept]:
    """Return what is kept, the oldest first; files of other names are nobody's business here.

    Raises:
        StoreError: the directory cannot be read.
    """
    return sorted(_kept(directory), key=lambda found: found.path.name)


def _kept(directory: Path) -> Iterator[Kept]:
    try:
        names = [entry.name for entry in directory.iterdir()] if directory.exists() else []
    except OSError as error:
        raise StoreError(f"cannot read {directory}: {error.strerror}") from error
    for name in names:
        if found := _FILE.fullmatch(name):
            taken_at = datetime.strptime(found["moment"], _MOMENT).replace(tzinfo=UTC)
            yield Kept(directory / name, taken_at, found["label"] or "")


def keep(snapshot: Snapshot, directory: Path = DIRECTORY, *, most: int = KEEP) -> Path:
    """Keep a snapshot and remove the oldest of more than `most`; return its file.

    Raises:
        StoreError: it cannot be written, or old ones cannot be removed.
    """
    moment = snapshot.taken_at.astimezone(UTC).strftime(_MOMENT)
    path = directory / f"{moment}{f'-{snapshot.label}' if snapshot.label else ''}.json"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot make {directory}: {error.strerror}") from error
    write(snapshot, path)
    for old in kept(directory)[:-most]:
        try:
            old.path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {old.path}: {error.strerror}") from error
    return path


def write(snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot to a file, at once or not at all; only its owner may read it.

    Raises:
        StoreError: it cannot be written.
    """
    text = snapshot.model_dump_json(by_alias=True, indent=2) + "\n"
    new = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        with suppress(OSError):
            new.unlink()
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def find(name: str, directory: Path = DIRECTORY) -> Path:
    """Return the file that a name stands for.

    Args:
        name: a path (with a slash, or that ends with ``.json``), or the label of a kept snapshot, of which
            the newest counts.
        directory: where they are kept.

    Raises:
        StoreError: there is none.
    """
    if "/" in name or name.endswith(".json"):
        return Path(name)
    named = [found for found in kept(directory) if found.label == name]
    if not named:
        labels = list(dict.fromkeys(found.label for found in kept(directory) if found.label))
        known = ", ".join(labels[-10:]) or "none has a label"
        raise StoreError(
            f"found no snapshot labelled {name!r} in {directory}, expected a path or a label ({known})"
        )
    return named[-1].path


def load(path: Path) -> Snapshot:
    """Return the snapshot of a file.

    Raises:
        StoreError: it cannot be read, or is none of this schema.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    schema = _NAMED_SCHEMA.search(content)
    if schema and schema[1] != SCHEMA.encode():
        raise StoreError(
            f"{path}: found schema {schema[1].decode(errors='replace')}, expected {SCHEMA}: compare it with "
            "the version of router-agent that took it"
        )
    try:
        return Snapshot.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise StoreError(f"{path}: is no snapshot ({where}: {first['msg']}), expected {SCHEMA}") from error
