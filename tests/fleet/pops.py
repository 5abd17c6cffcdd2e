"""The two POPs as one thing: routers built by the kit's playbooks, neighbours, traffic through them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import numpy as np

from router_agent import __version__
from router_agent.lab.commands import ip_batch
from router_agent.lab.containers.hosts import Containers
from router_agent.lab.daemon import wait_until
from router_agent.lab.vm.play import Playbooks, PlayResult
from router_agent.model import Family, prefixes_of
from router_agent.traffic.generators.background import BackgroundTraffic
from router_agent.traffic.generators.generator import TrialResult
from router_agent.traffic.scenario import Destinations, Endpoints, Port, Scenario

from .neighbours import IPV4, IPV6, TRANSIT_IPV4, Neighbours
from .packages import release
from .plan import (
    A1,
    AS,
    INTERNET,
    INTERNET_AS,
    LAN,
    POPS,
    ROOMS,
    ROUTERS,
    TESTER,
    TESTER_MAC,
    TRANSIT_AS,
    UPLINK,
    Pop,
    Router,
)

PPS = 1_500
"""Packets a second of all streams together; a third of them each from POP a, from POP b, and to both."""
FLOWS = 600
"""Destinations of each stream from a POP."""
PINNED = 60
"""Destinations of a stream that stays on a drained router: so few that what is left counts as no traffic."""
SOURCES = (IPv4Network("198.19.0.0/16"), IPv6Network("2001:2::/48"))
INTERVAL_S = 0.01
_SETTLE_SECONDS = 120.0

ROOT = Path(__file__).parents[2]
AGENT = "/opt/router-agent/bin/router-agent"
FORMER_AGENT = "0.0.9"
FORMER_EXABGP = "5.0.14"
"""Versions that the routers are built with."""
_FORMER_EXABGP_SHA256 = "6fd1835656bd926b7e5ebd0c74bc353a7e87f60ebd4c445e19c46b79b30c38df"
"""Of its wheel."""

ROLLOUT_LOCK = "/var/lib/pop-router/rollout.lock"

_FINGERPRINT = {
    "packages": "dpkg-query -W",
    "files": "find -L /etc/frr /etc/exabgp /etc/router-agent /etc/systemd/network -type f "
    "-exec sha256sum {} + | sort -k 2",
    "environments": "readlink -f /opt/router-agent /opt/exabgp",
    "processes": "cat /run/frr/*.pid; systemctl show -p MainPID,NRestarts frr exabgp router-agent",
    "sessions": "vtysh -c 'show bgp summary json' | python3 -c '"
    'import json, sys; print(sorted((peer, entry["state"], entry["connectionsEstablished"]) '
    'for family in json.load(sys.stdin).values() for peer, entry in family.get("peers", {}).items()))\'',
}

_SENDERS = [room for room in ROOMS if room != TESTER]


def inventory(packages: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Return what the inventory says of each router, beside how it is reached.

    Args:
        packages: directory of FRR's packages, by router.
    """
    return {
        router.name: {
            **_variables(router),
            "frr_package_source": {"kind": "directory", "path": str(packages[router.name])},
        }
        for router in ROUTERS
    }


def _variables(router: Router) -> dict[str, Any]:
    families = list(Family)
    return {
        "router_pop": router.pop.name,
        "router_asn": AS,
        "router_id": str(router.lan(Family.IPV4).ip),
        "router_forwarding": "kernel",
        "router_expected_routes": {"ipv4": 20_000, "ipv6": 5_000},
        "router_networks": {
            f"ipv{4 if f is Family.IPV4 else 6}": [str(router.pop.network[f])] for f in families
        },
        "router_ports": [
            {"name": UPLINK, "device": UPLINK, "addresses": [str(router.uplink(f)) for f in families]},
            {"name": LAN, "device": LAN, "addresses": [str(router.lan(f)) for f in families]},
        ],
        "router_peers": peers(router),
        # AS numbers and prefixes are documentation ones.
        "frr_refuse_reserved_asns": False,
        # FRR is installed, and no registry is in reach.
        "preflight_packages": False,
        # The only router of its POP: its traffic has nowhere to go, and a change costs what it costs.
        **({} if mates(router) else {"drain_alone": True, "drain_below_pps": 10 * PPS}),
        # How long is waited for what will not come.
        "frr_ready_seconds": 30,
        "commit_confirm_seconds": 30,
        "commit_confirm_pause_seconds": 1,
        # A container has no boot loader, and where the kernel forwards there is nothing to pass to one.
        "kernel_cmdline_require_grub_boot": False,
    }


def peers(router: Router) -> list[dict[str, Any]]:
    """Return what the inventory says of a router's neighbours."""
    families = list(Family)
    return [
        *(
            {
                "name": f"internet_{_short(f)}",
                "address": str(router.uplink(f, 2).ip),
                "asn": INTERNET_AS,
                "maximum_prefixes": 2 * (IPV4 + IPV6),
            }
            for f in families
        ),
        *(
            {
                "name": f"servers_{_short(f)}",
                "address": str(router.pop.servers(f)[0].ip),
                "asn": router.pop.asn,
                "maximum_prefixes": 10,
                "announce_all": True,
            }
            for f in families
        ),
        {
            "name": "transit_v4",
            "speaker": "exabgp",
            "address": str(router.uplink(Family.IPV4, 3).ip),
            "local_address": str(router.uplink(Family.IPV4).ip),
            "asn": TRANSIT_AS,
            "maximum_prefixes": 2 * TRANSIT_IPV4,
        },
    ]


def mates(router: Router) -> list[Router]:
    """Return the other routers of a router's POP."""
    return [other for other in ROUTERS if other.pop is router.pop and other is not router]


def pinned_exabgp() -> str:
    """Return the version of ExaBGP that this checkout pins."""
    pinned = ROOT / "roles" / "exabgp" / "files" / "requirements.in"
    return pinned.read_text().strip().removeprefix("exabgp==")


def former_checkout(directory: Path) -> Path:
    """Return a checkout of the kit as it was before: other versions of the agent and of ExaBGP."""
    for name in ("playbooks", "roles", "router_agent", "templates"):
        shutil.copytree(ROOT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__", "lab"))
    for name in ("ansible.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, directory)
    for path in (directory / "pyproject.toml", directory / "router_agent" / "__init__.py"):
        path.write_text(path.read_text().replace(f'"{__version__}"', f'"{FORMER_AGENT}"'))
    pinned = directory / "roles" / "exabgp" / "files" / "requirements.txt"
    pinned.write_text(f"exabgp=={FORMER_EXABGP} --hash=sha256:{_FORMER_EXABGP_SHA256}\n")
    # What was downloaded once is there.
    (directory / "build").symlink_to(ROOT / "build")
    return directory


class Fleet:
    """The routers and what is around them.

    Args:
        lab: the hosts; they are up.

    Attributes:
        lab: the hosts.
        neighbours: the BGP speakers around them.
        packages: directory of FRR's packages, by router; `write_inventory` tells.
        playbooks: runs the kit's playbooks.
    """

    def __init__(self, lab: Containers) -> None:
        self.lab = lab
        self.neighbours = Neighbours(lab)
        self.packages = {router.name: lab.runtime / "packages" for router in ROUTERS}
        self._inventory = lab.runtime / "inventory.yml"
        self.playbooks = self._playbooks(lab.logs, ROOT)

    def build(self) -> PlayResult:
        """Make routers of the hosts, by the kit as it was, and wait until traffic goes everywhere."""
        self.neighbours.start()
        self.write_inventory()
        former = former_checkout(self.lab.runtime / "former")
        logs = self.lab.logs / "former"
        logs.mkdir()
        release(self.lab.image, self.packages[A1.name], "+lab1")
        result = self._playbooks(logs, former).run("site.yml").require_success()
        self.settle()
        return result

    def write_inventory(self, further: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        """Write what the routers are to be; `further` are variables of some, by their names."""
        routers = inventory(self.packages)
        for name, variables in (further or {}).items():
            routers[name] |= variables
        self.lab.write_inventory(self._inventory, routers)

    def upgrade(
        self,
        *arguments: str,
        progress: Callable[[str], None] = lambda _task: None,
        **variables: Any,
    ) -> PlayResult:
        """Run ``playbooks/upgrade.yml`` to its end, whatever that is.

        Args:
            arguments: further arguments of ansible-playbook.
            progress: told the task that runs.
            variables: extra variables.
        """
        given = {
            "upgrade_reports": str(self.reports),
            "upgrade_settle_seconds": 120,
            "upgrade_soak_seconds": 2,
            "upgrade_pause_seconds": 1,
            **variables,
        }
        return self.playbooks.run("upgrade.yml", given, *arguments, progress=progress)

    @property
    def reports(self) -> Path:
        """Directory of the rollouts' records."""
        return self.lab.logs / "upgrade"

    def rollout(self) -> dict[str, Any]:
        """Return the record of the last rollout."""
        found: dict[str, Any] = json.loads((self.reports / "rollout.json").read_text())
        return found

    def verdicts(self) -> dict[str, str]:
        """Return what the last rollout says of each router, by its name."""
        return {entry["host"]: entry["verdict"] for entry in self.rollout()["hosts"]}

    def locked(self) -> list[str]:
        """Return the routers whose lock a rollout holds."""
        held = f"test -e {ROLLOUT_LOCK}"
        return [name for name, host in self.lab.hosts.items() if host.try_run(held).returncode == 0]

    def is_drained(self, router: Router) -> bool:
        """Return whether a router says that it is drained."""
        return self.lab.hosts[router.name].try_run(f"{AGENT} drained").returncode == 0

    def version(self, router: Router) -> str:
        """Return the version of FRR that is installed on a router, as Debian's package has it."""
        return self.lab.hosts[router.name].run("dpkg-query -W -f '${Version}' frr").strip()

    def agent(self, router: Router) -> str:
        """Return the version of the agent that is installed on a router."""
        return self.lab.hosts[router.name].run(f"{AGENT} version").split()[-1]

    def exabgp(self, router: Router) -> str:
        """Return the version of ExaBGP that is installed on a router."""
        program = "from importlib.metadata import version; print(version('exabgp'))"
        return self.lab.hosts[router.name].run(f'/opt/exabgp/bin/python -c "{program}"').strip()

    def fingerprint(self, router: Router) -> dict[str, str]:
        """Return what a change of a router would change: packages, files, and which processes run."""
        host = self.lab.hosts[router.name]
        return {what: host.run(command) for what, command in _FINGERPRINT.items()}

    def settle(self) -> None:
        """Wait until every session is up, and everything behind a POP sends by each of its routers."""
        self.neighbours.wait_established()
        wait_until(
            lambda: all(self.carrying(pop) == self.everyone(pop) for pop in POPS),
            "each router to be chosen for every prefix",
            seconds=_SETTLE_SECONDS,
            poll_seconds=0.5,
            found=lambda: "; ".join(f"{pop.name}: {self.neighbours.ways(pop)}" for pop in POPS),
        )

    def carrying(self, pop: Pop) -> set[str]:
        """Return the routers of a POP that its servers send every prefix by."""
        return {name for name, prefixes in self.neighbours.ways(pop).items() if prefixes >= IPV4}

    def everyone(self, pop: Pop) -> set[str]:
        """Return the routers of a POP."""
        return {router.name for router in ROUTERS if router.pop is pop}

    def _playbooks(self, logs: Path, checkout: Path) -> Playbooks:
        return Playbooks(
            self._inventory, host=A1.name, logs=logs, sockets=self.lab.runtime, checkout=checkout
        )

    def sent_by(self, router: Router) -> int:
        """Return how many packets the Internet has received from a router, tests' and others'."""
        path = f"/sys/class/net/{UPLINK}/statistics/tx_packets"
        return int(self.lab.hosts[router.name].run(f"cat {path}"))

    @property
    def endpoints(self) -> Endpoints:
        """The tester's ports: those that send, then everywhere that packets can arrive."""
        namespace = self.lab.wiring.namespace
        return Endpoints(
            (
                *(Port(f"from-{room}", room, namespace(TESTER), TESTER_MAC) for room in _SENDERS),
                *(Port(router.far_uplink, router.far_uplink, namespace(INTERNET)) for router in ROUTERS),
                *(Port(f"to-{pop.room}", LAN, namespace(pop.room)) for pop in POPS),
            )
        )

    def destinations(self) -> Destinations:
        """Return where traffic goes: from the servers of each POP to the Internet, and from there to them."""
        keys = {Family.IPV4: self.neighbours.internet.table.keys(Family.IPV4)}
        outward = [
            Destinations.draw(keys, count=FLOWS, ingress=_SENDERS.index(pop.room), seed=seed)
            for seed, pop in enumerate(POPS)
        ]
        inward = Destinations.of(
            [IPv4Network(server.ip) for pop in POPS for server in pop.servers(Family.IPV4)],
            [self.endpoints.position(f"to-{pop.room}") for pop in POPS for _ in pop.servers(Family.IPV4)],
            ingress=_SENDERS.index(INTERNET),
        )
        return Destinations.joined([*outward, inward])

    @contextmanager
    def pinned(self, router: Router) -> Iterator[Destinations]:
        """Have the servers of a POP send by one router, whatever BGP says, to prefixes only ExaBGP tells.

        The router has them from its agent alone. Gives where to send.
        """
        namespace, gateway = self.lab.wiring.namespace(router.pop.room), router.lan(Family.IPV4).ip
        keys = self.neighbours.transit.table.keys(Family.IPV4)
        routes = [f"{prefix} via {gateway} proto static" for prefix in prefixes_of(keys)]
        ip_batch((f"route add {route}" for route in routes), namespace=namespace)
        try:
            sender = _SENDERS.index(router.pop.room)
            yield Destinations.draw({Family.IPV4: keys}, count=PINNED, ingress=sender)
        finally:
            ip_batch((f"route del {route}" for route in routes), namespace=namespace)

    @contextmanager
    def traffic(self, *further: Destinations, seconds: float = 900.0) -> Iterator[Traffic]:
        """Have traffic both ways through every router, from before the body until after it.

        Args:
            further: where else to send.
            seconds: how long the body may take.
        """
        destinations = Destinations.joined([self.destinations(), *further])
        scenario = Scenario(
            name="fleet", destinations=destinations, rate_pps=PPS, interval_s=INTERVAL_S, sources=SOURCES
        )
        with BackgroundTraffic(scenario, self.endpoints, max_duration_s=seconds) as running:
            traffic = Traffic(running, destinations)
            traffic.wait_flowing()
            yield traffic
            traffic.wait_flowing()


class Traffic:
    """Traffic that runs, and what happened meanwhile.

    Attributes:
        destinations: where it goes.
        events: (seconds since it began, what happened).
    """

    def __init__(self, running: BackgroundTraffic, destinations: Destinations) -> None:
        self.destinations = destinations
        self.events: list[tuple[float, str]] = []
        self._running = running

    def note(self, what: str) -> None:
        """Note that something happens now; a playbook's tasks, for one."""
        self.events.append((self._running.snapshot().elapsed_s, what))

    def wait_flowing(self) -> None:
        """Wait until packets arrive, as many as are sent in a second."""
        seen = self._running.snapshot().received
        wait_until(
            lambda: self._running.snapshot().received > seen + PPS,
            "traffic to flow",
            seconds=_SETTLE_SECONDS,
        )

    @property
    def result(self) -> TrialResult:
        """The account of it, after the block."""
        return self._running.result

    def account(self) -> dict[str, tuple[int, int]]:
        """Return packets sent and lost of each POP, those to it and those from it, by its name."""
        sent, arrived = self.result.sent_to, self.result.arrived.sum(axis=0)
        pops = np.array([self._pop(row) for row in range(len(self.destinations))])
        return {
            pop.name: (int(sent[pops == pop.name].sum()), int((sent - arrived)[pops == pop.name].sum()))
            for pop in POPS
        }

    def losses(self) -> str:
        """Return for each second with a loss how many packets, of which POP, and what was done then."""
        result = self.result
        if result.losses is None:
            return f"{result.lost} packets, too many to list"
        seconds = (result.losses.intervals * result.series.interval_s).astype(int)
        pops = [self._pop(row) for row in result.losses.rows.tolist()]
        lines = []
        for second in np.unique(seconds).tolist():
            here = Counter(pop for pop, at in zip(pops, seconds.tolist(), strict=True) if at == second)
            words = ", ".join(f"{count} of POP {pop}" for pop, count in sorted(here.items()))
            before = [what for when, what in self.events if when < second + 1]
            lines.append(f"second {second}: {words}; {before[-1] if before else 'before anything'}")
        return "\n".join(lines)

    def lossy_seconds(self) -> float:
        """Return how long packets were lost, in intervals that had a loss."""
        series = self.result.series
        return float((series.lost > 0).sum()) * series.interval_s

    def _pop(self, row: int) -> str:
        """Return the POP that a destination is of: where its packets come from, or where they go."""
        sender = _SENDERS[int(self.destinations.ingress[row])]
        prefix = self.destinations.prefix(row)
        return next(
            pop.name
            for pop in POPS
            if sender == pop.room or (sender == INTERNET and prefix.subnet_of(pop.network[Family.IPV4]))  # type: ignore[arg-type]
        )


def _short(family: Family) -> str:
    return "v4" if family is Family.IPV4 else "v6"
