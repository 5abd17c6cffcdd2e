"""When to send how many packets, so that a rate is kept without drifting and without long bursts.

The schedule is absolute: packet k is due at start + k / rate. A sender that was held up catches up at no
more than twice the rate, because a long burst would test the device's queues and not its rate.
"""

from __future__ import annotations

_NS = 1_000_000_000
_BURST = 32
_LEAST_TICK_NS = 100_000
_MOST_TICK_NS = 1_000_000


class Pacer:
    """Schedule of one stream. Times are nanoseconds of any one monotonic clock.

    Args:
        rate_pps: packets a second.
        packets: packets in all.
        start_ns: when the first packet is due.
    """

    def __init__(self, rate_pps: float, packets: int, start_ns: int) -> None:
        if rate_pps <= 0 or packets < 0:
            raise ValueError(f"cannot pace {packets} packets at {rate_pps} pps")
        self.rate_pps = rate_pps
        self.packets = packets
        self.start_ns = start_ns
        self.tick_ns = round(min(max(_BURST * _NS / rate_pps, _LEAST_TICK_NS), _MOST_TICK_NS))
        """Time between bursts."""
        self.burst = max(_BURST, int(2 * rate_pps * self.tick_ns / _NS))
        """Packets in a burst at most."""

    def scheduled(self, now_ns: int) -> int:
        """Return how many packets should have been sent by now."""
        if now_ns < self.start_ns:
            return 0
        return min(self.packets, int((now_ns - self.start_ns) * self.rate_pps / _NS) + 1)

    def due(self, now_ns: int, sent: int) -> int:
        """Return how many packets to send now, when `sent` have been."""
        return max(0, min(self.scheduled(now_ns) - sent, self.burst))

    def behind(self, now_ns: int, sent: int) -> bool:
        """Return whether more than a burst is overdue: a sleep could then cost more than it saves."""
        return self.scheduled(now_ns) - sent > self.burst

    def next_ns(self, burst_ns: int, sent: int) -> int:
        """Return when to look again after a burst begun at `burst_ns`, when `sent` have been sent."""
        due_ns = self.start_ns + int(sent * _NS / self.rate_pps)
        return max(burst_ns + self.tick_ns, due_ns)
