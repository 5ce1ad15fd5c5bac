"""Nothing lost: steady mail to sites that misbehave, while every process is killed again and again.

`make ledger`, or `python -m exam.ledger --bus embedded|kafka|both --count N --rate N`. The report and the books are left
in the output directory.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from exam import report
from exam.behaviours import BEHAVIOURS, DELIVERED
from exam.chaos import Chaos
from exam.judge import Verdict, judge
from exam.stage import Say, Stage, loading, stage
from support.kafka import kafka_broker
from support.mailfleet import fleet

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

    def all_victims(self) -> tuple[str, ...]:
        """Whom to end, in turn; the log is not ended gently, for everybody else would have to wait for it."""
        return tuple(name for name in self.victims if name != "log" or self.signal == "KILL")

    @property
    def allowed_per_kill(self) -> float:
        """Copies that one killed sender may make: 1.5 × (rate through it × the sites' accept time) + 2."""
        scripts = [script for script in BEHAVIOURS.values() if script.ends == DELIVERED]
        weight = sum(script.weight for script in scripts)
        accept = sum(s.weight * s.at["dot"].delay for s in scripts if "dot" in s.at) / weight
        return 1.5 * self.rate * RECIPIENTS_PER_MAIL / self.counts["sender"] * accept + 2


def run(plan: Plan, directory: Path, say: Say = print) -> Verdict:
    """One run; its books and its report are left in `directory`."""
    with ExitStack() as stack:
        scene = stack.enter_context(stage(directory))
        broker = stack.enter_context(kafka_broker(directory / "kafka")) if plan.bus == "kafka" else None
        settings = scene.settings
        running = stack.enter_context(fleet(directory / "fleet", counts=plan.counts, broker=broker, more=settings))
        chaos = Chaos(running, directory / "kills.jsonl", say)
        with loading(scene, running, plan.count, plan.rate) as load:
            if plan.signal != "NONE":
                chaos.start(plan.all_victims(), plan.interval, plan.down, plan.signal)
            try:
                load.wait(say)
            finally:
                chaos.stop()
        scene.settle(say=say)
        scene.keep_events(running)
    return _conclude(plan, scene, chaos, say)


def _conclude(plan: Plan, scene: Stage, chaos: Chaos, say: Say) -> Verdict:
    load, sink, events = (scene.book(name) for name in ("load", "sink", "events"))
    verdict = judge(load, sink, chaos.kills, events, plan.allowed_per_kill)
    title = f"ledger on {plan.bus}, {plan.signal}"
    body = report.text(title, verdict, load, sink, chaos.kills)
    (scene.directory / "report.txt").write_text(body)
    (scene.directory / "report.html").write_text(report.page(title, body, load, sink, chaos.kills))
    (scene.directory / "duplicates.json").write_text(json.dumps([asdict(d) for d in verdict.duplicates], indent=1))
    (scene.directory / "faults.json").write_text(json.dumps(verdict.wrong, indent=1))
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
