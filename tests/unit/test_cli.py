"""The command line: what it prints, and the exit codes scripts rely on."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from router_agent import __version__, agent, cli, config
from router_agent.config import Config, ControlConfig
from router_agent.control import ControlError, ControlServer, RefusedError
from router_agent.model import Family, Reason
from router_agent.observe.answers import (
    Audit,
    AuditFinding,
    AuditRequest,
    AuditStatus,
    Counters,
    ErrorKind,
    ExplainRequest,
    Explanation,
    FamilyCounts,
    InFib,
    Match,
    NeighbourRow,
    PipelineAudit,
    PipelineExplanation,
    PipelineStatus,
    Resync,
    ResyncRequest,
    RouteFilter,
    RouteRow,
    Stage,
    State,
    Status,
    Step,
)

CONFIG = """\
pipelines:
  - name: frr
    feed: {kind: kernel, tables: [254, 100], protocols: [bgp]}
    fib: {kind: vpp, interfaces: {eth0: GigabitEthernet3/0/0}}
"""


def route(number: int) -> RouteRow:
    refused = number == 1
    return RouteRow(
        pipeline="frr",
        prefix=f"10.{number >> 8}.{number & 255}.0/24",
        table=254,
        metric=20,
        paths=("via 192.0.2.1 dev eth0", "via 192.0.2.2 dev eth0 weight 2"),
        in_fib=InFib.NO if refused else InFib.YES,
        fib_table=0,
        reason=Reason.REJECTED if refused else None,
        detail="VPP answered -95" if refused else None,
    )


class Router:
    """An agent whose answers a test chooses."""

    def __init__(self) -> None:
        self.state = State.IN_SYNC
        self.count = 3
        self.wrong: tuple[AuditFinding, ...] = ()
        self.audited: list[AuditRequest] = []
        self.forwards = True
        self.in_sync: bool | None = None
        self.refusal: RefusedError | None = None
        self.counts = FamilyCounts(
            family=Family.IPV4, desired=1_055_514, in_fib=1_055_513, not_in_fib={Reason.REJECTED: 1}
        )

    def status(self) -> Status:
        pipeline = PipelineStatus(
            name="frr",
            feed="kernel",
            fib="vpp",
            state=self.state,
            error="found no VPP; start it" if self.state is State.FIB_LOST else None,
            counts=(self.counts,),
            last_resync=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            resyncs=7,
        )
        return Status(version="9.9", pid=77, uptime_seconds=60, rss_bytes=300_000_000, pipelines=(pipeline,))

    async def counters(self) -> Counters:
        return Counters()

    async def routes(self, wanted: RouteFilter) -> AsyncIterator[RouteRow]:
        if self.refusal:
            raise self.refusal
        for number in range(min(self.count, wanted.limit or self.count)):
            yield route(number)

    def neighbours(self) -> Sequence[NeighbourRow]:
        mac = "02:00:00:00:00:01"
        return [
            NeighbourRow(pipeline="frr", interface="eth0", address="192.0.2.1", mac=mac, fib_interface="ge0"),
            NeighbourRow(pipeline="frr", interface="eth9", address="2001:db8::1", mac=mac),
        ]

    async def audit(self, wanted: AuditRequest) -> Audit:
        self.audited.append(wanted)
        status = AuditStatus(
            action="repair", rate=5_000, passes=4, last_pass_age_seconds=70, last_pass_seconds=211, checked=9
        )
        found = {finding.reason: 1 for finding in self.wrong}
        return Audit(pipelines=(PipelineAudit(pipeline="frr", status=status, found=found, rows=self.wrong),))

    async def explain(self, wanted: ExplainRequest) -> Explanation:
        steps = (
            Step(stage=Stage.CANDIDATE, words="metric 20 via 192.0.2.1"),
            Step(stage=Stage.FIB, words="the FIB has nothing", holds=self.forwards),
        )
        pipeline = PipelineExplanation(
            pipeline="frr",
            table=254,
            match=Match.LONGEST,
            prefix="192.0.2.0/24",
            steps=steps,
            forwards=self.forwards,
            verdict="the verdict",
        )
        return Explanation(asked=str(wanted.prefix), pipelines=(pipeline,))

    async def resync(self, wanted: ResyncRequest) -> Resync:
        return Resync(pipelines=("frr",), in_sync=self.in_sync if wanted.wait else None, took_seconds=1.5)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def router(
    tmp_path: Path, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Router]:
    """A router that listens where the command line looks."""
    control = ControlConfig(socket=tmp_path / "control.sock")
    monkeypatch.setenv("ROUTER_AGENT_SOCKET", str(control.socket))
    router = Router()
    server = ControlServer(config=control, handlers=router)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result()
    yield router
    asyncio.run_coroutine_threadsafe(server.close(), loop).result()


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


def parsed(*arguments: str) -> Any:
    result = invoke(*arguments)
    assert result.exit_code in (0, 1), result.output
    return json.loads(result.stdout)


def spawn(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "router_agent.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, **options)


@pytest.fixture
def agent_yaml(tmp_path: Path) -> Path:
    path = tmp_path / "agent.yaml"
    path.write_text(CONFIG)
    return path


def test_defaults_agree_with_the_agents() -> None:
    assert config.DEFAULT_SOCKET == cli.SOCKET


def test_status_is_printed_in_full(router: Router) -> None:
    result = invoke("show", "status")
    assert result.exit_code == 0
    words = result.stdout.split()
    assert "router-agent 9.9, process 77, up 60 s, 300 MB" in result.stdout
    for word in ("frr", "kernel", "vpp", "in-sync", "1,055,514", "1,055,513", "IPv4", "rejected", "7"):
        assert word in words
    assert parsed("show", "status", "--json") == json.loads(router.status().model_dump_json())


def test_status_out_of_sync_is_a_no_with_its_error(router: Router) -> None:
    router.state = State.FIB_LOST
    result = invoke("show", "status")
    assert result.exit_code == 1
    assert "frr: found no VPP; start it" in result.stdout


def test_what_a_lost_fib_holds_is_unknown(router: Router) -> None:
    router.counts = FamilyCounts(family=Family.IPV4, desired=1_055_514, unknown=1_055_514)
    (row,) = (line for line in invoke("show", "status").stdout.splitlines() if "1,055,514" in line)
    assert row.split()[-4:] == ["1,055,514", "unknown", "unknown", "0"]


def test_routes_are_printed_in_columns(router: Router) -> None:
    result = invoke("show", "routes")
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    assert header.split("  ")[0] == "PREFIX"
    assert [row.split()[0] for row in rows] == ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"]
    at = header.index("IN FIB")
    assert [row[at:].split("  ")[0] for row in rows] == ["yes", "no: rejected", "yes"]
    assert rows[1].endswith("via 192.0.2.1 dev eth0, via 192.0.2.2 dev eth0 weight 2 (VPP answered -95)")


def test_routes_as_json_are_one_object_a_line(router: Router) -> None:
    router.count = 1000
    result = invoke("show", "routes", "--json", "--limit", "700")
    rows = [RouteRow.model_validate_json(line) for line in result.stdout.splitlines()]
    assert rows == [route(number) for number in range(700)]


def test_prefix_without_routes_is_a_no(router: Router) -> None:
    router.count = 0
    assert invoke("show", "routes", "192.0.2.0/24").exit_code == 1
    assert invoke("show", "routes", "192.0.2.0/24", "--json").exit_code == 1
    assert invoke("show", "routes").exit_code == 0


def test_neighbours_are_printed(router: Router) -> None:
    _, first, second = invoke("show", "neighbours").stdout.splitlines()
    assert first.split() == ["192.0.2.1", "02:00:00:00:00:01", "eth0", "ge0", "frr"]
    assert second.split() == ["2001:db8::1", "02:00:00:00:00:01", "eth9", "none", "frr"]
    lines = invoke("show", "neighbours", "--json").stdout.splitlines()
    assert [NeighbourRow.model_validate_json(line) for line in lines] == router.neighbours()


def test_an_audit_that_found_something_is_a_no_with_the_findings(router: Router) -> None:
    result = invoke("audit")
    assert result.exit_code == 0
    assert "70 s ago, took 211.0 s" in result.stdout
    router.wrong = (
        AuditFinding(
            at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
            prefix="192.0.2.0/24",
            fib_table=0,
            reason=Reason.STALE,
            held=("via 192.0.2.9 dev ge0",),
            repaired=True,
        ),
    )
    result = invoke("audit", "--now")
    assert result.exit_code == 1
    for word in ("192.0.2.0/24", "stale 1", "via 192.0.2.9 dev ge0", "repaired"):
        assert word in result.stdout
    assert parsed("audit", "--full", "--json")["pipelines"][0]["found"] == {"stale": 1}
    assert router.audited == [AuditRequest(), AuditRequest(now=True), AuditRequest(full=True)]


def test_explanation_is_printed_step_by_step(router: Router) -> None:
    result = invoke("explain", "192.0.2.7")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == (
        "192.0.2.7/32 in pipeline frr, table 254: longest match 192.0.2.0/24"
    )
    router.forwards = False
    result = invoke("explain", "192.0.2.7")
    assert result.exit_code == 1
    assert "NO  fib        the FIB has nothing" in result.stdout
    assert "NOT FORWARDED: the verdict" in result.stdout
    assert parsed("explain", "192.0.2.7", "--json")["asked"] == "192.0.2.7/32"


def test_resync_waits_when_told_to(router: Router) -> None:
    assert "frr: asked to read again after 1.50 s" in invoke("resync").stdout
    router.in_sync = True
    assert "frr: in sync after" in invoke("resync", "--wait").stdout
    router.in_sync = False
    result = invoke("resync", "--wait", "--timeout", "0.5")
    assert result.exit_code == 1
    assert "not in sync" in result.stdout
    assert parsed("resync", "--json")["in_sync"] is None


@pytest.mark.parametrize(
    "arguments",
    [("show", "routes", "10.0.0.1/8"), ("explain", "router"), ("show", "routes", "--limit", "0"), ("x",)],
)
def test_wrong_usage_is_2_and_needs_no_agent(arguments: Sequence[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "status"),
        ("show", "routes"),
        ("show", "neighbours"),
        ("audit",),
        ("explain", "::/0"),
        ("resync",),
    ],
)
def test_no_agent_is_3(arguments: Sequence[str], tmp_path: Path) -> None:
    for form in ((), ("--json",)):
        result = invoke(*arguments, "--socket", str(tmp_path / "none"), *form)
        assert result.exit_code == 3
        assert "is the agent running" in result.stderr
        assert result.stdout == ""


@pytest.mark.parametrize(
    ("kind", "code"), [(ErrorKind.BAD_REQUEST, 2), (ErrorKind.UNAVAILABLE, 4), (ErrorKind.INTERNAL, 4)]
)
def test_refusal_is_told(router: Router, kind: ErrorKind, code: int) -> None:
    router.refusal = RefusedError(kind, "VPP is gone")
    result = invoke("show", "routes")
    assert result.exit_code == code
    assert result.stderr == "agent: VPP is gone\n"


def test_reader_that_has_seen_enough_is_no_failure(router: Router) -> None:
    router.count = 60_000
    command = f"{sys.executable} -m router_agent.cli show routes | head -n 2; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2


def test_configuration_is_explained(agent_yaml: Path) -> None:
    result = invoke("check-config", str(agent_yaml))
    assert result.exit_code == 0
    assert "254 -> 0, 100 -> 100" in result.stdout
    assert "kernel: protocols [186], resync_seconds 2.0" in result.stdout
    assert "control: socket" in result.stdout
    understood = parsed("check-config", str(agent_yaml), "--json")
    assert Config.model_validate(understood) == config.load(agent_yaml)


def test_bad_configuration_is_2_with_every_problem(agent_yaml: Path) -> None:
    agent_yaml.write_text(CONFIG + "log: {level: loud}\ncontrol: {mode: 0660}\n")
    for command in (("check-config", str(agent_yaml)), ("run", "--config", str(agent_yaml))):
        result = invoke(*command)
        assert result.exit_code == 2
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 2
        assert all(line.startswith(f"{agent_yaml}:") for line in lines)


def test_schema_is_printed_without_a_file() -> None:
    assert parsed("check-config", "--schema") == config.schema()


def test_version_is_printed() -> None:
    assert invoke("version").stdout == f"{__version__}\n"
    assert parsed("version", "--json") == {"version": __version__}


def test_run_hands_the_configuration_over(agent_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Config] = []

    async def run(checked: Config) -> None:
        started.append(checked)

    monkeypatch.setattr(agent, "run", run)
    monkeypatch.setattr("router_agent.logs.set_up", lambda _: None)
    assert invoke("run", "--config", str(agent_yaml)).exit_code == 0
    assert started == [config.load(agent_yaml)]


@pytest.mark.parametrize("error", [ControlError("found another agent"), RuntimeError("unforeseen")])
def test_run_that_fails_is_4(agent_yaml: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    async def run(checked: Config) -> None:
        raise error

    monkeypatch.setattr(agent, "run", run)
    monkeypatch.setattr("router_agent.logs.set_up", lambda _: None)
    assert invoke("run", "--config", str(agent_yaml)).exit_code == 4


def test_module_can_be_run_and_starts_light() -> None:
    assert spawn("version").stdout == f"{__version__}\n"
    assert spawn("show", "status", "--socket", "/nonexistent/s").returncode == 3
    probe = "import sys, router_agent.cli; print(*sorted(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "pydantic", "yaml", "asyncio", "pyroute2"} & set(loaded.split())
