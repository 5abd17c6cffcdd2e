"""Draining: what is written for FRR and ExaBGP, when traffic is gone, when the host drains itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exabgp_variables import exabgp_graceful_shutdown, exabgp_peers
from frr_configuration import DRAINED, drained
from router_agent.drain.exabgp_announcer import Neighbour, neighbours_of
from router_agent.drain.fail_safe import Finding, Health, Judge, finding_of
from router_agent.drain.frr import BLOCK, shutdown_of, with_shutdown, without_shutdown
from router_agent.drain.mark import FAIL_SAFE, Mark, MarkError, Marks
from router_agent.drain.settings import FailSafeSettings, MarkSettings, TrafficSettings, load
from router_agent.drain.traffic import (
    Meter,
    Rate,
    Reading,
    TrafficError,
    bfd_packets_of,
    rate,
    segments_of,
)
from router_agent.drain.wait import Outcome, wait_until_gone
from router_agent.observe.answers import CapacityStatus, PipelineStatus, State, Status
from router_agent.strict_yaml import FileError

GOLDEN = Path(__file__).with_name("golden")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


# -- FRR ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["role-frr.conf", "frr.conf", "role-frr-confirmed.conf"])
def test_the_command_and_the_role_write_the_same(name: str) -> None:
    text = (GOLDEN / name).read_text()
    assert BLOCK == DRAINED
    assert with_shutdown(text) == drained(text) != text
    assert with_shutdown(with_shutdown(text)) == with_shutdown(text)
    assert without_shutdown(with_shutdown(text)) == text
    assert without_shutdown(text) == text


def test_what_somebody_else_wrote_goes_too() -> None:
    saved = (
        "bgp graceful-shutdown\nrouter bgp 1\n bgp graceful-shutdown\n neighbor 192.0.2.1 remote-as 2\nexit\n"
    )
    assert without_shutdown(saved) == "router bgp 1\n neighbor 192.0.2.1 remote-as 2\nexit\n"
    assert shutdown_of(saved).everywhere
    instances = "router bgp 1\n bgp graceful-shutdown\nexit\n!\nrouter bgp 2 vrf RED\nexit\n!\n"
    found = shutdown_of(instances)
    assert found.instances == {"router bgp 1": True, "router bgp 2 vrf RED": False}
    assert (found.everywhere, found.complete, found.any) == (False, False, True)
    assert shutdown_of(with_shutdown(instances)).everywhere


def test_a_router_without_bgp_has_nothing_to_shut_down() -> None:
    text = "bgp community-list standard GSHUT seq 5 permit graceful-shutdown\nlog syslog\n"
    assert with_shutdown(text) == text == drained(text)
    assert shutdown_of(text).complete


# -- ExaBGP ------------------------------------------------------------------------------------------


def peer(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"name": "x", "speaker": "exabgp", "address": "192.0.2.1"}
    return found | {"local_address": "192.0.2.2", "asn": 2, "maximum_prefixes": 1} | changes


def test_exabgp_is_told_what_its_configuration_announces() -> None:
    peers = exabgp_peers([peer(communities=["1:9"], prepend=1), peer(address="2001:db8::1")], asn=1)
    announce = {"ipv4": ["198.51.100.0/24", "203.0.113.0/24"], "ipv6": []}
    found = exabgp_graceful_shutdown(peers, announce, asn=1, command="run it", source="x")
    assert found is not None
    assert found["run"].startswith("run it 192.0.2.1 ")
    assert "," not in found["run"], "ExaBGP parts words at commas"
    (neighbour,) = neighbours_of(found["run"].removeprefix("run it ").split())
    assert neighbour == Neighbour("192.0.2.1", ("198.51.100.0/24", "203.0.113.0/24"), ("1:9",), ("1", "1"))
    assert neighbour.commands(drained=True)[0] == (
        "neighbor 192.0.2.1 announce route 198.51.100.0/24 next-hop self as-path [ 1 1 ] "
        "community [ 1:9 65535:0 ]"
    )
    assert neighbour.commands(drained=False)[1].endswith("community [ 1:9 ]")
    other = exabgp_graceful_shutdown(peers, announce, asn=1, command="run it", source="y")
    assert other is not None
    assert other["process"] != found["process"], "a new program starts anew"
    assert exabgp_graceful_shutdown(peers, {"ipv4": [], "ipv6": []}, asn=1, command="", source="") is None


def test_a_word_that_is_not_understood_is_named() -> None:
    with pytest.raises(ValueError, match="found 'colour=1', expected a neighbour's address"):
        neighbours_of(["192.0.2.1", "colour=1"])


# -- the mark ----------------------------------------------------------------------------------------


def marks(directory: Path) -> Marks:
    return Marks(MarkSettings(current=directory / "run" / "drained", kept=directory / "lib" / "drained"))


def test_a_mark_is_read_as_it_was_written(tmp_path: Path) -> None:
    mine = marks(tmp_path)
    assert mine.read() is None
    mark = Mark(since=NOW, reason="new NIC", by="noc", keep=True)
    mine.write(mark)
    assert mine.read() == mark
    content = json.loads((tmp_path / "run" / "drained").read_text())
    assert content["schema"] == "router-agent/drained/1"
    assert content.keys() == {"schema", "since", "reason", "by", "keep"}
    mine.write(mark.model_copy(update={"keep": False}))
    assert not (tmp_path / "lib" / "drained").exists()
    mine.remove()
    mine.remove()
    assert mine.read() is None


def test_a_mark_is_never_written_through_a_link(tmp_path: Path) -> None:
    """Its directory belongs to the agent's user."""
    (tmp_path / "run").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    (tmp_path / "run" / "drained").symlink_to(victim)
    marks(tmp_path).write(Mark(since=NOW))
    assert victim.read_text() == "as it was"
    assert not (tmp_path / "run" / "drained").is_symlink()


@pytest.mark.parametrize("kept", [True, False])
def test_after_a_boot_a_kept_mark_is_in_force(tmp_path: Path, kept: bool) -> None:
    mine, mark = marks(tmp_path), Mark(since=NOW, keep=kept)
    mine.write(mark)
    (tmp_path / "run" / "drained").unlink()
    assert mine.after_boot() == (mark if kept else None)
    assert mine.read() == (mark if kept else None)


def test_what_cannot_be_understood_still_drains(tmp_path: Path) -> None:
    mine = marks(tmp_path)
    for name in ("run", "lib"):
        (tmp_path / name).mkdir()
    (tmp_path / "lib" / "drained").write_text("yes")
    after = mine.after_boot()
    assert after is not None
    assert after.by == "boot"
    (tmp_path / "run" / "drained").write_text("{}")
    with pytest.raises(MarkError, match="found what is no mark"):
        mine.read()


# -- traffic -----------------------------------------------------------------------------------------

SS = """\
0 0 198.18.1.1:38538 198.18.1.2:179 bbr rtt:5.2/1 segs_out:43 segs_in:44 data_segs_in:40
0 0 [2001:db8::1]:44774 [2001:db8::2]:179 bbr segs_out:20 segs_in:16
0 0 127.0.0.1:179 127.0.0.2:40000 cubic segs_in:7
0 0 [fe80::1%wan]:179 [fe80::2%wan]:40001 cubic segs_in:3
0 0 192.0.2.1:179 192.0.2.2:50000 cubic
"""


def test_the_control_planes_own_packets_are_counted() -> None:
    assert segments_of(SS) == {
        "BGP 198.18.1.1:38538 198.18.1.2:179": 44,
        "BGP [2001:db8::1]:44774 [2001:db8::2]:179": 16,
        "BGP [fe80::1%wan]:179 [fe80::2%wan]:40001": 3,
    }
    bfd = [{"peer": "10.0.1.1", "local": "10.0.1.2", "control-packet-input": 22, "echo-packet-input": 3}]
    assert bfd_packets_of(json.dumps(bfd)) == {"BFD 10.0.1.2 10.0.1.1": 25}
    assert bfd_packets_of("bfdd is not running") == {}


def test_a_rate_is_without_them() -> None:
    before = Reading(10.0, {"wan": 1000, "lan": 50}, {"BGP a": 10, "BGP gone": 5})
    after = Reading(12.0, {"wan": 3000, "lan": 150}, {"BGP a": 110, "BGP new": 40})
    found = rate(before, after)
    assert found is not None
    assert (found.pps, found.control_pps) == ((2000 + 100 - 140) / 2, 70)
    assert found.words == "wan 1,000 pps, lan 50 pps"
    assert rate(after, before) is None
    assert rate(before, Reading(12.0, {"wan": 5, "lan": 60})) is None, "a counter began anew"


@given(
    st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**6), st.floats(0.01, 60, allow_nan=False)
)
def test_a_rate_is_never_below_nothing(count: int, grown: int, control: int, seconds: float) -> None:
    before, after = Reading(0.0, {"a": count}), Reading(seconds, {"a": count + grown}, {"BGP": control})
    found = rate(before, after)
    assert found is not None
    assert 0 <= found.pps <= grown / seconds


class Counters(Meter):
    """Counters that grow as told, a second at a time."""

    def __init__(self, rates: Iterator[float | TrafficError]) -> None:
        super().__init__(TrafficSettings())
        self.now, self._count, self._rates = 0.0, 0.0, rates

    def pause(self, seconds: float) -> None:
        self.now += seconds

    def read(self) -> Reading:
        told = next(self._rates)
        if isinstance(told, TrafficError):
            raise told
        self._count += told
        return Reading(self.now, {"wan": int(self._count)})


def waited(*rates: float | TrafficError, in_force: bool = True, **changes: Any) -> Outcome:
    given: Iterator[float | TrafficError] = iter([*rates, *[rates[-1]] * 100])
    meter = Counters(given)
    settings = TrafficSettings(quiet_seconds=3, seconds=20).model_copy(update=changes)
    before = Rate(pps=10_000, ports={"wan": 10_000}, control_pps=0)
    return wait_until_gone(
        meter, settings, before=before, in_force=lambda: in_force, told=lambda _p: None,
        pause=meter.pause, clock=lambda: meter.now,
    )  # fmt: skip


def test_traffic_is_gone_when_it_stays_below() -> None:
    found = waited(0, 10_000, 5000, 50)
    assert found.gone
    assert found.seconds == 5
    # A dip is not the end.
    assert waited(0, 50, 50, 5000, 50).seconds == 6
    assert waited(0, 0).gone


def test_a_share_of_what_there_was_may_be_none() -> None:
    assert not waited(0, 900).gone
    found = waited(0, 900, below_share=0.1)
    assert (found.gone, found.threshold_pps) == (True, 1000)


def test_what_stays_is_said_with_its_port() -> None:
    found = waited(0, 10_000)
    assert not found.gone
    assert found.words.startswith("found 10,000 pps after 20 s, expected at most 100; they come in by wan")
    assert waited(0, 0, in_force=False).words == "somebody has undrained the router meanwhile"


def test_counters_that_cannot_be_read_are_not_no_traffic() -> None:
    assert waited(0, TrafficError("busy"), 0, 0, 0, 0, 0).gone
    found = waited(TrafficError("no interface wan"))
    assert (found.gone, found.words) == (False, "traffic cannot be measured: no interface wan")


# -- drain.yaml --------------------------------------------------------------------------------------


def test_mistakes_in_the_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "drain.yaml"
    path.write_text("traffic:\n  port: [a]\n  seconds: 0\nfail_safe: {wrong_seconds: soon}\n")
    with pytest.raises(FileError) as raised:
        load(path)
    assert [problem.removeprefix(f"{path}:") for problem in raised.value.problems] == [
        "2: traffic.port: found an unknown key, expected one of "
        f"{', '.join(TrafficSettings.model_fields)}; did you mean 'ports'?",
        "3: traffic.seconds: found 0, expected more than 0.0",
        raised.value.problems[2].removeprefix(f"{path}:"),
    ]
    assert "fail_safe.wrong_seconds: found 'soon'" in raised.value.problems[2]


# -- fail safe ---------------------------------------------------------------------------------------

LIMITS = FailSafeSettings(
    wrong_seconds=60, silent_seconds=30, right_seconds=100, right_seconds_most=350, forget_seconds=10_000
)
RIGHT, WRONG = Finding(Health.RIGHT), Finding(Health.WRONG, "pipeline vpp is fib-lost")
SILENT = Finding(Health.SILENT, "the agent does not answer")
OWN, OPERATORS = Mark(since=NOW, by=FAIL_SAFE), Mark(since=NOW, by="noc")


def looked(judge: Judge, *looks: tuple[float, Finding, Mark | None]) -> list[str | None]:
    wishes = [judge.look(*look) for look in looks]
    return [wish.what if wish else None for wish in wishes]


def test_what_is_wrong_for_long_drains_the_host() -> None:
    looks = [(0, RIGHT, None), (10, WRONG, None), (69, WRONG, None), (70, WRONG, None), (71, WRONG, None)]
    assert looked(Judge(LIMITS), *looks) == [None, None, None, "drain", "drain"]
    # A moment that is right begins anew; silence counts by its own limit.
    looks = [(0, WRONG, None), (50, RIGHT, None), (60, WRONG, None), (100, WRONG, None), (101, SILENT, None)]
    assert looked(Judge(LIMITS), *looks) == [None, None, None, None, "drain"]


def test_its_own_drain_is_taken_back_when_all_is_right_for_long() -> None:
    looks = [(0, WRONG, None), (60, WRONG, None), (61, WRONG, OWN), (70, RIGHT, OWN), (169, RIGHT, OWN)]
    judge = Judge(LIMITS)
    assert looked(judge, *looks) == [None, "drain", None, None, None]
    assert looked(judge, (170, RIGHT, OWN), (171, RIGHT, None)) == ["undrain", None]
    # A restart of the watcher does not take it for a new drain.
    assert Judge(LIMITS, [1.0]).look(2.0, RIGHT, OWN) is None


def test_an_operators_drain_is_never_taken_back() -> None:
    judge = Judge(LIMITS)
    assert looked(judge, *((float(t), RIGHT, OPERATORS) for t in range(0, 9000, 100))) == [None] * 90
    assert looked(judge, (9000, WRONG, OPERATORS), (9999, WRONG, OPERATORS)) == [None, None]


def test_an_operator_who_takes_it_back_has_the_whole_time() -> None:
    judge = Judge(LIMITS)
    looked(judge, (0, WRONG, None), (60, WRONG, None), (61, WRONG, OWN))
    assert looked(judge, (200, WRONG, None), (259, WRONG, None), (260, WRONG, None)) == [None, None, "drain"]


def test_a_fib_that_comes_and_goes_does_not_flap() -> None:
    judge, at, times = Judge(LIMITS), 0.0, []
    for _ in range(4):
        looked(judge, (at, WRONG, None), (at + 60, WRONG, None), (at + 61, WRONG, OWN))
        began = at = at + 62
        while judge.look(at, RIGHT, OWN) is None:
            at += 1
        times.append(at - began)
        at += 1
        judge.look(at, RIGHT, None)
        at += 1
    assert times == [100, 200, 350, 350]
    judge.look(at + 20_000, RIGHT, None)
    assert judge.patience == 100, "what was so long ago does not count"


def status(**changes: Any) -> Status:
    pipeline = PipelineStatus(name="vpp", feed="kernel", fib="vpp", state=State.IN_SYNC)
    return Status(
        version="1", pid=1, uptime_seconds=1, rss_bytes=1, pipelines=(pipeline.model_copy(update=changes),)
    )


@pytest.mark.parametrize(
    ("changes", "health", "words"),
    [
        ({}, Health.RIGHT, ""),
        ({"lag_seconds": 59.0}, Health.RIGHT, ""),
        ({"lag_seconds": 61.0}, Health.WRONG, "pipeline vpp: changes wait for 61 s"),
        ({"state": State.SYNCING}, Health.WRONG, "pipeline vpp is syncing"),
        ({"state": State.FIB_LOST, "error": "no VPP"}, Health.WRONG, "pipeline vpp is fib-lost: no VPP"),
        (
            {"capacity": CapacityStatus(exhausted=True, shortage="main heap")},
            Health.WRONG,
            "pipeline vpp: main heap",
        ),
        ({"capacity": CapacityStatus(exhausted=False)}, Health.RIGHT, ""),
    ],
)
def test_what_the_agent_says_is_judged(changes: dict[str, Any], health: Health, words: str) -> None:
    assert finding_of(status(**changes), wrong_seconds=60) == Finding(health, words)
