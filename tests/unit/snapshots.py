"""Snapshots for tests: one of a healthy router, and any that the model allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import strategies as st
from pydantic import BaseModel

from router_agent.snapshot.model import (
    Agent,
    Asked,
    Bfd,
    BfdPeer,
    Bgp,
    BgpRoutes,
    Configurations,
    Counts,
    Drained,
    Exabgp,
    KernelRoutes,
    Link,
    Links,
    Pipeline,
    Prefixes,
    Reading,
    Session,
    Snapshot,
    Versions,
    Vpp,
    Vpps,
    VppTable,
    Zebra,
)

T = TypeVar("T", bound=BaseModel)
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VPP = "/run/vpp/api.sock"
LATER_SECONDS = 600.0
INSTALLED = {"frr": "10.7.1-1", "vpp": "26.06"}
HASHES = {"/etc/frr/frr.conf": "aa", "/etc/vpp/startup.conf": "bb"}


def read(content: T) -> Reading[T]:
    return Reading[Any](state=Asked.READ, content=content, seconds=0.1)


def unreadable(reason: str = "it did not answer") -> Reading[Any]:
    return Reading[Any](state=Asked.UNREADABLE, reason=reason)


def absent(reason: str = "there is none here") -> Reading[Any]:
    return Reading[Any](state=Asked.ABSENT, reason=reason)


def session(peer: str = "192.0.2.1", **changes: Any) -> Session:
    found: dict[str, Any] = {
        "remote_as": 64496,
        "state": "Established",
        "uptime_seconds": 5_000.0,
        "drops": 1,
        "families": {"ipv4Unicast": Prefixes(received=1_000_100, accepted=1_000_000, advertised=4)},
    }
    return Session(peer=peer, **(found | changes))


def link(**changes: Any) -> Link:
    found: dict[str, Any] = {
        "up": True,
        "carrier": True,
        "mtu": 1500,
        "identity": "3",
        "errors": {"rx_errors": 0, "rx_dropped": 7},
    }
    return Link(**(found | changes))


def pipeline(**changes: Any) -> Pipeline:
    found: dict[str, Any] = {
        "name": "fib",
        "feed": "kernel",
        "fib": "vpp",
        "state": "in-sync",
        "counts": {"IPv4": Counts(desired=1_000_010, in_fib=1_000_010)},
    }
    return Pipeline(**(found | changes))


def vpp(**changes: Any) -> Vpp:
    found: dict[str, Any] = {
        "version": "26.06",
        "dpdk": "25.11",
        "started": 1_700_000_000,
        "links": {"uplink": link(mtu=9000, errors={"drops": 5, "rx-miss": 0})},
        "tables": {"fib": {"IPv4": VppTable(entries=1_000_042)}},
    }
    return Vpp(**(found | changes))


def router(**changes: Any) -> Snapshot:
    """A healthy router; `changes` replace whole sources or other fields."""
    found: dict[str, Any] = {
        "host": "r1",
        "label": "before",
        "taken_at": MOMENT,
        "boot": "boot-1",
        "boot_seconds": 10_000.0,
        "bgp": read(Bgp(version="10.7.1", sessions=(session(),), prefixes={"IPv4": 1_000_004})),
        "zebra": read(Zebra(routes={"IPv4": BgpRoutes(rib=1_000_000, fib=1_000_000)})),
        "bfd": read(Bfd(peers=(BfdPeer(peer="192.0.2.1", status="up", interface="uplink"),))),
        "exabgp": absent(),
        "agent": read(Agent(version="0.1.0", uptime_seconds=4_000.0, pipelines=(pipeline(),))),
        "kernel": read(KernelRoutes(bgp={"IPv4": 1_000_000}, feeds={"fib": {"IPv4": 1_000_010}})),
        "links": read(Links(links={"uplink": link(), "mgmt": link(identity="2")})),
        "vpp": read(Vpps(instances={VPP: vpp()})),
        "versions": read(
            Versions(kernel="6.12.1", debian="13.2", installed={"frr": "10.7.1-1", "vpp": "26.06"})
        ),
        "configurations": read(
            Configurations(hashes={"/etc/frr/frr.conf": "aa", "/etc/vpp/startup.conf": "bb"})
        ),
        "drained": read(Drained(drained=False)),
    }
    return Snapshot(**(found | changes))


def later(snapshot: Snapshot, seconds: float = LATER_SECONDS) -> Snapshot:
    """The same router so much later, with everything that only grows older."""
    changes: dict[str, Any] = {
        "label": "after",
        "taken_at": snapshot.taken_at + timedelta(seconds=seconds),
        "boot_seconds": snapshot.boot_seconds + seconds,
    }
    if snapshot.bgp.content:
        sessions = tuple(_older(found, seconds) for found in snapshot.bgp.content.sessions)
        changes["bgp"] = read(snapshot.bgp.content.model_copy(update={"sessions": sessions}))
    if snapshot.agent.content:
        uptime = snapshot.agent.content.uptime_seconds + seconds
        changes["agent"] = read(snapshot.agent.content.model_copy(update={"uptime_seconds": uptime}))
    return snapshot.model_copy(update=changes)


def _older(found: Session, seconds: float) -> Session:
    uptime = None if found.uptime_seconds is None else found.uptime_seconds + seconds
    return found.model_copy(update={"uptime_seconds": uptime})


# -- any snapshot ----------------------------------------------------------------------------------

_small = st.integers(0, 5)
_counts = st.one_of(_small, st.integers(0, 2_000_000))
_seconds = st.floats(0, 1e7, allow_nan=False)
_names = st.sampled_from(["a", "b", "c"])
_versions = st.sampled_from(["1.0", "1.1", "2.0"])
_families = st.sampled_from(["IPv4", "IPv6"])
_bgp_families = st.sampled_from(["ipv4Unicast", "ipv6Unicast"])
_prefixes = st.builds(
    Prefixes, received=st.none() | _counts, accepted=_counts, advertised=st.none() | _counts
)
_sessions = st.builds(
    Session,
    peer=st.sampled_from(["192.0.2.1", "2001:db8::1"]),
    vrf=st.sampled_from(["default", "red"]),
    state=st.sampled_from(["Established", "Active", "Idle"]),
    uptime_seconds=st.none() | _seconds,
    drops=st.none() | _small,
    families=st.dictionaries(_bgp_families, _prefixes),
)
_unique_sessions = st.lists(_sessions, max_size=4, unique_by=lambda found: (found.vrf, found.peer)).map(tuple)
_links = st.dictionaries(
    _names,
    st.builds(
        Link,
        up=st.booleans(),
        carrier=st.booleans(),
        mtu=st.none() | st.sampled_from([1500, 9000]),
        identity=st.sampled_from(["1", "2"]),
        errors=st.dictionaries(st.sampled_from(["rx_errors", "drops"]), _small),
    ),
    max_size=3,
)
_by_family = st.dictionaries(_families, _counts)


def _adding_up(*, in_fib: int, pending: int, unknown: int, not_in_fib: dict[str, int]) -> Counts:
    desired = in_fib + pending + unknown + sum(not_in_fib.values())
    return Counts(desired=desired, in_fib=in_fib, pending=pending, unknown=unknown, not_in_fib=not_in_fib)


_pipelines = st.lists(
    st.builds(
        Pipeline,
        name=_names,
        feed=st.just("kernel"),
        fib=st.sampled_from(["kernel", "vpp"]),
        state=st.sampled_from(["in-sync", "syncing", "fib-lost"]),
        error=st.none() | st.just("it is gone"),
        counts=st.dictionaries(
            _families,
            st.builds(
                _adding_up,
                in_fib=_counts,
                pending=_small,
                unknown=_small,
                not_in_fib=st.dictionaries(st.sampled_from(["unresolved", "rejected"]), _small),
            ),
        ),
        standing=_small,
        unexplained=_small,
    ),
    max_size=3,
    unique_by=lambda found: found.name,
).map(tuple)
_bfd_peers = st.builds(
    BfdPeer,
    peer=st.sampled_from(["192.0.2.1", "192.0.2.2"]),
    status=st.sampled_from(["up", "down", "init"]),
    interface=_names,
)
_vpps = st.builds(
    Vpp,
    version=_versions,
    dpdk=st.none() | _versions,
    started=_small,
    links=_links,
    tables=st.dictionaries(_names, st.dictionaries(_families, st.builds(VppTable, entries=_counts))),
)


def _readings(content: st.SearchStrategy[T]) -> st.SearchStrategy[Reading[Any]]:
    return st.one_of(content.map(read), content.map(read), st.builds(unreadable), st.builds(absent))


_SOURCES: dict[str, st.SearchStrategy[Reading[Any]]] = {
    "bgp": _readings(
        st.builds(
            Bgp,
            version=_versions,
            graceful_shutdown=st.booleans(),
            sessions=_unique_sessions,
            prefixes=_by_family,
        )
    ),
    "zebra": _readings(
        st.builds(Zebra, routes=st.dictionaries(_families, st.builds(BgpRoutes, rib=_counts, fib=_counts)))
    ),
    "bfd": _readings(
        st.builds(Bfd, peers=st.lists(_bfd_peers, max_size=3, unique_by=lambda p: p.key).map(tuple))
    ),
    "exabgp": _readings(st.builds(Exabgp, sessions=_unique_sessions)),
    "agent": _readings(st.builds(Agent, version=_versions, uptime_seconds=_seconds, pipelines=_pipelines)),
    "kernel": _readings(
        st.builds(
            KernelRoutes,
            bgp=_by_family,
            feeds=st.dictionaries(_names, _by_family, max_size=2),
            fibs=st.dictionaries(_names, _by_family, max_size=2),
        )
    ),
    "links": _readings(st.builds(Links, links=_links)),
    "vpp": _readings(st.builds(Vpps, instances=st.dictionaries(st.just(VPP), _vpps, min_size=1))),
    "versions": _readings(
        st.builds(
            Versions,
            kernel=_versions,
            debian=st.none() | _versions,
            installed=st.dictionaries(st.sampled_from(["frr", "vpp", "agent"]), _versions),
        )
    ),
    "configurations": _readings(
        st.builds(
            Configurations,
            hashes=st.dictionaries(st.sampled_from(["/etc/a", "/etc/b"]), _names),
            unknown=st.dictionaries(st.just("/etc/c"), _names),
        )
    ),
    "drained": _readings(st.builds(Drained, drained=st.booleans())),
}


@st.composite
def any_snapshot(draw: st.DrawFn) -> Snapshot:
    """A router of which some sources say anything that the model allows."""
    names = draw(st.lists(st.sampled_from(sorted(_SOURCES)), max_size=4, unique=True))
    changes: dict[str, Any] = {name: draw(_SOURCES[name]) for name in names}
    changes["taken_at"] = MOMENT + timedelta(seconds=draw(st.integers(0, 10**6)))
    changes["boot"] = draw(st.sampled_from(["boot-1", "boot-2"]))
    changes["boot_seconds"] = draw(_seconds)
    return router(**changes)
