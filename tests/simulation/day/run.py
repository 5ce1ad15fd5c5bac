"""Runs the day in processes side by side, and adds up what they counted."""

from __future__ import annotations

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from typing import Any

from simulation.day.brain import Brain
from simulation.day.day import Day
from simulation.day.scenario import Scenario, load
from simulation.day.town import quarters

Shown = Callable[[float, int, int], None]
"""Seconds of the day, mails that ended, mails that wait."""


def run(mails: int, sources_share: float, automation: bool, processes: int, shown: Shown) -> dict[str, Any]:
    """The day of the scenario file, as large as asked for, on so many processes. Returns everything that was counted."""
    scenario = load(mails, sources_share)
    began = time.monotonic()
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    workers = []
    for numbers in shares(scenario, processes):
        mine, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(mails, sources_share, automation, numbers, theirs), daemon=True)
        worker.start()
        theirs.close()
        pipes.append(mine)
        workers.append(worker)
    parts = _listen(pipes, shown)
    for worker in workers:
        worker.join()
    brain = Brain(scenario, automation)
    whole = added_up(parts)
    return whole | {
        "most_waiting": max(map(sum, zip(*whole["queue"].values(), strict=True))),
        "seconds": time.monotonic() - began,
        "automation": automation,
        "mails": scenario.mails,
        "limits": {receiver.name: brain.message_rate(receiver.name) for receiver in scenario.receivers},
    }


def shares(scenario: Scenario, processes: int) -> list[list[int]]:
    """Queue partitions for each process, about as much mail for each."""
    loads = [town.weights[-1] for town in quarters(scenario)]
    found: list[list[int]] = [[] for _ in range(processes)]
    sums = [0.0] * processes
    for number in sorted(range(len(loads)), key=lambda number: -loads[number]):
        least = sums.index(min(sums))
        found[least].append(number)
        sums[least] += loads[number]
    return found


def pictured(scenario: Scenario) -> list[tuple[str, str]]:
    """(source, provider) that are drawn: an old source of the newsletter and of the shared pool, and a new one."""
    newsletter, shared = scenario.pools[1], scenario.pools[2]
    sources = (scenario.sources(newsletter)[0], scenario.sources(newsletter)[-1], scenario.sources(shared)[0])
    return [(source, provider) for source in sources for provider in ("google", "microsoft", "yahoo")]


def _work(mails: int, sources_share: float, automation: bool, numbers: list[int], pipe: Connection) -> None:
    scenario = load(mails, sources_share)
    day = Day(scenario, Brain(scenario, automation), numbers, pictured(scenario))
    began = time.process_time()
    over = day.run(lambda progress: pipe.send(("progress", progress)))
    pipe.send(("over", over | {"cpu_seconds": time.process_time() - began}))
    pipe.close()


def _listen(pipes: list[Connection], shown: Shown) -> list[dict[str, Any]]:
    latest: dict[Connection, dict[str, Any]] = {}
    parts: list[dict[str, Any]] = []
    left = list(pipes)
    while left:
        for pipe in wait(left):
            assert isinstance(pipe, Connection)
            try:
                kind, value = pipe.recv()
            except EOFError as error:
                raise RuntimeError("a process of the simulated day has died; what it said is above") from error
            if kind == "over":
                parts.append(value)
                left.remove(pipe)
            else:
                latest[pipe] = value
                progress = latest.values()
                at = min(one["at"] for one in progress) if len(latest) == len(pipes) else 0.0
                shown(at, sum(one["ended"] for one in progress), sum(one["queued"] for one in progress))
    return parts


def added_up(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts added, lists of equal length added item by item, other lists joined."""
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            whole[key] = _add(whole[key], value, key) if key in whole else value
    return whole


def _add(one: Any, other: Any, key: str) -> Any:
    if key == "violations_worst":
        return max(one, other)
    if key == "drained_at" or key == "states":
        return one | other
    if isinstance(one, dict):
        if all(isinstance(value, int | float) for value in (*one.values(), *other.values())):
            return dict(Counter(one) + Counter(other))
        return {
            name: _add(one[name], other[name], key) if name in one and name in other else one.get(name, other.get(name))
            for name in [*one, *(name for name in other if name not in one)]
        }
    if isinstance(one, list):
        return [first + second for first, second in zip(one, other, strict=True)] if key != "fair" else one + other
    return one + other
