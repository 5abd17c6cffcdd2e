"""The reader of the host answers three questions; nothing but a prefix and a table number gets through it."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from router_agent.host_reader import server
from router_agent.host_reader.answers import Ports, PrefixRequest, PrefixSteps, Sessions
from router_agent.host_reader.server import CLIENTS, REQUEST_BYTES, HostReader, serving
from router_agent.host_reader.sessions import MOST_SESSIONS, sessions
from router_agent.listening import UnixListener
from router_agent.observe.answers import Stage

SUMMARY = json.loads((Path(__file__).parent / "data" / "frr-bgp-summary.json").read_text())
"""What FRR 8.4 answered to ``show bgp summary json``: an upstream that is up, neighbours that are not."""


def test_sessions_of_a_real_answer() -> None:
    found = sessions(SUMMARY, [{"peer": "198.18.1.2", "status": "up"}, {"peer": "203.0.113.1"}])
    assert (found.local_as, found.router_id, found.left_out) == (64500, "198.18.1.1", 0)
    rows = {(row.peer, row.family): row for row in found.rows}
    up = rows["198.18.1.2", "IPv4 unicast"]
    assert (up.established, up.state, up.remote_as, up.bfd) == (True, "Established", 64496, "up")
    assert (up.accepted, up.description) == (300, "upstream, IPv4")
    assert up.since_seconds is not None
    down = [row for row in found.rows if not row.established]
    assert {row.state for row in down} == {"Active", "Idle (Admin)"}
    assert all(row.since_seconds is None and row.bfd is None for row in down)


def test_of_very_many_sessions_so_many_are_kept() -> None:
    peers = {f"10.0.{n >> 8}.{n & 255}": {"state": "Active", "remoteAs": 1} for n in range(MOST_SESSIONS + 7)}
    found = sessions({"ipv4Unicast": {"peers": peers}}, [])
    assert (len(found.rows), found.left_out) == (MOST_SESSIONS, 7)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, json_values)
def test_whatever_frr_says_is_no_error(summary: Any, bfd: Any) -> None:
    peers = {"ipv4Unicast": {"peers": {"192.0.2.1": summary}, "as": summary, "routerId": bfd}}
    for said in (summary, peers):
        assert Sessions.model_validate_json(sessions(said, bfd).model_dump_json())


VTYSH = """\
#!/bin/sh
printf '%s\\n' "$*" >> {log}
case "$*" in
  "-c show bgp summary json") cat {summary} ;;
  "-c show bfd peers json") echo "bfdd is not running"; exit 1 ;;
  "-c show bgp "*) echo '{{}}' ;;
  "-c show ip"*) echo '{{}}' ;;
  *) echo "unexpected: $*" >&2; exit 1 ;;
esac
"""
"""A vtysh that writes down what it is asked: what gets through to FRR is what is tested here."""


class Asked:
    """A running reader, and what its vtysh was asked."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "reader.sock"
        self.log = directory / "asked"

    @property
    def commands(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    async def say(self, *lines: bytes) -> list[Any]:
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        writer.write(b"".join(lines))
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return [json.loads(line) for line in answer.splitlines()]

    async def ask(self, command: str, **arguments: Any) -> Any:
        request = {"command": command, "arguments": arguments}
        found = await self.say(json.dumps(request).encode() + b"\n")
        return found[0]


@asynccontextmanager
async def reading(directory: Path) -> AsyncIterator[Asked]:
    asked = Asked(directory)
    summary = directory / "summary.json"
    summary.write_text(json.dumps(SUMMARY))
    vtysh = directory / "vtysh"
    vtysh.write_text(VTYSH.format(log=asked.log, summary=summary))
    vtysh.chmod(0o755)
    listener = UnixListener(asked.socket, mode=0o660, group=None, key="--socket")
    async with serving(listener, HostReader([str(vtysh)])):
        yield asked


@pytest.fixture
async def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Asked]:
    monkeypatch.setattr(server, "PAUSE_SECONDS", 0.0)
    async with reading(tmp_path) as running:
        yield running


async def test_sessions_are_asked_for_once_and_given_again(asked: Asked) -> None:
    first, second = [Sessions.model_validate((await asked.ask("sessions"))["row"]) for _ in range(2)]
    assert first.rows == second.rows
    assert len(first.rows) == 4
    assert asked.commands == ["-c show bgp summary json", "-c show bfd peers json"]


async def test_the_way_of_a_prefix(asked: Asked) -> None:
    found = PrefixSteps.model_validate((await asked.ask("prefix", prefix="192.0.2.0/24", table=254))["row"])
    assert [step.stage for step in found.steps][:2] == [Stage.BGP, Stage.ZEBRA]
    assert asked.commands == [
        "-c show bgp ipv4 unicast 192.0.2.0/24 json",
        "-c show ip route 192.0.2.0/24 json",
    ]


async def test_the_kernels_ports(asked: Asked) -> None:
    found = Ports.model_validate((await asked.ask("ports"))["row"])
    assert found.problem is None
    assert asked.commands == []


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("configure", {}),
        ("ports", {"path": "/etc/shadow"}),
        ("sessions", {"vtysh": "x"}),
        ("prefix", {}),
        ("prefix", {"prefix": "192.0.2.0/24"}),
        ("prefix", {"prefix": "192.0.2.0/24", "table": 254, "namespace": "x"}),
        ("prefix", {"prefix": "192.0.2.0/24 json\nconfigure terminal", "table": 254}),
        ("prefix", {"prefix": "0.0.0.0/0; clear bgp *", "table": 254}),
        ("prefix", {"prefix": ["192.0.2.0/24"], "table": 254}),
        ("prefix", {"prefix": 3232235776, "table": 254}),
        ("prefix", {"prefix": "192.0.2.0/24", "table": "254"}),
        ("prefix", {"prefix": "192.0.2.0/24", "table": -1}),
        ("prefix", {"prefix": "192.0.2.0/24", "table": 1 << 32}),
        ("prefix", {"prefix": "192.0.2.0/24", "table": "main; reboot"}),
    ],
)
async def test_nothing_else_gets_through(asked: Asked, command: str, arguments: dict[str, Any]) -> None:
    found = await asked.ask(command, **arguments)
    assert found["error"]["kind"] == "bad-request"
    assert asked.commands == []


async def test_a_zone_of_an_address_does_not_get_through(asked: Asked) -> None:
    """Python takes any text after a percent sign for a zone, and writes it again with the address."""
    zone = "fe80::1%eth0 json\nconfigure terminal"
    assert "configure" in str(ip_network(zone))
    await asked.ask("prefix", prefix=zone, table=254)
    assert asked.commands == [
        "-c show bgp ipv6 unicast fe80::1/128 json",
        "-c show ipv6 route fe80::1/128 json",
    ]


@given(st.text(max_size=60) | st.from_regex(r"[0-9a-f.:%/]{1,30}", fullmatch=True))
def test_a_prefix_is_its_numbers(text: str) -> None:
    try:
        found = PrefixRequest(prefix=text, table=1)  # type: ignore[arg-type] # as it comes out of JSON
    except ValidationError:
        return
    assert set(str(found.prefix)) <= set("0123456789abcdef.:/")


@pytest.mark.parametrize(
    "line",
    [b"\n", b"x\n", b"[]\n", b"{}\n", b'{"command": 1}\n', b"\xff\n", b"[" * 900 + b"\n", b"null\n"],
)
async def test_what_is_no_request_is_refused(asked: Asked, line: bytes) -> None:
    (found,) = await asked.say(line)
    assert found["error"]["kind"] == "bad-request"


async def test_a_line_without_end_is_cut_off(asked: Asked) -> None:
    (found,) = await asked.say(b"x" * (REQUEST_BYTES + 100))
    assert "more than" in found["error"]["message"]


async def test_so_many_may_ask_at_one_time(asked: Asked) -> None:
    there = [await asyncio.open_unix_connection(str(asked.socket)) for _ in range(CLIENTS)]
    await asyncio.sleep(0)
    (found,) = await asked.say()
    assert found["error"]["kind"] == "busy"
    for _, writer in there:
        writer.close()
        await writer.wait_closed()
    assert "row" in await asked.ask("sessions")


async def test_the_socket_is_its_groups_alone(asked: Asked) -> None:
    assert stat.S_IMODE(asked.socket.stat().st_mode) == 0o660


async def test_without_frr_the_answer_says_so(tmp_path: Path) -> None:
    listener = UnixListener(tmp_path / "reader.sock", mode=0o660, group=None, key="--socket")
    async with serving(listener, HostReader([str(tmp_path / "vtysh")])):
        asked = Asked(tmp_path)
        found = Sessions.model_validate((await asked.ask("sessions"))["row"])
        steps = PrefixSteps.model_validate((await asked.ask("prefix", prefix="10.0.0.0/8", table=254))["row"])
    assert "there is no" in (found.problem or "")
    assert [step.known for step in steps.steps if step.stage is not Stage.KERNEL] == [False, False]
