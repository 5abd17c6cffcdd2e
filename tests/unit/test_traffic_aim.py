"""Where packets go, what each tier offers, and what a device's table says of its ports."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Network, ip_network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import Family, Prefix, keys_of, prefixes_of
from router_agent.traffic.commands import narrowed, tier_named
from router_agent.traffic.device import reachable
from router_agent.traffic.plan import steps
from router_agent.traffic.prepare import choose_tier, ports_of, prepared
from router_agent.traffic.scenario import (
    ANY_PORT,
    Destinations,
    Document,
    Endpoints,
    Port,
    ScenarioError,
    Tier,
    Wire,
)
from router_agent.traffic.scenario.aim import Reachable, aim
from router_agent.traffic.scenario.document import DestinationsWanted, Direction, parse
from router_agent.traffic.scenario.offered import notes_on, offered
from router_agent.traffic.tables.kernel import best
from router_agent.traffic.tables.live import UNKNOWN, LiveTable, TableError
from router_agent.traffic.wiring import require_tier, tier_of, wiring_of, with_links

MAC = "02:00:00:00:00:01"
ENDPOINTS = Endpoints((Port("west", "w", None, MAC), Port("east", "e", None, MAC), Port("south", "s")))
WEST, EAST = 0, 1
NAMES = ("if-west", "if-east")


def keys(*prefixes: str) -> dict[Family, np.ndarray[tuple[int, ...], np.dtype[np.uint64]]]:
    found: dict[Family, list[Prefix]] = {Family.IPV4: [], Family.IPV6: []}
    for text in prefixes:
        prefix = ip_network(text)
        found[Family.IPV4 if prefix.version == 4 else Family.IPV6].append(prefix)
    empty = {family: np.empty((0, family.key_width), np.uint64) for family in Family}
    return {family: keys_of(listed) if listed else empty[family] for family, listed in found.items()}


def _place(interface: str) -> int:
    return NAMES.index(interface) if interface in NAMES else UNKNOWN


def table(routes: dict[str, str], others: Iterable[str] = ()) -> LiveTable:
    """Return a table of routes by the interface they leave by; "?" for an unknown one."""
    columns = keys(*routes)
    by = {f: np.array([_place(routes[str(p)]) for p in prefixes_of(columns[f])], np.int32) for f in Family}
    return LiveTable(columns, by, keys(*others), NAMES, "a test's table")


ROUTES = {"20.0.0.0/8": "if-east", "20.1.0.0/16": "if-west", "30.0.0.0/8": "?", "2001:db8::/32": "if-east"}


def drawn(
    direction: dict[str, object], wanted: dict[str, object] | None = None, live: LiveTable | None = None
) -> Destinations:
    found = reachable(live or table(ROUTES), ["if-west", "if-east", None])
    return aim(
        DestinationsWanted.model_validate(wanted or {}), Direction.model_validate(direction), ENDPOINTS, found
    )


def rows(destinations: Destinations) -> set[tuple[str, int, int]]:
    return {
        (str(destinations.prefix(i)), int(destinations.expected[i]), int(destinations.ingress[i]))
        for i in range(len(destinations))
    }


def test_by_the_table_every_prefix_is_sent_to_and_expected_where_its_next_hop_is() -> None:
    assert rows(drawn({"from": "west"})) == {
        ("20.0.0.0/8", EAST, WEST),
        ("20.1.0.0/16", WEST, WEST),
        ("30.0.0.0/8", ANY_PORT, WEST),
        ("2001:db8::/32", EAST, WEST),
    }


def test_one_way_takes_only_what_leaves_by_the_other_port() -> None:
    found = rows(drawn({"from": "west", "to": "east"}))
    assert found == {("20.0.0.0/8", EAST, WEST), ("2001:db8::/32", EAST, WEST)}


def test_both_ways_each_port_sends_to_what_is_behind_the_other() -> None:
    found = rows(drawn({"between": ["west", "east"]}, {"families": ["ipv4"]}))
    assert found == {("20.0.0.0/8", EAST, WEST), ("20.1.0.0/16", WEST, EAST)}


def test_a_count_is_shared_by_the_sending_ports() -> None:
    live = table({f"20.{i}.0.0/16": "if-east" if i % 2 else "if-west" for i in range(200)})
    found = drawn({"between": ["west", "east"]}, {"count": 50}, live)
    assert np.bincount(found.ingress).tolist() == [25, 25]


def test_nothing_goes_to_connected_networks_or_where_no_router_forwards() -> None:
    live = table({"0.0.0.0/0": "if-east"}, others=["0.0.0.0/1", "128.0.0.0/2", "192.0.0.0/4"])
    found = drawn({"from": "west"}, {"families": ["ipv4"]}, live)
    assert 208 <= int(found.addresses[0, 0]) < 224


def test_a_port_with_nothing_behind_it_is_refused_with_what_to_do() -> None:
    with pytest.raises(ScenarioError, match=r"leaves by port south.*name the router's interface \(`faces`\)"):
        drawn({"from": "west", "to": "south"})
    with pytest.raises(ScenarioError, match=r"found no IPv6 prefix to send to in a test's table"):
        drawn({"from": "west"}, {"families": ["ipv6"]}, table({"20.0.0.0/8": "if-east"}))


def test_listed_prefixes_leave_by_the_port_that_is_asked_for_or_by_any() -> None:
    listed = Reachable.of_ports({ANY_PORT: (IPv4Network("20.0.0.0/8"),)}, "a list")
    wanted = DestinationsWanted.model_validate({"prefixes": ["20.0.0.0/8"]})
    one = aim(wanted, Direction.model_validate({"from": "west", "to": "east"}), ENDPOINTS, listed)
    assert one.expected.tolist() == [EAST]
    free = aim(wanted, Direction.model_validate({"from": "west"}), ENDPOINTS, listed)
    assert free.expected.tolist() == [ANY_PORT]
    with pytest.raises(ScenarioError, match=r"listed twice, 20\.0\.0\.0/8 among them"):
        Reachable.of_ports({0: (IPv4Network("20.0.0.0/8"),), 1: (IPv4Network("20.0.0.0/8"),)}, "lists")


def test_of_several_routes_the_least_metric_counts_and_equal_ones_are_legs() -> None:
    column = keys("20.0.0.0/8", "20.0.0.0/8", "30.0.0.0/8", "30.0.0.0/8", "40.0.0.0/8")[Family.IPV4]
    numbers = np.array([1, 2, 1, 2, 3], np.uint32)
    metrics = np.array([200, 100, 20, 20, 0], np.uint32)
    leaves_by = np.array([UNKNOWN, 0, 1, UNKNOWN], np.int32)
    forwards = np.array([False, True, True, False])
    found, ports, others = best(column, numbers, metrics, leaves_by, forwards)
    assert [str(p) for p in prefixes_of(found)] == ["20.0.0.0/8", "30.0.0.0/8"]
    assert ports.tolist() == [1, UNKNOWN]
    assert [str(p) for p in prefixes_of(others)] == ["40.0.0.0/8"]


def test_a_table_travels_as_bytes() -> None:
    sent = table(ROUTES, others=["10.0.0.0/8"])
    found = LiveTable.from_bytes(sent.to_bytes())
    assert (len(found), found.interfaces, found.origin) == (4, sent.interfaces, sent.origin)
    for family in Family:
        assert found.keys[family].tolist() == sent.keys[family].tolist()
        assert found.leaves_by[family].tolist() == sent.leaves_by[family].tolist()
        assert found.others[family].tolist() == sent.others[family].tolist()


@given(st.binary(max_size=200))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(TableError, match="expected a table"):
        LiveTable.from_bytes(data)


# -- tiers, links and rates --------------------------------------------------------------------------


def pci(tmp_path: Path, address: str, vendor: str, device: str, board: str = "0x8086") -> None:
    directory = tmp_path / address
    directory.mkdir()
    for name, value in (("vendor", vendor), ("device", device), ("subsystem_vendor", board)):
        (directory / name).write_text(f"{value}\n")


def test_the_tier_is_what_the_ports_are(tmp_path: Path) -> None:
    pci(tmp_path, "0000:3b:00.0", "0x8086", "0x1572")
    pci(tmp_path, "0000:00:03.0", "0x1af4", "0x1000", "0x1af4")
    pci(tmp_path, "0000:00:04.0", "0x8086", "0x10d3", "0x1af4")
    nic = Port("a", "0000:3b:00.0", None, MAC, wire=Wire.PCI, link_bps=10e9)
    memif = Port("b", "/run/m.sock", None, MAC, wire=Wire.MEMIF)
    veth = Port("c", "lo", None, MAC)
    assert wiring_of(nic, tmp_path).tier is Tier.LINE_RATE
    assert wiring_of(nic, tmp_path).pci_id == "8086:1572"
    for address in ("0000:00:03.0", "0000:00:04.0", "0000:99:00.0"):
        emulated = Port("d", address, None, MAC, wire=Wire.PCI)
        assert wiring_of(emulated, tmp_path).tier is Tier.FUNCTIONAL
    assert tier_of(Endpoints((nic, memif)), tmp_path) is Tier.SOFTWARE_CEILING
    assert tier_of(Endpoints((nic, memif, veth)), tmp_path) is Tier.FUNCTIONAL


def test_no_tier_claims_anothers_result(tmp_path: Path) -> None:
    pci(tmp_path, "0000:3b:00.0", "0x8086", "0x1572")
    nic = Endpoints((Port("a", "0000:3b:00.0", wire=Wire.PCI, link_bps=10e9),))
    veth = Endpoints((Port("c", "lo"),))
    memif = Endpoints((Port("b", "/run/m.sock", wire=Wire.MEMIF),))
    require_tier(Tier.LINE_RATE, nic, tmp_path)
    require_tier(Tier.FUNCTIONAL, nic, tmp_path)
    with pytest.raises(ScenarioError, match=r"'line rate': port b is memif, which carries tier 'software ce"):
        require_tier(Tier.LINE_RATE, memif, tmp_path)
    with pytest.raises(ScenarioError, match=r"port c is .*, which carries tier 'functional' and no more"):
        require_tier(Tier.SOFTWARE_CEILING, veth, tmp_path)
    known = with_links(nic, tmp_path).ports[0]
    assert (known.link_bps, known.pci_id) == (10e9, "8086:1572")
    assert with_links(veth, tmp_path).ports[0].link_bps is None


def document(goal_rate: str, tier: str = "line rate", **binding: str) -> Document:
    extra = "".join(f"\n    {key}: {value}" for key, value in binding.items())
    return parse(
        f"""\
schema: router-agent/traffic-scenario/1
name: rates
frames: [64, 1518]
destinations: {{prefixes: [20.0.0.0/8]}}
direction: {{between: [a, b]}}
goal: {{rate: {goal_rate}}}
measurements: [ndr, pdr, rfc2544, loss_curve, back_to_back, latency, soak]
tiers:
  {tier}:
    generator: testpmd
    ports:
      a: {{pci: "0000:3b:00.0", gateway_mac: "{MAC}"}}
      b: {{pci: "0000:3b:00.1", gateway_mac: "{MAC}"}}{extra}
""".encode()
    )


def nics(link_bps: float | None) -> Endpoints:
    return Endpoints(
        tuple(Port(n, f"0000:3b:00.{i}", None, MAC, Wire.PCI, link_bps=link_bps) for i, n in enumerate("ab"))
    )


def test_a_rate_is_offered_by_each_sending_port() -> None:
    plans = offered(
        document("10GbE line rate"), Tier.LINE_RATE, document("1 pps").tiers[Tier.LINE_RATE], nics(25e9)
    )
    assert [plan.pps for plan in plans] == pytest.approx([2 * 14_880_952, 2 * 812_744], rel=1e-6)
    half = document("50 %")
    plans = offered(half, Tier.LINE_RATE, half.tiers[Tier.LINE_RATE], nics(10e9))
    assert plans[0].pps == plans[0].goal_pps == pytest.approx(14_880_952, rel=1e-6)


@pytest.mark.parametrize(
    ("rate", "tier", "link_bps", "problem"),
    [
        (
            "10GbE line rate",
            Tier.LINE_RATE,
            1e9,
            r"14,880,952 pps of 64 bytes, expected at most 1,488,095",
        ),
        ("20 Mpps", Tier.LINE_RATE, 10e9, r"goal.rate: found '20 Mpps'.*expected at most 14,880,952"),
        ("80 %", Tier.LINE_RATE, None, r"nobody knows the speed of port a's link: plug it in, or give"),
        (
            "10GbE",
            Tier.FUNCTIONAL,
            None,
            r"which tier 'functional' cannot carry: its ports are no NICs",
        ),
        ("80 %", Tier.SOFTWARE_CEILING, None, r"memory has no line to take a part of"),
    ],
)
def test_impossible_rates_are_refused(rate: str, tier: Tier, link_bps: float | None, problem: str) -> None:
    wanted = document(rate, tier.value)
    with pytest.raises(ScenarioError, match=problem):
        offered(wanted, tier, wanted.tiers[tier], nics(link_bps))


def test_what_a_tier_offers_in_place_of_the_goal_is_said() -> None:
    wanted = document("10GbE line rate", "functional", rate="20 kpps", duration="2 s")
    binding = wanted.tiers[Tier.FUNCTIONAL]
    plans = offered(wanted, Tier.FUNCTIONAL, binding, nics(None))
    assert [(plan.pps, plan.duration_s) for plan in plans] == [(40_000, 2), (40_000, 2)]
    notes = " ".join(notes_on(wanted, Tier.FUNCTIONAL, binding, plans))
    assert "nothing about what NICs or this software reach" in notes
    assert "the goal itself is not tested" in notes
    assert "2 s in place of the goal's 12 s" in notes
    memory = document("10GbE line rate", "software ceiling")
    plans = offered(memory, Tier.SOFTWARE_CEILING, memory.tiers[Tier.SOFTWARE_CEILING], nics(None))
    said = notes_on(memory, Tier.SOFTWARE_CEILING, memory.tiers[Tier.SOFTWARE_CEILING], plans)
    assert "there is no link here" in " ".join(said)


def test_a_plan_names_every_measurement_with_its_time() -> None:
    wanted = document("500 kpps")
    plans = offered(wanted, Tier.LINE_RATE, wanted.tiers[Tier.LINE_RATE], nics(10e9))
    found = steps(wanted, plans)
    names = [step.what for step in found if step.frames == "64"]
    assert names == [
        "target", "NDR and PDR", "RFC 2544 throughput", "loss curve", "back-to-back", "latency", "soak",
    ]  # fmt: skip
    assert found[0].what == "port proof"
    target = next(step for step in found if step.what == "target")
    assert (target.rate, target.most_s) == ("1,000,000 pps", 12)


def test_measurements_are_chosen_by_name_on_the_command_line() -> None:
    wanted = document("1 Mpps")
    assert narrowed(wanted, ["loss-curve", "target"]).measurements.names == ("loss_curve",)
    assert narrowed(wanted, ["target"]).measurements.names == ()
    assert narrowed(wanted, []) is wanted
    with pytest.raises(ScenarioError, match="there is no measurement 'nrd', expected one of target, ndr"):
        narrowed(wanted, ["nrd"])


def test_a_tier_is_chosen_when_there_are_several() -> None:
    wanted = document("1 Mpps")
    assert choose_tier(wanted, None) is Tier.LINE_RATE
    assert tier_named("software-ceiling") is Tier.SOFTWARE_CEILING
    with pytest.raises(ScenarioError, match="'functional' is not bound, expected one of line rate"):
        choose_tier(wanted, Tier.FUNCTIONAL)
    with pytest.raises(ScenarioError, match="there is no tier 'fast'"):
        tier_named("fast")
    unbound = wanted.model_copy(update={"tiers": {}})
    with pytest.raises(ScenarioError, match="the file binds no tier, expected to be told"):
        choose_tier(unbound, None)


def test_a_file_that_claims_more_than_its_ports_carry_is_refused() -> None:
    wanted = document("1 Mpps")
    with pytest.raises(ScenarioError, match=r"port a is no PCI device 0000:3b:00\.0, which carries tier"):
        ports_of(Tier.LINE_RATE, wanted.tiers[Tier.LINE_RATE])
    with pytest.raises(ScenarioError), prepared(wanted, Tier.LINE_RATE):
        pass


def test_what_leaves_where_no_port_of_the_tester_is_gets_no_packet() -> None:
    """Management's default route is in a router's table, and nobody could see what leaves by it."""
    whole = table({**ROUTES, "0.0.0.0/0": "?"})
    column, by = whole.keys[Family.IPV4], whole.leaves_by[Family.IPV4].copy()
    by[[str(prefix) for prefix in prefixes_of(column)].index("0.0.0.0/0")] = len(NAMES)
    routed = replace(whole, leaves_by={**whole.leaves_by, Family.IPV4: by}, interfaces=(*NAMES, "management"))
    found = reachable(routed, NAMES)
    sent = aim(DestinationsWanted(), Direction.model_validate({"from": "west"}), ENDPOINTS, found)
    assert {prefix for prefix, _, _ in rows(sent)} == set(ROUTES)
    assert len(reachable(routed, [*NAMES, None]).keys[Family.IPV4]) == len(column)
