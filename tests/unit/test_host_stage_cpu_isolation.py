"""How the CPUs are divided: CPU 0 stays with Linux, workers sit beside their NICs, siblings stay idle."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpu_layout import CpuLayoutError, cpu_kernel_arguments, cpu_layout, cpu_list, layout_problems


def machine(cores: int, *, threads: int = 1, nodes: int = 1, offline: tuple[int, ...] = ()) -> dict[str, Any]:
    """Cores are numbered node by node; the second threads of all come after the first ones, as Linux does."""
    cpus = []
    for thread in range(threads):
        for core in range(cores):
            cpu = thread * cores + core
            node = core * nodes // cores
            cpus.append(
                {"id": cpu, "package": node, "core": core, "node": node, "online": cpu not in offline}
            )
    return {
        "cpu": {"cores": cpus, "isolated": []},
        "numa_nodes": [{"id": node} for node in range(nodes)],
        "nics": [
            {
                "pci": f"0000:0{node + 1}:00.{port}",
                "interface": f"enp{node + 1}s0f{port}",
                "numa_node": node,
                "rated_mbps": 10_000,
            }
            for node in range(nodes)
            for port in range(2)
        ],
    }


UPLINK = {"name": "uplink", "device": "0000:01:00.0"}
LAN = {"name": "lan", "device": "enp1s0f1"}
FAR = {"name": "far", "device": "0000:02:00.0"}


@pytest.mark.parametrize(
    ("cores", "threads", "ports", "main", "workers", "isolated"),
    [
        pytest.param(1, 1, [UPLINK], 0, [], [], id="one CPU: no worker"),
        pytest.param(1, 2, [UPLINK], 0, [], [], id="one core of two threads: no worker"),
        pytest.param(2, 1, [UPLINK, LAN], 0, [1], [1], id="two cores: one worker, main shares CPU 0"),
        pytest.param(2, 2, [UPLINK], 0, [1], [1, 3], id="two cores of two threads: the sibling is idle"),
        pytest.param(3, 1, [UPLINK, LAN], 1, [2], [1, 2], id="three cores"),
        pytest.param(4, 1, [UPLINK, LAN], 1, [2, 3], [1, 2, 3], id="four cores: a worker for each port"),
        pytest.param(
            8, 1, [UPLINK, LAN], 1, [2, 3], [1, 2, 3], id="eight cores: what is not needed stays with Linux"
        ),
        pytest.param(8, 2, [UPLINK], 1, [2], [1, 2, 9, 10], id="siblings of main and worker are isolated"),
    ],
)
def test_default_layout(
    cores: int, threads: int, ports: list[Any], main: int, workers: list[int], isolated: list[int]
) -> None:
    layout = cpu_layout(machine(cores, threads=threads), ports)
    assert (layout["main"], layout["workers"], layout["isolated"]) == (main, workers, isolated)


def test_workers_are_on_the_node_of_the_nic() -> None:
    layout = cpu_layout(machine(8, nodes=2), [FAR])
    assert (layout["main"], layout["workers"]) == (4, [5])


def test_each_node_with_ports_has_workers() -> None:
    layout = cpu_layout(machine(8, nodes=2), [UPLINK, LAN, FAR])
    assert (layout["main"], layout["workers"]) == (1, [2, 3, 4])


def test_fast_nics_get_more_workers_and_a_quarter_of_the_cores_stays_with_linux() -> None:
    facts = machine(16)
    facts["nics"][0]["rated_mbps"] = 100_000
    layout = cpu_layout(facts, [UPLINK])
    assert layout["workers"] == list(range(2, 12))
    facts["nics"][1]["rated_mbps"] = 100_000
    assert cpu_layout(facts, [UPLINK, LAN])["housekeeping"] == [0, 13, 14, 15]


def test_a_nic_that_vfio_has_taken_changes_nothing() -> None:
    facts = machine(8)
    before = cpu_layout(facts, [LAN])
    facts["nics"][1] |= {"interface": None, "former_interface": "enp1s0f1", "speed_mbps": None}
    assert cpu_layout(facts, [LAN]) == before
    assert before["workers"] == [2]


def test_workers_asked_for_may_be_more_than_the_ports_need_and_on_other_nodes() -> None:
    layout = cpu_layout(machine(8, nodes=2), [FAR], worker_count="5")
    assert (layout["main"], layout["workers"]) == (4, [1, 2, 5, 6, 7])


def test_shared_siblings_are_asked_for() -> None:
    layout = cpu_layout(machine(4, threads=2), [UPLINK], worker_count=2, share_siblings=True)
    assert (layout["main"], layout["workers"], layout["isolated"]) == (1, [2, 6], [1, 2, 5, 6])


def test_too_many_workers_are_refused() -> None:
    with pytest.raises(CpuLayoutError, match=r"cpu_isolation_worker_count: found 4, expected at most 2"):
        cpu_layout(machine(4), [UPLINK], worker_count=4)


@pytest.mark.parametrize("arguments", [{"forwarding": "kernel"}, {"worker_count": 0}])
def test_nothing_is_isolated(arguments: dict[str, Any]) -> None:
    layout = cpu_layout(machine(8), [UPLINK], **arguments)
    assert (layout["workers"], layout["isolated"], layout["housekeeping"]) == ([], [], list(range(8)))


def test_cpus_that_are_offline_are_not_used() -> None:
    assert cpu_layout(machine(4, offline=(2,)), [UPLINK])["workers"] == [3]


@given(
    cores=st.integers(1, 32),
    threads=st.integers(1, 2),
    nodes=st.integers(1, 2),
    count=st.one_of(st.none(), st.integers(0, 8)),
    share=st.booleans(),
)
def test_every_layout_leaves_cpu_0_to_linux_and_contradicts_nothing(
    cores: int, threads: int, nodes: int, count: int | None, share: bool
) -> None:
    facts = machine(cores, threads=threads, nodes=min(nodes, cores))
    ports = [UPLINK, LAN] + ([FAR] if nodes == 2 and cores > 1 else [])
    try:
        layout = cpu_layout(facts, ports, worker_count=count, share_siblings=share)
    except CpuLayoutError:
        assert count is not None
        return
    assert layout_problems(facts, layout["main"], layout["workers"], layout["isolated"]) == []
    assert sorted(layout["isolated"] + layout["housekeeping"]) == list(range(cores * threads))
    if count is not None:
        assert len(layout["workers"]) == count
    if not share:
        core_of = {cpu["id"]: (cpu["package"], cpu["core"]) for cpu in facts["cpu"]["cores"]}
        used = [core_of[cpu] for cpu in layout["workers"]]
        assert len(set(used)) == len(used)


@given(st.sets(st.integers(0, 255)))
def test_cpu_lists_say_the_same_cpus(cpus: set[int]) -> None:
    said: set[int] = set()
    for part in filter(None, cpu_list(cpus).split(",")):
        first, _, last = part.partition("-")
        said |= set(range(int(first), int(last or first) + 1))
    assert said == cpus


def test_kernel_arguments() -> None:
    assert cpu_kernel_arguments([2, 3, 4, 7], machine(8)) == [
        "isolcpus=managed_irq,domain,2-4,7",
        "nohz_full=2-4,7",
        "rcu_nocbs=2-4,7",
        "irqaffinity=0-1,5-6",
    ]
    assert cpu_kernel_arguments([], machine(8)) == []


@pytest.mark.parametrize(
    ("main", "workers", "isolated", "message"),
    [
        (1, [2], [1, 2, 9], "cpu_isolation_cores: found 9, expected CPUs that are online (0-3)"),
        (1, [0], [0, 1], "found CPU 0, expected it to stay with Linux"),
        (1, [1], [1], "cpu_isolation_workers: found 1, which is also cpu_isolation_main_core"),
        (1, [2, 3], [1, 2], "found no 3, expected every worker to be isolated"),
        (1, [2], [0, 1, 2, 3], "found every CPU, expected one at least to be left to Linux"),
    ],
)
def test_what_somebody_chose_is_checked(
    main: int, workers: list[int], isolated: list[int], message: str
) -> None:
    assert message in "; ".join(layout_problems(machine(4), main, workers, isolated))
