"""Counters of another host, read there by the kit's own program, which is installed on every router.

It is started once and asked before and after each trial: a reading costs a line there and one back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from router_agent.traffic.counters.answers import Answer, Question
from router_agent.traffic.counters.source import CounterError, DropClass
from router_agent.traffic.reach import Reach, ReachError, Session

PROGRAM = "router-agent"
_ANSWER_S = 60.0
_MOST_BYTES = 16 << 20


class RemoteCounters:
    """A source of counters that is on another host; see `source.CounterSource`.

    Args:
        reach: the host. What was started there ends when it is closed.
        name: what the source is called in reports.
        argv: ``router-agent traffic counters`` with what chooses the source there.
    """

    def __init__(self, reach: Reach, name: str, argv: Sequence[str]) -> None:
        self.name = f"{name} on {reach.host}"
        self._reach = reach
        self._argv = [*argv, "--serve"]
        self._session: Session | None = None
        self._buffer = b""

    def read(self) -> dict[str, int]:
        """Return the counters; see `source.CounterSource`."""
        found = self._ask(Question(do="read")).counters
        if found is None:
            raise CounterError(f"{self.name}: found an answer without counters, expected them")
        return found

    def drops(self, growth: Mapping[str, int]) -> list[DropClass]:
        """Return the drop classes; see `source.CounterSource`.

        Raises:
            CounterError: the host does not answer any more.
        """
        moved = {name: n for name, n in growth.items() if n}
        found = self._ask(Question(do="drops", growth=moved)).drops
        try:
            return [drop.drop_class() for drop in found or ()]
        except ValueError as error:
            raise CounterError(f"{self.name}: {error}; is the same version of the kit there?") from error

    def _ask(self, question: Question) -> Answer:
        try:
            line = self._exchange(question.model_dump_json().encode() + b"\n")
        except (ReachError, TimeoutError) as error:
            self._hang_up()
            said = str(error) or f"no answer within {_ANSWER_S:.0f} s"
            raise CounterError(f"{self.name}: {said}") from error
        try:
            answer = Answer.model_validate_json(line)
        except ValidationError as error:
            self._hang_up()
            raise CounterError(
                f"{self.name}: found {line[:200]!r}, expected an answer of the same version of the kit"
            ) from error
        if answer.error is not None:
            raise CounterError(f"{self.name}: {answer.error}")
        return answer

    def _exchange(self, line: bytes) -> bytes:
        if self._session is None:
            self._session, self._buffer = self._reach.open(self._argv), b""
        self._session.send(line)
        while b"\n" not in self._buffer:
            data = self._session.receive(timeout_s=_ANSWER_S)
            if not data:
                raise self._session.failure(self._session.exit_code(_ANSWER_S))
            self._buffer += data
            if len(self._buffer) > _MOST_BYTES:
                raise ReachError(self._reach.host, f"found more than {_MOST_BYTES:,} bytes in one answer")
        answer, _, self._buffer = self._buffer.partition(b"\n")
        return answer

    def _hang_up(self) -> None:
        """Start anew the next time: what comes now may belong to an earlier question."""
        if self._session is not None:
            self._session.close()
            self._session = None


def kernel_counters(
    reach: Reach, *, namespace: str | None = None, ports: Sequence[str] | None = None, program: str = PROGRAM
) -> RemoteCounters:
    """Return the counters of a kernel that forwards; see `kernel.KernelForwarder`."""
    words = [program, "traffic", "counters", "--kernel", *_options("--namespace", [namespace])]
    return RemoteCounters(reach, "kernel forwarding", [*words, *_options("--port", ports or ())])


def vpp_counters(
    reach: Reach, stats_socket: Path, *, namespace: str | None = None, program: str = PROGRAM
) -> RemoteCounters:
    """Return the counters of a VPP; see `vpp.VppForwarder`."""
    words = [program, "traffic", "counters", "--vpp", str(stats_socket)]
    return RemoteCounters(reach, "VPP", [*words, *_options("--namespace", [namespace])])


def _options(name: str, values: Sequence[str | None]) -> list[str]:
    return [word for value in values if value is not None for word in (name, value)]
