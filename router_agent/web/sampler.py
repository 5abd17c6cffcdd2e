"""Looks at the router: every second while somebody watches, every ten otherwise, and never twice at once.

However many people watch, the agent is asked once: they are given the same `View`. A source that hangs or is
gone costs its patience and is said on the page; the others go on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from router_agent import __version__
from router_agent.host_reader.answers import Ports, Sessions
from router_agent.observe.answers import Counters, PipelineStatus, Status
from router_agent.web import drained, ports
from router_agent.web.agent import Agent, Heard
from router_agent.web.findings import findings, verdict
from router_agent.web.history import History
from router_agent.web.view import AgentView, PortView, View, WorkerView

WATCHED_SECONDS = 1.0
IDLE_SECONDS = 10.0
WATCH_LASTS_SECONDS = 15.0
"""Somebody who asked this long ago still watches."""
PATIENCE_SECONDS = 3.0
"""How long the page waits for one source."""
SESSIONS_SECONDS = 5.0
"""FRR is not asked more often than this."""

_log = logging.getLogger(__name__)
A = TypeVar("A", bound=BaseModel)


class Sampler:
    """Keeps the newest view, and the figures of those before it.

    Args:
        router: its name.
        agent: who is asked for the state of pipelines, and for counters.
        host: who is asked for FRR's sessions, and for the kernel's ports; None where there is nobody.
        mark: file that says that the router is drained.
        history: where figures are kept.
    """

    def __init__(
        self,
        *,
        router: str,
        agent: Agent,
        host: Agent | None,
        mark: Path,
        history: History,
    ) -> None:
        self.history = history
        self._router = router
        self._asked = agent
        self._host = host
        self._mark = mark
        self._rates = ports.Rates()
        self._looking = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._watched_at: float | None = None
        self._looked_at = 0.0
        self._sessions: Sessions | None = None
        self._sessions_at: float | None = None
        self._agent = AgentView(up=False)
        self._pipelines: tuple[PipelineStatus, ...] = ()
        self._view: View | None = None

    @property
    def age_seconds(self) -> float:
        """How long ago the router was looked at."""
        return time.monotonic() - self._looked_at

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            try:
                await self.fresh(WATCHED_SECONDS / 2)
            except Exception:  # noqa: BLE001 - a mistake of ours must not end the looking; each is logged
                _log.exception("the router could not be looked at")
                self._looked_at = time.monotonic()
            self._wanted.clear()
            try:
                async with asyncio.timeout(self._pause()):
                    await self._wanted.wait()
            except TimeoutError:
                continue

    async def fresh(self, age_seconds: float) -> View:
        """Return a view that is no older than this; looks at the router if it must."""
        async with self._looking:
            if self._view is None or self.age_seconds > age_seconds:
                self._view = await self._look()
                self._looked_at = time.monotonic()
            return self._view

    async def watch(self) -> View:
        """Return a view for somebody who watches, and look more often from now on."""
        idle = not self._watched
        self._watched_at = time.monotonic()
        if not idle:
            return await self.fresh(2 * WATCHED_SECONDS)
        self._wanted.set()
        return await self.fresh(0.0)  # FRR is asked for people only

    @property
    def _watched(self) -> bool:
        return self._watched_at is not None and time.monotonic() - self._watched_at < WATCH_LASTS_SECONDS

    def _pause(self) -> float:
        return max(0.05, (WATCHED_SECONDS if self._watched else IDLE_SECONDS) - self.age_seconds)

    async def _look(self) -> View:
        status, counters, _ = await asyncio.gather(
            _patiently(self._asked.status()), _patiently(self._asked.counters()), self._ask_sessions()
        )
        now = datetime.now(UTC)
        self._hear(status, now)
        views, problem = await self._ports(counters)
        sessions = self._sessions_now()
        mark, unknown = drained.look(self._mark)
        found = findings(
            agent=self._agent, pipelines=self._pipelines, sessions=sessions, now=now, unknown_mark=unknown
        )
        self.history.add(now.timestamp(), dict(_figures(self._agent, self._pipelines, views)))
        return View(
            router=self._router,
            at=now,
            verdict=verdict(found, self._pipelines),
            findings=found,
            drained=mark,
            agent=self._agent,
            pipelines=self._pipelines,
            sessions=sessions,
            ports=views[: ports.MOST],
            ports_left_out=max(0, len(views) - ports.MOST),
            ports_problem=problem,
            workers=tuple(_workers(counters.row)),
            version=__version__,
        )

    def _hear(self, heard: Heard[Status], now: datetime) -> None:
        status = heard.row
        if status is None:
            since = now if self._agent.silent_since is None else self._agent.silent_since
            silent = {"up": False, "silent_since": since, "problem": heard.problem}
            self._agent = self._agent.model_copy(update=silent)
            return
        self._pipelines = status.pipelines
        self._agent = AgentView(
            up=True,
            heard=now,
            version=status.version,
            uptime_seconds=status.uptime_seconds,
            rss_bytes=status.rss_bytes,
        )

    async def _ports(self, heard: Heard[Counters]) -> tuple[tuple[PortView, ...], str | None]:
        """Return VPP's ports, the kernel's where no VPP forwards; or why they are not known."""
        if heard.row is not None and heard.row.forwarders:
            try:
                return self._rates.of(ports.of_forwarders(heard.row), heard.at), None
            except ports.PortsError as error:
                return (), str(error)
        if heard.row is None and any(pipeline.fib == "vpp" for pipeline in self._pipelines):
            return (), heard.problem
        if self._host is None:
            return (), None
        kernel = await _patiently(self._host.ask("ports", Ports))
        if kernel.row is None or kernel.row.problem:
            return (), kernel.row.problem if kernel.row else kernel.problem
        return self._rates.of(kernel.row.rows, kernel.at), None

    async def _ask_sessions(self) -> None:
        """Ask FRR, for people who watch, and at most every `SESSIONS_SECONDS`."""
        if self._host is None or not self._watched:
            return
        if self._sessions_at is not None and time.monotonic() - self._sessions_at < SESSIONS_SECONDS:
            return
        heard = await _patiently(self._host.ask("sessions", Sessions))
        self._sessions = heard.row or Sessions(problem=heard.problem)
        self._sessions_at = time.monotonic()

    def _sessions_now(self) -> Sessions | None:
        """Return what FRR said last, with the age that it has now."""
        if self._sessions is None or self._sessions_at is None:
            return None
        age = self._sessions.age_seconds + time.monotonic() - self._sessions_at
        return self._sessions.model_copy(update={"age_seconds": age})


async def _patiently(asked: Awaitable[Heard[A]]) -> Heard[A]:
    """Return what is heard, or that nothing was in time."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await asked
    except TimeoutError:
        return Heard((), f"no answer within {PATIENCE_SECONDS:g} s", time.time())


def _workers(counters: Counters | None) -> Iterator[WorkerView]:
    """Yield the threads that forward: the workers, or the main thread where there are none."""
    for forwarder in counters.forwarders if counters else ():
        workers = [thread for thread in forwarder.threads if thread.name != "main"]
        for thread in workers or forwarder.threads:
            yield WorkerView(
                name=thread.name,
                vectors_per_call=thread.vectors_per_call,
                loops_per_second=thread.loops_per_second,
            )


def _figures(
    agent: AgentView, pipelines: Sequence[PipelineStatus], views: Sequence[PortView]
) -> Iterator[tuple[str, float]]:
    """Yield what is drawn, by name: ``port/NAME/in/bits``, ``fib/PIPELINE/IPv4``, ``lag/PIPELINE``, ..."""
    for port in views[: ports.MOST]:
        rates = {
            "in/bits": port.received_bits_per_second,
            "out/bits": port.sent_bits_per_second,
            "in/packets": port.received_packets_per_second,
            "out/packets": port.sent_packets_per_second,
            "dropped": port.dropped_per_second,
        }
        yield from ((f"port/{port.name}/{what}", rate) for what, rate in rates.items() if rate is not None)
    for pipeline in pipelines if agent.up else ():
        yield f"lag/{pipeline.name}", max(pipeline.lag_p99_seconds, pipeline.lag_seconds)
        if any(counts.unknown for counts in pipeline.counts):
            continue
        wrong = pipeline.audit.standing if pipeline.audit else 0
        for counts in pipeline.counts:
            yield f"fib/{pipeline.name}/{counts.family.label}", counts.in_fib
            wrong += counts.pending + counts.absent
        yield f"wrong/{pipeline.name}", wrong
