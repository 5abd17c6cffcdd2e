"""The scenario file: one YAML document that says what is checked on every tier.

`load` reads it into a frozen `Document`. Everything that is wrong is reported at once, one line each, with
file, line, dotted key, what was found and what was expected. `schema` gives the same rules as JSON Schema.

What is sent and what is good enough is the same on all tiers; only a tier's binding differs: generator,
ports, the way to the device.
"""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from router_agent.model import Prefix
from router_agent.strict_yaml import (
    FileError,
    Where,
    content_of,
    dotted,
    expected,
    items_failed,
    model_of,
    one_of,
    shown,
)
from router_agent.traffic.scenario.asked import Asked, Count, Model
from router_agent.traffic.scenario.binding import GENERATORS_BY_WIRE, PATTERNS, SECRETS, Binding, Name
from router_agent.traffic.scenario.errors import ScenarioError
from router_agent.traffic.scenario.frame_sizes import IMIX, FrameSizes
from router_agent.traffic.scenario.goal import ChurnBudget, Goal, LatencyBound
from router_agent.traffic.scenario.ports import Tier
from router_agent.traffic.scenario.quantities import Rate, RateField, RatioField, SecondsField, rate

SCHEMA = "router-agent/traffic-scenario/1"
"""Names the format and its version: within a version keys are only ever added."""


class DocumentError(ScenarioError):
    """A scenario file cannot be used.

    Attributes:
        problems: one line each: file, line, key, what was found, what was expected.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def _refuse(words: str) -> PydanticCustomError:
    """Return the error of a value that has the right type and still cannot be meant."""
    return PydanticCustomError("refused", "{expected}", {"expected": words})


def _frames(value: object) -> FrameSizes:
    """Read a frame size: a number, `imix`, or a mix of one's own by name."""
    try:
        if value == "imix":
            return IMIX
        if isinstance(value, int) and not isinstance(value, bool):
            return FrameSizes.of(value)
        if isinstance(value, Mapping) and len(value) == 1:
            ((label, shares),) = value.items()
            if isinstance(shares, Mapping):
                pairs = [(_whole(size), _whole(weight)) for size, weight in shares.items()]
                return FrameSizes(tuple(sorted(pairs)), str(label))
    except ScenarioError as error:
        raise _refuse(f"a frame size or mix that makes sense: {error}") from error
    raise _refuse("a frame size with FCS, 'imix', or a mix such as {mine: {64: 7, 1518: 1}}")


def _whole(value: object) -> int:
    """Return a whole number; JSON has keys of text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    raise ScenarioError(f"sizes by their weights, whole numbers; there is {shown(value)}")


def _frames_text(sizes: FrameSizes) -> int | str | dict[str, dict[int, int]]:
    if sizes == IMIX:
        return "imix"
    if len(sizes.shares) == 1:
        return sizes.shares[0][0]
    return {sizes.label: dict(sizes.shares)}


def _prefix(value: object) -> Prefix:
    try:
        if isinstance(value, str) and "/" in value:
            return ip_network(value)
    except ValueError as error:
        raise _refuse(f"a prefix such as 192.0.2.0/24 or 2001:db8::/32 ({error})") from error
    raise _refuse("a prefix such as 192.0.2.0/24 or 2001:db8::/32")


def _distinct_labels(frames: tuple[FrameSizes, ...]) -> tuple[FrameSizes, ...]:
    labels = [sizes.label for sizes in frames]
    if len(set(labels)) != len(labels):
        raise _refuse("each frame size once, and mixes with names that differ")
    return frames


def _percentiles(value: object) -> object:
    """Read `{99: 300 us}`; percentiles are numbers, or numbers in quotes."""
    if not isinstance(value, Mapping):
        return value
    return {str(percentile): bound for percentile, bound in value.items()}


def _percentile(text: str) -> str:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 100:
        raise _refuse("a percentile above 0 up to 100, such as 99.9")
    return f"{number:g}"


FramesField: TypeAlias = Annotated[
    FrameSizes,
    PlainValidator(_frames),
    PlainSerializer(_frames_text),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 64, "maximum": 9018},
                {"const": "imix"},
                {
                    "type": "object",
                    "additionalProperties": {
                        "type": "object",
                        "additionalProperties": {"type": "integer", "minimum": 1},
                    },
                    "minProperties": 1,
                    "maxProperties": 1,
                },
            ]
        }
    ),
]
PrefixField: TypeAlias = Annotated[
    Prefix,
    PlainValidator(_prefix),
    PlainSerializer(str, str),
    WithJsonSchema({"type": "string", "examples": ["192.0.2.0/24", "2001:db8::/32"]}),
]
Prefixes: TypeAlias = Annotated[tuple[PrefixField, ...], Field(min_length=1)]


class DestinationsWanted(Model):
    """Where packets go: one address in each of many prefixes.

    Without `file` and `prefixes` they are drawn from the table that the device has when the check begins.
    """

    file: Path | None = Field(
        default=None, description="Prefix list, one a line; a relative path is beside the scenario."
    )
    prefixes: Prefixes | None = Field(default=None, description="Prefixes, that may leave by any port.")
    by_port: dict[Name, Prefixes] | None = Field(
        default=None, description="Prefixes by the tester's port at which they shall leave."
    )
    count: Count | Literal["all"] = Field(default="all", description="How many prefixes, or all.")
    families: Annotated[tuple[Literal["ipv4", "ipv6"], ...], Field(min_length=1)] = Field(
        default=("ipv4", "ipv6"), description="Address families."
    )
    seed: Annotated[int, Field(strict=True, ge=0)] = Field(
        default=1, description="The same seed draws the same prefixes and addresses."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("file", "prefixes", "by_port") if getattr(self, name) is not None]
        if len(given) > 1:
            raise _refuse(f"at most one of file, prefixes and by_port; there are {' and '.join(given)}")
        return self

    @property
    def from_table(self) -> bool:
        """Whether they are drawn from the device's table."""
        return self.file is None and self.prefixes is None and self.by_port is None


class Direction(Model):
    """Which ports send, and where packets shall leave.

    `{from: west}`: in by west, out where the table says. `{from: west, to: east}`: one way, only prefixes
    that leave by east. `{between: [west, east]}`: both ways at once.
    """

    sender: Name | None = Field(default=None, alias="from", description="The port that sends.")
    receiver: Name | None = Field(default=None, alias="to", description="The port where packets shall leave.")
    between: tuple[Name, Name] | None = Field(default=None, description="Two ports that send to each other.")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.between is None) == (self.sender is None):
            raise _refuse("either 'from' (and perhaps 'to') or 'between'")
        if self.between is not None and self.receiver is not None:
            raise _refuse("'to' only with 'from'")
        if self.between is not None and self.between[0] == self.between[1]:
            raise _refuse("two different ports in 'between'")
        return self

    @property
    def senders(self) -> tuple[str, ...]:
        """Names of the ports that send."""
        return self.between or (str(self.sender),)

    @property
    def ports(self) -> tuple[str, ...]:
        """Names of all ports it speaks of."""
        return self.senders if self.receiver is None else (*self.senders, self.receiver)


class ChurnBudgetWanted(Model):
    """What route changes may cost."""

    lost: Annotated[int, Field(strict=True, ge=0)] | None = Field(
        default=None, description="Packets that may be lost."
    )
    blocked: SecondsField | None = Field(default=None, description="Longest time in which nothing arrives.")
    convergence: SecondsField | None = Field(
        default=None, description="99th percentile of the times in which a prefix loses packets."
    )


class GoalWanted(Model):
    """What is good enough."""

    rate: RateField = Field(
        description="Offered load of each sending port: packets a second, a part of its line, or as many "
        "as an Ethernet of some speed carries."
    )
    duration: SecondsField = Field(
        default=12.0, description="Length of the target's trial; RFC 2544 asks for 60 s."
    )
    loss_ratio: RatioField = Field(default=0.0, description="Lost / sent that is still a pass.")
    unsent_ratio: RatioField = Field(
        default=0.005, description="Unsent / intended above which a trial is INVALID."
    )
    latency: Annotated[
        dict[Annotated[str, AfterValidator(_percentile)], SecondsField], BeforeValidator(_percentiles)
    ] = Field(default_factory=dict, description="Most that a percentile of the latencies may take.")
    churn: ChurnBudgetWanted | None = Field(default=None, description="Budget of route changes.")

    def goal(self) -> Goal:
        """Return the goal without its rate and duration."""
        bounds = [(float(percentile), most) for percentile, most in self.latency.items()]
        churn = self.churn
        return Goal(
            loss_ratio=self.loss_ratio,
            unsent_ratio=self.unsent_ratio,
            latency=tuple(LatencyBound(percentile, round(most * 1e9)) for percentile, most in sorted(bounds)),
            churn=None if churn is None else ChurnBudget(churn.lost, churn.blocked, churn.convergence),
        )


def _packets_a_second(found: Rate) -> Rate:
    if found.pps is None:
        raise _refuse("packets a second, such as '10 kpps'")
    return found


class PortProof(Model):
    """One packet to each prefix, and the port it leaves by."""

    rate: Annotated[RateField, AfterValidator(_packets_a_second)] = Field(
        default=rate("10 kpps"), description="Low, so that loss is not expected, of all ports together."
    )


class Packets(Model):
    """What is in the packets."""

    udp_port: Annotated[int, Field(strict=True, ge=1, le=65535)] = Field(
        default=9, description="Destination port."
    )
    source_ipv4: Annotated[IPv4Network, Field()] = Field(
        default=IPv4Network("198.18.0.0/15"), description="Sources; the default is RFC 2544's."
    )
    source_ipv6: IPv6Network = Field(
        default=IPv6Network("2001:2::/48"), description="Sources; the default is RFC 5180's."
    )


def _proof_options(value: object) -> object:
    return {} if value is True else None if value is False else value


class Document(Model):
    """A scenario file."""

    schema_: Literal["router-agent/traffic-scenario/1"] = Field(
        alias="schema", description="Names the format."
    )
    name: str = Field(min_length=1, max_length=200, description="Appears in reports.")
    frames: Annotated[tuple[FramesField, ...], AfterValidator(_distinct_labels)] = Field(
        min_length=1, description="Ethernet frame sizes with FCS, mixes; each is a run of its own."
    )
    destinations: DestinationsWanted = Field(
        default_factory=DestinationsWanted, description="Where packets go."
    )
    direction: Direction = Field(description="Which ports send.")
    goal: GoalWanted = Field(description="What is good enough.")
    proof: Annotated[PortProof | None, BeforeValidator(_proof_options)] = Field(
        default_factory=PortProof, description="Port proof; false leaves it out."
    )
    measurements: Asked = Field(
        default_factory=Asked, description="What is measured beside the target, by name, with options."
    )
    packets: Packets = Field(default_factory=Packets, description="What is in the packets.")
    tiers: dict[Tier, Binding] = Field(
        default_factory=dict, description="What each tier binds this to; a lab binds its own."
    )

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        problems = list(_problems_between(self))
        if problems:
            text = "; ".join(f"{dotted(where)}: {words}" for where, words in problems)
            raise PydanticCustomError("cross_check", "{text}", {"text": text, "problems": problems})
        return self


def _problems_between(document: Document) -> Iterator[tuple[Where, str]]:
    """Find what parts of a file say against each other."""
    wanted = document.destinations
    if document.direction.receiver and wanted.by_port and document.direction.receiver not in wanted.by_port:
        yield (
            ("direction", "to"),
            f"found {document.direction.receiver!r}, expected a port that destinations.by_port has prefixes "
            f"for: {', '.join(wanted.by_port)}",
        )
    for tier, binding in document.tiers.items():
        where: Where = ("tiers", tier.value)
        named: dict[str, Where] = dict.fromkeys(document.direction.ports, ("direction",))
        named |= dict.fromkeys(wanted.by_port or (), ("destinations", "by_port"))
        for port, at in named.items():
            if port not in binding.ports:
                yield (
                    (*where, "ports"),
                    f"found {', '.join(binding.ports)}, expected port {port!r} too, which {dotted(at)} names",
                )
        for port in document.direction.senders:
            if port in binding.ports and binding.ports[port].gateway_mac is None:
                yield (
                    (*where, "ports", port, "gateway_mac"),
                    "found nothing, expected the MAC of the router's port: this port sends",
                )
        for port, bound in binding.ports.items():
            able = GENERATORS_BY_WIRE[bound.port(port).wire]
            if binding.generator.kind not in able:
                yield (
                    (*where, "generator"),
                    f"found {binding.generator.kind}, expected one of {', '.join(able)}: port {port} is a "
                    f"{bound.port(port).wire}",
                )
        if wanted.from_table and binding.device is None:
            yield (
                (*where, "device"),
                "found nothing, expected the device: destinations come from its table",
            )
        if document.measurements.churn is not None and binding.upstream is None:
            yield (
                (*where, "upstream"),
                "found nothing, expected who withdraws and announces prefixes: churn is to be measured",
            )


def load(path: Path | str) -> Document:
    """Read and check a scenario file.

    Raises:
        DocumentError: with everything that is wrong.
    """
    path = Path(path)
    try:
        content = content_of(path)
    except FileError as error:
        raise DocumentError(error.problems) from error
    return parse(content, str(path), path.parent)


def parse(content: bytes, name: str = "scenario", directory: Path | None = None) -> Document:
    """Check the content of a scenario file.

    Args:
        content: YAML.
        name: what errors call it.
        directory: what a relative path in it is relative to.

    Raises:
        DocumentError: with everything that is wrong.
    """
    try:
        document = model_of(Document, content, name, lambda error: dict.fromkeys(_problems(error)))
    except FileError as error:
        raise DocumentError(error.problems) from error
    file = document.destinations.file
    if file is None or file.is_absolute() or directory is None:
        return document
    absolute = document.destinations.model_copy(update={"file": directory / file})
    return document.model_copy(update={"destinations": absolute})


def schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the scenario file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Document.model_json_schema(by_alias=True),
        "title": "router-agent traffic scenario",
    }


def _problems(error: ValidationError) -> Iterator[tuple[Where, str]]:
    for details in error.errors(include_url=False):
        if details["type"] == "cross_check":
            yield from details["ctx"]["problems"]
        elif not items_failed(details):
            yield _problem(details)


def _problem(details: ErrorDetails) -> tuple[Where, str]:
    """Put one of pydantic's errors into our words."""
    where = tuple(part for part in details["loc"] if part != "[key]")
    where = where[:2] if where[:2] == ("destinations", "count") else where
    if details["type"] == "missing":
        return where, "found nothing, expected this key"
    if details["type"] == "extra_forbidden":
        if str(where[-1]).lower() in SECRETS:
            return where, "found a secret's key, expected none in this file: key_file, or keys of ssh-agent"
        return where, f"found an unknown key, expected {one_of(_keys_at(where[:-1]), str(where[-1]))}"
    if where == ("destinations", "count"):
        return where, f"found {shown(details['input'])}, expected a whole number of at least 1, or 'all'"
    if details["type"] == "enum":
        tiers = ", ".join(Tier)
        return where, f"found {shown(where[-1])}, expected one of {tiers}"
    return where, f"found {shown(details['input'])}, expected {expected(details, PATTERNS)}"


def _keys_at(where: Where) -> list[str]:
    """Return which keys may stand at a place in the file."""
    kind: Any = Document
    for part in where:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = kind.model_fields
            field = next((f for name, f in fields.items() if (f.alias or name) == part), None)
            kind = None if field is None else _bare(field.annotation)
        elif get_origin(kind) is dict:
            kind = _bare(get_args(kind)[1])
        elif get_origin(kind) is tuple:
            kind = _bare(get_args(kind)[0])
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [field.alias or name for name, field in kind.model_fields.items()]
    return []


def _bare(kind: Any) -> Any:
    """Return a type without annotations, and without the None of an optional one."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        return _bare(next(member for member in get_args(kind) if member is not type(None)))
    return kind


__all__ = ["SCHEMA", "Document", "DocumentError", "Rate", "load", "parse", "schema"]
