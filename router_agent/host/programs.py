"""Versions of what is installed: this interpreter's packages, Debian's, and environments beside it."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from router_agent.host.reader import Reader

_SECONDS = 10
_DISTRIBUTION = re.compile(r"(?P<name>[A-Za-z0-9_.]+)-(?P<version>[^-]+)\.dist-info")


def python_packages(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that this interpreter has."""
    found: dict[str, str] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def debian_packages(reader: Reader, names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those Debian packages that are installed."""
    layout = "${Package} ${db:Status-Status} ${Version}\n"
    # its exit code only says that some packages are missing
    listed = output(
        reader, "versions of Debian packages", "dpkg-query", "-W", "-f", layout, *names, fails=True
    )
    rows = (line.split() for line in listed.splitlines())
    return {row[0]: row[2] for row in rows if len(row) == 3 and row[1] == "installed"}


def in_environment(reader: Reader, environment: str, name: str) -> str | None:
    """Return the version of a package in a virtual environment, None where it is not.

    Args:
        reader: of the host.
        environment: absolute path.
        name: of the distribution.
    """
    libraries = f"{environment.lstrip('/')}/lib"
    for python in reader.names(libraries):
        for entry in reader.names(f"{libraries}/{python}/site-packages"):
            found = _DISTRIBUTION.fullmatch(entry)
            if found and found["name"].lower() == name.lower():
                return found["version"]
    return None


def output(reader: Reader, what: str, *argv: str, fails: bool = False) -> str:
    """Return what a program prints; nothing when it cannot be run, and the reader remembers why.

    Args:
        reader: of the host.
        what: is asked, for `Reader.unknown`.
        argv: program and arguments.
        fails: its exit code says nothing.
    """
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=not fails)
    except FileNotFoundError:
        reader.unknown[what] = f"there is no {argv[0]}"
        return ""
    except (OSError, subprocess.SubprocessError) as error:
        reader.unknown[what] = str(error)
        return ""
    return done.stdout
