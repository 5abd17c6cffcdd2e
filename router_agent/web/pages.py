"""The looking glass's page and the parts of it that are renewed, from `templates/looking_glass`.

Style and script are inside the page, so that it comes in one request. Nothing else runs or is shown: the
content security policy names both by their hashes.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from datetime import UTC, datetime

from markupsafe import Markup

from router_agent.observe.answers import Explanation
from router_agent.page_templates import directory_of, templates_in
from router_agent.web.findings import ago
from router_agent.web.view import View

PARTS = ("router", "now", "ports", "tables", "sessions")
"""Parts of the page that are renewed: macros of sections.html.j2, and ids of the elements that hold them."""
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_NONE = "-"


class Pages:
    """Renders the page.

    Args:
        metrics: whether the page is to name the metrics beside it.

    Attributes:
        policy: the content security policy that the page works under.
        build: changes with the page; a page that was loaded with another is to be loaded anew.
    """

    def __init__(self, *, metrics: bool = True) -> None:
        directory = directory_of("looking_glass")
        templates = templates_in(directory)
        templates.filters |= {
            "count": lambda value: f"{value:,}",
            "si": si,
            "span": ago,
            "brief": brief,
            "bytes": in_bytes,
            "clock": clock,
        }
        style, script = ((directory / name).read_text(encoding="utf-8") for name in ("style.css", "live.js"))
        self._page = templates.get_template("page.html.j2")
        self._sections = templates.get_template("sections.html.j2")
        self._fixed = {"style": Markup(style), "script": Markup(script), "metrics": metrics}  # noqa: S704 - our own
        self.policy = "; ".join(
            (
                "default-src 'none'",
                f"script-src '{_hash(script)}'",
                f"style-src '{_hash(style)}'",
                "connect-src 'self'",
                "img-src data:",
                "form-action 'self'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
            )
        )
        parts = [path.read_bytes() for path in sorted(directory.iterdir())]
        self.build = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]

    def page(
        self,
        view: View,
        *,
        age_seconds: float = 0.0,
        prefix: str = "",
        explanation: Explanation | None = None,
        trouble: str | None = None,
    ) -> str:
        """Return the whole page.

        Args:
            view: what it shows.
            age_seconds: of the view.
            prefix: as somebody typed it.
            explanation: of that prefix.
            trouble: why there is none.
        """
        return self._page.render(
            _context(view, prefix=prefix, explanation=explanation, trouble=trouble),
            title=self.title(view),
            build=self.build,
            age=age_seconds,
            **self._fixed,
        )

    def parts(self, view: View) -> dict[str, str]:
        """Return the parts of the page that are renewed, by the id of the element that holds them."""
        module = self._sections.make_module(_context(view))
        return {name: str(getattr(module, name)()) for name in PARTS}

    def title(self, view: View) -> str:
        """Return the page's title, as text and not as HTML."""
        drained = "Drained, " if view.drained else ""
        return f"{drained}{view.verdict.word}: {view.router}"


def si(value: float | None, unit: str) -> str:
    """Return a number of three digits with the SI prefix and unit that fit."""
    if value is None:
        return _NONE
    for size, prefix in _UNITS:
        if value >= size:
            return f"{float(f'{value / size:.3g}'):g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def brief(seconds: float) -> str:
    """Return a short time in the unit that fits."""
    if seconds >= 60:
        return ago(seconds)
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds else "0 s"


def in_bytes(value: int) -> str:
    """Return a size with the SI prefix that fits."""
    return si(value, "B")


def clock(moment: datetime) -> str:
    """Return date and time to the second, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _context(
    view: View, *, prefix: str = "", explanation: Explanation | None = None, trouble: str | None = None
) -> dict[str, object]:
    sessions = [(pipeline.name, row) for pipeline in view.pipelines for row in pipeline.sessions]
    return {
        "view": view,
        "feed_sessions": sessions,
        "prefix": prefix,
        "explanation": explanation,
        "trouble": trouble,
    }


def _hash(text: str) -> str:
    """Return what a content security policy calls an inline element by (CSP 3, 6.7.2.2)."""
    return f"sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
