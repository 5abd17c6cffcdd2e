"""A host of a lab as its operator reaches it: by ssh, with its host key checked."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from router_agent.lab.commands import require
from router_agent.lab.errors import LabError
from router_agent.traffic.reach import SshTarget

_COMMAND_SECONDS = 120.0
_CONNECT_SECONDS = 30
_BOOT_SECONDS = 300.0
_POLL_SECONDS = 1.0
_SSH_FAILED = 255
_BOOT_ID = re.compile(r"[0-9a-f-]{36}")

_SSH_CONFIG = """\
# How to reach {name}: ssh -F {path} {name}
Host {names}
    HostName {address}
    Port {port}
    User root
    IdentityFile {key}
    IdentitiesOnly yes
    UserKnownHostsFile {known_hosts}
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    ConnectTimeout {connect_seconds}
    ServerAliveInterval 10
    ServerAliveCountMax 6
    ControlMaster auto
    ControlPersist 120
    ControlPath {control}/ssh-%C
    LogLevel ERROR
"""


class HostError(LabError):
    """The host does not answer, or a command on it failed."""


class Host:
    """A host over ssh.

    Args:
        name: what it is called.
        address: where its ssh server listens.
        ssh_port: and the TCP port there.
        key: private key file that root on it accepts.
        host_key: its public key, ``ssh-ed25519 AAAA...``.
        directory: where ssh's configuration and the known hosts go.
        sockets: where ssh keeps its control socket; a short path.
        options: further options of ssh_config(5).
        poll_seconds: between two attempts to reach it while it boots.

    Attributes:
        ssh_config: how it is reached, by name and by address, for ``ssh -F``.
        known_hosts: has its host key.
    """

    def __init__(
        self,
        name: str,
        *,
        address: str,
        ssh_port: int = 22,
        key: Path,
        host_key: str,
        directory: Path,
        sockets: Path,
        options: Mapping[str, str] | None = None,
        poll_seconds: float = _POLL_SECONDS,
    ) -> None:
        self.name = name
        self.address = address
        self.ssh_port = ssh_port
        self.key = key
        self.ssh_config = directory / "ssh_config"
        self.known_hosts = directory / "known_hosts"
        self._host_key = host_key
        self._sockets = sockets
        self._options = dict(options or {})
        self._poll_seconds = poll_seconds

    def configure(self) -> None:
        """Write ssh's configuration and the known hosts."""
        self.ssh_config.parent.mkdir(parents=True, exist_ok=True)
        where = self.address if self.ssh_port == 22 else f"[{self.address}]:{self.ssh_port}"
        self.known_hosts.write_text(f"{where} {self._host_key}\n")
        text = _SSH_CONFIG.format(
            path=self.ssh_config.resolve(),
            name=self.name,
            # By its address too, but not everything that is on this machine.
            names=self.name if self.address == "127.0.0.1" else f"{self.name} {self.address}",
            address=self.address,
            port=self.ssh_port,
            key=self.key.resolve(),
            known_hosts=self.known_hosts.resolve(),
            connect_seconds=_CONNECT_SECONDS,
            control=self._sockets,
        )
        further = "".join(f"    {option} {value}\n" for option, value in self._options.items())
        self.ssh_config.write_text(text + further)

    @property
    def target(self) -> SshTarget:
        """The same for the traffic check; no file of the user has a say."""
        return SshTarget(
            self.address,
            user="root",
            port=self.ssh_port,
            key_files=(self.key,),
            agent=False,
            known_hosts=(self.known_hosts,),
            config=Path("/dev/null"),
            connect_s=_CONNECT_SECONDS,
        )

    @property
    def ssh(self) -> list[str]:
        """The ssh command that leads to the host."""
        return [require("ssh"), "-F", str(self.ssh_config), self.name]

    def try_run(
        self, command: str, *, seconds: float = _COMMAND_SECONDS, stdin: int | IO[bytes] = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on the host, whatever its exit status.

        Raises:
            HostError: the host does not answer, or not in time.
        """
        argv = [*self.ssh[:-1], "-o", "BatchMode=yes", self.name, "--", command]
        try:
            done = subprocess.run(
                argv, stdin=stdin, capture_output=True, text=True, check=False, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"{self.name}: no end of {command!r} after {seconds:.0f} s") from None
        if done.returncode == _SSH_FAILED:
            where = f"{self.address} port {self.ssh_port}"
            raise HostError(f"{self.name}: ssh to {where}: {done.stderr.strip()[-500:]}")
        return done

    def run(self, command: str, *, seconds: float = _COMMAND_SECONDS) -> str:
        """Run a shell command on the host and return what it printed.

        Raises:
            HostError: the host does not answer, or the command fails.
        """
        return self._checked(command, self.try_run(command, seconds=seconds))

    def feed(self, command: str, file: Path, *, seconds: float = _COMMAND_SECONDS) -> str:
        """Run a shell command on the host with a file as its standard input; return what it printed.

        Raises:
            HostError: the host does not answer, or the command fails.
        """
        with file.open("rb") as content:
            return self._checked(command, self.try_run(command, seconds=seconds, stdin=content))

    def json(self, command: str, *, seconds: float = _COMMAND_SECONDS) -> Any:
        """Return what a command prints as JSON.

        Raises:
            HostError: the host does not answer, the command fails, or it prints something else.
        """
        text = self.run(command, seconds=seconds)
        try:
            return json.loads(text)
        except ValueError as error:
            raise HostError(f"{self.name}: {command}: found {text[:200]!r}, expected JSON") from error

    def boot_id(self) -> str:
        """Return what the kernel calls this boot.

        Raises:
            HostError: the host does not answer.
        """
        found = _BOOT_ID.search(self.run("cat /proc/sys/kernel/random/boot_id", seconds=_CONNECT_SECONDS))
        if not found:
            raise HostError(f"{self.name}: found no boot id")
        return found[0]

    def disconnect(self) -> None:
        """Close ssh's shared connection, if there is one."""
        argv = [*self.ssh[:-1], "-O", "exit", self.name]
        subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=_CONNECT_SECONDS
        )

    def wait_up(
        self,
        *,
        other_than: str | None = None,
        seconds: float = _BOOT_SECONDS,
        alive: Callable[[], None] = lambda: None,
        tail: Callable[[], str] = lambda: "",
    ) -> str:
        """Wait until the host answers by ssh; return the boot id.

        Args:
            other_than: boot id of the boot that shall be over.
            seconds: how long at most.
            alive: raises when waiting has become pointless.
            tail: end of the console, for the message.

        Raises:
            HostError: it does not answer in time; the message ends with its console.
        """
        deadline = time.monotonic() + seconds
        while True:
            alive()
            last = "it still runs the former boot"
            try:
                found = self.boot_id()
            except HostError as error:
                last = str(error)
            else:
                if found != other_than:
                    return found
            if time.monotonic() > deadline:
                raise HostError(
                    f"waited {seconds:.0f} s for {self.name}: {last}\nits console ends:\n{tail()}"
                )
            time.sleep(self._poll_seconds)

    def _checked(self, command: str, done: subprocess.CompletedProcess[str]) -> str:
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip())[-2000:]
            raise HostError(f"{self.name}: {command}: exit status {done.returncode}: {said}")
        return done.stdout
