"""The agent's second socket: whoever may use it can only look, and cannot cost much."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from router_agent import control
from router_agent.config import ConfigError, ControlConfig, parse
from router_agent.control import READERS, ControlError, ControlServer
from router_agent.observe.answers import (
    Audit,
    AuditRequest,
    Counters,
    ExplainRequest,
    Explanation,
    NeighbourRow,
    Resync,
    ResyncRequest,
    RouteFilter,
    RouteRow,
    Status,
)


class Agent:
    """Notes what it was asked; `status` takes as long as a test says, of the event loop."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.at_once = 0
        self.highest_at_once = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    def status(self) -> Status:
        self.asked.append("status")
        return Status(version="1", pid=1, uptime_seconds=1, rss_bytes=1, pipelines=())

    async def counters(self) -> Counters:
        self.asked.append("counters")
        self.at_once += 1
        self.highest_at_once = max(self.highest_at_once, self.at_once)
        try:
            await self.go_on.wait()
            await asyncio.sleep(0)
        finally:
            self.at_once -= 1
        return Counters()

    async def routes(self, wanted: RouteFilter) -> AsyncIterator[RouteRow]:
        self.asked.append("routes")
        rows: tuple[RouteRow, ...] = ()
        for row in rows:
            yield row

    def neighbours(self) -> Sequence[NeighbourRow]:
        self.asked.append("neighbours")
        return []

    async def audit(self, wanted: AuditRequest) -> Audit:
        self.asked.append("audit")
        return Audit(pipelines=())

    async def explain(self, wanted: ExplainRequest) -> Explanation:
        self.asked.append("explain")
        return Explanation(asked=str(wanted.prefix), pipelines=())

    async def resync(self, wanted: ResyncRequest) -> Resync:
        self.asked.append("resync")
        return Resync(pipelines=())


@pytest.fixture
def config(tmp_path: Path) -> ControlConfig:
    return ControlConfig(socket=tmp_path / "control.sock", readers_socket=tmp_path / "readers.sock")


async def ask(path: Path | None, command: str, **arguments: object) -> Any:
    """Return the last line of an answer."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(json.dumps({"command": command, "arguments": arguments}).encode() + b"\n")
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return json.loads(answer.splitlines()[-1])


LOOKING: list[tuple[str, dict[str, object]]] = [
    ("status", {}),
    ("counters", {}),
    ("neighbours", {}),
    ("audit", {}),
    ("explain", {"prefix": "192.0.2.0/24"}),
    ("routes", {"limit": 1000}),
    ("routes", {"limit": 1, "absent": True}),
]
DOING: list[tuple[str, dict[str, object]]] = [
    ("resync", {}),
    ("resync", {"wait": True}),
    ("audit", {"now": True}),
    ("audit", {"full": True}),
    ("routes", {}),
    ("routes", {"limit": 1001}),
]


@pytest.mark.parametrize(("command", "arguments"), LOOKING)
async def test_readers_may_look(config: ControlConfig, command: str, arguments: dict[str, object]) -> None:
    agent = Agent()
    async with ControlServer(config=config, handlers=agent):
        assert (await ask(config.readers_socket, command, **arguments))["end"] is True
    assert agent.asked == [command]


@pytest.mark.parametrize(("command", "arguments"), DOING)
async def test_readers_may_neither_change_anything_nor_cost_much(
    config: ControlConfig, command: str, arguments: dict[str, object]
) -> None:
    agent = Agent()
    async with ControlServer(config=config, handlers=agent):
        answer = await ask(config.readers_socket, command, **arguments)
        assert answer["error"]["kind"] == "forbidden"
        assert agent.asked == []
        assert (await ask(config.socket, command, **arguments))["end"] is True


async def test_every_command_was_decided_about() -> None:
    decided = {command for command, _ in LOOKING + DOING}
    assert decided == set(ControlServer.commands)


async def test_one_reader_is_answered_at_a_time_and_others_do_not_wait_for_them(
    config: ControlConfig,
) -> None:
    agent = Agent()
    agent.go_on.clear()
    async with ControlServer(config=config, handlers=agent):
        asking = [asyncio.create_task(ask(config.readers_socket, "counters")) for _ in range(READERS)]
        while not agent.at_once:
            await asyncio.sleep(0)
        operator = asyncio.create_task(ask(config.socket, "status"))
        assert (await operator)["end"] is True
        agent.go_on.set()
        assert all(answer["end"] for answer in await asyncio.gather(*asking))
    assert agent.highest_at_once == 1


async def test_readers_leave_the_agent_most_of_its_time(
    config: ControlConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest after an answer is what the answer took, times `READERS_PAUSE`; both on a clock of the
    test's."""
    clock, rests = [100.0], []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: clock[0])

    async def sleep(seconds: float) -> None:
        rests.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    turns = control._Turns()
    for took in (0.02, 0.5, 0.0):
        async with turns.turn():
            clock[0] += took
    assert rests == [0.0, pytest.approx(0.08), control.READERS_LONGEST_PAUSE]


async def test_too_many_readers_leave_the_operator_alone(config: ControlConfig) -> None:
    async with ControlServer(config=config, handlers=Agent()):
        held = [await asyncio.open_unix_connection(str(config.readers_socket)) for _ in range(READERS)]
        reader, writer = await asyncio.open_unix_connection(str(config.readers_socket))
        assert json.loads(await asyncio.wait_for(reader.readline(), 30))["error"]["kind"] == "busy"
        writer.close()
        assert (await ask(config.socket, "status"))["end"] is True
        for _, writer in held:
            writer.close()


async def test_both_sockets_go_with_the_agent(config: ControlConfig) -> None:
    assert config.readers_socket is not None
    async with ControlServer(config=config, handlers=Agent()):
        assert stat.S_IMODE(config.readers_socket.stat().st_mode) == 0o660
    assert not config.readers_socket.exists()
    assert not config.socket.exists()


async def test_a_readers_socket_that_cannot_be_had_leaves_none(config: ControlConfig) -> None:
    assert config.readers_socket is not None
    config.readers_socket.write_text("mine")
    server = ControlServer(config=config, handlers=Agent())
    with pytest.raises(ControlError, match=r"readers\.sock: found something that is no socket"):
        await server.start()
    assert not config.socket.exists()
    assert config.readers_socket.read_text() == "mine"


def test_the_two_sockets_are_two() -> None:
    pipelines = "pipelines: [{name: a, feed: {kind: kernel}, fib: {kind: vpp}}]"
    text = f"{pipelines}\ncontrol: {{socket: /a, readers_socket: /a}}\n"
    with pytest.raises(ConfigError, match=r"readers_socket: found /a, expected a socket of its own"):
        parse(text.encode())


NOBODY = "nobody"
PROGRAM = """
import json, socket, sys
answers = []
for path, command in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    try:
        connection.connect(path)
        connection.sendall(json.dumps({"command": command}).encode() + b"\\n")
        connection.shutdown(socket.SHUT_WR)
        answers.append(connection.makefile().readlines()[-1])
    except OSError as error:
        answers.append(type(error).__name__)
print(json.dumps(answers))
"""


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="readers-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_may_look_and_nothing_else(open_directory: Path) -> None:
    """The web process's user is in the group of the second socket and in no other."""
    group = pwd.getpwnam(NOBODY).pw_gid
    config = ControlConfig(
        socket=open_directory / "control.sock",
        readers_socket=open_directory / "readers.sock",
        readers_group=str(group),
    )
    agent = Agent()
    async with ControlServer(config=config, handlers=agent):
        control_socket, readers = str(config.socket), str(config.readers_socket)

        async def as_user(groups: int) -> list[str]:
            done = await asyncio.to_thread(
                subprocess.run,
                [
                    *("/usr/bin/python3", "-I", "-c", PROGRAM),  # ours may be where only root can go
                    *(readers, "status", readers, "resync", control_socket, "status"),
                ],
                user=NOBODY,
                group=groups,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            )
            answers: list[str] = json.loads(done.stdout)
            return answers

        looked, did, operators = await as_user(group)
        assert json.loads(looked) == {"end": True, "rows": 1}
        assert json.loads(did)["error"]["kind"] == "forbidden"
        assert operators == "PermissionError"
        assert await as_user(12_345) == ["PermissionError"] * 3
    assert agent.asked == ["status"]
