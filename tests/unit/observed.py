"""What rules and dashboard ask Prometheus for, taken apart."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

FILES = Path(__file__).parents[2] / "roles" / "observability" / "files"
RULES = FILES / "router-rules.yml"
DASHBOARD = FILES / "router-dashboard.json"

EXPORTERS = frozenset(
    {
        *("up", "ALERTS"),
        *("frr_bfd_peer_state", "frr_bgp_peer_state", "frr_bgp_peer_prefixes_received_count_total"),
        "frr_collector_up",
        *("node_network_carrier", "node_network_receive_errs_total", "node_systemd_unit_state"),
        *("node_network_receive_bytes_total", "node_network_transmit_bytes_total"),
        *("node_cpu_seconds_total", "node_memory_MemAvailable_bytes"),
    }
)
"""Metrics of Prometheus, frr_exporter and node_exporter that are used."""

_WORDS = frozenset(
    {
        *("abs", "and", "avg", "bool", "changes", "clamp_min", "count", "histogram_quantile", "increase"),
        *("irate", "max", "max_over_time", "min", "offset", "or", "predict_linear", "rate", "resets", "sum"),
        *("time", "topk", "unless", "vector"),
    }
)


def rule_expressions() -> list[str]:
    """Return the expressions of every rule."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    """Return the queries of every panel."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


def metric_names(expression: str) -> Iterator[str]:
    """Yield the metrics that an expression names."""
    bare = re.sub(r'"(\\.|[^"\\])*"', "", expression)  # label values
    bare = re.sub(r"\{[^}]*\}", "", bare)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    bare = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", bare)
    for name in re.findall(r"(?<![\w.$])[a-zA-Z_:][\w:]*", bare):
        if name not in _WORDS:
            yield name
