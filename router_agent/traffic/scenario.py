"""What a traffic check shall do: where to send, how fast, how long, and what is good enough.

Every constructor refuses nonsense; the message says what was found, what was expected and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network

import numpy as np
from numpy.typing import NDArray

from router_agent.model import (
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

ANY_PORT = -1
"""Expected port of a destination that may leave by any port, or whose port is not known."""

FCS_BYTES = 4
"""Frame sizes count the Ethernet frame check sequence, as RFC 2544 does; sockets do not see it."""

LEAST_FRAME = {Family.IPV4: 64, Family.IPV6: 78}
"""Smallest frame with a test signature in it: headers, 12 bytes, FCS (RFC 2544 has 64 as its minimum)."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_DRAWS = 16


class ScenarioError(ValueError):
    """A scenario that makes no sense; the message says what was expected instead."""


@dataclass(frozen=True)
class Port:
    """One port of the tester, facing one port of the router.

    Attributes:
        name: how people call it; appears in reports.
        interface: kernel interface name.
        namespace: network namespace by name (``ip netns``); None is the current one.
        gateway_mac: MAC of the router's port on the other side, ``aa:bb:cc:dd:ee:ff``; needed to send.
    """

    name: str
    interface: str
    namespace: str | None = None
    gateway_mac: str | None = None

    def __post_init__(self) -> None:
        if not self.name or not self.interface:
            raise ScenarioError(
                f"a port needs a name and an interface, found {self.name!r}, {self.interface!r}"
            )
        if self.gateway_mac is not None and not _MAC.fullmatch(self.gateway_mac.lower()):
            raise ScenarioError(
                f"port {self.name}: gateway_mac is {self.gateway_mac!r}, expected aa:bb:cc:dd:ee:ff"
            )


@dataclass(frozen=True)
class Endpoints:
    """The tester's ports around the device under test.

    Attributes:
        ports: every outer port; captured all the time. Port numbers in reports and in
            `Destinations.expected` are positions in this tuple.
        ingress: position of the port that sends.
    """

    ports: tuple[Port, ...]
    ingress: int = 0

    def __post_init__(self) -> None:
        if not self.ports:
            raise ScenarioError("a check needs at least one port of the tester, found none")
        if not 0 <= self.ingress < len(self.ports):
            raise ScenarioError(
                f"ingress is port {self.ingress}, expected 0 to {len(self.ports) - 1}: a position in `ports`"
            )
        names = [port.name for port in self.ports]
        if len(set(names)) != len(names):
            raise ScenarioError(f"port names must differ, found {', '.join(names)}")
        if self.ports[self.ingress].gateway_mac is None:
            raise ScenarioError(
                f"port {names[self.ingress]} sends: give it gateway_mac, the MAC of the router's port"
            )


@dataclass(frozen=True)
class Goal:
    """What is good enough.

    Attributes:
        loss_ratio: lost / sent that is still a pass; 0 asks for every packet.
        unsent_ratio: (intended - sent) / intended up to which a trial is valid; above it the generator was
            the limit and nothing is known about the device.
    """

    loss_ratio: float = 0.0
    unsent_ratio: float = 0.005

    def __post_init__(self) -> None:
        for name, value in (("loss_ratio", self.loss_ratio), ("unsent_ratio", self.unsent_ratio)):
            if not 0.0 <= value < 1.0:
                raise ScenarioError(f"{name} is {value}, expected a ratio of at least 0 and below 1")


@dataclass(frozen=True)
class Search:
    """Bounds of a loss-free-rate search (MLRsearch, RFC 9971).

    Attributes:
        min_pps, max_pps: loads between which the answer is looked for.
        trial_s: length of the trials that decide.
        relative_width: how near the answer shall be, as a part of it.
        limit_s: the search is given up after so long.
    """

    min_pps: float
    max_pps: float
    trial_s: float = 1.0
    relative_width: float = 0.05
    limit_s: float = 120.0

    def __post_init__(self) -> None:
        if not 0 < self.min_pps < self.max_pps:
            raise ScenarioError(
                f"search from {self.min_pps} to {self.max_pps} pps: expected 0 < min_pps < max_pps"
            )
        if not 0.0 < self.relative_width < 1.0:
            raise ScenarioError(f"relative_width is {self.relative_width}, expected between 0 and 1")
        if self.trial_s <= 0 or self.limit_s <= self.trial_s:
            raise ScenarioError(
                f"trials of {self.trial_s} s in at most {self.limit_s} s: expected 0 < trial_s < limit_s"
            )


@dataclass(frozen=True, eq=False)
class Destinations:
    """Addresses to send to, in sending order. All columns have n rows.

    Attributes:
        families: `Family` of each, ``uint8``.
        addresses: network byte order, ``uint8`` (n, 16); IPv4 uses the first four bytes.
        lengths: length of the prefix each address stands for.
        expected: position in `Endpoints.ports` by which it shall leave, or `ANY_PORT`; ``int16``.
        shadowed: prefixes left out because more specific ones cover every address that was tried.
    """

    families: U8
    addresses: U8
    lengths: U8
    expected: NDArray[np.int16]
    shadowed: int = 0

    def __post_init__(self) -> None:
        n = len(self.families)
        if not n:
            raise ScenarioError("there is no destination to send to; pass at least one prefix")
        shapes = (self.addresses.shape, self.lengths.shape, self.expected.shape)
        if shapes != ((n, 16), (n,), (n,)):
            raise ScenarioError(f"destination columns are {shapes}, expected (({n}, 16), ({n},), ({n},))")

    def __len__(self) -> int:
        return len(self.families)

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

    @classmethod
    def of(cls, prefixes: list[Prefix], expected: list[int] | None = None, *, seed: int = 1) -> Destinations:
        """Return one destination in each of a few scalar prefixes; `expected` are port positions."""
        ports = dict(zip(prefixes, expected, strict=True)) if expected else {}
        keys: dict[Family, U64] = {}
        columns: dict[Family, NDArray[np.integer]] = {}
        for family, version in ((Family.IPV4, 4), (Family.IPV6, 6)):
            chosen = [p for p in prefixes if p.version == version]
            if chosen:
                keys[family] = keys_of(chosen)
                columns[family] = np.array([ports.get(p, ANY_PORT) for p in chosen], np.int16)
        return cls.draw(keys, columns, seed=seed)

    @classmethod
    def draw(
        cls,
        keys: Mapping[Family, U64],
        expected: Mapping[Family, NDArray[np.integer]] | None = None,
        *,
        count: int | None = None,
        table: Mapping[Family, U64] | None = None,
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
        return cls(families[order], wides[order], lengths[order], ports16[order], shadowed)


@dataclass(frozen=True)
class Scenario:
    """One traffic check.

    Attributes:
        name: appears in reports.
        destinations: where to send, see `Destinations`.
        frame_bytes: Ethernet frame size with its FCS (64, 512, 1518, ...); None takes the smallest.
        rate_pps: offered rate, packets a second.
        duration_s: length of the fixed-rate trial.
        goal: what is good enough.
        proof_pps: rate of the port proof; low, so that loss is not expected. None leaves the proof out.
        search: look for the loss-free rate as well, after the fixed-rate trial.
        sources: source prefixes by family; addresses in them are used in turn. The defaults are those set
            aside for benchmarking (RFC 2544, RFC 5180).
        udp_port: destination port of the packets.
        interval_s: resolution of the series.
        drain_s: how long to wait for late packets when some are missing (RFC 2544 26.1: two seconds).
        ring_frames: room for this many frames at each capturing port.
        cpus: CPUs to pin to, sender first; empty pins only where there is one for each worker and one more.
        seed: seeds what is drawn at random.
    """

    name: str
    destinations: Destinations
    frame_bytes: int | None = None
    rate_pps: float = 10_000.0
    duration_s: float = 5.0
    goal: Goal = field(default_factory=Goal)
    proof_pps: float | None = 10_000.0
    search: Search | None = None
    sources: tuple[IPv4Network, IPv6Network] = (IPv4Network("198.18.0.0/15"), IPv6Network("2001:2::/48"))
    udp_port: int = 9
    interval_s: float = 0.1
    drain_s: float = 1.0
    ring_frames: int = 65_536
    cpus: tuple[int, ...] = ()
    seed: int = 1

    def __post_init__(self) -> None:
        least = self.destinations.least_frame
        if self.frame_bytes is not None and not least <= self.frame_bytes <= 9_018:
            raise ScenarioError(
                f"frame_bytes is {self.frame_bytes}, expected {least} to 9018 for these destinations"
            )
        for name, value in (
            ("rate_pps", self.rate_pps),
            ("duration_s", self.duration_s),
            ("interval_s", self.interval_s),
            ("drain_s", self.drain_s),
            ("proof_pps", 1.0 if self.proof_pps is None else self.proof_pps),
        ):
            if not 0 < value < float("inf"):
                raise ScenarioError(f"{name} is {value}, expected a positive number")
        if self.rate_pps * self.duration_s < 1:
            raise ScenarioError(
                f"{self.rate_pps} pps for {self.duration_s} s is less than one packet: raise either"
            )
        if not 0 < self.udp_port < 65_536:
            raise ScenarioError(f"udp_port is {self.udp_port}, expected 1 to 65535")
        if self.ring_frames < 16:
            raise ScenarioError(f"ring_frames is {self.ring_frames}, expected at least 16")

    @property
    def frame(self) -> int:
        """Frame size in bytes, FCS included."""
        return self.destinations.least_frame if self.frame_bytes is None else self.frame_bytes


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
