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
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from router_agent.traffic.counters.source import CounterSource

USAGE, FAILED = 2, 4
"""Exit codes; see `router_agent.cli`."""

traffic = typer.Typer(help="Check a router with traffic, and what that needs.", no_args_is_help=True)

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
