"""The kernel's counters for the ledger: a namespace that forwards, and the tester's own ports.

They are read from dev, snmp, netstat and snmp6 in /proc/net (proc(5); names after RFC 4293).
Interface drops on receipt (``rx_dropped``) include what the per-CPU backlog had no room for; a veth counts
the same packet as ``tx_dropped`` on its other end, which is therefore not a class of its own for a veth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from router_agent.namespaces import NamespaceError, inside
from router_agent.traffic import nic
from router_agent.traffic.counters.ethtool import nic_counters, receive_drops
from router_agent.traffic.counters.qdisc import egress_drops
from router_agent.traffic.counters.source import CounterError, DropClass, Side

_DEV_COLUMNS = {
    "rx_packets": 1,
    "rx_errors": 2,
    "rx_dropped": 3,
    "tx_packets": 9,
    "tx_errors": 10,
    "tx_dropped": 11,
}

_STAT_TABLES = {
    "stat/nf_conntrack": "nf_conntrack",
    "stat/arp_cache": "neighbour",
    "stat/ndisc_cache": "neighbour",
}
_STAT_COLUMNS = frozenset(("drop", "early_drop", "insert_failed", "unresolved_discards", "table_fulls"))

_IP4_DROPS = {
    "Ip.InHdrErrors": "IPv4 header errors or hop limit exceeded",
    "Ip.InAddrErrors": "IPv4 destination not acceptable",
    "Ip.InDiscards": "IPv4 input discards",
    "IpExt.InNoRoutes": "IPv4 no route",
    "IpExt.InTruncatedPkts": "IPv4 truncated packets",
    "TcpExt.IPReversePathFilter": "IPv4 reverse path filter",
    "Ip.FragFails": "IPv4 packet too big",
    "Ip.OutDiscards": "IPv4 output discards",
    "Ip.OutNoRoutes": "IPv4 no route on output",
}
_IP4_INPUT = tuple(_IP4_DROPS)[:7]

_IP6_DROPS = {
    "Ip6InHdrErrors": "IPv6 header errors or hop limit exceeded",
    "Ip6InAddrErrors": "IPv6 destination not acceptable",
    "Ip6InDiscards": "IPv6 input discards",
    "Ip6InNoRoutes": "IPv6 no route",
    "Ip6InTruncatedPkts": "IPv6 truncated packets",
    "Ip6InTooBigErrors": "IPv6 packet too big",
    "Ip6OutDiscards": "IPv6 output discards",
    "Ip6OutNoRoutes": "IPv6 no route on output",
}
_IP6_INPUT = tuple(_IP6_DROPS)[:6]


def parse_pairs(text: str) -> dict[str, int]:
    """Parse /proc/net/snmp or netstat: a line of names, then a line of values, each after ``Group:``.

    Raises:
        CounterError: the text is not of that form.
    """
    counters: dict[str, int] = {}
    lines = text.splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        group, _, keys = names.partition(":")
        again, _, numbers = values.partition(":")
        if group != again or len(keys.split()) != len(numbers.split()):
            raise CounterError(f"/proc/net: line {names[:40]!r} is followed by {values[:40]!r}")
        pairs = zip(keys.split(), numbers.split(), strict=True)
        counters.update({f"{group}.{key}": _number(number) for key, number in pairs})
    return counters


def parse_lines(text: str) -> dict[str, int]:
    """Parse /proc/net/snmp6: a name and a value on each line."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: _number(row[1]) for row in rows if len(row) == 2}


def parse_cpus(text: str) -> dict[str, int]:
    """Parse a table of /proc/net/stat: a line of names, then one of hexadecimal numbers for each CPU."""
    names, *rows = (line.split() for line in text.splitlines())
    return {name: sum(int(row[i], 16) for row in rows) for i, name in enumerate(names)}


def parse_softnet(text: str) -> dict[str, int]:
    """Parse drops and squeezes of all CPUs from /proc/net/softnet_stat (net/core/net-procfs.c)."""
    rows = [[int(column, 16) for column in line.split()[:3]] for line in text.splitlines()]
    return {"dropped": sum(row[1] for row in rows), "time_squeeze": sum(row[2] for row in rows)}


def parse_dev(text: str) -> dict[str, int]:
    """Parse /proc/net/dev into ``dev.INTERFACE.COUNTER``.

    Raises:
        CounterError: a line has too few columns.
    """
    counters: dict[str, int] = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.rpartition(":")
        columns = rest.split()
        if len(columns) < 12:
            raise CounterError(
                f"/proc/net/dev: {line.strip()[:60]!r} has {len(columns)} columns, expected 16"
            )
        for counter, column in _DEV_COLUMNS.items():
            counters[f"dev.{name.strip()}.{counter}"] = _number(columns[column])
    return counters


class KernelForwarder:
    """Counters of a network namespace that forwards.

    Args:
        namespace: by name; None is the current one.
        ports: interfaces that packets come in and go out by; None takes every interface but ``lo``.
    """

    def __init__(self, namespace: str | None, ports: Iterable[str] | None = None) -> None:
        self._namespace = namespace
        self._wanted = None if ports is None else tuple(ports)
        self._paired: dict[str, bool] = {}

    @property
    def name(self) -> str:
        """What it is called in reports."""
        return f"kernel forwarding in {self._namespace or 'this namespace'}"

    def read(self) -> dict[str, int]:
        """Return the counters of the namespace; see `source.CounterSource`."""
        texts = proc_net(self._namespace, ("dev", "snmp", "netstat", "snmp6"))
        counters = parse_dev(texts["dev"])
        if self._wanted is not None:
            for port in self._wanted:
                if f"dev.{port}.rx_packets" not in counters:
                    raise CounterError(f"{self.name}: there is no interface {port!r}")
        counters |= parse_pairs(texts["snmp"]) | parse_pairs(texts["netstat"]) | parse_lines(texts["snmp6"])
        for port in self._ports(counters):
            own = nic_counters(port, self._namespace)
            counters |= {f"dev.{port}.{counter}": value for counter, value in own.items()}
        dropped = egress_drops(self._namespace)
        counters |= {f"dev.{port}.qdisc_drops": dropped.get(port, 0) for port in self._ports(counters)}
        return counters | _evidence(self._namespace)

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes of the device; see `source.CounterSource`."""
        classes: list[DropClass] = []
        for port in self._ports(growth):
            classes += self._port_drops(port, growth)
        for names in (_IP4_DROPS, _IP6_DROPS):
            classes += [
                DropClass(words, growth.get(counter, 0), Side.DEVICE, counter)
                for counter, words in names.items()
            ]
        silent4 = _silent(growth, "Ip.InReceives", "Ip.InDelivers", "Ip.ForwDatagrams", _IP4_INPUT)
        silent6 = _silent(growth, "Ip6InReceives", "Ip6InDelivers", "Ip6OutForwDatagrams", _IP6_INPUT)
        what = "discarded by a route (blackhole, unreachable, prohibit) or without any counter"
        unsent = self._forwarded(growth) - self._left(growth)
        where = "forwarded but left by no port (neighbour unresolved)"
        return [
            *classes,
            DropClass(
                "conntrack: table full", growth.get("nf_conntrack.drop", 0), Side.DEVICE, "nf_conntrack drop"
            ),
            DropClass(f"IPv4 {what}", silent4, Side.DEVICE, "Ip: in - delivered - forwarded", derived=True),
            DropClass(f"IPv6 {what}", silent6, Side.DEVICE, "Ip6: in - delivered - forwarded", derived=True),
            DropClass(where, unsent, Side.DEVICE, "Ip forwarded - dev transmitted", derived=True),
        ]

    def _ports(self, counters: Mapping[str, int]) -> list[str]:
        if self._wanted is not None:
            return list(self._wanted)
        names = [key[4:-11] for key in counters if key.startswith("dev.") and key.endswith(".rx_packets")]
        return [name for name in names if name != "lo"]

    def _port_drops(self, port: str, growth: Mapping[str, int]) -> list[DropClass]:
        classes = [
            *receive_drops(Side.DEVICE, port, growth, f"dev.{port}."),
            DropClass(
                f"device port {port}: egress queue full",
                growth.get(f"dev.{port}.qdisc_drops", 0),
                Side.DEVICE,
                f"{port} qdisc drops",
            ),
        ]
        if self._is_veth(port):
            return classes
        return [
            *classes,
            DropClass(
                f"device port {port}: dropped on transmission",
                growth.get(f"dev.{port}.tx_dropped", 0) + growth.get(f"dev.{port}.tx_errors", 0),
                Side.DEVICE,
                f"{port} tx_dropped, tx_errors",
            ),
        ]

    def _is_veth(self, port: str) -> bool:
        if port not in self._paired:
            self._paired[port] = driver_of(port, self._namespace) == "veth"
        return self._paired[port]

    def _forwarded(self, growth: Mapping[str, int]) -> int:
        return growth.get("Ip.ForwDatagrams", 0) + growth.get("Ip6OutForwDatagrams", 0)

    def _left(self, growth: Mapping[str, int]) -> int:
        counted = ("tx_packets", "tx_dropped", "tx_errors", "qdisc_drops")
        return sum(growth.get(f"dev.{p}.{c}", 0) for p in self._ports(growth) for c in counted)


class PortCounters:
    """Counters of the tester's own ports: what reached them and was dropped before the capture.

    Args:
        ports: (name in reports, interface, namespace) of each.
    """

    name = "tester's ports"

    def __init__(self, ports: Iterable[tuple[str, str, str | None]]) -> None:
        self._ports = tuple(ports)

    def read(self) -> dict[str, int]:
        """Return the counters of the ports; see `source.CounterSource`."""
        counters: dict[str, int] = {}
        for label, interface, namespace in self._ports:
            found = parse_dev(proc_net(namespace, ("dev",))["dev"])
            for counter in _DEV_COLUMNS:
                key = f"dev.{interface}.{counter}"
                if key not in found:
                    raise CounterError(
                        f"port {label}: there is no interface {interface!r} in namespace {namespace}"
                    )
                counters[f"{label}.{counter}"] = found[key]
            own = nic_counters(interface, namespace)
            counters |= {f"{label}.{counter}": value for counter, value in own.items()}
        return counters

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes of the tester; see `source.CounterSource`."""
        classes: list[DropClass] = []
        for label, interface, namespace in self._ports:
            classes += receive_drops(Side.TESTER, label, growth, f"{label}.")
            if driver_of(interface, namespace) != "veth":
                gone = growth.get(f"{label}.tx_dropped", 0) + growth.get(f"{label}.tx_errors", 0)
                source = f"{label} tx_dropped, tx_errors"
                classes.append(DropClass(f"tester port {label}: could not send", gone, Side.TESTER, source))
        return classes


class HostBacklog:
    """The per-CPU receive backlog of this host (/proc/net/softnet_stat): evidence, not a class.

    Packets it had no room for are counted by the interface they came in by as well.
    """

    name = "host backlog"

    def read(self) -> dict[str, int]:
        """Return drops and squeezes of all CPUs; see `source.CounterSource`."""
        return parse_softnet(Path("/proc/net/softnet_stat").read_text())

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:  # noqa: ARG002
        """Return nothing; see the class."""
        return []


def driver_of(interface: str, namespace: str | None) -> str:
    """Return the driver's name of an interface, or an empty text."""
    return driver_and_bus(interface, namespace)[0]


def driver_and_bus(interface: str, namespace: str | None) -> tuple[str, str]:
    """Return the driver's name of an interface and its place on the bus (linux/ethtool.h), or empty texts.

    The place of a PCI device is its address, ``0000:3b:00.0``; veth and tap devices have none.
    """
    try:
        found = nic.driver(interface, namespace)
    except OSError:
        return "", ""
    return ("", "") if found is None else (found.name, found.bus)


def proc_net(namespace: str | None, names: Iterable[str]) -> dict[str, str]:
    """Return files of /proc/net as a namespace shows them.

    Raises:
        CounterError: there is no such namespace or file.
    """
    try:
        with inside(namespace):
            base = Path("/proc/thread-self/net")
            return {name: (base / name).read_text() for name in names}
    except (OSError, NamespaceError) as error:
        raise CounterError(f"counters of namespace {namespace}: {error}") from error


def _evidence(namespace: str | None) -> dict[str, int]:
    """Return the backlog's counters, conntrack's and those of neighbour tables; what the kernel has of them.

    The backlog and the neighbour tables are the host's, whatever the namespace.
    """
    counters: dict[str, int] = {}
    for table, label in _STAT_TABLES.items():
        try:
            found = parse_cpus(proc_net(namespace, (table,))[table])
        except CounterError:  # no such module, or IPv6 is off
            continue
        for name in _STAT_COLUMNS & found.keys():
            counters[f"{label}.{name}"] = counters.get(f"{label}.{name}", 0) + found[name]
    softnet = parse_softnet(proc_net(namespace, ("softnet_stat",))["softnet_stat"])
    return counters | {f"softnet.{name}": n for name, n in softnet.items()}


def _silent(
    growth: Mapping[str, int], came: str, delivered: str, forwarded: str, named: Iterable[str]
) -> int:
    """Return packets that came in and neither went on nor were named as a drop."""
    known = growth.get(delivered, 0) + growth.get(forwarded, 0) + sum(growth.get(n, 0) for n in named)
    return growth.get(came, 0) - known


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise CounterError(f"/proc/net: {text[:40]!r} is not a number") from None
