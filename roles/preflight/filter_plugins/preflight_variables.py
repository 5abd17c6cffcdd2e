"""Ansible filter: which variables of the inventory are missing, unknown or of the wrong type.

Ansible validates a role's arguments when the role begins and stops at the first role that has wrong ones.
Here all variables of all roles are compared with their specifications at once, and each problem has the path
of the value: `router_ports[uplink].vlans[100].mtu`.
"""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

Problem = dict[str, str]
Option = Mapping[str, Any]
Options = Mapping[str, Option]

TYPE_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "dict": "a mapping (key: value)",
    "list": "a list",
    "path": "a path",
}
# Slips of the pen are this similar (difflib's ratio).
NEAREST = 0.6


def preflight_variables(
    defined: Mapping[str, Any],
    specs: Mapping[str, Mapping[str, Options]],
    broken: Sequence[Mapping[str, str]] = (),
    ignored: Sequence[str] = (),
) -> dict[str, Any]:
    """Compare variables with the specifications of all roles.

    Args:
        defined: {variable: value} of all variables that are set and may be the kit's.
        specs: {role: {entry point: {option: {type, elements, choices, required, default, options, no_log}}}}.
        broken: [{variable, message}] of values that cannot be evaluated.
        ignored: names that are not to be reported as unknown.

    Returns:
        {problems: [{variable, found, expected, remedy}], notes: [text], values: {variable: value}}. `values`
        has the router_* variables with their defaults and without what is wrong, and all other known ones.
    """
    router = specs.get("preflight", {}).get("router", {})
    known = {**known_options(specs), **router}
    problems = [unevaluated(entry) for entry in broken]
    lost = {entry["variable"] for entry in broken}
    values: dict[str, Any] = {}
    for name, value in defined.items():
        if name in known:
            clean = check(name, value, known[name], problems, lost)
            if clean is not None:
                values[name] = clean
        elif name not in ignored and name not in lost:
            problems.append(unknown_variable(name, value, known))
    for name, option in router.items():
        if name in defined or name in lost:
            continue
        if option.get("required"):
            problems.append(missing(name, option))
        elif option.get("default") is not None:
            values[name] = option["default"]
    return {"problems": problems, "notes": [], "values": values}


def known_options(specs: Mapping[str, Mapping[str, Options]]) -> dict[str, Option]:
    """{variable: option} of every entry point of every role; the first that gives a type counts."""
    known: dict[str, Option] = {}
    for points in specs.values():
        for options in points.values():
            for name, option in options.items():
                known.setdefault(name, option)
    return known


def check(path: str, value: Any, option: Option, problems: list[Problem], lost: set[str]) -> Any:
    """`value` as the specification wants it, None when nothing of it is right; adds to `problems`."""
    kind = option.get("type", "str")
    if value is None:
        return None
    if kind == "dict" and isinstance(value, Mapping):
        options = option.get("options")
        return check_keys(path, value, options, problems, lost) if options else dict(value)
    if kind == "list" and is_list(value):
        item = {**option, "type": option.get("elements", "raw")}
        item.pop("elements", None)
        checked = (
            check(path + label(value, index), entry, item, problems, lost)
            for index, entry in enumerate(value)
        )
        return [entry for entry in checked if entry is not None]
    wrong = wrong_type(path, value, option) or refused(path, value, option)
    if wrong:
        problems.append(wrong)
        return None
    return converted(value, option)


def check_keys(
    path: str, value: Mapping[str, Any], options: Options, problems: list[Problem], lost: set[str]
) -> dict[str, Any]:
    """The known keys of a mapping, with defaults for those that are not set."""
    values: dict[str, Any] = {}
    for key, entry in value.items():
        if key not in options:
            problems.append(unknown_key(path, str(key), entry, options))
            continue
        clean = check(f"{path}.{key}", entry, options[key], problems, lost)
        if clean is not None:
            values[key] = clean
    for key, option in options.items():
        if value.get(key) is not None or f"{path}.{key}" in lost:
            continue
        if option.get("required"):
            problems.append(missing(f"{path}.{key}", option))
        elif option.get("default") is not None:
            values[key] = option["default"]
    return values


def wrong_type(path: str, value: Any, option: Option) -> Problem | None:
    """Values that Ansible would convert in silence to something nobody meant, or cannot convert."""
    kind = option.get("type", "str")
    if kind == "str" and isinstance(value, int | float) and not isinstance(value, bool):
        return {
            "variable": path,
            "found": f"the number {'(secret)' if option.get('no_log') else value}",
            "expected": "text",
            "remedy": "put it in quotes: YAML reads digits with colons or leading zeros as a number",
        }
    scalar_expected = kind in ("str", "int", "float", "bool", "path")
    collection = isinstance(value, Mapping) or is_list(value)
    wrong = (
        (scalar_expected and collection)
        or (kind in ("list", "dict") and not collection)
        or (kind == "list" and isinstance(value, Mapping))
        or (kind == "dict" and is_list(value))
        or (kind in ("str", "int", "float", "path") and isinstance(value, bool))
        # Inside a list or mapping the role gets the value as it is written, not as it could be read. A
        # variable of the command line is always text.
        or (kind in ("int", "float", "bool") and isinstance(value, str) and is_nested(path))
    )
    if not wrong:
        return None
    remedy = (
        "take the quotes off" if isinstance(value, str) and kind != "list" else f"write {TYPE_WORDS[kind]}"
    )
    if kind == "list" and isinstance(value, str):
        remedy = f"write a list: [{value}]"
    return {"variable": path, "found": shown(value, option), "expected": TYPE_WORDS[kind], "remedy": remedy}


def refused(path: str, value: Any, option: Option) -> Problem | None:
    """What Ansible's own validation says of one value."""
    result = ArgumentSpecValidator({"value": leaf(option)}).validate({"value": value})
    if not result.error_messages:
        return None
    choices = option.get("choices")
    expected = one_of(choices) if choices else TYPE_WORDS.get(option.get("type", "str"), "another value")
    near = get_close_matches(str(value), [str(choice) for choice in choices or []], n=1, cutoff=NEAREST)
    remedy = f"write {near[0]}" if near else f"write {expected}"
    return {"variable": path, "found": shown(value, option), "expected": expected, "remedy": remedy}


def converted(value: Any, option: Option) -> Any:
    """The value as Ansible converts it."""
    result = ArgumentSpecValidator({"value": leaf(option)}).validate({"value": value})
    return result.validated_parameters["value"]


def leaf(option: Option) -> dict[str, Any]:
    """The part of an option that says what one value may be."""
    return {key: option[key] for key in ("type", "choices", "elements") if key in option}


def missing(path: str, option: Option) -> Problem:
    """A value that has to be set."""
    kind = TYPE_WORDS.get(option.get("type", "str"), "a value")
    return {
        "variable": path,
        "found": "nothing",
        "expected": kind,
        "remedy": f"set it: {first_sentence(option)}",
    }


def unevaluated(entry: Mapping[str, str]) -> Problem:
    """A value whose template or encryption does not give a value."""
    return {
        "variable": entry["variable"],
        "found": f"a value that cannot be evaluated: {entry['message']}",
        "expected": "a value",
        "remedy": "define what the template names, or give the vault's password (--ask-vault-pass)",
    }


def unknown_variable(name: str, value: Any, known: Mapping[str, Option]) -> Problem:
    """A variable that begins like the kit's and is none of them."""
    near = get_close_matches(name, known, n=1, cutoff=NEAREST)
    return {
        "variable": name,
        "found": f"a variable that no role knows ({shown(value, {})})",
        "expected": f"{near[0]}?" if near else "a variable of the inventory's reference",
        "remedy": (f"rename it to {near[0]}" if near else "take it out")
        + ", or name it in preflight_ignored_variables if it is your own",
    }


def unknown_key(path: str, key: str, value: Any, options: Options) -> Problem:
    """A key that a mapping does not have."""
    near = get_close_matches(key, options, n=1, cutoff=NEAREST)
    return {
        "variable": f"{path}.{key}",
        "found": f"an unknown key ({shown(value, {'no_log': not near or options[near[0]].get('no_log')})})",
        "expected": f"{near[0]}?" if near else one_of(sorted(options)),
        "remedy": f"rename it to {near[0]}" if near else "take it out",
    }


def label(items: Sequence[Any], index: int) -> str:
    """[name] of an item where names tell items apart, [id] of a VLAN, else [index]."""
    item = items[index]
    for key in ("name", "id"):
        if isinstance(item, Mapping) and isinstance(item.get(key), str | int):
            alike = [other for other in items if isinstance(other, Mapping) and other.get(key) == item[key]]
            return f"[{item[key]}]" if len(alike) == 1 else f"[{index}]"
    return f"[{index}]"


def shown(value: Any, option: Option) -> str:
    """A value in a message; collections by what they are, secrets not at all."""
    if option.get("no_log"):
        return "a value that is not shown here"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return repr(value)
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(str, value)) or 'no keys'}"
    if is_list(value):
        return f"a list of {len(value)}"
    return "nothing" if value is None else str(value)


def is_list(value: Any) -> bool:
    """Whether a value is a list, and not text."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_nested(path: str) -> bool:
    """Whether a path leads into a list or mapping."""
    return "." in path or "[" in path


def one_of(words: Iterable[Any]) -> str:
    """A choice in words."""
    listed = [str(word) for word in words]
    return listed[0] if len(listed) == 1 else f"one of {', '.join(listed)}"


def first_sentence(option: Option) -> str:
    """What an option is, in a sentence, without Ansible's markup."""
    text = option.get("description", "")
    text = text if isinstance(text, str) else " ".join(text)
    plain = re.sub(r"\b[BCI]\(([^)]*)\)", r"\1", text)
    return plain.split(". ")[0].rstrip(".")


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {"preflight_variables": preflight_variables}
