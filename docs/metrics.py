"""Writes docs/metrics.md: every metric of the kit's own, and every alert.

Run ``make docs``. Tests compare the page with what this makes, and the metrics with a real scrape.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from router_agent.web.families import SECTIONS, Section

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "metrics.md"
RULES = ROOT / "roles" / "observability" / "files" / "router-rules.yml"

HEAD = """\
# Metrics, alerts and the dashboard

`make docs` makes this page from `router_agent/web/families.py` and
`roles/observability/files/router-rules.yml`: change it there.

| what | where | port |
|---|---|---:|
| router-agent and VPP | `router-agent-web` (role `router_agent`), `/metrics` | 9101 |
| BGP sessions, BFD and RIB of FRR | `prometheus-frr-exporter` (role `observability`) | 9342 |
| the host, kernel's interfaces, systemd's units | `prometheus-node-exporter` (role `observability`) | 9100 |

All listen on the loopback until told otherwise, and then answer named clients only:

```yaml
observability_listen: "{{ ansible_host }}"          # the address of management, one for each router
observability_clients: [192.0.2.9]                  # the monitoring host
router_agent_web_listen: "{{ ansible_host }}"
router_agent_web_clients: [192.0.2.9]
```

    ansible-playbook -i inventory/mypop/hosts.yml playbooks/site.yml --tags router_agent
    ansible-playbook -i inventory/mypop/hosts.yml playbooks/observability.yml
    ls build/observability              # scrape.yml, targets/, router-rules.yml, router-dashboard.json

`scrape.yml` has the jobs `router-agent`, `router-node` and `router-frr`; targets carry the labels
`instance` (name of the router) and `pop`. `router-rules.yml` goes under `rule_files`,
`router-dashboard.json` is imported into Grafana, which asks for the data source. For a look without
Prometheus: `curl -s http://127.0.0.1:9101/metrics` on the router, or `ssh -L 9101:localhost:9101 ROUTER`.

**What it costs.** The web process asks the agent once however many scrape it within a second, over a socket
where nothing can be changed; one reader is answered at a time, and then none for four times as long as that
took. VPP itself is asked nothing: its counters are read from shared memory. When the agent is down the page
still answers, with `router_agent_up 0`.

**Why the agent reads VPP's counters.** VPP hands its stats segment to whoever may connect to its socket as
a descriptor that can be mapped for writing, and the socket's group may also use VPP's API. The web process
is in no such group.

## Metrics

Units are in the names: seconds, bytes; everything else is a count. `_total` only grows, until its process
starts anew."""

_TABLE = "| metric | type | labels | |\n|---|---|---|---|\n"


def page() -> str:
    """Return the page."""
    sections = [part for section in SECTIONS for part in _section(section)]
    return "\n".join([HEAD, *sections, *_alerts()])


def _section(section: Section) -> Iterator[str]:
    yield f"### {section.title}\n\n{section.words}\n"
    rows = (
        f"| `{family.name}` | {family.kind} | {', '.join(f'`{name}`' for name in family.labels)} "
        f"| {family.words} |\n"
        for family in section.families
    )
    yield _TABLE + "".join(rows)


def _alerts() -> Iterator[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    yield "## Alerts\n\npromtool tests when each fires and when not (`tests/unit/data/alert_cases.yml`).\n"
    rows = []
    for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
        said = rule["annotations"]
        link = said["runbook_url"].removeprefix("docs/")
        cells = (
            f"[{rule['alert']}]({link})",
            rule["labels"]["severity"],
            f"`{' '.join(rule['expr'].split())}`".replace("|", "\\|"),
            rule.get("for", ""),
            f"`{re.sub(r'{{ .labels.(.*?) }}', lambda m: m[1].upper(), said['command'])}`",
        )
        rows.append("| " + " | ".join(cells) + " |\n")
    yield "| alert | severity | when | for | first command |\n|---|---|---|---|---|\n" + "".join(rows)
    yield "## Recorded\n"
    recorded = (rule for group in groups for rule in group["rules"] if "record" in rule)
    yield "| name | expression |\n|---|---|\n" + "".join(
        f"| `{rule['record']}` | `{' '.join(rule['expr'].split())}` |\n" for rule in recorded
    )


if __name__ == "__main__":
    PAGE.write_text(page())
