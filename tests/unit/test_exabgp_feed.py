"""What the feed makes of ExaBGP's stream: sessions, snapshots, holding, and what a bad stream does to it.

The stream is given to the feed as bytes and time is a number, so that every order of events can be tried; the
real ExaBGP is in tests/integration.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_agent.feeds.exabgp import ExabgpFeed
from router_agent.feeds.exabgp_json import SessionId
from router_agent.feeds.feed import FeedError
from router_agent.model import U32, Family, Interner, Link, Neighbour, Operation, RouteBatch, prefixes_of

US, PEER, OTHER = "192.0.2.1", "192.0.2.2", "192.0.2.3"
LOCAL_AS = 65001
AS = {PEER: 65002, OTHER: 65003}
HOLD, QUIET, STARTUP = 120.0, 10.0, 60.0


class Fib:
    """A sink that keeps what it is told the way the agent does: stale routes go with a clean snapshot."""

    def __init__(self, left_by_earlier_life: dict[str, str] | None = None) -> None:
        self.feed: ExabgpFeed
        self.held = dict(left_by_earlier_life or {})
        self.seen: set[str] = set()
        self.events: list[str] = []

    def snapshot_begin(self) -> None:
        self.events.append("begin")
        self.seen.clear()

    def snapshot_end(self, *, clean: bool) -> None:
        self.events.append("end" if clean else "unclean end")
        if clean:
            self.held = {prefix: path for prefix, path in self.held.items() if prefix in self.seen}

    def routes(self, batch: RouteBatch) -> None:
        assert batch.table == 254
        assert set(batch.metrics.tolist()) <= {33}
        rows = zip(prefixes_of(batch.keys), batch.paths.tolist(), batch.operations.tolist(), strict=True)
        for prefix, path, operation in rows:
            if operation == Operation.DELETE:
                self.held.pop(str(prefix), None)
                self.seen.discard(str(prefix))
                continue
            path_set = self.feed.resolve(path)
            assert path_set is not None
            assert all(leg.interface == 0 for leg in path_set.paths)
            self.held[str(prefix)] = "+".join(str(ip_address(leg.gateway)) for leg in path_set.paths)
            self.seen.add(str(prefix))

    def paths_changed(self, paths: U32) -> None:
        raise AssertionError

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        raise AssertionError

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        raise AssertionError


def neighbour(peer: str, **members: object) -> dict[str, object]:
    return {
        "address": {"local": US, "peer": peer},
        "asn": {"local": LOCAL_AS, "peer": AS[peer]},
        "router-id": US,
        **members,
    }


def line(kind: str, peer: str, **members: object) -> str:
    return json.dumps({"exabgp": "5.0.0", "type": kind, "neighbor": neighbour(peer, **members)})


def open_lines(peer: str, *, graceful: bool, families: Sequence[str] = ("ipv4/unicast",)) -> list[str]:
    capabilities: dict[str, object] = {"1": {"name": "multiprotocol", "families": list(families)}, "2": {}}
    if graceful:
        capabilities["64"] = {}
    return [
        line(
            "open",
            peer,
            direction=direction,
            open={"router_id": PEER if direction == "send" else peer, "capabilities": capabilities},
        )
        for direction in ("send", "receive")
    ]


def up(peer: str, *, graceful: bool = True) -> list[str]:
    return [*open_lines(peer, graceful=graceful), line("state", peer, state="up")]


def down(peer: str, reason: str = "notification received (6,2)") -> str:
    return line("state", peer, state="down", reason=reason)


def announce(peer: str, *prefixes: str, path: Sequence[int] = (), med: int = 0) -> str:
    ases = [AS[peer], *path]
    update = {
        "attribute": {
            "origin": "igp",
            "as-path": {"0": {"element": "as-sequence", "value": ases}},
            "med": med,
        },
        "announce": {"ipv4 unicast": {peer: [{"nlri": prefix} for prefix in prefixes]}},
    }
    return line("update", peer, direction="receive", message={"update": update})


def withdraw(peer: str, *prefixes: str) -> str:
    update = {"withdraw": {"ipv4 unicast": [{"nlri": prefix} for prefix in prefixes]}}
    return line("update", peer, direction="receive", message={"update": update})


def eor(peer: str) -> str:
    return line("update", peer, direction="receive", message={"eor": {"afi": "ipv4", "safi": "unicast"}})


def refresh(peer: str, subtype: str) -> str:
    return line(
        "refresh",
        peer,
        direction="receive",
        **{"route-refresh": {"afi": "ipv4", "safi": "unicast", "subtype": subtype}},
    )


def hello(uptime: float = 0.0) -> str:
    return json.dumps({"relay": {"version": 1, "uptime": uptime}})


def listing(*established: str, refresh: bool = True, configured: Sequence[str] = (PEER, OTHER)) -> str:
    return json.dumps(
        [
            {
                "fsm": "ESTABLISHED" if peer in established else "IDLE",
                "local": {"address": US, "as": LOCAL_AS, "id": US, "capabilities": {"route-refresh": True}},
                "peer": {
                    "address": peer,
                    "as": AS[peer],
                    "id": peer if peer in established else None,
                    "capabilities": {"route-refresh": refresh if peer in established else None},
                },
                "families": ["ipv4 unicast"] if peer in established else [],
            }
            for peer in configured
        ]
    )


class Wire:
    """Stands where the relay's socket is: takes the feed's commands."""

    def __init__(self) -> None:
        self.commands: list[str] = []

    def send(self, data: bytes) -> int:
        assert data.endswith(b"\n")
        self.commands += data.decode().splitlines()
        return len(data)

    def close(self) -> None:
        pass


class Lab:
    """A feed, its sink, and a clock."""

    def __init__(self, fib: Fib | None = None, /, **options: object) -> None:
        self.now = 1000.0
        self.fib = fib or Fib()
        settings_: dict[str, object] = {
            "quiet_seconds": QUIET,
            "hold_seconds": HOLD,
            "startup_seconds": STARTUP,
            "families": [Family.IPV4],
        }
        self.feed = ExabgpFeed(
            socket_path="/nonexistent",
            metric=33,
            clock=lambda: self.now,
            **(settings_ | options),  # type: ignore[arg-type]
        )
        self.fib.feed = self.feed
        self.feed._sink = self.fib
        self.wire = Wire()

    async def connect(self, uptime: float = 0.0) -> None:
        self.wire = Wire()
        self.feed._relay = self.wire  # type: ignore[assignment]
        self.feed._connected()
        assert self.wire.commands == ["show neighbor json"]
        await self.say(hello(uptime))

    async def disconnect(self) -> None:
        await self.feed._lost()

    async def say(self, *lines: str | list[str]) -> None:
        for item in lines:
            texts = [item] if isinstance(item, str) else item
            await self.feed.receive("".join(text + "\n" for text in texts).encode())

    async def wait(self, seconds: float) -> None:
        self.now += seconds
        await self.feed.tick()

    @property
    def held(self) -> dict[str, str]:
        return dict(sorted(self.fib.held.items()))


async def started(**options: object) -> Lab:
    """A lab in sync with one peer that announces two prefixes, the other peer down for good."""
    lab = Lab(None, **options)
    await lab.connect(uptime=1000)
    await lab.say(listing(), up(PEER), announce(PEER, "10.1.0.0/16", "10.2.0.0/16"), eor(PEER))
    assert lab.fib.events == ["begin", "end"]
    return lab


# -- the first synchronisation


async def test_snapshot_ends_with_end_of_rib() -> None:
    lab = Lab(Fib({"10.9.0.0/16": "old", "10.1.0.0/16": PEER}))
    await lab.connect()
    await lab.say(listing(configured=[PEER]))
    assert lab.fib.events == []
    await lab.say(up(PEER))
    assert lab.fib.events == ["begin"]
    await lab.say(announce(PEER, "10.1.0.0/16"))
    await lab.wait(HOLD - 1)
    assert lab.held == {"10.1.0.0/16": PEER, "10.9.0.0/16": "old"}
    await lab.say(eor(PEER))
    assert lab.fib.events == ["begin", "end"]
    assert lab.held == {"10.1.0.0/16": PEER}
    assert lab.feed.synchronised


async def test_snapshot_waits_for_every_peer() -> None:
    lab = Lab()
    await lab.connect()
    await lab.say(listing(), up(PEER), up(OTHER), announce(PEER, "10.1.0.0/16"), eor(PEER))
    assert lab.fib.events == ["begin"]
    await lab.say(eor(OTHER))
    assert lab.fib.events == ["begin", "end"]


async def test_snapshot_waits_for_peers_that_may_still_come_up() -> None:
    lab = Lab()
    await lab.connect(uptime=10)
    await lab.say(listing(), up(PEER), announce(PEER, "10.1.0.0/16"), eor(PEER))
    await lab.wait(STARTUP - 11)
    assert lab.fib.events == ["begin"]
    await lab.wait(2)
    assert lab.fib.events == ["begin", "end"]


async def test_snapshot_does_not_wait_for_peers_that_had_their_time() -> None:
    await started()


async def test_snapshot_waits_until_exabgp_told_which_peers_there_are() -> None:
    lab = Lab()
    await lab.connect()
    await lab.say(up(PEER), announce(PEER, "10.1.0.0/16"), eor(PEER))
    assert lab.fib.events == ["begin"]
    await lab.say(listing(PEER))
    assert lab.fib.events == ["begin"]
    await lab.say(up(OTHER), eor(OTHER))
    assert lab.fib.events == ["begin", "end"]


async def test_peer_without_end_of_rib_is_complete_when_quiet() -> None:
    lab = Lab()
    await lab.connect(uptime=1000)
    await lab.say(listing(), up(PEER, graceful=False), announce(PEER, "10.1.0.0/16"))
    await lab.wait(QUIET - 1)
    await lab.say(announce(PEER, "10.2.0.0/16"))
    await lab.wait(QUIET - 1)
    assert lab.fib.events == ["begin"]
    await lab.say(announce(PEER, "10.2.0.0/16"))  # nothing new
    await lab.wait(2)
    assert lab.fib.events == ["begin", "end"]


async def test_peer_that_announces_nothing_has_longer() -> None:
    lab = Lab()
    await lab.connect(uptime=1000)
    await lab.say(listing(), up(PEER, graceful=False))
    await lab.wait(STARTUP - 1)
    assert lab.fib.events == ["begin"]
    await lab.wait(2)
    assert lab.fib.events == ["begin", "end"]


async def test_nothing_is_swept_before_exabgp_came() -> None:
    lab = Lab(Fib({"10.9.0.0/16": "old"}))
    await lab.wait(100 * HOLD)
    await lab.connect()
    await lab.say(listing())
    await lab.wait(100 * HOLD)
    assert lab.held == {"10.9.0.0/16": "old"}
    assert lab.fib.events == []


# -- routes


async def test_best_route_wins_and_the_next_takes_over() -> None:
    lab = await started()
    await lab.say(up(OTHER), announce(OTHER, "10.1.0.0/16", "10.3.0.0/16", path=[1]), eor(OTHER))
    assert lab.held == {"10.1.0.0/16": PEER, "10.2.0.0/16": PEER, "10.3.0.0/16": OTHER}
    await lab.say(withdraw(PEER, "10.1.0.0/16"))
    assert lab.held["10.1.0.0/16"] == OTHER
    await lab.say(announce(PEER, "10.1.0.0/16", path=[1, 2]))
    assert lab.held["10.1.0.0/16"] == OTHER
    await lab.say(announce(PEER, "10.1.0.0/16"))
    assert lab.held["10.1.0.0/16"] == PEER
    await lab.say(withdraw(OTHER, "10.3.0.0/16", "10.77.0.0/16"))
    assert lab.held == {"10.1.0.0/16": PEER, "10.2.0.0/16": PEER}


async def test_last_word_in_one_read_counts() -> None:
    lab = await started()
    lines = [announce(PEER, "10.1.0.0/16"), withdraw(PEER, "10.1.0.0/16"), withdraw(PEER, "10.2.0.0/16")]
    lines += [announce(PEER, "10.2.0.0/16"), announce(PEER, "10.4.0.0/16"), withdraw(PEER, "10.4.0.0/16")]
    await lab.say(lines)
    assert lab.held == {"10.2.0.0/16": PEER}


async def test_route_with_own_as_is_not_used() -> None:
    lab = await started()
    await lab.say(announce(PEER, "10.1.0.0/16", path=[LOCAL_AS]))
    assert lab.held == {"10.2.0.0/16": PEER}
    (view,) = lab.feed.candidates(ip_network("10.1.0.0/16"))
    assert not view.used
    assert "own AS 65001" in view.reason


async def test_multipath() -> None:
    lab = await started(maximum_paths=4)
    await lab.say(up(OTHER), announce(OTHER, "10.1.0.0/16"), eor(OTHER))
    assert lab.held == {"10.1.0.0/16": f"{PEER}+{OTHER}", "10.2.0.0/16": PEER}


async def test_candidates_say_why() -> None:
    lab = await started()
    await lab.say(up(OTHER), announce(OTHER, "10.1.0.0/16", path=[7]), eor(OTHER))
    first, second = lab.feed.candidates(ip_network("10.1.0.0/16"))
    assert (first.session, first.used, first.reason) == (SessionId(US, PEER), True, "best")
    assert (second.session, second.used) == (SessionId(US, OTHER), False)
    assert second.reason == "AS path of 2 is longer than 1"
    assert second.attributes.as_path == "65003 7"
    assert lab.feed.candidates(ip_network("10.99.0.0/16")) == []
    assert lab.feed.candidates(ip_network("2001:db8::/32")) == []


async def test_path_ids_are_used_again() -> None:
    lab = await started()
    for number in range(200):
        update = json.loads(announce(PEER, "10.1.0.0/16"))
        families = update["neighbor"]["message"]["update"]["announce"]["ipv4 unicast"]
        families[f"198.51.100.{number + 1}"] = families.pop(PEER)
        await lab.say(json.dumps(update))
        in_use = np.zeros(lab.feed.path_limit, np.bool_)
        for prefix in lab.held:
            paths = lab.feed.ribs.decide(Family.IPV4, _keys(prefix))
            in_use[paths] = True
        lab.feed.retain(in_use)
        assert lab.held == {"10.1.0.0/16": f"198.51.100.{number + 1}", "10.2.0.0/16": PEER}
    assert lab.feed.path_limit < 10


async def test_a_path_that_was_forgotten_can_come_back() -> None:
    lab = await started()
    await lab.say(up(OTHER), announce(OTHER, "10.1.0.0/16", "10.2.0.0/16"), eor(OTHER))
    assert set(lab.held.values()) == {PEER}
    for longer, best in ((True, OTHER), (False, PEER), (True, OTHER)):
        await lab.say(announce(PEER, "10.1.0.0/16", "10.2.0.0/16", path=[9] * longer))
        assert set(lab.held.values()) == {best}
        in_use = np.zeros(lab.feed.path_limit, np.bool_)
        in_use[lab.feed.ribs.decide(Family.IPV4, _keys("10.1.0.0/16"))] = True
        lab.feed.retain(in_use)


def _keys(prefix: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    network = ip_network(prefix)
    return np.array([[int(network.network_address) << 8 | network.prefixlen]], np.uint64)


async def test_attribute_ids_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router_agent.feeds.exabgp_rib._SPARE_ATTRIBUTES", 8)
    lab = await started()
    for number in range(200):
        await lab.say(announce(PEER, "10.1.0.0/16", med=number))
    assert lab.feed.ribs.attributes.limit < 30
    (view,) = lab.feed.candidates(ip_network("10.1.0.0/16"))
    assert view.attributes.med == 199


# -- sessions that go


async def test_routes_of_a_lost_session_go_at_once() -> None:
    lab = await started()
    await lab.say(
        up(OTHER), announce(OTHER, "10.1.0.0/16", path=[1]), eor(OTHER), down(PEER, "closing connection")
    )
    assert lab.held == {"10.1.0.0/16": OTHER}
    assert lab.fib.events == ["begin", "end"]


async def test_routes_of_a_lost_session_are_kept_for_its_return() -> None:
    lab = await started(stale_seconds=30.0)
    await lab.say(down(PEER, "closing connection"))
    await lab.wait(29)
    assert lab.held == {"10.1.0.0/16": PEER, "10.2.0.0/16": PEER}
    (view,) = lab.feed.candidates(ip_network("10.1.0.0/16"))
    assert view.used
    await lab.say(up(PEER), announce(PEER, "10.2.0.0/16", "10.3.0.0/16"))
    await lab.wait(10)
    assert lab.held == {"10.1.0.0/16": PEER, "10.2.0.0/16": PEER, "10.3.0.0/16": PEER}
    await lab.say(eor(PEER))
    assert lab.held == {"10.2.0.0/16": PEER, "10.3.0.0/16": PEER}


@pytest.mark.parametrize(
    "reason", ["notification received (6,2)", "notification sent (4,0)", "stop, message [removed]"]
)
async def test_a_session_ended_on_purpose_is_not_kept(reason: str) -> None:
    lab = await started(stale_seconds=30.0)
    await lab.say(down(PEER, reason))
    assert lab.held == {}


async def test_routes_of_a_lost_session_go_when_it_stays_away() -> None:
    lab = await started(stale_seconds=30.0)
    await lab.say(down(PEER, "closing connection"))
    await lab.wait(31)
    assert lab.held == {}


async def test_a_session_that_returns_with_fewer_routes_has_exactly_those() -> None:
    lab = await started()
    await lab.say(down(PEER), up(PEER), announce(PEER, "10.2.0.0/16"), eor(PEER))
    assert lab.held == {"10.2.0.0/16": PEER}


async def test_failed_attempts_to_connect_change_nothing() -> None:
    lab = await started()
    await lab.say(line("state", OTHER, state="connected"), down(OTHER, "closing connection"))
    assert lab.held == {"10.1.0.0/16": PEER, "10.2.0.0/16": PEER}


# -- ExaBGP goes


async def test_restart_of_exabgp_drops_nothing() -> None:
    lab = await started()
    await lab.say(down(PEER, "stop, message [shutting down]"))
    await lab.say(json.dumps({"type": "notification", "notification": "shutdown"}))
    await lab.disconnect()
    await lab.wait(HOLD - 10)
    assert lab.held == {"10.1.0.0/16": PEER, "10.2.0.0/16": PEER}
    await lab.connect()
    await lab.say(listing())
    await lab.say(up(PEER), announce(PEER, "10.2.0.0/16"))
    await lab.wait(10)
    assert lab.held == {"10.1.0.0/16": PEER, "10.2.0.0/16": PEER}
    await lab.say(eor(PEER))
    assert lab.held == {"10.2.0.0/16": PEER}
    assert lab.wire.commands == ["show neighbor json"]
    assert lab.feed.overruns == 1


async def test_routes_go_when_exabgp_stays_away() -> None:
    lab = await started()
    await lab.disconnect()
    await lab.wait(HOLD - 1)
    assert len(lab.held) == 2
    await lab.wait(2)
    assert lab.held == {}


async def test_without_hold_routes_go_with_exabgp() -> None:
    lab = await started(hold_seconds=0.0)
    await lab.disconnect()
    assert lab.held == {}


async def test_a_peer_that_went_away_unseen_is_given_up_after_the_hold() -> None:
    lab = await started()
    await lab.disconnect()
    await lab.connect(uptime=1000)
    await lab.say(listing())
    assert len(lab.held) == 2
    await lab.wait(HOLD + 1)
    assert lab.held == {}


async def test_a_peer_that_is_no_longer_configured_is_forgotten() -> None:
    lab = await started()
    await lab.disconnect()
    await lab.connect(uptime=1000)
    await lab.say(listing(configured=[OTHER]))
    assert lab.held == {}
    assert [view.session.peer for view in lab.feed.sessions()] == [OTHER]


# -- the agent's side of the stream is lost


async def test_tables_are_asked_for_when_the_stream_was_lost() -> None:
    lab = await started()
    await lab.disconnect()
    await lab.connect(uptime=1000)
    await lab.say(listing(PEER))
    assert lab.wire.commands[1:] == [f"neighbor {PEER} announce route-refresh ipv4 unicast"]
    await lab.say(announce(PEER, "10.5.0.0/16"))  # of the old feed, before the refresh
    await lab.say(refresh(PEER, "begin"), announce(PEER, "10.2.0.0/16"))
    await lab.wait(HOLD - 1)
    assert set(lab.held) == {"10.1.0.0/16", "10.2.0.0/16", "10.5.0.0/16"}
    await lab.say(refresh(PEER, "end"))
    assert lab.held == {"10.2.0.0/16": PEER}


async def test_markers_of_a_transfer_that_began_unseen_do_not_count() -> None:
    lab = await started()
    await lab.disconnect()
    await lab.connect(uptime=1000)
    await lab.say(listing(PEER), eor(PEER), refresh(PEER, "end"))
    assert len(lab.held) == 2


async def test_refresh_without_markers_ends_when_quiet() -> None:
    lab = Lab(Fib({"10.9.0.0/16": "old", "10.1.0.0/16": PEER}))
    await lab.connect(uptime=1000)
    await lab.say(listing(PEER))
    assert lab.fib.events == ["begin"]
    await lab.wait(QUIET + 1)
    assert lab.fib.events == ["begin"]
    await lab.say(announce(PEER, "10.1.0.0/16"))
    await lab.wait(QUIET + 1)
    assert lab.fib.events == ["begin", "end"]
    assert lab.held == {"10.1.0.0/16": PEER}


async def test_peer_without_refresh_is_reset_and_its_routes_held() -> None:
    lab = await started()
    await lab.disconnect()
    await lab.connect(uptime=1000)
    await lab.say(listing(PEER, refresh=False))
    assert lab.wire.commands[1:] == [f"neighbor {PEER} teardown 4"]
    await lab.say(down(PEER, "notification sent (6,4)"))
    await lab.wait(5)
    assert len(lab.held) == 2
    await lab.say(up(PEER), announce(PEER, "10.2.0.0/16"), eor(PEER))
    assert lab.held == {"10.2.0.0/16": PEER}
    await lab.say(down(PEER, "notification sent (6,4)"))
    assert lab.held == {}


async def test_a_fresh_agent_waits_for_the_peer_it_reset() -> None:
    lab = Lab(Fib({"10.1.0.0/16": PEER}))
    await lab.connect(uptime=1000)
    await lab.say(listing(PEER, refresh=False, configured=[PEER]), down(PEER, "notification sent (6,4)"))
    await lab.wait(5)
    assert lab.held == {"10.1.0.0/16": PEER}
    await lab.say(up(PEER), announce(PEER, "10.1.0.0/16"), eor(PEER))
    assert lab.fib.events == ["begin", "end"]
    assert lab.held == {"10.1.0.0/16": PEER}


async def test_peer_without_refresh_can_be_spared() -> None:
    lab = await started(reset_without_refresh=False)
    await lab.disconnect()
    await lab.connect(uptime=1000)
    await lab.say(listing(PEER, refresh=False))
    assert lab.wire.commands == ["show neighbor json"]


async def test_a_session_followed_from_its_beginning_is_not_refreshed() -> None:
    lab = Lab()
    await lab.connect()
    await lab.say(up(PEER), announce(PEER, "10.1.0.0/16"), listing(PEER, configured=[PEER]), eor(PEER))
    assert lab.wire.commands == ["show neighbor json"]
    assert lab.fib.events == ["begin", "end"]


async def test_the_question_is_repeated() -> None:
    lab = Lab()
    await lab.connect()
    await lab.wait(31)
    assert lab.wire.commands == ["show neighbor json"] * 2
    await lab.say(listing())
    await lab.wait(31)
    assert lab.wire.commands == ["show neighbor json"] * 2


async def test_resync_gives_everything_again() -> None:
    lab = await started()
    await lab.say(up(OTHER), announce(OTHER, "10.1.0.0/16", "10.3.0.0/16"), eor(OTHER))
    wanted = lab.held
    lab.fib.held = {"10.9.0.0/16": "wrong", "10.1.0.0/16": "wrong"}
    lab.feed.resync()
    await lab.wait(0)
    assert lab.fib.events == ["begin", "end"] * 2
    assert lab.held == wanted


async def test_resync_before_the_first_snapshot_sweeps_nothing() -> None:
    lab = Lab(Fib({"10.9.0.0/16": "old"}))
    lab.feed.resync()
    await lab.wait(0)
    await lab.connect()
    await lab.say(listing(), up(PEER), announce(PEER, "10.1.0.0/16"))
    lab.feed.resync()
    await lab.wait(0)
    assert set(lab.held) == {"10.1.0.0/16", "10.9.0.0/16"}
    assert "end" not in lab.fib.events


# -- a bad stream


async def test_bad_lines_are_counted_and_logged_once_per_kind(caplog: pytest.LogCaptureFixture) -> None:
    lab = await started()
    await lab.say(["{", '{"type": "update"}', "[1]", "}", "\0\xff"])
    assert lab.feed.counts.malformed == {"line": 3, "neighbor": 1, "neighbour list": 1}
    assert len([r for r in caplog.records if r.levelname == "ERROR"]) == 3
    assert len(lab.held) == 2


async def test_bad_prefixes_do_not_hurt_good_ones() -> None:
    lab = await started()
    await lab.say(announce(PEER, "10.3.0.0/16", "10.4.0.0/99", "nonsense", "10.5.0.0/16"))
    assert set(lab.held) == {"10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16", "10.5.0.0/16"}
    assert lab.feed.counts.malformed == {"prefix": 2}


async def test_a_line_that_is_too_long_is_refused_and_nothing_else() -> None:
    lab = await started(line_bytes=10_000)
    long = "x" * 25_000 + "\n"
    stream = (
        announce(PEER, "10.3.0.0/16") + "\n" + long + announce(PEER, "10.4.0.0/16") + "\n" + long
    ).encode()
    stream += (announce(PEER, "10.5.0.0/16") + "\n").encode()
    for start in range(0, len(stream), 700):
        await lab.feed.receive(stream[start : start + 700])
    assert set(lab.held) == {f"10.{n}.0.0/16" for n in range(1, 6)}
    await lab.feed.receive(stream)
    assert lab.feed.counts.malformed == {"line length": 4}


async def test_more_sessions_than_can_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router_agent.feeds.exabgp._SESSIONS", 2)
    lab = await started()
    third = announce(PEER, "10.3.0.0/16").replace(f'"peer": "{PEER}"', '"peer": "192.0.2.77"')
    await lab.say(third)
    assert lab.feed.counts.malformed == {"sessions": 1}
    assert len(lab.held) == 2


async def test_missing_open_is_said() -> None:
    lab = Lab()
    await lab.connect()
    await lab.say(listing(), line("state", PEER, state="up"))
    assert lab.feed.counts.malformed == {"open": 1}
    assert lab.wire.commands == ["show neighbor json"] * 2


async def test_what_was_negotiated_is_asked_for_when_our_open_is_not_shown() -> None:
    lab = Lab(None, families=[Family.IPV4, Family.IPV6])
    await lab.connect(uptime=1000)
    opened = open_lines(PEER, graceful=True, families=["ipv4/unicast", "ipv6/unicast"])[1]
    await lab.say(listing(), opened, line("state", PEER, state="up"))
    assert lab.wire.commands == ["show neighbor json"] * 2
    await lab.say(announce(PEER, "10.1.0.0/16"), listing(PEER))  # IPv4 alone was negotiated
    assert lab.fib.events == ["begin"]
    await lab.say(eor(PEER))
    assert lab.fib.events == ["begin", "end"]
    assert lab.feed.counts.malformed == {}


async def test_router_id_that_is_learned_late_counts() -> None:
    lab = Lab()
    await lab.connect(uptime=1000)
    await lab.say(listing(), line("state", PEER, state="up"), announce(PEER, "10.1.0.0/16"))
    await lab.say(up(OTHER), announce(OTHER, "10.1.0.0/16"))
    assert lab.held == {"10.1.0.0/16": OTHER}
    await lab.say(listing(PEER, OTHER))
    assert lab.held == {"10.1.0.0/16": PEER}


@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_stream_may_be_cut_anywhere(size: int) -> None:
    lab = Lab()
    await lab.connect(uptime=1000)
    lines = [listing(), *up(PEER), announce(PEER, "10.1.0.0/16"), withdraw(PEER, "10.1.0.0/16")]
    lines += [announce(PEER, "10.2.0.0/16"), eor(PEER)]
    stream = "".join(text + "\n" for text in lines).encode()
    for start in range(0, len(stream), size):
        await lab.feed.receive(stream[start : start + size])
    assert lab.held == {"10.2.0.0/16": PEER}
    assert lab.fib.events == ["begin", "end"]


STEPS = st.lists(
    st.tuples(
        st.sampled_from([PEER, OTHER]),
        st.sampled_from(["announce", "announce", "withdraw", "bounce"]),
        st.lists(st.integers(0, 5), min_size=1, max_size=4),
        st.integers(0, 2),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.randoms(use_true_random=False))
async def test_equals_a_dictionary(
    steps: list[tuple[str, str, list[int], int]], chance: random.Random
) -> None:
    lab = Lab()
    await lab.connect(uptime=1000)
    await lab.say(listing(), up(PEER), up(OTHER), eor(PEER), eor(OTHER))
    told: dict[str, dict[str, int]] = {PEER: {}, OTHER: {}}
    pending: list[str] = []
    for peer, what, numbers, path in steps:
        prefixes = [f"10.{number}.0.0/16" for number in numbers]
        if what == "announce":
            pending.append(announce(peer, *prefixes, path=[9] * path))
            told[peer].update(dict.fromkeys(prefixes, path))
        elif what == "withdraw":
            pending.append(withdraw(peer, *prefixes))
            for prefix in prefixes:
                told[peer].pop(prefix, None)
        else:
            pending += [down(peer), *up(peer), eor(peer)]
            told[peer].clear()
        if chance.random() < 0.3:
            await lab.say(pending)
            pending = []
    await lab.say(pending)
    wanted = {}
    for prefix in told[PEER].keys() | told[OTHER].keys():
        offers = [(told[peer][prefix], IPv4Address(peer)) for peer in (PEER, OTHER) if prefix in told[peer]]
        wanted[prefix] = str(min(offers)[1])
    assert lab.held == dict(sorted(wanted.items()))


# -- small parts


def test_pool_gives_ids_again() -> None:
    pool: Interner[str] = Interner()
    numbers = [pool.id(text) for text in "abc"]
    assert numbers == [1, 2, 3]
    assert pool.id("b") == 2
    assert pool.release(np.array([False, True, False, True])) == 1
    assert pool.get(2) is None
    with pytest.raises(KeyError, match="id 2 is not in use"):
        pool[2]
    assert pool.id("d") == 2
    assert [pool[number] for number in (1, 2, 3)] == ["a", "d", "c"]
    assert pool.limit == 4


async def test_socket_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(FeedError, match="directory must be there"):
        await ExabgpFeed(socket_path=tmp_path / "missing" / "socket").run(Fib())
    (tmp_path / "file").write_text("")
    with pytest.raises(FeedError, match="is not a socket"):
        await ExabgpFeed(socket_path=tmp_path / "file").run(Fib())
    with pytest.raises(FeedError, match="no-such-group"):
        await ExabgpFeed(socket_path=tmp_path / "socket", socket_group="no-such-group").run(Fib())
