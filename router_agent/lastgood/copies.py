"""Copies of the whole configuration, in /etc/pop-router/last-good/copies, a directory for each.

/etc, because it is there before anything else is: /var may be a file system of its own. A copy is complete
or not there: its directory gets its name last. It is readable by root alone, whatever the modes of what is
in it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router_agent.lastgood import durable
from router_agent.lastgood.entries import Entry, below, differences, digest_of, elsewhere, present, read

STATE = "/etc/pop-router/last-good"
SCHEMA = "last-good/copy/1"
_MANIFEST = "manifest.json"


class CopyError(Exception):
    """A copy cannot be used; the message says why, and what to do."""


@dataclass(frozen=True)
class Copy:
    """One copy.

    Attributes:
        name: a number, six digits; later ones are larger.
        taken: when, in UTC.
        reason: why, in the words of whoever asked for it.
        patterns: what was looked for.
        entries: what was there, by absolute path.
        contents: path to the name of the file in the copy's directory that holds the content.
        running: units, and whether they ran.
        frr: what FRR's file and what it ran differed in; see `frr.differences`.
        left_out: paths that are on another file system than the root.
    """

    name: str
    taken: str
    reason: str
    patterns: tuple[str, ...]
    entries: dict[str, Entry]
    contents: dict[str, str]
    running: dict[str, bool]
    frr: tuple[str, ...]
    left_out: tuple[str, ...]


class Copies:
    """The copies of a host.

    Args:
        root: where the host's files are.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = below(root, STATE) / "copies"

    def names(self) -> list[str]:
        """Return the names of all copies, the oldest first."""
        if not self._directory.is_dir():
            return []
        return sorted(path.name for path in self._directory.iterdir() if path.name.isdigit())

    def save(
        self,
        patterns: Iterable[str],
        running: dict[str, bool],
        *,
        taken: str,
        reason: str,
        frr: Iterable[str] = (),
    ) -> Copy:
        """Keep everything as it is now; see `Copy`.

        Raises:
            OSError: it cannot be written; there is no new copy then.
            EntryError: a directory is where a file should be.
        """
        self._prepare()
        number = int(self.names()[-1]) + 1 if self.names() else 1
        name, draft = f"{number:06}", self._directory / ".new"
        patterns = tuple(patterns)
        found = sorted(present(patterns, self._root))
        left_out = tuple(path for path in found if elsewhere(path, self._root))
        entries: dict[str, Entry] = {}
        contents: dict[str, str] = {}
        draft.mkdir(mode=0o700)
        for path in found:
            entry, content = read(below(self._root, path), path)
            if entry is None or path in left_out:
                continue
            entries[path] = entry
            if entry.kind == "file":
                contents[path] = str(len(contents))
                durable.write(draft / contents[path], content)
        copy = Copy(name, taken, reason, patterns, entries, contents, running, tuple(frr), left_out)
        durable.write(draft / _MANIFEST, _packed(copy))
        draft.rename(self._directory / name)
        durable.sync_directory(self._directory)
        return copy

    def load(self, name: str) -> Copy:
        """Return a copy.

        Raises:
            CopyError: there is none of this name, or its list is damaged.
        """
        path = self._directory / name / _MANIFEST
        try:
            return _unpacked(path.read_bytes())
        except FileNotFoundError:
            raise CopyError(
                f"copy {name}: found none of this name, expected one of {', '.join(self.names()) or 'none'}"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CopyError(
                f"{path}: found a damaged list ({error}), expected the one that was kept"
            ) from error

    def content(self, copy: Copy, path: str) -> bytes:
        """Return the content that was kept of a file, checked.

        Raises:
            CopyError: it is not what was kept.
        """
        kept = self.file(copy, path)
        try:
            content = kept.read_bytes()
        except OSError as error:
            raise CopyError(f"{kept}: found {error.strerror}, expected the content of {path}") from error
        if digest_of(content) != copy.entries[path].digest:
            raise CopyError(
                f"{kept}: found another content than was kept of {path}: the disk or somebody has changed it"
            )
        return content

    def file(self, copy: Copy, path: str) -> Path:
        """Return the file that holds the content of a path."""
        return self._directory / copy.name / copy.contents[path]

    def changed(self, copy: Copy) -> list[str]:
        """Return the paths that are not as they were kept."""
        return list(differences(copy.entries, copy.patterns, self._root))

    def drop(self, name: str) -> None:
        """Remove a copy; at no time is there half of it."""
        gone = self._directory / f".old-{name}"
        with contextlib.suppress(FileNotFoundError):
            (self._directory / name).rename(gone)
            durable.sync_directory(self._directory)
        shutil.rmtree(gone, ignore_errors=True)

    def prune(self, kept: int, *, needed: str | None = None) -> None:
        """Remove the oldest copies until so many are left.

        Args:
            kept: how many.
            needed: name of one that stays in any case.
        """
        for name in self.names()[:-kept]:
            if name != needed:
                self.drop(name)

    def _prepare(self) -> None:
        make_private(self._directory.parent)
        make_private(self._directory)
        for left in self._directory.glob(".*"):
            shutil.rmtree(left)


def make_private(directory: Path) -> None:
    """Make a directory for root alone; those above it are for everybody."""
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    directory.chmod(0o700)


def _packed(copy: Copy) -> bytes:
    content = asdict(copy) | {"schema": SCHEMA}
    return json.dumps({"copy": content, "digest": digest_of(_canonical(content))}, indent=1).encode()


def _unpacked(text: bytes) -> Copy:
    found = json.loads(text)
    content: dict[str, Any] = found["copy"]
    if found["digest"] != digest_of(_canonical(content)):
        raise ValueError("its digest is another")
    if content.pop("schema") != SCHEMA:
        raise ValueError(f"it is not in the form {SCHEMA}")
    content["entries"] = {
        path: Entry(**(entry | {"owner": tuple(entry["owner"])}))
        for path, entry in content["entries"].items()
    }
    return Copy(**(content | {key: tuple(content[key]) for key in ("patterns", "frr", "left_out")}))


def _canonical(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
