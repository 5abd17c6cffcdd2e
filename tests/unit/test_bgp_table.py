"""What BGP chose, out of FRR's own words however they are cut."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.model import U64, Family, keys_of
from router_agent.observe import bgp_table
from router_agent.observe.bgp_table import best_prefixes
from router_agent.observe.kernel_table import TableError

ANSWER = """{
 "vrfName": "default", "routerId": "192.0.2.1",
 "routes": { "1.0.0.0/24": [
  { "valid":true, "bestpath":true, "pathFrom":"external", "prefix":"1.0.0.0", "prefixLen":24,
    "network":"1.0.0.0\\/24", "peerId":"198.18.0.1", "nexthops":[ { "ip":"198.18.0.1", "used":true } ] },
  { "valid":true, "pathFrom":"external", "peerId":"198.18.1.1", "nexthops":[ { "ip":"198.18.1.1" } ] }
], "1.0.4.0\\/22": [
  { "valid":true, "pathFrom":"external", "peerId":"198.18.0.1", "nexthops":[] },
  { "valid":true, "bestpath":true, "peerId":"198.18.1.1", "nexthops":[] }
], "9.9.9.0/24": [
  { "valid":true, "bestpath":true, "peerId":"(unspec)", "nexthops":[ { "ip":"0.0.0.0" } ] }
], "7.0.0.0/8": [ { "valid":false, "peerId":"198.18.0.1", "nexthops":[] } ],
 "2001:db8::/32": [ { "bestpath": true, "peerId": "2001:db8:1::1" } ] } }
"""
CHOSEN = [ip_network(prefix) for prefix in ("1.0.0.0/24", "1.0.4.0/22", "2001:db8::/32")]


@given(st.lists(st.integers(0, len(ANSWER)), max_size=40))
def test_chosen_prefixes_are_found_wherever_the_answer_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(ANSWER)]
    parts = [ANSWER[begin:end] for begin, end in pairwise(edges)]
    assert list(best_prefixes(parts)) == CHOSEN


def test_what_differs_in_two_readings_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    def keys(*prefixes: str) -> U64:
        return keys_of([ip_network(prefix) for prefix in prefixes])

    readings = iter(
        [
            (keys("1.0.0.0/24", "2.0.0.0/8", "3.0.0.0/8"), keys("3.0.0.0/8", "4.0.0.0/8", "5.0.0.0/8")),
            (keys("1.0.0.0/24", "2.0.0.0/8", "3.0.0.0/8"), keys("2.0.0.0/8", "3.0.0.0/8", "4.0.0.0/8")),
        ]
    )
    monkeypatch.setattr(bgp_table, "_both", lambda *_: next(readings))
    found = bgp_table.compare(Family.IPV4, vtysh=(), table=254, namespace=None)
    assert (found.missing_prefixes, found.extra_prefixes) == (("1.0.0.0/24",), ("4.0.0.0/8",))
    assert (found.chosen, found.in_kernel, found.missing, found.extra) == (3, 3, 1, 1)


WORDS = st.sampled_from(
    ['"1.0.0.0/24":[', '"300.0.0.0/24": [', '"1.0.0.1/24":[', '"bestpath":true', '"peerId":"x"', "{", " "]
)


@given(st.lists(WORDS | st.text(max_size=9)))
def test_any_text_gives_prefixes_or_says_what_is_wrong(words: list[str]) -> None:
    try:
        assert all(prefix.version in (4, 6) for prefix in best_prefixes(words))
    except TableError as error:
        assert "no prefix" in str(error)  # noqa: PT017 - either outcome is right
