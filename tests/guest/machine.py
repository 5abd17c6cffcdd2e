"""Run tests/guest inside a virtual machine: they need what this machine's kernel may not have.

The machine is the virtual POP host's (`router_agent.lab.vm`): Debian 13, whose kernel has vhost-net, VRF,
VLANs, bonds, MPLS and dummy interfaces. It is booted once; VPP's packages, the sources and an environment for
the tests are put on it, pytest runs there as root, and its report comes back.

    make guest VPP_DEBS=DIR ARGS="-k pairs"
    make compare VPP_DEBS=DIR ARGS="--ipv4 10000"

The second runs tests/guest/comparison there instead of pytest, and brings its figures back.

Where QEMU or VPP's packages are missing nothing is run, and that is said. Exit code: pytest's, 0 when nothing
could be run, 2 when the machine does not come up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "roles" / "venv" / "action_plugins")]

from offline_venv import Target, Wheelhouse, archive, read_lock  # noqa: E402
from router_agent.lab.errors import LabError  # noqa: E402
from router_agent.lab.host import Host  # noqa: E402
from router_agent.lab.vm.hardware import PROGRAM, version  # noqa: E402
from router_agent.lab.vm.pop import VirtualPop  # noqa: E402

PACKAGES = ("libvppinfra", "vpp", "vpp-plugin-core")
PYTHON = Target("3.13", "x86_64")
TOOLS = ("pytest", "pytest-asyncio", "pytest-timeout", "iniconfig", "packaging", "pluggy", "pygments")
"""What the tests need besides the agent's own requirements; all of it is in the lock file."""

SOURCES = (
    "router_agent",
    "templates",
    "tests/guest",
    "tests/integration/test_vpp_pairs.py",
    "pyproject.toml",
)
WHERE = "/root/guest"
INSTALL_SECONDS, TEST_SECONDS, COMPARE_SECONDS = 900.0, 1800.0, 10_800.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vpp-debs", type=Path, metavar="DIR", help="directory of VPP's Debian packages")
    parser.add_argument(
        "--build", type=Path, default=ROOT / "build", metavar="DIR", help="images, logs, wheels"
    )
    parser.add_argument("--name", default="guest", help="of the machine; two need two names")
    parser.add_argument("--keep", action="store_true", help="leave the machine running")
    parser.add_argument("--compare", action="store_true", help="run tests/guest/comparison instead of pytest")
    options, rest = parser.parse_known_args(arguments)
    if missing := _missing(options.vpp_debs):
        print(f"SKIPPED: the tests in tests/guest were not run: {missing}", file=sys.stderr)
        return 0
    pop = VirtualPop(options.name, build=options.build / "vm", vpp_debs=options.vpp_debs)
    with pop.lock():
        try:
            print(pop.prepare(_say), flush=True)
            pop.fresh_disk()
            pop.boot()
            _install(pop.host, options.vpp_debs, options.build / "wheelhouse")
            if options.compare:
                return _compare(pop.host, rest, options.build / "comparison.json")
            return _test(pop.host, rest, options.build / "guest.xml")
        except LabError as error:
            print(f"tests/guest: {error}", file=sys.stderr)
            return 2
        finally:
            if options.keep:
                print(f"the machine runs on: {' '.join(pop.host.ssh)}")
            else:
                pop.take_down()


def _missing(debs: Path | None) -> str | None:
    """Return what is missing, with what to do about it."""
    try:
        version()
    except LabError:
        return f"found no {PROGRAM}; install qemu-system-x86"
    if debs is None:
        return "no directory of VPP's packages was given: VPP_DEBS=DIR"
    absent = [name for name in PACKAGES if not list(debs.glob(f"{name}_*.deb"))]
    return f"{debs} has no package {', '.join(absent)}" if absent else None


def _install(host: Host, debs: Path, cache: Path) -> None:
    _say("installing VPP")
    with tempfile.TemporaryDirectory() as directory:
        packed = Path(directory) / "packed.tar"
        with tarfile.open(packed, "w") as tar:
            for name in PACKAGES:
                (found,) = debs.glob(f"{name}_*.deb")
                tar.add(found, f"debs/{name}.deb")
        host.feed(f"mkdir -p {WHERE} && tar -C {WHERE} -xf -", packed)
    # Its scripts neither set sysctls nor start it: the tests run VPPs of their own.
    host.run(
        f"cd {WHERE}/debs && apt-get -q update && SYSTEMD_OFFLINE=1 VPP_INSTALL_SKIP_SYSCTL=1 "
        "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install ./*.deb "
        "&& systemctl mask --now vpp",
        seconds=INSTALL_SECONDS,
    )
    _say("installing the tests")
    host.feed(f"tar -C {WHERE} -xzf -", archive(_wheelhouse(), cache), seconds=INSTALL_SECONDS)
    send_sources(host)


def send_sources(host: Host) -> None:
    """Put the sources of the agent and of the tests on the machine, as they are now."""
    with tempfile.TemporaryDirectory() as directory:
        packed = Path(directory) / "sources.tar.gz"
        with tarfile.open(packed, "w:gz") as tar:
            for name in SOURCES:
                tar.add(ROOT / name, name, filter=_without_caches)
        host.feed(f"mkdir -p {WHERE}/src && tar -C {WHERE}/src -xzf -", packed)


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry


def _wheelhouse() -> Wheelhouse:
    own = read_lock(ROOT / "roles" / "router_agent" / "files" / "requirements.txt", PYTHON)
    tools = [pin for pin in read_lock(ROOT / "requirements.txt", PYTHON) if pin.name in TOOLS]
    return Wheelhouse(PYTHON, list({pin.name: pin for pin in [*own, *tools]}.values()), {})


def _test(host: Host, arguments: Sequence[str], report: Path) -> int:
    """Run pytest on the machine, showing what it prints; fetch its report and return its exit status."""
    chosen = list(arguments) or ["tests/guest", "tests/integration/test_vpp_pairs.py"]
    words = [*chosen, "--junitxml=report.xml", "--timeout=300"]
    return _run_module(host, "pytest", words, {"report.xml": report}, seconds=TEST_SECONDS)


def _compare(host: Host, arguments: Sequence[str], figures: Path) -> int:
    """Run the comparison on the machine; fetch its figures and return its exit status."""
    made = {"comparison.json": figures}
    return _run_module(host, "tests.guest.comparison", arguments, made, seconds=COMPARE_SECONDS)


def _run_module(
    host: Host, module: str, arguments: Sequence[str], made: Mapping[str, Path], *, seconds: float
) -> int:
    """Run a Python module on the machine in the sources' directory; fetch files it made there."""
    words = " ".join(f"'{word}'" for word in arguments)
    packages = f"{WHERE}/lib/python{PYTHON.python_version}/site-packages"
    command = f"cd {WHERE}/src && PYTHONPATH={WHERE}/src:{packages} python3 -m {module} {words}"
    argv = [*host.ssh[:-1], "-o", "BatchMode=yes", host.ssh[-1], "--", command]
    status = subprocess.run(argv, stdin=subprocess.DEVNULL, check=False, timeout=seconds).returncode
    for name, file in made.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(host.run(f"cat {WHERE}/src/{name}"))
    return status


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
