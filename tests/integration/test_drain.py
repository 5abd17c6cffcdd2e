"""router-agent drain against real FRR: what neighbours see, when traffic has moved, what a drain outlives."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from frr_configuration import DRAINED
from router_agent.drain.frr import shutdown_of
from router_agent.lab.daemon import wait_until

from .drained_pop import ADDRESSES, COMMUNITY, GRACEFUL, NETWORK, PREFIXES, ROOT, Pop, frr_configuration

ISP = "10.0.1.1"
MODULE = ROOT / "roles" / "frr" / "library" / "frr_configuration.py"
pytestmark = [
    pytest.mark.root,
    pytest.mark.daemons,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not Path("/usr/lib/frr/frr-reload.py").exists(), reason="frr is not installed"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pop]:
    with Pop(tmp_path_factory.mktemp("pop")) as pop:
        yield pop


@pytest.fixture
def pop(built: Pop) -> Iterator[Pop]:
    """The POP, undrained and as it was at first, before and after."""
    yield built
    for name, router in built.routers.items():
        router.configure_drain()
        if "bgpd" not in router.vtysh("show daemons"):
            router.frr("restart")
        code, _ = router.asked("undrain")
        assert code == 0
        assert router.configuration.read_text() == frr_configuration(name)
    built.wait_settled()


def applied(pop: Pop, *, check: bool = False) -> dict[str, Any]:
    """Run role frr's module on one, as site.yml does."""
    arguments = {
        "configuration": frr_configuration("one"),
        "_ansible_check_mode": check,
        "_ansible_remote_tmp": str(pop.directory),
    }
    done = subprocess.run(
        pop.one.inside(sys.executable, str(MODULE)),
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    assert not result.get("failed"), result["msg"]
    return result


def packets_a_second(pop: Pop) -> float:
    start, before = time.monotonic(), pop.one.received("wan")
    time.sleep(1)  # what is measured is a rate
    return (pop.one.received("wan") - before) / (time.monotonic() - start)


def preference_inside_the_as(pop: Pop) -> dict[str, int]:
    """Return LOCAL_PREF of what two hears from one: the POP's network and one of the ISP's."""
    found = {}
    for prefix in (NETWORK, "5.0.1.0/24"):
        paths = pop.two.shown(f"show bgp ipv4 unicast {prefix} json")["paths"]
        (path,) = (each for each in paths if each["peer"]["peerId"] == "10.0.3.1")
        found[prefix] = int(path["locPrf"])
    return found


def test_neighbours_see_it_and_the_traffic_moves(pop: Pop) -> None:
    assert pop.one.asked("drained") == (1, pop.one.asked("drained")[1])
    with pop.traffic(2000):
        wait_until(lambda: pop.two.received("wan") >= 0, "counters", seconds=5)
        code, done = pop.one.asked("drain", "--reason", "new NIC", "--by", "noc")
        assert code == 0, done
        assert done["drained"]
        assert done["changed"]
        assert (done["mark"]["by"], done["mark"]["reason"], done["mark"]["keep"]) == ("noc", "new NIC", False)
        traffic = done["traffic"]
        assert traffic["gone"]
        assert traffic["before_pps"] > 1000
        assert traffic["pps"] <= traffic["threshold_pps"] == 100
        assert pop.way() == "two"
        before = pop.two.received("wan")
        wait_until(lambda: pop.two.received("wan") > before + 1000, "traffic through two", seconds=10)
    assert pop.communities("one") == f"({COMMUNITY.replace(':', ',')}) {GRACEFUL}"
    assert pop.communities("two") == f"({COMMUNITY.replace(':', ',')})"
    assert preference_inside_the_as(pop) == {NETWORK: 0, "5.0.1.0/24": 0}
    assert pop.one.bgp_prefixes() == PREFIXES, "it still forwards what comes"
    assert pop.one.asked("drained")[0] == 0

    code, done = pop.one.asked("drain")
    assert (code, done["changed"], done["mark"]["by"]) == (0, False, "noc")

    code, done = pop.one.asked("undrain")
    assert (code, done["drained"], done["changed"]) == (0, False, True)
    wait_until(lambda: pop.way() == "one", "the way back", seconds=10)
    assert GRACEFUL not in pop.communities("one")
    assert preference_inside_the_as(pop) == {NETWORK: 100, "5.0.1.0/24": 100}
    assert pop.one.asked("undrain")[1]["changed"] is False


def test_it_says_when_the_traffic_stays(pop: Pop) -> None:
    pop.honour(honour=False)
    try:
        with pop.traffic(2000):
            code, done = pop.one.asked("drain", "--seconds", "3")
            assert code == 1
            assert done["drained"]
            assert not done["traffic"]["gone"]
            assert "they come in by wan" in done["traffic"]["words"]
            assert "The router stays drained" in done["traffic"]["words"]
            # A share of what there was before may be enough.
            code, done = pop.one.asked("drain", "--below-share", "0.999", "--below-pps", "3000")
            assert code == 0, done
    finally:
        pop.honour(honour=True)


def test_it_outlives_a_restart_of_frr_and_a_run_of_the_role(pop: Pop) -> None:
    assert pop.one.asked("drain", "--no-wait")[0] == 0
    text = frr_configuration("one").replace("router bgp", f"{DRAINED}router bgp", 1)
    assert pop.one.configuration.read_text() == text
    for check in (True, False):
        result = applied(pop, check=check)
        assert (result["changed"], result["delta"]) == (False, ""), result
    assert pop.one.asked("drained")[0] == 0
    pop.one.run("/usr/lib/frr/frr-reload.py", "--reload", "/etc/frr/frr.conf")
    assert pop.one.asked("drained")[0] == 0

    pop.one.frr("restart")
    wait_until(lambda: pop.communities("one").endswith(GRACEFUL), "one's route", seconds=60)
    assert pop.one.asked("drained")[0] == 0

    # What is done behind its back is found out, and put right by the role.
    pop.one.vtysh("configure terminal", "no bgp graceful-shutdown")
    code, done = pop.one.asked("drained")
    assert code == 1
    assert "although the router is marked: drain again" in done["speakers"][0]["words"]
    assert applied(pop)["action"] == "reload"
    assert pop.one.asked("drained")[0] == 0


def test_it_outlives_a_reboot_when_asked_to(pop: Pop) -> None:
    assert pop.one.asked("drain", "--no-wait", "--keep-over-reboot")[0] == 0
    pop.one.frr("stop")
    for keep in (True, False):
        options = [] if keep else ["--no-keep-over-reboot"]
        assert pop.one.asked("drain", "--no-wait", *options)[0] == 0
        pop.one.reboot()
        code, done = pop.one.asked("drain-before-start")
        assert (code, done["drained"]) == (0, keep)
        assert (DRAINED in pop.one.configuration.read_text()) is keep
        assert pop.one.asked("drain-before-start")[1]["changed"] is False
    pop.one.frr("start")
    wait_until(lambda: pop.communities("one") != "-", "one's route", seconds=60)
    assert GRACEFUL not in pop.communities("one")
    assert pop.one.asked("drained")[0] == 1


def test_undrain_works_without_frr(pop: Pop) -> None:
    assert pop.one.asked("drain", "--no-wait", "--keep-over-reboot")[0] == 0
    pop.one.vtysh("write memory")
    assert DRAINED not in pop.one.configuration.read_text(), "vtysh keeps no comments"
    pop.one.frr("stop")
    code, done = pop.one.asked("undrain")
    assert code == 0
    assert done["speakers"][0]["words"] == "bgpd does not run; it comes back undrained"
    assert not shutdown_of(pop.one.configuration.read_text()).any
    pop.one.configuration.write_text(frr_configuration("one"))
    pop.one.frr("start")
    wait_until(lambda: pop.communities("one") != "-", "one's route", seconds=60)
    assert GRACEFUL not in pop.communities("one")


def test_every_instance_shuts_down_whatever_somebody_did_to_one(pop: Pop) -> None:
    """bgpd takes it for all only while no instance has it of its own."""
    pop.one.vtysh("configure terminal", "router bgp 64511 vrf RED", "bgp graceful-shutdown")
    try:
        code, done = pop.one.asked("drain", "--no-wait")
        assert code == 0, done
        assert done["speakers"][0]["words"].endswith("router bgp 64500, router bgp 64511 vrf RED")
        wait_until(lambda: pop.communities("one").endswith(GRACEFUL), "the community", seconds=10)
        assert pop.one.asked("undrain")[0] == 0
        assert "\n bgp graceful-shutdown" not in pop.one.vtysh("show running-config bgpd")
        assert pop.one.asked("drain", "--no-wait")[0] == 0
        assert "\nbgp graceful-shutdown\n" in pop.one.vtysh("show running-config bgpd"), "and those to come"
    finally:
        pop.one.asked("undrain")
        pop.one.vtysh("configure terminal", "no router bgp 64511 vrf RED")


def test_it_says_which_speaker_is_not_drained(pop: Pop) -> None:
    """bgpd hangs: the router is marked, and will be drained; it is not yet."""
    pop.one.configure_drain(frr={"seconds": 1})
    pid = int(pop.one.run("cat", "/run/frr/bgpd.pid"))
    watchfrr = int(pop.one.run("cat", "/run/frr/watchfrr.pid"))
    for each in (watchfrr, pid):
        subprocess.run(["kill", f"-{signal.SIGSTOP.value}", str(each)], check=True)
    try:
        done = pop.one.agent("drain", "--json")
        assert done.returncode == 4
        assert "FRR: vtysh" in done.stderr
        assert "found no answer within 1 s; is bgpd stuck?" in done.stderr
        assert json.loads(done.stdout)["mark"]
        assert json.loads(done.stdout)["traffic"] is None
        assert DRAINED in pop.one.configuration.read_text()
        assert pop.one.agent("drained").returncode == 1
        done = pop.one.agent("undrain")
        assert done.returncode == 4
        assert pop.one.configuration.read_text() == frr_configuration("one")
    finally:
        for each in (pid, watchfrr):
            subprocess.run(["kill", f"-{signal.SIGCONT.value}", str(each)], check=True)
    assert pop.one.asked("drained")[1]["mark"] is None


def test_a_dry_run_changes_nothing(pop: Pop) -> None:
    code, done = pop.one.asked("drain", "--dry-run")
    assert (code, done["changed"], done["mark"]) == (0, True, None)
    assert pop.one.asked("drained")[0] == 1
    assert pop.one.asked("undrain", "--dry-run")[1]["changed"] is False


def test_what_a_router_carries_is_told(pop: Pop) -> None:
    done = pop.one.agent("carried", "--prefix", NETWORK, "--prefix", "192.0.2.0/24")
    found = json.loads(done.stdout)
    assert found["problems"] == []
    assert found["drained"] is False
    assert found["tables"]["ipv4"]["prefixes"] == PREFIXES
    assert found["tables"]["ipv6"]["prefixes"] == 0
    assert found["announced"] == {NETWORK: ["10.0.1.1", "10.0.3.2"], "192.0.2.0/24": []}
    states = {address: peer["state"] for address, peer in found["sessions"]["ipv4"].items()}
    assert states == {"10.0.1.1": "Established", "10.0.3.2": "Established"}
    assert set(ADDRESSES) == {"one", "two"}


def test_what_bgp_and_bfd_send_does_not_hold_it_up(pop: Pop) -> None:
    """The ISP sends 20 BFD packets a second, and everything again when it is asked to refresh."""
    bfd = f"neighbor {ISP} bfd"
    pop.one.vtysh("configure terminal", "bfd", "profile fast", "receive-interval 50")
    pop.one.vtysh("configure terminal", "router bgp 64500", f"{bfd} profile fast")
    try:
        wait_until(lambda: packets_a_second(pop) > 10, "BFD at its pace", seconds=30)
        assert {each["status"] for each in pop.one.shown("show bfd peers json")} == {"up"}
        code, done = pop.one.asked("drain", "--below-pps", "5", "--seconds", "20")
        assert code == 0, done
        assert packets_a_second(pop) > 10
    finally:
        pop.one.vtysh("configure terminal", "router bgp 64500", f"no {bfd} profile fast", bfd)
        # bfdd keeps an empty stanza, which the role would take out: this test is the last one.
        pop.one.vtysh("configure terminal", "bfd", "no profile fast")
