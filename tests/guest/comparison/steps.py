"""The steps, in their order, the same for every contender."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import kill
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from router_agent.fibs.fib import FibLostError
from router_agent.model import I64, Family, Interner, PathSet
from router_agent.namespaces import inside

from .bed import Bed
from .cases import CaseResult, run_cases
from .contenders import Agent, Contender
from .kernel import ABSENT, BLACKHOLE, GROUPS, Kernel
from .trial import Result, Trial

_ANSWER_SECONDS = 120.0
_OVERRUN_SECONDS = 300.0

Groups = Mapping[Family, I64]


async def compare_one(
    contender: Contender,
    sizes: Mapping[Family, int],
    *,
    bed_of: Callable[[Contender, Path], Bed],
    patience: float,
    say: Callable[[str], None],
) -> tuple[list[Result], list[CaseResult]]:
    """Take one contender through all steps, on a fresh VPP and an empty kernel table.

    Args:
        contender: whom.
        sizes: routes of each family.
        bed_of: makes the bed, given a directory.
        patience: seconds a step may take.
        say: takes lines for people.
    """
    ids: Interner[PathSet] = Interner()
    with TemporaryDirectory(prefix="c") as directory, ExitStack() as stack:
        bed = bed_of(contender, Path(directory))
        bed.build(stack)
        kernel = Kernel(bed.control, sizes, ids)
        stack.callback(kernel.close)
        stack.callback(contender.stop)
        trial = Trial(bed, kernel, contender, ids, patience=patience, say=say)
        try:
            await _Course(trial).run()
            cases = await run_cases(trial, lambda: _Course(trial).start_over({}))
        except FibLostError as error:
            state = "runs" if bed.vpp.running else "has ended"
            raise RuntimeError(f"{error}; VPP {state}, its log ends:\n{bed.vpp.log_tail()}") from error
        finally:
            await trial.disconnect()
        return trial.results, cases


class _Course:
    def __init__(self, trial: Trial) -> None:
        self._trial, self._bed, self._kernel = trial, trial.bed, trial.kernel
        self._contender = trial.contender
        self._full = {family: self._kernel.assignment(family) for family in Family}

    async def run(self) -> None:
        """Go through the steps."""
        kernel, full = self._kernel, self._full
        every = {family: np.full(len(groups), BLACKHOLE) for family, groups in full.items()}
        none = {family: np.full(len(groups), ABSENT) for family, groups in full.items()}
        moved = {f: np.where(groups >= 0, (groups + 1) % GROUPS, groups) for f, groups in full.items()}
        half = {f: np.where(np.arange(len(groups)) % 2 == 0, ABSENT, groups) for f, groups in full.items()}
        kernel.write(every)
        await self._step("routes that are there when VPP starts", self._start, none, restarts=True)
        await self._step("clear", lambda: kernel.write(none), none, record=False)
        await self._step("burst of the whole table", lambda: kernel.write(full), full)
        await self._step("half of it withdrawn", lambda: kernel.write(half), half)
        await self._step("announced again", lambda: kernel.write(full), full)
        await self._step("every route to another group", lambda: kernel.write(moved), moved)
        await self._step("back", lambda: kernel.write(full), full, record=False)
        await self._step("every group loses a leg, in place", lambda: self._hops(1), full)
        await self._step("and gets it back", lambda: self._hops(None), full)
        await self._step("a gateway replaced, in place", self._move_gateway, full)
        await self._step("back", lambda: self._hops(None), full, record=False)
        await self._step("overrun: the reader stands still until events are lost", self._overrun, full)
        await self._step("back", lambda: kernel.write(full), full, record=False)
        if self._bed.links:
            await self._links()
        await self._step("clear", lambda: kernel.write(none), none, record=False)

    async def _links(self) -> None:
        full = self._full
        await self._step("the cable of a port pulled", self._pull_cable, full)
        await self._step("plugged in, routes installed again", self._plug_in, full)
        await self._step("a port set down by its operator", self._down, full)
        await self._step("set up, routes installed again", self._up, full)
        await self._step("VPP killed, pairs and routes made again", self._restart, full, restarts=True)

    async def start_over(self, groups: Groups) -> None:
        """Bring the contender back to a right FIB with these routes: VPP and all anew, then the routes.

        Raises:
            RuntimeError: it does not come right even so.
        """
        kernel, absent = self._kernel, {f: np.full(len(g), ABSENT) for f, g in self._full.items()}
        await asyncio.to_thread(self._contender.stop)
        kernel.write(absent)
        await asyncio.to_thread(self._bed.vpp.kill)
        kernel.all_lost()
        await self._trial.step("start over", self._start, restarts=True, record=False)
        found = await self._trial.step("table", lambda: kernel.write(groups or absent), record=False)
        if not found.right:
            raise RuntimeError(f"{self._contender.name} does not come right after a restart: {found}")

    async def _step(
        self,
        name: str,
        action: Callable[[], tuple[int, float]],
        after: Groups,
        *,
        restarts: bool = False,
        record: bool = True,
    ) -> None:
        result = await self._trial.step(name, action, restarts=restarts, record=record)
        if not result.right:
            await self.start_over(after)

    def _start(self) -> tuple[int, float]:
        began = time.monotonic()
        self._bed.start_vpp()
        self._kernel.prepare()
        self._contender.start(self._bed.directory, self._bed.control, self._bed.interfaces)
        if isinstance(self._contender, Agent):
            self._contender.wait_answers(_ANSWER_SECONDS)
        self._bed.wait_carriers()
        self._kernel.make_hops()
        return len(self._kernel), time.monotonic() - began

    def _hops(self, without: int | None) -> tuple[int, float]:
        began = time.monotonic()
        if without is None:
            self._kernel.make_hops()
        else:
            self._kernel.take_leg(without)
        return self._kernel.on_groups(), time.monotonic() - began

    def _move_gateway(self) -> tuple[int, float]:
        began = time.monotonic()
        self._kernel.move_gateway(1, 0)
        return self._kernel.on_groups(0), time.monotonic() - began

    def _overrun(self) -> tuple[int, float]:
        """Stop the reader of events, change routes until some are lost, end with fewer; let it go on."""
        began = time.monotonic()
        reader = self._contender.pid or self._bed.vpp.pid
        count = 0
        turned = {f: np.where(g >= 0, (g + 3) % GROUPS, g) for f, g in self._full.items()}
        rest = {f: np.where(np.arange(len(g)) % 10 == 3, ABSENT, g) for f, g in self._full.items()}
        with _stopped(reader):
            lost = self._drops()
            while self._drops() == lost:
                if time.monotonic() - began > _OVERRUN_SECONDS:
                    raise RuntimeError(
                        f"no event was lost in {_OVERRUN_SECONDS:.0f} s: the buffer is too large"
                    )
                for groups in (turned, self._full):
                    count += self._kernel.write(groups)[0]
            count += self._kernel.write(rest)[0]
        return count, time.monotonic() - began

    def _drops(self) -> int:
        with inside(self._bed.control):
            text = Path("/proc/thread-self/net/netlink").read_text()
        return sum(int(line.split()[8]) for line in text.splitlines()[1:])

    def _pull_cable(self) -> tuple[int, float]:
        began = time.monotonic()
        self._bed.pull_cable(1)
        self._kernel.port_lost(1)
        return self._kernel.on_groups(), time.monotonic() - began

    def _plug_in(self) -> tuple[int, float]:
        began = time.monotonic()
        self._bed.plug_in(1)
        self._kernel.make_hops()
        self._kernel.write(self._full)
        return self._kernel.on_groups(), time.monotonic() - began

    def _down(self) -> tuple[int, float]:
        began = time.monotonic()
        self._bed.ip("link", "set", "eth1", "down")
        self._kernel.port_lost(1)
        return self._kernel.on_groups(), time.monotonic() - began

    def _up(self) -> tuple[int, float]:
        began = time.monotonic()
        self._kernel.prepare((1,))
        self._bed.wait_carriers()
        self._kernel.make_hops()
        self._kernel.write(self._full)
        return self._kernel.on_groups(), time.monotonic() - began

    def _restart(self) -> tuple[int, float]:
        began = time.monotonic()
        self._bed.vpp.kill()
        self._kernel.all_lost()
        self._bed.start_vpp()
        self._kernel.prepare()
        self._bed.wait_carriers()
        self._kernel.make_hops()
        self._kernel.write(self._full)
        return len(self._kernel), time.monotonic() - began


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        kill(pid, signal.SIGCONT)
