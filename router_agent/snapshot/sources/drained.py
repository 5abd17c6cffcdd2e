"""Whether the router is drained: the mark that `router-agent drain` leaves."""

from __future__ import annotations

from router_agent.drain.mark import MarkError
from router_agent.drain.mark import read as read_mark
from router_agent.drain.settings import MARK
from router_agent.observe.ask import NotKnownError
from router_agent.snapshot.model import Drained
from router_agent.snapshot.sources.router import Router


def read(router: Router) -> Drained:
    """Return the mark.

    Raises:
        NotKnownError: it cannot be read.
    """
    try:
        mark = read_mark(router.root / MARK.relative_to("/"))
    except MarkError as error:
        raise NotKnownError(str(error)) from error
    if mark is None:
        return Drained(drained=False)
    return Drained(drained=True, **mark.model_dump(mode="json", include={"since", "reason", "by"}))
