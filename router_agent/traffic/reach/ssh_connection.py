"""Connecting: TCP, the host's key, who we are; through as many hosts as ssh_config says."""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paramiko

from router_agent.traffic.reach.errors import AuthenticationError, HostKeyError, UnreachableError
from router_agent.traffic.reach.known_hosts import KnownKeys, keys_of
from router_agent.traffic.reach.target import Hop

KEEPALIVE_S = 5
DEAD_S = 20
"""A connection whose packets are not acknowledged for so long is given up."""

_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_ADVICE = {
    errno.ECONNREFUSED: "sshd does not run there, or listens on another port",
    errno.EHOSTUNREACH: "it is down, or there is no route to it",
    errno.ENETUNREACH: "there is no route to it",
    errno.ETIMEDOUT: "it is down, or a firewall drops what we send",
}


def connect(name: str, hops: Sequence[Hop]) -> list[paramiko.Transport]:
    """Return the connections of a way, the host's own last.

    Args:
        name: of the host, for messages.
        hops: see `target.way_to`.

    Raises:
        UnreachableError: one cannot be made; those before it are closed again.
    """
    transports: list[paramiko.Transport] = []
    try:
        for hop in hops:
            through = transports[-1] if transports else None
            transports.append(_connect(name, hop, through))
    except BaseException:
        for transport in reversed(transports):
            transport.close()
        raise
    return transports


def _connect(name: str, hop: Hop, through: paramiko.Transport | None) -> paramiko.Transport:
    known = _known(name, hop)
    line = _tcp(name, hop) if through is None else _tunnel(name, hop, through)
    transport = paramiko.Transport(line)
    # what cannot be helped is raised; paramiko would print it as well
    transport.set_log_channel("router_agent.ssh")
    logging.getLogger("router_agent.ssh").setLevel(logging.CRITICAL)
    try:
        transport.banner_timeout = transport.handshake_timeout = hop.connect_s
        transport.auth_timeout = transport.channel_timeout = 2 * hop.connect_s
        transport.use_compression(False)
        _prefer(transport, known)
        _check_key(name, hop, _handshake(name, hop, transport), known)
        _authenticate(name, hop, transport)
        transport.set_keepalive(KEEPALIVE_S)
    except BaseException:
        transport.close()
        raise
    return transport


def _known(name: str, hop: Hop) -> KnownKeys:
    try:
        return keys_of(hop.key_name, hop.known_hosts)
    except OSError as error:
        raise UnreachableError(name, f"{error.filename} cannot be read: {error.strerror}") from error


def _tcp(name: str, hop: Hop) -> socket.socket:
    where = f"{hop.host} port {hop.port}"
    try:
        line = socket.create_connection((hop.host, hop.port), hop.connect_s)
    except socket.gaierror as error:
        raise UnreachableError(
            name, f"found no address of {hop.host!r} ({error.strerror}): correct the name, or ssh_config"
        ) from error
    except TimeoutError as error:
        raise UnreachableError(
            name, f"no answer from {where} within {hop.connect_s:g} s: {_ADVICE[errno.ETIMEDOUT]}"
        ) from error
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "see connect(2)")
        raise UnreachableError(name, f"cannot connect to {where}: {error.strerror}; {advice}") from error
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_S * 1000)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return line


def _tunnel(name: str, hop: Hop, through: paramiko.Transport) -> paramiko.Channel:
    try:
        return through.open_channel(
            "direct-tcpip", (hop.host, hop.port), ("127.0.0.1", 0), timeout=hop.connect_s
        )
    except paramiko.ChannelException as error:
        raise UnreachableError(
            name, f"the host before it (ProxyJump) cannot reach {hop.host} port {hop.port}: {error.text}"
        ) from error
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise UnreachableError(name, f"the host before it (ProxyJump) did not answer: {error}") from error


def _prefer(transport: paramiko.Transport, known: KnownKeys) -> None:
    """Ask for the host's key in a type that is known, where it has several."""
    options = transport.get_security_options()
    wanted = [a for kind in known.types for a in (_RSA if kind == "ssh-rsa" else (kind,))]
    first = [a for a in wanted if a in options.key_types]
    options.key_types = [*first, *(a for a in options.key_types if a not in first)]


def _handshake(name: str, hop: Hop, transport: paramiko.Transport) -> paramiko.PKey:
    """Agree on encryption and return the host's key, which proved to be its own and nothing else."""
    try:
        # it returns in silence when its time is over; asking for the key then raises
        transport.start_client(timeout=hop.connect_s)
        return transport.get_remote_server_key()
    except (paramiko.SSHException, OSError, EOFError) as error:
        raise UnreachableError(
            name,
            f"{hop.host} port {hop.port} does not go on as an ssh server does: {error or 'it hung up'}; "
            "is sshd there, and does it let this address in?",
        ) from error


def _check_key(name: str, hop: Hop, key: paramiko.PKey, known: KnownKeys) -> None:
    """Go on only with a key that is known."""
    wire, seen = key.asbytes(), f"{key.get_name()} {key.fingerprint}"
    if wire in known.revoked:
        raise HostKeyError(
            name, f"its key {seen} is marked @revoked: do not connect; its owner must tell why"
        )
    if known.place_of(wire):
        return
    files = ", ".join(str(file) for file in hop.known_hosts)
    if known.keys:
        kinds = ", ".join(f"{kind} ({place})" for kind, _, place in known.keys)
        raise HostKeyError(
            name,
            f"ITS KEY HAS CHANGED: found {seen}, expected {kinds}. Somebody may be in between. Only when the "
            f"host was reinstalled: compare the fingerprint on its console (ssh-keygen -lf /etc/ssh/ssh_host_"
            f"*_key.pub), then 'ssh-keygen -R {hop.key_name}' and add the new key",
        )
    hint = " (a @cert-authority line stands for it: certificates of hosts are not supported)"
    raise HostKeyError(
        name,
        f"its key is not known: found {seen}, expected {hop.key_name} in {files}"
        f"{hint if known.authority else ''}. Compare the fingerprint on its console (ssh-keygen -lf "
        "/etc/ssh/ssh_host_*_key.pub), then add its line "
        f"(ssh-keyscan -p {hop.port} {hop.host}) to one of these files",
    )


def _authenticate(name: str, hop: Hop, transport: paramiko.Transport) -> None:
    tried: list[str] = []
    last = ""
    for what, key in _candidates(name, hop):
        tried.append(what)
        try:
            if not transport.auth_publickey(hop.user, key):
                return
            last = "; it asks for something else besides the key, which is not supported"
        except paramiko.BadAuthenticationType as error:
            last = f"; it takes {', '.join(error.allowed_types) or 'nothing'} only"
            break
        except paramiko.AuthenticationException:
            continue
        except (paramiko.SSHException, OSError, EOFError) as error:
            last = f"; then it hung up ({error or 'end of connection'}): too many keys? name one"
            break
    found = ", ".join(tried) or "no key at all"
    raise AuthenticationError(
        name,
        f"lets user {hop.user} not in: tried {found}{last}. Put the public key into ~{hop.user}/.ssh/"
        "authorized_keys there, load its private key into the agent (ssh-add), or name its file",
    )


def _candidates(name: str, hop: Hop) -> Iterator[tuple[str, Any]]:
    """Yield the keys to try: files first, then those of the agent."""
    locked: list[Path] = []
    for file in hop.key_files:
        try:
            yield f"{file}", paramiko.PKey.from_path(file.expanduser())
        except FileNotFoundError:
            if hop.asked:
                raise AuthenticationError(name, f"found no key file {file}: correct the name") from None
        except (TypeError, paramiko.PasswordRequiredException):
            locked.append(file)
        except (OSError, ValueError, paramiko.SSHException, paramiko.UnknownKeyType) as error:
            raise AuthenticationError(name, f"key file {file} cannot be used: {error}") from error
    if hop.agent:
        with_agent = paramiko.Agent()
        try:
            for key in with_agent.get_keys():
                yield f"the agent's {key.comment or key.get_name()}", key
        finally:
            with_agent.close()
    if locked:
        names = ", ".join(str(file) for file in locked)
        raise AuthenticationError(
            name, f"{names}: protected by a passphrase, and the agent's keys do not open it: ssh-add {names}"
        )
