"""A device's table as columns, and as bytes that travel from one host to another."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from router_agent.model import I32, U64, Family

UNKNOWN = -1
"""Interface of a prefix that leaves by several, or by one nobody knows."""


_NOT_NPZ = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile)
"""What NumPy raises for bytes that are no archive, or another one."""


class TableError(Exception):
    """The table of a device cannot be read; the message says what to do."""


@dataclass(frozen=True, eq=False)
class LiveTable:
    """What a device forwards, by family.

    Attributes:
        keys: of the prefixes that lead to a next hop; see router_agent.model.
        leaves_by: for each of them the position in `interfaces`, or `UNKNOWN`; ``int32``.
        others: keys of the prefixes that lead to none: connected networks, blackholes, own addresses. No
            packet of a check goes there, and none to what they cover.
        interfaces: names, as the device calls them.
        origin: where it was read, for people.
    """

    keys: Mapping[Family, U64]
    leaves_by: Mapping[Family, I32]
    others: Mapping[Family, U64]
    interfaces: tuple[str, ...]
    origin: str = field(default="")

    def __len__(self) -> int:
        return sum(len(keys) for keys in self.keys.values())

    def to_bytes(self) -> bytes:
        """Return it for `from_bytes`."""
        columns: dict[str, Any] = {
            f"{name}{family.value}": column[family]
            for name, column in (("keys", self.keys), ("leaves_by", self.leaves_by), ("others", self.others))
            for family in Family
        }
        names = np.array([*self.interfaces, self.origin], np.str_)
        file = io.BytesIO()
        np.savez_compressed(file, names=names, **columns)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> LiveTable:
        """Return what `to_bytes` made.

        Raises:
            TableError: they are something else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as found:
                columns = [
                    {family: found[f"{name}{family.value}"] for family in Family}
                    for name in ("keys", "leaves_by", "others")
                ]
                *interfaces, origin = (str(name) for name in found["names"])
        except (
            OSError,
            EOFError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            zipfile.BadZipFile,
        ) as error:
            raise TableError(
                f"found {data[:40]!r}, expected a table ({error}); is the same version of the kit there?"
            ) from error
        keys, leaves_by, others = columns
        for family in Family:
            width = family.key_width
            if keys[family].shape[1:] != (width,) or others[family].shape[1:] != (width,):
                raise TableError(f"found {family.label} keys of {keys[family].shape[1:]} words, not {width}")
            if len(leaves_by[family]) != len(keys[family]):
                raise TableError(f"found {len(leaves_by[family])} ports of {len(keys[family])} prefixes")
        return cls(keys, leaves_by, others, tuple(interfaces), origin)
