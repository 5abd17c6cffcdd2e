"""The looking glass's answers: what it shows, what it costs, and that nothing can be changed by it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from looking_glass import explanation, lost_pipeline, pipeline
from router_agent.config import ControlConfig
from router_agent.control import ControlServer
from router_agent.host_reader.server import HostReader
from router_agent.host_reader.server import serving as reading
from router_agent.listening import UnixListener
from router_agent.observe.answers import (
    Audit,
    AuditRequest,
    Counters,
    ExplainRequest,
    Explanation,
    ForwarderCounters,
    InterfaceCounters,
    NeighbourRow,
    Resync,
    ResyncRequest,
    RouteFilter,
    RouteRow,
    Status,
)
from router_agent.web import glass, sampler
from router_agent.web.config import WebConfig
from router_agent.web.glass import PrefixError, prefix_of
from router_agent.web.server import HEADERS, Server

ROUTES = (
    "/",
    "/explain",
    "/explain?prefix=192.0.2.0/24",
    "/live",
    "/api/v1/state",
    "/api/v1/history",
    "/api/v1/explain?prefix=192.0.2.0/24",
    "/metrics",
    "/nothing",
)
METHODS = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "SETTHIS")


@dataclass
class Router:
    """An agent whose answers a test chooses, and who notes what it is asked."""

    asked: list[str] = field(default_factory=list)
    status_answer: Status = field(
        default_factory=lambda: Status(
            version="9.9", pid=7, uptime_seconds=60, rss_bytes=300, pipelines=(pipeline(),)
        )
    )
    packets: int = 0

    def status(self) -> Status:
        self.asked.append("status")
        return self.status_answer

    async def counters(self) -> Counters:
        self.asked.append("counters")
        self.packets += 1_000
        port = InterfaceCounters(name="eth/0", rx_packets=self.packets, rx_bytes=100 * self.packets)
        return Counters(forwarders=(ForwarderCounters(pipelines=("frr",), interfaces=(port,)),))

    async def routes(self, wanted: RouteFilter) -> AsyncIterator[RouteRow]:
        self.asked.append("routes")
        for row in list[RouteRow]():
            yield row

    def neighbours(self) -> Sequence[NeighbourRow]:
        return []

    async def audit(self, wanted: AuditRequest) -> Audit:
        self.asked.append("audit")
        return Audit(pipelines=())

    async def explain(self, wanted: ExplainRequest) -> Explanation:
        self.asked.append(f"explain {wanted.prefix}")
        return explanation()

    async def resync(self, wanted: ResyncRequest) -> Resync:
        self.asked.append("resync")
        return Resync(pipelines=())


@dataclass
class Site:
    """A running server with everything behind it."""

    base: str
    router: Router
    client: aiohttp.ClientSession
    control: ControlServer

    async def get(self, path: str, status: int = 200, **options: Any) -> str:
        async with self.client.get(self.base + path, **options) as answer:
            text = await answer.text()
            assert answer.status == status, text
            return text

    async def json(self, path: str) -> Any:
        return json.loads(await self.get(path))


@asynccontextmanager
async def running(tmp_path: Path, *, host: bool = True) -> AsyncIterator[Site]:
    router = Router()
    config = ControlConfig(socket=tmp_path / "control.sock", readers_socket=tmp_path / "readers.sock")
    listener = socket.create_server(("127.0.0.1", 0))
    reader = HostReader([])
    async with AsyncExitStack() as stack:
        control = ControlServer(config=config, handlers=router)
        await stack.enter_async_context(control)
        settings = WebConfig(
            control_socket=tmp_path / "readers.sock",
            host_socket=tmp_path / "host.sock" if host else None,
            drained_mark=tmp_path / "drained",
            router="ams1-r1",
        )
        if host:
            door = UnixListener(tmp_path / "host.sock", mode=0o660, group=None, key="--socket")
            await stack.enter_async_context(reading(door, reader))
        server = await stack.enter_async_context(Server(settings, listener))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        base = f"http://127.0.0.1:{server.address[1]}"
        yield Site(base=base, router=router, client=client, control=control)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path) as found:
        yield found


async def test_the_page_and_the_same_for_programs(site: Site) -> None:
    page = await site.get("/")
    assert "<h1>ams1-r1</h1>" in page
    assert "1,055,511" in page
    state = await site.json("/api/v1/state")
    assert (state["schema"], state["router"]) == ("router-agent/looking-glass/1", "ams1-r1")
    assert state["pipelines"][0]["counts"][0]["desired"] == 1_055_514
    assert state["agent"]["up"] is True
    history = await site.json("/api/v1/history")
    assert history["schema"] == "router-agent/looking-glass-history/1"
    assert history["columns"]["fib/frr/IPv4"][-1] == 1_055_511


async def test_answers_are_for_nobody_else(site: Site) -> None:
    for path in ("/", "/live", "/api/v1/state"):
        async with site.client.get(site.base + path) as answer:
            for name in HEADERS:
                assert name in answer.headers
            assert answer.headers["Cache-Control"] == "no-store"
            assert "unsafe" not in answer.headers["Content-Security-Policy"]
    async with site.client.get(site.base + "/", headers={"Host": "evil.example"}) as answer:
        assert answer.status == 421
        assert "ams1-r1" not in await answer.text()


@pytest.mark.parametrize("path", ROUTES)
async def test_no_method_changes_anything(site: Site, path: str) -> None:
    await site.get("/api/v1/state")
    site.router.asked.clear()
    for method in METHODS:
        async with site.client.request(method, site.base + path, data=b'{"command": "resync"}') as answer:
            assert answer.status in (400, 405), method
            assert answer.status == 400 or answer.headers["Allow"] == "GET,HEAD"
    for method in ("GET", "HEAD"):
        async with site.client.request(method, site.base + path) as answer:
            assert answer.status == (404 if path == "/nothing" else 400 if path == "/explain" else 200)
    known = {"status", "counters", "explain 192.0.2.0/24"}
    assert set(site.router.asked) <= known


async def test_what_has_changed_and_only_that(site: Site) -> None:
    first = await site.json("/live")
    assert first["history"]["whole"] is True
    assert "1,055,511" in first["parts"]["tables"]
    site.router.status_answer = site.router.status_answer.model_copy(update={"pipelines": (lost_pipeline(),)})

    async def changed() -> Any:
        while True:
            found = await site.json(f"/live?after={first['history']['cursor']}")
            if found["history"]["at"]:
                return found
            await asyncio.sleep(0.05)

    second = await asyncio.wait_for(changed(), 30)
    assert second["history"]["whole"] is False
    assert min(second["history"]["at"]) > max(first["history"]["at"])
    assert "FIB lost" in second["parts"]["now"]
    assert second["title"] == "FIB lost: ams1-r1"
    assert second["history"]["columns"]["fib/frr/IPv4"][-1] is None
    assert second["history"]["columns"]["port/eth/0/in/packets"][-1] > 0


async def test_many_who_look_cost_the_agent_what_one_does(site: Site) -> None:
    await site.get("/")
    site.router.asked.clear()
    await asyncio.gather(*(site.get("/live") for _ in range(30)))
    assert site.router.asked.count("status") <= 2


async def test_too_many_are_told_to_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glass, "LOOKS_PER_SECOND", 0.0)
    async with running(tmp_path) as site:
        for _ in range(glass.LOOKS_AT_ONCE):
            await site.get("/live")
        for path in ("/", "/live", "/explain?prefix=10.0.0.0/8", "/api/v1/state", "/api/v1/history"):
            async with site.client.get(site.base + path) as answer:
                assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
        await site.get("/metrics")


async def test_explaining_is_let_through_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(glass, "EXPLANATIONS_PER_SECOND", 0.0)
    async with running(tmp_path) as site:
        for number in range(glass.EXPLANATIONS_AT_ONCE):
            await site.get(f"/api/v1/explain?prefix=10.0.{number}.0/24")
        await site.get("/api/v1/explain?prefix=10.9.0.0/24", status=429)
        page = await site.get("/explain?prefix=10.9.0.0/24", status=429)
        assert "Too many prefixes were asked for" in page
        asked = [command for command in site.router.asked if command.startswith("explain")]
        assert len(asked) == glass.EXPLANATIONS_AT_ONCE


async def test_the_way_of_a_prefix(site: Site) -> None:
    found = await site.json("/api/v1/explain?prefix=192.0.2.0/24")
    assert found["pipelines"][0]["verdict"].startswith("breaks at entry")
    page = await site.get("/explain?prefix=192.0.2.0/24")
    assert "Not forwarded: breaks at entry" in page
    assert 'value="192.0.2.0/24"' in page


@pytest.mark.parametrize(
    "typed", ["", "x", "192.0.2.1/24", "10.0.0.0/33", "fe80::1%eth0", "<script>", "1" * 70, "a/b", "é"]
)
async def test_what_is_no_prefix_reaches_nobody(site: Site, typed: str) -> None:
    with pytest.raises(PrefixError, match="expected a prefix such as"):
        prefix_of(typed)
    for path in ("/explain", "/api/v1/explain"):
        text = await site.get(path, status=400, params={"prefix": typed})
        assert "expected a prefix such as" in text
        assert "<script>" not in text or path == "/api/v1/explain"
    assert not [command for command in site.router.asked if command.startswith("explain")]


async def test_an_agent_that_goes_and_comes_back(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler, "WATCHED_SECONDS", 0.05)

    async def until(word: str) -> dict[str, Any]:
        while True:
            state = await site.json("/api/v1/state")
            if state["verdict"]["word"] == word:
                return dict(state)
            await asyncio.sleep(0.1)

    before = await asyncio.wait_for(until("Routes missing"), 30)
    await site.control.close()
    down = await asyncio.wait_for(until("Agent down"), 30)
    assert down["agent"]["heard"] >= before["agent"]["heard"]
    assert down["pipelines"] == before["pipelines"]
    assert "has not answered since" in down["verdict"]["what"]
    await site.control.start()
    await asyncio.wait_for(until("Routes missing"), 30)


async def test_a_drained_router_says_so(tmp_path: Path) -> None:
    async with running(tmp_path) as site:
        (tmp_path / "drained").write_text(
            json.dumps(
                {
                    "schema": "router-agent/drained/1",
                    "since": "2026-01-02T03:04:05Z",
                    "reason": "new <optics>",
                    "by": "root",
                    "keep": False,
                }
            )
        )
        assert "Drained</strong> since 2026-01-02 03:04:05 by root: new &lt;optics&gt;" in await site.get("/")
        (tmp_path / "drained").write_text("{")
    async with running(tmp_path) as site:
        assert "Drained</strong>: " in (page := await site.get("/"))
        assert "found what is no mark" in page
    (tmp_path / "drained").unlink()
    (tmp_path / "drained").mkdir()
    async with running(tmp_path) as site:
        page = await site.get("/")
        assert "Whether the router is drained is not known" in page
        assert "Drained</strong>" not in page


async def test_without_a_reader_of_the_host_the_page_says_what_is_not_known(tmp_path: Path) -> None:
    async with running(tmp_path, host=False) as site:
        alone = pipeline().model_copy(update={"sessions": ()})
        site.router.status_answer = site.router.status_answer.model_copy(update={"pipelines": (alone,)})
        assert "Nobody on this router is set up to be asked for BGP sessions." in await site.get("/")
        (found,) = (await site.json("/api/v1/explain?prefix=192.0.2.0/24"))["pipelines"]
        assert [step["stage"] for step in found["steps"]][:3] == ["bgp", "zebra", "kernel"]
        assert not any(step["known"] for step in found["steps"][:3])


async def test_nobody_watches_and_the_agent_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "WATCH_LASTS_SECONDS", 0.0)
    async with running(tmp_path) as site:
        await site.get("/")
        site.router.asked.clear()
        await asyncio.sleep(2 * sampler.WATCHED_SECONDS + 0.5)
        assert site.router.asked.count("status") <= 1
