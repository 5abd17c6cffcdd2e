"""The running agent: pipelines, the control socket, systemd, and what happens when one of them fails.

Everything runs on one event loop. The watchdog is fed from that loop, so a loop that hangs is restarted by
systemd; the FIB keeps what it holds meanwhile, and the restarted agent writes only what differs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from router_agent import __version__
from router_agent.audit import Audit, AuditBrokenOffError
from router_agent.config import (
    Config,
    ExabgpFeedConfig,
    FeedConfig,
    FpmFeedConfig,
    KernelFibConfig,
    PipelineConfig,
    VppFibConfig,
)
from router_agent.control import ControlServer, RefusedError
from router_agent.events import Event, about
from router_agent.feeds.feed import Feed, Teller
from router_agent.fibs.fib import Fib
from router_agent.model import Family
from router_agent.observe import explain, inspect
from router_agent.observe.answers import Audit as AuditAnswer
from router_agent.observe.answers import (
    AuditRequest,
    Counters,
    ErrorKind,
    ExplainRequest,
    Explanation,
    NeighbourRow,
    PipelineStatus,
    Resync,
    ResyncRequest,
    RouteFilter,
    RouteRow,
    Status,
)
from router_agent.pipeline import Pipeline
from router_agent.systemd import Notifier

if TYPE_CHECKING:
    from router_agent.feeds.exabgp import ExabgpFeed
    from router_agent.feeds.fpm import FpmFeed
    from router_agent.fibs.vpp import VppFib
    from router_agent.mirror.mirror import Mirror
    from router_agent.observe.forwarder import Forwarder

_log = logging.getLogger(__name__)

_STATUS_SECONDS = 5.0
_AUDIT_NOW_RATE = 50_000.0
"""Prefixes a second when somebody waits for the audit: a fraction of what VPP can answer."""
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Running:
    config: PipelineConfig
    pipeline: Pipeline
    audit: Audit
    mirror: Mirror | None


class Agent:
    """All pipelines of one configuration, and the answers about them (`control.Handlers`).

    Args:
        config: as checked by `router_agent.config`.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._started = time.monotonic()
        self._notifier = Notifier()
        self._running = [_start(c, self._state_changed) for c in config.pipelines]
        self._forwarders = _forwarders(self._running)

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT. What the FIBs hold stays.

        Raises:
            ControlError: another agent answers on the control socket, or it cannot be made.
        """
        stop: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, _set_once, stop, number)
        async with ControlServer(config=self._config.control, handlers=self), asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(r.pipeline.run(), name=f"pipeline {r.pipeline.name}") for r in self._running
            ]
            running += [
                tasks.create_task(r.audit.run(), name=f"audit {r.pipeline.name}") for r in self._running
            ]
            running += [
                tasks.create_task(r.mirror.run(), name=f"mirror {r.pipeline.name}")
                for r in self._running
                if r.mirror is not None
            ]
            running.append(tasks.create_task(self._beat(), name="watchdog"))
            self._notifier.ready()
            _log.info(
                "router-agent %s runs as process %d and answers at %s",
                *(__version__, os.getpid(), self._config.control.socket),
                extra=about(Event.STARTED, version=__version__, pid=os.getpid()),
            )
            number = await stop
            self._notifier.stopping()
            seconds = time.monotonic() - self._started
            _log.info(
                "stopping on %s after %.0f s; what the FIBs hold stays and forwards on",
                *(number.name, seconds),
                extra=about(Event.STOPPING, signal=number.name, seconds=round(seconds, 3)),
            )
            for task in running:
                task.cancel()

    # -- answers (control.Handlers) --------------------------------------------------------------

    def status(self) -> Status:
        """See `control.Handlers`."""
        return Status(
            version=__version__,
            pid=os.getpid(),
            uptime_seconds=time.monotonic() - self._started,
            rss_bytes=_resident_bytes(),
            cpu_seconds=time.process_time(),
            pipelines=tuple(self._pipeline_status(r) for r in self._running),
        )

    async def counters(self) -> Counters:
        """See `control.Handlers`."""
        return Counters(forwarders=tuple([await forwarder.read() for forwarder in self._forwarders]))

    async def routes(self, wanted: RouteFilter) -> AsyncIterator[RouteRow]:
        """See `control.Handlers`."""
        names = [p.name for p in self._pipelines]
        if wanted.pipeline is not None and wanted.pipeline not in names:
            raise RefusedError(
                ErrorKind.BAD_REQUEST,
                f"found pipeline {wanted.pipeline!r}, expected one of {', '.join(names)}",
            )
        async for row in inspect.routes(self._pipelines, wanted):
            yield row

    def neighbours(self) -> Sequence[NeighbourRow]:
        """See `control.Handlers`."""
        return list(inspect.neighbours(self._pipelines))

    async def audit(self, wanted: AuditRequest) -> AuditAnswer:
        """See `control.Handlers`."""
        found = []
        for running in self._running:
            audit, tally = running.audit, None
            try:
                if wanted.full:
                    tally = await audit.read()
                elif wanted.now:
                    tally = await audit.check(_AUDIT_NOW_RATE, feed=True, polite=False)
            except AuditBrokenOffError as error:
                problem = f": {running.pipeline.problem}" if running.pipeline.problem else ""
                raise RefusedError(
                    ErrorKind.UNAVAILABLE,
                    f"{error}{problem}; a comparison means something while it is in sync: try again then",
                ) from error
            answer = inspect.pipeline_audit(audit, tally)
            feed = {
                "feed": running.config.feed.kind,
                "namespace": getattr(running.config.feed, "namespace", None),
                "tables": tuple(running.config.tables),
            }
            found.append(answer.model_copy(update=feed))
        return AuditAnswer(pipelines=tuple(found))

    async def explain(self, wanted: ExplainRequest) -> Explanation:
        """See `control.Handlers`."""
        explanation = await explain.explain(self._pipelines, wanted.prefix)
        feeds = {r.pipeline.name: r.config.feed for r in self._running}
        return Explanation(
            asked=explanation.asked,
            pipelines=tuple(
                found.model_copy(
                    update={
                        "feed": feeds[found.pipeline].kind,
                        "namespace": getattr(feeds[found.pipeline], "namespace", None),
                    }
                )
                for found in explanation.pipelines
            ),
        )

    async def resync(self, wanted: ResyncRequest) -> Resync:
        """See `control.Handlers`."""
        began = time.monotonic()
        done = [pipeline.resync() for pipeline in self._pipelines]
        in_sync: bool | None = None
        if wanted.wait:
            _, late = await asyncio.wait(done, timeout=wanted.timeout_seconds)
            in_sync = not late
        return Resync(
            pipelines=tuple(p.name for p in self._pipelines),
            in_sync=in_sync,
            took_seconds=time.monotonic() - began,
        )

    @property
    def _pipelines(self) -> list[Pipeline]:
        return [r.pipeline for r in self._running]

    def _pipeline_status(self, running: _Running) -> PipelineStatus:
        config = running.config
        status = inspect.pipeline_status(running.pipeline, config.feed.kind, config.fib.kind, running.audit)
        more: dict[str, object] = {}
        if running.mirror is not None:
            more["mirror"] = inspect.mirror_status(running.mirror)
        if isinstance(config.feed, ExabgpFeedConfig):
            more["sessions"] = inspect.exabgp_sessions(cast("ExabgpFeed", running.pipeline.feed))
        if isinstance(config.feed, FpmFeedConfig) and status.confirmations is not None:
            feed = cast("FpmFeed", running.pipeline.feed)
            more["confirmations"] = inspect.zebra_answers(status.confirmations, feed)
        return status.model_copy(update=more)

    async def _beat(self) -> None:
        """Feed the watchdog and keep systemd's status line fresh, from the loop that does the work."""
        seconds = self._notifier.watchdog_seconds
        pause = min(_STATUS_SECONDS, seconds / 2) if seconds else _STATUS_SECONDS
        while True:
            self._notifier.watchdog()
            self._notifier.status(self._status_line())
            await asyncio.sleep(pause)

    def _state_changed(self) -> None:
        self._notifier.status(self._status_line())

    def _status_line(self) -> str:
        return "; ".join(_pipeline_line(p) for p in self._pipelines)


def _set_once(stop: asyncio.Future[signal.Signals], number: signal.Signals) -> None:
    if not stop.done():
        stop.set_result(number)


async def run(config: Config) -> None:
    """Run the agent until it is told to stop."""
    await Agent(config).run()


def _pipeline_line(pipeline: Pipeline) -> str:
    routes = sum(len(r.held) for r in pipeline.reconcilers.values())
    line = f"{pipeline.name}: {pipeline.state}, {routes} routes, {pipeline.pending} pending"
    line += f", lag {pipeline.lags.percentile(99) * 1000:.1f} ms p99"
    return f"{line} ({pipeline.problem})" if pipeline.problem else line


def _start(config: PipelineConfig, observer: Callable[[], None]) -> _Running:
    pipeline = _pipeline(config, observer)
    audit = Audit(
        pipeline,
        rate=config.audit.rate,
        repair=config.audit.action == "repair",
        full_reading_seconds=config.audit.full_reading_seconds,
        feed_seconds=config.audit.feed_seconds,
    )
    return _Running(config, pipeline, audit, _mirror(config))


def _pipeline(config: PipelineConfig, observer: Callable[[], None]) -> Pipeline:
    feed = _feed(config.feed)
    return Pipeline(
        name=config.name,
        feed=feed,
        fib=_fib(config),
        tables=config.tables,
        observer=observer,
        tell=feed.tell if isinstance(feed, Teller) else None,
        lost_seconds=config.feed.lost_seconds if isinstance(config.feed, FpmFeedConfig) else 0.0,
    )


def _mirror(config: PipelineConfig) -> Mirror | None:
    """Return the mirror of the interfaces of a pipeline into VPP, None when none is asked for."""
    if not isinstance(config.fib, VppFibConfig) or not config.fib.mirror:
        return None
    from router_agent.mirror.mirror import Mirror

    return Mirror(
        name=config.name,
        api_socket=config.fib.api_socket,
        namespace=_namespace(config),
        aspects=config.fib.mirror,
        tables=config.tables,
    )


def _forwarders(running: Sequence[_Running]) -> list[Forwarder]:
    """Return who reads the counters of each VPP that a pipeline writes to."""
    writers: dict[Path, list[Pipeline]] = {}
    for each in running:
        if isinstance(each.config.fib, VppFibConfig):
            writers.setdefault(each.config.fib.stats, []).append(each.pipeline)
    if not writers:
        return []
    from router_agent.observe.forwarder import Forwarder

    return [
        Forwarder(socket, [p.name for p in pipelines], partial(_version, cast("VppFib", pipelines[0].fib)))
        for socket, pipelines in writers.items()
    ]


def _version(fib: VppFib) -> str:
    return fib.version


def _namespace(config: PipelineConfig) -> str | None:
    """Return the network namespace of the control plane, None for the agent's own."""
    return None if isinstance(config.feed, ExabgpFeedConfig) else config.feed.namespace


def _feed(config: FeedConfig) -> Feed:
    if isinstance(config, ExabgpFeedConfig):
        from router_agent.feeds.exabgp import ExabgpFeed

        return ExabgpFeed(
            socket_path=config.socket,
            table=config.table,
            metric=config.metric,
            local_as=config.local_as,
            maximum_paths=config.maximum_paths,
            quiet_seconds=config.quiet_seconds,
            stale_seconds=config.stale_seconds,
            hold_seconds=config.hold_seconds,
            socket_mode=int(config.socket_mode, 8),
            socket_group=config.socket_group,
        )
    if isinstance(config, FpmFeedConfig):
        from router_agent.feeds.fpm import FpmFeed

        return FpmFeed(
            address=config.address,
            port=config.port,
            namespace=config.namespace,
            tables=config.tables,
            kernel_protocols=frozenset(config.kernel_protocols),
            allowed_peers=frozenset(config.allowed_peers),
            users=config.users,
            quiet_seconds=config.quiet_seconds,
            hold_seconds=config.hold_seconds,
            solicit=config.solicit,
        )
    from router_agent.feeds.kernel import KernelFeed

    return KernelFeed(
        namespace=config.namespace,
        tables=config.tables,
        protocols=None if config.protocols is None else frozenset(config.protocols),
        resync_interval_seconds=config.resync_seconds,
        solicit=config.solicit,
    )


def _fib(config: PipelineConfig) -> Fib:
    fib = config.fib
    if isinstance(fib, KernelFibConfig):
        from router_agent.fibs.kernel import KernelFib

        return KernelFib(
            namespace=fib.namespace,
            protocol=fib.protocol,
            metric=fib.metric,
            interfaces=fib.interfaces,
            on_link=fib.on_link,
            window=fib.window,
        )
    from router_agent.fibs.vpp import VppFib

    return VppFib(
        api_socket=fib.api_socket,
        source_name=fib.source,
        source_priority=fib.priority,
        interfaces=None if fib.interfaces == "auto" else fib.interfaces,
        namespace=_namespace(config),
        window=fib.window,
        recursion=fib.recursion,
        recursion_table=fib.recursion_table,
        stats_socket=fib.stats,
        tables=[(family, table) for family in Family for table in config.tables.values()],
    )


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
