"""Snapshots as files: kept, found again, refused when they are none."""

from __future__ import annotations

import json
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from router_agent.snapshot import store
from snapshots import MOMENT, router


def keep(directory: Path, number: int, label: str = "", most: int = 20) -> Path:
    taken = router(label=label, taken_at=MOMENT + timedelta(seconds=number))
    return store.keep(taken, directory, most=most)


def test_a_snapshot_comes_back_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = keep(tmp_path / "snapshots", 0, "before")
    assert path.name == "20260102T030405000000Z-before.json"
    assert store.load(path) == router()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_oldest_are_removed_and_nothing_of_anybody_else(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{}")
    for number in (5, 1, 4, 2, 3):
        keep(tmp_path, number, most=3)
    assert [found.taken_at - MOMENT for found in store.kept(tmp_path)] == [
        timedelta(seconds=number) for number in (3, 4, 5)
    ]
    assert (tmp_path / "notes.json").exists()


def test_a_label_is_the_newest_of_that_name(tmp_path: Path) -> None:
    keep(tmp_path, 1, "upgrade")
    newest = keep(tmp_path, 3, "upgrade")
    keep(tmp_path, 4, "upgrade-2")
    assert store.find("upgrade", tmp_path) == newest
    assert store.find("upgrade.json", tmp_path) == Path("upgrade.json")
    assert store.find("/tmp/x", tmp_path) == Path("/tmp/x")
    with pytest.raises(store.StoreError, match=r"labelled 'upgrad'.*expected a path or a label \(upgrade, "):
        store.find("upgrad", tmp_path)


def test_a_directory_that_is_not_there_keeps_nothing(tmp_path: Path) -> None:
    assert store.kept(tmp_path / "none") == []
    with pytest.raises(store.StoreError, match="none has a label"):
        store.find("x", tmp_path / "none")


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(store.StoreError, match=r"cannot write .*taken"):
        store.write(router(), tmp_path / "taken")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("somebody's")
    (tmp_path / "taken.json").symlink_to(other)
    store.write(router(), tmp_path / "taken.json")
    assert other.read_text() == "somebody's"
    assert store.load(tmp_path / "taken.json") == router()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        ("", "is no snapshot"),
        ("[]", "is no snapshot"),
        ('{"schema": "router-agent/snapshot/2"}', "found schema router-agent/snapshot/2, expected"),
        ('{"schema": "router-agent/snapshot/1", "host": "r1"}', "is no snapshot (taken_at: Field required)"),
    ],
)
def test_what_is_no_snapshot_is_refused_in_words(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "taken.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(store.StoreError) as refused:
        store.load(path)
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


def test_keys_of_a_newer_program_are_passed_over(tmp_path: Path) -> None:
    path = keep(tmp_path, 0, "before")
    document = json.loads(path.read_text())
    document["colour"] = "blue"
    document["bgp"]["content"]["colour"] = "blue"
    path.write_text(json.dumps(document))
    assert store.load(path) == router()


def test_a_reading_without_content_or_reason_is_refused(tmp_path: Path) -> None:
    path = keep(tmp_path, 0)
    for broken in (
        {"state": "read"},
        {"state": "unreadable"},
        {"state": "absent", "content": {"version": "1"}, "reason": "x"},
    ):
        document = json.loads(path.read_text()) | {"bgp": broken}
        (tmp_path / "broken.json").write_text(json.dumps(document))
        with pytest.raises(store.StoreError, match="is no snapshot"):
            store.load(tmp_path / "broken.json")
