"""Role drain: whether another router carries what one carries; and drain.yaml of role router_agent."""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from drain_carriers import drain_carriers, drain_same_pop, drain_words
from role_variables import rendered_by_ansible
from router_agent.drain.carried import missing, packed, unpacked
from router_agent.drain.settings import load
from router_agent.lab.render import render
from router_agent.model import Family, keys_of

DEFAULTS = yaml.safe_load(
    (Path(__file__).parents[2] / "roles" / "router_agent" / "defaults" / "main.yml").read_text()
)
NETWORK = "203.0.113.0/24"


def table(family: Family, *prefixes: str) -> dict[str, Any]:
    keys = keys_of(
        sorted((ip_network(p) for p in prefixes), key=lambda n: (int(n.network_address), n.prefixlen))
    )
    if not prefixes:
        keys = keys.reshape(0, family.key_width)
    return {"prefixes": len(prefixes), "keys": packed(keys)}


def router(*ipv4: str, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "drained": False,
        "mark": None,
        "sessions": {"ipv4": {"192.0.2.1": {"state": "Established", "received": 3, "sent": 1}}, "ipv6": {}},
        "announced": {NETWORK: ["192.0.2.1"]},
        "agent": {"vpp": "in-sync"},
        "tables": {"ipv4": table(Family.IPV4, *ipv4), "ipv6": table(Family.IPV6)},
        "problems": [],
    }
    return found | changes


FULL = [f"10.{n}.0.0/16" for n in range(200)]


def judged(
    *others: dict[str, Any], mine: dict[str, Any] | None = None, share: float = 0.01
) -> dict[str, Any]:
    results = [
        other if "rc" in other or "unreachable" in other else {"rc": 0, "stdout": json.dumps(other)}
        for other in others
    ]
    results = [{**result, "item": f"r{number}"} for number, result in enumerate(results, 2)]
    own = {"rc": 0, "stdout": json.dumps(mine or router(*FULL))}
    return drain_carriers(own, results, missing_share=0.01)


def test_a_router_with_the_same_table_carries_it() -> None:
    found = judged(router(*FULL))
    assert (found["reasons"], found["carriers"], found["found"]) == ([], ["r2"], False)
    assert "can carry it" in found["table"]
    assert judged(router("0.0.0.0/0"))["carriers"] == ["r2"], "a default route covers everything"
    assert judged(router(*FULL[:-2]))["carriers"] == ["r2"], "1% may be missing"


MARK = {"by": "noc", "reason": "new NIC"}
DOWN = {"ipv4": {"192.0.2.1": {"state": "Active", "received": 0, "sent": 0}}}


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (router(*FULL[:-3]), "has no route for 3 of 200 IPv4 prefixes (10.197.0.0/16, 10.198.0.0/16"),
        (router(*FULL, drained=True, mark=MARK), "is drained (by noc: new NIC)"),
        (router(*FULL, sessions=DOWN), "has no established IPv4 session"),
        (router(*FULL, announced={NETWORK: []}), f"announces no {NETWORK}"),
        (router(*FULL, agent={"vpp": "fib-lost"}), "pipeline vpp is fib-lost"),
        (router(*FULL, problems=["agent: nobody answers"]), "agent: nobody answers"),
        ({"unreachable": True, "msg": "no route to host"}, "cannot be reached: no route to host"),
        ({"rc": 127, "stderr": "x\nNo such file"}, "cannot be asked: No such file"),
        ({"rc": 0, "stdout": "oops"}, "cannot be understood"),
    ],
)
def test_why_a_router_does_not_carry_it_is_said(other: dict[str, Any], reason: str) -> None:
    found = judged(other)
    assert found["carriers"] == []
    (words,) = found["reasons"]
    assert words.startswith(f"r2: {reason}")
    assert judged(other, router(*FULL))["reasons"] == [], "one that does is enough"
    assert judged(other, router(*FULL))["carriers"] == ["r3"]


def test_a_router_that_is_alone_is_refused_unless_it_carries_nothing() -> None:
    assert judged()["reasons"] == ["the inventory has no other router of this POP"]
    idle = router(sessions={}, announced={})
    assert judged(mine=idle)["reasons"] == []
    done = router(*FULL, mark=MARK, drained=True)
    assert (judged(mine=done)["reasons"], judged(mine=done)["found"]) == ([], True)


def test_a_router_that_cannot_be_asked_is_refused() -> None:
    assert drain_carriers({"rc": 2, "stderr": "no"}, [], missing_share=0)["reasons"] == [
        "it cannot be asked: cannot be asked: no"
    ]


def test_only_routers_of_the_same_pop_count() -> None:
    assert drain_same_pop(["a", "b", "c"], ["x", "y", "x"], "x") == ["a", "c"]


def test_what_the_command_said_is_put_into_words() -> None:
    said = {"mark": {}, "speakers": [{"name": "FRR", "words": "fine"}], "traffic": {"words": "gone"}}
    assert drain_words({"stdout": json.dumps(said | {"mark": MARK})}) == "drained; FRR: fine; gone"
    assert drain_words({"stdout": "", "stderr": "no vtysh"}) == "no vtysh"
    assert drain_words({"msg": "unreachable"}) == "unreachable"


prefixes = st.builds(
    lambda address, length: ip_network((address & ~((1 << (32 - length)) - 1), length)),
    st.integers(0, 2**32 - 1),
    st.integers(0, 32),
)


@given(st.sets(prefixes, max_size=30), st.sets(prefixes, max_size=10))
def test_what_no_prefix_covers_is_missing(wanted: set[Any], held: set[Any]) -> None:
    def keys(found: set[Any]) -> Any:
        ordered = sorted(found, key=lambda n: (int(n.network_address), n.prefixlen))
        return unpacked(packed(keys_of(ordered)), Family.IPV4)

    left = {tuple(key) for key in missing(keys(wanted), keys(held), Family.IPV4).tolist()}
    expected = {w for w in wanted if not any(w.subnet_of(h) for h in held)}
    assert left == {tuple(key) for key in keys(expected).tolist()}


def test_ipv6_is_covered_likewise() -> None:
    wanted = keys_of(
        [ip_network("2001:db8:1::/48"), ip_network("2001:db8:ffff::/48"), ip_network("3fff::/20")]
    )
    held = keys_of([ip_network("2001:db8::/33"), ip_network("3fff::/20")])
    assert len(missing(unpacked(packed(wanted), Family.IPV6), held, Family.IPV6)) == 1


@pytest.mark.parametrize("forwarding", ["vpp", "kernel"])
def test_the_command_takes_what_the_role_renders(forwarding: str, tmp_path: Path) -> None:
    variables = {
        "hostname": "ams1-r1",
        "forwarding": forwarding,
        "ports": ["uplink", "lan"],
        "stats_socket": DEFAULTS["router_agent_stats_socket"],
        "control_socket": DEFAULTS["router_agent_control_socket"],
        "agent": forwarding == "vpp",
        "exabgp": forwarding == "vpp",
        "exabgp_status": "/run/exabgp/drained.json",
        "traffic": DEFAULTS["router_agent_drain"],
        "fail_safe": DEFAULTS["router_agent_fail_safe"],
    }
    text = render("drain.yaml.j2", **variables)
    assert rendered_by_ansible("drain.yaml.j2", variables) == text
    path = tmp_path / "drain.yaml"
    path.write_text(text)
    found = load(path)
    assert found.traffic.forwarding == forwarding
    assert found.traffic.ports == ("uplink", "lan")
    assert (found.exabgp is not None, found.agent) == (forwarding == "vpp", forwarding == "vpp")
    assert found.fail_safe.wrong_seconds == 60


@pytest.mark.parametrize("name", ["drain.service", "watch.service", "fail-safe.service", "fail-safe.path"])
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    """All of them are there: a path's unit names a service."""
    for unit in ("drain.service", "watch.service", "fail-safe.service", "fail-safe.path"):
        text = rendered_by_ansible(
            f"router-agent-{unit}.j2",
            {
                "executable": "/bin/true",
                "config_file": "/etc/router-agent/drain.yaml",
                "user": "root",
                "socket_groups": ["root"],
                "writable": ["/etc/frr"],
                "request": "/run/router-agent-watch/request",
            },
        )
        (tmp_path / f"router-agent-{unit}").write_text(text)
    argv = ["systemd-analyze", "verify", "--man=no", str(tmp_path / f"router-agent-{name}")]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        pytest.skip("systemd-analyze is not installed")
    ours = [line for line in done.stderr.splitlines() if "router-agent-" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
