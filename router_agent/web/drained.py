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
        by: who did it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    since: datetime | None = None
    by: str = ""


def read(mark: Path) -> Drained | None:
    """Return the drain that is in force, None when there is none; a mark without sense is a mark, too."""
    try:
        return Drained.model_validate_json(mark.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        return Drained()
