# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: whether a router is live, and what a traffic check says of it in the end."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from textwrap import wrap
from typing import Any

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INVALID": 3, "UNDONE": 4, "REFUSED": 5}
"""As of ``router-agent traffic check``, and one more: nothing was sent to a live router."""

_ESTABLISHED = "Established"
_WIDTHS = (28, 8, 70)


def acceptance_live_reasons(
    state: Mapping[str, Any],
    *,
    load: Mapping[str, Any],
    interfaces: Sequence[str],
    peers: Sequence[Mapping[str, Any]],
    idle_pps: float,
    drained: bool,
) -> list[str]:
    """Return why a router is live; nothing when it is drained.

    Args:
        state: what module `router_state` read.
        load: what ``router-agent traffic counters --seconds S --json`` printed.
        interfaces: ports whose traffic counts.
        peers: neighbours as of the inventory, for those that ExaBGP speaks to.
        idle_pps: packets a second, received and sent on all ports together, that are no traffic.
        drained: what ``router-agent drained`` said: by its mark and by its speakers.
    """
    reasons = [f"cannot be asked: {error}" for error in state["errors"]]
    rates = {name: port_pps(load, name) for name in interfaces}
    if sum(rates.values()) > idle_pps:
        busy = ", ".join(f"{name} {rate:,.0f} pps" for name, rate in rates.items() if rate)
        reasons.append(f"its ports carry traffic ({busy}; {idle_pps:,.0f} together is idle)")
    if drained:
        return reasons
    reasons += [
        f"it announces {session['sent']:,} prefixes to {address} and is not drained"
        for address, session in state["frr_sessions"].items()
        if session["state"] == _ESTABLISHED and session["sent"]
    ]
    connected = {ip_address(address.partition("%")[0]) for address in state["connections"]}
    reasons += [
        f"ExaBGP's session with {peer['address']} is up, and it is not drained"
        for peer in peers
        if peer.get("speaker", "frr") == "exabgp" and ip_address(peer["address"]) in connected
    ]
    return reasons


def port_pps(load: Mapping[str, Any], name: str) -> float:
    """Return the packets a second that a port received and sent, by the kernel's names or VPP's."""
    counters = load["counters"]
    ways = (f"dev.{name}.rx_packets", f"dev.{name}.tx_packets", f"/if/rx/{name}", f"/if/tx/{name}")
    return float(sum(counters.get(way, 0) for way in ways) / load["seconds"])


def acceptance_refused(reasons: Sequence[str]) -> dict[str, Any]:
    """Return the result for a router that is live."""
    return _result("REFUSED", f"it is live: {'; '.join(reasons)}")


def acceptance_verdict(check: Mapping[str, Any], *, report: str, after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result of a check.

    Args:
        check: what running it gave: `rc`, `stderr`, `stdout`; empty when it was not run.
        report: content of report.json; empty when there is none.
        after: what comparing the router with what it was gave: `rc`, `stdout`, `stderr`.
    """
    if report:
        found = json.loads(report)
        outcome, reason = found["verdict"]["outcome"], found["verdict"]["reason"]
        parts = [
            {"name": part["name"], "outcome": part["verdict"]["outcome"], "reason": part["verdict"]["reason"]}
            for part in found["parts"]
        ]
        if outcome == "INVALID" and check.get("rc") == EXIT_CODES["UNDONE"]:
            outcome = "UNDONE"
    else:
        said = (check.get("stderr") or check.get("stdout") or check.get("msg") or "it was not run").strip()
        outcome, reason, parts = "UNDONE", f"no report: {said[-1000:]}", []
    differs, put_back = _differences(after)
    if differs and outcome == "PASS":
        outcome, reason = "FAIL", f"the router is not as it was found: {'; '.join(differs)}"
    return _result(outcome, reason, parts=parts, as_found=not differs, differences=differs, put_back=put_back)


def acceptance_table(result: Mapping[str, Any]) -> str:
    """Return a result as a table for people."""
    rows = [(part["name"], part["outcome"], part["reason"]) for part in result["parts"]]
    as_found = "as it was found" if result["as_found"] else "; ".join(result["differences"])
    if result["put_back"]:
        as_found += f"; put back: {', '.join(result['put_back'])}"
    rows.append(("the router", "ok" if result["as_found"] else "differs", as_found))
    rows.append(("verdict", result["outcome"], result["reason"]))
    lines = [_line(("", "verdict", "measured")), _line(tuple("-" * width for width in _WIDTHS))]
    for row in rows:
        columns = [wrap(str(text), width) or [""] for text, width in zip(row, _WIDTHS, strict=True)]
        height = max(map(len, columns))
        lines += [_line([c[n] if n < len(c) else "" for c in columns]) for n in range(height)]
    return "\n".join(lines)


def _line(parts: Sequence[str]) -> str:
    return "  ".join(part.ljust(width) for part, width in zip(parts, _WIDTHS, strict=True)).rstrip()


def _differences(after: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return in words what is not as it was, and what had to be put back for the rest to be."""
    if after.get("rc") not in (0, 1):
        said = (after.get("stderr") or after.get("msg") or "no answer").strip()
        return [f"whether it is as it was is not known: {said[-500:]}"], []
    found = json.loads(after["stdout"])
    return list(found["different"]), list(found["put_back"])


def _result(
    outcome: str,
    reason: str,
    *,
    parts: Sequence[Mapping[str, str]] = (),
    as_found: bool = True,
    differences: Sequence[str] = (),
    put_back: Sequence[str] = (),
) -> dict[str, Any]:
    return {
        "outcome": outcome,
        "exit_code": EXIT_CODES[outcome],
        "reason": reason,
        "parts": list(parts),
        "as_found": as_found,
        "differences": list(differences),
        "put_back": list(put_back),
    }


class FilterModule:
    """The filters, by the names they have in templates."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return name to filter."""
        return {
            "acceptance_live_reasons": acceptance_live_reasons,
            "acceptance_refused": acceptance_refused,
            "acceptance_table": acceptance_table,
            "acceptance_verdict": acceptance_verdict,
        }
