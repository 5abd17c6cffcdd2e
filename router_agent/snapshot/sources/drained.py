"""Whether the router is drained: the mark that `router-agent drain` leaves."""

from __future__ import annotations

import json

from router_agent.observe.ask import NotKnownError
from router_agent.snapshot.model import Drained
from router_agent.snapshot.sources.router import Router

MARK = "run/router-agent/drained"


def read(router: Router) -> Drained:
    """Return the mark.

    Raises:
        NotKnownError: it cannot be read.
    """
    path = router.root / MARK
    try:
        mark = json.loads(path.read_text())
        return Drained(drained=True, since=mark["since"], reason=mark.get("reason"), by=mark.get("by"))
    except FileNotFoundError:
        return Drained(drained=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotKnownError(f"{path}: cannot be read as the mark of a drained router: {error}") from error
