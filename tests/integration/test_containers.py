"""Whole hosts in containers: booted, reached, wired, power-cycled, and gone afterwards, whatever happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from router_agent.lab.commands import NETNS_DIRECTORY, run
from router_agent.lab.containers import leftovers
from router_agent.lab.containers.hosts import BUILD, Containers, unavailable
from router_agent.lab.containers.wires import End, Wire
from router_agent.lab.daemon import wait_until
from router_agent.lab.errors import LabError
from router_agent.lab.host import HostError

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.root, pytest.mark.timeout(900)]

SECONDS = 60.0

WIRES = [Wire(End("r1", "port"), End("r2", "port")), Wire(End("r1", "out"), End("beyond", "r1"))]


@pytest.fixture(scope="module")
def lab(containers: Callable[..., Containers]) -> Iterator[Containers]:
    with containers("r1", "r2", rooms=["beyond"], wires=WIRES) as lab:
        yield lab


def test_hosts_boot_to_the_end(lab: Containers) -> None:
    for name, host in lab.hosts.items():
        state = host.try_run("systemctl is-system-running --wait").stdout.strip()
        failed = host.run("systemctl --failed --no-legend --plain")
        assert state == "running", f"{name}: {failed}"
        assert host.run("hostname").strip() == name


def test_each_has_a_key_an_id_and_control_groups_of_its_own(lab: Containers) -> None:
    keys = {host.known_hosts.read_text().split()[-1] for host in lab.hosts.values()}
    ids = {host.run("cat /etc/machine-id").strip() for host in lab.hosts.values()}
    assert len(keys) == len(ids) == 2
    # A host that shared its groups would see processes that have no number here.
    for host in lab.hosts.values():
        groups = host.run("cat /sys/fs/cgroup/system.slice/ssh.service/cgroup.procs").split()
        assert groups
        assert "0" not in groups


def test_a_host_with_another_key_is_refused(lab: Containers) -> None:
    mine, other = lab.hosts["r1"], lab.hosts["r2"]
    known = mine.known_hosts.read_text()
    mine.disconnect()
    mine.known_hosts.write_text(f"{mine.address} {other.known_hosts.read_text().split(maxsplit=1)[1]}")
    try:
        with pytest.raises(HostError, match=r"(?i)host key verification failed|has changed"):
            mine.run("true")
    finally:
        mine.known_hosts.write_text(known)
    assert mine.run("echo here").strip() == "here"


def test_wires_lead_where_they_should_and_nothing_else_does(lab: Containers) -> None:
    for name, address in (("r1", "192.0.2.1/24"), ("r2", "192.0.2.2/24")):
        lab.hosts[name].run(f"ip link set port up; ip address add {address} dev port")
    lab.hosts["r1"].run("ping -c 1 -w 10 192.0.2.2")
    assert lab.hosts["r1"].try_run("ping -c 1 -w 1 198.20.2.2").returncode != 0
    assert lab.hosts["r1"].run("ip route show default").strip() == ""


def test_the_machine_that_runs_the_lab_has_none_of_its_interfaces(lab: Containers) -> None:
    here = run(["ip", "-o", "link"])
    assert not any(word in here for word in ("mgmt0", "port@", "r1@", "r2@"))


def test_a_playbook_says_what_it_would_do_to_a_bare_host(lab: Containers, tmp_path: Path) -> None:
    """The Debian here is the one that a playbook meets first: without python3-apt, for one."""
    host, listing = lab.hosts["r1"], "find /etc /usr /var/lib/dpkg -newer /root/before | sort"
    host.run("touch /root/before")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("ansible-playbook"),
            *("playbooks/observability.yml", "--check", "--diff", "--limit", "r1"),
            *("-i", lab.write_inventory(tmp_path / "hosts.yml")),
        ],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "would install prometheus-node-exporter, prometheus-frr-exporter" in done.stdout
    assert host.run(listing) == ""


def test_a_host_s_clock_and_kernel_are_out_of_its_reach(lab: Containers) -> None:
    host = lab.hosts["r1"]
    assert host.try_run("date --set=@0").returncode != 0
    assert host.try_run("sysctl -w kernel.panic=1").returncode != 0
    host.run("sysctl -w net.ipv4.ip_forward=1")


def test_reboot_keeps_disk_wires_and_key(lab: Containers) -> None:
    host = lab.hosts["r2"]
    host.run("echo kept >/root/kept")
    before = host.boot_id()
    host.try_run("systemctl reboot")
    host.disconnect()
    assert lab.wait_up("r2", other_than=before) != before
    assert host.run("cat /root/kept").strip() == "kept"
    assert "port" in host.run("ip -o link show port")


def test_ansible_reaches_each_lab_s_own_host(lab: Containers, containers: Callable[..., Containers]) -> None:
    """They have one address, and a connection to one of them is kept open when the other is asked."""
    with containers("r1") as other:
        assert other.hosts["r1"].address == lab.hosts["r1"].address
        for one in (lab, other, lab):
            machine = one.hosts["r1"].run("cat /etc/machine-id").strip()
            said = ansible(one, "r1", "ansible.builtin.command", "cat /etc/machine-id")
            assert machine in said
            assert list((one.runtime / leftovers.CONTROL_PATHS).iterdir()), "no connection was kept"


def ansible(lab: Containers, host: str, module: str, arguments: str) -> str:
    """Run a module on a host as an operator does, with the inventory alone; return what it says."""
    inventory = lab.write_inventory(lab.runtime / "inventory.yml")
    program = Path(sys.executable).with_name("ansible")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [program, host, "-i", inventory, "-m", module, "-a", arguments],
        env=environment | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_power_cut(lab: Containers) -> None:
    before = lab.hosts["r2"].boot_id()
    assert lab.power_cycle("r2") != before


def test_halt_ends_every_process(lab: Containers) -> None:
    machine = lab.machines["r2"]
    lab.hosts["r2"].disconnect()
    machine.halt()
    assert not machine.running
    assert run(["ip", "netns", "pids", lab.wiring.namespace("r2")]).split() == []
    with pytest.raises(LabError, match="r2 is off"):
        machine.halt()
    machine.power_on()
    lab.wait_up("r2")


def test_nothing_is_left_when_whoever_started_it_is_killed() -> None:
    if reason := unavailable():
        pytest.skip(reason)
    name = f"k{os.getpid()}"
    script = (
        "import sys, time\n"
        "from router_agent.lab.containers.hosts import Containers\n"
        f"with Containers({name!r}, ['r1']):\n"
        "    print('up', flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        assert leftovers.present(name, BUILD)
        process.send_signal(signal.SIGKILL)
    wait_until(
        lambda: not leftovers.present(name, BUILD),
        "the lab of a process that was killed to be removed",
        seconds=SECONDS,
        found=lambda: (BUILD / "logs" / name / "guard.log").read_text(),
    )
    assert not list(NETNS_DIRECTORY.glob(f"{name}-*"))
    assert name not in Path("/proc/self/mounts").read_text()
    assert not [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if f"--machine={name}-".encode() in _content(path)
    ]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
