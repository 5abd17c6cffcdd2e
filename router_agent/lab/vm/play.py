"""Running the kit's playbooks against the virtual POP host, as an operator does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from router_agent.lab.errors import LabError
from router_agent.lab.vm.inventory import ROOT
from router_agent.lab.vm.plan import HOST

_SECONDS = 2400.0
_RECAP = (
    r"\s+: ok=(?P<ok>\d+)\s+changed=(?P<changed>\d+)\s+"
    r"unreachable=(?P<unreachable>\d+)\s+failed=(?P<failed>\d+)"
)
_TASK = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(?P<name>.*?)\] \*")
_TAIL_LINES = 40
_INDENT = " " * 8
"""Before each line of a message of several."""


@dataclass(frozen=True, slots=True)
class PlayResult:
    """What a playbook did.

    Attributes:
        playbook: its file name.
        status: exit status of ansible-playbook.
        ok, changed, failed, unreachable: counts of tasks of the host; zero when there was no recap.
        changed_tasks: names of the tasks that changed something, in order.
        output: all it printed.
        seconds: how long it took.
        log: file that holds the output.
    """

    playbook: str
    status: int
    ok: int
    changed: int
    failed: int
    unreachable: int
    changed_tasks: tuple[str, ...]
    output: str
    seconds: float
    log: Path

    @property
    def tail(self) -> str:
        """The end of the output, from the first failure in it."""
        lines = self.output.splitlines()
        failures = [number for number, line in enumerate(lines) if line.startswith(("fatal:", "[ERROR]"))]
        begin = max(0, failures[0] - 2) if failures else max(0, len(lines) - _TAIL_LINES)
        return "\n".join(lines[begin : begin + _TAIL_LINES])

    def require_success(self) -> PlayResult:
        """Return this when the playbook succeeded.

        Raises:
            PlayError: it failed; with the failure and where the whole output is.
        """
        if self.status != 0:
            raise PlayError(
                f"{self.playbook}: exit status {self.status} after {self.seconds:.0f} s; "
                f"all of it: {self.log}\n{self.tail}"
            )
        return self


class PlayError(LabError):
    """A playbook failed."""


class Playbooks:
    """Runs playbooks with a lab's inventories.

    Args:
        inventories: those of the lab; for the virtual POP host `inventory.STATIC` and what
            `inventory.dynamic_inventory` makes.
        host: the router's name in them.
        logs: where outputs go, one file a run.
        sockets: where Ansible's ssh keeps its control sockets; a short path.
        checkout: whose playbooks they are.
    """

    def __init__(
        self, *inventories: Path, host: str = HOST, logs: Path, sockets: Path, checkout: Path = ROOT
    ) -> None:
        self.host = host
        self._inventories = inventories
        self._logs = logs
        self._sockets = sockets
        self._checkout = checkout
        self._runs = 0

    def run(
        self,
        playbook: str,
        variables: Mapping[str, Any] | None = None,
        *arguments: str,
        progress: Callable[[str], None] = lambda _text: None,
        seconds: float = _SECONDS,
    ) -> PlayResult:
        """Run a playbook to its end.

        Args:
            playbook: file name below ``playbooks/``.
            variables: extra variables.
            arguments: further arguments of ansible-playbook, ``--check``.
            progress: told the task that runs.
            seconds: how long at most.

        Raises:
            PlayError: there is no Ansible, or it does not end in time.
        """
        self._runs += 1
        log = self._logs / f"{self._runs:02d}-{Path(playbook).stem}.log"
        argv = self._command(playbook, variables or {}, arguments)
        began = time.monotonic()
        status, output = _follow(argv, self._checkout, self._environment(), log, progress, seconds)
        seconds = time.monotonic() - began
        return parse_output(
            output, playbook=playbook, status=status, seconds=seconds, log=log, host=self.host
        )

    def _command(self, playbook: str, variables: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
        program = Path(sys.executable).with_name("ansible-playbook")
        if not program.exists():
            raise PlayError(f"found no {program}, expected Ansible beside this Python: make setup")
        return [
            str(program),
            *(word for inventory in self._inventories for word in ("-i", str(inventory.resolve()))),
            *(("-e", json.dumps(variables)) if variables else ()),
            *arguments,
            str(self._checkout / "playbooks" / playbook),
        ]

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
            "ANSIBLE_CONFIG": str(self._checkout / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets / "cp"),
            "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
            "PYTHONUNBUFFERED": "1",
        }


def parse_output(
    text: str, *, playbook: str, status: int, seconds: float, log: Path, host: str = HOST
) -> PlayResult:
    """Return what ansible-playbook's default output says of a host."""
    changed: list[str] = []
    task = ""
    for line in text.splitlines():
        if found := _TASK.match(line):
            task = found["name"]
        elif line.startswith(f"changed: [{host}"):
            changed.append(task)
    recap = re.search(rf"^{re.escape(host)}{_RECAP}", text, re.MULTILINE)
    counts = {name: int(recap[name]) if recap else 0 for name in ("ok", "changed", "failed", "unreachable")}
    return PlayResult(
        playbook=playbook,
        status=status,
        changed_tasks=tuple(changed),
        output=text,
        seconds=seconds,
        log=log,
        **counts,
    )


def table_of(result: PlayResult, host: str = HOST) -> str:
    """Return the table that verify.yml or acceptance.yml printed, without what is around it."""
    lines = result.output.splitlines()
    begin = next((n for n, line in enumerate(lines) if line.strip() == host), None)
    if begin is None:
        return ""
    # what follows belongs to Ansible, with or without an empty line before it
    rows = takewhile(lambda line: line.startswith(_INDENT) and line.strip(), lines[begin + 1 :])
    return "\n".join(line.removeprefix(_INDENT) for line in rows)


def _follow(
    argv: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    log: Path,
    progress: Callable[[str], None],
    seconds: float,
) -> tuple[int, str]:
    """Run a command with its output in a file and on its way past; return exit status and output."""
    lines: list[str] = []
    with (
        log.open("w") as file,
        subprocess.Popen(
            argv,
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        assert process.stdout is not None
        expired = threading.Event()

        def give_up() -> None:
            expired.set()
            process.terminate()

        timer = threading.Timer(seconds, give_up)
        timer.start()
        try:
            for line in process.stdout:
                file.write(line)
                file.flush()
                lines.append(line)
                if found := _TASK.match(line):
                    progress(found["name"])
        except BaseException:
            process.terminate()
            raise
        finally:
            timer.cancel()
    if expired.is_set():
        raise PlayError(f"{argv[-1]}: no end after {seconds:.0f} s; its output: {log}")
    return process.returncode, "".join(lines)
