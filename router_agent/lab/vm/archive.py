"""Debian's dpdk-testpmd as one archive, made beside the image at the speed of the machine that runs the lab.

The program is in package dpdk-dev, which brings some eighty packages and 100 MB of static libraries:
installing it takes an emulated processor four minutes, unpacking the program and its shared libraries a few
seconds. Nothing of it is on the image's disk, which stays a bare Debian.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from router_agent.lab.commands import run

PROGRAM = "usr/bin/dpdk-testpmd"
LIBRARIES = "usr/lib/x86_64-linux-gnu"

_PACKAGE = "dpdk-dev"
_DRIVERS = ("librte_bus_pci", "librte_mempool_ring", "librte_net_e1000", "librte_net_vmxnet3")
"""Loaded by the program when it runs, so that no linker names them."""

_SECONDS = 300.0


def pack_testpmd(root: Path, archive: Path) -> None:
    """Pack the program and the libraries that it needs and a bare Debian does not have.

    Args:
        root: a bare Debian with package lists; it is left as it was.
        archive: file to write, a gzipped tar.

    Raises:
        LabError: the packages cannot be had.
    """
    work = root / "var/tmp/testpmd"
    work.mkdir(parents=True)
    try:
        _unpack(root, work)
        wanted = [PROGRAM, *_libraries(root, work)]
        # Links are followed: some lead to the directory of drivers.
        run(["tar", "-C", str(work / "tree"), "-chzf", str(archive), *wanted], seconds=_SECONDS)
    finally:
        shutil.rmtree(work)


def driver_arguments(directory: str) -> list[str]:
    """Return the arguments that have DPDK load its drivers from where the archive was unpacked."""
    return [word for name in _DRIVERS for word in ("-d", f"{directory}/{LIBRARIES}/{name}.so")]


def _unpack(root: Path, work: Path) -> None:
    """Fetch the package with all that it depends on, and unpack what is in them."""
    inside = "/" + str(work.relative_to(root))
    (work / "debs/partial").mkdir(parents=True)
    options = ("-o", f"Dir::Cache::archives={inside}/debs", "-o", "APT::Sandbox::User=root")
    fetch = ("apt-get", "-qq", "-y", "--no-install-recommends", "--download-only", *options)
    run(["chroot", str(root), *fetch, "install", _PACKAGE], seconds=_SECONDS)
    for deb in sorted((work / "debs").glob("*.deb")):
        if not deb.name.startswith("libdpdk-dev_"):
            run(["dpkg-deb", "--extract", str(deb), str(work / "tree")])


def _libraries(root: Path, work: Path) -> list[str]:
    """Return the shared libraries that program and drivers need."""
    tree = "/" + str((work / "tree").relative_to(root))
    there = work / "tree" / LIBRARIES
    drivers = sorted(path for name in _DRIVERS for path in there.glob(f"{name}.so"))
    search = f"LD_LIBRARY_PATH={tree}/{LIBRARIES}"
    objects = [f"{tree}/{PROGRAM}", *(f"{tree}/{LIBRARIES}/{path.name}" for path in drivers)]
    needed = run(["chroot", str(root), "env", search, "ldd", *objects])
    names = {path.name for path in drivers}
    for line in needed.splitlines():
        _, _, found = line.partition("=> ")
        if found.startswith(tree):
            names.add(Path(found.split()[0]).name)
    return sorted(f"{LIBRARIES}/{name}" for name in names)
