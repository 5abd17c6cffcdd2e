"""Which legs of a path set lead somewhere right now: interface up, and the neighbour known.

An entry that routes recurse through leaves the others out while one is left (`entries`), so that the loss of
a link or of a neighbour costs one request, before the control plane has withdrawn anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from router_agent.model import Link, Path, PathSet
from router_agent.vpp.neighbours import Entry as Neighbour
from router_agent.vpp.routes import normal_weights


class LegsInUse:
    """Links of the control plane by the VPP interface that stands for each, and the neighbours VPP has."""

    def __init__(self) -> None:
        self._known: dict[int, Link] = {}
        self._links: dict[int, Link] = {}
        self._neighbours: set[Neighbour] = set()

    def note_links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        """Take note of links of the control plane; `match` makes it count."""
        self._known.update((link.index, link) for link in links)
        for index in removed:
            self._known.pop(index, None)

    def match(self, translation: Mapping[int, int]) -> None:
        """Take note of which VPP interface stands for which link.

        Args:
            translation: kernel ifindex to sw_if_index.
        """
        self._links = {
            port: self._known[index] for index, port in translation.items() if index in self._known
        }

    def note_neighbours(self, neighbours: Iterable[Neighbour]) -> None:
        """Take note of all neighbours that VPP has and the control plane still knows."""
        self._neighbours = set(neighbours)

    def lose_neighbours(self, lost: Iterable[Neighbour]) -> None:
        """Take note of neighbours that the control plane has lost; VPP may still have them."""
        self._neighbours.difference_update(lost)

    def of(self, paths: PathSet) -> PathSet:
        """Return a path set in VPP's terms without legs that lead nowhere; whole when none leads anywhere."""
        legs = tuple(leg for leg in paths.paths if self._leads(leg))
        if not legs or len(legs) == len(paths.paths):
            return paths
        return PathSet(paths.type, normal_weights(legs))

    def _leads(self, leg: Path) -> bool:
        link = self._links.get(leg.interface - 1)
        if link is None:
            return True
        if not (link.up and link.carrier):
            return False
        # A link without hardware addresses needs no neighbours.
        return not link.mac or (leg.interface - 1, leg.gateway) in self._neighbours
