"""A stand-in for a stateless TRex server, for what its client says and does: no packet is ever sent.

It speaks the server's protocol as TRex's sources have it (src/rpc-server,
src/stx/common/trex_rpc_cmds_common.cpp, src/stx/stl/trex_stl_rpc_cmds.cpp): real ZMQ, JSON-RPC 2.0 with its
error codes, batches, compressed messages, the size limit, API handle, ownership by handler and session, port
states, mandatory fields. Behind it is a model: streams send their packets at their rates as far as a port's
capacity goes, and packets come out at the port that the sending one is wired to, but for a share that a
device drops.

As a program it is `t-rex-64 -i --cfg FILE` for the tests of the start.
"""

from __future__ import annotations

import argparse
import base64
import json
import secrets
import signal
import struct
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
import zmq

EXECUTE, TRY_AGAIN, PARSE, METHOD, REQUEST = -32000, -32001, -32602, -32601, -32600
MOST_BYTES = 999_999
_MAGIC = struct.pack(">I", 0xABE85CEA)
_LEAST_PACKET, _MOST_PACKET = 1, 9_238


class RpcError(Exception):
    """What a call is refused with."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


@dataclass
class Burst:
    """Streams of a port under way."""

    begun: float
    rate: float
    total: int
    ended: float | None = None


@dataclass
class ModelPort:
    """One port: what the server knows of it, and what is behind it."""

    pci: str
    mac: str
    wired_to: int
    state: str = "IDLE"
    owner: str = ""
    session: int = 0
    handler: str = ""
    link: bool = True
    promiscuous: bool = False
    capacity_pps: float = 1e9
    drop_share: float = 0.0
    receive_errors: int = 0
    streams: dict[int, dict[str, Any]] = field(default_factory=dict)
    burst: Burst | None = None
    sent_before: int = 0

    def sent(self) -> int:
        """Packets sent since the server began."""
        burst = self.burst
        if burst is None:
            return self.sent_before
        until = time.monotonic() if burst.ended is None else burst.ended
        now = min(burst.total, int(min(burst.rate, self.capacity_pps) * (until - burst.begun)))
        if now == burst.total and self.state == "TX":
            self.state = "STREAMS"
        return self.sent_before + now


class TrexStandIn:
    """The server, in a thread; use it as a context manager.

    Attributes:
        calls: every method that was called, in order.
        added: every stream that was added, by port.
        busy: so many calls are answered with "try again" first.
        refuse: method that is refused with these words.
        mute: it answers nothing any more.
        gibberish: it answers with this instead of JSON.
    """

    def __init__(self, pcis: tuple[str, ...] = ("0000:03:00.0", "0000:03:00.1"), port: int = 0) -> None:
        self.ports = [
            ModelPort(pci, f"02:00:00:00:03:{i:02x}", i ^ 1 if i ^ 1 < len(pcis) else i)
            for i, pci in enumerate(pcis)
        ]
        self.version = ("STL", 5, 1)
        self.calls: list[str] = []
        self.added: dict[int, list[dict[str, Any]]] = {}
        self.busy = 0
        self.refuse: dict[str, str] = {}
        self.mute = False
        self.gibberish: bytes | None = None
        self.largest = 0
        self._handle = secrets.token_hex(4)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.REP)
        self._socket.setsockopt(zmq.RCVTIMEO, 20)
        if port:
            self._socket.bind(f"tcp://127.0.0.1:{port}")
            self.port = port
        else:
            self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End the server; what was asked and not answered is never answered. Idempotent."""
        self._ended.set()
        self._thread.join()

    def _serve(self) -> None:
        while not self._ended.is_set():
            try:
                message = self._socket.recv()
            except zmq.Again:
                continue
            if self.mute:
                break
            self._socket.send(self._answer(message))
        self._socket.close(linger=0)
        self._context.term()

    def _answer(self, message: bytes) -> bytes:
        self.largest = max(self.largest, len(message))
        zipped = message.startswith(_MAGIC)
        if zipped:
            (length,) = struct.unpack_from(">I", message, 4)
            message = zlib.decompress(message[8:])
            assert len(message) == length
        if self.gibberish is not None:
            return self.gibberish
        if len(message) > MOST_BYTES:
            error = {"code": -32603, "message": "internal error", "specific_err": "Request is too large"}
            return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()
        found = json.loads(message)
        requests = found if isinstance(found, list) else [found]
        answers = [self._one(request) for request in requests]
        text = json.dumps(answers[0] if len(answers) == 1 else answers).encode()
        return _MAGIC + struct.pack(">I", len(text)) + zlib.compress(text) if zipped else text

    def _one(self, request: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
        assert request["jsonrpc"] == "2.0"
        method, parameters = request["method"], request["params"]
        self.calls.append(method)
        try:
            answer["result"] = self._called(method, parameters)
        except RpcError as error:
            answer["error"] = {"code": error.code, "message": "refused", "specific_err": str(error)}
        return answer

    def _called(self, method: str, parameters: dict[str, Any]) -> Any:
        if self.busy:
            self.busy -= 1
            raise RpcError(TRY_AGAIN, "")
        if method in self.refuse:
            raise RpcError(EXECUTE, self.refuse[method])
        known = getattr(self, f"_{method}", None)
        if known is None:
            raise RpcError(METHOD, f"Method '{method}' is not supported")
        if method != "api_sync_v2" and _field(parameters, "api_h", str) != self._handle:
            raise RpcError(
                EXECUTE, "API verification failed - API handler provided mismatch for class: 'STL'"
            )
        return known(parameters)

    # calls of no port

    def _api_sync_v2(self, p: dict[str, Any]) -> dict[str, str]:
        name, major, minor = self.version
        asked = _field(p, "name", str), _field(p, "major", int), _field(p, "minor", int)
        if asked[0] != name:
            raise RpcError(
                EXECUTE,
                f"RPC configuration mismatch - server RPC configuration: '{name}', client RPC configuration: "
                f"'{asked[0]}'",
            )
        tail = f"\n(API type '{name}': - server: '{major}.{minor}', client: '{asked[1]}.{asked[2]}')"
        if asked[1] < major:
            raise RpcError(EXECUTE, "RPC version mismatch: a newer client version is required" + tail)
        if asked[1] > major or asked[2] > minor:
            raise RpcError(
                EXECUTE,
                "Version mismatch: your client version is too new to be supported by the server" + tail,
            )
        return {"api_h": self._handle}

    def _ping(self, _: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _get_version(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"version": "v3.06", "build_date": "", "build_time": "", "built_by": "", "mode": "STL"}

    def _get_system_info(self, _: dict[str, Any]) -> dict[str, Any]:
        rows = [
            {"index": i, "pci_addr": port.pci, "hw_mac": port.mac, "driver": "net_ixgbe", "numa": 0}
            for i, port in enumerate(self.ports)
        ]
        return {"hostname": "stand-in", "port_count": len(rows), "ports": rows, "dp_core_count": 1}

    def _get_global_stats(self, _: dict[str, Any]) -> dict[str, Any]:
        full = sum(port.burst is not None and port.burst.rate > port.capacity_pps for port in self.ports)
        return {"m_total_queue_full": 1_000 * full, "m_total_queue_drop": 0, "m_total_alloc_error": 0}

    # calls of a port

    def _get_port_status(self, p: dict[str, Any]) -> dict[str, Any]:
        port = self._port(p)
        port.sent()
        attributes = {"link": {"up": port.link}, "promiscuous": {"enabled": port.promiscuous}}
        return {"owner": port.owner, "state": port.state if port.link else "DOWN", "attr": attributes}

    def _get_port_stats(self, p: dict[str, Any]) -> dict[str, Any]:
        port = self._port(p)
        index = self.ports.index(port)
        came = sum(
            other.sent() - int(other.sent() * other.drop_share)
            for other in self.ports
            if other.wired_to == index
        )
        came -= port.receive_errors
        sent = port.sent()
        return {
            "opackets": sent,
            "obytes": 64 * sent,
            "oerrors": 0,
            "ipackets": came,
            "ibytes": 64 * came,
            "ierrors": port.receive_errors,
            "m_total_tx_pps": 0.0,
            "m_total_rx_pps": 0.0,
            "m_cpu_util": 0.0,
        }

    def _acquire(self, p: dict[str, Any]) -> str:
        port = self._port(p)
        user, session = _field(p, "user", str), _field(p, "session_id", int)
        if port.owner and not _field(p, "force", bool):
            if port.owner != user:
                raise RpcError(EXECUTE, f"port is already taken by '{port.owner}'")
            if port.session != session:
                raise RpcError(EXECUTE, f"port is already owned by another session of '{user}'")
        port.owner, port.session, port.handler = user, session, secrets.token_hex(4)
        return port.handler

    def _release(self, p: dict[str, Any]) -> dict[str, Any]:
        port = self._owned(p)
        port.owner, port.session, port.handler = "", 0, ""
        return {}

    def _set_port_attr(self, p: dict[str, Any]) -> dict[str, Any]:
        port = self._owned(p)
        for name, value in _field(p, "attr", dict).items():
            if name != "promiscuous":
                raise RpcError(EXECUTE, f"unknown attribute type: '{name}'")
            port.promiscuous = _field(value, "enabled", bool)
        return {}

    def _add_stream(self, p: dict[str, Any]) -> dict[str, Any]:
        port = self._owned(p)
        number, stream = _field(p, "stream_id", int), _field(p, "stream", dict)
        _check_stream(stream)
        if port.state not in {"IDLE", "STREAMS"}:
            raise RpcError(
                EXECUTE, f"command 'add_stream' cannot be executed on current state: '{port.state}'"
            )
        if number in port.streams:
            raise RpcError(EXECUTE, f"stream {number} already exists in profile_id(_)")
        port.streams[number] = stream
        self.added.setdefault(self.ports.index(port), []).append(stream)
        port.state = "STREAMS"
        return {}

    def _remove_all_streams(self, p: dict[str, Any]) -> dict[str, Any]:
        port = self._owned(p)
        port.sent()
        if port.state == "TX":
            raise RpcError(EXECUTE, "command 'remove_all_streams' cannot be executed on current state: 'TX'")
        port.streams.clear()
        port.state = "IDLE"
        return {}

    def _start_traffic(self, p: dict[str, Any]) -> dict[str, Any]:
        port = self._owned(p)
        _field(p, "duration", float)
        _field(p, "force", bool)
        multiplier = _field(p, "mul", dict)
        if (multiplier["type"], multiplier["op"]) != ("raw", "abs"):
            raise RpcError(PARSE, "start message can only specify absolute speed rate")
        if not port.link:
            raise RpcError(EXECUTE, "Link state is DOWN.")
        if port.state != "STREAMS":
            raise RpcError(EXECUTE, "no streams attached to port")
        modes = [stream["mode"] for stream in port.streams.values()]
        port.sent_before = port.sent()
        rate = sum(mode["rate"]["value"] for mode in modes) * multiplier["value"]
        port.burst = Burst(time.monotonic(), rate, sum(mode["total_pkts"] for mode in modes))
        port.state = "TX"
        return {"multiplier": multiplier["value"], "ts": time.monotonic()}

    def _stop_traffic(self, p: dict[str, Any]) -> dict[str, Any]:
        port = self._owned(p)
        port.sent()
        if port.state == "TX" and port.burst is not None:
            port.burst.ended = time.monotonic()
            port.state = "STREAMS"
        return {}

    def _port(self, p: dict[str, Any]) -> ModelPort:
        number: int = _field(p, "port_id", int)
        if not 0 <= number < len(self.ports):
            raise RpcError(EXECUTE, f"invalid port id - should be between 0 and {len(self.ports)}")
        return self.ports[number]

    def _owned(self, p: dict[str, Any]) -> ModelPort:
        port = self._port(p)
        if not port.owner:
            raise RpcError(EXECUTE, "please acquire the port before modifying port state")
        if _field(p, "handler", str) != port.handler:
            raise RpcError(EXECUTE, "port is not owned by you or your current executing session")
        return port


def packets_of(stream: dict[str, Any]) -> Iterator[bytes]:
    """Return a round of a stream's packets as the field engine makes them."""
    packet = bytearray(base64.b64decode(stream["packet"]["binary"]))
    instructions = stream["vm"]["instructions"]
    lists = {one["name"]: one for one in instructions if one["type"] == "flow_var"}
    writes = [one for one in instructions if one["type"] == "write_flow_var"]
    length = max((len(one["value_list"]) for one in lists.values()), default=1)
    for row in range(length):
        for write in writes:
            variable = lists[write["name"]]
            values = variable["value_list"]
            value = values[row * variable["step"] % len(values)] + write["add_value"]
            order = "big" if write["is_big_endian"] else "little"
            at = write["pkt_offset"]
            packet[at : at + variable["size"]] = value.to_bytes(variable["size"], order)
        yield bytes(packet)


def _check_stream(stream: dict[str, Any]) -> None:
    """Check what ``TrexRpcCmdAddStream::_run`` checks."""
    for name in ("enabled", "self_start"):
        _field(stream, name, bool)
    for name in ("flags", "action_count", "next_stream_id"):
        _field(stream, name, int)
    if _field(stream, "isg", float) < 0:
        raise RpcError(PARSE, "field 'isg' is negative")
    mode = _field(stream, "mode", dict)
    if mode["type"] != "single_burst" or _field(mode, "total_pkts", int) < 1:
        raise RpcError(PARSE, f"bad stream type provided: '{mode['type']}'")
    rate = _field(mode, "rate", dict)
    if rate["type"] != "pps" or _field(rate, "value", float) <= 0:
        raise RpcError(PARSE, "bad rate")
    binary = base64.b64decode(_field(_field(stream, "packet", dict), "binary", str))
    _field(stream["packet"], "meta", str)
    if not _LEAST_PACKET <= len(binary) <= _MOST_PACKET:
        raise RpcError(EXECUTE, f"Bad packet size provided: {len(binary)}")
    _field(_field(stream, "flow_stats", dict), "enabled", bool)
    sizes: dict[str, int] = {}
    for one in _field(_field(stream, "vm", dict), "instructions", list):
        if one["type"] == "flow_var":
            sizes[one["name"]] = _check_variable(one)
        elif one["type"] == "write_flow_var":
            _field(one, "is_big_endian", bool)
            _field(one, "add_value", int)
            if _field(one, "pkt_offset", int) + sizes[one["name"]] > len(binary):
                raise RpcError(EXECUTE, "VM: packet write is outside of the packet")
        else:
            raise RpcError(PARSE, f"field 'type' can only be one of the known, not {one['type']}")


def _check_variable(one: dict[str, Any]) -> int:
    size: int = _field(one, "size", int)
    if size not in {1, 2, 4, 8} or one["op"] not in {"inc", "dec", "random"}:
        raise RpcError(PARSE, "bad flow var")
    values = _field(one, "value_list", list)
    if not 0 < _field(one, "step", int) <= len(values):
        raise RpcError(PARSE, "VM: step cannot be bigger than list size")
    if len(values) > 65_535:
        raise RpcError(PARSE, "VM: value_list size is bigger than 65535")
    if not all(isinstance(value, int) and 0 <= value < 1 << 8 * size for value in values):
        raise RpcError(PARSE, "VM: requested value is bigger than its variable")
    return size


def _field(holder: dict[str, Any], name: str, kind: type) -> Any:
    if name not in holder:
        raise RpcError(PARSE, f"field '{name}' is missing")
    value = holder[name]
    fits = isinstance(value, (int, float)) if kind is float else isinstance(value, kind)
    if not fits or (kind is not bool and isinstance(value, bool)):
        raise RpcError(PARSE, f"field '{name}' is {value!r}, which is no {kind.__name__}")
    return value


def main() -> int:
    """Run as ``t-rex-64`` until a signal."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-i", action="store_true", required=True)
    parser.add_argument("-c", type=int, required=True)
    parser.add_argument("--stl", action="store_true", required=True)
    parser.add_argument("--no-scapy-server", action="store_true")
    parser.add_argument("--cfg", type=Path, required=True)
    ((platform,),) = (yaml.safe_load(parser.parse_args().cfg.read_text()),)
    if platform["version"] != 2 or platform["port_limit"] != len(platform["interfaces"]):
        print(f"bad configuration {platform}")
        return 1
    print("interfaces", platform["interfaces"], flush=True)
    if "ffff:ff:00.0" in platform["interfaces"]:
        print("Error: could not find interface ffff:ff:00.0")
        return 255
    with TrexStandIn(tuple(platform["interfaces"]), platform["zmq_rpc_port"]):
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.exit(main())
