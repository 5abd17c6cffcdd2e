"""The HTTP server: read-only, behind limits, for whoever may know what this host looks like inside.

It runs as a process and a user of its own, which can do nothing but listen and ask the agent's socket for
readers: whatever is sent here, routes are not its business. Nothing can be changed through it (RFC 9110,
9.2.1: GET and HEAD alone are answered). A browser that has it open beside pages of strangers is protected by
what it is told in `HEADERS`, and by the check of the Host header: a stranger's name that suddenly points to
this host (DNS rebinding) is not ours.

Rooms add their pages with `Application.router`, and take the agent from ``request.app[AGENT]``.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, Self, TypeAlias

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from router_agent.systemd import Notifier, passed_sockets
from router_agent.web import drained, metrics
from router_agent.web.agent import Agent
from router_agent.web.config import WebConfig
from router_agent.web.glass import looking_glass

CONNECTIONS = 64
"""Connections at one time; a further one is closed at once."""
HEADER_SECONDS = 5.0
"""A connection must have sent its first request within so long."""
REQUEST_SECONDS = 20.0
"""From the head of a request until its answer has been taken."""
KEEPALIVE_SECONDS = 10.0
LINE_BYTES = 4096
"""Longest request line, and longest header."""
BACKLOG = 64
_TICK_SECONDS = 0.5
_NO_LINGERING = struct.pack("ii", 1, 0)
"""``struct linger`` of socket(7)."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors "
    "'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "router-agent",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer. A page that wants to be cached sets Cache-Control itself."""

AGENT: web.AppKey[Agent] = web.AppKey("agent", Agent)
CONFIG: web.AppKey[WebConfig] = web.AppKey("config", WebConfig)

_log = logging.getLogger(__name__)
_Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ServingError(Exception):
    """The address cannot be listened on; the message says what to do."""


def application(config: WebConfig, agent: Agent) -> web.Application:
    """Return everything that is served."""
    app = web.Application(middlewares=[_in_time, _without_fail, _for_clients, _by_our_name, _read_only])
    app[AGENT], app[CONFIG] = agent, config
    app.on_response_prepare.append(_add_headers)
    app.router.add_get("/metrics", _metrics)
    looking_glass(config, agent).add_to(app)
    return app


async def run(config: WebConfig) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        ServingError: the address cannot be listened on.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Server(config) as server:
        notifier = Notifier()
        notifier.ready()
        _log.info("serving on %s port %d", *server.address)
        beat = asyncio.create_task(_beat(notifier), name="watchdog")
        await stop.wait()
        beat.cancel()
        notifier.stopping()


class Server:
    """A running server, as an asynchronous context manager.

    Args:
        config: where to listen, whom to answer, which agent to ask.
        listener: a socket to serve on; None takes the one systemd passes, or makes one.
    """

    def __init__(self, config: WebConfig, listener: socket.socket | None = None) -> None:
        self._config = config
        self._listener = listener
        self._agent = Agent(config.control_socket)
        self._door = _Door()

    async def __aenter__(self) -> Self:
        listener = self._listener or listening(self._config)
        self.address: tuple[str, int] = listener.getsockname()[:2]
        app = application(self._config, self._agent)
        app[_DOOR] = self._door
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=KEEPALIVE_SECONDS,
            max_line_size=LINE_BYTES,
            max_field_size=LINE_BYTES,
            lingering_time=0.0,
            shutdown_timeout=1.0,
        )
        await self._runner.setup()
        await self._door.open(self._runner, listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._door.close()
        await self._runner.cleanup()
        await self._agent.close()


def listening(config: WebConfig) -> socket.socket:
    """Return the socket to serve on: the one that systemd passes, or one made here.

    Raises:
        ServingError: it cannot be made, or is another than configured.
    """
    wanted = (str(config.address), config.port)
    passed = passed_sockets()
    if passed:
        found = [s.getsockname()[:2] if s.family in _FAMILIES.values() else s.getsockname() for s in passed]
        if found != [wanted]:
            raise ServingError(
                f"systemd passed sockets on {found}, expected one on {wanted}: make ListenStream= of the "
                "unit and the configuration agree"
            )
        return passed[0]
    listener = socket.socket(_FAMILIES[config.address.version], socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(wanted)
    except OSError as error:
        listener.close()
        raise ServingError(
            f"cannot listen on {wanted[0]} port {wanted[1]}: {error.strerror}; expected an address of this "
            "host and a port that nobody else has (listen, port)"
        ) from error
    return listener


_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class _Door:
    """Lets connections in, so many at a time, and throws those out that dawdle.

    aiohttp itself has no limit of connections, and waits for ever for the first request of one and for a
    client that takes none of its answer.
    """

    def __init__(self) -> None:
        self._deadlines: dict[RequestHandler, float] = {}
        self._server: web.Server | None = None
        self._listening: asyncio.Server | None = None
        self._watch: asyncio.Task[None] | None = None

    async def open(self, runner: web.AppRunner, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = runner.server
        self._listening = await loop.create_server(self._let_in, sock=listener, backlog=BACKLOG)
        self._watch = asyncio.create_task(self._throw_out(), name="connections")

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.close()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    def request_began(self, protocol: RequestHandler) -> None:
        """Give a connection time for this request."""
        self._deadlines[protocol] = asyncio.get_running_loop().time() + REQUEST_SECONDS

    def _let_in(self) -> asyncio.BaseProtocol:
        if self._server is None or len(self._server.connections) >= CONNECTIONS:
            return _Closed()
        return self._server()

    async def _throw_out(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now, there = clock(), self._server.connections if self._server else []
            self._deadlines = {c: self._deadlines.get(c, now + HEADER_SECONDS) for c in there}
            for connection, deadline in self._deadlines.items():
                if now > deadline and connection.transport is not None:
                    _reset(connection.transport)


def _reset(transport: asyncio.Transport) -> None:
    """End a connection at once; closing it would wait for the client to take its answer."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
    transport.abort()


_DOOR: web.AppKey[_Door] = web.AppKey("door", _Door)


class _Closed(asyncio.Protocol):
    """Closes its connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


@web.middleware
async def _in_time(request: web.Request, handler: _Handler) -> web.StreamResponse:
    if (door := request.app.get(_DOOR)) is not None:
        door.request_began(request.protocol)
    return await handler(request)


@web.middleware
async def _without_fail(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Answer a mistake of ours without telling its details, with the same headers as all else."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception:  # noqa: BLE001 - a mistake in a page must not end the server
        _log.exception("no answer to %s %.200r", request.method, request.path)
        return web.Response(status=500, text="This page failed. The log of router-agent-web says why.\n")


@web.middleware
async def _for_clients(request: web.Request, handler: _Handler) -> web.StreamResponse:
    clients = request.app[CONFIG].clients
    if clients and not _is_client(request.remote, clients):
        raise web.HTTPForbidden(text=f"{request.remote} is none of this server's clients.\n")
    return await handler(request)


@web.middleware
async def _by_our_name(request: web.Request, handler: _Handler) -> web.StreamResponse:
    name = _host_name(request.headers.get("Host", ""))
    if not (_is_address(name) or name == "localhost" or name in request.app[CONFIG].hosts):
        raise web.HTTPMisdirectedRequest(
            text=f"found host {name[:100]!r}, expected an address, localhost or one of hosts in web.yaml\n"
        )
    return await handler(request)


@web.middleware
async def _read_only(request: web.Request, handler: _Handler) -> web.StreamResponse:
    if request.method not in ("GET", "HEAD"):
        raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD"])
    return await handler(request)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:  # noqa: ARG001
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = HEADERS["Server"]


def _is_client(remote: str | None, clients: tuple[Any, ...]) -> bool:
    if remote is None:
        return False
    address = ip_address(remote.partition("%")[0])
    return any(address in network for network in clients if network.version == address.version)


def _host_name(header: str) -> str:
    """Return the host of a Host header (RFC 9110, 7.2), without its port."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.rpartition(":")[0].lower() if ":" in header else header.lower()


def _is_address(name: str) -> bool:
    with suppress(ValueError):
        ip_address(name)
        return True
    return False


async def _metrics(request: web.Request) -> web.Response:
    agent = request.app[AGENT]
    status, counters = await asyncio.gather(agent.status(), agent.counters())
    mark = drained.read(request.app[CONFIG].drained_mark)
    body, content_type = metrics.page(status, counters, mark, accept=request.headers.get("Accept", ""))
    response = web.Response(body=body, headers={"Content-Type": content_type})
    response.enable_compression()
    return response


async def _beat(notifier: Notifier) -> None:
    """Feed systemd's watchdog from the loop that does the work."""
    if not notifier.watchdog_seconds:
        return
    while True:
        notifier.watchdog()
        await asyncio.sleep(notifier.watchdog_seconds / 2)
