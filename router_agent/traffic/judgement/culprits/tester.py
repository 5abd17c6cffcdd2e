"""The tester's own faults: they say nothing about the device."""

from __future__ import annotations

from collections.abc import Iterator

from router_agent.traffic.counters.schedule import waiting_share
from router_agent.traffic.counters.source import Side
from router_agent.traffic.judgement.culprits.case import Case, Culprit, Rule
from router_agent.traffic.judgement.verdict import WAITING
from router_agent.traffic.scenario import Goal


def _unsent(case: Case) -> Iterator[Culprit]:
    trial = case.trial
    if not trial.unsent:
        return
    missing = f"{trial.unsent:,} of {trial.intended:,} packets were not sent"
    if trial.refused:
        words = (
            f"tester's NIC could not send: {missing}, it refused some {trial.refused:,} times: lower the "
            "rate, or send from more ports"
        )
    else:
        words = f"tester's CPU could not send: {missing}, and the NIC refused none: give it more CPUs"
    # a few packets that were not sent are nobody's excuse
    yield Culprit(trial.unsent, words, tester=trial.unsent_ratio > Goal().unsent_ratio)


def _drops(case: Case) -> Iterator[Culprit]:
    for drop in case.drops(Side.TESTER):
        if drop.name.endswith("could not send"):
            dropped = f"it took {drop.count:,} packets and dropped them ({drop.source})"
            yield Culprit(drop.count, f"tester's NIC could not send: {dropped}", tester=True)
            continue
        yield Culprit(
            drop.count,
            f"{drop.name}: {drop.count:,} packets came back and the tester lost them: give it more room "
            "(ring_frames) or CPUs, or lower the rate",
            tester=True,
        )


def _waiting(case: Case) -> Iterator[Culprit]:
    share = waiting_share(case.ledger.moved, case.trial.offered_s)
    if share >= WAITING:
        yield Culprit(
            0,
            f"tester's processes had to wait for a CPU, one of them for {share:.0%} of the trial: give them "
            "CPUs of their own",
            # alone it explains nothing: packets that went out late may still have arrived
            tester=bool(case.trial.unsent or case.ledger.dropped(Side.TESTER)),
        )


RULES: tuple[Rule, ...] = (_unsent, _drops, _waiting)
