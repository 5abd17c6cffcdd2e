"""Parsers of /proc/net, and what the kernel's and VPP's counters are taken to mean."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.traffic.counters.kernel import (
    HostBacklog,
    KernelForwarder,
    PortCounters,
    parse_cpus,
    parse_dev,
    parse_lines,
    parse_pairs,
    parse_softnet,
)
from router_agent.traffic.counters.schedule import Scheduling, waiting_share
from router_agent.traffic.counters.source import CounterError, Side
from router_agent.traffic.counters.vpp import VppForwarder

DEV = """\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls
    lo:   15404     208    0    0    0     0          0         0    15404     208    0    0    0     0
 eth0.5:  18426     305    1    2    0     0          0         0      516       6    3    4    0     0
"""
SNMP = """\
Ip: Forwarding DefaultTTL InReceives InHdrErrors ForwDatagrams
Ip: 1 64 300 0 299
Icmp: InMsgs
Icmp: 7
"""


def test_interfaces_are_read_by_column() -> None:
    counters = parse_dev(DEV)
    assert counters["dev.eth0.5.rx_packets"] == 305
    assert [counters[f"dev.eth0.5.{c}"] for c in ("rx_errors", "rx_dropped")] == [1, 2]
    assert [counters[f"dev.eth0.5.{c}"] for c in ("tx_packets", "tx_errors", "tx_dropped")] == [6, 3, 4]


def test_pairs_of_lines_are_read_by_name() -> None:
    counters = parse_pairs(SNMP)
    assert (counters["Ip.InReceives"], counters["Ip.ForwDatagrams"], counters["Icmp.InMsgs"]) == (300, 299, 7)
    assert parse_lines("Ip6InReceives   \t9\nIp6InNoRoutes 2\n") == {"Ip6InReceives": 9, "Ip6InNoRoutes": 2}


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_dev, "a\nb\n eth0: 1 2 3\n"),
        (parse_pairs, "Ip: A B\nIp: 1\n"),
        (parse_pairs, "Ip: A\nTcp: 1\n"),
        (parse_pairs, "Ip: A\nIp: x\n"),
        (parse_lines, "Ip6InReceives many\n"),
    ],
)
def test_malformed_text_is_a_clear_error(parse: object, text: str) -> None:
    assert callable(parse)
    with pytest.raises(CounterError, match="/proc/net"):
        parse(text)


@given(st.text())
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (parse_dev, parse_pairs, parse_lines):
        with suppress(CounterError):
            assert all(isinstance(value, int) for value in parse(text).values())


def test_what_came_in_and_went_nowhere_is_a_derived_class() -> None:
    growth = {
        "Ip.InReceives": 1000,
        "Ip.InDelivers": 1,
        "Ip.ForwDatagrams": 900,
        "IpExt.InNoRoutes": 9,
        "dev.lo.tx_packets": 50,
        "dev.lo.rx_packets": 50,
        "Ip6InReceives": 10,
        "Ip6OutForwDatagrams": 10,
    }
    drops = {d.source: d for d in KernelForwarder(None, ports=()).drops(growth) if d.count > 0}
    assert drops["IpExt.InNoRoutes"].count == 9
    assert not drops["IpExt.InNoRoutes"].derived
    silent = drops["Ip: in - delivered - forwarded"]
    assert (silent.count, silent.derived, silent.side) == (90, True, Side.DEVICE)
    assert drops["Ip forwarded - dev transmitted"].count == 910


def test_drops_of_the_testers_ports_are_the_testers() -> None:
    grown = {"west.rx_dropped": 5, "west.rx_errors": 1, "west.tx_dropped": 3, "west.tx_errors": 4}
    drops = PortCounters([("west", "eth0", None)]).drops(grown)
    assert [(d.source, d.count) for d in drops] == [
        ("west rx_dropped", 5),
        ("west rx_errors", 1),
        ("west tx_dropped, tx_errors", 7),
    ]
    assert {d.side for d in drops} == {Side.TESTER}


def test_vpp_reasons_add_up_to_its_drops() -> None:
    growth = {
        "/if/drops/host-a": 100,
        "/if/drops/host-b": 1,
        "/err/ethernet-input/no error": 90,
        "/err/ip4-arp/throttled": 6,
        "/err/af-packet-input/total received block": 5000,
        "/err/ip4-icmp-error/dest_unreach_sent": 90,
        "/if/rx-miss/host-a": 7,
        "/if/rx/host-a": 1000,
        "dev.a.rx_packets": 1003,
        "/if/tx/host-b": 900,
        "dev.b.tx_packets": 900,
    }
    drops = {d.source: d for d in VppForwarder(Path("/nowhere")).drops(growth) if d.count}
    assert drops["/err/ethernet-input/no error"].count == 90
    assert drops["/err/ip4-arp/throttled"].count == 6
    assert drops["/if/drops"].count == 5
    assert drops["/if/rx-miss"].count == 7
    assert drops["a rx_packets against /if/rx"].count == 3
    assert drops["a rx_packets against /if/rx"].derived
    assert len(drops) == 5


def test_vpp_reasons_never_exceed_its_drops() -> None:
    growth = {"/if/drops/x": 10, "/err/ip4-input/one": 8, "/err/ip4-input/two": 8}
    drops = VppForwarder(Path("/nowhere")).drops(growth)
    assert sum(d.count for d in drops) == 10


def test_counters_that_cannot_be_read_say_so() -> None:
    with pytest.raises(CounterError, match="no-such-namespace"):
        KernelForwarder("no-such-namespace").read()
    with pytest.raises(CounterError, match="no interface 'absent0'"):
        KernelForwarder(None, ports=["absent0"]).read()
    with pytest.raises(CounterError, match="port west"):
        PortCounters([("west", "absent0", None)]).read()
    with pytest.raises(CounterError, match="stats segment"):
        VppForwarder(Path("/nowhere/stats.sock")).read()


def test_this_kernel_can_be_read() -> None:
    counters = KernelForwarder(None).read()
    assert {"dev.lo.rx_packets", "Ip.InReceives", "IpExt.InNoRoutes"} <= set(counters)
    assert set(HostBacklog().read()) == {"dropped", "time_squeeze"}


def test_tables_by_cpu_are_summed() -> None:
    conntrack = """\
entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop
00000009  00000000 00000000 00000000 0000004a 00000000 00000000 00000000 00000000 00000001 000000ff 00000000
00000009  00000000 00000000 00000000 0000004a 00000000 00000000 00000000 00000000 00000000 00000001 00000000
"""
    found = parse_cpus(conntrack)
    assert (found["drop"], found["insert_failed"], found["invalid"]) == (256, 1, 148)
    softnet = "0000272d 00000003 00000001 0 0\n000034d9 00000000 00000010 0 0\n"
    assert parse_softnet(softnet) == {"dropped": 3, "time_squeeze": 17}


def test_a_process_that_runs_is_seen_to_run() -> None:
    source = Scheduling(lambda: [os.getpid(), 2**22 + 1])
    before = source.read()
    assert before[f"{2**22 + 1}.ran_ns"] == 0, "there is no such process"
    until = time.process_time() + 0.05
    while time.process_time() < until:
        pass
    grown = source.read()[f"{os.getpid()}.ran_ns"] - before[f"{os.getpid()}.ran_ns"]
    assert grown >= 40_000_000
    assert source.drops({"1.waited_ns": 5}) == []


def test_the_share_of_waiting_is_that_of_who_waited_most() -> None:
    moved = {
        Scheduling.name: {"1.waited_ns": 500_000_000, "2.waited_ns": 1_000_000_000, "3.ran_ns": 9 * 10**9}
    }
    assert waiting_share(moved, 4.0) == 0.25
    assert waiting_share(moved, 0.5) == 1.0
    assert waiting_share(moved, 0.0) == waiting_share({}, 4.0) == 0.0
