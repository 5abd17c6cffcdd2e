"""``router-agent support-bundle``: one file with all that somebody far away needs, and no secret.

Heavy modules are imported by the command itself; see `router_agent.cli`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from router_agent.support.bundle import Member
    from router_agent.support.collect import Collector, Taken

_LOWEST = 19
_WORDS = 90


def support_bundle(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write (.tar.gz, mode 0600); named after host and time here by default.",
        ),
    ] = None,
    since: Annotated[
        str, typer.Option(help="How far back the journal goes, as journalctl takes it: -24h, or a time.")
    ] = "-24h",
    show_list: Annotated[
        bool, typer.Option("--list", help="Print what would be collected, and collect nothing.")
    ] = False,
    explain: Annotated[
        list[str] | None, typer.Option(help="A prefix to explain in it; several times for several.")
    ] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(help="A further file, such as a traffic report; its secrets are removed, too."),
    ] = None,
    config: Annotated[Path, typer.Option("--config", "-c", help="The agent's configuration.")] = Path(
        "/etc/router-agent/agent.yaml"
    ),
    socket: Annotated[
        Path, typer.Option("--socket", envvar="ROUTER_AGENT_SOCKET", help="Control socket of the agent.")
    ] = Path("/run/router-agent/control.sock"),
    vtysh: Annotated[
        str, typer.Option(envvar="ROUTER_AGENT_VTYSH", help="The command that runs FRR's vtysh.")
    ] = "vtysh",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Collect configuration, state, counters and logs into one file, without secrets.

    Works whatever is down; what cannot be had is in the bundle's manifest with the reason. Forwarding is not
    disturbed. As root it sees everything.
    """
    from router_agent.support.bundle import BundleError, default_name, make
    from router_agent.support.contents import Host, collectors

    host = Host(
        config=config,
        socket=socket,
        vtysh=shlex.split(vtysh),
        prefixes=tuple(explain or ()),
        further=tuple(include or ()),
    )
    if show_list:
        _print_list(list(collectors(host, since)), json=json)
        return
    _step_back()
    path = output or Path(f"{default_name()}.tar.gz")
    try:
        members = make(path, host, since=since, progress=_progress())
    except BundleError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(4) from None
    if json:
        import json as jsonlib

        print(jsonlib.dumps({"file": str(path), "members": [member.line() for member in members]}, indent=2))
        return
    _print_members(members)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB. Read it before you give it away: what the "
        "configuration does not call a secret is not known to be one."
    )


def _step_back() -> None:
    """Let everything else on the host go first; commands that are run inherit it."""
    os.setpriority(os.PRIO_PROCESS, 0, _LOWEST)
    try:
        subprocess.run(
            ("ionice", "--class", "idle", "--pid", str(os.getpid())),
            capture_output=True,
            check=False,
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f"disks are read at ordinary priority: {error}", file=sys.stderr)


def _progress() -> Callable[[Taken], None]:
    if not sys.stderr.isatty():
        return lambda _: None

    def tell(taken: Taken) -> None:
        print(
            f"\r\x1b[K{taken.collector.member} ({taken.seconds:.1f} s)", end="", file=sys.stderr, flush=True
        )

    return tell


def _print_list(found: Sequence[Collector], *, json: bool) -> None:
    if json:
        import json as jsonlib

        for collector in found:
            row = {
                "name": collector.member,
                "command": collector.source,
                "seconds": collector.seconds if collector.command else None,
                "bytes": collector.most,
            }
            print(jsonlib.dumps(row))
        return
    rows = [
        (
            collector.member,
            f"{collector.seconds:g}" if collector.command else "",
            f"{collector.most >> 10:,}",
            _short(collector.source),
        )
        for collector in found
    ]
    _print_table(("member", "at most s", "at most KiB", "from"), rows)


def _print_members(members: Sequence[Member]) -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    rows = [
        (
            member.name,
            "" if member.exit is None else str(member.exit),
            f"{member.seconds:.1f}",
            f"{member.size:,}" + (" of more" if member.truncated else ""),
            _short(member.problem or ""),
        )
        for member in members
    ]
    _print_table(("member", "exit", "s", "bytes", "why not, or not all"), rows)
    missing = sum(member.sha256 is None for member in members)
    seconds = sum(member.seconds for member in members)
    print(f"{len(members) - missing} members, {missing} could not be had, {seconds:.1f} s")


def _print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _short(words: str) -> str:
    return words if len(words) <= _WORDS else f"{words[: _WORDS - 1]}…"
