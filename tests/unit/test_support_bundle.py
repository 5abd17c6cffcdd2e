"""The bundle as a whole: made whatever is broken, complete by its manifest, and never with a secret in it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
import tarfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from router_agent.cli import app
from router_agent.support import bundle, contents
from router_agent.support.bundle import BundleError, make
from router_agent.support.collect import Collector
from router_agent.support.contents import Host, collectors
from router_agent.support.redact import Secrets

FRR = """\
hostname ams1-r1
router bgp 64500
 neighbor 192.0.2.1 remote-as 64501
 neighbor 192.0.2.1 password s3cret of transit
"""
EXABGP = 'neighbor 192.0.2.9 {\n    md5-password "Tr0ub4dor&3";\n    peer-as 64502;\n}\n'


@pytest.fixture
def broken(tmp_path: Path) -> Host:
    """A host with files, and nothing that runs."""
    root = tmp_path / "root"
    for name, text in {
        "etc/frr/frr.conf": FRR,
        "etc/frr/frr.conf.sav": FRR.replace("s3cret of transit", "the former one"),
        "etc/exabgp/exabgp.conf": EXABGP,
        "etc/snmp/snmpd.conf": "rocommunity qwertz77 192.0.2.0/24\n",
        "etc/router-agent/agent.yaml": "pipelines: nonsense\n",
        "proc/cmdline": "BOOT_IMAGE=/vmlinuz quiet\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Host(
        root=root,
        config=root / "etc/router-agent/agent.yaml",
        socket=tmp_path / "no.sock",
        vtysh=(str(tmp_path / "no-vtysh"),),
    )


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        found = {}
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            assert entry.mode == 0o600
            found[entry.name.partition("/")[2]] = file.read()
        return found


def manifest_of(found: dict[str, bytes]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(found["manifest.json"])
    return content


def few(monkeypatch: pytest.MonkeyPatch, *chosen: Collector) -> None:
    """Collect these besides the configuration, instead of everything."""
    configurations = contents._configurations

    def collected(host: Host, since: str) -> list[Collector]:
        return [*configurations(host), *chosen]

    monkeypatch.setattr(bundle, "collectors", collected)


def test_a_bundle_is_made_when_everything_is_broken(broken: Host, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    done = make(path, broken, since="-1h")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = members(path)
    manifest = manifest_of(found)
    assert manifest["schema"] == "router-agent/support-bundle/1"
    lines = {line["name"]: line for line in manifest["members"]}
    assert len(lines) == len(done) > 80
    assert set(found) - {"manifest.json"} == {name for name, line in lines.items() if line["sha256"]}
    for name, line in lines.items():
        if line["sha256"]:
            assert (sha256(found[name]).hexdigest(), len(found[name])) == (line["sha256"], line["bytes"])
        else:
            assert line["problem"], name
    assert lines["frr/running-config.txt"]["problem"].startswith("there is no program ")
    assert "is the agent running" in lines["agent/status.json"]["problem"]
    assert "there is no" in lines["vpp/errors.txt"]["problem"] or lines["vpp/errors.txt"]["exit"]
    assert found["machine/cmdline.txt"] == b"BOOT_IMAGE=/vmlinuz quiet\n"
    assert list(tmp_path.glob(".bundle*")) == []


def test_no_secret_is_in_it_nor_of_files_that_are_not_in_it(
    broken: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "was: the former one; now s3cret of transit, Tr0ub4dor&3 and qwertz77 " + json.dumps(
        {"p": "Tr0ub4dor&3"}
    )
    few(
        monkeypatch,
        Collector("said.txt", ("echo", said)),
        Collector("complained.txt", ("sh", "-c", f"echo '{said}' >&2; exit 1")),
    )
    path = tmp_path / "bundle.tar.gz"
    make(path, broken)
    found = members(path)
    assert set(found) >= {
        "said.txt",
        "configuration/etc/frr/frr.conf",
        "configuration/etc/exabgp/exabgp.conf",
    }
    assert "complained.txt" not in found
    everything = b"".join(found.values())
    for secret in (b"s3cret of transit", b"the former one", b"Tr0ub4dor", b"qwertz77"):
        assert secret not in everything
    assert b" neighbor 192.0.2.1 password <removed>\n" in found["configuration/etc/frr/frr.conf"]
    assert b"peer-as 64502;" in found["configuration/etc/exabgp/exabgp.conf"]
    assert manifest_of(found)["secrets_removed"] >= 4


def test_a_bundle_with_a_secret_in_it_is_not_written(
    broken: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, Collector("said.txt", ("echo", "it is Tr0ub4dor&3")))
    monkeypatch.setattr(Secrets, "redact", lambda self, text, *, configuration=False: text)
    path = tmp_path / "bundle.tar.gz"
    with pytest.raises(BundleError, match="nothing was written") as caught:
        make(path, broken)
    assert "said.txt" in str(caught.value)
    assert "Tr0ub4dor" not in str(caught.value)
    assert list(tmp_path.glob("*.tar.gz")) + list(tmp_path.glob(".bundle*")) == []


def test_nothing_is_overwritten(broken: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch)
    path = tmp_path / "bundle.tar.gz"
    path.write_text("mine")
    with pytest.raises(BundleError, match="exists already"):
        make(path, broken)
    with pytest.raises(BundleError, match="No such file or directory"):
        make(tmp_path / "none" / "bundle.tar.gz", broken)
    assert path.read_text() == "mine"


def test_who_does_not_answer_is_not_asked_again(
    broken: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleeper = ("sleep", "600")
    few(
        monkeypatch,
        Collector("first.txt", sleeper, seconds=0.2, asks="vpp"),
        Collector("second.txt", sleeper, seconds=0.2, asks="vpp"),
        Collector("other.txt", ("echo", "here"), asks="FRR"),
    )
    path = tmp_path / "bundle.tar.gz"
    done = {member.name: member for member in make(path, broken)}
    assert done["first.txt"].problem == "did not end within 0.2 s"
    assert done["second.txt"].problem == "not asked: vpp did not answer before"
    assert members(path)["other.txt"] == b"here\n"


def test_a_bundle_has_an_end(broken: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MOST_BYTES", 1 << 10)
    few(
        monkeypatch,
        Collector("much.txt", ("head", "-c", "4096", "/dev/zero")),
        Collector("late.txt", ("echo", "x")),
    )
    done = {member.name: member for member in make(tmp_path / "bundle.tar.gz", broken)}
    assert done["much.txt"].size == 4096
    assert (done["late.txt"].sha256, done["late.txt"].problem) == (
        None,
        "left out: the bundle has 0 MiB already",
    )


def test_absent_routes_are_explained(broken: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "\n".join(json.dumps({"prefix": f"192.0.2.{n}/32"}) for n in range(5))
    few(monkeypatch, Collector("agent/routes-absent.jsonl", ("echo", rows)))
    host = Host(
        root=broken.root,
        config=broken.config,
        agent=("echo", "agent"),
        prefixes=("198.51.100.0/24",),
        vtysh=("vtysh", "-N", "x"),
    )
    make(tmp_path / "bundle.tar.gz", host)
    found = members(tmp_path / "bundle.tar.gz")
    said = [found[f"agent/explain-{n}.txt"].decode() for n in range(1, 5)]
    assert said[0] == "agent explain 198.51.100.0/24 --vtysh vtysh -N x\n"
    assert [words.split()[2] for words in said[1:]] == ["192.0.2.0/32", "192.0.2.1/32", "192.0.2.2/32"]


def test_what_is_collected_disturbs_nothing(broken: Host) -> None:
    """No table is printed, nothing is cleared or written, and names are told apart."""
    found = list(collectors(broken, "-1h"))
    names = [collector.member for collector in found]
    assert len(set(names)) == len(names)
    commands = [" ".join(collector.command) for collector in found]
    for command in commands:
        assert " fib" not in command or command.endswith(("fib summary", "fib walk"))
        unwanted = ("clear", "set", "reset", "restart", "trace", "resync", "--now")
        assert not any(word in command.split() for word in unwanted)
        assert not any(
            words in command for words in ("audit --full", "route json", "bgp json", "event-logger")
        )
    assert all(collector.seconds <= 60 and collector.most <= 16 << 20 for collector in found)


def test_the_list_says_what_would_be_collected(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["support-bundle", "--list", "--config", str(tmp_path / "none")])
    assert result.exit_code == 0
    assert "vpp/errors.txt" in result.stdout
    assert "vppctl -s /run/vpp/cli.sock show errors" in result.stdout
    lines = CliRunner().invoke(
        app, ["support-bundle", "--list", "--json", "--config", str(tmp_path / "none")]
    )
    rows = [json.loads(line) for line in lines.stdout.splitlines()]
    assert {"name": "agent/version.txt", "seconds": 15.0, "bytes": 2 << 20}.items() <= next(
        row for row in rows if row["name"] == "agent/version.txt"
    ).items()
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_writes_one_and_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    report = tmp_path / "report.json"
    report.write_text('{"verdict": "PASS", "api_key": "k3y-of-the-day"}')
    command = [sys.executable, "-m", "router_agent.cli", "support-bundle", "--output", str(path)]
    command += [
        "--socket",
        str(tmp_path / "none"),
        "--vtysh",
        str(tmp_path / "no-vtysh"),
        "--include",
        str(report),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
    assert (done.returncode, done.stderr) == (0, "")
    assert "could not be had" in done.stdout
    found = members(path)
    assert b"k3y-of-the-day" not in b"".join(found.values())
    assert b'"verdict": "PASS"' in found["further/1-report.json"]
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert again.returncode == 4
    assert "exists already" in again.stderr


def test_a_disk_that_returns_other_bytes_is_noticed(
    broken: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few(monkeypatch, Collector("said.txt", ("echo", "x")))
    add = bundle._add

    def wrong(tar: tarfile.TarFile, name: str, content: bytes) -> None:
        add(tar, name, b"?" + content[1:] if name.endswith("said.txt") else content)

    monkeypatch.setattr(bundle, "_add", wrong)
    with pytest.raises(BundleError, match="the disk may be failing"):
        make(tmp_path / "bundle.tar.gz", broken)
    assert not (tmp_path / "bundle.tar.gz").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["root"]
