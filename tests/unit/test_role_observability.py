"""The role of the exporters: who is answered, what Prometheus is told, what systemd is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from observability_targets import (
    JOBS,
    observability_endpoints,
    observability_exposed_rightly,
    observability_targets,
    observability_unreachable,
)
from role_variables import rendered_by_ansible, templated
from router_agent.lab.render import render

ROLE = Path(__file__).parents[2] / "roles" / "observability"
EXPOSED = {
    "observability_listen": "2001:db8::1",
    "observability_clients": ["192.0.2.9"],
    "router_pop": "ams1",
}


@pytest.mark.parametrize(
    ("listen", "clients", "right"),
    [
        ("127.0.0.1", [], True),
        ("::1", [], True),
        ("192.0.2.1", ["192.0.2.9"], True),
        ("192.0.2.1", [], False),
        ("127.0.0.1", ["192.0.2.9"], False),
        ("0.0.0.0", ["192.0.2.9"], False),
        ("::", ["192.0.2.9"], False),
        ("", [], False),
        ("localhost", [], False),
    ],
)
def test_exporters_are_exposed_on_purpose_only(listen: str, clients: list[str], right: bool) -> None:
    assert observability_exposed_rightly(listen, clients) is right


def test_the_loopback_is_the_default() -> None:
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    assert observability_exposed_rightly(defaults["observability_listen"], defaults["observability_clients"])


def exporters(**variables: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = templated("observability", "observability_exporters", variables)
    return found


def test_exporters_listen_where_they_are_told() -> None:
    node, frr = exporters(**EXPOSED, observability_node_exporter_arguments=["--no-collector.wifi"])
    assert node["command"].split()[0] == "/usr/bin/prometheus-node-exporter"
    assert node["command"].split()[-1] == "--no-collector.wifi"
    assert frr["command"].split()[0] == "/usr/bin/prometheus-frr-exporter"
    assert "--web.listen-address=[2001:db8::1]:9100" in node["command"].split()
    assert "--web.listen-address=[2001:db8::1]:9342" in frr["command"].split()
    assert "--web.listen-address=127.0.0.1:9100" in exporters()[0]["command"].split()


def test_what_is_not_wanted_is_stopped() -> None:
    variables = {"observability_frr_exporter": False}
    assert [e["unit"] for e in exporters(**variables)] == ["prometheus-node-exporter.service"]
    unwanted = templated("observability", "observability_unwanted", variables)
    assert unwanted == ["prometheus-frr-exporter.service"]


def test_an_override_confines_its_exporter() -> None:
    (node, _), clients = exporters(**EXPOSED), EXPOSED["observability_clients"]
    variables = {"command": node["command"], "clients": clients, "families": node["families"]}
    text = render("prometheus-exporter-override.conf.j2", **variables)
    assert rendered_by_ansible("prometheus-exporter-override.conf.j2", variables) == text
    lines = text.splitlines()
    assert lines.index("ExecStart=") + 1 == lines.index(f"ExecStart={node['command']}")
    assert lines.index("IPAddressDeny=any") < lines.index("IPAddressAllow=192.0.2.9")
    alone = render("prometheus-exporter-override.conf.j2", **(variables | {"clients": []}))
    assert "IPAddressAllow=localhost" in alone.splitlines()


def fleet() -> list[dict[str, Any]]:
    return [
        *observability_endpoints("r2", "ams1", {"router-node": ("192.0.2.2", 9100)}),
        *observability_endpoints(
            "r1", "fra1", {"router-node": ("2001:db8::1", 9100), "router-agent": ("127.0.0.1", 9101)}
        ),
    ]


def test_prometheus_is_told_of_what_it_can_come_to() -> None:
    assert observability_targets(fleet(), "router-node") == [
        {"targets": ["[2001:db8::1]:9100"], "labels": {"instance": "r1", "pop": "fra1"}},
        {"targets": ["192.0.2.2:9100"], "labels": {"instance": "r2", "pop": "ams1"}},
    ]
    assert observability_targets(fleet(), "router-agent") == []
    assert observability_unreachable(fleet()) == ["r1 router-agent 127.0.0.1:9101"]


def test_files_for_prometheus_are_what_it_reads() -> None:
    variables: dict[str, Any] = {"targets": "/etc/prometheus/routers", "jobs": list(JOBS)}
    text = render("prometheus-scrape.yml.j2", **variables)
    assert rendered_by_ansible("prometheus-scrape.yml.j2", variables) == text
    jobs = yaml.safe_load(text)["scrape_configs"]
    assert [job["job_name"] for job in jobs] == list(JOBS)
    assert jobs[0]["file_sd_configs"] == [{"files": ["/etc/prometheus/routers/router-agent.json"]}]


def test_the_jobs_are_the_same_everywhere() -> None:
    assert tuple(yaml.safe_load((ROLE / "vars" / "main.yml").read_text())["observability_jobs"]) == JOBS
