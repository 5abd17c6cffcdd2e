#!/usr/bin/python
"""Ansible module: makes ExaBGP run a configuration, with as little disturbance as that takes."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import pwd
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
---
module: exabgp_configuration
short_description: Make ExaBGP run a configuration
description:
  - Compares ExaBGP's files with what is there, and what is there with what was last taken into use.
  - A new configuration is checked by C(exabgp validate) before it replaces the old one. It is taken into use
    by a reload (SIGUSR1), which leaves sessions and processes alone that it does not concern; a new program,
    unit or environment needs a restart. ExaBGP must say that it has read the configuration; otherwise the old
    files are put back and taken into use, and the module fails.
  - Passwords are masked in everything that is returned.
options:
  state:
    description: V(absent) stops ExaBGP and removes its files and unit; its user and program stay.
    type: str
    choices: [present, absent]
    default: present
  configuration:
    description: Content of exabgp.conf.
    type: str
  environment:
    description: Content of exabgp.env, which the unit reads.
    type: str
  unit:
    description: Content of exabgp.service.
    type: str
  checks:
    description: Content of the script that runs the checks of services; shell.
    type: str
  relay:
    description: Content of the relay to router-agent; removed when omitted.
    type: str
  relay_path:
    description: Path of the relay.
    type: path
    required: true
  announcer:
    description: Content of what announces with GRACEFUL_SHUTDOWN on a drained router; removed when omitted.
    type: str
  announcer_path:
    description: Path of that.
    type: path
    required: true
  program:
    description: ExaBGP's environment; a symbolic link to the version in use.
    type: path
    required: true
  user:
    description: User that ExaBGP runs as; made, with a group of its name, where there is none.
    type: str
    default: exabgp
  directory:
    description: Directory of the files.
    type: path
    default: /etc/exabgp
  drain_directory:
    description: Directory for the files that withdraw services; made empty.
    type: path
    required: true
  applied:
    description: File that notes what was last taken into use.
    type: path
    default: /etc/pop-router/exabgp.applied
  ready_seconds:
    description: How long ExaBGP may take to read its configuration.
    type: int
    default: 60
author: the router kit
"""

RETURN = r"""
action:
  description: What was done to the daemon; none, reload, restart, start, stop or install.
  returned: always
  type: str
"""

_UNIT = Path("/etc/systemd/system/exabgp.service")
_SERVICE = "exabgp.service"
_COMMAND_SECONDS = "120"
_POLL_SECONDS = 0.5
_SECRET = re.compile(r"(\bmd5-password\s+)\S.*")
_READ = "loaded new configuration successfully"
_REFUSED = "could not load/reload configuration"


def masked(text: str) -> str:
    """Return a configuration, or a message that quotes one, without its passwords."""
    return _SECRET.sub(r"\g<1>********", text)


def digest(*parts: str) -> str:
    """Return a digest of texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def action_for(applied: dict[str, str], wanted: dict[str, str], *, active: bool) -> str:
    """Return what has to be done to the daemon.

    Args:
        applied: digests of what was last taken into use: `restart`, of what needs one, and `reload`.
        wanted: the same of what is wanted.
        active: whether it runs.
    """
    if not active:
        return "start"
    if applied.get("restart") != wanted["restart"]:
        return "restart"
    return "none" if applied.get("reload") == wanted["reload"] else "reload"


@dataclass(frozen=True)
class _File:
    """A file; None as content says that there is none."""

    path: Path
    content: str | None
    group: str = "root"
    mode: str = "0644"


class _ExaBgp:
    def __init__(self, module: AnsibleModule) -> None:
        self._module = module
        self._program = Path(module.params["program"])
        self._user: str = module.params["user"]
        self._applied = Path(module.params["applied"])
        self.drain = Path(module.params["drain_directory"])
        directory = Path(module.params["directory"])
        self.configuration = directory / "exabgp.conf"
        self.environment = directory / "exabgp.env"
        self.checks = directory / "checks"
        self.relay = Path(module.params["relay_path"])
        self.announcer = Path(module.params["announcer_path"])

    @property
    def executable(self) -> Path:
        return self._program / "bin" / "exabgp"

    def wanted(self) -> list[_File]:
        """Return the files as the module was given them."""
        given = {
            name: None if self._module.params[name] is None else self._module.params[name].rstrip("\n") + "\n"
            for name in ("configuration", "environment", "unit", "checks", "relay", "announcer")
        }
        return [
            _File(self.environment, given["environment"]),
            _File(_UNIT, given["unit"]),
            _File(self.relay, given["relay"]),
            _File(self.announcer, given["announcer"]),
            # Both may hold passwords. The checks are read each time, the other when ExaBGP is told to.
            _File(self.checks, given["checks"], self._user, "0750"),
            _File(self.configuration, given["configuration"], self._user, "0640"),
        ]

    def present(self, files: list[_File]) -> list[_File]:
        """Return the same files as they are now."""
        return [_File(file.path, _read(file.path), file.group, file.mode) for file in files]

    def digests(self, files: list[_File]) -> dict[str, str]:
        """Return the digests of what needs a restart and of what a reload does."""
        contents = {file.path: file.content or "" for file in files}
        version = os.path.realpath(self._program)
        return {
            "restart": digest(version, contents[_UNIT], contents[self.environment]),
            "reload": digest(contents[self.configuration], contents[self.relay], contents[self.announcer]),
        }

    def applied(self) -> dict[str, str]:
        try:
            found = json.loads(self._applied.read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def note(self, digests: dict[str, str]) -> None:
        """Note what was taken into use."""
        self._applied.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._module.atomic_move(self._stage(json.dumps(digests) + "\n"), str(self._applied))

    def has_user(self) -> bool:
        try:
            pwd.getpwnam(self._user)
        except KeyError:
            return False
        return True

    def make_user(self) -> None:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        self._must(*command, "--shell", "/usr/sbin/nologin", "--comment", "ExaBGP", self._user)

    def check(self, files: list[_File]) -> str:
        """Return what ExaBGP has against the configuration; empty when it takes it."""
        contents = {file.path: file.content or "" for file in files}
        path = self._stage(contents[self.checks])
        code, out, err = self._run("sh", "-n", path)
        if code != 0:
            said = (err or out).strip().replace(path, str(self.checks))
            return f"the checks of services are no shell script: {said}"
        path = self._stage(contents[self.configuration])
        code, out, err = self._run(str(self.executable), "validate", "-nr", path)
        if code == 0:
            return ""
        said = "\n".join(line for line in (err or out).splitlines() if line.strip())
        return masked(said.replace(path, str(self.configuration))) or f"exit status {code}"

    def is_(self, state: str) -> bool:
        """Tell whether the unit is active or enabled."""
        return self._run("systemctl", f"is-{state}", "--quiet", _SERVICE)[0] == 0

    def write(self, files: list[_File]) -> None:
        for file in files:
            if file.content is None:
                file.path.unlink(missing_ok=True)
                continue
            self._directory(file.path.parent)
            if _read(file.path) != file.content:
                self._module.atomic_move(self._stage(file.content), str(file.path))
            self.attributes(file)

    def attributes(self, file: _File) -> bool:
        """Give a file its owner and permissions; return whether that changes, or would change, them."""
        if not file.path.exists() or (self._module.check_mode and not self.has_user()):
            return False
        path = str(file.path)
        changed = self._module.set_mode_if_different(path, file.mode, False)
        changed = self._module.set_owner_if_different(path, "root", changed)
        return bool(self._module.set_group_if_different(path, file.group, changed))

    def take(self, action: str, seconds: float) -> str:
        """Take the files into use; return what went wrong, empty when nothing did."""
        self._directory(self.drain)
        cursor = self._cursor()
        self._must("systemctl", "daemon-reload")
        self._must("systemctl", "enable", "--quiet", _SERVICE)
        if action == "reload":
            self._must("systemctl", "reload", _SERVICE)
        elif action != "none":
            self._must("systemctl", "restart", _SERVICE)
        return "" if action == "none" else self._await(cursor, seconds)

    def remove(self, files: list[_File]) -> None:
        if _UNIT.exists():
            self._must("systemctl", "disable", "--now", "--quiet", _SERVICE)
        for file in files:
            file.path.unlink(missing_ok=True)
        self._applied.unlink(missing_ok=True)
        self._must("systemctl", "daemon-reload")

    def fail(self, message: str, **results: Any) -> NoReturn:
        self._module.fail_json(msg=message, **results)
        raise AssertionError("fail_json does not return")

    def _directory(self, path: Path) -> None:
        if not path.is_dir():
            path.mkdir(mode=0o755, parents=True)
            path.chmod(0o755)

    def _cursor(self) -> str:
        _, out, _ = self._run("journalctl", "--quiet", "--lines=0", "--show-cursor")
        match = re.search(r"-- cursor: (\S+)", out)
        return match[1] if match else ""

    def _await(self, cursor: str, seconds: float) -> str:
        """Wait until ExaBGP says that it has read its configuration."""
        command = ["journalctl", "--quiet", f"--unit={_SERVICE}", "--output=cat"]
        command += [f"--after-cursor={cursor}"] if cursor else ["--boot"]
        deadline = time.monotonic() + seconds
        while True:
            _, said, _ = self._run(*command)
            if _REFUSED in said:
                return masked("\n".join(said[said.index(_REFUSED) :].splitlines()[:10]))
            if _READ in said:
                return ""
            if time.monotonic() > deadline:
                end = "\n".join(said.splitlines()[-10:])
                return masked(f"found no word of it within {seconds:.0f} s; its log ends:\n{end}")
            time.sleep(_POLL_SECONDS)

    def _stage(self, content: str) -> str:
        path = Path(self._module.tmpdir) / f"exabgp-{os.getpid()}-{time.monotonic_ns()}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        self._module.add_cleanup_file(str(path))
        return str(path)

    def _must(self, *words: str) -> None:
        code, out, err = self._run(*words)
        if code != 0:
            self.fail(f"{' '.join(words)}: exit status {code}: {(err or out).strip()}")

    def _run(self, *words: str) -> tuple[int, str, str]:
        code, out, err = self._module.run_command(["timeout", _COMMAND_SECONDS, *words])
        return int(code), str(out), str(err)


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _diff(old: list[_File], new: list[_File]) -> str:
    text = ""
    for before, after in zip(old, new, strict=True):
        lines = difflib.unified_diff(
            masked(before.content or "").splitlines(keepends=True),
            masked(after.content or "").splitlines(keepends=True),
            f"before: {before.path}",
            f"after: {after.path}",
        )
        text += "".join(lines)
    return text


def _present(module: AnsibleModule, exabgp: _ExaBgp) -> None:
    wanted = exabgp.wanted()
    old = exabgp.present(wanted)
    result: dict[str, Any] = {"diff": {"prepared": _diff(old, wanted)}}

    if not exabgp.executable.exists():
        if not module.check_mode:
            exabgp.fail(f"found no {exabgp.executable}, expected ExaBGP: role venv installs it")
        result["msg"] = f"{exabgp.executable} is not there yet: ExaBGP would be installed and started"
        module.exit_json(changed=True, action="install", **result)

    different = [new.content for new in wanted] != [now.content for now in old]
    action = action_for(exabgp.applied(), exabgp.digests(wanted), active=exabgp.is_("active"))
    if different or action != "none":
        complaint = exabgp.check(wanted)
        if complaint:
            exabgp.fail(
                f"exabgp validate refuses the configuration, the old one stays in place: {complaint}",
                **result,
            )
    result["action"] = action
    result["msg"] = {
        "none": "ExaBGP runs this configuration",
        "reload": "ExaBGP reads its configuration again; sessions it does not concern stay up",
        "restart": "ExaBGP is restarted, every session of it: its program, unit or environment has changed",
        "start": "ExaBGP is started",
    }[action]
    incomplete = not exabgp.has_user() or not exabgp.drain.is_dir() or not exabgp.is_("enabled")
    changed = different or action != "none" or incomplete
    if module.check_mode or not changed:
        attributes = [exabgp.attributes(file) for file in wanted]
        module.exit_json(changed=changed or any(attributes), **result)

    if not exabgp.has_user():
        exabgp.make_user()
    exabgp.write(wanted)
    seconds = float(module.params["ready_seconds"])
    problem = exabgp.take(action, seconds)
    if problem:
        _put_back(exabgp, old, seconds, problem, result)
    exabgp.note(exabgp.digests(wanted))
    module.exit_json(changed=True, **result)


def _put_back(
    exabgp: _ExaBgp, old: list[_File], seconds: float, problem: str, result: dict[str, Any]
) -> NoReturn:
    result.pop("msg")
    problem = f"ExaBGP did not take the configuration: {problem}"
    optional = (exabgp.relay, exabgp.announcer)
    if any(file.content is None for file in old if file.path not in optional):
        exabgp.fail(f"{problem}\nThere was none before that could be put back.", **result)
    exabgp.write(old)
    again = exabgp.take("restart", seconds)
    if again:
        exabgp.fail(f"{problem}\nThe old one was put back, and not taken either: {again}", **result)
    exabgp.note(exabgp.digests(old))
    exabgp.fail(f"{problem}\nThe old one was put back and runs.", **result)


def _absent(module: AnsibleModule, exabgp: _ExaBgp) -> None:
    files = exabgp.wanted()
    old = exabgp.present(files)
    gone = [_File(file.path, None) for file in files]
    changed = any(file.content is not None for file in old)
    if changed and not module.check_mode:
        exabgp.remove(files)
    module.exit_json(
        changed=changed,
        action="stop" if changed else "none",
        msg="no peer and no service needs ExaBGP" + (": it is stopped and removed" if changed else ""),
        diff={"prepared": _diff(old, gone)},
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "configuration": {"type": "str", "no_log": True},
            "environment": {"type": "str"},
            "checks": {"type": "str"},
            "unit": {"type": "str"},
            "relay": {"type": "str"},
            "relay_path": {"type": "path", "required": True},
            "announcer": {"type": "str"},
            "announcer_path": {"type": "path", "required": True},
            "program": {"type": "path", "required": True},
            "user": {"type": "str", "default": "exabgp"},
            "directory": {"type": "path", "default": "/etc/exabgp"},
            "drain_directory": {"type": "path", "required": True},
            "applied": {"type": "path", "default": "/etc/pop-router/exabgp.applied"},
            "ready_seconds": {"type": "int", "default": 60},
        },
        required_if=[("state", "present", ("configuration", "environment", "unit", "checks"))],
        supports_check_mode=True,
    )
    exabgp = _ExaBgp(module)
    if module.params["state"] == "absent":
        _absent(module, exabgp)
    else:
        _present(module, exabgp)


if __name__ == "__main__":
    main()
