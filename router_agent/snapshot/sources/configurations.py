"""The rendered files, hashed; of the agent's configuration the one that was asked for."""

from __future__ import annotations

from router_agent.host.configurations import hashes, rendered
from router_agent.host.reader import Reader
from router_agent.snapshot.model import Configurations
from router_agent.snapshot.sources.router import Router


def read(router: Router) -> Configurations:
    """Return the hashes."""
    reader = Reader(router.root)
    paths = dict.fromkeys([*rendered(reader), str(router.config_path)])
    return Configurations(hashes=hashes(reader, paths), unknown=reader.unknown)
