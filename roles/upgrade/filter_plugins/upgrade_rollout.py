# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible filters: who rolls out, what became of each host, and the words and the table that say so."""

from __future__ import annotations

import getpass
import hashlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DONE, PASSED_OVER = "done", "passed over"
"""Verdicts of a router that is as wanted: brought there by this rollout, or found so."""
ROLLED_BACK, UNTOUCHED, BROKEN, LOST, NOT_REACHED = (
    "rolled back",
    "untouched",
    "broken",
    "lost",
    "not reached",
)
"""Others: as it was and carrying traffic; nothing was changed; drained, and somebody has to look; it stopped
answering in its turn; its turn never came."""

_COLUMNS = ("router", "batch", "from", "to", "drained", "sessions lost", "verdict")

_LINES, _LONGEST = 12, 2000
"""What of a failure goes into the report."""

_VERSIONS = ("kernel", "debian", "vpp", "frr", "exabgp", "agent", "configuration", "interfaces")
_PARTS: Mapping[str, Sequence[str]] = {
    "kernel": ("kernel",),
    "vpp": ("vpp", "configuration"),
    "frr": ("frr", "configuration"),
    "exabgp": ("exabgp", "configuration"),
    "router_agent": ("agent", "configuration"),
    "configuration": _VERSIONS,
}
"""Component to the parts of a snapshot that are meant to be others; roles render their files anew."""

Record = Mapping[str, Any]


def upgrade_run(what: str) -> dict[str, Any]:
    """Return who rolls out: goes into the locks of hosts.

    Args:
        what: what is rolled out, in words.

    Returns:
        `schema`, `run` (its name), `controller`, `user`, `pid` and `started` (in clock ticks since boot) of
        ansible-playbook, `boot` (of the controller), `since`, `what`.
    """
    now = datetime.now(UTC)
    pid = _playbook()
    return {
        "schema": "pop-router/rollout-lock/1",
        "run": f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}",
        "controller": socket.gethostname(),
        "user": getpass.getuser(),
        "pid": pid,
        "started": _started(pid),
        "boot": _boot(),
        "since": f"{now:%Y-%m-%dT%H:%M:%SZ}",
        "what": what,
    }


def upgrade_is_over(holder: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Tell whether the rollout that holds a lock was cut off: begun here, and its process is gone.

    What another controller does cannot be known here.
    """
    if holder.get("controller") != ours["controller"] or not holder.get("pid"):
        return False
    return holder.get("boot") != _boot() or _started(int(holder["pid"])) != holder.get("started")


def upgrade_digest(directories: Iterable[str], sources: Iterable[str], inventory: str | None) -> str:
    """Return a digest of the configuration as checkout and inventory have it, 16 hexadecimal digits.

    Whatever changes there makes another one. What Python and Ansible leave behind does not count.

    Args:
        directories: of the checkout.
        sources: of the inventory: paths, or lists of hosts.
        inventory: directory whose group_vars and host_vars belong to it.
    """
    digest = hashlib.sha256()
    tops = [Path(path).resolve() for path in directories]
    for source in sources:
        if Path(source).exists():
            tops.append(Path(source).resolve())
        else:
            digest.update(source.encode() + b"\0")
    tops += [Path(inventory) / name for name in ("group_vars", "host_vars")] if inventory else []
    for top in sorted(set(tops)):
        files = [top] if top.is_file() else sorted(path for path in top.rglob("*") if path.is_file())
        for path in files:
            if "__pycache__" not in path.parts:
                name = str(path.relative_to(top.parent))
                digest.update(name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def upgrade_rollout(
    records: Sequence[Record],
    *,
    run: Mapping[str, Any],
    batches: Sequence[Sequence[str]],
    reached: int,
    over: bool,
) -> dict[str, Any]:
    """Return a rollout as it is stored: what was to be done, and what became of each host.

    Args:
        records: of hosts; those of a batch that was not reached have no `verdict`.
        run: as `upgrade_run` gave it.
        batches: hosts in the order in which they are changed.
        reached: batches that were begun.
        over: whether the turn of the last of those is over.
    """
    ended = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    number = {host: index + 1 for index, batch in enumerate(batches) for host in batch}
    hosts = [
        _settled({**record, "batch": number.get(record["host"])}, reached=reached, over=over)
        for record in sorted(records, key=lambda record: (number.get(record["host"], 0), record["host"]))
    ]
    stopped = [host for host in hosts if host["verdict"] in (ROLLED_BACK, UNTOUCHED, BROKEN, LOST)]
    complete = over and all(host["verdict"] in (DONE, PASSED_OVER) for host in hosts)
    return {
        "schema": "pop-router/rollout/1",
        **{name: run[name] for name in ("run", "controller", "user", "what", "since")},
        "written": ended,
        "verdict": "stopped" if stopped else "done" if complete else "under way",
        "stopped_at": [host["host"] for host in stopped],
        "batches": [list(batch) for batch in batches],
        "batch": reached,
        "hosts": hosts,
    }


def upgrade_components_after(
    plan: Mapping[str, Mapping[str, Any]], due: Sequence[str], succeeded: bool
) -> dict[str, dict[str, Any]]:
    """Return what components were and are: what was asked for unless one was due and the turn failed."""
    return {
        name: {
            "before": part["before"],
            "wanted": part["wanted"],
            "after": part["wanted"] if succeeded or name not in due else part["before"],
        }
        for name, part in plan.items()
        if "nothing" not in part
    }


def upgrade_passed_over(plan: Mapping[str, Mapping[str, Any]]) -> str:
    """Return why a router has no turn."""
    words = [
        f"{name} is {part['before']} already" if "nothing" not in part else f"{name}: {part['nothing']}"
        for name, part in plan.items()
    ]
    return ", ".join(words)


def upgrade_plan_shown(
    hosts: Sequence[Mapping[str, Any]], batches: Sequence[Sequence[str]], what: str
) -> str:
    """Return the plan in words: the batches in their order, what changes on each router, who is passed over.

    Args:
        hosts: variables of the routers, with what entry point `plan` found out.
        batches: of `upgrade_batches`.
        what: is rolled out.
    """
    known = {str(host["inventory_hostname"]): host for host in hosts}
    lines = [f"Rollout of {what}: {sum(map(len, batches))} routers in {len(batches)} batches"]
    for number, batch in enumerate(batches, start=1):
        lines.append(f"batch {number}")
        lines += [f"  {name} ({known[name]['router_pop']}): {_steps(known[name])}" for name in batch]
    passed = sorted(known.keys() - {name for batch in batches for name in batch})
    lines += [f"passed over: {name}: {known[name]['upgrade_record']['reason']}" for name in passed]
    return "\n".join(lines)


def upgrade_diff_options(due: Iterable[str]) -> list[str]:
    """Return the options of ``router-agent snapshot diff`` for what is meant to be another after a change."""
    parts = sorted({part for name in due for part in _PARTS[name]})
    return [word for part in parts for word in ("--changed", part)]


def upgrade_lost_sessions(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the peers whose session was established in one snapshot and is not in a later one."""
    return sorted(_established(before) - _established(after))


def upgrade_received_pps(load: Mapping[str, Any], ports: Iterable[str]) -> float:
    """Return the packets a second that came in by ports, by the kernel's names or VPP's.

    Args:
        load: what ``router-agent traffic counters --seconds S --json`` printed.
        ports: their names.
    """
    names = [way for port in ports for way in (f"dev.{port}.rx_packets", f"/if/rx/{port}")]
    return float(sum(load["counters"].get(name, 0) for name in names) / load["seconds"])


def upgrade_failure(result: Mapping[str, Any]) -> str:
    """Return why a task failed, in a few lines."""
    said = str(result.get("msg") or result.get("reason") or "").splitlines()
    output = str(result.get("stderr") or result.get("stdout") or "").splitlines()
    # A message says first what is wrong, a program last.
    lines = said[:_LINES] if said and said != ["non-zero return code"] else output[-_LINES:] or said
    return "\n".join(lines)[:_LONGEST] or "no reason given"


def upgrade_not_locked(results: Sequence[Mapping[str, Any]], silent: Sequence[str], path: str) -> str:
    """Return why locks could not be taken, and what to do; nothing when all were.

    Args:
        results: of the module `rollout_lock` where another one holds the lock, each with the host as `item`.
        silent: hosts that do not answer.
        path: of the lock on a host.
    """
    unanswered = [f"{host} does not answer, expected every router of these POPs to" for host in silent]
    lines = [
        f"{result['item']} is locked by rollout {holder.get('run')} of "
        f"{holder.get('user', 'somebody')} on {holder.get('controller', 'some controller')} since "
        f"{holder.get('since', 'some time')} ({holder.get('what', '')})"
        for result in results
        for holder in [result["holder"]]
    ]
    if not lines:
        return "\n".join(unanswered)
    runs = sorted({str(result["holder"].get("run", "")) for result in results})
    lines.append(
        "expected no other rollout in these POPs: wait for it. If you know that it is over, run again with "
        f"-e upgrade_take_lock={runs[0] or 'RUN'} (the lock is {path} on each of these hosts)"
    )
    return "\n".join([*unanswered, *lines])


def upgrade_batch_of(index: int, batches: Sequence[Sequence[str]]) -> int:
    """Return the number of the batch, from 1, that holds a host by its place in the order of all."""
    hosts = [number for number, batch in enumerate(batches, start=1) for _ in batch]
    return hosts[index]


def upgrade_table(rollout: Mapping[str, Any]) -> str:
    """Return a row for each host: versions before and after, seconds drained, sessions lost, verdict."""
    rows = [list(_COLUMNS)] + [_row(host) for host in rollout["hosts"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    reasons = [f"{host['host']}: {host['reason']}" for host in rollout["hosts"] if host.get("reason")]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:], *reasons])


def upgrade_stopped(rollout: Mapping[str, Any]) -> str:
    """Return where a rollout stopped, what state everything is in, and how to go on."""
    hosts = rollout["hosts"]

    def named(*verdicts: str) -> list[str]:
        return [host["host"] for host in hosts if host["verdict"] in verdicts]

    lines = [
        f"the rollout stopped in batch {rollout['batch']} of {len(rollout['batches'])} at "
        f"{', '.join(rollout['stopped_at'])}:"
    ]
    lines += [f"  {h['host']}: {_state(h)}" for h in hosts if h["host"] in rollout["stopped_at"]]
    if named(DONE):
        lines.append(f"  done, and stays so: {', '.join(named(DONE))}")
    if named(NOT_REACHED):
        lines.append(f"  not reached, and as it was: {', '.join(named(NOT_REACHED))}")
    without = ",".join(f"!{host}" for host in rollout["stopped_at"])
    lines.append(
        "To go on, mend it and run the same command again: routers that are done are passed over. To go on "
        f"without: --limit 'routers,{without}'"
    )
    return "\n".join(lines)


def _settled(record: Record, *, reached: int, over: bool) -> dict[str, Any]:
    """Return a record with a verdict: one whose turn was begun and has none when it is over was lost."""
    host = dict(record)
    if host.get("verdict"):
        return host
    if host["batch"] is None or host["batch"] > reached:
        host["verdict"] = NOT_REACHED
    elif host["batch"] < reached or over:
        host["verdict"] = LOST
        host["reason"] = host.get("reason") or "it stopped answering in its turn"
    else:
        host["verdict"] = "under way"
    return host


def _row(host: Record) -> list[str]:
    components = host.get("components") or {}
    before = ", ".join(f"{name} {_word(part.get('before'))}" for name, part in components.items())
    after = ", ".join(f"{name} {_word(part.get('after'))}" for name, part in components.items())
    drained, lost = host.get("drained_seconds"), host.get("lost_sessions")
    return [
        str(host["host"]),
        str(host["batch"] or "-"),
        before or "-",
        after or "-",
        "-" if drained is None else f"{float(drained):.0f} s",
        "-" if lost is None else ", ".join(lost) or "none",
        str(host["verdict"]),
    ]


def _steps(host: Mapping[str, Any]) -> str:
    plan, due = host["upgrade_plan"], host["upgrade_due"]
    steps = [f"{name} {_word(plan[name]['before'])} -> {plan[name]['wanted']}" for name in due]
    if not steps:
        steps = ["verified and undrained, as a rollout has left it drained"]
    others = [f"{name}: {part['nothing']}" for name, part in plan.items() if "nothing" in part]
    return ", ".join([*steps, *others])


def _established(snapshot: Mapping[str, Any]) -> set[str]:
    sessions = [
        session
        for source in ("bgp", "exabgp")
        for session in ((snapshot.get(source) or {}).get("content") or {}).get("sessions", [])
    ]
    return {str(session["peer"]) for session in sessions if session["state"] == "Established"}


def _word(value: object) -> str:
    return str(value) if value else "none"


def _state(host: Record) -> str:
    states = {
        ROLLED_BACK: "it was rolled back, verified and carries traffic again",
        UNTOUCHED: "nothing was changed there",
        BROKEN: "it stays drained, because it is not right: look at it before anything else",
        LOST: "it does not answer; it comes back drained if it was",
    }
    return f"{states[host['verdict']]} ({host.get('reason') or 'no reason given'})"


def _playbook() -> int:
    """Return the process that runs the playbook: filters are evaluated in it or in a fork of it."""
    found = pid = os.getpid()
    while pid > 1:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:2]
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            break
        if not any(word.rpartition(b"/")[2] == b"ansible-playbook" for word in words):
            break
        found, pid = pid, int(fields[1])
    return found


def _started(pid: int) -> int:
    """Return when a process began, in clock ticks since boot (starttime of proc_pid_stat(5)); 0 if gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[19])


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class FilterModule:
    """What Ansible loads."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "upgrade_batch_of": upgrade_batch_of,
            "upgrade_components_after": upgrade_components_after,
            "upgrade_diff_options": upgrade_diff_options,
            "upgrade_digest": upgrade_digest,
            "upgrade_failure": upgrade_failure,
            "upgrade_is_over": upgrade_is_over,
            "upgrade_lost_sessions": upgrade_lost_sessions,
            "upgrade_not_locked": upgrade_not_locked,
            "upgrade_passed_over": upgrade_passed_over,
            "upgrade_plan_shown": upgrade_plan_shown,
            "upgrade_received_pps": upgrade_received_pps,
            "upgrade_rollout": upgrade_rollout,
            "upgrade_run": upgrade_run,
            "upgrade_stopped": upgrade_stopped,
            "upgrade_table": upgrade_table,
        }
