"""Single prefixes: metrics, legs one at a time, types, next hops that go. Each is right or wrong.

Every stage is given `CASE_SECONDS`, and VPP is compared with the kernel after each. A case that ends wrong is
followed by a fresh VPP, so that it does not spoil the next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from ipaddress import ip_network
from typing import Any

from router_agent.model import Family, keys_of

from .kernel import BGP, gateway
from .routes import Difference
from .trial import Trial

CASE_SECONDS = 8.0
_AGAIN_SECONDS = 0.5
V4, V6 = "203.0.113.0/24", "2001:db8:cafe::/48"
A4, B4 = gateway(Family.IPV4, 1, 0), gateway(Family.IPV4, 2, 0)
A6, B6 = gateway(Family.IPV6, 1, 0), gateway(Family.IPV6, 2, 0)


@dataclass(frozen=True, slots=True)
class Case:
    """A few commands of iproute2, in stages; after each the kernel and VPP are to agree."""

    name: str
    stages: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How a case ended.

    Attributes:
        case: its name.
        contender: whose VPP it was.
        right: whether VPP was right after each stage.
        found: what was wrong, and after which stage.
    """

    case: str
    contender: str
    right: bool
    found: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return asdict(self)


def _r(words: str) -> str:
    return f"route {words} proto {BGP}"


def _r6(words: str) -> str:
    return f"-6 route {words} proto {BGP}"


CASES = (
    Case(
        "metrics 300 and 20, the better deleted",
        (
            (_r(f"add {V4} via {B4} metric 300"),),
            (_r(f"add {V4} via {A4} metric 20"),),
            (_r(f"del {V4} via {A4} metric 20"),),
        ),
    ),
    Case(
        "metrics 20 and 300, the worse deleted",
        (
            (_r(f"add {V4} via {A4} metric 20"), _r(f"add {V4} via {B4} metric 300")),
            (_r(f"del {V4} via {B4} metric 300"),),
        ),
    ),
    Case(
        "metrics 20 and 256",
        ((_r(f"add {V4} via {A4} metric 20"), _r(f"add {V4} via {B4} metric 256")),),
    ),
    Case(
        "metrics 200 and 456, equal in their low 8 bits",
        ((_r(f"add {V4} via {A4} metric 200"), _r(f"add {V4} via {B4} metric 456")),),
    ),
    Case(
        "metrics 20 and 300, the better replaced",
        (
            (_r(f"add {V4} via {A4} metric 20"), _r(f"add {V4} via {B4} metric 300")),
            (_r(f"replace {V4} via {gateway(Family.IPV4, 1, 1)} metric 20"),),
            (_r(f"del {V4} metric 20"),),
        ),
    ),
    Case(
        "IPv6: a second leg appended, then removed",
        (
            (_r6(f"add {V6} via {A6} metric 20"),),
            (_r6(f"append {V6} via {B6} metric 20"),),
            (_r6(f"del {V6} via {B6} metric 20"),),
        ),
    ),
    Case(
        "IPv6: the first of two legs removed",
        (
            (f"-6 route add {V6} proto {BGP} metric 20 nexthop via {A6} nexthop via {B6}",),
            (_r6(f"del {V6} via {A6} metric 20"),),
        ),
    ),
    Case(
        "IPv6: metrics 20 and 1024, the better deleted",
        (
            (_r6(f"add {V6} via {B6} metric 1024"), _r6(f"add {V6} via {A6} metric 20")),
            (_r6(f"del {V6} via {A6} metric 20"),),
        ),
    ),
    Case(
        "IPv6: metrics 20 and 300, the worse deleted",
        (
            (_r6(f"add {V6} via {A6} metric 20"), _r6(f"add {V6} via {B6} metric 300")),
            (_r6(f"del {V6} via {B6} metric 300"),),
        ),
    ),
    Case(
        "IPv6: replaced by another gateway",
        ((_r6(f"add {V6} via {A6} metric 20"),), (_r6(f"replace {V6} via {B6} metric 20"),)),
    ),
    Case(
        "two legs with weights 1 and 3",
        ((f"route add {V4} proto {BGP} metric 20 nexthop via {A4} weight 1 nexthop via {B4} weight 3",),),
    ),
    Case("blackhole", ((_r(f"add blackhole {V4}"), _r6(f"add blackhole {V6}")),)),
    Case("unreachable", ((_r(f"add unreachable {V4}"), _r6(f"add unreachable {V6}")),)),
    Case("prohibit", ((_r(f"add prohibit {V4}"), _r6(f"add prohibit {V6}")),)),
    Case(
        "a unicast route replaced by a blackhole, and back",
        (
            (_r(f"add {V4} via {A4} metric 20"),),
            (_r(f"replace blackhole {V4} metric 20"),),
            (_r(f"replace {V4} via {A4} metric 20"),),
        ),
    ),
    Case(
        "IPv4 through an IPv6 next hop (RFC 8950)",
        ((_r(f"add {V4} via inet6 {A6} dev eth1 metric 20"),),),
    ),
    Case(
        "the next-hop object of a route deleted",
        (
            (f"nexthop add id 77 via {A4} dev eth1", _r(f"add {V4} nhid 77 metric 20")),
            ("nexthop del id 77",),
        ),
    ),
    Case(
        "IPv6: the next-hop object of a route deleted",
        (
            (f"nexthop add id 78 via {A6} dev eth1", _r6(f"add {V6} nhid 78 metric 20")),
            ("nexthop del id 78",),
        ),
    ),
    Case(
        "the last IPv4 address of a port removed",
        ((_r(f"add {V4} via {A4} metric 20"),), ("address del 198.51.100.1/25 dev eth1",)),
    ),
    Case(
        "the preferred source of a route removed",
        (
            ("address add 192.0.2.1/32 dev lo", _r(f"add {V4} via {A4} src 192.0.2.1 metric 20")),
            ("address del 192.0.2.1/32 dev lo",),
        ),
    ),
)


async def run_cases(trial: Trial, start_over: Callable[[], Awaitable[None]]) -> list[CaseResult]:
    """Run every case.

    Args:
        trial: with a contender that is right on an empty table.
        start_over: makes it so again.
    """
    trial.also = {
        Family.IPV4: keys_of([ip_network(V4)]),
        Family.IPV6: keys_of([ip_network(V6)]),
    }
    results = []
    for case in CASES:
        found = await _run_case(trial, case)
        results.append(CaseResult(case.name, trial.contender.name, not found, found))
        trial.say(f"{trial.contender.name}: {case.name}: {found or 'right'}")
        await asyncio.to_thread(_clean_up, trial)
        if found or not (await _settled(trial)).none:
            await start_over()
    return results


async def _run_case(trial: Trial, case: Case) -> str:
    """Return what was wrong; empty when nothing was."""
    for number, lines in enumerate(case.stages, 1):
        for line in lines:
            await asyncio.to_thread(trial.bed.ip, *line.split())
        wrong = await _settled(trial)
        if not wrong.none:
            return f"after stage {number}: {'; '.join(wrong.examples)}"
    return ""


async def _settled(trial: Trial) -> Difference:
    """Return what is wrong, once nothing was wrong twice in a row or time is up."""
    deadline = time.monotonic() + CASE_SECONDS
    before = False
    while True:
        wrong = await trial.difference()
        if (before and wrong.none) or (time.monotonic() > deadline and not wrong.none):
            return wrong
        before = wrong.none
        await asyncio.sleep(_AGAIN_SECONDS)


def _clean_up(trial: Trial) -> None:
    """Take everything away that a case may have made, and put back what it may have taken."""
    lines = [
        f"route flush proto {BGP}",
        f"-6 route flush proto {BGP}",
        "nexthop replace id 77 blackhole",
        "nexthop del id 77",
        "nexthop replace id 78 blackhole",
        "nexthop del id 78",
        "address replace 192.0.2.1/32 dev lo",
        "address del 192.0.2.1/32 dev lo",
    ]
    for line in lines:
        trial.bed.ip(*line.split())
    trial.kernel.prepare()
    trial.kernel.make_hops()
