"""A rolling upgrade under traffic: planned, refused, stopped by a failure in the middle, taken up again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from router_agent import __version__

from .packages import release, released
from .plan import A1, A2, B1, ROUTERS
from .pops import ROLLOUT_LOCK as LOCK
from .pops import Fleet, Traffic, pinned_exabgp

pytestmark = [pytest.mark.root, pytest.mark.daemons, pytest.mark.timeout(900)]

Note = Callable[[str, Traffic], dict[str, int]]

EVERYTHING = "frr,exabgp,router_agent"
NOBODY = {
    "run": "20260101T000000Z-0a1b2c",
    "controller": "ctl2",
    "user": "ops",
    "since": "2026",
    "what": "vpp",
}


@pytest.fixture(scope="module")
def version(fleet: Fleet) -> Iterator[str]:
    """The version of FRR that the routers get; that of b1 is damaged at first."""
    # It waits two minutes for an FRR that does not come up.
    sooner = "/run/systemd/system/frr.service.d/sooner.conf"
    host = fleet.lab.hosts[B1.name]
    host.run(f"mkdir -p $(dirname {sooner}); printf '[Service]\\nTimeoutStartSec=30\\n' >{sooner}")
    host.run("systemctl daemon-reload")
    damaged = fleet.lab.runtime / "damaged"
    version = release(fleet.lab.image, damaged, "+lab1", damaged=True)
    fleet.packages[B1.name] = damaged
    fleet.write_inventory()
    yield version
    host.run(f"rm {sooner}; systemctl daemon-reload")


def test_check_mode_shows_the_plan_and_changes_nothing(fleet: Fleet, version: str) -> None:
    before = [fleet.fingerprint(router) for router in ROUTERS]
    former = released(fleet.lab.image)
    result = fleet.upgrade("--check", upgrade_components=EVERYTHING, upgrade_versions=f"frr={version}")
    said = " ".join(result.require_success().output.split())
    for number, router in enumerate((A1, B1, A2), start=1):
        assert f"batch {number} {router.name} ({router.pop.name}): frr {former} -> {version}" in said
    assert [fleet.fingerprint(router) for router in ROUTERS] == before
    assert fleet.locked() == []


def test_rollout_is_refused_while_another_one_is_in_the_pop(fleet: Fleet, version: str) -> None:
    """It holds the lock of a1, which would have no turn: the POP is what is locked."""
    before = fleet.fingerprint(A2)
    host = fleet.lab.hosts[A1.name]
    host.run(f"mkdir -p $(dirname {LOCK}); echo '{json.dumps(NOBODY)}' >{LOCK}")
    try:
        result = fleet.upgrade(
            "--limit", A2.name, upgrade_components="frr", upgrade_versions=f"frr={version}"
        )
        assert result.status != 0
        said = " ".join(result.output.split())
        assert f"a1 is locked by rollout {NOBODY['run']} of ops on ctl2" in said
        assert f"-e upgrade_take_lock={NOBODY['run']}" in said
        assert json.loads(host.run(f"cat {LOCK}")) == NOBODY
    finally:
        host.run(f"rm {LOCK}")
    assert fleet.fingerprint(A2) == before
    assert fleet.locked() == []


def test_rollout_stops_at_a_router_that_fails(fleet: Fleet, version: str, note: Note) -> None:
    """The second of three gets a damaged package: it is rolled back, and the third is not touched.

    Nothing is lost in POP a, not even what stays on the first and goes by its agent's own routes.
    """
    former = released(fleet.lab.image)
    before = {router.name: fleet.fingerprint(router) for router in (A2, B1)}
    with fleet.pinned(A1) as further, fleet.traffic(further) as traffic:
        result = fleet.upgrade(
            progress=traffic.note, upgrade_components=EVERYTHING, upgrade_versions=f"frr={version}"
        )
    lost = note("FRR and more upgraded on a1, damaged on b1", traffic)
    assert result.status != 0
    verdicts = {A1.name: "done", B1.name: "rolled back", A2.name: "not reached"}
    assert fleet.verdicts() == verdicts, result.tail
    said = " ".join(result.output.split())
    assert "the rollout stopped in batch 2 of 3 at b1" in said
    assert "not reached, and as it was: a2" in said
    # POP b has but this router, and FRR was stopped on it: what that costs is shown, not judged.
    assert lost["a"] == 0, traffic.losses()
    assert fleet.fingerprint(A2) == before[A2.name]
    after = fleet.fingerprint(B1)
    for same in ("packages", "files", "environments"):
        assert after[same] == before[B1.name][same]
    versions = {A1.name: version, A2.name: former, B1.name: former}
    assert {router.name: fleet.version(router) for router in ROUTERS} == versions
    assert not any(fleet.is_drained(router) for router in ROUTERS)
    assert fleet.locked() == []
    fleet.settle()


def test_same_command_goes_on_where_it_stopped(fleet: Fleet, version: str, note: Note) -> None:
    fleet.packages[B1.name] = fleet.packages[A1.name]
    fleet.write_inventory()
    before = fleet.fingerprint(A1)
    with fleet.traffic() as traffic:
        fleet.upgrade(
            progress=traffic.note, upgrade_components=EVERYTHING, upgrade_versions=f"frr={version}"
        ).require_success()
    lost = note("FRR and more upgraded on b1 and a2", traffic)
    assert lost["a"] == 0, traffic.losses()
    assert fleet.verdicts() == {A1.name: "passed over", B1.name: "done", A2.name: "done"}
    assert fleet.fingerprint(A1) == before
    for router in ROUTERS:
        found = (fleet.version(router), fleet.exabgp(router), fleet.agent(router))
        assert found == (version, pinned_exabgp(), __version__), router.name
        assert not fleet.is_drained(router)
    fleet.settle()
