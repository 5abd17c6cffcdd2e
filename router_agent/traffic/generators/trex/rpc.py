"""TRex's remote procedure calls: JSON-RPC 2.0 over a ZMQ request socket (doc/trex_rpc_server_spec of TRex).

TRex brings a Python client of its own. This speaks the server's protocol instead, for these reasons:

- that client runs on the Python and with the old copies of scapy and pyzmq that one TRex version was made
  with; the protocol is a dozen calls, and has a version that both sides check first;
- the server is a process of its own anyhow, on this host or another, so nothing of TRex is ever in this
  process;
- what is on the wire can be tested against a stand-in, what that client does cannot.

A message may be compressed (zlib after 4 bytes of magic and 4 of length, src/rpc-server/trex_rpc_zip.h) and
may have 999,999 bytes at most either way (trex_rpc_req_resp_server.h).
"""

from __future__ import annotations

import json
import struct
import threading
import time
import zlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import zmq

from router_agent.traffic.generators.generator import GeneratorError

API_NAME, API_MAJOR, API_MINOR = "STL", 5, 0
"""A server takes clients of its own major version and of its own or an older minor one."""

MOST_BYTES = 999_999
_MAGIC = 0xABE85CEA
_HEADER = struct.Struct(">II")
_LEAST_COMPRESSED = 4_096

_TRY_AGAIN, _IN_PROGRESS = -32001, -32002
_METHOD_NOT_FOUND = -32601
_AGAIN_S = 0.2
_ANSWER_S = 10.0
_BUSY_S = 30.0


class TrexError(GeneratorError):
    """TRex refused a call; `code` is that of its JSON-RPC error."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code


class TrexRpc:
    """A connection to one server; calls of several threads go one after the other.

    Args:
        host: name or address of the server.
        port: its port for requests.
        answer_s: how long an answer may take.
    """

    def __init__(self, host: str, port: int, *, answer_s: float = _ANSWER_S) -> None:
        self.address = f"tcp://{host}:{port}"
        self._answer_s = answer_s
        self._lock = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._handle = ""
        self._number = 0

    def __enter__(self) -> Self:
        try:
            self._handle = self._synchronise()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; idempotent."""
        self._disconnect()
        self._context.destroy(linger=0)

    def call(self, method: str, **parameters: Any) -> Any:
        """Return what a call results in; one that the server cannot take now is made again.

        Raises:
            TrexError: the server refuses it.
            GeneratorError: the server does not answer, or its answer is no answer.
        """
        limit = time.monotonic() + _BUSY_S
        while True:
            try:
                (result,) = self._exchange([self._request(method, parameters)])
            except TrexError as error:
                if error.code not in {_TRY_AGAIN, _IN_PROGRESS} or time.monotonic() > limit:
                    raise
                if error.code == _IN_PROGRESS:
                    raise GeneratorError(
                        f"TRex works on {method} in the background; not expected of it"
                    ) from error
                time.sleep(_AGAIN_S)  # what the server's specification asks for: the same call again, later
            else:
                return result

    def call_all(self, method: str, rows: Sequence[dict[str, Any]]) -> None:
        """Make one call many times, as many at once as a message may hold.

        Raises:
            TrexError: the server refuses one.
            GeneratorError: the server does not answer, or a call is too long for it.
        """
        batch: list[dict[str, Any]] = []
        octets = 0
        for row in rows:
            request = self._request(method, row)
            length = len(json.dumps(request)) + 2
            if length > MOST_BYTES:
                raise GeneratorError(
                    f"TRex takes {MOST_BYTES:,} bytes at most, found a {method} of {length:,}"
                )
            if batch and octets + length > MOST_BYTES - 2:
                self._exchange(batch)
                batch, octets = [], 0
            batch.append(request)
            octets += length
        if batch:
            self._exchange(batch)

    def _synchronise(self) -> str:
        wanted = {"name": API_NAME, "major": API_MAJOR, "minor": API_MINOR}
        try:
            answer = self.call("api_sync_v2", **wanted)
        except TrexError as error:
            if error.code == _METHOD_NOT_FOUND:
                raise GeneratorError(
                    f"TRex at {self.address} is older than version 2.31, expected STL API {API_MAJOR}"
                ) from error
            raise GeneratorError(
                f"TRex at {self.address}: {error}; expected a stateless server (t-rex-64 -i) of STL API "
                f"{API_MAJOR}"
            ) from error
        return str(answer["api_h"])

    def _request(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        known = {"api_h": self._handle} if self._handle else {}
        return {"jsonrpc": "2.0", "id": self._number, "method": method, "params": known | parameters}

    def _exchange(self, requests: list[dict[str, Any]]) -> list[Any]:
        message = json.dumps(requests[0] if len(requests) == 1 else requests).encode()
        with self._lock:
            answer = self._transfer(message)
        answers = answer if isinstance(answer, list) else [answer]
        if len(answers) != len(requests):
            raise GeneratorError(f"TRex gives {len(answers)} answers to {len(requests)} calls")
        return [_result(one, request) for one, request in zip(answers, requests, strict=True)]

    def _transfer(self, message: bytes) -> Any:
        if len(message) >= _LEAST_COMPRESSED:
            message = _HEADER.pack(_MAGIC, len(message)) + zlib.compress(message, 1)
        try:
            if self._socket is None:
                self._connect()
            assert self._socket is not None
            self._socket.send(message)
            answer = self._socket.recv()
            if len(answer) > _HEADER.size and _HEADER.unpack_from(answer)[0] == _MAGIC:
                answer = zlib.decompress(answer[_HEADER.size :])
            return json.loads(answer)
        except zmq.Again as error:
            self._disconnect()
            raise GeneratorError(
                f"TRex at {self.address} has not answered for {self._answer_s:.0f} s; is it running "
                "(t-rex-64 -i)?"
            ) from error
        except (zmq.ZMQError, zlib.error, ValueError) as error:
            self._disconnect()
            raise GeneratorError(f"TRex at {self.address}: {error}") from error
        except BaseException:
            self._disconnect()  # a request socket that was interrupted waits for its answer for ever
            raise

    def _connect(self) -> None:
        opened = self._context.socket(zmq.REQ)
        opened.setsockopt(zmq.LINGER, 0)
        opened.setsockopt(zmq.SNDTIMEO, int(self._answer_s * 1000))
        opened.setsockopt(zmq.RCVTIMEO, int(self._answer_s * 1000))
        self._socket = opened
        opened.connect(self.address)

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
            self._socket = None


def _result(answer: Any, request: dict[str, Any]) -> Any:
    if not isinstance(answer, dict) or answer.get("jsonrpc") != "2.0":
        raise GeneratorError(
            f"TRex answers {request['method']} with {str(answer)[:200]!r}, expected JSON-RPC 2.0"
        )
    if "error" in answer:
        error = answer["error"]
        raise TrexError(
            f"{request['method']}: {error.get('specific_err') or error.get('message')}",
            int(error.get("code", 0)),
        )
    if "result" not in answer:
        raise GeneratorError(f"TRex answers {request['method']} without a result")
    return answer["result"]
