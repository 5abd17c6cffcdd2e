"""What draining needs to know of a host: drain.yaml, which role router_agent writes.

Without the file the defaults below hold: FRR as Debian packages it, no ExaBGP, the kernel forwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from router_agent.strict_yaml import (
    Where,
    content_of,
    expected,
    model_of,
    one_of,
    shown,
)

CONFIG = Path("/etc/router-agent/drain.yaml")
CONTROL_SOCKET = Path("/run/router-agent/control.sock")
MARK = Path("/run/router-agent/drained")
"""There while the router is drained."""

Seconds = Annotated[float, Field(gt=0, le=86400)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class FrrSettings(_Part):
    """FRR.

    Attributes:
        vtysh: the command that speaks to it.
        configuration: the file its daemons start with.
        seconds: how long it may take to answer; a bgpd with several full tables takes some.
    """

    vtysh: tuple[str, ...] = Field(default=("vtysh",), min_length=1)
    configuration: Path = Path("/etc/frr/frr.conf")
    seconds: Seconds = 60.0


class ExaBgpSettings(_Part):
    """ExaBGP, where it has sessions of its own with neighbours.

    Attributes:
        status: file in which the process `exabgp_announcer` says what ExaBGP has taken from it.
        seconds: how long that may take.
    """

    status: Path = Path("/run/exabgp/drained.json")
    seconds: Seconds = 15.0


class TrafficSettings(_Part):
    """The traffic whose end a drain waits for: what comes in by the ports that forward.

    Attributes:
        forwarding: who counts it, the kernel or VPP.
        ports: their names there.
        namespace: network namespace of the kernel's ports; None is the command's own.
        control_namespace: that in which BGP speaks, likewise.
        stats_socket: VPP's stats segment.
        below_pps: so many packets a second are no traffic.
        below_share: neither is such a share of what there was before; 0 counts packets alone.
        seconds: how long traffic may take to go.
        quiet_seconds: so long it has to stay below.
        interval_seconds: between two readings of the counters.
    """

    forwarding: Literal["kernel", "vpp"] = "kernel"
    ports: tuple[str, ...] = ()
    namespace: str | None = None
    control_namespace: str | None = None
    stats_socket: Path = Path("/run/vpp/stats.sock")
    below_pps: float = Field(default=100.0, ge=0)
    below_share: float = Field(default=0.0, ge=0, lt=1)
    seconds: Seconds = 300.0
    quiet_seconds: Seconds = 5.0
    interval_seconds: Annotated[float, Field(ge=0.05, le=60)] = 1.0


class MarkSettings(_Part):
    """Where it is written down that the router is drained.

    Attributes:
        current: gone after a reboot.
        kept: still there after one.
    """

    current: Path = MARK
    kept: Path = Path("/var/lib/router-agent/drained")


class FailSafeSettings(_Part):
    """When the host drains itself, and when it takes that back (`router_agent.drain.fail_safe`).

    Attributes:
        control_socket: of the agent that is asked.
        request: file in which the watcher asks for it, as it has no right to do it.
        wrong_seconds: how long a FIB may be other than in sync, or without room, before the host is drained.
        silent_seconds: how long the agent may be away, likewise.
        right_seconds: how long all must be right before the host's own drain is taken back.
        right_seconds_most: the same after drains that follow each other; it doubles with each.
        forget_seconds: a drain so long ago does not count as one before.
        interval_seconds: between two looks.
    """

    control_socket: Path = CONTROL_SOCKET
    request: Path = Path("/run/router-agent-watch/request")
    wrong_seconds: Seconds = 60.0
    silent_seconds: Seconds = 60.0
    right_seconds: Seconds = 120.0
    right_seconds_most: Seconds = 3600.0
    forget_seconds: Seconds = 21600.0
    interval_seconds: Annotated[float, Field(ge=0.05, le=60)] = 2.0


class Settings(_Part):
    """drain.yaml.

    Attributes:
        frr: None where it does not speak BGP; `exabgp` likewise.
        agent: whether the host's agent has anything to do, so that somebody is to answer on its socket.
    """

    frr: FrrSettings | None = FrrSettings()
    exabgp: ExaBgpSettings | None = None
    agent: bool = True
    traffic: TrafficSettings = TrafficSettings()
    mark: MarkSettings = MarkSettings()
    fail_safe: FailSafeSettings = FailSafeSettings()


def load(path: Path) -> Settings:
    """Read drain.yaml; the defaults where the host has none at the usual place.

    Raises:
        FileError: with everything that is wrong.
    """
    if path == CONFIG and not path.exists():
        return Settings()
    return model_of(Settings, content_of(path), str(path), _problems, empty={})


def _problems(error: ValidationError) -> Iterator[tuple[Where, str]]:
    return map(_problem, error.errors(include_url=False))


def _problem(details: ErrorDetails) -> tuple[Where, str]:
    """Put one of pydantic's errors into our words."""
    where: Where = details["loc"]
    if details["type"] == "extra_forbidden":
        return where, f"found an unknown key, expected {one_of(_known_keys(where[:-1]), str(where[-1]))}"
    return where, f"found {shown(details['input'])}, expected {expected(details, {})}"


def _known_keys(where: Where) -> list[str]:
    if not where:
        return list(Settings.model_fields)
    parts: dict[str, type[_Part]] = {
        "frr": FrrSettings,
        "exabgp": ExaBgpSettings,
        "traffic": TrafficSettings,
        "mark": MarkSettings,
        "fail_safe": FailSafeSettings,
    }
    return list(parts[str(where[0])].model_fields)
