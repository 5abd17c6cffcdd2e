"""The web process's configuration file: what it may say, and what is wrong with it.

`load` reads web.yaml into a frozen `WebConfig`; everything that is wrong is reported at once, as for
agent.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyAddress,
    IPvAnyNetwork,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from router_agent.config import LogConfig, SocketPath
from router_agent.drain.settings import MARK
from router_agent.strict_yaml import FileError, Where, content_of, expected, model_of, one_of, shown

READERS_SOCKET = Path("/run/router-agent/readers.sock")
"""Where the agent answers readers when the configuration does not say."""


class WebConfigError(FileError):
    """The configuration cannot be used."""


def _refuse(expected: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{expected}", {"expected": expected})


def _host_name(value: object) -> object:
    if isinstance(value, str):
        return value.lower().rstrip(".")
    return value


_HOST = r"^[a-z0-9]([a-z0-9-]{0,62}(\.[a-z0-9-]{1,63})*)?$"
HostName: TypeAlias = Annotated[str, BeforeValidator(_host_name), Field(pattern=_HOST, max_length=253)]


class WebConfig(BaseModel):
    """web.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: IPvAnyAddress = Field(
        default=IPv4Address("127.0.0.1"),
        description="Address to listen on. Another than the loopback's also wants `clients`.",
    )
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(default=9101, description="TCP port.")
    clients: tuple[IPvAnyNetwork, ...] = Field(
        default=(),
        description="Addresses or networks that are answered, on another address than the loopback's: the "
        "monitoring host.",
    )
    hosts: tuple[HostName, ...] = Field(
        default=(),
        description="Names that browsers and Prometheus may call this host by. Addresses and `localhost` "
        "need none; others are refused, for a page of a stranger's could point a name of its own here.",
    )
    control_socket: SocketPath = Field(
        default=READERS_SOCKET, description="The agent's socket for readers (`control.readers_socket`)."
    )
    host_socket: SocketPath | None = Field(
        default=None,
        description="Socket of `router-agent host-reader`, which is asked for FRR's sessions and paths, and "
        "the kernel's ports; none of these is on the page when null.",
    )
    router: str | None = Field(
        default=None,
        min_length=1,
        max_length=253,
        description="What the page calls this router; its host name when null.",
    )
    drained_mark: Path = Field(default=MARK, description="The mark of a drained router (docs/fleet.md).")
    log: LogConfig = Field(default_factory=LogConfig)

    @property
    def address(self) -> IPv4Address | IPv6Address:
        """The address to listen on."""
        return self.listen

    @model_validator(mode="after")
    def _exposed_by_name_only(self) -> Self:
        if self.address.is_unspecified:
            raise _refuse(
                f"listen to be one address, such as that of management; {self.address} is also every port "
                "that faces the Internet"
            )
        if self.address.is_loopback == bool(self.clients):
            raise _refuse(
                "no clients beside the loopback: everybody there is answered"
                if self.clients
                else f"clients beside listen {self.address}: whom to answer"
            )
        return self


def load(path: Path | str) -> WebConfig:
    """Read and check a configuration file.

    Raises:
        WebConfigError: with everything that is wrong.
    """
    try:
        return parse(content_of(Path(path)), str(path))
    except FileError as error:
        raise WebConfigError(error.problems) from error


def parse(content: bytes, name: str = "configuration") -> WebConfig:
    """Check the content of a configuration file; `name` is what errors call it. An empty one is all defaults.

    Raises:
        WebConfigError: with everything that is wrong.
    """
    try:
        return model_of(WebConfig, content, name, _problems, empty={})
    except FileError as error:
        raise WebConfigError(error.problems) from error


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **WebConfig.model_json_schema(),
        "title": "router-agent web configuration",
    }


_WORDS = {
    _HOST: "a host name of letters, digits, '-' and '.'",
}


def _problems(error: ValidationError) -> Iterator[tuple[Where, str]]:
    return map(_problem, error.errors(include_url=False))


def _problem(details: ErrorDetails) -> tuple[Where, str]:
    where = tuple(details["loc"])
    if details["type"] == "extra_forbidden":
        model: type[BaseModel] = LogConfig if where[:1] == ("log",) else WebConfig
        keys = [field.alias or name for name, field in model.model_fields.items()]
        return where, f"found an unknown key, expected {one_of(keys, str(where[-1]))}"
    if details["type"] == "refused" and not where:
        return where, f"expected {details['ctx']['expected']}"
    return where, f"found {shown(details['input'])}, expected {_expected(details)}"


def _expected(details: ErrorDetails) -> str:
    if details["type"] == "ip_any_network":
        return "an IP address or network"
    return expected(details, _WORDS)
