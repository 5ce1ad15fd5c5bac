"""Processes of the lab. Each leaves its id, so that a later run can end what an earlier one could not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster.lab.places import HOME

IDS = HOME / "processes"


def start(name: str, command: Sequence[str], directory: Path, environment: dict[str, str] | None = None) -> Daemon:
    """Start a process whose output is `directory`/NAME.log."""
    IDS.mkdir(parents=True, exist_ok=True)
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env={**os.environ, **(environment or {})}, cwd=directory,
        )  # fmt: skip
    (IDS / name).write_text(json.dumps({"id": process.pid, "began": began(process.pid)}))
    return Daemon(name, process, log)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A process that was started here."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        """Has it not ended?"""
        return self.process.poll() is None

    def tail(self, size: int = 3000) -> str:
        """The end of its output."""
        return self.log.read_bytes()[-size:].decode(errors="replace")

    def stop(self, seconds: float = 10.0) -> None:
        """Ask it to end, and end it when it does not."""
        if self.running:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        (IDS / self.name).unlink(missing_ok=True)


def began(process_id: int) -> str:
    """When a process began, in the kernel's ticks: with the id it names one process for ever. Empty when it is gone."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def end_all_left() -> list[str]:
    """End every process that an earlier run wrote down and that still runs; their names."""
    ended = []
    for note in sorted(IDS.glob("*")) if IDS.exists() else []:
        with contextlib.suppress(ValueError, OSError, KeyError):
            known = json.loads(note.read_text())
            if known["began"] and began(known["id"]) == known["began"]:
                end(known["id"])
                ended.append(note.name)
        note.unlink(missing_ok=True)
    return ended


def end(process_id: int, seconds: float = 5.0) -> None:
    """SIGTERM, and SIGKILL when that does not help."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process_id, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and alive(process_id):
            time.sleep(0.05)


def alive(process_id: int) -> bool:
    """Does it run? A zombie does not."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
