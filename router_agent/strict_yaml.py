"""YAML files of ours: read without surprises, every mistake named by line, key, what was found and expected.

What a file may say is a pydantic model of its owner; its errors are put into words here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

FILE_LIMIT = 1 << 20
"""Largest file that is read, in bytes; a real one has a few hundred."""

Model = TypeVar("Model", bound=BaseModel)
Where: TypeAlias = tuple[str | int, ...]
"""A place in a file: keys and list positions."""


class FileError(Exception):
    """A file cannot be used.

    Attributes:
        problems: one line each: file, line, key, what was found, what was expected.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def content_of(path: Path) -> bytes:
    """Return the content of a file, of a larger one than `FILE_LIMIT` a byte more.

    Raises:
        FileError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise FileError([f"{path}: cannot be read: {error.strerror}"]) from error


def tree_of(content: bytes, name: str) -> tuple[yaml.Node | None, object]:
    """Return the YAML nodes of a file, for positions, and its data; `name` is what errors call it.

    Raises:
        FileError: it is not the YAML we take.
    """
    if len(content) > FILE_LIMIT:
        raise FileError([f"{name}: found more than {FILE_LIMIT} bytes, expected a file of a few hundred"])
    loader: _Loader | None = None
    try:
        loader = _Loader(content)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        words = ", ".join(part for part in (error.context, error.problem) if part)
        raise FileError([f"{name}{at}: not valid YAML: {one_line(words)}"]) from error
    except yaml.YAMLError as error:
        raise FileError([f"{name}: not valid YAML: {one_line(str(error))}"]) from error
    except RecursionError as error:
        raise FileError([f"{name}: not valid YAML: found values nested too deeply to read"]) from error
    finally:
        if loader is not None:
            loader.dispose()


def model_of(
    model: type[Model],
    content: bytes,
    name: str,
    problems: Callable[[ValidationError], Iterable[tuple[Where, str]]],
    *,
    empty: object = None,
) -> Model:
    """Check the content of a file.

    Args:
        model: what it may say.
        content: YAML.
        name: what errors call it.
        problems: puts pydantic's errors into words, each with its place.
        empty: what a file without content says.

    Raises:
        FileError: with everything that is wrong.
    """
    node, data = tree_of(content, name)
    try:
        return model.model_validate(empty if data is None else data)
    except ValidationError as error:
        raise FileError(placed(problems(error), name, node)) from error


def placed(problems: Iterable[tuple[Where, str]], name: str, root: yaml.Node | None) -> list[str]:
    """Return problems as lines, in the order of the file."""
    found = sorted(((_line(root, where), where, words) for where, words in problems), key=lambda p: p[0])
    return [
        f"{name}{f':{line}' if line else ''}: {dotted(where) or 'the file'}: {words}"
        for line, where, words in found
    ]


def items_failed(details: ErrorDetails) -> bool:
    """Tell whether a list is called too short only because its items are wrong, which is reported already."""
    return details["type"] == "too_short" and len(details["input"]) >= details["ctx"]["min_length"]


def expected(details: ErrorDetails, patterns: Mapping[str, str]) -> str:
    """Return what was expected where pydantic found something else; `patterns` says patterns in words."""
    kind, context, message = details["type"], details.get("ctx", {}), details["msg"]
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    if kind == "string_pattern_mismatch":
        return patterns[context["pattern"]]
    if kind == "refused" or kind == "literal_error":
        return str(context["expected"])
    if kind == "greater_than":
        return f"more than {context['gt']}"
    if kind == "ip_any_address":
        return "an IP address"
    if kind == "greater_than_equal":
        return f"at least {context['ge']}"
    if kind == "less_than_equal":
        return f"at most {context['le']}"
    if kind == "too_short":
        return f"at least {context['min_length']} of them"
    return one_line(message)


def one_of(known: Sequence[str], found: str) -> str:
    """Return the words for one of these keys, with the one that was probably meant."""
    similar = difflib.get_close_matches(found, known, 1)
    return f"one of {', '.join(known)}" + (f"; did you mean {similar[0]!r}?" if similar else "")


def shown(value: object) -> str:
    """Return a value as the file writes it, short enough for a line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case dict():
            return f"a mapping of {len(value)}"
        case list() | tuple() | set():
            return f"a list of {len(value)}"
        case _:
            text = repr(value) if isinstance(value, str) else str(value)
            return text if len(text) <= 60 else f"{text[:57]}..."


def dotted(where: Where) -> str:
    """Return a place in a file as people write it."""
    return ".".join(one_line(str(part))[:60] for part in where)


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def _line(root: yaml.Node | None, where: Where) -> int:
    """Return the line of a key, or of the nearest thing around it in the file; 0 for an empty file."""
    node, mark = root, root.start_mark if root else None
    for part in where:
        match node:
            case yaml.MappingNode():
                entry = next(((k, v) for k, v in node.value if k.value == str(part)), None)
                if entry is None:
                    break
                mark, node = entry[0].start_mark, entry[1]
            case yaml.SequenceNode() if isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                mark = node.start_mark
            case _:
                break
    return mark.line + 1 if mark else 0


_EXPECTED: Mapping[str, str] = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "a whole number",
    "invalid_key": "keys that are text",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "path_type": "a path",
    "string_type": "text",
    "tuple_type": "a list",
}
"""pydantic's error types in the file's terms."""


class _Loader(yaml.SafeLoader):
    """YAML without what a configuration has no use for and a mistake or an attacker has.

    Keys are unique, anchors and aliases are refused (they can grow a small file without bound), and values
    that look like a number or a date and are none are errors with a position.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "anchor", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, "anchors and aliases are not supported; write the value out", event.start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Hashable, yaml.Mark] = {}
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "found a key that is a list or a mapping, expected text", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"found key {key!r} again, expected it once; it is first on line {seen[key].line + 1}",
                    key_node.start_mark,
                )
            seen[key] = key_node.start_mark
        return super().construct_mapping(node, deep)
