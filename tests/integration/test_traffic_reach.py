"""Reaching a host: here, and through a real sshd, with everything that can be wrong about either."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from router_agent.traffic.reach import (
    AuthenticationError,
    CommandError,
    HostKeyError,
    LocalReach,
    LostError,
    Reach,
    ReachError,
    SshTarget,
    UnreachableError,
)
from router_agent.traffic.reach.ssh import SshReach

from .sshd import AVAILABLE, Sshd, new_key, running

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(90),
    pytest.mark.skipif(not AVAILABLE, reason="needs root and a real sshd: apt-get install openssh-server"),
]


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running(Sshd(tmp_path_factory.mktemp("sshd"), "MaxSessions 4")) as daemon:
        yield daemon


@pytest.fixture(params=["local", "ssh"])
def reach(request: pytest.FixtureRequest) -> Iterator[Reach]:
    """Both ways of reaching a host: what is true of one is true of the other."""
    if request.param == "local":
        way: AbstractContextManager[Reach] = LocalReach()
    else:
        way = SshReach(request.getfixturevalue("sshd").target)
    with way as opened:
        yield opened


def test_words_arrive_as_they_are(reach: Reach) -> None:
    words = ["a b", "$HOME", "'", '"', "`id`", "*", "line\nline", "", "ü"]
    done = reach.run(["printf", "%s\\0", *words])
    assert done.stdout.decode().split("\0")[:-1] == words
    assert (done.exit_code, done.argv[0]) == (0, "printf")


def test_input_and_output_of_megabytes_do_not_stop_each_other(reach: Reach) -> None:
    data = secrets.token_bytes(9 << 20)
    assert reach.run(["cat"], stdin=data).stdout == data


def test_a_program_that_complains_a_lot_goes_on_and_the_end_of_it_is_kept(reach: Reach) -> None:
    done = reach.run(["sh", "-c", "seq 1000000 >&2; echo done"])
    assert done.text == "done\n"
    assert done.stderr.endswith("\n1000000")
    assert len(done.stderr) <= 65_536


def test_a_program_that_is_not_there_is_named(reach: Reach) -> None:
    with pytest.raises(CommandError, match=f"^{reach.host}: found no program 'no-such'.*install it") as error:
        reach.run(["no-such", "x"])
    assert error.value.exit_code == 127


def test_an_exit_code_is_a_failure_unless_it_is_expected(reach: Reach) -> None:
    with pytest.raises(CommandError, match=r"ended with 3 and said: oh no$") as error:
        reach.run(["sh", "-c", "echo oh no >&2; exit 3"])
    assert error.value.exit_code == 3
    assert reach.run(["sh", "-c", "exit 3"], exit_codes=(0, 3)).exit_code == 3


def test_a_command_that_a_signal_ends_says_so(reach: Reach) -> None:
    with pytest.raises(CommandError, match="was ended by a signal"):
        reach.run(["sh", "-c", "kill -SEGV $$"])


def test_a_command_without_end_is_ended_there(reach: Reach, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    with pytest.raises(CommandError, match=r"no end after 0\.5 s, it was ended; it said: begun"):
        reach.run(["sh", "-c", f"echo $$ >{pid}; echo begun >&2; exec sleep 600"], timeout_s=0.5)
    assert not Path(f"/proc/{pid.read_text().strip()}/cmdline").exists()


def test_output_without_bound_is_refused(reach: Reach) -> None:
    with pytest.raises(CommandError, match="found more than 67,108,864 bytes of output"):
        reach.run(["cat", "/dev/zero"])


def test_files_arrive_whole_or_not_at_all(reach: Reach, tmp_path: Path) -> None:
    ours, there, back = tmp_path / "ours", tmp_path / "there", tmp_path / "back"
    ours.write_bytes(os.urandom(300_000))
    reach.put(ours, str(there), mode=0o750)
    reach.get(str(there), back)
    assert back.read_bytes() == ours.read_bytes()
    assert there.stat().st_mode & 0o777 == 0o750
    with pytest.raises(ReachError, match=r"cannot copy .*missing"):
        reach.get(str(tmp_path / "missing"), back)
    with pytest.raises(ReachError, match="cannot copy"):
        reach.put(ours, str(tmp_path / "no" / "directory"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "ours", "there"]


def test_a_session_is_talked_to_and_ends_with_its_input(reach: Reach) -> None:
    with reach.open(["sed", "-u", "s/^/heard /"]) as session:
        for word in (b"one\n", b"two\n"):
            session.send(word)
            assert session.receive(timeout_s=10.0) == b"heard " + word
        with pytest.raises(TimeoutError):
            session.receive(timeout_s=0.1)
        session.end_input()
        assert session.receive(timeout_s=10.0) == b""
        assert session.exit_code(10.0) == 0


def test_a_session_whose_command_has_ended_takes_nothing_and_says_why(reach: Reach) -> None:
    with reach.open(["sh", "-c", "echo cannot >&2; exit 4"]) as session:
        assert session.receive(timeout_s=10.0) == b""
        with pytest.raises(CommandError, match="ended with 4 and said: cannot"):
            session.send(b"x" * 10_000_000)


def test_a_namespace_is_where_commands_run() -> None:
    name = f"trn-{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        with LocalReach(name) as inside:
            assert [line.split()[1] for line in inside.run(["ip", "-o", "link"]).text.splitlines()] == ["lo:"]
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
    with LocalReach(name) as gone, pytest.raises(UnreachableError, match=r"does not exist.*ip netns add"):
        gone.run(["true"])


def refused(target: SshTarget, kind: type[ReachError], words: str) -> str:
    """Expect a connection to be refused, in words; return all of them."""
    with pytest.raises(kind, match=words) as error, SshReach(target):
        pytest.fail("it was let in")
    assert error.value.host == target.host
    return str(error.value)


def fingerprint(key: Path) -> str:
    """Return what ssh-keygen calls a key."""
    shown = subprocess.run(["ssh-keygen", "-lf", str(key)], capture_output=True, text=True, check=True)
    return shown.stdout.split()[1]


def test_a_host_without_address_is_unreachable(sshd: Sshd) -> None:
    words = refused(
        replace(sshd.target, host="no-such-host.invalid"), UnreachableError, "found no address of"
    )
    assert "correct the name" in words


def test_a_port_that_nobody_listens_on_is_unreachable(sshd: Sshd) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused(
            replace(sshd.target, port=taken.getsockname()[1]),
            UnreachableError,
            "Connection refused; sshd does not run there",
        )


def test_a_server_that_says_nothing_is_given_up(sshd: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        refused(
            replace(sshd.target, port=mute.getsockname()[1], connect_s=0.5),
            UnreachableError,
            "does not go on as an ssh server does",
        )


def test_an_unknown_key_is_refused_with_its_fingerprint(sshd: Sshd, tmp_path: Path) -> None:
    empty = tmp_path / "known_hosts"
    empty.touch()
    words = refused(replace(sshd.target, known_hosts=(empty,)), HostKeyError, "its key is not known")
    assert fingerprint(sshd.host_key) in words
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in words
    assert str(empty) in words
    assert sshd.line().split()[2] not in empty.read_text()


def test_a_changed_key_is_refused_with_both(sshd: Sshd, tmp_path: Path) -> None:
    other = new_key(tmp_path / "other").with_suffix(".pub").read_text()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {other}")
    words = refused(replace(sshd.target, known_hosts=(known,)), HostKeyError, "ITS KEY HAS CHANGED")
    assert fingerprint(sshd.host_key) in words
    assert f"{known}, line 1" in words
    assert f"ssh-keygen -R [127.0.0.1]:{sshd.port}" in words


def test_a_revoked_key_is_refused_though_it_is_known(sshd: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    key = sshd.host_key.with_suffix(".pub").read_text()
    known.write_text(f"{sshd.line()}@revoked * {key}")
    refused(replace(sshd.target, known_hosts=(known,)), HostKeyError, "marked @revoked")


@pytest.mark.parametrize("form", ["hashed", "pattern", "two keys"])
def test_every_form_of_a_known_key_is_understood(sshd: Sshd, tmp_path: Path, form: str) -> None:
    known = tmp_path / "known_hosts"
    key = sshd.host_key.with_suffix(".pub").read_text()
    known.write_text(sshd.line())
    if form == "hashed":
        subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
        assert known.read_text().startswith("|1|")
    elif form == "pattern":
        known.write_text(f"[127.0.0.*]:{sshd.port},!other {key}")
    else:
        other = new_key(tmp_path / "former").with_suffix(".pub").read_text()
        known.write_text(f"# rotated\n[127.0.0.1]:{sshd.port} {other}{sshd.line()}")
    with SshReach(replace(sshd.target, known_hosts=(tmp_path / "missing", known))) as reach:
        assert reach.run(["id", "-u"]).text == "0\n"


def test_a_key_that_is_not_let_in_is_named(sshd: Sshd, tmp_path: Path) -> None:
    stranger = new_key(tmp_path / "stranger")
    words = refused(
        replace(sshd.target, key_files=(stranger,)), AuthenticationError, "lets user root not in: tried "
    )
    assert str(stranger) in words
    assert "authorized_keys" in words


def test_a_key_file_that_is_missing_broken_or_locked_is_named(sshd: Sshd, tmp_path: Path) -> None:
    target = sshd.target
    refused(replace(target, key_files=(tmp_path / "none",)), AuthenticationError, "found no key file")
    broken = tmp_path / "broken"
    broken.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY-----\n")
    refused(replace(target, key_files=(broken,)), AuthenticationError, "cannot be used")
    locked = tmp_path / "locked"
    new_key(locked)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "open sesame", "-f", str(locked)],
        check=True,
        capture_output=True,
    )
    refused(replace(target, key_files=(locked,)), AuthenticationError, "passphrase.*ssh-add")


def test_the_agents_key_lets_in(sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "agent"
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        assert agent.stdout is not None
        agent.stdout.readline()
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        subprocess.run(["ssh-add", "-q", str(sshd.key)], check=True, capture_output=True)
        monkeypatch.setenv("HOME", str(tmp_path))
        with SshReach(replace(sshd.target, key_files=(), agent=True)) as reach:
            assert reach.run(["echo", "in"]).text == "in\n"
        words = refused(
            replace(sshd.target, key_files=()), AuthenticationError, "not in: tried no key at all"
        )
        assert "ssh-add" in words
    finally:
        agent.kill()
        agent.wait()


def config(sshd: Sshd, path: Path, text: str) -> SshTarget:
    """Return the target "device" of an ssh_config."""
    path.write_text(text)
    return SshTarget("device", config=path, agent=False)


def test_ssh_config_leads_the_way_through_another_host(
    sshd: Sshd, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with running(Sshd(tmp_path_factory.mktemp("jump"), name="jump")) as jump:
        target = config(
            sshd,
            tmp_path / "ssh_config",
            f"Host device\n  HostName 127.0.0.1\n  Port {sshd.port}\n  ProxyJump root@jump:{jump.port}\n"
            f"  IdentityFile {sshd.key}\n  UserKnownHostsFile {sshd.known_hosts}\n  User root\n"
            f"Host jump\n  HostName 127.0.0.1\n  IdentityFile {jump.key}\n"
            f"  UserKnownHostsFile {jump.known_hosts}\n",
        )
        with SshReach(target) as reach:
            assert len(jump.connections()) == 1
            come_from = reach.run(["sh", "-c", "echo $SSH_CONNECTION"]).text.split()
            assert come_from[3] == str(sshd.port)
            jump.cut()
            with pytest.raises(LostError):
                reach.run(["true"])
        jump.known_hosts.write_text("")
        refused(target, HostKeyError, "its key is not known")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ProxyCommand nc %h %p", "ProxyCommand.*expected ProxyJump"),
        ("Include other", "Include, which is not supported"),
        ("ProxyJump device", "more than 8 ProxyJumps"),
        ("ProxyJump a b", r"expected \[USER@\]HOST"),
    ],
)
def test_what_ssh_config_asks_in_vain_is_said(sshd: Sshd, tmp_path: Path, line: str, words: str) -> None:
    refused(config(sshd, tmp_path / "ssh_config", f"Host device\n  {line}\n"), UnreachableError, words)


@pytest.mark.parametrize("how", ["cut", "closed"])
def test_a_connection_that_breaks_in_the_middle_is_lost(sshd: Sshd, how: str) -> None:
    with SshReach(sshd.target) as reach, reach.open(["sh", "-c", "echo begun; exec cat"]) as session:
        assert session.receive(timeout_s=10.0) == b"begun\n"
        breaks: dict[str, Callable[[], None]] = {"cut": sshd.cut, "closed": reach.close}
        breaker = threading.Thread(target=breaks[how])
        breaker.start()
        with pytest.raises(LostError, match="the connection broke while sh ran"):
            session.receive(timeout_s=30.0)
        breaker.join()
        with pytest.raises(ReachError):
            reach.run(["true"])


def test_a_run_that_loses_its_connection_says_so(sshd: Sshd, tmp_path: Path) -> None:
    marker = tmp_path / "begun"
    os.mkfifo(marker)

    def cut_when_begun() -> None:
        marker.read_text()
        sshd.cut()

    cutter = threading.Thread(target=cut_when_begun)
    cutter.start()
    with SshReach(sshd.target) as reach, pytest.raises(LostError, match="the connection broke"):
        reach.run(["sh", "-c", f"echo now >{marker}; exec sleep 60"], timeout_s=30.0)
    cutter.join()
