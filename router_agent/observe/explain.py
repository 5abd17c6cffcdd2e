"""Why a prefix goes where it goes: its way through the agent into the FIB, as the FIB itself tells it now.

What comes before, BGP, zebra and the kernel, is asked by the command line as whoever runs it
(`router_agent.observe.control_plane`): the agent is not privileged enough to, and needs not be.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from router_agent.fibs.fib import FibError, Forwarding
from router_agent.model import ABSENT, U64, Prefix, Reason, keys_of
from router_agent.observe.answers import (
    Explanation,
    InFib,
    Match,
    PipelineExplanation,
    Stage,
    Step,
)
from router_agent.observe.inspect import family_matches, feed_words, fib_words, placed
from router_agent.pipeline import Pipeline
from router_agent.reconcile import Reconciler


async def explain(pipelines: Sequence[Pipeline], prefix: Prefix) -> Explanation:
    """Follow one prefix from the feed to the FIB, in every pipeline and table of its family."""
    return Explanation(
        asked=str(prefix),
        pipelines=tuple(
            [
                await _explain(pipeline, table, reconciler, prefix)
                for pipeline in pipelines
                for (family, table), reconciler in pipeline.reconcilers.items()
                if family_matches(family, prefix)
            ]
        ),
    )


def _longest_match(reconciler: Reconciler, prefix: Prefix) -> Prefix | None:
    """Return the longest known prefix that contains the given one."""
    around = [prefix.supernet(new_prefix=length) for length in range(prefix.prefixlen, -1, -1)]
    rows = reconciler.rib.prefixes.find(keys_of(list(around)))
    known = np.flatnonzero(rows >= 0)
    return around[int(known[0])] if len(known) else None


async def _explain(
    pipeline: Pipeline, table: int, reconciler: Reconciler, asked: Prefix
) -> PipelineExplanation:
    prefix = _longest_match(reconciler, asked)
    if prefix is None:
        return PipelineExplanation(
            pipeline=pipeline.name,
            table=table,
            match=Match.NONE,
            forwards=False,
            verdict=f"the feed has no route for {asked}, and none around it",
        )
    key = keys_of([prefix])
    wanted, held = int(reconciler.wanted(key)[0]), int(reconciler.held_paths(key)[0])
    in_fib, reason, detail = placed(pipeline, reconciler, key, wanted, held)
    why = None if reason is None else _why(reason, detail)
    steps = [*_believed(pipeline, reconciler, key, why), *await _now(pipeline, reconciler, key, held)]
    broken = next((step for step in steps if step.known and not step.holds), None)
    unasked = next((step for step in steps if step.stage is Stage.ENTRY and not step.known), None)
    forwards = in_fib is InFib.YES and broken is None and unasked is None
    return PipelineExplanation(
        pipeline=pipeline.name,
        table=table,
        match=Match.EXACT if prefix == asked else Match.LONGEST,
        prefix=str(prefix),
        steps=tuple(steps),
        forwards=forwards,
        verdict=_verdict(prefix, in_fib, why, broken, unasked),
    )


def _believed(pipeline: Pipeline, reconciler: Reconciler, key: U64, why: str | None) -> Iterator[Step]:
    """Yield the steps that the agent knows by itself."""
    candidates = reconciler.rib.candidates(key)
    for candidate in candidates:
        words = ", ".join(feed_words(pipeline, candidate.path))
        yield Step(stage=Stage.CANDIDATE, words=f"metric {candidate.metric}: {words}")
    others = f"; lowest of {len(candidates)} candidates" if len(candidates) > 1 else ""
    yield Step(stage=Stage.CHOSEN, words=f"metric {candidates[0].metric}{others}")
    wanted, held = int(reconciler.wanted(key)[0]), int(reconciler.held_paths(key)[0])
    if why is None:
        translated = ", ".join(fib_words(pipeline, wanted)) or "nowhere"
        yield Step(stage=Stage.PATHS, words=f"in the FIB's terms: {translated}")
    else:
        yield Step(stage=Stage.PATHS, words=why, holds=False)
    if not pipeline.fib_known:
        words = f"table {reconciler.table}, not known: {pipeline.problem or 'the FIB has not been read yet'}"
        yield Step(stage=Stage.FIB, words=words, known=False)
        return
    there = ", ".join(fib_words(pipeline, held)) or "no entry"
    yield Step(
        stage=Stage.FIB,
        words=f"table {reconciler.table}, as acknowledged: {there}",
        holds=wanted == held and held != ABSENT,
    )


async def _now(pipeline: Pipeline, reconciler: Reconciler, key: U64, held: int) -> list[Step]:
    """Return the steps that the FIB is asked for."""
    try:
        seen = await pipeline.fib.forwarding(reconciler.family, reconciler.table, key)
    except FibError as error:
        words = f"cannot be asked: {error}"
        return [
            Step(stage=s, words=words, known=False) for s in (Stage.ENTRY, Stage.ADJACENCY, Stage.COUNTERS)
        ]
    return [_entry(pipeline, seen, held), _adjacency(seen), _counters(seen)]


def _entry(pipeline: Pipeline, seen: Forwarding, held: int) -> Step:
    if seen.covered:
        return Step(stage=Stage.ENTRY, words="another owner's entry, which beats ours, forwards instead")
    there = ", ".join(fib_words(pipeline, seen.path)) or "no entry of ours"
    words = f"the FIB says now: {there}"
    if seen.path != held:
        words += "; somebody else changed it, which the next audit repairs or reports"
    return Step(stage=Stage.ENTRY, words=words, holds=seen.path == held and held != ABSENT)


def _adjacency(seen: Forwarding) -> Step:
    if seen.problem is not None:
        return Step(stage=Stage.ADJACENCY, words=seen.problem, holds=False)
    if not seen.resolved:
        return Step(stage=Stage.ADJACENCY, words="this FIB does not tell", known=False)
    return Step(stage=Stage.ADJACENCY, words=" / ".join(seen.resolved))


def _counters(seen: Forwarding) -> Step:
    if seen.counted is None:
        return Step(stage=Stage.COUNTERS, words="no packet counter of the route can be read", known=False)
    packets, octets = seen.counted
    return Step(stage=Stage.COUNTERS, words=f"{packets:,} packets, {octets:,} bytes sent to the route")


def _verdict(
    prefix: Prefix, in_fib: InFib, why: str | None, broken: Step | None, unasked: Step | None
) -> str:
    if why is not None:
        return f"{prefix} is not in the FIB as wanted: {why}"
    if unasked is not None:
        return f"nobody knows whether {prefix} is in the FIB, which {unasked.words}"
    if in_fib is InFib.UNKNOWN:
        return f"nobody knows whether {prefix} is in the FIB, which is being read"
    if in_fib is not InFib.YES:
        return f"{prefix} is on its way to the FIB"
    if broken is not None:
        return f"{prefix} breaks at {broken.stage}: {broken.words}"
    return f"{prefix} is in the FIB as wanted"


def _why(reason: Reason, detail: str | None) -> str:
    words = {
        Reason.UNRESOLVED_INTERFACE: "an interface of its paths has no counterpart in the FIB; "
        "see 'interfaces' in the configuration",
        Reason.UNRESOLVED_NEXT_HOP: "a next hop of its paths cannot be reached",
        Reason.UNSUPPORTED_TYPE: "the FIB has no such route type",
        Reason.UNSUPPORTED_ENCAPSULATION: "the FIB has no such encapsulation of packets",
        Reason.REJECTED: "the FIB refused it",
        Reason.OVER_CAPACITY: "the FIB has no room for it",
        Reason.LOST: "the FIB took it and somebody removed it",
        Reason.ALTERED: "the FIB took it and somebody changed it",
        Reason.UNHEARD: "the feed's source changed it and the agent was never told",
        Reason.STALE: "nobody wants it and the FIB holds it",
    }[reason]
    return f"{words}, {detail}" if detail else words
