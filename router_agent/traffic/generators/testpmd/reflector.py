"""What stands where a device would: frames go back, or over to the other port, as fast as testpmd takes them.

It has no table and drops nothing on purpose, so what a tester loses with it in the device's place is the
tester's own, and the highest rate through it is the tester's ceiling. On memif it is the server, as a device
is.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from router_agent.traffic.generators.generator import GeneratorError
from router_agent.traffic.generators.testpmd import devices, ports
from router_agent.traffic.generators.testpmd.process import Testpmd
from router_agent.traffic.scenario import Endpoints


class Reflector:
    """Reflects while it is entered.

    Args:
        endpoints: one port, whose frames go back by it with their MACs exchanged; or two, each of which gets
            the other's frames as they are.
        frame_bytes: the longest frame with its FCS.
        cpus: of its console, then of a thread for each port.
    """

    def __init__(self, endpoints: Endpoints, *, frame_bytes: int = 1_518, cpus: tuple[int, ...] = ()) -> None:
        if len(endpoints.ports) not in {1, 2}:
            raise GeneratorError(f"a reflector has one port or two, found {len(endpoints.ports)}")
        self.endpoints = endpoints
        self._frame_bytes = frame_bytes
        self._cpus = cpus
        self._stack = ExitStack()
        self._testpmd: Testpmd | None = None
        self._numbers: list[int] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._open(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._testpmd = None
        self._stack.close()

    @property
    def testpmd(self) -> Testpmd:
        """The program.

        Raises:
            GeneratorError: it is not entered.
        """
        if self._testpmd is None:
            raise GeneratorError("the reflector is not open: use it in a `with` block")
        return self._testpmd

    def statistics(self) -> list[Mapping[str, int]]:
        """Return the counters of each port (rte_ethdev.h: struct rte_eth_stats).

        Raises:
            GeneratorError: testpmd has ended.
        """
        return [ports.statistics(self.testpmd, number) for number in self._numbers]

    def _open(self, stack: ExitStack) -> None:
        ends = self.endpoints.ports
        directory = Path(tempfile.mkdtemp(prefix="reflector-"))
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        self._testpmd = ports.program(
            directory,
            self.endpoints,
            frame_bytes=self._frame_bytes,
            threads=len(ends),
            cpus=self._cpus,
            serve=True,
        )
        stack.enter_context(devices.flags_kept(ends))
        stack.enter_context(self._testpmd)
        self._numbers = ports.numbers(self._testpmd, ends)
        back = len(ends) == 1
        self._testpmd.command(f"set portlist {','.join(map(str, self._numbers))}")
        self._testpmd.command("set fwd macswap" if back else "set fwd io", "packet forwarding mode")
        self._testpmd.command("start", "packet forwarding")
