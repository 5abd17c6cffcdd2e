"""The looking glass's page: complete without a script, one request, safe whatever others call things."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from html.parser import HTMLParser

import pytest

from looking_glass import explanation, lost_pipeline, view
from router_agent.web.pages import PARTS, Pages, brief, in_bytes, si

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"
BYTES = 200_000


class Seen(HTMLParser):
    """Elements of a page, their attributes, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["script"], ["style"]):
            self.words.append(data)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def tags(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def pages() -> Pages:
    return Pages()


def test_the_page_has_everything_without_a_script(pages: Pages) -> None:
    text = Seen(pages.page(view(), prefix="192.0.2.1", explanation=explanation())).text
    for words in (
        "ams1-r1",
        "AS 64512, router id 192.0.2.9",
        "Drained since 2026-01-02 03:04:05 by transit: upgrade transit.",
        "and will not after a reboot either",
        "Session down. IPv4 unicast with 198.51.100.1 (AS 4200000000, transit 0) is not established",
        "Routes missing frr transit: 3 IPv4 routes are wanted and not in the FIB",
        "1,055,514 1,055,511 0 3",
        "410 MB of 1.07 GB",
        "9.87 Gbit/s 1.23 kbit/s 14.9 M/s 0 /s 12.5 /s",
        "link down",
        "Last audit 1 min 33 s ago",
        "12.2 of 256",
        "198.51.100.1 transit 0 4200000000 IPv4 unicast Active transit",
        "192.0.2.7 64501 up 12",
        "NO entry no entry via 192.0.2.1",
        "?? kernel not asked",
        "Not forwarded: breaks at entry",
    ):
        assert words in text, words


def test_the_verdict_comes_before_all_else(pages: Pages) -> None:
    text = Seen(pages.page(view(drained=False))).text
    assert text.index("Routes missing frr") < text.index("Explain a prefix") < text.index("Ports")


def test_an_agent_that_is_down_is_said_with_its_last_state(pages: Pages) -> None:
    text = Seen(pages.page(view(up=False))).text
    assert "Agent down router-agent has not answered since 2026-01-02 03:00:45 UTC (3 min 20 s)" in text
    assert "router-agent does not answer" in text
    assert "As the agent said when it was last heard, at 2026-01-02 03:04:05 UTC." in text
    assert "1,055,514" in text


def test_of_a_fib_that_is_lost_nobody_knows_what_it_holds(pages: Pages) -> None:
    text = Seen(pages.page(view().model_copy(update={"pipelines": (lost_pipeline(),)}))).text
    assert "fib-lost IPv4 1,055,514 unknown unknown unknown" in text


def test_whatever_others_call_things_is_text(pages: Pages) -> None:
    hostile = view(word=HOSTILE, router=HOSTILE)
    shown = Seen(pages.page(hostile, prefix=HOSTILE, explanation=explanation(HOSTILE), trouble=HOSTILE))
    plain = Seen(pages.page(view(), prefix="x", explanation=explanation(), trouble="x"))
    assert [tag for tag, _ in shown.elements] == [tag for tag, _ in plain.elements]
    assert {name for _, found in shown.elements for name in found} == {
        name for _, found in plain.elements for name in found
    }
    assert shown.text.count("<img src=x onerror=alert(2)>") > 20
    for part in pages.parts(hostile).values():
        found = Seen(part)
        assert not [tag for tag, _ in found.elements if tag in ("script", "img", "iframe", "style", "link")]
        assert not [name for _, has in found.elements for name in has if name.startswith("on")]


def test_nothing_is_loaded_and_nothing_runs_but_what_the_policy_names(pages: Pages) -> None:
    text = pages.page(view(), explanation=explanation())
    shown = Seen(text)
    assert not [found for _, found in shown.elements if {"src", "srcset", "style", "data"} & set(found)]
    assert [found.get("href") for found in shown.tags("link")] == ["data:,"]
    assert "unsafe" not in pages.policy
    assert pages.policy.startswith("default-src 'none'")
    for element, directive in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(f"<{element}[^>]*>(.*?)</{element}>", text, re.DOTALL)
        digest = b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{directive} 'sha256-{digest}'" in pages.policy


def test_every_address_is_relative(pages: Pages) -> None:
    shown = Seen(pages.page(view()))
    found = [a.get("href") for a in shown.tags("a")] + [f.get("action") for f in shown.tags("form")]
    assert set(found) == {"#now", "api/v1/state", "api/v1/history", "metrics", "explain"}
    script = re.search(r"<script[^>]*>(.*?)</script>", pages.page(view()), re.DOTALL)
    assert script is not None
    assert re.findall(r"""(?:ask|const path =) ?\(?["'`](\W?\w+)""", script[1]) == ["live", "explain"]
    assert set(re.findall(r"https?://[^\s\"']+", script[1])) == {"http://www.w3.org/2000/svg"}


def test_the_page_is_small(pages: Pages) -> None:
    assert len(pages.page(view(sessions=100), explanation=explanation()).encode()) < BYTES


def test_parts_are_those_of_the_page(pages: Pages) -> None:
    shown, parts = pages.page(view()), pages.parts(view())
    assert tuple(parts) == PARTS
    for name, part in parts.items():
        assert f'<div id="{name}">{part}</div>' in shown


def test_a_host_without_frr_and_ports_is_a_page_too(pages: Pages) -> None:
    bare = view().model_copy(
        update={"sessions": None, "ports": (), "workers": (), "pipelines": (), "drained": None}
    )
    text = Seen(pages.page(bare)).text
    assert "No port is known." in text
    assert "Nobody on this router is set up to be asked for BGP sessions." in text
    trouble = bare.model_copy(update={"ports_problem": "no stats segment"})
    assert "Counters of ports are not known: no stats segment" in Seen(pages.page(trouble)).text


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "-"), (0.0, "0 B"), (0.25, "0.25 B"), (999, "999 B"), (1_000, "1 kB"), (14_880_952, "14.9 MB")],
)
def test_figures_have_si_prefixes(value: float | None, words: str) -> None:
    assert si(value, "B") == words


def test_times_and_sizes() -> None:
    assert [brief(s) for s in (0, 0.0123, 1.25, 75)] == ["0 s", "12.3 ms", "1.25 s", "1 min 15 s"]
    assert in_bytes(221_000_000) == "221 MB"
