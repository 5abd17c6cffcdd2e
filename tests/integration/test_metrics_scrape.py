"""Whole routers scraped by a real Prometheus: every metric is there, every rule evaluates, an alert comes."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from observability_targets import JOBS, observability_endpoints, observability_targets
from observed import EXPORTERS, RULES, dashboard_expressions, metric_names, rule_expressions
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.lab import FibKind, Lab, SpeakerKind
from router_agent.lab.render import render
from router_agent.lab.table import generated_table
from router_agent.web.families import SECTIONS, families

pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.vpp,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="needs Prometheus (Debian: prometheus)"),
]

SECONDS = 60.0
ELSEWHERE = {"Confirmed advertisement", "Mirrored interfaces"}
"""Sections of metrics that these routers do not have: FRR of Debian cannot wait, and there are no TAPs."""
SELDOM = {
    "router_agent_drained_since_timestamp_seconds",
    "router_agent_routes_not_in_fib",
    "router_agent_routes_passed_over",
}
"""Metrics that have a value only while something is so."""
NOT_HERE = {"node_systemd_unit_state", "frr_bfd_peer_state", "node_network_carrier"}
"""What exporters have only with systemd, with BFD peers, and where /sys is that of the network namespace."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def got(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def answers(port: int, path: str = "/metrics") -> bool:
    try:
        got(port, path)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
    return True


@dataclass(frozen=True)
class Observed:
    """A lab whose agent is served, with the port of each exporter by job."""

    lab: Lab
    ports: dict[str, int]

    def scrape(self, job: str) -> str:
        return got(self.ports[job], "/metrics")

    def values(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for family in text_string_to_metric_families(self.scrape("router-agent")):
            for sample in family.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found


@contextmanager
def observed(name: str, speaker: SpeakerKind, fib: FibKind) -> Iterator[Observed]:
    ports = {job: free_port() for job in JOBS}
    with ExitStack() as stack:
        lab = stack.enter_context(Lab(name, table=generated_table(300, 50), speaker=speaker, fib=fib))
        lab.start()
        lab.wait_settled(seconds=SECONDS)
        directory = lab.topology.directory / "observed"
        directory.mkdir()
        config = directory / "web.yaml"
        config.write_text(
            render(
                "router-agent-web.yaml.j2",
                hostname="pop1",
                listen="127.0.0.1",
                listen_port=ports["router-agent"],
                clients=[],
                host_names=["pop1"],
                readers_socket=lab.agent.readers_socket,
            )
        )
        commands = {
            "router-agent": [sys.executable, "-m", "router_agent.cli", "web", "--config", str(config)],
            "router-node": [
                "prometheus-node-exporter",
                f"--web.listen-address=127.0.0.1:{ports['router-node']}",
            ],
            "router-frr": [
                "prometheus-frr-exporter",
                f"--web.listen-address=127.0.0.1:{ports['router-frr']}",
                f"--frr.socket.dir-path={lab.topology.frr_runtime}",
                "--collector.bgp6",
            ],
        }
        for job, command in commands.items():
            daemon = Daemon(job, command, namespace=None, directory=directory)
            daemon.start()
            stack.callback(daemon.stop)
            answering = partial(answers, ports[job])
            wait_until(answering, f"{job} to answer", seconds=SECONDS, daemons=[daemon])
        yield Observed(lab, ports)


@pytest.fixture(scope="module")
def router(module_lab_name: str) -> Iterator[Observed]:
    """FRR, VPP and the exporters."""
    with observed(module_lab_name, SpeakerKind.FRR, FibKind.VPP) as found:
        yield found


@pytest.fixture(scope="module")
def exabgp_router(module_lab_name: str) -> Iterator[Observed]:
    with observed(f"{module_lab_name}-x", SpeakerKind.EXABGP, FibKind.KERNEL) as found:
        yield found


def names_of(text: str) -> set[str]:
    return {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(text)
    }


def test_every_metric_that_is_documented_is_there_and_no_other(
    router: Observed, exabgp_router: Observed
) -> None:
    expected = {f.name for s in SECTIONS if s.title not in ELSEWHERE for f in s.families} - SELDOM
    found: set[str] = set()

    def all_there() -> bool:
        found.update(names_of(router.scrape("router-agent")), names_of(exabgp_router.scrape("router-agent")))
        return expected <= found

    router.lab.meet_neighbours()
    wait_until(
        all_there, "VPP to have counted packets", seconds=SECONDS, found=lambda: f"no {expected - found}"
    )
    assert found <= set(families())


def test_figures_are_those_of_the_router(router: Observed) -> None:
    values = router.values()
    in_fib = {labels["family"]: value for labels, value in values["router_agent_routes_in_fib"]}
    status = router.lab.agent.status()
    assert status is not None
    (pipeline,) = status.pipelines
    assert in_fib == {counts.family.label.lower(): counts.in_fib for counts in pipeline.counts}
    assert in_fib["ipv4"] >= 300
    (added,) = (v for labels, v in values["router_agent_writes_total"] if labels["operation"] == "added")
    assert added >= 350
    interfaces = {labels["interface"] for labels, _ in values["vpp_interface_receive_packets_total"]}
    assert len(interfaces) >= 2
    assert not [name for name in interfaces if re.fullmatch(r"\d+", name)]
    lag = {labels["le"]: value for labels, value in values["router_agent_lag_seconds_bucket"]}
    assert lag["+Inf"] > 0


def test_promtool_finds_nothing_to_say(router: Observed, exabgp_router: Observed) -> None:
    for each in (router, exabgp_router):
        done = subprocess.run(
            ["promtool", "check", "metrics"],
            input=each.scrape("router-agent"),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_sessions_of_frr_are_its_exporters(router: Observed, exabgp_router: Observed) -> None:
    wait_until(
        lambda: any(
            family.name == "frr_bgp_peer_state" and any(sample.value == 1 for sample in family.samples)
            for family in text_string_to_metric_families(router.scrape("router-frr"))
        ),
        "frr_exporter to tell of an established session",
        seconds=SECONDS,
    )
    collectors = {
        sample.labels["collector"]: sample.value
        for family in text_string_to_metric_families(router.scrape("router-frr"))
        for sample in family.samples
        if sample.name == "frr_collector_up"
    }
    assert (collectors["bgp"], collectors["bgp6"], collectors["ospf"]) == (1, 1, 0), "as an alert expects"
    assert "router_agent_session_up" not in router.values()
    assert {value for _, value in exabgp_router.values()["router_agent_session_up"]} == {1}


def test_exporters_have_what_rules_and_dashboard_ask_for(router: Observed) -> None:
    found = names_of(router.scrape("router-node")) | names_of(router.scrape("router-frr"))
    used = {name for e in rule_expressions() + dashboard_expressions() for name in metric_names(e)}
    assert used & EXPORTERS == EXPORTERS - {"ALERTS"}, "a metric is listed and not used"
    assert EXPORTERS - NOT_HERE - {"up", "ALERTS"} <= found


@dataclass(frozen=True)
class Prometheus:
    """A running Prometheus."""

    port: int

    def ask(self, path: str, **parameters: str) -> Any:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        return json.loads(got(self.port, f"/api/v1/{path}{query}"))["data"]

    def value(self, query: str) -> float | None:
        """Return the only value of a query, None when it has none."""
        found = self.ask("query", query=query)["result"]
        return float(found[0]["value"][1]) if found else None


@pytest.fixture
def prometheus(router: Observed, tmp_path: Path) -> Iterator[Prometheus]:
    """Scrapes the router every second, with the kit's own jobs, targets and rules."""
    listening = {job: ("127.0.0.1", port) for job, port in router.ports.items()}
    endpoints = [{**e, "reachable": True} for e in observability_endpoints("pop1", "lab", listening)]
    for job in JOBS:
        (tmp_path / f"{job}.json").write_text(json.dumps(observability_targets(endpoints, job)))
    config = yaml.safe_load(render("prometheus-scrape.yml.j2", targets=str(tmp_path), jobs=JOBS))
    for job in config["scrape_configs"]:
        job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    config |= {"global": {"evaluation_interval": "1s"}, "rule_files": [str(RULES)]}
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    subprocess.run(["promtool", "check", "config", str(file)], check=True, capture_output=True, timeout=60)
    port = free_port()
    daemon = Daemon(
        "prometheus",
        [
            "prometheus",
            f"--config.file={file}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        namespace=None,
        directory=tmp_path,
    )
    daemon.start()
    try:
        wait_until(
            lambda: answers(port, "/-/ready"), "Prometheus to be ready", seconds=SECONDS, daemons=[daemon]
        )
        yield Prometheus(port)
    finally:
        daemon.stop()


def until(told: Callable[[], bool], what: str) -> None:
    wait_until(told, what, seconds=SECONDS)


def test_prometheus_scrapes_evaluates_and_alerts(router: Observed, prometheus: Prometheus) -> None:
    until(lambda: prometheus.value("sum(up)") == len(JOBS), "every target to be scraped")
    targets = prometheus.ask("targets")["activeTargets"]
    assert {target["labels"]["instance"] for target in targets} == {"pop1"}
    assert {target["labels"]["pop"] for target in targets} == {"lab"}
    until(
        lambda: prometheus.value("instance_pipeline:router_agent_routes_in_fib:sum") is not None,
        "a recording rule to be evaluated",
    )
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    until(
        lambda: all(
            rule["health"] == "ok" for group in prometheus.ask("rules")["groups"] for rule in group["rules"]
        ),
        "every rule to be evaluated",
    )
    assert len(rules) == len(rule_expressions())
    assert prometheus.value('count(ALERTS{alertname=~"RouterAgentDown|RouterNotInSync|RouterVpp.*"})') is None
    router.lab.agent.stop()
    try:
        until(
            lambda: prometheus.value('ALERTS{alertname="RouterAgentDown",instance="pop1"}') == 1,
            "the alert of an agent that is down",
        )
        assert prometheus.value("router_agent_up") == 0
    finally:
        router.lab.agent.start()
    until(lambda: prometheus.value("router_agent_up") == 1, "the agent to be up again")
