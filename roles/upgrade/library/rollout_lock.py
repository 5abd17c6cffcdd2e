# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible module: the lock of a host that a rollout holds, so that no two controllers change one POP.

The lock is a file that outlives a reboot, because a rollout does. It says who holds it. It is made, taken
over and removed under flock(2) on its directory, so that of two who come at once one gets it.
"""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: rollout_lock
short_description: Hold or free the lock of a host
description:
  - Takes the lock of a host for a rollout, or frees it. A lock that another rollout holds is left alone and
    returned.
options:
  path:
    description: The file.
    type: path
    required: true
  holder:
    description: Who wants it; C(run) tells rollouts apart.
    type: dict
    required: true
  state:
    description: C(held) takes it, C(free) frees it where this rollout holds it.
    type: str
    choices: [held, free]
    default: held
  take_from:
    description: A rollout that is known to be over, whose lock may be taken.
    type: str
    default: ""
author: ["The authors of the router kit"]
"""

RETURN = r"""
held:
  description: Whether this rollout holds the lock now.
  type: bool
  returned: success
holder:
  description: Who holds it; in check mode, who would. Empty when nobody does.
  type: dict
  returned: success
"""


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Hold flock(2) on a directory, which is made when there is none."""
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(path: Path) -> dict[str, Any]:
    """Return who holds the lock, empty when nobody does; a file that cannot be understood is somebody's."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        found = None
    return found if isinstance(found, dict) and found else {"run": "unreadable", "what": text[:200]}


def write(path: Path, holder: Mapping[str, Any]) -> None:
    """Put the holder into the file, whole or not at all."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(holder) + "\n")
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    Path(name).replace(path)


def hold(path: Path, holder: Mapping[str, Any], take_from: str, *, check: bool) -> dict[str, Any]:
    """Take the lock unless another rollout holds it; return `changed`, `held` and `holder`."""
    with alone(path.parent):
        found = read(path)
        if found.get("run") == holder["run"]:
            return {"changed": False, "held": True, "holder": found}
        if found and not (take_from and found.get("run") == take_from):
            return {"changed": False, "held": False, "holder": found}
        if not check:
            write(path, holder)
        return {"changed": True, "held": not check, "holder": dict(holder)}


def free(path: Path, holder: Mapping[str, Any], *, check: bool) -> dict[str, Any]:
    """Free the lock where this rollout holds it; return `changed`, `held` and `holder`."""
    with alone(path.parent):
        found = read(path)
        ours = bool(found) and found.get("run") == holder["run"]
        if ours and not check:
            path.unlink()
        return {"changed": ours, "held": False, "holder": {} if ours else found}


def main() -> None:
    """Run the module, see DOCUMENTATION."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "holder": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["held", "free"], "default": "held"},
            "take_from": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    path, holder = Path(module.params["path"]), module.params["holder"]
    try:
        if module.params["state"] == "free":
            result = free(path, holder, check=module.check_mode)
        else:
            result = hold(path, holder, module.params["take_from"], check=module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"{path}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
