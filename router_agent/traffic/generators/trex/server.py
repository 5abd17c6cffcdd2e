"""A TRex server: one that runs somewhere, or an installed one that is started for the time of a check.

The program (``t-rex-64`` in its directory) wants to be run there, as root, with NICs that its own scripts or
driverctl have bound; its configuration is made here, for the ports of the check and nothing else (format:
doc/trex_book of TRex, "Platform YAML").
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.trex.rpc import TrexRpc
from router_agent.traffic.scenario import Port, Wire

PROGRAM = "t-rex-64"
DEFAULT_PORT = 4501
_READY_S = 120.0
_LOOK_S = 0.2
_ANSWER_S = 1.0
_LEAVE_S = 20.0
_TAIL_LINES = 15


def address_of(server: str | None) -> tuple[str, int]:
    """Return host and port of ``HOST`` or ``HOST:PORT``; of nothing, those of a server on this host.

    Raises:
        GeneratorError: it is neither.
    """
    host, _, port = (server or "127.0.0.1").partition(":")
    if not host or not (port or str(DEFAULT_PORT)).isdecimal():
        raise GeneratorError(f"TRex's server is {server!r}, expected HOST or HOST:PORT")
    return host, int(port or DEFAULT_PORT)


@contextmanager
def started(directory: Path, ports: Sequence[Port], cores: int = 1) -> Iterator[tuple[str, int, int]]:
    """Run an installed TRex for some ports; yield host, port and process id of its server.

    Args:
        directory: where it is installed.
        ports: NICs by PCI address.
        cores: transmitting threads for each pair of ports.

    Raises:
        GeneratorError: it is not installed there, or does not come up; with the end of what it said.
    """
    program = directory / PROGRAM
    if not os.access(program, os.X_OK):
        raise GeneratorError(f"there is no TRex in {directory}: expected its program {PROGRAM} there")
    work = Path(tempfile.mkdtemp(prefix="trex-"))
    try:
        requests, events = _free_ports(2)
        config = work / "trex_cfg.yaml"
        config.write_text(yaml.safe_dump([_platform(ports, requests, events, work.name)], sort_keys=False))
        argv = [str(program), "-i", "--stl", "--no-scapy-server", "-c", str(cores), "--cfg", str(config)]
        with (work / "log").open("wb") as log:
            # a group of its own: Ctrl-C reaches whoever runs the check, and its children end with it
            process = subprocess.Popen(
                argv, cwd=directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )
        try:
            _wait_ready(process, requests, work / "log")
            yield "127.0.0.1", requests, process.pid
        finally:
            _end(process)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _platform(ports: Sequence[Port], requests: int, events: int, prefix: str) -> dict[str, Any]:
    others = [port.name for port in ports if port.wire is not Wire.PCI]
    if others:
        raise GeneratorError(f"TRex is started for NICs by PCI address; {', '.join(others)} is none")
    # TRex has ports in pairs
    names = [port.interface for port in ports] + ["dummy"] * (len(ports) % 2)
    return {
        "version": 2,
        "port_limit": len(names),
        "interfaces": names,
        "prefix": prefix,
        "zmq_rpc_port": requests,
        "zmq_pub_port": events,
        "port_info": [{"dest_mac": port.gateway_mac or "02:00:00:00:00:01"} for port in ports]
        + [{"dest_mac": "02:00:00:00:00:01"}] * (len(ports) % 2),
    }


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    limit = time.monotonic() + _READY_S
    while not _answers(port):
        try:
            code = process.wait(_LOOK_S)
        except subprocess.TimeoutExpired:
            if time.monotonic() < limit:
                continue
            raise GeneratorError(
                f"TRex has not answered for {_READY_S:.0f} s; it said:\n{_tail(log)}"
            ) from None
        raise GeneratorError(f"TRex has ended (exit code {code}); it said:\n{_tail(log)}")


def _answers(port: int) -> bool:
    """Return whether a server takes calls; nobody is asked where nobody listens."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            return False
    try:
        with TrexRpc("127.0.0.1", port, answer_s=_ANSWER_S):
            return True
    except GeneratorError:
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the program and its children; they are a process group."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_LEAVE_S)
        except subprocess.TimeoutExpired:
            continue
        break
    process.wait()


def _free_ports(count: int) -> list[int]:
    """Return TCP ports that nobody has now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
