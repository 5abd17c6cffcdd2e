"""Packet rates that NIC models do not exceed, whatever their link: the list of the role preflight.

There is one list, in the Ansible module that reads what a host is (`router_host_facts.py`, which must stand
alone on a bare host and so cannot import ours). It is read here as data, not run: it needs Ansible. An
installed package has a copy of the file, made when it was built.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FILE = "router_host_facts.py"
_LIST = "NIC_MODELS"


@dataclass(frozen=True)
class NicModel:
    """A model of NIC.

    Attributes:
        name: for people.
        link_bps: speed of the fastest link of a port; None where the model does not fix it.
        ceiling_pps: packets a second that one port was measured not to exceed (FD.io CSIT's performance
            methodology); None where its link is the only limit known.
    """

    name: str
    link_bps: float | None
    ceiling_pps: float | None


def model_of(pci_id: str) -> NicModel | None:
    """Return the model of a PCI id such as "8086:1572"; None for one that is not in the list."""
    return models().get(pci_id.lower())


@cache
def models() -> dict[str, NicModel]:
    """Return all models by PCI id.

    Raises:
        FileNotFoundError: the list is neither in a checkout nor in the package.
    """
    package = Path(__file__).resolve().parents[1]
    places = (package.parent / "roles" / "preflight" / "library" / _FILE, package / "data" / _FILE)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"there is no {_FILE} in {' or '.join(str(p.parent) for p in places)}")
    return _parsed(path.read_text())


def _parsed(text: str) -> dict[str, NicModel]:
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == _LIST:
            assert isinstance(statement.value, ast.Dict)
            pairs = zip(statement.value.keys, statement.value.values, strict=True)
            return {ast.literal_eval(key): _model(value) for key, value in pairs if key is not None}
    raise ValueError(f"{_FILE} has no {_LIST}")


def _model(value: ast.expr) -> NicModel:
    """Return the model of a call such as ``NicModel("Intel XL710", 40_000, 18.75)``."""
    assert isinstance(value, ast.Call)
    assert not value.keywords
    given = [ast.literal_eval(argument) for argument in value.args]
    name, rated_mbps, ceiling_mpps = given + [0, 0.0][len(given) - 1 :]
    return NicModel(name, rated_mbps * 1e6 or None, ceiling_mpps * 1e6 or None)
