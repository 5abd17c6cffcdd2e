"""What two hosts tell each other of a trial arrives as it was, or is refused."""

from __future__ import annotations

from dataclasses import fields, replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.traffic.generators.generator import ByDestination, Series, TrialResult
from router_agent.traffic.generators.latency import Latency
from router_agent.traffic.generators.remote.messages import Message, MessageError, Reader
from router_agent.traffic.generators.remote.values import ValueFormatError, packed, unpacked
from router_agent.traffic.scenario import IMIX, Destinations, Endpoints, Port, Scenario


def through(value: Any) -> Any:
    """Send a value over a line and return what arrives."""
    columns: dict[str, Any] = {}
    data = Message("it", {"value": packed(value, columns)}, columns).encoded()
    message = reader(data).next()
    assert message is not None
    assert message.kind == "it"
    return unpacked(type(value), message.fields["value"], message.columns)


def reader(data: bytes, step: int = 7) -> Reader:
    """Return a reader of a line that brings some bytes at a time."""
    chunks = iter([data[at : at + step] for at in range(0, len(data), step)])
    rest = bytearray()

    def receive(most: int) -> bytes:
        if not rest:
            rest.extend(next(chunks, b""))
        part = bytes(rest[:most])
        del rest[:most]
        return part

    return Reader(receive)


def same(left: Any, right: Any) -> None:
    """Expect two values to be the same, field by field."""
    assert type(left) is type(right)
    if isinstance(left, np.ndarray):
        assert left.dtype == right.dtype
        assert np.array_equal(left, right)
    elif isinstance(left, Latency):
        assert (left.what, left.encoded()) == (right.what, right.encoded())
    elif hasattr(left, "__dataclass_fields__"):
        for field in fields(left):
            same(getattr(left, field.name), getattr(right, field.name))
    else:
        assert left == right


SCENARIO = Scenario(
    "two words",
    Destinations.of([IPv4Network("192.0.2.0/24"), IPv6Network("2001:db8::/48")], [1, 0]),
    frames=IMIX,
    rate_pps=1e6,
    proof_pps=None,
    cpus=(2, 3),
)


def test_a_scenario_and_its_ports_arrive() -> None:
    same(through(SCENARIO), SCENARIO)
    same(through(replace(SCENARIO, frames=None)), replace(SCENARIO, frames=None))
    ends = Endpoints((Port("west", "eth0", None, "02:00:00:00:00:01"), Port("east", "eth1", "tester")))
    same(through(ends), ends)


@given(
    counts=st.lists(st.integers(0, 2**62), max_size=20),
    drops=st.dictionaries(st.text(), st.integers(0, 2**62), max_size=3),
    latencies=st.none() | st.lists(st.integers(1, 10**10), max_size=20),
    seconds=st.floats(0, 1e6),
)
def test_any_result_arrives(
    counts: list[int], drops: dict[str, int], latencies: list[int] | None, seconds: float
) -> None:
    column = np.array(counts, np.int64)
    latency = None
    if latencies is not None:
        latency = Latency("from here to there")
        latency.add(np.array(latencies, np.int64))
    result = TrialResult(
        rate_pps=seconds,
        duration_s=seconds,
        offered_s=0.0,
        intended=sum(counts),
        sent=len(counts),
        received=0,
        received_by_port=tuple(counts),
        series=Series(0.1, column, column, column, column),
        by_destination=ByDestination(column, np.stack([column, column])) if counts else None,
        latency=latency,
        tester_drops=drops,
    )
    same(through(result), result)


def test_a_field_of_another_version_is_refused() -> None:
    columns: dict[str, Any] = {}
    data = packed(SCENARIO, columns)
    with pytest.raises(
        ValueFormatError, match=r"Scenario: found colour, which is not known here.*same version"
    ):
        unpacked(Scenario, data | {"colour": "green"}, columns)
    with pytest.raises(ValueFormatError, match="missing 1 required"):
        unpacked(Scenario, {name: item for name, item in data.items() if name != "name"}, columns)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate_pps": "fast"}, r"Scenario\.rate_pps: found 'fast', expected float"),
        ({"rate_pps": True}, r"Scenario\.rate_pps: found 'True', expected float"),
        ({"rate_pps": -1.0}, "Scenario: rate_pps is -1.0, expected a positive number"),
        ({"cpus": 3}, r"Scenario\.cpus: found '3', expected a list"),
        ({"goal": []}, r"Scenario\.goal: found list, expected the fields of Goal"),
        ({"sources": ["198.18.0.0/15", "here"]}, r"Scenario\.sources\[1\]: .*'here'"),
        ({"destinations": {"families": {"column": "column99"}}}, "expected a column that came with it"),
    ],
)
def test_a_value_of_another_type_is_refused_with_its_place(change: dict[str, Any], words: str) -> None:
    columns: dict[str, Any] = {}
    data = packed(SCENARIO, columns)
    with pytest.raises(ValueFormatError, match=words):
        unpacked(Scenario, data | change, columns)


def test_a_column_of_another_kind_is_refused() -> None:
    columns: dict[str, Any] = {}
    data = packed(SCENARIO, columns)
    wrong = {name: column.astype(np.float64) for name, column in columns.items()}
    with pytest.raises(ValueFormatError, match="found a column of float64, expected"):
        unpacked(Scenario, data, wrong)


def test_what_has_no_form_is_not_sent() -> None:
    with pytest.raises(TypeError, match="found a object"):
        packed(object(), {})


@given(st.binary(max_size=200), st.integers(1, 50))
def test_a_line_of_anything_is_an_error_and_no_crash(data: bytes, step: int) -> None:
    try:
        found = reader(data, step).next()
    except MessageError:
        return
    assert found is None
    assert data == b""


@given(st.integers(1, 200))
def test_a_message_that_is_cut_is_an_error(cut: int) -> None:
    columns: dict[str, Any] = {}
    whole = Message("it", {"value": packed(SCENARIO, columns)}, columns).encoded()
    with pytest.raises(MessageError, match="end of the line after"):
        reader(whole[:-cut], 4096).next()


def test_a_message_without_bound_is_refused_before_it_is_read() -> None:
    with pytest.raises(MessageError, match="4,294,967,295 bytes, which is too long"):
        reader(b"RTG1" + b"\xff" * 8).next()


def test_columns_that_are_objects_are_never_run() -> None:
    """A pickle in a column would run code of the other host's choice."""
    import io
    import struct

    body = io.BytesIO()
    np.savez(body, allow_pickle=True, column0=np.array([print], object))
    text = b'{"kind": "it", "fields": {}}'
    head = struct.pack(">4sII", b"RTG1", len(text), body.tell())
    with pytest.raises(MessageError, match="cannot be read"):
        reader(head + text + body.getvalue(), 4096).next()
