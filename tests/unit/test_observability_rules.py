"""Alerts fire when they shall and not otherwise, as promtool finds; rules and dashboard use what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from observed import DASHBOARD, EXPORTERS, RULES, dashboard_expressions, metric_names, rule_expressions
from router_agent.web.families import families

ROOT = Path(__file__).parents[2]
CASES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "data" / "alert_cases.yml").read_text())
GROUPS = yaml.safe_load(RULES.read_text())["groups"]
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in GROUPS for rule in group["rules"] if "alert" in rule
}
RECORDED = {rule["record"] for group in GROUPS for rule in group["rules"] if "record" in rule}

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)"
)


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )


@needs_promtool
def test_promtool_takes_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_case_for_each_side(alert: str) -> None:
    assert CASES[alert]["fires"]
    assert CASES[alert]["silent"]


def test_every_case_is_of_an_alert() -> None:
    assert CASES.keys() == ALERTS.keys()


def unit_tests() -> Iterator[dict[str, Any]]:
    """Yield promtool's tests: two of each alert."""
    for alert, case in CASES.items():
        for side in ("fires", "silent"):
            series = [
                {"series": name, "values": values}
                for name, values in (line.split("} ", 1) for line in case[side])
                for name in [f"{name}}}"]
            ]
            yield {
                "name": f"{alert} {side}",
                "interval": "1m",
                "input_series": series,
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}", alertstate="firing"}}) or vector(0)',
                        "eval_time": case["at"],
                        "exp_samples": [{"labels": "{}", "value": int(side == "fires")}],
                    }
                ],
            }


@needs_promtool
def test_alerts_fire_when_they_shall_and_not_otherwise(tmp_path: Path) -> None:
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": list(unit_tests())}))
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_case_that_is_wrong_is_found(tmp_path: Path) -> None:
    """The test above could not fail if promtool did not evaluate the alerts."""
    wrong = list(unit_tests())
    for test in wrong:
        (expected,) = test["promql_expr_test"][0]["exp_samples"]
        expected["value"] = 1 - expected["value"]
    file = tmp_path / "tests.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "tests": wrong}))
    done = promtool("test", "rules", file)
    assert done.returncode != 0
    assert (done.stdout + done.stderr).count("expr: ") == 2 * len(ALERTS)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_to_run_and_where_to_read(alert: str) -> None:
    annotations = ALERTS[alert]["annotations"]
    assert annotations.keys() == {"summary", "description", "command", "runbook_url"}
    assert "{{ $labels.instance }}" in annotations["summary"]
    assert ALERTS[alert]["labels"]["severity"] in ("critical", "warning")


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("alert", ALERTS)
def test_a_runbook_is_there(alert: str) -> None:
    page, _, anchor = ALERTS[alert]["annotations"]["runbook_url"].partition("#")
    assert anchor in anchors(ROOT / page)


def test_programs_of_ours_that_are_named_exist() -> None:
    commands = " ; ".join(rule["annotations"]["command"] for rule in ALERTS.values())
    named = set(re.findall(r"router-agent (\w[\w-]*)", commands))
    from typer.main import get_command

    from router_agent.cli import app

    assert named <= set(get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "expressions", [rule_expressions(), dashboard_expressions()], ids=["rules", "dashboard"]
)
def test_only_metrics_that_exist_are_used(expressions: list[str]) -> None:
    known = set(families()) | RECORDED | EXPORTERS
    known |= {
        f"{name}_{part}"
        for name, f in families().items()
        if f.kind == "histogram"
        for part in ("bucket", "count", "sum")
    }
    used = {name for expression in expressions for name in metric_names(expression)}
    assert used - known == set()
    assert len(used) > 20


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 36
    assert dashboard["id"] is None, "an id belongs to one Grafana"
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", dashboard["uid"])
    variables = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["type"] in ("timeseries", "stat", "table", "heatmap", "state-timeline")
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["description"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            assert "$instance" in target["expr"], panel["title"]


@needs_promtool
def test_every_query_of_the_dashboard_is_a_query(tmp_path: Path) -> None:
    queries = [
        expression.replace("$__rate_interval", "5m").replace("$instance", "r1").replace("$__range", "1h")
        for expression in dashboard_expressions()
    ]
    rules = [{"record": f"test:query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = promtool("check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
