"""What a report says of a host: from a made tree, and from this very host."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from router_agent.host.reader import Reader
from router_agent.traffic.report.environment import Environment, this_host
from router_agent.traffic.report.nics import read_nics

CPUINFO = """processor\t: {0}
model name\t: A Processor @ 2.60GHz
cpu MHz\t\t: 2600.0
physical id\t: {1}
core id\t\t: {2}
flags\t\t: fpu vme{3}
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return the /proc, /sys and /etc of a host of two sockets with an X710, one of its ports in VPP."""
    cpus = [CPUINFO.format(i, i // 4, i % 2, "") for i in range(8)]
    files = {
        "proc/cpuinfo": "\n".join(cpus),
        "proc/cmdline": "root=/dev/sda1 quiet isolcpus=2-7 hugepagesz=1G hugepages=8 token=hunter2\n",
        "sys/devices/system/cpu/smt/control": "on\n",
        "sys/devices/system/cpu/isolated": "2-7\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
        "sys/devices/system/cpu/vulnerabilities/meltdown": "Mitigation: PTI\n",
        "sys/devices/system/cpu/vulnerabilities/l1tf": "Not affected\n",
        "sys/devices/system/node/node0/cpulist": "0-3\n",
        "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal:   1024 kB\n",
        "sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages": "8\n",
        "sys/devices/system/node/node1/cpulist": "4-7\n",
        "sys/devices/system/node/node1/meminfo": "Node 1 MemTotal:   2048 kB\n",
        "etc/vpp/startup.conf": "cpu { main-core 1 }\n",
        "etc/router-agent/agent.yaml": "pipelines: []\n",
    }
    for pci, model in (("0000:3b:00.0", "0x1572"), ("0000:3b:00.1", "0x1572"), ("0000:00:1f.0", "0xa1c1")):
        device = f"sys/bus/pci/devices/{pci}"
        files |= {
            f"{device}/class": "0x020000\n" if model == "0x1572" else "0x060100\n",
            f"{device}/vendor": "0x8086\n",
            f"{device}/device": f"{model}\n",
            f"{device}/numa_node": "1\n",
            f"{device}/current_link_speed": "8.0 GT/s PCIe\n",
            f"{device}/current_link_width": "8\n",
        }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    driver = tmp_path / "sys/bus/pci/drivers/vfio-pci"
    driver.mkdir(parents=True)
    (tmp_path / "sys/bus/pci/devices/0000:3b:00.1/driver").symlink_to(driver)
    return tmp_path


def test_processor_memory_and_settings_are_read(tree: Path) -> None:
    found = this_host(root=tree)
    assert found.cpu is not None
    assert (found.cpu.sockets, found.cpu.cores, found.cpu.threads) == (2, 4, 8)
    assert (found.cpu.governor, found.cpu.turbo, found.cpu.isolated) == ("performance", False, "2-7")
    assert found.cpu.mitigations == {"meltdown": "Mitigation: PTI"}
    assert [(node.cpus, node.memory_bytes, node.hugepages) for node in found.numa] == [
        ("0-3", 1 << 20, {1048576: 8}),
        ("4-7", 2 << 20, {}),
    ]
    assert found.virtual is None


def test_only_kernel_arguments_that_matter_are_reported(tree: Path) -> None:
    assert this_host(root=tree).kernel_arguments == ["isolcpus=2-7", "hugepagesz=1G", "hugepages=8"]


def test_nics_are_listed_whoever_drives_them(tree: Path) -> None:
    nics = this_host(root=tree).nics
    assert [(nic.name, nic.device_id, nic.numa_node, nic.pcie) for nic in nics] == [
        ("0000:3b:00.0", "8086:1572", 1, "8.0 GT/s PCIe x8"),
        ("0000:3b:00.1", "8086:1572", 1, "8.0 GT/s PCIe x8"),
    ]
    assert [nic.driver for nic in nics] == [None, "vfio-pci"]


def test_configurations_are_hashed_and_never_copied(tree: Path) -> None:
    secret = tree / "etc/frr/frr.conf"
    secret.parent.mkdir()
    secret.write_text("neighbor 192.0.2.1 password hunter2\n")
    found = this_host(root=tree)
    assert found.configurations["/etc/frr/frr.conf"] == sha256(secret.read_bytes()).hexdigest()
    assert set(found.configurations) == {
        "/etc/vpp/startup.conf",
        "/etc/router-agent/agent.yaml",
        "/etc/frr/frr.conf",
    }
    assert "hunter2" not in found.model_dump_json()


def test_what_cannot_be_read_is_unknown_and_why(tree: Path) -> None:
    (tree / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").unlink()
    directory = tree / "etc/frr/frr.conf"
    directory.mkdir(parents=True)  # reading it fails for root, too
    found = this_host(root=tree)
    assert found.cpu is not None
    assert found.cpu.governor is None
    assert "No such file" in found.unknown["CPU frequency governor"]
    assert found.unknown["/etc/frr/frr.conf"] == "/etc/frr/frr.conf: Is a directory"


def test_this_host_is_described_and_comes_back_from_json() -> None:
    found = this_host(ports=["lo"])
    assert Environment.model_validate_json(found.model_dump_json()) == found
    assert found.cpus == len(os.sched_getaffinity(0))
    assert found.cpu is not None
    assert found.cpu.threads >= found.cpus
    assert "lo" in [nic.name for nic in found.nics]
    assert found.versions["python"].startswith("3.")


def test_an_interface_that_is_not_there_is_unknown() -> None:
    reader = Reader(Path("/"))
    nic = read_nics(reader, ["no-such-port"])[-1]
    assert (nic.name, nic.driver, nic.link_mbps) == ("no-such-port", None, None)
    assert "No such device" in reader.unknown["no-such-port: driver"]


def test_a_router_without_the_packages_of_a_check_can_describe_itself() -> None:
    """The device's own agent runs this, where none of the extra `traffic` is installed."""
    program = (
        "import sys\n"
        "for name in ('jinja2', 'junitparser', 'hdrh', 'MLRsearch', 'prometheus_client'):\n"
        "    sys.modules[name] = None\n"
        "from router_agent.traffic.report.environment import this_host\n"
        "print(this_host().model_dump_json())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert Environment.model_validate_json(done.stdout).host
