"""Files that were put back are taken into use, with as little disturbance as that takes.

The order is that of the playbook: who manages the host comes first, then what forwards, then what decides
where packets go. A program whose files are as they were is left alone, if it runs as it did.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from router_agent.lastgood import catalogue, frr, ports
from router_agent.lastgood.catalogue import Part
from router_agent.lastgood.commands import run, units
from router_agent.lastgood.steps import Steps

_RUNS = ("active", "activating", "reloading")
_STARTS = {"vpp.service": 300.0, "frr.service": 300.0, "router-agent.service": 180.0}
"""Seconds that starting may take, where that is long."""
_READ_BY_RELOAD = ("/etc/exabgp/exabgp.conf", f"{catalogue.PROGRAMS}/exabgp_relay.py")
_READ_EACH_TIME = (
    "/etc/exabgp/checks",
    "/etc/pop-router/exabgp.applied",
    f"{catalogue.PROGRAMS}/vpp-devices",
    f"{catalogue.PROGRAMS}/vpp-ready",
)
_OVERRIDES = "/etc/driverctl.d/pci-"


@dataclass(frozen=True)
class Target:
    """What is to be taken into use.

    Attributes:
        parts: the catalogue.
        changed: paths that were put back.
        running: units, and whether they ran.
        made: what files of systemd-networkd made that were replaced; see `ports.made_by`.
        links: the kernel's links as they were.
        routes: likewise.
        frr: what FRR's file and what it ran differed in.
        root: where the host's files are.
    """

    parts: Sequence[Part]
    changed: Collection[str]
    running: Mapping[str, bool]
    made: Sequence[dict[str, Any]] = ()
    links: Sequence[dict[str, Any]] = ()
    routes: Sequence[dict[str, Any]] = ()
    frr: Collection[str] = ()
    root: Path = field(default=Path("/"))

    def of(self, wanted: Part) -> list[str]:
        """Return the paths of a part that were put back."""
        part = next(part for part in self.parts if part.name == wanted.name)
        return [path for path in self.changed if any(fnmatch(path, pattern) for pattern in part.patterns)]

    def runs(self, service: str) -> bool:
        """Whether a unit is to run."""
        return self.running.get(service, False)


def services(parts: Sequence[Part]) -> list[str]:
    """Return the units whose running is kept."""
    return [service for part in parts for service in part.services]


def running(parts: Sequence[Part]) -> dict[str, bool]:
    """Return the units whose running is kept, and whether they run now."""
    return {name: state in _RUNS for name, state in units(services(parts)).items()}


def stop_strangers(steps: Steps, target: Target) -> None:
    """Stop what did not run: while its unit is still there to say how."""
    for name, state in units(list(target.running)).items():
        # Those of the ports come later, with the ports.
        if state != "inactive" and not target.runs(name) and name not in catalogue.PORTS.services:
            steps.do("systemctl", "stop", name)


def take(steps: Steps, target: Target) -> None:
    """Have everything run by the files that are there now."""
    if any(path.startswith(catalogue.UNITS) for path in target.changed):
        steps.do("systemctl", "daemon-reload")
    # The operator first: nothing below needs more than the kernel's interfaces.
    _links(steps, target)
    _management(steps, target)
    for path in target.of(catalogue.SYSCTL):
        if (target.root / path.lstrip("/")).exists():
            steps.do("/usr/lib/systemd/systemd-sysctl", path)
    _forwarding(steps, target)
    if changed := target.of(catalogue.PORTS):
        ports.read_files(
            steps,
            links=target.links,
            routes=target.routes,
            runs=target.runs("systemd-networkd.service"),
            restart=any("networkd.conf.d" in path for path in changed),
        )
    _management(steps, target, again=True)
    if (changed := target.of(catalogue.FRR)) and target.runs(frr.SERVICE):
        frr.take(steps, restart=set(changed) != {frr.CONFIGURATION}, usual=target.frr)
    _exabgp(steps, target)
    if target.of(catalogue.AGENT) and target.runs("router-agent.service"):
        _restart(steps, "router-agent.service")
        # It runs from the same environment, and is no part of what forwards.
        run("systemctl", "try-restart", "router-agent-web.service")
    start_missing(steps, target)


def start_missing(steps: Steps, target: Target) -> None:
    """Start what ran and does not."""
    for name, state in units(list(target.running)).items():
        if target.runs(name) and state not in _RUNS:
            _restart(steps, name)


def _restart(steps: Steps, name: str) -> bool:
    run("systemctl", "reset-failed", name)
    return steps.do("systemctl", "restart", name, seconds=_STARTS.get(name, 120.0))


def _management(steps: Steps, target: Target, *, again: bool = False) -> None:
    """Have answers to the operator leave where he came in; again, once addresses are back."""
    script = f"{catalogue.PROGRAMS}/management-route"
    if not (target.root / script.lstrip("/")).exists():
        return
    if again:
        run("systemctl", "start", "management-route.service")
    elif target.of(catalogue.MANAGEMENT):
        _restart(steps, "management-route.service")
        _restart(steps, "management-route.timer")


def _forwarding(steps: Steps, target: Target) -> None:
    """Have VPP run its configuration with its NICs, and its interfaces theirs."""
    read = [path for path in target.of(catalogue.VPP) if path not in _READ_EACH_TIME]
    bound = [path for path in target.of(catalogue.BINDING) if path.startswith(_OVERRIDES)]
    runs = target.runs("vpp.service")
    if bound or (read and runs):
        run("systemctl", "stop", "vpp.service")
    for path in bound:
        _bind(steps, target, path)
    if runs and (bound or read):
        _restart(steps, "vpp.service")
    elif runs and target.of(catalogue.INTERFACES):
        _restart(steps, "vpp-interfaces.service")


def _bind(steps: Steps, target: Target, path: str) -> None:
    """Give a NIC the driver it had; driverctl's own file is back already."""
    device, override = path.removeprefix(_OVERRIDES), target.root / path.lstrip("/")
    if override.exists():
        steps.do("driverctl", "--nosave", "set-override", device, override.read_text().strip())
    else:
        steps.do("driverctl", "--nosave", "unset-override", device)


def _links(steps: Steps, target: Target) -> None:
    files = sorted((target.root / "etc/systemd/network").glob("10-pop-router-*"))
    kept = [ports.made_by(path.name, path.read_text(errors="replace")) for path in files]
    ports.bring_back(steps, made=target.made, kept=kept, links=target.links, routes=target.routes)


def _exabgp(steps: Steps, target: Target) -> None:
    changed = [path for path in target.of(catalogue.EXABGP) if path not in _READ_EACH_TIME]
    if not changed or not target.runs("exabgp.service"):
        return
    if set(changed) <= set(_READ_BY_RELOAD) and run("systemctl", "is-active", "--quiet", "exabgp.service").ok:
        steps.do("systemctl", "reload", "exabgp.service")
    else:
        _restart(steps, "exabgp.service")
