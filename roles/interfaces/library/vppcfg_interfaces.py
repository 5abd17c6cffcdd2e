#!/usr/bin/python
"""Bring VPP's interfaces into the state that vppcfg.yaml describes: plan, show, apply, plan again."""

# Copyright: the authors of the router kit. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: vppcfg_interfaces
short_description: Plan and apply VPP's interfaces with vppcfg
description:
  - Asks vppcfg what has to be done in the running VPP. Where that is something, the unit that does it at
    boot is restarted, and vppcfg must find nothing left to do afterwards.
  - In check mode the plan is shown and nothing is applied.
options:
  content:
    description: Text of vppcfg's configuration; the unit has the same in a file.
    type: str
    required: true
  program:
    description: Program that plans, C(vpp-interfaces).
    type: path
    default: /usr/local/lib/pop-router/vpp-interfaces
  api_socket:
    description: VPP's API socket.
    type: path
    default: /run/vpp/api.sock
  unit:
    description: Unit that applies I(config).
    type: str
    default: vpp-interfaces.service
author:
  - the authors
"""

EXAMPLES = r"""
- name: Bring VPP's interfaces into their state
  vppcfg_interfaces:
    content: "{{ lookup('ansible.builtin.template', 'vppcfg.yaml.j2') }}"
"""

RETURN = r"""
plan:
  description: VPP's commands that were applied, or would be.
  returned: always
  type: list
  elements: str
"""


class PlanError(Exception):
    """VPP's interfaces cannot be brought into their state."""


def planned(module: AnsibleModule) -> list[str]:
    """What is left to do in VPP.

    Raises:
        PlanError: the configuration is refused, or VPP does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="vppcfg-") as directory:
        config = Path(directory, "vppcfg.yaml")
        config.write_text(module.params["content"])
        program, api_socket = module.params["program"], module.params["api_socket"]
        code, out, error = module.run_command([program, "plan", str(config), "--api-socket", api_socket])
    if code != 0:
        raise PlanError(f"found no plan for VPP's interfaces (status {code}): {(error + out).strip()}")
    return [str(line) for line in out.splitlines()]


def active(module: AnsibleModule) -> bool:
    """Whether the unit has done its work since VPP started."""
    code, _, _ = module.run_command(["systemctl", "is-active", "--quiet", module.params["unit"]])
    return bool(code == 0)


def apply(module: AnsibleModule) -> None:
    """Restart the unit, and make sure that nothing is left to do.

    Raises:
        PlanError: the unit fails, or vppcfg finds something left.
    """
    unit = module.params["unit"]
    code, _, error = module.run_command(["systemctl", "restart", unit])
    if code != 0:
        _, journal, _ = module.run_command(["journalctl", "--unit", unit, "--lines", "20", "--output", "cat"])
        raise PlanError(f"{unit} failed: {error.strip()}\n{journal.strip()}")
    if left := planned(module):
        raise PlanError(f"found work left after vppcfg applied its plan, expected none: {'; '.join(left)}")


def missing(module: AnsibleModule) -> str | None:
    """Why nothing can be planned on a host that is only being looked at; None when it can."""
    for key in ("program", "api_socket"):
        if not Path(module.params[key]).exists():
            return f"{module.params[key]} is not there yet: every interface would be made"
    return None


def run(module: AnsibleModule) -> dict[str, Any]:
    """Bring the interfaces into their state and return the module's result."""
    if module.check_mode and (reason := missing(module)):
        return {"changed": True, "plan": [], "msg": reason}
    plan = planned(module)
    changed = bool(plan) or not active(module)
    if changed and not module.check_mode:
        apply(module)
    after = "".join(f"{command}\n" for command in plan)
    return {
        "changed": changed,
        "plan": plan,
        "diff": [{"before_header": "VPP", "after_header": "vppcfg plan", "before": "", "after": after}],
    }


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "content": {"type": "str", "required": True},
            "program": {"type": "path", "default": "/usr/local/lib/pop-router/vpp-interfaces"},
            "api_socket": {"type": "path", "default": "/run/vpp/api.sock"},
            "unit": {"type": "str", "default": "vpp-interfaces.service"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except PlanError as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
