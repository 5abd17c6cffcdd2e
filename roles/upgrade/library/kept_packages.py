# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible module: have at hand what an installation needs, and what going back from it needs.

apt says what the installation would change (``apt-get --simulate install``). The new packages are downloaded,
so that nothing is fetched while the router is drained; and of every package that would be replaced, the
version that is installed now is put into a directory. Where that cannot be had any more, the module fails and
nothing was touched: a change without a way back is none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: kept_packages
short_description: Download packages, and keep the versions they replace
description:
  - Simulates an installation, downloads what it needs, and keeps the packages that are installed now and
    would be replaced as .deb files in a directory. Installs nothing.
  - The former version is looked for in the directory itself, in other directories, and in apt's sources.
  - Fails when a former version is nowhere, or when the installation would remove packages.
options:
  install:
    description: >-
      What is going to be installed, as apt-get takes it, names with C(=VERSION) or paths of .deb files.
    type: list
    elements: str
    required: true
  directory:
    description: Directory that holds the former versions afterwards, and nothing else.
    type: path
    required: true
  search:
    description: Further directories on the host that may hold .deb files of the former versions.
    type: list
    elements: path
    default: []
author: ["The authors of the router kit"]
"""

RETURN = r"""
changes:
  description: Package to C(before) and C(after), versions; C(before) is empty where it is not installed yet.
  type: dict
  returned: success
kept:
  description: Paths of the former versions.
  type: list
  elements: str
  returned: success
"""

APT = ("apt-get", "--quiet", "--yes", "--no-install-recommends", "--allow-downgrades")
SECONDS = 900
"""How long apt may take; a kernel is 100 MB."""

_INSTALLED = re.compile(r"Inst (?P<package>\S+)(?: \[(?P<before>[^]]+)\])? \((?P<after>\S+) ")
_REMOVED = re.compile(r"Remv (?P<package>\S+)")


class KeepError(Exception):
    """What was found, what was expected, and what to do."""


@dataclass(frozen=True)
class Change:
    """What an installation does to a package.

    Attributes:
        package: its name, with the architecture where that is a foreign one.
        before: the version that is installed; empty when none is.
        after: the version that would be.
    """

    package: str
    before: str
    after: str


def changes_of(simulation: str) -> list[Change]:
    """Return what ``apt-get --simulate install`` says it would do.

    Raises:
        KeepError: it would remove packages.
    """
    removed = [match["package"] for match in map(_REMOVED.match, simulation.splitlines()) if match]
    if removed:
        raise KeepError(
            f"the installation would remove {', '.join(removed)}, expected that nothing is lost: look at it "
            f"by hand"
        )
    found = (match for match in map(_INSTALLED.match, simulation.splitlines()) if match)
    return [Change(match["package"], match["before"] or "", match["after"]) for match in found]


def identity(path: Path) -> tuple[str, str]:
    """Return package and version of a .deb file; empty words when it cannot be read."""
    done = subprocess.run(
        ["dpkg-deb", "--show", "--showformat=${Package}\t${Version}", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    package, _, version = done.stdout.strip().partition("\t")
    return (package, version) if done.returncode == 0 else ("", "")


def candidates(change: Change, directories: Iterable[Path]) -> Iterable[Path]:
    """Yield the files that may be the former version of a package, by their names."""
    package = change.package.partition(":")[0]
    for directory in directories:
        yield from sorted(directory.glob(f"{package}_*.deb"))


def find(change: Change, directories: Sequence[Path]) -> Path | None:
    """Return the file of the version that is installed now, None when no directory has one."""
    wanted = (change.package.partition(":")[0], change.before)
    return next((path for path in candidates(change, directories) if identity(path) == wanted), None)


def apt(*arguments: str, cwd: Path | None = None) -> str:
    """Run apt-get and return what it says.

    Raises:
        KeepError: it failed.
    """
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    command = [*APT, "--option=DPkg::Lock::Timeout=120", *arguments]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=SECONDS, env=environment, cwd=cwd
        )
    except subprocess.TimeoutExpired as error:
        raise KeepError(f"{' '.join(command)}: did not end within {SECONDS} s") from error
    if done.returncode != 0:
        errors = [
            line for line in done.stderr.splitlines() if line.startswith("E:")
        ] or done.stderr.splitlines()
        raise KeepError(
            f"apt-get {' '.join(arguments)} ended with {done.returncode}: {' '.join(errors[-3:])}"
        )
    return done.stdout


def offered(change: Change) -> bool:
    """Tell whether apt's sources have the version that is installed now."""
    try:
        apt("download", "--print-uris", f"{change.package}={change.before}")
    except KeepError:
        return False
    return True


def download(change: Change, directory: Path) -> Path | None:
    """Fetch the version that is installed now out of apt's sources; None when they do not have it."""
    try:
        apt("download", f"{change.package}={change.before}", cwd=directory)
    except KeepError:
        return None
    return find(change, [directory])


def keep(changes: Iterable[Change], directory: Path, search: Sequence[Path]) -> list[Path]:
    """Have the former versions, and nothing else, in a directory; return their paths.

    The new content is collected beside it and then takes its place, so that a call that fails leaves what an
    earlier one kept.

    Raises:
        KeepError: a former version is nowhere.
    """
    directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    new.chmod(0o755)
    try:
        lost = []
        for change in changes:
            file = find(change, [directory, *search]) or download(change, new)
            if file is None:
                lost.append(change)
            elif file.parent != new:
                shutil.copy2(file, new / file.name)
        refuse(lost, [directory, *search])
        old = directory.with_name(f".{directory.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if directory.exists():
            directory.rename(old)
        new.rename(directory)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    return sorted(directory.glob("*.deb"))


def refuse(lost: Sequence[Change], directories: Sequence[Path]) -> None:
    """Raise KeepError when a former version was found nowhere."""
    if not lost:
        return
    names = ", ".join(f"{change.package} {change.before}" for change in lost)
    raise KeepError(
        f"no way back: found {names} neither in apt's sources nor in {', '.join(map(str, directories))}, "
        f"expected the version that is installed now before another one replaces it; put its .deb file into "
        f"{directories[0]} and run the playbook again. Nothing was changed"
    )


def run(
    install: Sequence[str], directory: Path, search: Sequence[Path], *, check: bool
) -> Mapping[str, object]:
    """Do what the module is for; in check mode, say whether it could be done.

    Raises:
        KeepError: the installation, or the way back from it, is not possible.
    """
    changes = changes_of(apt("--simulate", "install", *install))
    replaced = [change for change in changes if change.before]
    kept: list[Path] = []
    if check:
        lost = [c for c in replaced if not find(c, [directory, *search]) and not offered(c)]
        refuse(lost, [directory, *search])
    else:
        kept = keep(replaced, directory, search)
        apt("--download-only", "install", *install)
    return {
        "changes": {c.package: {"before": c.before, "after": c.after} for c in changes},
        "kept": [str(path) for path in kept],
    }


def main() -> None:
    """Run the module, see DOCUMENTATION."""
    module = AnsibleModule(
        argument_spec={
            "install": {"type": "list", "elements": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "search": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    given = module.params
    try:
        result = run(
            given["install"],
            Path(given["directory"]),
            [Path(p) for p in given["search"]],
            check=module.check_mode,
        )
    except (KeepError, OSError) as error:
        module.fail_json(msg=str(error))
    # Files in a cache are no change of the router.
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
