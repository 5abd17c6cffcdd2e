"""One fleet for all tests: three routers of two POPs, built by the unmodified playbooks, in containers."""

from __future__ import annotations

from router_agent.lab.containers.fixtures import containers

__all__ = ["containers"]
