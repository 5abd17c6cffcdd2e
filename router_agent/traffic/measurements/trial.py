"""What every measurement is made of: one trial at a rate, however it is run.

Measurements know neither generators nor counters. They are given a function that runs a trial, so a search
looks the same with sockets, VPP or TRex, and with the queue model of the unit tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.ledger import Ledger

RunTrial: TypeAlias = Callable[[float, float], tuple[TrialResult, Ledger]]
"""Runs one trial of (rate in packets a second, duration in seconds); ``round(rate x duration)`` packets."""

Progress: TypeAlias = Callable[[str, float, str], None]
"""Called with a stage ("port proof", "search", "soak"), its done share (0 to 1), and a text."""

Explain: TypeAlias = Callable[[TrialResult, Ledger], Sequence[str]]
"""Returns the culprits of a trial in words, the likeliest first; see `judgement.culprits`."""


def silent(_stage: str, _done: float, _text: str) -> None:
    """Tell nobody."""


def offered_pps(trial: TrialResult) -> float:
    """Return the rate that was really offered; 0 of a trial that sent nothing."""
    return trial.sent / trial.offered_s if trial.offered_s > 0 else 0.0
