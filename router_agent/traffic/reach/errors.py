"""What can go wrong on the way to a host and on it. Every message names the host and says what to do."""

from __future__ import annotations


class ReachError(Exception):
    """A host, or a command on it, is not as expected.

    Attributes:
        host: as it was asked for.
    """

    def __init__(self, host: str, problem: str) -> None:
        super().__init__(f"{host}: {problem}")
        self.host = host


class UnreachableError(ReachError):
    """No connection: the name, the network, the port, or a host in between."""


class HostKeyError(UnreachableError):
    """The host's key is not the one that is known. Nothing was sent to it."""


class AuthenticationError(UnreachableError):
    """The host is the right one and lets us not in."""


class LostError(ReachError):
    """The connection broke while it was used; what ran on the host may run on."""


class CommandError(ReachError):
    """A command is not there, failed, took too long or said too much.

    Attributes:
        exit_code: what it ended with; None when it did not end by itself.
    """

    def __init__(self, host: str, problem: str, exit_code: int | None = None) -> None:
        super().__init__(host, problem)
        self.exit_code = exit_code
