"""``router-agent snapshot``: take one, compare two. Exit codes as in `router_agent.cli`.

Heavy modules are imported by the commands that need them.
"""

from __future__ import annotations

import json as jsonlib
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from router_agent.snapshot.places import DIRECTORY, KEEP, TOLERANCES

if TYPE_CHECKING:
    from router_agent.snapshot.model import Snapshot
    from router_agent.snapshot.sources.router import Router

NO, USAGE = 1, 2
"""Exit codes; see `router_agent.cli`."""
CONFIG = Path("/etc/router-agent/agent.yaml")

snapshot = typer.Typer(
    help="Note what a router is like, and compare before with after.", no_args_is_help=True
)

Directory = Annotated[Path, typer.Option("--directory", help="Where snapshots are kept.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Name = Annotated[str, typer.Argument(help="A file, or the label of a kept snapshot, of which the newest.")]


@snapshot.command("take")
def take(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of keeping it.")
    ] = None,
    label: Annotated[str, typer.Option(help="What it is taken for; a name to find it by.")] = "",
    directory: Directory = DIRECTORY,
    keep: Annotated[int, typer.Option(help="How many are kept; older ones are removed.", min=1)] = KEEP,
    config: Annotated[Path, typer.Option("--config", "-c", help="The agent's configuration.")] = CONFIG,
    vtysh: Annotated[
        str, typer.Option(envvar="ROUTER_AGENT_VTYSH", help="The command that runs FRR's vtysh.")
    ] = "vtysh",
    settle: Annotated[
        float, typer.Option(help="Seconds in which counts that differ are read again.", min=0, max=3600)
    ] = 5.0,
    json: Annotated[
        bool, typer.Option("--json", help="Print it as JSON; it is then kept nowhere but in --output.")
    ] = False,
) -> None:
    """Note what the router is like now; changes nothing. Exits 1 when something did not answer."""
    from router_agent.snapshot import store
    from router_agent.snapshot.take import take as take_snapshot

    if label and not store.LABEL.fullmatch(label):
        _fail(f"--label: found {label!r}, expected letters, digits, '.', '_' and '-', at most 63")
    taken = take_snapshot(_router(config, vtysh), label=label, settle_seconds=settle)
    try:
        if output is not None:
            store.write(taken, output)
        elif not json:
            output = store.keep(taken, directory, most=keep)
    except store.StoreError as error:
        _fail(str(error))
    if json:
        print(taken.model_dump_json(by_alias=True, indent=2))
    else:
        _show(taken, output)
    if taken.unreadable:
        raise typer.Exit(NO)


@snapshot.command("list")
def list_kept(directory: Directory = DIRECTORY, json: Json = False) -> None:
    """List the snapshots that are kept, the oldest first."""
    from router_agent.snapshot import store

    try:
        kept = store.kept(directory)
    except store.StoreError as error:
        _fail(str(error))
    if json:
        rows = [{"path": str(k.path), "taken_at": k.taken_at.isoformat(), "label": k.label} for k in kept]
        print(jsonlib.dumps(rows))
        return
    for found in kept:
        print(f"{found.taken_at:%Y-%m-%d %H:%M:%S} UTC  {found.label or '-':<20}  {found.path}")


@snapshot.command("diff")
def diff(
    before: Name,
    after: Name,
    tolerances: Annotated[
        Path | None,
        typer.Option(help="YAML file of what may differ; by default the router's own, if it has one."),
    ] = None,
    default_tolerances: Annotated[
        Path, typer.Option(help="Where the router's own is.", show_default=True)
    ] = TOLERANCES,
    changed: Annotated[
        list[str] | None,
        typer.Option(
            help="Meant to be another: kernel, frr, vpp, exabgp, agent, dpdk, debian, configuration, "
            "drained, interfaces, or the path of a file."
        ),
    ] = None,
    prefixes_fall: Annotated[
        float | None, typer.Option(help="Percent by which prefixes and tables may shrink.", min=0, max=100)
    ] = None,
    fib_gap: Annotated[
        float | None, typer.Option(help="Percent by which BGP, kernel and FIB may differ.", min=0, max=100)
    ] = None,
    errors_per_second: Annotated[
        float | None, typer.Option(help="How fast each counter of errors may grow.", min=0)
    ] = None,
    session_drops: Annotated[
        int | None, typer.Option(help="How often a session that is up again may have been lost.", min=0)
    ] = None,
    session_lost: Annotated[
        list[str] | None, typer.Option(help="Peer whose session may be down, by address.")
    ] = None,
    interface_down: Annotated[list[str] | None, typer.Option(help="Interface that may be down.")] = None,
    unreadable: Annotated[list[str] | None, typer.Option(help="Source that need not answer.")] = None,
    directory: Directory = DIRECTORY,
    json: Json = False,
) -> None:
    """Compare two snapshots. Exits 1 when a change is beyond the tolerances, or something is unknown."""
    from router_agent.snapshot import store
    from router_agent.snapshot.difference import CannotCompareError, compare
    from router_agent.snapshot.tolerances import load
    from router_agent.strict_yaml import FileError

    overrides: dict[str, Any] = {
        "changed": changed or [],
        "prefixes_fall_percent": prefixes_fall,
        "fib_gap_percent": fib_gap,
        "errors_per_second": errors_per_second,
        "session_drops": session_drops,
        "sessions_lost": session_lost or [],
        "interfaces_down": interface_down or [],
        "unreadable": unreadable or [],
    }
    try:
        if tolerances is None and default_tolerances.exists():
            tolerances = default_tolerances
        tolerated = load(tolerances, overrides)
        earlier, later = (store.load(store.find(name, directory)) for name in (before, after))
        if later.taken_at < earlier.taken_at:
            _fail(f"found {before} taken later than {after}, expected the earlier one first")
        difference = compare(earlier, later, tolerated)
    except (store.StoreError, FileError, CannotCompareError) as error:
        _fail(str(error))
    if json:
        print(difference.model_dump_json(by_alias=True, indent=2))
    else:
        from router_agent.snapshot import shown
        from router_agent.terminal import print_tables

        if difference.changes:
            print_tables(shown.changes_table(difference))
        for line in (*shown.fault_lines(difference), shown.verdict(difference)):
            print(line)
    if not difference.within:
        raise typer.Exit(NO)


def _router(config: Path, vtysh: str) -> Router:
    from router_agent.config import ConfigError, load
    from router_agent.snapshot.sources.router import Router

    command = tuple(shlex.split(vtysh))
    if config == CONFIG and not config.exists():
        return Router(config=None, config_path=config, vtysh=command)
    try:
        return Router(config=load(config), config_path=config, vtysh=command)
    except ConfigError as error:
        _fail(*error.problems)


def _show(taken: Snapshot, path: Path | None) -> None:
    from router_agent.snapshot import shown
    from router_agent.terminal import print_tables

    print_tables(shown.sources_table(taken))
    for line in shown.gap_lines(taken):
        print(f"differs: {line}")
    if path is not None:
        print(f"{path}, taken in {taken.seconds:.1f} s")


def _fail(*problems: str) -> NoReturn:
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(USAGE)
