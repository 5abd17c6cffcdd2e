"""What a kernel FIB refuses to be made with, and how it writes path sets."""

from __future__ import annotations

from typing import Any

import pytest

from router_agent.fibs.kernel import KernelFib
from router_agent.model import Path, PathSet, Reason, RouteType


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"protocol": 2}, "route protocol 2: expected 5 to 255"),
        ({"protocol": 4}, "route protocol 4: expected 5 to 255"),
        ({"protocol": 256}, "route protocol 256: expected 5 to 255"),
        ({"protocol": 11}, "belongs to zebra"),
        ({"protocol": 186}, "belongs to bgp"),
        ({"metric": 0}, "metric 0: expected 1 to 4294967295"),
        ({"metric": 1 << 32}, "metric 4294967296: expected"),
        ({"window": 0}, "window 0: expected at least 1"),
    ],
)
def test_what_would_touch_routes_of_others_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        KernelFib(**{"protocol": 201, "metric": 20, **options})


def test_a_shared_protocol_must_be_asked_for_by_name() -> None:
    KernelFib(protocol=186, metric=20, shared_protocol=True)


@pytest.mark.parametrize(
    ("wanted", "written"),
    [
        (PathSet.unicast(Path(3, b"abcd", 7)), PathSet.unicast(Path(3, b"abcd", 1))),
        (PathSet.unicast(Path(3, b"abcd", 2), Path(3, b"abcd", 3)), PathSet.unicast(Path(3, b"abcd"))),
        (
            PathSet.unicast(Path(3, b"abcd", 2), Path(3, b"abcd", 3), Path(4)),
            PathSet.unicast(Path(3, b"abcd", 5), Path(4)),
        ),
        (PathSet(RouteType.PROHIBIT, (Path(3),)), PathSet(RouteType.PROHIBIT)),
    ],
    ids=["one-leg-has-no-share", "equal-legs-alone", "equal-legs-add-up", "no-legs-where-none-count"],
)
def test_path_sets_are_written_the_way_the_kernel_shows_them(wanted: PathSet, written: PathSet) -> None:
    fib = KernelFib(protocol=201, metric=20)
    number = fib.path_id(wanted)
    assert isinstance(number, int)
    assert fib.path_set(number) == written


def test_a_path_set_without_legs_leads_nowhere() -> None:
    assert KernelFib(protocol=201, metric=20).path_id(PathSet()) is Reason.UNRESOLVED_NEXT_HOP


def test_without_being_open_no_gateway_resolves() -> None:
    fib = KernelFib(protocol=201, metric=20)
    assert fib.path_id(PathSet.unicast(Path(0, b"abcd"))) is Reason.UNRESOLVED_NEXT_HOP


def test_more_legs_than_a_message_holds_are_over_capacity() -> None:
    legs = [Path(3, number.to_bytes(4, "big")) for number in range(1025)]
    assert KernelFib(protocol=201, metric=20).path_id(PathSet.unicast(*legs)) is Reason.OVER_CAPACITY
