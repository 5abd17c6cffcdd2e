"""Copies of a configuration and the way back to them: files only, in a directory of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router_agent.drain.frr import with_shutdown
from router_agent.lastgood import catalogue, durable, frr, ports, restore, rollback
from router_agent.lastgood.catalogue import PARTS, with_further
from router_agent.lastgood.copies import STATE, Copies, Copy, CopyError
from router_agent.lastgood.entries import below
from router_agent.lastgood.pack import packed
from router_agent.lastgood.program import SETTINGS, Program
from router_agent.lastgood.steps import Steps

FRR_CONF = "frr defaults datacenter\nrouter bgp 64500\n neighbor 198.51.100.1 remote-as 64496\nexit\n"
FILES = {
    "/etc/frr/frr.conf": FRR_CONF,
    "/etc/frr/daemons": "bgpd=yes\n",
    "/etc/router-agent/agent.yaml": "pipelines: []\n",
    "/etc/sysctl.d/90-pop-router.conf": "net.ipv4.ip_forward = 1\n",
    "/etc/systemd/network/10-pop-router-lan.network": "[Match]\nName=lan\n",
}
PATTERNS = tuple(pattern for part in PARTS for pattern in part.patterns)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host's files: configuration, a secret, a link."""
    for name, text in FILES.items():
        path = below(tmp_path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    below(tmp_path, "/etc/frr/frr.conf").chmod(0o640)
    secret = below(tmp_path, "/etc/exabgp/exabgp.conf")
    secret.parent.mkdir()
    secret.write_text("md5-password hidden;\n")
    secret.chmod(0o600)
    below(tmp_path, "/opt/router-agent-0123456789ab").mkdir(parents=True)
    below(tmp_path, "/opt/router-agent-ba9876543210").mkdir()
    below(tmp_path, "/opt/router-agent").symlink_to("router-agent-0123456789ab")
    return tmp_path


@pytest.fixture
def copies(root: Path) -> Copies:
    return Copies(root)


def save(copies: Copies) -> Copy:
    return copies.save(PATTERNS, {}, taken="2026-01-01T00:00:00+00:00", reason="a test")


def state(root: Path) -> dict[str, tuple[str, int]]:
    """Return every file and link outside of the copies: what is in it, and its mode."""
    return {
        str(path.relative_to(root)): (
            (str(path.readlink()), 0) if path.is_symlink() else (path.read_text(), path.stat().st_mode)
        )
        for path in root.rglob("*")
        if (path.is_symlink() or path.is_file()) and not path.is_relative_to(below(root, STATE))
    }


def change(root: Path) -> None:
    """What a bad change may do: alter, empty, remove, add, another mode, another link."""
    below(root, "/etc/frr/frr.conf").write_text("router bgp 64500\n no such line\n")
    below(root, "/etc/frr/daemons").write_text("")
    below(root, "/etc/router-agent/agent.yaml").unlink()
    below(root, "/etc/exabgp/exabgp.conf").chmod(0o644)
    below(root, "/etc/systemd/network/10-pop-router-mgmt.network").write_text("[Match]\nName=mgmt\n")
    below(root, "/opt/router-agent").unlink()
    below(root, "/opt/router-agent").symlink_to("router-agent-ba9876543210")


def put_everything_back(copies: Copies, copy: Copy, root: Path) -> rollback.Outcome:
    """Go back as at boot, when nothing runs that would have to be told."""
    return rollback.go_back(copies, copy, None, PARTS, root, reason="a test", boot=True)


def test_everything_is_as_it_was_kept(root: Path, copies: Copies) -> None:
    before = state(root)
    copy = save(copies)
    change(root)
    assert copies.changed(copy) == [
        "/etc/exabgp/exabgp.conf",
        "/etc/frr/daemons",
        "/etc/frr/frr.conf",
        "/etc/router-agent/agent.yaml",
        "/etc/systemd/network/10-pop-router-mgmt.network",
        "/opt/router-agent",
    ]
    outcome = put_everything_back(copies, copies.load(copy.name), root)
    assert state(root) == before
    assert outcome.faults == []
    assert copies.changed(copy) == []


def test_nothing_is_touched_when_nothing_has_changed(root: Path, copies: Copies) -> None:
    copy = save(copies)
    before = {path: path.stat() for path in root.rglob("*") if not path.is_relative_to(below(root, STATE))}
    assert put_everything_back(copies, copy, root).steps == []
    assert {path: path.stat() for path in before} == before


def test_others_files_are_left_alone(root: Path, copies: Copies) -> None:
    copy = save(copies)
    foreign = [below(root, name) for name in ("/etc/systemd/network/50-mine.network", "/etc/frr/notes")]
    for path in foreign:
        path.write_text("mine\n")
    change(root)
    put_everything_back(copies, copy, root)
    assert [path.read_text() for path in foreign] == ["mine\n", "mine\n"]


def test_a_copy_is_for_root_alone(root: Path, copies: Copies) -> None:
    copy = save(copies)
    found = [below(root, STATE), *below(root, STATE).rglob("*")]
    assert {path.stat().st_mode & 0o077 for path in found} == {0}
    assert below(root, STATE).parent.stat().st_mode & 0o777 == 0o755
    assert "hidden" in copies.content(copy, "/etc/exabgp/exabgp.conf").decode()


def spoil_content(copies: Copies, copy: Copy) -> None:
    kept = copies.file(copy, "/etc/frr/daemons")
    kept.write_text(kept.read_text().replace("y", "n"))


def spoil_list(copies: Copies, copy: Copy) -> None:
    manifest = copies.file(copy, "/etc/frr/daemons").with_name("manifest.json")
    manifest.write_text(manifest.read_text().replace("416", "511"))


def lose_content(copies: Copies, copy: Copy) -> None:
    copies.file(copy, "/etc/frr/daemons").unlink()


@pytest.mark.parametrize("spoil", [spoil_content, spoil_list, lose_content])
def test_a_damaged_copy_is_refused_before_anything_is_touched(
    root: Path, copies: Copies, spoil: Callable[[Copies, Copy], None]
) -> None:
    copy = save(copies)
    change(root)
    spoil(copies, copy)
    before = state(root)
    with pytest.raises(CopyError, match="found"):
        put_everything_back(copies, copies.load(copy.name), root)
    assert state(root) == before


def test_a_content_nobody_needs_may_be_damaged(root: Path, copies: Copies) -> None:
    before, copy = state(root), save(copies)
    spoil_content(copies, copy)
    below(root, "/etc/frr/frr.conf").write_text("")
    put_everything_back(copies, copy, root)
    assert state(root) == before


def test_a_link_is_not_made_to_lead_nowhere(root: Path, copies: Copies) -> None:
    copy = save(copies)
    change(root)
    below(root, "/opt/router-agent-0123456789ab").rmdir()
    outcome = put_everything_back(copies, copy, root)
    assert [fault for fault in outcome.faults if "router-agent-0123456789ab" in fault] == outcome.faults != []
    assert below(root, "/opt/router-agent").readlink() == Path("router-agent-ba9876543210")
    assert copies.changed(copy) == ["/opt/router-agent"]


def cut_short(root: Path, copy: str, after: int) -> bool:
    """Go back in a process that dies at once after so many writes; return whether it got to the end."""
    child = os.fork()
    if child == 0:
        left = after

        def die(path: Path) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)

        durable.sync_directory = die
        copies = Copies(root)
        put_everything_back(copies, copies.load(copy), root)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_was_cut_short_anywhere_is_finished_by_the_next_attempt(root: Path, copies: Copies) -> None:
    before, copy = state(root), save(copies)
    for after in range(100):
        change(root)
        rollback.Attempts(root).take_room()
        ended = cut_short(root, copy.name, after)
        outcome = put_everything_back(copies, copy, root)
        assert state(root) == before
        # Whatever the first one did, the second knows whom to tell.
        assert len(outcome.changed) == 6
        assert outcome.faults == []
        if ended:
            assert after > 3
            return
    pytest.fail("it never came to its end")


def test_a_list_that_was_cut_short_has_everybody_told(root: Path) -> None:
    attempts = rollback.Attempts(root)
    below(root, STATE).mkdir(parents=True)
    assert attempts.read() == rollback.Found([], [])
    attempts.take_room()
    assert attempts.read() == rollback.Found([], [])
    attempts.write(rollback.Found(["/etc/frr/frr.conf"], []))
    assert attempts.read().changed == ["/etc/frr/frr.conf"]
    with attempts.path.open("r+") as file:
        file.write('{"changed": ["/etc/vpp/sta')
    assert attempts.read().everything


def test_the_list_takes_no_room_that_was_not_taken_before(root: Path) -> None:
    attempts = rollback.Attempts(root)
    below(root, STATE).mkdir(parents=True)
    attempts.take_room()
    before = attempts.path.stat()
    attempts.write(rollback.Found([f"/etc/frr/{number}" for number in range(1000)], []))
    after = attempts.path.stat()
    assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, before.st_size, before.st_blocks)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small tmpfs")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_full_disk_does_not_stop_the_way_back(small_disk: Path) -> None:
    big = below(small_disk, "/etc/frr/frr.conf")
    big.parent.mkdir(parents=True)
    big.write_text(FRR_CONF * 200)
    below(small_disk, "/etc/frr/daemons").write_text("bgpd=yes\n")
    before, copies = state(small_disk), Copies(small_disk)
    copy = save(copies)
    rollback.Attempts(small_disk).take_room()
    big.write_text("")
    below(small_disk, "/etc/frr/daemons").unlink()
    filler = small_disk / "log"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(1 << 20))
    outcome = put_everything_back(copies, copy, small_disk)
    assert outcome.faults == []
    assert any("disk is full" in step for step in outcome.steps)
    filler.unlink()
    assert state(small_disk) == before


def test_another_failure_to_write_is_none_of_a_full_disk(
    root: Path, copies: Copies, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = save(copies)
    below(root, "/etc/frr/daemons").unlink()
    below(root, "/etc/frr/daemons").mkdir()
    with pytest.raises(IsADirectoryError):
        restore.put_back(copies, copy, "/etc/frr/daemons", root)
    assert copies.content(copy, "/etc/frr/daemons") == b"bgpd=yes\n"


class TestDrained:
    """Whether a router is drained is not the configuration's business."""

    def test_a_drain_is_no_change(self, root: Path, copies: Copies) -> None:
        copy = save(copies)
        path = below(root, "/etc/frr/frr.conf")
        path.write_text(with_shutdown(FRR_CONF))
        assert copies.changed(copy) == []

    @pytest.mark.parametrize("drained_then", [False, True])
    @pytest.mark.parametrize("drained_now", [False, True])
    def test_it_is_as_now_after_going_back(
        self, root: Path, copies: Copies, drained_then: bool, drained_now: bool
    ) -> None:
        path, drained = below(root, "/etc/frr/frr.conf"), with_shutdown(FRR_CONF)
        path.write_text(drained if drained_then else FRR_CONF)
        copy = save(copies)
        path.write_text("something else\n")
        mark = below(root, "/run/router-agent/drained")
        mark.parent.mkdir(parents=True)
        if drained_now:
            mark.write_text("{}")
        put_everything_back(copies, copy, root)
        assert path.read_text() == (drained if drained_now else FRR_CONF)


def test_copies_are_numbered_and_the_oldest_go(root: Path, copies: Copies) -> None:
    names = []
    for number in range(4):
        below(root, "/etc/frr/daemons").write_text(f"{number}\n")
        names.append(save(copies).name)
    assert copies.names() == names == ["000001", "000002", "000003", "000004"]
    copies.prune(2, needed=names[0])
    assert copies.names() == [names[0], *names[2:]]
    assert copies.content(copies.load(names[2]), "/etc/frr/daemons") == b"2\n"
    assert save(copies).name == "000005"


def test_half_a_copy_is_none(root: Path, copies: Copies) -> None:
    save(copies)
    left = below(root, STATE) / "copies" / ".new"
    left.mkdir()
    (left / "0").write_text("half")
    assert copies.names() == ["000001"]
    assert copies.load(save(copies).name).entries == copies.load("000001").entries


def test_the_program_saves_once_what_does_not_change(root: Path) -> None:
    below(root, "/run").mkdir()
    program = Program(root)
    first, second = program.save("first"), program.save("second")
    assert first[1]["copy"] == second[1]["copy"]
    below(root, "/etc/frr/daemons").write_text("bgpd=no\n")
    code, found, words = program.status()
    assert (code, found["armed"], found["changed"]) == (0, False, ["/etc/frr/daemons"])
    assert "/etc/frr/daemons" in words
    assert program.save("third")[1]["copy"] != first[1]["copy"]


def test_nothing_armed_is_nothing_to_disarm(root: Path) -> None:
    below(root, "/run").mkdir()
    code, found, words = Program(root).disarm()
    assert (code, found["armed"], words) == (1, False, "nothing is armed")
    assert Program(root).go_back("timer1") == 0


def test_settings_name_further_files(root: Path) -> None:
    below(root, "/run").mkdir()
    settings = below(root, SETTINGS)
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"kept": 1, "files": {"further": ["/etc/mine/*"]}}))
    mine = below(root, "/etc/mine/conf")
    mine.parent.mkdir()
    mine.write_text("good\n")
    Program(root).save("")
    mine.write_text("bad\n")
    assert Program(root).status()[1]["changed"] == ["/etc/mine/conf"]
    Program(root).save("")
    assert len(Copies(root).names()) == 1


@pytest.mark.parametrize(
    ("further", "message"), [({"bgp": ["/etc/x"]}, "bgp"), ({"frr": ["etc/x"]}, "absolute")]
)
def test_settings_that_cannot_be_used_are_refused(further: dict[str, list[str]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_further(PARTS, further)


def test_every_service_has_a_part_and_every_part_its_own_files() -> None:
    patterns = [pattern for part in PARTS for pattern in part.patterns]
    assert len(patterns) == len(set(patterns))
    assert {service for part in PARTS for service in part.services} >= {
        "frr.service",
        "vpp.service",
        "exabgp.service",
        "router-agent.service",
    }
    assert "/etc/systemd/system/*.wants/frr.service" in catalogue.FRR.patterns


@pytest.mark.parametrize(
    ("name", "text", "made"),
    [
        ("a.netdev", "[NetDev]\nName=bond0\nKind=bond\n", {"device": "bond0"}),
        (
            "a.network",
            "[Match]\nName=lan\n\n[Network]\nAddress=192.0.2.1/24\nAddress=2001:db8::1/64\nVLAN=lan.7\n",
            {"interface": "lan", "addresses": ["192.0.2.1/24", "2001:db8::1/64"]},
        ),
        ("a.network", "[Match]\nName=lan\n\n[Link]\nUnmanaged=yes\n", {"interface": "lan", "addresses": []}),
        ("a.link", "[Match]\nOriginalName=eth1\n\n[Link]\nName=lan\n", {}),
        ("a.network", "no such thing\n", {}),
    ],
)
def test_what_a_file_of_networkd_made(name: str, text: str, made: dict[str, object]) -> None:
    assert ports.made_by(name, text) == made


def test_what_is_left_to_do_for_frr() -> None:
    said = (
        "\nLines To Delete\n===============\nhostname other\nrouter bgp 64500\n no bgp default ipv4-unicast\n"
    )
    assert frr.delta_of(said) == ["router bgp 64500", " no bgp default ipv4-unicast"]
    assert frr.delta_of("\nLines To Add\n============\nhostname mine\n") == []
    assert frr.delta_of("") == []


def test_a_step_that_fails_is_noted_and_the_way_goes_on(capfd: pytest.CaptureFixture[str]) -> None:
    steps = Steps()
    assert not steps.do("sh", "-c", "echo no; exit 3")
    assert not steps.do("/no/such/program")
    assert steps.do("true")
    assert steps.done == ["true"]
    assert steps.faults == [
        "sh -c echo no; exit 3: ended with 3 and said: no",
        "/no/such/program: ended with 127 and said: /no/such/program: No such file or directory",
    ]
    assert "ended with 3" in capfd.readouterr().err


class TestPacked:
    """The one file that hosts get."""

    def test_the_same_modules_give_the_same_bytes(self) -> None:
        assert packed() == packed()

    def test_it_needs_nothing_but_an_interpreter(self, tmp_path: Path) -> None:
        program = tmp_path / "last-good"
        program.write_bytes(packed())
        # -S: not even what Debian has installed beside Python.
        command = [sys.executable, "-I", "-S", str(program)]
        done = subprocess.run([*command, "--help"], cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "arm --minutes N" in done.stdout
        wrong = subprocess.run([*command, "arm", "--minutes", "0"], cwd="/", capture_output=True, check=False)
        assert wrong.returncode == 2
