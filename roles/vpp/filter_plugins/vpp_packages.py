# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: which Debian packages are wanted and missing, and whose key signs a repository."""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

_PUBLIC_KEY_TAG = 6


def deb_files(directory: str, packages: Sequence[str], version: str = "*") -> list[dict[str, str]]:
    """The .deb files of a directory on the controller that hold `packages`.

    A file's name says what it holds: PACKAGE_VERSION_ARCHITECTURE.deb (deb(5), dpkg-name(1)), without the
    epoch.

    Args:
        directory: where the files are.
        packages: names of packages.
        version: the version wanted, with shell wildcards.

    Returns:
        [{package, version, architecture, path}] in the order of `packages`.

    Raises:
        AnsibleFilterError: the directory is none, or a package is not in it or in several versions.
    """
    where = Path(directory).expanduser()
    if not where.is_dir():
        raise AnsibleFilterError(
            f"vpp_package_source.path: found {directory!r}, expected a directory of .deb files on the "
            "controller"
        )
    found: dict[str, list[dict[str, str]]] = {}
    for path in sorted(where.glob("*.deb")):
        parts = path.stem.split("_")
        if len(parts) != 3 or not fnmatch.fnmatchcase(parts[1], version):
            continue
        entry = {"package": parts[0], "version": parts[1], "architecture": parts[2], "path": str(path)}
        found.setdefault(parts[0], []).append(entry)
    for package in packages:
        count = len(found.get(package, []))
        if count != 1:
            there = ", ".join(path.name for path in sorted(where.glob("*.deb"))) or "no .deb file"
            raise AnsibleFilterError(
                f"vpp_package_source.path: found {count} files of {package} {version} in {directory}, "
                f"expected one (vpp_packages, vpp_version); there is {there}"
            )
    return [found[package][0] for package in packages]


def deb_digest(files: Iterable[Mapping[str, str]]) -> str:
    """A digest of the files' names and content, 16 hexadecimal digits: names an archive of them.

    Args:
        files: what `deb_files` returned.
    """
    digest = hashlib.sha256()
    for file in files:
        path = Path(file["path"])
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def missing_packages(installed: Iterable[str], wanted: Mapping[str, str]) -> list[str]:
    """Packages that are not installed in the version wanted.

    Args:
        installed: lines of dpkg-query, each with Package, Version and db:Status-Status.
        wanted: package to version, with shell wildcards and without the epoch.

    Returns:
        their names, in the order of `wanted`.
    """
    versions: dict[str, str] = {}
    for line in installed:
        words = line.split()
        if len(words) == 3 and words[2] == "installed":
            versions[words[0]] = words[1].split(":", 1)[-1]
    return [
        package
        for package, version in wanted.items()
        if package not in versions or not fnmatch.fnmatchcase(versions[package], version)
    ]


def openpgp_fingerprint(key: str) -> str:
    """The fingerprint of the first public key in an armoured OpenPGP file, 40 hexadecimal digits.

    RFC 4880, 6.2 (armour), 4.2 (packets) and 12.2 (a version 4 fingerprint: SHA-1 over 0x99, the length in
    two bytes and the packet).

    Raises:
        AnsibleFilterError: it is not armoured, or holds no version 4 public key.
    """
    packet = _first_packet(_dearmoured(key))
    if packet[:1] != b"\x04":
        raise AnsibleFilterError(f"found an OpenPGP key of version {packet[:1].hex()}, expected version 4")
    digest = hashlib.sha1(b"\x99" + len(packet).to_bytes(2, "big") + packet, usedforsecurity=False)
    return digest.hexdigest().upper()


def _dearmoured(key: str) -> bytes:
    lines = [line.strip() for line in key.splitlines()]
    try:
        start = lines.index("-----BEGIN PGP PUBLIC KEY BLOCK-----")
        end = lines.index("-----END PGP PUBLIC KEY BLOCK-----", start)
    except ValueError:
        raise AnsibleFilterError(
            f"found {key[:40]!r}, expected an armoured OpenPGP key (-----BEGIN PGP PUBLIC KEY BLOCK-----)"
        ) from None
    body = lines[start + 1 : end]
    while body and (not body[0] or ":" in body[0]):
        body.pop(0)
    try:
        return base64.b64decode("".join(line for line in body if not line.startswith("=")), validate=True)
    except binascii.Error as error:
        raise AnsibleFilterError(f"found a broken OpenPGP armour ({error}), expected base64") from error


def _first_packet(data: bytes) -> bytes:
    if len(data) < 6 or not data[0] & 0x80:
        raise AnsibleFilterError("found no OpenPGP packet, expected a public key")
    if data[0] & 0x40:
        tag, length, start = data[0] & 0x3F, data[1], 2
        if 192 <= data[1] < 224:
            length, start = ((data[1] - 192) << 8) + data[2] + 192, 3
        elif data[1] == 255:
            length, start = int.from_bytes(data[2:6], "big"), 6
    else:
        tag, size = (data[0] >> 2) & 0x0F, 1 << (data[0] & 0x03)
        length, start = int.from_bytes(data[1 : 1 + size], "big"), 1 + size
    if tag != _PUBLIC_KEY_TAG or start + length > len(data):
        raise AnsibleFilterError(
            f"found an OpenPGP packet with tag {tag}, expected a public key ({_PUBLIC_KEY_TAG})"
        )
    return data[start : start + length]


class FilterModule:
    """Filters of role vpp."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name of each filter and its function."""
        return {
            "deb_digest": deb_digest,
            "deb_files": deb_files,
            "missing_packages": missing_packages,
            "openpgp_fingerprint": openpgp_fingerprint,
        }
