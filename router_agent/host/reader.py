"""Reads the small files of /proc and /sys, and remembers which could not be read, and why."""

from __future__ import annotations

from pathlib import Path


class Reader:
    """Files below a root directory; paths are relative to it.

    Attributes:
        unknown: what could not be read, and why.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.unknown: dict[str, str] = {}

    def has(self, path: str) -> bool:
        """Return whether there is such a file or directory."""
        return (self._root / path).exists()

    def content(self, path: str, what: str | None = None) -> bytes | None:
        """Return what a file holds; None when it cannot be read, which is remembered under `what`."""
        try:
            return (self._root / path).read_bytes()
        except OSError as error:
            if what is not None:
                self.unknown[what] = f"/{path}: {error.strerror}"
            return None

    def text(self, path: str, what: str | None = None) -> str | None:
        """Return the same as text, without the end of its last line."""
        content = self.content(path, what)
        return None if content is None else content.decode(errors="replace").strip()

    def number(self, path: str, what: str | None = None) -> int | None:
        """Return the same as a number, in decimal or as 0x...; None when it is none."""
        try:
            return int(self.text(path, what) or "", 0)
        except ValueError:
            return None

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none when there is no such directory."""
        try:
            return sorted(entry.name for entry in (self._root / path).iterdir())
        except OSError:
            return []

    def target(self, path: str) -> str | None:
        """Return the last part of what a symbolic link leads to; None when it is none."""
        try:
            return (self._root / path).readlink().name
        except OSError:
            return None
