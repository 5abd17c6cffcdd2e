"""The lab's BGP tables: generated ones, prefix lists, MRT dumps."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.lab.errors import TableError
from router_agent.lab.generator import IPV4_LENGTHS, IPV6_LENGTHS, generate
from router_agent.lab.reserved import RESERVED, reserved
from router_agent.lab.table import generated_table, read_table
from router_agent.model import Family, Prefix, key_lengths, keys_of, prefixes_of
from router_agent.prefix_list import write_prefix_list

V4 = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32))
V6 = st.tuples(st.integers(0, 2**128 - 1), st.integers(0, 128))
PREFIXES = st.lists(
    st.one_of(
        V4.map(lambda t: ip_network((t[0] >> (32 - t[1]) << (32 - t[1]), t[1]))),
        V6.map(lambda t: ip_network((t[0] >> (128 - t[1]) << (128 - t[1]), t[1]))),
    ),
    min_size=1,
    max_size=50,
)


def is_reserved(prefix: Prefix) -> bool:
    family = Family.IPV4 if prefix.version == 4 else Family.IPV6
    return any(
        prefix.prefixlen >= other.prefixlen and prefix.network_address in other for other in RESERVED[family]
    )


@pytest.mark.parametrize("family", list(Family), ids=lambda f: f.label)
@pytest.mark.parametrize("count", [0, 1, 7, 1000, 50_000])
def test_a_generated_table_has_distinct_sorted_prefixes_outside_reserved_space(
    family: Family, count: int
) -> None:
    keys = generate(family, count)
    assert keys.shape == (count, family.key_width)
    rows = list(map(tuple, keys.tolist()))
    assert rows == sorted(set(rows))
    for prefix in prefixes_of(keys[:: max(1, count // 200)]):  # refuses host bits as well
        assert not any(prefix.overlaps(other) for other in RESERVED[family])
    assert not reserved(family, keys).any()


@pytest.mark.parametrize(
    ("family", "lengths"),
    [(Family.IPV4, IPV4_LENGTHS), (Family.IPV6, IPV6_LENGTHS)],
    ids=["IPv4", "IPv6"],
)
def test_lengths_are_those_of_a_real_table(family: Family, lengths: dict[int, int]) -> None:
    count = 40_000
    found = Counter(key_lengths(generate(family, count)).tolist())
    total = sum(lengths.values())
    for length, weight in lengths.items():
        assert abs(found[length] - count * weight / total) < 1
    assert set(found) <= set(lengths)


def test_the_same_table_is_generated_everywhere() -> None:
    digest = hashlib.sha256()
    for family in Family:
        digest.update(generate(family, 10_000).astype("<u8").tobytes())
    assert digest.hexdigest() == "5d1e28f72746763664d2a1253c31c56b7a61d24e49181e7263f0a7837aceb23a"


def test_a_table_that_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at most 128: ask for a smaller table"):
        generate(Family.IPV4, 200_000_000)
    with pytest.raises(ValueError, match="found -1 prefixes wanted, expected 0 or more"):
        generate(Family.IPV6, -1)


@given(PREFIXES)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, prefixes: list[Prefix]
) -> None:
    path = tmp_path_factory.mktemp("list") / "table.txt"
    by_family = {version: [p for p in prefixes if p.version == version] for version in (4, 6)}
    path.write_text("".join(write_prefix_list(keys_of(chosen)) for chosen in by_family.values()))
    kept = sorted({p for p in prefixes if not is_reserved(p)}, key=lambda p: (p.version, p))
    if not kept:
        with pytest.raises(TableError, match="found no prefix that can be announced"):
            read_table(path)
        return
    table = read_table(path)
    assert prefixes_of(table.ipv4) + prefixes_of(table.ipv6) == kept
    assert table.left_out == len(set(prefixes)) - len(kept)


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["", "gz", "bz2", "xz"]
)
def test_a_list_may_be_packed_and_have_comments(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    text = b"# a table\n\n1.0.0.0/24 # first\n  2a00::/32\r\n1.0.0.0/24\n10.1.0.0/16\n"
    path = tmp_path / "table"
    path.write_bytes(pack(text))
    table = read_table(path)
    assert prefixes_of(table.ipv4) == [ip_network("1.0.0.0/24")]
    assert prefixes_of(table.ipv6) == [ip_network("2a00::/32")]
    assert table.left_out == 1
    assert table.origin == str(path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1.0.0/24", "line 2: found '1.0.0/24', expected a prefix such as 192.0.2.0/24"),
        ("1.0.0.0", "line 2: found '1.0.0.0', expected a prefix"),
        ("1.0.0.0/33", "line 2: found '1.0.0.0/33', expected a prefix"),
        ("1.0.0.0/-1", "line 2: found '1.0.0.0/-1', expected a prefix"),
        ("2a00::/129", "line 2: found '2a00::/129', expected a prefix"),
        ("1.0.0.0/24/3", "line 2: found '1.0.0.0/24/3', expected a prefix"),
        ("\N{SNOWMAN}", r"line 2: found '\\xe2\\x98\\x83', expected a prefix"),
        ("9" * 500, "line 2: found '9{60}', expected a prefix"),
        ("1.0.0.1/24", "line 2: found 1.0.0.1/24 with bits set beyond its length, expected 1.0.0.0/24"),
        ("1.0.0.0/0", "line 2: found 1.0.0.0/0 with bits set beyond its length, expected 0.0.0.0/0"),
        ("2a00::1/64", "line 2: found 2a00::1/64 with bits set beyond its length, expected 2a00::/64"),
        ("2a00:1::/16", "line 2: found 2a00:1::/16 with bits set beyond its length, expected 2a00::/16"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "table.txt"
    path.write_text(f"1.0.0.0/24\n{line}\n1.0.4.0/24\n", encoding="utf-8")
    with pytest.raises(TableError, match=f"table.txt, {words}"):
        read_table(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="missing: cannot be read"):
        read_table(tmp_path / "missing")
    broken = tmp_path / "broken.xz"
    broken.write_bytes(lzma.compress(b"1.0.0.0/24\n")[:20])
    with pytest.raises(TableError, match=r"broken\.xz: cannot be read"):
        read_table(broken)
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    with pytest.raises(TableError, match="found no prefix that can be announced"):
        read_table(empty)


def test_a_part_is_spread_over_the_whole(tmp_path: Path) -> None:
    whole = generated_table(1000, 500)
    path = tmp_path / "table.txt"
    path.write_text(write_prefix_list(whole.ipv4) + write_prefix_list(whole.ipv6))
    part = read_table(path, ipv4=10, ipv6=0)
    assert part.ipv4.tolist() == whole.ipv4[::100].tolist()
    assert len(part.ipv6) == 0
    assert read_table(path, ipv4=5000).ipv4.tolist() == whole.ipv4.tolist()


def mrt_record(kind: int, subtype: int, body: bytes) -> bytes:
    """Return a record with the common header of RFC 6396, section 2."""
    return struct.pack(">IHHI", 1_700_000_000, kind, subtype, len(body)) + body


def peer_index_table() -> bytes:
    peer = struct.pack(">B4s4sI", 0x02, bytes([192, 0, 2, 1]), bytes([192, 0, 2, 1]), 64496)
    return mrt_record(13, 1, bytes(4) + struct.pack(">H0sH", 0, b"", 1) + peer)


def rib_record(prefix: Prefix, sequence: int) -> bytes:
    """Return a RIB record of RFC 6396, section 4.3.2, with one entry and an ORIGIN attribute."""
    packed = prefix.network_address.packed[: (prefix.prefixlen + 7) // 8]
    origin = bytes([0x40, 1, 1, 0])
    entry = struct.pack(">HIH", 0, 1_700_000_000, len(origin)) + origin
    body = struct.pack(">IB", sequence, prefix.prefixlen) + packed + struct.pack(">H", 1) + entry
    return mrt_record(13, 2 if prefix.version == 4 else 4, body)


@given(PREFIXES)
def test_an_mrt_dump_is_read(tmp_path_factory: pytest.TempPathFactory, prefixes: list[Prefix]) -> None:
    path = tmp_path_factory.mktemp("mrt") / "rib"
    dump = peer_index_table() + b"".join(rib_record(p, n) for n, p in enumerate(prefixes))
    path.write_bytes(gzip.compress(dump, 1))
    kept = sorted({p for p in prefixes if not is_reserved(p)}, key=lambda p: (p.version, p))
    if not kept:
        with pytest.raises(TableError, match="found no prefix"):
            read_table(path)
        return
    table = read_table(path)
    assert prefixes_of(table.ipv4) + prefixes_of(table.ipv6) == kept


def test_other_mrt_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "updates"
    keepalive = b"\xff" * 16 + struct.pack(">HB", 19, 4)
    header = struct.pack(">IIHH", 64496, 64497, 0, 1) + bytes(8)
    path.write_bytes(mrt_record(16, 4, header + keepalive))
    with pytest.raises(TableError, match=r"record 1: found MRT type 16 \(BGP4MP\), expected 13"):
        read_table(path)


def test_a_broken_mrt_dump_is_refused_with_its_record(tmp_path: Path) -> None:
    whole = peer_index_table() + rib_record(ip_network("1.0.0.0/24"), 0)
    path = tmp_path / "rib"
    path.write_bytes(whole[:-3])
    with pytest.raises(TableError, match="record 2: found Invalid MRT data length"):
        read_table(path)
    path.write_bytes(peer_index_table() + mrt_record(13, 2, struct.pack(">IB", 0, 77) + bytes(20)))
    with pytest.raises(TableError, match="record 2: found Invalid prefix length 77"):
        read_table(path)


def test_columns_are_of_the_model() -> None:
    table = generated_table(10, 10)
    assert table.ipv4.dtype == table.ipv6.dtype == np.uint64
    assert len(table) == 20
    assert table.keys(Family.IPV6) is table.ipv6


def test_reading_mrt_leaves_signals_alone() -> None:
    """A library resets SIGPIPE when it is imported; a closed socket must stay an error, not the end."""
    program = "import signal, router_agent.lab.mrt; print(signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN)"
    answer = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "True"
