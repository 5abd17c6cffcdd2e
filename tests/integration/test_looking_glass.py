"""The looking glass in a real Chromium, over a whole router: FRR, BIRD, VPP, the agent, the web.

The web process and the reader of the host run as users with no rights but their groups.
"""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from router_agent.control import ControlClient
from router_agent.host_reader.answers import PrefixRequest, PrefixSteps
from router_agent.lab.agent import agent_config
from router_agent.lab.daemon import Daemon, wait_until
from router_agent.lab.lab import FibKind, Lab
from router_agent.lab.plan import PORTS
from router_agent.lab.plane import VppPlane
from router_agent.lab.table import generated_table
from router_agent.model import MAIN_TABLE, Family
from router_agent.observe.answers import Stage

from . import chromium
from .chromium import Chromium, Page
from .test_explain import WAY, some_prefix
from .whole_lab import traffic

pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.vpp,
    pytest.mark.skipif(
        chromium.PROGRAM is None, reason="there is no Chromium: nobody has looked; apt-get install chromium"
    ),
]

SECONDS = 90.0
IPV4, IPV6 = 300, 50
WEB_USER, HOST_USER = "nobody", "daemon"
"""Users with no rights at all, for the web process and for the reader of the host."""
PAGE_BYTES = 200_000

FITS = """(() => {
  const root = document.documentElement;
  const hidden = (e) => getComputedStyle(e).display === "none";
  const inside = (e) => e.closest(".scroll, svg, .skip, .unseen, noscript, head") || hidden(e);
  const wide = [...document.body.querySelectorAll("*")].filter((e) => !inside(e)
    && e.getBoundingClientRect().right > root.clientWidth + 1);
  const plots = [...document.querySelectorAll("svg.plot")];
  const outside = plots.flatMap((p) => [...p.querySelectorAll("text")].filter((t) => {
    const a = t.getBoundingClientRect(), b = p.getBoundingClientRect();
    return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1 || a.top < b.top - 1; }))
    .map((t) => t.textContent);
  const smallest = Math.min(...plots.flatMap((p) => [...p.querySelectorAll("text")])
    .map((t) => t.getBoundingClientRect().height));
  return { width: root.clientWidth, scroll: root.scrollWidth, plots: plots.length, outside, smallest,
    wide: wide.map((e) => `${e.tagName}.${e.className}`) };
})()"""
"""What does not fit into the window."""


@dataclass(frozen=True)
class Site:
    """A router, and the processes that show it."""

    lab: Lab
    url: str
    web: Daemon
    host: Daemon
    mark: Path
    apart: bool
    """Whether these processes run as other users."""

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}api/v1/state", timeout=SECONDS) as answer:
            found: dict[str, Any] = json.load(answer)
            return found

    def answers(self) -> bool:
        try:
            return bool(self.state())
        except OSError:
            return False

    def start_web(self) -> None:
        self.web.start()
        wait_until(self.answers, "the web process to answer", seconds=SECONDS, daemons=[self.web])


def unprivileged(user: str, groups: str, *command: str) -> list[str]:
    """A command as a user with no capability, and no way to one."""
    return [
        *("setpriv", "--reuid", user, "--regid", str(pwd.getpwnam(user).pw_gid), "--groups", groups),
        *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", *command),
    ]


def others_may_run_it() -> bool:
    """Whether this Python and its modules are where other users may read them."""
    command = unprivileged(WEB_USER, "nogroup", sys.executable, "-c", "import router_agent.cli, numpy")
    return subprocess.run(command, capture_output=True, check=False, timeout=SECONDS).returncode == 0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def site(module_lab_name: str) -> Iterator[Site]:
    with Lab(module_lab_name, table=generated_table(IPV4, IPV6), fib=FibKind.VPP) as lab:
        directory = lab.topology.directory
        gid = str(pwd.getpwnam(WEB_USER).pw_gid)
        lab.configure()
        lab.agent.config.write_text(
            agent_config(lab.agent_pipelines, lab.agent.socket)
            + f"  readers_socket: {directory}/agent/readers.sock\n  readers_group: '{gid}'\n"
        )
        lab.agent.socket.parent.chmod(0o755)
        lab.plane.start()
        lab.meet_neighbours()
        lab.agent.start()
        lab.start_bgp()
        lab.wait_settled(seconds=SECONDS)
        lab.meet_neighbours()
        with serving(lab, gid) as found:
            yield found


@contextmanager
def serving(lab: Lab, gid: str) -> Iterator[Site]:
    assert lab.frr is not None
    logs = lab.topology.directory / "site"
    logs.mkdir(mode=0o755)
    place = lab.topology.directory / "host"
    place.mkdir(mode=0o755)
    os.chown(place, pwd.getpwnam(HOST_USER).pw_uid, -1)
    program, apart = [sys.executable, "-m", "router_agent.cli"], others_may_run_it()
    read = [*program, "host-reader", "--socket", str(place / "reader.sock"), "--group", gid]
    read += ["--vtysh", shlex.join(lab.frr.vtysh)]
    host = Daemon(
        "host-reader",
        unprivileged(HOST_USER, f"frrvty,{gid}", *read) if apart else read,
        namespace=lab.topology.pop,
        directory=logs,
    )
    port, mark, config = free_port(), logs / "drained", logs / "web.yaml"
    config.write_text(
        f"port: {port}\ncontrol_socket: {lab.agent.socket.parent}/readers.sock\n"
        f"host_socket: {place}/reader.sock\nrouter: pop1\ndrained_mark: {mark}\n"
    )
    serve = [*program, "web", "--config", str(config)]
    web_process = Daemon(
        "web", unprivileged(WEB_USER, gid, *serve) if apart else serve, namespace=None, directory=logs
    )
    site = Site(lab, f"http://127.0.0.1:{port}/", web_process, host, mark, apart)
    try:
        host.start()
        wait_until(
            (place / "reader.sock").is_socket, "the reader of the host", seconds=SECONDS, daemons=[host]
        )
        site.start_web()
        yield site
    finally:
        web_process.stop()
        host.stop()


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def browser(chrome: Chromium) -> Iterator[Chromium]:
    yield chrome
    chrome.close_pages()


@pytest.fixture
def page(site: Site, browser: Chromium) -> Page:
    page = browser.page(site.url)
    page.wait_until("document.querySelector('.word').textContent === 'In sync'", seconds=SECONDS)
    return page


def shot(page: Page, name: str) -> None:
    """Keep what it looks like, where somebody wants to see it."""
    if directory := os.environ.get("LOOKING_GLASS_SHOTS"):
        page.screenshot(Path(directory) / f"{name}.png")


def assert_quiet(page: Page, site: Site) -> None:
    """Nothing was complained of, nothing but GET was asked, and nobody but the server."""
    assert page.complaints == []
    assert {method for method, _ in page.requests} == {"GET"}
    others = [url for _, url in page.requests if not url.startswith((site.url, "data:,"))]
    assert others == []


def test_a_router_in_sync(site: Site, page: Page) -> None:
    held = {count["family"]: count["in_fib"] for count in site.state()["pipelines"][0]["counts"]}
    assert held[Family.IPV4] > IPV4
    assert f"The FIB holds what it should: {held[Family.IPV4]} IPv4" in page.text("#now")
    sessions = page.text("#sessions")
    assert "upstream, IPv4" in sessions
    assert sessions.count("Established") == 2
    assert "AS 64500, router id 198.18.1.1" in page.text("#router")
    ports = {port["name"] for port in site.state()["ports"]}
    assert len(ports) >= len(PORTS)
    assert all(name in page.text("#ports") for name in ports)
    page.wait_until("document.querySelector('#freshness').textContent.startsWith('Live')")
    page.wait_until("document.querySelectorAll('figure[data-plot=routes] .plot path.curve').length === 2")
    shot(page, "in-sync")
    assert_quiet(page, site)


def test_the_first_view_is_one_request_and_small(site: Site, browser: Chromium) -> None:
    page = browser.page(site.url, script=False)
    assert [url for _, url in page.requests if not url.startswith("data:")] == [site.url]
    assert "In sync" in page.text("#now")
    assert "Established" in page.text("#sessions")
    assert "this page stands still" in page.text("noscript")
    assert page.value("document.querySelectorAll('.plots:not([hidden])').length") == 0
    with urllib.request.urlopen(site.url, timeout=SECONDS) as answer:
        assert len(answer.read()) < PAGE_BYTES
    shot(page, "no-script")


@pytest.mark.parametrize(
    ("width", "height"), [(1600, 1000), (1024, 800), (768, 1000), (390, 844), (320, 640)]
)
def test_it_fits_every_screen(site: Site, browser: Chromium, width: int, height: int) -> None:
    page = browser.page(f"{site.url}explain?prefix={some_prefix(site.lab)}", width=width, height=height)
    page.wait_until("document.querySelectorAll('figure .plot path.curve').length >= 6")
    found = page.value(FITS)
    shot(page, f"width-{width}")
    assert found["width"] == width
    assert found["scroll"] <= width
    assert (found["wide"], found["outside"], found["plots"]) == ([], [], 4)
    assert found["smallest"] >= 10


def test_light_and_dark(site: Site, page: Page) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        colours = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        seen[scheme] = [brightness(colour) for colour in page.value(colours)]
        shot(page, scheme)
    assert seen["light"][0] < 80 < 200 < seen["light"][1]
    assert seen["dark"][1] < 60 < 200 < seen["dark"][0]


def brightness(colour: str) -> float:
    red, green, blue = (int(n) for n in colour.removeprefix("rgb(").rstrip(")").split(","))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_plots_move_when_packets_flow(site: Site, page: Page) -> None:
    page.wait_until("document.querySelectorAll('figure[data-plot=traffic] .plot path.curve').length === 2")
    page.value(
        "(() => { const unit = document.getElementById('unit'); unit.value = 'packets';"
        " unit.dispatchEvent(new Event('change')); })()"
    )
    received = (
        "Math.max(0, ...[...document.querySelectorAll('#ports td:nth-child(4)')]"
        ".map((cell) => parseFloat(cell.textContent) * (cell.textContent.includes('k') ? 1000 : 1) || 0))"
    )
    with traffic(site.lab):
        page.wait_until(f"{received} > 500", seconds=SECONDS)
        moved = (
            "(() => { const path = document.querySelector('[data-plot=traffic] .plot path.curve.first');"
            " const found = [...path.getAttribute('d').matchAll(/[ML][\\d.]+ ([\\d.]+)/g)];"
            " const ys = found.map((m) => Number(m[1]));"
            " return ys.length > 1 && Math.max(...ys) - Math.min(...ys) > 50; })()"
        )
        page.wait_until(moved, seconds=SECONDS)
        page.wait_until(
            "/received [\\d.]+ k?packets/.test("
            "document.querySelector('figure[data-plot=traffic] figcaption').innerText)"
        )
        shot(page, "traffic")
    assert_quiet(page, site)


def test_a_plot_tells_its_values_to_the_keyboard_and_the_mouse(site: Site, page: Page) -> None:
    slider = "document.querySelector('figure[data-plot=routes] .slider')"
    page.wait_until(f"Number({slider}.getAttribute('aria-valuemax')) > 2", seconds=SECONDS)
    page.value(f"{slider}.focus()")
    newest = page.value(f"{slider}.getAttribute('aria-valuetext')")
    for key in ("Home", "ArrowRight"):
        page.press(key)
    older = page.value(f"{slider}.getAttribute('aria-valuetext')")
    assert older != newest
    assert "UTC: fib, IPv4 " in older
    assert "before now" in page.text("figure[data-plot=routes] .summary")
    page.press("Escape")
    assert "before now" not in page.text("figure[data-plot=routes] .summary")
    box = page.value(
        f"(({{left, top, width, height}}) => [left + width / 2, top + height / 2])"
        f"(({slider}.scrollIntoView({{block: 'center'}}), {slider}.getBoundingClientRect()))"
    )
    page.value(f"{slider}.blur()")
    page.move_mouse(*box)
    page.move_mouse(box[0] + 2, box[1])
    page.wait_until("!!document.querySelector('figure[data-plot=routes] .moment')")
    assert "before now" in page.text("figure[data-plot=routes] .summary")
    assert_quiet(page, site)


def ask(page: Page, prefix: str) -> None:
    page.value(
        f"document.getElementById('prefix').value = {json.dumps(prefix)};"
        "document.querySelector('#ask button').click()"
    )
    page.wait_until(
        "document.querySelector('#explanation').children.length"
        " && document.querySelector('#explanation').textContent.trim() !== 'Asking…'"
    )


@pytest.mark.parametrize("family", list(Family))
def test_the_reader_of_the_host_tells_of_frr_and_the_kernel(site: Site, family: Family) -> None:
    reader = site.lab.topology.directory / "host" / "reader.sock"
    wanted = PrefixRequest(prefix=some_prefix(site.lab, family), table=MAIN_TABLE)  # type: ignore[arg-type]
    rows = ControlClient(reader).rows("prefix", wanted.model_dump(mode="json"))
    found = [step for row in rows for step in PrefixSteps.model_validate(row).steps]
    assert {step.stage for step in found} == {Stage.BGP, Stage.ZEBRA, Stage.KERNEL}
    assert all(step.known and step.holds for step in found), found
    assert any("next-hop object" in step.words for step in found)
    (ports,) = ControlClient(reader).rows("ports")
    assert {port.name for port in PORTS} <= {port["name"] for port in ports["rows"]}


@pytest.mark.parametrize("family", list(Family))
def test_explain_shows_the_chain(site: Site, page: Page, family: Family) -> None:
    prefix = some_prefix(site.lab, family)
    ask(page, prefix)
    stages = page.value("[...document.querySelectorAll('.chain .stage')].map((e) => e.textContent)")
    assert list(dict.fromkeys(stages)) == WAY
    marks = page.value("[...document.querySelectorAll('.chain .mark')].map((e) => e.textContent)")
    unknown = {stage for stage, mark in zip(stages, marks, strict=True) if mark != "ok"}
    # The lab's feed names its namespace, and the reader of the host tells of its own only.
    assert unknown == {"kernel"}, page.text("#explanation")
    assert marks.count("??") == 1
    assert f"Forwarded: {prefix} is in the FIB as wanted" in page.text("#explanation")
    shot(page, f"explain-{family.label}")
    assert_quiet(page, site)


def test_explain_works_without_a_script(site: Site, browser: Chromium) -> None:
    wait_until(lambda: explained(site, some_prefix(site.lab)) == 200, "a turn to ask", seconds=SECONDS)
    wait_until(
        lambda: (
            "Forwarded: "
            in browser.page(f"{site.url}explain?prefix={some_prefix(site.lab)}", script=False).text(
                "#explanation"
            )
        ),
        "the chain",
        seconds=SECONDS,
    )


def explained(site: Site, prefix: str) -> int:
    try:
        with urllib.request.urlopen(f"{site.url}api/v1/explain?prefix={prefix}", timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_what_is_no_prefix_is_said(site: Site, page: Page) -> None:
    ask(page, "<img src=x onerror=alert(1)>")
    assert "expected a prefix such as 192.0.2.0/24" in page.text("#explanation")
    assert page.value("document.querySelectorAll('#explanation img').length") == 0


def test_hostile_names_are_text(site: Site, page: Page) -> None:
    """What a neighbour's description says is whatever somebody typed."""
    frr = site.lab.frr
    assert frr is not None
    hostile = "<img src=x onerror=document.title='got'></td><script>alert(1)</script>"
    address = PORTS[0].gateway(Family.IPV4)
    words = ("configure terminal", "router bgp", f"neighbor {address} description {hostile}")
    before = ("configure terminal", "router bgp", f"neighbor {address} description upstream, IPv4")
    try:
        subprocess.run([*frr.vtysh, *(w for word in words for w in ("-c", word))], check=True)
        page.wait_until(
            f"document.querySelector('#sessions').textContent.includes({json.dumps(hostile)})",
            seconds=SECONDS,
        )
        assert page.value("document.querySelectorAll('img, #sessions script').length") == 0
        assert "got" not in page.value("document.title")
        assert_quiet(page, site)
    finally:
        subprocess.run([*frr.vtysh, *(w for word in before for w in ("-c", word))], check=True)


def test_a_drained_router_says_so(site: Site, page: Page) -> None:
    mark = {
        "schema": "router-agent/drained/1",
        "since": "2026-01-02T03:04:05Z",
        "reason": "optics",
        "by": "ops",
    }
    site.mark.write_text(json.dumps(mark))
    site.mark.chmod(0o644)
    try:
        page.wait_until("!!document.querySelector('#now .drained')", seconds=SECONDS)
        assert "Drained since 2026-01-02 03:04:05 by ops: optics." in page.text("#now")
        assert page.value("document.title") == "Drained, In sync: pop1"
        shot(page, "drained")
    finally:
        site.mark.unlink()
    page.wait_until("!document.querySelector('#now .drained')", seconds=SECONDS)


def test_it_pauses_and_goes_on(site: Site, page: Page) -> None:
    page.value("document.querySelector('#pause').click()")
    assert page.text("#freshness").startswith("Paused: as it was")
    count = len(page.requests)
    page.wait_until("/as it was [3-9] s ago/.test(document.querySelector('#freshness').textContent)")
    assert len(page.requests) <= count + 1
    page.value("document.querySelector('#pause').click()")
    page.wait_until("document.querySelector('#freshness').textContent.startsWith('Live')", seconds=SECONDS)


def test_a_vpp_that_is_killed_is_the_verdict(site: Site, page: Page) -> None:
    site.lab.plane.kill()
    try:
        page.wait_until("document.querySelector('.word').textContent === 'FIB lost'", seconds=SECONDS)
        assert "journalctl -u vpp" in page.text("#now")
        assert "unknown" in page.text("#tables")
        shot(page, "fib-lost")
    finally:
        site.lab.plane.start()
        site.lab.meet_neighbours()
    page.wait_until("document.querySelector('.word').textContent === 'In sync'", seconds=SECONDS)
    assert_quiet(page, site)


def test_an_agent_that_is_down_is_said_and_the_page_lives(site: Site, page: Page, browser: Chromium) -> None:
    site.lab.agent.stop()
    try:
        page.wait_until("document.querySelector('.word').textContent === 'Agent down'", seconds=SECONDS)
        assert "has not answered since" in page.text("#now")
        assert "when it was last heard" in page.text("#tables")
        shot(page, "agent-down")
        late = browser.page(site.url)
        assert "Agent down" in late.text("#now")
        page.show()  # a tab that nobody sees asks nothing
    finally:
        site.lab.agent.start()
        site.lab.meet_neighbours()
    page.wait_until("document.querySelector('.word').textContent === 'In sync'", seconds=SECONDS)
    assert_quiet(page, site)


def test_a_server_that_is_away_is_said_and_found_again(site: Site, page: Page) -> None:
    site.web.stop()
    try:
        page.wait_until(
            "/^Last heard \\d+ s ago .*trying again/.test(document.querySelector('#freshness').textContent)",
            seconds=SECONDS,
        )
        assert page.value("document.body.classList.contains('stale')")
        shot(page, "stale")
    finally:
        site.start_web()
    page.wait_until("document.querySelector('#freshness').textContent.startsWith('Live')", seconds=SECONDS)
    assert not page.value("document.body.classList.contains('stale')")


async def test_behind_a_proxy_under_a_path_of_its_own(site: Site, browser: Chromium) -> None:
    """As docs/looking-glass.md has nginx do it: /routers/pop1/ leads to the root of the web process."""
    prefix, seen = "/routers/pop1", list[str]()

    async def forward(request: web.Request) -> web.Response:
        seen.append(request.path)
        if not request.path.startswith(f"{prefix}/"):
            raise web.HTTPNotFound
        async with ClientSession() as session:
            url = site.url.rstrip("/") + str(request.rel_url).removeprefix(prefix)
            async with session.request(request.method, url) as answer:
                kept = {
                    n: v
                    for n, v in answer.headers.items()
                    if n in ("Content-Type", "Content-Security-Policy")
                }
                return web.Response(status=answer.status, body=await answer.read(), headers=kept)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", forward)
    runner = web.AppRunner(app)
    await runner.setup()
    proxy = web.TCPSite(runner, "127.0.0.1", 0)
    await proxy.start()
    port = runner.addresses[0][1]

    def looked() -> Page:
        page = browser.page(f"http://127.0.0.1:{port}{prefix}/")
        page.wait_until(
            "document.querySelector('#freshness').textContent.startsWith('Live')", seconds=SECONDS
        )
        ask(page, "not a prefix")
        return page

    try:
        page = await asyncio.to_thread(looked)
        said, complaints = await asyncio.to_thread(lambda: (page.text("#explanation"), page.complaints))
        await asyncio.to_thread(page.go, "about:blank")
    finally:
        await runner.cleanup()
    assert "expected a prefix" in said
    assert [path for path in seen if not path.startswith(f"{prefix}/")] == []
    # Chromium itself says of an answer of 400 that it is one.
    assert [line for line in complaints if "400" not in line] == []


def test_no_method_changes_anything(site: Site) -> None:
    before = site.lab.agent.pipeline()
    assert before is not None
    for path in ("", "explain?prefix=10.0.0.0/8", "live", "api/v1/state", "api/v1/explain", "metrics", "x"):
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            request = urllib.request.Request(f"{site.url}{path}", data=b"{}", method=method)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=SECONDS)
            assert refused.value.code == 405
            refused.value.close()
    after = site.lab.agent.pipeline()
    assert after is not None
    assert (after.resyncs, after.writes) == (before.resyncs, before.writes)


RIGHTS = """
import json, socket, sys
found = {}
for path in sys.argv[1:]:
    with socket.socket(socket.AF_UNIX) as tried:
        try:
            tried.connect(path)
            found[path] = "open"
        except OSError as error:
            found[path] = type(error).__name__
print(json.dumps(found))
"""


def test_the_web_process_may_open_nothing_that_changes_anything(site: Site) -> None:
    """It runs as a user with one group: that of the two sockets that only tell."""
    lab = site.lab
    if not site.apart:
        pytest.skip(
            f"{WEB_USER} may not read {sys.executable} and its modules: the processes run as root here"
        )
    assert isinstance(lab.plane, VppPlane)
    control, readers = lab.agent.socket, lab.agent.socket.parent / "readers.sock"
    host = lab.topology.directory / "host" / "reader.sock"
    vty = sorted(map(str, lab.topology.frr_runtime.glob("*.vty")))
    assert len(vty) == 3
    status = Path(f"/proc/{site.web.pid}/status").read_text()
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    user = pwd.getpwnam(WEB_USER)
    assert lines["Uid"].split() == [str(user.pw_uid)] * 4
    assert lines["Groups"].split() == [str(user.pw_gid)]
    assert {lines[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    assert lines["NoNewPrivs"] == "1"
    paths = [str(control), str(readers), str(host), str(lab.plane.process.api_socket), *vty]
    command = unprivileged(WEB_USER, str(user.pw_gid), sys.executable, "-c", RIGHTS, *paths)
    found = json.loads(subprocess.check_output(command, text=True, timeout=SECONDS))
    assert {path for path, said in found.items() if said == "open"} == {str(readers), str(host)}
    assert {found[path] for path in (str(control), *vty)} == {"PermissionError"}
