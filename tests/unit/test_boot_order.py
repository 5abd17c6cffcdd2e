"""All units of a host together have an order in which they can start.

systemd breaks a cycle by leaving a unit out of the boot, and says so in the journal alone.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from role_variables import rendered_by_ansible

#: Order of the units that come with Debian's frr and FD.io's vpp: what the kit's own are written around.
FRR = "Wants=network.target\nAfter=network-pre.target systemd-sysctl.service\nBefore=network.target\n"
VPP = "After=network.target\n"

UNITS: dict[str, tuple[str, dict[str, Any]]] = {
    "vpp.service.d/pop-router.conf": (
        "vpp-override.conf.j2",
        {
            "hostname": "pop1",
            "devices": [],
            "devices_command": "/bin/true",
            "ready_command": "/bin/true",
            "api_socket": "/run/vpp/api.sock",
            "start_seconds": 60,
        },
    ),
    "vpp-interfaces.service": (
        "vpp-interfaces.service.j2",
        {"command": "/bin/true", "config_file": "/etc/vpp/vppcfg.yaml"},
    ),
    "management-route.service": ("management-route.service.j2", {"command": "/bin/true", "wait_seconds": 30}),
    "router-agent.service": (
        "router-agent.service.j2",
        {
            "executable": "/bin/true",
            "config_file": "/etc/router-agent/agent.yaml",
            "user": "root",
            "socket_groups": [],
            "namespaces": False,
            "listens": False,
            "after": ["frr.service", "vpp.service"],
            "watchdog_seconds": 30,
            "start_seconds": 60,
        },
    ),
    "last-good-boot.service": ("last-good-boot.service.j2", {"command": "/bin/true"}),
    "last-good@.service": ("last-good@.service.j2", {"command": "/bin/true"}),
    "exabgp.service": (
        "exabgp.service.j2",
        {
            "executable": "/bin/true",
            "config_file": "/etc/exabgp/exabgp.conf",
            "environment_file": "/etc/exabgp/exabgp.env",
            "user": "root",
            "after": ["frr.service", "router-agent.service"],
            "writable": [],
        },
    ),
}


def boot(directory: Path) -> str:
    """Return what systemd says of a boot that wants all of them."""
    wanted = [*sorted(path.name for path in directory.glob("*[!@].service")), "systemd-networkd.service"]
    target = directory / "pop-router.target"
    target.write_text(f"[Unit]\nDescription=POP router\nWants={' '.join(wanted)}\n")
    command = ["systemd-analyze", "verify", "--man=no", str(target)]
    where = os.environ | {"SYSTEMD_UNIT_PATH": f"{directory}:"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=where).stderr


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units of a host, as their roles render them, beside those of the packages."""
    for name, order in {"frr": FRR, "vpp": VPP}.items():
        text = f"[Unit]\nDescription={name}\n{order}[Service]\nExecStart=/bin/true\n"
        (tmp_path / f"{name}.service").write_text(text)
    for name, (template, variables) in UNITS.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            re.sub(r"^User=.*|^Group=.*", "", rendered_by_ansible(template, variables), flags=re.MULTILINE)
        )
    return tmp_path


needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@needs_systemd
def test_every_unit_can_start_at_boot(units: Path) -> None:
    assert "ordering cycle" not in boot(units)
    override = units / "vpp.service.d" / "pop-router.conf"
    override.write_text(override.read_text().replace("Before=exabgp", "Before=frr.service exabgp"))
    assert "ordering cycle" in boot(units)


@needs_systemd
def test_the_way_back_comes_before_everything_that_reads_what_it_restores(units: Path) -> None:
    """A unit that had to come before it and after one of these would close a cycle: each is tried."""
    way_back = units / "last-good-boot.service"
    text = way_back.read_text()
    readers = ["systemd-udev-trigger", "systemd-sysctl", "systemd-networkd", "management-route", "vpp", "frr"]
    for reader in [*readers, "exabgp", "router-agent"]:
        way_back.write_text(text.replace("After=", f"After={reader}.service ", 1))
        assert "ordering cycle" in boot(units), reader
    way_back.write_text(text)
    assert "ordering cycle" not in boot(units)
