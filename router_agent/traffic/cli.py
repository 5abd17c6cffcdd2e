"""``router-agent traffic``: the traffic check's commands.

Those that a check runs on the device (`counters`, `device`, `environment`) need nothing but the
agent. Heavy modules are imported by
the commands that need them.
"""

from __future__ import annotations

import json as jsonlib
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from router_agent.traffic import reflecting
from router_agent.traffic.report import commands as reports

if TYPE_CHECKING:
    from router_agent.traffic.counters.source import CounterSource

USAGE, FAILED = 2, 4
"""Exit codes; see `router_agent.cli`."""

traffic = typer.Typer(help="Check a router with traffic, and what that needs.", no_args_is_help=True)
traffic.command("show")(reports.show)
traffic.command("compare")(reports.compare)
traffic.command("reflect")(reflecting.reflect)

Scenario = Annotated[Path, typer.Argument(help="The scenario file.", metavar="FILE")]
Tier = Annotated[
    str | None, typer.Option("--tier", help="functional, software-ceiling or line-rate; needed to choose.")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", help="Measure this alone, besides the target; target for nothing else."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@traffic.command("counters")
def counters(
    kernel: Annotated[bool, typer.Option("--kernel", help="Of the kernel, which forwards.")] = False,
    vpp: Annotated[Path | None, typer.Option("--vpp", help="Of the VPP with this stats socket.")] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Network namespace; with --vpp that of ports below VPP's af_packet.")
    ] = None,
    port: Annotated[
        list[str] | None, typer.Option(help="Interface that forwards; all of them when none is given.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(help="Print what they grow by in so long.", min=0.01, max=3600)
    ] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Answer questions on standard input until its end.")
    ] = False,
    json: Json = False,
) -> None:
    """Print the counters of what forwards here, as the ledger of a traffic check reads them."""
    from router_agent.traffic.counters.serve import answers
    from router_agent.traffic.counters.source import CounterError

    source = _source(kernel, vpp, namespace, port)
    try:
        if serve:
            for line in answers(source, sys.stdin):
                print(line, flush=True)
            return
        found = source.read()
        if seconds is not None:
            found = _growth(source, found, seconds)
    except CounterError as error:
        _fail(FAILED, str(error))
    except BrokenPipeError:
        sys.stderr.close()  # who asked has gone; Python would complain when it closes standard output
        raise typer.Exit(0) from None
    if json:
        print(jsonlib.dumps({"name": source.name, "seconds": seconds, "counters": found}))
        return
    for name, value in found.items():
        print(f"{name} {value}")


@traffic.command("device")
def device(
    namespace: Annotated[str | None, typer.Option(help="Network namespace that forwards.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="Compare with what this printed before; - is standard input.")
    ] = None,
    put_back: Annotated[
        bool, typer.Option("--put-back", help="Put back settings and links that are not as they were.")
    ] = False,
) -> None:
    """Print links, settings and route counts of this host, or what is not as it was. Exits 1 then."""
    from pydantic import ValidationError

    from router_agent.traffic import device_state

    try:
        if compare is None:
            print(device_state.read_state(namespace).model_dump_json())
            return
        text = sys.stdin.read() if str(compare) == "-" else compare.read_text()
        before = device_state.DeviceState.model_validate_json(text)
        done = device_state.put_back(before, namespace) if put_back else []
        left = device_state.differences(before, device_state.read_state(namespace))
    except (OSError, ValidationError) as error:
        _fail(USAGE, f"{compare} is not what 'router-agent traffic device' printed: {error}")
    except device_state.DeviceStateError as error:
        _fail(FAILED, str(error))
    print(jsonlib.dumps({"as_found": not (done or left), "put_back": done, "different": left}))
    raise typer.Exit(1 if left else 0)


@traffic.command("environment")
def environment() -> None:
    """Print what this host is: kernel, processors, NICs, versions, hashes of configurations."""
    from router_agent.traffic.report.environment import this_host

    print(this_host().model_dump_json())


@traffic.command("ports", hidden=True)
def ports() -> None:
    """Tell a controller on another host what the ports it asks about are, and whether they carry a tier."""
    _commands()
    from router_agent.traffic.scenario import ScenarioError
    from router_agent.traffic.tester import looked

    try:
        print(looked(sys.stdin.read()))
    except ScenarioError as error:
        _fail(USAGE, str(error))


@traffic.command("generate", hidden=True)
def generate() -> None:
    """Send and receive for a controller on another host, which speaks to standard input and output."""
    _need_extra()
    from router_agent.traffic.generators.remote.serve import main

    main()


def _need_extra() -> None:
    """Stop where the packages of a check are missing."""
    try:
        import hdrh.histogram  # noqa: F401
    except ModuleNotFoundError as error:
        _fail(USAGE, f"found no package {error.name!r}, expected it: pip install 'router-agent[traffic]'")


@traffic.command("check")
def check(
    file: Scenario,
    tier: Tier = None,
    only: Only = None,
    report: Annotated[
        Path | None, typer.Option(help="Write report.json, report.xml and report.html into this directory.")
    ] = None,
    json: Json = False,
) -> None:
    """Check a router with traffic.

    Exits 0 PASS, 1 FAIL, 2 wrong usage or scenario, 3 INVALID: the tester was the limit, 4 not carried out.
    """
    commands = _commands()
    from rich.console import Console

    console = Console(stderr=json, highlight=False)
    try:
        result = commands.check(file, tier=tier, only=only or (), report=report, console=console)
    except commands.CommandError as error:
        _fail(error.code, *str(error).splitlines())
    except KeyboardInterrupt:
        print("cancelled; nothing was left behind", file=sys.stderr)
        raise typer.Exit(130) from None
    if json:
        from router_agent.traffic.report.model import report_json
        from router_agent.traffic.report.record import report_of

        print(report_json(report_of(result)))
    else:
        from router_agent.traffic.report.terminal import render_terminal

        render_terminal(result, console)
    raise typer.Exit(commands.exit_code(result))


@traffic.command("compare-forwarding")
def compare_forwarding(
    routes: Annotated[
        list[int] | None, typer.Option(min=1, help="Routes of a table; several times for several tables.")
    ] = None,
    frame: Annotated[int, typer.Option(min=64, max=1518, help="Frame size in bytes, with FCS.")] = 64,
    destinations: Annotated[int, typer.Option(min=1, help="Prefixes that packets go to.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="Length of the steady trials.")] = 5.0,
    report: Annotated[Path | None, typer.Option(help="Write report.json and report.html into it.")] = None,
    json: Json = False,
) -> None:
    """Compare kernel and VPP forwarding on this machine: rate, steadiness, gain. Needs a checkout."""
    _need_extra()
    try:
        from router_agent.lab import forwarding_command as command
    except ImportError as error:
        _fail(USAGE, f"the comparison is part of the lab ({error.name} is missing); run it from a checkout")
    from rich.console import Console

    try:
        command.compare(
            routes=routes or [1, 10_000, 1_000_000],
            frame=frame,
            destinations=destinations,
            seconds=seconds,
            json=json,
            directory=report,
            console=Console(stderr=True),
        )
    except command.CommandError as error:
        _fail(FAILED, str(error))


@traffic.command("explain")
def explain(file: Scenario, tier: Tier = None, only: Only = None) -> None:
    """Tell what a check would do: trials, rates, times. Nothing is sent."""
    commands = _commands()
    from rich.console import Console

    try:
        commands.explain(file, tier=tier, only=only or (), console=Console(highlight=False))
    except commands.CommandError as error:
        _fail(error.code, *str(error).splitlines())


@traffic.command("schema")
def schema() -> None:
    """Print the JSON Schema of scenario files, for editors."""
    _commands()
    from router_agent.traffic.scenario.document import schema as scenario_schema

    print(jsonlib.dumps(scenario_schema(), indent=2))


@traffic.command("table")
def table(
    kernel: Annotated[bool, typer.Option("--kernel", help="Of the kernel, which forwards.")] = False,
    vpp: Annotated[Path | None, typer.Option("--vpp", help="Of the VPP with this API socket.")] = None,
    namespace: Annotated[str | None, typer.Option(help="Network namespace of the kernel's table.")] = None,
    number: Annotated[
        int | None, typer.Option("--table", help="Its number; main, in VPP 0, by default.", min=0)
    ] = None,
    npz: Annotated[bool, typer.Option("--npz", help="Print it in columns, for another host.")] = False,
    json: Json = False,
) -> None:
    """Print the table that forwards here, as a traffic check draws its destinations from it."""
    from router_agent.model import MAIN_TABLE, prefixes_of
    from router_agent.traffic.tables.live import TableError

    if kernel == (vpp is not None):
        _fail(USAGE, "found " + ("both" if kernel else "neither") + ", expected one of --kernel and --vpp")
    try:
        if vpp is not None:
            from router_agent.traffic.tables.vpp import read_vpp_table

            found = read_vpp_table(vpp, number or 0)
        else:
            from router_agent.traffic.tables.kernel import read_kernel_table

            found = read_kernel_table(namespace, MAIN_TABLE if number is None else number)
    except TableError as error:
        _fail(FAILED, str(error))
    if npz:
        sys.stdout.buffer.write(found.to_bytes())
        return
    names = [*found.interfaces, "?"]
    for family, keys in found.keys.items():
        for prefix, port in zip(prefixes_of(keys), found.leaves_by[family].tolist(), strict=True):
            line = {"prefix": str(prefix), "interface": names[port]}
            print(jsonlib.dumps(line) if json else f"{prefix} {names[port]}")


def _commands() -> ModuleType:
    """Return the module that runs checks; say what is missing where the extra is not installed."""
    _need_extra()
    from router_agent.traffic import commands

    return commands


def _source(kernel: bool, vpp: Path | None, namespace: str | None, ports: list[str] | None) -> CounterSource:
    if kernel == (vpp is not None):
        _fail(USAGE, "found " + ("both" if kernel else "neither") + ", expected one of --kernel and --vpp")
    if vpp is not None:
        from router_agent.traffic.counters.vpp import VppForwarder

        return VppForwarder(vpp, namespace)
    from router_agent.traffic.counters.kernel import KernelForwarder

    return KernelForwarder(namespace, ports or None)


def _growth(source: CounterSource, before: dict[str, int], seconds: float) -> dict[str, int]:
    threading.Event().wait(seconds)
    return {name: value - before.get(name, 0) for name, value in source.read().items()}


def _fail(code: int, *problems: str) -> NoReturn:
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(code)
