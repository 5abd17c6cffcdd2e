# Copyright: the authors of the router kit. SPDX-License-Identifier: Apache-2.0
"""Ansible module: keep a drop-in of GRUB that adds kernel arguments, and write grub.cfg once when it changed.

GRUB's settings are shell files which grub-mkconfig sources in turn: /etc/default/grub, then
/etc/default/grub.d/*.cfg in alphabetical order. They are read here the same way, by a shell, so that what
is compared is what GRUB will see.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: grub_arguments
short_description: Keep a drop-in of GRUB that adds kernel arguments
description:
  - Writes one drop-in under /etc/default/grub.d and runs update-grub once when it changed, or when grub.cfg
    lacks an argument because an earlier run was cut off. If update-grub fails, the former drop-in is put
    back.
  - Refuses arguments that the operator's own settings give another value.
  - Remembers in a record which arguments were ever put in, to tell those that were withdrawn but still run.
options:
  arguments:
    description: Kernel arguments wanted, in the order in which they are passed. None removes the drop-in.
    type: list
    elements: str
    required: true
  content:
    description: Text of the drop-in.
    type: str
    required: true
  require_grub_boot:
    description: Fail unless the running kernel shows that GRUB booted it.
    type: bool
    default: true
  update_timeout:
    description: Seconds that update-grub may take.
    type: int
    default: 300
author: ["The authors of the router kit"]
"""

RETURN = r"""
missing:
  description: Arguments wanted that the running kernel does not have.
  type: list
  returned: success
withdrawn:
  description: Arguments put in by an earlier run, wanted by nobody now, that the running kernel still has.
  type: list
  returned: success
newer_kernel:
  description: Version of an installed kernel newer than the running one, or empty.
  type: str
  returned: success
"""

#: Arguments that the kernel takes several times: two different values are no conflict.
REPEATABLE = frozenset({"console", "earlycon", "earlyprintk", "netconsole", "systemd.unit", "systemd.mask"})

RECORD_HEADER = (
    "# Kernel arguments the router kit has put into GRUB and that may still be those of the running kernel.\n"
)


class GrubError(Exception):
    """What was found, what was expected, and what to do."""


@dataclass(frozen=True)
class Host:
    """Where things are; `root` is / but in tests."""

    root: Path = Path("/")
    update_grub: tuple[str, ...] = ("update-grub",)

    @property
    def defaults(self) -> Path:
        """The operator's settings of GRUB."""
        return self.root / "etc/default/grub"

    @property
    def drop_in(self) -> Path:
        """Ours."""
        return self.root / "etc/default/grub.d/60-pop-router.cfg"

    @property
    def grub_cfg(self) -> Path:
        """What GRUB reads at boot."""
        return self.root / "boot/grub/grub.cfg"

    @property
    def record(self) -> Path:
        """Arguments ever put in, one a line."""
        return self.root / "etc/pop-router/kernel-arguments"

    def running(self) -> list[str]:
        """Arguments of the running kernel."""
        return (self.root / "proc/cmdline").read_text().split()

    def foreign(self) -> list[Path]:
        """Settings of GRUB that are not ours, in the order in which they are sourced."""
        drop_ins = sorted(self.drop_in.parent.glob("*.cfg"))
        return [path for path in (self.defaults, *drop_ins) if path != self.drop_in and path.is_file()]


@dataclass
class Outcome:
    """What was, or in check mode would be, done."""

    changed: bool = False
    before: str = ""
    after: str = ""
    missing: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    newer_kernel: str = ""


def key(argument: str) -> str:
    """Name of a kernel argument, without its value."""
    return argument.partition("=")[0]


def check_spelling(arguments: Iterable[str]) -> None:
    """Refuse what a shell, GRUB or the kernel would take apart or expand."""
    for argument in arguments:
        if not re.fullmatch(r"[A-Za-z0-9_][\w.,:=/@%+-]*", argument):
            raise GrubError(
                f"kernel_cmdline_arguments: found {argument!r}, expected name or name=value without blanks, "
                "quotes, $ or backslashes: give each argument as an item of its own"
            )


def boot_loader_problems(host: Host) -> list[str]:
    """Why this host does not look like one that GRUB boots."""
    problems = []
    if not host.defaults.is_file():
        problems.append(f"{host.defaults} does not exist (package grub-pc or grub-efi-amd64)")
    if not host.grub_cfg.is_file():
        problems.append(f"{host.grub_cfg} does not exist")
    if not any(key(argument) == "BOOT_IMAGE" for argument in host.running()):
        problems.append("/proc/cmdline has no BOOT_IMAGE=, which GRUB always passes")
    return problems


def grub_settings(files: Sequence[Path]) -> tuple[list[str], list[str]]:
    """GRUB_CMDLINE_LINUX and GRUB_CMDLINE_LINUX_DEFAULT after sourcing `files`, as lists of arguments."""
    script = (
        'for file do . "$file" >&2 || exit 1; done\n'
        'printf "%s\\n--\\n%s\\n" "$GRUB_CMDLINE_LINUX" "$GRUB_CMDLINE_LINUX_DEFAULT"'
    )
    shell = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    if shell.returncode != 0:
        names = ", ".join(map(str, files))
        raise GrubError(f"sourcing {names} failed, as update-grub would: {shell.stderr.strip()}")
    always, _, default = shell.stdout.partition("\n--\n")
    return always.split(), default.split()


def conflicts(arguments: Sequence[str], foreign: Sequence[Path], theirs: Sequence[str]) -> list[str]:
    """Arguments of the operator with the name of one of ours and a value that we do not want."""
    found = []
    wanted = set(arguments)
    for argument in dict.fromkeys(theirs):
        ours = [mine for mine in arguments if key(mine) == key(argument)]
        if argument in wanted or not ours or key(argument) in REPEATABLE:
            continue
        places = [str(path) for path in foreign if argument in path.read_text()] or [str(foreign[0])]
        found.append(f"{argument} in {' and '.join(places)} against {' '.join(ours)}")
    return found


def natural(version: str) -> list[tuple[int, int, str]]:
    """Sort key in which 6.12.9 is older than 6.12.10."""
    parts = re.findall(r"\d+|[^\d]+", version)
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def newer_kernel(boot: Path, running: str) -> str:
    """Newest installed kernel's version if it is newer than `running`, else empty."""
    versions = [path.name.removeprefix("vmlinuz-") for path in boot.glob("vmlinuz-*")]
    newest = max(versions, key=natural, default=running)
    return newest if natural(newest) > natural(running) else ""


def read_record(host: Host) -> list[str]:
    """Arguments ever put in, also those of a drop-in whose record was lost."""
    lines = host.record.read_text().splitlines() if host.record.is_file() else []
    ever = [line for line in lines if line and not line.startswith("#")]
    if host.drop_in.is_file():
        ever += grub_settings([host.drop_in])[0]
    return list(dict.fromkeys(ever))


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all; an empty text removes it."""
    if not text:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    Path(name).replace(path)


def check_effective(host: Host, arguments: Sequence[str], content: str, foreign: Sequence[Path]) -> None:
    """Refuse when the drop-in, in its place among the others, does not give GRUB every argument."""
    with tempfile.TemporaryDirectory() as directory:
        candidate = Path(directory) / host.drop_in.name
        candidate.write_text(content)
        later = [
            path for path in foreign if path.parent == host.drop_in.parent and path.name > candidate.name
        ]
        earlier = [path for path in foreign if path not in later]
        always, _ = grub_settings([*earlier, candidate, *later])
    lost = [argument for argument in arguments if argument not in always]
    if lost:
        names = ", ".join(map(str, later)) or str(host.drop_in)
        raise GrubError(
            f"{' '.join(lost)} would not reach GRUB: found that {names} replaces GRUB_CMDLINE_LINUX, "
            'expected it to append (GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX ..."): correct that file'
        )


def in_grub_cfg(host: Host, arguments: Sequence[str]) -> bool:
    """Whether some boot entry of grub.cfg has all arguments."""
    if not arguments:
        return True
    if not host.grub_cfg.is_file():
        return False
    lines = (line.split() for line in host.grub_cfg.read_text().splitlines())
    entries = [set(words) for words in lines if words and words[0].startswith("linux")]
    return any(set(arguments) <= words for words in entries)


def update(host: Host, former: str, timeout: int) -> None:
    """Run update-grub; put the former drop-in back when it fails, so that the next run tries again."""
    try:
        run = subprocess.run(host.update_grub, capture_output=True, text=True, check=False, timeout=timeout)
        failure = run.stderr.strip() if run.returncode else ""
        failed = run.returncode != 0
    except (OSError, subprocess.TimeoutExpired) as error:
        failure, failed = str(error), True
    if failed:
        replace(host.drop_in, former)
        raise GrubError(f"update-grub failed, {host.drop_in} is as it was before: {failure}")


def apply(host: Host, arguments: Sequence[str], content: str, *, check: bool, timeout: int = 300) -> Outcome:
    """Bring the drop-in to `content` and tell what the running kernel lacks or still has.

    Raises:
        GrubError: the arguments contradict the operator's, or GRUB could not be updated.
    """
    check_spelling(arguments)
    wanted = content if arguments else ""
    before = host.drop_in.read_text() if host.drop_in.is_file() else ""
    foreign = host.foreign()
    theirs = [argument for setting in grub_settings(foreign) for argument in setting]
    if found := conflicts(arguments, foreign, theirs):
        raise GrubError(
            "the operator's GRUB settings contradict kernel_cmdline_arguments: "
            + "; ".join(found)
            + ". Take the argument out of that file, or set the role's variable to the same value"
        )
    if arguments:
        check_effective(host, arguments, content, foreign)
    ever, running = read_record(host), host.running()
    keep = {*arguments, *theirs}
    outcome = Outcome(
        changed=before != wanted or not in_grub_cfg(host, arguments),
        before=before,
        after=wanted,
        missing=[argument for argument in dict.fromkeys(arguments) if argument not in running],
        withdrawn=[argument for argument in ever if argument in running and argument not in keep],
        newer_kernel=newer_kernel(host.root / "boot", os.uname().release),
    )
    if outcome.changed and not check:
        # The record comes first: an argument may be in GRUB and not in the record at no time.
        kept = list(dict.fromkeys([*arguments, *outcome.withdrawn]))
        replace(host.record, RECORD_HEADER + "".join(f"{argument}\n" for argument in kept) if kept else "")
        replace(host.drop_in, wanted)
        update(host, before, timeout)
    return outcome


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "arguments": {"type": "list", "elements": "str", "required": True},
            "content": {"type": "str", "required": True},
            "require_grub_boot": {"type": "bool", "default": True},
            "update_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    host = Host(update_grub=(module.get_bin_path("update-grub") or "/usr/sbin/update-grub",))
    problems = boot_loader_problems(host) if module.params["require_grub_boot"] else []
    if problems:
        module.fail_json(
            msg="this host does not boot by GRUB: found that "
            + "; ".join(problems)
            + ". Kernel arguments are "
            "set by GRUB only: install GRUB and boot by it, or set kernel_cmdline_require_grub_boot to false "
            "where an image is built that GRUB will boot"
        )
    try:
        outcome = apply(
            host,
            module.params["arguments"],
            module.params["content"],
            check=module.check_mode,
            timeout=module.params["update_timeout"],
        )
    except GrubError as error:
        module.fail_json(msg=str(error))
    name = str(host.drop_in)
    module.exit_json(
        changed=outcome.changed,
        missing=outcome.missing,
        withdrawn=outcome.withdrawn,
        newer_kernel=outcome.newer_kernel,
        diff={"before": outcome.before, "after": outcome.after, "before_header": name, "after_header": name},
    )


if __name__ == "__main__":
    main()
