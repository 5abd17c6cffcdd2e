"""How often something may be done: a bucket of tokens that fills at a steady rate."""

from __future__ import annotations

import time
from collections.abc import Callable


class Bucket:
    """Tokens; each thing that is done takes one.

    Args:
        rate: tokens that come in a second.
        burst: most tokens, and what there is at first.
        clock: seconds, never going back.
    """

    def __init__(self, *, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._tokens = float(burst)
        self._at = clock()

    def take(self) -> bool:
        """Take a token; return whether there was one."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True
