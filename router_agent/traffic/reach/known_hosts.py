"""Which key a host is known by: files of sshd(8)'s SSH_KNOWN_HOSTS FILE FORMAT.

paramiko's own reader keeps one key of a type for a host and knows neither patterns nor ``@revoked``.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path


@dataclass(frozen=True)
class KnownKeys:
    """What files say of one host.

    Attributes:
        keys: (type, key as it is on the wire, file and line) of each key it is known by.
        revoked: keys that nobody may have any more, whatever the host.
        files: those that were there to be read.
        authority: an ``@cert-authority`` line stands for the host; certificates of hosts are not supported.
    """

    keys: tuple[tuple[str, bytes, str], ...] = ()
    revoked: frozenset[bytes] = field(default_factory=frozenset)
    files: tuple[Path, ...] = ()
    authority: bool = False

    @property
    def types(self) -> list[str]:
        """Types of the keys it is known by, each once."""
        return list(dict.fromkeys(kind for kind, _, _ in self.keys))

    def place_of(self, key: bytes) -> str | None:
        """Return the file and line that has this key; None when none has."""
        return next((place for _, known, place in self.keys if hmac.compare_digest(known, key)), None)


def keys_of(name: str, files: Iterable[Path]) -> KnownKeys:
    """Return what files say of a host; files that are not there say nothing.

    Args:
        name: ``HOST``, or ``[HOST]:PORT`` where the port is not 22.
        files: known_hosts files.

    Raises:
        OSError: a file cannot be read.
    """
    keys: list[tuple[str, bytes, str]] = []
    revoked: set[bytes] = set()
    read: list[Path] = []
    authority = False
    for file in files:
        try:
            lines = file.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue
        read.append(file)
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            marker = words.pop(0) if words[0].startswith("@") else ""
            if len(words) < 3 or not _names(words[0], name.lower()):
                continue
            key = _decoded(words[2])
            if key is None:
                continue
            if marker == "@revoked":
                revoked.add(key)
            elif marker == "@cert-authority":
                authority = True
            elif not marker:
                keys.append((words[1], key, f"{file}, line {number}"))
    return KnownKeys(tuple(keys), frozenset(revoked), tuple(read), authority)


def _names(patterns: str, name: str) -> bool:
    """Return whether a line's names stand for the host; one ``!name`` that does outweighs all others."""
    found = False
    for pattern in patterns.split(","):
        if pattern.startswith("|1|"):
            found |= _hashed(pattern, name)
        elif pattern.startswith("!"):
            if _matches(pattern[1:], name):
                return False
        else:
            found |= _matches(pattern, name)
    return found


def _matches(pattern: str, name: str) -> bool:
    # brackets are part of the name here, not a set of characters
    return fnmatchcase(name, pattern.lower().replace("[", "[[]"))


def _hashed(pattern: str, name: str) -> bool:
    salt, _, digest = pattern.removeprefix("|1|").partition("|")
    salted, expected = _decoded(salt), _decoded(digest)
    if salted is None or expected is None:
        return False
    return hmac.compare_digest(hmac.new(salted, name.encode(), hashlib.sha1).digest(), expected)


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
