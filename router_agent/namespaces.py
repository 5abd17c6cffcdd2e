"""Open things inside a named network namespace.

A namespace is named as ``ip netns`` names it (``/run/netns/NAME``) or by a path with a slash in it
(``/proc/PID/ns/net``). A socket stays for ever in the namespace it was created in, so a process can hold
sockets in several namespaces; only the calling thread moves, and only while `inside` is active.

An open socket keeps a namespace alive after its name is gone. `Watch` therefore follows the name.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMED = Path("/run/netns")
"""Where ``ip netns`` keeps its names."""

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_IN_CREATE_DELETE = 0x00000100 | 0x00000200  # linux/inotify.h: IN_CREATE, IN_DELETE
_IN_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC
_INOTIFY_HEADER = struct.calcsize("iIII")

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(Exception):
    """A namespace cannot be entered or left; the message says what to do."""


def path_of(name: str) -> Path:
    """Return the file that stands for a namespace: a path as given, or a name under ``/run/netns``."""
    return Path(name) if "/" in name else NAMED / name


def identity(name: str) -> tuple[int, int] | None:
    """Return (device, inode) of the namespace a name stands for now, or None when there is none.

    A name that was deleted and added again stands for another namespace.
    """
    try:
        found = path_of(name).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def inside(name: str | None) -> Iterator[None]:
    """Run the body with the calling thread in a namespace; None means the thread's own.

    Raises:
        NamespaceError: the namespace does not exist, or entering or leaving it is not permitted. After
            a failure to leave, the thread is in the wrong namespace and must not be used on.
    """
    if name is None:
        yield
        return
    # the thread's own link, not the process's: threads may be in different namespaces
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(name)
        try:
            yield
        finally:
            _set(own, "the namespace the thread came from")
    finally:
        os.close(own)


def _enter(name: str) -> None:
    path = path_of(name)
    try:
        target = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NamespaceError(
            f"network namespace {name!r} does not exist (no {path}): create it with 'ip netns add {name}' "
            "or correct the name"
        ) from None
    except OSError as error:
        raise NamespaceError(
            f"network namespace {name!r} cannot be opened ({path}): {error.strerror}"
        ) from None
    try:
        _set(target, f"network namespace {name!r}")
    finally:
        os.close(target)


def _set(descriptor: int, what: str) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) == 0:
        return
    number = ctypes.get_errno()
    advice = {
        errno.EPERM: "run with CAP_SYS_ADMIN (as root)",
        errno.EINVAL: "the file is not a network namespace",
    }.get(number, "see setns(2)")
    raise NamespaceError(f"cannot enter {what}: {os.strerror(number)}; {advice}")


class Watch:
    """Notices that a namespace's name was deleted, or now stands for another namespace.

    Uses inotify on the directory of the name. Register `fileno` with an event loop and ask `gone` when it
    is readable; a namespace given by a path under ``/proc`` has no directory events and is found out only
    when somebody asks.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._identity = identity(name)
        self._descriptor = _libc.inotify_init1(_IN_NONBLOCK_CLOEXEC)
        if self._descriptor < 0:
            raise NamespaceError(
                f"cannot watch namespace {name!r}: {os.strerror(ctypes.get_errno())}; "
                "raise fs.inotify.max_user_instances"
            )
        # a failure leaves the answer of gone() right, only later
        _libc.inotify_add_watch(
            self._descriptor, os.fsencode(path_of(name).parent), ctypes.c_uint32(_IN_CREATE_DELETE)
        )

    def fileno(self) -> int:
        """Return the descriptor that turns readable when names come and go."""
        return int(self._descriptor)

    def gone(self) -> bool:
        """Return whether the name no longer stands for the namespace it stood for at first."""
        try:
            while len(os.read(self._descriptor, 4096)) >= _INOTIFY_HEADER:
                pass
        except BlockingIOError:
            pass
        return identity(self._name) != self._identity

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
