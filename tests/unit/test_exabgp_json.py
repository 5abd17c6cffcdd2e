"""Reading ExaBGP's lines: lines recorded from 5.0.15, and whatever else may stand there."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_agent.feeds import exabgp_json
from router_agent.feeds.decision import Attributes, Origin
from router_agent.feeds.exabgp_json import (
    Announced,
    Answer,
    EndOfRib,
    Header,
    Hello,
    Ignored,
    MalformedError,
    Neighbours,
    Opened,
    Refresh,
    SessionId,
    Shutdown,
    State,
    Update,
    Withdrawn,
    attributes_of,
    parse,
    prefix_keys,
)
from router_agent.model import Family, Prefix, keys_of, prefixes_of

START = '{ "exabgp": "5.0.0", "time": 1795258642.4, "host" : "pop", "pid" : 15841, "ppid" : 1, "counter": 5, '
ADDRESSES = (
    '"address": { "local": "127.0.9.1", "peer": "127.0.9.2" }, "asn": { "local": 65001, "peer": 65002 }, '
    '"router-id": "10.9.9.1" , '
)
HEADER = Header(SessionId("127.0.9.1", "127.0.9.2"), 65001, 65002, 0x0A090901)


def line(kind: str, content: str) -> bytes:
    return f'{START}"type": "{kind}", "neighbor": {{ {ADDRESSES}{content} }} }}'.encode()


UP = line("state", '"state": "up"')
DOWN = line("state", '"state": "down", "reason": "notification sent (6,4)"')
OPEN_SENT = line(
    "open",
    '"direction": "send", "open": { "version": 4, "asn": 65001, "hold_time": 180, "router_id": "10.9.9.1", '
    '"capabilities": { "multiprotocol": { "name": "multiprotocol", "families": [ "ipv4/unicast", '
    '"ipv6/unicast" ] }, "asn4": { "name": "asn4", "asn4": 65001 }, "route-refresh": { "name": '
    '"route-refresh", "variant": "RFC" }, "hostname": { "host-name": null, "domain-name": null } } }',
)
OPEN_RECEIVED = line(
    "open",
    '"direction": "receive", "open": { "version": 4, "asn": 65002, "hold_time": 240, '
    '"router_id": "10.9.9.2", "capabilities": { "1": { "name": "multiprotocol", "families": [ '
    '"ipv4/unicast", "ipv4/nlri-mpls" ] }, "2": { "name": "route-refresh", "variant": "RFC" }, '
    '"64": { "name": "graceful restart", "time": 120, "address-family-flags": { }, '
    '"restart-flags": [ ]  }, "70": { "name": "enhanced-route-refresh" } } }',
)
UPDATE = line(
    "update",
    '"direction": "receive", "message": { "update": { "attribute": { "origin": "incomplete", "as-path": '
    '{"0": {"element": "as-sequence", "value": [65002, 65010]}}, "community": [ [ 65001, 77 ] ] }, '
    '"announce": { "ipv4 unicast": { "127.0.9.2": [ { "nlri": "10.1.0.0/16" }, { "nlri": "0.0.0.0/0" } ] } } '
    "} }",
)
WITHDRAW = line(
    "update",
    '"direction": "receive", "message": { "update": { "withdraw": { "ipv6 unicast": [ { "nlri": "::/0" } ], '
    '"ipv4 unicast": [ { "nlri": "10.1.0.0/16" } ] } } }',
)
EOR = line("update", '"direction": "receive", "message": { "eor": { "afi" : "ipv6", "safi" : "unicast" } }')
BEGIN = line(
    "refresh",
    '"direction": "receive", "route-refresh": { "afi": "ipv4", "safi": "unicast", "subtype": "begin" }',
)
NEIGHBOURS = json.dumps(
    [
        {
            "state": "up",
            "duration": 5,
            "fsm": "ESTABLISHED",
            "local": {
                "capabilities": {"route-refresh": True, "graceful-restart": True},
                "address": "127.0.9.1",
                "as": 65001,
                "id": "10.9.9.1",
            },
            "peer": {
                "capabilities": {"route-refresh": True, "graceful-restart": False},
                "address": "127.0.9.2",
                "as": 65002,
                "id": "10.9.9.2",
            },
            "families": ["ipv4 unicast", "ipv6 unicast", "ipv4 flow"],
        }
    ]
).encode()
SHUTDOWN = f'{START}"type": "notification", "notification": "shutdown" }}'.encode()
REAL = [UP, DOWN, OPEN_SENT, OPEN_RECEIVED, UPDATE, WITHDRAW, EOR, BEGIN, NEIGHBOURS, SHUTDOWN]


def test_states() -> None:
    assert parse(UP) == State(HEADER, "up", "")
    assert parse(DOWN) == State(HEADER, "down", "notification sent (6,4)")
    assert parse(SHUTDOWN) == Shutdown()
    assert parse(b"done") == Answer(done=True)
    assert parse(b"error") == Answer(done=False)
    assert parse(b'{"relay": {"version": 1, "uptime": 2.5}}') == Hello(2.5)
    assert parse(line("keepalive", '"direction": "receive"')) == Ignored("keepalive")


def test_opens() -> None:
    both = frozenset({Family.IPV4, Family.IPV6})
    assert parse(OPEN_SENT) == Opened(
        HEADER, sent=True, router_id=0x0A090901, families=both, refresh=True, graceful=False
    )
    received = Opened(
        HEADER,
        sent=False,
        router_id=0x0A090902,
        families=frozenset({Family.IPV4}),
        refresh=True,
        graceful=True,
    )
    assert parse(OPEN_RECEIVED) == received


def test_updates() -> None:
    update = parse(UPDATE)
    assert isinstance(update, Update)
    assert update.header == HEADER
    assert update.announced == [Announced(Family.IPV4, "127.0.9.2", ["10.1.0.0/16", "0.0.0.0/0"])]
    assert update.withdrawn == []
    withdraw = parse(WITHDRAW)
    assert isinstance(withdraw, Update)
    assert withdraw.announced == []
    assert sorted(withdraw.withdrawn) == [
        Withdrawn(Family.IPV4, ["10.1.0.0/16"]),
        Withdrawn(Family.IPV6, ["::/0"]),
    ]
    assert parse(EOR) == EndOfRib(HEADER, Family.IPV6)
    assert parse(BEGIN) == Refresh(HEADER, Family.IPV4, begins=True)


def test_compact_updates() -> None:
    update = parse(UPDATE.replace(b'{ "nlri": "10.1.0.0/16" }, { "nlri": "0.0.0.0/0" }', b'"10.1.0.0/16"'))
    assert isinstance(update, Update)
    assert update.announced == [Announced(Family.IPV4, "127.0.9.2", ["10.1.0.0/16"])]


def test_updates_we_sent_are_not_routes() -> None:
    assert parse(UPDATE.replace(b'"receive"', b'"send"')) == Ignored("update")


def test_link_local_next_hop_beside_a_global_one_is_left_out() -> None:
    update = parse(
        UPDATE.replace(
            b'"ipv4 unicast": { "127.0.9.2": [ { "nlri": "10.1.0.0/16" }, { "nlri": "0.0.0.0/0" } ] }',
            b'"ipv6 unicast": { "2001:db8::2": [ { "nlri": "::/0" } ], "fe80::2": [ { "nlri": "::/0" } ] }',
        )
    )
    assert isinstance(update, Update)
    assert update.announced == [Announced(Family.IPV6, "2001:db8::2", ["::/0"])]


def test_neighbours() -> None:
    answer = parse(NEIGHBOURS)
    assert isinstance(answer, Neighbours)
    (session,) = answer.sessions
    assert session.header == HEADER
    assert session.up
    assert session.peer_router_id == 0x0A090902
    assert session.families == {Family.IPV4, Family.IPV6}
    assert session.refresh
    assert not session.graceful


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        (b"", "line"),
        (b"{", "line"),
        (b"\xff\xfe", "line"),
        (b"[" * 100_000, "line"),
        (b"7", "line"),
        (b"{}", "type"),
        (b'{"type": 7}', "type"),
        (b'{"type": "update"}', "neighbor"),
        (UP.replace(b'"up"', b'"sideways"'), "neighbor.state"),
        (UP.replace(b'"127.0.9.2"', b'"router2"'), "address"),
        (UP.replace(b"65002", b'"AS65002"'), "neighbor.asn.peer"),
        (UP.replace(b"65002", b"true"), "neighbor.asn.peer"),
        (UPDATE.replace(b'"announce": {', b'"announce": [], "x": {'), "update.announce"),
        (UPDATE.replace(b'{ "nlri": "10.1.0.0/16" }', b"null"), "update.announce: NLRI"),
        (UPDATE.replace(b'{ "nlri": "10.1.0.0/16" }', b'{ "nlri": 10 }'), "update.announce: NLRI"),
        (
            UPDATE.replace(b'"10.1.0.0/16" }', b'"10.1.0.0/16", "path-information": "0.0.0.1" }'),
            "update.announce: NLRI",
        ),
        (BEGIN.replace(b'"begin"', b'"middle"'), "route-refresh.subtype"),
        (b'{"relay": {}}', "relay.uptime"),
    ],
)
def test_malformed(bad: bytes, kind: str) -> None:
    with pytest.raises(MalformedError) as raised:
        parse(bad)
    assert raised.value.kind == kind
    assert "expected" in str(raised.value)
    assert len(str(raised.value)) < 500


# -- attributes


def attributes(**members: object) -> Attributes:
    given_ = {"origin": "igp", "as-path": {"0": {"element": "as-sequence", "value": [65002]}}, **members}
    return attributes_of(
        {name.replace("_", "-"): value for name, value in given_.items() if value is not None},
        "192.0.2.1",
        HEADER,
    )


INTERNAL = Header(HEADER.session, 65001, 65001, 0x0A090901)


def test_attributes() -> None:
    path = {
        "0": {"element": "as-sequence", "value": [65002, 65003]},
        "1": {"element": "as-set", "value": [1, 2]},
    }
    assert attributes(as_path=None, **{"as-path": path}, med=7, local_preference=900) == Attributes(
        next_hop=bytes([192, 0, 2, 1]),
        as_path="65002 65003 {1,2}",
        path_length=3,
        neighbour_as=65002,
        origin=Origin.IGP,
        local_preference=100,  # of an external peer it does not count
        med=7,
    )


def test_internal_attributes() -> None:
    members = {
        "origin": "egp",
        "local-preference": 250,
        "originator-id": "10.9.9.7",
        "cluster-list": ["1.1.1.1", "2.2.2.2"],
    }
    assert attributes_of(members, "2001:db8::1", INTERNAL) == Attributes(
        next_hop=bytes.fromhex("20010db8000000000000000000000001"),
        origin=Origin.EGP,
        local_preference=250,
        originator_id=0x0A090907,
        cluster_length=2,
    )


@pytest.mark.parametrize(
    ("members", "next_hop", "header", "fault"),
    [
        (
            {"as-path": {"0": {"element": "as-sequence", "value": [65002, 65001]}}},
            None,
            HEADER,
            "own AS 65001",
        ),
        ({"as-path": {"0": {"element": "as-set", "value": [65099]}}}, None, HEADER, "own AS 65099"),
        ({"as-path": None}, None, HEADER, "AS_PATH is missing"),
        ({"origin": None}, None, HEADER, "ORIGIN is missing"),
        ({}, "null", HEADER, "no next hop"),
        ({}, "no-nexthop", HEADER, "no next hop"),
        ({}, "0.0.0.0", HEADER, "no address of a router"),
        ({}, "127.0.9.1", HEADER, "this router"),
        ({}, "fe80::1", HEADER, "link-local"),
        ({"originator-id": "10.9.9.1"}, None, INTERNAL, "ORIGINATOR_ID is this router"),
        ({"as-path": None}, None, INTERNAL, ""),
    ],
)
def test_faults(members: dict[str, object], next_hop: str | None, header: Header, fault: str) -> None:
    whole: dict[str, object] = {
        "origin": "igp",
        "as-path": {"0": {"element": "as-sequence", "value": [65002]}},
    }
    whole.update(members)
    whole = {name: value for name, value in whole.items() if value is not None}
    found = attributes_of(whole, next_hop or "192.0.2.1", header, 65099).fault
    assert fault in found
    assert bool(found) == bool(fault)


@pytest.mark.parametrize(
    "members",
    [
        {"origin": "unknown"},
        {"origin": []},
        {"med": "7"},
        {"med": -1},
        {"med": 1 << 32},
        {"as-path": []},
        {"as-path": {"0": []}},
        {"as-path": {"0": {"element": "as-heap", "value": []}}},
        {"as-path": {"0": {"element": "as-sequence", "value": ["65002"]}}},
        {"as-path": {"0": {"element": "as-sequence", "value": [[]]}}},
    ],
)
def test_malformed_attributes(members: dict[str, object]) -> None:
    with pytest.raises(MalformedError, match="attribute"):
        attributes_of(members, "192.0.2.1", HEADER)


# -- prefixes


def networks(family: Family) -> st.SearchStrategy[Prefix]:
    bits = 8 * family.address_bytes
    return st.builds(
        lambda address, length: ip_network((address, length), strict=False),
        st.integers(0, (1 << bits) - 1).map(lambda n: n.to_bytes(family.address_bytes)),
        st.integers(0, bits),
    )


@pytest.mark.parametrize("family", Family)
@given(data=st.data())
def test_prefix_keys(family: Family, data: st.DataObject) -> None:
    prefixes = data.draw(st.lists(networks(family)))
    keys, valid = prefix_keys(family, [str(prefix) for prefix in prefixes])
    assert valid is None
    assert keys.shape == (len(prefixes), family.key_width)
    assert prefixes_of(keys) == prefixes


def test_bits_beyond_the_length_are_cleared() -> None:
    assert prefixes_of(prefix_keys(Family.IPV4, ["10.1.2.3/16"])[0]) == [ip_network("10.1.0.0/16")]
    assert prefixes_of(prefix_keys(Family.IPV6, ["2001:db8:ffff::1/33"])[0]) == [
        ip_network("2001:db8:8000::/33")
    ]


BAD_PREFIXES = [
    *("", "/", "10.0.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/08", "10.0.0.0/+8", "1.2.3/8", "8", "\0/8"),
    *("10.0.0.0/8/8", "10.0.0.0/8\n", "10.0.0.0/ 8", "x::/8", "1.2.3.4/\uff18", "256.0.0.0/8", "\u00e9/8"),
]


@pytest.mark.parametrize("family", Family)
@given(data=st.data())
def test_bad_prefixes_do_not_hurt_good_ones(family: Family, data: st.DataObject) -> None:
    good = networks(family).map(str)
    bad = st.sampled_from(BAD_PREFIXES)
    drawn = data.draw(st.lists(st.tuples(st.booleans(), good, bad)))
    texts = [g if is_good else b for is_good, g, b in drawn]
    keys, valid = prefix_keys(family, texts)
    expected = np.array([is_good for is_good, _, _ in drawn], np.bool_)
    if valid is None:
        assert expected.all()
        valid = expected
    assert valid.tolist() == expected.tolist()
    wanted: list[Prefix] = [ip_network(g) for is_good, g, _ in drawn if is_good]
    assert np.array_equal(
        keys[valid].reshape(-1, family.key_width), keys_of(wanted).reshape(-1, family.key_width)
    )


# -- fuzz


def json_values() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=8)
        | st.sampled_from(["up", "ipv4 unicast", "10.0.0.0/8", "65001", "as-sequence", "receive"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    )


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, item in inner for place in _places(item, (*at, key)))]


def _put(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    copy = value.copy()
    copy[place[0]] = _put(value[place[0]], place[1:], new)
    return copy


def check_read_or_refused(text: bytes) -> None:
    """Whatever is not read must be refused in the one way the feed expects."""
    refused: MalformedError | None = None
    try:
        message = parse(text)
        if isinstance(message, Update):
            for _, next_hop, prefixes in message.announced:
                attributes_of(message.attributes, next_hop, message.header)
                prefix_keys(Family.IPV4, prefixes)
    except MalformedError as error:
        refused = error
    assert refused is None or (refused.kind and len(str(refused)) < 500)


@settings(max_examples=400)
@given(st.data())
def test_any_value_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    document = json.loads(data.draw(st.sampled_from(REAL)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(_places(document)))
        document = _put(document, place, data.draw(json_values()))
    check_read_or_refused(json.dumps(document).encode())


@settings(max_examples=400)
@given(st.data())
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    original = data.draw(st.sampled_from(REAL))
    start = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(start, len(original)))
    mutated = original[:start] + data.draw(st.binary(max_size=8)) + original[end:]
    check_read_or_refused(mutated)


def test_what_was_found_is_shortened() -> None:
    assert len(exabgp_json.shortened("x" * 10_000)) < 100
    assert len(exabgp_json.shortened({"x": "y" * 10_000})) < 100
