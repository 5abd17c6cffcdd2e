"""How a table is announced: groups, next hops, AS paths, and what BIRD is told."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest

from router_agent.lab.announcement import (
    MOST_GROUPS,
    RECEIVING_PORTS,
    expected_port,
    groups_of,
    write_routes,
)
from router_agent.lab.plan import IN, OUT, PORTS, link_local
from router_agent.lab.reserved import RESERVED
from router_agent.lab.table import Table, generated_table
from router_agent.model import Family, keys_of, prefixes_of


@pytest.fixture(scope="module")
def table() -> Table:
    return generated_table(60_000, 30_000)


def test_groups_divide_the_table(table: Table) -> None:
    groups = groups_of(table)
    for family in Family:
        rows = np.concatenate([group.rows for group in groups if group.family is family])
        assert sorted(rows.tolist()) == list(range(len(table.keys(family))))
    names = [group.name for group in groups]
    assert len(set(names)) == len(names)


def test_every_prefix_of_a_group_is_expected_at_its_port(table: Table) -> None:
    for group in groups_of(table):
        expected = expected_port(table.keys(group.family)[group.rows])
        assert {RECEIVING_PORTS[number] for number in expected.tolist()} == {group.port}


def test_most_leave_by_out_and_some_by_in(table: Table) -> None:
    assert RECEIVING_PORTS == (OUT, IN)
    for family in Family:
        share = float(expected_port(table.keys(family)).mean())
        assert 0.11 < share < 0.14


def test_what_is_expected_depends_on_the_prefix_alone(table: Table) -> None:
    whole = expected_port(table.ipv4)
    assert expected_port(table.ipv4[::-1]).tolist() == whole[::-1].tolist()
    assert expected_port(table.ipv4[17:18]).tolist() == [whole[17]]


def test_a_full_table_has_hundreds_of_as_paths(table: Table) -> None:
    groups = [group for group in groups_of(table) if group.family is Family.IPV4]
    paths = {group.path for group in groups}
    assert len(paths) == MOST_GROUPS
    assert all(65536 <= number <= 65551 for path in paths for number in path)
    assert {len(path) for path in paths} == {3, 5}


def test_a_small_table_has_few_as_paths() -> None:
    assert len({group.path for group in groups_of(generated_table(100, 0))}) == 2
    assert groups_of(generated_table(0, 0)) == []


def test_bird_is_told_every_prefix_once(tmp_path: Path) -> None:
    table = Table(
        keys_of([ip_network("1.0.0.0/24"), ip_network("1.0.0.0/8")]),
        keys_of([ip_network("2a00::/32")]),
        "test",
    )
    write_routes(tmp_path, table, groups_of(table))
    text = (tmp_path / "table.conf").read_text()
    routes = re.findall(r"^  route (\S+) blackhole;$", text, re.MULTILINE)
    assert sorted(map(ip_network, routes), key=str) == sorted(
        prefixes_of(table.ipv4) + prefixes_of(table.ipv6), key=str
    )
    for family in Family:
        channel = "ipv4" if family is Family.IPV4 else "ipv6"
        next_hops = re.findall(rf"  {channel} {{ import filter {{ bgp_next_hop = (\S+); ", text)
        assert set(next_hops) <= {str(port.gateway(family)) for port in RECEIVING_PORTS}
        assert next_hops


def test_addresses_of_the_lab_are_in_space_no_table_may_contain() -> None:
    for port in PORTS:
        for family in Family:
            here, there = port.address(family), port.far_address(family)
            assert here.network == there.network
            assert here != there
            assert any(here.ip in prefix for prefix in RESERVED[family])


def test_link_local_addresses_follow_from_the_mac() -> None:
    assert str(link_local("02:00:00:00:01:01")) == "fe80::ff:fe00:101"
