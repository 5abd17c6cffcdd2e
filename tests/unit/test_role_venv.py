"""Environments out of lock files: what is chosen for a host, and that a bad one never replaces a good one."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from offline_venv import Target, WheelhouseError, archive, plan, read_lock
from venv_from_archive import (
    InstallError,
    contents,
    current_version,
    is_complete,
    link_commands,
    make,
    missing_commands,
    put_in_place,
    remove_others,
    version_path,
)

LOCK = """\
# made by uv
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via router-agent
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:bb
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:cc
Typing_Extensions==4.16.0 \\
    --hash=sha256:dd
"""
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


def wheel(directory: Path, name: str, version: str, code: str) -> Path:
    """Write a wheel with one module and the program NAME, which runs its main()."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name} = {name}:main\n",
    }
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        record = ""
        for member, text in files.items():
            file.writestr(member, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
            record += f"{member},sha256={digest},{len(text)}\n"
        file.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")
    return path


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        (
            "3.11",
            ["numpy==2.4.6 --hash=sha256:aa --hash=sha256:ab", "typing-extensions==4.16.0 --hash=sha256:dd"],
        ),
        ("3.13", ["numpy==2.5.5 --hash=sha256:bb", "typing-extensions==4.16.0 --hash=sha256:dd"]),
    ],
)
def test_markers_are_those_of_the_host_and_not_of_the_controller(
    python: str, expected: list[str], tmp_path: Path
) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(LOCK)
    assert [pin.line for pin in read_lock(lock, Target(python, "x86_64"))] == expected


@pytest.mark.parametrize("line", ["numpy>=2 --hash=sha256:aa", "numpy==2.4.6", "numpy=2", "-r other.txt"])
def test_what_is_not_pinned_is_refused(line: str, tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(f"{line}\n")
    with pytest.raises(WheelhouseError, match=f"{lock}: found .* expected"):
        read_lock(lock, Target("3.13", "x86_64"))


def test_everything_an_environment_is_made_of_is_in_its_digest(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(LOCK)
    own = wheel(tmp_path, "own", "1.0", "")
    base = plan(Target("3.13", "x86_64"), lock, [own]).digest
    assert plan(Target("3.13", "x86_64"), lock, [own]).digest == base
    others = {
        plan(Target("3.12", "x86_64"), lock, [own]).digest,
        plan(Target("3.13", "aarch64"), lock, [own]).digest,
        plan(Target("3.13", "x86_64"), lock, []).digest,
    }
    lock.write_text(LOCK.replace("sha256:dd", "sha256:de"))
    others.add(plan(Target("3.13", "x86_64"), lock, [own]).digest)
    lock.write_text(LOCK)
    wheel(tmp_path, "own", "1.0", "changed = True\n")
    others.add(plan(Target("3.13", "x86_64"), lock, [own]).digest)
    assert len(others | {base}) == 6


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that pip takes wheels from, and nothing else."""
    directory = tmp_path / "index"
    directory.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(directory))
    return directory


def lock_of(path: Path, *wheels: Path) -> Path:
    lines = []
    for file in wheels:
        name, version = file.name.split("-")[:2]
        lines.append(f"{name}=={version} --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n")
    path.write_text("".join(lines))
    return path


def install(tmp_path: Path, lock: Path, local: Path, *imports: str) -> Path:
    """Do what the action and the module do, on this machine, and return the environment's path."""
    wheelhouse = plan(Target(THIS, os.uname().machine), lock, [local])
    packed = archive(wheelhouse, tmp_path / "cache")
    link = tmp_path / "opt" / "program"
    link.parent.mkdir(exist_ok=True)
    version, previous = version_path(link, wheelhouse.digest), current_version(link)
    make(version, packed, sys.executable, THIS, wheelhouse.installed, imports)
    put_in_place(link, version)
    remove_others(link, [version, previous or version])
    return link


def says(link: Path) -> str:
    done = subprocess.run([link / "bin" / "own"], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def test_an_environment_is_made_without_an_index_and_its_programs_run(tmp_path: Path, index: Path) -> None:
    needed = wheel(index, "needed", "2.0", "WORD = 'forty-two'\n")
    code = "import needed\ndef main():\n    print(needed.WORD)\n"
    link = install(tmp_path, lock_of(tmp_path / "lock", needed), wheel(tmp_path, "own", "1.0", code), "own")
    assert says(link) == "forty-two"
    assert link.is_symlink()
    version = current_version(link)
    assert version is not None
    assert is_complete(version)
    assert [line.split()[0] for line in contents(version)] == ["needed==2.0", "own==1.0"]


def test_a_wheel_that_is_not_the_pinned_one_is_refused(tmp_path: Path, index: Path) -> None:
    lock = lock_of(tmp_path / "lock", wheel(index, "needed", "2.0", "WORD = 1\n"))
    wheel(index, "needed", "2.0", "WORD = 'of somebody else'\n")
    own = wheel(tmp_path, "own", "1.0", "")
    with pytest.raises(WheelhouseError, match=r"pip download .*HASH"):
        archive(plan(Target(THIS, "x86_64"), lock, [own]), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.tar.gz"))


def test_a_failed_install_leaves_the_old_environment_in_use(tmp_path: Path, index: Path) -> None:
    lock = lock_of(tmp_path / "lock")
    link = install(tmp_path, lock, wheel(tmp_path, "own", "1.0", "def main():\n    print('old')\n"), "own")
    before = current_version(link)
    broken = wheel(tmp_path, "own", "2.0", "import missing_module\n")
    with pytest.raises(InstallError, match="No module named 'missing_module'"):
        install(tmp_path, lock, broken, "own")
    assert current_version(link) == before
    assert says(link) == "old"
    assert [path.name for path in link.parent.iterdir() if path != link] == [before.name if before else ""]


def test_the_former_version_is_kept_and_older_ones_go(tmp_path: Path, index: Path) -> None:
    lock, versions = lock_of(tmp_path / "lock"), []
    other = tmp_path / "opt" / "program-other"
    for number in range(3):
        code = f"def main():\n    print({number})\n"
        link = install(tmp_path, lock, wheel(tmp_path, "own", f"{number}.0", code), "own")
        other.mkdir(exist_ok=True)
        versions.append(current_version(link))
    assert says(link) == "2"
    assert set(link.parent.iterdir()) == {link, other, versions[1], versions[2]}


def test_what_the_kit_did_not_make_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "program").mkdir()
    with pytest.raises(InstallError, match="found a directory that the kit did not make"):
        current_version(tmp_path / "program")


def test_programs_are_linked_once_and_follow_the_environment(tmp_path: Path) -> None:
    link, programs = tmp_path / "tool", tmp_path / "bin"
    for digest in ("1" * 12, "2" * 12):
        (version_path(link, digest) / "bin").mkdir(parents=True)
        (version_path(link, digest) / "bin" / "tool").write_text(digest)
    put_in_place(link, version_path(link, "1" * 12))
    link_commands(missing_commands(link, ["tool"], programs))
    assert (programs / "tool").read_text() == "1" * 12
    assert missing_commands(link, ["tool"], programs) == {}
    put_in_place(link, version_path(link, "2" * 12))
    assert (programs / "tool").read_text() == "2" * 12


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_program_of_somebody_else_is_left_alone(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tool"
    path.write_text("theirs") if kind == "file" else path.symlink_to("/usr/bin/true")
    with pytest.raises(InstallError, match="the kit did not make"):
        missing_commands(tmp_path / "environment", ["tool"], tmp_path)
