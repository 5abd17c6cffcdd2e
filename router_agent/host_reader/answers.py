"""What the reader of the host is asked and answers. Units are in the names; everything else is a count."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from router_agent.model import Prefix
from router_agent.observe.answers import InterfaceCounters, Network, Step


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Session(_Answer):
    """One address family of one BGP session.

    Attributes:
        peer: address, or interface of an unnumbered session.
        description: as configured; empty without one.
        family: for example ``IPv4 unicast``.
        remote_as: AS of the peer.
        state: FRR's word, for example ``Established``, ``Idle (Admin)``.
        established: whether routes can be exchanged.
        since_seconds: how long it has been in this state; None before it ever was established.
        accepted: prefixes of the peer that passed the policy.
        announced: prefixes that the peer was told of.
        bfd: state of the BFD session with the same peer; None where there is none.
    """

    peer: str
    description: str = ""
    family: str
    remote_as: int
    state: str
    established: bool
    since_seconds: float | None = None
    accepted: int = 0
    announced: int = 0
    bfd: str | None = None


class Sessions(_Answer):
    """Every BGP session of FRR.

    Attributes:
        local_as: our AS, None where BGP is not configured.
        router_id: our BGP identifier.
        rows: by family and peer, at most `MOST_SESSIONS`.
        left_out: further ones.
        age_seconds: since FRR was asked.
        problem: why nothing is known; None otherwise.
    """

    local_as: int | None = None
    router_id: str | None = None
    rows: tuple[Session, ...] = ()
    left_out: int = 0
    age_seconds: float = 0.0
    problem: str | None = None


def _from_numbers(prefix: Prefix) -> Prefix:
    """Return the same prefix, made of its address and length alone.

    Python's IPv6 networks may carry a zone, which is any text (RFC 4007, 11; ``fe80::1%text``) and part of
    what they are written as.
    """
    return type(prefix)((int(prefix.network_address), prefix.prefixlen))


class PrefixRequest(BaseModel):
    """Which prefix to follow through BGP, zebra and the kernel; nothing else of a request reaches FRR.

    Attributes:
        prefix: matched exactly.
        table: kernel table.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefix: Annotated[Network, AfterValidator(_from_numbers)]
    table: int = Field(ge=0, le=0xFFFFFFFF, strict=True)


class PrefixSteps(_Answer):
    """The way of one prefix before the agent."""

    steps: tuple[Step, ...]


class Port(InterfaceCounters):
    """A port of a forwarding plane; `up` says whether its link is, None where that is not known."""

    up: bool | None = None


class Ports(_Answer):
    """The kernel's ports; `problem` says why they are not known."""

    rows: tuple[Port, ...] = ()
    problem: str | None = None
