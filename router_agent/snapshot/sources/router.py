"""What there is to ask on a router, and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from router_agent.config import Config, ExabgpFeedConfig, FeedConfig, FpmFeedConfig, VppFibConfig
from router_agent.netlink.constants import ZEBRA_PROTOCOLS


@dataclass(frozen=True, slots=True)
class Router:
    """A router and the ways to its parts.

    Attributes:
        config: the agent's configuration, which says what is fed by what; None on a host without an agent.
        config_path: where it is, or would be.
        vtysh: the command that runs FRR's vtysh.
        root: directory that holds the host's /proc, /etc and so on.
        exabgp: the virtual environment that ExaBGP is installed in.
    """

    config: Config | None
    config_path: Path
    vtysh: tuple[str, ...] = ("vtysh",)
    root: Path = Path("/")
    exabgp: str = "/opt/exabgp"

    @property
    def namespaces(self) -> list[str | None]:
        """The network namespaces that pipelines name, the caller's own first."""
        found: dict[str | None, None] = {None: None}
        for pipeline in self.config.pipelines if self.config else ():
            for part in (pipeline.feed, pipeline.fib):
                found[getattr(part, "namespace", None)] = None
        return list(found)

    @property
    def control_namespace(self) -> str | None:
        """The namespace whose kernel BGP writes to; None is the caller's own."""
        for pipeline in self.config.pipelines if self.config else ():
            if not isinstance(pipeline.feed, ExabgpFeedConfig):
                return pipeline.feed.namespace
        return None

    @property
    def vpps(self) -> dict[str, tuple[Path, Path]]:
        """API socket and stats socket of each VPP that a pipeline writes to, by the former's name."""
        found = {}
        for pipeline in self.config.pipelines if self.config else ():
            if isinstance(fib := pipeline.fib, VppFibConfig):
                stats = fib.stats_socket or fib.api_socket.with_name("stats.sock")
                found[str(fib.api_socket)] = (fib.api_socket, stats)
        return found


def followed_protocols(feed: FeedConfig) -> frozenset[int] | None:
    """Return the protocols whose routes in the kernel a feed follows; None stands for all.

    What zebra sends over FPM it installs in the kernel as well.
    """
    if isinstance(feed, FpmFeedConfig):
        return frozenset(feed.kernel_protocols) | ZEBRA_PROTOCOLS
    protocols = getattr(feed, "protocols", None)
    return None if protocols is None else frozenset(protocols)
