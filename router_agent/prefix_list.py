"""A prefix list in text: one prefix a line, ``#`` starts a comment, empty lines are passed over.

A full table of 1.2 million lines is read in about a second: addresses go through ``inet_pton`` one by one
and become columns together; only what is wrong is looked at again to say where.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_pton
from typing import IO, Any

import numpy as np

from router_agent.model import U8, U64, Family, prefixes_of, v4_keys, v6_keys

_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
"""By the first two bytes of a file."""


class PrefixListError(ValueError):
    """A prefix list cannot be used; the message has the file, the line, what was found and expected."""


class _Column:
    """Addresses and lengths of one family, and the line each came from."""

    def __init__(self) -> None:
        self.addresses: list[bytes] = []
        self.lengths: list[int] = []
        self.lines: list[int] = []


def read_prefix_list(file: IO[bytes], name: str) -> dict[Family, U64]:
    """Read every prefix of an open file.

    Returns:
        Keys by family, in the order of the file; duplicates are still there.

    Raises:
        PrefixListError: a line is not a prefix, or has bits set beyond its length.
    """
    columns = {Family.IPV4: _Column(), Family.IPV6: _Column()}
    for number, raw in enumerate(file, 1):
        text = raw.split(b"#", 1)[0].strip() if b"#" in raw else raw.strip()
        if not text:
            continue
        try:
            address, _, length = text.decode("ascii").partition("/")
            family = Family.IPV6 if ":" in address else Family.IPV4
            packed = inet_pton(AF_INET6 if family is Family.IPV6 else AF_INET, address)
            bits = int(length)
        except (ValueError, OSError):
            raise _refused(name, number, raw) from None
        if not 0 <= bits <= 8 * len(packed):
            raise _refused(name, number, raw)
        column = columns[family]
        column.addresses.append(packed)
        column.lengths.append(bits)
        column.lines.append(number)
    return {family: _keys(family, column, name) for family, column in columns.items()}


def _refused(name: str, number: int, raw: bytes) -> PrefixListError:
    shown = raw[:60].rstrip().decode("ascii", "backslashreplace")
    return PrefixListError(
        f"{name}, line {number}: found '{shown}', expected a prefix such as 192.0.2.0/24 or 2001:db8::/32"
    )


def _keys(family: Family, column: _Column, name: str) -> U64:
    lengths = np.array(column.lengths, np.uint8)
    packed = b"".join(column.addresses)
    if family is Family.IPV4:
        addresses = np.frombuffer(packed, ">u4").astype(np.uint32)
        keys = v4_keys(addresses, lengths)
        beyond = addresses & _host_bits(lengths, 32).astype(np.uint32)
    else:
        halves = np.frombuffer(packed, ">u8").astype(np.uint64).reshape(-1, 2)
        keys = v6_keys(halves[:, 0], halves[:, 1], lengths)
        high = halves[:, 0] & _host_bits(np.minimum(lengths, 64), 64)
        low = halves[:, 1] & _host_bits(np.maximum(lengths, 64) - 64, 64)
        beyond = (high | low) != 0
    wrong = np.flatnonzero(beyond)
    if len(wrong):
        row = int(wrong[0])
        found = f"{_address(column.addresses[row])}/{column.lengths[row]}"
        raise PrefixListError(
            f"{name}, line {column.lines[row]}: found {found} with bits set beyond its length, "
            f"expected {ip_network(found, strict=False)}"
        )
    return keys


def _host_bits(lengths: U8, width: int) -> U64:
    """Return the mask of the bits beyond each length in a word of `width` bits."""
    wide = lengths.astype(np.uint64)
    whole = np.uint64((1 << width) - 1)
    shifted = np.where(wide >= width, np.uint64(0), whole >> np.minimum(wide, np.uint64(width - 1)))
    return shifted.astype(np.uint64)


def _address(packed: bytes) -> str:
    return str(ip_address(packed))


def unpacked(path: Path) -> IO[bytes]:
    """Open a file that may be packed with gzip, bzip2 or xz."""
    with path.open("rb") as file:
        opener = _OPENERS.get(file.read(2))
    if opener is None:
        return path.open("rb")
    opened: IO[bytes] = opener(path, "rb")
    return opened


def distinct(keys: U64) -> U64:
    """Return keys sorted, each once."""
    if not len(keys):
        return keys
    ordered = keys[np.lexsort(keys.T[::-1])]
    first = np.ones(len(ordered), np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return ordered[first]


def load_prefixes(path: Path) -> dict[Family, U64]:
    """Return every prefix of a file by family, sorted, each once.

    Raises:
        PrefixListError: it cannot be read, or is no prefix list.
    """
    try:
        with unpacked(path) as file:
            found = read_prefix_list(file, str(path))
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise PrefixListError(f"{path}: cannot be read: {error}; expected a prefix list") from error
    return {family: distinct(keys) for family, keys in found.items()}


def write_prefix_list(keys: U64) -> str:
    """Return keys as text, one prefix a line, that `read_prefix_list` reads back."""
    return "".join(f"{prefix}\n" for prefix in prefixes_of(keys))
