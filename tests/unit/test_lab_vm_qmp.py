"""QEMU's machine protocol against a server that speaks it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router_agent.lab.vm.qmp import Qmp, QmpError

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}


@contextmanager
def server(
    path: Path, *answers: list[object], greeting: object = GREETING
) -> Iterator[list[dict[str, object]]]:
    """Greet, then answer each line with the next list of messages; the lines that came are yielded."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    received: list[dict[str, object]] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as file:
            file.write(json.dumps(greeting).encode() + b"\r\n")
            file.flush()
            for messages in answers:
                received.append(json.loads(file.readline()))
                for message in messages:
                    file.write(json.dumps(message).encode() + b"\r\n")
                file.flush()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield received
    finally:
        thread.join(10)
        listener.close()


def test_command_returns_what_comes_after_events(tmp_path: Path) -> None:
    answers = ({"event": "RESET", "data": {}}, {"return": {"status": "running"}})
    with (
        server(tmp_path / "q", [{"return": {}}], [*answers]) as received,
        Qmp(tmp_path / "q", seconds=5) as qmp,
    ):
        assert qmp.execute("query-status") == {"status": "running"}
    assert received == [{"execute": "qmp_capabilities"}, {"execute": "query-status"}]


def test_arguments_are_passed_on(tmp_path: Path) -> None:
    with (
        server(tmp_path / "q", [{"return": {}}], [{"return": {}}]) as received,
        Qmp(tmp_path / "q", seconds=5) as qmp,
    ):
        qmp.execute("set_link", {"name": "uplink", "up": False})
    assert received[1] == {"execute": "set_link", "arguments": {"name": "uplink", "up": False}}


def test_refused_command_says_why(tmp_path: Path) -> None:
    refusal = {"error": {"class": "GenericError", "desc": "no such snapshot"}}
    with (
        server(tmp_path / "q", [{"return": {}}], [refusal]),
        Qmp(tmp_path / "q", seconds=5) as qmp,
        pytest.raises(QmpError, match="QEMU refuses snapshot-load: no such snapshot"),
    ):
        qmp.execute("snapshot-load")


def test_connection_that_ends_is_an_error(tmp_path: Path) -> None:
    with (
        server(tmp_path / "q", [{"return": {}}]),
        Qmp(tmp_path / "q", seconds=5) as qmp,
        pytest.raises(QmpError, match=r"went away|closed the connection|no answer"),
    ):
        qmp.execute("query-status")


def test_something_else_at_the_socket_is_refused(tmp_path: Path) -> None:
    with (
        server(tmp_path / "q", greeting={"hello": 1}),
        pytest.raises(QmpError, match="expected QEMU's greeting"),
    ):
        Qmp(tmp_path / "q", seconds=5).__enter__()


def test_nobody_at_the_socket_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(QmpError, match="QEMU does not answer"):
        Qmp(tmp_path / "nothing", seconds=5).__enter__()
