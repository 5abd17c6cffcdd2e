"""Replays: what is sent says what the stream says, in its order, and no earlier than it is due."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from ipaddress import IPv4Address

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_agent.lab.bgp import parse_update, split
from router_agent.lab.bgp_replay import BgpReplay
from router_agent.lab.churn import WITHDRAWN, Churn, generated_churn, leading_to
from router_agent.lab.errors import LabError
from router_agent.lab.replay import Script, begun, play
from router_agent.lab.table import generated_table
from router_agent.lab.watch import Use, Watch
from router_agent.model import Family, prefixes_of

TABLE = generated_table(2_000, 300)
HOPS = {
    Family.IPV4: [bytes((198, 18, n, 2)) for n in (2, 3)],
    Family.IPV6: [bytes((32, 1, n, *bytes(13))) for n in (2, 3)],
}
SPEAKER = BgpReplay(
    "nowhere",
    local=IPv4Address("198.18.1.10"),
    neighbour=IPv4Address("198.18.1.1"),
    asn=64499,
    next_hops=HOPS,
)


def told(script: Script) -> dict[str, tuple[int, ...] | None]:
    """What a neighbour knows after it has read everything: AS path by prefix, None for what was withdrawn."""
    known: dict[str, tuple[int, ...] | None] = {}
    for _, body in split(script.data.tobytes()):
        update = parse_update(body)
        for keys in update.withdrawn.values():
            known |= dict.fromkeys(map(str, prefixes_of(keys)))
        for keys in update.announced.values():
            known |= dict.fromkeys(map(str, prefixes_of(keys)), update.as_path)
    return known


def meant(churn: Churn) -> dict[str, tuple[int, ...] | None]:
    """The same of the stream, by the AS paths that the speaker makes of path numbers."""
    known: dict[str, tuple[int, ...] | None] = {}
    for family in Family:
        ours = churn.families == family
        paths = churn.paths[ours].tolist()
        for prefix, path in zip(map(str, prefixes_of(churn.keys(family))), paths, strict=True):
            known[prefix] = None if path == WITHDRAWN else (64499, *churn.as_paths[path - 1])
    return known


@settings(deadline=None)
@given(count=st.integers(1, 2_000), paths=st.integers(2, 4), rate=st.sampled_from([100.0, 1e4, 1e6]))
def test_updates_say_what_the_stream_says(count: int, paths: int, rate: float) -> None:
    as_paths = tuple((65536, n) for n in range(paths))
    churn = replace(generated_churn(TABLE, count, path_count=paths).at_rate(rate), as_paths=as_paths)
    script = SPEAKER.script(churn)
    assert told(script) == meant(churn)
    assert script.changes[-1] == count
    assert (np.diff(script.changes) > 0).all()
    assert (np.diff(script.due) >= 0).all()
    # a change waits for those it shares a message with, and never goes before it is due
    assert (script.due >= churn.seconds[script.changes - 1] - 1e-9).all()


def test_a_table_is_announced_in_few_full_messages() -> None:
    churn = generated_churn(TABLE, 10)
    script = SPEAKER.script(leading_to(churn))
    assert script.changes[-1] == len(TABLE)
    assert len(script) < 10


def test_leading_to_changes_only_what_differs() -> None:
    churn = generated_churn(TABLE, 500)
    later = replace(churn, before=churn.after())
    way = leading_to(later, churn.before)
    changed = {family: int((churn.after()[family] != 1).sum()) for family in Family}
    assert len(way) == sum(changed.values())
    assert {f: p.tolist() for f, p in way.after().items()} == {
        f: p.tolist() for f, p in churn.after().items()
    }


def test_nothing_goes_out_before_it_is_due_and_everything_does() -> None:
    due = np.array([0.0, 0.0, 0.02, 0.02, 0.05])
    script = Script(np.zeros(20, np.uint8), np.arange(4, 24, 4), due, np.arange(1, 6))
    progress = begun(script)
    sent: list[tuple[int, int]] = []
    began = time.monotonic()
    play(script, lambda first, last: sent.append((first, last)), progress, most=3)
    assert [first for first, _ in sent] == [0, *(last for _, last in sent[:-1])]
    assert sent[-1][1] == len(script) == progress.sent
    assert (progress.sent_at - began >= due).all()


def test_a_watched_process_is_seen_at_work() -> None:
    with Watch({"we": os.getpid()}, every_seconds=0.01) as watch:
        until = time.process_time() + 0.1
        while time.process_time() < until:
            pass
    assert watch.cpu("we") > 0
    assert len(watch.samples) >= 2
    assert min(watch.resident("we")) > 1 << 20
    with pytest.raises(LabError, match="found no process"):
        Use.of(2**22 + 1)
