"""What a comparison of two snapshots finds, as JSON of schema ``router-agent/snapshot-difference/1``."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field

SCHEMA: Literal["router-agent/snapshot-difference/1"] = "router-agent/snapshot-difference/1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class Judged(StrEnum):
    """What is thought of a change."""

    WITHIN = "within"
    """Within the tolerances, or none of their business."""
    EXPECTED = "expected"
    """It was said that this would change."""
    BEYOND = "beyond"


class Change(_Part):
    """Something that is not as it was.

    Attributes:
        what: kind of thing, for example ``session``.
        subject: which one.
        aspect: of it, for example ``state`` or ``accepted``.
        before: in words; ``none`` where it was not there.
        after: likewise.
        judged: what is thought of it.
        why: the rule that says so, in words.
    """

    what: str
    subject: str
    aspect: str
    before: str
    after: str
    judged: Judged
    why: str = ""


class Fault(_Part):
    """Something that is wrong in the later snapshot, whatever was before.

    Attributes:
        subject: what.
        words: found and expected.
        before: whether the earlier snapshot had it, too.
    """

    subject: str
    words: str
    before: bool = False


class Unknown(_Part):
    """A source of which one snapshot or both know nothing, so that it was not compared.

    Attributes:
        source: its name.
        before: why the earlier snapshot knows nothing; None where it knows.
        after: likewise the later one.
        tolerated: it was said that it need not answer.
    """

    source: str
    before: str | None = None
    after: str | None = None
    tolerated: bool = False


class Side(_Part):
    """Which snapshot was compared."""

    label: str
    taken_at: datetime


class Difference(_Part):
    """What has changed on a router.

    Attributes:
        schema_: of this document.
        host: its name.
        before: the earlier snapshot.
        after: the later one.
        changes: what is not as it was.
        faults: what is wrong in the later one.
        unknown: what was not compared.
        within: whether nothing is beyond the tolerances, wrong, or unknown.
    """

    schema_: Literal["router-agent/snapshot-difference/1"] = Field(default=SCHEMA, alias="schema")
    host: str
    before: Side
    after: Side
    changes: tuple[Change, ...] = ()
    faults: tuple[Fault, ...] = ()
    unknown: tuple[Unknown, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def within(self) -> bool:
        """See the class."""
        beyond = any(change.judged is Judged.BEYOND for change in self.changes)
        return not (beyond or self.faults or any(not unknown.tolerated for unknown in self.unknown))
