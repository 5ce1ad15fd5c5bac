"""How every service runs: settings, bus, health pages, ready, drain on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import gc
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import uvloop
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from mailfleet_core import logs, metrics
from mailfleet_core import settings as settings_module
from mailfleet_core.bus import topics
from mailfleet_core.bus.opening import open_bus
from mailfleet_core.bus.port import Bus, BusUnavailable, UnsafeDurability
from mailfleet_core.clock import Clock, SystemClock
from mailfleet_core.model import wire
from mailfleet_core.settings import BusSettings, LogSettings, SettingsError, SettingsFile

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Context:
    """What a service is given."""

    name: str
    instance: str
    """Unique among the running processes of the service, and the same after a restart."""
    settings: SettingsFile
    bus: Bus
    clock: Clock
    routes: list[web.RouteDef] = field(default_factory=list)
    """HTTP pages of the service, beside /healthz, /readyz and /metrics."""


@dataclass(slots=True)
class Alone:
    """What a service is given that does not know the log."""

    name: str
    instance: str
    settings: SettingsFile
    clock: Clock
    routes: list[web.RouteDef] = field(default_factory=list)
    drain_seconds: float = 30.0
    """Longest that `Service.drain` may take."""


class Service(Protocol):
    """A service once built."""

    async def start(self) -> None:
        """Take up work; return when ready."""

    async def drain(self) -> None:
        """Take no more work, finish or give back what is held, commit. Bounded by the runner (30 s)."""

    @property
    def ready(self) -> bool:
        """May traffic come?"""


Build = Callable[[Context], Service]
BuildAlone = Callable[[Alone], Service]
DRAIN_SECONDS = 30.0
EVERYWHERE = ("0.0.0.0", "::")
"""Addresses to listen at that nobody can connect to."""


class Pages(NamedTuple):
    """Where a process answers HTTP, and as what host the others are told so."""

    http: str
    announce: str


def main(name: str, build: Build, arguments: list[str] | None = None) -> None:
    """The body of `python -m mailfleet_<name>`."""
    _main(name, lambda file, instance, pages: run(name, build, file, instance, pages), arguments)


def main_alone(name: str, build: BuildAlone, arguments: list[str] | None = None) -> None:
    """The same for a service that does not know the log."""
    _main(name, lambda file, instance, pages: run_alone(name, build, file, instance, pages), arguments)


def _main(
    name: str, run_it: Callable[[SettingsFile, str, Pages], Coroutine[None, None, None]], arguments: list[str] | None
) -> None:
    parser = argparse.ArgumentParser(prog=f"mailfleet_{name}")
    parser.add_argument("--config", default=os.environ.get("MAILFLEET_CONFIG"), help="the settings file (TOML)")
    parser.add_argument("--instance", default=socket.gethostname(), help="name of this process, stable over restarts")
    parser.add_argument("--http", default="127.0.0.1:0", help="address of /healthz, /readyz and /metrics")
    parser.add_argument("--announce", default=os.environ.get("MAILFLEET_ANNOUNCE", ""),
                        help="host by which others reach those pages; by default that of --http, or this machine's")  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        file = settings_module.load(options.config)
        log_settings = file.section("logs", LogSettings)
        logs.setup(name, log_settings.format, log_settings.level)
        sys.setswitchinterval(0.0005)
        # What is imported stays; looking for cycles every 700 objects costs a service between a twentieth and a tenth.
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        uvloop.run(run_it(file, options.instance, Pages(options.http, options.announce)))
    except SettingsError as error:
        sys.exit(f"mailfleet {name}: {error}")
    except (BusUnavailable, UnsafeDurability) as error:
        sys.exit(f"mailfleet {name}: {error}")


async def run(name: str, build: Build, file: SettingsFile, instance: str, pages: Pages) -> None:
    """Run one service until SIGTERM or SIGINT, then drain it."""
    stop = _stopping()
    bus_settings = file.section("bus", BusSettings)
    bus = open_bus(bus_settings, name)
    await bus.start()
    clock = SystemClock()
    context = Context(name, instance, file, bus, clock)
    service = build(context)
    runner = await _serve_http(context, service, bus, pages.http)
    try:
        await service.start()
        log.info("ready", extra={"instance": instance})
        await _announce(context, runner, pages.announce)
        await stop.wait()
        await _drain(service, instance, DRAIN_SECONDS)
    finally:
        await runner.cleanup()
        await bus.close()


async def run_alone(name: str, build: BuildAlone, file: SettingsFile, instance: str, pages: Pages) -> None:
    """Run one service that does not know the log until SIGTERM or SIGINT, then drain it."""
    stop = _stopping()
    context = Alone(name, instance, file, SystemClock())
    service = build(context)
    runner = await _serve_http(context, service, None, pages.http)
    try:
        await service.start()
        log.info("ready", extra={"instance": instance})
        await stop.wait()
        await _drain(service, instance, context.drain_seconds)
    finally:
        await runner.cleanup()


def _stopping() -> asyncio.Event:
    """Set when the process is asked to end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _drain(service: Service, instance: str, seconds: float) -> None:
    log.info("draining", extra={"instance": instance})
    try:
        await asyncio.wait_for(service.drain(), seconds)
    except TimeoutError:
        log.error("drain took longer than %d s; what is left is done by the next owner", seconds)


async def _serve_http(context: Context | Alone, service: Service, bus: Bus | None, http: str) -> web.AppRunner:
    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"service": context.name, "instance": context.instance, "alive": True})

    async def readyz(_: web.Request) -> web.Response:
        log_answers = bus is None or bus.healthy
        ready = service.ready and log_answers
        told = {"ready": ready} if bus is None else {"ready": ready, "bus": log_answers}
        return web.json_response(told, status=200 if ready else 503)

    async def metrics_page(_: web.Request) -> web.Response:
        if bus is not None:
            metrics.BUS_IN_FLIGHT.set(bus.in_flight_bytes)
            metrics.BUS_HEALTHY.set(bus.healthy)
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    pages = [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics_page)]
    application.add_routes([*pages, *context.routes])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    host, _, port = http.rpartition(":")
    await web.TCPSite(runner, host or "127.0.0.1", int(port)).start()
    return runner


async def _announce(context: Context, runner: web.AppRunner, given: str) -> None:
    """Tell the cluster where this process answers (`mailfleet queues` asks the routers)."""
    host, port = runner.addresses[0][:2]
    url = url_of(given or (own_address() if host in EVERYWHERE else host), port)
    member = wire.Member(context.name, url, context.clock.now(), socket.gethostname(), os.getpid())
    key = f"member|{context.name}|{context.instance}".encode()
    await context.bus.append(topics.CONTROL, 0, key, wire.encode(member), topics.tag(topics.PUT))


def url_of(host: str, port: int) -> str:
    """The URL of the pages at an address or a name."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def own_address(look_up: Callable[..., Sequence[tuple[Any, ...]]] = socket.getaddrinfo) -> str:
    """The address that this machine's name stands for (in a pod, that of the pod); its name, if it stands for none."""
    name = socket.gethostname()
    try:
        found = [str(place[4][0]) for place in look_up(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        return name
    return next((address for address in found if not ipaddress.ip_address(address).is_loopback), name)
