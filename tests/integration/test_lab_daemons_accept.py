"""Rendered configurations before the daemons that will read them: accepted, and refused when broken."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from router_agent.lab.announcement import groups_of, write_routes
from router_agent.lab.table import generated_table

GOLDEN = Path(__file__).parents[1] / "unit" / "golden"
EXABGP = str(Path(sys.executable).with_name("exabgp"))

Command = Callable[[Path], Sequence[str]]

CHECKS: dict[str, tuple[Command, str]] = {
    "frr.conf": (lambda path: ["vtysh", "-C", "-f", str(path)], "neighbour here\n"),
    "bird.conf": (lambda path: ["bird", "-p", "-c", str(path)], "protocol bgp {\n"),
    "exabgp.conf": (lambda path: [EXABGP, "validate", "-nr", str(path)], "neighbor here {\n"),
    "agent.yaml": (
        lambda path: [sys.executable, "-m", "router_agent.cli", "check-config", str(path)],
        "pipes: []\n",
    ),
    "router-agent.service": (
        lambda path: ["systemd-analyze", "verify", "--man=no", str(path)],
        "[Service]\nExecStart=nowhere\n",
    ),
}

pytestmark = [pytest.mark.root, pytest.mark.daemons]


def checked(command: Command, path: Path) -> subprocess.CompletedProcess[str]:
    argv = command(path)
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        pytest.skip(f"{argv[0]} is not installed")


@pytest.fixture
def rendered(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    name: str = request.param
    text = (GOLDEN / name).read_text()
    write_routes(tmp_path, generated_table(20, 20), groups_of(generated_table(20, 20)))
    text = text.replace("/run/table.conf", str(tmp_path / "table.conf"))
    text = text.replace("/run/bird.log", str(tmp_path / "bird.log"))
    text = text.replace("/opt/router-agent/bin/router-agent", sys.executable)
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize("rendered", CHECKS, indirect=True, ids=str)
def test_the_daemon_accepts_what_is_rendered(rendered: Path) -> None:
    command, _ = CHECKS[rendered.name]
    done = checked(command, rendered)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("rendered", CHECKS, indirect=True, ids=str)
def test_the_daemon_refuses_what_is_broken(rendered: Path) -> None:
    command, broken = CHECKS[rendered.name]
    rendered.write_text(rendered.read_text() + broken)
    assert checked(command, rendered).returncode != 0
