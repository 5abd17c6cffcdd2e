"""The binary API of the generator's own VPP, for use before and after trials; nothing polls it in between.

The session's event loop runs in a thread of its own: VPP drops a client that leaves its keepalives
unanswered, and a trial may be longer than that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from router_agent.fibs.fib import FibError
from router_agent.traffic.generators.generator import GeneratorError
from router_agent.vpp.session import VppSession

_STOP_SECONDS = 20.0

T = TypeVar("T")


class Api:
    """A session, for callers without an event loop.

    Args:
        api_socket: VPP's API socket.

    Raises:
        GeneratorError: VPP does not answer.
    """

    def __init__(self, api_socket: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="generator's VPP", daemon=True)
        self._thread.start()
        self._session = VppSession(api_socket=api_socket, name="traffic generator")
        try:
            self._run(self._session.open())
        except BaseException:
            self.close()
            raise

    def call(self, message: str, **fields: Any) -> Any:
        """Send one request and return its reply, or the list of details of a dump.

        Raises:
            GeneratorError: VPP does not offer the message, refused it, or went away.
        """
        return self._run(self._session.call(message, **fields))

    def command(self, text: str) -> None:
        """Run a debug CLI command that prints nothing when it succeeds, for what has no API message.

        Raises:
            GeneratorError: it printed something, or VPP went away.
        """
        answer = self._run(self._session.cli(text)).strip()
        if answer:
            raise GeneratorError(f"the generator's VPP answered {text!r} with {answer!r}, expected silence")

    def value(self, enumeration: str, name: str) -> int:
        """Return a value of an enumeration of the API.

        Raises:
            GeneratorError: VPP has no such enumeration.
        """
        try:
            return self._session.enumeration(enumeration)[name]
        except FibError as error:
            raise GeneratorError(str(error)) from error

    def close(self) -> None:
        """Disconnect; idempotent. A VPP that died is no error here."""
        if self._loop.is_closed():
            return
        try:
            self._run(self._session.close())
        except GeneratorError:
            pass  # it cannot be told goodbye any more
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(_STOP_SECONDS)
            self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        except (FibError, OSError) as error:
            raise GeneratorError(f"the generator's VPP: {error}") from error
