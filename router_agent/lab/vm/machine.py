"""The machine as a QEMU process: power it on and off, cycle it, keep and restore its whole state.

QEMU outlives the process that started it, as a lab that is kept must; everything needed to find it again is
in the lab's directories.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from router_agent.lab.commands import require, run
from router_agent.lab.daemon import wait_until
from router_agent.lab.errors import LabError
from router_agent.lab.vm.hardware import Hardware, Wiring, command_line
from router_agent.lab.vm.image import Image
from router_agent.lab.vm.network import Network
from router_agent.lab.vm.plan import PORTS
from router_agent.lab.vm.qmp import Qmp, QmpError

_READY_SECONDS = 30.0
_STOP_SECONDS = 60.0
_SNAPSHOT_SECONDS = 300.0
_POLL_SECONDS = 0.1
_TAIL_LINES = 30


class Machine:
    """One virtual machine.

    Args:
        network: what its NICs are plugged into; it is built.
        directory: where its disk overlay and its file of state are.
        logs: where its serial console and QEMU's own messages go.
        ssh_port: TCP port of 127.0.0.1 that leads to the host's port 22.
    """

    def __init__(self, network: Network, *, directory: Path, logs: Path, ssh_port: int) -> None:
        self._network = network
        self.overlay = directory / "disk.qcow2"
        self.serial_log = logs / "serial.log"
        self._qemu_log = logs / "qemu.log"
        self._qmp = network.directory / "qmp.sock"
        self._pid_file = network.directory / "qemu.pid"
        self.ssh_port = ssh_port
        self._process: subprocess.Popen[bytes] | None = None

    def create_disk(self, image: Image) -> None:
        """Begin with a fresh disk: an empty overlay of the image.

        Raises:
            LabError: qemu-img fails.
        """
        self.overlay.parent.mkdir(parents=True, exist_ok=True)
        self.overlay.unlink(missing_ok=True)
        base = ("-b", str(image.disk.resolve()), "-F", "raw")
        run([require("qemu-img"), "create", "-q", "-f", "qcow2", *base, str(self.overlay)])

    @property
    def running(self) -> bool:
        """Whether a QEMU of this lab lives."""
        if self._process is not None:
            return self._process.poll() is None
        return self._pid() is not None

    def power_on(self, hardware: Hardware) -> None:
        """Start the machine; it boots from its disk.

        Raises:
            LabError: it runs already, or QEMU does not start; with what it said.
        """
        if self.running:
            raise LabError("the machine runs already")
        taps = {port.name: self._network.open_tap(port) for port in PORTS}
        wiring = Wiring(
            overlay=self.overlay,
            serial_log=self.serial_log,
            qmp=self._qmp,
            pid_file=self._pid_file,
            ssh_port=self.ssh_port,
            taps=taps,
        )
        self._qmp.unlink(missing_ok=True)
        try:
            with self._qemu_log.open("ab") as log:
                self._process = subprocess.Popen(
                    command_line(hardware, wiring),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    pass_fds=tuple(taps.values()),
                )
        finally:
            for descriptor in taps.values():
                os.close(descriptor)
        wait_until(self._answers, "QEMU to answer", seconds=_READY_SECONDS, found=self._said)

    def reset(self) -> None:
        """Press the reset button: the host gets no warning."""
        with self.monitor() as qmp:
            qmp.execute("system_reset")

    def press_power_button(self) -> None:
        """Ask the host to shut down, as its power button does (ACPI)."""
        with self.monitor() as qmp:
            qmp.execute("system_powerdown")

    def pull_the_plug(self) -> None:
        """Take the power away: the host gets no warning. Idempotent.

        Raises:
            LabError: QEMU does not end.
        """
        if not self.running:
            return
        with suppress(QmpError), self.monitor() as qmp:
            qmp.execute("quit")
        deadline = time.monotonic() + _STOP_SECONDS
        while self.running:
            if time.monotonic() > deadline:
                self._kill()
                break
            time.sleep(_POLL_SECONDS)
        self._process = None

    def set_link(self, name: str, *, up: bool) -> None:
        """Plug a data NIC's cable in or pull it out."""
        with self.monitor() as qmp:
            qmp.execute("set_link", {"name": name, "up": up})

    def save(self, name: str) -> None:
        """Keep the whole state of machine and disk under a name, in the overlay.

        Raises:
            LabError: QEMU cannot, or does not in time.
        """
        self._snapshot_job("snapshot-save", name, {"vmstate": self._node()})

    def restore(self, name: str) -> None:
        """Go back to a state that was kept, all cables plugged in; the host's clock goes on from there.

        Raises:
            LabError: there is none, or QEMU cannot.
        """
        self._snapshot_job("snapshot-load", name, {"vmstate": self._node()})
        with self.monitor() as qmp:
            qmp.execute("cont")
            # QEMU does not keep whether a cable is plugged in: an Intel NIC without a link when the state was
            # kept, because nobody used it then, would never have one (hw/net/e1000e_core.c, post_load).
            for port in PORTS:
                qmp.execute("set_link", {"name": port.name, "up": True})

    def monitor(self) -> Qmp:
        """Return a connection to QEMU's monitor, to be entered."""
        return Qmp(self._qmp, seconds=_SNAPSHOT_SECONDS)

    def tail(self, lines: int = _TAIL_LINES) -> str:
        """Return the last lines of the serial console."""
        if not self.serial_log.exists():
            return "(nothing)"
        text = self.serial_log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def require_running(self) -> None:
        """Check that the machine has power.

        Raises:
            LabError: QEMU ended; with what it said.
        """
        if not self.running:
            raise LabError(f"QEMU ended; {self._said()}")

    def _snapshot_job(self, command: str, name: str, arguments: dict[str, object]) -> None:
        """Run a snapshot command, which QEMU does as a job of its own (qapi/migration.json)."""
        job = f"{command}-{name}"
        arguments |= {"job-id": job, "tag": name, "devices": [self._node()]}
        deadline = time.monotonic() + _SNAPSHOT_SECONDS
        with self.monitor() as qmp:
            qmp.execute(command, arguments)
            while True:
                found = next((entry for entry in qmp.execute("query-jobs") if entry["id"] == job), None)
                if found is None:
                    raise LabError(f"QEMU forgot the job {job}")
                if found["status"] == "concluded":
                    break
                if time.monotonic() > deadline:
                    raise LabError(f"{command} {name}: no end after {_SNAPSHOT_SECONDS:.0f} s")
                time.sleep(_POLL_SECONDS)
            qmp.execute("job-dismiss", {"id": job})
            if "error" in found:
                raise LabError(f"{command} {name}: {found['error']}")

    def _node(self) -> str:
        with self.monitor() as qmp:
            for drive in qmp.execute("query-block"):
                if drive["device"] == "disk":
                    return str(drive["inserted"]["node-name"])
        raise LabError("QEMU knows no drive 'disk'")

    def _answers(self) -> bool:
        self.require_running()
        if not self._qmp.exists():
            return False
        try:
            with self.monitor():
                return True
        except QmpError:
            return False

    def _said(self) -> str:
        if not self._qemu_log.exists():
            return "it said nothing"
        last = self._qemu_log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]
        return f"its log {self._qemu_log} ends:\n" + "\n".join(last)

    def _pid(self) -> int | None:
        """Return the process id in the pid file if that process is this lab's QEMU."""
        try:
            pid = int(self._pid_file.read_text())
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if str(self._pid_file).encode() in arguments else None

    def _kill(self) -> None:
        pid = self._process.pid if self._process is not None else self._pid()
        if pid is None:
            return
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Progress = Callable[[str], None]
"""Told what is going on, in a few words."""
