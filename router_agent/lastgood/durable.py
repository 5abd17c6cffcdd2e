"""Files that are whole after a power cut, and there once the call has returned."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIX = ".last-good"
"""Ends the name of a file that is being written: one that nobody reads, whatever directory it is in."""


def draft_of(path: Path) -> Path:
    """Return where the new content of a path is written before it takes its place."""
    return path.with_name(f".{path.name}{SUFFIX}")


def write(path: Path, content: bytes, *, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Put a content into a file at once; a reader sees the old one or the new one.

    Args:
        path: the file; its directory is there.
        content: all of it.
        mode: permissions; never more than these, not even for a moment.
        owner: user and group ids; those of this process when not given.

    Raises:
        OSError: it cannot be written; the old file is as it was.
    """
    draft = draft_of(path)
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove a file, for good; nothing happens when there is none."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Have the names in a directory survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
