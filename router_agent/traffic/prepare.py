"""From a scenario file and a tier to a check that can run: ports looked at, table read, packets aimed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from router_agent.prefix_list import PrefixListError, load_prefixes
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.device import Device, device_of, reachable
from router_agent.traffic.measurements.check import ChangesTo
from router_agent.traffic.reach.access import reach_of
from router_agent.traffic.scenario import (
    ANY_PORT,
    Binding,
    Check,
    Destinations,
    Document,
    Endpoints,
    Scenario,
    ScenarioError,
    Tier,
)
from router_agent.traffic.scenario.aim import Reachable, aim
from router_agent.traffic.scenario.offered import Offered, notes_on, offered
from router_agent.traffic.tester import TesterPorts, tester_ports
from router_agent.traffic.upstream import Upstream


@dataclass(frozen=True, eq=False)
class Prepared:
    """A check that can run, see `measurements.check.run_check`.

    Attributes:
        check, endpoints: what to do.
        counters: of the device.
        changes: makes route changes; None where the tier names nobody who could.
        device: None where the tier names none.
    """

    check: Check
    endpoints: Endpoints
    counters: tuple[CounterSource, ...]
    changes: ChangesTo | None
    device: Device | None


def choose_tier(document: Document, wanted: Tier | None) -> Tier:
    """Return the tier to run: the wanted one, or the only one the file binds.

    Raises:
        ScenarioError: it is not bound, or nobody said which.
    """
    bound = list(document.tiers)
    if wanted is not None and wanted not in bound:
        raise ScenarioError(
            f"tier {wanted.value!r} is not bound, expected one of {', '.join(bound) or 'none'}: add it to "
            "`tiers`"
        )
    if wanted is None and len(bound) != 1:
        raise ScenarioError(
            f"the file binds {', '.join(bound) or 'no tier'}, expected to be told which to run (--tier)"
        )
    return wanted or bound[0]


def ports_of(tier: Tier, binding: Binding) -> TesterPorts:
    """Return the tester's ports with their links, when they are what the tier says.

    Raises:
        ScenarioError: a port cannot carry the tier.
        ReachError: the generator's host cannot be asked.
    """
    endpoints = Endpoints(tuple(port.port(name) for name, port in binding.ports.items()))
    return tester_ports(tier, endpoints, binding.generator)


@contextmanager
def prepared(document: Document, tier: Tier, binding: Binding | None = None) -> Iterator[Prepared]:
    """Give a check for the body, in which the device is connected.

    Args:
        document: the scenario.
        tier: which to run.
        binding: the tier's; what the file binds it to when None. A lab that made the ports gives its own.

    Raises:
        ScenarioError: the scenario cannot run on this tier.
        TableError, ReachError: the device cannot be read or reached.
    """
    if binding is None:
        binding = document.tiers[choose_tier(document, tier)]
    endpoints = ports_of(tier, binding).endpoints
    plans = offered(document, tier, binding, endpoints)
    with device_of(binding) as device:
        faces = [port.faces for port in binding.ports.values()]
        destinations = aim(
            document.destinations,
            document.direction,
            endpoints,
            _reachable(document, endpoints, device, faces),
        )
        counters = () if device is None else (device.counters(),)
        check = _check(document, tier, binding, plans, destinations)
        yield Prepared(check, endpoints, counters, _changes(document, binding), device)


def _changes(document: Document, binding: Binding) -> ChangesTo | None:
    """Return what makes route changes, where the scenario asks for them and the tier says how."""
    upstream, options = binding.upstream, document.measurements.churn
    if upstream is None or options is None:
        return None

    def changes(destinations: Destinations) -> Upstream:
        return Upstream(upstream, options, destinations, lambda: reach_of(upstream.ssh))

    return changes


def _reachable(
    document: Document, endpoints: Endpoints, device: Device | None, faces: list[str | None]
) -> Reachable:
    """Return the prefixes that the scenario names."""
    wanted = document.destinations
    if wanted.file is not None:
        try:
            return Reachable.of_keys(load_prefixes(wanted.file), str(wanted.file))
        except PrefixListError as error:
            raise ScenarioError(f"destinations.file: {error}") from error
    if wanted.prefixes is not None:
        return Reachable.of_ports({ANY_PORT: wanted.prefixes}, "destinations.prefixes")
    if wanted.by_port is not None:
        by_port = {endpoints.position(name): prefixes for name, prefixes in wanted.by_port.items()}
        return Reachable.of_ports(by_port, "destinations.by_port")
    if device is None:
        raise ScenarioError("destinations come from the device's table, and the tier names no device")
    return reachable(device.table(), faces)


def _check(
    document: Document,
    tier: Tier,
    binding: Binding,
    plans: tuple[Offered, ...],
    destinations: Destinations,
) -> Check:
    packets = document.packets
    scenarios = tuple(
        Scenario(
            name=document.name,
            destinations=destinations,
            frames=plan.sizes,
            rate_pps=plan.pps,
            duration_s=plan.duration_s,
            goal=document.goal.goal(),
            proof_pps=document.proof.rate.pps if document.proof else None,
            sources=(packets.source_ipv4, packets.source_ipv6),
            udp_port=packets.udp_port,
            cpus=binding.generator.cpus,
            seed=document.destinations.seed,
        )
        for plan in plans
    )
    replaced = binding.rate is not None and all(plan.goal_pps is not None for plan in plans)
    return Check(
        scenarios,
        tier,
        asked=document.measurements,
        generator=binding.generator,
        document=document,
        goal_pps=tuple(plan.goal_pps or 0.0 for plan in plans) if replaced else (),
        search_when_missed=True,
        notes=notes_on(document, tier, binding, plans),
    )
