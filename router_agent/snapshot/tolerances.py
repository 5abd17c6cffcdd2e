"""What may differ between two snapshots: a YAML file, options that override it, defaults with reasons."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from router_agent.snapshot.model import SOURCES
from router_agent.strict_yaml import (
    FileError,
    Where,
    content_of,
    expected,
    one_of,
    placed,
    shown,
    tree_of,
)


class Part(StrEnum):
    """What is meant to be another after a change."""

    AGENT = "agent"
    CONFIGURATION = "configuration"
    DEBIAN = "debian"
    DPDK = "dpdk"
    DRAINED = "drained"
    EXABGP = "exabgp"
    FRR = "frr"
    INTERFACES = "interfaces"
    KERNEL = "kernel"
    VPP = "vpp"


Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
_NAME = r"^\S+$"
Name = Annotated[str, Field(pattern=_NAME)]


class Tolerances(BaseModel):
    """How much may differ; every field is a key of the YAML file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefixes_fall_percent: Percent = Field(
        default=1.0,
        description="By how many percent prefixes of a session, and tables, may shrink. A full table moves "
        "by some tenths of a percent in an hour; one missing prefix of fewer than 100 is more than this.",
    )
    prefixes_rise_percent: Percent | None = Field(
        default=None,
        description="By how many percent they may grow; null does not judge it: `maximum-prefix` is for "
        "leaks.",
    )
    fib_gap_percent: Percent = Field(
        default=0.01,
        description="By how many percent BGP, kernel and FIB may differ in the later snapshot, and how many "
        "more routes may be kept out of the FIB. Counts are read one after the other, and a full table moves "
        "meanwhile: this is a hundred of a million, and none of less than ten thousand.",
    )
    errors_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Field(
        default=1.0,
        description="How fast each counter of errors and drops of an interface may grow, on average between "
        "the two. A healthy port drops a packet now and then, for example of a protocol nobody takes.",
    )
    session_drops: Annotated[int, Field(ge=0)] | None = Field(
        default=None,
        description="How often a session that is up again may have been lost meanwhile; null does not judge "
        "it, for a restart of FRR or VPP resets sessions and is often the change itself.",
    )
    changed: tuple[Part | Annotated[str, Field(pattern=r"^/\S+$")], ...] = Field(
        default=(),
        description="What is meant to be another afterwards: `kernel`, `frr`, `vpp` (its DPDK with it), "
        "`exabgp`, `agent`, `dpdk`, `debian`: their versions; `configuration`, or the path of one file; "
        "`drained`: the mark; `interfaces`: which there are, and their MTU.",
    )
    sessions_lost: tuple[Name, ...] = Field(
        default=(),
        description="Peers, by address, whose sessions (BGP and BFD) may be down or gone.",
    )
    interfaces_down: tuple[Name, ...] = Field(
        default=(), description="Interfaces that may be down, by their names in the snapshot."
    )
    unreadable: tuple[Name, ...] = Field(
        default=(),
        description="Sources that need not answer, and are then not compared: " + ", ".join(SOURCES) + ".",
    )

    def expects(self, part: Part) -> bool:
        """Return whether a part is meant to be another."""
        return part in self.changed or (part is Part.DPDK and Part.VPP in self.changed)


def load(path: Path | None, overrides: Mapping[str, Any]) -> Tolerances:
    """Return the tolerances of a file, with what options say in place of what it says.

    Args:
        path: None takes the defaults.
        overrides: by field; lists are added to the file's, None leaves the file's value.

    Raises:
        FileError: with everything that is wrong.
    """
    node, data = tree_of(content_of(path), str(path)) if path else (None, {})
    if data is not None and not isinstance(data, dict):
        raise FileError([f"{path}: found {shown(data)}, expected a mapping of {', '.join(_FIELDS)}"])
    values = dict(data or {})
    for name, value in overrides.items():
        if isinstance(value, list | tuple) and isinstance(said := values.get(name, []), list):
            values[name] = [*said, *value]
        elif value is not None:
            values[name] = value
    try:
        found = Tolerances.model_validate(values)
    except ValidationError as error:
        problems = [_problem(details) for details in error.errors(include_url=False)]
        raise FileError(placed(dict.fromkeys(problems), str(path or "tolerances"), node)) from error
    unknown = [name for name in found.unreadable if name not in SOURCES]
    if unknown:
        words = [
            (("unreadable",), f"found {shown(name)}, expected {one_of(SOURCES, name)}") for name in unknown
        ]
        raise FileError(placed(words, str(path or "tolerances"), node))
    return found


_FIELDS = list(Tolerances.model_fields)


def _problem(details: ErrorDetails) -> tuple[Where, str]:
    """Put one of pydantic's errors into our words."""
    where = details["loc"]
    if details["type"] == "extra_forbidden":
        return where, f"found an unknown key, expected {one_of(_FIELDS, str(where[-1]))}"
    if where and where[0] == "changed" and len(where) > 1:
        parts = [part.value for part in Part]
        return where[
            :2
        ], f"found {shown(details['input'])}, expected {one_of(parts, str(details['input']))}, or a path"
    return where, f"found {shown(details['input'])}, expected {expected(details, _PATTERNS)}"


_PATTERNS = {_NAME: "a name without blanks"}
