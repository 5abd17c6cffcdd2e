"""What FRR says, as 8.4 and 10.7 said it: recorded from the real daemons, see data/frr/README.md."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from router_agent.model import Family
from router_agent.observe.ask import NotHereError, NotKnownError
from router_agent.snapshot.model import BgpRoutes, Session
from router_agent.snapshot.sources import bfd, bgp, frr, zebra
from router_agent.snapshot.sources.router import Router

RECORDED = Path(__file__).parent / "data" / "frr"
VERSIONS = sorted(path.name for path in RECORDED.iterdir() if path.is_dir())
UPSTREAM = "198.18.1.2"


@pytest.fixture(params=VERSIONS)
def recorded(request: pytest.FixtureRequest) -> Path:
    return RECORDED / str(request.param)


def answer(recorded: Path, name: str) -> Any:
    return json.loads((recorded / name).read_text())


def sessions(recorded: Path) -> dict[tuple[str, str], Session]:
    return {(found.vrf, found.peer): found for found in bgp.sessions(answer(recorded, "summary.json"))}


def test_both_generations_of_frr_were_recorded() -> None:
    assert {version.split(".")[0] for version in VERSIONS} == {"8", "10"}


def test_the_version_is_the_one_that_was_recorded(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert frr.version(printing(recorded / "version.txt")) == recorded.name
    assert "bgpd" in frr.running(printing(recorded / "daemons.txt"))


def printing(path: Path) -> tuple[str, ...]:
    """A command that prints a file, whatever it is asked."""
    program = f"import sys; sys.stdout.write(open({str(path)!r}).read())"
    return (sys.executable, "-c", program)


def test_a_session_that_is_up(recorded: Path) -> None:
    found = sessions(recorded)["default", UPSTREAM]
    assert (found.established, found.remote_as, found.description) == (True, 64496, "upstream, IPv4")
    assert found.drops == 0
    assert found.uptime_seconds is not None
    assert found.families["ipv4Unicast"].accepted == 300
    assert found.families["ipv4Unicast"].received is None


def test_a_session_that_is_not_up_and_one_of_a_vrf(recorded: Path) -> None:
    found = sessions(recorded)
    down = found["default", "203.0.113.9"]
    assert (down.established, down.uptime_seconds, down.remote_as) == (False, None, 64999)
    assert down.families["ipv4Unicast"].accepted == 0
    assert not found["red", "203.0.113.10"].established


def test_who_keeps_what_a_neighbour_sent(recorded: Path) -> None:
    kept = bgp.keeps_received(answer(recorded, "neighbors.json"))
    assert kept == {("default", UPSTREAM, "ipv4Unicast")}
    assert bgp.received_prefixes(answer(recorded, "prefix-counts.json"), UPSTREAM) == 300


@pytest.mark.parametrize(("family", "prefixes"), [(Family.IPV4, 301), (Family.IPV6, 51)])
def test_sizes_of_tables(recorded: Path, family: Family, prefixes: int) -> None:
    """BGP's own has what this router announces itself; zebra's and the kernel's of BGP do not."""
    name = family.label.lower()
    assert bgp.table_size(answer(recorded, f"statistics-{name}.json"), family) == prefixes
    routes = zebra.bgp_routes(answer(recorded, f"routes-{name}.json"))
    assert routes == BgpRoutes(rib=prefixes - 1, fib=prefixes - 1)


def test_bfd_sessions(recorded: Path) -> None:
    found = {peer.peer: peer for peer in bfd.peers(answer(recorded, "bfd.json"))}
    assert found[UPSTREAM].status == "up"
    assert found[UPSTREAM].uptime_seconds is not None
    assert found["203.0.113.9"].status == "down"


@pytest.mark.parametrize(
    ("read", "document", "words"),
    [
        (lambda found: list(bgp.sessions(found)), {"red": {"ipv4Unicast": {"peers": {"a": {}}}}}, "pfxRcd"),
        (
            lambda found: bgp.table_size(found, Family.IPV4),
            {"ipv4Unicast": [{"instance": "VRF default", "totalPrefixes": "many"}]},
            "found 'many' as totalPrefixes, expected a number",
        ),
        (lambda found: zebra.bgp_routes(found), {"routes": [{"type": "ebgp", "rib": 1}]}, "None as fib"),
        (lambda found: bfd.peers(found), {"warning": "no"}, "expected a list"),
        (lambda found: bgp.received_prefixes(found, "a"), {"warning": "no"}, "found ['warning']"),
    ],
)
def test_what_frr_does_not_say_is_not_taken_for_nothing(read: Any, document: Any, words: str) -> None:
    with pytest.raises(NotKnownError) as refused:
        read(document)
    assert words in str(refused.value)


def test_frr_without_bgp_has_no_sessions_and_no_prefixes() -> None:
    assert list(bgp.sessions({})) == []
    assert list(bgp.sessions({"default": {"warning": "Default BGP instance not found"}})) == []
    assert bgp.table_size({}, Family.IPV4) == 0


@pytest.mark.parametrize(
    ("script", "kind", "words"),
    [
        ("/nonexistent/vtysh", NotHereError, "there is no /nonexistent/vtysh here"),
        ("sh -c 'echo failed to connect >&2; exit 1'", NotKnownError, "failed to connect"),
        ("sh -c 'echo  zebra staticd'", NotKnownError, "its bgpd does not answer"),
    ],
)
def test_frr_that_cannot_be_asked(script: str, kind: type[Exception], words: str) -> None:
    router = Router(config=None, config_path=Path("/none"), vtysh=tuple(shlex.split(script)))
    with pytest.raises(NotKnownError) as refused:
        bgp.read(router)
    assert type(refused.value) is kind
    assert words in str(refused.value)


def test_frr_without_bfdd_has_none_which_is_no_fault() -> None:
    router = Router(config=None, config_path=Path("/none"), vtysh=("sh", "-c", "echo zebra bgpd"))
    with pytest.raises(NotHereError, match="without bfdd"):
        bfd.read(router)
