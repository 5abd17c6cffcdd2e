"""The sockets generator against the same program in C (reference/sockets.c), built here by gcc.

``rows()`` lays one veth pair between two namespaces. Frames have a MAC nobody has, so that no protocol of the
kernel takes them. Both programs do the same job in turn, and the ratio is the median of the turns'.
Rates are packets a second of CPU time, so that others on the machine matter less: the sender's, or the
receiver's and that of C's sender together, in which the kernel delivers the frames.

- sender: as fast as the port takes frames.
- receiver: captures what C's sender sends at its fastest, every packet accounted for.
- UDP receiver: the same as the host that the packets are addressed to.
- ring: accounting alone, of frames that wait in a full ring; without target, for no packet comes without the
  kernel's part, which costs twenty times as much.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from router_agent.mmsg import SendRing
from router_agent.model import Prefix
from router_agent.namespaces import inside
from router_agent.traffic.generators.frames import Frames, build
from router_agent.traffic.generators.sockets import receiver as rx
from router_agent.traffic.generators.sockets.board import Board, Layout
from router_agent.traffic.generators.sockets.capture import Capture
from router_agent.traffic.generators.sockets.generator import SocketsGenerator
from router_agent.traffic.generators.sockets.process import WorkerProcess
from router_agent.traffic.generators.sockets.receiver import ReceiveJob, ReceiverSetup, Tally
from router_agent.traffic.scenario import Destinations, Endpoints, FrameSizes, Port, Scenario

TARGET = 0.9
ROUNDS = 9
SECONDS = 0.7
DESTINATIONS = 10_000
UNREACHABLE_PPS = 10e6
TAG = 0xC0FFEE07
RING = 65_536
WAITING = 60 * 1024
UDP_PORT = 9
MOST_PACKETS = 1 << 23
SHIFT = 8
INTERVAL_NS = 100_000_000
NEAR_MAC, NOBODY = "02:00:00:00:01:00", "02:00:00:00:ff:ff"
SOURCE = Path(__file__).parent / "reference" / "sockets.c"


def rows() -> list[dict[str, Any]]:
    """Measure; an empty list where there is no root or no compiler."""
    if os.geteuid() != 0 or shutil.which("gcc") is None:
        print("needs root and gcc: nothing measured", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as directory, _wire() as (near, far):
        bench = Bench(Path(directory), near, far)
        sender = bench.compared(bench.sender_in_c, bench.senders())
        receiver = bench.compared(bench.receiver_in_c, bench.receivers())
        udp = bench.compared(bench.udp_in_c, bench.receivers(udp=True))
        ring = bench.compared(bench.ring_in_c, bench.ring)
    where = f"64-byte frames, {DESTINATIONS:,} destinations, veth, {ROUNDS} turns of {SECONDS:g} s each"
    return [
        _row("sender, frames ignored on receipt", sender, f"{where}, a second of CPU time"),
        _row("receiver", receiver, f"{where}, a second of CPU time, delivery included"),
        _row("UDP receiver", udp, f"{where}, a second of CPU time, delivery included"),
        _row("accounting of frames that wait in the ring", ring, f"{where}, {WAITING:,} frames"),
        _ratio("sender", sender, TARGET, f"{where}, packets a second of CPU time"),
        _ratio("receiver", receiver, TARGET, f"{where}, packets a second of CPU time, delivery included"),
        _ratio("UDP receiver", udp, TARGET, f"{where}, packets a second of CPU time, delivery included"),
        _ratio(
            "accounting without the kernel's part", ring, None, f"{where}, {WAITING:,} frames in the ring"
        ),
    ]


@dataclass(frozen=True)
class Compared:
    """Packets a second of both, and the ratio of a turn: medians."""

    ours: float
    reference: float
    ratio: float


class Bench:
    """Both programs and the wire between them."""

    def __init__(self, directory: Path, near: str, far: str) -> None:
        self.near, self.far = near, far
        self.program, self.file = directory / "sockets", directory / "frames"
        build_command = ["gcc", "-O3", "-march=native", "-Wall", "-o", str(self.program), str(SOURCE)]
        subprocess.run(build_command, check=True)
        self.frames = _frames(NOBODY)
        self._write(self.frames, self.file)
        self.addressed = directory / "addressed"
        self._write(_frames(NEAR_MAC), self.addressed)

    @staticmethod
    def _write(frames: Frames, file: Path) -> None:
        octets = np.zeros((DESTINATIONS, frames.largest), np.uint8)
        frames.fill(octets, 0, 0)
        file.write_bytes(octets.tobytes())

    def compared(self, reference: Callable[[], float], ours: Callable[[], float]) -> Compared:
        """Run both in turn."""
        turns = [(ours(), reference()) for _ in range(ROUNDS)]
        for turn in turns:
            print(f"{turn[0]:,.0f} packets/s, C {turn[1]:,.0f}", file=sys.stderr)
        us, them = zip(*turns, strict=True)
        return Compared(median(us), median(them), median(one / other for one, other in turns))

    def sender_in_c(self) -> float:
        """Send from the near end."""
        packets, _, cpu_ns = self._send(self.near, "near", self.file)
        return packets / cpu_ns * 1e9

    def senders(self) -> Callable[[], float]:
        """Return the same with our generator."""
        scenario = Scenario("bench", _destinations(), frames=FrameSizes.of(64), drain_s=0.1)
        port = Port("near", "near", self.near, NOBODY)

        def run() -> float:
            with SocketsGenerator(scenario, Endpoints((port,))) as generator:
                before = _cpu_ns(generator.process_ids[0])
                result = generator.start(UNREACHABLE_PPS, SECONDS).finish()
                return result.sent / (_cpu_ns(generator.process_ids[0]) - before) * 1e9

        return run

    def receiver_in_c(self) -> float:
        """Receive at the near end what C sends from the far end."""
        return self._received_in_c(self._capture(MOST_PACKETS, SECONDS + 0.5), self.file)

    def udp_in_c(self) -> float:
        """The same by a UDP socket."""
        job = ["near", str(TAG), "0", str(UDP_PORT), str(MOST_PACKETS), f"{SECONDS + 0.5}"]
        return self._received_in_c(self._started("udp", job), self.addressed)

    def _received_in_c(self, receiver: subprocess.Popen[str], file: Path) -> float:
        assert receiver.stdin is not None
        receiver.stdin.write("\n")
        receiver.stdin.flush()
        _, _, sender_ns = self._send(self.far, "far", file)
        frames, _, receiver_ns, _ = map(int, receiver.communicate()[0].split())
        return frames / (sender_ns + receiver_ns) * 1e9

    def receivers(self, *, udp: bool = False) -> Callable[[], float]:
        """Return the same with our receiving worker."""
        port, file = (UDP_PORT, self.addressed) if udp else (None, self.file)
        layout = Layout(100, (MOST_PACKETS >> SHIFT) + 1, 1, MOST_PACKETS)
        setup = ReceiverSetup(("near",), TAG, self.frames.signature, RING, None, udp_port=port)

        def run() -> float:
            worker = WorkerProcess(self.near, "receiver")
            board = Board.create("bench", layout)
            try:
                worker.send(setup)
                worker.answer()
                worker.send(ReceiveJob(0, (0,), SHIFT, time.time_ns(), INTERVAL_NS, layout))
                worker.send_board(board)
                worker.answer()
                before = _cpu_ns(worker.process.pid)
                _, _, sender_ns = self._send(self.far, "far", file)
                worker.send("stop")
                worker.answer()
                receiver_ns = _cpu_ns(worker.process.pid) - before
                return int(board.counters[rx.FRAMES]) / (sender_ns + receiver_ns) * 1e9
            finally:
                worker.close()
                board.close()

        return run

    def ring_in_c(self) -> float:
        """Account for a full ring."""
        capture = self._capture(WAITING, 0.2)
        self._fill()
        frames, nanoseconds, *_ = map(int, capture.communicate("\n")[0].split())
        return frames / nanoseconds * 1e9

    def ring(self) -> float:
        """The same with ours."""
        layout = Layout(100, (WAITING >> SHIFT) + 1, 1, WAITING)
        board = Board.create("bench", layout)
        with inside(self.near):
            capture = Capture("near", tag=TAG, signature=self.frames.signature, slots=RING)
        with capture:
            self._fill()
            tally = Tally(ReceiveJob(0, (0,), SHIFT, time.time_ns(), INTERVAL_NS, layout), board, 0)
            started = time.perf_counter()
            while n := len(frames := capture.waiting()):
                tally.add(frames)
                capture.release(n)
            took = time.perf_counter() - started
        counted = int(board.counters[rx.FRAMES])
        board.close()
        return counted / took

    def _send(self, namespace: str, interface: str, file: Path) -> tuple[int, int, int]:
        """Let C send; return packets, nanoseconds, and those of CPU time."""
        job = [interface, str(file), str(self.frames.largest), str(self.frames.signature), f"{SECONDS}"]
        with inside(namespace):
            done = subprocess.run(
                [str(self.program), "send", *job], stdout=subprocess.PIPE, text=True, check=True
            )
        packets, nanoseconds, cpu_ns = map(int, done.stdout.split())
        return packets, nanoseconds, cpu_ns

    def _capture(self, packets: int, seconds: float) -> subprocess.Popen[str]:
        job = ["near", str(TAG), str(self.frames.signature), str(RING), str(packets), f"{seconds}"]
        return self._started("ring", job)

    def _started(self, what: str, job: list[str]) -> subprocess.Popen[str]:
        with inside(self.near):
            receiver = subprocess.Popen(
                [str(self.program), what, *job],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert receiver.stdout is not None
        assert receiver.stdout.readline() == "ready\n"
        return receiver

    def _fill(self) -> None:
        """Send as many frames as the ring is to hold from the far end."""
        burst = 1024
        with inside(self.far), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
            out.bind(("far", 0))
            ring = SendRing(out, burst, self.frames.largest)
            for first in range(0, WAITING, burst):
                self.frames.fill(ring.data, first, first)
                done = 0
                while done < burst:
                    done += ring.send(done, burst - done, 0)


def _cpu_ns(process: int) -> int:
    """Return the CPU time a process has had (proc_pid_schedstat)."""
    return int(Path(f"/proc/{process}/schedstat").read_text().split()[0])


def _frames(mac: str) -> Frames:
    return build(
        _destinations(),
        sizes=FrameSizes.of(64),
        source_mac=bytes.fromhex(NEAR_MAC.replace(":", "")),
        gateway_mac=bytes.fromhex(mac.replace(":", "")),
        sources=(Scenario("bench", _destinations())).sources,
        udp_port=UDP_PORT,
        tag=TAG,
        seed=1,
    )


def _destinations() -> Destinations:
    prefixes: list[Prefix] = [IPv4Network((0x14000000 + (i << 8), 24)) for i in range(DESTINATIONS)]
    return Destinations.of(prefixes)


def _row(name: str, found: Compared, conditions: str) -> dict[str, Any]:
    return {
        "name": f"traffic: {name}",
        "value": round(found.ours),
        "unit": "packets/s",
        "target": None,
        "reached": None,
        "conditions": f"{conditions}, C {found.reference:,.0f}",
    }


def _ratio(name: str, found: Compared, target: float | None, conditions: str) -> dict[str, Any]:
    return {
        "name": f"traffic: {name} / the same in C",
        "value": round(found.ratio, 3),
        "unit": "ratio",
        "target": target,
        "reached": None if target is None else found.ratio >= target,
        "conditions": conditions,
    }


@contextmanager
def _wire() -> Iterator[tuple[str, str]]:
    """Lay a veth pair between two namespaces; yield their names."""
    mark = secrets.token_hex(3)
    near, far = f"trn-{mark}", f"trf-{mark}"
    try:
        for name in (near, far):
            subprocess.run(["ip", "netns", "add", name], check=True)
        link = ["ip", "link", "add", "near", "netns", near, "address", NEAR_MAC, "type", "veth"]
        subprocess.run([*link, "peer", "name", "far", "netns", far], check=True)
        for name, end in ((near, "near"), (far, "far")):
            subprocess.run(["ip", "-n", name, "link", "set", end, "up"], check=True)
        subprocess.run(["ip", "-n", near, "link", "set", "lo", "up"], check=True)
        for words in (["local", "20.0.0.0/8", "dev", "lo", "table", "local"], ["default", "dev", "near"]):
            subprocess.run(["ip", "-n", near, "route", "add", *words], check=True)
        with inside(near):
            for where in ("all", "near"):
                Path(f"/proc/sys/net/ipv4/conf/{where}/rp_filter").write_text("0")
        yield near, far
    finally:
        for name in (near, far):
            subprocess.run(["ip", "netns", "del", name], check=False)


if __name__ == "__main__":
    for row in rows():
        print(row)
