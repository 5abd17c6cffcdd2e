"""Virtual functions: rules that make them at boot, the same settings now, and nothing of others taken away.

`Nic` answers as `ip` does. That a number of virtual functions changes by way of 0 only (sriov_numvfs_store in
drivers/pci/pci-sysfs.c) a directory cannot enforce; the order of writes is recorded instead.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import pytest

import sriov_virtual_functions
from sriov_functions import functions_of_ports, left_over, problems, settings
from sriov_virtual_functions import Nics, SriovError, Wanted, apply, as_wanted, check, differences

TEMPLATES = Path(__file__).parents[2] / "templates"
PCI = "0000:03:00.0"

RULES = """\
# Virtual functions of a router's NICs, written by Ansible (role sriov): changes made here are lost.
# Made when the kernel finds the NIC, which is before anything opens it.

ACTION=="add", SUBSYSTEM=="net", KERNELS=="0000:03:00.0", ATTR{device/sriov_numvfs}="2"
ACTION=="add", SUBSYSTEM=="net", KERNELS=="0000:03:00.0", RUN+="/usr/sbin/ip link set dev $name vf 0 \
mac 02:00:00:00:00:0a vlan 100 spoofchk off trust on"
ACTION=="add", SUBSYSTEM=="net", KERNELS=="0000:03:00.0", RUN+="/usr/sbin/ip link set dev $name vf 1 \
vlan 100 spoofchk off trust on"
"""
FUNCTION = {
    "device": PCI,
    "count": 2,
    "macs": ["02:00:00:00:00:0A"],
    "vlan": 100,
    "trust": True,
    "spoof_check": False,
}


def test_the_rules_are_what_a_person_has_looked_at() -> None:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,
    )
    environment.filters["sriov_settings"] = settings
    assert environment.get_template("sriov.rules.j2").render(sriov_functions=[FUNCTION]) == RULES


class Nic:
    """A NIC below `root`; `ip` keeps and shows the settings of its virtual functions."""

    def __init__(self, root: Path, total: int = 8) -> None:
        self.root = root
        self.path = root / "sys/bus/pci/devices" / PCI
        (self.path / "net/enp3s0").mkdir(parents=True)
        (self.path / "sriov_totalvfs").write_text(f"{total}\n")
        (self.path / "sriov_numvfs").write_text("0\n")
        (root / "proc").mkdir()
        self.known: dict[int, dict[str, Any]] = {}
        self.deaf = False

    def run(self, command: Sequence[str]) -> tuple[int, str, str]:
        if "show" in command:
            count = int((self.path / "sriov_numvfs").read_text())
            fresh = {"address": "52:54:00:00:00:01", "vlan_list": [{}], "spoofchk": True, "trust": False}
            shown = [{"vf": index, **fresh, **self.known.get(index, {})} for index in range(count)]
            return 0, json.dumps([{"ifname": "enp3s0", "vfinfo_list": shown}]), ""
        words = list(command)
        assert words[:5] == ["ip", "link", "set", "dev", "enp3s0"]
        if self.deaf:
            return 2, "", "RTNETLINK answers: Operation not supported"
        given = dict(zip(words[7::2], words[8::2], strict=True))
        settings: dict[str, Any] = {name: given[name] == "on" for name in ("spoofchk", "trust")}
        settings["vlan_list"] = [{"vlan": int(given["vlan"])}] if given["vlan"] != "0" else [{}]
        if "mac" in given:
            settings["address"] = given["mac"]
        self.known[int(words[6])] = settings
        return 0, "", ""


@pytest.fixture
def nic(tmp_path: Path) -> Nic:
    return Nic(tmp_path)


def test_virtual_functions_are_made_with_their_settings(nic: Nic) -> None:
    nics, wanted = Nics(nic.root, nic.run), Wanted.of(FUNCTION)
    assert not as_wanted(nics, wanted)
    apply(nics, wanted)
    assert (nic.path / "sriov_numvfs").read_text() == "2\n"
    assert nic.known[0]["address"] == "02:00:00:00:00:0a"
    assert "address" not in nic.known[1]
    assert as_wanted(nics, wanted)


def test_a_setting_that_somebody_changed_is_seen(nic: Nic) -> None:
    nics, wanted = Nics(nic.root, nic.run), Wanted.of(FUNCTION)
    apply(nics, wanted)
    nic.known[1]["trust"] = False
    assert differences(wanted, nics.settings(PCI)) == ["vf 1 trust False, expected True"]
    assert not as_wanted(nics, wanted)


def test_the_number_changes_by_way_of_0(nic: Nic, monkeypatch: pytest.MonkeyPatch) -> None:
    nics = Nics(nic.root, nic.run)
    apply(nics, Wanted(PCI, 4))
    written = []
    write_text = Path.write_text

    def record(path: Path, text: str, *arguments: Any, **options: Any) -> int:
        written.append(text)
        return write_text(path, text, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", record)
    apply(nics, Wanted(PCI, 2))
    assert written == ["0\n", "2\n"]
    apply(nics, Wanted(PCI, 0))
    assert written == ["0\n", "2\n", "0\n"]
    apply(nics, Wanted(PCI, 0))
    assert len(written) == 3


def test_virtual_functions_in_use_stay(nic: Nic) -> None:
    nics = Nics(nic.root, nic.run)
    apply(nics, Wanted(PCI, 1))
    group = nic.root / "sys/kernel/iommu_groups/31"
    group.mkdir(parents=True)
    (nic.path / "virtfn0").mkdir()
    (nic.path / "virtfn0/iommu_group").symlink_to(group)
    process = nic.root / "proc/99"
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("vpp_main\n")
    (process / "fd/5").symlink_to("/dev/vfio/31")
    with pytest.raises(SriovError, match=r"in use by vpp_main \(process 99\)"):
        apply(nics, Wanted(PCI, 2))
    assert (nic.path / "sriov_numvfs").read_text() == "1\n"


def test_more_than_the_nic_offers_is_refused(nic: Nic) -> None:
    nics = Nics(nic.root, nic.run)
    check(nics, Wanted(PCI, 8))
    with pytest.raises(SriovError, match=r"found 9 virtual functions wanted, expected at most 8"):
        check(nics, Wanted(PCI, 9))
    with pytest.raises(SriovError, match=r"0000:09:00\.0 was not found"):
        check(nics, Wanted("0000:09:00.0", 1))


def test_a_setting_the_driver_refuses_is_said(nic: Nic) -> None:
    nic.deaf = True
    with pytest.raises(SriovError, match="trust off failed: RTNETLINK answers: Operation not supported"):
        apply(Nics(nic.root, nic.run), Wanted(PCI, 1))


def test_a_nic_without_the_kernels_driver_is_refused(nic: Nic) -> None:
    (nic.path / "net/enp3s0").rmdir()
    with pytest.raises(SriovError, match="has no network interface"):
        apply(Nics(nic.root, nic.run), Wanted(PCI, 1))


def test_the_rules_are_the_record(nic: Nic) -> None:
    nics = Nics(nic.root, nic.run)
    assert nics.recorded() == []
    nics.rules.parent.mkdir(parents=True)
    nics.rules.write_text(RULES)
    assert nics.recorded() == [PCI]


def test_commands_that_fail_say_so() -> None:
    assert sriov_virtual_functions.run_command(["sh", "-c", "echo out; echo no >&2; exit 3"]) == (
        3,
        "out\n",
        "no",
    )
    assert sriov_virtual_functions.run_command(["no-such-command"])[0] == 127


# Filters


def facts(**changes: Any) -> dict[str, Any]:
    known = {
        "pci": PCI,
        "interface": "enp3s0",
        "name": "Intel 82576",
        "sriov_total": 7,
        "sriov_count": 0,
        "management": [],
    }
    return {"nics": [{**known, **changes}]}


def test_ports_ask_for_virtual_functions() -> None:
    port = {"name": "uplink", "device": "enp3s0", "vfs": {"count": 2, "trust": True}}
    assert functions_of_ports(facts(), [port, {"name": "lan", "device": "x"}], "kernel") == [
        {"device": PCI, "count": 2, "trust": True, "driver": ""}
    ]
    renamed = facts(interface="uplink")
    assert functions_of_ports(renamed, [port], "vpp")[0] == {
        "device": PCI,
        "count": 2,
        "trust": True,
        "driver": "vfio-pci",
    }


@pytest.mark.parametrize(
    ("changes", "function", "message"),
    [
        ({}, {"device": "0000:09:00.0", "count": 1}, "found no NIC 0000:09:00.0 on this host"),
        (
            {},
            {"device": PCI, "count": 8},
            "found 8 virtual functions of 0000:03:00.0 (Intel 82576), expected at most 7",
        ),
        (
            {"management": ["carries the ssh session"]},
            {"device": PCI, "count": 1},
            "must not be touched: it carries the ssh session",
        ),
        (
            {},
            {"device": PCI, "count": 1, "macs": ["a", "b"]},
            "found 2 MAC addresses for 1 virtual functions",
        ),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], function: dict[str, Any], message: str) -> None:
    assert message in "; ".join(problems(facts(**changes), [function]))


def test_a_port_of_vpp_makes_no_virtual_functions() -> None:
    function, port = {"device": PCI, "count": 1}, {"name": "uplink", "device": PCI}
    assert "is a port that VPP drives" in problems(facts(), [function], [port], "vpp")[0]
    assert problems(facts(), [function], [port], "kernel") == []


def test_left_over_virtual_functions() -> None:
    assert left_over(facts(sriov_count=2), []) == [PCI]
    assert left_over(facts(sriov_count=2), [{"device": PCI, "count": 2}]) == []
    assert left_over(facts(), []) == []
