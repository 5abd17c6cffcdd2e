"""ExaBGP 5 between two BIRDs and the feed: what must be true after everything that can go away went away.

All of it runs in one network namespace of its own, on addresses of its loopback.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
import pytest_asyncio

from router_agent.feeds import exabgp_relay
from router_agent.feeds.exabgp import ExabgpFeed
from router_agent.model import U32, Link, Neighbour, Operation, RouteBatch, prefixes_of

EXABGP = Path(sys.executable).with_name("exabgp")
pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a network namespace"),
    pytest.mark.skipif(not EXABGP.exists(), reason="exabgp is not in this virtual environment"),
    pytest.mark.skipif(shutil.which("bird") is None, reason="bird is not installed"),
]

US = "127.0.9.1"
ONE, TWO = "127.0.9.2", "127.0.9.3"
V6_NEXT_HOP = {ONE: "2001:db8:ffff::2", TWO: "2001:db8:ffff::3"}
AS = {ONE: 65002, TWO: 65003}
DEADLINE = 30.0


def v4(first: int, count: int) -> list[str]:
    return [f"10.{n >> 8}.{n & 255}.0/24" for n in range(first, first + count)]


def v6(first: int, count: int) -> list[str]:
    return [f"2001:db8:{n:x}::/48" for n in range(first + 1, first + count + 1)]


class Table:
    """A sink that keeps routes as the agent would, and wakes who waits for it."""

    def __init__(self) -> None:
        self.feed: ExabgpFeed
        self.held: dict[str, str] = {}
        self.seen: set[str] = set()
        self.snapshots = 0
        self.fewest = 0
        """The smallest number of routes held since it was set."""
        self.changed = asyncio.Event()

    def snapshot_begin(self) -> None:
        self.seen.clear()
        self.changed.set()

    def snapshot_end(self, *, clean: bool) -> None:
        assert clean
        self.held = {prefix: hop for prefix, hop in self.held.items() if prefix in self.seen}
        self.snapshots += 1
        self.fewest = min(self.fewest, len(self.held))
        self.changed.set()

    def routes(self, batch: RouteBatch) -> None:
        for prefix, path, operation in zip(
            map(str, prefixes_of(batch.keys)), batch.paths.tolist(), batch.operations.tolist(), strict=True
        ):
            if operation == Operation.DELETE:
                self.held.pop(prefix, None)
                self.seen.discard(prefix)
            else:
                path_set = self.feed.resolve(path)
                assert path_set is not None
                self.held[prefix] = "+".join(str(ip_address(leg.gateway)) for leg in path_set.paths)
                self.seen.add(prefix)
        self.fewest = min(self.fewest, len(self.held))
        self.changed.set()

    def paths_changed(self, paths: U32) -> None:
        raise AssertionError

    def links(self, links: Sequence[Link], removed: Sequence[int]) -> None:
        raise AssertionError

    def neighbours(self, learned: Sequence[Neighbour], removed: Sequence[Neighbour]) -> None:
        raise AssertionError


class Bird:
    """A peer that announces the prefixes it is given."""

    def __init__(self, namespace: str, directory: Path, address: str) -> None:
        self._namespace = namespace
        self._address = address
        self._configuration = directory / f"{address}.conf"
        self._control = directory / f"{address}.ctl"
        self._process: subprocess.Popen[bytes] | None = None

    def announce(self, prefixes: Iterable[str], *, prepend: int = 0, refresh: bool = True) -> None:
        """Announce these prefixes and no others from now on."""
        statics: dict[int, list[str]] = {4: [], 6: []}
        for prefix in prefixes:
            statics[ip_network(prefix).version].append(f"route {prefix} blackhole;")
        asn, next_hop = AS[self._address], V6_NEXT_HOP[self._address]
        longer = f"bgp_path.prepend({asn}); " * prepend
        self._configuration.write_text(
            f"router id {self._address}; log stderr {{ fatal, error }}; protocol device {{}}\n"
            f"filter told {{ {longer}accept; }}\n"
            f"protocol static s4 {{ ipv4; {' '.join(statics[4])} }}\n"
            f"protocol static s6 {{ ipv6; {' '.join(statics[6])} }}\n"
            f"protocol bgp speaker {{ local {self._address} port 1790 as {asn}; strict bind; passive;\n"
            f" neighbor {US} as 65001; multihop; enable route refresh {'on' if refresh else 'off'};\n"
            " ipv4 { import none; export filter told; next hop self; };\n"
            f" ipv6 {{ import none; export filter told; next hop address {next_hop}; }}; }}\n"
        )
        subprocess.run(["bird", "-p", "-c", str(self._configuration)], check=True)
        if self._process is None:
            command = ["bird", "-f", "-c", str(self._configuration), "-s", str(self._control)]
            self._process = subprocess.Popen(["ip", "netns", "exec", self._namespace, *command])
        else:
            self.control("configure")

    def control(self, *words: str) -> None:
        subprocess.run(["birdc", "-s", str(self._control), *words], check=True, stdout=subprocess.DEVNULL)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


class Rig:
    """Two BIRDs, ExaBGP, and the agent's feed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._namespace = f"exabgp-{uuid.uuid4().hex[:8]}"
        self.socket = directory / "relay.sock"
        self.table = Table()
        self.feed: ExabgpFeed
        self._running: asyncio.Task[None] | None = None
        self._exabgp: subprocess.Popen[bytes] | None = None
        subprocess.run(["ip", "netns", "add", self._namespace], check=True)
        subprocess.run(["ip", "-n", self._namespace, "link", "set", "lo", "up"], check=True)
        self.one, self.two = (Bird(self._namespace, directory, address) for address in (ONE, TWO))

    async def start_agent(self, **options: float) -> None:
        times = {"quiet_seconds": 15.0, "hold_seconds": 20.0, "startup_seconds": 20.0}
        self.feed = ExabgpFeed(socket_path=self.socket, **(times | options))  # type: ignore[arg-type]
        self.table.feed = self.feed
        self._running = asyncio.create_task(self.feed.run(self.table))
        await self.until(self.socket.exists)

    async def stop_agent(self) -> None:
        if self._running is not None:
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._running

    def start_exabgp(self, *options: str) -> None:
        relay = " ".join(
            ["/usr/bin/python3", "-I", "-S", str(exabgp_relay.__file__), str(self.socket), *options]
        )
        neighbours = "".join(
            f"neighbor {peer} {{\n"
            f"  router-id {US}; local-address {US}; local-as 65001; peer-as {AS[peer]}; connect 1790;\n"
            "  family { ipv4 unicast; ipv6 unicast; }\n"
            "  capability { route-refresh; graceful-restart 30; }\n"
            "  api { processes [ agent ]; neighbor-changes;\n"
            "    receive { parsed; open; update; refresh; } }\n"
            "}\n"
            for peer in (ONE, TWO)
        )
        configuration = self._directory / "exabgp.conf"
        configuration.write_text(f"process agent {{ run {relay}; encoder json; }}\n{neighbours}")
        environment = {
            **os.environ,
            "exabgp_daemon_user": "root",
            "exabgp_daemon_drop": "false",
            "exabgp_tcp_port": "1791",
            "exabgp_api_cli": "false",
            "exabgp_log_level": "WARNING",
        }
        command = ["ip", "netns", "exec", self._namespace, str(EXABGP), "server", str(configuration)]
        log = (self._directory / "exabgp.log").open("ab")
        self._exabgp = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def stop_exabgp(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._exabgp is not None:
            self._exabgp.send_signal(number)
            self._exabgp.wait()
            self._exabgp = None

    def relay_pid(self) -> int:
        assert self._exabgp is not None
        children = Path(f"/proc/{self._exabgp.pid}/task/{self._exabgp.pid}/children").read_text().split()
        return int(children[0])

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait until something is true; looked at whenever the table changes, and now and then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE):
                while not true():
                    self.table.changed.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await self.table.changed.wait()
        if not true():
            views = [f"{view}" for view in self.feed.sessions()]
            log = (self._directory / "exabgp.log").read_text()[-2000:]
            pytest.fail(f"not true after {DEADLINE} s; {len(self.table.held)} routes; {views}\n{log}")

    async def until_held(self, wanted: dict[str, str]) -> None:
        await self.until(lambda: self.table.held == wanted)

    async def close(self) -> None:
        self.stop_exabgp(signal.SIGKILL)
        await self.stop_agent()
        self.one.stop()
        self.two.stop()
        subprocess.run(["ip", "netns", "delete", self._namespace], check=True)


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    try:
        yield made
    finally:
        await made.close()


def by(peer: str, prefixes: Iterable[str]) -> dict[str, str]:
    return {prefix: V6_NEXT_HOP[peer] if ":" in prefix else peer for prefix in prefixes}


BOTH = v4(0, 3000) + v6(0, 500)
ONLY_TWO = v4(5000, 100) + v6(5000, 10)


async def start(rig: Rig, *, refresh: bool = True, **options: float) -> None:
    """Bring everything up: both announce `BOTH`, the second with a longer path, and it some more."""
    rig.one.announce(BOTH, refresh=refresh)
    rig.two.announce(BOTH + ONLY_TWO, prepend=2, refresh=refresh)
    await rig.start_agent(**options)
    rig.start_exabgp()
    await rig.until(lambda: rig.table.snapshots == 1)
    assert rig.table.held == by(ONE, BOTH) | by(TWO, ONLY_TWO)


async def test_best_routes_follow_what_the_peers_do(rig: Rig) -> None:
    await start(rig)
    first, second = rig.feed.candidates(ip_network("10.0.0.0/24"))
    assert (first.session.peer, first.used) == (ONE, True)
    assert second.session.peer == TWO
    assert second.reason == "AS path of 3 is longer than 1"

    rig.one.announce(BOTH[500:])
    await rig.until_held(by(ONE, BOTH[500:]) | by(TWO, BOTH[:500] + ONLY_TWO))
    rig.two.announce(BOTH[400:] + ONLY_TWO, prepend=2)
    await rig.until_held(by(ONE, BOTH[500:]) | by(TWO, BOTH[400:500] + ONLY_TWO))

    rig.one.control("disable", "speaker")
    await rig.until_held(by(TWO, BOTH[400:] + ONLY_TWO))
    rig.one.announce(BOTH[:300])
    rig.one.control("enable", "speaker")
    await rig.until_held(by(ONE, BOTH[:300]) | by(TWO, BOTH[400:] + ONLY_TWO))
    assert rig.feed.counts.malformed == {}
    assert rig.feed.overruns == 0


async def test_agent_that_starts_again_asks_for_the_tables(rig: Rig) -> None:
    await start(rig)
    await rig.stop_agent()
    rig.one.announce(BOTH[500:] + v4(9000, 7))
    rig.table.fewest = len(rig.table.held)
    await rig.start_agent()
    await rig.until(lambda: rig.table.snapshots == 2)
    assert rig.table.held == by(ONE, BOTH[500:] + v4(9000, 7)) | by(TWO, BOTH[:500] + ONLY_TWO)
    assert rig.table.fewest >= len(BOTH) + len(ONLY_TWO)
    assert rig.feed.counts.refreshes == 4
    assert rig.feed.counts.errors == 0
    assert rig.feed.counts.malformed == {}


async def test_peers_without_refresh_are_reset_and_nothing_is_dropped(rig: Rig) -> None:
    await start(rig, refresh=False)
    await rig.stop_agent()
    rig.one.announce(BOTH[500:], refresh=False)
    rig.table.fewest = len(rig.table.held)
    await rig.start_agent()
    await rig.until(lambda: rig.table.snapshots == 2)
    assert rig.feed.counts.resets == 2
    assert rig.table.held == by(ONE, BOTH[500:]) | by(TWO, BOTH[:500] + ONLY_TWO)
    assert rig.table.fewest == len(BOTH) + len(ONLY_TWO)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_restart_of_exabgp_drops_nothing(rig: Rig, number: signal.Signals) -> None:
    await start(rig)
    rig.table.fewest = len(rig.table.held)
    rig.stop_exabgp(number)
    await rig.until(lambda: not rig.feed.connected)
    assert rig.table.fewest == len(BOTH) + len(ONLY_TWO)
    rig.one.announce(BOTH[500:])
    rig.two.announce(ONLY_TWO)
    rig.start_exabgp()
    await rig.until_held(by(ONE, BOTH[500:]) | by(TWO, ONLY_TWO))
    assert rig.feed.counts.connections == 2


async def test_routes_go_when_exabgp_stays_away(rig: Rig) -> None:
    await start(rig, hold_seconds=1.0)
    rig.stop_exabgp()
    await rig.until_held({})


async def test_agent_that_was_too_slow_has_everything_again(rig: Rig) -> None:
    rig.one.announce(v4(0, 1))
    rig.two.announce(v4(0, 1), prepend=2)
    await rig.start_agent()
    rig.start_exabgp("--buffer", "1")
    await rig.until(lambda: rig.table.snapshots == 1)
    many = v4(0, 65_536)
    async with rig.feed._turn:  # the agent works on something and does not read
        rig.one.announce(many)
        await rig.until(rig_log_has(rig, "bytes unread"))
    await rig.until_held(by(ONE, many))
    assert rig.feed.overruns >= 1
    assert rig.feed.counts.resets == 0
    assert rig.feed.counts.malformed == {}


def rig_log_has(rig: Rig, text: str) -> Callable[[], bool]:
    return lambda: text in (rig._directory / "exabgp.log").read_text()


async def test_relay_that_died_is_started_again(rig: Rig) -> None:
    await start(rig)
    rig.table.fewest = len(rig.table.held)
    os.kill(rig.relay_pid(), signal.SIGKILL)
    await rig.until(lambda: rig.feed.counts.connections == 2)
    rig.one.announce(BOTH[500:])
    await rig.until_held(by(ONE, BOTH[500:]) | by(TWO, BOTH[:500] + ONLY_TWO))
    assert rig.table.fewest == len(BOTH) + len(ONLY_TWO)
