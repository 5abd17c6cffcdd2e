"""What a tier binds a scenario to: generator, ports, and the device under test with the way to it.

Nothing here is secret: ssh takes a key file's path or the agent's keys, and checks host keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from router_agent.traffic.scenario.asked import Count, Model
from router_agent.traffic.scenario.ports import Port, Wire
from router_agent.traffic.scenario.quantities import RateField, SecondsField, SpeedField

_MAC = r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$"
_PCI = r"^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$"
_INTERFACE = r"^[^\s/]{1,15}$"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"

PATTERNS = {
    _MAC: "a MAC address such as 02:00:00:00:00:01",
    _PCI: "a PCI address such as 0000:3b:00.0",
    _INTERFACE: "an interface name of 1 to 15 characters without blanks and '/'",
    _NAME: "a name of letters, digits, '.', '_' and '-' that starts with a letter or digit, at most 63 long",
}
"""What patterns ask for, in words."""

SECRETS = frozenset({"password", "passphrase", "passwd", "secret", "token", "private_key", "key"})
"""Keys that people try and that no scenario file has."""


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise PydanticCustomError("refused", "{expected}", {"expected": "an absolute path"})
    return path


Name: TypeAlias = Annotated[str, Field(pattern=_NAME)]
Mac: TypeAlias = Annotated[str, Field(pattern=_MAC)]
Interface: TypeAlias = Annotated[str, Field(pattern=_INTERFACE)]
AbsolutePath: TypeAlias = Annotated[Path, AfterValidator(_absolute)]
Id: TypeAlias = Annotated[int, Field(strict=True, ge=0, le=0xFFFFFFFF)]


class SshAccess(Model):
    """A host that is reached over ssh, as ssh_config says; its host key must be known."""

    host: str = Field(min_length=1, description="Name or address.")
    port: Annotated[int, Field(strict=True, ge=1, le=65535)] | None = Field(
        default=None, description="TCP port; that of ssh_config, or 22, when null."
    )
    user: str | None = Field(default=None, description="Login name; that of who runs the check when null.")
    key_file: Path | None = Field(
        default=None, description="Private key file; the agent's keys and the default files when null."
    )
    known_hosts: Path | None = Field(default=None, description="File of host keys; ~/.ssh's when null.")
    router_agent: str = Field(default="router-agent", description="The kit's program on that host.")


class GeneratorBinding(Model):
    """What sends and receives."""

    kind: Literal["sockets", "vpp-pg", "testpmd", "trex"] = Field(default="sockets", description="Which one.")
    host: SshAccess | None = Field(default=None, description="Where it runs; here when null.")
    cpus: tuple[Id, ...] = Field(default=(), description="CPUs to pin to, sender first.")
    path: AbsolutePath | None = Field(
        default=None, description="Where the program is installed, if not in a usual place (TRex)."
    )
    server: str | None = Field(default=None, description="Address of a running TRex server.")


class MemifBinding(Model):
    """A shared-memory packet interface (memif)."""

    socket: AbsolutePath = Field(description="Its control socket.")
    id: Id = Field(default=0, description="Its number on that socket.")


class PortBinding(Model):
    """A port of the tester: exactly one of interface, memif and pci."""

    interface: Interface | None = Field(default=None, description="Kernel interface.")
    namespace: str | None = Field(default=None, description="Network namespace of the interface.")
    memif: MemifBinding | None = Field(default=None, description="Shared memory.")
    pci: Annotated[str, Field(pattern=_PCI)] | None = Field(
        default=None, description="PCI address of a NIC that a DPDK program drives."
    )
    mac: Mac | None = Field(default=None, description="The port's MAC; a kernel interface's own when null.")
    gateway_mac: Mac | None = Field(default=None, description="MAC of the router's port; needed to send.")
    udp_host: bool = Field(
        default=False,
        description="Packets end at this interface's host: UDP sockets receive them, as a name server does.",
    )
    faces: str | None = Field(
        default=None,
        description="The router's interface on the other side, so that routes tell which port they lead to.",
    )
    link: SpeedField | None = Field(
        default=None, description="Speed of the link; what the kernel says of the interface when null."
    )

    @model_validator(mode="after")
    def _one_wire(self) -> Self:
        given = [name for name in ("interface", "memif", "pci") if getattr(self, name) is not None]
        if len(given) != 1:
            raise PydanticCustomError(
                "refused",
                "{expected}",
                {"expected": f"one of interface, memif and pci; there is {' and '.join(given) or 'none'}"},
            )
        return self

    def port(self, name: str) -> Port:
        """Return the port by this name."""
        macs = {"mac": self.mac, "gateway_mac": self.gateway_mac, "link_bps": self.link}
        common: dict[str, Any] = {k: v.lower() if isinstance(v, str) else v for k, v in macs.items()}
        if self.memif is not None:
            return Port(name, str(self.memif.socket), wire=Wire.MEMIF, memif_id=self.memif.id, **common)
        if self.pci is not None:
            return Port(name, self.pci, wire=Wire.PCI, **common)
        return Port(name, str(self.interface), self.namespace, udp_host=self.udp_host, **common)


class DeviceBinding(Model):
    """The device under test, as far as a check has to know it."""

    forwarding: Literal["kernel", "vpp"] = Field(description="What forwards.")
    ssh: SshAccess | None = Field(default=None, description="How it is reached; it is this host when null.")
    namespace: str | None = Field(default=None, description="Network namespace that forwards.")
    table: Id | None = Field(default=None, description="Routing table; main, in VPP 0, when null.")
    stats_socket: AbsolutePath | None = Field(
        default=None, description="VPP's stats segment; /run/vpp/stats.sock when null."
    )
    api_socket: AbsolutePath | None = Field(
        default=None, description="VPP's binary API; /run/vpp/api.sock when null."
    )
    workers: Count | None = Field(
        default=None, description="Threads that forward; counted in VPP's stats segment when null."
    )


class UpstreamBinding(Model):
    """Who withdraws and announces prefixes while traffic flows.

    The prefixes are given to each command on standard input, one a line.
    """

    withdraw: tuple[str, ...] = Field(min_length=1, description="Program and arguments.")
    announce: tuple[str, ...] = Field(min_length=1, description="Program and arguments.")
    ssh: SshAccess | None = Field(default=None, description="Where they run; here when null.")


def _kind_alone(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


class Binding(Model):
    """What a tier binds a scenario to."""

    generator: Annotated[GeneratorBinding, BeforeValidator(_kind_alone)] = Field(
        default_factory=GeneratorBinding, description="What sends."
    )
    ports: dict[Name, PortBinding] = Field(min_length=1, description="The tester's ports, by name.")
    device: DeviceBinding | None = Field(
        default=None, description="The device; without it there are no counters of it and no live table."
    )
    upstream: UpstreamBinding | None = Field(default=None, description="Who changes routes for `churn`.")
    rate: RateField | None = Field(
        default=None,
        description="Offered load of a sending port in place of the goal's, where this tier cannot carry it.",
    )
    duration: SecondsField | None = Field(
        default=None, description="Length of the target's trial in place of the goal's."
    )


GENERATORS_BY_WIRE: dict[Wire, tuple[str, ...]] = {
    Wire.KERNEL: ("sockets", "vpp-pg", "testpmd", "trex"),
    Wire.MEMIF: ("vpp-pg", "testpmd"),
    Wire.PCI: ("vpp-pg", "testpmd", "trex"),
}
"""Generators that can drive a port."""
