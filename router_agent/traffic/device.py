"""The device under test as a check knows it: its table before, its counters before and after each trial.

It is this host, perhaps one of its network namespaces, or another one over ssh. Nothing is changed on it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from router_agent.model import MAIN_TABLE, Family
from router_agent.traffic.as_found import AsFound
from router_agent.traffic.counters.kernel import KernelForwarder
from router_agent.traffic.counters.remote import kernel_counters, vpp_counters
from router_agent.traffic.counters.source import CounterSource
from router_agent.traffic.counters.vpp import VppForwarder
from router_agent.traffic.judgement.prediction import Processor, clock_hz
from router_agent.traffic.reach import Reach, ReachError
from router_agent.traffic.reach.access import reach_of
from router_agent.traffic.report.environment import Environment
from router_agent.traffic.scenario import ANY_PORT, Binding
from router_agent.traffic.scenario.aim import Reachable
from router_agent.traffic.scenario.binding import DeviceBinding
from router_agent.traffic.tables.kernel import read_kernel_table
from router_agent.traffic.tables.live import UNKNOWN, LiveTable
from router_agent.traffic.tables.remote import read_remote_table
from router_agent.traffic.tables.vpp import read_vpp_table

STATS_SOCKET = Path("/run/vpp/stats.sock")
API_SOCKET = Path("/run/vpp/api.sock")


class Device:
    """A device under test.

    Args:
        binding: what a scenario says of it.
        reach: the host it is, connected.
        faces: its interfaces that the tester's ports face; all of them when there is none.
    """

    def __init__(self, binding: DeviceBinding, reach: Reach, faces: Sequence[str]) -> None:
        self._binding = binding
        self._reach = reach
        self._faces = tuple(faces)

    def counters(self) -> CounterSource:
        """Return its counters for the ledger."""
        binding, reach = self._binding, self._reach
        if binding.forwarding == "vpp":
            socket = binding.stats_socket or STATS_SOCKET
            if binding.ssh is None:
                return VppForwarder(socket, binding.namespace)
            return vpp_counters(reach, socket, namespace=binding.namespace, program=self._program)
        if binding.ssh is None:
            return KernelForwarder(binding.namespace, self._faces or None)
        return kernel_counters(
            reach, namespace=binding.namespace, ports=self._faces or None, program=self._program
        )

    def table(self) -> LiveTable:
        """Return the table it forwards by.

        Raises:
            TableError: it cannot be read.
        """
        binding, reach = self._binding, self._reach
        if binding.forwarding == "vpp":
            api_socket, table = binding.api_socket or API_SOCKET, binding.table or 0
            if binding.ssh is None:
                return read_vpp_table(api_socket, table)
            words = ["--vpp", str(api_socket), "--table", str(table)]
            return read_remote_table(reach, words, program=self._program)
        table = MAIN_TABLE if binding.table is None else binding.table
        if binding.ssh is None:
            return read_kernel_table(binding.namespace, table)
        words = ["--kernel", "--table", str(table)]
        if binding.namespace:
            words += ["--namespace", binding.namespace]
        return read_remote_table(reach, words, program=self._program)

    def environment(self) -> Environment | None:
        """Return what its host is; None when it is this one, or does not tell."""
        if self._binding.ssh is None:
            return None
        try:
            text = self._reach.run([self._program, "traffic", "environment"]).text
            return Environment.model_validate_json(text)
        except (ReachError, ValueError):
            return None

    def processor(self) -> Processor:
        """Return what is known of its processors."""
        try:
            text = self._reach.run(["cat", "/proc/cpuinfo"]).text
        except ReachError:
            text = ""
        return Processor(clock_hz(text), self._binding.workers)

    def as_found(self) -> AsFound:
        """Return what leaves it as it was found, whatever becomes of the block around which it is."""
        return AsFound(self._reach, namespace=self._binding.namespace, program=self._program)

    @property
    def _program(self) -> str:
        """The kit's program there; here the one that belongs to this Python."""
        if self._binding.ssh is not None:
            return self._binding.ssh.router_agent
        return str(Path(sys.executable).with_name("router-agent"))


@contextmanager
def device_of(binding: Binding) -> Iterator[Device | None]:
    """Give the device of a tier for the body, connected; None where the tier names none.

    Raises:
        ReachError: there is no way to it.
    """
    if binding.device is None:
        yield None
        return
    faces = [port.faces for port in binding.ports.values() if port.faces]
    with reach_of(binding.device.ssh) as reach:
        yield Device(binding.device, reach, faces)


def reachable(table: LiveTable, faces: Sequence[str | None]) -> Reachable:
    """Return a device's table in the check's terms.

    Where every port of the tester says what it faces, prefixes that leave by any other interface (the default
    route of management) are nothing that the tester could see, and no packet goes there.

    Args:
        table: of the device.
        faces: for each of the tester's ports, in order, the device's interface that it faces, if known.
    """
    position = {name: number for number, name in enumerate(faces) if name}
    ports = [position.get(name, ANY_PORT) for name in table.interfaces]
    # the last place is that of `UNKNOWN`, which is -1
    lookup = np.array([*ports, ANY_PORT], np.int16)
    assert UNKNOWN == -1
    expected = {family: lookup[table.leaves_by[family]] for family in Family}
    if not all(faces):
        return Reachable(table.keys, expected, table.others, table.origin)
    seen = {f: (expected[f] != ANY_PORT) | (table.leaves_by[f] == UNKNOWN) for f in Family}
    return Reachable(
        {f: table.keys[f][seen[f]] for f in Family},
        {f: expected[f][seen[f]] for f in Family},
        {f: np.concatenate((table.others[f], table.keys[f][~seen[f]])) for f in Family},
        table.origin,
    )
