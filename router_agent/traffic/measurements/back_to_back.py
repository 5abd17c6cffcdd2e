"""Back-to-back frames (RFC 9004): the longest burst at the highest rate that passes without loss.

It measures the buffer before the device's slowest part. The device forwards while a burst comes in, so the
burst is longer than the buffer; RFC 9004 takes that out with the device's throughput.

Each search halves the distance between the longest burst that passed and the shortest that did not, from
where the search before it ended. A burst that lost something is sent again before it counts (the "binary
search with loss verification" of ETSI GS NFV-TST 009): a hiccup of a machine is no full buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.verdict import Outcome, Verdict, judge_trial
from router_agent.traffic.measurements.results import BackToBack
from router_agent.traffic.measurements.trial import Progress, RunTrial, offered_pps, silent
from router_agent.traffic.scenario import FrameSizes, Goal, ScenarioError

REPETITIONS = 50
"""RFC 2544 26.4: the average of 50."""

LONGEST_S = 2.0
"""RFC 2544 26.4: trials of at least two seconds; a burst that long meets no buffer any more."""

_PRECISION = 0.01
_SLOWEST = 0.9
"""A burst that went out slower than this part of the rate was none."""

_ATTEMPTS = 5
"""So often an invalid burst is sent; after that the generator is the limit."""

_SENDINGS = 2
"""So often a burst must lose something to be too long."""


class _NoBurstError(Exception):
    """The generator did not send a burst as one."""


@dataclass(frozen=True)
class _Burst:
    frames: int
    passed: bool


def measure_back_to_back(
    run: RunTrial,
    sizes: FrameSizes,
    rate_pps: float,
    *,
    throughput_pps: float | None = None,
    repetitions: int = REPETITIONS,
    longest_s: float = LONGEST_S,
    unsent_ratio: float = Goal().unsent_ratio,
    progress: Progress = silent,
) -> BackToBack:
    """Measure the longest loss-free bursts.

    Args:
        run: runs a trial; the device has emptied its buffer when it returns.
        sizes: frame sizes, for the report.
        rate_pps: rate of the bursts: the highest of the medium (RFC 9004), above the device's throughput.
        throughput_pps: the device's loss-free rate at these sizes; None leaves the corrected time out.
        repetitions: how often it is measured.
        longest_s: the longest burst that is tried.
        unsent_ratio: see `Goal`.
        progress: told of every repetition.

    Raises:
        ScenarioError: no repetition, or not one frame in the longest burst.
    """
    most = round(longest_s * rate_pps)
    if repetitions < 1 or most < 1:
        raise ScenarioError(
            f"back-to-back: {repetitions} repetitions of up to {most} frames, expected at least one of each"
        )
    search = _Search(run, rate_pps, most, Goal(unsent_ratio=unsent_ratio))
    bursts: list[int] = []
    try:
        for number in range(repetitions):
            last = f", the last burst was {bursts[-1]:,} frames" if bursts else ""
            progress("back to back", number / repetitions, f"{number + 1} of {repetitions}{last}")
            bursts.append(search.longest(bursts[-1] if bursts else most))
            if bursts[-1] == most:
                break
    except _NoBurstError as error:
        verdict = Verdict(Outcome.INVALID, str(error))
        return BackToBack(sizes, rate_pps, tuple(bursts), None, verdict, throughput_pps, most)
    found = BackToBack(
        sizes,
        rate_pps,
        tuple(bursts),
        corrected_buffer_s(sum(bursts) / len(bursts), rate_pps, throughput_pps),
        _judge(bursts, most, rate_pps),
        throughput_pps,
        most,
    )
    progress("back to back", 1.0, found.verdict.reason)
    return found


def corrected_buffer_s(frames: float, rate_pps: float, throughput_pps: float | None) -> float | None:
    """Return the time that the buffer holds (RFC 9004 6.4), in seconds.

    It is the burst's own time at the highest rate, less the part that the device forwarded meanwhile.
    """
    if throughput_pps is None:
        return None
    implied = frames / rate_pps
    return implied * max(0.0, 1 - throughput_pps / rate_pps)


class _Search:
    """Searches for the longest burst without loss."""

    def __init__(self, run: RunTrial, rate_pps: float, most: int, goal: Goal) -> None:
        self._run = run
        self._rate_pps = rate_pps
        self._most = most
        self._goal = goal

    def longest(self, guess: int) -> int:
        """Return the longest burst in frames, 0 if not even one frame passes.

        Raises:
            _NoBurstError: the generator or the tester was the limit.
        """
        passed, lossy = 0, self._most + 1
        frames, step = min(max(guess, 1), self._most), max(1, guess // 16)
        while True:
            if self._passes(frames):
                passed = frames
                frames += step
            else:
                lossy = frames
                frames -= step
            step *= 2
            if lossy - passed <= max(1, round(_PRECISION * passed)):
                return passed
            if not passed < frames < lossy:
                frames = self._between(passed, lossy)

    def _between(self, passed: int, lossy: int) -> int:
        """Return the middle; where no bound has been seen on one side, that end itself."""
        if lossy > self._most:
            return self._most
        return (passed + lossy) // 2

    def _passes(self, frames: int) -> bool:
        return any(self._sent(frames).lost == 0 for _ in range(_SENDINGS))

    def _sent(self, frames: int) -> TrialResult:
        """Send a burst, again if it was none."""
        reason = ""
        for _ in range(_ATTEMPTS):
            trial, ledger = self._run(self._rate_pps, frames / self._rate_pps)
            verdict = judge_trial(trial, ledger, self._goal)
            if verdict.outcome is Outcome.INVALID:
                reason = verdict.reason
            elif offered_pps(trial) < _SLOWEST * self._rate_pps:
                reason = (
                    f"the generator was the limit: {trial.sent:,} frames went out at "
                    f"{offered_pps(trial):,.0f} pps, expected {self._rate_pps:,.0f}"
                )
            else:
                return trial
        raise _NoBurstError(f"bursts of {frames:,} frames, {_ATTEMPTS} times: {reason}")


def _judge(bursts: list[int], most: int, rate_pps: float) -> Verdict:
    """Judge whether there is a figure; what the buffer should be nobody has said."""
    if bursts[-1] == most:
        return Verdict(
            Outcome.PASS,
            f"the longest burst tried, {most:,} frames at {rate_pps:,.0f} pps, passes without loss: the "
            "device keeps up with that rate, or longer bursts must be tried",
        )
    if not any(bursts):
        return Verdict(Outcome.FAIL, f"not one frame passes at {rate_pps:,.0f} pps")
    average = sum(bursts) / len(bursts)
    return Verdict(
        Outcome.PASS,
        f"bursts of {average:,.0f} frames ({min(bursts):,} to {max(bursts):,} in {len(bursts)} searches) "
        f"pass without loss at {rate_pps:,.0f} pps",
    )
