"""docs/routes.md, row by row: put into a real kernel, looked for in a real VPP."""

from __future__ import annotations

import asyncio
import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

from router_agent.feeds.kernel import KernelFeed
from router_agent.fibs.vpp import VppFib
from router_agent.model import Family, Prefix, Reason, keys_of, prefixes_of
from router_agent.observe.answers import State
from router_agent.observe.words import describe_paths
from router_agent.pipeline import Pipeline
from router_agent.reconcile import REASONS
from router_agent.vpp.process import VppProcess

pytestmark = [pytest.mark.vpp, pytest.mark.root]

PAGE = Path(__file__).parents[2] / "docs" / "routes.md"
VIA, VIA6 = "via 10.0.0.2 dev loop0", "via 2001:db8::2 dev loop0"


@dataclass(frozen=True)
class Case:
    """A row: what is put into the kernel, and what becomes of it.

    `vpp` is what VPP holds, in words; None where it holds nothing. Then `reported` is the reason, or the name
    under which routes that are passed over are counted.
    """

    row: str
    commands: tuple[str, ...]
    prefix: str
    vpp: tuple[str, ...] | None = None
    reported: Reason | str | None = None
    table: int = 254


CASES = (
    Case("unicast, one next hop", ("route add 20.0.0.0/24 via 10.0.0.2",), "20.0.0.0/24", (VIA,)),
    Case("unicast, connected", ("route add 20.0.1.0/24 dev p0",), "20.0.1.0/24", ("dev loop0",)),
    Case(
        "unicast, several next hops",
        ("route add 20.0.2.0/24 nexthop via 10.0.0.2 weight 4 nexthop via 10.1.0.2 weight 2",),
        "20.0.2.0/24",
        (f"{VIA} weight 2", "via 10.1.0.2 dev loop1"),
    ),
    Case(
        "unicast, dead or unreachable leg",
        (
            "link set p6 up",
            "address add 10.3.0.1/24 dev p6",
            "route add 20.0.3.0/24 nexthop via 10.0.0.2 nexthop via 10.3.0.2",
            "link set p6 down",
        ),
        "20.0.3.0/24",
        (VIA,),
    ),
    Case(
        "unicast over an interface without counterpart",
        ("route add 20.0.4.0/24 via 10.2.0.2",),
        "20.0.4.0/24",
        None,
        Reason.UNRESOLVED_INTERFACE,
    ),
    Case("blackhole", ("route add blackhole 20.0.5.0/24",), "20.0.5.0/24", ("blackhole",)),
    Case("unreachable", ("route add unreachable 20.0.6.0/24",), "20.0.6.0/24", ("unreachable",)),
    Case("prohibit", ("route add prohibit 20.0.7.0/24",), "20.0.7.0/24", ("prohibit",)),
    Case("throw", ("route add throw 20.0.8.0/24",), "20.0.8.0/24", None, "type-throw"),
    Case("local", ("route add local 20.0.9.1 dev p0 table main",), "20.0.9.1/32", None, "type-local"),
    Case(
        "broadcast",
        ("route add broadcast 20.0.10.255 dev p0 table main",),
        "20.0.10.255/32",
        None,
        "type-broadcast",
    ),
    Case(
        "anycast",
        ("-6 route add anycast 2001:db8:b::1 dev p0 table main",),
        "2001:db8:b::1/128",
        None,
        "type-anycast",
    ),
    Case("multicast", ("route add multicast 20.0.12.0/24 dev p0",), "20.0.12.0/24", None, "type-multicast"),
    Case(
        "several metrics for a prefix",
        (
            "route add 20.0.13.0/24 via 10.1.0.2 metric 4294967295",
            "route add 20.0.13.0/24 via 10.0.0.2 metric 4294967039",
        ),
        "20.0.13.0/24",
        (VIA,),
    ),
    Case("type of service", ("route add 20.0.14.0/24 via 10.0.0.2 tos 0x10",), "20.0.14.0/24", None, "tos"),
    Case(
        "from a source prefix (IPv6)",
        ("-6 route add 2001:db8:f::/48 from 2001:db8::/32 via 2001:db8::2",),
        "2001:db8:f::/48",
        None,
        "source-prefix",
    ),
    Case(
        "link-local and multicast prefixes (fe80::/10, ff00::/8)",
        ("-6 route add fe80:1::/64 dev p0",),
        "fe80:1::/64",
        None,
        "link-scope",
    ),
    Case(
        "metrics (mtu, advmss, rtt, ...)",
        ("route add 20.0.17.0/24 via 10.0.0.2 mtu 1400 advmss 1300",),
        "20.0.17.0/24",
        (VIA,),
    ),
    Case(
        "preferred source, realm, expiry, router preference",
        ("-6 route add 2001:db8:12::/48 via 2001:db8::2 pref high expires 3000 src 2001:db8::1",),
        "2001:db8:12::/48",
        (VIA6,),
    ),
    Case(
        "onlink next hop",
        ("route add 20.0.19.0/24 via 192.0.2.77 dev p0 onlink",),
        "20.0.19.0/24",
        ("via 192.0.2.77 dev loop0",),
    ),
    Case(
        "table of a VRF", ("route add 20.0.20.0/24 via 10.0.0.2 table 70",), "20.0.20.0/24", (VIA,), table=70
    ),
    Case(
        "IPv6 next hop of an IPv4 route (RFC 8950)",
        ("route add 20.0.21.0/24 via inet6 2001:db8::2 dev p0",),
        "20.0.21.0/24",
        (VIA6,),
    ),
    Case(
        "169.254.0.1 with a permanent neighbour (RFC 8950 as FRR may write it)",
        ("route add 20.0.22.0/24 via 169.254.0.1 dev p0 onlink",),
        "20.0.22.0/24",
        ("via 169.254.0.1 dev loop0",),
    ),
    Case(
        "next hop that nobody has resolved",
        ("route add 20.0.23.0/24 via 10.0.0.99",),
        "20.0.23.0/24",
        ("via 10.0.0.99 dev loop0",),
    ),
    Case(
        "next-hop object",
        ("nexthop add id 5 via 10.0.0.2 dev p0", "route add 20.0.24.0/24 nhid 5"),
        "20.0.24.0/24",
        (VIA,),
    ),
    Case(
        "next-hop object, blackhole",
        ("nexthop add id 7 blackhole", "route add 20.0.25.0/24 nhid 7"),
        "20.0.25.0/24",
        ("blackhole",),
    ),
    Case(
        "next-hop group, weights up to 65536",
        (
            "nexthop add id 15 via 10.0.0.2 dev p0",
            "nexthop add id 16 via 10.1.0.2 dev p2",
            "nexthop add id 17 group 15,3/16,1",
            "route add 20.0.26.0/24 nhid 17",
        ),
        "20.0.26.0/24",
        (f"{VIA} weight 3", "via 10.1.0.2 dev loop1"),
    ),
    Case(
        "next-hop group, resilient",
        (
            "nexthop add id 18 via 10.0.0.2 dev p0",
            "nexthop add id 19 via 10.1.0.2 dev p2",
            "nexthop add id 20 group 18/19 type resilient buckets 8",
            "route add 20.0.27.0/24 nhid 20",
        ),
        "20.0.27.0/24",
        (VIA, "via 10.1.0.2 dev loop1"),
    ),
    Case(
        "encap ip, ip6",
        ("route add 20.0.28.0/24 encap ip id 1 dst 10.0.0.9 dev p0",),
        "20.0.28.0/24",
        None,
        Reason.UNSUPPORTED_ENCAPSULATION,
    ),
    Case(
        "encap seg6, seg6local",
        ("-6 route add 2001:db8:1d::/48 encap seg6 mode encap segs fc00::1 dev p0",),
        "2001:db8:1d::/48",
        None,
        Reason.UNSUPPORTED_ENCAPSULATION,
    ),
)
ELSEWHERE = {
    "cached exceptions": "no kernel tells of them but to whom asks; test_netlink_routes",
    "next-hop object for bridge entries": "no route can have one",
    "encap mpls": "tests/guest/test_forwarding.py, test_netlink_labels",
    "encap bpf, ila, ioam6, rpl, xfrm": "by name in netlink/tunnels.py",
    "label ": "tests/guest/test_forwarding.py, test_netlink_labels, test_vpp_labels",
}


@dataclass
class Found:
    """What became of the cases: legs in words and reasons by (table, prefix), and what was passed over."""

    held: dict[tuple[int, str], tuple[str, ...]]
    reasons: dict[tuple[int, str], Reason]
    passed_over: dict[str, int]


def ip(namespace: str, words: str) -> None:
    done = subprocess.run(
        ["ip", "-n", namespace, *words.split()], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, f"ip {words}: {done.stderr}"


@pytest.fixture(scope="module")
def found() -> Iterator[Found]:
    """All cases in one kernel, one VPP."""
    name = f"kinds-{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for pair in range(3):
            ip(name, f"link add p{2 * pair} type veth peer name p{2 * pair + 1}")
            for port in (2 * pair, 2 * pair + 1):
                ip(name, f"link set p{port} up")
            ip(name, f"address add 10.{pair}.0.1/24 dev p{2 * pair}")
        ip(name, "link set lo up")
        ip(name, "link add p6 type veth peer name p7")
        ip(name, "-6 address add 2001:db8::1/64 dev p0 nodad")
        yield asyncio.run(_collect(name))
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


async def _collect(namespace: str) -> Found:
    with (
        tempfile.TemporaryDirectory(prefix="vpp") as directory,
        VppProcess(runtime_dir=Path(directory), heap="256M", buffers=2048, plugins=()) as vpp,
    ):
        for number in range(2):
            vpp.cli("create loopback interface")
            vpp.cli(f"set interface state loop{number} up")
        tables = {254: 0, 70: 70}
        fib = VppFib(
            interfaces={"p0": "loop0", "p2": "loop1"},
            api_socket=vpp.api_socket,
            tables=[(family, table) for family in Family for table in tables.values()],
        )
        feed = KernelFeed(namespace=namespace, tables=tuple(tables))
        pipeline = Pipeline(name="test", feed=feed, fib=fib, tables=tables)
        for case in CASES:
            for command in case.commands:
                ip(namespace, command)
        task = asyncio.create_task(pipeline.run())
        try:
            async with asyncio.timeout(60):
                while pipeline.state is not State.IN_SYNC:
                    await asyncio.sleep(0.05)
            return await _look(pipeline, fib)
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _look(pipeline: Pipeline, fib: VppFib) -> Found:
    result = Found({}, {}, dict(pipeline.feed.passed_over))
    for (family, table), reconciler in pipeline.reconcilers.items():
        async for routes in fib.read(family, reconciler.table):
            for prefix, path in zip(prefixes_of(routes.keys), routes.paths.tolist(), strict=True):
                words = describe_paths(fib.path_set(path), fib.interface_name)
                result.held[table, str(prefix)] = tuple(sorted(words))
        prefixes: list[Prefix] = [
            ip_network(case.prefix) for case in CASES if ip_network(case.prefix).version == _version(family)
        ]
        for prefix, wanted in zip(prefixes, reconciler.wanted(keys_of(prefixes)).tolist(), strict=True):
            if wanted < 0:
                result.reasons[table, str(prefix)] = REASONS[-wanted - 1]
    return result


def _version(family: Family) -> int:
    return 4 if family is Family.IPV4 else 6


@pytest.mark.parametrize("case", CASES, ids=[case.row.replace(" ", "-") for case in CASES])
def test_a_kind_of_route(case: Case, found: Found) -> None:
    place = (case.table, case.prefix)
    assert found.held.get(place) == (None if case.vpp is None else tuple(sorted(case.vpp)))
    if isinstance(case.reported, Reason):
        assert found.reasons[place] is case.reported
    elif case.reported is not None:
        assert found.passed_over[case.reported] >= 1
        assert place not in found.reasons


def test_every_row_of_the_page_has_a_case() -> None:
    rows = re.findall(r"^\| ([^|]+?) \|", PAGE.read_text(), re.MULTILINE)
    rows = [row for row in rows if row not in ("route", "---")]
    assert len(rows) > 35
    names = [case.row for case in CASES] + list(ELSEWHERE)
    assert [row for row in rows if not any(row.startswith(name) for name in names)] == []
    assert [name for name in names if not any(row.startswith(name) for row in rows)] == []


def test_what_is_reported_is_what_the_page_says() -> None:
    text = PAGE.read_text()
    for case in CASES:
        if case.reported is not None:
            (line,) = [x for x in text.splitlines() if x.startswith(f"| {case.row}")]
            assert f"`{case.reported}`" in line
