"""Route columns: against pyroute2's parser on a kernel's own bytes, against the encoder, against rubbish."""

from __future__ import annotations

import json
import struct
from ipaddress import ip_address, ip_network
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from router_agent.model import (
    ABSENT,
    Changes,
    Family,
    Interner,
    Operation,
    Path,
    PathSet,
    Prefix,
    RouteType,
    keys_of,
    prefixes_of,
)
from router_agent.netlink import constants as c
from router_agent.netlink.encode import Writer, encode
from router_agent.netlink.messages import Messages, NetlinkDecodeError, attribute, message
from router_agent.netlink.paths import KernelPath, PathIds, path_set_of, unicast
from router_agent.netlink.routes import RouteDecoder
from router_agent.netlink.tunnels import encode_labels, encode_mpls, parse_labels

RECORDED = json.loads((FilePath(__file__).parent / "recorded.json").read_text())
"""Messages of Linux 6.18: what the event groups sent after each command, and dumps of every table."""

TABLES = (254, 1000, 70000)


def events(command: str) -> bytes:
    found = [e["hex"] for e in RECORDED["events"] if e["command"] == command]
    assert found, f"no recording of {command!r}"
    return bytes.fromhex("".join(found))


def dump(name: str) -> bytes:
    return next(bytes.fromhex(d["hex"]) for d in RECORDED["dumps"] if d["name"] == name)


def only_routes(data: bytes) -> Messages:
    found = Messages.find(data)
    kept = np.flatnonzero((found.types == c.RTM_NEWROUTE) | (found.types == c.RTM_DELROUTE))
    return Messages(found.buffer, found.starts[kept], found.lengths[kept])


def decoder(**options: Any) -> tuple[RouteDecoder, PathIds]:
    paths = PathIds()
    return RouteDecoder(**{"tables": TABLES, "protocols": None, "paths": paths, **options}), paths


Row = tuple[int, int, str, int, str, KernelPath | None]


def rows(data: bytes | Messages, **options: Any) -> list[Row]:
    """Decode into comparable rows: family, table, prefix, metric, operation, path."""
    messages = data if isinstance(data, Messages) else only_routes(data)
    found, paths = decoder(**options)
    return [
        (batch.family, batch.table, str(prefix), metric, Operation(op).name, paths[path] if path else None)
        for batch in found.decode(messages)
        for prefix, metric, path, op in zip(
            prefixes_of(batch.keys),
            batch.metrics.tolist(),
            batch.paths.tolist(),
            batch.operations.tolist(),
            strict=True,
        )
    ]


# -- a second opinion ---------------------------------------------------------------------------------


def pyroute2_rows(data: bytes) -> list[tuple[int, int, str, int, PathSet | None, bool]]:
    """What pyroute2 makes of the routes that a FIB is asked to hold."""
    found = []
    messages = only_routes(data)
    for number in range(len(messages)):
        parsed = rtmsg(messages.message(number))
        parsed.decode()
        row = pyroute2_row(parsed)
        if row is not None:
            found.append(row)
    return found


def pyroute2_row(parsed: Any) -> tuple[int, int, str, int, PathSet | None, bool] | None:
    table = parsed.get_attr("RTA_TABLE") or parsed["table"]
    kind = parsed["type"]
    bare = "::" if parsed["family"] == Family.IPV6 else "0.0.0.0"
    prefix = ip_network(f"{parsed.get_attr('RTA_DST') or bare}/{parsed['dst_len']}")
    if table not in TABLES or kind not in (1, 6, 7, 8) or parsed["tos"] or parsed["src_len"]:
        return None
    if prefix.version == 6 and (prefix.is_link_local or prefix.is_multicast):
        return None
    legs = [pyroute2_leg(parsed)] if parsed.get_attr("RTA_OIF") else []
    legs = [pyroute2_leg(hop) for hop in parsed.get_attr("RTA_MULTIPATH") or []] or legs
    paths = PathSet(RouteType(kind)) if kind != 1 else unicast(legs)
    deleted = parsed["header"]["type"] == c.RTM_DELROUTE
    return parsed["family"], table, str(prefix), parsed.get_attr("RTA_PRIORITY") or 0, paths, deleted


def pyroute2_leg(hop: Any) -> Path:
    via = hop.get_attr("RTA_VIA")
    gateway = hop.get_attr("RTA_GATEWAY") or (via and via["addr"])
    packed = ip_address(gateway).packed if gateway else b""
    tunnel = {None: "", 5: "seg6"}[hop.get_attr("RTA_ENCAP_TYPE")]
    weight = hop.get("hops", 0) + 1
    return Path(hop.get("oif") or hop.get_attr("RTA_OIF"), packed, weight, tunnel=tunnel)


@pytest.mark.parametrize("data", RECORDED["events"], ids=[e["command"] for e in RECORDED["events"]])
def test_events_agree_with_pyroute2(data: dict[str, str]) -> None:
    raw = bytes.fromhex(data["hex"])
    ours = [
        (family, table, prefix, metric, path_set_of(path) if path else None, op == "DELETE")
        for family, table, prefix, metric, op, path in rows(raw)
    ]
    assert ours == pyroute2_rows(raw)


@pytest.mark.parametrize("name", ["route4", "route6"])
def test_dumps_agree_with_pyroute2(name: str) -> None:
    theirs = pyroute2_rows(dump(name))
    ours = rows(dump(name))
    assert len(theirs) >= 10
    assert {op for *_, op, _ in ours} == {"FOUND"}
    # the decoder returns one batch per table
    in_order = sorted(theirs, key=lambda row: row[1])
    assert [(f, t, p, m, path_set_of(k) if k else None) for f, t, p, m, _, k in ours] == [
        row[:5] for row in in_order
    ]


# -- what the kernel means ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "operation"),
    [
        ("ip route add 20.0.0.0/24 via 10.0.0.2", "SET"),
        ("ip route append 20.0.0.0/24 via 10.0.0.5", "APPEND"),
        ("ip route prepend 20.0.0.0/24 via 10.0.0.6", "PREPEND"),
        ("ip route change 20.0.0.0/24 via 10.0.0.7", "SET"),
        ("ip route replace 20.0.0.0/24 via 10.0.0.8", "SET"),
        ("ip route del 20.0.0.0/24 via 10.0.0.8", "DELETE"),
        ("ip -6 route append 2001:db8:1::/48 via 2001:db8::3", "SET"),
        ("ip -6 route append 2001:db8:4::/64 dev p2", "APPEND"),
        ("ip -6 route del 2001:db8:1::/48 via 2001:db8::3", "DELETE"),
    ],
)
def test_operations(command: str, operation: str) -> None:
    assert [row[4] for row in rows(events(command))] == [operation]


def test_metrics_keep_all_their_bits() -> None:
    data = b"".join(
        events(f"ip route add 20.0.0.0/24 via 10.0.0.{n} metric {m}") for n, m in ((3, 256), (4, 4294967295))
    )
    assert [row[3] for row in rows(data)] == [256, 4294967295]


def test_a_next_hop_object_stands_for_its_legs_once_it_is_known() -> None:
    data = events("ip route add 20.6.0.0/24 nhid 5")
    path = rows(data)[0][5]
    assert path is not None
    assert path.nexthop == 5
    assert path.legs
    assert rows(data, knows_nexthop=lambda number: number == 5)[0][5] == KernelPath(Family.IPV4, nexthop=5)


def test_a_tunnel_is_told_apart() -> None:
    path = rows(events("ip -6 route add 2001:db8:6::/48 encap seg6 mode encap segs fc00::1 dev p0"))[0][5]
    assert path is not None
    (leg,) = path.legs
    assert (leg.labels, leg.tunnel) == ((), "seg6")
    assert path_set_of(path) == PathSet.unicast(leg.path())


@pytest.mark.parametrize("labels", [(100,), (16, 1048575, 0)], ids=["one", "three"])
def test_labels_that_are_pushed_are_read(labels: tuple[int, ...]) -> None:
    body = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 186, 0, 1, 0)
    body += attribute(c.RTA_DST, bytes((20, 0, 0, 0))) + attribute(c.RTA_GATEWAY, b"aaaa")
    body += attribute(c.RTA_OIF, struct.pack("=I", 3)) + encode_mpls(labels)
    path = rows(message(c.RTM_NEWROUTE, 0, 0, body))[0][5]
    assert path is not None
    assert path_set_of(path) == PathSet.unicast(Path(3, b"aaaa", labels=labels))


def test_legs_with_other_labels_are_other_legs() -> None:
    legs = [Path(3, b"aaaa", 2, (16,)), Path(3, b"aaaa", 1, (17,)), Path(3, b"aaaa", 3, (16,))]
    assert unicast(legs) == PathSet.unicast(Path(3, b"aaaa", 5, (16,)), Path(3, b"aaaa", 1, (17,)))


@given(st.binary(max_size=40))
def test_any_label_stack_is_read_or_refused(stack: bytes) -> None:
    try:
        labels = parse_labels(stack)
    except NetlinkDecodeError:
        return
    assert parse_labels(encode_labels(labels)) == labels
    assert len(labels) == len(stack) // 4


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("ip route add throw 20.1.3.0/24", "type-throw"),
        ("ip route add 20.4.0.0/24 via 10.0.0.2 tos 0x10", "tos"),
        ("ip -6 route add 2001:db8:5::/48 from 2001:db8::/32 via 2001:db8::2", "source-prefix"),
    ],
)
def test_what_no_fib_holds_is_counted(command: str, reason: str) -> None:
    found, _ = decoder()
    assert found.decode(only_routes(events(command))) == []
    assert found.skipped == {reason: 1}


def test_local_and_link_scope_routes_are_counted() -> None:
    found, _ = decoder(tables=(254, 255))
    found.decode(only_routes(dump("route4")))
    found.decode(only_routes(dump("route6")))
    assert {"type-local", "type-broadcast", "type-throw", "link-scope"} <= set(found.skipped)


def test_protocols_and_tables_are_chosen() -> None:
    everything = rows(dump("route4"))
    assert {row[1] for row in rows(dump("route4"), tables=(1000,))} == {1000}
    assert [row[2] for row in rows(dump("route4"), protocols=frozenset({186}))] == ["20.5.1.0/24"]
    rest = rows(dump("route4"), ignored=frozenset({186}))
    assert len(rest) == len(everything) - 1


def test_a_replacement_by_a_protocol_that_is_not_followed_ends_what_was_held() -> None:
    writer = Writer(protocol=77, metric=20)
    data = writer.route(Family.IPV4, 254, PathSet.unicast(Path(3)), flags=c.NLM_F_REPLACE) + writer.route(
        Family.IPV4, 254, PathSet.unicast(Path(3)), flags=c.NLM_F_CREATE | c.NLM_F_EXCL
    )
    assert rows(data, ignored=frozenset({77})) == [(2, 254, "0.0.0.0/0", 20, "DELETE", None)]


def test_the_order_of_events_survives_different_layouts() -> None:
    commands = [
        e for e in RECORDED["events"] if e["command"].startswith("ip route") and "20.0.0.0" in e["command"]
    ]
    data = bytes.fromhex("".join(e["hex"] for e in commands))
    in_order = [row for e in commands for row in rows(bytes.fromhex(e["hex"]))]
    assert len(in_order) == 8
    assert rows(data) == in_order


def test_thousands_of_distinct_paths_each_keep_their_own() -> None:
    sets: Interner[PathSet] = Interner()
    count = 6000
    ids = [sets.id(PathSet.unicast(Path(1 + n % 7, struct.pack(">I", n + 1)))) for n in range(count)]
    keys = np.arange(count, dtype=np.uint64)[:, None] << np.uint64(16) | np.uint64(24)
    changes = Changes(Family.IPV4, 254, keys, np.array(ids, np.uint32), np.zeros(count, np.uint32))
    (batch,) = encode(changes, Writer(99, 5), sets.__getitem__, first=1, batch_messages=count)
    shuffled = np.random.default_rng(1).permutation(count)
    messages = Messages.find(batch.data)
    found, paths = decoder()
    (routes,) = found.decode(Messages(messages.buffer, messages.starts[shuffled], messages.lengths[shuffled]))
    assert len(paths) == count
    for key, path in zip(routes.keys[:, 0].tolist(), routes.paths.tolist(), strict=True):
        assert path_set_of(paths[path]) == sets[ids[key >> 16]]


def test_a_retired_path_gets_a_new_id_when_it_is_seen_again() -> None:
    found, paths = decoder()
    messages = only_routes(events("ip route add 20.0.1.0/24 dev p0"))
    first = int(found.decode(messages)[0].paths[0])
    assert int(found.decode(messages)[0].paths[0]) == first
    paths.retire(first, KernelPath(Family.IPV4))
    second = int(found.decode(messages)[0].paths[0])
    assert second != first
    assert path_set_of(paths[first]) is None
    assert path_set_of(paths[second]) is not None


# -- round trip ---------------------------------------------------------------------------------------


@st.composite
def tables_of_routes(draw: st.DrawFn) -> tuple[Family, dict[Prefix, PathSet]]:
    family = draw(st.sampled_from(Family))
    width = family.address_bytes
    gateways = st.one_of(st.just(b""), st.binary(min_size=width, max_size=width))
    if family is Family.IPV4:
        gateways |= st.binary(min_size=16, max_size=16)
    legs = st.builds(Path, st.integers(1, 2**31 - 1), gateways, st.integers(1, 256))
    sets = st.lists(legs, min_size=1, max_size=6).map(lambda found: unicast(found) or PathSet())
    dropping = st.sampled_from([RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT]).map(PathSet)
    addresses = st.tuples(st.binary(min_size=width, max_size=width), st.integers(0, 8 * width))
    prefixes = addresses.map(lambda found: ip_network(found, strict=False)).filter(
        lambda p: p.version == 4 or not (p.is_link_local or p.is_multicast)
    )
    return family, draw(st.dictionaries(prefixes, sets | dropping, min_size=1, max_size=60))


@settings(max_examples=60)
@given(tables_of_routes(), st.integers(1, 2**32 - 1), st.integers(1, 2**31), st.integers(1, 40))
def test_what_is_encoded_is_decoded(
    table: tuple[Family, dict[Prefix, PathSet]], metric: int, number: int, window: int
) -> None:
    family, routes = table
    sets: Interner[PathSet] = Interner()
    ids = np.array([sets.id(p) for p in routes.values()], np.uint32)
    changes = Changes(family, number, keys_of(list(routes)), ids, np.zeros(len(ids), np.uint32))
    found, paths = decoder(tables=(number,))
    decoded: dict[Prefix, PathSet | None] = {}
    first = 2**32 - 3
    for batch in encode(changes, Writer(99, metric), sets.__getitem__, first=first, batch_messages=window):
        messages = Messages.find(batch.data)
        assert len(messages) == len(batch.rows) <= window
        sequences = messages.words[(messages.starts >> 2) + 2]
        assert sequences.tolist() == [(batch.first + n) % 2**32 for n in range(len(messages))]
        assert (messages.flags & c.NLM_F_ACK != 0).tolist() == [False] * (len(messages) - 1) + [True]
        for routed in found.decode(messages):
            assert (routed.metrics == metric).all()
            for prefix, path in zip(prefixes_of(routed.keys), routed.paths.tolist(), strict=True):
                decoded[prefix] = path_set_of(paths[path])
    assert decoded == routes


def test_replacements_and_withdrawals_say_so_and_withdrawals_come_last() -> None:
    sets: Interner[PathSet] = Interner()
    one = sets.id(PathSet.unicast(Path(3)))
    keys = keys_of([ip_network(f"10.0.{n}.0/24") for n in range(4)])
    held = np.array([ABSENT, one, one, ABSENT], np.uint32)
    wanted = np.array([one, ABSENT, one, one], np.uint32)
    (batch,) = encode(Changes(Family.IPV4, 254, keys, wanted, held), Writer(99, 5), sets.__getitem__, first=1)
    messages = Messages.find(batch.data)
    assert batch.rows.tolist() == [0, 3, 2, 1]
    assert messages.types.tolist() == [c.RTM_NEWROUTE] * 3 + [c.RTM_DELROUTE]
    flags = (messages.flags & (c.NLM_F_CREATE | c.NLM_F_EXCL | c.NLM_F_REPLACE)).tolist()
    add, replace = c.NLM_F_CREATE | c.NLM_F_EXCL, c.NLM_F_CREATE | c.NLM_F_REPLACE
    assert flags == [add, add, replace, 0]


# -- rubbish ------------------------------------------------------------------------------------------

ALL_BYTES = bytes.fromhex("".join(e["hex"] for e in RECORDED["events"])) + dump("route4") + dump("route6")
ROUTE_MESSAGES = only_routes(ALL_BYTES)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_messages_end_in_columns_or_a_decode_error(data: st.DataObject) -> None:
    numbers = data.draw(st.lists(st.integers(0, len(ROUTE_MESSAGES) - 1), min_size=1, max_size=5))
    raw = bytearray(b"".join(ROUTE_MESSAGES.message(number) for number in numbers))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = Messages.find(bytes(raw))
        kept = np.flatnonzero((found.types == 24) | (found.types == 25))
        routes, paths = decoder()
        batches = routes.decode(Messages(found.buffer, found.starts[kept], found.lengths[kept]))
    except NetlinkDecodeError:
        return
    for batch in batches:
        prefixes_of(batch.keys)
        assert all(path == ABSENT or paths[path] for path in batch.paths.tolist())


@given(st.binary(min_size=12, max_size=200), st.sampled_from([24, 25]), st.sampled_from([2, 10, 28]))
def test_random_bodies_end_in_columns_or_a_decode_error(body: bytes, kind: int, family: int) -> None:
    data = message(kind, 0, 1, bytes((family,)) + body[1:]) * 3
    found, _ = decoder()
    try:
        count = sum(len(batch) for batch in found.decode(Messages.find(data)))
    except NetlinkDecodeError:
        return
    assert count + sum(found.skipped.values()) <= 3


def test_the_place_of_a_damaged_attribute_is_named() -> None:
    good = events("ip route add 20.0.0.0/24 via 10.0.0.2")
    bad = bytearray(good)
    struct.pack_into("=H", bad, 28, 200)
    with pytest.raises(NetlinkDecodeError) as caught:
        rows(good + bytes(bad))
    assert caught.value.offset == len(good) + 28
    assert caught.value.found == "attribute length 200"


def test_a_prefix_with_bits_beyond_its_length_is_refused() -> None:
    body = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 4, 0, 1, 0) + attribute(c.RTA_DST, b"\x0a\0\0\x01")
    with pytest.raises(NetlinkDecodeError, match="no bits beyond"):
        rows(message(24, 0, 1, body))
