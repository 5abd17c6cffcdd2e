# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible module: a virtual environment made out of an archive, and put in place at once.

The environment's path is a symbolic link to a directory whose name holds the digest of what is inside. A new
environment is made beside the old one and has to import what it is for before the link is moved; until then,
and when anything fails, the old one is used. The one before stays, for a way back.

The host needs neither pip nor a package index: the archive holds what pip would have unpacked. The action
`offline_venv` makes and ships it, and calls this module.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint, distributions
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: venv_from_archive
short_description: Make a virtual environment out of an archive of unpacked wheels
description:
  - Called by the action C(offline_venv), first without an archive to ask whether one is needed.
  - The path is a symbolic link to a directory named after its content. It is moved only when the new
    environment is complete and imports what it is for. The former one is kept, older ones are removed.
options:
  path:
    description: Path of the environment; a symbolic link to the version in use.
    type: path
    required: true
  python:
    description: Interpreter that the environment uses.
    type: path
    default: /usr/bin/python3
  python_version:
    description: Version of that interpreter, major and minor.
    type: str
    required: true
  imports:
    description: Modules that the new environment must import before it is used. This also compiles them.
    type: list
    elements: str
    default: []
  commands:
    description: Programs of the environment that get a link in C(/usr/local/bin), through the path.
    type: list
    elements: str
    default: []
  digest:
    description: SHA-256 of what the environment is made from, in hexadecimal.
    type: str
    required: true
  installed:
    description: What it holds, one name and version a line.
    type: list
    elements: str
    required: true
  archive:
    description: The archive on the host; tar with gzip, names relative to the environment.
    type: path
author: ["The authors of the router kit"]
"""

RETURN = r"""
needs_archive:
  description: Whether the module has to be called again with an archive.
  type: bool
  returned: success
version:
  description: Directory that the path leads to, or will lead to.
  type: str
  returned: success
previous:
  description: Directory that the path led to before, or empty.
  type: str
  returned: success
"""

STAMP = "installed-by-kit.txt"
"""In every finished environment: what is installed, one name and version a line."""
COMMANDS = Path("/usr/local/bin")
"""Where people find programs."""
SECONDS = 600
"""Most that making the environment or importing from it may take; on real hardware it is a few seconds."""


class InstallError(Exception):
    """The new environment cannot be made or does not work; the old one is still in place."""


def version_path(link: Path, digest: str) -> Path:
    """Return the directory of one version of an environment."""
    return link.with_name(f"{link.name}-{digest[:12]}")


def current_version(link: Path) -> Path | None:
    """Return the directory that the link leads to, None when there is no link.

    Raises:
        InstallError: something that this module did not make is in the way.
    """
    if link.is_symlink():
        return link.parent / link.readlink()
    if link.exists():
        raise InstallError(
            f"{link}: found a {'directory' if link.is_dir() else 'file'} that the kit did not make, "
            "expected nothing or the kit's symbolic link; move it away, or choose another path"
        )
    return None


def is_complete(version: Path) -> bool:
    """Tell whether an environment was finished and its interpreter is still there."""
    return (version / STAMP).is_file() and os.access(version / "bin" / "python", os.X_OK)


def contents(version: Path | None) -> list[str]:
    """Return what is installed in an environment, as its stamp says."""
    stamp = version / STAMP if version else None
    return stamp.read_text().splitlines() if stamp and stamp.is_file() else []


def make(
    version: Path,
    archive: Path,
    python: str,
    python_version: str,
    installed: Sequence[str],
    imports: Sequence[str],
) -> None:
    """Make an environment in a directory of its own.

    Args:
        version: the directory; what an earlier attempt left there goes.
        archive: tar file, gzip; names are relative to the environment.
        python: interpreter the environment uses.
        python_version: the interpreter's version the archive was made for, such as 3.13.
        installed: what the archive holds, for the stamp.
        imports: modules that must import.

    Raises:
        InstallError: with what did not work; nothing of the attempt is left.
    """
    if version.exists():
        shutil.rmtree(version)
    try:
        _run([python, "-m", "venv", "--without-pip", str(version)])
        packages = version / "lib" / f"python{python_version}" / "site-packages"
        _check_version(version, packages)
        with tarfile.open(archive) as tar:
            tar.extractall(version)  # noqa: S202 - the controller's own; Debian 12's Python has no filters
        for entry in (e for d in distributions(path=[str(packages)]) for e in d.entry_points):
            if entry.group == "console_scripts":
                _write_script(version, entry)
        if imports:
            _run([str(version / "bin" / "python"), "-c", "import " + ", ".join(imports)])
        (version / STAMP).write_text("".join(f"{line}\n" for line in installed))
    except BaseException:
        shutil.rmtree(version, ignore_errors=True)
        raise


def put_in_place(link: Path, version: Path) -> None:
    """Move the link to a version, in one step."""
    with tempfile.TemporaryDirectory(prefix=f".{link.name}-", dir=link.parent) as directory:
        new = Path(directory) / link.name
        new.symlink_to(version.name)
        new.replace(link)


def remove_others(link: Path, keep: Sequence[Path]) -> None:
    """Remove the versions of an environment that are not to be kept."""
    for path in link.parent.iterdir():
        if re.fullmatch(re.escape(link.name) + "-[0-9a-f]{12}", path.name) and path not in keep:
            shutil.rmtree(path)


def missing_commands(link: Path, commands: Sequence[str], directory: Path) -> dict[Path, Path]:
    """Return the links to programs that are not there yet: path of the link to what it leads to.

    Raises:
        InstallError: something that this module did not make is in the way.
    """
    missing = {}
    for name in commands:
        path, target = directory / name, link / "bin" / name
        if path.is_symlink() and path.readlink() == target:
            continue
        if path.is_symlink() or path.exists():
            raise InstallError(
                f"{path}: found something that the kit did not make, expected nothing or a link to {target}; "
                "move it away"
            )
        missing[path] = target
    return missing


def link_commands(missing: Mapping[Path, Path]) -> None:
    """Make links to programs."""
    for path, target in missing.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)


def _check_version(version: Path, packages: Path) -> None:
    if not packages.is_dir():
        found = ", ".join(path.name for path in (version / "lib").iterdir())
        raise InstallError(f"found {found} on the host, expected {packages.parent.name}; run preflight again")


def _write_script(version: Path, entry: EntryPoint) -> None:
    script = version / "bin" / entry.name
    name = entry.attr.partition(".")[0]
    script.write_text(
        f"#!{version / 'bin' / 'python'}\nimport sys\n\nfrom {entry.module} import {name}\n\n"
        f"sys.exit({entry.attr}())\n"
    )
    script.chmod(0o755)


def _run(command: Sequence[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    try:
        subprocess.run(
            command, env=environment, cwd="/", capture_output=True, text=True, check=True, timeout=SECONDS
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()[-1:] or ["nothing"]
        raise InstallError(
            f"{' '.join(command)}: ended with {error.returncode} and said: {said[0]}"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise InstallError(f"{' '.join(command)}: did not end within {SECONDS} s") from error


def main() -> None:
    """Run the module, see DOCUMENTATION."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "python_version": {"type": "str", "required": True},
            "imports": {"type": "list", "elements": "str", "default": []},
            "commands": {"type": "list", "elements": "str", "default": []},
            "digest": {"type": "str", "required": True},
            "installed": {"type": "list", "elements": "str", "required": True},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    link = Path(wanted["path"])
    version = version_path(link, wanted["digest"])
    try:
        previous = current_version(link)
        result: dict[str, object] = {"version": str(version), "previous": str(previous or "")}
        unlinked = missing_commands(link, wanted["commands"], COMMANDS)
        current = previous == version and is_complete(version)
        if current and not unlinked:
            module.exit_json(changed=False, needs_archive=False, **result)
        result["diff"] = [
            {
                "before_header": f"{link} (installed)",
                "after_header": f"{link} (wanted)",
                "before": "".join(f"{line}\n" for line in contents(previous)),
                "after": "".join(f"{line}\n" for line in [*wanted["installed"], *map(str, unlinked)]),
            }
        ]
        if module.check_mode:
            module.exit_json(changed=True, needs_archive=False, **result)
        if not is_complete(version):
            if not wanted["archive"]:
                module.exit_json(changed=True, needs_archive=True, **result)
            os.umask(0o022)
            link.parent.mkdir(parents=True, exist_ok=True)
            archive, python = Path(wanted["archive"]), wanted["python"]
            make(version, archive, python, wanted["python_version"], wanted["installed"], wanted["imports"])
        if not current:
            put_in_place(link, version)
            remove_others(link, [version, previous or version])
        link_commands(unlinked)
    except (InstallError, OSError, tarfile.TarError) as error:
        module.fail_json(msg=f"{link}: the environment stays as it was: {error}")
    module.exit_json(changed=True, needs_archive=False, **result)


if __name__ == "__main__":
    main()
