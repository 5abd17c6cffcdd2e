"""What a check measures beyond the target, and the options of each measurement.

The target is always measured. The others run when they are named, `ndr` also when the target was missed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from router_agent.traffic.scenario.quantities import RateField, RatioField, SecondsField, ShareField

Count: TypeAlias = Annotated[int, Field(strict=True, ge=1)]


class Model(BaseModel):
    """A part of a scenario file."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


def _default_options(value: object) -> object:
    """Let `ndr:` and `ndr: true` ask for a measurement with its defaults."""
    return {} if value is None or value is True else value


class RateOptions(Model):
    """A search for the highest rate of a loss ratio (MLRsearch, RFC 9971)."""

    trial: SecondsField = Field(default=1.0, description="Length of the trials that decide.")
    sum: SecondsField = Field(
        default=21.0, description="Trials that decide about one load take so long together."
    )
    width: ShareField = Field(default=0.005, description="How near the answer shall be, as a part of it.")
    limit: SecondsField = Field(default=900.0, description="The search is given up after so long.")
    lowest: RateField | None = Field(
        default=None, description="Lowest load of a sending port; a thousandth of the highest when null."
    )
    highest: RateField | None = Field(
        default=None, description="Highest load of a sending port; the line, or twice the goal, when null."
    )


class NdrOptions(RateOptions):
    """The non-drop rate: no loss. Trials as FD.io CSIT has them; the report names others so."""


class PdrOptions(RateOptions):
    """The partial drop rate. Asked for beside the non-drop rate, both are found in one search."""

    loss_ratio: RatioField = Field(default=0.005, description="Lost / sent that is allowed.")


class Rfc2544Options(RateOptions):
    """Throughput of RFC 2544 26.1: no loss in trials of 60 s; the report names shorter ones so."""

    trial: SecondsField = Field(default=60.0, description="Length of the trials that decide.")
    sum: SecondsField = Field(
        default=60.0, description="Trials that decide about one load take so long together."
    )
    limit: SecondsField = Field(default=3_600.0, description="The search is given up after so long.")


def _fine_step(step: float) -> float:
    if step > 0.1:
        raise PydanticCustomError("refused", "{expected}", {"expected": "at most 10 % (RFC 2544 26.3)"})
    return step


class LossCurveOptions(Model):
    """Frame loss rate at falling rates (RFC 2544 26.3)."""

    trial: SecondsField = Field(default=60.0, description="Length of each trial.")
    step: Annotated[ShareField, AfterValidator(_fine_step)] = Field(
        default=0.1, description="By how much of the highest rate each trial is lower; at most 10 %."
    )


class BackToBackOptions(Model):
    """Longest bursts at the highest rate without loss (RFC 9004)."""

    repetitions: Count = Field(default=50, description="How often it is measured; RFC 9004 asks for 50.")
    longest: SecondsField = Field(default=2.0, description="Longest burst that is tried.")


class LatencyOptions(Model):
    """Latency percentiles at parts of the rate that was found, or of the goal's."""

    at: tuple[ShareField, ...] = Field(default=(0.1, 0.5, 0.9), min_length=1, description="The parts.")
    trial: SecondsField = Field(default=10.0, description="Length of each trial.")


class SoakOptions(Model):
    """A long trial at the goal's rate."""

    duration: SecondsField = Field(default=600.0, description="How long.")


class ChurnOptions(Model):
    """Traffic at the goal's rate while routes are withdrawn and announced again."""

    prefixes: Count = Field(default=1_000, description="How many prefixes change.")
    rounds: Count = Field(default=2, description="How often they are withdrawn and announced again.")
    every: SecondsField = Field(default=5.0, description="Time from one change to the next.")


NdrField: TypeAlias = Annotated[NdrOptions | None, BeforeValidator(_default_options)]
PdrField: TypeAlias = Annotated[PdrOptions | None, BeforeValidator(_default_options)]
Rfc2544Field: TypeAlias = Annotated[Rfc2544Options | None, BeforeValidator(_default_options)]
LossCurveField: TypeAlias = Annotated[LossCurveOptions | None, BeforeValidator(_default_options)]
BackToBackField: TypeAlias = Annotated[BackToBackOptions | None, BeforeValidator(_default_options)]
LatencyField: TypeAlias = Annotated[LatencyOptions | None, BeforeValidator(_default_options)]
SoakField: TypeAlias = Annotated[SoakOptions | None, BeforeValidator(_default_options)]
ChurnField: TypeAlias = Annotated[ChurnOptions | None, BeforeValidator(_default_options)]


class Asked(Model):
    """The measurements a check makes beside the target; None is not asked for."""

    ndr: NdrField = Field(default=None, description="Non-drop rate, RFC 9971.")
    pdr: PdrField = Field(default=None, description="Partial drop rate, RFC 9971.")
    rfc2544: Rfc2544Field = Field(default=None, description="RFC 2544 throughput.")
    loss_curve: LossCurveField = Field(default=None, description="RFC 2544 frame loss rate.")
    back_to_back: BackToBackField = Field(default=None, description="RFC 9004 back-to-back frames.")
    latency: LatencyField = Field(default=None, description="Latency percentiles.")
    soak: SoakField = Field(default=None, description="A long trial.")
    churn: ChurnField = Field(default=None, description="Route changes under load.")

    @model_validator(mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        """Take a list of names, each with its defaults, for a mapping."""
        if isinstance(value, Mapping) or not isinstance(value, Sequence) or isinstance(value, str):
            return value
        names = [name for name in value if isinstance(name, str)]
        if len(names) != len(value) or len(set(names)) != len(names):
            raise PydanticCustomError(
                "refused", "{expected}", {"expected": "a mapping, or a list of names that differ"}
            )
        return dict.fromkeys(names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what is asked for, in the order in which it is measured."""
        return tuple(name for name in MEASUREMENTS if getattr(self, name) is not None)

    def only(self, names: Sequence[str]) -> Asked:
        """Return these alone, those that were not asked for with their defaults."""
        return Asked.model_validate({name: getattr(self, name) or {} for name in names})


MEASUREMENTS = tuple(Asked.model_fields)
"""Names of all measurements beside the target, in the order in which they are made."""
