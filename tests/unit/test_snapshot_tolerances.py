"""What a file of tolerances may say, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router_agent.snapshot.tolerances import Part, Tolerances, load
from router_agent.strict_yaml import FileError

FULL = """\
prefixes_fall_percent: 5
prefixes_rise_percent: 50
fib_gap_percent: 0.5
errors_per_second: 0.1
session_drops: 0
changed: [vpp, /etc/frr/frr.conf]
sessions_lost: [192.0.2.1]
interfaces_down: [lan]
unreadable: [bfd]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tolerances.yaml"
    path.write_text(text)
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    found = load(written(tmp_path, FULL), {})
    assert found == Tolerances(
        prefixes_fall_percent=5,
        prefixes_rise_percent=50,
        fib_gap_percent=0.5,
        errors_per_second=0.1,
        session_drops=0,
        changed=(Part.VPP, "/etc/frr/frr.conf"),
        sessions_lost=("192.0.2.1",),
        interfaces_down=("lan",),
        unreadable=("bfd",),
    )
    assert found.model_fields_set == set(Tolerances.model_fields)


def test_without_a_file_or_with_an_empty_one_the_defaults_hold(tmp_path: Path) -> None:
    assert load(None, {}) == load(written(tmp_path, "# nothing\n"), {}) == Tolerances()


def test_options_win_and_lists_are_added(tmp_path: Path) -> None:
    overrides = {"prefixes_fall_percent": 7.0, "fib_gap_percent": None, "changed": ["frr"], "unreadable": []}
    found = load(written(tmp_path, FULL), overrides)
    assert (found.prefixes_fall_percent, found.fib_gap_percent) == (7.0, 0.5)
    assert found.changed == (Part.VPP, "/etc/frr/frr.conf", Part.FRR)
    assert found.unreadable == ("bfd",)


def test_vpp_brings_its_dpdk() -> None:
    assert Tolerances(changed=("vpp",)).expects(Part.DPDK)
    assert not Tolerances(changed=("dpdk",)).expects(Part.VPP)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prefixes_fall: 5", ":1: prefixes_fall: found an unknown key, expected one of "),
        ("prefixes_fall_percent: 200", ":1: prefixes_fall_percent: found 200, expected at most 100"),
        ("errors_per_second: .nan", "errors_per_second: found nan, expected a"),
        ("# a\nchanged: [vpq]", ":2: changed.0: found 'vpq', expected one of "),
        ("changed: vpp", "changed: found 'vpp', expected a list"),
        ("unreadable: [bpf]", "unreadable: found 'bpf', expected one of bgp, "),
        ("- a", "expected a mapping of prefixes_fall_percent, "),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(FileError) as refused:
        load(written(tmp_path, text), {})
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [({"changed": ["vpq"]}, "did you mean 'vpp'"), ({"unreadable": ["x"]}, "expected one of bgp")],
)
def test_mistakes_in_options_are_named(overrides: dict[str, Any], words: str) -> None:
    with pytest.raises(FileError, match="tolerances: ") as refused:
        load(None, overrides)
    assert words in str(refused.value)


def test_every_key_is_documented_with_its_default() -> None:
    page = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text()
    section = page.partition("\n## Snapshot and diff\n")[2].partition("\n## ")[0]
    for name, field in Tolerances.model_fields.items():
        default = field.get_default()
        shown = "null" if default is None else "[]" if default == () else f"{default:g}"
        assert f"| `{name}` | `{shown}` | {field.description} |" in section
