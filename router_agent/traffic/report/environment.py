"""The host a check was run on: what somebody needs to know to compare two reports."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("router-agent", "numpy", "MLRsearch")


@dataclass(frozen=True)
class Environment:
    """Host name, kernel, processor, how many CPUs are usable, load before, software versions."""

    host: str
    kernel: str
    processor: str
    cpus: int
    load: float
    versions: dict[str, str]


def this_host() -> Environment:
    """Return what is known of this host."""
    return Environment(
        host=platform.node(),
        kernel=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cpus=len(os.sched_getaffinity(0)),
        load=round(os.getloadavg()[0], 2),
        versions={"python": platform.python_version()} | _versions(),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
