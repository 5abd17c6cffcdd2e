"""The mark of a drained router, as `router_agent.drain` leaves it for everybody to see."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

FAIL_SAFE = "fail-safe"
"""Who drained it when the router did so itself."""


class Drained(BaseModel):
    """One drain.

    Attributes:
        since: when it began; None where the mark does not say.
        reason: why.
        by: who did it.
        keep: whether it stays so after a reboot.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    since: datetime | None = None
    reason: str = ""
    by: str = ""
    keep: bool = False


def read(mark: Path) -> Drained | None:
    """Return the drain that is in force, None when there is none; a mark without sense is a mark, too."""
    found, unknown = look(mark)
    return found if unknown is None else Drained()


def look(mark: Path) -> tuple[Drained | None, str | None]:
    """Return the same, or why nobody knows."""
    try:
        return Drained.model_validate_json(mark.read_bytes()), None
    except FileNotFoundError:
        return None, None
    except OSError as error:
        return None, f"cannot read {mark}: {error.strerror}"
    except ValidationError:
        return Drained(reason=f"found what is no mark in {mark}"), None
