"""Where to send: one address in each of many prefixes, and the ports it goes in and comes out by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numpy.typing import NDArray

from router_agent.model import (
    I64,
    U8,
    U64,
    Family,
    Mask,
    Prefix,
    key_addresses,
    key_lengths,
    keys_of,
    v4_keys,
    v6_keys,
)
from router_agent.prefix_table import PrefixTable
from router_agent.traffic.scenario.errors import ScenarioError

ANY_PORT = -1
"""Expected port of a destination that may leave by any port, or whose port is not known."""

LEAST_FRAME = {Family.IPV4: 64, Family.IPV6: 78}
"""Smallest frame with a test signature in it: headers, 12 bytes, FCS (RFC 2544 has 64 as its minimum)."""

_DRAWS = 16


@dataclass(frozen=True, eq=False)
class Destinations:
    """Addresses to send to, in sending order. All columns have n rows.

    Attributes:
        families: `Family` of each, ``uint8``.
        addresses: network byte order, ``uint8`` (n, 16); IPv4 uses the first four bytes.
        lengths: length of the prefix each address stands for.
        expected: position in `Endpoints.ports` by which it shall leave, or `ANY_PORT`; ``int16``.
        ingress: position in `Endpoints.ports` of the port that sends to it; ``int16``.
        shadowed: prefixes left out because more specific ones cover every address that was tried.
    """

    families: U8
    addresses: U8
    lengths: U8
    expected: NDArray[np.int16]
    ingress: NDArray[np.int16]
    shadowed: int = 0

    def __post_init__(self) -> None:
        n = len(self.families)
        if not n:
            raise ScenarioError("there is no destination to send to; pass at least one prefix")
        found = [c.shape for c in (self.addresses, self.lengths, self.expected, self.ingress)]
        if found != [(n, 16), (n,), (n,), (n,)]:
            raise ScenarioError(f"destination columns are {found}, expected ({n}, 16) and three of ({n},)")

    def __len__(self) -> int:
        return len(self.families)

    @property
    def ingress_ports(self) -> list[int]:
        """Positions of the ports that send, ascending."""
        return [int(port) for port in np.unique(self.ingress)]

    @property
    def has_ipv6(self) -> bool:
        """Whether any destination is IPv6."""
        return bool((self.families == Family.IPV6).any())

    @property
    def least_frame(self) -> int:
        """Smallest frame size in bytes that can reach all of them."""
        return LEAST_FRAME[Family.IPV6 if self.has_ipv6 else Family.IPV4]

    def prefix(self, row: int) -> Prefix:
        """Return the prefix that a row stands for."""
        address, length = self.addresses[row].tobytes(), int(self.lengths[row])
        if self.families[row] == Family.IPV4:
            return IPv4Network((address[:4], length), strict=False)
        return IPv6Network((address, length), strict=False)

    def rows(self, rows: I64) -> Destinations:
        """Return some of them, in the order of `rows`."""
        return Destinations(
            self.families[rows],
            self.addresses[rows],
            self.lengths[rows],
            self.expected[rows],
            self.ingress[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence[Destinations]) -> Destinations:
        """Return several together, one after the other."""
        return cls(
            np.concatenate([p.families for p in parts]),
            np.concatenate([p.addresses for p in parts]),
            np.concatenate([p.lengths for p in parts]),
            np.concatenate([p.expected for p in parts]),
            np.concatenate([p.ingress for p in parts]),
            sum(p.shadowed for p in parts),
        )

    @classmethod
    def of(
        cls,
        prefixes: list[Prefix],
        expected: list[int] | None = None,
        *,
        ingress: int = 0,
        seed: int = 1,
    ) -> Destinations:
        """Return one destination in each of a few scalar prefixes; `expected` are port positions."""
        ports = dict(zip(prefixes, expected, strict=True)) if expected else {}
        keys: dict[Family, U64] = {}
        columns: dict[Family, NDArray[np.integer]] = {}
        for family, version in ((Family.IPV4, 4), (Family.IPV6, 6)):
            chosen = [p for p in prefixes if p.version == version]
            if chosen:
                keys[family] = keys_of(chosen)
                columns[family] = np.array([ports.get(p, ANY_PORT) for p in chosen], np.int16)
        return cls.draw(keys, columns, ingress=ingress, seed=seed)

    @classmethod
    def draw(
        cls,
        keys: Mapping[Family, U64],
        expected: Mapping[Family, NDArray[np.integer]] | None = None,
        *,
        count: int | None = None,
        table: Mapping[Family, U64] | None = None,
        ingress: int = 0,
        seed: int = 1,
    ) -> Destinations:
        """Draw one address in each of a sample of prefixes, in random order.

        Args:
            keys: prefix keys by family (see router_agent.model).
            expected: for each row of `keys`, the position of the port it shall leave by.
            count: how many prefixes to sample, shared between families by their sizes; None takes all.
                Shadowed ones are made up for by others as far as there are any.
            table: every prefix of the router, if it has more than `keys`. An address whose longest match
                in it is not the prefix drawn from is drawn again, and given up as shadowed after 16 draws.
            ingress: position of the port that sends to them.
            seed: the same seed draws the same addresses.
        """
        if count is not None and count < 1:
            raise ScenarioError(f"count is {count}, expected at least one destination")
        rng = np.random.default_rng(seed)
        total = sum(len(k) for k in keys.values())
        parts: list[tuple[U8, U8, U8, NDArray[np.int16]]] = []
        shadowed = 0
        for family, rows in keys.items():
            if not len(rows):
                continue
            share = len(rows) if count is None else min(len(rows), -(-count * len(rows) // total))
            chosen = rng.permutation(len(rows))[: share + share // 8 + 64]
            ports = np.full(len(rows), ANY_PORT, np.int16) if expected is None else expected[family]
            if len(ports) != len(rows):
                raise ScenarioError(f"{family.label}: {len(ports)} expected ports for {len(rows)} prefixes")
            addresses, kept = _draw(family, rows[chosen], (table or keys)[family], rng)
            good = np.flatnonzero(kept)[:share]
            tried = len(kept) if len(good) < share else int(good[-1]) + 1
            shadowed += tried - len(good)
            wide = np.zeros((len(good), 16), np.uint8)
            wide[:, : family.address_bytes] = addresses[good]
            parts.append(
                (
                    np.full(len(good), family, np.uint8),
                    wide,
                    key_lengths(rows[chosen[good]]),
                    ports[chosen[good]].astype(np.int16),
                )
            )
        if not parts:
            raise ScenarioError("there is no destination to send to; pass at least one prefix")
        families, wides, lengths, ports16 = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = rng.permutation(len(families))
        if count is not None:
            order = order[:count]
        sender = np.full(len(order), ingress, np.int16)
        return cls(families[order], wides[order], lengths[order], ports16[order], sender, shadowed)


def _draw(family: Family, keys: U64, table: U64, rng: np.random.Generator) -> tuple[U8, Mask]:
    """Return addresses within prefixes and which of them have their prefix as the longest match."""
    bits = 8 * family.address_bytes
    network, lengths = key_addresses(keys), key_lengths(keys)
    host = ~_masks(bits)[lengths]
    all_prefixes = PrefixTable(family.key_width)
    all_prefixes.insert(table)
    longer = np.unique(key_lengths(table))
    addresses = network.copy()
    waiting = np.arange(len(keys))
    for _ in range(_DRAWS):
        noise = rng.integers(0, 256, (len(waiting), bits // 8), dtype=np.uint8)
        addresses[waiting] = network[waiting] | (noise & host[waiting])
        covered = np.zeros(len(waiting), np.bool_)
        for length in longer:
            rows = np.flatnonzero(lengths[waiting] < length)
            if len(rows):
                found = all_prefixes.find(_cut(family, addresses[waiting[rows]], int(length)))
                covered[rows] |= found >= 0
        waiting = waiting[covered]
        if not len(waiting):
            break
    kept = np.ones(len(keys), np.bool_)
    kept[waiting] = False
    return addresses, kept


def _masks(bits: int) -> U8:
    """Return the netmask of every length, shape (bits + 1, bits / 8)."""
    ones = (np.arange(bits)[None, :] < np.arange(bits + 1)[:, None]).astype(np.uint8)
    return np.packbits(ones, axis=1)


def _cut(family: Family, addresses: U8, length: int) -> U64:
    """Return the keys of the prefixes of one length that hold these addresses."""
    masked = np.ascontiguousarray(addresses & _masks(8 * family.address_bytes)[length])
    lengths = np.full(len(addresses), length, np.uint8)
    if family is Family.IPV4:
        return v4_keys(masked.view(">u4")[:, 0].astype(np.uint32), lengths)
    halves = masked.view(">u8").astype(np.uint64)
    return v6_keys(halves[:, 0], halves[:, 1], lengths)
