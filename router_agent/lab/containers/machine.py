"""One container: a disk that is an overlay of the image, and the processes of systemd-nspawn that run it.

It outlives the process that started it, as a lab that is kept must; a file with its process id says where to
find it again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from router_agent.lab import debian
from router_agent.lab.commands import NETNS_DIRECTORY, require, run
from router_agent.lab.containers import cgroups
from router_agent.lab.containers.image import Image
from router_agent.lab.errors import LabError
from router_agent.lab.processes import end_processes

_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.05
_TAIL_LINES = 30
_REBOOT = 133
"""systemd-nspawn's exit status when the container wants to be started again and no systemd does it."""

_CAPABILITIES = ("CAP_BPF", "CAP_IPC_LOCK", "CAP_NET_ADMIN", "CAP_SYSLOG")
"""Beyond what containers have anyway: what FRR, router-agent and systemd's own sandboxes ask for. None of
them reaches the machine's clock, modules or devices, as CAP_SYS_TIME or CAP_SYS_MODULE would."""

_SYSTEM_CALLS = ("@keyring", "bpf")
"""systemd gives services keyrings, and filters of addresses and devices that are BPF programs."""

_SUPERVISE = f"""\
for group in $CONTROL_GROUPS; do echo $$ >"$group" || exit; done
unset CONTROL_GROUPS
trap 'kill -TERM "$machine"' TERM
while :; do
    "$@" & machine=$!
    wait "$machine"; status=$?
    while kill -0 "$machine" 2>/dev/null; do wait "$machine"; status=$?; done
    [ "$status" = {_REBOOT} ] || exit "$status"
done
"""
"""Enters the groups, passes SIGTERM on, and starts a container that reboots again."""


class Machine:
    """One container.

    Args:
        name: of the lab and the host in one: its control group is called so.
        hostname: what it calls itself.
        namespace: its network namespace; it is there.
        directory: where its disk is.
        runtime: where its process id is kept.
        log: what it says on its console.
    """

    def __init__(
        self, name: str, *, hostname: str, namespace: str, directory: Path, runtime: Path, log: Path
    ) -> None:
        self.log = log
        self.root = directory / "root"
        self._name = name
        self._hostname = hostname
        self._namespace = namespace
        self._directory = directory
        self._pid_file = runtime / f"{hostname}.pid"
        self._process: subprocess.Popen[bytes] | None = None

    def create_disk(self, image: Image, files: Mapping[str, str]) -> str:
        """Begin with a fresh disk, an empty overlay of the image; return the host's own public key.

        Args:
            image: what it is an overlay of.
            files: path to content, what is this host's own.

        Raises:
            LabError: the kernel has no overlay file system, or a tool fails.
        """
        self.remove_disk()
        upper, work = self._directory / "upper", self._directory / "work"
        for directory in (self.root, upper, work):
            directory.mkdir(parents=True)
        _mount_overlay(image.root, upper, work, self.root)
        own = {"etc/hostname": f"{self._hostname}\n", "etc/machine-id": f"{uuid.uuid4().hex}\n"}
        for name, text in (own | dict(files)).items():
            path = self.root / name
            # A link in there would lead out of the container.
            path.unlink(missing_ok=True)
            path.write_text(text)
        key = debian.new_key(self.root / "etc/ssh/ssh_host_ed25519_key", self._hostname)
        return debian.public_key(key)

    def remove_disk(self) -> None:
        """Remove the disk; the machine is off. Idempotent.

        Raises:
            LabError: it is in use.
        """
        while self.root.is_mount():
            run([require("umount"), str(self.root)])
        if self._directory.exists():
            shutil.rmtree(self._directory)

    @property
    def running(self) -> bool:
        """Whether it has power."""
        return self._pid() is not None

    def power_on(self) -> None:
        """Start it; it boots.

        Raises:
            LabError: it runs already, or there is no systemd-nspawn.
        """
        if self.running:
            raise LabError(f"{self._hostname} runs already")
        groups: list[Path] = [] if cgroups.systemd_runs() else cgroups.create(self._name)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", _SUPERVISE, "sh", *self._command(own_groups=bool(groups))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(groups),
            )
        self._pid_file.write_text(f"{self._process.pid}\n")

    def halt(self) -> None:
        """Shut it down in order, as its power button would.

        Raises:
            LabError: it is off, or does not end in time.
        """
        pid = self._pid()
        if pid is None:
            raise LabError(f"{self._hostname} is off")
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_SECONDS
        while self.running:
            if time.monotonic() > deadline:
                raise LabError(f"{self._hostname} does not halt; its console ends:\n{self.tail()}")
            time.sleep(_POLL_SECONDS)
        self._end()

    def pull_the_plug(self) -> None:
        """Take the power away: the host gets no warning. Idempotent.

        Raises:
            LabError: one of its processes does not go.
        """
        if pid := self._pid():
            with suppress(ProcessLookupError):
                # The supervisor and systemd-nspawn; the container's init goes with the latter.
                os.killpg(pid, signal.SIGKILL)
        self._end()

    def require_running(self) -> None:
        """Check that it has power.

        Raises:
            LabError: it ended; with what it said.
        """
        if not self.running:
            raise LabError(f"{self._hostname} ended; its console {self.log} ends:\n{self.tail()}")

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """Return the last lines of its console."""
        if not self.log.exists():
            return "(nothing)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _command(self, *, own_groups: bool) -> list[str]:
        return [
            require("systemd-nspawn"),
            "--quiet",
            "--boot",
            f"--directory={self.root}",
            f"--machine={self._name}",
            f"--network-namespace-path={NETNS_DIRECTORY / self._namespace}",
            "--settings=no",
            "--register=no",
            *(["--keep-unit"] if own_groups else []),
            "--resolv-conf=off",
            "--timezone=off",
            "--link-journal=no",
            "--suppress-sync=yes",
            "--console=read-only",
            f"--capability={','.join(_CAPABILITIES)}",
            f"--system-call-filter={' '.join(_SYSTEM_CALLS)}",
        ]

    def _end(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None
        if (NETNS_DIRECTORY / self._namespace).exists():
            end_processes(self._namespace)
        if not cgroups.systemd_runs():
            cgroups.remove(self._name)
        self._pid_file.unlink(missing_ok=True)

    def _pid(self) -> int | None:
        """Return the process id in the file if that process is this machine's supervisor and lives."""
        if self._process is not None:
            return self._process.pid if self._process.poll() is None else None
        try:
            pid = int(self._pid_file.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if f"--machine={self._name}".encode() in arguments else None


def probe_overlay(directory: Path) -> None:
    """Check that a file system can be an overlay of a directory.

    Args:
        directory: something is mounted below it for a moment.

    Raises:
        LabError: the kernel refuses.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory) as place:
        lower, upper, work, root = (Path(place, name) for name in ("lower", "upper", "work", "root"))
        for path in (lower, upper, work, root):
            path.mkdir()
        _mount_overlay(lower, upper, work, root)
        run([require("umount"), str(root)])


def _mount_overlay(lower: Path, upper: Path, work: Path, root: Path) -> None:
    # volatile: nothing of it survives the machine that runs the lab, so nothing of it is ever synced.
    layers = f"lowerdir={lower.resolve()},upperdir={upper.resolve()},workdir={work.resolve()},volatile"
    run([require("mount"), "-t", "overlay", "-o", layers, "overlay", str(root)])


def _environment(groups: list[Path]) -> dict[str, str]:
    found = {
        **os.environ,
        "CONTROL_GROUPS": " ".join(map(str, groups)),
        # The namespace is the container's alone: sysctls of the network are its own.
        "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network",
    }
    # Debian 13's systemd wants version 2; where there is no systemd outside, nspawn cannot tell.
    return found | ({"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"} if groups else {})
