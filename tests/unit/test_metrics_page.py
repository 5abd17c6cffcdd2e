"""Every metric can be had, is named as Prometheus wants it, and is documented."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from prometheus_client.parser import text_string_to_metric_families

from router_agent.model import Family, Reason
from router_agent.observe.answers import (
    AuditStatus,
    BufferPool,
    CapacityStatus,
    Confirmations,
    Counters,
    FeedSession,
    FibLoad,
    ForwarderCounters,
    InterfaceCounters,
    LagHistogram,
    MirrorStatus,
    NodeCounters,
    PipelineStatus,
    State,
    Status,
    TableCounts,
    ThreadCounters,
)
from router_agent.pipeline import LAG_BOUNDS, Lags
from router_agent.web import metrics
from router_agent.web.agent import Heard
from router_agent.web.drained import Drained
from router_agent.web.families import families

ROOT = Path(__file__).parents[2]
FULL = PipelineStatus(
    name="vpp",
    feed="fpm",
    fib="vpp",
    state=State.SYNCING,
    tables=(
        TableCounts(
            family=Family.IPV6,
            table=7,
            fib_table=7,
            desired=9,
            in_fib=7,
            pending=1,
            not_in_fib={Reason.UNRESOLVED_INTERFACE: 1},
        ),
    ),
    lags=LagHistogram(bounds=(0.001, 1.0), counts=(5, 3, 2), sum_seconds=70.5),
    last_resync=datetime(2026, 1, 2, tzinfo=UTC),
    passed_over={"tos": 2},
    fib_load=FibLoad(unanswered=3, highest_unanswered=9, window=16, entries=4, refused_neighbours=1),
    sessions=(FeedSession(peer="192.0.2.1", peer_as=64501, up=True, routes={Family.IPV4: 6}),),
    confirmations=Confirmations(
        confirmed=5, failed=1, waiting=3, connected=True, answered=8, answered_failed=2
    ),
    audit=AuditStatus(
        action="repair", rate=5_000, passes=4, last_pass_age_seconds=70, last_pass_seconds=211, checked=9
    ),
    mirror=MirrorStatus(aspects=("links",), passes=2, problem="away", refused=("a", "b")),
    capacity=CapacityStatus(
        exhausted=True, withheld=5, room=0, used_bytes={"main heap": 7}, total_bytes={"main heap": 9}
    ),
)
VPP = ForwarderCounters(
    pipelines=("vpp",),
    version="26.06",
    heartbeat_age_seconds=4.5,
    started=1_700_000_000,
    interfaces=(InterfaceCounters(name="uplink", rx_packets=5, tx_errors=1),),
    errors={"ip4-input/ip4 ttl <= 1": 3},
    threads=(
        ThreadCounters(
            name="worker-0",
            vectors_per_call=17,
            loops_per_second=1e5,
            nodes=(NodeCounters(node="ip4-lookup", calls=2, vectors=30, clocks=900),),
        ),
    ),
    buffers=(BufferPool(name="default-numa-0", available=5, cached=1, used=2),),
)
AT = 1_767_400_000.0


def text(*pipelines: PipelineStatus) -> str:
    status = Status(version="9.9", pid=1, uptime_seconds=9, rss_bytes=8, cpu_seconds=7, pipelines=pipelines)
    drained = Drained(since=datetime(2026, 1, 2, tzinfo=UTC))
    counters = Counters(forwarders=(VPP,))
    return metrics.page(Heard((status,), None, AT), Heard((counters,), None, AT), drained)[0].decode()


def test_every_metric_can_be_had_and_no_other() -> None:
    found = {
        (f"{f.name}_total" if f.type == "counter" else f.name, f.type)
        for f in text_string_to_metric_families(text(FULL))
    }
    kinds = {"info": "gauge"}
    assert found == {(f.name, kinds.get(f.kind, f.kind)) for f in families().values()}


def test_labels_are_those_that_are_documented() -> None:
    for family in text_string_to_metric_families(text(FULL)):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == set(families()[name].labels), name


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_promtool_finds_nothing_to_say() -> None:
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text(FULL), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_histogram_is_cumulative_and_whole() -> None:
    lines = [line for line in text(FULL).splitlines() if line.startswith("router_agent_lag_seconds")]
    assert lines == [
        'router_agent_lag_seconds_bucket{le="0.001",pipeline="vpp"} 5.0',
        'router_agent_lag_seconds_bucket{le="1.0",pipeline="vpp"} 8.0',
        'router_agent_lag_seconds_bucket{le="+Inf",pipeline="vpp"} 10.0',
        'router_agent_lag_seconds_count{pipeline="vpp"} 10.0',
        'router_agent_lag_seconds_sum{pipeline="vpp"} 70.5',
    ]


def test_lags_fall_into_the_bucket_that_holds_them() -> None:
    lags = Lags()
    for seconds in (0.0, LAG_BOUNDS[0], 0.0011, 60.0, 60.1):
        lags.add(seconds)
    assert lags.buckets[0] == 2
    assert lags.buckets[1] == 1
    assert lags.buckets[len(LAG_BOUNDS) - 1] == 1
    assert lags.buckets[-1] == 1
    assert sum(lags.buckets) == 5
    assert lags.total == pytest.approx(120.1021)


def test_a_pipeline_that_does_little_tells_little() -> None:
    bare = PipelineStatus(name="exabgp", feed="exabgp", fib="kernel", state=State.STARTING)
    found = {family.name for family in text_string_to_metric_families(text(bare))}
    absent = ("router_agent_capacity", "router_agent_zebra", "router_agent_session", "router_agent_mirror")
    assert [name for name in found if name.startswith(absent)] == []


def test_times_of_the_past_are_times_and_no_ages() -> None:
    values = {
        sample.name: sample.value
        for family in text_string_to_metric_families(text(FULL))
        for sample in family.samples
        if "timestamp" in sample.name
    }
    assert values == {
        "router_agent_audit_last_pass_timestamp_seconds": AT - 70,
        "router_agent_last_resync_timestamp_seconds": datetime(2026, 1, 2, tzinfo=UTC).timestamp(),
        "router_agent_drained_since_timestamp_seconds": datetime(2026, 1, 2, tzinfo=UTC).timestamp(),
    }


def generator() -> ModuleType:
    """docs/metrics.py; its name is taken by the module of the web process."""
    spec = importlib.util.spec_from_file_location("metrics_page", ROOT / "docs" / "metrics.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_fresh() -> None:
    module = generator()
    assert module.PAGE.read_text() == module.page(), "docs/metrics.md is stale: run 'make docs'"


def test_every_help_text_is_short_and_ends() -> None:
    for family in families().values():
        assert family.words.endswith("."), family.name
        assert len(family.words) < 250, family.name
        assert not re.search(r"\bindex\b", " ".join(family.labels))
