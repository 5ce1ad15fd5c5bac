"""Each key is looked at as often as needed, and by one worker at a time."""

from __future__ import annotations

import asyncio
from collections import Counter

from mailfleet_operator.shell.work_queue import Key, WorkQueue

KEY = ("pool", "a")


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_key_is_in_the_queue_once_and_looked_at_again_if_it_changes_meanwhile() -> None:
    looks: Counter[Key] = Counter()
    at_work: list[Key] = []
    go = asyncio.Event()

    async def look(key: Key) -> None:
        assert key not in at_work
        at_work.append(key)
        await go.wait()
        at_work.remove(key)
        looks[key] += 1

    queue = WorkQueue(look, lambda *_: None)
    workers = [asyncio.create_task(queue.work()) for _ in range(3)]
    for _ in range(5):
        queue.add(KEY)
    queue.add(("pool", "b"))
    await settled()
    assert sorted(at_work) == [("pool", "a"), ("pool", "b")]
    for _ in range(5):
        queue.add(KEY)
    go.set()
    await settled()
    assert looks == {KEY: 2, ("pool", "b"): 1}
    for worker in workers:
        worker.cancel()


async def test_what_fails_is_told_and_does_not_stop_the_others() -> None:
    failures: list[tuple[Key, str]] = []

    async def look(key: Key) -> None:
        if key == KEY:
            raise ValueError("no")

    queue = WorkQueue(look, lambda key, error: failures.append((key, str(error))))
    worker = asyncio.create_task(queue.work())
    queue.add(KEY)
    queue.add(("pool", "b"))
    await settled()
    assert failures == [(KEY, "no")]
    assert len(queue) == 0
    worker.cancel()
