"""A device, a generator and a tester as mathematics: a queue of known length before a server of known rate.

It stands for no daemon. What a measurement must find of it can be worked out on paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from router_agent.model import I64
from router_agent.traffic.counters.source import DropClass, Side
from router_agent.traffic.generators.generator import ByDestination, Series, TrialResult
from router_agent.traffic.generators.latency import Latency
from router_agent.traffic.judgement.ledger import Ledger, balance


def column(*values: int) -> I64:
    return np.array(values, np.int64)


@dataclass
class SimulatedDevice:
    """Forwards `capacity` packets a second and holds `buffer` more; what comes beyond that is dropped.

    Attributes:
        capacity: of the device, packets a second.
        buffer: packets that wait at most.
        delay_ns: time that every packet takes besides waiting; None measures no latency.
        generator: what the generator can send, packets a second.
        tester: what the tester can take in, packets a second.
        asked: (rate, duration) of every trial.
    """

    capacity: float
    buffer: int = 0
    delay_ns: int | None = None
    generator: float = 1e12
    tester: float = 1e12
    asked: list[tuple[float, float]] = field(default_factory=list)

    def run(self, rate_pps: float, duration_s: float) -> tuple[TrialResult, Ledger]:
        """Run a trial; see `measurements.trial.RunTrial`."""
        self.asked.append((rate_pps, duration_s))
        intended = max(1, round(rate_pps * duration_s))
        offered = min(rate_pps, self.generator)
        sent = min(intended, int(offered * duration_s + 1e-6))
        seconds = sent / offered
        forwarded = min(sent, int(self.capacity * seconds + self.buffer + 1e-6))
        received = min(forwarded, int(self.tester * seconds + 1e-6))
        drops = [
            DropClass("queue full", sent - forwarded, Side.DEVICE, "model"),
            DropClass("capture ring full", forwarded - received, Side.TESTER, "model"),
        ]
        result = TrialResult(
            rate_pps=rate_pps,
            duration_s=duration_s,
            offered_s=seconds,
            intended=intended,
            sent=sent,
            received=received,
            received_by_port=(received,),
            duplicates=0,
            reordered=0,
            series=per_second(intended, sent, received, duration_s),
            by_destination=ByDestination(column(sent), column(received)[None, :]),
            latency=self._latency(sent, offered),
        )
        return result, balance(sent, received, drops)

    def _latency(self, sent: int, offered: float) -> Latency | None:
        if self.delay_ns is None:
            return None
        waiting = np.clip(np.arange(min(sent, 10_000)) * (1 - self.capacity / offered), 0, self.buffer)
        latency = Latency("from the model's queue to its server")
        latency.add((self.delay_ns + waiting / self.capacity * 1e9).astype(np.int64))
        return latency


def per_second(intended: int, sent: int, received: int, duration_s: float) -> Series:
    """Return a series of even seconds."""
    n = max(1, int(duration_s))
    spread = (_spread(total, n) for total in (intended, sent, received, sent - received))
    return Series(1.0, *spread)


def series(interval_s: float, sent: Sequence[int], received: Sequence[int], lost: Sequence[int]) -> Series:
    """Return a series of these columns, all of which was intended."""
    return Series(interval_s, column(*sent), column(*sent), column(*received), column(*lost))


def _spread(total: int, n: int) -> I64:
    return np.diff(np.arange(n + 1) * total // n)
