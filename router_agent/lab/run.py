"""One run of the lab, from nothing to a verdict: ``python -m router_agent.lab``.

    build -> daemons -> table announced -> in the POP's kernel -> in the FIB -> audit -> traffic
    -> acceptance.yml -> verdict

Exit codes: 0 PASS, 1 FAIL, 2 INVALID (also when the lab could not be built), 130 and 143 when interrupted.
Whatever happens, everything is taken down again, unless it is to be kept.
"""

from __future__ import annotations

import argparse
import json
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rich.console import Console

from router_agent.lab.acceptance import accept, lab_playbooks, lab_variables
from router_agent.lab.daemon import wait_until
from router_agent.lab.errors import LabError
from router_agent.lab.lab import Advertise, FibKind, Lab, SpeakerKind, default_fib, lock
from router_agent.lab.scenario import write as write_scenario
from router_agent.lab.show import Stage, Stages, ways_in
from router_agent.lab.table import FULL_IPV4, FULL_IPV6, Table, generated_table, read_table
from router_agent.lab.topology import Topology
from router_agent.lab.vm.play import table_of
from router_agent.traffic.judgement.prediction import Processor, clock_hz
from router_agent.traffic.judgement.verdict import Outcome
from router_agent.traffic.measurements.check import CheckResult, run_check
from router_agent.traffic.report.terminal import render_terminal
from router_agent.traffic.scenario import Scenario

PROOF_PREFIXES = 20_000
"""Prefixes a port proof sends to; at least 10,000 are asked for."""

_PROOF_PPS = 5_000.0
"""Low, so that a machine that does something else as well can still send every packet of it."""
_ACCEPTANCE_PPS = 2_000.0
_CONVERGE_SECONDS = 170.0
_IN_SYNC_SECONDS = 60.0
_FASTEST = 200_000
"""Routes a second that no speaker reaches: looking again after what is missing divided by this is in time.

Looking costs the kernel a walk through the table, so it is not done more often than needed.
"""
_LONGEST_PAUSE, _SHORTEST_PAUSE = 1.0, 0.05
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    name: str
    speaker: SpeakerKind
    fib: FibKind
    table: Path | None
    ipv4: int | None
    ipv6: int | None
    keep: bool
    rate: float
    seconds: float
    report: Path
    advertise: Advertise | None = None
    acceptance: bool = True


@dataclass
class Findings:
    """What a run found besides the traffic check.

    Attributes:
        kernel_seconds: from the first session up to the last route in the POP's kernel.
        lag_seconds: at most this long after that the FIB had the last route.
        drift: prefixes by which the FIB differs from what it should hold.
    """

    kernel_seconds: float = 0.0
    lag_seconds: float = 0.0
    drift: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run or take down a lab as the command line says; return the exit code."""
    parsed = _parser().parse_args(arguments)
    console = Console(highlight=False)
    try:
        with interruptible():
            if parsed.command == "down":
                return _down(parsed.name, console)
            return _run(_options(parsed), console)
    except LabError as error:
        console.print(f"INVALID  {error}", style="bold yellow", markup=False, soft_wrap=True)
        return Outcome.INVALID.exit_code
    except Interrupted as error:
        console.print(f"interrupted by {error.signal.name}; everything was taken down", markup=False)
        return 128 + error.signal


def _run(options: Options, console: Console) -> int:
    stages = Stages(console)
    with stages.stage("read the table") as stage:
        table = _table(options)
        stage.detail = f"{len(table.ipv4):,} IPv4 and {len(table.ipv6):,} IPv6 prefixes, {table.origin}"
        if table.left_out:
            stage.detail += f" ({table.left_out:,} reserved ones left out)"
    lab = Lab(
        options.name,
        table=table,
        speaker=options.speaker,
        fib=options.fib,
        advertise=options.advertise,
    )
    if lab.topology.present:
        console.print(f"found a lab {options.name!r} that was left behind, removing it", markup=False)
    with _taken_down(lab, options.report / "scenario.yaml", console):
        lab.keep = options.keep
        with stages.stage("build the lab") as stage:
            lab.__enter__()
            stage.detail = f"namespaces {lab.topology.name}-{{upstream,pop1,pop1-fwd,tester}}"
        findings = _bring_up(lab, stages)
        result = _check(lab, options, stages)
        accepted = _accept(lab, options, stages) if options.acceptance else Outcome.PASS
    render_terminal(result, console)
    found = {result.verdict.outcome, accepted, Outcome.FAIL if findings.drift else Outcome.PASS}
    outcome = next(o for o in (Outcome.FAIL, Outcome.INVALID, Outcome.PASS) if o in found)
    if findings.drift:
        console.print(
            f"FAIL  the FIB differs from the kernel in {findings.drift:,} prefixes", style="bold red"
        )
    _write_summary(options, lab, stages, findings, outcome)
    console.print(f"report: {result.reports.get('html', options.report)}", markup=False)
    return outcome.exit_code


def _bring_up(lab: Lab, stages: Stages) -> Findings:
    findings = Findings()
    with stages.stage("start the forwarding plane") as stage:
        lab.configure()
        lab.plane.start()
        lab.meet_neighbours()
        lab.agent.start()
        stage.detail = f"{lab.plane.kind}, neighbours resolved through the ports, router-agent running"
    with stages.stage("start BGP") as stage:
        lab.start_bgp()
        stage.detail = f"BIRD and {lab.speaker.value}, IPv4 and IPv6 sessions established"
    began = time.monotonic()
    with stages.stage("carry the table to the kernel") as stage:
        incomplete = _follow_kernel(lab, stage)
        findings.kernel_seconds = time.monotonic() - began
        routes = sum(lab.bgp_routes().values())
        stage.detail = f"{routes:,} routes, {routes / max(findings.kernel_seconds, 0.001):,.0f} a second"
    with stages.stage("carry it to the FIB") as stage:
        lab.agent.wait_holds(lab.fib_sizes, seconds=_IN_SYNC_SECONDS)
        findings.lag_seconds = time.monotonic() - incomplete
        stage.detail = f"in sync at most {findings.lag_seconds:.2f} s after the last route of the kernel"
    if lab.downstream:
        _follow_downstream(lab, stages)
    with stages.stage("read the FIB back and compare") as stage:
        findings.drift = lab.agent.drift()
        stage.detail = f"{findings.drift:,} prefixes differ; {lab.agent.summary()}"
    return findings


def _follow_downstream(lab: Lab, stages: Stages) -> None:
    """Wait until the downstream neighbour has heard of the table and the POP's own prefixes."""
    downstream = lab.downstream
    assert downstream is not None
    wanted = {family: count + 1 for family, count in lab.upstream.announced.items()}
    with stages.stage("tell the neighbour") as stage:
        began = time.monotonic()
        wait_until(
            lambda: downstream.heard() == wanted,
            "the downstream neighbour to hear of the table",
            seconds=_CONVERGE_SECONDS,
            daemons=lab.daemons,
            poll_seconds=0.2,
            found=lambda: str(downstream.heard()),
        )
        seconds = time.monotonic() - began
        stage.detail = f"{sum(wanted.values()):,} prefixes, the last {seconds:.1f} s after the FIB had all"


def _follow_kernel(lab: Lab, stage: Stage) -> float:
    """Wait until the POP's kernel has the table; return when it was last seen without some of it."""
    total = sum(lab.table_sizes.values())
    incomplete = time.monotonic()
    deadline = incomplete + _CONVERGE_SECONDS
    while True:
        looked = time.monotonic()
        found = lab.bgp_routes()
        if lab.has_all(found):
            return incomplete
        incomplete = looked
        have = sum(found.values())
        stage.now(f"{have:,} of {total:,} in the kernel; {lab.agent.summary()}")
        lab.require_running()
        if looked > deadline:
            raise LabError(
                f"waited {_CONVERGE_SECONDS:.0f} s for the table in the POP's kernel; found {have:,} of "
                f"{total:,} routes; {lab.upstream.sessions()}"
            )
        time.sleep(min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, (total - have) / _FASTEST)))


def _check(lab: Lab, options: Options, stages: Stages) -> CheckResult:
    scenario = Scenario(
        name=f"lab, {lab.speaker.value} and {lab.plane.kind} FIB, {len(lab.table):,} prefixes",
        destinations=lab.destinations(PROOF_PREFIXES),
        rate_pps=options.rate,
        duration_s=options.seconds,
        proof_pps=_PROOF_PPS,
    )
    with stages.stage("send traffic") as stage:

        def progress(part: str, share: float, text: str) -> None:
            stage.now(f"{part} {share:.0%}, {text}")

        result = run_check(
            scenario,
            lab.endpoints,
            lab.counters(),
            options.report,
            progress,
            processor=Processor(clock_hz(Path("/proc/cpuinfo").read_text())),
        )
        stage.detail = f"port proof of {len(scenario.destinations):,} prefixes, trial, report"
    return result


def _accept(lab: Lab, options: Options, stages: Stages) -> Outcome:
    """Have the playbook an operator runs check the POP as well: it is told that the POP is live."""
    reports = options.report / "acceptance"
    with stages.stage("acceptance.yml") as stage:
        playbooks = lab_playbooks(lab, reports)
        variables = lab_variables(lab, rate_pps=_ACCEPTANCE_PPS, reports=reports)
        found = accept(playbooks, variables, live=True, progress=stage.now)
        stage.detail = found.reason
    assert found.outcome is not None
    if found.outcome is not Outcome.PASS:
        stages.console.print(table_of(found.play, playbooks.host), markup=False, soft_wrap=True)
    return found.outcome


def _write_summary(options: Options, lab: Lab, stages: Stages, findings: Findings, outcome: Outcome) -> None:
    summary: dict[str, Any] = {
        "outcome": outcome.value,
        "speaker": lab.speaker.value,
        "fib": lab.plane.kind,
        "table": lab.table.origin,
        "prefixes": {family.label: count for family, count in lab.table_sizes.items()},
        **asdict(findings),
        "stages": [{"title": stage.title, "seconds": round(stage.seconds, 3)} for stage in stages.done],
    }
    options.report.mkdir(parents=True, exist_ok=True)
    (options.report / "lab.json").write_text(json.dumps(summary, indent=2) + "\n")


@contextmanager
def _taken_down(lab: Lab, scenario: Path, console: Console) -> Iterator[None]:
    """Take the lab down at the end of the body, or say how to look around in it."""
    try:
        yield
    finally:
        ignore_signals()
        if lab.keep and lab.topology.present:
            write_scenario(lab, scenario)
            console.print(ways_in(lab, scenario), markup=False, soft_wrap=True)
        lab.__exit__(None, None, None)


def _down(name: str, console: Console) -> int:
    topology = Topology(name)
    with lock(name):
        found = topology.present
        topology.remove()
    console.print(f"lab {name!r} " + ("is down" if found else "was not there"), markup=False)
    return 0


def _table(options: Options) -> Table:
    if options.table is not None:
        return read_table(options.table, options.ipv4, options.ipv6)
    ipv4 = FULL_IPV4 if options.ipv4 is None else options.ipv4
    ipv6 = FULL_IPV6 if options.ipv6 is None else options.ipv6
    try:
        return generated_table(ipv4, ipv6)
    except ValueError as error:
        raise LabError(str(error)) from error


class Interrupted(BaseException):
    """A signal asked for the end. Not an Exception: nothing on the way may swallow it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first signal that asks for the end into an exception, and pass over later ones."""
    former = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    ignore_signals()
    raise Interrupted(number)


def ignore_signals() -> None:
    """Pass over signals that ask for the end: what is left to do is to take everything down."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m router_agent.lab",
        description="Carry a BGP table into a forwarding plane, send packets through it, give a verdict.",
        epilog="Exit codes: 0 PASS, 1 FAIL, 2 INVALID.",
    )
    parser.add_argument("command", nargs="?", choices=("run", "down"), default="run", help="default: run")
    parser.add_argument("--name", default="lab", help="several labs may be up, each with its own name")
    parser.add_argument(
        "--speaker", choices=[kind.value for kind in SpeakerKind], default=SpeakerKind.FRR.value
    )
    parser.add_argument(
        "--fib",
        choices=[kind.value for kind in FibKind],
        help="default: vpp where it is installed, else kernel",
    )
    parser.add_argument(
        "--advertise",
        choices=[kind.value for kind in Advertise],
        help="have a downstream neighbour, told at once or once the FIB has it; FRR of Debian testing",
    )
    parser.add_argument("--table", type=Path, metavar="FILE", help="prefix list or MRT RIB dump")
    parser.add_argument("--ipv4", type=_count, metavar="N", help=f"IPv4 prefixes, default {FULL_IPV4:,}")
    parser.add_argument("--ipv6", type=_count, metavar="N", help=f"IPv6 prefixes, default {FULL_IPV6:,}")
    parser.add_argument(
        "--rate", type=float, default=20_000.0, metavar="PPS", help="offered load of the trial"
    )
    parser.add_argument("--seconds", type=float, default=10.0, metavar="S", help="length of the trial")
    parser.add_argument("--report", type=Path, default=Path("build/lab"), metavar="DIR")
    parser.add_argument(
        "--no-acceptance", action="store_true", help="leave out playbooks/acceptance.yml, which comes last"
    )
    parser.add_argument("--keep", action="store_true", help="leave everything up")
    return parser


def _options(parsed: argparse.Namespace) -> Options:
    return Options(
        name=parsed.name,
        speaker=SpeakerKind(parsed.speaker),
        fib=FibKind(parsed.fib) if parsed.fib else default_fib(),
        table=parsed.table,
        ipv4=parsed.ipv4,
        ipv6=parsed.ipv6,
        keep=parsed.keep,
        rate=parsed.rate,
        seconds=parsed.seconds,
        report=parsed.report,
        advertise=Advertise(parsed.advertise) if parsed.advertise else None,
        acceptance=not parsed.no_acceptance,
    )


def _count(text: str) -> int:
    number = int(text.replace(",", "").replace("_", ""))
    if number < 0:
        raise argparse.ArgumentTypeError(f"found {text}, expected 0 or more")
    return number
