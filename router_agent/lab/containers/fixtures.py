"""What tests may ask for: whole hosts in containers. A conftest.py imports the fixture.

    from router_agent.lab.containers.fixtures import containers

@pytest.fixture(scope="module")
def lab(containers: Callable[..., Containers]) -> Iterator[Containers]:
    with containers("r1", "r2") as lab:
        yield lab
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from router_agent.lab.containers.hosts import Containers, unavailable


@pytest.fixture(scope="session")
def containers() -> Callable[..., Containers]:
    """What makes hosts in containers, by their names and `Containers`' options: a context manager.

    Where none can run, the tests that ask for it are skipped, with the reason.
    """
    if reason := unavailable():
        pytest.skip(f"{reason}; nothing proven with whole hosts")

    def make(*hosts: str, **options: Any) -> Containers:
        return Containers(f"t{secrets.token_hex(3)}", hosts, progress=_print, **options)

    return make


def _print(text: str) -> None:
    print(text, flush=True)
