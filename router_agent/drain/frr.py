"""FRR and graceful shutdown (RFC 8326): what it runs, and what it would come back with.

``bgp graceful-shutdown`` has neighbours prefer other routers: those of other networks get the community
65535:0 (GRACEFUL_SHUTDOWN) with each prefix, those inside the AS LOCAL_PREF 0. Outside of ``router bgp`` it
holds for all instances, of VRFs too and of those still to come; bgpd refuses it there while an instance has
it of its own. The line is in the running configuration and, because FRR forgets that when it is restarted,
in frr.conf.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field

from router_agent.drain.files import replace
from router_agent.drain.settings import FrrSettings

LINE = "bgp graceful-shutdown"
BLOCK = f"! Drained (RFC 8326): router-agent undrain takes this out.\n{LINE}\n!\n"
"""What frr.conf has for as long as the router is drained; module frr_configuration writes the same."""

_INSTANCE = re.compile(r"router bgp\b.*")
_COMMENT = BLOCK.splitlines()[0]


class FrrError(Exception):
    """FRR is not as it was asked to be; the message says what to do."""


@dataclass
class Shutdown:
    """Graceful shutdown in a configuration.

    Attributes:
        everywhere: it holds for all instances.
        instances: each ``router bgp ...`` line, and whether the instance has it of its own.
    """

    everywhere: bool = False
    instances: dict[str, bool] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every instance shuts down gracefully."""
        return self.everywhere or all(self.instances.values())

    @property
    def any(self) -> bool:
        """Whether one does, or would."""
        return self.everywhere or any(self.instances.values())


def shutdown_of(configuration: str) -> Shutdown:
    """Return what a configuration says, as FRR prints it or frr.conf has it."""
    found, instance = Shutdown(), ""
    for line in configuration.splitlines():
        words = line.strip()
        if _INSTANCE.fullmatch(line.rstrip()):
            instance = words
            found.instances[instance] = False
        elif words == LINE and instance and line[0].isspace():
            found.instances[instance] = True
        elif words == LINE:
            found.everywhere = True
        elif line and not line[0].isspace() and not line.startswith("!"):
            instance = ""
    return found


def with_shutdown(configuration: str) -> str:
    """Return frr.conf with graceful shutdown for all instances; as it is when none speaks BGP."""
    if shutdown_of(configuration).everywhere or not shutdown_of(configuration).instances:
        return configuration
    lines = without_shutdown(configuration).splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if _INSTANCE.fullmatch(line.rstrip()))
    return "".join([*lines[:at], BLOCK, *lines[at:]])


def without_shutdown(configuration: str) -> str:
    """Return frr.conf without graceful shutdown, for all or for an instance, whoever wrote it there."""
    lines = configuration.replace(BLOCK, "").splitlines(keepends=True)
    return "".join(line for line in lines if line.strip() not in (LINE, _COMMENT))


class Frr:
    """FRR of this host.

    Args:
        settings: how to reach it.
    """

    def __init__(self, settings: FrrSettings) -> None:
        self._vtysh = settings.vtysh
        self._file = settings.configuration
        self._seconds = settings.seconds

    def running(self) -> Shutdown | None:
        """Return what bgpd runs; None when it does not run.

        Raises:
            FrrError: it cannot be asked.
        """
        daemons = self._ask("show daemons", may_fail=True)
        if daemons is None or "bgpd" not in daemons.split():
            return None
        shown = self._ask("show running-config bgpd")
        assert shown is not None
        return shutdown_of(shown)

    def as_marked(self, *, drained: bool) -> str:
        """Return what bgpd does, in words.

        Raises:
            FrrError: it does not shut down gracefully although the router is drained, or the other way.
        """
        found = self.running()
        if found is None:
            return f"bgpd does not run; it comes back {'drained' if drained else 'undrained'}"
        if drained and not found.complete:
            missing = ", ".join(name for name, has in found.instances.items() if not has)
            raise FrrError(f"{missing}: found no '{LINE}' although the router is marked: drain again")
        if not drained and found.any:
            raise FrrError(f"found '{LINE}' although the router is not marked: drain or undrain it")
        return self._said(found) if drained else "bgpd announces as ever"

    def drain(self) -> str:
        """Have every instance that runs shut down gracefully; return what they do, in words.

        Raises:
            FrrError: one does not.
        """
        found = self.running()
        if found is None:
            return "bgpd does not run and announces nothing; it comes back drained"
        if not found.instances:
            return "bgpd speaks to nobody"
        if found.complete:
            return self._said(found)
        if found.any:
            # bgpd takes it for all only while no instance has it of its own.
            missing = [name for name, has in found.instances.items() if not has]
            output = self._configure(*(word for name in missing for word in (name, LINE, "exit")))
        else:
            output = self._configure(LINE)
        found = self.running()
        if found is None or not found.complete:
            raise FrrError(
                f"bgpd was told '{LINE}' and does not run it ({_last(output)}): look at 'vtysh -c \"show "
                "running-config bgpd\"' and FRR's log, then drain again"
            )
        return self._said(found)

    def undrain(self) -> str:
        """Have no instance that runs shut down gracefully; return what they do, in words.

        Raises:
            FrrError: one does.
        """
        found = self.running()
        if found is None:
            return "bgpd does not run; it comes back undrained"
        if not found.any:
            return "bgpd announces as ever"
        own = [name for name, has in found.instances.items() if has]
        words = [f"no {LINE}"] if found.everywhere else []
        output = self._configure(*words, *(word for name in own for word in (name, f"no {LINE}", "exit")))
        found = self.running()
        if found is None or found.any:
            raise FrrError(
                f"bgpd was told 'no {LINE}' and still runs it ({_last(output)}): look at FRR's log; "
                "'systemctl restart frr' brings it back undrained, with a break of all sessions"
            )
        return "bgpd announces as ever"

    def prepare(self, *, drained: bool) -> bool:
        """Have frr.conf say what FRR is to start with; return whether that changed it.

        Raises:
            FrrError: it cannot be read or written.
        """
        try:
            old = self._file.read_text()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise FrrError(f"cannot read {self._file}: {error.strerror}") from error
        new = with_shutdown(old) if drained else without_shutdown(old)
        if new == old:
            return False
        try:
            replace(self._file, new, like=self._file)
        except OSError as error:
            raise FrrError(
                f"cannot write {self._file} ({error.strerror}): after a restart FRR would not be as now"
            ) from error
        return True

    def _said(self, found: Shutdown) -> str:
        return f"bgpd shuts down gracefully: {', '.join(found.instances)}"

    def _configure(self, *lines: str) -> str:
        """Configure bgpd; what it answers counts less than what it runs afterwards."""
        return self._run("configure terminal", *lines, "end")[1]

    def _ask(self, command: str, *, may_fail: bool = False) -> str | None:
        code, output = self._run(command)
        if code != 0:
            if may_fail:
                return None
            raise FrrError(f"vtysh -c '{command}' ended with {code}: {_last(output)}")
        return output

    def _run(self, *lines: str) -> tuple[int, str]:
        command = [*self._vtysh, *(word for line in lines for word in ("-c", line))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=self._seconds)
        except OSError as error:
            raise FrrError(f"cannot run {command[0]}: {error.strerror}; is FRR installed?") from error
        except subprocess.TimeoutExpired as error:
            raise FrrError(
                f"vtysh -c '{lines[-1]}': found no answer within {self._seconds:.0f} s; is bgpd stuck? "
                "'systemctl status frr' says what watchfrr thinks"
            ) from error
        return done.returncode, f"{done.stdout}{done.stderr}"


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it said nothing"
