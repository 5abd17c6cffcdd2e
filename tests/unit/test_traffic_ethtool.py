"""What drivers call their counters, and what is made of them.

The recordings are lines of real answers to ``ethtool -S``: those of i40e, ice, sfc, bnxt and ena are kept by
https://github.com/isc-projects/ethq under tests/ (b91b2e4), that of an mlx5 under more load than it could
take was posted to the kernel's XDP mailing list, that of ixgbe to the USRP users' list (drops: another's).
"""

from __future__ import annotations

import pytest

from router_agent.traffic.counters.ethtool import chosen, hash_in_words, receive_drops
from router_agent.traffic.counters.kernel import KernelForwarder, PortCounters
from router_agent.traffic.counters.source import Side

RECORDED = {
    "ixgbe": "rx_packets: 146651 rx_dropped: 0 rx_no_buffer_count: 0 fdir_miss: 146646 rx_missed_errors: 2538"
    " rx_no_dma_resources: 0 tx_queue_60_packets: 1061658 rx_queue_0_packets: 5 rx_queue_1_packets: 0"
    " rx_queue_20_packets: 146646",
    "i40e": "rx_dropped: 179160 rx_alloc_fail: 0 rx-0.packets: 36938878353 tx-0.packets: 1"
    " rx-1.packets: 36938866233 veb.rx_discards: 0 port.rx_dropped: 0",
    "i40e before 4.20": "rx_dropped: 0 rx-0.rx_packets: 64128515158 rx-3.rx_packets: 61598230947",
    "ice": "rx_dropped: 0 rx_dropped.nic: 0 rx_queue_0_packets: 487528 rx_queue_2_packets: 452533"
    " rx_queue_1_packets: 0 rx_queue_9_packets: 442493 rx_queue_19_packets: 520956 rx_size_64.nic: 3",
    "mlx5": "rx_packets: 333854079 rx_out_of_buffer: 990473555 rx_steer_missed_packets: 1962570491"
    " rx_discards_phy: 58591428329 rx_prio0_discards: 58591314012 rx0_packets: 70812690"
    " rx0_xdp_drop: 3753342954",
    "sfc": "port_rx_overflow: 0 port_rx_nodesc_drops: 0 port_rx_dp_di_dropped_packets: 27"
    " rx-0.rx_packets: 232 rx-1.rx_packets: 115",
    "bnxt": "[0]:\u00a0rx_ucast_packets: 10198513532"
    " [0]:\u00a0rx_discards: 11763190 [1]:\u00a0rx_discards: 10611365",
    "ena": "queue_0_rx_cnt: 9300271 queue_1_rx_cnt: 3667424 queue_0_tx_cnt: 7",
}


def recorded(driver: str) -> dict[str, int]:
    words = RECORDED[driver].split(" ")
    names = (word.removesuffix(":").replace("\u00a0", " ") for word in words[::2])
    return dict(zip(names, map(int, words[1::2]), strict=True))


@pytest.mark.parametrize(
    ("driver", "queues"),
    [
        ("ixgbe", {0: 5, 1: 0, 20: 146646}),
        ("i40e", {0: 36938878353, 1: 36938866233}),
        ("i40e before 4.20", {0: 64128515158, 3: 61598230947}),
        ("ice", {0: 487528, 1: 0, 2: 452533, 9: 442493, 19: 520956}),
        ("mlx5", {0: 70812690}),
        ("sfc", {0: 232, 1: 115}),
        ("bnxt", {0: 10198513532}),
        ("ena", {0: 9300271, 1: 3667424}),
    ],
)
def test_receive_queues_have_one_name_whatever_the_driver(driver: str, queues: dict[int, int]) -> None:
    found = chosen(recorded(driver))
    assert {name: n for name, n in found.items() if "queue" in name} == {
        f"rx_queue_{number}_packets": n for number, n in queues.items()
    }


@pytest.mark.parametrize(
    ("driver", "dropped", "drops"),
    [
        ("ixgbe", 2538, {"p rx_missed_errors": 2538}),
        ("i40e", 179160, {"p rx_dropped": 179160}),
        ("mlx5", 0, {"p rx_out_of_buffer": 990473555, "p rx_discards_phy": 58591428329}),
        ("sfc", 30, {"p port_rx_dp_di_dropped_packets": 27, "p rx_dropped": 3}),
        ("bnxt", 0, {"p [0]: rx_discards and 1 more": 22374555}),
    ],
)
def test_a_lost_packet_is_one_drop_whoever_counts_it(
    driver: str, dropped: int, drops: dict[str, int]
) -> None:
    growth = {f"p.{name}": n for name, n in chosen(recorded(driver)).items()} | {"p.rx_dropped": dropped}
    found = receive_drops(Side.TESTER, "p", growth, "p.")
    assert {drop.source: drop.count for drop in found if drop.count} == drops
    assert all(drop.name.startswith("tester port p: ") and not drop.derived for drop in found)


def test_both_sides_name_what_their_nics_lost() -> None:
    nic = {"rx_out_of_buffer": 7, "rx_dropped": 9, "rx_errors": 0}
    tester = PortCounters([("west", "eth0", None)]).drops({f"west.{name}": n for name, n in nic.items()})
    device = KernelForwarder(None, ["eth1"]).drops({f"dev.eth1.{name}": n for name, n in nic.items()})
    for drops, port in ((tester, "west"), (device, "eth1")):
        assert {d.source: d.count for d in drops if d.count} == {
            f"{port} rx_out_of_buffer": 7,
            f"{port} rx_dropped": 2,
        }


def test_a_hash_is_told_in_words() -> None:
    assert hash_in_words({}) == "not told by the driver"
    assert hash_in_words({"IPv4": ("source address", "source port"), "IPv6": ()}) == (
        "IPv4: source address, source port; IPv6: nothing"
    )
