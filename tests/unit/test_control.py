"""The control socket: every answer arrives whole, and no client can hurt the agent."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from router_agent import control
from router_agent.config import ControlConfig
from router_agent.control import (
    CLIENTS,
    REQUEST_BYTES,
    ControlClient,
    ControlError,
    ControlServer,
    RefusedError,
    UnreachableError,
)
from router_agent.fibs.fib import FibError
from router_agent.model import Family, Reason
from router_agent.observe.answers import (
    Audit,
    AuditRequest,
    AuditStatus,
    Counters,
    ErrorKind,
    ExplainRequest,
    Explanation,
    FamilyCounts,
    InFib,
    Match,
    NeighbourRow,
    PipelineAudit,
    PipelineExplanation,
    PipelineStatus,
    Resync,
    ResyncRequest,
    RouteFilter,
    RouteRow,
    State,
    Status,
)

STATUS = Status(
    version="1",
    pid=7,
    uptime_seconds=1.5,
    rss_bytes=2,
    pipelines=(
        PipelineStatus(
            name="frr",
            feed="kernel",
            fib="vpp",
            state=State.IN_SYNC,
            counts=(
                FamilyCounts(
                    family=Family.IPV6,
                    desired=3,
                    in_fib=1,
                    not_in_fib={Reason.REJECTED: 1, Reason.OVER_CAPACITY: 1},
                ),
            ),
        ),
    ),
)
NEIGHBOUR = NeighbourRow(pipeline="frr", interface="eth0", address="192.0.2.1", mac="02:00:00:00:00:01")


def route(number: int) -> RouteRow:
    prefix = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}/32"
    paths = ("via 192.0.2.1 dev eth0",)
    return RouteRow(
        pipeline="frr", prefix=prefix, table=254, metric=20, paths=paths, in_fib=InFib.YES, fib_table=0
    )


AUDIT = Audit(
    pipelines=(
        PipelineAudit(
            pipeline="frr",
            status=AuditStatus(action="repair", rate=5_000, passes=1, checked=9),
            found={Reason.STALE: 1},
        ),
    )
)


class Agent:
    """Answers what it was made with, and notes what it was asked."""

    def __init__(self, *, routes: int = 3) -> None:
        self.count = routes
        self.asked: list[Any] = []
        self.yielded = 0
        self.stopped = asyncio.Event()
        self.go_on = asyncio.Event()

    def status(self) -> Status:
        return STATUS

    async def counters(self) -> Counters:
        return Counters()

    async def routes(self, wanted: RouteFilter) -> AsyncIterator[RouteRow]:
        self.asked.append(wanted)
        try:
            for number in range(min(self.count, wanted.limit or self.count)):
                self.yielded += 1
                yield route(number)
        finally:
            self.stopped.set()

    def neighbours(self) -> Sequence[NeighbourRow]:
        return [NEIGHBOUR]

    async def audit(self, wanted: AuditRequest) -> Audit:
        self.asked.append(wanted)
        await self.go_on.wait()
        return AUDIT

    async def explain(self, wanted: ExplainRequest) -> Explanation:
        verdict = PipelineExplanation(
            pipeline="frr", table=254, match=Match.NONE, forwards=False, verdict="unknown"
        )
        return Explanation(asked=str(wanted.prefix), pipelines=(verdict,))

    async def resync(self, wanted: ResyncRequest) -> Resync:
        self.asked.append(wanted)
        return Resync(pipelines=("frr",), in_sync=wanted.wait or None)


@pytest.fixture
def config(tmp_path: Path) -> ControlConfig:
    return ControlConfig(socket=tmp_path / "control.sock")


@contextmanager
def serving(config: ControlConfig, agent: Agent) -> Iterator[ControlServer]:
    """Run a server in a thread of its own, for clients that block."""
    loop = asyncio.new_event_loop()
    server = ControlServer(config=config, handlers=agent)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def converse(path: Path, sent: bytes) -> list[Any]:
    """Send bytes, then the end, and return the lines that come back."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    with suppress(ConnectionError):
        writer.write(sent)
        writer.write_eof()
        await writer.drain()
    answer = await reader.read()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return [json.loads(line) for line in answer.splitlines()]


def request(command: str, **arguments: object) -> bytes:
    return json.dumps({"command": command, "arguments": arguments}).encode() + b"\n"


def test_client_gets_every_answer_as_the_agent_gave_it(config: ControlConfig) -> None:
    agent = Agent()
    agent.go_on.set()
    with serving(config, agent):
        client = ControlClient(config.socket)
        assert client.status() == STATUS
        assert list(client.routes()) == [route(0), route(1), route(2)]
        assert list(client.neighbours()) == [NEIGHBOUR]
        assert client.audit().total == 1
        assert client.audit(AuditRequest(now=True)) == AUDIT
        assert client.explain("192.0.2.7").asked == "192.0.2.7/32"
        assert client.resync() == Resync(pipelines=("frr",), in_sync=None)
        assert client.resync(wait=True, timeout_seconds=9).in_sync
    assert agent.asked == [
        RouteFilter(),
        AuditRequest(),
        AuditRequest(now=True),
        ResyncRequest(),
        ResyncRequest(wait=True, timeout_seconds=9),
    ]


def test_filter_arrives_whole(config: ControlConfig) -> None:
    agent = Agent()
    wanted = RouteFilter.model_validate(
        {"prefix": "2001:db8::/32", "table": 7, "pipeline": "frr", "absent": True, "limit": 2}
    )
    with serving(config, agent):
        assert len(list(ControlClient(config.socket).routes(wanted))) == 2
    assert agent.asked == [wanted]


def test_many_rows_arrive_in_order(config: ControlConfig) -> None:
    with serving(config, Agent(routes=20_000)):
        rows = ControlClient(config.socket).rows("routes")
        assert [row["prefix"] for row in rows] == [route(number).prefix for number in range(20_000)]


def test_client_that_stops_listening_ends_the_answer(config: ControlConfig) -> None:
    agent = Agent(routes=10_000_000)
    with serving(config, agent):
        rows = ControlClient(config.socket).rows("routes")
        assert isinstance(rows, Iterator)
        next(rows)
        rows.close()  # type: ignore[attr-defined]
        assert ControlClient(config.socket).status() == STATUS
    assert agent.stopped.is_set()
    assert agent.yielded < agent.count


async def test_client_that_does_not_read_holds_a_bounded_answer_and_is_cut_off(
    config: ControlConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "WRITE_SECONDS", 0.2)
    agent = Agent(routes=10_000_000)
    async with ControlServer(config=config, handlers=agent):
        reader, writer = await asyncio.open_unix_connection(str(config.socket), limit=1024)
        writer.write(request("routes"))
        await writer.drain()
        await asyncio.wait_for(agent.stopped.wait(), 20)
        assert (await converse(config.socket, request("status")))[-1] == {"end": True, "rows": 1}
        writer.close()
    assert agent.yielded * len(route(0).model_dump_json()) < 4 << 20
    assert not reader.at_eof()


async def test_requests_of_one_connection_are_answered_in_order(config: ControlConfig) -> None:
    async with ControlServer(config=config, handlers=Agent()):
        answer = await converse(config.socket, request("neighbours") + b"\n" + request("routes", limit=1))
    row = json.loads(route(0).model_dump_json())
    end = {"end": True, "rows": 1}
    assert answer == [{"row": json.loads(NEIGHBOUR.model_dump_json())}, end, {"row": row}, end]


async def test_last_line_may_lack_its_newline(config: ControlConfig) -> None:
    async with ControlServer(config=config, handlers=Agent()):
        answer = await converse(config.socket, b'{"command": "status"}')
    assert answer[-1] == {"end": True, "rows": 1}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(b"status", "Invalid JSON", id="no-json"),
        pytest.param(b"[]", "expected one line of JSON such as", id="list"),
        pytest.param(b'{"command": 5}', "command: Input should be a valid string", id="number"),
        pytest.param(
            b'{"command": "stop"}',
            "found command 'stop', expected one of status, counters, routes",
            id="unknown",
        ),
        pytest.param(b'{"command": "status", "x": 1}', "x: Extra inputs are not permitted", id="extra"),
        pytest.param(
            b'{"command": "status", "arguments": {"x": 1}}', "status: x: Extra inputs", id="no-argument"
        ),
        pytest.param(b'{"command": "routes", "arguments": {"limit": 0}}', "routes: limit: Input", id="limit"),
        pytest.param(
            b'{"command": "routes", "arguments": {"prefix": "10.0.0.1/8"}}', "host bits set", id="host-bits"
        ),
        pytest.param(
            b'{"command": "explain", "arguments": {}}', "explain: prefix: Field required", id="missing"
        ),
        pytest.param(b"[" * 9000, "recursion limit", id="deep"),
        pytest.param(b"\xff\xfe", "Invalid JSON", id="no-text"),
    ],
)
async def test_malformed_request_is_answered_and_the_next_one_too(
    config: ControlConfig, line: bytes, words: str
) -> None:
    async with ControlServer(config=config, handlers=Agent()):
        error, *rest = await converse(config.socket, line + b"\n" + request("status"))
    assert error["error"]["kind"] == "bad-request"
    assert words in error["error"]["message"]
    assert rest[-1] == {"end": True, "rows": 1}


async def test_oversized_request_is_refused_and_the_connection_closed(config: ControlConfig) -> None:
    async with ControlServer(config=config, handlers=Agent()):
        answer = await converse(config.socket, b"x" * (REQUEST_BYTES + 1) + b"\n" + request("status"))
        assert answer[0]["error"]["kind"] == "bad-request"
        assert f"more than {REQUEST_BYTES} bytes" in answer[0]["error"]["message"]
        assert len(answer) == 1
        assert len(await converse(config.socket, request("status"))) == 2


async def test_too_many_clients_are_told_so(config: ControlConfig) -> None:
    async with ControlServer(config=config, handlers=Agent()):
        first = [await asyncio.open_unix_connection(str(config.socket)) for _ in range(CLIENTS)]
        client = ControlClient(config.socket)
        with pytest.raises(RefusedError, match=f"{CLIENTS} clients are connected already") as refused:
            await asyncio.to_thread(client.status)
        assert refused.value.kind is ErrorKind.BUSY
        for _, writer in first:
            writer.close()
            await writer.wait_closed()
        while True:
            try:
                assert await asyncio.to_thread(client.status) == STATUS
            except RefusedError:
                continue  # the server has not seen all of them leave yet
            break


async def test_silent_client_is_closed(config: ControlConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_SECONDS", 0.05)
    async with ControlServer(config=config, handlers=Agent()):
        reader, writer = await asyncio.open_unix_connection(str(config.socket))
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_answer_that_takes_too_long_is_given_up(
    config: ControlConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.05)
    async with ControlServer(config=config, handlers=Agent()):
        for _ in range(2):
            (error,) = await converse(config.socket, request("audit"))
            assert error["error"]["kind"] == "timeout"


async def test_one_audit_at_a_time(config: ControlConfig) -> None:
    agent = Agent()
    async with ControlServer(config=config, handlers=agent):
        answers = [asyncio.create_task(converse(config.socket, request("audit", now=True))) for _ in range(2)]
        refused, waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert refused.pop().result()[0]["error"]["kind"] == "busy"
        agent.go_on.set()
        assert (await waiting.pop())[0]["row"]["pipelines"][0]["found"] == {"stale": 1}


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (FibError("VPP is gone"), ErrorKind.UNAVAILABLE),
        (RefusedError(ErrorKind.BAD_REQUEST, "no pipeline 'x'"), ErrorKind.BAD_REQUEST),
        (ZeroDivisionError("oops"), ErrorKind.INTERNAL),
        (ConnectionResetError("not the client's"), ErrorKind.INTERNAL),
        (TimeoutError("not ours"), ErrorKind.INTERNAL),
    ],
)
def test_failing_handler_is_an_error_at_the_client(
    config: ControlConfig, monkeypatch: pytest.MonkeyPatch, raised: Exception, kind: ErrorKind
) -> None:
    agent = Agent()

    async def fail(wanted: ExplainRequest) -> Explanation:
        raise raised

    monkeypatch.setattr(agent, "explain", fail)
    with serving(config, agent):
        client = ControlClient(config.socket)
        with pytest.raises(RefusedError) as refused:
            client.explain("::/0")
        assert refused.value.kind is kind
        if kind is not ErrorKind.INTERNAL:
            assert str(refused.value) == str(raised)
        assert client.status() == STATUS


def test_error_after_rows_is_not_taken_for_the_end(
    config: ControlConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent()

    async def break_off(wanted: RouteFilter) -> AsyncIterator[RouteRow]:
        for number in range(5000):
            yield route(number)
        raise FibError("VPP is gone")

    monkeypatch.setattr(agent, "routes", break_off)
    with serving(config, agent), pytest.raises(RefusedError, match="VPP is gone"):
        list(ControlClient(config.socket).routes())


def test_no_agent_is_said_so(config: ControlConfig) -> None:
    with pytest.raises(UnreachableError, match="No such file"):
        ControlClient(config.socket).status()
    with serving(config, Agent()):
        pass
    with pytest.raises(UnreachableError, match="is the agent running"):
        ControlClient(config.socket).status()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(b"", UnreachableError, id="nothing"),
        pytest.param(b'{"row": {"a": 1}}\n', UnreachableError, id="cut-off"),
        pytest.param(b"hello\n", ControlError, id="no-json"),
        pytest.param(b'{"end": true, "rows": 0}\n', ControlError, id="no-row"),
        pytest.param(b'{"row": {"a": 1}}\n{"end": true, "rows": 1}\n', ControlError, id="other-shape"),
        pytest.param(b'{"error": {"kind": "new-kind", "message": "m"}}\n', RefusedError, id="unknown-kind"),
    ],
)
def test_client_does_not_believe_every_answer(tmp_path: Path, answer: bytes, error: type[Exception]) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def reply() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=reply)
        thread.start()
        with pytest.raises(error):
            ControlClient(path).status()
        thread.join()


async def test_socket_has_the_mode_and_group_that_were_asked_for(tmp_path: Path) -> None:
    config = ControlConfig(socket=tmp_path / "new" / "s", mode="0620", group=str(os.getgid()))
    async with ControlServer(config=config, handlers=Agent()):
        found = config.socket.stat()
        assert stat.S_IMODE(found.st_mode) == 0o620
        assert found.st_gid == os.getgid()
    assert not config.socket.exists()


async def test_unknown_group_is_named(tmp_path: Path) -> None:
    config = ControlConfig(socket=tmp_path / "s", group="no-such-group")
    with pytest.raises(ControlError, match="found no group 'no-such-group'"):
        await ControlServer(config=config, handlers=Agent()).start()
    await ControlServer(config=ControlConfig(socket=tmp_path / "s"), handlers=Agent()).start()


async def test_second_agent_is_refused_and_the_first_goes_on(config: ControlConfig) -> None:
    async with ControlServer(config=config, handlers=Agent()):
        with pytest.raises(ControlError, match=rf"another agent on it \(process {os.getpid()}\)"):
            await ControlServer(config=config, handlers=Agent()).start()
        assert len(await converse(config.socket, request("status"))) == 2


async def test_socket_of_a_dead_agent_is_replaced(config: ControlConfig) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(config.socket))
    async with ControlServer(config=config, handlers=Agent()):
        assert len(await converse(config.socket, request("status"))) == 2


async def test_socket_of_another_program_is_left_alone(config: ControlConfig) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(config.socket))
        other.listen()
        with pytest.raises(ControlError, match="a program listening"):
            await ControlServer(config=config, handlers=Agent()).start()
    assert config.socket.exists()


async def test_file_in_place_of_the_socket_is_left_alone(config: ControlConfig) -> None:
    config.socket.write_text("precious")
    with pytest.raises(ControlError, match="no socket"):
        await ControlServer(config=config, handlers=Agent()).start()
    assert config.socket.read_text() == "precious"


async def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    config = ControlConfig(socket=tmp_path / "a" / "b" / "s")
    with pytest.raises(ControlError, match="No such file or directory"):
        await ControlServer(config=config, handlers=Agent()).start()


async def test_closing_cuts_off_clients_that_wait_or_do_not_read(config: ControlConfig) -> None:
    server = ControlServer(config=config, handlers=Agent(routes=10_000_000))
    await server.start()
    for command in ("audit", "routes"):
        _, writer = await asyncio.open_unix_connection(str(config.socket))
        writer.write(request(command))
        await writer.drain()
    assert len(await converse(config.socket, request("status"))) == 2
    await asyncio.wait_for(server.close(), 20)
    await server.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=200).map(lambda b: b.replace(b"\n", b"")), max_size=5))
def test_any_bytes_are_answered(tmp_path: Path, lines: list[bytes]) -> None:
    check_answered(tmp_path, lines)


ARGUMENTS = st.dictionaries(
    st.sampled_from(["prefix", "table", "limit", "wait", "timeout_seconds", "x"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.lists(st.integers(), max_size=2),
    max_size=3,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.builds(
            lambda command, arguments: json.dumps({"command": command, "arguments": arguments}).encode(),
            st.sampled_from(["status", "routes", "neighbours", "explain", "resync", "other"]),
            ARGUMENTS,
        ),
        max_size=5,
    )
)
def test_any_arguments_are_answered(tmp_path: Path, lines: list[bytes]) -> None:
    check_answered(tmp_path, lines)


def check_answered(tmp_path: Path, lines: list[bytes]) -> None:
    """Each line that is not blank gets one end or one error, and the agent none the worse."""

    async def ask() -> list[Any]:
        config = ControlConfig(socket=tmp_path / "s")
        async with ControlServer(config=config, handlers=Agent()):
            answer = await converse(config.socket, b"".join(line + b"\n" for line in lines))
            assert len(await converse(config.socket, request("status"))) == 2
        return answer

    answer = asyncio.run(ask())
    ended = sum("end" in line or "error" in line for line in answer)
    assert ended == sum(bool(line.strip()) for line in lines)
    assert not any(line.get("error", {}).get("kind") == "internal" for line in answer)
