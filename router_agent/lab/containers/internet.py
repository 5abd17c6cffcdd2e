"""A way from a container to the package registries: slirp4netns, which speaks for it with its own sockets.

Nothing of the network of the machine that runs the lab is touched: no interface, no rule, no forwarding.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from router_agent.lab.commands import NETNS_DIRECTORY, require

RESOLVER = "10.0.2.3"
"""Of names, and part of the network that a container sees (slirp4netns(1))."""

INTERFACE = "net0"
"""The container's interface that leads there."""

_PROGRAM = "slirp4netns"
_SUFFIX = "internet"


def connect(namespace: str, *, runtime: Path, log: Path) -> None:
    """Give a namespace an interface with a default route that leads to the registries.

    Args:
        namespace: name of it.
        runtime: directory that keeps the process id.
        log: what the program says.

    Raises:
        LabError: it is not installed.
    """
    options = ("--netns-type=path", "--configure", "--disable-host-loopback")
    with log.open("ab") as file:
        process = subprocess.Popen(
            [require(_PROGRAM), *options, str(NETNS_DIRECTORY / namespace), INTERFACE],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    (runtime / f"{namespace}.{_SUFFIX}").write_text(f"{process.pid}\n")


def end(runtime: Path) -> None:
    """End what `connect` has started, here or in another process."""
    for path in runtime.glob(f"*.{_SUFFIX}"):
        with suppress(OSError, ValueError):
            pid = int(path.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            # The number may belong to somebody else by now.
            if str(NETNS_DIRECTORY / path.stem).encode() in arguments:
                os.kill(pid, signal.SIGKILL)
        path.unlink()
