"""VPP's stats segment: shared memory that VPP writes and anybody may read, at no cost to VPP.

Layout (src/vlib/stats/shared.h, version 2): a header, then a directory, a vector of entries of 144 bytes, of
which each counter vector points to one vector a thread. Pointers are VPP's own; the header says where VPP
has the segment mapped. Reading is optimistic: what was read counts when neither VPP was changing the
directory nor its epoch moved meanwhile.

vpp_papi's reader is not used here: it waits without end for a VPP that died while it changed the directory,
and makes a million counters into a million Python objects.
"""

from __future__ import annotations

import array
import mmap
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from router_agent.model import I64, U64

_HEADER = struct.Struct("=QQQQQQ")
_VERSION = 2
_ENTRY = np.dtype([("type", "<u4"), ("unused", "<u4"), ("value", "<u8"), ("name", "S128")])
"""``vlib_stats_entry_t``: type, a value or a pointer, a name; 144 bytes."""
_SCALAR, _SIMPLE, _COMBINED, _NAMES, _SYMLINK, _GAUGE = 1, 2, 3, 4, 6, 9
"""``STAT_DIR_TYPE_SCALAR_INDEX``, ``_COUNTER_VECTOR_SIMPLE``, ``_COMBINED``, ``_NAME_VECTOR``, ``_SYMLINK``,
``_GAUGE``."""
_SINGLE = (_SCALAR, _GAUGE)
_WORDS = {_SIMPLE: 1, _COMBINED: 2}
_TRIES = 20
_CONNECT_SECONDS = 1.0

T = TypeVar("T")


class StatsError(Exception):
    """The stats segment cannot be read; the message says what to do."""


class StatsBusyError(StatsError):
    """VPP was changing the directory all the while; try again later."""


class StatsSegment:
    """A mapped stats segment. It stays readable when its VPP has died: see `heartbeat`.

    Args:
        path: the segment's socket (``statseg { socket-name … }`` of startup.conf).

    Raises:
        StatsError: it cannot be connected to, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._map = _mapped(path)
        self._bytes = np.frombuffer(self._map, np.uint8)
        self._epoch = -1
        self._directory: dict[str, tuple[int, int]] = {}
        self._links: dict[str, dict[int, tuple[list[str], I64]]] = {}
        version = self._header()[0]
        if version != _VERSION:
            self.close()
            raise StatsError(
                f"stats segment {path} has version {version}, expected {_VERSION}: use a VPP this agent knows"
            )

    def close(self) -> None:
        """Unmap it; idempotent."""
        self._bytes = np.empty(0, np.uint8)
        self._map.close()

    @property
    def heartbeat(self) -> int:
        """How often VPP has updated its gauges (every 10 s unless ``update-interval`` says otherwise).

        Raises:
            StatsError: as for all reading.
        """
        return self._stable(lambda: self._entry("/sys/heartbeat")[1])

    def shape(self, name: str) -> tuple[int, int]:
        """Return the threads and the length of a counter vector.

        Raises:
            StatsError: there is no such counter, or it cannot be read.
        """

        def read() -> tuple[int, int]:
            threads, _ = self._threads(name)
            return len(threads), max((self._length(int(at)) for at in threads), default=0)

        return self._stable(read)

    def simple(self, name: str) -> U64:
        """Return a vector of simple counters of the first thread, copied.

        Raises:
            StatsError: as for `shape`.
        """

        def read() -> U64:
            threads, _ = self._threads(name)
            return self._vector(int(threads[0]), 1) if len(threads) else np.empty(0, np.uint64)

        return self._stable(read)

    def combined(self, name: str, index: int) -> tuple[int, int]:
        """Return packets and bytes of one combined counter, of all threads together.

        Raises:
            StatsError: as for `shape`.
        """

        def read() -> tuple[int, int]:
            threads, words = self._threads(name)
            totals = np.zeros(2, np.uint64)
            for at in threads:
                if index < self._length(int(at)):
                    totals[:words] += self._words(int(at) + 8 * words * index, words)
            return int(totals[0]), int(totals[1])

        return self._stable(read)

    def per_thread(self, name: str) -> list[U64]:
        """Return a vector of counters of each thread, shape (n,), or (n, 2) for packets and bytes; copied.

        Raises:
            StatsError: as for `shape`.
        """

        def read() -> list[U64]:
            threads, words = self._threads(name)
            vectors = [self._vector(int(at), words) for at in threads]
            return [v.reshape(-1, words) if words > 1 else v for v in vectors]

        return self._stable(read)

    def gauge(self, name: str) -> int:
        """Return a single value.

        Raises:
            StatsError: as for `shape`.
        """

        def read() -> int:
            kind, value = self._entry(name)
            if kind not in _SINGLE:
                raise StatsError(f"stats segment {self._path}: {name} is of type {kind}, expected one value")
            return value

        return self._stable(read)

    def texts(self, name: str) -> list[str]:
        """Return a vector of names; places that are free are empty.

        Raises:
            StatsError: as for `shape`.
        """

        def read() -> list[str]:
            kind, pointer = self._entry(name)
            if kind != _NAMES:
                raise StatsError(f"stats segment {self._path}: {name} is of type {kind}, expected names")
            return [self._text(int(at)) for at in self._vector(pointer, 1)]

        return self._stable(read)

    def called(self, prefix: str) -> list[str]:
        """Return the names of all entries that begin so.

        Raises:
            StatsError: the segment cannot be read.
        """
        return self._stable(lambda: [name for name in self._directory if name.startswith(prefix)])

    def links(self, prefix: str) -> dict[str, int]:
        """Return the counters above zero, of all threads together, that links lead to whose names begin so.

        There are thousands of them (``/err/NODE/REASON``), which are columns of very few tables.

        Raises:
            StatsError: as for `shape`.
        """

        def read() -> dict[str, int]:
            if prefix not in self._links:
                self._links[prefix] = self._read_links(prefix)
            found = {}
            for row, (names, columns) in self._links[prefix].items():
                totals = self._totals(row)
                inside = np.flatnonzero(columns < len(totals))
                counts = totals[columns[inside]]
                for at in np.flatnonzero(counts).tolist():
                    found[names[int(inside[at])]] = int(counts[at])
            return found

        return self._stable(read)

    def linked(self, name: str) -> int:
        """Return the counter that a link such as ``/err/NODE/REASON`` leads to, of all threads together.

        Raises:
            StatsError: as for `shape`.
        """

        def read() -> int:
            kind, value = self._entry(name)
            if kind != _SYMLINK:
                raise StatsError(f"stats segment {self._path}: {name} is of type {kind}, expected a link")
            row, column = value & 0xFFFFFFFF, value >> 32
            totals = self._totals(row)
            return int(totals[column]) if column < len(totals) else 0

        return self._stable(read)

    def has(self, name: str) -> bool:
        """Return whether there is an entry of this name.

        Raises:
            StatsError: the segment cannot be read.
        """
        return self._stable(lambda: name in self._directory)

    def _stable(self, read: Callable[[], T]) -> T:
        """Return what was read while VPP changed nothing."""
        for _ in range(_TRIES):
            _, _, epoch, in_progress, _, _ = self._header()
            if in_progress:
                continue
            try:
                if epoch != self._epoch:
                    self._directory = self._read_directory()
                    self._links.clear()
                    self._epoch = epoch
                found = read()
            except (IndexError, ValueError) as error:
                # A pointer that was read half: the epoch tells. One that is wrong for good is no pointer.
                if self._header()[2:4] == (epoch, 0):
                    raise StatsError(f"stats segment {self._path} cannot be understood: {error}") from error
                continue
            if self._header()[2:4] == (epoch, 0):
                return found
            self._epoch = -1
        raise StatsBusyError(f"VPP keeps changing the directory of its stats segment {self._path}")

    def _header(self) -> tuple[int, int, int, int, int, int]:
        try:
            return _HEADER.unpack_from(self._map)
        except ValueError as error:
            raise StatsError(f"stats segment {self._path} is closed") from error

    def _read_directory(self) -> dict[str, tuple[int, int]]:
        at = self._offset(self._header()[4])
        count = self._vector_length(at)
        entries = np.frombuffer(self._slice(at, count * _ENTRY.itemsize), _ENTRY)
        return {
            name.partition(b"\0")[0].decode(errors="replace"): (int(kind), at + number * _ENTRY.itemsize)
            for number, (kind, name) in enumerate(
                zip(entries["type"].tolist(), entries["name"].tolist(), strict=True)
            )
            if name
        }

    def _read_links(self, prefix: str) -> dict[int, tuple[list[str], I64]]:
        """Return names and columns of the links, by the place in the directory that they lead to."""
        found: dict[int, list[tuple[str, int]]] = {}
        for name, (kind, at) in self._directory.items():
            if kind == _SYMLINK and name.startswith(prefix):
                value = int.from_bytes(self._slice(at + 8, 8), "little")
                found.setdefault(value & 0xFFFFFFFF, []).append((name, value >> 32))
        return {
            row: ([name for name, _ in links], np.array([column for _, column in links], np.int64))
            for row, links in found.items()
        }

    def _totals(self, row: int) -> U64:
        """Return a vector of simple counters by its place in the directory, all threads together."""
        at = self._offset(self._header()[4]) + row * _ENTRY.itemsize
        pointer = int.from_bytes(self._slice(at + 8, 8), "little")
        vectors = [self._vector(int(thread), 1) for thread in self._vector(pointer, 1)]
        totals = np.zeros(max(map(len, vectors), default=0), np.uint64)
        for vector in vectors:
            totals[: len(vector)] += vector
        return totals

    def _text(self, pointer: int) -> str:
        if not pointer:
            return ""
        at = self._offset(pointer)
        return self._slice(at, self._vector_length(at)).partition(b"\0")[0].decode(errors="replace")

    def _entry(self, name: str) -> tuple[int, int]:
        """Return type and value of an entry; the value is read now, for VPP changes it in place."""
        found = self._directory.get(name)
        if found is None:
            raise StatsError(f"stats segment {self._path} has no counter {name}: use a VPP this agent knows")
        kind, at = found
        return kind, int.from_bytes(self._slice(at + 8, 8), "little")

    def _threads(self, name: str) -> tuple[U64, int]:
        kind, pointer = self._entry(name)
        words = _WORDS.get(kind)
        if words is None:
            raise StatsError(f"stats segment {self._path}: {name} is of type {kind}, expected counters")
        return (self._vector(pointer, 1) if pointer else np.empty(0, np.uint64)), words

    def _vector(self, pointer: int, words: int) -> U64:
        return self._words(pointer, words * self._length(pointer))

    def _words(self, pointer: int, count: int) -> U64:
        return np.frombuffer(self._slice(self._offset(pointer), 8 * count), np.uint64).copy()

    def _length(self, pointer: int) -> int:
        return self._vector_length(self._offset(pointer)) if pointer else 0

    def _vector_length(self, at: int) -> int:
        """Return ``vec_len`` of a vector of VPP's: 4 bytes, 8 before its first element."""
        return int.from_bytes(self._slice(at - 8, 4), "little")

    def _offset(self, pointer: int) -> int:
        return pointer - self._header()[1]

    def _slice(self, at: int, count: int) -> bytes:
        if at < 0 or at + count > len(self._bytes):
            raise IndexError(f"{count} bytes at {at} of {len(self._bytes)}")
        return self._bytes[at : at + count].tobytes()


def _mapped(path: Path) -> mmap.mmap:
    """Return the segment's memory, for which VPP hands over a descriptor."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_CONNECT_SECONDS)
            connection.connect(str(path))
            _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    except OSError as error:
        raise StatsError(
            f"cannot read VPP's stats segment on {path} ({error.strerror or error}): let startup.conf name "
            f"it (`statseg {{ socket-name {path} }}`) and the agent's user open it"
        ) from error
    if not descriptors:
        raise StatsError(f"{path} handed over no memory; is it VPP's stats socket?")
    descriptor = array.array("i", descriptors)[0]
    try:
        return mmap.mmap(descriptor, os.fstat(descriptor).st_size, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(descriptor)
