"""Processes of a test: started with their output in a file, stopped by their id."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from support import addresses


class ProcessError(Exception):
    """A process did not do what the test needs; the text has the end of its output."""


class Process:
    """One child process in a group of its own."""

    def __init__(
        self, name: str, command: Sequence[str], output: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.output = output
        with output.open("ab") as file:
            self._popen = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **(environment or {})},
            )
        atexit.register(self.kill)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Has it not ended?"""
        return self._popen.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to it and what it started."""
        if self.running:
            os.killpg(self.pid, number)

    def kill(self) -> None:
        """End it as a crash would."""
        self.signal(signal.SIGKILL)
        self._popen.wait()
        atexit.unregister(self.kill)

    def stop(self, seconds: float = 40.0) -> int:
        """Ask it to end (SIGTERM), wait, and be rougher when it does not; its exit code."""
        if self.running:
            self._popen.send_signal(signal.SIGTERM)
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            return int(self._popen.returncode)

    def wait(self, seconds: float) -> int:
        """Its exit code, once it has ended by itself. Raises ProcessError when that does not come."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise ProcessError(f"{self.name} did not end: {self.tail()}") from None

    def wait_until_it_answers(self, host: str, port: int, seconds: float = 20.0) -> None:
        """Return when somebody accepts connections there. Raises ProcessError when that does not come."""
        self.wait_for(lambda: addresses.answers(host, port), seconds)

    def wait_for(self, is_up: Callable[[], bool], seconds: float = 20.0) -> None:
        """Return when `is_up`. Raises ProcessError when the process ends first or that does not come."""
        deadline = time.monotonic() + seconds
        while not is_up():
            if not self.running or time.monotonic() > deadline:
                raise ProcessError(f"{self.name} does not answer: {self.tail()}")
            time.sleep(0.02)

    def tail(self, size: int = 4000) -> str:
        """The end of what it wrote."""
        data = self.output.read_bytes() if self.output.exists() else b""
        return data[-size:].decode(errors="replace")


def run(command: Sequence[str], seconds: float = 60.0, **more: object) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end. Raises ProcessError with its output when its exit code is not 0."""
    done = subprocess.run(list(command), capture_output=True, timeout=seconds, check=False, **more)  # type: ignore[call-overload]
    if done.returncode:
        raise ProcessError(
            f"{command[0]} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:].decode(errors='replace')}"
        )
    return done  # type: ignore[no-any-return]
