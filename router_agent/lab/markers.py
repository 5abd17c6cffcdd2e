"""How long a change takes from its sender to the FIB, seen by somebody who asks the FIB itself.

Markers are changes of a stream that bring up a prefix nobody had. When one was sent, VPP is asked for it
until it has it: a look-up a millisecond, and only while a marker is on its way.
"""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from router_agent.fibs.fib import FibError
from router_agent.lab.churn import WITHDRAWN, Churn
from router_agent.lab.errors import LabError
from router_agent.lab.replay import Progress, Script
from router_agent.model import I64, Family, Prefix, prefixes_of
from router_agent.vpp.session import VppSession

_PAUSE_SECONDS = 0.001
_PATIENCE_SECONDS = 60.0


def with_markers(churn: Churn, count: int) -> tuple[Churn, I64]:
    """Return a stream with markers at even distances, and which changes they are.

    They are IPv4 prefixes that would have stayed; they are absent before, and announced once, on path 1.

    Raises:
        ValueError: not so many prefixes stay.
    """
    stay = churn.rows_that_stay(Family.IPV4)
    if len(stay) < count:
        raise ValueError(f"found {len(stay)} IPv4 prefixes that stay, expected {count} for markers")
    rows = stay[np.arange(count) * len(stay) // count]
    before = {family: paths.copy() for family, paths in churn.before.items()}
    before[Family.IPV4][rows] = WITHDRAWN
    moments = churn.duration * (np.arange(count) + 0.5) / count
    seconds = np.concatenate((churn.seconds, moments))
    order = np.argsort(seconds, kind="stable")
    families = np.concatenate((churn.families, np.full(count, Family.IPV4, np.uint8)))
    marked = replace(
        churn,
        families=families[order],
        rows=np.concatenate((churn.rows, rows))[order],
        paths=np.concatenate((churn.paths, np.ones(count, np.uint32)))[order],
        seconds=seconds[order],
        before=before,
    )
    return marked, np.flatnonzero(order >= len(churn))


class VppMarkers:
    """Waits for markers in a VPP while the body of a ``with`` block replays them.

    Args:
        api_socket: of VPP.
        churn: the stream with markers.
        numbers: which of its changes they are.
        script: the stream as it is sent.
        progress: of the replay.

    Attributes:
        lags: seconds from sending to being seen, of each marker seen so far.
    """

    def __init__(
        self, api_socket: Path, churn: Churn, numbers: I64, script: Script, progress: Progress
    ) -> None:
        keys = churn.table.keys(Family.IPV4)[churn.rows[numbers]]
        # the message that brings the changes up to and with this one
        messages = np.searchsorted(script.changes, numbers + 1)
        self._waiting: list[tuple[Prefix, int]] = [*zip(prefixes_of(keys), messages.tolist(), strict=True)]
        self._api_socket = api_socket
        self._progress = progress
        self._over = threading.Event()
        self._failure: LabError | None = None
        self._thread = threading.Thread(target=self._watch, name="markers", daemon=True)
        self.lags: list[float] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._over.set()
        self._thread.join()
        if error is None and self._failure is not None:
            raise self._failure

    def _watch(self) -> None:
        try:
            asyncio.run(self._see_all())
        except FibError as error:
            self._failure = LabError(f"waiting for markers in VPP: {error}")
        except LabError as error:
            self._failure = error

    async def _see_all(self) -> None:
        session = VppSession(api_socket=self._api_socket, name="markers")
        await session.open()
        try:
            for prefix, message in self._waiting:
                while self._progress.sent <= message and not self._over.is_set():
                    await asyncio.sleep(_PAUSE_SECONDS)
                if self._over.is_set():
                    return
                await self._see(session, prefix, float(self._progress.sent_at[message]))
        finally:
            await session.close()

    async def _see(self, session: VppSession, prefix: Prefix, sent: float) -> None:
        while not self._over.is_set():
            answer = await session.call("ip_route_lookup", table_id=0, exact=0, prefix=str(prefix))
            now = time.monotonic()
            if str(answer.route.prefix) == str(prefix):
                self.lags.append(now - sent)
                return
            if now - sent > _PATIENCE_SECONDS:
                raise LabError(
                    f"found no {prefix} in VPP {now - sent:.0f} s after it was sent, expected it there"
                )
            await asyncio.sleep(_PAUSE_SECONDS)
