"""Where a field lies in a VPP API message, worked out from the API definitions VPP itself handed over.

VPP's binary API is packed, big-endian, without padding; variable-length arrays come last. vpp_papi turns the
definitions (``*.api.json``) into a tree of packers, and this module walks that tree. Nothing about a
message's layout is written down in our code, so a VPP that orders or sizes its fields differently is either
read correctly or refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vpp_papi import vpp_serializer


class LayoutError(Exception):
    """A message lacks a field, or the field has not the size that was expected."""


@dataclass(frozen=True, slots=True)
class Field:
    """Bytes ``start`` to ``end`` (exclusive) of a message, counted from its message id."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Length in bytes."""
        return self.end - self.start

    def at(self, base: int) -> slice:
        """Return the field as a slice, moved by `base` bytes."""
        return slice(base + self.start, base + self.end)


def field(definition: Any, path: str, *, size: int | None = None) -> Field:
    """Find a field by its dotted path, such as ``route.prefix.address.un.ip4``.

    Args:
        definition: a vpp_papi message or type.
        path: field names from the outside in; an arm of a union starts where the union does. The last name
            may be a variable-length array: the answer is then where it starts, with size 0.
        size: refuse a field of any other size in bytes.

    Raises:
        LayoutError: there is no such field, or its size differs.
    """
    offset, found = 0, definition
    for name in path.split("."):
        for member, start, packer in _members(found):
            if member == name:
                offset, found = offset + start, packer
                break
        else:
            raise LayoutError(f"{definition.name} (CRC {crc(definition)}) has no field {path}")
    length = fixed_size(found)
    if size is not None and length != size:
        raise LayoutError(
            f"{definition.name} (CRC {crc(definition)}): {path} is {length} bytes long, expected {size}"
        )
    return Field(offset, offset + length)


def fixed_size(packer: Any) -> int:
    """Return the bytes a packer takes without its variable-length arrays."""
    packer = _resolved(packer)
    if _is_variable(packer):
        return 0
    if isinstance(packer, vpp_serializer.VPPType):
        return sum(fixed_size(member) for member in packer.packers)
    if isinstance(packer, vpp_serializer.FixedList):
        return int(packer.num) * fixed_size(packer.packer)
    return int(packer.size)


def kind(definition: Any, path: str) -> Any:
    """Return the packer of a field; for an array, that of one element.

    Raises:
        LayoutError: there is no such field.
    """
    found = definition
    for name in path.split("."):
        packers = [packer for member, _, packer in _members(found) if member == name]
        if not packers:
            raise LayoutError(f"{definition.name} (CRC {crc(definition)}) has no field {path}")
        found = packers[0]
    found = _resolved(found)
    is_array = isinstance(found, vpp_serializer.VLAList | vpp_serializer.FixedList)
    return found.packer if is_array else found


def elements(definition: Any, path: str) -> int:
    """Return the number of elements of a fixed-length array.

    Raises:
        LayoutError: there is no such field.
    """
    parent, _, name = path.rpartition(".")
    holder = kind(definition, parent) if parent else definition
    for member, _, packer in _members(holder):
        if member == name:
            return int(_resolved(packer).num)
    raise LayoutError(f"{definition.name} (CRC {crc(definition)}) has no field {path}")


def crc(definition: Any) -> str:
    """Return the CRC of a message, as VPP's message table spells it, without ``0x``."""
    return str(getattr(definition, "crc", "none")).removeprefix("0x")


def _resolved(packer: Any) -> Any:
    """Follow aliases to what they stand for."""
    while isinstance(packer, vpp_serializer.VPPTypeAlias):
        packer = packer.packer
    return packer


def _is_variable(packer: Any) -> bool:
    if isinstance(packer, vpp_serializer.String):
        return not packer.fixed
    return isinstance(packer, vpp_serializer.VLAList | vpp_serializer.VLAList_legacy)


def _members(holder: Any) -> Iterator[tuple[str, int, Any]]:
    """Yield name, offset and packer of each member; of an array, those of its first element."""
    holder = _resolved(holder)
    if isinstance(holder, vpp_serializer.VLAList):
        holder = _resolved(holder.packer)
    if isinstance(holder, vpp_serializer.VPPUnionType):
        for name, packer in holder.packers.items():
            yield name, 0, packer
        return
    if not isinstance(holder, vpp_serializer.VPPType):
        return
    offset = 0
    for name, packer in zip(holder.fields, holder.packers, strict=True):
        yield name, offset, packer
        offset += fixed_size(packer)
