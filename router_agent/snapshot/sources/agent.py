"""The agent, over its control socket: pipelines and their counts, and ExaBGP's sessions as it sees them."""

from __future__ import annotations

from router_agent.config import ExabgpFeedConfig
from router_agent.control import ControlClient, ControlError, RefusedError
from router_agent.model import Family
from router_agent.observe.answers import FeedSession, PipelineStatus, Status
from router_agent.observe.ask import NotHereError, NotKnownError
from router_agent.snapshot.model import ESTABLISHED, Agent, Counts, Exabgp, Pipeline, Prefixes, Session
from router_agent.snapshot.sources.router import Router

_FAMILIES = {Family.IPV4: "ipv4Unicast", Family.IPV6: "ipv6Unicast"}


def read(router: Router) -> Agent:
    """Return what the agent says of itself and its pipelines.

    Raises:
        NotHereError: this host has no agent.
        NotKnownError: it does not answer.
    """
    status = _status(router)
    return Agent(
        version=status.version,
        uptime_seconds=status.uptime_seconds,
        pipelines=tuple(_pipeline(pipeline) for pipeline in status.pipelines),
    )


def read_exabgp(router: Router) -> Exabgp:
    """Return ExaBGP's sessions; it runs without a command line of its own, so the agent is asked.

    Raises:
        NotHereError: no pipeline follows an ExaBGP.
        NotKnownError: the agent does not answer.
    """
    pipelines = router.config.pipelines if router.config else ()
    if not any(isinstance(pipeline.feed, ExabgpFeedConfig) for pipeline in pipelines):
        raise NotHereError("no pipeline of the agent follows ExaBGP")
    found = [session for pipeline in _status(router).pipelines for session in pipeline.sessions]
    return Exabgp(sessions=tuple(map(_session, found)))


def _status(router: Router) -> Status:
    if router.config is None:
        raise NotHereError(f"there is no {router.config_path}: this host has no agent")
    try:
        return ControlClient(router.config.control.socket).status()
    except (ControlError, RefusedError) as error:
        raise NotKnownError(str(error)) from error


def _pipeline(status: PipelineStatus) -> Pipeline:
    audit = status.audit
    return Pipeline(
        name=status.name,
        feed=status.feed,
        fib=status.fib,
        state=status.state,
        error=status.error,
        counts={
            counts.family.label: Counts(
                desired=counts.desired,
                in_fib=counts.in_fib,
                pending=counts.pending,
                unknown=counts.unknown,
                not_in_fib={str(reason): number for reason, number in counts.not_in_fib.items() if number},
            )
            for counts in status.counts
        },
        neighbours=status.neighbours,
        standing=audit.standing if audit else 0,
        unexplained=audit.unexplained if audit else 0,
    )


def _session(found: FeedSession) -> Session:
    return Session(
        peer=found.peer,
        remote_as=found.peer_as,
        state=ESTABLISHED if found.up else "not established",
        uptime_seconds=found.up_seconds,
        families={
            _FAMILIES[family]: Prefixes(received=count, accepted=count)
            for family, count in found.routes.items()
        },
    )
