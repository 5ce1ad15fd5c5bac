"""What `mailfleet run` starts: a value, made from the settings; the supervisor carries it out."""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mailfleet_cli.settings import RunSettings, inbox_of, processes
from mailfleet_core.settings import BusSettings

STOP_ORDER = ("ingest", "router", "sender", "sink", "log")
"""No new mail first; the log last, for everybody writes what he finished."""
START_STAGES = (("log",), ("sink", "router", "sender"), ("ingest",))
"""Everybody needs the log; clients are let in when the rest is ready."""
SERVICES = ("ingest", "router", "sender")
OWN_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
"""How a process of this machine reaches one that listens on all addresses."""


@dataclass(frozen=True, slots=True)
class Process:
    """One process to keep running."""

    name: str
    kind: str
    command: tuple[str, ...]
    ready_at: str
    """`http://…/readyz`, `tcp:address:port` or `unix:/path`: what answers when it is ready."""


def plan(
    run: RunSettings, bus: BusSettings, settings_file: Path, origin: str, cores: int, log_format: str = "json"
) -> tuple[Process, ...]:
    """All processes; the services read `settings_file`, which was derived from `origin`."""
    found = [_log(bus, log_format)] if bus.kind == "embedded" else []
    if not run.deliver:
        found.append(_sink(run, origin, log_format))
    port = run.http_port
    for kind, count in processes(run, cores).items():
        for number in range(count):
            found.append(_service(kind, number, settings_file, run.http_address, port or free_port()))
            port += 1 if port else 0
    return tuple(found)


def _log(bus: BusSettings, log_format: str) -> Process:
    command = _python("mailfleet_core.bus.logd", directory=bus.directory, log_format=log_format)
    return Process("log", "log", command, f"unix:{Path(bus.directory) / 'log.sock'}")


def _sink(run: RunSettings, origin: str, log_format: str) -> Process:
    inbox = str(inbox_of(run, origin))
    command = _python("mailfleet_cli.sink", listen=run.sink_listen, inbox=inbox, log_format=log_format)
    return Process("sink", "sink", command, f"tcp:{run.sink_listen}")


def _service(kind: str, number: int, settings_file: Path, address: str, port: int) -> Process:
    name = f"{kind}-{number}"
    command = _python(f"mailfleet_{kind}", config=str(settings_file), instance=name, http=f"{address}:{port}")
    return Process(name, kind, command, f"http://{OWN_ADDRESS.get(address, address)}:{port}/readyz")


def _python(module: str, **options: str) -> tuple[str, ...]:
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    return (sys.executable, "-m", module, *words)


def free_port() -> int:
    """A port of this machine's loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True, slots=True)
class Listener:
    """An address that must be free before the start, and the setting that names it."""

    what: str
    address: str
    port: int
    setting: str


def taken(listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
    """Those whose port somebody listens on already."""
    return tuple(listener for listener in listeners if not _can_bind(listener.address, listener.port))


def _can_bind(address: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.strip("[]"), port))
        except OSError:
            return False
    return True


def http_listeners(planned: tuple[Process, ...]) -> tuple[Listener, ...]:
    """The pages of the planned services."""
    addresses: Mapping[str, str] = {p.name: p.ready_at.split("/")[2] for p in planned if p.ready_at.startswith("http")}
    return tuple(
        Listener(f"pages of {name}", where.rpartition(":")[0], int(where.rpartition(":")[2]), "[run] http_port")
        for name, where in addresses.items()
    )
