"""Chaos: one process after another is ended, by kill -9 or by SIGTERM, and started again a moment later."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from exam.judge import Kill
from exam.stage import Say
from support.mailfleet import Fleet


class Chaos:
    """Ends and starts the processes of a fleet, in turn, from a thread of its own, and writes down what it did."""

    def __init__(self, fleet: Fleet, log: Path, say: Say = print) -> None:
        self.fleet, self.log, self.say = fleet, log, say
        self.kills: list[Kill] = []
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def start(self, victims: Sequence[str], interval: float, down: float, signal: str = "KILL") -> None:
        """Begin: every `interval` seconds the next of `victims` ends, and is back `down` seconds later."""
        self._begin(((name, interval) for name in itertools.cycle(victims)), down, signal)

    def start_at_random(self, victims: Sequence[str], interval: float, down: float, dice: random.Random) -> None:
        """Begin: any of `victims` is killed after any time from two thirds to four thirds of `interval` seconds."""
        order = ((dice.choice(victims), interval * dice.uniform(2 / 3, 4 / 3)) for _ in itertools.count())
        self._begin(order, down, "KILL")

    def stop(self) -> None:
        """End it, with every process up and ready. Raises what went wrong meanwhile."""
        self._stop.set()
        if self._thread:
            self._thread.join()
        if self.error:
            raise self.error
        for name in self.fleet.names:
            self.fleet.wait_ready(name)

    def _begin(self, order: Iterator[tuple[str, float]], down: float, signal: str) -> None:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, args=(order, down, signal), daemon=True)
        self._thread.start()

    def _run(self, order: Iterator[tuple[str, float]], down: float, signal: str) -> None:
        try:
            for name, interval in order:
                if self._stop.wait(interval):
                    return
                self.end(name, signal)
                self._stop.wait(down)
                self.fleet.start_one(name)
                self._wait_ready(name)
        except BaseException as error:
            self.error = error

    def end(self, name: str, signal: str) -> None:
        """End one process and note it."""
        kind = name.partition("-")[0]
        kill = Kill(time.time(), name, kind, signal)
        if signal == "KILL":
            self.fleet.kill(name)
        else:
            self.fleet.stop_one(name)
        self.kills.append(kill)
        with self.log.open("a") as file:
            file.write(json.dumps({"at": kill.at, "name": name, "kind": kind, "signal": signal}) + "\n")
        self.say(f"{'kill -9' if signal == 'KILL' else 'SIGTERM'} {name}")

    def _wait_ready(self, name: str) -> None:
        """The next one ends only when this one works again: what happens in between is then its doing."""
        self.fleet.wait_ready(name)
