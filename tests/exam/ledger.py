"""Nothing lost: steady mail to sites that misbehave, while every process is killed again and again.

`make ledger`, or `python -m exam.ledger --bus embedded|kafka|both --count N --rate N`. The report and the books are left
in the output directory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from exam import report
from exam.behaviours import BEHAVIOURS, DELIVERED, DOMAIN, behaviour_of, labels
from exam.chaos import Chaos, Say
from exam.judge import Line, Verdict, judge
from support import addresses
from support.kafka import kafka_broker
from support.knot import knot
from support.mailfleet import Fleet, fleet
from support.processes import Process

SETTLE_SECONDS = 150.0
"""How long after the load the last mail may take: retries, the restart of whatever was killed last, a slow machine."""
RECIPIENTS_PER_MAIL = 1.2


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the ledger."""

    bus: str = "embedded"
    count: int = 20_000
    rate: float = 50.0
    interval: float = 5.0
    """Seconds between the return of one process and the end of the next."""
    down: float = 1.0
    """Seconds a killed process stays away."""
    signal: str = "KILL"
    """KILL, TERM or NONE."""
    victims: tuple[str, ...] = ("sender-0", "router-0", "ingest-0", "log", "sender-1", "router-1", "ingest-1")
    counts: dict[str, int] = field(default_factory=lambda: {"ingest": 2, "router": 2, "sender": 2})

    @property
    def allowed_per_kill(self) -> float:
        """Copies that one killed sender may make: 1.5 × (rate through it × the sites' accept time) + 2."""
        scripts = [script for script in BEHAVIOURS.values() if script.ends == DELIVERED]
        weight = sum(script.weight for script in scripts)
        accept = sum(s.weight * s.at["dot"].delay for s in scripts if "dot" in s.at) / weight
        return 1.5 * self.rate * RECIPIENTS_PER_MAIL / self.counts["sender"] * accept + 2


def read(path: Path) -> list[Line]:
    """The lines of a JSON-lines file; none when it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@contextmanager
def sites(directory: Path) -> Iterator[dict[str, Any]]:
    """The sink and the DNS that leads to it; the settings that make a fleet use them."""
    port = addresses.free_port()
    where = {addresses.loopback(): label for label in labels()}
    (directory / "sites.json").write_text(json.dumps(where))
    command = [sys.executable, "-m", "exam.sink", "--sites", str(directory / "sites.json"), "--port", str(port)]
    process = Process("sink", [*command, "--log", str(directory / "sink.jsonl")], directory / "sink.out", environment())
    zones = {}
    for address, label in where.items():
        zones[f"{label}.{DOMAIN}"] = [f"MX 10 mx.{label}.{DOMAIN}."]
        zones[f"mx.{label}.{DOMAIN}"] = [f"A {address}"]
    try:
        for address in where:
            process.wait_until_it_answers(address, port)
        with knot(directory / "dns", zones) as server:
            yield {
                "dns": {"nameservers": [server.nameserver]},
                "route": [{"name": "sink", "kind": "mx", "port": port, "tls": "off"}],
                "stream": [{"name": "transactional", "retry_seconds": [1.0, 2.0, 4.0, 8.0], "expire_seconds": 3600.0,
                            "delay_dsn_seconds": 0.0}],
            }  # fmt: skip
    finally:
        process.stop()


def environment() -> dict[str, str]:
    """What a process needs to import the exam."""
    return {"PYTHONPATH": str(Path(__file__).parents[1])}


def run(plan: Plan, directory: Path, say: Say = print) -> Verdict:
    """One run; its books and its report are left in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        settings = stack.enter_context(sites(directory))
        broker = stack.enter_context(kafka_broker(directory / "kafka")) if plan.bus == "kafka" else None
        running = stack.enter_context(fleet(directory / "fleet", counts=plan.counts, broker=broker, more=settings))
        chaos = Chaos(running, directory / "kills.jsonl", say)
        begun = time.monotonic()
        with _load(plan, running, directory) as load:
            if plan.signal != "NONE":
                chaos.start(plan.victims, plan.interval, plan.down, plan.signal)
            try:
                _watch(load, directory, say)
            finally:
                chaos.stop()
        _settle(directory, say)
        say(f"settled {time.monotonic() - begun:.0f} s after the start")
        (directory / "events.jsonl").write_text("".join(_event(event) for event in running.events()))
    return _conclude(plan, directory, chaos, say)


def _event(event: Any) -> str:
    line = {"id": event.id, "kind": event.kind, "at": event.at, "message_id": event.message_id,
            "recipients": event.recipients, "attempt": event.attempt, "text": event.text}  # fmt: skip
    return json.dumps(line) + "\n"


@contextmanager
def _load(plan: Plan, running: Fleet, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "exam.load", "--to", f"127.0.0.1:{running.port}", "--rate", str(plan.rate),
               "--count", str(plan.count), "--log", str(directory / "load.jsonl")]  # fmt: skip
    with (directory / "load.out").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **environment()})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _watch(load: subprocess.Popen[bytes], directory: Path, say: Say) -> None:
    """Wait for the load, with a line of progress every ten seconds."""
    while True:
        try:
            code = load.wait(10)
            break
        except subprocess.TimeoutExpired:
            say(_progress(directory))
    assert code == 0, (directory / "load.out").read_text()


def _progress(directory: Path) -> str:
    accepted = sum('"outcome": "accepted"' in line for line in _raw(directory / "load.jsonl"))
    taken = _kinds(directory)
    return f"{accepted} accepted, {taken['taken']} taken, {taken['report']} reports"


def _raw(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _kinds(directory: Path) -> dict[str, int]:
    lines = _raw(directory / "sink.jsonl")
    return {kind: sum(f'"kind": "{kind}"' in line for line in lines) for kind in ("taken", "report")}


def _settle(directory: Path, say: Say) -> None:
    """Wait until every accepted recipient has its end at the sink, or too long, then see that nothing more comes."""
    deadline = time.monotonic() + SETTLE_SECONDS
    due = {
        (line["id"], to)
        for line in read(directory / "load.jsonl")
        if line["outcome"] == "accepted"
        for to in line["rcpts"]
    }
    while time.monotonic() < deadline:
        ended = {(line["id"], line["rcpt"]) for line in read(directory / "sink.jsonl")}
        if not (open_ones := due - ended):
            time.sleep(3)
            return
        waiting = sorted({behaviour_of(to.rpartition("@")[2]) for _, to in open_ones})
        say(f"{len(open_ones)} recipients are open ({', '.join(waiting)})")
        time.sleep(2)


def _conclude(plan: Plan, directory: Path, chaos: Chaos, say: Say) -> Verdict:
    load, sink, events = (read(directory / name) for name in ("load.jsonl", "sink.jsonl", "events.jsonl"))
    verdict = judge(load, sink, chaos.kills, events, plan.allowed_per_kill)
    title = f"ledger on {plan.bus}, {plan.signal}"
    body = report.text(title, verdict, load, sink, chaos.kills)
    (directory / "report.txt").write_text(body)
    (directory / "report.html").write_text(report.page(title, body, load, sink, chaos.kills))
    (directory / "duplicates.json").write_text(json.dumps([asdict(d) for d in verdict.duplicates], indent=1))
    (directory / "faults.json").write_text(json.dumps(verdict.wrong, indent=1))
    say(body)
    return verdict


def main() -> None:
    """Read the command line, run, and end with 1 when a run failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--bus", choices=("embedded", "kafka", "both"), default="both")
    parser.add_argument("--signal", choices=("KILL", "TERM", "NONE", "both"), default="both")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--output", type=Path, default=Path("var/ledger"))
    options = parser.parse_args()
    buses = ("embedded", "kafka") if options.bus == "both" else (options.bus,)
    signals = ("KILL", "TERM") if options.signal == "both" else (options.signal,)
    passed = True
    for bus in buses:
        for signal in signals:
            count = options.count if signal == "KILL" else min(options.count, 5_000)
            plan = Plan(bus, count, options.rate, options.interval, signal=signal)
            directory = options.output / f"{time.strftime('%Y%m%d-%H%M%S')}-{bus}-{signal.lower()}"
            passed &= run(plan, directory, lambda line: print(time.strftime("%H:%M:%S"), line, flush=True)).passed
    sys.exit(not passed)


if __name__ == "__main__":
    main()
