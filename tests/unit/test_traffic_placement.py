"""Workers are placed near their NIC, by the files of a machine of two sockets that is written here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_agent.traffic.generators.sockets.placement import Machine, Work, cpu_list, place

NEAR, FAR = "0000:3b:00.0", "0000:d8:00.0"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Two nodes of four CPUs, two threads a core, a NIC each; the first interrupts CPUs 0 and 2."""

    def write(path: str, text: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"{text}\n")

    write("sys/devices/system/node/node0/cpulist", "0-3")
    write("sys/devices/system/node/node1/cpulist", "4,5,6-7")
    for cpu in range(8):
        write(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", f"{cpu & ~1}-{cpu | 1}")
    for nic, node, interrupts in ((NEAR, 0, {40: "0", 41: "2"}), (FAR, 1, {50: "4-7"})):
        write(f"sys/bus/pci/devices/{nic}/numa_node", str(node))
        for number, cpus in interrupts.items():
            write(f"sys/bus/pci/devices/{nic}/msi_irqs/{number}", "msix")
            write(f"proc/irq/{number}/smp_affinity_list", "0-7")
            write(f"proc/irq/{number}/effective_affinity_list", cpus)
    write("sys/bus/pci/devices/0000:00:03.0/numa_node", "-1")
    return Machine(tmp_path)


def test_a_worker_is_near_its_nic_and_not_where_interrupts_are(machine: Machine) -> None:
    found = place([Work("sender on west", (NEAR,)), Work("receiver on west", (NEAR,))], range(8), machine)
    assert found.cpus == (1, 3)
    assert found.words == (
        "sender on west on CPU 1 of its NIC's node 0; receiver on west on CPU 3 of its NIC's node 0"
    )


def test_the_core_that_serves_interrupts_is_taken_when_there_is_no_other(machine: Machine) -> None:
    works = [Work(f"w{i}", (NEAR,)) for i in range(5)]
    found = place(works, range(8), machine)
    assert found.cpus[:4] == (1, 3, 0, 2)
    assert found.cpus[4] in range(4, 8)
    assert (
        "w2 on CPU 0 of its NIC's node 0, which serves its NIC's interrupts: no other is free" in found.words
    )
    assert "w4 on CPU 4, not on its NIC's node 0: no CPU is free there" in found.words


def test_each_nic_has_its_own_node_and_a_nic_that_interrupts_all_of_it_is_said(machine: Machine) -> None:
    found = place([Work("a", (FAR,)), Work("b", (NEAR,))], range(8), machine)
    assert found.cpus == (4, 1)
    assert found.words.startswith("a on CPU 4 of its NIC's node 1, which serves its NIC's interrupts")


def test_without_a_nic_cores_are_shared_last(machine: Machine) -> None:
    works = [Work("veth"), Work("virtio", ("0000:00:03.0",)), Work("absent", ("0000:ff:00.0",))]
    assert place(works, range(8), machine).cpus == (0, 2, 4)
    assert place(works, [0, 1, 2, 3], machine).cpus == (0, 2, 1)


def test_cpus_that_are_named_are_taken(machine: Machine) -> None:
    found = place([Work(name) for name in "abc"], range(8), machine, wanted=(6, 0))
    assert found.cpus == (6, 0, 6)
    assert found.words == "a on CPU 6; b on CPU 0; c on CPU 6, as asked for"


def test_nobody_is_pinned_when_nothing_would_be_left(machine: Machine) -> None:
    found = place([Work("a"), Work("b")], [0, 1], machine)
    assert found.cpus == (None, None)
    assert found.words == "2 workers not pinned: there are 2 CPUs for everything"


@given(st.sets(st.integers(0, 300)))
def test_lists_of_cpus_are_read_as_the_kernel_writes_them(cpus: set[int]) -> None:
    text, run = [], sorted(cpus)
    while run:
        last = next((i for i in range(len(run)) if i + 1 == len(run) or run[i + 1] != run[i] + 1), 0)
        text.append(str(run[0]) if last == 0 else f"{run[0]}-{run[last]}")
        run = run[last + 1 :]
    assert cpu_list(",".join(text)) == cpus


def test_this_machine_can_be_read() -> None:
    machine = Machine()
    assert 0 in machine.siblings_of(0)
    assert machine.node_of("no such device") is None
