"""Which variables preflight finds missing, unknown or of the wrong type, and how it says so."""

from __future__ import annotations

import re
from typing import Any

import pytest

from preflight_variables import preflight_variables

ROUTER: dict[str, Any] = {
    "router_asn": {"type": "int", "required": True, "description": ["The C(own) number. More."]},
    "router_forwarding": {"type": "str", "choices": ["vpp", "kernel"], "default": "vpp"},
    "router_pop": {"type": "str"},
    "router_ports": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "device": {"type": "str"},
            "mtu": {"type": "int", "default": 1500},
            "addresses": {"type": "list", "elements": "str", "default": []},
            "vlans": {
                "type": "list",
                "elements": "dict",
                "options": {"id": {"type": "int"}, "mtu": {"type": "int"}},
            },
            "bfd": {"type": "bool"},
            "password": {"type": "str", "no_log": True},
        },
    },
}
SPECS = {
    "preflight": {"main": {"preflight_timeout": {"type": "int"}}, "router": ROUTER},
    "vpp": {"main": {"vpp_workers": {"type": "list", "elements": "int"}, "vpp_main_heap": {"type": "str"}}},
}


def check(defined: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Result for variables beside a valid AS number."""
    return preflight_variables({"router_asn": 64500, **defined}, SPECS, **options)


def port(**keys: Any) -> dict[str, Any]:
    """Variables with one port."""
    return {"router_ports": [{"name": "uplink", **keys}]}


def test_right_variables_come_back_with_defaults() -> None:
    result = check({**port(addresses=["192.0.2.1/24"], vlans=[{"id": 100}]), "vpp_workers": [1, 2]})
    assert result["problems"] == []
    assert result["values"] == {
        "router_asn": 64500,
        "router_forwarding": "vpp",
        "router_ports": [
            {"name": "uplink", "mtu": 1500, "addresses": ["192.0.2.1/24"], "vlans": [{"id": 100}]}
        ],
        "vpp_workers": [1, 2],
    }


@pytest.mark.parametrize(
    ("defined", "variable", "found", "expected", "remedy"),
    [
        ({"router_forwarding": "vp"}, "router_forwarding", "'vp'", "one of vpp, kernel", "write vpp"),
        (
            {"router_asn": "many"},
            "router_asn",
            "'many'",
            "a whole number",
            "take the quotes off|write a whole",
        ),
        ({"router_asn": [1]}, "router_asn", "a list of 1", "a whole number", "write a whole number"),
        ({"router_asn": True}, "router_asn", "true", "a whole number", "write a whole number"),
        ({"router_pop": 7}, "router_pop", "the number 7", "text", "put it in quotes"),
        ({"router_ports": {"name": "x"}}, "router_ports", "a mapping with name", "a list", "write a list"),
        ({"router_ports": ["x"]}, "router_ports[0]", "'x'", "a mapping", ""),
        (port(mtu="9000"), "router_ports[uplink].mtu", "'9000'", "a whole number", "take the quotes off"),
        (port(bfd="yes"), "router_ports[uplink].bfd", "'yes'", "true or false", "take the quotes off"),
        (port(device=180.1), "router_ports[uplink].device", "the number 180.1", "text", "quotes"),
        (
            port(addresses="192.0.2.1/24"),
            "router_ports[uplink].addresses",
            "'192",
            "a list",
            r"\[192.0.2.1/24\]",
        ),
        (port(addresses=[{"a": 1}]), "router_ports[uplink].addresses[0]", "a mapping with a", "text", ""),
        (port(vlans=[{"id": "x"}]), "router_ports[uplink].vlans[x].id", "'x'", "a whole number", ""),
        (
            port(adresses=[]),
            "router_ports[uplink].adresses",
            "an unknown key",
            r"addresses\?",
            "rename it to addresses",
        ),
        (
            port(colour=1),
            "router_ports[uplink].colour",
            "an unknown key",
            "one of addresses, bfd",
            "take it out",
        ),
        ({"router_ports": [{"mtu": 1500}]}, "router_ports[0].name", "nothing", "text", "set it"),
        ({"router_forwardin": 1}, "router_forwardin", "no role knows", "router_forwarding", "rename it to"),
        ({"vpp_worker": [1]}, "vpp_worker", "no role knows", "vpp_workers", "preflight_ignored_variables"),
        ({"vpp_workers": [1, "b"]}, "vpp_workers[1]", "'b'", "a whole number", ""),
        ({"preflight_timeout": "soon"}, "preflight_timeout", "'soon'", "a whole number", ""),
    ],
)
def test_a_wrong_variable(
    defined: dict[str, Any], variable: str, found: str, expected: str, remedy: str
) -> None:
    problems = check(defined)["problems"]
    assert [problem["variable"] for problem in problems] == [variable]
    assert found in problems[0]["found"]
    assert re.search(expected, problems[0]["expected"])
    assert re.search(remedy, problems[0]["remedy"])


def test_a_missing_variable_says_what_it_is() -> None:
    assert preflight_variables({}, SPECS)["problems"] == [
        {
            "variable": "router_asn",
            "found": "nothing",
            "expected": "a whole number",
            "remedy": "set it: The own number",
        }
    ]


def test_all_problems_are_found_at_once() -> None:
    defined = {**port(mtu="x", colour=1), "router_asn": "x", "router_pop": 1, "vpp_worker": 2}
    assert len(check(defined)["problems"]) == 5


def test_what_is_wrong_is_left_out_of_the_values_and_the_rest_stays() -> None:
    values = check({**port(mtu="x", device="0000:03:00.0"), "router_forwarding": "x"})["values"]
    assert values["router_ports"] == [{"name": "uplink", "device": "0000:03:00.0", "addresses": []}]
    assert "router_forwarding" not in values


def test_variables_of_the_command_line_are_text() -> None:
    assert check({"router_asn": "64501", "preflight_timeout": "5"})["values"]["router_asn"] == 64501


def test_a_secret_is_never_shown() -> None:
    for keys in ({"password": 12345}, {"password": ["hunter2"]}, {"pasword": "hunter2"}):
        problem = check(port(**keys))["problems"][0]
        assert "hunter2" not in str(problem)
        assert "12345" not in str(problem)


def test_items_of_the_same_name_are_told_apart_by_number() -> None:
    ports = [{"name": "a", "mtu": "x"}, {"name": "a", "mtu": "y"}]
    found = [problem["variable"] for problem in check({"router_ports": ports})["problems"]]
    assert found == ["router_ports[0].mtu", "router_ports[1].mtu"]


def test_a_value_that_cannot_be_evaluated_is_not_missing_too() -> None:
    broken = [
        {"variable": "router_asn", "message": "'nix' is undefined"},
        {"variable": "router_ports[0].name", "message": "'nix' is undefined"},
    ]
    result = preflight_variables({"router_ports": [{"mtu": 1500}]}, SPECS, broken)
    assert [problem["variable"] for problem in result["problems"]] == ["router_asn", "router_ports[0].name"]
    assert "'nix' is undefined" in result["problems"][0]["found"]


def test_variables_of_your_own_are_let_be() -> None:
    assert check({"router_colour": "red"}, ignored=["router_colour"])["problems"] == []


def test_a_null_is_as_if_it_were_not_there() -> None:
    assert check({**port(mtu=None), "router_pop": None})["problems"] == []
    assert check(port(mtu=None))["values"]["router_ports"][0]["mtu"] == 1500
