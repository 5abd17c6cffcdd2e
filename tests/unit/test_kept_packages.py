"""What apt says an installation changes, and where the former versions are found."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import kept_packages
from kept_packages import Change, KeepError, changes_of, find, keep

# As apt 3.0 prints it for: apt-get --simulate install ./frr_10.3-4_amd64.deb frr-pythontools=10.3-4
SIMULATION = """\
Reading package lists...
Building dependency tree...
The following NEW packages will be installed:
  libyang3
Inst frr-pythontools [10.3-3] (10.3-4 Debian:13.1/stable [all]) []
Inst libyang3 (3.7.8-2 Debian:13.1/stable [amd64]) []
Inst frr [10.3-3] (10.3-4 local-deb [amd64])
Conf libyang3 (3.7.8-2 Debian:13.1/stable [amd64])
Conf frr (10.3-4 local-deb [amd64])
"""


def test_apt_says_what_would_change() -> None:
    assert changes_of(SIMULATION) == [
        Change("frr-pythontools", "10.3-3", "10.3-4"),
        Change("libyang3", "", "3.7.8-2"),
        Change("frr", "10.3-3", "10.3-4"),
    ]
    assert changes_of("0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n") == []


def test_an_installation_that_removes_packages_is_refused() -> None:
    with pytest.raises(KeepError, match="would remove bird2, quagga, expected that nothing is lost"):
        changes_of("Remv bird2 [2.0.12-7]\nRemv quagga [1.2]\n" + SIMULATION)


def package(directory: Path, name: str, version: str, file: str = "") -> Path:
    """Build a package that holds nothing."""
    tree = directory / f".{name}"
    (tree / "DEBIAN").mkdir(parents=True)
    control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x\nDescription: x\n"
    (tree / "DEBIAN" / "control").write_text(control)
    path = directory / (file or f"{name}_{version.partition(':')[2] or version}_all.deb")
    subprocess.run(["dpkg-deb", "--build", tree, path], check=True, capture_output=True, timeout=60)
    shutil.rmtree(tree)
    return path


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No source of apt's has anything."""

    def refused(*arguments: str, cwd: Path | None = None) -> str:
        raise KeepError(f"apt-get {arguments}: {cwd} has none")

    monkeypatch.setattr(kept_packages, "apt", refused)


def test_a_file_is_known_by_what_is_in_it_and_not_by_its_name(tmp_path: Path) -> None:
    package(tmp_path, "frr", "10.3-4", file="frr_10.3-3_all.deb")
    right = package(tmp_path, "frr", "1:10.3-3", file="frr_10.3-3+b1_all.deb")
    (tmp_path / "frr_broken_all.deb").write_text("no package")
    assert find(Change("frr", "1:10.3-3", "10.3-4"), [tmp_path]) == right
    assert find(Change("frr", "10.3-2", "10.3-4"), [tmp_path]) is None


@pytest.mark.usefixtures("nowhere")
def test_former_versions_and_nothing_else_are_kept(tmp_path: Path) -> None:
    cache, kept = tmp_path / "cache", tmp_path / "kept" / "frr"
    cache.mkdir()
    package(cache, "frr", "10.3-3")
    package(cache, "frr", "10.3-4")
    change = [Change("frr", "10.3-3", "10.3-4")]
    assert keep(change, kept, [cache]) == [kept / "frr_10.3-3_all.deb"]
    shutil.rmtree(cache)
    # What an earlier rollout kept is found where it was kept.
    assert keep(change, kept, [cache]) == [kept / "frr_10.3-3_all.deb"]
    assert sorted(path.name for path in kept.parent.iterdir()) == ["frr"]


@pytest.mark.usefixtures("nowhere")
def test_without_a_way_back_nothing_is_kept_or_lost(tmp_path: Path) -> None:
    kept = tmp_path / "kept" / "frr"
    kept.mkdir(parents=True)
    other = package(kept, "frr", "10.3-2")
    with pytest.raises(KeepError, match=r"no way back: found frr 10\.3-3 neither in apt's .*kept/frr"):
        keep([Change("frr", "10.3-3", "10.3-4")], kept, [])
    assert list(kept.parent.rglob("*.deb")) == [other]
