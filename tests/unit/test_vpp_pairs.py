"""Reading linux-cp's pairs in parts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from router_agent.fibs.fib import FibError
from router_agent.vpp.pairs import Pair, read_pairs
from router_agent.vpp.session import VppSession

AGAIN = -165


def details(port: int) -> SimpleNamespace:
    return SimpleNamespace(
        phy_sw_if_index=port, host_sw_if_index=port + 1, vif_index=port + 2, host_if_name="eth0", netns="blue"
    )


class Answers:
    """A session that gives prepared parts: (retval, cursor, ports)."""

    version = "26.06"

    def __init__(self, *parts: tuple[int, int, list[int]]) -> None:
        self._parts = list(parts)
        self.cursors: list[int] = []

    def has(self, name: str) -> bool:
        return name == "lcp_itf_pair_get"

    def require(self, needed: object) -> None:
        assert needed

    async def call(self, name: str, *, cursor: int) -> tuple[Any, list[Any]]:
        assert name == "lcp_itf_pair_get"
        self.cursors.append(cursor)
        retval, following, ports = self._parts.pop(0)
        return SimpleNamespace(retval=retval, cursor=following), [details(port) for port in ports]


def pair(port: int) -> Pair:
    return Pair(port, port + 1, port + 2, "eth0", "blue")


@pytest.mark.parametrize(
    ("parts", "cursors", "ports"),
    [
        ([(0, 0, [])], [0], []),
        ([(0, 0xFFFFFFFF, [1, 4])], [0], [1, 4]),
        ([(AGAIN, 2, [1, 4]), (AGAIN, 3, [7]), (0, 0xFFFFFFFF, [10])], [0, 2, 3], [1, 4, 7, 10]),
        ([(AGAIN, 2, [1]), (-7, 0, [])], [0, 2], [1]),
        ([(AGAIN, 2, [1]), (AGAIN, 2, [1])], [0, 2], [1]),
    ],
    ids=["none", "at-once", "in-parts", "shrunk-meanwhile", "no-progress"],
)
async def test_parts_are_put_together(
    parts: list[tuple[int, int, list[int]]], cursors: list[int], ports: list[int]
) -> None:
    session = Answers(*parts)
    assert await read_pairs(cast(VppSession, session)) == [pair(port) for port in ports]
    assert session.cursors == cursors


async def test_a_refusal_is_an_error() -> None:
    with pytest.raises(FibError, match=r"refused lcp_itf_pair_get\(cursor=0\): error -7"):
        await read_pairs(cast(VppSession, Answers((-7, 0, []))))
