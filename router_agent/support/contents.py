"""What goes into the bundle. Nothing here disturbs forwarding: no table is printed, nothing reset or written.

VPP's ``show ip fib`` of a million routes would hold its main thread for seconds; its summary and the agent's
own account say as much. ``show memory`` walks the heap for as long; the agent's status has the figures.
``show runtime`` stops the workers for some microseconds, once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from router_agent.config import Config, ConfigError, ExabgpFeedConfig, VppFibConfig, load
from router_agent.support.collect import Collector, Taken

AGENT_CONFIG = Path("/etc/router-agent/agent.yaml")
CONTROL_SOCKET = Path("/run/router-agent/control.sock")

CONFIGURATIONS = (
    "etc/router-agent/*",
    "etc/frr/*.conf",
    "etc/frr/daemons",
    "etc/frr/vtysh.conf",
    "etc/exabgp/*.conf",
    "etc/exabgp/*.env",
    "etc/exabgp/checks/*",
    "etc/bird/*.conf",
    "etc/vpp/*.conf",
    "etc/vpp/*.yaml",
    "etc/pop-router/*",
    "etc/default/grub",
    "etc/default/grub.d/*.cfg",
    "etc/default/irqbalance",
    "etc/sysctl.d/*.conf",
    "etc/modprobe.d/pop-router*",
    "etc/modules-load.d/pop-router*",
    "etc/udev/rules.d/60-pop-router*",
    "etc/driverctl.d/*",
    "etc/systemd/network/10-pop-router*",
    "etc/systemd/networkd.conf.d/*",
    "etc/systemd/system/router-agent*",
    "etc/systemd/system/exabgp.service",
    "etc/systemd/system/management-route.*",
    "etc/systemd/system/vpp-interfaces.service",
    "etc/systemd/system/vpp.service.d/*",
    "etc/systemd/system/frr.service.d/*",
    "etc/apt/preferences.d/pop-router*",
    "etc/apt/sources.list.d/pop-router*",
    "etc/apt/sources.list.d/frr*",
    "etc/os-release",
)
"""Files that go into the bundle, below the root directory; secrets are looked for in each."""

SECRET_SOURCES = (
    "etc/frr/**/*",
    "etc/exabgp/**/*",
    "etc/bird/**/*",
    "etc/snmp/*.conf",
    "var/lib/snmp/*.conf",
    "var/lib/router-agent/**/*.conf",
    "var/lib/pop-router/**/*.conf",
    "etc/prometheus/*.y*ml",
)
"""Files that are read only to know what must not be in the bundle."""

LATEST = (
    "var/lib/router-agent/snapshots/*.json",
    "var/lib/router-agent/drained",
    "run/router-agent/drained",
)
"""Of each, the newest file goes into the bundle, where there is one."""

UNITS = (
    *("router-agent*", "frr.service", "exabgp.service", "vpp.service", "vpp-interfaces.service"),
    *("management-route.*", "systemd-networkd.service", "prometheus-*", "pop-router*", "last-good*"),
)
"""Units whose state and journal go into the bundle; patterns as systemd takes them."""

_VPP = (
    *("show version verbose", "show threads", "show interface", "show interface address"),
    *("show hardware-interfaces", "show interface rx-placement", "show errors", "show runtime"),
    *("show buffers", "show physmem"),
    *("show ip fib summary", "show ip6 fib summary", "show fib walk", "show lcp", "show bond"),
    *("show api clients", "show plugins", "show logging", "show dpdk buffer"),
)
_FRR = (
    *("show version", "show bgp summary json", "show bgp vrf all summary json", "show bgp neighbors json"),
    *("show ip route summary json", "show ipv6 route summary json", "show bfd peers json"),
    *("show rpki cache-connection", "show zebra client summary", "show zebra dplane detailed"),
    *("show memory", "show thread cpu", "show ip nht", "show interface brief", "show logging"),
)
_EXPLAINED = 3


@dataclass(frozen=True, slots=True)
class Host:
    """Where things are on the host that is looked at.

    Attributes:
        root: of the files.
        config: the agent's configuration.
        socket: the agent's control socket.
        vtysh: the command that runs FRR's shell.
        agent: the command that runs the agent's own program.
        python: the command that runs the agent's interpreter.
        prefixes: to explain, besides those that are not in the FIB.
        further: files to take besides.
    """

    root: Path = Path("/")
    config: Path = AGENT_CONFIG
    socket: Path = CONTROL_SOCKET
    vtysh: Sequence[str] = ("vtysh",)
    agent: Sequence[str] = (sys.executable, "-m", "router_agent.cli")
    python: Sequence[str] = (sys.executable,)
    prefixes: Sequence[str] = ()
    further: Sequence[Path] = field(default_factory=tuple)


def collectors(host: Host, since: str) -> Iterator[Collector]:
    """Yield everything that is collected.

    Args:
        host: see `Host`.
        since: how far back the journal goes, as journalctl understands it.
    """
    yield from _configurations(host)
    yield from _agent(host)
    yield from _frr(host)
    vpps, namespaces = _planes(host)
    for number, vpp in enumerate(vpps):
        yield from _vpp(host, vpp, "vpp" if number == 0 else f"vpp-{number + 1}")
    for namespace in namespaces:
        yield from _network(host, namespace)
    yield from _machine(host)
    yield from _logs(since)
    yield from _latest(host)
    for number, path in enumerate(host.further, 1):
        yield _document(f"further/{number}-{path.name}", path)


def sources(host: Host) -> Iterator[Collector]:
    """Yield the files that are read for their secrets alone."""
    for pattern in SECRET_SOURCES:
        for path in sorted(host.root.glob(pattern)):
            if path.is_file():
                yield Collector(f"sources/{path.relative_to(host.root)}", file=path, configuration=True)


def explained(host: Host, absent: Taken) -> Iterator[Collector]:
    """Yield the explanations of some prefixes: those asked for, and the first that are not in the FIB.

    Args:
        host: see `Host`.
        absent: what was collected as ``agent/routes-absent.jsonl``.
    """
    prefixes = list(host.prefixes)
    for line in absent.content.decode(errors="replace").splitlines()[:_EXPLAINED]:
        try:
            prefixes.append(str(json.loads(line)["prefix"]))
        except (ValueError, KeyError, TypeError):
            break
    for number, prefix in enumerate(dict.fromkeys(prefixes), 1):
        words = ("explain", prefix, "--vtysh", " ".join(host.vtysh))
        yield _asked(host, f"agent/explain-{number}.txt", *words)


def _configurations(host: Host) -> Iterator[Collector]:
    paths = {path for pattern in CONFIGURATIONS for path in host.root.glob(pattern) if path.is_file()}
    if host.config.is_absolute() and host.config not in paths:
        paths.add(host.config)
    for path in sorted(paths):
        within = path.relative_to(host.root) if path.is_relative_to(host.root) else path.relative_to("/")
        yield Collector(f"configuration/{within}", file=path, configuration=True)


def _asked(host: Host, member: str, *words: str, most: int = 2 << 20) -> Collector:
    """Return a question to the running agent."""
    environment = {"ROUTER_AGENT_SOCKET": str(host.socket)}
    return Collector(member, (*host.agent, *words), most=most, asks="agent", environment=environment)


def _agent(host: Host) -> Iterator[Collector]:
    agent = tuple(host.agent)
    yield Collector("agent/version.txt", (*agent, "version"))
    yield Collector("agent/check-config.txt", (*agent, "check-config", str(host.config)), configuration=True)
    yield _asked(host, "agent/status.json", "show", "status", "--json")
    yield _asked(host, "agent/audit.json", "audit", "--json")
    yield _asked(host, "agent/neighbours.jsonl", "show", "neighbours", "--json")
    yield _asked(host, "agent/routes-absent.jsonl", "show", "routes", "--absent", "--limit", "1000", "--json")
    yield _asked(host, "agent/status.txt", "show", "status")
    yield Collector("agent/drained.json", (*agent, "drained", "--json"))


def _frr(host: Host) -> Iterator[Collector]:
    shell = tuple(host.vtysh)
    yield Collector(
        "frr/running-config.txt", (*shell, "-c", "show running-config"), asks="FRR", configuration=True
    )
    for command in _FRR:
        name = command.removeprefix("show ").removesuffix(" json").replace(" ", "-")
        suffix = "json" if command.endswith(" json") else "txt"
        yield Collector(f"frr/{name}.{suffix}", (*shell, "-c", command), asks="FRR")


def _planes(host: Host) -> tuple[list[Path], list[str | None]]:
    """Return the API sockets of the VPPs and the network namespaces, as far as the configuration tells."""
    try:
        config: Config | None = load(host.config)
    except ConfigError:
        config = None
    if config is None:
        return [Path("/run/vpp/api.sock")], [None]
    vpps = [p.fib.api_socket for p in config.pipelines if isinstance(p.fib, VppFibConfig)]
    feeds = [p.feed.namespace for p in config.pipelines if not isinstance(p.feed, ExabgpFeedConfig)]
    fibs = [p.fib.namespace for p in config.pipelines if not isinstance(p.fib, VppFibConfig)]
    return list(dict.fromkeys(vpps)), list(dict.fromkeys([*feeds, *fibs])) or [None]


def _vpp(host: Host, api_socket: Path, name: str) -> Iterator[Collector]:
    shell = ("vppctl", "-s", str(api_socket.with_name("cli.sock")))
    for command in _VPP:
        member = f"{name}/{command.removeprefix('show ').replace(' ', '-')}.txt"
        yield Collector(member, (*shell, *command.split()), seconds=10.0, asks=name)
    counters = ("traffic", "counters", "--vpp", str(api_socket.with_name("stats.sock")))
    yield Collector(f"{name}/stats-segment.txt", (*host.agent, *counters), most=8 << 20, seconds=30.0)


def _network(host: Host, namespace: str | None) -> Iterator[Collector]:
    room = "network" if namespace is None else f"network-{Path(namespace).name}"
    where = namespace if namespace is None or "/" in namespace else f"/run/netns/{namespace}"
    inside = () if where is None else ("nsenter", f"--net={where}", "--")
    for name, command in (
        ("links.txt", ("ip", "-statistics", "-details", "link", "show")),
        ("addresses.txt", ("ip", "address", "show")),
        ("rules.txt", ("ip", "rule", "show")),
        ("rules6.txt", ("ip", "-6", "rule", "show")),
        ("next-hops.txt", ("ip", "nexthop", "show")),
        ("neighbours.txt", ("ip", "-statistics", "neighbour", "show")),
        ("routes-static.txt", ("ip", "route", "show", "table", "all", "proto", "static")),
        ("routes-management.txt", ("ip", "route", "show", "table", "1000")),
        ("qdisc.txt", ("tc", "-statistics", "qdisc", "show")),
        ("sockets.txt", ("ss", "-s")),
        ("bgp-sockets.txt", ("ss", "-tinmo", "( sport = :179 or dport = :179 )")),
        ("counters.txt", ("nstat", "-asz")),
        ("netlink-sockets.txt", ("cat", "/proc/net/netlink")),
        ("softnet.txt", ("cat", "/proc/net/softnet_stat")),
        ("route-counts.json", (*host.python, "-m", "router_agent.support.kernel_routes")),
    ):
        yield Collector(f"{room}/{name}", (*inside, *command), seconds=30.0, most=4 << 20)
    if namespace is None:
        for port in _ports(host):
            yield Collector(f"{room}/ethtool/{port}-driver.txt", ("ethtool", "-i", port))
            yield Collector(f"{room}/ethtool/{port}-counters.txt", ("ethtool", "-S", port))
            yield Collector(f"{room}/ethtool/{port}-settings.txt", ("ethtool", port))


def _ports(host: Host) -> list[str]:
    """Return the network devices with hardware behind them."""
    return sorted(path.parent.name for path in host.root.glob("sys/class/net/*/device"))


def _machine(host: Host) -> Iterator[Collector]:
    for name in ("cmdline", "meminfo", "interrupts", "loadavg", "uptime", "vmstat", "modules", "version"):
        yield Collector(f"machine/{name}.txt", file=host.root / "proc" / name)
    for name in ("cpu", "io", "memory"):
        yield Collector(f"machine/pressure-{name}.txt", file=host.root / "proc/pressure" / name)
    yield Collector(
        "machine/packages.txt", ("dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n")
    )
    yield Collector("machine/python-packages.txt", (*host.python, "-c", _PYTHON_PACKAGES))
    yield Collector("machine/environment.json", (*host.agent, "traffic", "environment"), seconds=30.0)
    pages = ("-name", "nr_hugepages", "-o", "-name", "free_hugepages", "-o", "-name", "surplus_hugepages")
    for name, command in (
        ("cpus.txt", ("lscpu", "--extended")),
        ("cpu-model.txt", ("lscpu",)),
        (
            "hugepages.txt",
            ("find", "/sys/devices/system/node", "-path", "*hugepages-*", "(", *pages, ")", *_SHOWN),
        ),
        ("driverctl.txt", ("driverctl", "list-overrides")),
        ("pci-network.txt", ("lspci", "-nnk", "-d", "::0200")),
        ("iommu-groups.txt", ("find", "/sys/kernel/iommu_groups", "-mindepth", "3", "-maxdepth", "3")),
        ("isolated-cpus.txt", ("cat", "/sys/devices/system/cpu/isolated")),
        ("disks.txt", ("df", "-hT")),
        ("inodes.txt", ("df", "-i")),
        ("clock.txt", ("timedatectl", "status")),
        ("clock-source.txt", ("chronyc", "-n", "tracking")),
        ("threads.txt", ("ps", "-eLo", "pid,tid,psr,cls,rtprio,ni,stat,rss,pcpu,wchan:24,comm")),
        ("units.txt", ("systemctl", "status", "--no-pager", "--full", "--lines=20", *UNITS)),
        ("units-failed.txt", ("systemctl", "list-units", "--no-pager", "--failed", "--all")),
        ("units-properties.txt", ("systemctl", "show", "--no-pager", f"--property={_PROPERTIES}", *UNITS)),
        ("security-agent.txt", ("systemd-analyze", "security", "--no-pager", "router-agent.service")),
        ("boots.txt", ("journalctl", "--list-boots", "--no-pager")),
        ("core-dumps.txt", ("coredumpctl", "list", "--no-pager")),
        ("core-dump-last.txt", ("coredumpctl", "info", "--no-pager", "-1")),
    ):
        yield Collector(f"machine/{name}", command)


_SHOWN = ("-print", "-exec", "cat", "{}", ";")
_PYTHON_PACKAGES = (
    "from importlib.metadata import distributions as d; "
    "print(*sorted(f'{p.name} {p.version}' for p in d()), sep='\\n')"
)
"""An environment of role venv has no pip."""
_PROPERTIES = ",".join(
    (
        *("Id", "ActiveState", "SubState", "Result", "NRestarts", "ExecMainStartTimestamp", "ExecMainStatus"),
        *("StatusText", "MemoryCurrent", "MemoryPeak", "CPUUsageNSec", "TasksCurrent", "FragmentPath"),
        *("UnitFileState", "NeedDaemonReload"),
    )
)


def _logs(since: str) -> Iterator[Collector]:
    units = tuple(word for unit in UNITS for word in ("--unit", unit))
    common = ("journalctl", "--no-pager", "--quiet", "--since", since, "--output", "short-iso-precise")
    yield Collector(
        "logs/journal.txt", (*common, *units), seconds=60.0, most=16 << 20, keep_end=True, asks="journal"
    )
    events = ("--output", "json", "--output-fields", _FIELDS, "SYSLOG_IDENTIFIER=router-agent")
    yield Collector(
        "logs/events.jsonl",
        (*common[:-2], *events),
        seconds=60.0,
        most=8 << 20,
        keep_end=True,
        asks="journal",
    )
    yield Collector(
        "logs/warnings.txt",
        (*common, "--priority", "warning"),
        seconds=60.0,
        most=4 << 20,
        keep_end=True,
        asks="journal",
    )
    yield Collector(
        "logs/kernel.txt", ("dmesg", "--time-format", "iso"), seconds=15.0, most=2 << 20, keep_end=True
    )


_FIELDS = ",".join(
    (
        *("__REALTIME_TIMESTAMP", "PRIORITY", "MESSAGE", "LOGGER", "ROUTER_AGENT_EVENT"),
        *("ROUTER_AGENT_PIPELINE", "ROUTER_AGENT_PROBLEM", "ROUTER_AGENT_ROUTES", "ROUTER_AGENT_SECONDS"),
    )
)


def _latest(host: Host) -> Iterator[Collector]:
    for pattern in LATEST:
        paths = [path for path in host.root.glob(pattern) if path.is_file()]
        if paths:
            newest = max(paths, key=lambda path: path.stat().st_mtime)
            yield _document(f"latest/{newest.relative_to(host.root)}", newest)


def _document(member: str, path: Path) -> Collector:
    """Return a file that may be one long line: in such a one only what is assigned to a word goes."""
    return Collector(member, file=path, most=16 << 20, configuration=path.suffix not in _DOCUMENTS)


_DOCUMENTS = (".json", ".jsonl", ".html", ".xml")
