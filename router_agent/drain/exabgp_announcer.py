#!/usr/bin/env python3
"""What ExaBGP runs to have its announcements carry GRACEFUL_SHUTDOWN (RFC 8326) while the router is drained.

    process graceful-shutdown {
        run /usr/bin/python3 -I -S /path/to/exabgp_announcer.py /run/router-agent/drained /run/exabgp/it.json
            198.51.100.5 prefixes=192.0.2.0/24+192.0.3.0/24 communities=64500:100 as-path=64500+64500;
        encoder text;
    }

ExaBGP announces a router's networks by its configuration, and a reload does not announce a route again of
which only the attributes have changed (exabgp 5.0: rib/outgoing.py, replace_reload). So this process does
it over ExaBGP's API: while the mark of a drained router is there, each prefix with the community 65535:0
added; otherwise each as configured, and so at its start, which makes a change of attributes by a reload one
that neighbours hear of. A prefix is replaced, never withdrawn, and a session that comes up anew gets what
was announced last.

What ExaBGP answered is in the status file, for `router-agent drain` to read:

    {"mark": "2026-01-02T03:04:05Z", "drained": true, "taken": 2, "refused": []}

Only the standard library is used and nothing of this package, so that a plain interpreter starts it as
ExaBGP's unprivileged user. It must not end by itself: ExaBGP ends when a process of its dies too often.
"""

from __future__ import annotations

import json
import os
import select
import sys
from contextlib import suppress
from dataclasses import dataclass

GRACEFUL_SHUTDOWN = "65535:0"
LOOK_SECONDS = 1.0
"""Between two looks for the mark; ExaBGP's own health check looks for files as often."""
ANSWER_SECONDS = 10.0
"""How long ExaBGP may take to answer one command; it may be busy with a full table."""
_LONGEST = 64 << 10


class _GoneError(Exception):
    """ExaBGP has gone or wants this process to end."""


@dataclass(frozen=True)
class Neighbour:
    """What a neighbour is told: prefixes, and the attributes of all of them."""

    address: str
    prefixes: tuple[str, ...] = ()
    communities: tuple[str, ...] = ()
    as_path: tuple[str, ...] = ()

    def commands(self, *, drained: bool) -> list[str]:
        """Return the commands of ExaBGP's API that announce it all."""
        communities = (*self.communities, *([GRACEFUL_SHUTDOWN] if drained else []))
        words = "next-hop self"
        words += f" as-path [ {' '.join(self.as_path)} ]" if self.as_path else ""
        words += f" community [ {' '.join(communities)} ]" if communities else ""
        return [f"neighbor {self.address} announce route {prefix} {words}" for prefix in self.prefixes]


def neighbours_of(words: list[str]) -> list[Neighbour]:
    """Return the neighbours that the command line names, see above; ExaBGP would part words at commas.

    Raises:
        ValueError: a word is not understood.
    """
    found: list[dict[str, str]] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            found.append({"address": word})
        elif found and key in ("prefixes", "communities", "as-path"):
            found[-1][key.replace("-", "_")] = value
        else:
            raise ValueError(
                f"found {word!r}, expected a neighbour's address, then prefixes=, communities= or as-path="
            )
    return [
        Neighbour(
            address=each["address"],
            prefixes=tuple(each.get("prefixes", "").split("+")) if each.get("prefixes") else (),
            communities=tuple(each.get("communities", "").split("+")) if each.get("communities") else (),
            as_path=tuple(each.get("as_path", "").split("+")) if each.get("as_path") else (),
        )
        for each in found
    ]


class Announcer:
    """The mark on one side, ExaBGP on standard input and output.

    Args:
        mark: file that is there while the router is drained.
        status: file that says what ExaBGP has taken.
        neighbours: whom ExaBGP announces what to.
    """

    def __init__(self, mark: str, status: str, neighbours: list[Neighbour]) -> None:
        self._mark = mark
        self._status = status
        self._neighbours = neighbours
        self._input = b""
        self._said: set[str] = set()

    def run(self) -> None:
        """Follow the mark until ExaBGP ends."""
        drained: bool | None = None
        told: str | None = ""
        refused, taken = list[str](), 0
        with suppress(_GoneError):
            while True:
                mark = self._read()
                # What was refused is tried again: ExaBGP may have got the neighbour meanwhile.
                if drained is not (mark is not None) or refused:
                    drained = mark is not None
                    taken, refused = self._announce(drained=drained)
                    self._write(mark, taken, refused)
                elif mark != told:
                    self._write(mark, taken, refused)
                told = mark
                self._line(LOOK_SECONDS)

    def _read(self) -> str | None:
        """Return when the router was drained; None when it is not."""
        try:
            with open(self._mark, "rb") as file:  # noqa: PTH123 - pathlib takes 20 ms to import
                content = json.loads(file.read(_LONGEST))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return ""
        return str(content.get("since", "")) if isinstance(content, dict) else ""

    def _announce(self, *, drained: bool) -> tuple[int, list[str]]:
        taken, refused = 0, list[str]()
        for neighbour in self._neighbours:
            for command in neighbour.commands(drained=drained):
                answer = self._ask(command)
                if answer == "done":
                    taken += 1
                else:
                    refused.append(f"{command}: {answer}")
        if not refused:
            self._said.clear()
        for words in refused:
            self._say(f"ExaBGP did not take: {words}")
        self._say(f"announced {taken} routes {'with' if drained else 'without'} {GRACEFUL_SHUTDOWN}")
        return taken, refused

    def _ask(self, command: str) -> str:
        try:
            os.write(1, f"{command}\n".encode())
        except OSError as error:
            raise _GoneError from error
        while (line := self._line(ANSWER_SECONDS)) is not None:
            if line in ("done", "error"):
                return line
            if line == "shutdown":
                raise _GoneError
        return f"no answer within {ANSWER_SECONDS:.0f} s"

    def _line(self, seconds: float) -> str | None:
        """Return the next line of ExaBGP's; None when there is none for so long.

        Raises:
            _GoneError: ExaBGP has closed the pipe.
        """
        while b"\n" not in self._input:
            ready, _, _ = select.select([0], [], [], seconds)
            if not ready:
                return None
            data = os.read(0, 65536)
            if not data:
                raise _GoneError
            self._input += data
        line, _, self._input = self._input.partition(b"\n")
        return line.decode(errors="replace").strip()

    def _write(self, mark: str | None, taken: int, refused: list[str]) -> None:
        status = {"mark": mark, "drained": mark is not None, "taken": taken, "refused": refused}
        new = f"{self._status}.{os.getpid()}"
        try:
            with open(new, "w") as file:  # noqa: PTH123 - as above
                file.write(json.dumps(status) + "\n")
                os.fchmod(file.fileno(), 0o644)
            os.replace(new, self._status)  # noqa: PTH105 - as above
        except OSError as error:
            self._say(f"cannot write {self._status}: {error.strerror}")

    def _say(self, text: str) -> None:
        """Tell it once: ExaBGP's log is where standard error goes."""
        if text in self._said:
            return
        self._said.add(text)
        with suppress(OSError):
            os.write(2, f"graceful shutdown: {text}\n".encode(errors="replace"))


def main(arguments: list[str]) -> int:
    """Run it; return the exit code."""
    if len(arguments) < 2:
        sys.stderr.write("usage: exabgp_announcer.py MARK STATUS [NEIGHBOUR KEY=VALUES...]...\n")
        return 64
    try:
        neighbours = neighbours_of(arguments[2:])
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 64
    Announcer(arguments[0], arguments[1], neighbours).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
