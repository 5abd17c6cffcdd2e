"""The tester's ports and host, here or where the generator runs: what they are, what they may claim."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from router_agent.traffic.generators.remote.values import packed, unpacked
from router_agent.traffic.reach import CommandError, Reach, ReachError
from router_agent.traffic.reach.access import reach_of
from router_agent.traffic.report.environment import Environment, this_host
from router_agent.traffic.scenario import Endpoints, GeneratorBinding, ScenarioError, Tier
from router_agent.traffic.wiring import Wiring, require_tier, wiring_of, with_links

_SECONDS = 60.0
_USAGE = 2


@dataclass(frozen=True)
class TesterPorts:
    """Ports that can carry a tier.

    Attributes:
        endpoints: with the speed of their links, where it is known.
        wirings: what each is made of, in the same order.
    """

    endpoints: Endpoints
    wirings: tuple[Wiring, ...]


def tester_ports(tier: Tier, endpoints: Endpoints, generator: GeneratorBinding) -> TesterPorts:
    """Look at the ports on the host that the generator is to run on.

    Raises:
        ScenarioError: a port cannot carry the tier.
        ReachError: that host cannot be asked.
    """
    with _host(generator) as host:
        if host is None:
            return look(tier, endpoints)
        reach, program = host
        asked = json.dumps({"tier": tier.value, "endpoints": packed(endpoints, {})}).encode()
        try:
            answer = reach.run([program, "traffic", "ports"], stdin=asked, timeout_s=_SECONDS)
        except CommandError as error:
            if error.exit_code == _USAGE:
                raise ScenarioError(str(error)) from error
            raise
        try:
            return unpacked(TesterPorts, json.loads(answer.text), {})
        except ValueError as error:
            raise ReachError(reach.host, f"its answer about ports makes no sense: {error}") from error


def look(tier: Tier, endpoints: Endpoints) -> TesterPorts:
    """Look at ports of this host.

    Raises:
        ScenarioError: a port cannot carry the tier.
    """
    require_tier(tier, endpoints)
    return TesterPorts(with_links(endpoints), tuple(wiring_of(port) for port in endpoints.ports))


def looked(question: str) -> str:
    """Answer what `tester_ports` asks of another host.

    Raises:
        ScenarioError: a port cannot carry the tier, or the question is none.
    """
    try:
        given = json.loads(question)
        tier, endpoints = Tier(given["tier"]), unpacked(Endpoints, given["endpoints"], {})
    except (ValueError, KeyError, TypeError) as error:
        raise ScenarioError(f"found {question[:80]!r}, expected a tier and ports: {error}") from error
    return json.dumps(packed(look(tier, endpoints), {}))


def tester_environment(generator: GeneratorBinding, endpoints: Endpoints) -> Environment:
    """Return what the host of the generator is.

    Raises:
        ReachError: it cannot be asked.
    """
    with _host(generator) as host:
        if host is None:
            return this_host(ports=[port.interface for port in endpoints.ports if port.namespace is None])
        reach, program = host
        text = reach.run([program, "traffic", "environment"], timeout_s=_SECONDS).text
        try:
            return Environment.model_validate_json(text)
        except ValueError as error:
            raise ReachError(reach.host, f"its answer about itself makes no sense: {error}") from error


@contextmanager
def _host(generator: GeneratorBinding) -> Iterator[tuple[Reach, str] | None]:
    """Give the generator's host for the body, connected, with the kit's program there; None is this one."""
    if generator.host is None:
        yield None
        return
    with reach_of(generator.host) as reach:
        yield reach, generator.host.router_agent
