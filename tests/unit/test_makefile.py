"""The lab's verdict comes out of make as its exit code, which GNU make by itself does not do."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LAB = '#!/bin/sh\necho "$@"\nexit "${LAB_ENDS_WITH:-0}"\n'

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="found no make on PATH")


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """The Makefile with an environment that is set up, whose Python ends with a chosen verdict."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(LAB)
    python.chmod(0o755)
    packages = tmp_path / ".ci" / "install-packages"
    packages.parent.mkdir()
    packages.write_text("true\n")
    stamp = make(tmp_path, "--eval", "stamp: ; @echo $(STAMP)", "stamp").stdout.strip()
    (tmp_path / stamp).touch()
    return tmp_path


def make(kit: Path, *arguments: str, verdict: int = 0) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = {**clean, "LAB_ENDS_WITH": str(verdict)}
    return subprocess.run(
        ["make", *arguments],
        cwd=kit,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("verdict", "options"),
    [(0, ()), (1, ()), (2, ()), (1, ("-s",)), (1, ("--no-print-directory",)), (1, ("-j2",))],
)
def test_verdict_is_the_exit_code(kit: Path, verdict: int, options: tuple[str, ...]) -> None:
    done = make(kit, *options, "lab", "KEEP=1", verdict=verdict)
    assert done.returncode == verdict
    assert done.stdout.splitlines()[-1] == "-m router_agent.lab --keep"


def test_a_routers_verdict_is_the_exit_code_as_far_as_make_has_one(kit: Path) -> None:
    done = make(kit, "acceptance-check", "ARGS=-i x --limit y", verdict=1)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        1,
        "playbooks/acceptance_check.py -i x --limit y",
    )
    assert make(kit, "acceptance-check", verdict=3).returncode == 2


def test_options_reach_the_lab(kit: Path) -> None:
    done = make(
        kit, "lab", "SPEAKER=exabgp", "FIB=vpp", "TABLE=a b.txt", "IPV4=9", "IPV6=8", "KEEP=0", "ARGS=--x y"
    )
    expected = "-m router_agent.lab --speaker exabgp --fib vpp --table a b.txt --ipv4 9 --ipv6 8 --x y"
    assert done.stdout.splitlines()[-1] == expected


def test_dry_run_runs_nothing(kit: Path) -> None:
    done = make(kit, "-n", "lab", verdict=1)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(".venv/bin/python -m router_agent.lab")


def test_failing_set_up_is_no_verdict_of_fail(kit: Path) -> None:
    (kit / "requirements.txt").write_text("changed, so that the stamp does not hold\n")
    done = make(kit, "lab", "PYTHON=/nonexistent/python3")
    assert done.returncode == 2
    assert "router_agent.lab" not in done.stdout


def test_help_lists_the_two_commands_first(kit: Path) -> None:
    lines = [line.split()[:2] for line in make(kit).stdout.splitlines()]
    assert ["make", "lab"] in lines
    assert ["make", "test"] in lines
