"""Proof that VFIO and huge pages work, where there is no VPP: DPDK's own test program moves packets.

Debian's dpdk-testpmd drives the two data NICs in user space and hands every frame that one of them receives
to the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router_agent.lab.daemon import wait_until
from router_agent.lab.host import Host, HostError
from router_agent.lab.vm.archive import DRIVERS, LIBRARIES, PROGRAM
from router_agent.lab.vm.plan import DEVICES, PORTS

_DIRECTORY = "/opt/testpmd"
_UNIT = "lab-testpmd.service"
_LOG = "/run/lab-testpmd.log"
_READY_SECONDS = 180.0

_BUFFERS = 8192
"""Packet buffers: 20 MB; by default testpmd wants more than the lab's huge pages hold."""


def install(host: Host, archive: Path) -> None:
    """Unpack testpmd on the host.

    Raises:
        HostError: it does not arrive.
    """
    host.feed(f"mkdir -p {_DIRECTORY} && tar -C {_DIRECTORY} -xzf -", archive)


def remove(host: Host) -> None:
    """Take it away again.

    Raises:
        HostError: the host does not answer.
    """
    host.run(f"rm -rf {_DIRECTORY}")


@contextmanager
def forwarding(host: Host) -> Iterator[None]:
    """Have testpmd forward between the data NICs, which VFIO has, during the body.

    Raises:
        HostError: it does not start.
        LabError: it is not ready in time; with what it said.
    """
    arguments = ["-d", f"{_DIRECTORY}/{DRIVERS}"]
    for port in PORTS:
        arguments += ["-a", DEVICES[port.name]]
    arguments += ["--no-telemetry", "--", f"--total-num-mbufs={_BUFFERS}"]
    arguments += ["--forward-mode=io", "--auto-start", "--stats-period=5"]
    properties = (
        *("StandardInput=null", "KillSignal=SIGINT", "TimeoutStopSec=30"),
        *(f"StandardOutput=truncate:{_LOG}", "StandardError=inherit"),
        f"Environment=LD_LIBRARY_PATH={_DIRECTORY}/{LIBRARIES}",
    )
    options = " ".join(f"-p {text}" for text in properties)
    program = f"{_DIRECTORY}/{PROGRAM} {' '.join(arguments)}"
    host.run(f"> {_LOG}; systemd-run --quiet --collect --unit={_UNIT} {options} {program}")
    try:
        wait_until(
            lambda: _forwards(host),
            "dpdk-testpmd to forward",
            seconds=_READY_SECONDS,
            poll_seconds=1.0,
            found=lambda: said(host),
        )
        yield
    finally:
        host.run(f"systemctl stop {_UNIT} || true")


def _forwards(host: Host) -> bool:
    """Return whether it forwards already.

    Raises:
        HostError: it has ended.
    """
    text = said(host)
    if host.try_run(f"systemctl is-active --quiet {_UNIT}").returncode != 0:
        raise HostError(f"dpdk-testpmd ended:\n{text}")
    return "Port statistics" in text


def said(host: Host) -> str:
    """Return the end of what testpmd said.

    Raises:
        HostError: the host does not answer.
    """
    return host.run(f"tail -n 60 {_LOG}")
