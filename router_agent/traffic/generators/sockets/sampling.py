"""Which packets' latency is measured: each that is a multiple of a power of two, often enough and not more.

A sampled packet is always the first of its system call, so the time before the call is its own.
"""

from __future__ import annotations

SAMPLES_PER_SECOND = 4_000
"""A system call more for each costs a sender of a million packets a second under a hundredth of its time."""

MOST_SAMPLES = 1 << 20
"""Eight bytes each, at every worker."""

_WHAT = (
    "from just before the system call that hands the packet to the kernel as its first, to the kernel's time "
    "stamp when the frame enters the capture ring of the tester's port: the sending stack, both links, the "
    "device and the receiving stack lie between; both by CLOCK_REALTIME of one host; "
)


def sampling_shift(rate_pps: float, packets: int) -> int:
    """Return s such that packets 0, 2^s, 2 x 2^s, ... of a stream are sampled."""
    shift = 0
    while rate_pps / (1 << shift) > SAMPLES_PER_SECOND or packets >> shift > MOST_SAMPLES:
        shift += 1
    return shift


def described(shift: int) -> str:
    """Return what a latency of such samples is, in words."""
    return _WHAT + ("every packet" if shift == 0 else f"every {1 << shift}th packet of each sender")
