#!/usr/bin/python
"""Ansible module: versions of packages that are installed, installable, or in further repositories.

One remote call; installs nothing, adds no repository, updates no list. Repositories are asked by apt's own
downloader, so that proxies and certificates are those that an installation would use.
"""

# Copyright: the authors. Apache License 2.0 (see LICENSE).
from __future__ import annotations

import gzip
import lzma
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: package_versions
short_description: Versions of packages that are installed, installable, or in a repository
description:
  - Reads dpkg's and apt's records and asks repositories for their lists; changes nothing.
options:
  packages:
    description: Names of packages.
    type: list
    elements: str
    required: true
  repositories:
    description: Repositories the host need not know yet.
    type: list
    elements: dict
    default: []
    suboptions:
      url:
        description: Where it is.
        type: str
        required: true
      suite:
        description: Suite, for example C(trixie); a directory with a slash at its end in a flat repository.
        type: str
        required: true
      components:
        description: Components; none in a flat repository.
        type: list
        elements: str
        default: []
  timeout:
    description: Seconds a repository may take to answer.
    type: int
    default: 20
author:
  - the authors
"""

RETURN = r"""
architecture:
  description: Debian's name of the host's architecture.
  type: str
  returned: success
installed:
  description: Version by package, of those that are installed.
  type: dict
  returned: success
candidates:
  description: Version by package that apt would install now, of those it knows.
  type: dict
  returned: success
lists:
  description: Whether apt has any package lists.
  type: bool
  returned: success
repositories:
  description: For each repository {url, suite, error, versions}; error is empty when it answered, versions is
    {package [version]}.
  type: list
  elements: dict
  returned: success
"""

APT_HELPER = "/usr/lib/apt/apt-helper"

#: Runs a command; returns exit status, standard output, standard error.
Runner = Callable[[Sequence[str], int], tuple[int, str, str]]


def run_command(command: Sequence[str], timeout: int) -> tuple[int, str, str]:
    """Run a command in the C locale; a status that is not 0 when it cannot be run or is too slow."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout, env=environment
        )
    except subprocess.TimeoutExpired:
        return 124, "", f"no answer within {timeout} s"
    except OSError as error:
        return 127, "", str(error)
    return done.returncode, done.stdout, done.stderr


def parse_installed(output: str) -> dict[str, str]:
    """{package: version} of lines "package version status" of dpkg-query(1)."""
    words = [line.split() for line in output.splitlines()]
    return {entry[0]: entry[1] for entry in words if len(entry) == 3 and entry[2] == "installed"}


def parse_policy(output: str) -> dict[str, str]:
    """{package: candidate} of `apt-cache policy PACKAGE...`; those without a candidate are left out."""
    candidates: dict[str, str] = {}
    package = ""
    for line in output.splitlines():
        if line and not line[0].isspace() and line.endswith(":"):
            package = line[:-1].partition(":")[0]
        found = re.match(r"\s+Candidate: (\S+)", line)
        if found and found[1] != "(none)":
            candidates[package] = found[1]
    return candidates


def parse_packages(text: str, wanted: Sequence[str]) -> dict[str, list[str]]:
    """{package: [version]} of the wanted packages in a Packages file (deb822(5)), in the file's order."""
    versions: dict[str, list[str]] = {}
    # A distribution has 60,000 stanzas: only those of the wanted packages are looked into.
    first = re.compile(rf"^Package: ({'|'.join(map(re.escape, wanted))})$", re.MULTILINE)
    for start in first.finditer(text):
        end = text.find("\n\n", start.end())
        version = re.search(r"^Version: (\S+)$", text[start.end() : end if end >= 0 else None], re.MULTILINE)
        if version:
            versions.setdefault(start[1], []).append(version[1])
    return versions


def failure(output: str) -> str:
    """What apt's downloader says went wrong, in one line."""
    errors = [line.removeprefix("E: ") for line in output.splitlines() if line.startswith("E: ")]
    telling = [line for line in errors if "Download Failed" not in line]
    return " ".join((telling or errors or [output.strip() or "no answer"])[0].split())


class Repository:
    """A repository of Debian packages, at a distance."""

    def __init__(self, url: str, suite: str, components: Sequence[str], *, timeout: int, run: Runner) -> None:
        self.url = url.rstrip("/")
        self.suite = suite
        self.components = components
        self.timeout = timeout
        self.run = run

    @property
    def base(self) -> str:
        """Where the suite's release file is."""
        flat = self.suite.endswith("/")
        return f"{self.url}/{self.suite.strip('/')}".rstrip("/") if flat else f"{self.url}/dists/{self.suite}"

    def ask(self, packages: Sequence[str], architecture: str) -> dict[str, Any]:
        """{url, suite, error, versions}; see RETURN."""
        answer: dict[str, Any] = {"url": self.url, "suite": self.suite, "error": "", "versions": {}}
        with tempfile.TemporaryDirectory(prefix="package-versions-") as directory:
            target = Path(directory) / "file"
            answer["error"] = self.first(target, ["InRelease", "Release"])
            if answer["error"]:
                return answer
            for part in self.indexes(architecture):
                error = self.first(target, [f"{part}.xz", f"{part}.gz", part])
                if error:
                    answer["error"] = error
                    return answer
                for package, versions in parse_packages(unpacked(target), packages).items():
                    answer["versions"].setdefault(package, []).extend(versions)
        return answer

    def indexes(self, architecture: str) -> list[str]:
        """Where below `base` the packages are listed."""
        if self.suite.endswith("/"):
            return ["Packages"]
        return [f"{component}/binary-{architecture}/Packages" for component in self.components]

    def first(self, target: Path, names: Sequence[str]) -> str:
        """Fetch the first of `names` that is there; returns what went wrong when none is."""
        options = [
            "-o", f"Acquire::http::Timeout={self.timeout}",
            "-o", f"Acquire::https::Timeout={self.timeout}",
            "-o", "Acquire::Retries=0",
        ]  # fmt: skip
        errors = []
        for name in names:
            target.unlink(missing_ok=True)
            command = [APT_HELPER, *options, "download-file", f"{self.base}/{name}", str(target)]
            status, output, error = self.run(command, 2 * self.timeout)
            if status == 0 and target.is_file():
                return ""
            errors.append(failure(error or output))
            # Only a file that is not there is worth asking for by another name.
            if "404" not in errors[-1] and "File not found" not in errors[-1]:
                break
        return errors[0]


def unpacked(path: Path) -> str:
    """Text of a file that may be compressed, by its first bytes."""
    content = path.read_bytes()
    if content.startswith(b"\xfd7zXZ"):
        content = lzma.decompress(content)
    elif content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    return content.decode("utf-8", errors="replace")


def read(
    packages: Sequence[str],
    repositories: Sequence[dict[str, Any]],
    timeout: int,
    *,
    root: Path = Path("/"),
    run: Runner = run_command,
) -> dict[str, Any]:
    """Everything RETURN describes."""
    architecture = run(["dpkg", "--print-architecture"], timeout)[1].strip()
    show = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${db:Status-Status}\\n", *packages]
    asked = [
        Repository(entry["url"], entry["suite"], entry.get("components") or [], timeout=timeout, run=run)
        for entry in repositories
    ]
    return {
        "architecture": architecture,
        # dpkg-query ends with 1 when a package is unknown, and shows the others.
        "installed": parse_installed(run(show, timeout)[1]),
        "candidates": parse_policy(run(["apt-cache", "policy", *packages], 3 * timeout)[1]),
        "lists": any(root.glob("var/lib/apt/lists/*_Packages*")),
        "repositories": [repository.ask(packages, architecture) for repository in asked],
    }


def main() -> None:
    """Entry point of the module."""
    repository = {
        "url": {"type": "str", "required": True},
        "suite": {"type": "str", "required": True},
        "components": {"type": "list", "elements": "str", "default": []},
    }
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "repositories": {"type": "list", "elements": "dict", "default": [], "options": repository},
            "timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    params = module.params
    module.exit_json(changed=False, **read(params["packages"], params["repositories"], params["timeout"]))


if __name__ == "__main__":
    main()
