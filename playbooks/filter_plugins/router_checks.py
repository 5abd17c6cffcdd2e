# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""What verify.yml expects of a router, and whether it is so: from readings to the rows of one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_address, ip_interface
from textwrap import wrap
from typing import Any

_WIDTHS = (22, 46, 30)
"""Widths of the columns what, found and expected; longer text is wrapped."""


@dataclass(frozen=True)
class Check:
    """One row of the table.

    Attributes:
        what: the thing looked at.
        found: what it is.
        expected: what it should be.
        ok: whether it is so.
    """

    what: str
    found: str
    expected: str
    ok: bool


Rows = list[dict[str, Any]]


def router_checks(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> Rows:
    """Return the rows about what runs.

    Args:
        state: what module `router_state` read.
        wanted: `facts` (router_host), `reboot_reasons` (list of words), `devices` (PCI addresses VFIO
            gets), `driver` (VFIO's), `forwarding`, `ports`, `bonds`, `loopbacks` and `peers` as in the
            inventory, `services` (unit to whether it is to run) and `pipelines` of the agent.
    """
    checks = [*_boot(wanted), *_drivers(wanted), *_services(state, wanted), *_links(state, wanted)]
    checks += [*_sessions(state, wanted), *_agent(state, wanted)]
    checks += [Check("readings", error, "an answer", ok=False) for error in state["errors"]]
    return [asdict(check) for check in checks]


def router_change_checks(
    state: Mapping[str, Any], before: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Rows:
    """Return the rows about what a change must not have broken.

    What was found so before is not the fault of the change, nor is a link that had no carrier, a session that
    was not established, or a route that was absent; what is no longer in the inventory was meant to go.

    Args:
        state: what module `router_state` read after the change.
        before: the same before it.
        wanted: as of `router_checks`, without `facts`, `reboot_reasons`, `devices` and `driver`.
    """
    up = {name for name, link in before["links"].items() if link["up"] and link["carrier"]}
    peers = [peer for peer in wanted["peers"] if _was_up(before, peer)]
    links = [check for check in _links(state, wanted) if check.what in up]
    checks = [*_services(state, wanted), *links, *_sessions(state, {**wanted, "peers": peers})]
    former = {check.what: check.found for check in (*_services(before, wanted), *_links(before, wanted))}
    checks = [replace(check, ok=check.ok or former.get(check.what) == check.found) for check in checks]
    absent = _absent(before)
    for check in _agent(state, wanted):
        name = check.what.removeprefix("agent ")
        pipeline = _pipelines(state).get(name)
        as_before = (
            pipeline is not None
            and pipeline["state"] == "in-sync"
            and _absent(state)[name] <= absent.get(name, 0)
        )
        checks.append(replace(check, ok=check.ok or as_before))
    checks += [
        Check("readings", error, "an answer", ok=False)
        for error in state["errors"]
        if error not in before["errors"]
    ]
    return [asdict(check) for check in checks]


def router_absent_routes(state: Mapping[str, Any]) -> int:
    """Return how many routes the agent says the FIB lacks."""
    return sum(_absent(state).values())


def _was_up(before: Mapping[str, Any], peer: Mapping[str, Any]) -> bool:
    address = ip_address(peer["address"])
    if peer.get("speaker", "frr") == "exabgp":
        return address in {ip_address(found.partition("%")[0]) for found in before["connections"]}
    sessions = before["frr_sessions"].items()
    return address in {ip_address(found) for found, peer in sessions if peer["state"] == "Established"}


def _pipelines(state: Mapping[str, Any]) -> dict[str, Any]:
    return {pipeline["name"]: pipeline for pipeline in (state["agent"] or {}).get("pipelines", [])}


def _absent(state: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: sum(sum(family["not_in_fib"].values()) for family in pipeline["counts"])
        for name, pipeline in _pipelines(state).items()
    }


def router_fib_checks(reading: Mapping[str, Any], wanted: Mapping[str, Any]) -> Rows:
    """Return the rows about the FIB.

    Args:
        reading: what `fib_comparison` read: `comparison`, `drift`, `interfaces`; or `msg` when it failed.
        wanted: as of `router_checks`; with `interfaces`, Linux interface to VPP interface.
    """
    if "comparison" not in reading:
        return [asdict(Check("FIB", str(reading.get("msg", "nothing")), "to be read", ok=False))]
    checks = []
    if wanted["forwarding"] == "vpp":
        checks = list(_vpp_interfaces(reading["interfaces"], wanted["interfaces"]))
    left = "kernel" if wanted["forwarding"] == "vpp" else "FRR"
    right = "VPP" if wanted["forwarding"] == "vpp" else "kernel"
    for family, counts in reading["comparison"].items():
        wrong = {kind: counts[kind] for kind in ("missing", "stale", "different") if counts[kind]}
        found = f"{counts['held']} routes" + "".join(f", {count} {kind}" for kind, count in wrong.items())
        examples = "".join(f"; {example}" for example in counts["examples"])
        expected = f"the {counts['wanted']} of {left}"
        checks.append(
            Check(f"{family.replace('ip', 'IP')} in {right}", found + examples, expected, not wrong)
        )
    for pipeline, count in reading["drift"].items():
        checks.append(Check(f"drift of {pipeline}", f"{count} routes differ", "0 routes differ", not count))
    return [asdict(check) for check in checks]


def router_faults(rows: Rows) -> list[str]:
    """Return in words what is not as it should be."""
    return [
        f"{row['what']}: found {row['found']}, expected {row['expected']}" for row in rows if not row["ok"]
    ]


def router_table(rows: Rows) -> str:
    """Return the rows as a table for people."""
    lines = [_line(["", "found", "expected", ""]), _line(["-" * width for width in _WIDTHS] + ["----"])]
    for row in rows:
        columns = [
            wrap(str(row[name]), width) or [""]
            for name, width in zip(("what", "found", "expected"), _WIDTHS, strict=True)
        ]
        for number in range(max(map(len, columns))):
            parts = [column[number] if number < len(column) else "" for column in columns]
            verdict = ("ok" if row["ok"] else "FAIL") if number == 0 else ""
            lines.append(_line([*parts, verdict]))
    return "\n".join(lines)


def _line(parts: Sequence[str]) -> str:
    padded = [part.ljust(width) for part, width in zip(parts, (*_WIDTHS, 4), strict=True)]
    return "  ".join(padded).rstrip()


def _boot(wanted: Mapping[str, Any]) -> Iterator[Check]:
    facts, reasons = wanted["facts"], wanted["reboot_reasons"]
    pages = [
        f"{count['total']} of {int(size) // 1024}M on node {node['id']}"
        for node in facts["numa_nodes"]
        for size, count in sorted(node["hugepages"].items())
        if count["total"]
    ]
    found = f"{facts['kernel']}, huge pages {', '.join(pages) or 'none'}"
    expected = "arguments, pages, CPUs and IOMMU as wanted"
    yield Check("kernel", "; ".join([found, *reasons]), expected, not reasons)


def _drivers(wanted: Mapping[str, Any]) -> Iterator[Check]:
    nics = {nic["pci"]: nic for nic in wanted["facts"]["nics"] if nic.get("pci")}
    devices = wanted["devices"]
    for pci in devices:
        driver = nics.get(pci, {}).get("driver") or "none"
        yield Check(f"driver {pci}", driver, wanted["driver"], driver == wanted["driver"])
    for pci, nic in nics.items():
        if nic["driver"] == wanted["driver"] and pci not in devices:
            yield Check(f"driver {pci}", nic["driver"], "the kernel's: no port has this NIC", ok=False)


def _services(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Check]:
    for unit, runs in wanted["services"].items():
        found = state["services"].get(unit, {"active": "unknown", "enabled": "no"})
        words = f"{found['active']}, {found['enabled']}"
        if runs:
            yield Check(unit, words, "active, enabled", words == "active, enabled")
        else:
            yield Check(unit, words, "not running", found["active"] in ("inactive", "unknown"))


def _links(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Check]:
    for name, addresses in _interfaces(wanted):
        link = state["links"].get(name)
        if link is None:
            yield Check(name, "no such interface", "up", ok=False)
            continue
        present = {str(ip_interface(address)) for address in link["addresses"]}
        missing = sorted({str(ip_interface(address)) for address in addresses} - present)
        up = link["up"] and link["carrier"]
        found = "up" if up else "no carrier" if link["up"] else "down"
        found += f", without {', '.join(missing)}" if missing else ""
        yield Check(name, found, "up, with its addresses", up and not missing)


def _interfaces(wanted: Mapping[str, Any]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield every interface that Linux is to have, and its addresses; with VPP, members of bonds are not."""
    for link in [*wanted["ports"], *wanted["bonds"], *wanted["loopbacks"]]:
        if link.get("bond") and wanted["forwarding"] == "vpp":
            continue
        yield link["name"], link.get("addresses") or []
        for vlan in link.get("vlans") or []:
            yield f"{link['name']}.{vlan['id']}", vlan.get("addresses") or []


def _sessions(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Check]:
    frr = {ip_address(address): session for address, session in state["frr_sessions"].items()}
    connected = {ip_address(address.partition("%")[0]) for address in state["connections"]}
    for peer in wanted["peers"]:
        address, what = ip_address(peer["address"]), f"session {peer['name']}"
        if peer.get("speaker", "frr") == "exabgp":
            # ExaBGP runs without its command line; what it received is in the agent's rows.
            up = address in connected
            yield Check(what, f"{address} {'connected' if up else 'not connected'}", "connected", up)
            continue
        session = frr.get(address, {"state": "not configured", "prefixes": 0})
        found = f"{address} {session['state']}, {session['prefixes']} prefixes"
        yield Check(what, found, "Established", session["state"] == "Established")


def _agent(state: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[Check]:
    known = _pipelines(state)
    for wished in wanted["pipelines"]:
        name = wished["name"]
        pipeline = known.get(name)
        if pipeline is None:
            yield Check(f"agent {name}", "no such pipeline", "in-sync", ok=False)
            continue
        counts = ", ".join(_counts(family) for family in pipeline["counts"])
        absent = sum(sum(family["not_in_fib"].values()) for family in pipeline["counts"])
        found = ", ".join(part for part in (pipeline["state"], counts, pipeline.get("error")) if part)
        yield Check(
            f"agent {name}", found, "in-sync, every route in", pipeline["state"] == "in-sync" and not absent
        )


def _counts(family: Mapping[str, Any]) -> str:
    absent = "".join(f", {count} {reason}" for reason, count in family["not_in_fib"].items())
    label = {2: "IPv4", 10: "IPv6"}.get(family["family"], str(family["family"]))
    return f"{label} {family['in_fib']} of {family['desired']}{absent}"


def _vpp_interfaces(found: Mapping[str, Any], interfaces: Mapping[str, str]) -> Iterator[Check]:
    for name in interfaces.values():
        link = found.get(name)
        words = "not there" if link is None else "up" if link["up"] and link["carrier"] else "down"
        yield Check(f"{name} in VPP", words, "up", words == "up")


class FilterModule:
    """The filters, by the names they have in templates."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name to filter."""
        return {
            "router_absent_routes": router_absent_routes,
            "router_change_checks": router_change_checks,
            "router_checks": router_checks,
            "router_faults": router_faults,
            "router_fib_checks": router_fib_checks,
            "router_table": router_table,
        }
