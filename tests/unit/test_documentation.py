"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from router_agent.config import (
    ControlConfig,
    ExabgpFeedConfig,
    FpmFeedConfig,
    KernelFeedConfig,
    KernelFibConfig,
    LogConfig,
    VppFibConfig,
    parse,
)

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
SECTIONS: dict[str, type[BaseModel]] = {
    "feed, kind: kernel": KernelFeedConfig,
    "feed, kind: fpm": FpmFeedConfig,
    "feed, kind: exabgp": ExabgpFeedConfig,
    "fib, kind: kernel": KernelFibConfig,
    "fib, kind: vpp": VppFibConfig,
    "control": ControlConfig,
    "log": LogConfig,
}


def row(name: str, field: FieldInfo) -> str:
    """Return the line of the table that describes a key."""
    default = (
        "required" if field.is_required() else f"`{shown(field.get_default(call_default_factory=True))}`"
    )
    words = f" {field.description} |" if field.description else " |"
    return f"| `{field.alias or name}` | {default} |{words}"


def shown(value: object) -> str:
    """Return a default as the file would write it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case tuple():
            return f"[{', '.join(map(str, value))}]"
        case str() if value.isdecimal():
            return f'"{value}"'
        case _:
            return str(value)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_documented_with_its_default(title: str) -> None:
    section = CONFIGURATION.partition(f"### {title}\n")[2].partition("\n#")[0]
    rows = [row(name, field) for name, field in SECTIONS[title].model_fields.items() if name != "kind"]
    assert re.findall(r"^\| `.*", section, re.MULTILINE) == rows


def test_examples_are_valid_configurations() -> None:
    texts = [CONFIGURATION, (ROOT / "README.md").read_text()]
    examples = [example for text in texts for example in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert len(examples) == 3
    for example in examples:
        assert parse(example.encode()).pipelines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {name for page in PAGES for name in re.findall(r"`make ([a-z-]+)", page.read_text())}
    assert named
    assert [name for name in sorted(named) if f"\n{name}:" not in makefile] == []
