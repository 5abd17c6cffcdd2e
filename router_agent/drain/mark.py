"""The mark of a drained router: who drained it, when and why, for everybody to see.

There are two files. The current one is in /run and gone after a reboot; the kept one outlives it. A router is
drained while there is a current one: at boot a kept one is made current before a daemon starts.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from router_agent.drain.files import replace
from router_agent.drain.settings import MarkSettings

SCHEMA: Literal["router-agent/drained/1"] = "router-agent/drained/1"
FAIL_SAFE = "fail-safe"
"""Who drained it when nobody asked for it."""
_LONGEST = 64 << 10


class MarkError(Exception):
    """The mark cannot be read or written; the message says what to do."""


class NoMarkError(MarkError):
    """What is there is no mark. The router counts as drained."""


class Mark(BaseModel):
    """One drain.

    Attributes:
        schema_: of this file.
        since: when it was drained.
        reason: why, in the words of whoever did it; empty when they gave none.
        by: who did it: a user, a program, or `FAIL_SAFE`.
        keep: whether it is to last over a reboot.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["router-agent/drained/1"] = Field(default=SCHEMA, alias="schema")
    since: datetime
    reason: str = ""
    by: str = ""
    keep: bool = False

    @property
    def own(self) -> bool:
        """Whether the host drained itself."""
        return self.by == FAIL_SAFE


class Marks:
    """The two files of a host."""

    def __init__(self, settings: MarkSettings) -> None:
        self._current = settings.current
        self._kept = settings.kept

    def read(self) -> Mark | None:
        """Return the drain that is in force, None when there is none.

        Raises:
            MarkError: there is a mark that cannot be read.
        """
        return read(self._current)

    def write(self, mark: Mark) -> None:
        """Put a drain in force.

        Raises:
            MarkError: it cannot be written.
        """
        text = json.dumps(mark.model_dump(mode="json", by_alias=True)) + "\n"
        try:
            # First what lasts longer: a crash in between drains again rather than forgets.
            if mark.keep:
                replace(self._kept, text)
            else:
                self._kept.unlink(missing_ok=True)
            replace(self._current, text)
        except OSError as error:
            raise MarkError(f"cannot write {error.filename or self._current}: {error.strerror}") from error

    def remove(self) -> None:
        """Put no drain in force.

        Raises:
            MarkError: a mark cannot be removed.
        """
        try:
            self._kept.unlink(missing_ok=True)
            self._current.unlink(missing_ok=True)
        except OSError as error:
            raise MarkError(f"cannot remove {error.filename}: {error.strerror}") from error

    def after_boot(self) -> Mark | None:
        """Put a kept drain in force if none is; return the one in force.

        A kept mark that cannot be understood drains all the same: somebody wanted it.

        Raises:
            MarkError: it cannot be read or written.
        """
        if self._current.exists() or not self._kept.exists():
            return self.read() if self._current.exists() else None
        try:
            mark = read(self._kept)
        except MarkError as error:
            mark = Mark(since=now(), reason=str(error), by="boot", keep=True)
        assert mark is not None
        self.write(mark)
        return mark


def now() -> datetime:
    """Return the time as marks have it."""
    return datetime.now(UTC)


def read(path: Path) -> Mark | None:
    """Return the mark in a file, None when there is none.

    Raises:
        NoMarkError: it is none.
        MarkError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise MarkError(f"cannot read {path}: {error.strerror}") from error
    try:
        return Mark.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]["msg"]
        raise NoMarkError(
            f"{path}: found what is no mark ({first}), expected {SCHEMA}: the router counts as drained; "
            "'router-agent undrain' removes it"
        ) from error
