"""One step of one contender: do it, look until VPP is right, measure.

Looking is the same for both: every `Bed.poll` seconds a few prefixes are looked up in VPP through its API,
those written last first, and the look ends at the first that is wrong. When all are right the whole of VPP's
FIB is compared with the whole of the kernel's table. Times are those of the look, not of the comparison.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from router_agent.model import U64, Family, Interner, PathSet
from router_agent.vpp.session import VppSession

from .bed import Bed
from .contenders import Contender
from .forwarding import Forwarding
from .kernel import Kernel
from .routes import Difference, compare, lowest_terms, within

_PAUSE_SECONDS = 2.0
"""From a comparison that found VPP wrong to the next."""
_SAMPLE = 24
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Usage:
    """What a process has used since it started: CPU seconds, and resident memory in MiB now."""

    pid: int = 0
    cpu: float = 0.0
    rss: float = 0.0

    def cpu_since(self, before: Usage) -> float:
        """Return the CPU seconds used since then, all of them where it is another process now."""
        return self.cpu - before.cpu if self.pid == before.pid else self.cpu


@dataclass(slots=True)
class Result:
    """What a step came to.

    Attributes:
        step: its name.
        contender: who did it.
        routes: how many routes changed.
        writing: seconds the kernel took to take the changes.
        seconds: from the first change until VPP was right; None when it was not by the deadline.
        patience: the deadline in seconds.
        vpp_cpu, agent_cpu: CPU seconds used until then.
        vpp_rss, agent_rss: resident memory in MiB at the end.
        missing, stale, different: prefixes that are wrong at the end.
        examples: a few of them.
        note: what else is to be said.
    """

    step: str
    contender: str
    routes: int
    writing: float
    seconds: float | None
    patience: float
    vpp_cpu: float
    agent_cpu: float
    vpp_rss: float
    agent_rss: float
    missing: int
    stale: int
    different: int
    examples: tuple[str, ...] = ()
    note: str = ""

    @property
    def right(self) -> bool:
        """Whether VPP was right in the end."""
        return self.seconds is not None

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


class Trial:
    """A contender on its bed.

    Args:
        bed: whose VPP runs when a step is looked at.
        kernel: the table.
        contender: who keeps VPP right.
        ids: path sets of both sides.
        patience: seconds a step may take.
        say: takes lines for people.
    """

    def __init__(
        self,
        bed: Bed,
        kernel: Kernel,
        contender: Contender,
        ids: Interner[PathSet],
        *,
        patience: float,
        say: Callable[[str], None],
    ) -> None:
        self.bed, self.kernel, self.contender = bed, kernel, contender
        self.results: list[Result] = []
        self.also: dict[Family, U64] = {f: np.empty((0, f.key_width), np.uint64) for f in Family}
        """Prefixes beside the table's that are compared."""
        self._ids = ids
        self._patience = patience
        self.say = say
        self._session: VppSession | None = None
        self._forwarding: Forwarding | None = None

    async def connect(self) -> None:
        """Open a session with the VPP that runs now."""
        await self.disconnect()
        session = VppSession(api_socket=self.bed.vpp.api_socket, name="comparison")
        await session.open()
        interfaces = await session.call("sw_interface_dump", sw_if_index=0xFFFFFFFF)
        bonds = {self.bed.port_of(port): port for port in (1, 2)}
        ports = {int(i.sw_if_index): bonds[i.interface_name] for i in interfaces if i.interface_name in bonds}
        self._session = session
        self._forwarding = Forwarding(session, ports, self._ids)

    async def disconnect(self) -> None:
        """Close the session; idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def step(
        self,
        name: str,
        action: Callable[[], tuple[int, float]],
        *,
        restarts: bool = False,
        record: bool = True,
        note: str = "",
    ) -> Result:
        """Do something, wait until VPP is right again, and keep what it came to.

        Args:
            name: of the step.
            action: runs in a thread; returns the number of routes it changed, and the seconds it took.
            restarts: VPP is another one afterwards.
            record: whether it counts.
            note: what is to be said of it.
        """
        before = self._usage()
        began = time.monotonic()
        routes, writing = await asyncio.to_thread(action)
        if restarts:
            await self.connect()
        deadline = time.monotonic() + self._patience
        seconds, after, wrong = await self._until_right(began, deadline)
        vpp, agent = after
        result = Result(
            name,
            self.contender.name,
            routes,
            writing,
            seconds,
            deadline - began,
            vpp.cpu_since(before[0]),
            agent.cpu_since(before[1]),
            vpp.rss,
            agent.rss,
            wrong.missing,
            wrong.stale,
            wrong.different,
            wrong.examples,
            note,
        )
        if not result.right and (said := self.contender.said()):
            result.note = "; ".join(filter(None, (note, said)))
        if record:
            self.results.append(result)
            self.say(_line(result))
        return result

    async def difference(self) -> Difference:
        """Compare the whole of VPP's FIB with the whole of the kernel's table."""
        assert self._forwarding is not None
        ifindexes = self.bed.ifindexes()
        total = Difference()
        for family in Family:
            wanted = await self.kernel.read(family, ifindexes)
            held = await self._forwarding.read(family)
            known: U64 = np.concatenate((self.kernel.table[family], wanted.keys, self.also[family]))
            total += compare(wanted, within(held, known), self._ids)
        return total

    async def _until_right(
        self, began: float, deadline: float
    ) -> tuple[float | None, tuple[Usage, Usage], Difference]:
        sample = self._sample()
        while True:
            now, usage = time.monotonic(), self._usage()
            if await self._looks_right(sample):
                wrong = await self.difference()
                if wrong.none:
                    return now - began, usage, wrong
                await asyncio.sleep(_PAUSE_SECONDS)
            if time.monotonic() > deadline:
                usage = self._usage()
                wrong = await self.difference()
                return (None if not wrong.none else now - began), usage, wrong
            await asyncio.sleep(self.bed.poll)

    def _sample(self) -> list[tuple[Family, int]]:
        """Return prefixes to look at: the last of every kind that was written, and some others."""
        chosen = [*reversed(self.kernel.last_written)]
        random = np.random.default_rng(2)
        for family, keys in self.kernel.table.items():
            chosen += [(family, int(row)) for row in random.integers(0, len(keys), _SAMPLE // 2) if len(keys)]
        return chosen

    async def _looks_right(self, sample: list[tuple[Family, int]]) -> bool:
        assert self._forwarding is not None
        await self._forwarding.refresh()
        for family, row in sample:
            wanted = self.kernel.expected(family, row)
            held = await self._forwarding.look_up(family, self.kernel.table[family][row])
            if (lowest_terms(wanted) if wanted else None) != held:
                return False
        return True

    def _usage(self) -> tuple[Usage, Usage]:
        vpp = self.bed.vpp
        return _usage(vpp.pid if vpp.running else None), _usage(self.contender.pid)


def _usage(pid: int | None) -> Usage:
    if pid is None:
        return Usage()
    # proc(5): utime and stime are fields 14 and 15, counted from 1; the name before them may hold spaces
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    return Usage(pid, (int(fields[11]) + int(fields[12])) / _TICKS, int(status["VmRSS"].split()[0]) / 1024)


def _line(result: Result) -> str:
    when = f"{result.seconds:.1f} s" if result.seconds is not None else f"not in {result.patience:.0f} s"
    wrong = {"missing": result.missing, "stale": result.stale, "different": result.different}
    what = ", ".join(f"{count:,} {kind}" for kind, count in wrong.items() if count)
    return f"{result.contender}: {result.step}: {when} {what} {result.note}".rstrip()
