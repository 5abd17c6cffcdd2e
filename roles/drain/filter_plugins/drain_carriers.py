# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: whether another router of a POP can carry what one carries, by what both say.

Each says it by ``router-agent carried`` (router_agent/drain/carried.py). Another router carries it when it

* can be reached and asked, is not drained, and its agent has every pipeline in sync;
* has an established session of each family in which this one has one;
* announces to somebody each of the POP's own prefixes that this one announces;
* has a route for this one's prefixes of BGP, the same or a shorter one, but for a share that may be missing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from textwrap import wrap
from typing import Any

_LABELS = {"ipv4": "IPv4", "ipv6": "IPv6"}
_ESTABLISHED = "Established"
_WIDTHS = (20, 30, 60)


def drain_same_pop(hosts: Sequence[str], pops: Sequence[str], pop: str) -> list[str]:
    """Return the hosts whose POP is the given one; `pops` are theirs, in the same order."""
    return [host for host, its in zip(hosts, pops, strict=True) if its == pop]


def drain_carriers(
    mine: Mapping[str, Any], others: Iterable[Mapping[str, Any]], *, missing_share: float
) -> dict[str, Any]:
    """Judge whether one of the others carries what this router carries.

    Args:
        mine: what running ``router-agent carried`` on this router gave.
        others: the same of the others of its POP, with their names as `item`.
        missing_share: share of this router's prefixes that another may have no route for.

    Returns:
        `reasons`: why nobody can take over, in words, nothing when somebody can; `carriers`: who can;
            `found`:
        whether this router is drained already; `table`: what was compared, for people.
    """
    own, problem = _read(mine)
    if own is None:
        return _judged([f"it cannot be asked: {problem}"], [], found=False, rows=[])
    rows, carriers, reasons = [("this router", _counts(own), _standing(own))], [], []
    for result in others:
        name = str(result["item"])
        other, problem = _read(result)
        faults = [problem] if other is None else _faults(own, other, missing_share)
        rows.append((name, "" if other is None else _counts(other), "; ".join(faults) or "can carry it"))
        if faults:
            reasons.append(f"{name}: {'; '.join(faults)}")
        else:
            carriers.append(name)
    found = own["mark"] is not None
    if found or carriers or not _carries(own):
        return _judged([], carriers, found=found, rows=rows)
    return _judged(
        reasons or ["the inventory has no other router of this POP"], carriers, found=found, rows=rows
    )


def drain_words(result: Mapping[str, Any]) -> str:
    """Return in words what ``router-agent drain --json``, or ``undrain``, did."""
    said = str(result.get("stderr") or "").strip()
    try:
        found = json.loads(result.get("stdout") or "")
    except ValueError:
        return said or str(result.get("msg") or "no answer")
    words = [f"{speaker['name']}: {speaker['words']}" for speaker in found["speakers"]]
    if found["traffic"]:
        words.append(found["traffic"]["words"])
    drained = "drained" if found["mark"] else "not drained"
    return f"{drained}; {'; '.join(words)}" if words else drained


def _read(result: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """Return what a router said of itself, or why it said nothing."""
    if result.get("unreachable"):
        return None, f"cannot be reached: {result.get('msg', 'no answer')}"
    if result.get("rc") != 0:
        said = str(result.get("stderr") or result.get("msg") or "no answer").strip().splitlines()
        return None, f"cannot be asked: {said[-1] if said else 'no answer'}"
    try:
        found: dict[str, Any] = json.loads(result["stdout"])
    except ValueError as error:
        return None, f"cannot be understood: {error}"
    return found, ""


def _faults(own: Mapping[str, Any], other: Mapping[str, Any], missing_share: float) -> list[str]:
    faults = [str(problem) for problem in other["problems"]]
    if other["drained"]:
        mark = other["mark"] or {}
        faults.append(
            f"is drained (by {mark.get('by') or 'unknown'}: {mark.get('reason') or 'no reason given'})"
        )
    faults += [f"pipeline {name} is {state}" for name, state in other["agent"].items() if state != "in-sync"]
    for family in _LABELS:
        if _established(own, family) and not _established(other, family):
            faults.append(f"has no established {_label(family)} session")
        faults += _uncovered(own, other, family, missing_share)
    silent = [
        prefix for prefix, told in own["announced"].items() if told and not other["announced"].get(prefix)
    ]
    if silent:
        faults.append(f"announces no {', '.join(silent[:3])}" + (" and others" if len(silent) > 3 else ""))
    return faults


def _uncovered(
    own: Mapping[str, Any], other: Mapping[str, Any], family: str, missing_share: float
) -> list[str]:
    # Ansible loads every filter of a play in the process of each task: these would take half of its time.
    from router_agent.drain.carried import examples, missing, unpacked
    from router_agent.model import Family

    mine, theirs = own["tables"].get(family), other["tables"].get(family)
    if not mine or not mine["prefixes"]:
        return []
    if theirs is None:
        return [f"does not tell its {_label(family)} prefixes"]
    kind = Family[family.upper()]
    wanted = unpacked(mine["keys"], kind)
    left = missing(wanted, unpacked(theirs["keys"], kind), kind)
    if len(left) <= missing_share * len(wanted):
        return []
    return [
        f"has no route for {len(left):,} of {len(wanted):,} {_label(family)} prefixes "
        f"({', '.join(examples(left))})"
    ]


def _established(found: Mapping[str, Any], family: str) -> bool:
    return any(s["state"] == _ESTABLISHED for s in found["sessions"].get(family, {}).values())


def _carries(own: Mapping[str, Any]) -> bool:
    """Tell whether there is anything to take over."""
    return (
        any(table["prefixes"] for table in own["tables"].values())
        or any(own["announced"].values())
        or any(_established(own, family) for family in _LABELS)
        or bool(own["problems"])
    )


def _counts(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{_label(name)} {table['prefixes']:,}" for name, table in found["tables"].items())


def _standing(own: Mapping[str, Any]) -> str:
    sessions = sum(s["state"] == _ESTABLISHED for peers in own["sessions"].values() for s in peers.values())
    announced = sum(1 for told in own["announced"].values() if told)
    words = f"{sessions} sessions established, {announced} own prefixes announced"
    return f"is drained already; {words}" if own["mark"] else words


def _label(family: str) -> str:
    return _LABELS[family]


def _judged(
    reasons: list[str], carriers: list[str], *, found: bool, rows: Sequence[tuple[str, str, str]]
) -> dict[str, Any]:
    return {"reasons": reasons, "carriers": carriers, "found": found, "table": _table(rows)}


def _table(rows: Sequence[tuple[str, str, str]]) -> str:
    lines = [_line(("router", "prefixes of BGP", "")), _line(tuple("-" * width for width in _WIDTHS))]
    for row in rows:
        columns = [wrap(text, width) or [""] for text, width in zip(row, _WIDTHS, strict=True)]
        height = max(map(len, columns))
        lines += [_line([c[n] if n < len(c) else "" for c in columns]) for n in range(height)]
    return "\n".join(lines)


def _line(parts: Sequence[str]) -> str:
    return "  ".join(part.ljust(width) for part, width in zip(parts, _WIDTHS, strict=True)).rstrip()


class FilterModule:
    """The filters, by the names they have in templates."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name to filter."""
        return {
            "drain_carriers": drain_carriers,
            "drain_same_pop": drain_same_pop,
            "drain_words": drain_words,
        }
