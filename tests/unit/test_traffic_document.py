"""What a scenario file may say, and how it is told what is wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router_agent.lab import scenario
from router_agent.lab.lab import FibKind, Lab
from router_agent.lab.table import generated_table
from router_agent.traffic.scenario import IMIX, MEASUREMENTS, FrameSizes, Tier, Wire
from router_agent.traffic.scenario.binding import GENERATORS_BY_WIRE
from router_agent.traffic.scenario.document import Document, DocumentError, load, parse, schema
from router_agent.traffic.scenario.goal import ChurnBudget, LatencyBound
from router_agent.traffic.scenario.quantities import rate, seconds, seconds_text

SCENARIO = """\
schema: router-agent/traffic-scenario/1
name: POP acceptance
frames: [64, imix, {mine: {128: 3, 1500: 1}}]
destinations: {count: 20000, families: [ipv4]}
direction: {from: in}
goal: {rate: 10GbE line rate, latency: {99: 300 us, 99.9: 1 ms}, churn: {lost: 5, blocked: 50 ms}}
measurements: [ndr, latency]
tiers:
  functional:
    ports:
      in: {interface: tx, namespace: lab-tester, gateway_mac: "02:00:00:00:02:01", faces: in}
      out: {interface: rx, namespace: lab-tester, faces: out}
    device: {forwarding: kernel, namespace: lab-pop1-fwd}
    rate: 20 kpps
  software ceiling:
    generator: vpp-pg
    ports:
      in: {memif: {socket: /run/pg/memif.sock}, gateway_mac: "02:00:00:00:02:01"}
      out: {memif: {socket: /run/pg/memif.sock, id: 1}}
    device: {forwarding: vpp, stats_socket: /run/vpp/stats.sock}
"""


def changed(old: str, new: str) -> str:
    assert SCENARIO.count(old) >= 1, old
    return SCENARIO.replace(old, new, 1)


def refused(text: str) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse(text.encode(), "pop.yaml")
    return list(caught.value.problems)


def test_a_file_says_what_is_sent_and_each_tier_only_by_what() -> None:
    document = parse(SCENARIO.encode())
    assert document.frames == (FrameSizes.of(64), IMIX, FrameSizes(((128, 3), (1500, 1)), "mine"))
    assert document.destinations.from_table
    assert document.direction.senders == ("in",)
    goal = document.goal.goal()
    assert goal.latency == (LatencyBound(99.0, 300_000), LatencyBound(99.9, 1_000_000))
    assert goal.churn == ChurnBudget(lost=5, blocked_s=0.05)
    assert document.measurements.names == ("ndr", "latency")
    assert list(document.tiers) == [Tier.FUNCTIONAL, Tier.SOFTWARE_CEILING]
    ports = [b.port(name) for name, b in document.tiers[Tier.SOFTWARE_CEILING].ports.items()]
    assert [(port.wire, port.memif_id) for port in ports] == [(Wire.MEMIF, 0), (Wire.MEMIF, 1)]
    kernel = document.tiers[Tier.FUNCTIONAL].ports["in"].port("in")
    assert (kernel.interface, kernel.namespace, kernel.wire) == ("tx", "lab-tester", Wire.KERNEL)


def test_what_was_read_is_written_as_a_file_that_says_the_same() -> None:
    document = parse(SCENARIO.encode())
    text = yaml.safe_dump(document.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert parse(text.encode()) == document


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("/1\n", "/2\n", "1: schema: found 'router-agent/traffic-scenario/2', expected 'router-agent/"),
        ("name: POP acceptance\n", "", "1: name: found nothing, expected this key"),
        (
            "frames: [64",
            "frames: [63",
            "3: frames.0: found 63, expected a frame size or mix that makes sense",
        ),
        ("imix", "emix", "3: frames.1: found 'emix', expected a frame size with FCS, 'imix', or a mix"),
        ("imix", "64", "3: frames: found a list of 3, expected each frame size once"),
        ("count: 20000", "count: some", "4: destinations.count: found 'some', expected a whole number of"),
        ("[ipv4]", "[]", "4: destinations.families: found a list of 0, expected at least 1"),
        ("{from: in}", "{}", "5: direction: found a mapping of 0, expected either 'from' (and perhaps"),
        ("{from: in}", "{from: inn}", "10: tiers.functional.ports: found in, out, expected port 'inn' too"),
        ("{from: in}", "{between: [in, in]}", "5: direction: found a mapping of 1, expected two different"),
        ("{from: in}", "{between: [in, out]}", "12: tiers.functional.ports.out.gateway_mac: found nothing"),
        ("10GbE line rate", "12 Mbps", "6: goal.rate: found '12 Mbps', expected a rate such as '12.5 Mpps'"),
        ("10GbE line rate", "11GbE", "6: goal.rate: found '11GbE', expected an Ethernet of 1, 2.5, 5, 10"),
        ("10GbE line rate", "120 %", "6: goal.rate: found '120 %', expected a share of the line above 0 %"),
        ("300 us", "300", "6: goal.latency.99: found 300, expected a time with its unit"),
        ("99:", "101:", "6: goal.latency.101: found '101', expected a percentile above 0 up to 100"),
        ("[ndr, latency]", "[ndr, latence]", "7: measurements.latence: found an unknown key, expected one"),
        ("[ndr, latency]", "{pdr: {loss: 1}}", "7: measurements.pdr.loss: found an unknown key, expected"),
        ("functional", "functionel", "9: tiers.functionel: found 'functionel', expected one of functional"),
        ("interface: tx", "pci: x", "11: tiers.functional.ports.in.pci: found 'x', expected a PCI address"),
        ("interface: tx, ", "", "11: tiers.functional.ports.in: found a mapping of 3, expected one of"),
        ("    rate: 20 kpps", "    password: hunter2", "14: tiers.functional.password: found a secret's key"),
        (
            "    device: {forwarding: k",
            "    other: {forwarding: k",
            "13: tiers.functional.other: found an",
        ),
        ("vpp-pg", "socket", "16: tiers.software ceiling.generator.kind: found 'socket', expected 'sockets'"),
        ("vpp-pg", "sockets", "16: tiers.software ceiling.generator: found sockets, expected one of vpp-pg"),
    ],
)
def test_each_mistake_is_named_with_line_key_found_and_expected(old: str, new: str, problem: str) -> None:
    problems = refused(changed(old, new))
    assert any(line.startswith(f"pop.yaml:{problem}") for line in problems), problems


def test_all_mistakes_are_reported_at_once() -> None:
    text = changed("64", "1").replace("20 kpps", "x").replace("in: {interface", "in: {interfaces")
    assert len(refused(text)) >= 3


def test_the_nearest_known_key_is_offered() -> None:
    assert "did you mean 'faces'?" in refused(changed("faces: in", "face: in"))[0]
    assert "did you mean 'latency'?" in refused(changed("[ndr, latency]", "[latencies]"))[0]


def test_churn_needs_somebody_who_changes_routes_on_each_tier() -> None:
    problems = refused(changed("[ndr, latency]", "{churn: }"))
    assert [line.split(": ")[1] for line in problems] == [
        "tiers.functional.upstream",
        "tiers.software ceiling.upstream",
    ]


def test_only_prefixes_of_one_source_are_taken() -> None:
    both = changed("count: 20000", "prefixes: [192.0.2.0/24], file: p.txt")
    assert "expected at most one of file, prefixes and by_port" in refused(both)[0]
    bits = changed("count: 20000", "prefixes: [192.0.2.1/24]")
    assert "destinations.prefixes.0: found '192.0.2.1/24', expected a prefix" in refused(bits)[0]
    listed = parse(changed("count: 20000", "by_port: {out: [192.0.2.0/24]}").encode())
    assert listed.destinations.by_port == {"out": (IPv4Network("192.0.2.0/24"),)}


def test_a_prefix_list_is_beside_the_scenario(tmp_path: Path) -> None:
    path = tmp_path / "pop.yaml"
    path.write_text(changed("count: 20000", "file: prefixes.txt"))
    assert load(path).destinations.file == tmp_path / "prefixes.txt"
    with pytest.raises(DocumentError, match=r"absent.yaml: cannot be read"):
        load(tmp_path / "absent.yaml")


def test_measurements_can_be_named_alone_and_chosen() -> None:
    asked = parse(changed("[ndr, latency]", "{soak: {duration: 1 h}, pdr: }").encode()).measurements
    assert asked.names == ("pdr", "soak")
    assert asked.soak is not None
    assert asked.soak.duration == 3_600
    chosen = asked.only(["soak", "loss_curve"])
    assert chosen.names == ("loss_curve", "soak")
    assert chosen.soak == asked.soak
    assert "ndr" in MEASUREMENTS


def test_rates_are_of_a_port_and_of_a_frame_size() -> None:
    small, large = FrameSizes.of(64), FrameSizes.of(1518)
    assert rate("10GbE line rate").of_port(small, None) == pytest.approx(14_880_952, abs=1)
    assert rate("10GbE").of_port(large, 25e9) == pytest.approx(812_744, abs=1)
    assert rate("80 % of line").of_port(small, 10e9) == pytest.approx(11_904_762, abs=1)
    assert rate("80 % of line").of_port(small, None) is None
    assert rate("12.5 Mpps").of_port(large, None) == 12.5e6
    assert [rate(text).names_a_line for text in ("1 pps", "5 %", "40GbE")] == [False, True, True]


@given(st.floats(min_value=1e-6, max_value=86_400.0).map(lambda s: float(f"{s:.3g}")))
def test_times_are_written_as_they_are_read(length: float) -> None:
    assert seconds(seconds_text(length)) == pytest.approx(length, rel=1e-3)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
), max_leaves=8), st.sampled_from(sorted(Document.model_fields)))  # fmt: skip
def test_whatever_stands_under_a_key_is_read_or_refused(value: object, name: str) -> None:
    data = yaml.safe_load(SCENARIO)
    data[Document.model_fields[name].alias or name] = value
    with suppress(DocumentError):
        parse(yaml.safe_dump(data, allow_unicode=True).encode(errors="surrogatepass"))


def test_the_schema_is_json_and_knows_every_key() -> None:
    found = schema()
    assert json.loads(json.dumps(found)) == found
    assert {field.alias or name for name, field in Document.model_fields.items()} == set(found["properties"])


def test_the_documentations_scenario_is_one_and_a_lab_binds_it_to_its_own_ports() -> None:
    assert list(load(scenario.EXAMPLE).tiers) == [Tier.LINE_RATE]
    for fib, faces in ((FibKind.KERNEL, "in"), (FibKind.VPP, "host-in")):
        found = scenario.document(Lab("unit", table=generated_table(10, 10), fib=fib))
        bound = found.tiers[Tier.FUNCTIONAL]
        assert bound.ports["uplink"].faces == faces
        assert bound.device is not None
        assert bound.device.forwarding == fib.value
        text = yaml.safe_dump(found.model_dump(mode="json", by_alias=True, exclude_none=True))
        assert parse(text.encode()) == found


def test_the_documentation_has_every_key_measurement_and_generator() -> None:
    page = (scenario.EXAMPLE.parent / "traffic.md").read_text()
    section = page.partition("## Scenario file\n")[2].partition("\n## ")[0]
    keys = [field.alias or name for name, field in Document.model_fields.items()]
    kinds = [kind for kinds in GENERATORS_BY_WIRE.values() for kind in kinds]
    for word in (*keys, *MEASUREMENTS, *kinds, *Tier):
        assert word in ("schema", "name") or f"`{word}`" in section, word
