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
from simulation.day.scenario import DAY_SECONDS, Scenario, load
from simulation.day.town import quarters

Shown = Callable[[float, int, int], None]
"""Share of the day's work that is done, mails that ended, mails that wait in what is looked at."""


def run(mails: int, sources_share: float, automation: bool, processes: int, shown: Shown) -> dict[str, Any]:
    """The day of the scenario file, as large as asked for, on so many processes. Returns everything that was counted."""
    scenario = load(mails, sources_share)
    began = time.monotonic()
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    workers = []
    turn = context.Value("i", 0)
    for _ in range(processes):
        mine, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(mails, sources_share, automation, turn, theirs), daemon=True)
        worker.start()
        theirs.close()
        pipes.append(mine)
        workers.append(worker)
    parts = _listen(pipes, dict(by_size(scenario)), shown)
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


def by_size(scenario: Scenario) -> list[tuple[int, float]]:
    """The queue partitions with their shares of the mail, the largest first: whoever is done takes the next one."""
    loads = [(number, town.weights[-1]) for number, town in enumerate(quarters(scenario))]
    return sorted(loads, key=lambda one: -one[1])


def pictured(scenario: Scenario) -> list[tuple[str, str]]:
    """(source, provider) that are drawn: an old source of the newsletter and of the shared pool, and a new one."""
    newsletter, shared = scenario.pools[1], scenario.pools[2]
    sources = (scenario.sources(newsletter)[0], scenario.sources(newsletter)[-1], scenario.sources(shared)[0])
    return [(source, provider) for source in sources for provider in ("google", "microsoft", "yahoo")]


def _work(mails: int, sources_share: float, automation: bool, turn: Any, pipe: Connection) -> None:
    scenario = load(mails, sources_share)
    partitions = by_size(scenario)
    while (number := _next(turn)) < len(partitions):
        partition, _ = partitions[number]
        began = time.process_time()
        day = Day(scenario, Brain(scenario, automation), [partition], pictured(scenario))
        over = day.run(lambda progress, partition=partition: pipe.send(("progress", (partition, progress))))  # type: ignore[misc]
        pipe.send(("over", over | {"cpu_seconds": time.process_time() - began}))
    pipe.close()


def _next(turn: Any) -> int:
    with turn.get_lock():
        turn.value += 1
        return int(turn.value) - 1


def _listen(pipes: list[Connection], sizes: dict[int, float], shown: Shown) -> list[dict[str, Any]]:
    latest: dict[int, dict[str, Any]] = {}
    parts: list[dict[str, Any]] = []
    left = list(pipes)
    while left:
        for pipe in wait(left):
            assert isinstance(pipe, Connection)
            try:
                kind, value = pipe.recv()
            except EOFError:
                left.remove(pipe)
                continue
            if kind == "over":
                parts.append(value)
            else:
                partition, latest[partition] = value
                done = sum(sizes[number] * one["at"] for number, one in latest.items())
                shown(done / DAY_SECONDS, *(sum(one[what] for one in latest.values()) for what in ("ended", "queued")))
    if len(parts) < len(sizes):
        raise RuntimeError("a process of the simulated day has died; what it said is above")
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
