"""Role acceptance: which router is live, and what a check's end means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from acceptance_check import FAIL, INVALID, REFUSED, UNDONE, results, verdict

from acceptance_checks import (
    EXIT_CODES,
    acceptance_live_reasons,
    acceptance_refused,
    acceptance_table,
    acceptance_verdict,
)
from router_agent.traffic.judgement.verdict import Outcome
from router_state import frr_sessions, graceful_shutdown

PEERS = [{"address": "198.18.1.2"}, {"address": "2001:db8::9", "speaker": "exabgp"}]
# As FRR 8.4 prints them.
SUMMARY = {
    "ipv4Unicast": {
        "peers": {
            "198.18.1.2": {"state": "Established", "pfxRcd": 10000, "pfxSnt": 1},
            "198.18.1.6": {"state": "Active", "pfxRcd": 0, "pfxSnt": 0},
        }
    }
}
RUNNING = """\
Building configuration...

Current configuration:
!
router bgp 64500
 bgp router-id 198.18.1.1
{line} neighbor 198.18.1.2 remote-as 64496
exit
!
end
"""


def state(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "frr_sessions": {},
        "graceful_shutdown": False,
        "connections": [],
        "errors": [],
    }
    return found | changes


def live(
    found: dict[str, Any],
    counters: dict[str, int] | None = None,
    seconds: float = 2.0,
    *,
    drained: bool = False,
) -> list[str]:
    return acceptance_live_reasons(
        found,
        load={"seconds": seconds, "counters": counters or {}},
        interfaces=["uplink", "lan"],
        peers=PEERS,
        idle_pps=100,
        drained=drained,
    )


def test_a_router_without_sessions_and_traffic_is_drained() -> None:
    assert live(state()) == []


def test_a_session_that_hears_prefixes_makes_it_live_and_is_named() -> None:
    sessions = frr_sessions(SUMMARY)
    assert live(state(frr_sessions=sessions)) == ["it announces 1 prefixes to 198.18.1.2 and is not drained"]
    assert live(state(frr_sessions=sessions), drained=True) == []
    # Traffic is traffic, whatever the neighbours were told.
    assert live(state(frr_sessions=sessions), {"dev.lan.rx_packets": 9000}, drained=True)
    sessions["198.18.1.2"]["sent"] = 0
    assert live(state(frr_sessions=sessions)) == []


@pytest.mark.parametrize(("line", "found"), [(" bgp graceful-shutdown\n", True), ("", False)])
def test_graceful_shutdown_is_read_from_the_running_configuration(line: str, found: bool) -> None:
    assert graceful_shutdown(RUNNING.replace("{line}", line)) is found
    assert graceful_shutdown(f"bgp graceful-shutdown\n{RUNNING}")
    assert not graceful_shutdown(" no bgp graceful-shutdown\n! bgp graceful-shutdown\n")


def test_a_session_of_exabgp_makes_it_live() -> None:
    """What it announces nobody can ask, but it is among what a drained router has drained."""
    assert live(state(connections=["198.18.1.2"])) == []
    (reason,) = live(state(connections=["2001:db8::9%lan"]))
    assert "ExaBGP's session with 2001:db8::9 is up" in reason
    assert live(state(connections=["2001:db8::9%lan"]), drained=True) == []


@pytest.mark.parametrize(
    "counters",
    [
        {"dev.uplink.rx_packets": 150, "dev.lan.tx_packets": 52},
        {"/if/rx/uplink": 150, "/if/tx/lan": 52},
    ],
)
def test_traffic_makes_it_live_and_its_port_is_named(counters: dict[str, int]) -> None:
    (reason,) = live(state(), counters)
    assert reason.startswith("its ports carry traffic (uplink 75 pps, lan 26 pps; 100 together is idle)")
    assert live(state(), counters, seconds=4.0) == []
    assert live(state(), {"dev.mgmt.rx_packets": 10_000}) == []


def test_what_cannot_be_asked_makes_it_live() -> None:
    assert live(state(errors=["FRR: vtysh: found no answer within 60 s"])) == [
        "cannot be asked: FRR: vtysh: found no answer within 60 s"
    ]


def report(outcome: str) -> str:
    verdict = {"outcome": outcome, "reason": "because"}
    return json.dumps({"verdict": verdict, "parts": [{"name": "target, 64 bytes", "verdict": verdict}]})


UNCHANGED = {"rc": 0, "stdout": json.dumps({"as_found": True, "put_back": [], "different": []})}
CHANGED = {
    "rc": 1,
    "stdout": json.dumps({"as_found": False, "put_back": [], "different": ["link lan is gone"]}),
}


@pytest.mark.parametrize(
    ("check", "content", "after", "outcome", "words"),
    [
        ({"rc": 0}, report("PASS"), UNCHANGED, "PASS", "because"),
        ({"rc": 1}, report("FAIL"), UNCHANGED, "FAIL", "because"),
        ({"rc": 3}, report("INVALID"), UNCHANGED, "INVALID", "because"),
        ({"rc": 4}, report("INVALID"), UNCHANGED, "UNDONE", "because"),
        ({"rc": 2, "stderr": "line 3: frames"}, "", UNCHANGED, "UNDONE", "no report: line 3: frames"),
        ({}, "", UNCHANGED, "UNDONE", "it was not run"),
        ({"rc": 0}, report("PASS"), CHANGED, "FAIL", "not as it was found: link lan is gone"),
        ({"rc": 1}, report("FAIL"), CHANGED, "FAIL", "because"),
        ({"rc": 0}, report("PASS"), {"rc": 255, "stderr": "no route"}, "FAIL", "is not known: no route"),
        ({"rc": 0}, report("PASS"), {}, "FAIL", "is not known: no answer"),
    ],
)
def test_the_end_of_a_check_has_one_verdict(
    check: dict[str, Any], content: str, after: dict[str, Any], outcome: str, words: str
) -> None:
    found = acceptance_verdict(check, report=content, after=after)
    assert found["outcome"] == outcome
    assert found["exit_code"] == EXIT_CODES[outcome]
    assert words in found["reason"]
    assert found["as_found"] is (after == UNCHANGED)
    table = acceptance_table(found)
    assert f"verdict{'':21}  {outcome}" in table
    assert all(len(line) <= 110 for line in table.splitlines())


def test_what_was_put_back_is_said() -> None:
    after = {"rc": 0, "stdout": json.dumps({"put_back": ["lan up with MTU 1500"], "different": []})}
    found = acceptance_verdict({"rc": 0}, report=report("PASS"), after=after)
    assert (found["outcome"], found["as_found"]) == ("PASS", True)
    assert "put back: lan up with MTU 1500" in acceptance_table(found)


def test_each_outcome_of_the_judgement_has_a_code_of_its_own() -> None:
    assert {outcome.value for outcome in Outcome} < EXIT_CODES.keys()
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert acceptance_refused(["a", "b"])["reason"] == "it is live: a; b"


@pytest.mark.parametrize(
    ("codes", "ended_with", "checking", "code"),
    [
        ([0, 0], 0, False, 0),
        ([0, REFUSED, UNDONE, INVALID, FAIL], 2, False, FAIL),
        ([0, REFUSED, UNDONE, INVALID], 2, False, INVALID),
        ([REFUSED, UNDONE], 2, False, UNDONE),
        ([0, REFUSED], 2, False, REFUSED),
        ([0], 2, False, UNDONE),
        ([], 4, False, UNDONE),
        ([], 0, False, UNDONE),
        ([], 0, True, 0),
        ([], 2, True, UNDONE),
    ],
)
def test_the_exit_code_is_that_of_the_worst(
    codes: list[int], ended_with: int, checking: bool, code: int
) -> None:
    assert verdict(codes, ended_with, checking=checking) == code


def test_results_of_another_run_do_not_count(tmp_path: Path) -> None:
    for host, run in (("r1", "mine"), ("r2", "former")):
        (tmp_path / host).mkdir()
        result = acceptance_refused(["x"]) | {"host": host, "run": run}
        (tmp_path / host / "result.json").write_text(json.dumps(result))
    assert results(tmp_path, "mine") == [("r1", "REFUSED", REFUSED, "it is live: x")]
