"""Labs for integration tests: names nobody else has, and everything taken down whatever happens.

A test that wants a lab of its own asks for `lab_name` and enters `Lab`; those that may share one use the
module's. Tests marked ``vpp`` are skipped where there is none.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator

import pytest

from router_agent.lab.plane import vpp_available
from router_agent.lab.topology import Topology


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what cannot run here, and say why."""
    reasons = {
        "root": None if os.geteuid() == 0 else "needs root",
        "vpp": None if vpp_available() else "needs a real VPP; `vpp` is not on PATH",
    }
    for item in items:
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def lab_name() -> Iterator[str]:
    """A lab's name; whatever is left of it at the end is removed."""
    yield from _named()


@pytest.fixture(scope="module")
def module_lab_name() -> Iterator[str]:
    """A lab's name for all tests of a module."""
    yield from _named()


def _named() -> Iterator[str]:
    name = f"t{secrets.token_hex(4)}"
    yield name
    topology = Topology(name)
    if topology.present:
        topology.remove()
