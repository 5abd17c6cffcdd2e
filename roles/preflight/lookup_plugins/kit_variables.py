"""Ansible lookup: the kit's variables as its roles will see them, with what cannot be evaluated set apart.

Templates are evaluated one value at a time, so that one undefined variable in the inventory is one line of
the report and not the end of it. Reads the roles' files on the controller; everything after it is pure.
"""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.loader import add_all_plugin_dirs
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: kit_variables
short_description: Variables of the kit's roles, evaluated one by one
description:
  - Reads C(meta/argument_specs.yml) and C(defaults/main.yml) of every role beside the calling one.
options:
  _terms:
    description: Directory of the roles.
    required: true
    type: list
    elements: str
author:
  - the authors
"""

EXAMPLES = r"""
- name: Show what the inventory says
  ansible.builtin.debug:
    msg: "{{ lookup('kit_variables', role_path ~ '/..').defined }}"
"""

RETURN = r"""
_raw:
  description:
    - C(specs) {role {entry point {option {type, ...}}}}.
    - C(defined) {variable value} of all that are set outside of roles' defaults and may be the kit's.
    - C(defaults) {variable value} of the roles' defaults not set elsewhere, as far as they can be evaluated.
    - C(broken) [{variable, message}] of values that cannot be evaluated, each with its path.
    - C(router_ids) {host value} of the other hosts of group C(routers), of all where there is none.
  type: list
  elements: dict
"""

MISSING = object()


class LookupModule(LookupBase):  # type: ignore[misc]  # Ansible has no types
    """The lookup; see DOCUMENTATION."""

    def run(
        self, terms: list[str], variables: Mapping[str, Any] | None = None, **_: Any
    ) -> list[dict[str, Any]]:
        """Return one dictionary; see RETURN."""
        given = dict(variables or {})
        roles = Path(terms[0]).resolve()
        for role in roles.iterdir():
            # Defaults use the filters of their role, which Ansible loads no sooner than the role.
            add_all_plugin_dirs(str(role))
        specs = {role: self.entry_points(path) for role, path in role_files(roles, "meta/argument_specs.yml")}
        defaults = self.merged(roles, "defaults/main.yml")
        internal = self.merged(roles, "vars/main.yml")
        broken: list[dict[str, str]] = []
        names = [name for name in kit_names(given, specs) if name not in internal]
        defined = self.evaluate(names, given, broken)
        # A default that speaks of what exists in its role only (role_path) fails, and is not needed here.
        unset = {name: value for name, value in defaults.items() if name not in given}
        return [
            {
                "specs": specs,
                "defined": defined,
                "defaults": self.evaluate(unset, {**defaults, **given}, []),
                "broken": broken,
                "router_ids": self.router_ids(given),
            }
        ]

    def router_ids(self, given: Mapping[str, Any]) -> dict[str, str]:
        """{host: router_id} of the other routers, as far as they have one."""
        ids = {}
        groups = given.get("groups", {})
        for host in groups.get("routers") or groups.get("all", []):
            if host == given.get("inventory_hostname"):
                continue
            try:
                ids[str(host)] = str(given["hostvars"][host]["router_id"])
            except (AnsibleError, KeyError):
                # That host's own report says what is wrong with it.
                continue
        return ids

    def merged(self, roles: Path, name: str) -> dict[str, Any]:
        """Variables of all roles' files of that name, not evaluated."""
        values: dict[str, Any] = {}
        for _role, path in role_files(roles, name):
            values.update(self.load(path) or {})
        return values

    def load(self, path: Path) -> Any:
        """Content of a YAML file of ours; its templates may be evaluated."""
        return self._loader.load_from_file(str(path), trusted_as_template=True)

    def entry_points(self, path: Path) -> dict[str, Any]:
        """{entry point: its options} of a role."""
        specs = (self.load(path) or {}).get("argument_specs") or {}
        return {name: dict(spec.get("options") or {}) for name, spec in specs.items()}

    def evaluate(
        self, names: Iterable[str], variables: Mapping[str, Any], broken: list[dict[str, str]]
    ) -> dict[str, Any]:
        """{name: value}; values that cannot be evaluated are left out and added to `broken`."""
        templar = self._templar.copy_with_new_env(available_variables=dict(variables))
        values = {}
        for name in names:
            value = self.plain(name, variables[name], templar, broken)
            if value is not MISSING:
                values[name] = value
        return values

    def plain(self, path: str, value: Any, templar: Any, broken: list[dict[str, str]]) -> Any:
        """`value` without templates, down to its leaves; MISSING where it cannot be evaluated."""
        if isinstance(value, Mapping):
            entries = ((key, self.plain(f"{path}.{key}", value[key], templar, broken)) for key in value)
            return {str(key): entry for key, entry in entries if entry is not MISSING}
        if isinstance(value, list | tuple):
            items = (self.plain(f"{path}[{i}]", value[i], templar, broken) for i in range(len(value)))
            return [item for item in items if item is not MISSING]
        try:
            result = templar.template(value)
            if isinstance(result, Mapping | list | tuple):
                return self.plain(path, result, templar, broken)
            # Comparing makes an encrypted value decrypt itself now, where a missing password can be reported.
            return (
                str(result)
                if isinstance(result, str) or type(result).__name__ == "EncryptedString"
                else result
            )
        except AnsibleError as error:
            broken.append({"variable": path, "message": first_line(error)})
            return MISSING


def role_files(roles: Path, name: str) -> list[tuple[str, Path]]:
    """(role, path) of a file that roles have, by role."""
    return [(path.relative_to(roles).parts[0], path) for path in sorted(roles.glob(f"*/{name}"))]


def kit_names(given: Mapping[str, Any], specs: Mapping[str, Any]) -> list[str]:
    """Names that are the kit's, begin like them, or look like a router_ variable that is not set.

    The last are slips of the pen in the prefix itself; what nobody misses is the operator's own business.
    """
    known = {option for points in specs.values() for options in points.values() for option in options}
    prefixes = tuple(f"{role}_" for role in (*specs, "router"))
    missed = [name for name in known if name.startswith("router_") and name not in given]
    return sorted(
        name
        for name in given
        if name in known or name.startswith(prefixes) or get_close_matches(name, missed, n=1, cutoff=0.9)
    )


def first_line(error: AnsibleError) -> str:
    """What went wrong, in one line."""
    return " ".join(str(error.message or error).split())
