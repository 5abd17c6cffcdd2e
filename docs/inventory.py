"""Writes docs/inventory.md: every variable of the kit, from the argument specifications of the roles.

Run ``make docs``. A unit test compares the page with what this makes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "inventory.md"

ORDER = (
    "preflight",
    "kernel_cmdline",
    "hugepages",
    "cpu_isolation",
    "vfio",
    "sriov",
    "reboot",
    "commit_confirm",
    "vpp",
    "interfaces",
    "frr",
    "exabgp",
    "router_agent",
    "verify",
    "drain",
    "kernel",
    "upgrade",
    "acceptance",
    "snapshot",
    "observability",
    "venv",
)
"""Roles in the order of playbooks/site.yml; others follow by name."""

HEAD = """\
# Inventory reference

Every variable of the kit. `make docs` makes this page from the roles' `meta/argument_specs.yml`: change it
there. `inventory/example/` shows a POP of two routers, and `playbooks/preflight.yml` reports what is missing,
unknown or wrong in yours.

A variable without a default and without "required" has a default that follows from others; the description
says how, and the role's `defaults/main.yml` has the expression.
"""

PLAYBOOK_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "site_serial": {
        "type": "raw",
        "default": "100%",
        "description": "Routers that C(site.yml) builds at a time, as a number or in percent. With 1, the "
        "first that fails stops the rest.",
    },
    "support_since": {
        "type": "str",
        "default": "-24h",
        "description": "How far back the journal goes that C(support.yml) brings, as journalctl takes it.",
    },
    "support_directory": {
        "type": "path",
        "default": "build/support",
        "description": "Directory on the controller that C(support.yml) brings support bundles to.",
    },
}
"""What the playbooks themselves take; `tests/unit/test_playbooks.py` compares it with them."""

TABLE = "| variable | type | default | |\n|---|---|---|---|\n"


def page(roles: Path) -> str:
    """Return the page for a directory of roles."""
    found = {path.parents[1].name: _specification(path) for path in roles.glob("*/meta/argument_specs.yml")}
    known = [name for name in ORDER if name in found]
    names = known + sorted(found.keys() - set(known))
    sections = [section for name in names for section in _role(name, found[name])]
    # The router itself comes first: it is all that most inventories say.
    sections.sort(key=lambda section: not section.startswith("## The router"))
    return "\n".join([HEAD, *sections, f"## Playbooks\n\n{_table(PLAYBOOK_OPTIONS)}"])


def _specification(path: Path) -> Mapping[str, Any]:
    loaded: Mapping[str, Any] = yaml.safe_load(path.read_text())["argument_specs"]
    return loaded


def _role(name: str, entries: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the sections of a role: one, and another for the router's own variables.

    Entry points share most options; each is described once, where it comes first.
    """
    described: set[str] = set()
    parts: list[str] = []
    for entry, specification in entries.items():
        options = {
            option: value
            for option, value in (specification.get("options") or {}).items()
            if option not in described
        }
        if entry == "router":
            yield f"## The router\n\n{_text(specification)}\n{_table(options)}"
            continue
        described |= options.keys()
        if entry == "main":
            parts.insert(0, f"## {name}\n\n{_text(specification)}\n{_table(options)}")
        elif options:
            parts.append(f"Entry point `{entry}`: {_text(specification)}\n{_table(options)}")
    yield "\n".join(parts)


def _text(specification: Mapping[str, Any]) -> str:
    sentences = [
        f"{specification['short_description'].rstrip('.')}.",
        *_listed(specification.get("description")),
    ]
    return _markup(" ".join(sentences)) + "\n"


def _table(options: Mapping[str, Mapping[str, Any]]) -> str:
    if not options:
        return ""
    return TABLE + "".join(f"{row}\n" for row in _rows(options, ""))


def _rows(options: Mapping[str, Mapping[str, Any]], prefix: str) -> Iterator[str]:
    for name, option in options.items():
        words = _markup(" ".join(_listed(option.get("description"))))
        if option.get("choices"):
            words += " One of " + ", ".join(f"`{_shown(choice)}`" for choice in option["choices"]) + "."
        cells = [f"`{prefix}{name}`", _type(option), _default(option), words]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
        inner = option.get("options")
        if inner:
            yield from _rows(inner, f"{prefix}{name}{'[]' if option.get('type') == 'list' else ''}.")


def _type(option: Mapping[str, Any]) -> str:
    kind = str(option.get("type", "str"))
    return f"list of {option['elements']}" if kind == "list" and "elements" in option else kind


def _default(option: Mapping[str, Any]) -> str:
    if option.get("required"):
        return "required"
    return f"`{_shown(option['default'])}`" if option.get("default") is not None else ""


def _shown(value: object) -> str:
    """Return a value as YAML on one line; empty text as quotes."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return text.removesuffix("\n...").strip()


def _listed(description: str | Sequence[str] | None) -> list[str]:
    sentences = [description] if isinstance(description, str) else list(description or [])
    return [" ".join(sentence.split()) for sentence in sentences]


def _markup(text: str) -> str:
    """Turn Ansible's markup of code, options and values into Markdown's."""
    return re.sub(r"\b[CVOE]\(((?:[^()]|\([^()]*\))*)\)", r"`\1`", text)


if __name__ == "__main__":
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text() == page(ROOT / "roles") else f"{PAGE}: is stale, run 'make docs'")
    PAGE.write_text(page(ROOT / "roles"))
