"""A real sshd on 127.0.0.1, with keys, files and a port of its own. It knows nobody but who holds `key`."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from router_agent.traffic.reach import SshTarget

_PROGRAM = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_SEPARATION = Path("/run/sshd")
"""Where sshd puts its unprivileged half; the package's unit makes it."""

ROOT = Path(__file__).parents[2]

EXTRA = ("hdrh", "jinja2", "junitparser", "MLRsearch", "paramiko")
"""What only the host has that runs a check: packages of the extra `traffic`."""

AVAILABLE = _PROGRAM is not None and os.geteuid() == 0


class Sshd:
    """The daemon, and how to reach it.

    Attributes:
        port: TCP port of 127.0.0.1.
        key: private key file that is let in.
        known_hosts: file that has the daemon's key.
        host_key: the daemon's key file.
    """

    def __init__(self, directory: Path, *options: str, name: str = "server") -> None:
        self.directory = directory
        self.port = _free_port()
        self.key = new_key(directory / "user")
        self.host_key = new_key(directory / name)
        self.known_hosts = directory / f"{name}.known_hosts"
        self.known_hosts.write_text(self.line())
        authorized = directory / "authorized_keys"
        authorized.write_bytes(self.key.with_suffix(".pub").read_bytes())
        self._options = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.host_key}",
            f"AuthorizedKeysFile {authorized}",
            "PidFile none",
            "StrictModes no",
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "Subsystem sftp internal-sftp",
            *options,
        ]
        self._process: subprocess.Popen[str] | None = None

    @property
    def target(self) -> SshTarget:
        """How to get there; no file of the user who runs the tests has a say."""
        nothing = self.directory / "ssh_config"
        nothing.touch()
        return SshTarget(
            "127.0.0.1",
            user="root",
            port=self.port,
            key_files=(self.key,),
            agent=False,
            known_hosts=(self.known_hosts,),
            config=nothing,
        )

    def line(self) -> str:
        """Return the daemon's line of known_hosts."""
        return f"[127.0.0.1]:{self.port} {self.host_key.with_suffix('.pub').read_text()}"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        config = self.directory / f"{self.host_key.name}.conf"
        config.write_text("\n".join([*self._options, ""]))
        assert _PROGRAM is not None
        self._process = subprocess.Popen(
            [_PROGRAM, "-D", "-e", "-f", str(config)],
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        assert self._process.stderr is not None
        said = ""
        for line in self._process.stderr:
            said += line
            if "Server listening" in line:
                return
        raise AssertionError(f"sshd ended: {said}")

    def connections(self) -> list[int]:
        """Return the processes of the connections there are."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def cut(self) -> None:
        """End all connections as a host does that dies: without a word to anybody."""
        for pid in self.connections():
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the daemon and its connections."""
        if self._process is None:
            return
        self.cut()
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None


@contextmanager
def running(sshd: Sshd) -> Iterator[Sshd]:
    """Have it run for the body."""
    made = not _SEPARATION.exists()
    _SEPARATION.mkdir(mode=0o755, exist_ok=True)
    try:
        sshd.start()
        yield sshd
    finally:
        sshd.stop()
        if made:
            _SEPARATION.rmdir()


def program(directory: Path, *, without: Sequence[str] = ()) -> str:
    """Make the kit's program of this checkout, for a host that lacks some packages; return its path."""
    path = directory / "router-agent"
    blocked = dict.fromkeys(without)
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"sys.modules.update({blocked!r})\nfrom router_agent.cli import main\nmain()\n"
    )
    path.chmod(0o755)
    return str(path)


def new_key(path: Path, *options: str) -> Path:
    """Make a key pair and return the private key's file."""
    if not path.exists():
        generate = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", path.name, "-f", str(path), *options]
        subprocess.run(generate, check=True, stdin=subprocess.DEVNULL)
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
