"""docs/operations.md names commands, options, metrics, playbooks and variables that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from router_agent.cli import app
from router_agent.events import Event
from router_agent.web.families import SECTIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
BLOCKS = re.findall(r"^    (.*)$", PAGE, re.MULTILINE)
SPANS = re.findall(r"`([^`\n]+)`", PAGE)
EXPORTERS = {
    "frr_bgp_peer_state": "frr_exporter",
    "node_filesystem_avail_bytes": "node_exporter",
}
"""Metrics of other programs that role observability deploys."""


def named_commands() -> Iterator[str]:
    """Yield every command line of router-agent on the page, without prompt and comment."""
    for line in (*BLOCKS, *SPANS):
        text = line.removeprefix("# ").partition("  #")[0].strip()
        if text.startswith("router-agent "):
            yield text


@pytest.mark.parametrize("text", sorted(set(named_commands())))
def test_a_command_and_its_options_exist(text: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(text)[1:]
    while hasattr(command, "commands") and words:
        assert words[0] in command.commands, f"{text}: there is no {words[0]}"
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    assert [
        word for word in words if word.startswith("-") and word not in options and not _is_value(word)
    ] == []


def _is_value(word: str) -> bool:
    """Tell a time such as -2h from an option."""
    return re.fullmatch(r"-\d+\w*", word) is not None


def test_enough_commands_are_looked_at() -> None:
    assert len(set(named_commands())) > 15


def test_metrics_exist() -> None:
    known = {family.name for section in SECTIONS for family in section.families}
    named = {
        found
        for span in SPANS
        for found in re.findall(r"^((?:router_agent|vpp|frr|node)_[a-z_]+)(?:\{.*)?$", span)
    }
    variables = variables_of_roles()
    metrics = {name for name in named if name not in variables}
    assert len(metrics) > 15
    assert metrics - known - EXPORTERS.keys() == set()


def variables_of_roles() -> set[str]:
    found: set[str] = set()
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            found |= set(entry.get("options") or {})
    return found


def test_variables_of_the_inventory_exist() -> None:
    prefixes = (*(f"{path.name}_" for path in (ROOT / "roles").iterdir()), "router_")
    metrics = {family.name for section in SECTIONS for family in section.families}
    named = {span for span in SPANS if re.fullmatch(r"[a-z_]+", span) and span.startswith(prefixes)}
    assert named - metrics - variables_of_roles() - EXPORTERS.keys() == set()


def test_playbooks_exist() -> None:
    named = set(re.findall(r"\bplaybooks/([a-z_]+\.yml)", PAGE)) | set(re.findall(r"`([a-z]+\.yml)`", PAGE))
    assert named
    assert [name for name in sorted(named) if not (ROOT / "playbooks" / name).exists()] == []


def test_alerts_exist() -> None:
    """Alerts have names of two words or more, all beginning alike; the rules are role observability's."""
    rules = ROOT / "roles" / "observability" / "files" / "router-rules.yml"
    named = {span for span in SPANS if re.fullmatch(r"Router(?:[A-Z][a-z]+)+", span)}
    known = {
        rule["alert"]
        for group in yaml.safe_load(rules.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert len(named) > 10
    assert named - known == set()


def test_events_that_are_named_exist() -> None:
    named = set(re.findall(r"[Ee]vents? `([a-z-]+)`", PAGE)) | set(
        re.findall(r"ROUTER_AGENT_EVENT=([a-z-]+)", PAGE)
    )
    assert len(named) > 5
    assert named <= {event.value for event in Event}


def test_places_on_the_page_exist() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    }
    targets = set(re.findall(r"\]\(#([a-z0-9-]+)\)", PAGE))
    assert targets
    assert targets - headings == set()


RUNBOOKS = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("title", RUNBOOKS)
def test_a_runbook_says_what_is_seen_how_to_make_sure_what_to_do_and_when_it_is_over(title: str) -> None:
    text = PAGE.partition(f"\n### {title}\n")[2].partition("\n### ")[0]
    for part in ("**You see**", "**Make sure**", "**Do**", "**Over**"):
        assert text.count(part) == 1, part
    table = PAGE.partition("\n## Runbooks\n")[2].partition("\n### ")[0]
    assert f"](#{re.sub(r'[^a-z0-9 -]', '', title.lower()).replace(' ', '-')})" in table
