"""A unix socket to listen on: one process has it, and its group and mode say who may connect."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import stat
from contextlib import suppress
from pathlib import Path


class ListeningError(Exception):
    """The socket cannot be had; the message says what was found, what was expected and what to do."""


class UnixListener:
    """Makes a listening stream socket, and takes it away again.

    Args:
        path: of the socket; its directory is made when missing.
        mode: permissions of the socket.
        group: its group, by name or number; None leaves the process's own.
        key: what the configuration calls it, such as ``control.socket``, for messages.
    """

    def __init__(self, path: Path, *, mode: int, group: str | None, key: str) -> None:
        self._path = path
        self._mode = mode
        self._group = group
        self._key = key
        self._lock: int | None = None
        self._inode: int | None = None

    def open(self) -> socket.socket:
        """Return the bound socket; nobody can connect before it listens.

        Raises:
            ListeningError: another process has it, or it cannot be made.
        """
        try:
            self._path.parent.mkdir(mode=0o755, exist_ok=True)
            self._lock = self._hold_lock()
            listener = self._bind()
            self._inode = self._path.stat().st_ino
        except OSError as error:
            self._release()
            raise ListeningError(f"{self}: {error.strerror or error}") from error
        except ListeningError:
            self._release()
            raise
        return listener

    def close(self) -> None:
        """Remove the socket, if it is still the one that was made; idempotent."""
        if self._lock is None:
            return
        with suppress(FileNotFoundError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        self._release()

    def __str__(self) -> str:
        return f"control socket {self._path}"

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _hold_lock(self) -> int:
        """Take the lock beside the socket, which the kernel frees when its holder dies; return it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(f"{self._path}.lock", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.write(lock, f"{os.getpid()}\n".encode())
        except BlockingIOError:
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise ListeningError(
                f"{self}: found another agent on it (process {holder}), expected none; "
                f"stop that one, or configure another {self._key}"
            ) from None
        except OSError:
            os.close(lock)
            raise
        return lock

    def _bind(self) -> socket.socket:
        self._clear()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(self._path))
            if self._group is not None:
                group: str | int = int(self._group) if self._group.isdecimal() else self._group
                shutil.chown(self._path, group=group)
            self._path.chmod(self._mode)
        except LookupError as error:
            listener.close()
            raise ListeningError(
                f"{self}: found no group {self._group!r}; create it, or configure another for {self._key}"
            ) from error
        except OSError:
            listener.close()
            raise
        return listener

    def _clear(self) -> None:
        """Remove the socket of a process that died.

        Raises:
            ListeningError: what is there is no socket, or somebody listens on it.
        """
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise ListeningError(
                f"{self}: found something that is no socket, expected nothing or an old socket; "
                f"remove it, or configure another {self._key}"
            )
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            if probe.connect_ex(str(self._path)) != errno.ECONNREFUSED:
                raise ListeningError(
                    f"{self}: found a program listening on it, expected none; "
                    f"stop that one, or configure another {self._key}"
                )
        self._path.unlink()
