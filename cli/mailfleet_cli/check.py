"""`mailfleet config check`: reads the settings as the services do, and looks whether the machine can give what they ask."""

from __future__ import annotations

import fcntl
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from mailfleet_cli import output
from mailfleet_cli.main import Invocation
from mailfleet_cli.plan import plan, taken
from mailfleet_cli.run import LOCK, describe_taken, listeners_of
from mailfleet_cli.sections import SECTION_TYPES
from mailfleet_cli.settings import RunSettings, derive, directory_of, processes, state_of
from mailfleet_core import settings
from mailfleet_core.settings import BusSettings, RouteSettings, SettingsError, SettingsFile
from mailfleet_ingest.decisions.credentials import BadCredentials, parse
from mailfleet_ingest.settings import IngestSettings, ListenerSettings
from mailfleet_router.settings import RouterSettings
from mailfleet_router.shell import traffic


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    good: bool
    text: str


@click.group()
def config() -> None:
    """Look at the settings."""


@config.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def check(invocation: Invocation, as_json: bool) -> None:
    """Check the settings file, what it names, and the ports; exit code 1 when something is wrong."""
    found = list(findings(invocation.file()))
    for finding in found:
        if as_json:
            output.json({"ok": finding.good, "text": finding.text})
        else:
            mark = "[green]ok[/]   " if finding.good else "[bold red]wrong[/]"
            output.out.print(f"{mark} {output.clean(finding.text)}")
    if not all(finding.good for finding in found):
        raise SystemExit(1)


def findings(file: SettingsFile) -> Iterator[Finding]:
    """Everything that was looked at; stops early when the file cannot be read as settings."""
    try:
        for header, kind in SECTION_TYPES.items():
            name = header.strip("[]")
            if "." not in name:
                _ = file.tables(name, kind) if header.startswith("[[") else file.section(name, kind)
        yield Finding(True, f"{file.origin}: every section is understood")
        yield from _egress(file)
    except SettingsError as error:
        yield Finding(False, str(error))
        return
    yield from _named_files(file)
    yield from _ports(file)


def _egress(file: SettingsFile) -> Iterator[Finding]:
    run = file.section("run", RunSettings)
    cores = len(os.sched_getaffinity(0))
    from_log = settings.egress(file).from_log
    derived = SettingsFile(derive(file.raw, run, processes(run, cores), from_log), file.origin, file.environment)
    egress = settings.egress(derived)
    lanes, room = len(egress.lanes()), file.section("bus", BusSettings).lanes
    if lanes > room:
        text = f"the sources have {lanes} lanes together, [bus] lanes = {room}; raise it, or lower the sources' lanes"
        yield Finding(False, text)
    names = "from the log" if from_log else ", ".join(source.name for source in egress.sources)
    yield Finding(True, f"sources {names}; routes in order: {', '.join(map(_route, egress.routes))}")


def _route(route: RouteSettings) -> str:
    where = f"{route.kind} {', '.join(route.hosts)}".strip()
    return f"{' '.join(route.domains)} → {where}"


def _named_files(file: SettingsFile) -> Iterator[Finding]:
    ingest = file.section("ingest", IngestSettings)
    for listener in ingest.listeners:
        if listener.kind in ("submission", "implicit_tls"):
            yield _certificate(listener)
    yield _credentials(Path(ingest.credentials_file or directory_of(file.origin) / "credentials.toml"))
    for route in file.tables("route", RouteSettings):
        if route.password_file:
            yield _readable(Path(route.password_file), f"password_file of route {route.name!r}")
    if policy := file.section("router", RouterSettings).policy_file:
        yield _policy(Path(policy))
    bus = file.section("bus", BusSettings)
    for name in (bus.password_file, bus.ca_file):
        if name and bus.kind == "kafka":
            yield _readable(Path(name), "[bus]")


def _certificate(listener: ListenerSettings) -> Finding:
    what = f"certificate of listener {listener.label} ({listener.certificate_file or 'not set'})"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(listener.certificate_file, listener.key_file or None)
    except ssl.SSLError as error:
        return Finding(False, f"{what} and its key do not fit together or are no PEM files: {error.reason}")
    except OSError as error:
        return Finding(False, f"{what} or its key cannot be read: {error.strerror}; set certificate_file and key_file")
    return Finding(True, f"{what} and its key can be used")


def _credentials(path: Path) -> Finding:
    if not path.exists():
        return Finding(True, f"{path} does not exist yet, so nobody can log in; `mailfleet credential add` makes it")
    try:
        count = len(parse(path.read_text(encoding="utf-8")))
    except OSError as error:
        return Finding(False, f"{path} cannot be read: {error.strerror}")
    except (BadCredentials, UnicodeDecodeError) as error:
        return Finding(False, f"{path}: {error}")
    return Finding(True, f"{path} has {count} credential{'' if count == 1 else 's'}")


def _policy(path: Path) -> Finding:
    if traffic.present(path) is None:
        return Finding(True, f"{path} is not there yet; the shipped policy is in force until it comes")
    return _readable(path, "policy_file of [router]")


def _readable(path: Path, what: str) -> Finding:
    good = os.access(path, os.R_OK)
    return Finding(good, f"{what}: {path} " + ("can be read" if good else "cannot be read"))


def _ports(file: SettingsFile) -> Iterator[Finding]:
    run = file.section("run", RunSettings)
    planned = plan(run, file.section("bus", BusSettings), Path(), file.origin, len(os.sched_getaffinity(0)))
    listeners = listeners_of(file, run, planned)
    busy = () if running(state_of(run, file.origin)) else taken(listeners)
    for listener in listeners:
        text = f"{listener.address}:{listener.port} would take {listener.what}"
        yield Finding(False, describe_taken(listener)) if listener in busy else Finding(True, text)


def running(directory: Path) -> bool:
    """Does a `mailfleet run` hold this directory now? Then its ports are in use by us."""
    try:
        with (directory / LOCK).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
