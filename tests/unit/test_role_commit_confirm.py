"""What a change must not have broken, and what an operator is told when it has."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from commit_confirm_words import commit_confirm_message
from role_variables import rendered, rendered_by_ansible, templated
from router_agent.lastgood.program import SETTINGS
from router_checks import router_absent_routes, router_change_checks, router_faults

LINK = {"up": True, "carrier": True, "addresses": ["198.51.100.2/30"]}
STATE: dict[str, Any] = {
    "services": {"frr.service": {"active": "active", "enabled": "enabled"}},
    "links": {"uplink": LINK, "spare": LINK | {"carrier": False}},
    "frr_sessions": {
        "198.51.100.1": {"state": "Established", "prefixes": 3, "sent": 1},
        "2001:db8::1": {"state": "Active", "prefixes": 0, "sent": 0},
    },
    "connections": ["203.0.113.1"],
    "agent": {
        "pipelines": [
            {
                "name": "exabgp",
                "state": "in-sync",
                "error": None,
                "counts": [{"family": 2, "in_fib": 9, "desired": 10, "not_in_fib": {"unresolved": 1}}],
            }
        ]
    },
    "errors": [],
}
WANTED: dict[str, Any] = {
    "forwarding": "kernel",
    "ports": [{"name": "uplink", "addresses": ["198.51.100.2/30"]}, {"name": "spare"}],
    "bonds": [],
    "loopbacks": [],
    "peers": [
        {"name": "upstream", "address": "198.51.100.1"},
        {"name": "down", "address": "2001:DB8::1"},
        {"name": "transit", "address": "203.0.113.1", "speaker": "exabgp"},
    ],
    "pipelines": [{"name": "exabgp"}],
    "interfaces": {},
    "services": {"frr.service": True},
}


def faults(**changes: Any) -> list[str]:
    return router_faults(router_change_checks({**deepcopy(STATE), **changes}, STATE, WANTED))


def test_what_was_wrong_before_is_not_the_fault_of_the_change() -> None:
    assert faults() == []
    assert router_absent_routes(STATE) == 1


def test_a_session_that_was_established_must_be_again() -> None:
    sessions = {"198.51.100.1": {"state": "Active", "prefixes": 0, "sent": 0}}
    assert faults(frr_sessions=sessions) == [
        "session upstream: found 198.51.100.1 Active, 0 prefixes, expected Established"
    ]
    assert faults(connections=[]) == ["session transit: found 203.0.113.1 not connected, expected connected"]


def test_a_peer_that_left_the_inventory_was_meant_to_go() -> None:
    wanted = WANTED | {"peers": WANTED["peers"][1:]}
    after = deepcopy(STATE) | {"frr_sessions": {}}
    assert router_faults(router_change_checks(after, STATE, wanted)) == []


def test_a_link_that_had_a_carrier_must_have_one_and_its_addresses() -> None:
    assert faults(links=STATE["links"] | {"uplink": LINK | {"carrier": False, "addresses": []}}) == [
        "uplink: found no carrier, without 198.51.100.2/30, expected up, with its addresses"
    ]


def test_what_was_found_so_before_is_no_fault() -> None:
    disabled = {"frr.service": {"active": "active", "enabled": "disabled"}}
    before = deepcopy(STATE) | {"services": disabled, "links": {"uplink": LINK | {"addresses": []}}}
    assert router_faults(router_change_checks(deepcopy(before), before, WANTED)) == []
    assert len(router_faults(router_change_checks(STATE | {"services": disabled}, STATE, WANTED))) == 1


def test_more_absent_routes_than_before_are_a_fault() -> None:
    agent = deepcopy(STATE["agent"])
    agent["pipelines"][0]["counts"][0]["not_in_fib"]["unresolved"] = 2
    assert len(faults(agent=agent)) == 1
    agent = deepcopy(STATE["agent"])
    agent["pipelines"][0]["state"] = "fib-lost"
    assert len(faults(agent=agent)) == 1
    assert len(faults(agent=None)) == 1


def test_a_service_must_run_and_what_could_be_asked_must_answer() -> None:
    dead = {"frr.service": {"active": "failed", "enabled": "enabled"}}
    assert faults(services=dead, errors=["FRR: no answer"]) == [
        "frr.service: found failed, enabled, expected active, enabled",
        "readings: found FRR: no answer, expected an answer",
    ]


def test_the_operator_is_told_when_how_to_stay_and_how_to_go_back() -> None:
    status = {
        "armed": True,
        "changed": ["/etc/frr/frr.conf"],
        "until": "2026-01-01T00:15:00+00:00",
        "seconds_left": 871,
        "last": None,
    }
    told = commit_confirm_message("it broke", status, "r1", "/lib/last-good")
    for words in ("r1: it broke", "00:15:00", "871 s", "last-good disarm", "last-good rollback", "frr.conf"):
        assert words in told
    gone = {"armed": False, "last": {"at": "2026-01-01T00:15:00+00:00", "reason": "nobody said disarm"}}
    assert "went back at 2026-01-01T00:15:00" in commit_confirm_message("late", gone, "r1", "last-good")
    assert commit_confirm_message("it broke", None, "r1", "last-good") == "r1: it broke"


def test_paths_that_are_variables_are_kept_where_they_are() -> None:
    variables = {"router_agent_config": "/etc/mine/agent.yaml", "exabgp_path": "/srv/exabgp"}
    files = rendered(templated("commit_confirm", "commit_confirm_unit_files", variables))
    settings = json.loads(files[SETTINGS])
    assert "/etc/mine/agent.yaml" in settings["files"]["router-agent"]
    assert "/srv/exabgp" in settings["files"]["exabgp"]
    assert settings["kept"] == 5


def test_the_way_back_goes_on_after_it_was_cut_short() -> None:
    unit = rendered_by_ansible("last-good@.service.j2", {"command": "/lib/last-good"})
    assert "ExecStart=/lib/last-good go-back %i" in unit
    assert "Restart=on-failure" in unit
