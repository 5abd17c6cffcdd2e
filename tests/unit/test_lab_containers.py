"""Hosts in containers, as far as nothing has to boot: wires, the way ssh takes, the supervisor, groups."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from router_agent.lab import debian
from router_agent.lab.containers import cgroups, image, leftovers
from router_agent.lab.containers import machine as machines
from router_agent.lab.containers.hosts import Containers
from router_agent.lab.containers.wires import End, Wire, Wiring, management_address, management_gateway
from router_agent.lab.errors import LabError
from router_agent.lab.host import Host
from router_agent.lab.reserved import RESERVED
from router_agent.model import Family

CONNECT = Path(image.__file__).with_name("connect.py")


@pytest.mark.parametrize(
    ("hosts", "rooms", "wires", "words"),
    [
        (["r1", "r1"], [], [], "each name once"),
        (["r1"], ["mgmt"], [], "each name once"),
        (["r1"], [], [Wire(End("r1", "port"), End("r2", "port"))], "a wire to 'r2'"),
        (["r1"], ["x"], [Wire(End("r1", "a-name-too-long0"), End("x", "y"))], "at most 15 characters"),
        (["a-name-too-long0"], [], [], "at most 15 characters"),
    ],
)
def test_wires_that_cannot_be_are_refused(
    hosts: list[str], rooms: list[str], wires: list[Wire], words: str
) -> None:
    with pytest.raises(LabError, match=words):
        Wiring("lab", hosts, rooms, wires)


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(LabError, match=r"found the name 'R1'.*expected up to 24"):
        Containers("lab", ["R1"])


def test_management_is_a_network_of_its_own_for_each_host_that_routers_may_learn() -> None:
    addresses = [management_address(number) for number in range(3)]
    assert len({address.network for address in addresses}) == 3
    for number, address in enumerate(addresses):
        assert management_gateway(number).network == address.network
        assert not any(address.network.overlaps(one) for one in RESERVED[Family.IPV4])


def test_ssh_checks_the_host_s_own_key_and_goes_through_the_namespace(tmp_path: Path) -> None:
    host = Host(
        "r1",
        address="198.20.1.2",
        key=tmp_path / "key",
        host_key="ssh-ed25519 AAAA",
        directory=tmp_path / "r1",
        sockets=tmp_path,
        options={"ProxyCommand": "connect %h %p", "ProxyUseFdpass": "yes"},
    )
    host.configure()
    config = host.ssh_config.read_text()
    assert "Host r1 198.20.1.2\n" in config
    assert "StrictHostKeyChecking yes" in config
    assert "ProxyCommand connect %h %p" in config
    assert host.known_hosts.read_text() == "198.20.1.2 ssh-ed25519 AAAA\n"


def test_image_is_another_one_with_other_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = tmp_path / "images"
    (images / debian.digest(image.recipe())).mkdir(parents=True)
    assert image.find(images) is None
    (images / debian.digest(image.recipe()) / "built").touch()
    assert image.find(images) is not None
    monkeypatch.setattr(image, "PACKAGES", (*image.PACKAGES, "vim"))
    assert image.find(images) is None


def test_connection_is_handed_over() -> None:
    """What ssh does with ProxyUseFdpass, and a server that answers."""
    ours, theirs = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as server, ours:
        with theirs:
            port = str(server.getsockname()[1])
            subprocess.run(
                [sys.executable, "-I", "-S", str(CONNECT), "127.0.0.1", port],
                stdout=theirs.fileno(),
                check=True,
                timeout=60,
            )
        _, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
        with socket.socket(fileno=descriptors[0]) as handed, server.accept()[0] as accepted:
            accepted.sendall(b"SSH-2.0")
            assert handed.recv(16) == b"SSH-2.0"


def test_connection_refused_is_said() -> None:
    ours, theirs = socket.socketpair()
    with socket.socket() as taken, ours, theirs:
        # Bound, and nobody listens.
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(CONNECT), "127.0.0.1", port],
            stdout=theirs.fileno(),
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert f"127.0.0.1 port {port}: " in done.stderr
    assert "refused" in done.stderr


def supervise(tmp_path: Path, script: str) -> subprocess.Popen[bytes]:
    """Run a script as the supervisor runs systemd-nspawn; a plain file is its control group."""
    (tmp_path / "group").touch()
    return subprocess.Popen(
        ["/bin/sh", "-c", machines._SUPERVISE, "sh", "/bin/sh", "-c", script],
        env={**os.environ, "CONTROL_GROUPS": str(tmp_path / "group")},
        cwd=tmp_path,
    )


def test_supervisor_starts_again_what_reboots_and_ends_with_what_halts(tmp_path: Path) -> None:
    process = supervise(tmp_path, "echo x >>boots; [ $(wc -l <boots) = 3 ] && exit 7; exit 133")
    assert process.wait(60) == 7
    assert (tmp_path / "boots").read_text() == "x\n" * 3
    assert (tmp_path / "group").read_text() == f"{process.pid}\n"


def test_supervisor_passes_the_order_to_halt_on(tmp_path: Path) -> None:
    process = supervise(
        tmp_path, "trap 'echo halted >ended; exit 3' TERM; touch up; while :; do sleep 0.05; done"
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 3
    assert (tmp_path / "ended").exists()


def test_a_process_that_has_the_number_of_a_machine_that_is_gone_is_not_it(tmp_path: Path) -> None:
    machine = leftovers.machine_of("lab", "r1", tmp_path, tmp_path)
    other = machines.Machine(
        "lab-r1",
        hostname="r1",
        namespace="lab-r1",
        directory=tmp_path,
        runtime=tmp_path,
        log=tmp_path / "log",
    )
    (tmp_path / "r1.pid").write_text(f"{os.getpid()}\n")
    assert not other.running
    assert not machine.running
    with pytest.raises(LabError, match="r1 ended"):
        other.require_running()


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        ("30 1 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n", ["/sys/fs/cgroup"]),
        (
            "30 1 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
            "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
            "32 30 0:28 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
            "33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"],
        ),
    ],
    ids=["version 2", "both"],
)
def test_hierarchies_that_systemd_tracks_processes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounts: str, expected: list[str]
) -> None:
    (tmp_path / "mountinfo").write_text(mounts)
    monkeypatch.setattr(cgroups, "_MOUNTS", tmp_path / "mountinfo")
    assert [str(root) for root in cgroups._roots()] == expected


@pytest.mark.skipif(shutil.which("systemd-nspawn") is not None, reason="systemd-nspawn is installed here")
def test_what_is_missing_is_named_with_its_package() -> None:
    with (
        pytest.raises(LabError, match=r"expected root|apt-get install systemd-container"),
        Containers("x", ["r1"]),
    ):
        pass
