"""``router-agent web``: run the web process. Exit codes are those of `router_agent.cli`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

WEB_CONFIG = Path("/etc/router-agent/web.yaml")
_USAGE, _FAILED, _INTERRUPTED = 2, 4, 130


def web(
    config: Annotated[Path, typer.Option("--config", "-c", help="The configuration.")] = WEB_CONFIG,
    check: Annotated[
        bool, typer.Option("--check", help="Check the configuration, and serve nothing.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON Schema of the configuration instead.")
    ] = False,
) -> None:
    """Serve figures for Prometheus (/metrics) and a page for people (/), until SIGTERM or SIGINT."""
    import asyncio

    from router_agent import logs
    from router_agent.web import config as configuration

    if schema:
        print(json.dumps(configuration.schema(), indent=2))
        return
    try:
        checked = configuration.load(config)
    except configuration.WebConfigError as error:
        _fail(_USAGE, *error.problems)
    if check:
        print(checked.model_dump_json(indent=2, by_alias=True))
        return
    logs.set_up(checked.log)
    from router_agent.web import server

    try:
        asyncio.run(server.run(checked))
    except server.ServingError as error:
        _fail(_FAILED, str(error))
    except KeyboardInterrupt:
        raise typer.Exit(_INTERRUPTED) from None


def _fail(code: int, *problems: str) -> NoReturn:
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(code)
