"""`mailfleet run`: everything on this machine."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from mailfleet_cli import first_start, output
from mailfleet_cli.listening import ingest_listeners
from mailfleet_cli.main import Invocation
from mailfleet_cli.plan import Listener, Process, http_listeners, plan, taken
from mailfleet_cli.settings import RunSettings, derive, directory_of, inbox_of, processes, state_of, toml_text
from mailfleet_cli.supervisor import StartFailed, Supervisor
from mailfleet_core import settings
from mailfleet_core.clock import SystemClock
from mailfleet_core.settings import BusSettings, LogSettings, SettingsFile
from mailfleet_router.shell.traffic import OWN_FILE

DERIVED = "running.toml"
LOCK = "run.lock"


@click.command()
@click.option("--deliver", is_flag=True, help="Deliver to the real MX hosts, not to the sink.")
@click.pass_obj
def run(invocation: Invocation, deliver: bool) -> None:
    """Start everything on this machine, keep it running, and stop it in order on Ctrl-C or SIGTERM."""
    password = ""
    if not invocation.path.exists():
        password = first_start.make(invocation.path, SystemClock.now())
        first_start.announce(invocation.path, password)
    file = settings.load(invocation.path)
    if deliver:
        file = SettingsFile({**file.raw, "run": {**file.raw.get("run", {}), "deliver": True}}, file.origin, os.environ)
    with only_one(state_of(file.section("run", RunSettings), file.origin)):
        sys.exit(
            asyncio.run(_run(file, lambda run_settings: _banner(file, run_settings, own_command(invocation), password)))
        )


class only_one:  # noqa: N801 (reads as a statement)
    """Holds the directory's lock, or fails with the process that has it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / LOCK
        self.file: IO[str] | None = None

    def __enter__(self) -> None:
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.file = self.path.open("a+")
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.file.seek(0)
            output.fail(
                f"another `mailfleet run` (process {self.file.read().strip() or 'unknown'}) already uses {self.path.parent}; "
                "stop it first, or give this one a settings file in another directory with --config"
            )
        self.file.truncate(0)
        self.file.write(str(os.getpid()))
        self.file.flush()

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()


async def _run(file: SettingsFile, banner: Callable[[RunSettings], None]) -> int:
    run_settings = file.section("run", RunSettings)
    cores = len(os.sched_getaffinity(0))
    derived_path = _write_derived(file, run_settings, cores)
    form = _log_format(file)
    planned = plan(run_settings, file.section("bus", BusSettings), derived_path, file.origin, cores, form)
    listeners = listeners_of(settings.load(derived_path), run_settings, planned)
    if busy := taken(listeners):
        output.fail("; ".join(describe_taken(listener) for listener in busy))
    supervisor = Supervisor(planned, {**os.environ, "MAILFLEET_LOGS__FORMAT": form}, _say, prefix=form == "console")
    return await _supervise(supervisor, lambda: banner(run_settings))


def _write_derived(file: SettingsFile, run_settings: RunSettings, cores: int) -> Path:
    path = state_of(run_settings, file.origin) / DERIVED
    from_log = settings.egress(file).from_log
    derived = derive(_beside(file), run_settings, processes(run_settings, cores), from_log)
    path.write_text(f"# Made by `mailfleet run` from {Path(file.origin).name}; edit that one.\n\n{toml_text(derived)}")
    settings.egress(settings.load(path))  # a contradiction must stop us here, not three services in turn
    return path


def _beside(file: SettingsFile) -> dict[str, Any]:
    """The settings with the files named that are looked for beside them: derived settings may lie elsewhere."""
    directory = directory_of(file.origin)
    named = {"ingest": {"credentials_file": str(directory / "credentials.toml")}}
    if (directory / OWN_FILE).exists():
        named["router"] = {"policy_file": str(directory / OWN_FILE)}
    return {**file.raw, **{name: {**keys, **file.raw.get(name, {})} for name, keys in named.items()}}


def listeners_of(file: SettingsFile, run_settings: RunSettings, planned: tuple[Process, ...]) -> tuple[Listener, ...]:
    """Every address that the planned processes will listen on."""
    host, _, port = run_settings.sink_listen.rpartition(":")
    sink = () if run_settings.deliver else (Listener("sink", host, int(port), "[run] sink_listen"),)
    return (*ingest_listeners(file), *sink, *http_listeners(planned))


def describe_taken(listener: Listener) -> str:
    """What is wrong and what to do about it."""
    return (
        f"{listener.address}:{listener.port} ({listener.what}) is in use or not ours to use; "
        f"stop who listens there or change {listener.setting}"
    )


async def _supervise(supervisor: Supervisor, banner: Callable[[], None]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        if stop.is_set():
            _say("stopping at once")
            supervisor.kill_all()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ask_to_stop)
    failure = await _until_stopped(supervisor, stop, banner)
    _say("stopping: what is under way is finished first (once more Ctrl-C: at once)")
    await supervisor.stop()
    if failure:
        output.Failure(str(failure)).show()
    return 1 if failure or supervisor.killed else 0


async def _until_stopped(supervisor: Supervisor, stop: asyncio.Event, banner: Callable[[], None]) -> StartFailed | None:
    stopping = asyncio.create_task(stop.wait())
    starting = asyncio.create_task(supervisor.start())
    try:
        await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            banner()
            await stopping
    except StartFailed as error:
        return error
    finally:
        starting.cancel()
        stopping.cancel()
    return None


def _say(text: str) -> None:
    output.err.print(f"[bold blue]mailfleet[/] {output.clean(text)}")


def _log_format(file: SettingsFile) -> str:
    form = file.section("logs", LogSettings).format
    return form if form != "auto" else ("console" if sys.stderr.isatty() else "json")


def own_command(invocation: Invocation) -> str:
    """How to call this command from here, with the settings that it was called with."""
    path = Path(sys.argv[0])
    if path.name == "__main__.py" and not shutil.which("mailfleet"):
        return (
            f"python3 -m mailfleet_cli --config {invocation.path}" if invocation.given else "python3 -m mailfleet_cli"
        )
    try:
        shown = "mailfleet" if shutil.which("mailfleet") else str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        shown = str(path.resolve())
    return f"{shown} --config {invocation.path}" if invocation.given else shown


def _banner(file: SettingsFile, run_settings: RunSettings, command: str, password: str) -> None:
    rows = [f"  {listener.what:<12} {listener.address}:{listener.port}" for listener in ingest_listeners(file)]
    inbox = inbox_of(run_settings, file.origin)
    end = (
        "Mail is delivered to the real MX hosts of its recipients."
        if run_settings.deliver
        else f"All mail ends in the sink on this machine ({inbox}); `{command} inbox` shows it; --deliver turns real delivery on."
    )
    output.out.print(
        "\n".join(
            [
                "",
                "[bold]Mailfleet is ready.[/]",
                *map(output.clean, rows),
                end,
                *first_start.hints(file, command, password),
            ]
        )
    )
