"""The virtual hardware as QEMU's command line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from router_agent.lab.commands import run
from router_agent.lab.errors import LabError
from router_agent.lab.vm.plan import (
    CPUS,
    DEVICES,
    LAN,
    MANAGEMENT,
    MANAGEMENT_DEVICE,
    MEMORY_MIB,
    SHARED_GROUP_DEVICES,
    UPLINK,
)

PROGRAM = "qemu-system-x86_64"

_VERSION = re.compile(r"version (\d+)\.(\d+)")
_IGB_SINCE = (8, 0)
_SLOT = re.compile(r"^0000:([0-9a-f]{2}):([0-9a-f]{2})\.0$")


@dataclass(frozen=True, slots=True)
class Hardware:
    """What is in the machine.

    Attributes:
        cpus: virtual processors.
        memory_mib: memory in MiB.
        iommu: with an Intel IOMMU.
        igb: with an igb for SR-IOV.
        kvm: run on the processor itself; otherwise it is emulated.
    """

    cpus: int = CPUS
    memory_mib: int = MEMORY_MIB
    iommu: bool = True
    igb: bool = False
    kvm: bool = False

    def without_iommu(self) -> Hardware:
        """Return the same machine with its IOMMU switched off, as in a BIOS."""
        return replace(self, iommu=False)


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the machine is plugged into.

    Attributes:
        overlay: disk image in qcow2 format.
        serial_log: file that gets what the host prints on its serial console.
        qmp: path of the socket QEMU answers at.
        pid_file: file QEMU writes its process id to.
        ssh_port: TCP port of 127.0.0.1 that leads to the host's port 22.
        taps: open tap descriptors by port name.
    """

    overlay: Path
    serial_log: Path
    qmp: Path
    pid_file: Path
    ssh_port: int
    taps: Mapping[str, int]


def command_line(hardware: Hardware, wiring: Wiring) -> list[str]:
    """Return QEMU's command line."""
    return [
        PROGRAM,
        *("-name", "router-agent-lab-vm"),
        # An IOMMU that remaps interrupts wants the interrupt controller outside the kernel (KVM only).
        *("-machine", "q35,kernel-irqchip=split"),
        *("-accel", "kvm" if hardware.kvm else "tcg,thread=multi"),
        # Without AVX2: QEMU 7.2 emulates its gathers wrongly, and NumPy's argsort dies of a protection fault.
        *("-cpu", "host" if hardware.kvm else "max,avx2=off"),
        *("-smp", str(hardware.cpus)),
        *("-m", f"{hardware.memory_mib}M"),
        *_display(wiring),
        *_iommu(hardware),
        *_disk(wiring),
        *_management(wiring),
        *_nic("e1000e", UPLINK.name, UPLINK.mac, DEVICES[UPLINK.name], wiring),
        *_nic("vmxnet3", LAN.name, LAN.mac, DEVICES[LAN.name], wiring),
        *_shared_group(),
        *(_igb() if hardware.igb else ()),
    ]


def has_igb() -> bool:
    """Return whether the QEMU at hand has igb.

    Raises:
        LabError: there is no QEMU.
    """
    return version() >= _IGB_SINCE


def version() -> tuple[int, int]:
    """Return the version of the QEMU at hand.

    Raises:
        LabError: there is none, or it says nothing that reads like a version.
    """
    return parse_version(run([PROGRAM, "--version"]))


def parse_version(text: str) -> tuple[int, int]:
    """Return major and minor version out of what ``--version`` prints.

    Raises:
        LabError: there is none in it.
    """
    found = _VERSION.search(text)
    if not found:
        raise LabError(f"{PROGRAM} --version: found {text[:80]!r}, expected 'version N.N'")
    return int(found[1]), int(found[2])


def _display(wiring: Wiring) -> tuple[str, ...]:
    return (
        *("-nodefaults", "-display", "none", "-vga", "std"),
        *("-chardev", f"file,id=serial,path={wiring.serial_log},append=on", "-serial", "chardev:serial"),
        *("-qmp", f"unix:{wiring.qmp},server=on,wait=off"),
        *("-pidfile", str(wiring.pid_file)),
        *("-object", "rng-random,filename=/dev/urandom,id=rng"),
        *("-device", f"virtio-rng-pci,rng=rng,addr={_slot('0000:00:11.0')}"),
    )


def _iommu(hardware: Hardware) -> tuple[str, ...]:
    # caching-mode: the host's own changes to its tables are seen, which vfio needs.
    return ("-device", "intel-iommu,intremap=on,caching-mode=on") if hardware.iommu else ()


def _disk(wiring: Wiring) -> tuple[str, ...]:
    # Nothing on this disk outlives the lab: flushes to the real one are for nothing.
    return (
        *("-drive", f"file={wiring.overlay},format=qcow2,if=none,id=disk,cache=unsafe,discard=unmap"),
        *("-device", f"virtio-blk-pci,drive=disk,addr={_slot('0000:00:10.0')}"),
    )


def _management(wiring: Wiring) -> tuple[str, ...]:
    network = (
        f"user,id=management,net={MANAGEMENT.network},host={MANAGEMENT.client},dns={MANAGEMENT.resolver},"
        f"dhcpstart={MANAGEMENT.host.ip},ipv6=off,"
        f"hostfwd=tcp:127.0.0.1:{wiring.ssh_port}-{MANAGEMENT.host.ip}:22"
    )
    device = (
        f"virtio-net-pci,netdev=management,mac=02:00:00:00:00:01,romfile=,addr={_slot(MANAGEMENT_DEVICE)}"
    )
    return ("-netdev", network, "-device", device)


def _nic(model: str, name: str, mac: str, device: str, wiring: Wiring) -> tuple[str, ...]:
    return (
        *("-netdev", f"tap,id={name},fd={wiring.taps[name]},vhost=off"),
        *("-device", f"{model},netdev={name},mac={mac},romfile=,addr={_slot(device)}"),
    )


def _shared_group() -> tuple[str, ...]:
    # Behind a PCIe-to-PCI bridge requests carry the bridge's id: the IOMMU cannot tell the devices apart.
    arguments = ["-device", "pcie-pci-bridge,id=bridge,addr=0x7"]
    for number, device in enumerate(SHARED_GROUP_DEVICES):
        arguments += ["-netdev", f"hubport,id=spare{number},hubid={number}"]
        arguments += [
            "-device",
            f"e1000,netdev=spare{number},mac=02:00:00:00:10:0{number + 1},romfile=,"
            f"bus=bridge,addr={_slot(device)}",
        ]
    return tuple(arguments)


def _igb() -> tuple[str, ...]:
    return (
        *("-device", "pcie-root-port,id=igb-port,chassis=1,addr=0x8"),
        *("-netdev", "hubport,id=spare-igb,hubid=9"),
        *("-device", "igb,netdev=spare-igb,mac=02:00:00:00:20:01,romfile=,bus=igb-port"),
    )


def _slot(device: str) -> str:
    """Return the slot of a PCI address as QEMU's property ``addr``."""
    found = _SLOT.fullmatch(device)
    if not found:
        raise LabError(f"found PCI address {device!r}, expected 0000:BB:SS.0")
    return f"0x{int(found[2], 16):x}"
