"""Who is to blame, in words: what counters, the times of the losses and the destinations say together.

A pure function of a trial and its ledger. Each rule looks for one thing, and says it with its figures and
with what to do about it. The tester's own faults come first, then whoever explains most packets. No rule
guesses: what would need a reading that nobody made says so, or is silent.
"""

from __future__ import annotations

from collections.abc import Sequence

from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.judgement.culprits import kernel, patterns, queues, tester, vpp
from router_agent.traffic.judgement.culprits.case import Case, Rule
from router_agent.traffic.judgement.ledger import Ledger
from router_agent.traffic.judgement.route_change import RouteChange

_RULES: tuple[Rule, ...] = (*tester.RULES, *patterns.RULES, *vpp.RULES, *queues.RULES, *kernel.RULES)


def name_culprits(trial: TrialResult, ledger: Ledger, changes: Sequence[RouteChange] = ()) -> tuple[str, ...]:
    """Return why packets were not sent or not received, in words, the likeliest first; none of a clean trial.

    Args:
        trial: what became of the packets.
        ledger: its counters.
        changes: route changes meanwhile.
    """
    if not trial.unsent and trial.lost <= 0 and not any(change.blocked_s for change in changes):
        return ()
    case = Case(trial, ledger, changes)
    found = [culprit for rule in _RULES for culprit in rule(case)]
    found.sort(key=lambda culprit: (not culprit.tester, -culprit.packets))
    return tuple(dict.fromkeys(culprit.words for culprit in found))
