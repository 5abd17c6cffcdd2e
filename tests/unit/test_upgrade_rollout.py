"""What became of each router: verdicts, the table, where it stopped, how to go on; and who holds a lock."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from upgrade_rollout import (
    upgrade_batch_of,
    upgrade_components_after,
    upgrade_diff_options,
    upgrade_digest,
    upgrade_failure,
    upgrade_is_over,
    upgrade_lost_sessions,
    upgrade_not_locked,
    upgrade_passed_over,
    upgrade_plan_shown,
    upgrade_received_pps,
    upgrade_rollout,
    upgrade_run,
    upgrade_stopped,
    upgrade_table,
)

BATCHES = [["a1"], ["b1", "c1"], ["a2"]]
PLAN: dict[str, dict[str, Any]] = {
    "frr": {"before": "10.3-3", "wanted": "10.3-4", "due": True},
    "vpp": {"nothing": "the kernel forwards here"},
}


def record(host: str, verdict: str = "", reason: str = "", **more: Any) -> dict[str, Any]:
    components = upgrade_components_after(PLAN, ["frr"], succeeded=verdict == "done")
    told = {"host": host, "pop": host[0], "components": components, "verdict": verdict, "reason": reason}
    return told | more


def rolled(records: list[dict[str, Any]], *, reached: int, over: bool) -> dict[str, Any]:
    return upgrade_rollout(
        records, run=upgrade_run("frr 10.3-4"), batches=BATCHES, reached=reached, over=over
    )


def verdicts(rollout: dict[str, Any]) -> dict[str, str]:
    return {host["host"]: host["verdict"] for host in rollout["hosts"]}


def test_a_rollout_under_way_says_who_is_waiting() -> None:
    rollout = rolled([record("a1", "done"), record("b1"), record("c1"), record("a2")], reached=2, over=False)
    assert rollout["verdict"] == "under way"
    assert verdicts(rollout) == {"a1": "done", "b1": "under way", "c1": "under way", "a2": "not reached"}
    assert rollout["stopped_at"] == []


def test_a_batch_that_is_done_is_not_the_end() -> None:
    rollout = rolled([record("a1", "done"), record("b1"), record("c1"), record("a2")], reached=1, over=True)
    assert rollout["verdict"] == "under way"


def test_the_last_batch_ends_it() -> None:
    records = [*(record(host, "done") for host in ("a1", "b1", "c1", "a2")), record("d1", "passed over")]
    assert rolled(records, reached=3, over=True)["verdict"] == "done"
    assert rolled(records, reached=3, over=False)["verdict"] == "under way"


def test_a_failure_stops_it_and_says_how_to_go_on() -> None:
    records = [
        record("a1", "done"),
        record("b1", "rolled back", "Verify: a session is down", drained_seconds=41.7, lost_sessions=[]),
        record("c1", "done"),
        record("a2"),
        record("d1", "passed over", "frr is 10.3-4 already"),
    ]
    rollout = rolled(records, reached=2, over=True)
    assert (rollout["verdict"], rollout["stopped_at"]) == ("stopped", ["b1"])
    said = upgrade_stopped(rollout)
    assert "stopped in batch 2 of 3 at b1" in said
    assert "rolled back, verified and carries traffic again (Verify: a session is down)" in said
    assert "done, and stays so: a1, c1" in said
    assert "not reached, and as it was: a2" in said
    assert "--limit 'routers,!b1'" in said
    table = upgrade_table(rollout).splitlines()
    assert table[0].split()[:3] == ["router", "batch", "from"]
    assert [line.split()[0] for line in table[2:7]] == ["d1", "a1", "b1", "c1", "a2"]
    assert "frr 10.3-3" in table[4]
    assert "42 s" in table[4]
    assert table[4].endswith("rolled back")


def test_a_router_without_a_verdict_at_the_end_of_its_batch_is_lost() -> None:
    rollout = rolled(
        [record("a1", "done"), record("b1"), record("c1", "done"), record("a2")], reached=2, over=True
    )
    assert verdicts(rollout)["b1"] == "lost"
    assert rollout["stopped_at"] == ["b1"]
    assert "does not answer" in upgrade_stopped(rollout)


def test_a_host_is_in_the_batch_of_its_place() -> None:
    assert [upgrade_batch_of(index, BATCHES) for index in range(4)] == [1, 2, 2, 3]


def test_components_are_what_was_asked_for_only_after_success() -> None:
    assert upgrade_components_after(PLAN, ["frr"], succeeded=True)["frr"]["after"] == "10.3-4"
    assert upgrade_components_after(PLAN, ["frr"], succeeded=False)["frr"]["after"] == "10.3-3"
    assert "vpp" not in upgrade_components_after(PLAN, ["frr"], succeeded=True)


def test_the_plan_names_every_router_once() -> None:
    hosts = [
        {
            "inventory_hostname": name,
            "router_pop": name[0],
            "upgrade_plan": PLAN,
            "upgrade_due": ["frr"] if name != "c1" else [],
            "upgrade_record": {"reason": upgrade_passed_over(PLAN)},
        }
        for name in ("a1", "a2", "b1", "c1", "d1")
    ]
    said = upgrade_plan_shown(hosts, BATCHES, "frr 10.3-4").splitlines()
    assert said[0] == "Rollout of frr 10.3-4: 4 routers in 3 batches"
    assert "  a1 (a): frr 10.3-3 -> 10.3-4, vpp: the kernel forwards here" in said
    assert any(line.startswith("  c1 (c): verified and undrained") for line in said)
    assert said[-1] == "passed over: d1: frr is 10.3-3 already, vpp: the kernel forwards here"


def test_meant_to_be_another_is_only_what_is_changed() -> None:
    assert upgrade_diff_options([]) == []
    assert upgrade_diff_options(["frr"]) == ["--changed", "configuration", "--changed", "frr"]
    assert "vpp" not in upgrade_diff_options(["frr", "kernel", "router_agent", "exabgp"])


def test_sessions_that_were_up_and_are_not_are_lost() -> None:
    def snapshot(**states: str) -> dict[str, Any]:
        sessions = [{"peer": peer, "state": state} for peer, state in states.items()]
        return {"bgp": {"content": {"sessions": sessions}}, "exabgp": {"content": None}}

    before = snapshot(p1="Established", p2="Idle", p3="Established")
    assert upgrade_lost_sessions(before, snapshot(p1="Established", p2="Idle", p3="Active")) == ["p3"]
    assert upgrade_lost_sessions(before, {"bgp": {"state": "unreadable", "content": None}}) == ["p1", "p3"]


def test_traffic_is_what_comes_in_by_the_ports() -> None:
    counters = {"dev.up.rx_packets": 300, "dev.up.tx_packets": 900, "dev.mgmt.rx_packets": 5000}
    assert upgrade_received_pps({"seconds": 2.0, "counters": counters}, ["up", "lan"]) == 150
    assert upgrade_received_pps({"seconds": 1.0, "counters": {"/if/rx/lan": 7}}, ["lan"]) == 7


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ({"msg": "it broke"}, "it broke"),
        ({"msg": "non-zero return code", "stderr": "E: no such package\n"}, "E: no such package"),
        ({"msg": "non-zero return code", "stdout": "beyond the tolerances"}, "beyond the tolerances"),
        ({}, "no reason given"),
    ],
)
def test_a_failure_is_said_in_the_words_of_what_failed(result: dict[str, Any], said: str) -> None:
    assert upgrade_failure(result) == said


def test_a_digest_is_another_when_anything_is(tmp_path: Path) -> None:
    tree, inventory = tmp_path / "roles", tmp_path / "inventory"
    for path in (tree / "a", inventory / "group_vars"):
        path.mkdir(parents=True)
    hosts = inventory / "hosts.yml"
    hosts.write_text("routers: {}\n")
    (tree / "a" / "x.yml").write_text("x\n")

    def digest() -> str:
        return upgrade_digest([str(tree)], [str(hosts), "r1,"], str(inventory))

    seen = [digest()]
    assert digest() == seen[0]
    (tree / "a" / "__pycache__").mkdir()
    (tree / "a" / "__pycache__" / "x.pyc").write_text("x")
    assert digest() == seen[0]
    for path in (tree / "a" / "x.yml", hosts, inventory / "group_vars" / "all.yml", tree / "new"):
        path.write_text("other\n")
        seen.append(digest())
    assert len(set(seen)) == 5


def test_a_rollout_is_over_when_its_process_on_this_controller_is_gone() -> None:
    ours = upgrade_run("frr")
    assert ours["pid"] == os.getpid()
    assert not upgrade_is_over(ours, ours)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert upgrade_is_over(ours | {"pid": child.pid}, ours)
    # The number has been given to another process, or the controller was rebooted.
    assert upgrade_is_over(ours | {"started": ours["started"] + 1}, ours)
    assert upgrade_is_over(ours | {"boot": "another"}, ours)
    # Nobody here knows of another controller's.
    assert not upgrade_is_over(ours | {"controller": "another", "pid": child.pid}, ours)
    assert not upgrade_is_over({"run": "unreadable"}, ours)


def test_runs_have_different_names() -> None:
    assert len({upgrade_run("frr")["run"] for _ in range(50)}) == 50


def test_a_refusal_says_whose_lock_it_is_and_how_to_take_it() -> None:
    holder = upgrade_run("frr 10.3-4") | {"controller": "ctl2", "user": "ops"}
    said = upgrade_not_locked([{"item": "a2", "holder": holder}], ["a1"], "/var/lib/pop-router/rollout.lock")
    assert "a1 does not answer, expected every router of these POPs to" in said
    assert f"a2 is locked by rollout {holder['run']} of ops on ctl2 since {holder['since']}" in said
    assert f"-e upgrade_take_lock={holder['run']}" in said
    assert upgrade_not_locked([], [], "/x") == ""
