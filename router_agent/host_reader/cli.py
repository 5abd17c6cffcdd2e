"""``router-agent host-reader``: what FRR and the kernel say, for a process that must not be let near them."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

SOCKET = Path("/run/router-agent-host/reader.sock")


def host_reader(
    socket: Annotated[Path, typer.Option(help="Where to answer.")] = SOCKET,
    group: Annotated[
        str | None, typer.Option(help="Who may ask: group of the socket, by name or number.")
    ] = None,
    vtysh: Annotated[
        str,
        typer.Option(
            envvar="ROUTER_AGENT_VTYSH",
            help="The command that runs FRR's vtysh; empty where there is no FRR.",
        ),
    ] = "vtysh",
) -> None:
    """Answer the looking glass: FRR's sessions, the way of one prefix, the kernel's ports. Nothing else.

    Runs in the foreground until SIGTERM or SIGINT, as a user of group frrvty.
    """
    import asyncio

    from router_agent import logs
    from router_agent.config import LogConfig
    from router_agent.host_reader.server import HostReader, run
    from router_agent.listening import ListeningError, UnixListener

    logs.set_up(LogConfig())
    listener = UnixListener(socket, mode=0o660, group=group, key="--socket")
    try:
        asyncio.run(run(listener, HostReader(shlex.split(vtysh))))
    except ListeningError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(4) from error
