"""Role vpp: the sizes it computes, the packages it finds missing, and the files that come of its variables.

After a wanted change: ``GOLDEN=write pytest tests/unit/test_role_vpp.py``, then look at the difference.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from hugepages_layout import BUFFER_BYTES, buffers
from role_variables import rendered, templated
from router_agent.lab.render import render
from vpp_packages import deb_digest, deb_files, missing_packages, openpgp_fingerprint
from vpp_sizing import MIB, vpp_buffers, vpp_bytes, vpp_fits_one_buffer, vpp_memory, vpp_ports, vpp_size

GOLDEN = Path(__file__).with_name("golden")
GIB = 1024 * MIB

SPEED = {"rated_mbps": 10_000, "speed_mbps": None}
NICS = [
    {"pci": "0000:03:00.0", "interface": "enp3s0", "numa_node": 0, **SPEED},
    {"pci": "0000:03:00.1", "interface": None, "former_interface": "enp3s0f1", "numa_node": 0, **SPEED},
    {"pci": "0000:81:00.0", "interface": "enp129s0", "numa_node": 1, **SPEED},
]
CORES = [
    {"id": core, "package": core // 8, "core": core % 8, "node": core // 8, "online": True}
    for core in range(16)
]
FACTS: dict[str, Any] = {
    "os": {"codename": "trixie"},
    "cpu": {"cores": CORES},
    "numa_nodes": [{"id": 0}, {"id": 1}],
    "nics": NICS,
}
PORTS: list[dict[str, Any]] = [
    {"name": "uplink", "device": "0000:03:00.0", "addresses": ["198.51.100.2/30"]},
    {"name": "peering", "device": "enp3s0f1", "rx_queues": 1, "rx_descriptors": 4096},
    {"name": "lan", "device": "enp129s0", "bond": "bond0", "tx_queues": 2},
]
INVENTORY: dict[str, Any] = {
    "router_forwarding": "vpp",
    "router_ports": PORTS,
    "router_bonds": [{"name": "bond0"}],
    "ansible_facts": {"router_host": FACTS},
}


def files(**variables: Any) -> dict[str, str]:
    return _files(json.dumps(variables))


@cache
def _files(variables: str) -> dict[str, str]:
    return rendered(templated("vpp", "vpp_files", INVENTORY | json.loads(variables)))


def stanzas(text: str) -> dict[str, list[str]]:
    """Lines of each stanza of a startup.conf, nested ones included, each as VPP reads it."""
    found: dict[str, list[str]] = {}
    path: list[str] = []
    for line in (raw.strip() for raw in text.splitlines()):
        if not line or line.startswith("#"):
            continue
        if line.endswith("{"):
            path.append(line[:-1].strip())
            found.setdefault(path[0], [])
            if len(path) > 1:
                found[path[0]].append(path[-1])
        elif line == "}":
            path.pop()
        else:
            found[path[0]].append(line)
    assert not path, f"stanzas left open: {path}"
    return found


def test_a_full_table_with_four_workers_has_room() -> None:
    memory = vpp_memory({"ipv4": 1_200_000, "ipv6": 300_000}, workers=4)
    assert memory["heap_bytes"] == 1792 * MIB
    assert memory["stats_bytes"] == 640 * MIB
    assert memory["fib"] == {
        "entries": 1_801_024,
        "load_balances": 1_801_024,
        "ip4_mtries": 66_560,
        "ip6_buckets": 262_144,
    }


def test_a_small_table_takes_little() -> None:
    memory = vpp_memory({"ipv4": 100, "ipv6": 0}, workers=0)
    assert memory["heap_bytes"] == 512 * MIB
    assert memory["stats_bytes"] == 96 * MIB
    assert memory["fib"]["ip6_buckets"] == 65_536


@given(st.integers(0, 5_000_000), st.integers(0, 2_000_000), st.integers(0, 64))
def test_what_was_measured_always_fits(ipv4: int, ipv6: int, workers: int) -> None:
    memory = vpp_memory({"ipv4": ipv4, "ipv6": ipv6}, workers)
    assert memory["heap_bytes"] >= 33 * MIB + 327 * ipv4 + 285 * ipv6 + 217 * (ipv4 + ipv6)
    assert memory["stats_bytes"] >= 32 * MIB + 32 * (ipv4 + ipv6) * (workers + 1)
    assert memory["fib"]["entries"] > ipv4 + ipv6
    buckets = memory["fib"]["ip6_buckets"]
    assert buckets & (buckets - 1) == 0
    larger = vpp_memory({"ipv4": ipv4 + 1, "ipv6": ipv6 + 1}, workers + 1)
    assert all(larger[key] >= memory[key] for key in ("heap_bytes", "stats_bytes"))


def test_negative_routes_are_refused_by_name() -> None:
    with pytest.raises(
        AnsibleFilterError, match=r"router_expected_routes\.ipv6: found -1, expected 0 or more"
    ):
        vpp_memory({"ipv4": 1, "ipv6": -1}, 0)


def test_ports_are_found_by_address_and_by_either_name() -> None:
    ports = vpp_ports(PORTS, FACTS, workers=2)
    assert [(port["pci"], port["node"], port["rx_queues"], port["rx_descriptors"]) for port in ports] == [
        ("0000:03:00.0", 0, 2, 1024),
        ("0000:03:00.1", 0, 1, 4096),
        ("0000:81:00.0", 1, 2, 1024),
    ]
    assert [port.get("tx_queues") for port in ports] == [None, None, 2]


def test_a_port_without_workers_has_one_queue() -> None:
    assert vpp_ports(PORTS[:1], FACTS)[0]["rx_queues"] == 1
    assert vpp_ports([{"name": "a", "device": "0000:01:00.0"}])[0]["pci"] == "0000:01:00.0"


def test_a_missing_nic_is_named() -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        vpp_ports([PORTS[0], {"name": "x", "device": "enp9s0"}], FACTS)
    assert "router_ports[1].device: found 'enp9s0'" in str(caught.value)
    assert "0000:03:00.0 (enp3s0)" in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1, 4, 16])
@pytest.mark.parametrize("descriptors", [None, 256, 4096])
def test_buffers_are_what_huge_pages_were_reserved_for(workers: int, descriptors: int | None) -> None:
    """Role hugepages reserves for this many; both say it in their own words."""
    ports = [{"name": f"p{n}", "device": "0000:03:00.0", "rx_descriptors": descriptors} for n in range(4)]
    assert vpp_buffers(vpp_ports(ports, FACTS, workers), workers) == buffers(ports, workers)


def test_a_buffer_takes_no_more_than_role_hugepages_counts() -> None:
    """vlib_buffer_alloc_size: DPDK's header, VPP's with its headroom, data, an odd number of 64 bytes."""
    assert BUFFER_BYTES >= (128 + 256 + 2048) | 64


def test_the_node_with_the_most_descriptors_counts() -> None:
    ports = vpp_ports(
        [{"name": f"p{n}", "device": "0000:03:00.0", "rx_descriptors": 4096} for n in range(3)]
        + [{"name": "q", "device": "0000:81:00.0"}],
        FACTS,
        workers=4,
    )
    assert vpp_buffers(ports, 4) == 2.5 * (3 * (4 * 4096 + 5 * 1024) + 4 * 256)


def test_jumbo_frames_need_chains_of_buffers() -> None:
    assert vpp_fits_one_buffer([{"mtu": 1500}, {}])
    assert vpp_fits_one_buffer([{"mtu": 2022}])
    assert not vpp_fits_one_buffer([{"mtu": 2023}])
    assert not vpp_fits_one_buffer([{}], [{"mtu": 9000}])


def test_sizes_in_vpps_notation() -> None:
    assert vpp_size(3 * GIB) == "3072M"
    assert vpp_size(1) == "1M"
    assert [vpp_bytes(text) for text in ("2G", "512M", "4k", 12)] == [2 * GIB, 512 * MIB, 4096, 12]
    with pytest.raises(AnsibleFilterError, match="found 'much'"):
        vpp_bytes("much")


# --- packages ---

INSTALLED = [
    "libvppinfra 26.06-release installed",
    "vpp 1:26.06-release installed",
    "vpp-plugin-core 25.10-release installed",
    "vpp-plugin-dpdk 26.06-release config-files",
]


def test_missing_packages_are_those_absent_or_of_another_version() -> None:
    packages = ["libvppinfra", "vpp", "vpp-plugin-core", "vpp-plugin-dpdk", "vpp-more"]
    wanted = dict.fromkeys(packages, "26.06*")
    assert missing_packages(INSTALLED, wanted) == ["vpp-plugin-core", "vpp-plugin-dpdk", "vpp-more"]
    assert missing_packages(INSTALLED, {"vpp": "26.06-release"}) == []
    assert missing_packages([""], {"vpp": "*"}) == ["vpp"]


def test_files_of_a_directory_are_found_by_name(tmp_path: Path) -> None:
    for name in ("vpp_26.06-release_amd64.deb", "vpp-dbg_26.06-release_amd64.deb", "vpp_25.10_amd64.deb"):
        (tmp_path / name).write_bytes(name.encode())
    found = deb_files(str(tmp_path), ["vpp"], "26.06*")
    assert [(file["package"], file["version"], file["architecture"]) for file in found] == [
        ("vpp", "26.06-release", "amd64")
    ]
    digest = deb_digest(found)
    assert re.fullmatch("[0-9a-f]{16}", digest)
    (tmp_path / "vpp_26.06-release_amd64.deb").write_bytes(b"another build of the same version")
    assert deb_digest(found) != digest


def test_a_directory_without_a_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vpp_25.10_amd64.deb").touch()
    message = r"found 0 files of vpp 26\.06\* in .*, expected one .*; there is vpp_25\.10_amd64\.deb"
    with pytest.raises(AnsibleFilterError, match=message):
        deb_files(str(tmp_path), ["vpp"], "26.06*")
    with pytest.raises(AnsibleFilterError, match=r"vpp_package_source\.path: found '/nowhere'"):
        deb_files("/nowhere", ["vpp"])


KEY = """\
-----BEGIN PGP PUBLIC KEY BLOCK-----
Comment: a key that signs nothing

mDMEawGwRBYJKwYBBAHaRw8BAQdAhyG1YAL9QfS/CtZiP9xq2H9buM+Wfq8RrWXN
8OEJsrS0H1BhY2thZ2VzIDxwYWNrYWdlc0BleGFtcGxlLm5ldD6IkAQTFggAOBYh
BKMS6JgcvPzAJxp47CO9WytgBP9BBQJrAbBEAhsDBQsJCAcCBhUKCQgLAgQWAgMB
Ah4BAheAAAoJECO9WytgBP9BVosA/2CkBbSbcEw+qPUPBUV+BpyUMu0DpUJfix9e
14aiRMsiAP9hjCueHpKXOUhJYlsQr3xyVoiTejWtR/h5vzMHfvgPBA==
=TjTe
-----END PGP PUBLIC KEY BLOCK-----
"""


def test_the_fingerprint_is_what_gnupg_shows() -> None:
    assert openpgp_fingerprint(KEY) == "A312E8981CBCFCC0271A78EC23BD5B2B6004FF41"


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("<html>not found</html>", "found '<html>not found</html>', expected an armoured OpenPGP key"),
        (KEY.replace("mDME", "m$ME"), "broken OpenPGP armour"),
        (KEY.replace("mDME", "tDME"), "found an OpenPGP packet with tag 13, expected a public key"),
        (KEY.replace("mDMEa", "mDMDa"), "version 03, expected version 4"),
    ],
)
def test_what_is_no_key_is_refused(key: str, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=re.escape(message)):
        openpgp_fingerprint(key)


# --- files ---


@pytest.mark.parametrize(
    "path",
    [
        "/etc/vpp/startup.conf",
        "/etc/systemd/system/vpp.service.d/pop-router.conf",
        "/etc/sysctl.d/80-vpp.conf",
        "/etc/apt/preferences.d/pop-router-vpp",
    ],
)
def test_a_file_is_what_was_looked_at(path: str) -> None:
    text = files()[path]
    name = {"startup.conf": "role-vpp-startup.conf", "80-vpp.conf": "role-vpp-sysctl.conf"}
    name |= {"pop-router.conf": "role-vpp-override.conf", "pop-router-vpp": "role-vpp-apt.preferences"}
    golden = GOLDEN / name[Path(path).name]
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


#: What VPP 26.06 reads in each stanza: the unformat functions of vlib/unix/main.c, vlibmemory/socket_api.c,
#: vpp/api/api.c, vlib/stats/init.c, vpp/vnet/main.c, vlib/buffer.c, vnet/ip/ip_init.c, vnet/fib/ip6_fib.c,
#: vnet/interface.c, vlib/threads.c, vlib/unix/plugin.c, plugins/dpdk/device/init.c and
#: plugins/linux-cp/lcp_interface.c.
KNOWN = {
    "unix": r"nodaemon|nosyslog|nobanner|runtime-dir \S+|cli-listen \S+|gid \w+|poll-sleep-usec \d+",
    "socksvr": r"socket-name \S+",
    "api-segment": r"prefix \S+|gid \w+",
    "statseg": r"socket-name \S+|size \d+[KMG]|page-size \S+|per-node-counters on",
    "memory": r"main-heap-size \d+[KMG]|main-heap-page-size \S+",
    "buffers": r"buffers-per-numa \d+|page-size \S+",
    "l3fib": r"(fib-entry|load-balance|ip4-mtrie)-pool-size \d+",
    "ip6": r"hash-buckets \d+",
    "interface": r"default-rx-mode (polling|interrupt|adaptive)",
    "cpu": r"main-core \d+|corelist-workers [\d,-]+",
    "plugins": r"plugin (default|\w+_plugin\.so)|disable|enable",
    "dpdk": (
        r"dev [0-9a-f:.]+|name \S+|num-[rt]x-(queues|desc) \d+|uio-driver \S+|no-multi-seg|no-pci"
        r"|no-tx-checksum-offload"
    ),
    "linux-cp": "lcp-sync",
}


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"router_ports": [], "router_bonds": []},
        {"vpp_workers": [], "vpp_main_core": 0, "vpp_poll_sleep_usec": 100, "vpp_rx_mode": "adaptive"},
    ],
    ids=["usual", "no-ports", "one-cpu"],
)
def test_every_line_of_startup_conf_is_one_that_vpp_reads(variables: dict[str, Any]) -> None:
    found = stanzas(files(**variables)["/etc/vpp/startup.conf"])
    assert set(found) - {"interface"} == set(KNOWN) - {"interface"}
    for stanza, lines in found.items():
        for line in lines:
            assert re.fullmatch(KNOWN[stanza], line), f"{stanza}: {line}"


def test_without_ports_dpdk_takes_no_nic() -> None:
    assert "no-pci" in stanzas(files(router_ports=[])["/etc/vpp/startup.conf"])["dpdk"]
    assert "no-pci" not in stanzas(files()["/etc/vpp/startup.conf"])["dpdk"]


def test_the_heap_is_in_huge_pages_where_they_were_reserved_for_it() -> None:
    def page(**variables: Any) -> str:
        found = stanzas(files(**variables)["/etc/vpp/startup.conf"])["memory"]
        return next(line.split()[1] for line in found if line.startswith("main-heap-page-size"))

    assert page() == "4k"
    assert page(hugepages_heap_bytes=GIB) == "4k"
    assert page(hugepages_heap_bytes=2 * GIB) == "default-hugepage"


def test_plugins_follow_from_what_is_configured() -> None:
    def plugins(**variables: Any) -> set[str]:
        return set(templated("vpp", "vpp_plugins", INVENTORY | variables))

    assert plugins() == {"dpdk", "linux_cp", "tap", "lacp"}
    assert plugins(router_bonds=[]) == {"dpdk", "linux_cp", "tap"}
    assert plugins(router_bonds=[{"name": "b", "mode": "xor"}]) == {"dpdk", "linux_cp", "tap"}
    assert plugins(router_bonds=[], vpp_further_plugins=["ping"]) == {"dpdk", "linux_cp", "tap", "ping"}


def test_defaults_can_be_read_before_the_host_is_known() -> None:
    """Ansible checks a role's arguments before its first task."""
    for name in ("vpp_ports", "vpp_buffers_per_numa", "vpp_main_core", "vpp_repository_suite"):
        templated("vpp", name, {**INVENTORY, "ansible_facts": {}})


def test_any_version_of_the_distribution_will_do() -> None:
    preferences = files(vpp_package_source={"kind": "distribution"})["/etc/apt/preferences.d/pop-router-vpp"]
    assert "Pin: version *\n" in preferences


def test_the_repository_is_written_for_apt() -> None:
    text = render(
        "vpp-apt.sources.j2",
        url="https://example.net/debian/",
        suite="trixie",
        components="main",
        keyring="/k.asc",
    )
    expected = (
        "Types: deb\nURIs: https://example.net/debian/\nSuites: trixie\nComponents: main\nSigned-By: /k.asc\n"
    )
    assert text == expected
    flat = render("vpp-apt.sources.j2", url="file:/srv/debs/", suite="./", components="", keyring="/k.asc")
    assert "Components" not in flat


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_unit_with_its_override(tmp_path: Path) -> None:
    unit = tmp_path / "vpp.service"
    unit.write_text("[Unit]\nDescription=VPP\n[Service]\nExecStartPre=-/bin/false\nExecStart=/bin/true\n")
    override = files()["/etc/systemd/system/vpp.service.d/pop-router.conf"]
    override = re.sub(r"/usr/local/lib/pop-router/\S+", "/bin/true", override)
    directory = tmp_path / "vpp.service.d"
    directory.mkdir()
    (directory / "pop-router.conf").write_text(override)
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    (directory / "pop-router.conf").write_text(override.replace("LimitMEMLOCK=infinity", "LimitMEMLOCK=none"))
    assert "ignoring: none" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


# --- programs ---


@pytest.fixture
def ready(tmp_path: Path) -> list[str]:
    program = tmp_path / "vpp-ready"
    program.write_text(files()["/usr/local/lib/pop-router/vpp-ready"])
    return [sys.executable, str(program)]


def test_vpp_is_ready_when_its_socket_accepts(ready: list[str], tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with (
        subprocess.Popen([*ready, str(path), "20"], env={"MAINPID": str(os.getpid())}) as waiting,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server,
    ):
        server.bind(str(path))
        server.listen()
        assert waiting.wait(20) == 0


def test_a_vpp_that_ended_is_not_waited_for(ready: list[str], tmp_path: Path) -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    done = subprocess.run(
        [*ready, str(tmp_path / "none"), "60"],
        env={"MAINPID": str(ended.pid)},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode == 1
    assert "VPP has ended while starting" in done.stderr


def test_a_vpp_that_does_not_answer_is_given_up(ready: list[str], tmp_path: Path) -> None:
    path = tmp_path / "none"
    done = subprocess.run([*ready, str(path), "0.2"], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert f"{path}: found no VPP that accepts within 0.2 s" in done.stderr


@pytest.fixture
def bus(tmp_path: Path) -> Path:
    for address in ("0000:03:00.0", "0000:03:00.1"):
        (tmp_path / "devices" / address).mkdir(parents=True)
        (tmp_path / "devices" / address / "driver_override").write_text("vfio-pci\n")
    (tmp_path / "devices" / "0000:03:00.0" / "driver").mkdir()
    return tmp_path


def devices(bus: Path, *addresses: str) -> subprocess.CompletedProcess[str]:
    program = files()["/usr/local/lib/pop-router/vpp-devices"].replace("/sys/bus/pci", str(bus))
    return subprocess.run(
        [sys.executable, "-c", program, *addresses], capture_output=True, text=True, check=False
    )


def test_nics_that_have_a_driver_are_left_alone(bus: Path) -> None:
    assert devices(bus, "0000:03:00.0").returncode == 0
    assert not (bus / "drivers_probe").exists()


def test_a_nic_without_a_driver_is_probed(bus: Path) -> None:
    done = devices(bus, "0000:03:00.0", "0000:03:00.1")
    assert (bus / "drivers_probe").read_text() == "0000:03:00.1"
    assert done.returncode == 1
    assert "0000:03:00.1: found a NIC that no driver takes (driver_override: vfio-pci)" in done.stderr
    assert "found no such NIC" in devices(bus, "0000:09:00.0").stderr
