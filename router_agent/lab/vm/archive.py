"""Debian's dpdk-testpmd as one archive, made beside the image at the speed of the machine that runs the lab.

The program is in package dpdk-dev, which brings some eighty packages and 100 MB of static libraries:
installing it takes an emulated processor four minutes, unpacking the program and its shared libraries a few
seconds. Nothing of it is on the image's disk, which stays a bare Debian.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from router_agent.lab.commands import run
from router_agent.lab.errors import LabError

PROGRAM = "usr/bin/dpdk-testpmd"
DRIVERS = "drivers"
LIBRARIES = "usr/lib/x86_64-linux-gnu"

_PACKAGE = "dpdk-dev"
_DRIVERS = ("librte_mempool_ring", "librte_net_e1000", "librte_net_vmxnet3")
"""Loaded by the program when it runs: no linker names them. What one does name must not be here too."""

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
        _collect_drivers(work)
        wanted = [PROGRAM, DRIVERS, *_libraries(root, work)]
        # Links are followed: some lead to the directory of drivers.
        run(["tar", "-C", str(work / "tree"), "-chzf", str(archive), *wanted], seconds=_SECONDS)
    finally:
        shutil.rmtree(work)


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


def _collect_drivers(work: Path) -> None:
    """Copy the drivers into a directory of their own, which DPDK loads whole."""
    directory = work / "tree" / DRIVERS
    directory.mkdir()
    for name in _DRIVERS:
        found = sorted((work / "tree" / LIBRARIES).glob(f"{name}.so.*"), key=lambda path: len(path.name))
        if not found:
            raise LabError(f"found no {name}.so in what {_PACKAGE} depends on, expected DPDK's driver")
        shutil.copy(found[0], directory / f"{name}.so")


def _libraries(root: Path, work: Path) -> list[str]:
    """Return the shared libraries that program and drivers need."""
    tree = "/" + str((work / "tree").relative_to(root))
    drivers = [f"{tree}/{DRIVERS}/{path.name}" for path in (work / "tree" / DRIVERS).iterdir()]
    search = f"LD_LIBRARY_PATH={tree}/{LIBRARIES}"
    needed = run(["chroot", str(root), "env", search, "ldd", f"{tree}/{PROGRAM}", *drivers])
    names = set()
    for line in needed.splitlines():
        _, _, found = line.partition("=> ")
        if found.startswith(tree):
            names.add(Path(found.split()[0]).name)
    return sorted(f"{LIBRARIES}/{name}" for name in names)
