"""Words and figures that page and terminal share."""

from __future__ import annotations

from router_agent.traffic.report.axes import duration
from router_agent.traffic.report.model import TrafficReport, culprits_of, title_of
from router_agent.traffic.scenario import Tier

__all__ = ["CLAIMS", "chief_culprits", "duration", "rate", "routes", "share", "span"]

CLAIMS = {
    Tier.FUNCTIONAL: "Functional tier: network namespaces and virtual wires. It shows whether packets go the "
    "right way and what became of each of them; rates compare with others of the same machine only. It says "
    "nothing about NICs or line rate.",
    Tier.SOFTWARE_CEILING: "Software ceiling: packets stay in memory. It shows what the forwarding software "
    "can do on this processor without a NIC. It says nothing about line rate.",
    Tier.LINE_RATE: "Line rate: frames over NICs. It holds for these NICs, links, frame sizes and routes.",
}
"""What a report of each tier may say."""

_MOST_CULPRITS = 5


def chief_culprits(report: TrafficReport) -> list[str]:
    """Return what is behind the verdict: culprits of the measurements that decided it, named if several."""
    deciding = [m for m in report.measurements if m.verdict.outcome is report.verdict.outcome]
    blamed = [m for m in deciding if culprits_of(m)]
    if len(blamed) == 1:
        return culprits_of(blamed[0])[:_MOST_CULPRITS]
    lines = [f"{title_of(m)}, {m.sizes.label}: {line}" for m in blamed for line in culprits_of(m)[:2]]
    return lines[:_MOST_CULPRITS]


def rate(pps: float) -> str:
    """Return packets a second: all digits below a million, then millions."""
    return f"{pps:,.0f}" if pps < 1e6 else f"{pps / 1e6:,.3f} M"


def routes(count: int) -> str:
    """Return a number of routes."""
    return f"{count:,} route" if count == 1 else f"{count:,} routes"


def share(part: float, whole: float) -> str:
    """Return a part in percent."""
    return f"{100 * part / whole:.4f} %" if whole and part else "0 %"


def span(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 120:
        return f"{seconds:.4g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 120 else f"{minutes} min {rest} s"
