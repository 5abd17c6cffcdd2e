"""What agent.yaml may say, and how it is told what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from router_agent.config import (
    ROUTE_PROTOCOLS,
    ConfigError,
    ExabgpFeedConfig,
    KernelFeedConfig,
    KernelFibConfig,
    VppFibConfig,
    load,
    parse,
    schema,
)
from router_agent.strict_yaml import FILE_LIMIT

KERNEL_TO_VPP = """\
pipelines:
  - name: frr
    feed: {kind: kernel, protocols: [bgp, 4]}
    fib: {kind: vpp, interfaces: {eth0: GigabitEthernet3/0/0}}
"""

EXABGP_HOST = """\
pipelines:
  - name: exabgp
    feed: {kind: exabgp, socket: /run/router-agent/exabgp.sock, local_as: 64500}
    fib: {kind: kernel, protocol: 202}
  - name: vpp
    feed: {kind: kernel, tables: [254, 100], table_map: {100: 7}}
    fib: {kind: vpp}
control: {socket: /run/router-agent/a.sock, mode: "0600", group: adm}
log: {level: debug, json: true}
"""


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        parse(text.encode(), "agent.yaml")
    assert str(raised.value) == "\n".join(raised.value.problems)
    return list(raised.value.problems)


def pipeline(feed: str = "{kind: kernel}", fib: str = "{kind: vpp}", name: str = "a") -> str:
    return f"  - name: {name}\n    feed: {feed}\n    fib: {fib}\n"


def pipelines(*parts: str) -> str:
    return "pipelines:\n" + "".join(parts)


def test_defaults_are_filled_in() -> None:
    config = parse(KERNEL_TO_VPP.encode())
    (only,) = config.pipelines
    assert isinstance(only.feed, KernelFeedConfig)
    assert isinstance(only.fib, VppFibConfig)
    assert only.feed.namespace is None
    assert only.feed.tables == (254,)
    assert only.feed.protocols == (186, 4)
    assert only.fib.api_socket == Path("/run/vpp/api.sock")
    assert only.fib.source == "router-agent"
    assert only.fib.window == 16_384
    assert config.control.socket == Path("/run/router-agent/control.sock")
    assert config.control.mode_bits == 0o660
    assert config.log.level == "info"
    assert not config.log.as_json


def test_pipelines_compose() -> None:
    config = parse(EXABGP_HOST.encode())
    first, second = config.pipelines
    assert isinstance(first.feed, ExabgpFeedConfig)
    assert isinstance(first.fib, KernelFibConfig)
    assert first.tables == {254: 254}
    assert second.tables == {254: 0, 100: 7}
    assert config.control.mode_bits == 0o600
    assert config.log.as_json


def test_tables_map_to_themselves_in_a_kernel_and_main_to_zero_in_vpp() -> None:
    kernel = parse(
        pipelines(pipeline("{kind: kernel, tables: [254, 9], protocols: [bgp]}", "{kind: kernel}")).encode()
    )
    assert kernel.pipelines[0].tables == {254: 254, 9: 9}
    vpp = parse(pipelines(pipeline("{kind: kernel, tables: [254, 9]}", "{kind: vpp}")).encode())
    assert vpp.pipelines[0].tables == {254: 0, 9: 9}
    assert vpp.pipelines[0].fib_table(9) == 9


def test_configuration_is_frozen() -> None:
    config = parse(KERNEL_TO_VPP.encode())
    with pytest.raises(ValueError, match="frozen"):
        config.pipelines[0].name = "other"


def test_all_problems_are_reported_at_once_with_their_lines() -> None:
    text = """\
pipelines:
  - name: "x y"
    feed:
      kind: kernel
      protcols: [bgp]
      tables: [254, 255]
    fib:
      kind: vpp
      window: many
  - feed: {kind: bmp}
    fib: {}
log: {level: loud, json: 1}
"""
    name = "a name of letters, digits, '.', '_' and '-' that starts with a letter or digit, at most 63 long"
    table = "a table that holds routes to forward: 255 is the kernel's own list of local addresses"
    known = "kind, namespace, tables, table_map, protocols, resync_seconds, solicit"
    keys = f"one of {known}; did you mean 'protocols'?"
    assert problems(text) == [
        f"agent.yaml:2: pipelines.0.name: found 'x y', expected {name}",
        f"agent.yaml:5: pipelines.0.feed.protcols: found an unknown key, expected {keys}",
        f"agent.yaml:6: pipelines.0.feed.tables.1: found 255, expected {table}",
        "agent.yaml:9: pipelines.0.fib.window: found 'many', expected a whole number",
        "agent.yaml:10: pipelines.1.name: found nothing, expected this key",
        "agent.yaml:10: pipelines.1.feed: found kind 'bmp', expected kind kernel or fpm or exabgp",
        "agent.yaml:11: pipelines.1.fib: found no kind, expected kind kernel or vpp",
        "agent.yaml:12: log.level: found 'loud', expected 'debug', 'info', 'warning' or 'error'",
        "agent.yaml:12: log.json: found 1, expected true or false",
    ]


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        pytest.param("", "the file", "found null, expected a mapping", id="empty"),
        pytest.param("[]", "the file", "found a list of 0, expected a mapping", id="list"),
        pytest.param(
            "pipelines: []", "pipelines", "found a list of 0, expected at least 1 of them", id="none"
        ),
        pytest.param("pipelines: {}", "pipelines", "found a mapping of 0, expected a list", id="mapping"),
        pytest.param(
            KERNEL_TO_VPP + "control: {mode: 0660}",
            "control.mode",
            'found 432, expected octal digits in quotes, such as "0660"',
            id="mode-unquoted",
        ),
        pytest.param(
            KERNEL_TO_VPP + 'control: {mode: "0888"}',
            "control.mode",
            "expected octal digits",
            id="mode-not-octal",
        ),
        pytest.param(
            KERNEL_TO_VPP + "control: {socket: run/a}",
            "control.socket",
            "found 'run/a', expected an absolute path",
            id="relative-socket",
        ),
        pytest.param(
            KERNEL_TO_VPP + f"control: {{socket: /{'a' * 107}}}",
            "control.socket",
            "at most 107 bytes",
            id="long-socket",
        ),
        pytest.param(
            KERNEL_TO_VPP + 'control: {socket: "/run/\\0"}',
            "control.socket",
            "expected a printable path",
            id="nul",
        ),
        pytest.param(
            pipelines(pipeline("{kind: kernel, tables: []}")),
            "pipelines.0.feed.tables",
            "found a list of 0, expected at least 1 of them",
            id="no-tables",
        ),
        pytest.param(
            pipelines(pipeline("{kind: kernel, tables: [7, 7]}")),
            "pipelines.0.feed.tables",
            "expected each number once",
            id="table-twice",
        ),
        pytest.param(
            pipelines(pipeline("{kind: kernel, tables: [true]}")),
            "pipelines.0.feed.tables.0",
            "found true, expected a whole number",
            id="boolean-table",
        ),
        pytest.param(
            pipelines(pipeline("{kind: kernel, table_map: {7: 7}}")),
            "pipelines.0.feed",
            "it names [7]",
            id="map-of-unfollowed",
        ),
        pytest.param(
            pipelines(pipeline("{kind: kernel, tables: [254, 7], table_map: {7: 0}}")),
            "pipelines.0.feed.table_map",
            "found tables 254 and 7 both going to 0, expected one table each",
            id="merged-tables",
        ),
        pytest.param(
            pipelines(pipeline("{kind: kernel, table_map: {254: 0}, protocols: [bgp]}", "{kind: kernel}")),
            "pipelines.0.feed.table_map",
            "found FIB table 0, expected a table that a kernel forwards by (254 is main)",
            id="kernel-table-zero",
        ),
        pytest.param(
            pipelines(pipeline("{kind: kernel, protocols: [ebgp]}")),
            "pipelines.0.feed.protocols.0",
            "found 'ebgp', expected a protocol id from 1 to 255 or one of ",
            id="protocol-name",
        ),
        pytest.param(
            pipelines(pipeline("{kind: kernel, resync_seconds: .nan}")),
            "pipelines.0.feed.resync_seconds",
            "found nan, expected a finite number",
            id="not-a-number",
        ),
        pytest.param(
            pipelines(pipeline("{kind: exabgp, socket: /run/e, local_as: 0}")),
            "pipelines.0.feed.local_as",
            "found 0, expected at least 1",
            id="as-zero",
        ),
        pytest.param(
            pipelines(pipeline("{kind: exabgp, socket: /run/e}", "{kind: kernel, metric: 0}")),
            "pipelines.0.fib.metric",
            "found 0, expected at least 1",
            id="metric-zero",
        ),
        pytest.param(
            pipelines(pipeline("{kind: kernel, namespace: a/b}")),
            "pipelines.0.feed.namespace",
            "expected the name of a network namespace",
            id="namespace",
        ),
        pytest.param(
            pipelines(pipeline(fib="{kind: vpp, priority: 128}")),
            "pipelines.0.fib.priority",
            "found 128, expected at most 126",
            id="priority-of-the-api",
        ),
        pytest.param(
            pipelines(pipeline(fib="{kind: vpp, source: API}")),
            "pipelines.0.fib.source",
            "found 'API', expected a name of the agent's own: VPP itself writes under this one",
            id="vpp-source",
        ),
        pytest.param(
            pipelines(pipeline(fib="{kind: vpp, interfaces: {eth0: a, eth1: a}}")),
            "pipelines.0.fib.interfaces",
            "expected a different forwarding interface for each control-plane interface",
            id="interface-twice",
        ),
        pytest.param(
            pipelines(pipeline(fib="{kind: vpp, interfaces: {a/b: c}}")),
            "pipelines.0.fib.interfaces.a/b",
            "expected an interface name of 1 to 15 characters",
            id="interface-name",
        ),
        pytest.param(
            pipelines(pipeline(fib="{kind: vpp, interfaces: all}")),
            "pipelines.0.fib.interfaces",
            "found 'all', expected 'auto' or a mapping",
            id="interface-word",
        ),
        pytest.param(
            pipelines(pipeline(fib="{kind: vpp, interfaces: 5}")),
            "pipelines.0.fib.interfaces",
            "found 5, expected 'auto' or a mapping",
            id="interface-number",
        ),
        pytest.param(KERNEL_TO_VPP + "3: 4", "3", "found 3, expected keys that are text", id="number-as-key"),
    ],
)
def test_error_names_key_and_expectation(text: str, key: str, words: str) -> None:
    (problem,) = problems(text)
    assert f": {key}: " in problem
    assert words in problem


@pytest.mark.parametrize("protocol", [*ROUTE_PROTOCOLS.values(), *ROUTE_PROTOCOLS])
def test_protocols_of_others_are_refused_for_our_own(protocol: int | str) -> None:
    (problem,) = problems(
        pipelines(pipeline("{kind: kernel, protocols: [250]}", f"{{kind: kernel, protocol: {protocol}}}"))
    )
    assert "pipelines.0.fib.protocol" in problem
    assert "expected an id of the agent's own" in problem
    assert "deletes the routes that carry it" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "a: 1\nb: [1, 2\nc: 3\n", "agent.yaml:3:2: not valid YAML: while parsing a flow", id="syntax"
        ),
        pytest.param(
            "a: 1\nb:\n  c: 1\n  c: 2\n", "agent.yaml:4:3: not valid YAML: found key 'c' again", id="twice"
        ),
        pytest.param("a: &x 1\n", "agent.yaml:1:4: not valid YAML: anchors and aliases", id="anchor"),
        pytest.param("a: *x\n", "agent.yaml:1:4: not valid YAML: anchors and aliases", id="alias"),
        pytest.param("a: 2024-13-45\n", "agent.yaml:1:4: not valid YAML: month must be", id="date"),
        pytest.param(
            "a: !!python/name:os.system\n", "agent.yaml:1:4: not valid YAML: could not determine", id="tag"
        ),
        pytest.param(
            "? [a]\n: 1\n", "agent.yaml:1:3: not valid YAML: found a key that is a list", id="list-as-key"
        ),
        pytest.param(
            "a: 1\n---\nb: 1\n", "agent.yaml:2:1: not valid YAML: expected a single document", id="two"
        ),
        pytest.param("[" * 5000, "agent.yaml: not valid YAML: found values nested too deeply", id="deep"),
        pytest.param(
            "a: \x07\n", "agent.yaml: not valid YAML: unacceptable character", id="control-character"
        ),
        pytest.param("#" * (FILE_LIMIT + 1), "agent.yaml: found more than 1048576 bytes", id="too-long"),
    ],
)
def test_what_is_no_usable_yaml_is_one_line_with_a_position(text: str, expected: str) -> None:
    (problem,) = problems(text)
    assert problem.startswith(expected)
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("text", "where", "holder"),
    [
        pytest.param(
            pipelines(pipeline(), pipeline(fib="{kind: vpp, source: other}")),
            "pipelines.1.name: found 'a'",
            "pipeline 0 has this one",
            id="name",
        ),
        pytest.param(
            pipelines(pipeline(), pipeline("{kind: kernel, tables: [7]}", name="b")),
            "pipelines.1.fib.source: found 'router-agent'",
            "pipeline 0 has this one",
            id="vpp-source",
        ),
        pytest.param(
            pipelines(
                pipeline("{kind: exabgp, socket: /run/e}", "{kind: kernel, namespace: fwd}"),
                pipeline("{kind: exabgp, socket: /run/f}", "{kind: kernel, namespace: fwd}", name="b"),
            ),
            "pipelines.1.fib.protocol: found 201",
            "pipeline 0 has this one",
            id="kernel-protocol",
        ),
        pytest.param(
            pipelines(
                pipeline("{kind: exabgp, socket: /run/e}", "{kind: kernel, namespace: fwd}"),
                pipeline(
                    "{kind: exabgp, socket: /run/f}",
                    "{kind: kernel, namespace: /var/run/netns/fwd}",
                    name="b",
                ),
            ),
            "pipelines.1.fib.protocol: found 201",
            "pipeline 0 has this one",
            id="kernel-protocol-namespace-by-path",
        ),
        pytest.param(
            pipelines(
                pipeline("{kind: exabgp, socket: /run/e}"),
                pipeline("{kind: exabgp, socket: /run/e}", "{kind: kernel}", name="b"),
            ),
            "pipelines.1.feed.socket: found /run/e",
            "pipeline 0 has this one",
            id="exabgp-socket",
        ),
        pytest.param(
            pipelines(pipeline("{kind: exabgp, socket: /run/router-agent/control.sock}")),
            "pipelines.0.feed.socket: found /run/router-agent/control.sock",
            "the control socket has this one",
            id="control-socket",
        ),
    ],
)
def test_things_with_one_owner_are_not_shared(text: str, where: str, holder: str) -> None:
    (problem,) = problems(text)
    assert where in problem
    assert problem.endswith(holder)


def test_same_protocol_in_two_namespaces_is_no_clash() -> None:
    parse(
        pipelines(
            pipeline("{kind: exabgp, socket: /run/e}", "{kind: kernel, namespace: one}"),
            pipeline("{kind: exabgp, socket: /run/f}", "{kind: kernel, namespace: two}", name="b"),
        ).encode()
    )


@pytest.mark.parametrize(
    "feed",
    [
        "{kind: kernel}",
        "{kind: kernel, protocols: [bgp, 201]}",
        "{kind: kernel, tables: [7], table_map: {7: 7}}",
    ],
)
def test_pipeline_that_follows_its_own_routes_is_refused(feed: str) -> None:
    (problem,) = problems(pipelines(pipeline(feed, "{kind: kernel}")))
    assert "pipelines.0.feed.protocols: found a loop" in problem


@pytest.mark.parametrize(
    "feed",
    [
        pytest.param("{kind: kernel, protocols: [bgp]}", id="other-protocols"),
        pytest.param("{kind: kernel, tables: [7], table_map: {7: 254}}", id="other-table"),
    ],
)
def test_pipeline_within_one_kernel_is_accepted_when_it_cannot_feed_itself(feed: str) -> None:
    parse(pipelines(pipeline(feed, "{kind: kernel}")).encode())


def test_loop_through_two_pipelines_is_refused() -> None:
    there = pipeline("{kind: kernel, namespace: x}", "{kind: kernel, namespace: y, interfaces: {a: a}}")
    back = pipeline(
        "{kind: kernel, namespace: y}", "{kind: kernel, namespace: x, interfaces: {a: a}}", name="b"
    )
    found = problems(pipelines(there, back))
    assert len(found) == 2
    assert all("found a loop" in problem for problem in found)
    parse(
        pipelines(
            there,
            back.replace("{kind: kernel, namespace: y}", "{kind: kernel, namespace: y, protocols: [bgp]}", 1),
        ).encode()
    )


def test_kernels_in_two_namespaces_need_a_map_of_interfaces() -> None:
    (problem,) = problems(pipelines(pipeline("{kind: kernel, namespace: cp}", "{kind: kernel}")))
    assert "pipelines.0.fib.interfaces: found nothing, expected a map of interfaces" in problem
    parse(pipelines(pipeline("{kind: kernel, namespace: cp}", "{kind: kernel, interfaces: {a: b}}")).encode())


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read: No such file"):
        load(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(EXABGP_HOST)
    assert load(path) == load(str(path)) == parse(EXABGP_HOST.encode())


def test_schema_is_json_and_closed() -> None:
    exported = json.loads(json.dumps(schema()))
    assert exported["$schema"].endswith("2020-12/schema")
    assert exported["properties"].keys() == {"pipelines", "control", "log"}
    models = [exported, *(d for d in exported["$defs"].values() if d["type"] == "object")]
    assert all(model["additionalProperties"] is False for model in models)
    assert exported["$defs"]["LogConfig"]["properties"].keys() == {"level", "json"}


def check_any(content: bytes) -> None:
    """Whatever the file holds, it is a configuration or problems of one line each."""
    try:
        parse(content, "agent.yaml")
    except ConfigError as error:
        lines = str(error).splitlines()
    else:
        return
    assert lines
    assert all(line.startswith("agent.yaml") for line in lines)


@given(st.binary(max_size=200))
def test_any_bytes_are_answered(content: bytes) -> None:
    check_any(content)


@given(st.text(st.sampled_from("abc:-{}[]'\"!&*?|>#%@` \n\t0159.~=,<"), max_size=80))
def test_any_punctuation_is_answered(text: str) -> None:
    check_any(text.encode())


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=4)
    ),
    max_leaves=10,
)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """A good configuration in which a few values are replaced by anything, or keys added."""
    document = yaml.safe_load(draw(st.sampled_from([KERNEL_TO_VPP, EXABGP_HOST])))
    for _ in range(draw(st.integers(1, 3))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and draw(st.booleans()):
                place = place[key]
                continue
            place[key] = draw(ANYTHING)
            break
        if isinstance(place, dict) and draw(st.booleans()):
            place[draw(st.text(max_size=10))] = draw(ANYTHING)
    return document


@given(damaged())
def test_any_damage_is_answered(document: object) -> None:
    check_any(yaml.safe_dump(document, allow_unicode=True).encode())


def test_only_pairs_can_be_mirrored() -> None:
    (problem,) = problems(pipelines(pipeline(fib="{kind: vpp, mirror: [links]}")))
    assert "pipelines.0.fib: " in problem
    assert "expected interfaces: auto beside mirror" in problem
    (problem,) = problems(pipelines(pipeline(fib="{kind: vpp, interfaces: auto, mirror: [links, links]}")))
    assert "expected each of them once" in problem
    (problem,) = problems(pipelines(pipeline(fib="{kind: vpp, interfaces: auto, mirror: [routes]}")))
    assert "'links', 'addresses', 'vlans', 'vrfs' or 'mpls'" in problem


def test_interfaces_may_be_those_that_vpp_paired() -> None:
    fib = parse(pipelines(pipeline(fib="{kind: vpp, interfaces: auto}")).encode()).pipelines[0].fib
    assert fib.interfaces == "auto"
    fib = parse(pipelines(pipeline(fib="{kind: vpp, interfaces: {auto: port0}}")).encode()).pipelines[0].fib
    assert fib.interfaces == {"auto": "port0"}
