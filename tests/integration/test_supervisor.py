"""The supervisor with children that do what a test needs."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from mailfleet_cli.plan import Process
from mailfleet_cli.supervisor import StartFailed, Supervisor

SERVER = """
import signal, socket, sys
name, path, log = sys.argv[1:]
def end(*_):
    open(log, "a").write(f"stop {name}\\n"); sys.exit(0)
signal.signal(signal.SIGTERM, end)
server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
open(log, "a").write(f"start {name}\\n")
while True: server.accept()[0].close()
"""
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"


def server(kind: str, directory: Path) -> Process:
    path = directory / f"{kind}.sock"
    command = ("/bin/sh", "-c", f'rm -f {path}; exec "$@"', "sh", sys.executable, "-S", "-c", SERVER, kind, str(path),
               str(directory / "log"))  # fmt: skip
    return Process(kind, kind, command, f"unix:{path}")


def supervised(*planned: Process, stop_seconds: float = 40.0) -> tuple[Supervisor, list[str]]:
    said: list[str] = []
    return Supervisor(planned, dict(os.environ), said.append, prefix=True, stop_seconds=stop_seconds), said


async def eventually(look: object) -> None:
    async with asyncio.timeout(10):
        while not look():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def test_the_log_starts_first_and_clients_are_let_in_last(tmp_path: Path) -> None:
    fleet, _ = supervised(*(server(kind, tmp_path) for kind in ("ingest", "router", "log", "sender")))
    await fleet.start()
    order = (tmp_path / "log").read_text().splitlines()
    await fleet.stop()
    assert (order[0], order[-1]) == ("start log", "start ingest")


async def test_clients_are_sent_away_first_and_the_log_stops_last(tmp_path: Path) -> None:
    fleet, _ = supervised(*(server(kind, tmp_path) for kind in ("ingest", "router", "log", "sender")))
    await fleet.start()
    await fleet.stop()
    order = (tmp_path / "log").read_text().splitlines()
    assert order[4:] == ["stop ingest", "stop router", "stop sender", "stop log"]


async def test_a_child_that_dies_is_started_again_and_that_is_said(tmp_path: Path) -> None:
    fleet, said = supervised(server("router", tmp_path))
    await fleet.start()
    process = fleet.children[0].process
    assert process is not None
    process.kill()
    await eventually(lambda: (tmp_path / "log").read_text().count("start") == 2)
    await fleet.stop()
    assert "router was killed by SIGKILL; starting it again at once" in said


async def test_a_child_that_never_comes_up_ends_the_start_with_its_last_words() -> None:
    broken = Process(
        "router-0", "router", (sys.executable, "-S", "-c", "raise SystemExit('no such port')"), "unix:/nonexistent"
    )
    fleet, _ = supervised(broken)
    with pytest.raises(StartFailed, match=r"router-0 does not start; its last words:\n(.|\n)*no such port"):
        await fleet.start()
    await fleet.stop()


async def test_a_child_that_ignores_the_request_is_killed_and_told() -> None:
    fleet, _ = supervised(
        Process("deaf", "sender", (sys.executable, "-S", "-c", DEAF), "unix:/nonexistent"), stop_seconds=0.3
    )
    starting = asyncio.create_task(fleet.start())
    await eventually(lambda: fleet.children[0].last_lines)
    starting.cancel()
    await fleet.stop()
    assert fleet.killed == ["deaf"]


async def test_a_line_longer_than_any_buffer_does_not_stop_what_follows_it() -> None:
    talk = "print('x' * 3_000_000); print('after'); import time; time.sleep(60)"
    fleet, _ = supervised(Process("talker", "sender", (sys.executable, "-u", "-S", "-c", talk), "unix:/nonexistent"))
    starting = asyncio.create_task(fleet.start())
    await eventually(lambda: "after" in fleet.children[0].last_lines)
    starting.cancel()
    await fleet.stop()
