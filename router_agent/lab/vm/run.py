"""``make lab-vm``: a bare Debian becomes a router by the unmodified playbooks, and proves it.

    image -> boot -> [VFIO proven by testpmd] -> site.yml -> verify.yml -> acceptance.yml: every next hop

Exit codes: 0 PASS, 1 FAIL, 2 INVALID (the lab could not be built), 130 and 143 when interrupted. Whatever
happens, everything is taken down again, unless it is to be kept; logs stay.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from router_agent.lab.acceptance import accept
from router_agent.lab.errors import LabError
from router_agent.lab.plan import Port
from router_agent.lab.run import Interrupted, ignore_signals, interruptible
from router_agent.lab.show import Stage, Stages
from router_agent.lab.vm import testpmd
from router_agent.lab.vm.acceptance import acceptance_variables
from router_agent.lab.vm.plan import DEVICES, HOST, LAN, PORTS, UPLINK
from router_agent.lab.vm.play import PlayError, PlayResult, table_of
from router_agent.lab.vm.pop import VirtualPop
from router_agent.lab.vm.traffic import PROOF_PREFIXES, prove_wire
from router_agent.model import Family
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import CheckResult
from router_agent.traffic.measurements.trial import Progress
from router_agent.traffic.report.terminal import render_terminal

BUILD = Path("build/vm")
NAME = "vm"

_BACKWARD_PREFIXES = 1_000
"""Prefixes of the second traffic check, the other way round."""


class ProofError(LabError):
    """The host was built and does not do what it shall: the verdict is FAIL."""


@dataclass
class Report:
    """What a run proved.

    Attributes:
        outcome: of the traffic checks so far.
        proven: (what, how it was seen, seconds).
    """

    outcome: Outcome = Outcome.PASS
    proven: list[tuple[str, str, float]] = field(default_factory=list)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or take down the virtual POP host as the command line says; return the exit code."""
    parsed = _parser().parse_args(arguments)
    console = Console(highlight=False)
    try:
        with interruptible():
            pop = VirtualPop(parsed.name, build=parsed.build, vpp_debs=parsed.vpp_debs)
            if parsed.command == "down":
                return _down(pop, console)
            return _run(pop, console, keep=parsed.keep)
    except (PlayError, ProofError) as error:
        console.print(f"FAIL  {error}", style="bold red", markup=False, soft_wrap=True)
        return Outcome.FAIL.exit_code
    except LabError as error:
        console.print(f"INVALID  {error}", style="bold yellow", markup=False, soft_wrap=True)
        return Outcome.INVALID.exit_code
    except Interrupted as error:
        console.print(f"interrupted by {error.signal.name}; everything was taken down", markup=False)
        return 128 + error.signal


def _run(pop: VirtualPop, console: Console, *, keep: bool) -> int:
    stages, report = Stages(console), Report()
    with pop.lock(), _taken_down(pop, console, keep=keep):
        _boot(pop, stages)
        if not pop.vpp:
            _prove_vfio(pop, stages, report)
        _build_router(pop, stages, report)
        _verify(pop, stages, report)
        _prove_forwarding(pop, stages, report)
    _show(report, console)
    _write(pop, report)
    style = {Outcome.PASS: "bold green", Outcome.FAIL: "bold red"}.get(report.outcome, "bold yellow")
    forwarding = "VPP" if pop.vpp else "the kernel"
    console.print(f"{report.outcome.value}  {HOST}, {forwarding} forwards", style=style, markup=False)
    console.print(f"logs: {pop.logs}", markup=False)
    return report.outcome.exit_code


def _boot(pop: VirtualPop, stages: Stages) -> None:
    with stages.stage("image and network") as stage:
        stage.detail = pop.prepare(stage.now)
        pop.fresh_disk()
    with stages.stage("start the BGP neighbours") as stage:
        pop.neighbours.start()
        counts = ", ".join(f"{count:,} {family.label}" for family, count in pop.neighbours.sizes.items())
        stage.detail = f"two BIRDs, {counts} prefixes"
    with stages.stage("boot a bare Debian") as stage:
        pop.boot()
        kernel = pop.host.run("uname -r").strip()
        stage.detail = f"Linux {kernel}, ssh answers on 127.0.0.1 port {pop.host.ssh_port}"


def _prove_vfio(pop: VirtualPop, stages: Stages, report: Report) -> None:
    """Bind the data NICs to VFIO, have testpmd move packets between them. They go back in the next stage."""
    devices = [DEVICES[port.name] for port in PORTS]
    with stages.stage("site.yml: host stage, NICs to VFIO") as stage:
        before = pop.boots()
        built = pop.site(
            {"vfio_devices": devices},
            *("--tags", "host,binding"),
            allow_reboot=True,
            progress=stage.now,
        ).require_success()
        stage.detail = _recap(built, pop.boots() - before)
        bound = pop.host.run("driverctl list-overrides").split()
        if bound != [word for device in devices for word in (device, "vfio-pci")]:
            raise ProofError(f"driverctl shows {' '.join(bound)}, expected {', '.join(devices)} at vfio-pci")
    report.proven.append(
        ("kernel arguments, huge pages, NICs at VFIO", f"site.yml, {stage.detail}", stage.seconds)
    )
    with stages.stage("unpack dpdk-testpmd"):
        testpmd.install(pop.host, pop.image.testpmd)
    with stages.stage("packets through VFIO") as stage, testpmd.forwarding(pop.host):
        result = prove_wire(
            pop.network, pop.neighbours, report=pop.logs / "testpmd", progress=_progress(stage)
        )
        stage.detail = result.verdict.reason
    testpmd.remove(pop.host)
    _judge(result, "VFIO moves packets (dpdk-testpmd)", stage, report, stages.console)


def _build_router(pop: VirtualPop, stages: Stages, report: Report) -> None:
    with stages.stage("site.yml") as stage:
        before = pop.boots()
        result = pop.site(allow_reboot=True, progress=stage.now).require_success()
        stage.detail = _recap(result, pop.boots() - before)
    report.proven.append(("a bare Debian is a router", f"site.yml, {stage.detail}", stage.seconds))


def _verify(pop: VirtualPop, stages: Stages, report: Report) -> None:
    with stages.stage("BGP sessions") as stage:
        pop.wait_sessions()
        stage.detail = "FRR over IPv4 and IPv6, ExaBGP over IPv4"
    report.proven.append(("sessions established", stage.detail, stage.seconds))
    with stages.stage("verify.yml") as stage:
        pop.meet_neighbours()
        result = pop.playbooks.run("verify.yml", progress=stage.now).require_success()
        total = sum(pop.neighbours.sizes.values())
        stage.detail = f"{total:,} prefixes in the FIB, services, drivers, pages"
    report.proven.append(("verify.yml", stage.detail, stage.seconds))
    stages.console.print(table_of(result), markup=False, soft_wrap=True)


def _prove_forwarding(pop: VirtualPop, stages: Stages, report: Report) -> None:
    """Have the playbook an operator runs give its verdict, after it has refused the router for being live."""
    with stages.stage("acceptance.yml on a live router") as stage:
        found = accept(
            pop.playbooks, _acceptance(pop, UPLINK, PROOF_PREFIXES), live=False, progress=stage.now
        )
        if found.outcome is not None:
            raise ProofError(f"acceptance.yml sent traffic to a live router: {found.reason}")
        stage.detail = f"refused: {found.reason}"
    report.proven.append(("a live router is refused", found.reason, stage.seconds))
    for ingress, prefixes, what in (
        (UPLINK, PROOF_PREFIXES, "packets leave by the right next hop"),
        (LAN, _BACKWARD_PREFIXES, "the other way round"),
    ):
        with stages.stage(f"acceptance.yml, in by the {ingress.name}") as stage:
            found = accept(pop.playbooks, _acceptance(pop, ingress, prefixes), live=True, progress=stage.now)
            stage.detail = found.reason
        if found.outcome is not None:
            _count(found.outcome, found.reason, what, stage, report)
        stages.console.print(table_of(found.play), markup=False, soft_wrap=True)


def _acceptance(pop: VirtualPop, ingress: Port, prefixes: int) -> dict[str, Any]:
    return acceptance_variables(
        pop.host,
        pop.network,
        pop.neighbours,
        ingress=ingress.name,
        prefixes=prefixes,
        reports=pop.logs / f"acceptance-{ingress.name}",
    )


def _judge(result: CheckResult, what: str, stage: Stage, report: Report, console: Console) -> None:
    _count(result.verdict.outcome, result.verdict.reason, what, stage, report)
    if result.verdict.outcome is not Outcome.PASS:
        render_terminal(result, console)


def _count(outcome: Outcome, reason: str, what: str, stage: Stage, report: Report) -> None:
    report.proven.append((what, reason, stage.seconds))
    # FAIL outranks INVALID: a loss that was seen is known, whatever else is not.
    if outcome is not Outcome.PASS and report.outcome is not Outcome.FAIL:
        report.outcome = outcome


def _progress(stage: Stage) -> Progress:
    def progress(part: str, share: float, text: str) -> None:
        stage.now(f"{part} {share:.0%}, {text}")

    return progress


def _recap(result: PlayResult, reboots: int) -> str:
    return f"{result.changed} changes, {reboots} reboot{'' if reboots == 1 else 's'}"


def _show(report: Report, console: Console) -> None:
    grid = Grid(title="proven", title_justify="left", pad_edge=False)
    grid.add_column("what")
    grid.add_column("how")
    grid.add_column("seconds", justify="right")
    for what, how, seconds in report.proven:
        grid.add_row(what, how, f"{seconds:.0f}")
    console.print(grid)


def _write(pop: VirtualPop, report: Report) -> None:
    summary = {
        "outcome": report.outcome.value,
        "forwarding": "vpp" if pop.vpp else "kernel",
        "prefixes": {family.label: count for family, count in pop.neighbours.sizes.items()},
        "proven": [
            {"what": what, "how": how, "seconds": round(seconds, 1)} for what, how, seconds in report.proven
        ],
    }
    (pop.logs / "lab-vm.json").write_text(json.dumps(summary, indent=2) + "\n")


@contextmanager
def _taken_down(pop: VirtualPop, console: Console, *, keep: bool) -> Iterator[None]:
    """Take everything down at the end of the body, or say how to look around in it."""
    try:
        yield
    except LabError:
        console.print(f"logs: {pop.logs} (serial.log is the host's console)", markup=False)
        raise
    finally:
        ignore_signals()
        if keep and pop.network.present:
            console.print(_ways_in(pop), markup=False, soft_wrap=True)
        else:
            pop.take_down()


def _ways_in(pop: VirtualPop) -> str:
    birds = [f"  birdc -s {bird.control} show protocols" for bird in pop.neighbours.birds]
    return "\n".join(
        [
            f"The virtual POP host stays up. Look around ({Family.IPV4.label} sessions are on the uplink):",
            f"  {shlex.join(pop.host.ssh)}",
            *birds,
            f"  tail -f {pop.machine.serial_log}",
            "Take it down:",
            "  make lab-vm-down" + ("" if pop.name == NAME else f" ARGS='--name {pop.name}'"),
        ]
    )


def _down(pop: VirtualPop, console: Console) -> int:
    with pop.lock():
        found = pop.take_down()
    console.print(f"virtual POP host {pop.name!r} " + ("is down" if found else "was not there"), markup=False)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m router_agent.lab.vm",
        description="Build a router out of a bare Debian in a virtual machine, and prove that it is one.",
        epilog="Exit codes: 0 PASS, 1 FAIL, 2 INVALID.",
    )
    parser.add_argument("command", nargs="?", choices=("run", "down"), default="run", help="default: run")
    parser.add_argument("--name", default=NAME, help="several may be up, each with its own name")
    parser.add_argument(
        "--vpp-debs", type=Path, metavar="DIR", help="VPP's packages; without, the kernel forwards"
    )
    parser.add_argument("--build", type=Path, default=BUILD, metavar="DIR", help="images, disks and logs")
    parser.add_argument("--keep", action="store_true", help="leave everything up")
    return parser
