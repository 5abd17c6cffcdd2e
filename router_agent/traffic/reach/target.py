"""Which host is meant, and how ssh gets there: ssh_config(5) with what was said on top of it."""

from __future__ import annotations

import getpass
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paramiko.config import SSHConfig
from paramiko.ssh_exception import SSHException

from router_agent.traffic.reach.errors import UnreachableError

_TARGET = re.compile(
    r"(?:(?P<user>[^@\s]+)@)?(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:@\[\]]+)(?::(?P<port>\d+))?"
)
_USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
_DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
_INCLUDE = re.compile(r"^\s*include\b", re.IGNORECASE | re.MULTILINE)
_CONNECT_S = 30.0
_MOST_JUMPS = 8


@dataclass(frozen=True)
class SshTarget:
    """A host that ssh leads to. What is None comes from ssh_config, and from ssh's own defaults then.

    There is no place for a password: an agent or a key file says who we are.

    Attributes:
        host: a name of ssh_config, a host name or an address.
        user: who to be there.
        port: TCP port.
        key_files: private keys, tried in this order before the agent's; one with a passphrase belongs
            into the agent.
        agent: whether the agent's keys are tried.
        known_hosts: files with the keys of hosts; they replace those of ssh_config.
        config: ssh_config file; None is ``~/.ssh/config``, where there is one.
        connect_s: how long a connection may take to come up.
    """

    host: str
    user: str | None = None
    port: int | None = None
    key_files: tuple[Path, ...] = ()
    agent: bool = True
    known_hosts: tuple[Path, ...] = ()
    config: Path | None = None
    connect_s: float | None = None

    @classmethod
    def of(cls, text: str) -> SshTarget:
        """Return the target of ``[USER@]HOST[:PORT]``; an IPv6 address is in brackets.

        Raises:
            ValueError: it is not of that form.
        """
        found = _TARGET.fullmatch(text)
        if not found:
            raise ValueError(
                f"found {text!r} as an ssh target, expected [USER@]HOST[:PORT], an IPv6 address in brackets"
            )
        port = int(found["port"]) if found["port"] else None
        return cls(found["host"].strip("[]"), user=found["user"], port=port)


@dataclass(frozen=True)
class Hop:
    """One connection of the way, with everything decided.

    Attributes:
        name: as it was asked for.
        host, port: where the connection goes.
        user: who to be.
        key_name: under which name known_hosts files have the host.
        key_files: private keys to try; those that are not there are passed over unless `asked`.
        asked: the key files were asked for by name.
        agent: whether the agent's keys are tried.
        known_hosts: files.
        connect_s: how long it may take.
    """

    name: str
    host: str
    port: int
    user: str
    key_name: str
    key_files: tuple[Path, ...]
    asked: bool
    agent: bool
    known_hosts: tuple[Path, ...]
    connect_s: float


def way_to(target: SshTarget) -> tuple[Hop, ...]:
    """Return the connections that lead to a host, the host's own last; those before it are its ProxyJumps.

    Raises:
        UnreachableError: ssh_config cannot be read, or asks for what is not supported.
    """
    config = _read(target)
    hops: list[Hop] = []
    waiting = [target]
    while waiting:
        if len(hops) == _MOST_JUMPS:
            raise UnreachableError(
                target.host,
                f"found more than {_MOST_JUMPS} ProxyJumps on the way, expected an end: ssh_config",
            )
        found: Mapping[str, Any] = config.lookup(waiting[-1].host)
        if found.get("proxycommand"):
            raise UnreachableError(
                target.host, "ssh_config has a ProxyCommand for it, expected ProxyJump: that is supported"
            )
        hop = waiting.pop()
        hops.insert(0, _hop(hop, found))
        waiting += [_jump(text, target) for text in _jumps(found)]
    return tuple(hops)


def _read(target: SshTarget) -> SSHConfig:
    path = target.config or Path("~/.ssh/config").expanduser()
    if target.config is None and not path.exists():
        return SSHConfig()
    try:
        text = path.read_text()
        config = SSHConfig.from_text(text)
    except (OSError, UnicodeDecodeError, SSHException) as error:
        raise UnreachableError(target.host, f"ssh_config {path} cannot be read: {error}") from error
    if _INCLUDE.search(text):
        raise UnreachableError(
            target.host,
            f"ssh_config {path} has Include, which is not supported: name a file that has all of it",
        )
    return config


def _hop(target: SshTarget, found: Mapping[str, Any]) -> Hop:
    host, port = str(found.get("hostname", target.host)), target.port or int(found.get("port", 22))
    alias = found.get("hostkeyalias")
    identities = tuple(Path(name).expanduser() for name in found.get("identityfile", ()))
    key_files = target.key_files or identities
    only = str(found.get("identitiesonly", "no")).lower() == "yes"
    return Hop(
        name=target.host,
        host=host,
        port=port,
        user=target.user or str(found.get("user") or getpass.getuser()),
        key_name=str(alias or (host if port == 22 else f"[{host}]:{port}")),
        key_files=key_files or tuple(Path(name).expanduser() for name in _DEFAULT_KEYS),
        asked=bool(key_files),
        agent=target.agent and not only,
        known_hosts=target.known_hosts or _known_hosts(found),
        connect_s=target.connect_s or float(found.get("connecttimeout", _CONNECT_S)),
    )


def _known_hosts(found: Mapping[str, Any]) -> tuple[Path, ...]:
    user = str(found.get("userknownhostsfile", " ".join(_USER_KNOWN_HOSTS))).split()
    everyone = str(found.get("globalknownhostsfile", " ".join(_GLOBAL_KNOWN_HOSTS))).split()
    return tuple(Path(name).expanduser() for name in (*user, *everyone))


def _jumps(found: Mapping[str, Any]) -> list[str]:
    """Return the jumps of ``ProxyJump a,b``: b is the last before the host."""
    text = str(found.get("proxyjump", "none"))
    return [] if text.lower() == "none" else [word.strip() for word in text.split(",")]


def _jump(text: str, target: SshTarget) -> SshTarget:
    try:
        found = SshTarget.of(text.removeprefix("ssh://"))
    except ValueError as error:
        raise UnreachableError(target.host, f"ProxyJump of ssh_config: {error}") from error
    # keys, known hosts and limits that were asked for hold for the whole way; user and port for the host
    return replace(target, host=found.host, user=found.user, port=found.port)
