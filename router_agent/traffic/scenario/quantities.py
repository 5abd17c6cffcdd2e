"""Rates, times, ratios and link speeds as a scenario file writes them: each with its unit.

12.5 Mpps   80 % of line   10GbE line rate   12 s   300 us   0.5 %   10 Gbit/s
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from router_agent.traffic.scenario.frame_sizes import FrameSizes

_NUMBER = r"(\d+(?:[.,]\d+)?)"
_PPS = re.compile(rf"{_NUMBER} ?([kM]?)pps")
_SHARE = re.compile(rf"{_NUMBER} ?%(?: of line)?")
_ETHERNET = re.compile(rf"{_NUMBER}GbE(?: line rate)?")
_TIME = re.compile(rf"{_NUMBER} ?(ns|us|ms|s|min|h)")
_SPEED = re.compile(rf"{_NUMBER} ?([MG])(?:bit/s|bE|b/s)?")
_SCALES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_SECONDS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
ETHERNET_GBPS = (1, 2.5, 5, 10, 25, 40, 50, 100, 200, 400)
"""Speeds of IEEE 802.3 that a goal may name."""
_LONGEST_S = 7 * 86_400.0


@dataclass(frozen=True)
class Rate:
    """An offered load of one sending port: exactly one of the three is set.

    Attributes:
        text: as it was written.
        pps: packets a second.
        share: part of the port's own line rate, above 0 up to 1.
        ethernet_bps: as many packets as fit in a link of this speed.
    """

    text: str
    pps: float | None = None
    share: float | None = None
    ethernet_bps: float | None = None

    @property
    def names_a_line(self) -> bool:
        """Whether it is measured by a link, so that only a tier with links can carry the claim."""
        return self.pps is None

    def of_port(self, sizes: FrameSizes, link_bps: float | None) -> float | None:
        """Return packets a second at these frame sizes; None for a share of a line nobody knows."""
        if self.pps is not None:
            return self.pps
        if self.ethernet_bps is not None:
            return sizes.line_pps(self.ethernet_bps)
        if link_bps is None or self.share is None:
            return None
        return self.share * sizes.line_pps(link_bps)


def rate(value: object) -> Rate:
    """Read a rate; see the module's text."""
    words = "a rate such as '12.5 Mpps', '80 % of line' or '10GbE line rate'"
    if not isinstance(value, str):
        raise _refuse(words)
    text = " ".join(value.split())
    if found := _PPS.fullmatch(text):
        pps = _number(found[1]) * _SCALES[found[2]]
        if pps <= 0:
            raise _refuse("a rate above 0")
        return Rate(text, pps=pps)
    if found := _SHARE.fullmatch(text):
        share = _number(found[1]) / 100
        if not 0 < share <= 1:
            raise _refuse("a share of the line above 0 % and up to 100 %")
        return Rate(text, share=share)
    if found := _ETHERNET.fullmatch(text):
        if _number(found[1]) not in ETHERNET_GBPS:
            raise _refuse(f"an Ethernet of {', '.join(f'{speed:g}' for speed in ETHERNET_GBPS)} GbE")
        return Rate(text, ethernet_bps=_number(found[1]) * 1e9)
    raise _refuse(words)


def seconds(value: object) -> float:
    """Read a length of time and return seconds."""
    found = _TIME.fullmatch(" ".join(value.split())) if isinstance(value, str) else None
    if found is None:
        raise _refuse("a time with its unit, such as '12 s', '300 us' or '10 min'")
    length = _number(found[1]) * _SECONDS[found[2]]
    if not 0 < length <= _LONGEST_S:
        raise _refuse("a time above 0 and up to seven days")
    return length


def ratio(value: object) -> float:
    """Read a ratio (0.005) or a percentage ('0.5 %') and return the ratio."""
    text = str(value).strip() if isinstance(value, (int, float, str)) and not isinstance(value, bool) else ""
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:e-?\d+)?) ?(%?)", text)
    number = float(found[1]) / (100 if found[2] else 1) if found else -1.0
    if not 0 <= number < 1:
        raise _refuse("a ratio of at least 0 and below 1, such as 0.005 or '0.5 %'")
    return number


def share(value: object) -> float:
    """Read a part of a whole, '50 %', and return it; above 0 up to 1."""
    found = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or not 0 < _number(found[1]) <= 100:
        raise _refuse("a share above 0 % and up to 100 %, such as '50 %'")
    return _number(found[1]) / 100


def link_speed(value: object) -> float:
    """Read the speed of a link, '10 Gbit/s' or '10GbE', and return bits a second."""
    found = _SPEED.fullmatch(" ".join(value.split())) if isinstance(value, str) else None
    if found is None or _number(found[1]) <= 0:
        raise _refuse("a link speed such as '10 Gbit/s' or '25GbE'")
    return _number(found[1]) * _SCALES[found[2]]


def _number(text: str) -> float:
    if "," in text:
        raise _refuse("a number with a decimal point")
    return float(text)


def _refuse(expected: str) -> PydanticCustomError:
    return PydanticCustomError("refused", "{expected}", {"expected": expected})


def _text_schema(example: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "examples": [example]})


def _rate_text(found: Any) -> str:
    return str(found.text)


def seconds_text(length: float) -> str:
    """Return a length of time as a file writes it."""
    for unit, scale in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if length >= scale and abs(round(length / scale, 3) * scale - length) < 1e-9 * length:
            return f"{length / scale:g} {unit}"
    return f"{length / 1e-9:g} ns"


RateField: TypeAlias = Annotated[
    Rate, PlainValidator(rate), PlainSerializer(_rate_text, str), _text_schema("10GbE line rate")
]
SecondsField: TypeAlias = Annotated[
    float, PlainValidator(seconds), PlainSerializer(seconds_text, str), _text_schema("12 s")
]
RatioField: TypeAlias = Annotated[
    float,
    PlainValidator(ratio),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "examples": ["0.5 %"]}]}),
]
ShareField: TypeAlias = Annotated[
    float, PlainValidator(share), PlainSerializer(lambda part: f"{part * 100:g} %", str), _text_schema("50 %")
]
SpeedField: TypeAlias = Annotated[
    float,
    PlainValidator(link_speed),
    PlainSerializer(lambda bps: f"{bps / 1e9:g} Gbit/s", str),
    _text_schema("10 Gbit/s"),
]
