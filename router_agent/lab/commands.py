"""Running the system's own tools, with errors a person can act on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from router_agent.lab.errors import LabError

NETNS_DIRECTORY = Path("/run/netns")
"""Where ``ip netns`` keeps named network namespaces."""

_SECONDS = 60.0

_PACKAGES = {
    "bird": "bird2",
    "birdc": "bird2",
    "bridge": "iproute2",
    "chroot": "coreutils",
    "ethtool": "ethtool",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nsenter": "util-linux",
    "slirp4netns": "slirp4netns",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
    "tc": "iproute2",
    "umount": "mount",
    "vtysh": "frr",
}


def run(argv: Sequence[str], *, stdin: str | None = None, seconds: float = _SECONDS) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        LabError: it is not installed, failed, or took longer than `seconds`.
    """
    require(argv[0])
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(argv)}: no end after {seconds:.0f} s") from None
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LabError(f"{' '.join(argv)}: exit status {done.returncode}: {said}")
    return done.stdout


def require(program: str) -> str:
    """Return the path of a program.

    Raises:
        LabError: it is not installed; the message names the Debian package.
    """
    path = shutil.which(program)
    if path is None:
        package = _PACKAGES.get(Path(program).name)
        hint = f": apt-get install {package}" if package else ""
        raise LabError(f"found no program {program!r} on PATH{hint}")
    return path


def ip_batch(lines: Iterable[str], *, namespace: str | None = None) -> None:
    """Run ``ip`` commands in one go.

    Raises:
        LabError: one of them failed; what came before it has been done.
    """
    _batch("ip", lines, namespace)


def tc_batch(lines: Iterable[str], *, namespace: str) -> None:
    """Run ``tc`` commands in one go in a namespace.

    Raises:
        LabError: one of them failed; what came before it has been done.
    """
    _batch("tc", lines, namespace)


def _batch(program: str, lines: Iterable[str], namespace: str | None) -> None:
    where = ("-n", namespace) if namespace else ()
    run([program, *where, "-batch", "-"], stdin="".join(f"{line}\n" for line in lines))


def inside(namespace: str, *argv: str) -> list[str]:
    """Return a command that runs `argv` in a named network namespace.

    ``nsenter`` rather than ``ip netns exec``: the latter gives the program a mount namespace of its own, in
    which deleted network namespaces live on.
    """
    return ["nsenter", f"--net={NETNS_DIRECTORY / namespace}", "--", *argv]
