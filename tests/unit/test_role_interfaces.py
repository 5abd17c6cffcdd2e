"""Role interfaces: what the inventory becomes, the files of both planes, and its modules' decisions.

After a wanted change: ``GOLDEN=write pytest tests/unit/test_role_interfaces.py``, then look at what differs.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

import management_facts
from forwarding_links import forwarding_links, interface_addresses, interface_names, network_files
from kernel_ports import (
    Host,
    PortError,
    device_of,
    give_back,
    lacking,
    name_ports,
    remove_devices,
    run_networkd,
)
from rendered_files import FileError
from rendered_files import run as run_rendered_files
from role_variables import rendered, templated
from vppcfg_interfaces import PlanError
from vppcfg_interfaces import run as run_vppcfg_interfaces

GOLDEN = Path(__file__).with_name("golden")

PORTS: list[dict[str, Any]] = [
    {
        "name": "uplink",
        "device": "0000:03:00.0",
        "addresses": ["198.51.100.2/30", "2001:DB8:0:1::2/64"],
        "rx_descriptors": 2048,
        "vlans": [{"id": 100, "addresses": ["192.0.2.129/26"]}, {"id": 200, "mtu": 1400}],
    },
    {"name": "lan_1", "device": "enp4s0", "addresses": ["10.0.0.1/24"]},
    {"name": "m1", "device": "0000:05:00.0", "bond": "bond3", "mtu": 9000},
    {"name": "m2", "device": "0000:05:00.1", "bond": "bond3", "mtu": 9000},
]
BONDS = [
    {
        "name": "bond3",
        "mtu": 9000,
        "addresses": ["10.1.0.1/24"],
        "vlans": [{"id": 7, "addresses": ["10.7.0.1/24"]}],
    }
]
LOOPBACKS = [{"name": "lo1", "addresses": ["192.0.2.1/32", "2001:db8::1/128"]}]
FACTS: dict[str, Any] = {
    "nics": [
        {"pci": "0000:03:00.0", "interface": "uplink", "former_interface": "enp3s0"},
        {"pci": "0000:04:00.0", "interface": "enp4s0"},
    ],
    "management": [
        {"interface": "eth0", "reasons": ["default route"]},
        {"interface": "uplink", "reasons": ["x"]},
    ],
}
INVENTORY: dict[str, Any] = {
    "router_forwarding": "vpp",
    "router_ports": PORTS,
    "router_bonds": BONDS,
    "router_loopbacks": LOOPBACKS,
    "ansible_facts": {"router_host": FACTS},
    "interfaces_facts": {"router_advertisements": ["eth0"], "configured_elsewhere": ["eth0"]},
}


def files(**variables: Any) -> dict[str, str]:
    return _files(json.dumps(variables))


@cache
def _files(variables: str) -> dict[str, str]:
    scope = INVENTORY | json.loads(variables)
    names = ["interfaces_files", "interfaces_network_files", "interfaces_vpp_files"]
    return rendered([file for name in names for file in templated("interfaces", name, scope)])


# --- forwarding_links ---


def test_every_interface_is_complete() -> None:
    links = forwarding_links(PORTS, BONDS, LOOPBACKS, FACTS, "ams1-r1")
    assert [(port["name"], port["pci"], port["mtu"], port["bond"]) for port in links["ports"]] == [
        ("uplink", "0000:03:00.0", 1500, None),
        ("lan_1", "0000:04:00.0", 1500, None),
        ("m1", "0000:05:00.0", 9000, "bond3"),
        ("m2", "0000:05:00.1", 9000, "bond3"),
    ]
    assert links["ports"][0]["addresses"] == ["198.51.100.2/30", "2001:db8:0:1::2/64"]
    assert [(vlan["name"], vlan["mtu"]) for vlan in links["ports"][0]["vlans"]] == [
        ("uplink.100", 1500),
        ("uplink.200", 1400),
    ]
    bond = links["bonds"][0]
    assert (bond["instance"], bond["mode"], bond["members"]) == (3, "lacp", ["m1", "m2"])
    assert links["loopbacks"][0]["instance"] == 1
    expected = "uplink uplink.100 uplink.200 lan_1 m1 m2 bond3 bond3.7 lo1"
    assert interface_names(links) == expected.split()
    assert interface_addresses(links)["bond3.7"] == ["10.7.0.1/24"]
    assert "uplink.200" not in interface_addresses(links)


def test_a_bond_keeps_its_mac_and_has_another_one_elsewhere() -> None:
    def mac(hostname: str) -> str:
        return str(forwarding_links(PORTS, BONDS, (), None, hostname)["bonds"][0]["mac"])

    assert mac("a") == mac("a") != mac("b")
    first = int(mac("a").split(":")[0], 16)
    assert first & 0b11 == 0b10, "locally administered, unicast"


def test_a_renamed_port_is_still_found() -> None:
    """Its interface has the port's name by then."""
    ports = [{"name": "uplink", "device": "enp3s0"}]
    assert forwarding_links(ports, facts=FACTS)["ports"][0]["pci"] == "0000:03:00.0"
    facts = {"nics": [{"pci": "0000:03:00.0", "interface": "uplink"}]}
    assert forwarding_links(ports, facts=facts)["ports"][0]["pci"] == "0000:03:00.0"
    assert forwarding_links(ports)["ports"][0]["pci"] is None


@pytest.mark.parametrize(
    ("names", "instances"),
    [(["lo1", "lo7"], [1, 7]), (["dns", "ntp"], [0, 1]), (["a1", "b1"], [0, 1]), (["a5", "b"], [0, 1])],
)
def test_vpps_numbers_stay_when_another_loopback_goes(names: list[str], instances: list[int]) -> None:
    links = forwarding_links([], loopbacks=[{"name": name} for name in names])
    assert [loopback["instance"] for loopback in links["loopbacks"]] == instances


def changed(base: Mapping[str, Any], **keys: Any) -> list[dict[str, Any]]:
    return [{**base, **keys}]


PORT: dict[str, Any] = {"name": "uplink", "device": "0000:03:00.0"}


@pytest.mark.parametrize(
    ("ports", "bonds", "message"),
    [
        (
            changed(PORT, name="up link"),
            [],
            r"router_ports\[0\]\.name: found 'up link', expected at most 15",
        ),
        (changed(PORT, name="averylongportname"), [], r"router_ports\[0\]\.name: found 'averylongportname'"),
        (changed(PORT, name="tap0"), [], r"router_ports\[0\]\.name: found 'tap0', which VPP gives"),
        (changed(PORT, mtu=1000), [], r"router_ports\[0\]\.mtu: found 1000, expected 1280 to 9216"),
        (
            changed(PORT, addresses=["192.0.2.1"]),
            [],
            r"\.addresses: found '192.0.2.1', expected its prefix",
        ),
        (
            changed(PORT, addresses=["192.0.2.256/24"]),
            [],
            r"\.addresses: found '192.0.2.256/24'",
        ),
        (
            changed(PORT, vlans=[{"id": 4095}]),
            [],
            r"\.vlans\[0\]\.id: found 4095, expected 1 to 4094",
        ),
        (
            changed(PORT, vlans=[{"id": 1, "mtu": 9000}]),
            [],
            r"vlans\[0\]\.mtu: found 9000, expected that of",
        ),
        (
            changed(PORT, name="fourteen-chars", vlans=[{"id": 10}]),
            [],
            r"name fourteen-chars\.10 of 17",
        ),
        (
            changed(PORT, bond="bond0"),
            [],
            r"\.bond: found 'bond0', expected one of router_bonds",
        ),
        ([PORT], [{"name": "bond0"}], r"router_bonds\[0\]: found no port with bond: bond0"),
        (
            changed(PORT, bond="b", addresses=["192.0.2.1/24"]),
            [{"name": "b"}],
            "found addresses or vlans",
        ),
        (
            changed(PORT, bond="b"),
            [{"name": "b", "mtu": 9000}],
            r"router_bonds\[0\]\.mtu: found 9000",
        ),
        ([PORT, PORT], [], "found uplink twice, expected each name once"),
        (
            [
                {**PORT, "addresses": ["192.0.2.1/24"]},
                {"name": "b", "device": "x", "addresses": ["192.0.2.1/32"]},
            ],
            [],
            "found 192.0.2.1 on uplink and on b, expected each address once",
        ),
    ],
)
def test_what_is_wrong_is_named(
    ports: list[dict[str, Any]], bonds: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(AnsibleFilterError, match=message):
        forwarding_links(ports, bonds)


# --- files ---


@pytest.mark.parametrize("forwarding", ["vpp", "kernel"])
def test_the_files_are_what_was_looked_at(forwarding: str) -> None:
    """All of them in one, each after its path."""
    found = files(router_forwarding=forwarding)
    text = "".join(f"==> {path} <==\n{content}" for path, content in found.items())
    golden = GOLDEN / f"role-interfaces-{forwarding}"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()
    for path, content in found.items():
        assert re.search(r"[^\n]\n\Z", content), path
        assert not re.search(r"[ \t]$|\n\n\n\n", content, re.MULTILINE), path


def test_the_management_interface_is_no_port() -> None:
    assert templated("interfaces", "interfaces_management", INVENTORY) == ["eth0"]


def test_defaults_can_be_read_before_the_host_is_known() -> None:
    """Ansible checks a role's arguments before its first task."""
    scope = {**INVENTORY, "ansible_facts": {}}
    assert templated("interfaces", "interfaces_management", scope) == []
    assert templated("interfaces", "interfaces_links", scope)["ports"][1]["pci"] is None


def test_vpp_gets_every_interface_and_its_mirror() -> None:
    config = yaml.safe_load(files()["/etc/vpp/vppcfg.yaml"])
    assert config["interfaces"]["uplink"]["lcp"] == "uplink"
    assert config["interfaces"]["uplink"]["sub-interfaces"][100]["lcp"] == "uplink.100"
    assert config["interfaces"]["m1"] == {"mtu": 9000}
    assert config["interfaces"]["BondEthernet3"]["lcp"] == "bond3"
    assert config["bondethernets"]["BondEthernet3"]["interfaces"] == ["m1", "m2"]
    assert config["loopbacks"]["loop1"]["addresses"] == ["192.0.2.1/32", "2001:db8::1/128"]
    unmirrored = files(interfaces_mirrored=False)["/etc/vpp/vppcfg.yaml"]
    assert "lcp" not in unmirrored
    assert yaml.safe_load(
        files(router_ports=[], router_bonds=[], router_loopbacks=[])["/etc/vpp/vppcfg.yaml"]
    ) == {"interfaces": {}}


def vppcfg() -> str:
    found = shutil.which("vppcfg") or shutil.which("vppcfg", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("vppcfg is not installed")
    return found


def test_vppcfg_accepts_what_is_rendered_and_refuses_what_is_broken(tmp_path: Path) -> None:
    config = tmp_path / "vppcfg.yaml"
    text = files()["/etc/vpp/vppcfg.yaml"]
    command = [vppcfg(), "--quiet", "check", "--config", str(config)]
    config.write_text(text)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    config.write_text(text.replace("mtu: 1400", "mtu: 9001"))
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_networkd_configures_nothing_where_vpp_forwards() -> None:
    network = {path: text for path, text in files().items() if "/systemd/network/" in path}
    assert len(network) == 1 + len(interface_names(forwarding_links(PORTS, BONDS, LOOPBACKS)))
    for text in network.values():
        assert "Unmanaged=yes" in text
        assert "Address=" not in text


def test_networkd_leaves_management_alone_unless_it_is_its_own() -> None:
    links = forwarding_links([PORT])
    assert [file["name"] for file in network_files(links, "kernel", ["eth0"])] == [
        "eth0.network",
        "uplink.link",
        "uplink.network",
    ]
    assert [file["name"] for file in network_files(links, "kernel")] == ["uplink.link", "uplink.network"]


def test_no_boot_waits_for_a_port() -> None:
    for path, text in files(router_forwarding="kernel").items():
        if path.endswith(".network") and "Unmanaged" not in text:
            assert "RequiredForOnline=no" in text, path


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    for path, text in files().items():
        if Path(path).suffix in {".service", ".timer"}:
            text = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
            (tmp_path / Path(path).name).write_text(text)
    units = sorted(str(path) for path in tmp_path.iterdir())
    assert len(units) == 3
    command = ["systemd-analyze", "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    ours = [line for line in done.stderr.splitlines() if any(Path(unit).name in line for unit in units)]
    assert ours == []
    timer = tmp_path / "management-route.timer"
    timer.write_text(timer.read_text().replace("OnUnitInactiveSec=1min", "OnUnitInactiveSec=often"))
    assert "often" in subprocess.run(command, capture_output=True, text=True, check=False).stderr


def test_management_keeps_its_router_advertisements() -> None:
    """Forwarding turns accept_ra = 1 off, so the line comes before."""
    sysctls = files()["/etc/sysctl.d/90-pop-router.conf"].splitlines()
    assert sysctls.index("-net/ipv6/conf/eth0/accept_ra = 2") < sysctls.index(
        "net.ipv6.conf.all.forwarding = 1"
    )
    without = files(interfaces_facts={"router_advertisements": [], "configured_elsewhere": []})
    assert "eth0" not in without["/etc/sysctl.d/90-pop-router.conf"]


# --- modules ---


class Module:
    """What functions want of AnsibleModule: parameters, check mode, and commands, which are noted."""

    def __init__(
        self, *, check_mode: bool = False, answers: Mapping[str, str] | None = None, **params: Any
    ) -> None:
        self.params = params
        self.check_mode = check_mode
        self.answers = dict(answers or {})
        self.commands: list[str] = []

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        line = " ".join(command)
        self.commands.append(line)
        if line in self.answers:
            return 0, self.answers[line], ""
        return 1, "", "refused"


def entry(path: Path, content: str, **keys: Any) -> dict[str, Any]:
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    return {"path": str(path), "content": content, "mode": "0644", "owner": owner, "group": group, **keys}


def write_files(
    files: list[dict[str, Any]], *, links: Any = (), stale: Any = (), check_mode: bool = False
) -> dict[str, Any]:
    module = Module(files=files, links=list(links), stale=list(stale), check_mode=check_mode)
    return run_rendered_files(module)


def test_files_are_written_once(tmp_path: Path) -> None:
    wanted = [entry(tmp_path / "a" / "one", "1\n"), entry(tmp_path / "two", "2\n", mode="0750")]
    links = [{"path": str(tmp_path / "wants" / "two"), "target": str(tmp_path / "two")}]
    first = write_files(wanted, links=links)
    assert first["changed"]
    assert first["written"] == [
        str(tmp_path / "a" / "one"),
        str(tmp_path / "two"),
        str(tmp_path / "wants" / "two"),
    ]
    assert (tmp_path / "a" / "one").read_text() == "1\n"
    assert stat.S_IMODE((tmp_path / "two").stat().st_mode) == 0o750
    assert (tmp_path / "wants" / "two").read_text() == "2\n"
    assert write_files(wanted, links=links) == {"changed": False, "written": [], "removed": {}, "diff": []}
    (tmp_path / "two").chmod(0o644)
    assert write_files(wanted, links=links)["written"] == [str(tmp_path / "two")]


def test_check_mode_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old\n")
    result = write_files([entry(tmp_path / "new", "new\n")], stale=[f"{tmp_path}/o*"], check_mode=True)
    assert result["changed"]
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert [(diff["before"], diff["after"]) for diff in result["diff"]] == [("", "new\n"), ("old\n", "")]


def test_what_left_the_set_is_removed_and_shown(tmp_path: Path) -> None:
    for name in ("10-pop-router-a.link", "10-pop-router-b.link", "20-admin.link"):
        (tmp_path / name).write_text(f"{name}\n")
    kept = entry(tmp_path / "10-pop-router-a.link", "10-pop-router-a.link\n")
    result = write_files([kept], stale=[f"{tmp_path}/10-pop-router-*"])
    assert result["removed"] == {str(tmp_path / "10-pop-router-b.link"): "10-pop-router-b.link\n"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["10-pop-router-a.link", "20-admin.link"]


def test_a_text_that_its_daemon_refuses_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text("good\n")
    with pytest.raises(FileError, match=r"refuses with status 1: refused\nThe old file was left as it is"):
        write_files([entry(path, "bad\n", validate="check %s")])
    assert path.read_text() == "good\n"
    assert [file.name for file in tmp_path.iterdir()] == ["config"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"mode": "rw"}, "expected octal digits"), ({"validate": "check"}, "a command with %s")],
)
def test_a_file_described_wrongly_is_refused(tmp_path: Path, keys: dict[str, str], message: str) -> None:
    with pytest.raises(FileError, match=message):
        write_files([entry(tmp_path / "x", "x\n", **keys)])


@pytest.fixture
def sys_tree(tmp_path: Path) -> Path:
    """A NIC enp3s0, a virtio NIC enp4s0, and a virtual interface v0."""
    devices = tmp_path / "sys/bus/pci/devices"
    (devices / "0000:03:00.0/net/enp3s0").mkdir(parents=True)
    (devices / "0000:04:00.0/virtio1/net/enp4s0").mkdir(parents=True)
    (devices / "0000:05:00.0").mkdir()
    for name in ("enp3s0", "enp4s0", "v0"):
        (tmp_path / "sys/class/net" / name).mkdir(parents=True)
    return tmp_path


def host(tree: Path, module: Module) -> Host:
    return Host(module, tree)


def port(name: str, device: str, pci: str | None = None) -> dict[str, str | None]:
    return {"name": name, "device": device, "pci": pci}


def test_ports_are_named_while_they_are_down(sys_tree: Path) -> None:
    ports = [
        port("uplink", "0000:03:00.0", "0000:03:00.0"),
        port("enp4s0", "0000:04:00.0", "0000:04:00.0"),
        port("lan", "v0"),
    ]
    module = Module(check_mode=True)
    named = host(sys_tree, module)
    name_ports(named, ports)
    assert named.actions == [
        "ip link set dev enp3s0 down",
        "ip link set dev enp3s0 name uplink",
        "ip link set dev v0 down",
        "ip link set dev v0 name lan",
    ]
    assert module.commands == []


def test_a_port_without_interface_and_a_taken_name_are_refused(sys_tree: Path) -> None:
    with pytest.raises(
        PortError, match=r"uplink: found no interface for 0000:05:00\.0, expected the NIC to be on its"
    ):
        name_ports(host(sys_tree, Module()), [port("uplink", "0000:05:00.0", "0000:05:00.0")])
    with pytest.raises(
        PortError, match=r"v0: found another interface of this name, expected it to be free for 0000"
    ):
        name_ports(host(sys_tree, Module()), [port("v0", "0000:03:00.0", "0000:03:00.0")])


LINK = "[Match]\nOriginalName=w0\n\n[Link]\nName=v0\n"


def test_a_port_that_left_gets_its_name_back(sys_tree: Path) -> None:
    returned = host(sys_tree, Module(check_mode=True))
    give_back(returned, {"/x/10-pop-router-v0.link": LINK, "/x/gone.link": LINK.replace("v0", "gone")}, [])
    assert returned.actions == [
        "ip link set dev v0 nomaster down",
        "ip address flush dev v0",
        "ip link set dev v0 name w0",
    ]
    kept = host(sys_tree, Module(check_mode=True))
    give_back(kept, {"/x/10-pop-router-v0.link": LINK}, [port("v0", "w0")])
    assert kept.actions == []


def test_a_nic_is_given_back_under_the_name_udev_has_for_it(sys_tree: Path) -> None:
    answer = "ID_NET_NAME_PATH=enp3s0\nID_NET_NAME_ONBOARD=eno1\n"
    module = Module(check_mode=True, answers={"udevadm info --query=property /sys/class/net/enp3s0": answer})
    returned = host(sys_tree, module)
    give_back(returned, {"/x/a.link": "[Match]\nPath=pci-0000:03:00.0\n[Link]\nName=enp3s0\n"}, [])
    assert returned.actions[-1] == "ip link set dev enp3s0 name eno1"


def test_devices_without_their_file_are_deleted(sys_tree: Path, tmp_path: Path) -> None:
    (sys_tree / "sys/class/net/v0.7").mkdir()
    rewritten = tmp_path / "v0.netdev"
    rewritten.write_text("[NetDev]\nName=v0\nKind=dummy\n")
    found = host(sys_tree, Module(check_mode=True))
    remove_devices(found, [str(rewritten)], {"/x/v0.7.netdev": "[NetDev]\nName=v0.7\nKind=vlan\n"})
    assert found.actions == ["ip link delete dev v0", "ip link delete dev v0.7"]
    assert device_of("[Match]\nName=v0\n[Network]\nAddress=192.0.2.1/24\nAddress=192.0.2.2/24\n") is None


IS_ENABLED = "systemctl is-enabled --quiet systemd-networkd.service"
IS_ACTIVE = "systemctl is-active --quiet systemd-networkd.service"
RELOAD = "networkctl reload"


@pytest.mark.parametrize(
    ("running", "changed", "enable", "actions"),
    [
        ([IS_ENABLED, IS_ACTIVE], [], True, []),
        ([IS_ENABLED, IS_ACTIVE], ["/etc/systemd/network/x.network"], True, [RELOAD]),
        ([IS_ACTIVE], ["/etc/systemd/network/x.network"], False, [RELOAD]),
        ([], ["/etc/systemd/network/x.network"], False, []),
        (
            [IS_ENABLED, IS_ACTIVE],
            ["/etc/systemd/networkd.conf.d/x.conf"],
            True,
            ["systemctl restart systemd-networkd.service"],
        ),
        (
            [],
            ["/etc/systemd/network/x.network"],
            True,
            [
                "systemctl enable systemd-networkd.service",
                "systemctl disable systemd-networkd-wait-online.service",
                "systemctl start systemd-networkd.service",
            ],
        ),
    ],
)
def test_networkd_is_disturbed_as_little_as_possible(
    sys_tree: Path, running: list[str], changed: list[str], enable: bool, actions: list[str]
) -> None:
    found = host(sys_tree, Module(check_mode=True, answers=dict.fromkeys(running, "")))
    run_networkd(found, changed, enable)
    assert found.actions == actions


def test_addresses_are_compared_in_their_one_form(sys_tree: Path) -> None:
    entries = [{"local": "192.0.2.1", "prefixlen": 24}, {"local": "2001:db8:0::1", "prefixlen": 64}]
    module = Module(answers={"ip -json address show dev v0": json.dumps([{"addr_info": entries}])})
    wanted = {"v0": ["192.0.2.1/24", "2001:db8::1/64"], "v1": ["192.0.2.9/24"]}
    assert lacking(host(sys_tree, module), wanted) == {"v1": ["192.0.2.9/24"]}


def test_management_facts_tell_who_configures(tmp_path: Path) -> None:
    for name, index, accept in (("eth0", 2, "1"), ("eth1", 3, "0")):
        for path, text in (
            (f"proc/sys/net/ipv6/conf/{name}/accept_ra", accept),
            (f"sys/class/net/{name}/ifindex", str(index)),
        ):
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(f"{text}\n")
    links = tmp_path / "run/systemd/netif/links"
    links.mkdir(parents=True)
    (links / "2").write_text("ADMIN_STATE=configured\nNETWORK_FILE=/etc/systemd/network/dhcp.network\n")
    (links / "3").write_text(
        "ADMIN_STATE=unmanaged\nNETWORK_FILE=/etc/systemd/network/10-pop-router-eth1.network\n"
    )

    def facts(runs: bool) -> dict[str, Any]:
        own = "/etc/systemd/network/10-pop-router-"
        return management_facts.facts(["eth0", "eth1", "eth2"], own, runs, tmp_path)

    assert facts(runs=True) == {"router_advertisements": ["eth0"], "configured_elsewhere": ["eth1", "eth2"]}
    assert facts(runs=False)["configured_elsewhere"] == ["eth0", "eth1", "eth2"]


PARTS = """
import importlib.machinery, importlib.util, sys
loader = importlib.machinery.SourceFileLoader("program", sys.argv[1])
program = importlib.util.module_from_spec(importlib.util.spec_from_loader("program", loader))
loader.exec_module(program)

class Reply:
    def __init__(self, retval, cursor):
        self.retval, self.cursor = retval, cursor

answers = {0: (Reply(-165, 7), []), 7: (Reply(-165, 9), ["a", "b"]), 9: (Reply(0, 0), ["c"])}
reply, mirrors = program.all_parts(lambda cursor: answers[cursor])
assert (reply.retval, mirrors) == (0, ["a", "b", "c"])

commands = {
    "prune": [f"set interface ip address del {it}" for it in ("BondEthernet3 10.1.0.1/24", "a 10.2.0.1/24")],
    "create": [],
    "sync": ["set interface ip address BondEthernet3 10.1.0.1/24", "set interface ip address a 10.2.0.2/24"],
}
kept = program.without_reversals(commands)
assert kept == {"prune": commands["prune"][1:], "create": [], "sync": commands["sync"][1:]}
again = commands | {"create": ["create bond id 3 mode lacp", "set interface tag BondEthernet3 vppcfg"]}
assert program.without_reversals(again) == again
"""


def test_vpp_interfaces_reads_all_mirrors_and_leaves_bonds_their_addresses(tmp_path: Path) -> None:
    program = tmp_path / "vpp-interfaces"
    program.write_text(files()["/usr/local/lib/pop-router/vpp-interfaces"])
    python = str(Path(vppcfg()).with_name("python3"))
    done = subprocess.run([python, "-c", PARTS, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


PLAN = "/lib/vpp-interfaces plan"
ACTIVE = "systemctl is-active --quiet vpp-interfaces.service"
RESTART = "systemctl restart vpp-interfaces.service"


class Vpp(Module):
    """A module on a host whose vpp-interfaces has plans left, one after the other."""

    def __init__(self, plans: list[str], *, active: bool, **keys: Any) -> None:
        answers = {RESTART: ""} | ({ACTIVE: ""} if active else {})
        super().__init__(
            answers=answers,
            content="interfaces: {}\n",
            program="/lib/vpp-interfaces",
            api_socket="/run/api.sock",
            unit="vpp-interfaces.service",
            **keys,
        )
        self.plans = plans

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        if " ".join(command).startswith(PLAN):
            self.commands.append(PLAN)
            return 0, self.plans.pop(0), ""
        return super().run_command(command)


def test_vpp_that_has_everything_is_left_alone() -> None:
    module = Vpp([""], active=True)
    assert run_vppcfg_interfaces(module)["changed"] is False
    assert module.commands == [PLAN, ACTIVE]


def test_a_plan_is_carried_out_by_the_unit_and_made_again() -> None:
    module = Vpp(["set interface state uplink up\n", ""], active=True)
    result = run_vppcfg_interfaces(module)
    assert result["plan"] == ["set interface state uplink up"]
    assert module.commands == [PLAN, RESTART, PLAN]
    assert result["diff"][0]["after"] == "set interface state uplink up\n"


def test_a_unit_that_has_failed_is_started_again() -> None:
    module = Vpp(["", ""], active=False)
    assert run_vppcfg_interfaces(module)["changed"] is True
    assert RESTART in module.commands


def test_work_that_is_left_is_an_error() -> None:
    with pytest.raises(PlanError, match=r"found work left .*: set interface state uplink up"):
        run_vppcfg_interfaces(Vpp(["set interface state uplink up\n"] * 2, active=True))


def test_check_mode_only_plans(tmp_path: Path) -> None:
    module = Vpp(["set interface state uplink up\n"], active=True, check_mode=True)
    module.params |= {"program": str(tmp_path), "api_socket": str(tmp_path)}
    module.answers[f"{tmp_path} plan"] = ""
    fresh = Vpp([], active=False, check_mode=True)
    result = run_vppcfg_interfaces(fresh)
    assert result["changed"]
    assert "/lib/vpp-interfaces is not there yet" in result["msg"]
    assert fresh.commands == []
