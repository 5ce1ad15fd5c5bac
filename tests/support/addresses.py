"""Loopback addresses and free ports for servers of a test."""

from __future__ import annotations

import itertools
import os
import socket
import time
from pathlib import Path

_numbers = itertools.count(1)


def loopback() -> str:
    """A loopback address that no other server of this test run uses, so that many may listen on port 25."""
    number = next(_numbers)
    pid = os.getpid()
    return f"127.{64 + pid % 128}.{(pid // 128) % 250 + 1}.{number % 250 + 1}"


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def answers(host: str, port: int) -> bool:
    """Does somebody accept connections there?"""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, port)) == 0


def answers_unix(path: Path) -> bool:
    """Does somebody accept connections on this socket?"""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def wait_until_it_answers(host: str, port: int, seconds: float = 20.0) -> None:
    """Return when somebody accepts connections there. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not answers(host, port):
        if time.monotonic() > deadline:
            raise TimeoutError(f"nobody listens on {host}:{port} after {seconds} s")
        time.sleep(0.02)
