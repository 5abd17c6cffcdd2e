"""The bulk codec against vpp_papi's own packing, over API definitions recorded from VPP 26.06."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pytest
import vpp_papi
from hypothesis import given
from hypothesis import strategies as st
from vpp_papi.vpp_papi import VPPApiJSONFiles

from router_agent.fibs.fib import FibError
from router_agent.fibs.vpp import ANY_ATTACHED, VppFib, dead_interfaces, refuse_linux_nl
from router_agent.model import (
    ABSENT,
    U64,
    Family,
    Interner,
    Path,
    PathSet,
    RouteType,
    key_addresses,
    key_lengths,
    v4_keys,
    v6_keys,
)
from router_agent.vpp import layout
from router_agent.vpp.neighbours import Connected
from router_agent.vpp.routes import HEAVIEST, RouteCodec, normal_weights
from router_agent.vpp.session import VppSession, error_name
from router_agent.vpp.stream import HEADER, Frames

SOURCE = 23
TABLE = 7
DEFINITIONS = FilePath(__file__).with_name("test_vpp_api.json")


class RecordedSession(VppSession):
    """A session whose definitions and ids come from a file; it is connected to nothing."""

    def __init__(self, definitions: str) -> None:
        super().__init__(api_socket=FilePath("/nonexistent"), name="test")
        client = vpp_papi.VPPApiClient(bootstrapapi=True)
        messages, _ = VPPApiJSONFiles.process_json_str(definitions)
        client.messages.update(messages)
        names = [f"{name}_{layout.crc(message)}" for name, message in client.messages.items()]
        client.transport.message_table = {name: 100 + index for index, name in enumerate(names)}
        self._client = client
        self.version = "26.06-recorded"


@pytest.fixture(scope="module")
def session() -> RecordedSession:
    return RecordedSession(DEFINITIONS.read_text())


def codec_of(session: RecordedSession) -> tuple[RouteCodec, Interner[PathSet]]:
    interner: Interner[PathSet] = Interner()
    return RouteCodec(session, SOURCE, interner), interner


def messages_in(data: Any) -> list[bytes]:
    raw, found = bytes(data), []
    while raw:
        _, length, _ = HEADER.unpack_from(raw)
        found.append(raw[HEADER.size : HEADER.size + length])
        raw = raw[HEADER.size + length :]
    return found


gateways = {
    Family.IPV4: st.integers(1, 2**32 - 1).map(lambda n: n.to_bytes(4, "big")),
    Family.IPV6: st.integers(1, 2**128 - 1).map(lambda n: n.to_bytes(16, "big")),
}


@st.composite
def path_sets(draw: st.DrawFn, family: Family) -> PathSet:
    kind = draw(st.sampled_from([RouteType.UNICAST] * 3 + [t for t in RouteType if 6 <= t <= 8]))
    if kind is not RouteType.UNICAST:
        return PathSet(kind)
    attached = st.builds(Path, st.integers(1, 2**31), st.just(b""), st.integers(1, 256))
    via = st.builds(Path, st.integers(1, 2**31), gateways[family], st.integers(1, 256))
    recursive = st.builds(Path, st.just(0), gateways[family], st.integers(1, 256))
    legs = draw(st.lists(attached | via | recursive, min_size=1, max_size=4))
    return PathSet(RouteType.UNICAST, normal_weights(tuple(legs)))


@st.composite
def route_lists(draw: st.DrawFn) -> tuple[Family, U64, list[PathSet | None]]:
    family = draw(st.sampled_from(Family))
    bits = 8 * family.address_bytes
    count = draw(st.integers(1, 12))
    lengths = draw(st.lists(st.integers(0, bits), min_size=count, max_size=count))
    numbers = [(draw(st.integers(0, 2**bits - 1)) >> (bits - n)) << (bits - n) for n in lengths]
    if family is Family.IPV4:
        keys = v4_keys(np.array(numbers, np.uint32), np.array(lengths, np.uint8))
    else:
        high = np.array([n >> 64 for n in numbers], np.uint64)
        low = np.array([n & (1 << 64) - 1 for n in numbers], np.uint64)
        keys = v6_keys(high, low, np.array(lengths, np.uint8))
    few = draw(st.lists(path_sets(family) | st.none(), min_size=1, max_size=3))
    return family, keys, [draw(st.sampled_from(few)) for _ in range(count)]


@given(routes=route_lists(), context=st.sampled_from([1, 77, 2**32 - 3]))
def test_requests_are_what_vpp_papi_would_have_packed(
    session: RecordedSession, routes: tuple[Family, U64, list[PathSet | None]], context: int
) -> None:
    family, keys, paths = routes
    codec, interner = codec_of(session)
    ids = np.array([ABSENT if p is None else interner.id(p) for p in paths], np.uint32)
    data, order = codec.encode(family, TABLE, keys, ids, context)
    assert sorted(order.tolist()) == list(range(len(keys)))
    definition = session.message("ip_route_add_del_v2")
    for position, (message, row) in enumerate(zip(messages_in(data), order.tolist(), strict=True)):
        request, size = definition.unpack(message, ntc=True)
        assert size == len(message)
        assert request._0 == session.message_id("ip_route_add_del_v2")
        assert request.context.to_bytes(4, "big") == ((context + position) % 2**32).to_bytes(4, "little")
        wanted = paths[row]
        assert (bool(request.is_add), request.is_multipath) == (wanted is not None, False)
        route = request.route
        assert (route.table_id, route.src) == (TABLE, SOURCE)
        assert route.prefix.address.af == (family is Family.IPV6)
        arm = route.prefix.address.un.ip6 if family is Family.IPV6 else route.prefix.address.un.ip4
        assert bytes(arm) == key_addresses(keys[row : row + 1])[0].tobytes()
        assert route.prefix.len == key_lengths(keys[row : row + 1])[0]
        assert route.n_paths == len(route.paths)
        assert route.n_paths == (0 if wanted is None else max(1, len(wanted.paths)))


@given(routes=route_lists(), seed=st.integers(0, 2**32))
def test_details_decode_to_the_routes_they_tell(
    session: RecordedSession, routes: tuple[Family, U64, list[PathSet | None]], seed: int
) -> None:
    """Requests are turned into the details VPP would send for them: the route part has one layout."""
    family, keys, paths = routes
    codec, interner = codec_of(session)
    wanted = [PathSet(RouteType.BLACKHOLE) if p is None else p for p in paths]
    ids = np.array([interner.id(p) for p in wanted], np.uint32)
    data, order = codec.encode(family, TABLE, keys, ids, 1)
    request = session.message("ip_route_add_del_v2")
    details = session.message("ip_route_v2_details")
    start = layout.field(request, "route").start
    noise = np.random.default_rng(seed)
    by_size: dict[int, list[tuple[int, bytes]]] = {}
    for message, row in zip(messages_in(data), order.tolist(), strict=True):
        head = session.pack("ip_route_v2_details", context=5)[: layout.field(details, "route").start]
        told = bytearray(HEADER.pack(0, 0, 0) + head + message[start:])
        stats = layout.field(details, "route.stats_index").at(HEADER.size)
        told[stats] = noise.bytes(4)
        by_size.setdefault(len(told), []).append((row, bytes(told)))
    for told_rows in by_size.values():
        rows = (
            np.frombuffer(b"".join(raw for _, raw in told_rows), np.uint8).reshape(len(told_rows), -1).copy()
        )
        found_keys, found_paths = codec.decode(family, TABLE, Frames(rows))
        for (row, _), key, path in zip(told_rows, found_keys, found_paths.tolist(), strict=True):
            assert np.array_equal(key, keys[row])
            assert interner[path] == own_next_hop_cleared(wanted[row], keys[row])


def own_next_hop_cleared(paths: PathSet, key: U64) -> PathSet:
    """A host prefix with itself as next hop is what VPP makes of an attached one, and reads as that."""
    address = key_addresses(key[None])[0].tobytes()
    if key_lengths(key[None])[0] != 8 * len(address):
        return paths
    legs = (Path(p.interface, b"" if p.gateway == address else p.gateway, p.weight) for p in paths.paths)
    return PathSet(paths.type, tuple(sorted(legs)))


def test_host_bits_of_an_entry_begun_by_an_interface_are_dropped(session: RecordedSession) -> None:
    codec, interner = codec_of(session)
    number = interner.id(PathSet(RouteType.BLACKHOLE))
    clean = v4_keys(np.array([0xC6336400], np.uint32), np.array([24], np.uint8))
    dirty = v4_keys(np.array([0xC6336401], np.uint32), np.array([24], np.uint8))
    data, _ = codec.encode(Family.IPV4, TABLE, dirty, np.array([number], np.uint32), 1)
    request = session.message("ip_route_add_del_v2")
    head = session.pack("ip_route_v2_details")[
        : layout.field(session.message("ip_route_v2_details"), "route").start
    ]
    told = HEADER.pack(0, 0, 0) + head + messages_in(data)[0][layout.field(request, "route").start :]
    keys, _ = codec.decode(Family.IPV4, TABLE, Frames(np.frombuffer(told, np.uint8)[None].copy()))
    assert np.array_equal(keys, clean)


def test_the_context_field_counts_up_in_our_byte_order(session: RecordedSession) -> None:
    codec, interner = codec_of(session)
    keys = v4_keys(np.arange(5, dtype=np.uint32) << np.uint32(8), np.full(5, 24, np.uint8))
    ids = np.array([interner.id(PathSet(RouteType.BLACKHOLE))] * 5, np.uint32)
    data, _ = codec.encode(Family.IPV4, 0, keys, ids, 2**32 - 2)
    at = layout.field(session.message("ip_route_add_del_v2"), "context")
    contexts = [int.from_bytes(m[at.start : at.end], "little") for m in messages_in(data)]
    assert contexts == [2**32 - 2, 2**32 - 1, 0, 1, 2]


@pytest.mark.parametrize(
    ("given_legs", "expected"),
    [
        pytest.param([(1, 4), (2, 2)], [(1, 2), (2, 1)], id="lowest terms"),
        pytest.param([(1, 256), (2, 256)], [(1, 1), (2, 1)], id="256 each"),
        pytest.param([(1, 256), (2, 255)], [(1, 255), (2, 254)], id="256 does not fit"),
        pytest.param([(1, 256), (2, 1)], [(1, 255), (2, 1)], id="none becomes nothing"),
        pytest.param([(1, 3), (1, 4), (2, 7)], [(1, 1), (2, 1)], id="the same leg twice"),
        pytest.param([(2, 1), (1, 1)], [(1, 1), (2, 1)], id="sorted"),
    ],
)
def test_weights_are_brought_into_vpps_range(
    given_legs: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    legs = tuple(Path(interface, b"", weight) for interface, weight in given_legs)
    assert normal_weights(legs) == tuple(Path(interface, b"", weight) for interface, weight in expected)


@given(st.lists(st.builds(Path, st.integers(0, 3), st.just(b""), st.integers(1, 256)), min_size=1))
def test_normal_weights_are_normal(legs: list[Path]) -> None:
    once = normal_weights(tuple(legs))
    assert normal_weights(once) == once
    assert all(1 <= path.weight <= HEAVIEST for path in once)
    assert once == PathSet.unicast(*once).paths


def test_offsets_are_where_vpp_papi_puts_marked_values(session: RecordedSession) -> None:
    definition = session.message("ip_route_add_del_v2")
    marks: dict[str, dict[str, Any]] = {
        "context": {"context": 0xA1B2C3D4},
        "route.table_id": {"route": {"table_id": 0xA1B2C3D4}},
        "route.prefix.len": {"route": {"prefix": {"address": {"af": 0, "un": {}}, "len": 0xA1}}},
        "route.src": {"route": {"prefix": {"address": {"un": {}}}, "src": 0xA1}},
    }
    for path, fields in marks.items():
        blank, marked = session.pack("ip_route_add_del_v2"), session.pack("ip_route_add_del_v2", **fields)
        changed = [i for i, (a, b) in enumerate(zip(blank, marked, strict=True)) if a != b]
        found = layout.field(definition, path)
        assert changed == list(range(found.start, found.end))


def test_a_layout_that_differs_is_followed(session: RecordedSession) -> None:
    definitions = json.loads(DEFINITIONS.read_text())
    message = next(m for m in definitions["messages"] if m[0] == "ip_route_add_del_v2")
    message.insert(4, ["u32", "flavour"])
    message[0] = "ip_route_add_del_v9"
    message[-1]["crc"] = "0x0badcafe"
    client = session._client
    messages, _ = VPPApiJSONFiles.process_json_str(json.dumps({"messages": [message]}))
    before = layout.field(client.messages["ip_route_add_del_v2"], "route.prefix.len")
    after = layout.field(messages["ip_route_add_del_v9"], "route.prefix.len")
    assert after.start == before.start + 4
    with pytest.raises(layout.LayoutError, match=r"CRC 0badcafe\) has no field route.colour"):
        layout.field(messages["ip_route_add_del_v9"], "route.colour")
    with pytest.raises(layout.LayoutError, match="is 1 bytes long, expected 2"):
        layout.field(messages["ip_route_add_del_v9"], "route.prefix.len", size=2)


SHOW_PLUGINS = """ Plugin path is: /usr/lib/x86_64-linux-gnu/vpp_plugins, plugins shown in load order

     Plugin                                   Version                          Description
  1. af_packet_plugin.so                      26.06-release                    af-packet
  2. linux_cp_plugin.so                       26.06-release                    linux-cp
"""


def test_the_netlink_plugin_is_refused_and_the_mirror_alone_is_not() -> None:
    refuse_linux_nl(SHOW_PLUGINS)
    row = "  3. linux_nl_plugin.so                       26.06-release                    netlink\n"
    with pytest.raises(FibError, match=r"linux_nl_plugin\.so \{ disable \}"):
        refuse_linux_nl(SHOW_PLUGINS + row)


SHOW_FIB_PATHS = """FIB Paths
  path:[13] pl-index:13 ip4 weight=1 pref=0 attached:  oper-flags:drop, cfg-flags:glean,
    if_index:0

  path:[14] pl-index:14 ip4 weight=1 pref=0 attached-nexthop:  oper-flags:drop,
    10.0.0.7 if_index:2
    unresolved

  path:[15] pl-index:15 ip4 weight=1 pref=0 attached-nexthop:  oper-flags:resolved,
    10.0.0.1 loop0
  [@0]: arp-ipv4: via 10.0.0.1 loop0
  path:[16] pl-index:16 ip4 weight=1 pref=0 special:  cfg-flags:drop,
"""


def test_dead_paths_are_found_in_what_vpp_prints() -> None:
    assert dead_interfaces(SHOW_FIB_PATHS) == {2, ANY_ATTACHED}
    assert dead_interfaces("FIB Paths\n") == set()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"source_priority": 3}, "expected 4 to 126"),
        ({"source_priority": 127}, "expected 4 to 126"),
        ({"window": 0}, "expected at least 1"),
        ({"source_name": ""}, "expected 1 to 57 bytes"),
        ({"source_name": "x" * 58}, "expected 1 to 57 bytes"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(FibError, match=said):
        VppFib(interfaces={}, **options)


async def test_no_socket_no_permission_and_no_listener_are_told_apart(tmp_path: FilePath) -> None:
    with pytest.raises(FibError, match="there is no VPP API socket"):
        await VppFib(interfaces={}, api_socket=tmp_path / "none.sock").open()
    (tmp_path / "file.sock").touch()
    with pytest.raises(FibError, match="no VPP listens on it"):
        await VppFib(interfaces={}, api_socket=tmp_path / "file.sock").open()


def test_an_error_number_is_named_where_it_is_known() -> None:
    assert error_name(-3) == "error -3 (no such FIB table)"
    assert error_name(-4711) == "error -4711"


def test_hosts_are_found_only_below_connected_prefixes_of_their_interface() -> None:
    interner: Interner[PathSet] = Interner()
    connected = Connected(interner)
    attached = interner.id(PathSet.unicast(Path(4)))
    via = interner.id(PathSet.unicast(Path(4, ip_address("10.0.0.1").packed)))
    keys = v4_keys(np.array([0x0A000000, 0x0B000000], np.uint32), np.array([24, 24], np.uint8))
    host, other = ip_address("10.0.0.9").packed, ip_address("11.0.0.9").packed
    link_local = ip_address("fe80::9").packed
    assert connected.note(Family.IPV4, 0, keys, np.array([attached, via], np.uint32))
    assert not connected.note(Family.IPV4, 0, keys, np.array([attached, via], np.uint32))
    assert connected.hosts([(3, host), (3, other), (2, host), (3, link_local)]) == {(Family.IPV4, 0, host): 3}
    assert not connected.note(Family.IPV4, 0, keys[1:], np.array([ABSENT], np.uint32))
    assert connected.note(Family.IPV4, 0, keys[:1], np.array([via], np.uint32))
    assert connected.hosts([(3, host)]) == {}
