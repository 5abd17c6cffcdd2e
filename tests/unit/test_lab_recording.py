"""Recorded updates: MRT records as RFC 6396 draws them, from several peers, packed or not."""

from __future__ import annotations

import gzip
import struct
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import pytest

from router_agent.lab.bgp import KEEPALIVE, Announcement, pack_prefixes, update
from router_agent.lab.churn import WITHDRAWN
from router_agent.lab.errors import TableError
from router_agent.lab.recording import read_churn
from router_agent.model import Family, keys_of, prefixes_of

BUSY, QUIET = (64501, "192.0.2.1"), (4_200_000_001, "192.0.2.2")
HOP4, HOP6 = bytes((192, 0, 2, 1)), bytes.fromhex("20010db8") + bytes(11) + b"\x01"
_BGP4MP, _BGP4MP_ET = 16, 17
_STATE_CHANGE_AS4, _MESSAGE, _MESSAGE_AS4 = 5, 1, 4


def record(kind: int, subtype: int, seconds: float, body: bytes) -> bytes:
    whole, fraction = divmod(seconds, 1)
    if kind == _BGP4MP_ET:
        body = struct.pack("!I", round(fraction * 1e6)) + body
    return struct.pack("!IHHI", int(whole), kind, subtype, len(body)) + body


def said(
    peer: tuple[int, str], message: bytes, seconds: float, *, kind: int = _BGP4MP, subtype: int = _MESSAGE_AS4
) -> bytes:
    asn, address = peer
    head = struct.pack("!II" if subtype == _MESSAGE_AS4 else "!HH", asn, 64999)
    head += struct.pack("!HH", 0, 1) + IPv4Address(address).packed + IPv4Address("192.0.2.254").packed
    return record(kind, subtype, seconds, head + message)


def packed(*prefixes: str) -> bytes:
    return pack_prefixes(keys_of([ip_network(prefix) for prefix in prefixes]))[0].tobytes()


def announced(path: tuple[int, ...], *prefixes: str) -> bytes:
    family = Family.IPV6 if ":" in prefixes[0] else Family.IPV4
    return update(family, packed(*prefixes), Announcement(path, HOP6 if family is Family.IPV6 else HOP4))


def withdrawn(*prefixes: str) -> bytes:
    return update(Family.IPV6 if ":" in prefixes[0] else Family.IPV4, packed(*prefixes), None)


RECORDS = b"".join(
    [
        record(_BGP4MP, _STATE_CHANGE_AS4, 1000, struct.pack("!IIHH8xHH", 64501, 64999, 0, 1, 5, 6)),
        said(BUSY, KEEPALIVE, 1000),
        said(BUSY, announced((64501, 1), "20.0.0.0/8", "20.1.0.0/16"), 1000),
        said(QUIET, announced((4_200_000_001, 1), "30.0.0.0/8"), 1001),
        said(BUSY, announced((64501, 2), "20.1.0.0/16"), 1002.25, kind=_BGP4MP_ET),
        said(BUSY, announced((64501, 1), "2600:1::/32"), 1003),
        said(BUSY, withdrawn("20.1.0.0/16", "10.0.0.0/8"), 1004),
        said(BUSY, withdrawn("2600:1::/32"), 1005),
    ]
)

BROKEN = withdrawn("20.0.0.0/8")[:-2] + b"\x00\x09"
"""Says that nine octets of path attributes follow, and ends."""


def test_the_busiest_peer_is_replayed(tmp_path: Path) -> None:
    file = tmp_path / "updates.20261121.1700.gz"
    file.write_bytes(gzip.compress(RECORDS))
    churn = read_churn(file)
    assert [str(p) for p in prefixes_of(churn.table.ipv4)] == ["20.0.0.0/8", "20.1.0.0/16"]
    assert [str(p) for p in prefixes_of(churn.table.ipv6)] == ["2600:1::/32"]
    assert churn.families.tolist() == [2, 2, 2, 10, 2, 10]
    assert churn.rows.tolist() == [0, 1, 1, 0, 1, 0]
    # by attributes: two IPv4 paths, one of IPv6 (its next hop is another)
    assert churn.paths.tolist() == [1, 1, 2, 3, WITHDRAWN, WITHDRAWN]
    assert churn.seconds.tolist() == [0, 0, 2.25, 3, 4, 5]
    assert churn.as_paths == ((64501, 1), (64501, 2), (64501, 1), (64501,))
    assert {family: column.tolist() for family, column in churn.before.items()} == {
        Family.IPV4: [4, 4],
        Family.IPV6: [4],
    }


def test_another_peer_can_be_chosen(tmp_path: Path) -> None:
    file = tmp_path / "updates"
    file.write_bytes(RECORDS)
    churn = read_churn(file, peer=IPv4Address("192.0.2.2"))
    assert [str(p) for p in prefixes_of(churn.table.ipv4)] == ["30.0.0.0/8"]
    assert "4200000001" in churn.origin
    with pytest.raises(TableError, match=r"found no update of 192\.0\.2\.9, .* found 192\.0\.2\.1 .*: 5"):
        read_churn(file, peer=IPv4Address("192.0.2.9"))


def test_sessions_of_two_octet_as_numbers_are_read(tmp_path: Path) -> None:
    attributes = bytes.fromhex("40010100" + "400206" + "0202fbf50001" + "400304c0000201")
    body = b"\x00\x00" + len(attributes).to_bytes(2) + attributes + packed("20.0.0.0/8")
    message = b"\xff" * 16 + struct.pack("!HB", 19 + len(body), 2) + body
    file = tmp_path / "updates"
    file.write_bytes(said(BUSY, message, 5, subtype=_MESSAGE))
    assert read_churn(file).as_paths[0] == (64501, 1)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(record(13, 2, 0, bytes(20)), "take a file of updates", id="rib-dump"),
        pytest.param(RECORDS[:-3], "octets of a record", id="cut-off"),
        pytest.param(said(BUSY, b"\x00" * 30, 0), "a BGP4MP message that is none", id="no-bgp"),
        pytest.param(
            said(BUSY, withdrawn("20.0.0.0/8")[:-2] + b"\x00\x09", 0), "an UPDATE of", id="no-update"
        ),
        pytest.param(said(BUSY, KEEPALIVE, 0), "no update at all", id="silent"),
        pytest.param(said(BUSY, withdrawn("10.0.0.0/8"), 0), "no prefix", id="reserved-only"),
    ],
)
def test_what_cannot_be_replayed_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    file = tmp_path / "updates"
    file.write_bytes(content)
    with pytest.raises(TableError, match=expected):
        read_churn(file)
