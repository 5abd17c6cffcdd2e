"""Every event of the log has one level, one set of fields, and a line in docs/operations.md."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

from router_agent.events import Event

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()
LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}
ELSEWHERE = {"lab", "traffic"}
"""Rooms whose words a person reads as they come."""
DAEMON = {"feeds", "fibs", "mirror", "netlink", "observe", "vpp"}
"""Rooms of the agent itself, besides the modules beside them."""


def _sources() -> list[Path]:
    package = ROOT / "router_agent"
    return [p for p in package.rglob("*.py") if p.relative_to(package).parts[0] not in ELSEWHERE]


def _event(call: ast.Call) -> tuple[str, set[str]] | None:
    """Return the event and the fields of an ``about(Event.X, field=...)``."""
    if not (isinstance(call.func, ast.Name) and call.func.id == "about" and call.args):
        return None
    named = call.args[0]
    assert isinstance(named, ast.Attribute), ast.dump(named)
    assert all(keyword.arg for keyword in call.keywords), (
        f"line {call.lineno}: fields by name, so that they can be listed"
    )
    return Event[named.attr].value, {str(keyword.arg) for keyword in call.keywords}


def calls() -> dict[str, tuple[set[str], set[str]]]:
    """Return levels and fields by event, from the code."""
    levels: dict[str, set[str]] = defaultdict(set)
    fields: dict[str, set[str]] = defaultdict(set)
    for path in _sources():
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            if found := _event(node):
                fields[found[0]] |= found[1]
            if isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                extra = next((k.value for k in node.keywords if k.arg == "extra"), None)
                if isinstance(extra, ast.Call) and (found := _event(extra)):
                    level = "error" if node.func.attr == "exception" else node.func.attr
                    levels[found[0]].add(level)
    return {event: (levels[event], fields[event] - {"pipeline"}) for event in fields}


def documented() -> dict[str, tuple[str, set[str]]]:
    """Return level and fields by event, from the page's table."""
    section = PAGE.partition("\n## The log\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \|([^|]*)\|", section, re.MULTILINE)
    return {event: (level, set(re.findall(r"`(\w+)`", fields))) for event, level, fields in rows}


def test_every_event_is_logged_at_one_level() -> None:
    found = calls()
    assert set(found) == {event.value for event in Event}
    # What the journal did not take is a record of its own, not a call.
    assert {e: sorted(levels) for e, (levels, _) in found.items() if len(levels) != 1} == {"lines-lost": []}


def test_the_table_of_events_says_what_the_code_does() -> None:
    expected = {event: (*levels, fields) for event, (levels, fields) in calls().items() if levels}
    expected["lines-lost"] = ("warning", {"lines"})
    assert documented() == expected


def test_agents_own_lines_of_note_name_an_event() -> None:
    """A line at info or above without an event is one that nobody can look for."""
    bare = []
    for path in _sources():
        parts = path.relative_to(ROOT / "router_agent").parts
        if len(parts) > 1 and parts[0] not in DAEMON:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            owner = node.func.value
            of_log = isinstance(owner, ast.Name) and owner.id in {"_log", "log"}
            if not of_log or node.func.attr not in LEVELS - {"debug"}:
                continue
            if not any(keyword.arg == "extra" for keyword in node.keywords):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert bare == []


def test_fields_do_not_hide_those_of_every_line() -> None:
    reserved = {"time", "level", "logger", "event", "message", "traceback", "left_out"}
    assert not reserved & {field for _, fields in calls().values() for field in fields}
