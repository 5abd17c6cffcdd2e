"""PASS, FAIL or INVALID, and why, in words. A pure function of what was measured; never a guess.

INVALID means that the trial says nothing about the device: the generator could not offer what was asked, or
the tester itself dropped what it should have counted. It is not a mild FAIL.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from router_agent.traffic.counters.schedule import waiting_share
from router_agent.traffic.counters.source import Side
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.proof import Proof
from router_agent.traffic.scenario import Goal

BURST = 1.5
"""Intervals in which so many times the rate was sent are bursts."""

_BURST_S, _LEAST_BURST = 0.1, 32
"""Such intervals are so long, and so many packets more: sending always goes by small lots."""

WAITING = 0.1
"""A process of the tester that waits for a CPU for so much of a trial is worth a note."""


class Outcome(StrEnum):
    """What a check ends with."""

    PASS = "PASS"  # noqa: S105
    FAIL = "FAIL"
    INVALID = "INVALID"

    @property
    def exit_code(self) -> int:
        """0, 1 or 2."""
        return {Outcome.PASS: 0, Outcome.FAIL: 1, Outcome.INVALID: 2}[self]


@dataclass(frozen=True)
class Verdict:
    """An outcome, the reason for it, and remarks that did not decide."""

    outcome: Outcome
    reason: str
    notes: tuple[str, ...] = ()


def judge_trial(trial: TrialResult, ledger: Ledger, goal: Goal) -> Verdict:
    """Judge one fixed-rate trial by its goal."""
    notes = _notes(trial, ledger)
    unoffered = _unoffered(trial, goal)
    if unoffered:
        return Verdict(Outcome.INVALID, unoffered, notes)
    allowed = int(goal.loss_ratio * trial.sent)
    if trial.lost <= allowed:
        return Verdict(Outcome.PASS, _passed(trial, goal), notes)
    return _judge_loss(trial, ledger, allowed, notes)


def offered(trial: TrialResult, goal: Goal) -> bool:
    """Return whether the generator offered what it was asked for."""
    return not _unoffered(trial, goal)


def judge_proof(proof: Proof) -> Verdict:
    """Judge a port proof: every prefix by its port, or not."""
    notes = proof.notes()
    if proof.unsent:
        return Verdict(
            Outcome.INVALID, f"the generator left out {proof.unsent:,} of {proof.prefixes:,} prefixes", notes
        )
    if proof.wrong:
        first = proof.wrong.first[0]
        return Verdict(
            Outcome.FAIL,
            f"{len(proof.wrong):,} of {proof.prefixes:,} prefixes left by the wrong port; the first is "
            f"{first.prefix}: expected {first.expected}, seen at {first.seen}",
            notes,
        )
    if proof.missing:
        if proof.tester_drops:
            return Verdict(
                Outcome.INVALID,
                f"{len(proof.missing):,} of {proof.prefixes:,} prefixes were not seen, but the tester itself "
                f"dropped {proof.tester_drops:,} packets",
                notes,
            )
        return Verdict(
            Outcome.FAIL,
            f"{len(proof.missing):,} of {proof.prefixes:,} prefixes left by no port; the first is "
            f"{proof.missing.first[0].prefix}, expected at {proof.missing.first[0].expected}",
            notes,
        )
    late = f", {len(proof.recovered):,} of them at the second attempt only" if proof.recovered else ""
    return Verdict(Outcome.PASS, f"each of {proof.prefixes:,} prefixes left by its port{late}", notes)


def combine(*verdicts: Verdict) -> Verdict:
    """Return one verdict: FAIL if any fails, else INVALID if any is invalid, else PASS.

    The reason is that of the deciding verdicts; a pass names every part. A failure does not hide that
    something else could not be judged: that is among the notes.
    """
    if not verdicts:
        raise ValueError("there is nothing to judge")
    found = {verdict.outcome for verdict in verdicts}
    outcome = next(o for o in (Outcome.FAIL, Outcome.INVALID, Outcome.PASS) if o in found)
    notes = [note for verdict in verdicts for note in verdict.notes]
    if outcome is Outcome.FAIL:
        notes += [f"not judged: {v.reason}" for v in verdicts if v.outcome is Outcome.INVALID]
    reasons = (verdict.reason for verdict in verdicts if verdict.outcome is outcome)
    return Verdict(outcome, "; ".join(reasons), tuple(notes))


def _unoffered(trial: TrialResult, goal: Goal) -> str:
    """Return why the load that was asked for was not offered; empty when it was."""
    if trial.sent == 0:
        return "the generator sent nothing"
    if trial.unsent_ratio <= goal.unsent_ratio:
        return ""
    achieved = trial.sent / trial.offered_s if trial.offered_s else 0.0
    return (
        f"the generator was the limit: {_share(trial.unsent, trial.intended)} of {trial.intended:,} "
        f"packets were not sent ({achieved:,.0f} of {trial.rate_pps:,.0f} pps reached)"
    )


def _lost_in_bursts(trial: TrialResult) -> int:
    """Return the packets lost of those that the generator sent to catch up with what it was late with.

    A generator that was held up sends the rest faster than it was asked to, and a device that drops some of
    that has not been shown to fail at the rate. 0 where nobody knows when lost packets were sent.
    """
    if trial.by_destination is None:
        return 0
    series = trial.series.per(_BURST_S)
    caught_up = series.sent > BURST * series.intended + _LEAST_BURST
    return int(series.lost[caught_up].sum())


def _judge_loss(trial: TrialResult, ledger: Ledger, allowed: int, notes: tuple[str, ...]) -> Verdict:
    tester = ledger.dropped(Side.TESTER)
    if trial.lost - tester <= allowed:
        worst = max((d for d in ledger.drops if d.side is Side.TESTER), key=lambda d: d.count)
        return Verdict(
            Outcome.INVALID,
            f"the tester was the limit: of {trial.lost:,} packets missing it dropped {tester:,} itself "
            f"({worst.name}: {worst.count:,})",
            notes,
        )
    bursts = _lost_in_bursts(trial)
    if trial.lost - bursts <= allowed:
        return Verdict(
            Outcome.INVALID,
            f"the generator was the limit: {bursts:,} of {trial.lost:,} packets lost were sent in bursts, "
            f"when it was late and sent at more than {BURST:g} times the rate",
            notes,
        )
    where = (
        "; ".join(f"{d.count:,} {d.name}" for d in ledger.drops if d.side is Side.DEVICE)
        or "no counter moved"
    )
    rest = f"; {ledger.unaccounted:,} unaccounted" if ledger.unaccounted > 0 else ""
    return Verdict(
        Outcome.FAIL,
        f"{trial.lost:,} of {trial.sent:,} packets lost ({_share(trial.lost, trial.sent)}, allowed "
        f"{allowed:,}): {where}{rest}",
        notes,
    )


def _passed(trial: TrialResult, goal: Goal) -> str:
    what = (
        "no packet lost"
        if trial.lost == 0
        else f"{trial.lost:,} lost, within a ratio of {goal.loss_ratio:g},"
    )
    return f"{what} of {trial.sent:,} sent at {trial.rate_pps:,.0f} pps"


def _notes(trial: TrialResult, ledger: Ledger) -> tuple[str, ...]:
    notes: list[str] = []
    if trial.unsent:
        notes.append(f"{trial.unsent:,} packets were not sent ({_share(trial.unsent, trial.intended)})")
    waiting = waiting_share(ledger.moved, trial.offered_s)
    if waiting >= WAITING:
        notes.append(f"a process of the tester waited for a CPU for {waiting:.0%} of the trial")
    notes += [f"{name} counts anew: it was restarted, or its ports were" for name in ledger.restarted]
    if trial.duplicates:
        notes.append(f"{trial.duplicates:,} packets arrived more than once")
    if trial.reordered:
        notes.append(f"{trial.reordered:,} packets arrived out of order")
    if ledger.unaccounted < 0:
        notes.append(f"counters name {-ledger.unaccounted:,} more drops than test packets are missing")
    return tuple(notes)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3%}" if whole else "0 %"
