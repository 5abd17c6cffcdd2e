"""The web process: what it answers, whom, and what nobody can do to it. The agent is asked over a real
socket."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_metrics

from router_agent import systemd
from router_agent.config import ControlConfig
from router_agent.control import ControlServer
from router_agent.model import Family, Reason
from router_agent.observe.answers import (
    Audit,
    AuditRequest,
    BufferPool,
    Counters,
    ExplainRequest,
    Explanation,
    ForwarderCounters,
    InterfaceCounters,
    NeighbourRow,
    PipelineStatus,
    Resync,
    ResyncRequest,
    RouteFilter,
    RouteRow,
    State,
    Status,
    TableCounts,
)
from router_agent.web import server
from router_agent.web.agent import Agent
from router_agent.web.config import WebConfig, WebConfigError, parse
from router_agent.web.server import CONNECTIONS, HEADERS, LINE_BYTES, Server, ServingError, listening

COUNTS = TableCounts(
    family=Family.IPV4,
    table=254,
    fib_table=0,
    desired=5,
    in_fib=3,
    pending=1,
    not_in_fib={Reason.REJECTED: 1},
)
STATUS = Status(
    version="9.9",
    pid=7,
    uptime_seconds=60,
    rss_bytes=300,
    pipelines=(PipelineStatus(name="vpp", feed="kernel", fib="vpp", state=State.IN_SYNC, tables=(COUNTS,)),),
)
PORT = InterfaceCounters(name='odd"name\n', rx_packets=2**63, rx_bytes=1)
COUNTERS = Counters(
    forwarders=(
        ForwarderCounters(
            pipelines=("vpp",),
            version="26.06",
            interfaces=(PORT,),
            buffers=(BufferPool(name="default-numa-0", available=5, cached=1, used=2),),
        ),
    )
)


@dataclass
class Router:
    """An agent whose answers a test chooses."""

    asked: list[str] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None

    def __post_init__(self) -> None:
        self.hold.set()

    def status(self) -> Status:
        self.asked.append("status")
        if self.failure:
            raise self.failure
        return STATUS

    async def counters(self) -> Counters:
        self.asked.append("counters")
        await self.hold.wait()
        return COUNTERS

    async def routes(self, wanted: RouteFilter) -> AsyncIterator[RouteRow]:
        self.asked.append("routes")
        rows: tuple[RouteRow, ...] = ()
        for row in rows:
            yield row

    def neighbours(self) -> Sequence[NeighbourRow]:
        return []

    async def audit(self, wanted: AuditRequest) -> Audit:
        self.asked.append("audit")
        return Audit(pipelines=())

    async def explain(self, wanted: ExplainRequest) -> Explanation:
        self.asked.append(f"explain {wanted.prefix}")
        await self.hold.wait()
        return Explanation(asked=str(wanted.prefix), pipelines=())

    async def resync(self, wanted: ResyncRequest) -> Resync:
        self.asked.append("resync")
        return Resync(pipelines=())


@pytest.fixture
async def router(tmp_path: Path) -> AsyncIterator[Router]:
    """A router whose agent answers readers on readers.sock."""
    found = Router()
    config = ControlConfig(socket=tmp_path / "control.sock", readers_socket=tmp_path / "readers.sock")
    async with ControlServer(config=config, handlers=found):
        yield found


@asynccontextmanager
async def serving(tmp_path: Path, **config: Any) -> AsyncIterator[tuple[str, int]]:
    """A server on a free port of the loopback; yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    settings = WebConfig(
        control_socket=tmp_path / "readers.sock", drained_mark=tmp_path / "drained", **config
    )
    async with Server(settings, listener) as running:
        yield running.address


@asynccontextmanager
async def answered(
    address: tuple[str, int], path: str = "/metrics", method: str = "GET", **options: Any
) -> AsyncIterator[aiohttp.ClientResponse]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://{address[0]}:{address[1]}{path}", **options) as response,
    ):
        yield response


async def values_of(address: tuple[str, int]) -> dict[tuple[str, str], float]:
    """Return the metrics without labels and those of a pipeline, by name and further label values."""
    async with answered(address) as response:
        assert response.status == 200
        text = await response.text()
    return {
        (sample.name, ",".join(v for k, v in sample.labels.items() if k != "pipeline")): sample.value
        for family in parse_metrics(text)
        for sample in family.samples
    }


async def test_metrics_are_what_the_agent_says(router: Router, tmp_path: Path) -> None:
    async with serving(tmp_path) as address:
        found = await values_of(address)
    assert found["router_agent_up", ""] == 1
    assert found["router_agent_routes_wanted", "ipv4,main"] == 5
    assert found["router_agent_routes_in_fib", "ipv4,main"] == 3
    assert found["router_agent_routes_not_in_fib", "ipv4,rejected,main"] == 1
    assert found["router_agent_pipeline_state", "in-sync"] == 1
    assert sum(value for (name, _), value in found.items() if name == "router_agent_pipeline_state") == 1
    assert found["vpp_interface_receive_packets_total", PORT.name] == 2**63
    assert found["vpp_buffers", "default-numa-0,used"] == 2


async def test_an_agent_that_is_away_is_a_figure_and_no_error(tmp_path: Path) -> None:
    async with serving(tmp_path) as address:
        found = await values_of(address)
    assert found["router_agent_up", ""] == 0
    assert {name for name, _ in found} == {
        "router_agent_up",
        "router_agent_web_build_info",
        "router_agent_drained",
    }


@pytest.mark.parametrize(
    ("mark", "expected"),
    [
        (None, (0, 0, None)),
        ({"since": "2026-01-02T03:04:05Z", "by": "an operator", "reason": ""}, (1, 0, 1767323045)),
        ({"since": "2026-01-02T03:04:05Z", "by": "fail-safe"}, (0, 1, 1767323045)),
        ("no mark", (1, 0, None)),
    ],
)
async def test_a_drained_router_is_told_though_its_agent_is_away(
    tmp_path: Path, mark: object, expected: tuple[int, int, int | None]
) -> None:
    if mark is not None:
        (tmp_path / "drained").write_text(json.dumps(mark))
    async with serving(tmp_path) as address:
        found = await values_of(address)
    since = found.get(("router_agent_drained_since_timestamp_seconds", ""))
    drained = (found["router_agent_drained", "operator"], found["router_agent_drained", "fail-safe"])
    assert (*drained, since) == expected


async def test_an_agent_that_fails_or_hangs_is_away(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    router.failure = ValueError("a secret of the agent's")
    agent = Agent(tmp_path / "readers.sock", answer_seconds=0.2)
    heard = await agent.status()
    assert heard.row is None
    assert "the agent failed to answer" in (heard.problem or "")
    router.hold.clear()
    assert "no answer of the agent within 0.2 s" in str((await agent.counters()).problem)
    await agent.close()


async def test_many_viewers_cost_the_agent_what_one_does(router: Router, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "readers.sock", shared_seconds=60)
    router.hold.clear()
    viewers = [asyncio.create_task(agent.counters()) for _ in range(10)]
    await asyncio.sleep(0)
    viewers[0].cancel()
    router.hold.set()
    heard = await asyncio.gather(*viewers[1:])
    assert [answer.row for answer in heard] == [COUNTERS] * 9
    assert (await agent.counters()).row == COUNTERS
    assert router.asked == ["counters"]
    await agent.close()


async def test_an_answer_is_shared_for_a_while_only(router: Router, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "readers.sock", shared_seconds=0)
    for _ in range(3):
        assert (await agent.counters()).row == COUNTERS
    assert router.asked == ["counters"] * 3
    await agent.close()


async def test_questions_that_pile_up_are_not_put(router: Router, tmp_path: Path) -> None:
    agent = Agent(tmp_path / "readers.sock")
    router.hold.clear()
    asking = [
        asyncio.create_task(agent.explain(ExplainRequest.model_validate({"prefix": f"192.0.2.{n}"})))
        for n in range(100)
    ]
    refused = [task for task in asking if (await _settled(task))]
    assert len(refused) == 100 - 32
    assert all("wait for the agent already" in str(task.result().problem) for task in refused)
    router.hold.set()
    answers = await asyncio.gather(*asking)
    assert sum(answer.row is not None for answer in answers) == 32
    await agent.close()


async def _settled(task: asyncio.Task[Any]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return task.done()


async def test_open_metrics_are_given_to_who_asks_for_them(router: Router, tmp_path: Path) -> None:
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"}
    async with serving(tmp_path) as address, answered(address, headers=accept) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        text = await response.text()
    names = {family.name for family in parse_open_metrics(text)}  # type: ignore[no-untyped-call]
    assert {"router_agent_up", "vpp_interface_receive_packets"} <= names


@pytest.mark.parametrize("path", ["/metrics", "/nothing-here"])
async def test_every_answer_carries_the_headers(router: Router, tmp_path: Path, path: str) -> None:
    async with serving(tmp_path) as address, answered(address, path) as response:
        assert {name: response.headers[name] for name in HEADERS} == HEADERS
        assert response.status == (200 if path == "/metrics" else 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_nothing_can_be_changed(router: Router, tmp_path: Path, method: str) -> None:
    async with serving(tmp_path) as address, answered(address, method=method, data=b"x" * 10) as response:
        assert response.status == 405
        assert response.headers["Allow"] == "GET,HEAD"
    assert set(router.asked) <= {"status", "counters"}, "the page's own look at the router"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:9101", 200),
        ("[::1]:80", 200),
        ("localhost:8080", 200),
        ("LOCALHOST", 200),
        ("ams1-r1", 200),
        ("AMS1-R1:9101", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example:9101", 421),
        ("ams1-r2", 421),
        ("", 421),
        ("[evil", 421),
    ],
)
async def test_only_our_own_names_are_answered(
    router: Router, tmp_path: Path, host: str, status: int
) -> None:
    async with (
        serving(tmp_path, hosts=["ams1-r1"]) as address,
        answered(address, headers={"Host": host}) as response,
    ):
        assert response.status == status


async def test_only_clients_are_answered_on_other_addresses(router: Router, tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    config = WebConfig.model_validate(
        {"listen": "192.0.2.1", "clients": ["192.0.2.7", "198.51.100.0/24"], "control_socket": "/nowhere"}
    )
    async with Server(config, listener) as running, answered(running.address) as response:
        assert response.status == 403
        assert "127.0.0.1 is none of this server's clients" in await response.text()


async def conversation(address: tuple[str, int], sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00" * 20 + b"\r\n\r\n", b" 400 ", id="tls"),
        pytest.param(b"GET /" + b"a" * (LINE_BYTES + 100) + b" HTTP/1.1\r\n\r\n", b" 400 ", id="line"),
        pytest.param(
            b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (LINE_BYTES + 100) + b"\r\n\r\n",
            b" 400 ",
            id="field",
        ),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b" 4", id="hosts"),
    ],
)
async def test_what_is_no_request_is_refused(
    router: Router, tmp_path: Path, sent: bytes, status: bytes
) -> None:
    async with serving(tmp_path) as address:
        closing = sent.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") if b"Host" in sent else sent
        answer = await conversation(address, closing)
        assert status in answer.splitlines()[0]
        async with answered(address) as response:
            assert response.status == 200


async def test_a_connection_that_asks_nothing_is_ended(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.2)
    async with serving(tmp_path) as address:
        for sent in (b"", b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nA: "):
            assert await conversation_until_closed(address, sent) == b""


async def conversation_until_closed(address: tuple[str, int], sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    writer.write(sent)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


async def test_a_client_that_takes_no_answer_is_cut_off(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    async with serving(tmp_path) as address:
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        stuck.connect(address)
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        stuck.sendall(request * 400)
        poller = select.poll()
        poller.register(stuck, 0)  # tells of a reset without taking what was sent
        events = await asyncio.to_thread(poller.poll, 20_000)
        assert events[0][1] & select.POLLERR
        stuck.close()


async def test_connections_are_limited(router: Router, tmp_path: Path) -> None:
    async with serving(tmp_path) as address:
        held = [await asyncio.open_connection(*address) for _ in range(CONNECTIONS)]
        reader, writer = await asyncio.open_connection(*address)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        for _, one in held:
            one.close()
            await one.wait_closed()
        async with asyncio.timeout(20):
            while True:
                try:
                    async with answered(address) as response:
                        assert response.status == 200
                        break
                except aiohttp.ClientConnectionError:
                    continue  # the server has not seen all of them leave yet


async def test_a_mistake_in_a_page_tells_no_details(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a detail")

    monkeypatch.setattr("router_agent.web.metrics.page", fail)
    async with serving(tmp_path) as address, answered(address) as response:
        assert response.status == 500
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert "a detail" not in await response.text()
    assert "a detail" in caplog.text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("listen: 0.0.0.0", "expected listen to be one address, such as that of management; 0.0.0.0"),
        ("listen: '::'", "expected listen to be one address"),
        ("listen: 192.0.2.1", "expected clients beside listen 192.0.2.1"),
        ("clients: [192.0.2.0/24]", "expected no clients beside the loopback"),
        ("clients: [nobody]", "web.yaml:1: clients.0: found 'nobody', expected an IP address or network"),
        ("port: 0", "web.yaml:1: port: found 0, expected at least 1"),
        ("hosts: ['a b']", "web.yaml:1: hosts.0: found 'a b', expected a host name"),
        ("prot: 1", "web.yaml:1: prot: found an unknown key, expected one of listen, port"),
        ("log: {levl: info}", "web.yaml:1: log.levl: found an unknown key, expected one of level, json"),
        ("- 1", "expected a mapping"),
    ],
)
def test_a_configuration_says_what_is_wrong(text: str, problem: str) -> None:
    with pytest.raises(WebConfigError) as refused:
        parse(text.encode(), "web.yaml")
    assert any(problem in line for line in refused.value.problems), refused.value.problems


def test_an_empty_configuration_is_the_loopback() -> None:
    config = parse(b"")
    assert (str(config.address), config.port, config.clients) == ("127.0.0.1", 9101, ())


def test_an_exposed_configuration_names_address_and_clients() -> None:
    config = parse(b"{listen: 192.0.2.1, clients: [192.0.2.9, '198.51.100.0/24'], hosts: [Ams1-R1.example.]}")
    assert list(map(str, config.clients)) == ["192.0.2.9/32", "198.51.100.0/24"]
    assert config.hosts == ("ams1-r1.example",)


def test_an_address_that_cannot_be_had_is_said() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ServingError, match=r"cannot listen on 127.0.0.1 port \d+: Address already in use"),
    ):
        listening(WebConfig(port=taken.getsockname()[1]))


def test_the_socket_that_systemd_passes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        port = made.getsockname()[1]
        passed(monkeypatch, made.fileno())
        found = listening(WebConfig(port=port))
        assert found.getsockname() == ("127.0.0.1", port)
        assert not os.get_inheritable(found.fileno())
        found.detach()


def test_another_socket_of_systemd_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as made:
        duplicate = os.dup(made.fileno())
        passed(monkeypatch, duplicate)
        with pytest.raises(ServingError, match="make ListenStream= of the unit and the configuration agree"):
            listening(WebConfig(port=1))


def passed(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setattr(systemd, "_FIRST_PASSED", descriptor)
