"""The looking glass: a page for people, the same for programs, and what keeps both from costing much.

    GET ./                        the page
    GET ./explain?prefix=P        the page, with the way of a prefix
    GET ./live?after=CURSOR       what has changed on the page since (for the page itself)
    GET ./api/v1/state            `View`
    GET ./api/v1/history?after=C  samples, see `_history`
    GET ./api/v1/explain?prefix=P `Explanation`

Every address is relative, so that a proxy may serve it under any path. Whoever looks is given what was
sampled, and costs the agent nothing; only `explain` asks it, and is let through seldom.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from ipaddress import ip_network
from math import isnan

from aiohttp import web

from router_agent.host_reader.answers import PrefixRequest, PrefixSteps
from router_agent.model import Prefix
from router_agent.observe.answers import ExplainRequest, Explanation, PipelineExplanation, Stage, Step
from router_agent.observe.control_plane import FEEDS_BEHIND_ZEBRA
from router_agent.web.agent import Agent
from router_agent.web.config import WebConfig
from router_agent.web.history import History, Part
from router_agent.web.limit import Bucket
from router_agent.web.pages import Pages
from router_agent.web.sampler import Sampler
from router_agent.web.view import View

LOOKS_PER_SECOND = 40.0
"""Of everybody together: some forty who watch."""
LOOKS_AT_ONCE = 80
EXPLANATIONS_PER_SECOND = 1.0
EXPLANATIONS_AT_ONCE = 5
HISTORY_SCHEMA = "router-agent/looking-glass-history/1"
_PREFIX = re.compile(r"[0-9A-Fa-f.:/]{2,49}")
_BEFORE_THE_AGENT = (Stage.BGP, Stage.ZEBRA, Stage.KERNEL)


def looking_glass(config: WebConfig, agent: Agent) -> LookingGlass:
    """Return the looking glass of a configuration."""
    host = None
    if config.host_socket is not None:
        host = Agent(config.host_socket, name="the reader of the host", unit="router-agent-host-reader")
    sampler = Sampler(
        router=config.router or socket.gethostname(),
        agent=agent,
        host=host,
        mark=config.drained_mark,
        history=History(),
    )
    return LookingGlass(sampler=sampler, pages=Pages(), agent=agent, host=host)


class PrefixError(ValueError):
    """What was typed is no prefix; the message says what is expected."""


class LookingGlass:
    """Answers of the looking glass.

    Args:
        sampler: who looks at the router.
        pages: who writes the page.
        agent: who is asked to explain.
        host: who is asked for what BGP, zebra and the kernel say; None where there is nobody.
    """

    def __init__(self, *, sampler: Sampler, pages: Pages, agent: Agent, host: Agent | None) -> None:
        self._sampler = sampler
        self._pages = pages
        self._agent = agent
        self._host = host
        self._looks = Bucket(rate=LOOKS_PER_SECOND, burst=LOOKS_AT_ONCE)
        self._explanations = Bucket(rate=EXPLANATIONS_PER_SECOND, burst=EXPLANATIONS_AT_ONCE)
        self._parts: tuple[View, dict[str, str]] | None = None

    def add_to(self, app: web.Application) -> None:
        """Serve it, and look at the router as long as the application runs."""
        app.router.add_get("/", self._page)
        app.router.add_get("/explain", self._explain_page)
        app.router.add_get("/live", self._live)
        app.router.add_get("/api/v1/state", self._state)
        app.router.add_get("/api/v1/history", self._history)
        app.router.add_get("/api/v1/explain", self._explain)
        app.cleanup_ctx.append(self._sampling)

    async def _sampling(self, _: web.Application) -> AsyncIterator[None]:
        task = asyncio.create_task(self._sampler.run(), name="sampler")
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        if self._host is not None:
            await self._host.close()

    async def _page(self, _: web.Request) -> web.Response:
        self._let_look()
        view = await self._sampler.watch()
        return self._html(self._pages.page(view, age_seconds=self._sampler.age_seconds))

    async def _explain_page(self, request: web.Request) -> web.Response:
        self._let_look()
        typed, view = request.query.get("prefix", "")[:64], await self._sampler.watch()
        status, trouble, explanation = 200, None, None
        try:
            explanation = await self._explained(typed)
        except PrefixError as error:
            status, trouble = 400, str(error)
        except web.HTTPException as error:
            status, trouble = error.status, error.text
        page = self._pages.page(
            view,
            age_seconds=self._sampler.age_seconds,
            prefix=typed,
            explanation=explanation,
            trouble=trouble,
        )
        return self._html(page, status)

    async def _live(self, request: web.Request) -> web.Response:
        self._let_look()
        view = await self._sampler.watch()
        return _json(
            {
                "build": self._pages.build,
                "age_seconds": round(self._sampler.age_seconds, 3),
                "title": self._pages.title(view),
                "parts": self._rendered(view),
                "history": _columns(self._sampler.history.since(request.query.get("after"))),
            }
        )

    async def _state(self, _: web.Request) -> web.Response:
        self._let_look()
        view = await self._sampler.watch()
        return web.Response(text=view.model_dump_json(by_alias=True), content_type="application/json")

    async def _history(self, request: web.Request) -> web.Response:
        """Answer with samples, oldest first: `Part`, its columns with null where there was no value."""
        self._let_look()
        await self._sampler.watch()
        part = self._sampler.history.since(request.query.get("after"))
        return _json({"schema": HISTORY_SCHEMA, **_columns(part)})

    async def _explain(self, request: web.Request) -> web.Response:
        try:
            found = await self._explained(request.query.get("prefix", ""))
        except PrefixError as error:
            raise web.HTTPBadRequest(text=f"{error}\n") from error
        return web.Response(text=found.model_dump_json(), content_type="application/json")

    async def _explained(self, typed: str) -> Explanation:
        """Follow a prefix from BGP to the packets.

        Raises:
            PrefixError: it is none.
            web.HTTPException: too much was asked, or the agent does not answer.
        """
        prefix = prefix_of(typed)
        if not self._explanations.take():
            raise web.HTTPTooManyRequests(
                text="Too many prefixes were asked for; ask again in a few seconds.",
                headers={"Retry-After": "2"},
            )
        heard = await self._agent.explain(ExplainRequest(prefix=prefix))
        if heard.row is None:
            raise web.HTTPServiceUnavailable(text=heard.problem or "the agent does not explain it")
        found = [await self._with_control_plane(pipeline, prefix) for pipeline in heard.row.pipelines]
        return heard.row.model_copy(update={"pipelines": tuple(found)})

    async def _with_control_plane(self, found: PipelineExplanation, asked: Prefix) -> PipelineExplanation:
        """Put what BGP, zebra and the kernel say before what the agent says, as the command line does."""
        if found.feed not in FEEDS_BEHIND_ZEBRA:
            return found
        before = await self._before(found, ip_network(found.prefix) if found.prefix else asked)
        return found.model_copy(update={"steps": (*before, *found.steps)})

    async def _before(self, found: PipelineExplanation, prefix: Prefix) -> tuple[Step, ...]:
        if self._host is None:
            return _unknown(
                "nobody here may be asked; on the router: router-agent explain", _BEFORE_THE_AGENT
            )
        wanted = PrefixRequest(prefix=prefix, table=found.table)
        heard = await self._host.ask("prefix", PrefixSteps, wanted.model_dump(mode="json"))
        if heard.row is None:
            return _unknown(heard.problem or "nobody was asked", _BEFORE_THE_AGENT)
        if found.namespace is None:
            return heard.row.steps
        # The reader of the host sees its own namespace's routes, and may enter no other.
        words = f"in network namespace {found.namespace}; on the router: router-agent explain"
        steps = tuple(step for step in heard.row.steps if step.stage is not Stage.KERNEL)
        return (*steps, *_unknown(words, (Stage.KERNEL,)))

    def _rendered(self, view: View) -> dict[str, str]:
        """Return the page's parts; rendered once for all who look at the same view."""
        if self._parts is None or self._parts[0] is not view:
            self._parts = view, self._pages.parts(view)
        return self._parts[1]

    def _let_look(self) -> None:
        if not self._looks.take():
            raise web.HTTPTooManyRequests(
                text="Too many look at once; the page asks again by itself.\n", headers={"Retry-After": "3"}
            )

    def _html(self, text: str, status: int = 200) -> web.Response:
        headers = {"Content-Security-Policy": self._pages.policy}
        response = web.Response(
            text=text, status=status, content_type="text/html", charset="utf-8", headers=headers
        )
        response.enable_compression()
        return response


def prefix_of(typed: str) -> Prefix:
    """Return the prefix that somebody typed; an address is a prefix of full length.

    Raises:
        PrefixError: it is none.
    """
    text = typed.strip()
    if not _PREFIX.fullmatch(text):
        raise PrefixError(f"found {text[:64]!r}, expected a prefix such as 192.0.2.0/24 or 2001:db8::/32")
    try:
        return ip_network(text)
    except ValueError as error:
        raise PrefixError(f"{error}; expected a prefix such as 192.0.2.0/24 or 2001:db8::/32") from error


def _unknown(words: str, stages: tuple[Stage, ...]) -> tuple[Step, ...]:
    return tuple(Step(stage=stage, words=words, known=False) for stage in stages)


def _columns(part: Part) -> dict[str, object]:
    columns = {name: [_short(value) for value in column] for name, column in part.columns.items()}
    return {
        "cursor": part.cursor,
        "whole": part.whole,
        "at": [round(at, 2) for at in part.at],
        "columns": columns,
    }


def _short(value: float) -> float | None:
    """Return a figure as it is worth sending: of six digits."""
    if isnan(value):
        return None
    return round(value) if abs(value) >= 1e6 else float(f"{value:.6g}")


def _json(content: object) -> web.Response:
    response = web.json_response(content)
    response.enable_compression()
    return response
