"""``router-agent drain``, ``undrain``, ``drained`` and what belongs to them.

Exit codes, with those of `router_agent.cli` in mind:

    0  done: drained and the traffic has gone; undrained; drained, yes
    1  no: drained, but the traffic is still there when the time is over; not drained
    2  wrong usage, or a drain.yaml that cannot be used
    4  something could not be done: a speaker is not drained or undrained; the messages say which and what
    to do
"""

from __future__ import annotations

import getpass
import json as jsonlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from router_agent.drain.drain import Done
    from router_agent.drain.settings import Settings, TrafficSettings
    from router_agent.drain.traffic import Meter, Rate
    from router_agent.drain.wait import Outcome, Progress

_CONFIG = Path("/etc/router-agent/drain.yaml")
NO, USAGE, FAILED = 1, 2, 4
_BASELINE_SECONDS = 1.0
_LINE_SECONDS = 10.0
"""Where no terminal is, progress is a line so often."""

Config = Annotated[Path, typer.Option("--config", "-c", help="What draining needs to know of this host.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def drain(
    reason: Annotated[str, typer.Option(help="Why, for those who find the router drained.")] = "",
    by: Annotated[str, typer.Option(help="Who drains it; by default the user.")] = "",
    keep: Annotated[
        bool | None,
        typer.Option("--keep-over-reboot/--no-keep-over-reboot", help="Whether it lasts over a reboot; no."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the traffic has gone.")] = True,
    below_pps: Annotated[
        float | None, typer.Option(min=0, help="So many packets a second are no traffic.")
    ] = None,
    below_share: Annotated[
        float | None, typer.Option(min=0, max=0.999, help="Neither is such a share of what there was before.")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0.1, max=86400, help="How long the traffic may take to go.")
    ] = None,
    port: Annotated[
        list[str] | None, typer.Option(help="Port whose traffic counts; by default those of the file.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    config: Config = _CONFIG,
    json: Json = False,
) -> None:
    """Have neighbours prefer other routers (RFC 8326), and wait until the traffic has gone.

    Exits 1 when it has not gone in time; the router stays drained.
    """
    from router_agent.drain.drain import DrainError, Host

    settings = _load(config)
    traffic = _asked(settings.traffic, below_pps, below_share, seconds, port)
    host = Host(settings)
    try:
        if dry_run:
            _finish_dry_run(host.state(), json=json)
            return
        meter = _meter(settings, traffic)
        before = _baseline(meter) if wait else None
        done = host.drain(by=by or _user(), reason=reason, keep=keep)
    except DrainError as error:
        _fail(FAILED, str(error))
    if not json:
        _print_speakers(done)
    outcome = None
    if wait and not done.failed:
        since = done.mark.since if done.mark else None
        outcome = _wait(meter, traffic, before, lambda: _in_force(host, since), json=json)
    if json:
        print(jsonlib.dumps(_as_json(done, outcome)))
    elif outcome is not None:
        print(f"{'gone' if outcome.gone else 'NOT GONE'}: {outcome.words}")
    _exit(done, outcome)


def undrain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    config: Config = _CONFIG,
    json: Json = False,
) -> None:
    """Take a drain back, also what FRR would come back with when it does not run."""
    from router_agent.drain.drain import DrainError, Host

    host = Host(_load(config))
    try:
        if dry_run:
            _finish_dry_run(host.state(), json=json, undrain=True)
            return
        done = host.undrain()
    except DrainError as error:
        _fail(FAILED, str(error))
    if json:
        print(jsonlib.dumps(_as_json(done, None)))
    else:
        _print_speakers(done)
    _exit(done, None)


def drained(config: Config = _CONFIG, json: Json = False) -> None:
    """Tell whether the router is drained, by its mark and its speakers. Exits 1 when it is not."""
    from router_agent.drain.drain import DrainError, Host

    try:
        done = Host(_load(config)).state()
    except DrainError as error:
        _fail(FAILED, str(error))
    _print_state(done, json=json)
    raise typer.Exit(0 if done.drained else NO)


def before_start(config: Config = _CONFIG, json: Json = False) -> None:
    """Have what FRR starts with agree with the mark; a kept drain comes into force. For units at boot."""
    from router_agent.drain.drain import DrainError, Host

    try:
        done = Host(_load(config)).prepare()
    except DrainError as error:
        _fail(FAILED, str(error))
    _print_state(done, json=json)
    raise typer.Exit(FAILED if done.failed else 0)


def carried(
    prefix: Annotated[
        list[str] | None, typer.Option(help="Tell to whom FRR announces this prefix; several times.")
    ] = None,
    config: Config = _CONFIG,
) -> None:
    """Print as JSON what this router carries, for the playbook that asks before another one is drained."""
    from router_agent.drain.carried import read

    try:
        print(jsonlib.dumps(read(_load(config), prefix or [])))
    except ValueError as error:
        _fail(USAGE, f"--prefix: {error}")


def watch(config: Config = _CONFIG) -> None:
    """Look at the agent, and ask for a drain when its FIB cannot be made right."""
    from router_agent import logs
    from router_agent.config import LogConfig
    from router_agent.drain.watch import Watcher
    from router_agent.systemd import Notifier

    settings = _load(config)
    logs.set_up(LogConfig())
    notifier = Notifier()

    def alive(words: str) -> None:
        notifier.watchdog()
        notifier.status(words)

    watcher = Watcher(settings, alive=alive)
    notifier.ready()
    try:
        watcher.run()
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        notifier.close()


def act(config: Config = _CONFIG) -> None:
    """Do what the watcher asked for; a service of root's runs this."""
    from router_agent.drain import watch as watching
    from router_agent.drain.drain import DrainError

    try:
        done = watching.act(_load(config))
    except (DrainError, watching.RequestError) as error:
        _fail(FAILED, str(error))
    if done is None:
        return
    print(_mark_words(done))
    _print_speakers(done)
    _exit(done, None)


def check_file(
    file: Annotated[Path, typer.Argument(help="The file.")],
) -> None:
    """Check a drain.yaml."""
    _load(file)


fail_safe = typer.Typer(
    help="Drain the host by itself when its FIB cannot be made right.", no_args_is_help=True
)
fail_safe.command("watch")(watch)
fail_safe.command("act")(act)


def add_to(app: typer.Typer) -> None:
    """Give the command line these commands."""
    app.command("drain")(drain)
    app.command("undrain")(undrain)
    app.command("drained")(drained)
    app.command("carried", hidden=True)(carried)
    app.command("drain-before-start", hidden=True)(before_start)
    app.command("drain-check-config", hidden=True)(check_file)
    app.add_typer(fail_safe, name="fail-safe")


def _load(path: Path) -> Settings:
    from router_agent.drain.settings import load
    from router_agent.strict_yaml import FileError

    try:
        return load(path)
    except FileError as error:
        _fail(USAGE, *error.problems)


def _asked(
    settings: TrafficSettings,
    below_pps: float | None,
    below_share: float | None,
    seconds: float | None,
    ports: list[str] | None,
) -> TrafficSettings:
    given = {"below_pps": below_pps, "below_share": below_share, "seconds": seconds}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if ports:
        changes["ports"] = tuple(ports)
    return settings.model_copy(update=changes)


def _meter(settings: Settings, traffic: TrafficSettings) -> Meter:
    from router_agent.drain.traffic import Meter

    return Meter(traffic, settings.frr.vtysh if settings.frr else ())


def _baseline(meter: Meter) -> Rate | None:
    """Measure the traffic before the drain; whoever cannot measure must not begin to wait."""
    from router_agent.drain.traffic import TrafficError
    from router_agent.drain.wait import measure

    try:
        return measure(meter, _BASELINE_SECONDS, time.sleep)
    except TrafficError as error:
        _fail(FAILED, f"{error}; nothing was done")


def _wait(
    meter: Meter,
    traffic: TrafficSettings,
    before: Rate | None,
    in_force: Callable[[], bool],
    *,
    json: bool,
) -> Outcome:
    from router_agent.drain.wait import wait_until_gone

    with _progress(quiet=json) as told:
        try:
            return wait_until_gone(meter, traffic, before=before, in_force=in_force, told=told)
        except KeyboardInterrupt:
            print("stopped waiting; the router stays drained", file=sys.stderr)
            raise typer.Exit(130) from None


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show where the wait is: a line that changes on a terminal, one from time to time elsewhere."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if quiet and not console.is_terminal:
        yield lambda _progress: None
        return
    if not console.is_terminal:
        printed = [float("-inf")]

        def line(progress: Progress) -> None:
            if time.monotonic() - printed[0] >= _LINE_SECONDS:
                printed[0] = time.monotonic()
                print(_words(progress), file=sys.stderr, flush=True)

        yield line
        return
    with console.status("measuring") as status:
        yield lambda progress: status.update(_words(progress))


def _words(progress: Progress) -> str:
    quiet = f", quiet for {progress.quiet_seconds:.0f} s" if progress.quiet_seconds else ""
    return (
        f"{progress.pps:,.0f} pps come in (none: {progress.threshold_pps:,.0f}){quiet}; "
        f"{progress.seconds:.0f} s"
    )


def _in_force(host: Any, since: object) -> bool:
    from router_agent.drain.mark import MarkError

    try:
        mark = host.marks.read()
    except MarkError:
        return True
    return mark is not None and mark.since == since


def _user() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _as_json(done: Done, outcome: Outcome | None) -> dict[str, Any]:
    return {
        "drained": done.drained,
        "changed": done.changed,
        "mark": None if done.mark is None else done.mark.model_dump(mode="json", by_alias=True),
        "speakers": [asdict(speaker) for speaker in done.speakers],
        "traffic": None if outcome is None else asdict(outcome),
    }


def _finish_dry_run(state: Done, *, json: bool, undrain: bool = False) -> None:
    done = state.mark is None and not state.failed if undrain else state.drained
    if json:
        print(jsonlib.dumps(_as_json(state, None) | {"changed": not done}))
        return
    print(_mark_words(state))
    print("nothing would be done" if done else f"would {'undrain' if undrain else 'drain'} this router")


def _mark_words(done: Done) -> str:
    if done.mark is None:
        return "not drained"
    since = f"{done.mark.since:%Y-%m-%d %H:%M:%S} UTC"
    why = f": {done.mark.reason}" if done.mark.reason else ""
    kept = ", also over a reboot" if done.mark.keep else ""
    return f"drained by {done.mark.by or 'unknown'} since {since}{kept}{why}"


def _print_state(done: Done, *, json: bool) -> None:
    if json:
        print(jsonlib.dumps(_as_json(done, None)))
        return
    print(_mark_words(done))
    _print_speakers(done)


def _print_speakers(done: Done) -> None:
    for speaker in done.speakers:
        if speaker.ok:
            print(f"{speaker.name}: {speaker.words}")


def _exit(done: Done, outcome: Outcome | None) -> NoReturn:
    if done.failed:
        _fail(FAILED, *(f"{speaker.name}: {speaker.words}" for speaker in done.failed))
    raise typer.Exit(NO if outcome is not None and not outcome.gone else 0)


def _fail(code: int, *problems: str) -> NoReturn:
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(code)
