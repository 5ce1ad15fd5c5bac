"""The stage of every exam: the sink and the DNS that leads to it, the load, the books, the wait for the last mail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exam.behaviours import DOMAIN, behaviour_of, labels
from exam.judge import Line, Verdict, judge
from support import addresses
from support.knot import knot
from support.mailfleet import Fleet
from support.processes import Process

SETTLE_SECONDS = 150.0
"""How long after the load the last mail may take: retries, the restart of whatever was killed last, a slow machine."""
PROGRESS_SECONDS = 10.0
Say = Callable[[str], None]
POLICY = """
version: 1
base: none
reputation: {watch_below: 0, slow_below: 0, quarantine_below: 0}
"""
"""Sites here behave badly all the time; what that does to a sender has an exam of its own (`exam.limits`)."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A sink that runs, and where the books lie."""

    directory: Path
    addresses: tuple[str, ...]
    port: int
    settings: dict[str, Any]
    """What makes a fleet deliver there."""

    def book(self, name: str) -> list[Line]:
        """The lines of `load`, `sink`, `events` or `kills`; none when there is no such book."""
        return [json.loads(line) for line in _raw(self.directory / f"{name}.jsonl")]

    def accepted(self) -> set[tuple[str, str]]:
        """The (message, recipient) pairs that got a 250."""
        return {(line["id"], to) for line in self.book("load") if line["outcome"] == "accepted" for to in line["rcpts"]}

    def ended(self) -> set[tuple[str, str]]:
        """The pairs that were taken or reported."""
        return {(line["id"], line["rcpt"]) for line in self.book("sink")}

    def progress(self) -> str:
        """One line about how far it is."""
        accepted = sum('"outcome": "accepted"' in line for line in _raw(self.directory / "load.jsonl"))
        sink = _raw(self.directory / "sink.jsonl")
        taken = sum('"kind": "taken"' in line for line in sink)
        return f"{accepted} mails accepted, {taken} copies taken, {len(sink) - taken} reports"

    def settle(self, seconds: float = SETTLE_SECONDS, say: Say = print) -> None:
        """Wait until every accepted pair has its end, or too long; then a moment for what would be one too many."""
        deadline, told = time.monotonic() + seconds, 0.0
        due = self.accepted()
        while (still := due - self.ended()) and time.monotonic() < deadline:
            if time.monotonic() - told > PROGRESS_SECONDS:
                told = time.monotonic()
                say(
                    f"waiting for {len(still)}: {', '.join(sorted({behaviour_of(to.rpartition('@')[2]) for _, to in still}))}"
                )
            time.sleep(1)
        time.sleep(3)

    def keep_events(self, fleet: Fleet) -> None:
        """Put what was told into the books."""
        names = ("id", "kind", "at", "message_id", "recipients", "attempt", "phase", "text")
        lines = (json.dumps({name: getattr(event, name) for name in names}) + "\n" for event in fleet.events())
        (self.directory / "events.jsonl").write_text("".join(lines))

    def verdict(self) -> Verdict:
        """What the judge says when nobody was killed."""
        return judge(self.book("load"), self.book("sink"), (), self.book("events") or None)


@contextmanager
def stage(directory: Path) -> Iterator[Stage]:
    """Start the sink and the DNS that leads to it."""
    directory.mkdir(parents=True, exist_ok=True)
    port = addresses.free_port()
    where = {addresses.loopback(): label for label in labels()}
    (directory / "sites.json").write_text(json.dumps(where))
    command = [sys.executable, "-m", "exam.sink", "--sites", str(directory / "sites.json"), "--port", str(port),
               "--log", str(directory / "sink.jsonl")]  # fmt: skip
    sink = Process("sink", command, directory / "sink.out", environment())
    zones = {}
    for address, label in where.items():
        zones[f"{label}.{DOMAIN}"] = [f"MX 10 mx.{label}.{DOMAIN}."]
        zones[f"mx.{label}.{DOMAIN}"] = [f"A {address}"]
    try:
        sink.wait_until_it_answers(next(reversed(where)), port)
        (directory / "policy.yaml").write_text(POLICY)
        with knot(directory / "dns", zones) as server:
            settings = {**_settings(server.nameserver, port), "router": {"policy_file": str(directory / "policy.yaml")}}
            yield Stage(directory, tuple(where), port, settings)
    finally:
        sink.stop()


def _settings(nameserver: str, port: int) -> dict[str, Any]:
    # Mail that lives less than an hour is tried again by its ladder, also where a site greylists.
    stream = {"retry_seconds": [1.0, 2.0, 4.0, 8.0], "expire_seconds": 3000.0, "delay_dsn_seconds": 0.0}
    return {
        "dns": {"nameservers": [nameserver]},
        "route": [{"name": "sink", "kind": "mx", "port": port, "tls": "off"}],
        "stream": [{"name": "transactional", **stream}],
    }


def environment() -> dict[str, str]:
    """What a process needs to import the exam."""
    return {"PYTHONPATH": str(Path(__file__).parents[1])}


class Loading:
    """The load, running."""

    def __init__(self, stage: Stage, fleet: Fleet, count: int, rate: float, *more: str) -> None:
        self.stage = stage
        self.output = stage.directory / "load.out"
        command = [sys.executable, "-m", "exam.load", "--to", f"127.0.0.1:{fleet.port}", "--rate", str(rate),
                   "--count", str(count), "--log", str(stage.directory / "load.jsonl"), *more]  # fmt: skip
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment()})

    def wait(self, say: Say = print) -> None:
        """Wait for its end, with a line of progress now and then."""
        while True:
            try:
                code = self.process.wait(PROGRESS_SECONDS)
                break
            except subprocess.TimeoutExpired:
                say(self.stage.progress())
        assert code == 0, self.output.read_text()


@contextmanager
def loading(stage: Stage, fleet: Fleet, count: int, rate: float, *more: str) -> Iterator[Loading]:
    """Start the load; end it when the block is left before its end."""
    running = Loading(stage, fleet, count, rate, *more)
    try:
        yield running
    finally:
        running.process.terminate()
        running.process.wait()


def _raw(path: Path) -> list[str]:
    """The complete lines of a file that somebody may be writing."""
    return path.read_text().rpartition("\n")[0].splitlines() if path.exists() else []
