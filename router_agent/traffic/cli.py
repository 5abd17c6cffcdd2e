"""``router-agent traffic``: the traffic check's commands.

Those that a check runs on the device (`counters`) need nothing but the agent. Heavy modules are imported by
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
