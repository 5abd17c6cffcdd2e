"""``router-agent traffic reflect``: a reflector in the device's place, to learn what the tester can do."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from router_agent.traffic.scenario import Port

FAILED = 4
"""Exit code; see `router_agent.cli`."""

_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_PROGRESS_S = 1.0


def reflect(
    ports: Annotated[
        list[str],
        typer.Argument(
            metavar="PORT [PORT]",
            help="PCI address, kernel interface, or path of a memif's socket; frames of one port go back by "
            "it, those of two go over to the other.",
        ),
    ],
    namespace: Annotated[str | None, typer.Option(help="Network namespace of kernel interfaces.")] = None,
    frame_bytes: Annotated[int, typer.Option(help="The longest frame, with FCS.", min=64, max=9018)] = 1518,
    seconds: Annotated[
        float | None, typer.Option(help="End after so long; at Ctrl-C when not given.", min=0.01)
    ] = None,
) -> None:
    """Hand every frame back with dpdk-testpmd, as a device that drops nothing, until Ctrl-C."""
    from router_agent.traffic.generators.generator import GeneratorError
    from router_agent.traffic.generators.testpmd.reflector import Reflector
    from router_agent.traffic.scenario import Endpoints, ScenarioError

    limit = None if seconds is None else time.monotonic() + seconds
    try:
        ends = Endpoints(tuple(_port(text, namespace) for text in ports))
        with Reflector(ends, frame_bytes=frame_bytes) as reflector:
            print(f"reflecting between {', '.join(ends.names)}; Ctrl-C ends it", flush=True)
            try:
                while limit is None or time.monotonic() < limit:
                    left = _PROGRESS_S if limit is None else min(_PROGRESS_S, limit - time.monotonic())
                    reflector.testpmd.pause(max(0.0, left))
            except KeyboardInterrupt:
                print()
            for name, row in zip(ends.names, reflector.statistics(), strict=True):
                came, went, missed = row["ipackets"], row["opackets"], row["imissed"]
                print(f"{name}: {came:,} packets in, {went:,} out, {missed:,} missed")
    except (GeneratorError, ScenarioError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(FAILED) from None


def _port(text: str, namespace: str | None) -> Port:
    from router_agent.traffic.scenario import Port, Wire

    if _PCI.fullmatch(text.lower()):
        return Port(text, text.lower(), wire=Wire.PCI)
    if text.startswith("/"):
        return Port(Path(text).name, text, wire=Wire.MEMIF)
    return Port(text, text, namespace)
