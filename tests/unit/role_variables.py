"""A role's variables, templated by Ansible itself as in a play: what its files will say, without a host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import filter_loader, init_plugin_loader
from ansible.template import Templar, trust_as_template

_OVERRIDES = "#jinja2: trim_blocks:True, lstrip_blocks:True, keep_trailing_newline:True\n"
ROLES = Path(__file__).parents[2] / "roles"
_PLUGINS = ("vpp", "interfaces", "cpu_isolation")
_loaded: set[str] = set()


def templated(role: str, name: str, variables: Mapping[str, Any]) -> Any:
    """Return one of a role's variables as a play would see it.

    Args:
        role: name of the role; its defaults and vars are there.
        name: of the variable.
        variables: of the inventory and of registered results; they win over defaults.
    """
    if not _loaded:
        init_plugin_loader([])
    for plugins in _PLUGINS:
        if plugins not in _loaded:
            filter_loader.add_directory(str(ROLES / plugins / "filter_plugins"))
            _loaded.add(plugins)
    loader = DataLoader()
    scope: dict[str, Any] = {"playbook_dir": str(ROLES.parent / "playbooks"), "inventory_hostname": "ams1-r1"}
    scope |= loader.load_from_file(str(ROLES / role / "defaults" / "main.yml"), trusted_as_template=True)
    scope |= loader.load_from_file(str(ROLES / role / "vars" / "main.yml"), trusted_as_template=True)
    scope |= variables
    return Templar(loader, variables=scope).template(scope[name])


def rendered_by_ansible(template: str, variables: Mapping[str, Any]) -> str:
    """Return a template of ``templates/`` as Ansible renders it.

    Its Jinja is another than Jinja's own: what is not defined is an error even where it is only tested.
    """
    text = (ROLES.parent / "templates" / template).read_text()
    templar = Templar(DataLoader(), variables=dict(variables))
    return str(templar.template(trust_as_template(_OVERRIDES + text)))


def rendered(files: list[dict[str, Any]]) -> dict[str, str]:
    """Path to text of what module rendered_files is given."""
    return {str(file["path"]): str(file["content"]) for file in files}
