"""A whole Mailfleet: the log and each service as processes of their own, which can be killed and started by name."""

from __future__ import annotations

import asyncio
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mailfleet_cli import reading
from mailfleet_core import settings
from mailfleet_core.bus import topics
from mailfleet_core.bus.port import Record
from mailfleet_core.model import wire
from mailfleet_core.model.wire import Event
from support import addresses, toml
from support.processes import Process, ProcessError

SERVICES = ("ingest", "router", "sender")
READY_SECONDS = 60.0


class Broker(Protocol):
    """A Kafka broker that can be killed and started again (`support.kafka.KafkaBroker`)."""

    bootstrap: str

    def start(self) -> None: ...

    def kill(self) -> None: ...


@dataclass
class Fleet:
    """The processes of one installation. `start` it, or use `fleet(...)`."""

    directory: Path
    counts: Mapping[str, int] = field(default_factory=lambda: {"ingest": 1, "router": 1, "sender": 1})
    broker: Broker | None = None
    """A started one: the log is Kafka. None: the embedded log."""
    more: toml.Sections = field(default_factory=dict)
    """Over the settings that tests share."""
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By name of a process: variables that it has beside those of all."""
    log_arguments: tuple[str, ...] = ()
    log_directory: Path = Path()
    """Where the embedded log lies; not given: in `directory`."""

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        if self.log_directory == Path():
            self.log_directory = self.directory / "log"
        self.port = addresses.free_port()
        """Of the listener that trusts loopback."""
        self.names = ["log", *(f"{kind}-{number}" for kind in SERVICES for number in range(self.counts[kind]))]
        self.http = {name: addresses.free_port() for name in self.names}
        self.processes: dict[str, Process] = {}
        self.config = self.directory / "mailfleet.toml"
        self.config.write_text(toml.dumps(toml.merged(self._settings(), self.more)))

    def pids(self) -> dict[int, str]:
        """Process id → name."""
        return {process.pid: name for name, process in self.processes.items()}

    def start(self) -> None:
        """Start everything; return when all of it is ready."""
        for name in self.names:
            self.start_one(name)
        for name in self.names:
            self.wait_ready(name)

    def start_one(self, name: str) -> None:
        """Start a process that is not there; the log answers when this returns."""
        if name == "log":
            self._start_log()
            return
        kind = name.partition("-")[0]
        command = [sys.executable, "-m", f"mailfleet_{kind}", "--config", str(self.config), "--instance", name,
                   "--http", f"127.0.0.1:{self.http[name]}"]  # fmt: skip
        environment = {**self._environment(), **self.environments.get(name, {})}
        self.processes[name] = Process(name, command, self.directory / f"{name}.log", environment)

    def kill(self, name: str) -> None:
        """End a process as a crash would."""
        if name == "log" and self.broker:
            self.broker.kill()
        elif process := self.processes.get(name):
            process.kill()

    def stop_one(self, name: str) -> int:
        """SIGTERM to a service; its exit code."""
        return self.processes[name].stop()

    def stop(self) -> None:
        """SIGTERM to all: the ones that take mail first, the log last."""
        for kind in (*SERVICES, "log"):
            for name in self.names:
                if name.startswith(kind) and name in self.processes:
                    self.processes[name].stop()

    def wait_ready(self, name: str, seconds: float = READY_SECONDS) -> None:
        """Return when the process says that it is ready. Raises ProcessError."""
        deadline = time.monotonic() + seconds
        while name != "log" and not self.ready(name):
            if not self.processes[name].running or time.monotonic() > deadline:
                raise ProcessError(f"{name} is not ready: {self.processes[name].tail()}")
            time.sleep(0.05)

    def ready(self, name: str) -> bool:
        """Does the process say that it is ready?"""
        try:
            return bool(self.page(name, "/readyz"))
        except OSError:
            return False

    def page(self, name: str, path: str) -> str:
        """One of a process's HTTP pages. Raises OSError."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http[name]}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def metric(self, metric: str, kind: str) -> float:
        """The sum of a metric over its labels and the running processes of a kind."""
        pages = [self.page(name, "/metrics") for name in self.names if name.startswith(kind) and self.ready(name)]
        lines = (line for page in pages for line in page.splitlines() if line.startswith(metric))
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line[len(metric)] in "{ ")

    def events(self) -> list[Event]:
        """Everything told so far."""
        return asyncio.run(self.read_events())

    async def read_events(self) -> list[Event]:
        """Everything told so far."""
        found: list[Event] = []

        def take(record: Record) -> None:
            if record.value is not None:
                found.extend(wire.told(record.value))

        async with reading.opened(settings.load(self.config, {})) as bus:
            await reading.everything(bus, topics.EVENTS, take)
        return found

    def logs(self, size: int = 3000) -> str:
        """The ends of what the processes wrote."""
        return "\n".join(f"--- {name}\n{process.tail(size)}" for name, process in self.processes.items())

    def _start_log(self) -> None:
        if self.broker:
            if not getattr(self.broker, "running", True):
                self.broker.start()
            return
        self.log_directory.mkdir(exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "mailfleet_core.bus.logd",
            "--directory",
            str(self.log_directory),
            *self.log_arguments,
        ]
        self.processes["log"] = process = Process("log", command, self.directory / "log.log", self._environment())
        process.wait_for(lambda: addresses.answers_unix(self.log_directory / "log.sock"))

    def _environment(self) -> Mapping[str, str]:
        return {"PYTHONUNBUFFERED": "1"}

    def _settings(self) -> dict[str, Any]:
        senders = max(self.counts["sender"], 1)
        bus: dict[str, Any] = {"kind": "embedded", "directory": str(self.log_directory)}
        if self.broker:
            bus = {"kind": "kafka", "bootstrap": self.broker.bootstrap, "topic_prefix": "test."}
        listener = {"kind": "trusted", "address": "127.0.0.1", "port": self.port, "networks": ["127.0.0.0/8"]}
        return {
            "bus": {**bus, "queue_partitions": 4, "lanes": senders},
            "ingest": {"hostname": "ingest.mailfleet.test", "listeners": [listener]},
            "router": {"hostname": "reports.mailfleet.test"},
            "sender": {"allowed_inside": ["127.0.0.0/8"]},
            "source": [{"name": "default", "ehlo_name": "source.mailfleet.test", "lanes": senders}],
            "stream": [{"name": "transactional", "retry_seconds": [1.0, 2.0, 3.0], "expire_seconds": 600.0}],
        }


@contextmanager
def fleet(directory: Path, **more: Any) -> Iterator[Fleet]:
    """A running Fleet (the arguments are its fields), stopped at the end."""
    made = Fleet(directory, **more)
    try:
        made.start()
        yield made
    finally:
        made.stop()
