"""A churn stream as rtnetlink writes into a namespace's kernel: what zebra does, without its own limits."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from router_agent.lab.churn import WITHDRAWN, Churn
from router_agent.lab.replay import Progress, Script, begun, play
from router_agent.model import I64, U8, U32, U64, Family, PathSet
from router_agent.netlink import constants as c
from router_agent.netlink.encode import REPLACE, Writer, fill
from router_agent.netlink.sockets import WriteSocket

_LOADED_AT_ONCE = 1 << 16
_SEQUENCE_WORD = 2
_FLAGS_BYTE = 6


class KernelReplay:
    """Writes a stream into the main table of a namespace's kernel, as a routing daemon would.

    Args:
        namespace: whose kernel.
        path_sets: by family, what path numbers from 1 on stand for.
        protocol: route protocol id to write with.
        metric: route priority to write with.

    Attributes:
        refused: what the kernel refused, by errno name.
    """

    def __init__(
        self,
        namespace: str,
        path_sets: Mapping[Family, Sequence[PathSet]],
        *,
        protocol: int,
        metric: int = 20,
    ) -> None:
        self._path_sets = path_sets
        self._writer = Writer(protocol, metric)
        self._socket = WriteSocket(namespace)
        self.refused: Counter[str] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def load(self, churn: Churn) -> None:
        """Write what the table leads to before the first change."""
        for family in Family:
            rows = np.flatnonzero(churn.before[family] != WITHDRAWN)
            for start in range(0, len(rows), _LOADED_AT_ONCE):
                part = rows[start : start + _LOADED_AT_ONCE]
                paths = churn.before[family][part]
                script = self._script(
                    np.full(len(part), family, np.uint8),
                    {family: churn.table.keys(family)[part]},
                    paths,
                    np.zeros(len(part)),
                )
                self.run(script)

    def script(self, churn: Churn) -> Script:
        """Encode a stream, one message a change."""
        return self._script(
            churn.families, {family: churn.keys(family) for family in Family}, churn.paths, churn.seconds
        )

    def run(self, script: Script, progress: Progress | None = None) -> Progress:
        """Replay a stream to its end.

        Raises:
            NetlinkError: the socket failed.
        """
        progress = progress or begun(script)
        play(script, lambda begin, end: self._send(script, begin, end), progress)
        return progress

    def legs(self, family: Family, number: int) -> frozenset[bytes]:
        """Return the gateways that a path number stands for."""
        return frozenset(leg.gateway for leg in self._path_sets[family][number - 1].paths)

    def _script(
        self,
        families: U8,
        keys: Mapping[Family, U64],
        paths: U32,
        due: NDArray[np.float64],
    ) -> Script:
        order: list[tuple[I64, U32]] = []
        words = np.zeros(len(families), np.int64)
        for family in keys:
            ours = np.flatnonzero(families == family)
            of_family = paths[ours]
            for number in np.unique(of_family):
                chosen = np.flatnonzero(of_family == number)
                template = self._template(family, int(number))
                block = fill(template, keys[family][chosen], 0).view(np.uint32).reshape(len(chosen), -1)
                words[ours[chosen]] = block.shape[1]
                order.append((ours[chosen], block))
        ends = np.cumsum(words)
        data: U32 = np.empty(int(ends[-1]) if len(ends) else 0, np.uint32)
        for rows, block in order:
            block[:, _SEQUENCE_WORD] = rows + 1
            starts = ends[rows] - block.shape[1]
            data[starts[:, None] + np.arange(block.shape[1])] = block
        return Script(data.view(np.uint8), ends * 4, due, np.arange(1, len(ends) + 1))

    def _template(self, family: Family, number: int) -> bytes:
        if number == WITHDRAWN:
            return self._writer.withdrawal(family, c.RT_TABLE_MAIN)
        paths = self._path_sets[family][number - 1]
        return self._writer.route(family, c.RT_TABLE_MAIN, paths, flags=REPLACE)

    def _send(self, script: Script, begin: int, end: int) -> None:
        data = script.part(begin, end).copy()
        last = script.start(end - 1) - script.start(begin)
        data[last + _FLAGS_BYTE] |= c.NLM_F_ACK
        for answer, _ in self._socket.exchange(data, end):
            for number in answer.errors[answer.errors != 0].tolist():
                self.refused[errno.errorcode.get(-number, str(number))] += 1
