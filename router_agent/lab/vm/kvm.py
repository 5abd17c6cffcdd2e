"""Whether KVM truly works here: /dev/kvm may be there and yet not run a stock kernel, as in some sandboxes.

The probe boots nothing but the image's kernel, for a bounded time, and waits for the kernel to say that it
found no root file system: by then everything a kernel does at its start has worked.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from router_agent.lab.vm.hardware import PROGRAM, version
from router_agent.lab.vm.image import Image

_DEVICE = Path("/dev/kvm")
_SECONDS = 20.0
_REACHED = b"Unable to mount root fs"
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def kvm_works(image: Image, cache: Path) -> bool:
    """Return whether a kernel boots under KVM.

    Args:
        image: has the kernel.
        cache: file that remembers the answer until this machine or its QEMU is another.

    Raises:
        LabError: there is no QEMU.
    """
    if not os.access(_DEVICE, os.R_OK | os.W_OK):
        return False
    asked = {"boot": _BOOT_ID.read_text().strip(), "qemu": list(version()), "kernel": image.directory.name}
    try:
        known = json.loads(cache.read_text())
    except (OSError, ValueError):
        known = {}
    if {name: known.get(name) for name in asked} == asked:
        return bool(known["works"])
    works = _boots(image)
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps(asked | {"works": works}) + "\n")
    return works


def probe_command(kernel: Path, console: Path) -> list[str]:
    """Return the command that boots a kernel alone; it ends when the kernel panics."""
    return [
        PROGRAM,
        *("-machine", "q35,kernel-irqchip=split", "-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "512M"),
        *("-nodefaults", "-display", "none", "-no-reboot"),
        *("-device", "intel-iommu,intremap=on,caching-mode=on"),
        *("-serial", f"file:{console}"),
        *("-kernel", str(kernel), "-append", "console=ttyS0 panic=-1"),
    ]


def _boots(image: Image) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        console = Path(directory) / "console"
        with suppress(subprocess.TimeoutExpired):
            subprocess.run(
                probe_command(image.kernel, console),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=_SECONDS,
            )
        return console.exists() and _REACHED in console.read_bytes()
