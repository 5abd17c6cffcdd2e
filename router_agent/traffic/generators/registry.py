"""Generators by the kind a scenario names. A kind is imported when it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from router_agent.traffic.generators.generator import Generator
from router_agent.traffic.scenario import Endpoints, GeneratorBinding, Scenario, ScenarioError
from router_agent.traffic.scenario.binding import SshAccess

Maker: TypeAlias = Callable[[Scenario, Endpoints, GeneratorBinding], Generator]
"""Makes a generator that is not open yet."""


def make(scenario: Scenario, endpoints: Endpoints, binding: GeneratorBinding) -> Generator:
    """Return a generator of the kind that a binding names, on the host that it names.

    Raises:
        ScenarioError: there is none of that kind.
    """
    if binding.host is not None:
        return _remote(scenario, endpoints, binding, binding.host)
    maker = MAKERS.get(binding.kind)
    if maker is None:
        raise ScenarioError(f"there is no generator {binding.kind!r}, expected one of {', '.join(MAKERS)}")
    return maker(scenario, endpoints, binding)


def _remote(
    scenario: Scenario, endpoints: Endpoints, binding: GeneratorBinding, host: SshAccess
) -> Generator:
    from router_agent.traffic.generators.remote.generator import RemoteGenerator
    from router_agent.traffic.reach.access import reach_of

    return RemoteGenerator(scenario, endpoints, reach_of(host), binding=binding, program=host.router_agent)


def _sockets(scenario: Scenario, endpoints: Endpoints, _: GeneratorBinding) -> Generator:
    from router_agent.traffic.generators.sockets.generator import SocketsGenerator

    return SocketsGenerator(scenario, endpoints)


def _testpmd(scenario: Scenario, endpoints: Endpoints, _: GeneratorBinding) -> Generator:
    from router_agent.traffic.generators.testpmd.generator import TestpmdGenerator

    return TestpmdGenerator(scenario, endpoints)


def _trex(scenario: Scenario, endpoints: Endpoints, binding: GeneratorBinding) -> Generator:
    from router_agent.traffic.generators.trex.generator import TrexGenerator

    return TrexGenerator(scenario, endpoints, server=binding.server, path=binding.path)


def _vpp_pg(scenario: Scenario, endpoints: Endpoints, _: GeneratorBinding) -> Generator:
    from router_agent.traffic.generators.vpp_pg.generator import VppPgGenerator

    return VppPgGenerator(scenario, endpoints)


MAKERS: dict[str, Maker] = {
    "sockets": _sockets,
    "testpmd": _testpmd,
    "trex": _trex,
    "vpp-pg": _vpp_pg,
}
"""Makers by kind."""
