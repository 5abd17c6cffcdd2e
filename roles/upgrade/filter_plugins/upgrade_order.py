# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: what a rollout changes, and in which batches, never two routers of a POP in one."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

COMPONENTS = ("kernel", "vpp", "frr", "exabgp", "router_agent", "configuration")
"""What can be changed, in the order in which it is: a kernel that does not boot ends a turn before the rest
is touched, and the rest comes up once on the kernel that stays."""


def upgrade_batches(pops: Mapping[str, str], serial: Sequence[int | str]) -> list[list[str]]:
    """Divide hosts into the batches of a rollout: all of them, each once, never two of one POP in a batch.

    Hosts come by their number within their POP, then by name: so the first ones of all POPs come before the
    second ones. A batch takes as many as its size allows and skips hosts whose POP it already has.

    Args:
        pops: host to the name of its POP.
        serial: sizes of the batches as Ansible writes them, numbers or percentages of all hosts; the last
            one is that of all further batches.

    Raises:
        AnsibleFilterError: a size is none.
    """
    sizes = [_size(value, len(pops)) for value in serial]
    if not sizes:
        raise AnsibleFilterError("upgrade_serial: found no size, expected for example [1, '25%', '100%']")
    waiting = _in_order(pops)
    batches: list[list[str]] = []
    while waiting:
        size = sizes[min(len(batches), len(sizes) - 1)]
        batch: list[str] = []
        for host in waiting:
            if len(batch) < size and pops[host] not in {pops[other] for other in batch}:
                batch.append(host)
        waiting = [host for host in waiting if host not in batch]
        batches.append(batch)
    return batches


def upgrade_components(wanted: str | Iterable[str]) -> list[str]:
    """Return the components asked for, in the order in which they are changed.

    Args:
        wanted: a list, or words with commas between them.

    Raises:
        AnsibleFilterError: none is named, or one that there is not.
    """
    names = wanted.split(",") if isinstance(wanted, str) else list(wanted)
    words = {str(name).strip() for name in names} - {""}
    unknown = sorted(words - set(COMPONENTS))
    if unknown or not words:
        raise AnsibleFilterError(
            f"upgrade_components: found {', '.join(unknown) or 'none'}, expected some of "
            f"{', '.join(COMPONENTS)}: -e upgrade_components=frr,router_agent"
        )
    return [name for name in COMPONENTS if name in words]


def upgrade_versions(wanted: str | Mapping[str, Any]) -> dict[str, str]:
    """Return component to version.

    Args:
        wanted: a mapping, or words such as ``frr=10.3-3,vpp=26.06-release``.

    Raises:
        AnsibleFilterError: a component that there is not, or one without a version.
    """
    pairs: Iterable[tuple[str, Any]]
    if isinstance(wanted, str):
        pairs = [(name, version) for name, _, version in (w.partition("=") for w in wanted.split(",") if w)]
    else:
        pairs = wanted.items()
    versions = {str(name).strip(): str(version).strip() for name, version in pairs}
    for name, version in versions.items():
        if name not in COMPONENTS or name == "configuration" or not version:
            raise AnsibleFilterError(
                f"upgrade_versions: found {name}={version}, expected a version of some of "
                f"{', '.join(COMPONENTS[:-1])}: -e upgrade_versions=frr=10.3-3,vpp=26.06-release"
            )
        if re.search(r"[*?\[\s]", version):
            raise AnsibleFilterError(
                f"upgrade_versions.{name}: found {version!r}, expected one exact version without wildcards: "
                "routers of one rollout must not differ"
            )
    return versions


def upgrade_words(components: Iterable[str], versions: Mapping[str, str]) -> str:
    """Return what is rolled out, in words: ``frr 10.3-3, router_agent``."""
    return ", ".join(f"{name} {versions.get(name, '')}".strip() for name in components)


def upgrade_allowed(version: str, pattern: str) -> bool:
    """Tell whether a version of the inventory, with shell wildcards, allows an exact one, or none."""
    return not version or fnmatch.fnmatchcase(version.rpartition(":")[2], pattern)


def upgrade_exact(pattern: str) -> str:
    """Return a version of the inventory when it is exact, and nothing when it has wildcards."""
    return "" if re.search(r"[*?\[]", pattern) else pattern


def _size(value: int | str, hosts: int) -> int:
    """Return a size as Ansible counts it: a percentage is rounded down, and at least 1."""
    text = str(value).strip()
    percent = re.fullmatch(r"(\d+)%", text)
    if percent and int(percent[1]) > 0:
        return max(1, hosts * int(percent[1]) // 100)
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise AnsibleFilterError(f"upgrade_serial: found {value!r}, expected a number above 0 or a percentage")


def _in_order(pops: Mapping[str, str]) -> list[str]:
    number: dict[str, int] = {}
    members: dict[str, int] = {}
    by_name = sorted(pops, key=lambda host: (_natural(host), host))
    for host in by_name:
        number[host] = members.get(pops[host], 0)
        members[pops[host]] = number[host] + 1
    return sorted(by_name, key=lambda host: number[host])


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sort key by which r9 comes before r10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(0, int(part), "") if part.isascii() and part.isdigit() else (1, 0, part) for part in parts]


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "upgrade_allowed": upgrade_allowed,
            "upgrade_batches": upgrade_batches,
            "upgrade_components": upgrade_components,
            "upgrade_exact": upgrade_exact,
            "upgrade_versions": upgrade_versions,
            "upgrade_words": upgrade_words,
        }
