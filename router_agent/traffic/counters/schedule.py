"""How long the tester's own processes ran and waited for a CPU (/proc/PID/task/*/schedstat).

A sender that waits sends in bursts, a receiver that waits lets its ring fill: neither says anything about the
device. Each thread's file has nanoseconds on a CPU, nanoseconds runnable without one, and time slices
(Documentation/scheduler/sched-stats.rst).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from router_agent.traffic.counters.source import DropClass

NAME = "tester's processes"
_RAN, _WAITED = "ran_ns", "waited_ns"


class Scheduling:
    """Run and waiting times of processes.

    Args:
        process_ids: returns those that are there now.
    """

    name = NAME

    def __init__(self, process_ids: Callable[[], Sequence[int]]) -> None:
        self._process_ids = process_ids

    def read(self) -> dict[str, int]:
        """Return the times of each process; 0 of one that has ended, or that the kernel keeps none of."""
        counters: dict[str, int] = {}
        for pid in self._process_ids():
            ran, waited = _times(pid)
            counters |= {f"{pid}.{_RAN}": ran, f"{pid}.{_WAITED}": waited}
        return counters

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:  # noqa: ARG002
        """Return nothing: it is evidence."""
        return []


def waiting_share(sources: Mapping[str, Mapping[str, int]], seconds: float) -> float:
    """Return the share of a time for which the process that waited most waited for a CPU.

    Args:
        sources: growth of counters by source, see `Ledger.moved`.
        seconds: the time.
    """
    # a tester on another host has all its counters in one source
    waited = (n for moved in sources.values() for name, n in moved.items() if name.endswith(f".{_WAITED}"))
    return min(1.0, max(waited, default=0) / 1e9 / seconds) if seconds > 0 else 0.0


def _times(pid: int) -> tuple[int, int]:
    ran = waited = 0
    for text in _schedstats(pid):
        on_cpu, runnable, _ = text.split()
        ran, waited = ran + int(on_cpu), waited + int(runnable)
    return ran, waited


def _schedstats(pid: int) -> Iterable[str]:
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            yield path.read_text()
        except OSError:  # the thread ended meanwhile
            continue
