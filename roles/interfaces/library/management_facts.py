#!/usr/bin/python
"""Read who configures the management interfaces, so that a host that becomes a router does not lose them."""

# Copyright: the authors of the router kit. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: management_facts
short_description: Tell who configures the management interfaces
description:
  - Reads C(/proc/sys) and the state of C(systemd-networkd), and changes nothing.
options:
  interfaces:
    description: Names of the management interfaces.
    type: list
    elements: str
    required: true
  own_files:
    description: How the names of the kit's own files of C(systemd-networkd) begin.
    type: path
    required: true
author:
  - the authors
"""

EXAMPLES = r"""
- name: Read who configures the management interfaces
  management_facts:
    interfaces: [eth0]
    own_files: /etc/systemd/network/10-pop-router-
"""

RETURN = r"""
router_advertisements:
  description: Interfaces where the kernel itself takes addresses and routes from router advertisements.
  returned: always
  type: list
  elements: str
configured_elsewhere:
  description: Interfaces that C(systemd-networkd) does not configure with a file that is not the kit's.
  returned: always
  type: list
  elements: str
"""


def accepts_advertisements(interface: str, root: Path = Path("/")) -> bool:
    """Whether the kernel handles router advertisements of an interface (accept_ra is 1 or 2)."""
    try:
        value = (root / "proc/sys/net/ipv6/conf" / interface / "accept_ra").read_text()
    except FileNotFoundError:
        return False
    return value.strip() in {"1", "2"}


def network_file(interface: str, root: Path = Path("/")) -> str | None:
    """The file systemd-networkd configures an interface with, if it does; networkctl reads it there too."""
    try:
        index = (root / "sys/class/net" / interface / "ifindex").read_text().strip()
        state = (root / "run/systemd/netif/links" / index).read_text()
    except FileNotFoundError:
        return None
    values = dict(line.split("=", 1) for line in state.splitlines() if "=" in line)
    return values.get("NETWORK_FILE") or None


def networkd_runs() -> bool:
    """Whether systemd-networkd is active."""
    done = subprocess.run(["systemctl", "is-active", "--quiet", "systemd-networkd.service"], check=False)
    return done.returncode == 0


def facts(interfaces: Iterable[str], own_files: str, runs: bool, root: Path = Path("/")) -> dict[str, Any]:
    """What the module returns."""
    names = list(interfaces)
    elsewhere = []
    for name in names:
        file = network_file(name, root) if runs else None
        if file is None or file.startswith(own_files):
            elsewhere.append(name)
    return {
        "router_advertisements": [name for name in names if accepts_advertisements(name, root)],
        "configured_elsewhere": elsewhere,
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "interfaces": {"type": "list", "elements": "str", "required": True},
            "own_files": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    found = facts(module.params["interfaces"], module.params["own_files"], networkd_runs())
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
