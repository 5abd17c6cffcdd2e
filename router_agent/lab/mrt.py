"""Prefixes of an MRT RIB dump (TABLE_DUMP_V2, RFC 6396), as route collectors publish them.

mrtparse reads the records; of each only the prefix is decoded, because the attributes of some tens of peers
a prefix would take minutes and the lab gives its own.
"""

from __future__ import annotations

import signal
from socket import AF_INET, AF_INET6, inet_pton
from typing import IO, Any

import numpy as np

from router_agent.lab.errors import TableError
from router_agent.model import U64, Family, v4_keys, v6_keys

# mrtparse sets SIGPIPE to its default when imported: a peer that closes a socket would then end this process.
_former = signal.getsignal(signal.SIGPIPE)
from mrtparse import AFI_T, TD_V2_ST, AfiSpecRib  # noqa: E402
from mrtparse import BGP4MP_ST as BGP4MP_ST  # noqa: E402 - for others that must not lose SIGPIPE either
from mrtparse import MRT_T as MRT_T  # noqa: E402
from mrtparse import MrtFormatError as MrtFormatError  # noqa: E402
from mrtparse import Reader as Reader  # noqa: E402

signal.signal(signal.SIGPIPE, _former)

_TABLE_DUMP_V2 = MRT_T["TABLE_DUMP_V2"]
_SUBTYPES = {
    TD_V2_ST["RIB_IPV4_UNICAST"]: Family.IPV4,
    TD_V2_ST["RIB_IPV6_UNICAST"]: Family.IPV6,
    TD_V2_ST["RIB_IPV4_UNICAST_ADDPATH"]: Family.IPV4,
    TD_V2_ST["RIB_IPV6_UNICAST_ADDPATH"]: Family.IPV6,
}
_HEADER_BYTES = 12


def looks_like_mrt(head: bytes) -> bool:
    """Return whether a file that begins with these 12 bytes is an MRT file (type 11 to 49, RFC 6396 4)."""
    if len(head) < _HEADER_BYTES:
        return False
    kind, subtype = int.from_bytes(head[4:6]), int.from_bytes(head[6:8])
    return 11 <= kind <= 49 and subtype < 32


class _PrefixReader(Reader):  # type: ignore[misc]
    """mrtparse's reader, stopping in each RIB record after the prefix."""

    def unpack_td_v2(self, data: bytes, mrt: Any) -> None:
        family = _SUBTYPES.get(next(iter(mrt.data["subtype"])))
        if family is None:
            return
        record = AfiSpecRib(data)
        record.val_num(4)
        length = record.val_num(1)
        address = record.val_addr(AFI_T["IPv4" if family is Family.IPV4 else "IPv6"], length)
        self.data["prefix"] = (family, address, length)


def read_mrt(file: IO[bytes], name: str) -> dict[Family, U64]:
    """Read every unicast prefix of an open dump.

    Returns:
        Keys by family, in the order of the file; duplicates are still there.

    Raises:
        TableError: a record is broken, or the file is another kind of MRT.
    """
    addresses: dict[Family, list[bytes]] = {family: [] for family in Family}
    lengths: dict[Family, list[int]] = {family: [] for family in Family}
    for number, record in enumerate(_PrefixReader(file), 1):
        if record.err:
            raise TableError(
                f"{name}, record {number}: found {record.err_msg}, expected TABLE_DUMP_V2 (RFC 6396 4.3)"
            )
        kind = next(iter(record.data["type"]))
        if kind != _TABLE_DUMP_V2:
            raise TableError(
                f"{name}, record {number}: found MRT type {kind} ({MRT_T[kind]}), "
                f"expected {_TABLE_DUMP_V2} (TABLE_DUMP_V2): take a RIB dump, not updates"
            )
        if "prefix" not in record.data:
            continue
        family, address, length = record.data["prefix"]
        addresses[family].append(inet_pton(AF_INET if family is Family.IPV4 else AF_INET6, address))
        lengths[family].append(length)
    halves = np.frombuffer(b"".join(addresses[Family.IPV6]), ">u8").astype(np.uint64).reshape(-1, 2)
    return {
        Family.IPV4: v4_keys(
            np.frombuffer(b"".join(addresses[Family.IPV4]), ">u4").astype(np.uint32),
            np.array(lengths[Family.IPV4], np.uint8),
        ),
        Family.IPV6: v6_keys(halves[:, 0], halves[:, 1], np.array(lengths[Family.IPV6], np.uint8)),
    }
