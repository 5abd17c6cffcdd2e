"""``python -m router_agent.lab.containers``: bring hosts up, look around in them, take them down.

    python -m router_agent.lab.containers up r1 r2
    python -m router_agent.lab.containers shell r1 journalctl -b
    python -m router_agent.lab.containers down

Exit codes: 0 done, 2 the lab could not be built, 130 and 143 when interrupted; ``shell`` exits as ssh does.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence

from rich.console import Console

from router_agent.lab.containers import leftovers
from router_agent.lab.containers.hosts import BUILD, Containers, ways_in
from router_agent.lab.errors import LabError
from router_agent.lab.lab import lock
from router_agent.lab.run import Interrupted, interruptible
from router_agent.lab.show import Stages

NAME = "hosts"
_INVALID = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as the command line says; return the exit code."""
    parsed = _parser().parse_args(arguments)
    console = Console(highlight=False)
    try:
        with interruptible():
            if parsed.command == "up":
                return _up(parsed, console)
            if parsed.command == "down":
                return _down(parsed.name, console)
    except LabError as error:
        console.print(f"INVALID  {error}", style="bold yellow", markup=False, soft_wrap=True)
        return _INVALID
    except Interrupted as error:
        console.print(f"interrupted by {error.signal.name}; everything was taken down", markup=False)
        return 128 + error.signal
    return _shell(parsed, console)


def _up(parsed: argparse.Namespace, console: Console) -> int:
    stages = Stages(console)
    with stages.stage("image, wires, hosts") as stage:
        lab = Containers(
            parsed.name, parsed.hosts, with_internet=parsed.internet, progress=lambda text: stage.now(text)
        )
        with lab:
            stage.detail = f"{len(lab.hosts)} hosts answer"
            lab.keep = True
            inventory = lab.write_inventory(lab.runtime / "inventory.yml")
    console.print(ways_in(lab), markup=False, soft_wrap=True)
    console.print(f"Inventory: {inventory}", markup=False, soft_wrap=True)
    return 0


def _down(name: str, console: Console) -> int:
    with lock(name):
        found = leftovers.remove(name, BUILD)
    console.print(f"lab {name!r} " + ("is down" if found else "was not there"), markup=False)
    return 0


def _shell(parsed: argparse.Namespace, console: Console) -> int:
    """Become ssh; return only where there is no such host."""
    config = leftovers.runtime(parsed.name) / parsed.host / "ssh_config"
    if not config.exists():
        console.print(
            f"found no host {parsed.host!r} in lab {parsed.name!r}, expected one that is up: "
            f"'python -m router_agent.lab.containers up --name {parsed.name} {parsed.host}'",
            markup=False,
            soft_wrap=True,
        )
        return _INVALID
    command = [shlex.join(parsed.words)] if parsed.words else []
    ssh = ["ssh", "-F", str(config), parsed.host, *command]
    return os.execvp(ssh[0], ssh)  # noqa: S606 (a program, no shell)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m router_agent.lab.containers",
        description="Whole Debian hosts in containers, reached by ssh.",
        epilog="Exit codes: 0 done, 2 the lab could not be built.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="boot hosts and leave them up")
    up.add_argument("hosts", nargs="+", metavar="HOST")
    up.add_argument("--internet", action="store_true", help="let them reach the package registries")
    down = commands.add_parser("down", help="take them down")
    shell = commands.add_parser("shell", help="log in to a host, or run a command on it")
    shell.add_argument("host", metavar="HOST")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND")
    for command in (up, down, shell):
        command.add_argument("--name", default=NAME, help="several labs may be up, each with its own name")
    return parser
