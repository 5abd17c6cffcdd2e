"""Takes a lab of containers down when the process that started it has ended, however it ended.

python -m router_agent.lab.containers.guard NAME DIRECTORY PID
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

from router_agent.lab.containers.leftovers import remove
from router_agent.lab.errors import LabError
from router_agent.lab.lab import lock

_ROOT = Path(__file__).parents[3]


class Guard:
    """The guarding process of a lab; this process is who it watches.

    Args:
        name: of the lab.
        directory: that keeps images, disks and logs.
        log: what it says.
    """

    def __init__(self, name: str, directory: Path, log: Path) -> None:
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __spec__.name, name, str(directory), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(_ROOT)},
            )

    def dismiss(self) -> None:
        """Let go of the lab: it is down, or is to stay."""
        self._process.terminate()
        self._process.wait()


def main(name: str, directory: str, pid: str) -> None:
    """Wait for the end of a process, which is our parent, then remove what there is of the lab."""
    try:
        watched = os.pidfd_open(int(pid))
    except ProcessLookupError:
        watched = None
    # A pid that was given out again is not our parent.
    if watched is not None and os.getppid() == int(pid):
        select.select([watched], [], [])
    try:
        with lock(name):
            remove(name, Path(directory))
    except LabError as error:
        # Somebody has taken the name already, and removed what was there.
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
