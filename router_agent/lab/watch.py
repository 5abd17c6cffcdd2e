"""Watching processes while something happens to them: CPU time, memory, and events the kernel dropped."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from router_agent.lab.errors import LabError
from router_agent.namespaces import inside

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_USER_TIME, _RESIDENT = 11, 1
"""Positions in /proc/PID/stat after the name, and in /proc/PID/statm; see proc(5)."""
_NETLINK_WAITING, _NETLINK_DROPS, _NETLINK_INODE = 4, 8, 9
"""Columns of /proc/net/netlink."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a process has used.

    Attributes:
        cpu_seconds: of all its threads, since it began.
        resident_bytes: memory it has now.
    """

    cpu_seconds: float
    resident_bytes: int

    @classmethod
    def of(cls, pid: int) -> Use:
        """Look at a process.

        Raises:
            LabError: it is not there.
        """
        try:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            pages = Path(f"/proc/{pid}/statm").read_text().split()[_RESIDENT]
        except (FileNotFoundError, ProcessLookupError):
            raise LabError(f"found no process {pid}, expected one to watch: did it end?") from None
        ticks = sum(map(int, stat[_USER_TIME : _USER_TIME + 2]))
        return cls(ticks / _TICKS_PER_SECOND, int(pages) * _PAGE_BYTES)


@dataclass(frozen=True, slots=True)
class Sample:
    """What every process had used at one moment, by name.

    Attributes:
        seconds: since the watch began.
        uses: by the name it is watched under.
    """

    seconds: float
    uses: Mapping[str, Use]


class Watch:
    """Looks at processes while the body of a ``with`` block runs: at its begin, its end and in between.

    Args:
        processes: process ids by a name for people.
        every_seconds: time between looks.

    Attributes:
        samples: what was seen, in order.
    """

    def __init__(self, processes: Mapping[str, int], *, every_seconds: float = 0.5) -> None:
        self._processes = dict(processes)
        self._every = every_seconds
        self._began = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch", daemon=True)
        self.samples: list[Sample] = []

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._look()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        if error is None:
            self._look()

    @property
    def names(self) -> list[str]:
        """What is watched."""
        return [*self._processes]

    def cpu(self, name: str) -> float:
        """Return the CPUs a process kept busy in the mean."""
        first, last = self.samples[0], self.samples[-1]
        used = last.uses[name].cpu_seconds - first.uses[name].cpu_seconds
        return used / (last.seconds - first.seconds)

    def resident(self, name: str) -> list[int]:
        """Return a process's resident memory in bytes, sample by sample."""
        return [sample.uses[name].resident_bytes for sample in self.samples]

    def _look_on(self) -> None:
        while not self._over.wait(self._every):
            try:
                self._look()
            except LabError:
                return  # whoever waits for the process will say so

    def _look(self) -> None:
        uses = {name: Use.of(pid) for name, pid in self._processes.items()}
        self.samples.append(Sample(time.monotonic() - self._began, uses))


@dataclass(frozen=True, slots=True)
class NetlinkQueues:
    """The netlink sockets of a process in one namespace, taken together.

    Attributes:
        waiting_bytes: kernel memory of what was not read yet.
        drops: messages the kernel had no room for.
    """

    waiting_bytes: int
    drops: int

    @classmethod
    def of(cls, namespace: str, pid: int) -> NetlinkQueues:
        """Read /proc/net/netlink (net/netlink/af_netlink.c, netlink_native_seq_show)."""
        inodes = _socket_inodes(pid)
        with inside(namespace):
            lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
        rows = [words for line in lines if (words := line.split())[_NETLINK_INODE] in inodes]
        return cls(
            sum(int(words[_NETLINK_WAITING]) for words in rows),
            sum(int(words[_NETLINK_DROPS]) for words in rows),
        )


def _socket_inodes(pid: int) -> set[str]:
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            target = str(link.readlink())
            if target.startswith("socket:["):
                inodes.add(target[len("socket:[") : -1])
    return inodes
