"""A churn stream as rtnetlink writes into a namespace's kernel: what zebra does, without its own limits."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np

from router_agent.lab.churn import WITHDRAWN, Churn
from router_agent.lab.replay import Progress, Script, begun, play
from router_agent.model import I64, U32, Family, PathSet
from router_agent.netlink import constants as c
from router_agent.netlink.encode import REPLACE, Writer, fill
from router_agent.netlink.sockets import WriteSocket

_SEQUENCE_WORD = 2
_FLAGS_BYTE = 6


class KernelReplay:
    """Writes a stream into the main table of a namespace's kernel, as a routing daemon would.

    Args:
        namespace: whose kernel.
        path_sets: by family, what path numbers from 1 on stand for; higher ones begin with the first again.
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

    def script(self, churn: Churn) -> Script:
        """Encode a stream, one message a change."""
        parts: list[tuple[I64, U32]] = []
        words = np.zeros(len(churn), np.int64)
        for family in Family:
            ours, keys = np.flatnonzero(churn.families == family), churn.keys(family)
            for number in np.unique(churn.paths[ours]).tolist():
                chosen = np.flatnonzero(churn.paths[ours] == number)
                block = fill(self._template(family, number), keys[chosen], 0)
                parts.append((ours[chosen], block.view(np.uint32).reshape(len(chosen), -1)))
                words[parts[-1][0]] = parts[-1][1].shape[1]
        ends = np.cumsum(words)
        data: U32 = np.empty(int(words.sum()), np.uint32)
        for rows, messages in parts:
            messages[:, _SEQUENCE_WORD] = rows + 1
            starts = ends[rows] - messages.shape[1]
            data[starts[:, None] + np.arange(messages.shape[1])] = messages
        return Script(data.view(np.uint8), ends * 4, churn.seconds, np.arange(1, len(churn) + 1))

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
        return frozenset(leg.gateway for leg in self._path_set(family, number).paths)

    def _path_set(self, family: Family, number: int) -> PathSet:
        sets = self._path_sets[family]
        return sets[(number - 1) % len(sets)]

    def _template(self, family: Family, number: int) -> bytes:
        if number == WITHDRAWN:
            return self._writer.withdrawal(family, c.RT_TABLE_MAIN)
        return self._writer.route(family, c.RT_TABLE_MAIN, self._path_set(family, number), flags=REPLACE)

    def _send(self, script: Script, begin: int, end: int) -> None:
        data = script.part(begin, end).copy()
        last = script.start(end - 1) - script.start(begin)
        data[last + _FLAGS_BYTE] |= c.NLM_F_ACK
        for answer, _ in self._socket.exchange(data, end):
            for number in answer.errors[answer.errors != 0].tolist():
                self.refused[errno.errorcode.get(-number, str(number))] += 1
