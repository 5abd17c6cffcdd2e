"""The fleet that nobody touches loses nothing, and the tester sees what is lost when somebody does.

Tests of the fleet share it and leave it as they found it, but for versions: their files are numbered.
Times are reported and not judged.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from .plan import A1, ROUTERS
from .pops import Fleet, Traffic

pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.timeout(900)]

Note = Callable[[str, Traffic], dict[str, int]]


def test_routers_share_the_traffic_and_lose_none(fleet: Fleet, note: Note) -> None:
    before = {router.name: fleet.sent_by(router) for router in ROUTERS}
    with fleet.traffic() as traffic:
        for _ in range(3):
            traffic.wait_flowing()
    assert note("nothing", traffic) == {"a": 0, "b": 0}, traffic.losses()
    for router in ROUTERS:
        assert fleet.sent_by(router) - before[router.name] > 100, router.name


def test_the_tester_sees_what_no_drain_costs(fleet: Fleet, note: Note) -> None:
    with fleet.traffic() as traffic:
        traffic.note("FRR of a1 stopped and started")
        fleet.lab.hosts[A1.name].run("systemctl restart frr")
        fleet.settle()
    lost = note("FRR restarted, no drain", traffic)
    assert lost["a"] > 0
    assert lost["b"] == 0, traffic.losses()
