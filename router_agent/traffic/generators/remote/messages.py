"""Messages between a controller and a generator's host: a kind, fields, columns.

On the line: "RTG1", the lengths of the two parts that follow (4 bytes each, big-endian), JSON, and the
columns as NumPy's npz. No part may be larger than `MOST_BYTES`.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from router_agent.traffic.generators.remote.values import Columns

MAGIC = b"RTG1"
MOST_BYTES = 1 << 30
_HEAD = struct.Struct(">4sII")
_CHUNK = 1 << 20


class MessageError(Exception):
    """What came is no message."""


@dataclass(frozen=True, eq=False)
class Message:
    """A kind, fields as JSON knows them, and columns."""

    kind: str
    fields: dict[str, Any] = field(default_factory=dict)
    columns: Columns = field(default_factory=dict)

    def encoded(self) -> bytes:
        """Return it as it is sent."""
        text = json.dumps({"kind": self.kind, "fields": self.fields}).encode()
        body = io.BytesIO()
        if self.columns:
            np.savez(body, allow_pickle=False, **self.columns)
        return b"".join((_HEAD.pack(MAGIC, len(text), body.tell()), text, body.getvalue()))


class Reader:
    """Takes messages from a line.

    Args:
        receive: returns some bytes, at most as many as asked for; none at the end.
    """

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive

    def next(self) -> Message | None:
        """Return the next message; None at the end of the line.

        Raises:
            MessageError: something else came, or the line ended within one.
        """
        head = self._exactly(_HEAD.size, may_end=True)
        if not head:
            return None
        magic, text_bytes, body_bytes = _HEAD.unpack(head)
        if magic != MAGIC:
            raise MessageError(
                f"found {head!r}, expected a message: something on that host writes to standard output "
                "(a login script?), or another version of the kit is there"
            )
        if max(text_bytes, body_bytes) > MOST_BYTES:
            raise MessageError(f"found a message of {max(text_bytes, body_bytes):,} bytes, which is too long")
        text, body = self._exactly(text_bytes), self._exactly(body_bytes)
        try:
            given = json.loads(text)
            return Message(str(given["kind"]), dict(given["fields"]), _columns(body))
        except (ValueError, KeyError, TypeError, OSError, zipfile.BadZipFile) as error:
            raise MessageError(f"found a message that cannot be read: {error}") from error

    def _exactly(self, count: int, *, may_end: bool = False) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self._receive(min(_CHUNK, count - len(data)))
            if not part:
                if may_end and not data:
                    return b""
                raise MessageError(
                    f"found the end of the line after {len(data)} of {count} bytes: {bytes(data[:80])!r}"
                )
            data += part
        return bytes(data)


def _columns(body: bytes) -> Columns:
    if not body:
        return {}
    with np.load(io.BytesIO(body), allow_pickle=False) as found:
        return {name: found[name] for name in found.files}
