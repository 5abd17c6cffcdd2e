"""One path as it is: a file with its content, a symbolic link with its target, or nothing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from router_agent.lastgood import drained


class EntryError(Exception):
    """A path is neither a file nor a link nor nothing."""


@dataclass(frozen=True)
class Entry:
    """A file or a symbolic link.

    Attributes:
        kind: `file` or `link`.
        mode: permissions of a file.
        owner: user and group ids.
        digest: SHA-256 of a file's content, in hexadecimal.
        meaning: the same of what counts of it: without the lines of a drain, which come and go by themselves.
        target: of a link.
    """

    kind: str
    mode: int
    owner: tuple[int, int]
    digest: str = ""
    meaning: str = ""
    target: str = ""

    def same(self, other: Entry | None) -> bool:
        """Whether both are the same, drained or not."""
        if other is None or (self.kind, self.target, self.meaning) != (
            other.kind,
            other.target,
            other.meaning,
        ):
            return False
        return self.kind == "link" or (self.mode, self.owner) == (other.mode, other.owner)


def below(root: Path, path: str) -> Path:
    """Return where an absolute path of a host is below a root."""
    return root / path.lstrip("/")


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a content."""
    return hashlib.sha256(content).hexdigest()


def read(path: Path, name: str) -> tuple[Entry | None, bytes]:
    """Return what is at a path, with its content; None where nothing is.

    Args:
        path: where it is.
        name: its absolute path on the host.

    Raises:
        EntryError: it is something else, a directory for example.
        OSError: it cannot be read.
    """
    try:
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            owner = (found.st_uid, found.st_gid)
            return Entry("link", 0o777, owner, target=str(path.readlink())), b""
        if not stat.S_ISREG(found.st_mode):
            raise EntryError(f"{name}: found something that is no file and no link, expected one of them")
        with path.open("rb") as file:
            # Of the file that was opened, which may be another one by now.
            found = os.fstat(file.fileno())
            content = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None, b""
    entry = Entry(
        "file",
        stat.S_IMODE(found.st_mode),
        (found.st_uid, found.st_gid),
        digest=digest_of(content),
        meaning=digest_of(drained.without(name, content)),
    )
    return entry, content


def present(patterns: Iterable[str], root: Path) -> Iterator[str]:
    """Yield the paths that match one of the patterns and are a file or a link, each once."""
    seen = set()
    for pattern in patterns:
        for path in root.glob(pattern.lstrip("/")):
            name = f"/{path.relative_to(root)}"
            if name not in seen and (path.is_symlink() or path.is_file()):
                seen.add(name)
                yield name


def elsewhere(name: str, root: Path) -> bool:
    """Whether a path is on another file system than the root: one that may not be there yet at boot."""
    directory = below(root, name).parent
    while not directory.exists():
        directory = directory.parent
    return directory.stat().st_dev != root.stat().st_dev


def differences(
    kept: Mapping[str, Entry], patterns: Iterable[str], root: Path
) -> dict[str, tuple[Entry | None, bytes]]:
    """Return the paths that are not as they were kept, with what is there now."""
    found = {}
    for name in sorted({*kept, *(name for name in present(patterns, root) if not elsewhere(name, root))}):
        now, content = read(below(root, name), name)
        wanted = kept.get(name)
        if not (wanted.same(now) if wanted else now is None):
            found[name] = (now, content)
    return found
