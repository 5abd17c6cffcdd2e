"""Notifications as systemd would receive them."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from router_agent.systemd import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as the service manager's, and what NOTIFY_SOCKET would say."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(10)
        if request.param == "path":
            name = str(tmp_path / "notify")
            receiver.bind(name)
        else:
            name = f"@router-agent-{uuid.uuid4()}"
            receiver.bind(f"\0{name[1:]}")
        yield receiver, name


def test_messages_arrive_one_datagram_each(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())})
    notifier.ready()
    notifier.status("frr: in-sync\n1,184,002 routes")
    notifier.watchdog()
    notifier.reloading()
    notifier.stopping()
    received = [receiver.recv(4096).decode() for _ in range(5)]
    assert received[0] == "READY=1"
    assert received[1] == "STATUS=frr: in-sync 1,184,002 routes"
    assert received[2] == "WATCHDOG=1"
    assert received[3].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert received[3].rpartition("=")[2].isdecimal()
    assert received[4] == "STOPPING=1"
    assert notifier.watchdog_seconds == 3.0
    notifier.close()


def test_status_is_sent_when_it_changes(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name})
    for text in ("a", "a", "b" * 2000, "a"):
        notifier.status(text)
    notifier.stopping()
    received = [receiver.recv(4096).decode() for _ in range(4)]
    assert received == ["STATUS=a", "STATUS=" + "b" * 500, "STATUS=a", "STOPPING=1"]
    notifier.close()


def test_watchdog_is_silent_unless_systemd_watches_this_process(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    for environment in (
        {},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
    ):
        notifier = Notifier({"NOTIFY_SOCKET": name, **environment})
        assert notifier.watchdog_seconds is None
        notifier.watchdog()
        notifier.ready()
        assert receiver.recv(4096) == b"READY=1"
        notifier.close()


@pytest.mark.parametrize("name", ["", "vsock:2:1", "relative"])
def test_without_a_usable_socket_nothing_is_sent_and_nothing_fails(name: str) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "5"})
    notifier.ready()
    notifier.status("x")
    notifier.watchdog()
    notifier.close()


def test_manager_that_went_away_is_logged_once(
    manager: tuple[socket.socket, str], caplog: pytest.LogCaptureFixture
) -> None:
    receiver, name = manager
    receiver.close()
    notifier = Notifier({"NOTIFY_SOCKET": name})
    with caplog.at_level(logging.WARNING):
        notifier.ready()
        notifier.status("x")
    assert len(caplog.records) == 1
    assert "cannot notify systemd" in caplog.text
    notifier.close()


def test_full_queue_does_not_hold_up_the_watchdog(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"})
    for _ in range(10_000):
        notifier.watchdog()
    receiver.setblocking(False)
    received = 0
    try:
        while receiver.recv(64) == b"WATCHDOG=1":
            received += 1
    except BlockingIOError:
        pass
    assert 0 < received < 10_000
    notifier.close()
