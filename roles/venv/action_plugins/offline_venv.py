# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible action: keep a virtual environment of exactly these wheels, without a package index on the host.

On the controller, pip downloads what a lock file pins, checks the hashes, and unpacks it for the host's
Python and architecture, which need not be the controller's. The archive is kept under its digest, which is
that of everything it is made from: a second host, and a second run, costs nothing. The module
`venv_from_archive` does the host's half: one remote call when nothing changed, two and the archive otherwise.

    offline_venv:
      path: /opt/exabgp                  # on the host; a symbolic link to the version in use
      requirements: files/requirements.txt     # on the controller; every line has == and --hash
      local_wheels: []                   # on the controller; installed too, without their dependencies
      python: /usr/bin/python3           # the host's
      python_version: "3.13"             # its version, major and minor
      machine: x86_64                    # the host's architecture, as `uname -m` prints it
      imports: [exabgp]                  # what the new environment must import before it is used
      commands: [exabgpcli]              # programs that get a link in /usr/local/bin
      cache: build/wheelhouse            # on the controller; keeps the archives
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

FORMAT = 1
"""Counts up when archives of the same wheels would look different."""
KEPT = 12
"""Archives kept in the cache; the ones used last."""
GLIBC = range(36, 16, -1)
"""Minor versions of glibc 2 whose wheels run on every supported host; Debian 12 has 2.36."""
DATA = frozenset({"etc", "share", "include"})
"""What ``pip install --target`` puts beside packages though it belongs to the environment itself."""

OPTIONS: Mapping[str, Mapping[str, object]] = {
    "path": {"type": "path", "required": True},
    "requirements": {"type": "path", "required": True},
    "local_wheels": {"type": "list", "elements": "path", "default": []},
    "python": {"type": "path", "default": "/usr/bin/python3"},
    "python_version": {"type": "str", "required": True},
    "machine": {"type": "str", "required": True},
    "imports": {"type": "list", "elements": "str", "default": []},
    "commands": {"type": "list", "elements": "str", "default": []},
    "cache": {"type": "path", "required": True},
}


class WheelhouseError(Exception):
    """The archive cannot be made: a lock file, a wheel or pip is not as it has to be."""


@dataclass(frozen=True)
class Target:
    """What wheels have to fit.

    Attributes:
        python_version: CPython's major and minor version, such as 3.13.
        machine: architecture, as ``uname -m`` prints it.
    """

    python_version: str
    machine: str

    @property
    def markers(self) -> dict[str, str]:
        """The target's environment markers (PEP 508). Its micro version is not known: taken to be 0."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python_version}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python_version}.0",
            "python_version": self.python_version,
            "sys_platform": "linux",
        }

    @property
    def pip_options(self) -> list[str]:
        """Pip's words for the target."""
        platforms = [f"manylinux_2_{minor}_{self.machine}" for minor in GLIBC]
        platforms += [f"manylinux2014_{self.machine}", f"linux_{self.machine}"]
        chosen = [option for platform in platforms for option in ("--platform", platform)]
        return ["--python-version", self.python_version, "--implementation", "cp", *chosen]


@dataclass(frozen=True)
class Pin:
    """One requirement of a lock file.

    Attributes:
        name: normalised (PEP 503).
        version: as pinned.
        hashes: what the file pip gets must have one of, such as ``sha256:...``.
    """

    name: str
    version: str
    hashes: tuple[str, ...]

    @property
    def line(self) -> str:
        """The requirement, for pip."""
        return " ".join([f"{self.name}=={self.version}", *(f"--hash={value}" for value in self.hashes)])


def read_lock(path: Path, target: Target) -> list[Pin]:
    """Return what a lock file pins for a target, sorted.

    pip evaluates markers for the interpreter it runs in, and would skip or add packages of another Python.

    Raises:
        WheelhouseError: the file cannot be read, or something in it is not pinned.
    """
    try:
        text = path.read_text()
    except OSError as error:
        raise WheelhouseError(f"{path}: cannot be read: {error.strerror}") from error
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    pins = (_read_pin(path, line, target) for line in lines if line and not line.startswith("#"))
    return sorted((pin for pin in pins if pin), key=lambda pin: (pin.name, pin.version))


def _read_pin(path: Path, line: str, target: Target) -> Pin | None:
    requirement, *hashes = (part.strip() for part in line.split("--hash="))
    try:
        parsed = Requirement(requirement)
    except InvalidRequirement as error:
        raise WheelhouseError(
            f"{path}: found {requirement!r}, expected a pinned requirement: {error}"
        ) from error
    if parsed.marker and not parsed.marker.evaluate(target.markers):
        return None
    pinned = [part.version for part in parsed.specifier if part.operator == "=="]
    if len(pinned) != 1 or not hashes:
        raise WheelhouseError(
            f"{path}: found {requirement!r}, expected name==version and a --hash; run 'make lock'"
        )
    return Pin(canonicalize_name(parsed.name), pinned[0], tuple(hashes))


@dataclass(frozen=True)
class Wheelhouse:
    """What an environment is to hold.

    Attributes:
        target: what it is for.
        pins: from the lock file.
        local: wheels of our own, and the SHA-256 of each.
    """

    target: Target
    pins: Sequence[Pin]
    local: Mapping[Path, str]

    @property
    def digest(self) -> str:
        """SHA-256 of everything the archive is made from, in hexadecimal."""
        made_from = {
            "format": FORMAT,
            "target": [self.target.python_version, self.target.machine],
            "pins": [pin.line for pin in self.pins],
            "local": sorted((path.name, digest) for path, digest in self.local.items()),
        }
        return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()

    @property
    def installed(self) -> list[str]:
        """What will be installed, one name and version each; our own wheels with part of their digest."""
        own = []
        for path, digest in self.local.items():
            name, version, *_ = parse_wheel_filename(path.name)
            own.append(f"{name}=={version} ({digest[:12]})")
        return sorted([*(f"{pin.name}=={pin.version}" for pin in self.pins), *own])


def plan(target: Target, lock: Path, local_wheels: Sequence[Path]) -> Wheelhouse:
    """Return what an environment is to hold.

    Raises:
        WheelhouseError: the lock file or a wheel cannot be used.
    """
    local = {}
    for path in local_wheels:
        try:
            parse_wheel_filename(path.name)
            local[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        except (InvalidWheelFilename, OSError) as error:
            raise WheelhouseError(f"{path}: found no wheel that can be read: {error}") from error
    return Wheelhouse(target, read_lock(lock, target), local)


def archive(wheelhouse: Wheelhouse, cache: Path) -> Path:
    """Return the archive of a wheelhouse, made now unless the cache has it.

    Raises:
        WheelhouseError: pip cannot get or unpack a wheel.
    """
    path = cache / f"{wheelhouse.digest}.tar.gz"
    cache.mkdir(parents=True, exist_ok=True)
    with _alone(cache / "lock"):
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix="making-", dir=cache) as directory:
                _pack(wheelhouse, _unpacked(wheelhouse, Path(directory)), Path(directory) / path.name)
                (Path(directory) / path.name).replace(path)
        os.utime(path)
        made = sorted(cache.glob("*.tar.gz"), key=lambda kept: kept.stat().st_mtime_ns)
        for old in made[:-KEPT]:
            old.unlink()
    return path


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait for the other processes of this run: Ansible serves each host from one of its own."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unpacked(wheelhouse: Wheelhouse, directory: Path) -> Path:
    """Download and unpack a wheelhouse and return the directory that is to become site-packages."""
    downloads, built, tree = (directory / name for name in ("downloads", "built", "site-packages"))
    lock = directory / "requirements.txt"
    lock.write_text("".join(f"{pin.line}\n" for pin in wheelhouse.pins))
    for empty in (downloads, built, tree):
        empty.mkdir()
    options = wheelhouse.target.pip_options
    if wheelhouse.pins:
        chosen = ["--no-deps", "--require-hashes", "--requirement", str(lock)]
        _pip("download", "--dest", str(downloads), *chosen, *options)
    sources = [path for path in downloads.iterdir() if path.suffix != ".whl"]
    if sources:
        # There is no wheel of these. One that is built here has to fit any Python, as the check below says.
        _pip("wheel", "--no-deps", "--wheel-dir", str(built), *map(str, sources))
    for path in built.iterdir():
        if not path.name.endswith("-none-any.whl"):
            raise WheelhouseError(
                f"{path.name}: found a package that has to be compiled and has no wheel for Python "
                f"{wheelhouse.target.python_version} on {wheelhouse.target.machine}, expected one; "
                "pin a version with one"
            )
    wheels = [*downloads.glob("*.whl"), *built.iterdir(), *wheelhouse.local]
    unpack = ["--no-deps", "--no-index", "--no-compile", "--only-binary", ":all:", "--target", str(tree)]
    # For a file it is given, pip compares the Python it runs in, not the one it is told.
    _pip("install", *unpack, "--ignore-requires-python", *options, *map(str, wheels))
    return tree


def _pip(*arguments: str) -> None:
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", *quiet, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        said = " ".join(errors or done.stderr.splitlines()[-1:])
        raise WheelhouseError(
            f"pip {arguments[0]} on the controller ended with {done.returncode} and said: {said}; "
            "expected a package index that can be reached, or every wheel in pip's cache"
        )


def _pack(wheelhouse: Wheelhouse, tree: Path, path: Path) -> None:
    """Write the archive: names are relative to the environment, owners are root, scripts are left out."""
    packages = f"lib/python{wheelhouse.target.python_version}/site-packages"
    shutil.rmtree(tree / "bin", ignore_errors=True)  # written anew on the host, with the path they have there
    with tarfile.open(path, "w:gz", compresslevel=6) as tar:
        for entry in sorted(tree.iterdir()):
            name = entry.name if entry.name in DATA else f"{packages}/{entry.name}"
            tar.add(entry, name, filter=_owned_by_root)


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    return member


class ActionModule(ActionBase):  # type: ignore[misc]
    """Asks the host what it has, and ships the archive only when that is something else."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the action; see the description above."""
        super().run(tmp, task_vars)
        _, given = self.validate_argument_spec(argument_spec=OPTIONS)
        target = Target(given["python_version"], given["machine"])
        try:
            wheelhouse = plan(
                target, Path(given["requirements"]), [Path(path) for path in given["local_wheels"]]
            )
            names = ("path", "python", "python_version", "imports", "commands")
            wanted = {name: given[name] for name in names}
            wanted |= {"digest": wheelhouse.digest, "installed": wheelhouse.installed}
            result = self._on_host(wanted, task_vars)
            if result.get("failed") or not result.get("needs_archive"):
                return result
            local = archive(wheelhouse, Path(given["cache"]))
        except WheelhouseError as error:
            raise AnsibleActionFail(f"{given['path']}: {error}") from error
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, local.name)
        self._transfer_file(str(local), remote)
        self._fixup_perms2((self._connection._shell.tmpdir, remote))
        return self._on_host(wanted | {"archive": remote}, task_vars)

    def _on_host(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="venv_from_archive", module_args=arguments, task_vars=task_vars
        )
        return result
