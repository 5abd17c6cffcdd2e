"""A private VPP process: start it in a directory and namespace of its own, wait until it answers, end it.

For the lab and for tests; a production VPP is run by systemd and only connected to. Several may run on one
machine: each has its own runtime directory, sockets and shared-memory prefix.

The configuration is VPP's startup.conf (syntax: ``stanza { one option per line }``). It is either handed
over as text, or made by `startup_conf` for the small VPP a test wants: ``nodaemon``, no hugepages, plugins
off unless named.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

READY_SECONDS = 60.0
"""How long a VPP may take from exec to an API socket that accepts (0.3 s idle, seconds on a busy machine)."""

STOP_SECONDS = 20.0
"""How long VPP may take to leave after SIGTERM."""

_POLL_SECONDS = 0.02
_LOG_LINES = 15
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (POSIX shared memory, not a temporary file)
_API_SEGMENT = re.compile(r"api-segment\s*\{[^}]*?\bprefix\s+(?P<prefix>\S+)")


class VppProcessError(Exception):
    """VPP did not start, stop or answer; the message says what was found and where its log is."""


def startup_conf(
    *,
    runtime_dir: Path,
    heap: str = "1G",
    statseg: str = "128M",
    buffers: int = 16_384,
    plugins: Iterable[str] = ("af_packet_plugin.so",),
    stanzas: Iterable[str] = (),
    page_size: str = "4k",
) -> str:
    """Return the startup.conf of a small VPP whose sockets are in `runtime_dir`.

    Args:
        runtime_dir: absolute directory; gets ``api.sock``, ``cli.sock`` and ``stats.sock``.
        heap: main heap size in VPP's notation. A full IPv4 table wants 1G.
        statseg: stats segment size; every route takes two counters of 16 bytes in it.
        buffers: packet buffers for the one NUMA node.
        plugins: file names of the plugins to load; all others stay off.
        stanzas: further stanzas, verbatim.
        page_size: of all of VPP's memory; others than 4k must be reserved.
    """
    enabled = "\n".join(f"  plugin {name} {{ enable }}" for name in plugins)
    extra = "\n".join(stanzas)
    return f"""\
unix {{
  nodaemon
  nosyslog
  nobanner
  runtime-dir {runtime_dir}
  cli-listen {runtime_dir}/cli.sock
}}
socksvr {{
  socket-name {runtime_dir}/api.sock
}}
api-segment {{
  prefix {_segment_prefix(runtime_dir)}
}}
memory {{
  main-heap-size {heap}
  main-heap-page-size {page_size}
}}
statseg {{
  socket-name {runtime_dir}/stats.sock
  size {statseg}
  per-node-counters on
  page-size {page_size}
}}
buffers {{
  buffers-per-numa {buffers}
  page-size {page_size}
}}
plugins {{
  plugin default {{ disable }}
{enabled}
}}
{extra}
"""


class VppProcess:
    """One VPP, as a context manager: started on entry, stopped on exit.

    Args:
        runtime_dir: directory for configuration, sockets and log; created when missing. Unix socket paths
            are limited to 107 bytes, so keep it short.
        namespace: name of the network namespace to run in (as ``ip netns`` knows it); None for ours.
        config: text of a startup.conf. It must say ``nodaemon``, and its sockets must be `api_socket` and
            `cli_socket`. None makes one from the arguments that follow.
        heap: see `startup_conf`, as the next four.
        statseg: stats segment size.
        buffers: packet buffers.
        plugins: plugins to load.
        stanzas: further stanzas.
        api_socket: where `config` puts the API socket; ``runtime_dir/api.sock`` when None.
        cli_socket: where `config` puts the CLI socket; ``runtime_dir/cli.sock`` when None.
        binary: the program to run.
    """

    def __init__(
        self,
        *,
        runtime_dir: Path,
        namespace: str | None = None,
        config: str | None = None,
        heap: str = "1G",
        statseg: str = "128M",
        buffers: int = 16_384,
        plugins: Iterable[str] = ("af_packet_plugin.so",),
        stanzas: Iterable[str] = (),
        api_socket: Path | None = None,
        cli_socket: Path | None = None,
        binary: str = "vpp",
    ) -> None:
        self.runtime_dir = runtime_dir.absolute()
        self.namespace = namespace
        self.api_socket = api_socket or self.runtime_dir / "api.sock"
        self.cli_socket = cli_socket or self.runtime_dir / "cli.sock"
        self.log = self.runtime_dir / "vpp.log"
        self.config = config or startup_conf(
            runtime_dir=self.runtime_dir,
            heap=heap,
            statseg=statseg,
            buffers=buffers,
            plugins=plugins,
            stanzas=stanzas,
        )
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VppProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the running VPP.

        Raises:
            VppProcessError: it is not running.
        """
        if self._process is None:
            raise VppProcessError(f"no VPP runs in {self.runtime_dir}; call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Exit status of a VPP that ended by itself, negative for a signal; None otherwise."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start VPP and return once its API and CLI sockets accept.

        Raises:
            VppProcessError: it is not installed, died, or did not answer within `READY_SECONDS`.
        """
        if self.running:
            raise VppProcessError(
                f"a VPP (pid {self.pid}) runs in {self.runtime_dir} already; stop() it first"
            )
        binary = shutil.which(self._binary)
        if binary is None:
            raise VppProcessError(f"`{self._binary}` is not on PATH; install VPP")
        self.runtime_dir.mkdir(parents=True, exist_ok=True)
        for leftover in (self.api_socket, self.cli_socket):
            leftover.unlink(missing_ok=True)
        path = self.runtime_dir / "startup.conf"
        path.write_text(self.config)
        enter = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*enter, binary, "-c", str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._wait_ready(self._process)
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End VPP with SIGTERM, with SIGKILL if it does not go, and remove what it left; idempotent."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._forget()

    def kill(self) -> None:
        """End VPP with SIGKILL, as a crash would; idempotent."""
        process = self._process
        if process is None:
            return
        process.kill()
        process.wait()
        self._forget()

    def cli(self, command: str) -> str:
        """Return what a debug CLI command prints.

        Raises:
            VppProcessError: VPP does not answer.
        """
        answer = subprocess.run(
            ["vppctl", "-s", str(self.cli_socket), *command.split()],
            capture_output=True,
            text=True,
            check=False,
            timeout=READY_SECONDS,
        )
        if answer.returncode != 0:
            raise VppProcessError(f"vppctl {command}: {answer.stderr.strip() or answer.stdout.strip()}")
        return answer.stdout.replace("\r\n", "\n")

    def log_tail(self, lines: int = _LOG_LINES) -> str:
        """Return the last lines VPP printed."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not (_accepts(self.api_socket) and _accepts(self.cli_socket)):
            try:
                status = process.wait(_POLL_SECONDS)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
                raise VppProcessError(
                    f"VPP did not open {self.api_socket} within {READY_SECONDS:.0f} s; "
                    f"its log {self.log} ends:\n{self.log_tail()}"
                ) from None
            raise VppProcessError(
                f"VPP ended with status {status} while starting; its log {self.log} ends:\n{self.log_tail()}"
            )

    def _forget(self) -> None:
        """Drop the process and the shared memory a killed VPP cannot remove itself."""
        self._process = None
        found = _API_SEGMENT.search(self.config)
        if found is None:
            return
        for segment in ("global_vm", "vpe-api"):
            (_SHARED_MEMORY / f"{found['prefix']}-{segment}").unlink(missing_ok=True)


def _segment_prefix(runtime_dir: Path) -> str:
    return "vpp" + str(runtime_dir).replace("/", "-")


def _accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True
