#!/usr/bin/python
"""Ansible module: makes FRR run a configuration, and tells what that changed."""

from __future__ import annotations

import difflib
import os
import re
import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: frr_configuration
short_description: Make FRR run a configuration
description:
  - Compares frr.conf and the daemons file with what is there, and the configuration with what the daemons
    run.
  - A new configuration is checked by C(vtysh -C) before it replaces the old one, and applied by
    C(frr-reload.py), which leaves sessions alone that it does not concern. Afterwards nothing may be left to
    apply, whatever frr-reload.py said of itself; otherwise the old files are put back and applied, and the
    module fails with what was left.
  - A daemon that is new is started without touching the others. Other changes of the daemons file need a
    restart of FRR, which resets every session; the result says so.
  - Passwords are masked in everything that is returned.
options:
  configuration:
    description:
      - Content of frr.conf. Its line C(hostname) is not compared with what FRR runs, because vtysh names the
        host itself there, whatever the daemons were told.
    type: str
    required: true
  daemons:
    description: Content of the daemons file; left alone when omitted.
    type: str
  drained_mark:
    description:
      - File that is there while the router is drained. While it is, C(bgp graceful-shutdown) (RFC 8326)
        belongs to the configuration, as C(router-agent drain) has put it there, so that it is not taken
        out.
    type: path
    default: /run/router-agent/drained
  service:
    description: Unit that runs the daemons.
    type: str
    default: frr.service
  directory:
    description: Directory of the files, owned by user and group frr.
    type: path
    default: /etc/frr
  runtime_directory:
    description: Directory of the daemons' pid files.
    type: path
    default: /run/frr
  programs:
    description: Directory of the daemons and of frr-reload.py.
    type: path
    default: /usr/lib/frr
  ready_seconds:
    description: How long FRR may take to run the configuration after a restart.
    type: int
    default: 120
author: the router kit
"""

RETURN = r"""
action:
  description: What was done to the daemons; none, reload, start-daemons, restart, start or install.
  returned: always
  type: str
delta:
  description: Lines the daemons had to take and to forget.
  returned: always
  type: str
restart_reasons:
  description: What differs between the daemons wanted and running.
  returned: always
  type: list
  elements: str
"""

DRAINED = "! Drained (RFC 8326): router-agent undrain takes this out.\nbgp graceful-shutdown\n!\n"
"""What `router-agent drain` puts before the first instance of BGP (router_agent/drain/frr.py)."""
_COMMAND_SECONDS = "300"
_POLL_SECONDS = 0.5
_MASK = "********"
_SECRET = re.compile(r"(\bpassword\s+)\S.*")
_PROGRESS = re.compile(r"\[\d+\|\w+\] (sending configuration|done)|^Waiting for children|^MGMTD: No changes")
_HOSTNAME = re.compile(r"(no )?hostname \S+")
_COLOUR = re.compile(r"\x1b\[\d*m")
_SETTING = re.compile(r"""(?P<name>\w+)=(?P<quote>["']?)(?P<value>.*)(?P=quote)""")
_ALWAYS = ("zebra", "mgmtd", "staticd")
"""frrinit.sh starts them whatever the daemons file says; mgmtd is there from FRR 9 on."""


def masked(text: str) -> str:
    """Return a configuration, or a message that quotes one, without its passwords."""
    return _SECRET.sub(rf"\g<1>{_MASK}", text)


def drained(configuration: str) -> str:
    """Return the configuration of a drained router; as it is when it speaks no BGP."""
    return re.sub(r"^(?=router bgp\b)", lambda _: DRAINED, configuration, count=1, flags=re.MULTILINE)


def delta_of(output: str) -> str:
    """Return what ``frr-reload.py --test`` printed, as lines with - or + in front; empty if equal.

    Names of the host are left out: vtysh shows its host's beside the one that the daemons were given.
    """
    sign, lines = "", []
    for line in output.splitlines():
        if line in ("Lines To Delete", "Lines To Add"):
            sign = "-" if line.endswith("Delete") else "+"
        elif sign and line.strip() and set(line) != {"="} and not _HOSTNAME.fullmatch(line):
            lines.append(f"{sign} {line}")
    return "".join(f"{line}\n" for line in lines)


def wanted_daemons(text: str) -> dict[str, list[str]]:
    """Return the daemons that a daemons file enables, with their options.

    zebra, mgmtd and staticd, which always run, are among them.
    """
    settings = {}
    for line in text.splitlines():
        match = _SETTING.fullmatch(line.strip())
        if match:
            settings[match["name"]] = match["value"]
    names = [*_ALWAYS, *(name for name, value in settings.items() if value == "yes")]
    return {
        name: shlex.split(settings.get(f"{name}_options", "")) for name in names if name != "vtysh_enable"
    }


def difference(
    wanted: dict[str, list[str]], running: dict[str, list[str]], known: set[str]
) -> tuple[list[str], list[str]]:
    """Return the daemons that only have to be started, and what else differs, in words.

    Args:
        wanted: options by daemon.
        running: command lines by daemon.
        known: daemons that are installed.
    """
    new, reasons = [], []
    for name, options in wanted.items():
        if name not in running:
            if name in known:
                new.append(name)
        elif not _contains(running[name], options):
            reasons.append(f"{name} runs without {shlex.join(options)!r}")
    reasons += [f"{name} runs and is not wanted" for name in running if name not in wanted]
    return new, reasons


def _contains(words: list[str], part: list[str]) -> bool:
    return any(words[at : at + len(part)] == part for at in range(len(words) - len(part) + 1))


@dataclass(frozen=True)
class _Files:
    """Contents of frr.conf and the daemons file; None where there is no such file."""

    configuration: str | None
    daemons: str | None


class _NotReadyError(Exception):
    """The daemons do not tell what they run."""


class _Frr:
    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        directory = Path(module.params["directory"])
        self.configuration = directory / "frr.conf"
        self.daemons = directory / "daemons"
        self._programs = Path(module.params["programs"])
        self._runtime = Path(module.params["runtime_directory"])
        self._service: str = module.params["service"]
        self._reload_program = self._programs / "frr-reload.py"

    def lacks(self) -> str:
        """Return the program that is missing; empty when FRR is installed."""
        for program in (Path("/usr/bin/vtysh"), self._programs / "zebra", self._reload_program):
            if not program.exists():
                return str(program)
        return ""

    def files(self) -> _Files:
        return _Files(_read(self.configuration), _read(self.daemons))

    def running(self) -> dict[str, list[str]]:
        """Return the command lines of the running daemons, by name."""
        found = {}
        for name in sorted(self._installed()):
            try:
                pid = int((self._runtime / f"{name}.pid").read_text())
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
            except (OSError, ValueError):
                continue
            # A pid file may outlive its daemon, and its number be given to somebody else.
            if words and Path(words[0]).name == name:
                found[name] = words
        return found

    def difference(self, daemons: str | None) -> tuple[list[str], list[str]]:
        if daemons is None:
            return [], []
        return difference(wanted_daemons(daemons), self.running(), self._installed())

    def check(self, path: Path) -> str:
        """Return what vtysh has against a configuration; empty when it takes it."""
        code, out, err = self._run("/usr/bin/vtysh", "-C", "-f", str(path))
        return "" if code == 0 else masked((out + err).strip()) or f"exit status {code}"

    def delta(self, path: Path) -> str:
        """Return what differs between a configuration and the running one, with passwords.

        Raises:
            _NotReadyError: the daemons do not tell what they run.
        """
        code, out, err = self._run(str(self._reload_program), "--test", str(path))
        if code != 0:
            raise _NotReadyError(f"frr-reload.py --test {path}: exit status {code}: {masked(err.strip())}")
        return delta_of(out)

    def reload(self) -> str:
        """Apply frr.conf; return what frr-reload.py complained of, which need not mean that it failed."""
        # Its own log file would hold passwords; on standard output they stay with us.
        options = ("--reload", "--stdout", "--log-level", "warning")
        code, out, err = self._run(str(self._reload_program), *options, str(self.configuration))
        if code == 0:
            return ""
        lines = (_COLOUR.sub("", line).strip() for line in (out + err).splitlines())
        said = dict.fromkeys(line for line in lines if line and not _PROGRESS.search(line))
        return masked("\n".join([*said][-20:]))

    def start_daemons(self) -> None:
        """Start daemons that are new. The others go on; frr.conf is still the one they have."""
        self._run("systemctl", "reload", self._service)

    def restart(self) -> None:
        code, out, err = self._run("systemctl", "restart", self._service)
        if code != 0:
            self.fail(f"systemctl restart {self._service}: {(err or out).strip()}")

    def write(self, files: _Files) -> None:
        """Put contents into place; a content that is None is left as it is."""
        for path, content in ((self.daemons, files.daemons), (self.configuration, files.configuration)):
            if content is None:
                continue
            if _read(path) != content:
                self._module.atomic_move(self.stage(content), str(path))
            self._attributes(path)

    def attributes(self) -> bool:
        """Give the files their owner and permissions; return whether that changes, or would change, them."""
        paths = [self.configuration]
        if self._module.params["daemons"] is not None:
            paths.append(self.daemons)
        changed = [self._attributes(path) for path in paths if path.exists()]
        return any(changed)

    def stage(self, content: str) -> str:
        """Return the name of a new file with a content, readable by root alone."""
        path = Path(self._module.tmpdir) / f"frr-{os.getpid()}-{time.monotonic_ns()}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        self._module.add_cleanup_file(str(path))
        return str(path)

    def fail(self, message: str, **results: Any) -> NoReturn:
        self._module.fail_json(msg=message, **results)
        raise AssertionError("fail_json does not return")

    def _attributes(self, path: Path) -> bool:
        changed = self._module.set_mode_if_different(str(path), "0640", False)
        changed = self._module.set_owner_if_different(str(path), "frr", changed)
        return bool(self._module.set_group_if_different(str(path), "frr", changed))

    def _installed(self) -> set[str]:
        return {path.name for path in self._programs.glob("*d")}

    def _run(self, *words: str) -> tuple[int, str, str]:
        code, out, err = self._module.run_command(["timeout", _COMMAND_SECONDS, *words])
        return int(code), str(out), str(err)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _diff(old: str | None, new: str, path: Path) -> str:
    lines = difflib.unified_diff(
        masked(old or "").splitlines(keepends=True),
        masked(new).splitlines(keepends=True),
        f"before: {path}",
        f"after: {path}",
    )
    return "".join(lines)


def _apply(frr: _Frr, files: _Files, seconds: float) -> tuple[str, str, str]:
    """Make FRR run the given files.

    Returns:
        What was done, what is left to apply, and what frr-reload.py said of it.
    """
    new, reasons = frr.difference(files.daemons)
    was_running = bool(frr.running())
    frr.write(_Files(None, files.daemons))
    action = "reload"
    if was_running and new and not reasons:
        action = "start-daemons"
        frr.start_daemons()
        new, reasons = frr.difference(files.daemons)
    frr.write(files)
    if new or reasons or not was_running:
        frr.restart()
        action, left = "restart" if was_running else "start", _left_after(frr, files, seconds)
        if not left:
            return action, left, ""
    said = frr.reload()
    return action, frr.delta(frr.configuration), said


def _left_after(frr: _Frr, files: _Files, seconds: float) -> str:
    """Return what is left to apply once the daemons that were started have read frr.conf."""
    deadline = time.monotonic() + seconds
    while True:
        new, reasons = frr.difference(files.daemons)
        left = "".join(f"{line}\n" for line in [*(f"{name} does not run" for name in new), *reasons])
        try:
            left = left or frr.delta(frr.configuration)
        except _NotReadyError as error:
            left = f"{error}\n"
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_POLL_SECONDS)


def _run(module: AnsibleModule) -> None:
    frr = _Frr(module)
    configuration = module.params["configuration"].rstrip("\n") + "\n"
    wanted = _Files(
        drained(configuration) if Path(module.params["drained_mark"]).exists() else configuration,
        None if module.params["daemons"] is None else module.params["daemons"].rstrip("\n") + "\n",
    )
    assert wanted.configuration is not None
    old = frr.files()
    file_diff = _diff(old.configuration, wanted.configuration, frr.configuration)
    daemons_diff = "" if wanted.daemons is None else _diff(old.daemons, wanted.daemons, frr.daemons)

    missing = frr.lacks()
    if missing and not module.check_mode:
        frr.fail(f"found no {missing}, expected FRR: install the packages frr and frr-pythontools")
    if missing:
        module.exit_json(
            changed=True,
            action="install",
            delta=file_diff,
            restart_reasons=[],
            msg=f"{missing} is not there yet: FRR would be installed, and started with this configuration",
            diff={"prepared": daemons_diff + file_diff},
        )

    candidate = Path(frr.stage(wanted.configuration))
    complaint = frr.check(candidate)
    if complaint:
        frr.fail(
            f"vtysh -C refuses the configuration, the old one stays in place and runs: {complaint}",
            diff={"prepared": file_diff},
        )

    running = bool(frr.running())
    delta = frr.delta(candidate) if running else ""
    new, reasons = frr.difference(wanted.daemons)
    if not running:
        action, reasons = "start", ["FRR does not run"]
    elif reasons:
        action = "restart"
    elif new:
        action, reasons = "start-daemons", [f"{name} does not run" for name in new]
    else:
        action = "reload" if delta else "none"
    changed = bool(action != "none" or file_diff or daemons_diff or old.configuration is None)
    result: dict[str, Any] = {
        "changed": changed,
        "action": action,
        "delta": masked(delta),
        "restart_reasons": reasons,
        "diff": {"prepared": _shown(action, reasons, daemons_diff, masked(delta), file_diff)},
        "msg": _told(action, reasons),
    }
    if module.check_mode:
        result["changed"] = changed or frr.attributes()
        module.exit_json(**result)
    if not changed:
        result["changed"] = frr.attributes()
        module.exit_json(**result)
    if action == "none":
        frr.write(wanted)
        module.exit_json(**result)

    seconds = float(module.params["ready_seconds"])
    result["action"], left, said = _apply(frr, wanted, seconds)
    if left:
        _put_back(frr, old, seconds, left, said, result)
    result["msg"] = _told(result["action"], reasons)
    module.exit_json(**result)


def _put_back(
    frr: _Frr, old: _Files, seconds: float, left: str, said: str, result: dict[str, Any]
) -> NoReturn:
    result.pop("msg")
    problem = f"FRR did not take all of the configuration; left to apply:\n{masked(left)}{said}".rstrip()
    if old.configuration is None:
        frr.fail(f"{problem}\nThere was no configuration before that could be put back.", **result)
    _, left, _ = _apply(frr, old, seconds)
    end = f"and left this to apply:\n{masked(left)}" if left else "and runs as before."
    frr.fail(f"{problem}\nThe old configuration was put back, {end}".rstrip(), **result)


def _shown(action: str, reasons: list[str], daemons_diff: str, delta: str, file_diff: str) -> str:
    """Return the diff for a person: what the daemons are told, or the file when they are told nothing."""
    text = daemons_diff
    if reasons:
        text += f"{_told(action, reasons)}\n"
    if delta:
        text += f"before: running configuration\nafter: frr.conf\n{delta}"
    else:
        text += file_diff
    return text


def _told(action: str, reasons: list[str]) -> str:
    why = ", ".join(reasons)
    return {
        "restart": f"FRR is restarted, every session with it: {why}",
        "start-daemons": f"daemons are started, the others go on: {why}",
        "start": f"FRR is started: {why}",
        "reload": "the configuration is applied to the running daemons",
    }.get(action, "the daemons run this configuration")


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "configuration": {"type": "str", "required": True, "no_log": True},
            "daemons": {"type": "str"},
            "drained_mark": {"type": "path", "default": "/run/router-agent/drained"},
            "service": {"type": "str", "default": "frr.service"},
            "directory": {"type": "path", "default": "/etc/frr"},
            "runtime_directory": {"type": "path", "default": "/run/frr"},
            "programs": {"type": "path", "default": "/usr/lib/frr"},
            "ready_seconds": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    try:
        _run(module)
    except _NotReadyError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
