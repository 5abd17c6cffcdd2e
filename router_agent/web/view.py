"""What the looking glass shows at one moment; also the answer of ``api/v1/state``.

Units are in the names; everything else is a count. A reader ignores keys it does not know.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from router_agent.host_reader.answers import Sessions
from router_agent.observe.answers import PipelineStatus
from router_agent.web.drained import Drained

SCHEMA = "router-agent/looking-glass/1"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Tone(StrEnum):
    """How bad something is, mildest first."""

    GOOD = "good"
    NOTE = "note"
    """Worth knowing; nothing is wrong."""
    WARN = "warn"
    BAD = "bad"

    @property
    def rank(self) -> int:
        """Greater is worse."""
        return list(Tone).index(self)


class Finding(_Part):
    """Something about the router that a person should know.

    Attributes:
        tone: how bad it is.
        word: the same in two or three words.
        what: what was found, in a sentence.
        do: what to do about it; empty where there is nothing to do.
    """

    tone: Tone
    word: str
    what: str
    do: str = ""


class AgentView(_Part):
    """The agent, as far as it can be heard.

    Attributes:
        up: whether it answered when it was asked last.
        heard: when it answered last; None when it never did while this process has run.
        silent_since: when it was first asked in vain; None while it answers.
        problem: why it does not answer.
        version: of the agent that was heard last.
        uptime_seconds: likewise, then.
        rss_bytes: likewise.
    """

    up: bool
    heard: datetime | None = None
    silent_since: datetime | None = None
    problem: str | None = None
    version: str | None = None
    uptime_seconds: float = 0.0
    rss_bytes: int = 0


class PortView(_Part):
    """One port.

    Attributes:
        name: of the forwarding plane.
        up: whether its link is up; None where that is not known.
        received_bits_per_second: without preamble, gap and frame check sequence, as the port counts.
        sent_bits_per_second: likewise.
        received_packets_per_second: packets.
        sent_packets_per_second: packets.
        dropped_per_second: packets that the forwarding plane dropped, was too slow for or found broken;
            rates are None until there are two readings to tell them from.
    """

    name: str
    up: bool | None = None
    received_bits_per_second: float | None = None
    sent_bits_per_second: float | None = None
    received_packets_per_second: float | None = None
    sent_packets_per_second: float | None = None
    dropped_per_second: float | None = None


class WorkerView(_Part):
    """One thread of the forwarding plane.

    Attributes:
        name: of the thread.
        vectors_per_call: packets that it took at a time; at 256 it can do no more.
        loops_per_second: turns of its loop.
    """

    name: str
    vectors_per_call: float
    loops_per_second: float


class View(_Part):
    """The router at one moment.

    Attributes:
        form: name and version of this shape.
        router: name of the router.
        at: when it was looked at.
        verdict: the worst finding, or that all is well.
        findings: everything found, worst first.
        drained: None while the router is in service.
        agent: whether the agent answers.
        pipelines: as they were when the agent was last heard.
        sessions: BGP sessions of FRR; None where nobody is configured to be asked.
        ports: ports of the forwarding plane.
        ports_left_out: further ones.
        ports_problem: why they are not known.
        workers: threads of the forwarding plane that forward.
        version: of this process.
    """

    form: str = Field(default=SCHEMA, serialization_alias="schema")
    router: str
    at: datetime
    verdict: Finding
    findings: tuple[Finding, ...] = ()
    drained: Drained | None = None
    agent: AgentView
    pipelines: tuple[PipelineStatus, ...] = ()
    sessions: Sessions | None = None
    ports: tuple[PortView, ...] = ()
    ports_left_out: int = 0
    ports_problem: str | None = None
    workers: tuple[WorkerView, ...] = ()
    version: str
