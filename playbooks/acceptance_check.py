# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Runs acceptance.yml and ends with its verdict: ``python playbooks/acceptance_check.py --limit ROUTER``.

All arguments go to ansible-playbook, which itself ends with 2 whatever it was that failed. Exit codes, of
several routers the first of these that any of them has:

    1  FAIL     a router does not do what it shall, or is not as it was found
    3  INVALID  the tester was the limit: nothing is known of a router
    4  UNDONE   a check, or the playbook itself, could not be carried out
    5  REFUSED  a router is live
    0  PASS     all of them
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "build" / "acceptance"
FAIL, INVALID, UNDONE, REFUSED = 1, 3, 4, 5


def main(arguments: Sequence[str]) -> int:
    """Run the playbook with these arguments; return the exit code."""
    run = secrets.token_hex(8)
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), str(ROOT / "playbooks" / "acceptance.yml"), *arguments]
    try:
        done = subprocess.run(
            [*command, "-e", json.dumps({"acceptance_run": run, "acceptance_reports": str(REPORTS)})],
            cwd=ROOT,
            check=False,
        )
    except OSError as error:
        print(
            f"found no {program} ({error.strerror}), expected Ansible beside this Python: make setup",
            file=sys.stderr,
        )
        return UNDONE
    found = results(REPORTS, run)
    for host, outcome, _, reason in found:
        print(f"{outcome}  {host}: {reason}")
    return verdict([code for _, _, code, _ in found], done.returncode, checking="--check" in arguments)


def results(directory: Path, run: str) -> list[tuple[str, str, int, str]]:
    """Return host, outcome, exit code and reason of each result of a run, in the order of hosts."""
    found = []
    for path in sorted(directory.glob("*/result.json")):
        result = json.loads(path.read_text())
        if result["run"] == run:
            found.append((result["host"], result["outcome"], int(result["exit_code"]), result["reason"]))
    return found


def verdict(codes: Sequence[int], ended_with: int, *, checking: bool) -> int:
    """Return the exit code of a run.

    Args:
        codes: of the routers' results.
        ended_with: what ansible-playbook ended with.
        checking: it ran in check mode, which has no results.
    """
    worst = next((code for code in (FAIL, INVALID, UNDONE, REFUSED) if code in codes), 0)
    if worst:
        return worst
    if ended_with or not (codes or checking):
        # no router has a result to show for it: a host that is unreachable, a mistake, no host at all
        return UNDONE
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
