# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible module: which kernel GRUB boots, next time only or from now on.

GRUB keeps two words in its environment block (grub-editenv(1)): ``saved_entry``, which a configuration with
``GRUB_DEFAULT=saved`` boots, and ``next_entry``, which it boots once and forgets before it does
(grub-reboot(8)). A kernel that is tried is put into the second alone: whatever becomes of it, the boot after
that takes the first.

Forgetting means writing to the environment block, which GRUB cannot do on every file system. Where it cannot,
a kernel that does not come up would be tried for ever; such a host is refused.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: kernel_boot
short_description: Say which kernel GRUB boots
description:
  - Sets GRUB's saved entry, or the entry of the next boot alone, to that of an installed kernel.
options:
  release:
    description: Release of the kernel, as C(uname -r) prints it.
    type: str
    required: true
  when:
    description: >-
      C(always) from now on, which also forgets a kernel that was to be tried; C(once) at the next boot.
    type: str
    choices: [always, once]
    required: true
  directory:
    description: GRUB's directory.
    type: path
    default: /boot/grub
author: ["The authors of the router kit"]
"""

RETURN = r"""
entry:
  description: The entry's name.
  type: str
  returned: success
"""

UNWRITABLE = frozenset({"btrfs", "cpiofs", "newc", "odc", "romfs", "squash4", "tarfs", "zfs"})
"""File systems GRUB does not write to, as grub-probe(8) names them (GRUB 2.12, util/grub.d/00_header.in)."""


class BootError(Exception):
    """What was found, what was expected, and what to do."""


@dataclass(frozen=True)
class Grub:
    """GRUB's files."""

    directory: Path

    @property
    def configuration(self) -> Path:
        """What it reads at boot."""
        return self.directory / "grub.cfg"

    @property
    def environment(self) -> Path:
        """Its environment block."""
        return self.directory / "grubenv"


def entry_of(configuration: str, release: str) -> str:
    """Return the name of a kernel's entry, with its submenu, as GRUB takes it for a default.

    Args:
        configuration: grub.cfg, as grub-mkconfig writes it.
        release: of the kernel.

    Raises:
        BootError: there is no such entry.
    """
    identifier = r"\$menuentry_id_option '(?P<id>[^']+)'"
    submenu = ""
    for line in configuration.splitlines():
        found = re.search(identifier, line)
        if found and line.lstrip().startswith("submenu "):
            submenu = found["id"]
        elif found and re.match(rf"gnulinux-{re.escape(release)}-advanced-", found["id"]):
            inside = line[:1].isspace()
            return f"{submenu}>{found['id']}" if inside and submenu else found["id"]
        elif line.startswith("}"):
            submenu = ""
    raise BootError(
        f"grub.cfg: found no entry of kernel {release}, expected one that update-grub wrote: is the kernel "
        "installed, and does GRUB's menu have its submenu (GRUB_DISABLE_SUBMENU)?"
    )


def boots_saved(configuration: str) -> bool:
    """Tell whether grub.cfg boots the saved entry, and one other when it is told so for the next boot."""
    return 'set default="${saved_entry}"' in configuration and 'set default="${next_entry}"' in configuration


def environment_of(listing: str) -> dict[str, str]:
    """Return what ``grub-editenv FILE list`` prints."""
    return dict(line.split("=", 1) for line in listing.splitlines() if "=" in line)


def wanted_environment(found: Mapping[str, str], entry: str, when: str) -> dict[str, str]:
    """Return the words that have to change, empty for one that is to go."""
    wanted = {"next_entry": entry} if when == "once" else {"saved_entry": entry, "next_entry": ""}
    return {name: value for name, value in wanted.items() if found.get(name, "") != value}


def run(*command: str) -> str:
    """Run a program of GRUB and return what it prints.

    Raises:
        BootError: it failed.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BootError(f"{command[0]}: {error}") from error
    if done.returncode != 0:
        raise BootError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def check_forgets(grub: Grub) -> None:
    """Refuse where GRUB cannot write to its environment block.

    Raises:
        BootError: it cannot.
    """
    below = run("grub-probe", "--target=abstraction", str(grub.directory)).split()
    system = run("grub-probe", "--target=fs", str(grub.directory)).strip()
    if below or system in UNWRITABLE:
        raise BootError(
            f"{grub.directory} is on {' on '.join([system, *below])}, which GRUB cannot write to: it would "
            f"try a kernel that does not come up for ever. Put /boot on a plain partition with ext4, or "
            f"change the kernel by hand, with a console at hand"
        )


def set_entry(grub: Grub, release: str, when: str, *, check: bool) -> tuple[str, dict[str, str]]:
    """Set the entry; return it and the words of the environment that changed.

    Raises:
        BootError: there is none, or GRUB would not do as it is told.
    """
    try:
        configuration = grub.configuration.read_text()
    except OSError as error:
        raise BootError(f"{grub.configuration}: {error.strerror}: does GRUB boot this host?") from error
    entry = entry_of(configuration, release)
    if not boots_saved(configuration):
        raise BootError(
            f"{grub.configuration}: found that it does not boot the saved entry, expected "
            f"GRUB_DEFAULT=saved of 61-pop-router-kernel.cfg: run update-grub, and see that nothing later "
            f"in /etc/default/grub.d sets it"
        )
    if not grub.environment.exists() and not check:
        run("grub-editenv", str(grub.environment), "create")
    known = run("grub-editenv", str(grub.environment), "list") if grub.environment.exists() else ""
    change = wanted_environment(environment_of(known), entry, when)
    if check:
        return entry, change
    for name, value in change.items():
        words = ("set", f"{name}={value}") if value else ("unset", name)
        run("grub-editenv", str(grub.environment), *words)
    return entry, change


def main() -> None:
    """Run the module, see DOCUMENTATION."""
    module = AnsibleModule(
        argument_spec={
            "release": {"type": "str", "required": True},
            "when": {"type": "str", "choices": ["always", "once"], "required": True},
            "directory": {"type": "path", "default": "/boot/grub"},
        },
        supports_check_mode=True,
    )
    grub, when = Grub(Path(module.params["directory"])), module.params["when"]
    try:
        if when == "once":
            check_forgets(grub)
        entry, change = set_entry(grub, module.params["release"], when, check=module.check_mode)
    except BootError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(change), entry=entry)


if __name__ == "__main__":
    main()
