"""Counters of ports made into rates."""

from __future__ import annotations

from pathlib import Path

import pytest

from router_agent.host_reader import ports
from router_agent.host_reader.answers import Port
from router_agent.observe.answers import Counters, ForwarderCounters, InterfaceCounters
from router_agent.web.ports import PortsError, Rates, of_forwarders

NET_DEV = """\
Inter-|   Receive                          |  Transmit
 face |bytes packets errs drop fifo frame compressed multicast|bytes packets errs drop ...
    lo: 100  10 0 0 0 0 0 0  100  10 0 0 0 0 0 0
  eth0: 1000 11 1 2 3 4 5 6  2000 12 7 8 9 10 11 12
br:0:1: 5    1  0 0 0 0 0 0  0    0  0 0 0 0 0 0
"""


def port(name: str, packets: int, dropped: int = 0) -> Port:
    return Port(
        name=name,
        rx_packets=packets,
        rx_bytes=100 * packets,
        tx_packets=2 * packets,
        tx_bytes=200 * packets,
        rx_misses=dropped,
    )


def test_rates_are_between_two_readings() -> None:
    rates = Rates()
    (first,) = rates.of([port("a", 1_000)], 10.0)
    assert (first.name, first.received_bits_per_second) == ("a", None)
    (second,) = rates.of([port("a", 1_500, dropped=5)], 10.5)
    assert (second.received_packets_per_second, second.sent_packets_per_second) == (1_000, 2_000)
    assert (second.received_bits_per_second, second.sent_bits_per_second) == (800_000, 1_600_000)
    assert second.dropped_per_second == 10


def test_a_reading_at_once_after_another_gives_the_same_rates() -> None:
    rates = Rates()
    rates.of([port("a", 0)], 10.0)
    again = rates.of([port("a", 100)], 11.0)
    assert rates.of([port("a", 100)], 11.0) == again


def test_counters_that_went_back_and_ports_that_are_new_have_no_rate_yet() -> None:
    rates = Rates()
    rates.of([port("a", 1_000)], 10.0)
    found = {view.name: view for view in rates.of([port("b", 5), port("a", 10)], 11.0)}
    assert list(found) == ["a", "b"]
    assert all(view.received_packets_per_second is None for view in found.values())
    assert rates.of([port("a", 20), port("b", 5)], 12.0)[0].received_packets_per_second == 10


def test_a_clock_that_went_back_gives_no_rate() -> None:
    rates = Rates()
    rates.of([port("a", 0)], 10.0)
    assert rates.of([port("a", 100)], 9.0)[0].received_packets_per_second is None


def test_the_kernels_interfaces(tmp_path: Path) -> None:
    table, states = tmp_path / "dev", tmp_path / "net"
    table.write_text(NET_DEV)
    for name, state in (("eth0", "up"), ("br:0:1", "lowerlayerdown")):
        (states / name).mkdir(parents=True)
        (states / name / "operstate").write_text(f"{state}\n")
    eth0, bridge = ports.read(table, states).rows
    assert eth0 == Port(
        name="eth0",
        up=True,
        rx_bytes=1_000,
        rx_packets=11,
        rx_errors=1,
        drops=2 + 8,
        rx_misses=3,
        tx_bytes=2_000,
        tx_packets=12,
        tx_errors=7 + 9,
    )
    assert (bridge.name, bridge.up) == ("br:0:1", False)


def test_this_kernels_own_table_is_understood() -> None:
    assert ports.read().problem is None


def test_a_table_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "dev").write_text("x\ny\neth0: 1 2\n")
    assert "cannot be read" in (ports.read(tmp_path / "dev").problem or "")


def test_vpps_ports_and_why_there_are_none() -> None:
    seen = InterfaceCounters(name="host-a", rx_packets=5, rx_misses=1, drops=2, tx_errors=3)
    (only,) = of_forwarders(Counters(forwarders=(ForwarderCounters(pipelines=("fib",), interfaces=(seen,)),)))
    assert (only.name, only.rx_packets, only.up) == ("host-a", 5, None)
    gone = ForwarderCounters(pipelines=("fib",), problem="no stats segment")
    with pytest.raises(PortsError, match="no stats segment"):
        of_forwarders(Counters(forwarders=(gone,)))
