"""The lock of a host: of two rollouts one gets it, and nobody takes another's unless told to."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from rollout_lock import free, hold, read


def holder(run: str) -> dict[str, Any]:
    return {"run": run, "controller": "ctl1", "user": "ops", "since": "2026-01-01T00:00:00Z"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pop-router" / "rollout.lock"


def test_the_first_gets_it_and_keeps_it(path: Path) -> None:
    assert hold(path, holder("one"), "", check=False) == {
        "changed": True,
        "held": True,
        "holder": holder("one"),
    }
    assert hold(path, holder("one"), "", check=False)["changed"] is False
    refused = hold(path, holder("two"), "", check=False)
    assert refused == {"changed": False, "held": False, "holder": holder("one")}
    assert json.loads(path.read_text())["run"] == "one"


def test_it_is_taken_from_the_rollout_that_is_named_and_from_no_other(path: Path) -> None:
    hold(path, holder("one"), "", check=False)
    assert hold(path, holder("three"), "two", check=False)["held"] is False
    assert hold(path, holder("three"), "one", check=False)["held"] is True
    assert read(path)["run"] == "three"


def test_only_its_holder_frees_it(path: Path) -> None:
    hold(path, holder("one"), "", check=False)
    assert free(path, holder("two"), check=False)["changed"] is False
    assert path.exists()
    assert free(path, holder("one"), check=False)["changed"] is True
    assert not path.exists()
    assert free(path, holder("one"), check=False)["changed"] is False


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_file_nobody_understands_is_somebodys(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    assert hold(path, holder("one"), "", check=False)["held"] is False
    assert free(path, holder("one"), check=False)["changed"] is False
    assert hold(path, holder("one"), "unreadable", check=False)["held"] is True


def test_nothing_is_written_in_check_mode(path: Path) -> None:
    assert hold(path, holder("one"), "", check=True) == {
        "changed": True,
        "held": False,
        "holder": holder("one"),
    }
    assert not path.exists()
    hold(path, holder("one"), "", check=False)
    assert free(path, holder("one"), check=True)["changed"] is True
    assert path.exists()


def test_of_many_at_once_one_gets_it(path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda n: hold(path, holder(f"r{n}"), "", check=False), range(64)))
    winners = [result for result in found if result["held"]]
    assert len(winners) == 1
    assert read(path) == winners[0]["holder"]
    assert {result["holder"]["run"] for result in found} == {winners[0]["holder"]["run"]}
