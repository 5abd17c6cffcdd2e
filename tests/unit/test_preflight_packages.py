"""Which versions a host can have, by apt and by repositories, and what preflight makes of them."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import package_versions
from package_versions import parse_installed, parse_packages, parse_policy
from preflight_packages import (
    preflight_package_files,
    preflight_package_names,
    preflight_packages,
    preflight_repositories,
)

POLICY = """\
frr:
  Installed: (none)
  Candidate: 10.3-1+b1
  Version table:
     10.3-1+b1 500
        500 http://deb.debian.org/debian trixie/main amd64 Packages
vpp:
  Installed: (none)
  Candidate: (none)
  Version table:
"""
PACKAGES = """\
Package: vpp
Version: 25.10-release
Architecture: amd64

Package: vpp
Version: 26.06-release
Depends: libvppinfra (= 26.06-release)

Package: vpp-dev
Version: 26.06-release
"""
UNREACHABLE = """\
Err:1 http://192.0.2.9/dists/trixie/InRelease
E: Failed to fetch http://192.0.2.9/dists/trixie/InRelease  Could not connect to 192.0.2.9:80
E: Download Failed
"""
VPP = {"kind": "repository", "url": "https://vpp.example.net/debian/"}
VARIABLES = {
    "router_forwarding": "vpp",
    "vpp_package_source": VPP,
    "vpp_version": "26.06*",
    "vpp_packages": ["vpp"],
}


class Host:
    """Commands of a host whose repositories serve the files of a directory; other addresses do not answer."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []

    def run(self, command: Sequence[str], timeout: int) -> tuple[int, str, str]:
        """Answer as the programs do."""
        program = Path(command[0]).name
        if program == "dpkg":
            return 0, "amd64\n", ""
        if program == "dpkg-query":
            return (
                1,
                "frr 10.3-1+b1 installed\nold 1 config-files\n",
                "dpkg-query: no packages found matching vpp\n",
            )
        if program == "apt-cache":
            return 0, POLICY, ""
        url, target = command[-2:]
        self.asked.append(url)
        if url in self.files:
            Path(target).write_bytes(self.files[url])
            return 0, "", ""
        if url.startswith("http://192.0.2.9/"):
            return 100, "", UNREACHABLE
        return 100, "", f"E: Failed to fetch {url}  404  Not Found [IP: 192.0.2.1 80]\nE: Download Failed\n"


def available(**changes: Any) -> dict[str, Any]:
    """What the module says of a host with Debian's FRR, where VPP's repository has 26.06."""
    answer = {
        "url": "https://vpp.example.net/debian",
        "suite": "trixie",
        "error": "",
        "versions": {"vpp": ["26.06-release"]},
    }
    return {
        "architecture": "amd64",
        "installed": {},
        "candidates": {"frr": "10.3-1+b1"},
        "lists": True,
        "repositories": [answer],
        **changes,
    }


def problems(
    variables: dict[str, Any], found: dict[str, Any], files: dict[str, list[str]] | None = None
) -> list[tuple[str, str]]:
    """(variable, found) of each problem."""
    listed = preflight_packages({**VARIABLES, **variables}, found, files)["problems"]
    return [(problem["variable"], problem["found"]) for problem in listed]


def test_records_of_dpkg_and_apt() -> None:
    assert parse_installed("frr 10.3-1+b1 installed\nvpp 25 config-files\nbroken\n") == {"frr": "10.3-1+b1"}
    assert parse_policy(POLICY) == {"frr": "10.3-1+b1"}
    assert parse_packages(PACKAGES, ["vpp"]) == {"vpp": ["25.10-release", "26.06-release"]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("Packages.xz", lzma.compress(PACKAGES.encode())),
        ("Packages.gz", gzip.compress(PACKAGES.encode())),
        ("Packages", PACKAGES.encode()),
    ],
)
@pytest.mark.parametrize("flat", [False, True])
def test_a_repository_however_it_is_laid_out(tmp_path: Path, name: str, content: bytes, flat: bool) -> None:
    base = "http://mirror/vpp/pool" if flat else "http://mirror/vpp/dists/trixie"
    index = f"{base}/{name}" if flat else f"{base}/main/binary-amd64/{name}"
    host = Host({f"{base}/Release": b"", index: content})
    source = {"url": "http://mirror/vpp/", "suite": "pool/" if flat else "trixie", "components": ["main"]}
    result = package_versions.read(["vpp", "frr"], [source], 5, root=tmp_path, run=host.run)
    assert result["repositories"][0]["error"] == ""
    assert result["repositories"][0]["versions"] == {"vpp": ["25.10-release", "26.06-release"]}
    assert (result["architecture"], result["installed"]) == ("amd64", {"frr": "10.3-1+b1"})
    assert result["lists"] is False


def test_a_repository_that_does_not_answer_is_asked_once(tmp_path: Path) -> None:
    host = Host({})
    source = {"url": "http://192.0.2.9", "suite": "trixie", "components": ["main"]}
    answer = package_versions.read(["vpp"], [source], 5, root=tmp_path, run=host.run)["repositories"][0]
    assert answer["error"] == (
        "Failed to fetch http://192.0.2.9/dists/trixie/InRelease Could not connect to 192.0.2.9:80"
    )
    assert host.asked == ["http://192.0.2.9/dists/trixie/InRelease"]


def test_a_repository_without_the_suite(tmp_path: Path) -> None:
    source = {"url": "http://mirror", "suite": "sid", "components": ["main"]}
    answer = package_versions.read(["vpp"], [source], 5, root=tmp_path, run=Host({}).run)["repositories"][0]
    assert "404" in answer["error"]


def test_package_lists_are_looked_for(tmp_path: Path) -> None:
    lists = tmp_path / "var/lib/apt/lists"
    lists.mkdir(parents=True)
    (lists / "deb.debian.org_debian_dists_trixie_main_binary-amd64_Packages").touch()
    assert package_versions.read([], [], 5, root=tmp_path, run=Host({}).run)["lists"] is True


def test_which_repositories_are_asked() -> None:
    variables = {
        **VARIABLES,
        "frr_package_source": {"kind": "repository", "url": "https://frr", "suite": "bookworm"},
    }
    assert preflight_repositories(variables, "trixie") == [
        {"url": "https://frr", "suite": "bookworm", "components": ["frr-stable"]},
        {"url": "https://vpp.example.net/debian/", "suite": "trixie", "components": ["main"]},
    ]
    assert preflight_repositories({**variables, "router_forwarding": "kernel"}, "trixie")[1:] == []


def test_the_roles_defaults_complete_a_source() -> None:
    variables = {
        "vpp_package_source": {"kind": "repository"},
        "vpp_repository_url": "https://a",
        "vpp_repository_suite": "b",
    }
    expected = [{"url": "https://a", "suite": "b", "components": ["main"]}]
    assert preflight_repositories(variables, "trixie") == expected


def test_which_packages_are_asked_for() -> None:
    assert preflight_package_names({**VARIABLES, "frr_packages": ["frr", "frr-pythontools"]}) == [
        "frr",
        "frr-pythontools",
        "vpp",
    ]


def test_packages_that_can_be_had() -> None:
    assert problems({}, available()) == []


def test_an_unreachable_repository() -> None:
    answer = {
        "url": "https://vpp.example.net/debian",
        "suite": "trixie",
        "error": "Could not connect",
        "versions": {},
    }
    found = problems({}, available(repositories=[answer]))
    assert found == [
        (
            "vpp_package_source.url",
            "https://vpp.example.net/debian, suite trixie, which the host cannot read: Could not connect",
        )
    ]
    assert problems({"router_forwarding": "kernel"}, available(repositories=[answer])) == []


def test_an_unreachable_repository_of_what_is_installed_is_a_note() -> None:
    answer = {
        "url": "https://vpp.example.net/debian",
        "suite": "trixie",
        "error": "Could not connect",
        "versions": {},
    }
    found = available(repositories=[answer], installed={"vpp": "26.06-release"})
    result = preflight_packages(VARIABLES, found)
    assert result["problems"] == []
    assert "it is installed" in result["notes"][0]
    assert problems({}, {**found, "installed": {"vpp": "25.10-release"}}) != []


def test_a_version_the_repository_does_not_have() -> None:
    found = problems({"vpp_version": "26.10*"}, available())
    assert "which has versions 26.06-release of vpp" in found[0][1]


def test_a_distribution_without_the_package() -> None:
    source = {"vpp_package_source": {"kind": "distribution"}}
    assert problems(source, available()) == [
        ("vpp_package_source", "the distribution, which has no package vpp")
    ]
    without_lists = preflight_packages({**VARIABLES, **source}, available(lists=False, candidates={}))
    assert without_lists["problems"] == []
    assert "no package lists yet" in without_lists["notes"][0]


def test_a_source_of_no_kind() -> None:
    assert problems({"vpp_package_source": {"kind": "ppa"}}, available())[0][0] == "vpp_package_source.kind"
    assert (
        problems({"vpp_package_source": {"kind": "directory"}}, available())[0][0]
        == "vpp_package_source.path"
    )


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["vpp_26.06-release_amd64.deb"], None),
        (["vpp_26.06-release_all.deb"], None),
        ([], "there is no .deb file"),
        (["vpp_26.06-release_arm64.deb"], "which lacks vpp"),
        (["vpp_25.10-release_amd64.deb"], "which lacks vpp"),
        (["vpp-dev_26.06-release_amd64.deb"], "which lacks vpp"),
    ],
)
def test_a_directory(tmp_path: Path, names: list[str], found: str | None) -> None:
    for name in names:
        (tmp_path / name).touch()
    variables = {"vpp_package_source": {"kind": "directory", "path": str(tmp_path)}}
    files = preflight_package_files({**VARIABLES, **variables})
    assert files == {"vpp": names}
    listed = problems(variables, available(), files)
    assert [entry[0] for entry in listed] == (["vpp_package_source.path"] if found else [])
    assert not found or found in listed[0][1]


@pytest.mark.parametrize(
    ("version", "can"),
    [
        ("8.4.4-1.1~deb12u1", False),
        ("8.5-1", True),
        ("9.1", True),
        ("10.2.1-0~deb13u1", True),
        ("10.3-1+b1", False),
        ("10.3.9", False),
        ("10.4.0", True),
        ("1:10.7.1-2", True),
    ],
)
def test_versions_of_frr_that_can_wait_for_confirmation(version: str, can: bool) -> None:
    variables = {"router_confirmed_advertisement": True}
    for found in (
        available(candidates={"frr": version}),
        available(candidates={"frr": "10.7.1"}, installed={"frr": version}),
    ):
        expected = [] if can else [("router_confirmed_advertisement", f"true with FRR {version}")]
        assert problems(variables, found) == expected
    assert problems({"router_confirmed_advertisement": False}, available(candidates={"frr": version})) == []


def test_the_newest_frr_of_a_repository_counts() -> None:
    answer = {
        "url": "https://frr",
        "suite": "trixie",
        "error": "",
        "versions": {"frr": ["9.1", "10.3.1", "8.4"]},
    }
    variables = {
        "router_forwarding": "kernel",
        "router_confirmed_advertisement": True,
        "frr_package_source": {"kind": "repository", "url": "https://frr"},
    }
    found = problems(variables, available(repositories=[answer]))
    assert found == [("router_confirmed_advertisement", "true with FRR 10.3.1")]
