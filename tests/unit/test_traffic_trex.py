"""TRex's client against a stand-in that speaks its RPC: what it asks for, and what it makes of answers."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import numpy as np
import psutil
import pytest

from router_agent.model import Family, Prefix
from router_agent.traffic.counters.source import Side
from router_agent.traffic.generators import registry
from router_agent.traffic.generators.frames import build
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.trex import rpc, streams
from router_agent.traffic.generators.trex import server as trex_server
from router_agent.traffic.generators.trex.generator import TrexGenerator
from router_agent.traffic.generators.trex.rpc import TrexRpc
from router_agent.traffic.judgement.ledger import LedgerKeeper
from router_agent.traffic.judgement.verdict import Outcome, judge_trial
from router_agent.traffic.scenario import (
    IMIX,
    Destinations,
    Endpoints,
    FrameSizes,
    GeneratorBinding,
    Goal,
    Port,
    Scenario,
    Wire,
)
from trex_stand_in import TrexStandIn, packets_of

MAC = "02:00:00:00:02:00"
PORTS = Endpoints(
    (
        Port("west", "0000:03:00.0", None, MAC, Wire.PCI),
        Port("east", "0000:03:00.1", None, None, Wire.PCI),
    )
)
V4: list[Prefix] = [IPv4Network(f"20.{i}.0.0/16") for i in range(20)]
V6: list[Prefix] = [IPv6Network(f"2001:db8:{i:x}::/48") for i in range(20)]


def scenario(prefixes: list[Prefix] = V4, **changes: object) -> Scenario:
    base = Scenario("trex", Destinations.of(prefixes, [1] * len(prefixes)), drain_s=0.2, interval_s=0.05)
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def trex() -> Iterator[TrexStandIn]:
    with TrexStandIn() as server:
        yield server


def generator(trex: TrexStandIn, **changes: object) -> TrexGenerator:
    return TrexGenerator(scenario(**changes), PORTS, server=f"127.0.0.1:{trex.port}")  # type: ignore[arg-type]


def assert_given_back(trex: TrexStandIn) -> None:
    assert [(p.owner, p.state, p.streams, p.promiscuous) for p in trex.ports] == [("", "IDLE", {}, False)] * 2


# a stream from its beginning to its end


def test_a_stream_is_sent_counted_and_nothing_is_left(trex: TrexStandIn) -> None:
    with generator(trex) as opened:
        assert [port.promiscuous for port in trex.ports] == [True, True]
        first = opened.start(10_000, 0.3).finish()
        second = opened.start(5_000, 10.0, packets=500).finish()
    assert (first.intended, first.sent, first.lost) == (3_000, 3_000, 0)
    assert (second.intended, second.sent, second.lost) == (500, 500, 0)
    assert first.received_by_port == (0, 3_000)
    assert 0.3 <= first.offered_s <= 0.3 * 1.05
    assert (first.series.sent.sum(), first.series.received.sum(), first.series.lost.sum()) == (
        3_000,
        3_000,
        0,
    )
    assert (first.duplicates, first.by_destination, opened.follows_packets) == (None, None, False)
    assert_given_back(trex)
    # the order of the specification's "typical transactions"
    order = [
        trex.calls.index(m) for m in ("api_sync_v2", "acquire", "add_stream", "start_traffic", "release")
    ]
    assert order == sorted(order)


def test_what_the_device_drops_is_lost_and_what_trex_drops_is_the_testers(trex: TrexStandIn) -> None:
    with generator(trex) as opened:
        keeper = LedgerKeeper(opened.counters)
        keeper.open()
        running = opened.start(10_000, 0.2)
        trex.ports[0].drop_share, trex.ports[1].receive_errors = 0.25, 10
        result = running.finish()
        ledger = keeper.close(result)
    assert (result.sent, result.lost) == (2_000, 510)
    assert [(drop.count, drop.side, drop.source) for drop in ledger.drops] == [
        (10, Side.TESTER, "east ierrors")
    ]
    assert judge_trial(result, ledger, Goal()).outcome is Outcome.FAIL


def test_a_rate_out_of_reach_does_not_stretch_the_trial_and_is_no_loss(trex: TrexStandIn) -> None:
    trex.ports[0].capacity_pps = 4_000
    with generator(trex) as opened:
        keeper = LedgerKeeper(opened.counters)
        keeper.open()
        result = opened.start(100_000, 0.2).finish()
        ledger = keeper.close(result)
    assert result.intended == 20_000
    assert 0 < result.sent < 20_000
    assert (result.lost, result.refused) == (0, 1_000)
    verdict = judge_trial(result, ledger, Goal())
    assert (verdict.outcome, "the generator was the limit" in verdict.reason) == (Outcome.INVALID, True)
    assert_given_back(trex)


def test_a_stream_can_be_stopped(trex: TrexStandIn) -> None:
    with generator(trex) as opened:
        running = opened.start(1_000, 600.0)
        with pytest.raises(GeneratorError, match="under way already"):
            opened.start(1, 1)
        while running.snapshot().received < 50:
            threading.Event().wait(0.01)
        result = running.stop()
        again = opened.start(1_000, 0.1).finish()
    assert 50 <= result.sent <= result.intended < 60_000
    assert result.lost == 0
    assert (again.sent, again.lost) == (100, 0)


def test_both_ports_send_their_halves(trex: TrexStandIn) -> None:
    ports = Endpoints(tuple(replace(port, gateway_mac=MAC) for port in PORTS.ports))
    both = Destinations.joined([Destinations.of(V4, [1] * 20), Destinations.of(V6, [0] * 20, ingress=1)])
    with TrexGenerator(scenario(destinations=both), ports, server=f"127.0.0.1:{trex.port}") as opened:
        result = opened.start(10_000, 0.2, packets=1_001).finish()
    assert (result.intended, result.sent, result.received_by_port) == (1_001, 1_001, (500, 501))


# what is sent


@pytest.fixture
def no_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.randbits", lambda _: 0)


def frames_of(found: Scenario) -> Counter[bytes]:
    """Return the frames of a round, whole, and how often each is in it."""
    made = build(
        found.destinations,
        sizes=found.sizes,
        source_mac=bytes.fromhex("020000000300"),
        gateway_mac=bytes.fromhex("020000000200"),
        sources=found.sources,
        udp_port=found.udp_port,
        tag=0,
        seed=found.seed,
        least_rows=sum(weight for _, weight in found.sizes.shares),
    )
    rows = zip(made.unnumbered(), made.lengths.tolist(), strict=True)
    return Counter(head.tobytes().ljust(length, b"\0") for head, length in rows)


@pytest.mark.usefixtures("no_tag")
@pytest.mark.parametrize("sizes", [None, FrameSizes.of(512), IMIX], ids=["least", "512", "imix"])
def test_every_destination_gets_the_frame_that_other_generators_send(
    trex: TrexStandIn, sizes: FrameSizes | None
) -> None:
    with generator(trex, prefixes=[*V4, *V6], frames=sizes) as opened:
        result = opened.start(10_000, 0.24).finish()
    assert result.sent == 2_400
    sent = Counter(packet for stream in trex.added[0] for packet in packets_of(stream))
    assert sent == frames_of(scenario([*V4, *V6], frames=sizes))
    modes = [stream["mode"] for stream in trex.added[0]]
    assert sum(mode["total_pkts"] for mode in modes) == 2_400
    assert sum(mode["rate"]["value"] for mode in modes) == pytest.approx(10_000)
    assert {stream["flags"] for stream in trex.added[0]} == {3}


def test_udp_checksums_of_ipv6_are_right(trex: TrexStandIn) -> None:
    with generator(trex, prefixes=V6) as opened:
        opened.start(1_000, 0.02).finish()
    (stream,) = trex.added[0]
    for packet in packets_of(stream):
        octets = np.frombuffer(packet[22:], ">u2").astype(np.int64)
        total = int(octets.sum()) + len(packet) - 54 + 17
        while total >> 16:
            total = (total & 0xFFFF) + (total >> 16)
        assert total == 0xFFFF, "pseudo-header and UDP, checksum included (RFC 8200 8.1)"


def test_a_large_table_is_many_streams_within_the_servers_limits(trex: TrexStandIn) -> None:
    rng = np.random.default_rng(1)
    n = 40_000
    addresses = np.zeros((n, 16), np.uint8)
    addresses[:, :4] = rng.integers(1, 255, (n, 4))
    table = Destinations(
        np.full(n, Family.IPV4, np.uint8),
        addresses,
        np.full(n, 32, np.uint8),
        np.ones(n, np.int16),
        np.zeros(n, np.int16),
    )
    with generator(trex, destinations=table) as opened:
        result = opened.start(400_000, 0.2).finish()
    assert result.sent == 80_000
    assert [len(list(packets_of(stream))) for stream in trex.added[0]] == [16_384, 16_384, 7_232]
    assert [stream["mode"]["total_pkts"] for stream in trex.added[0]] == [32_768, 32_768, 14_464]
    assert 100_000 < trex.largest < rpc.MOST_BYTES


def test_fewer_packets_than_streams() -> None:
    one = streams.Part(4, 60, np.zeros((1, 54), np.uint8))
    made = [*streams.calls([one] * 10, 1_000.0, 3)]
    assert [call["stream"]["mode"]["total_pkts"] for call in made] == [1, 1, 1]
    assert len({call["stream_id"] for call in made}) == 3
    assert made[0]["stream"]["vm"] == {"instructions": []}


# what can be wrong


def test_a_port_of_another_is_left_alone(trex: TrexStandIn) -> None:
    trex.ports[1].owner, trex.ports[1].session = "bob", 7
    with (
        pytest.raises(GeneratorError, match=r"port east: .*somebody else's.*already taken by 'bob'"),
        generator(trex),
    ):
        pass
    assert (trex.ports[1].owner, trex.ports[0].owner) == ("bob", "")
    assert not trex.ports[0].promiscuous


def test_streams_that_somebody_left_are_not_touched(trex: TrexStandIn) -> None:
    trex.ports[0].state, trex.ports[0].streams = "STREAMS", {1: {}}
    with pytest.raises(GeneratorError, match=r"in state STREAMS.*somebody has left streams"), generator(trex):
        pass
    assert trex.ports[0].streams == {1: {}}
    assert trex.ports[0].owner == ""


def test_a_port_that_was_taken_away_mid_stream_is_said_so(trex: TrexStandIn) -> None:
    with generator(trex) as opened:
        running = opened.start(1_000, 0.3)
        trex.ports[0].owner, trex.ports[0].handler = "bob", "other"
        with pytest.raises(GeneratorError, match="not owned by you"):
            running.finish()
    assert trex.ports[0].owner == "bob"
    assert trex.ports[1].owner == ""


def test_links_are_looked_at_before_and_after(trex: TrexStandIn) -> None:
    trex.ports[1].link = False
    with pytest.raises(GeneratorError, match="port east: TRex's port 1"), generator(trex):
        pass
    trex.ports[1].link = True
    with generator(trex) as opened:
        running = opened.start(1_000, 0.2)
        trex.ports[1].link = False
        with pytest.raises(GeneratorError, match=r"port east: .*has no link"):
            running.finish()
        with pytest.raises(GeneratorError, match="has no link"):
            opened.start(1_000, 0.2)
        trex.ports[1].link = True
        assert opened.start(1_000, 0.1).finish().sent == 100
    assert_given_back(trex)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (("STL", 4, 9), "your client version is too new.*expected a stateless server.*STL API"),
        (("STL", 6, 0), "a newer client version is required"),
        (("ASTF", 2, 3), "server RPC configuration: 'ASTF'"),
    ],
)
def test_a_server_of_another_version_or_kind_is_refused(
    trex: TrexStandIn, version: tuple[str, int, int], message: str
) -> None:
    trex.version = version
    with pytest.raises(GeneratorError, match=f"(?s){message}"), generator(trex):
        pass


def test_a_server_that_is_busy_is_asked_again(trex: TrexStandIn) -> None:
    trex.busy = 2
    with generator(trex):
        assert trex.calls[:3] == ["api_sync_v2"] * 3


def test_a_call_that_is_refused_undoes_what_was_done(trex: TrexStandIn) -> None:
    for method, message in (("add_stream", "Reached limit of 1 streams"), ("start_traffic", "no cores")):
        trex.refuse = {method: message}
        with generator(trex) as opened:
            with pytest.raises(GeneratorError, match=message):
                opened.start(1_000, 0.1)
            trex.refuse = {}
            assert opened.start(1_000, 0.1).finish().sent == 100
        assert_given_back(trex)


def test_a_server_that_dies_mid_stream_is_an_error(
    trex: TrexStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrexRpc.__init__, "__kwdefaults__", {"answer_s": 0.3})
    with generator(trex) as opened:
        running = opened.start(1_000, 30.0)
        trex.end()
        with pytest.raises(GeneratorError, match=r"has not answered for .* is it running \(t-rex-64 -i\)\?"):
            running.finish()


def test_a_server_that_is_not_there_is_an_error() -> None:
    with (
        pytest.raises(GeneratorError, match="has not answered"),
        TrexRpc("127.0.0.1", 9, answer_s=0.2),
    ):
        pass


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xab\xe8\x5c\xea1234junk!", b"not JSON", b"{}", b'{"jsonrpc": "2.0"}', b"[]", b'"x"', b"[1, 2]"],
)
def test_an_answer_that_is_none_is_an_error(trex: TrexStandIn, answer: bytes) -> None:
    trex.gibberish = answer
    with pytest.raises(GeneratorError, match="TRex"), generator(trex):
        pass


def test_a_call_that_no_message_can_hold_is_refused_here(trex: TrexStandIn) -> None:
    with TrexRpc("127.0.0.1", trex.port) as connection:
        with pytest.raises(GeneratorError, match="takes 999,999 bytes at most"):
            connection.call_all("add_stream", [{"x": "y" * 1_000_000}])
        connection.call_all("ping", [{"filler": "y" * 400_000}] * 5)
    assert trex.calls.count("ping") == 5


@pytest.mark.parametrize(
    ("port", "message"),
    [
        (
            Port("x", "0000:99:00.0", None, MAC, Wire.PCI),
            "no port with pci_addr 0000:99:00.0; it has 0000:03:00.0",
        ),
        (Port("x", "/run/memif.sock", None, MAC, Wire.MEMIF), "is a memif; TRex has NICs only"),
        (Port("x", "lo", None, MAC), "no port with hw_mac 00:00:00:00:00:00; it has 02:00"),
    ],
)
def test_a_port_that_the_server_does_not_have_is_named(trex: TrexStandIn, port: Port, message: str) -> None:
    with (
        pytest.raises(GeneratorError, match=message),
        TrexGenerator(scenario(), Endpoints((port,)), server=f"127.0.0.1:{trex.port}"),
    ):
        pass


def test_the_address_of_a_server() -> None:
    assert trex_server.address_of(None) == ("127.0.0.1", 4501)
    assert trex_server.address_of("generator1") == ("generator1", 4501)
    assert trex_server.address_of("generator1:4601") == ("generator1", 4601)
    for wrong in (":1", "host:port"):
        with pytest.raises(GeneratorError, match="expected HOST or HOST:PORT"):
            trex_server.address_of(wrong)


# an installed TRex


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    program = tmp_path / "t-rex-64"
    stand_in = Path(__file__).with_name("trex_stand_in.py")
    program.write_text(
        f'#!/bin/sh\n# a child of its own, as TRex\'s script has one\n{sys.executable} {stand_in} "$@"\n'
    )
    program.chmod(0o755)
    return tmp_path


def test_an_installed_trex_is_started_and_ended(installed: Path) -> None:
    binding = GeneratorBinding(kind="trex", path=installed)
    three = Endpoints((*PORTS.ports, Port("south", "0000:04:00.0", None, None, Wire.PCI)))
    with registry.make(scenario(), three, binding) as opened:
        (process,) = opened.process_ids
        family = [process, *(child.pid for child in psutil.Process(process).children(recursive=True))]
        assert len(family) == 2
        assert opened.start(1_000, 0.1).finish().sent == 100
    assert not [pid for pid in family if psutil.pid_exists(pid)]


def test_an_installed_trex_that_does_not_come_up_is_quoted(installed: Path, tmp_path: Path) -> None:
    broken = Endpoints((Port("west", "ffff:ff:00.0", None, MAC, Wire.PCI),))
    with (
        pytest.raises(GeneratorError, match=r"(?s)exit code 255.*could not find interface ffff:ff:00\.0"),
        TrexGenerator(scenario(), broken, path=installed),
    ):
        pass
    with (
        pytest.raises(GeneratorError, match=r"there is no TRex in .*: expected its program t-rex-64"),
        TrexGenerator(scenario(), PORTS, path=tmp_path / "absent"),
    ):
        pass
    with (
        pytest.raises(GeneratorError, match="by PCI address; west is none"),
        TrexGenerator(scenario(), Endpoints((Port("west", "lo", None, MAC),)), path=installed),
    ):
        pass
