"""What has changed between two snapshots, and what is thought of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_agent.snapshot.changes import Change, Difference, Judged
from router_agent.snapshot.difference import CannotCompareError, compare
from router_agent.snapshot.model import (
    SOURCES,
    Agent,
    Bfd,
    BfdPeer,
    BgpRoutes,
    Configurations,
    Counts,
    Drained,
    Exabgp,
    KernelRoutes,
    Links,
    Prefixes,
    Reading,
    Snapshot,
    Versions,
    Vpps,
    VppTable,
    Zebra,
)
from router_agent.snapshot.tolerances import Part, Tolerances
from snapshots import (
    VPP,
    absent,
    any_snapshot,
    later,
    link,
    pipeline,
    read,
    router,
    session,
    unreadable,
    vpp,
)

DEFAULTS = Tolerances()


def found(after: Snapshot, before: Snapshot | None = None, **tolerances: Any) -> Difference:
    return compare(before or router(), after, Tolerances(**tolerances))


def the_change(difference: Difference) -> Change:
    (change,) = difference.changes
    return change


def bgp(*sessions: Any, **changes: Any) -> Reading[Any]:
    before = router().bgp.content
    assert before is not None
    return read(before.model_copy(update={"sessions": sessions or before.sessions} | changes))


def after(**changes: Any) -> Snapshot:
    return later(router(**changes))


def keys(difference: Difference) -> set[tuple[str, str, str]]:
    rows = [(change.what, change.subject, change.aspect) for change in difference.changes]
    assert len(rows) == len(set(rows))
    return set(rows)


@settings(max_examples=200, deadline=None)
@given(any_snapshot())
def test_a_snapshot_has_not_changed_against_itself(snapshot: Snapshot) -> None:
    difference = compare(snapshot, snapshot, DEFAULTS)
    assert difference.changes == ()
    assert {u.source for u in difference.unknown} >= snapshot.unreadable.keys()
    assert not (snapshot.unreadable and difference.within)


@settings(max_examples=300, deadline=None)
@given(any_snapshot(), any_snapshot())
def test_the_same_things_have_changed_whichever_comes_first(one: Snapshot, other: Snapshot) -> None:
    there, back = compare(one, other, DEFAULTS), compare(other, one, DEFAULTS)
    assert keys(there) == keys(back)
    assert {u.source for u in there.unknown} == {u.source for u in back.unknown}


@settings(max_examples=300, deadline=None)
@given(any_snapshot(), any_snapshot())
def test_nothing_is_beyond_tolerances_that_allow_everything(one: Snapshot, other: Snapshot) -> None:
    """Except what no tolerance covers: a pipeline that is gone or not in sync, a family no longer carried."""
    everything = Tolerances(
        prefixes_fall_percent=100,
        fib_gap_percent=100,
        errors_per_second=1e12,
        changed=tuple(Part),
        sessions_lost=("192.0.2.1", "192.0.2.2", "2001:db8::1"),
        interfaces_down=("a", "b", "c", "uplink", "mgmt"),
        unreadable=SOURCES,
    )
    left = [c for c in compare(one, other, everything).changes if c.judged is Judged.BEYOND]
    assert {(c.what, c.aspect) for c in left} <= {
        ("pipeline", "there"),
        ("pipeline", "state"),
        ("session", "family"),
    }


@settings(max_examples=150, deadline=None)
@given(any_snapshot())
def test_a_snapshot_comes_back_from_json(snapshot: Snapshot) -> None:
    assert Snapshot.model_validate_json(snapshot.model_dump_json(by_alias=True)) == snapshot


def test_a_healthy_router_is_the_same_later() -> None:
    difference = found(after())
    assert (difference.changes, difference.faults, difference.unknown) == ((), (), ())
    assert difference.within
    assert Difference.model_validate_json(difference.model_dump_json(by_alias=True)) == difference


def test_snapshots_of_two_hosts_are_not_compared() -> None:
    with pytest.raises(CannotCompareError, match="r1 and of r2"):
        found(after(host="r2"))


def test_a_lost_session_is_beyond_and_its_prefixes_are_not_told_again() -> None:
    change = the_change(found(after(bgp=bgp(session(state="Active", uptime_seconds=None, drops=2)))))
    assert (change.what, change.before, change.after) == ("session", "Established", "Active")
    assert (change.judged, change.why) == (Judged.BEYOND, "the session is lost")
    may = found(after(bgp=bgp(session(state="Active"))), sessions_lost=("192.0.2.1",))
    assert (the_change(may).judged, may.within) == (Judged.EXPECTED, True)


def test_a_session_that_is_no_longer_configured_is_lost() -> None:
    before = router(bgp=bgp(session(), session("192.0.2.9")))
    change = the_change(found(after(), before))
    assert (change.subject, change.after, change.judged) == ("FRR 192.0.2.9", "none", Judged.BEYOND)


def test_a_session_that_was_down_may_be_down_in_another_state_or_come_up() -> None:
    down = router(bgp=bgp(session(state="Active")))
    assert found(later(router(bgp=bgp(session(state="Idle")))), down).changes == ()
    assert the_change(found(after(), down)).judged is Judged.WITHIN


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"drops": 3}, "lost 2 times and up again"),
        ({"drops": 0, "uptime_seconds": 30.0}, "lost 1 times and up again"),  # bgpd was restarted
        ({"uptime_seconds": 30.0 - 600.0 + 5.0}, "lost 1 times and up again"),
    ],
)
def test_a_session_that_was_reset_is_told_and_judged_when_asked(changes: dict[str, Any], why: str) -> None:
    snapshot = after(bgp=bgp(session(**changes)))
    change = the_change(found(snapshot))
    assert (change.aspect, change.judged, change.why) == ("drops", Judged.WITHIN, why)
    assert the_change(found(snapshot, session_drops=0)).judged is Judged.BEYOND
    assert the_change(found(snapshot, session_drops=9)).judged is Judged.WITHIN


@pytest.mark.parametrize(
    ("aspect", "had", "has", "judged"),
    [
        ("accepted", 1_000_000, 991_000, Judged.WITHIN),
        ("accepted", 1_000_000, 989_000, Judged.BEYOND),
        ("accepted", 100, 99, Judged.WITHIN),
        ("advertised", 4, 3, Judged.BEYOND),
        ("advertised", 4, 0, Judged.BEYOND),
        ("received", 1_000_100, 500_000, Judged.BEYOND),
        ("received", 1_000_100, None, Judged.WITHIN),
        ("accepted", 0, 1_000_000, Judged.WITHIN),
    ],
)
def test_prefixes_may_shrink_by_a_percent(aspect: str, had: int, has: int | None, judged: Judged) -> None:
    def carrying(count: int | None) -> Reading[Any]:
        families = {"ipv4Unicast": Prefixes(accepted=1).model_copy(update={aspect: count})}
        return bgp(session(families=families))

    change = the_change(found(after(bgp=carrying(has)), router(bgp=carrying(had))))
    assert (change.what, change.aspect, change.judged) == ("prefixes", aspect, judged)
    assert change.subject == "FRR 192.0.2.1, ipv4Unicast"


def test_a_rise_is_judged_when_asked() -> None:
    families = {"ipv4Unicast": Prefixes(received=1_000_100, accepted=2_000_000, advertised=4)}
    snapshot = after(bgp=bgp(session(families=families)))
    assert found(snapshot).within
    change = the_change(found(snapshot, prefixes_rise_percent=50))
    assert (change.judged, change.why) == (Judged.BEYOND, "rose by 100 %, up to 50 % is tolerated")


def test_a_family_that_is_no_longer_carried_is_beyond() -> None:
    change = the_change(found(after(bgp=bgp(session(families={})))))
    assert (change.aspect, change.judged) == ("family", Judged.BEYOND)


@pytest.mark.parametrize(("status", "judged"), [("down", Judged.BEYOND), ("init", Judged.BEYOND)])
def test_bfd_that_is_no_longer_up_is_beyond(status: str, judged: Judged) -> None:
    peer = BfdPeer(peer="192.0.2.1", status=status, interface="uplink", diagnostic="path down")
    snapshot = after(bfd=read(Bfd(peers=(peer,))))
    assert (the_change(found(snapshot)).what, the_change(found(snapshot)).judged) == ("bfd", judged)
    assert the_change(found(snapshot, sessions_lost=("192.0.2.1",))).judged is Judged.EXPECTED


# -- tables ----------------------------------------------------------------------------------------


def agent(*pipelines: Any) -> Reading[Any]:
    return read(Agent(version="0.1.0", uptime_seconds=4_000.0, pipelines=pipelines))


def test_a_fib_that_is_not_the_kernel_is_wrong_whatever_was_before() -> None:
    lost = pipeline(counts={"IPv4": Counts(desired=999_000, in_fib=999_000)})
    before, snapshot = router(agent=agent(lost)), later(router(agent=agent(lost)))
    (fault,) = found(snapshot).faults
    assert "the kernel's 1,000,010, wanted by the agent 999,000: 1,010 apart" in fault.words
    assert not fault.before
    difference = found(snapshot, before)
    assert (difference.changes, difference.within) == ((), False)
    assert difference.faults[0].before


def test_a_few_of_a_million_are_on_their_way() -> None:
    moved = pipeline(counts={"IPv4": Counts(desired=999_920, in_fib=999_920)})
    assert found(after(agent=agent(moved))).within
    small = {
        "agent": agent(pipeline(counts={"IPv4": Counts(desired=299, in_fib=299)})),
        "kernel": read(KernelRoutes(feeds={"fib": {"IPv4": 300}})),
        "zebra": absent(),
    }
    assert len(found(after(**small), router(**small)).faults) == 1


def test_routes_that_vpp_does_not_hold_are_wrong_and_more_entries_are_others() -> None:
    def holding(entries: int) -> Snapshot:
        tables = {"fib": {"IPv4": VppTable(entries=entries)}}
        return after(vpp=read(Vpps(instances={VPP: vpp(tables=tables)})))

    (fault,) = found(holding(990_000)).faults
    assert fault.subject == "pipeline fib, IPv4: in the FIB for the agent and in the FIB"
    assert found(holding(1_000_300)).faults == ()


def test_a_kernel_as_fib_is_counted_by_itself() -> None:
    changes = {
        "agent": agent(pipeline(fib="kernel")),
        "kernel": read(
            KernelRoutes(
                bgp={"IPv4": 1_000_000},
                feeds={"fib": {"IPv4": 1_000_010}},
                fibs={"fib": {"IPv4": 1_000_010}},
            )
        ),
    }
    assert found(after(**changes), router(**changes)).faults == ()
    more = {"fibs": {"fib": {"IPv4": 1_100_000}}}
    kernel = changes["kernel"].content
    assert kernel is not None
    changes["kernel"] = read(kernel.model_copy(update=more))
    assert "in the FIB 1,100,000" in found(after(**changes), router(**changes)).faults[0].words


def test_bgp_routes_that_zebra_installed_are_in_the_kernel() -> None:
    changes = {"zebra": read(Zebra(routes={"IPv4": BgpRoutes(rib=1_000_000, fib=900_000)}))}
    (fault,) = found(after(**changes), router(**changes)).faults
    assert fault.subject == "BGP, IPv4: zebra's installed and the kernel's"


def test_a_table_that_shrank_is_told_at_each_stage() -> None:
    snapshot = after(
        bgp=bgp(prefixes={"IPv4": 4}),
        zebra=read(Zebra(routes={"IPv4": BgpRoutes(rib=0, fib=0)})),
        kernel=read(KernelRoutes(bgp={"IPv4": 0}, feeds={"fib": {"IPv4": 10}})),
        agent=agent(pipeline(counts={"IPv4": Counts(desired=10, in_fib=10)})),
    )
    difference = found(snapshot)
    assert {(c.subject, c.aspect) for c in difference.changes if c.judged is Judged.BEYOND} == {
        ("BGP, IPv4", "prefixes"),
        ("zebra, BGP's, IPv4", "rib"),
        ("zebra, BGP's, IPv4", "fib"),
        ("kernel, BGP's, IPv4", "routes"),
        ("pipeline fib, IPv4", "desired"),
        ("pipeline fib, IPv4", "in_fib"),
    }
    assert difference.faults == ()


def test_more_routes_without_a_place_in_the_fib_are_beyond() -> None:
    counts = Counts(desired=1_000_010, in_fib=999_010, not_in_fib={"unresolved-interface": 1_000})
    difference = found(after(agent=agent(pipeline(counts={"IPv4": counts}))))
    change = next(c for c in difference.changes if c.aspect == "not in the FIB: unresolved-interface")
    assert (change.before, change.after, change.judged) == ("0", "1,000", Judged.BEYOND)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"state": "fib-lost", "error": "VPP went away"}, "found fib-lost, expected in-sync: VPP went away"),
        ({"standing": 3}, "3 routes are lost or altered in the FIB and left so"),
        ({"unexplained": 2}, "the FIB has 2 entries nobody accounts for"),
    ],
)
def test_what_the_agent_says_is_wrong_is_wrong(changes: dict[str, Any], words: str) -> None:
    difference = found(after(agent=agent(pipeline(**changes))))
    assert words in difference.faults[0].words
    assert not difference.within


def test_a_restarted_agent_is_told_and_is_no_fault() -> None:
    content = router().agent.content
    assert content is not None
    snapshot = later(router(agent=read(content.model_copy(update={"uptime_seconds": 10.0 - 600.0 + 590.0}))))
    change = the_change(found(snapshot))
    assert (change.what, change.aspect, change.judged) == ("agent", "started", Judged.WITHIN)


# -- interfaces and counters -----------------------------------------------------------------------


def links(**found: Any) -> Reading[Any]:
    return read(Links(links={"mgmt": link(identity="2")} | found))


@pytest.mark.parametrize(
    ("changes", "aspect", "judged"),
    [
        ({"carrier": False}, "state", Judged.BEYOND),
        ({"up": False, "carrier": False}, "state", Judged.BEYOND),
        ({"mtu": 9000}, "MTU", Judged.BEYOND),
        ({"errors": {"rx_errors": 600, "rx_dropped": 7}}, "rx_errors", Judged.WITHIN),
        ({"errors": {"rx_errors": 601, "rx_dropped": 7}}, "rx_errors", Judged.BEYOND),
    ],
)
def test_an_interface_that_is_worse(changes: dict[str, Any], aspect: str, judged: Judged) -> None:
    change = the_change(found(after(links=links(uplink=link(**changes)))))
    assert (change.subject, change.aspect, change.judged) == ("kernel uplink", aspect, judged)


def test_an_interface_may_be_down_by_name_and_be_gone_when_expected() -> None:
    down = found(after(links=links(uplink=link(carrier=False))), interfaces_down=("uplink",))
    assert the_change(down).judged is Judged.EXPECTED
    assert the_change(found(after(links=links()))).judged is Judged.BEYOND
    assert the_change(found(after(links=links()), changed=("interfaces",))).judged is Judged.EXPECTED
    more = found(after(links=links(uplink=link(), lan=link())))
    assert the_change(more).judged is Judged.WITHIN


def test_counters_that_began_anew_are_no_negative_growth() -> None:
    """VPP was restarted: 5 drops before, 3 since; 3 a restart, not -2."""
    restarted = vpp(
        started=1_700_000_500, links={"uplink": link(mtu=9000, errors={"drops": 3, "rx-miss": 0})}
    )
    snapshot = after(vpp=read(Vpps(instances={VPP: restarted})))
    difference = found(snapshot)
    rows = {change.aspect: change for change in difference.changes}
    assert rows.keys() == {"started", "drops"}
    assert rows["drops"].why.startswith("3 since it began to count anew, 0.005 a second")
    assert (rows["started"].judged, rows["drops"].judged) == (Judged.BEYOND, Judged.WITHIN)
    for meant in ("vpp", "configuration"):
        assert found(snapshot, changed=(meant,)).within
    rebooted = snapshot.model_copy(update={"boot": "boot-2", "boot_seconds": 60.0})
    assert found(rebooted).within


def test_as_many_since_a_restart_as_before_are_not_nothing() -> None:
    errors = {"drops": 90_000, "rx-miss": 0}
    before = router(vpp=read(Vpps(instances={VPP: vpp(links={"uplink": link(errors=errors)})})))
    restarted = vpp(started=1_700_000_500, links={"uplink": link(errors=errors)})
    difference = found(after(vpp=read(Vpps(instances={VPP: restarted}))), before)
    assert next(c for c in difference.changes if c.aspect == "drops").judged is Judged.BEYOND


def test_a_counter_that_is_less_without_a_known_restart_began_anew_too() -> None:
    change = the_change(found(after(links=links(uplink=link(errors={"rx_errors": 0, "rx_dropped": 2})))))
    assert change.why.startswith("2 since it began to count anew")
    assert change.judged is Judged.WITHIN


def test_a_reboot_is_told_and_counters_begin_anew() -> None:
    rebooted = after(boot="boot-2").model_copy(update={"boot_seconds": 60.0})
    difference = found(rebooted)
    rows = {(change.what, change.aspect): change for change in difference.changes}
    assert rows[("host", "boot")].judged is Judged.WITHIN
    assert rows[("errors", "rx_dropped")].why.startswith("7 since it began to count anew")
    assert difference.within


# -- the host --------------------------------------------------------------------------------------


def test_a_version_is_another_only_when_that_was_said() -> None:
    newer = read(Vpps(instances={VPP: vpp(version="26.10", dpdk="26.03")}))
    snapshot = after(vpp=newer)
    rows = {change.subject: change for change in found(snapshot).changes}
    assert rows.keys() == {"vpp", "dpdk"}
    assert {change.judged for change in rows.values()} == {Judged.BEYOND}
    assert found(snapshot, changed=("vpp",)).within
    assert not found(snapshot, changed=("frr",)).within


def test_installed_is_not_running() -> None:
    installed = read(Versions(kernel="6.12.1", debian="13.2", installed={"frr": "10.8-1", "vpp": "26.06"}))
    change = the_change(found(after(versions=installed)))
    assert (change.subject, change.aspect, change.before, change.after) == (
        "frr",
        "installed",
        "10.7.1-1",
        "10.8-1",
    )


@pytest.mark.parametrize("expected", ["configuration", "/etc/frr/frr.conf"])
def test_a_rendered_file_is_another_only_when_that_was_said(expected: str) -> None:
    hashes = {"/etc/frr/frr.conf": "cc", "/etc/vpp/startup.conf": "bb"}
    snapshot = after(configurations=read(Configurations(hashes=hashes)))
    assert the_change(found(snapshot)).judged is Judged.BEYOND
    assert found(snapshot, changed=(expected,)).within
    assert not found(snapshot, changed=("/etc/vpp/startup.conf",)).within


def test_a_router_that_is_still_drained_is_beyond() -> None:
    drained = read(Drained(drained=True, since="now", reason="upgrade", by="root"))
    snapshot = after(drained=drained, bgp=bgp(graceful_shutdown=True))
    difference = found(snapshot)
    assert {(c.subject, c.judged) for c in difference.changes} == {
        ("router", Judged.BEYOND),
        ("FRR", Judged.BEYOND),
    }
    assert found(snapshot, changed=("drained",)).within
    assert found(after(), router(drained=drained)).within


# -- what is not known -----------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_did_not_answer_is_never_the_same(source: str) -> None:
    silent = {source: unreadable("it was asleep")}
    for before, snapshot in ((router(), after(**silent)), (router(**silent), after())):
        difference = found(snapshot, before)
        (unknown,) = difference.unknown
        assert unknown.source == source
        assert "it was asleep" in (unknown.before, unknown.after)
        assert not difference.within
        assert found(snapshot, before, unreadable=(source,)).within


@pytest.mark.parametrize("source", SOURCES)
def test_a_source_that_is_no_longer_there_is_beyond(source: str) -> None:
    before = router(exabgp=read(Exabgp()))
    difference = found(later(before.model_copy(update={source: absent("FRR runs without it")})), before)
    change = next(c for c in difference.changes if c.what == "source" and c.subject == source)
    assert (change.after, change.judged) == ("FRR runs without it", Judged.BEYOND)


def test_a_file_that_cannot_be_read_is_unknown() -> None:
    unknown = Configurations(
        hashes={"/etc/vpp/startup.conf": "bb"}, unknown={"/etc/frr/frr.conf": "Permission denied"}
    )
    difference = found(after(configurations=read(unknown)))
    assert difference.changes == ()
    assert (difference.unknown[0].source, difference.within) == ("/etc/frr/frr.conf", False)


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_a_fall_is_judged_by_its_share(had: int, has: int) -> None:
    def carrying(count: int) -> Reading[Any]:
        return bgp(session(families={"ipv4Unicast": Prefixes(accepted=count)}))

    difference = found(after(bgp=carrying(has)), router(bgp=carrying(had)))
    beyond = had > 0 and has < had and (had - has) * 100 > had
    assert difference.within is not beyond
