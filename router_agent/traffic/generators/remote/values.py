"""Scenarios, ports and results as JSON and columns, and back: what two hosts tell each other.

What comes back is checked against the annotations of the data classes, so a field that one side does not
know is an error and not a guess. Nothing that is received is ever run (no pickle).
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from router_agent.traffic.generators.latency import Latency

T = TypeVar("T")
Columns: TypeAlias = dict[str, NDArray[Any]]

_TEXTS = (IPv4Network, IPv6Network, IPv4Address, IPv6Address, Path)
_SCALARS = (bool, int, float, str)
_COLUMN = "column"


class ValueFormatError(ValueError):
    """What was received is not what was expected; the message says where and what."""


def packed(value: object, columns: Columns) -> Any:
    """Return a value as JSON knows it; columns are put into `columns` and named in their place.

    Raises:
        TypeError: there is no form for it.
    """
    match value:
        case None | bool() | int() | float() | str() if not isinstance(value, Enum):
            return value
        case Enum():
            return value.value
        case np.ndarray():
            name = f"{_COLUMN}{len(columns)}"
            columns[name] = value
            return {_COLUMN: name}
        case np.generic():
            return value.item()
        case Latency():
            return {"what": value.what, "histogram": value.encoded()}
        case tuple() | list():
            return [packed(item, columns) for item in value]
        case Mapping():
            return [[packed(k, columns), packed(v, columns)] for k, v in value.items()]
    if isinstance(value, _TEXTS):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: packed(getattr(value, f.name), columns) for f in fields(value) if f.init}
    raise TypeError(f"found a {type(value).__name__}, expected something that can be sent to another host")


def unpacked(kind: type[T], data: Any, columns: Columns) -> T:
    """Return the value of a data class that `packed` has made.

    Raises:
        ValueFormatError: it is not one.
    """
    found: T = _unpacked(kind, data, columns, kind.__name__)
    return found


def _unpacked(kind: Any, data: Any, columns: Columns, where: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _union(arguments, data, columns, where)
    if origin is np.ndarray:
        return _column(arguments, data, columns, where)
    if origin is tuple:
        return _tuple(arguments, data, columns, where)
    if origin is list:
        return [_unpacked(arguments[0], item, columns, where) for item in _list(data, where)]
    if origin is dict:
        pairs = (_list(pair, where, 2) for pair in _list(data, where))
        return {
            _unpacked(arguments[0], k, columns, where): _unpacked(arguments[1], v, columns, f"{where}[{k}]")
            for k, v in pairs
        }
    if isinstance(kind, type):
        return _of_class(kind, data, columns, where)
    raise ValueFormatError(f"{where}: there is no form for {kind}")


def _of_class(kind: type, data: Any, columns: Columns, where: str) -> Any:
    if kind in _SCALARS:
        return _scalar(kind, data, where)
    if kind is type(None):
        return _none(data, where)
    if kind is Latency:
        return _latency(data, where)
    try:
        if issubclass(kind, (Enum, *_TEXTS)):
            return kind(data)
        if is_dataclass(kind):
            return kind(**_members(kind, data, columns, where))
    except ValueFormatError:
        raise
    except (ValueError, TypeError) as error:
        raise ValueFormatError(f"{where}: {error}") from error
    raise ValueFormatError(f"{where}: there is no form for {kind.__name__}")


def _members(kind: type, data: Any, columns: Columns, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueFormatError(
            f"{where}: found {type(data).__name__}, expected the fields of {kind.__name__}"
        )
    hints = _hints(kind)
    if strange := sorted(data.keys() - hints.keys()):
        raise ValueFormatError(
            f"{where}: found {', '.join(strange)}, which is not known here; is the same version of the kit "
            "on both hosts?"
        )
    return {name: _unpacked(hints[name], item, columns, f"{where}.{name}") for name, item in data.items()}


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: hints[f.name] for f in fields(kind) if f.init}


def _union(arguments: tuple[Any, ...], data: Any, columns: Columns, where: str) -> Any:
    if data is None and type(None) in arguments:
        return None
    problems: list[str] = []
    for kind in arguments:
        if kind is type(None):
            continue
        try:
            return _unpacked(kind, data, columns, where)
        except ValueFormatError as error:
            problems.append(str(error))
    raise ValueFormatError("; ".join(problems))


def _column(arguments: tuple[Any, ...], data: Any, columns: Columns, where: str) -> NDArray[Any]:
    name = data.get(_COLUMN) if isinstance(data, dict) else None
    column = columns.get(str(name))
    if column is None:
        raise ValueFormatError(f"{where}: found {str(data)[:40]!r}, expected a column that came with it")
    (wanted,) = get_args(arguments[1])
    if isinstance(wanted, type) and not np.issubdtype(column.dtype, wanted):
        raise ValueFormatError(f"{where}: found a column of {column.dtype}, expected {wanted.__name__}")
    return column


def _tuple(arguments: tuple[Any, ...], data: Any, columns: Columns, where: str) -> tuple[Any, ...]:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return tuple(
            _unpacked(arguments[0], item, columns, f"{where}[{i}]")
            for i, item in enumerate(_list(data, where))
        )
    items = _list(data, where, len(arguments))
    return tuple(
        _unpacked(kind, item, columns, f"{where}[{i}]")
        for i, (kind, item) in enumerate(zip(arguments, items, strict=True))
    )


def _list(data: Any, where: str, length: int | None = None) -> list[Any]:
    if not isinstance(data, list) or (length is not None and len(data) != length):
        count = "a list" if length is None else f"a list of {length}"
        raise ValueFormatError(f"{where}: found {str(data)[:40]!r}, expected {count}")
    return data


def _scalar(kind: type, data: Any, where: str) -> Any:
    # JSON has one kind of number: a float may come without its point
    good = isinstance(data, (int, float)) if kind is float else isinstance(data, kind)
    if not good or (isinstance(data, bool) and kind is not bool):
        raise ValueFormatError(f"{where}: found {str(data)[:40]!r}, expected {kind.__name__}")
    return kind(data)


def _none(data: Any, where: str) -> None:
    if data is not None:
        raise ValueFormatError(f"{where}: found {str(data)[:40]!r}, expected nothing")


def _latency(data: Any, where: str) -> Latency:
    try:
        return Latency.decoded(str(data["what"]), str(data["histogram"]))
    except Exception as error:  # the library raises whatever it comes across in a broken histogram
        raise ValueFormatError(f"{where}: found {str(data)[:40]!r}, expected a histogram") from error
