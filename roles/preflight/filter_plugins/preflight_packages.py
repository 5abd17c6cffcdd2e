"""Ansible filters: whether the packages of FRR and VPP can be had, and can do what is asked of them."""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Problem = dict[str, str]
Source = Mapping[str, Any]

KINDS = ("distribution", "repository", "directory")
# What the roles take where neither source nor defaults say it.
REPOSITORY: dict[str, dict[str, Any]] = {
    "frr": {"components": ["frr-stable"]},
    "vpp": {"components": ["main"]},
}


def wanted_sources(variables: Mapping[str, Any]) -> dict[str, Source]:
    """{program: its package source} of the programs this router gets."""
    programs = ["frr"] + (["vpp"] if variables.get("router_forwarding", "vpp") == "vpp" else [])
    return {program: package_source(program, variables) for program in programs}


def package_source(program: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Source of one program; a repository has the role's defaults (PROGRAM_repository_KEY) too."""
    source = dict(variables.get(f"{program}_package_source") or {"kind": "distribution"})
    if source.get("kind") == "repository":
        for key in ("url", "suite", "components"):
            source[key] = (
                source.get(key)
                or variables.get(f"{program}_repository_{key}")
                or REPOSITORY[program].get(key)
            )
    return source


def preflight_repositories(variables: Mapping[str, Any], codename: str) -> list[dict[str, Any]]:
    """Repositories to ask, as module package_versions takes them.

    A source without a suite means the one named like the host's release.
    """
    return [
        {
            "url": source["url"],
            "suite": source.get("suite") or codename,
            "components": as_list(source["components"]),
        }
        for source in wanted_sources(variables).values()
        if source.get("kind") == "repository" and source.get("url")
    ]


def as_list(words: str | Sequence[str]) -> list[str]:
    """A list, or text with blanks between its words."""
    return words.split() if isinstance(words, str) else list(words)


def preflight_package_names(variables: Mapping[str, Any]) -> list[str]:
    """Names of all packages that the roles will install for FRR and VPP."""
    listed = [variables.get(f"{program}_packages") or [program] for program in wanted_sources(variables)]
    return [name for names in listed for name in names]


def preflight_package_files(variables: Mapping[str, Any]) -> dict[str, list[str]]:
    """{program: names of the .deb files} of the sources that are directories on the controller."""
    paths = {
        program: Path(str(source["path"])).expanduser()
        for program, source in wanted_sources(variables).items()
        if source.get("kind") == "directory" and source.get("path")
    }
    return {program: sorted(file.name for file in path.glob("*.deb")) for program, path in paths.items()}


def preflight_packages(
    variables: Mapping[str, Any],
    available: Mapping[str, Any],
    files: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, Any]:
    """Check sources and versions.

    Args:
        variables: the kit's variables with their defaults; those that are wrong or missing are left out.
        available: result of module package_versions.
        files: {program: names of the .deb files in its directory on the controller}.

    Returns:
        {problems: [{variable, found, expected, remedy}], notes: [text]}.
    """
    problems: list[Problem] = []
    notes: list[str] = []
    for program, source in wanted_sources(variables).items():
        pattern = variables.get(f"{program}_version") or "*"
        names = variables.get(f"{program}_packages") or [program]
        installed = available["installed"]
        there = all(name in installed and matches(installed[name], pattern) for name in names)
        faults = list(source_problems(program, source, names, pattern, available, files or {}))
        if there:
            notes += [
                f"{entry['variable']}: {entry['found']}; not needed now: it is installed" for entry in faults
            ]
        else:
            problems += faults
        if source.get("kind") == "distribution" and not available["lists"] and not there:
            notes.append(f"{program}: the host has no package lists yet, so its version cannot be told")
    if variables.get("router_confirmed_advertisement"):
        problems += confirmed_advertisement(wanted_sources(variables)["frr"], available, files or {})
    return {"problems": problems, "notes": notes}


def source_problems(
    program: str,
    source: Source,
    names: Sequence[str],
    pattern: str,
    available: Mapping[str, Any],
    files: Mapping[str, Sequence[str]],
) -> Iterator[Problem]:
    """What is wrong with where a program's packages come from."""
    variable = f"{program}_package_source"
    kind = source.get("kind")
    if kind not in KINDS:
        yield problem(f"{variable}.kind", repr(kind), f"one of {', '.join(KINDS)}", "correct it")
    elif kind == "distribution":
        lacking = [name for name in names if name not in available["candidates"]]
        if available["lists"] and lacking:
            yield problem(
                variable,
                f"the distribution, which has no package {', '.join(lacking)}",
                f"a source that has {program}",
                "name a repository or a directory of .deb files" + kernel_instead(program),
            )
    elif kind == "directory":
        yield from directory_problems(program, source, names, pattern, available, files)
    elif not source.get("url"):
        yield problem(f"{variable}.url", "nothing", "the address of the repository", "set it")
    else:
        yield from repository_problems(program, source, names, pattern, available)


def repository_problems(
    program: str, source: Source, names: Sequence[str], pattern: str, available: Mapping[str, Any]
) -> Iterator[Problem]:
    """A repository that does not answer, or lacks what is wanted."""
    variable = f"{program}_package_source.url"
    url = str(source["url"]).rstrip("/")
    answer = next((entry for entry in available["repositories"] if entry["url"] == url), None)
    if answer is None:
        return
    if answer["error"]:
        remedy = "correct url and suite, let the host reach it, or name a mirror or a directory of .deb files"
        yield problem(
            variable,
            f"{url}, suite {answer['suite']}, which the host cannot read: {answer['error']}",
            "a repository that answers",
            remedy + kernel_instead(program),
        )
        return
    for name in names:
        versions = answer["versions"].get(name, [])
        if not any(matches(version, pattern) for version in versions):
            there = f"versions {', '.join(versions[-5:])}" if versions else "no version"
            yield problem(
                variable,
                f"{url}, suite {answer['suite']}, which has {there} of {name}",
                f"{name} {'' if pattern == '*' else pattern}".strip(),
                f"correct {program}_version or the source" + kernel_instead(program),
            )


def directory_problems(
    program: str,
    source: Source,
    names: Sequence[str],
    pattern: str,
    available: Mapping[str, Any],
    files: Mapping[str, Sequence[str]],
) -> Iterator[Problem]:
    """A directory on the controller that lacks what is wanted."""
    variable = f"{program}_package_source.path"
    architectures = (available["architecture"], "all")
    path = source.get("path")
    if not path:
        yield problem(variable, "nothing", "a directory of .deb files on the controller", "set it")
        return
    if not files.get(program):
        found = f"{path}, where there is no .deb file"
        yield problem(
            variable, found, "a directory of .deb files on the controller", "put them there, or correct it"
        )
        return
    split = [name.removesuffix(".deb").split("_") for name in files[program]]
    there = {(parts[0], parts[1]) for parts in split if len(parts) == 3 and parts[2] in architectures}
    lacking = [name for name in names if not any(had == name and matches(v, pattern) for had, v in there)]
    if lacking:
        yield problem(
            variable,
            f"{path}, which lacks {', '.join(lacking)}",
            f"{' '.join(filter(None, (program, '' if pattern == '*' else pattern)))} for {architectures[0]}",
            f"put the files NAME_VERSION_{architectures[0]}.deb there",
        )


def confirmed_advertisement(
    source: Source, available: Mapping[str, Any], files: Mapping[str, Sequence[str]]
) -> list[Problem]:
    """FRR reads confirmations since 8.5; 10.3 looks them up in the wrong table, which 10.4 mended."""
    version = frr_version(source, available, files)
    release = re.match(r"(\d+)\.(\d+)", version.rpartition(":")[2]) if version else None
    if not release:
        return []
    number = (int(release[1]), int(release[2]))
    if (8, 5) <= number < (10, 3) or number >= (10, 4):
        return []
    return [
        problem(
            "router_confirmed_advertisement",
            f"true with FRR {version}",
            "FRR 8.5 to 10.2, or 10.4 and later: others cannot read confirmations",
            "name a source with such a version in frr_package_source, or set it to false",
        )
    ]


def frr_version(
    source: Source, available: Mapping[str, Any], files: Mapping[str, Sequence[str]]
) -> str | None:
    """Version of FRR the host has or will get; None when it cannot be told."""
    if "frr" in available["installed"]:
        return str(available["installed"]["frr"])
    if source.get("kind") == "directory":
        versions = [name.split("_")[1] for name in files.get("frr", []) if name.startswith("frr_")]
        return versions[-1] if versions else None
    if source.get("kind") == "repository":
        url = str(source.get("url", "")).rstrip("/")
        answers = (
            entry["versions"].get("frr", []) for entry in available["repositories"] if entry["url"] == url
        )
        offered: list[str] = next(answers, [])
        return max(offered, key=release_numbers, default=None)
    candidate = available["candidates"].get("frr")
    return str(candidate) if candidate else None


def release_numbers(version: str) -> tuple[int, ...]:
    """Numbers of a version, for comparison of releases: "10.4.1-1~deb13u1" is (10, 4, 1, 1, 13, 1)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.rpartition(":")[2]))


def matches(version: str, pattern: str) -> bool:
    """Whether a version, without its epoch, is the one wanted (shell wildcards)."""
    return fnmatch.fnmatchcase(version.rpartition(":")[2], pattern)


def kernel_instead(program: str) -> str:
    """The way without VPP."""
    return ", or set router_forwarding: kernel" if program == "vpp" else ""


def problem(variable: str, found: str, expected: str, remedy: str) -> Problem:
    """A line of the report."""
    return {"variable": variable, "found": found, "expected": expected, "remedy": remedy}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Any]:
        """Filters by name."""
        return {
            "preflight_packages": preflight_packages,
            "preflight_package_files": preflight_package_files,
            "preflight_package_names": preflight_package_names,
            "preflight_repositories": preflight_repositories,
        }
