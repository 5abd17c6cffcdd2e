"""The drain that the page and the metrics tell of, from the mark of `router_agent.drain`."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from router_agent.drain.mark import MarkError, NoMarkError
from router_agent.drain.mark import read as read_mark


class Drained(BaseModel):
    """One drain.

    Attributes:
        since: when it began; None where the mark cannot be understood.
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
        found = read_mark(mark)
    except NoMarkError:
        return Drained(reason=f"found what is no mark in {mark}"), None
    except MarkError as error:
        return None, str(error)
    return None if found is None else Drained(**found.model_dump()), None
