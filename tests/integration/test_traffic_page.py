"""The page of a report in a real Chromium: no error, no request, nothing wider than a telephone.

A frame of the wanted width holds the page; a script beside it, not in it, measures what came out and writes
that into the document, which Chromium prints.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import traffic_reports
from router_agent.traffic.report.page import forwarding_html, html_of
from router_agent.traffic.scenario import Tier

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium: nobody has looked at the page; apt-get install chromium"
)

MEASURE = """
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const page = frame.contentDocument, root = page.documentElement, view = frame.contentWindow;
  const seen = (e) => { const s = view.getComputedStyle(e); return s.display !== "none"; };
  const plots = [...page.querySelectorAll("svg.plot")].filter(seen);
  const inside = (e) => { let at = e; while (at) { if (at.classList?.contains("scroll")) return true;
    if (at.tagName === "PRE") return true; at = at.parentElement; } return false; };
  const wide = [...page.body.querySelectorAll("*")].filter((e) => seen(e) && !inside(e)
    && !e.closest("svg") && !e.classList.contains("skip")
    && e.getBoundingClientRect().right > root.clientWidth + 1);
  const small = plots.flatMap((p) => [...p.querySelectorAll("text")])
    .map((t) => t.getBoundingClientRect().height);
  const outside = plots.flatMap((p) => [...p.querySelectorAll("text")].filter((t) => {
    const a = t.getBoundingClientRect(), b = p.getBoundingClientRect();
    return a.left < b.left - 1 || a.right > b.right + 1 || a.bottom > b.bottom + 1 || a.top < b.top - 1; }))
    .map((t) => t.textContent);
  const found = {
    width: root.clientWidth, scroll: root.scrollWidth, plots: plots.length,
    wide: wide.map((e) => e.tagName + "." + e.className), smallest: Math.min(...small), outside,
    heading: page.querySelector("strong").textContent,
    ink: view.getComputedStyle(page.body).color, paper: view.getComputedStyle(page.body).backgroundColor,
    unlabelled: plots.filter((p) => !p.getAttribute("aria-label")).length,
  };
  const out = document.createElement("pre");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
"""


@dataclass(frozen=True)
class Seen:
    """What Chromium made of a page: measurements, lines of its console, requests."""

    found: dict[str, Any]
    console: list[str]
    requests: list[str]


def looked_at(page: Path, width: int, directory: Path, *options: str) -> Seen:
    harness = directory / f"harness-{width}.html"
    text = json.dumps(page.read_text()).replace("</", "<\\/")
    harness.write_text(
        "<!DOCTYPE html><meta charset='utf-8'><body style='margin:0'>"
        f"<iframe style='width:{width}px;height:900px;border:0'></iframe>"
        f"<script>{MEASURE}frame.srcdoc = {text};</script>"
    )
    log = directory / f"net-{width}.json"
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--disable-component-update", "--no-first-run", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={directory / f'profile-{width}'}", f"--log-net-log={log}"),
            *("--enable-logging=stderr", "--v=0", "--hide-scrollbars", "--virtual-time-budget=10000"),
            *(f"--window-size={width},900", "--host-resolver-rules=MAP * ~NOTFOUND"),
            *options,
            *("--dump-dom", harness.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert answer is not None, done.stderr
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return Seen(json.loads(html.unescape(answer[1])), console, requested(log))


def requested(log: Path) -> list[str]:
    """Return what pages asked for, by Chromium's network log; what Chromium asks for itself has no origin."""
    found = re.findall(r'"initiator":"([^"]*)".*?"url":"([^"]+)"', log.read_text())
    return [url for initiator, url in found if initiator != "not an origin"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html_of(traffic_reports.report(tier=Tier.LINE_RATE)))
    return path


@pytest.mark.parametrize("width", [1280, 768, 390, 320])
def test_the_page_fits_and_is_readable(page: Path, width: int, tmp_path: Path) -> None:
    seen = looked_at(page, width, tmp_path)
    found = seen.found
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["wide"] == []
    assert found["heading"] == "FAIL"
    assert found["plots"] > 10
    assert found["unlabelled"] == 0
    assert found["outside"] == []
    assert found["smallest"] >= 8.5


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_of_forwarders_fits_too(width: int, tmp_path: Path) -> None:
    path = tmp_path / "forwarding.html"
    path.write_text(forwarding_html(traffic_reports.forwarding()))
    seen = looked_at(path, width, tmp_path)
    assert seen.found["scroll"] <= width
    assert (seen.found["wide"], seen.found["outside"], seen.console, seen.requests) == ([], [], [], [])


def test_the_page_has_no_errors_and_asks_nobody(page: Path, tmp_path: Path) -> None:
    seen = looked_at(page, 1280, tmp_path)
    assert seen.console == []
    assert seen.requests == []


def test_an_error_on_a_page_would_be_seen(page: Path, tmp_path: Path) -> None:
    """The looking itself: what is too wide, what the page's policy keeps from loading, and what loads."""
    image = '<img src="http://192.0.2.1/x.png"><div style="width: 2000px">wide</div>'
    bad = tmp_path / "bad.html"
    bad.write_text(page.read_text().replace("<main>", f"<main>{image}"))
    seen = looked_at(bad, 390, tmp_path)
    assert any("192.0.2.1" in line for line in seen.console)
    assert seen.requests == []
    assert seen.found["scroll"] > 390
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    bad.write_text(re.sub(r"<meta http-equiv[^>]*>", "", bad.read_text()))
    assert "http://192.0.2.1/x.png" in looked_at(bad, 390, open_to_all).requests


def test_light_and_dark_have_their_own_colours(page: Path, tmp_path: Path) -> None:
    light = looked_at(page, 640, tmp_path, "--blink-settings=preferredColorScheme=1").found
    dark = looked_at(page, 640, tmp_path, "--blink-settings=preferredColorScheme=0").found
    assert brightness(light["paper"]) > 200 > 80 > brightness(light["ink"])
    assert brightness(dark["paper"]) < 60 < 200 < brightness(dark["ink"])


def brightness(colour: str) -> float:
    red, green, blue = (int(n) for n in re.findall(r"\d+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_the_page_prints(page: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.pdf"
    assert CHROMIUM is not None
    subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"),
            *(f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={out}", page.as_uri()),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert out.read_bytes().startswith(b"%PDF")
