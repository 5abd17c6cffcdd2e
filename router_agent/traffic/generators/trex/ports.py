"""The tester's ports as a TRex server has them: found, taken over, given back as they were."""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.sockets import link
from router_agent.traffic.generators.trex.rpc import TrexError, TrexRpc
from router_agent.traffic.scenario import Port, Wire

TRANSMITS = "TX"
"""A port's state while streams run (``get_port_status``)."""


class TrexPort:
    """A port that is ours.

    Args:
        rpc: the server.
        port: the tester's port.
        number: that port at the server.
        mac: its MAC.
    """

    def __init__(self, rpc: TrexRpc, port: Port, number: int, mac: bytes) -> None:
        self.port = port
        self.number = number
        self.mac = mac
        self._rpc = rpc
        self._handler = ""

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Own the port; at the end its streams are stopped and gone, and it is as it was.

        Raises:
            GeneratorError: somebody else owns it, it transmits, or it has no link.
        """
        self._acquire()
        before = self.status()
        if before["state"] != "IDLE":
            self._rpc.call("release", **self._owned())
            raise GeneratorError(
                f"port {self.port.name}: TRex's port {self.number} is in state {before['state']}, expected "
                f"IDLE: somebody has left streams there; remove them (trex-console: reset -p {self.number})"
            )
        promiscuous = bool(before["attr"]["promiscuous"]["enabled"])
        try:
            self.require_link(before)
            self._set_promiscuous(wanted=True, was=promiscuous)
            yield
        finally:
            self._give_back(promiscuous)

    def add(self, streams: Sequence[dict[str, Any]]) -> None:
        """Add streams.

        Raises:
            GeneratorError: the server refuses one.
        """
        self._rpc.call_all("add_stream", [{**self._owned(), **stream} for stream in streams])

    def start(self) -> None:
        """Send the streams.

        A rate that the link cannot carry is not refused (force): what becomes of it is measured.

        Raises:
            GeneratorError: the server refuses.
        """
        multiplier = {"type": "raw", "op": "abs", "value": 1.0}
        self._rpc.call("start_traffic", **self._owned(), mul=multiplier, duration=-1.0, force=True)

    def stop(self) -> None:
        """Stop the streams; without any it does nothing.

        Raises:
            GeneratorError: the server refuses.
        """
        self._rpc.call("stop_traffic", **self._owned())

    def clear(self) -> None:
        """Remove all streams.

        Raises:
            GeneratorError: the server refuses.
        """
        self._rpc.call("remove_all_streams", **self._owned())

    def transmits(self) -> bool:
        """Return whether streams still run.

        Raises:
            GeneratorError: the port is no longer ours, or the server does not answer.
        """
        return str(self.status()["state"]) == TRANSMITS

    def status(self) -> dict[str, Any]:
        """Return what the server says about the port."""
        found: dict[str, Any] = self._rpc.call("get_port_status", port_id=self.number, block=False)
        return found

    def statistics(self) -> dict[str, Any]:
        """Return the port's counters since the server began."""
        found: dict[str, Any] = self._rpc.call("get_port_stats", port_id=self.number)
        return found

    def require_link(self, status: dict[str, Any] | None = None) -> None:
        """Check that the port has its link.

        Raises:
            GeneratorError: it has not.
        """
        status = status or self.status()
        if not status["attr"]["link"]["up"]:
            raise GeneratorError(
                f"port {self.port.name}: TRex's port {self.number} has no link; look after the cable, and "
                "whether the device's port is up"
            )

    def _owned(self) -> dict[str, Any]:
        return {"port_id": self.number, "handler": self._handler}

    def _acquire(self) -> None:
        session = secrets.randbits(31)
        try:
            self._handler = self._rpc.call(
                "acquire", port_id=self.number, user=_user(), session_id=session, force=False
            )
        except TrexError as error:
            raise GeneratorError(
                f"port {self.port.name}: TRex's port {self.number} is somebody else's: {error}; have it "
                "released"
            ) from error

    def _set_promiscuous(self, *, wanted: bool, was: bool) -> None:
        if wanted == was:
            return
        try:
            self._rpc.call("set_port_attr", **self._owned(), attr={"promiscuous": {"enabled": wanted}})
        except TrexError as error:
            if "not supported" not in str(error):
                raise

    def _give_back(self, promiscuous: bool) -> None:
        """Leave nothing of ours, as far as the server still answers."""
        for undo in (
            self.stop,
            self.clear,
            lambda: self._set_promiscuous(wanted=promiscuous, was=True),
            lambda: self._rpc.call("release", **self._owned()),
        ):
            with suppress(GeneratorError):
                undo()


def found(rpc: TrexRpc, ports: Sequence[Port]) -> list[TrexPort]:
    """Return the tester's ports, found by PCI address, or by MAC where the kernel has the interface.

    Raises:
        GeneratorError: the server does not have one of them.
    """
    known = rpc.call("get_system_info")["ports"]
    return [_found(rpc, port, known) for port in ports]


def _found(rpc: TrexRpc, port: Port, known: Sequence[dict[str, Any]]) -> TrexPort:
    if port.wire is Wire.MEMIF:
        raise GeneratorError(
            f"port {port.name} is a memif; TRex has NICs only, vpp-pg and testpmd have memif"
        )
    key, wanted = (
        ("pci_addr", port.interface.lower())
        if port.wire is Wire.PCI
        else ("hw_mac", link.mac_of(port).hex(":"))
    )
    for one in known:
        if str(one.get(key, "")).lower() == wanted:
            own = port.mac or str(one["hw_mac"])
            return TrexPort(rpc, port, int(one["index"]), bytes.fromhex(own.replace(":", "")))
    have = ", ".join(str(one.get(key)) for one in known) or "none"
    raise GeneratorError(f"port {port.name}: TRex has no port with {key} {wanted}; it has {have}")


def _user() -> str:
    try:
        return f"router-agent ({getpass.getuser()})"
    except (OSError, KeyError):
        return "router-agent"
