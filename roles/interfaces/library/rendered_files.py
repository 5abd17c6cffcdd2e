#!/usr/bin/python
"""Write a set of files, remove those that left it: one remote call, one difference, no half-written file."""

# Copyright: the authors of the router kit. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: rendered_files
short_description: Write a set of files and remove those that left it
description:
  - Takes files as text, so that many of them are one remote call. What is already right is left alone.
  - A file is written beside its place, checked, and moved over the old one.
options:
  files:
    description: The files that are to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path; missing directories are made.
        type: path
        required: true
      content:
        description: Text of the file.
        type: str
        required: true
      mode:
        description: Permissions in octal digits.
        type: str
        default: "0644"
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      validate:
        description:
          - Command that succeeds for a good file; C(%s) is the path of the new one. Not run in check mode.
        type: str
  links:
    description: Symbolic links that are to be there.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path of the link.
        type: path
        required: true
      target:
        description: What it points to.
        type: str
        required: true
  stale:
    description:
      - Patterns (glob) of absolute paths. What matches and is not among I(files) and I(links) is removed.
    type: list
    elements: str
    default: []
author:
  - the authors
"""

EXAMPLES = r"""
- name: Write the ports' configuration
  rendered_files:
    files:
      - path: /etc/systemd/network/10-pop-router-uplink.network
        content: "{{ lookup('ansible.builtin.template', 'port.network.j2') }}"
    stale: [/etc/systemd/network/10-pop-router-*]
"""

RETURN = r"""
written:
  description: Paths of files and links that were written, or would be.
  returned: always
  type: list
  elements: str
removed:
  description: What was removed, or would be, path to former text.
  returned: always
  type: dict
"""


class FileError(Exception):
    """A file cannot be what it should be."""


class Wanted(NamedTuple):
    """One file as it should be."""

    path: Path
    content: bytes
    mode: int
    owner: str
    group: str
    validate: str | None


class Change(NamedTuple):
    """One file that differs; `after` is None for one to be removed."""

    path: Path
    before: str
    after: str | None


def wanted_file(entry: Mapping[str, Any]) -> Wanted:
    """One entry of `files`.

    Raises:
        FileError: its mode is not octal, or its validate has no place for the path.
    """
    try:
        mode = int(str(entry["mode"]), 8)
    except ValueError:
        raise FileError(
            f"files[{entry['path']}].mode: found {entry['mode']!r}, expected octal digits"
        ) from None
    validate = entry.get("validate")
    if validate and "%s" not in validate:
        raise FileError(f"files[{entry['path']}].validate: found {validate!r}, expected a command with %s")
    content = str(entry["content"]).encode()
    return Wanted(Path(entry["path"]), content, mode, entry["owner"], entry["group"], validate)


def differs(wanted: Wanted) -> bool:
    """Whether the file is missing or has another text, mode, owner or group."""
    try:
        status = wanted.path.lstat()
    except FileNotFoundError:
        return True
    if not stat.S_ISREG(status.st_mode) or stat.S_IMODE(status.st_mode) != wanted.mode:
        return True
    return _names(status) != (wanted.owner, wanted.group) or wanted.path.read_bytes() != wanted.content


def _names(status: os.stat_result) -> tuple[str, str]:
    try:
        return pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        return "", ""


def stale_paths(patterns: Sequence[str], kept: set[Path]) -> list[Path]:
    """What matches one of the patterns and is not kept."""
    found = {path for pattern in patterns for path in Path("/").glob(pattern.lstrip("/"))}
    return sorted(path for path in found - kept if path.is_symlink() or path.is_file())


def text_of(path: Path) -> str:
    """Text of a file, what a link points to, or nothing where there is nothing."""
    if path.is_symlink():
        return f"-> {path.readlink()}\n"
    return path.read_text(errors="replace") if path.is_file() else ""


def write(module: AnsibleModule, wanted: Wanted) -> None:
    """Put a file in its place, after its check.

    Raises:
        FileError: the check refuses it.
    """
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    draft = wanted.path.with_name(f".{wanted.path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(wanted.content)
    try:
        if wanted.validate:
            _check(module, wanted, draft)
        os.chown(draft, pwd.getpwnam(wanted.owner).pw_uid, grp.getgrnam(wanted.group).gr_gid)
        draft.chmod(wanted.mode)
        draft.replace(wanted.path)
    finally:
        draft.unlink(missing_ok=True)


def _check(module: AnsibleModule, wanted: Wanted, draft: Path) -> None:
    assert wanted.validate is not None
    command = [word.replace("%s", str(draft)) for word in shlex.split(wanted.validate)]
    code, out, error = module.run_command(command)
    if code != 0:
        said = (error + out).strip() or "nothing"
        raise FileError(
            f"{wanted.path}: found a text that `{wanted.validate}` refuses with status {code}: {said}\n"
            "The old file was left as it is."
        )


def link(path: Path, target: str) -> None:
    """Make a symbolic link, in place of what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(path)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Bring the files into their state and return the module's result."""
    files = [wanted_file(entry) for entry in module.params["files"]]
    links = {Path(entry["path"]): str(entry["target"]) for entry in module.params["links"]}
    stale = stale_paths(module.params["stale"], {wanted.path for wanted in files} | set(links))
    changed_files = [wanted for wanted in files if differs(wanted)]
    changed_links = [path for path, target in links.items() if text_of(path) != f"-> {target}\n"]
    changes = [Change(wanted.path, text_of(wanted.path), wanted.content.decode()) for wanted in changed_files]
    changes += [Change(path, text_of(path), f"-> {links[path]}\n") for path in changed_links]
    changes += [Change(path, text_of(path), None) for path in stale]
    if not module.check_mode:
        for wanted in changed_files:
            write(module, wanted)
        for path in changed_links:
            link(path, links[path])
        for path in stale:
            path.unlink()
    return {
        "changed": bool(changes),
        "written": [str(change.path) for change in changes if change.after is not None],
        "removed": {str(change.path): change.before for change in changes if change.after is None},
        "diff": [difference(change) for change in changes],
    }


def difference(change: Change) -> dict[str, str]:
    """One change as Ansible shows it."""
    return {
        "before_header": str(change.path),
        "after_header": str(change.path) if change.after is not None else "removed",
        "before": change.before,
        "after": change.after or "",
    }


def main() -> None:
    """Run as an Ansible module."""
    file = {
        "path": {"type": "path", "required": True},
        "content": {"type": "str", "required": True},
        "mode": {"type": "str", "default": "0644"},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "validate": {"type": "str"},
    }
    symlink = {"path": {"type": "path", "required": True}, "target": {"type": "str", "required": True}}
    module = AnsibleModule(
        argument_spec={
            "files": {"type": "list", "elements": "dict", "default": [], "options": file},
            "links": {"type": "list", "elements": "dict", "default": [], "options": symlink},
            "stale": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except FileError as error:
        module.fail_json(msg=str(error))
    except (OSError, KeyError) as error:
        module.fail_json(msg=f"{type(error).__name__}: {error}")
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
