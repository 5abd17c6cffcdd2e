"""The router that site.yml made: as asked for, and left alone by further runs."""

from __future__ import annotations

import testinfra.host

from router_agent.lab.vm.plan import DEVICES, LAN, UPLINK
from router_agent.lab.vm.traffic import prove_forwarding
from router_agent.traffic.judgement.verdict import Outcome

from .conftest import Router

PAGES = 128


def test_first_run_rebooted_once(router: Router) -> None:
    assert router.first.changed > 0
    assert router.reboots == 1


def test_kernel_runs_as_asked_for(server: testinfra.host.Host) -> None:
    arguments = set(server.file("/proc/cmdline").content_string.split())
    assert {"intel_iommu=on", "iommu=pt", "hugepagesz=2M", f"hugepages=0:{PAGES}"} <= arguments
    pages = "/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
    assert server.file(pages).content_string.strip() == str(PAGES)


def test_nics_are_where_they_belong(router: Router, server: testinfra.host.Host) -> None:
    drivers = {
        name: server.check_output(f"basename $(readlink /sys/bus/pci/devices/{device}/driver)")
        for name, device in DEVICES.items()
    }
    if router.pop.vpp:
        assert drivers == dict.fromkeys(DEVICES, "vfio-pci")
    else:
        assert drivers == {UPLINK.name: "e1000e", LAN.name: "vmxnet3"}
    for name in DEVICES:
        assert server.interface(name).exists


def test_services_run_and_start_at_boot(router: Router, server: testinfra.host.Host) -> None:
    wanted = ["frr", "exabgp", "router-agent", *(["vpp"] if router.pop.vpp else [])]
    for name in wanted:
        service = server.service(name)
        assert service.is_running, name
        assert service.is_enabled, name


def test_verification_finds_everything_as_wanted(router: Router) -> None:
    result = router.pop.playbooks.run("verify.yml").require_success()
    assert result.changed == 0


def test_routes_of_both_speakers_are_in_the_kernel(router: Router) -> None:
    host, neighbours = router.pop.host, router.pop.neighbours
    upstream, tester = neighbours.upstream.announced, neighbours.tester.announced
    found = [
        int(host.run(f"ip {family} route show proto {protocol} | grep -c via"))
        for family, protocol in (("-4", "bgp"), ("-6", "bgp"), ("-4", "201"))
    ]
    assert found == [*upstream.values(), next(iter(tester.values()))]


def test_neighbours_get_the_pop_s_own_prefixes(router: Router) -> None:
    upstream = router.pop.neighbours.upstream
    assert [upstream.imported_from(name) for name in ("pop1_v4", "pop1_v6")] == [1, 1]


def test_packets_leave_by_the_right_next_hop(router: Router) -> None:
    for ingress in (UPLINK.name, LAN.name):
        with router.pop.counters() as counters:
            result = prove_forwarding(
                router.pop.neighbours,
                ingress=ingress,
                counters=[counters],
                report=router.pop.logs / f"traffic-{ingress}",
                prefixes=2_000,
            )
        assert result.verdict.outcome is Outcome.PASS, f"{ingress}: {result.verdict.reason}"


def test_second_run_changes_and_reboots_nothing(router: Router) -> None:
    boots, booted = router.pop.boots(), router.pop.host.boot_id()
    result = router.pop.site(allow_reboot=True).require_success()
    assert result.changed_tasks == ()
    assert result.changed == 0
    assert router.pop.boots() == boots
    assert router.pop.host.boot_id() == booted


def test_check_mode_shows_no_difference(router: Router) -> None:
    result = router.pop.site({}, "--check", "--diff", allow_reboot=True).require_success()
    assert result.changed_tasks == ()
    assert result.changed == 0
    shown = [line for line in result.output.splitlines() if line.startswith(("--- ", "+++ ", "@@ "))]
    assert shown == []
