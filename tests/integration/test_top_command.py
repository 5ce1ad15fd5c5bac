"""`mailfleet top` on a running fleet: one frame for scripts, and on a terminal until `q`."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import smtplib
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.mailfleet import Fleet, fleet
from support.scripted_mx import ScriptedMx
from support.scripted_town import scripted_town
from support.town import until

MAILFLEET = str(Path(sys.executable).with_name("mailfleet"))
BUSY = "busy.test"
PATIENT = {"stream": [{"name": "transactional", "retry_seconds": [600.0], "expire_seconds": 7200.0}]}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with two mails that wait."""
    busy = ScriptedMx(replies={"RCPT": b"421 4.7.0 Slow down, please"})
    with (
        scripted_town({BUSY: busy}) as town,
        fleet(tmp_path_factory.mktemp("top"), more={**town.settings, **PATIENT}) as found,
    ):
        with smtplib.SMTP("127.0.0.1", found.port, timeout=30) as client:
            for number in range(2):
                client.sendmail("me@sender.test", f"a{number}@{BUSY}", "Subject: x\r\n\r\nx\r\n")
        until(lambda: sum(event.kind == "deferred" for event in found.events()) == 2, 60, found.logs)
        yield found


def command(fleet: Fleet, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [MAILFLEET, "--config", str(fleet.config), "top", *words],
        capture_output=True, text=True, timeout=60, check=False, **more,  # type: ignore[call-overload]
    )  # fmt: skip


def test_one_frame_of_80_columns_is_printed_for_scripts(running: Fleet) -> None:
    done = command(running, "--once", env={**os.environ, "COLUMNS": "80", "LINES": "24"})
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "queued 2" in lines[0]
    (row,) = [line for line in lines if line.startswith(f"mx.{BUSY}")]
    assert row.split()[1] == "2"
    assert "421 Slow down, please" in row
    (source,) = [line for line in lines if line.startswith("default ")]
    assert "100%" in source


def test_scripts_may_have_json(running: Fleet) -> None:
    told = json.loads(command(running, "--json").stdout)
    assert (told["queued"], told["sites"][0]["site"], told["routers"]) == (2, f"mx.{BUSY}", 1)


def test_without_a_terminal_it_says_how_to_get_a_frame(running: Fleet) -> None:
    done = command(running)
    assert done.returncode == 1
    assert "--once" in done.stderr


class Terminal:
    """`mailfleet top` on a terminal of its own."""

    def __init__(self, fleet: Fleet, rows: int = 24, columns: int = 80) -> None:
        self.controller, inner = pty.openpty()
        self.resize(rows, columns)
        environment = {**os.environ, "TERM": "xterm"}
        environment.pop("COLUMNS", None)
        environment.pop("LINES", None)
        self.process = subprocess.Popen(
            [MAILFLEET, "--config", str(fleet.config), "top", "--every", "0.5"],
            stdin=inner, stdout=inner, stderr=inner, start_new_session=True, env=environment,
        )  # fmt: skip
        self.before = termios.tcgetattr(inner)
        self.inner = inner
        self.seen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.controller, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, word: str, seconds: float = 30.0) -> str:
        """What came since the last call, once `word` is in it."""
        deadline, came = time.monotonic() + seconds, ""
        while word not in came:
            assert time.monotonic() < deadline, f"no {word!r} in {came[-2000:]!r}"
            if select.select([self.controller], [], [], 0.2)[0]:
                came += os.read(self.controller, 65536).decode("utf-8", "replace")
        return came

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.controller)
        os.close(self.inner)


@pytest.fixture
def terminal(running: Fleet) -> Iterator[Terminal]:
    found = Terminal(running)
    yield found
    found.close()


def test_on_a_terminal_it_draws_again_until_q_and_leaves_the_terminal_as_it_was(terminal: Terminal) -> None:
    terminal.read_until("queued 2")
    assert "\x1b[2J" not in terminal.read_until("queued 2"), "the screen is not cleared between two frames"
    os.write(terminal.controller, b"xq")
    terminal.read_until("\x1b[?1049l")
    assert terminal.process.wait(10) == 0
    assert termios.tcgetattr(terminal.inner)[3] == terminal.before[3]


def test_ctrl_c_ends_it_without_a_traceback(terminal: Terminal) -> None:
    terminal.read_until("queued 2")
    os.kill(terminal.process.pid, signal.SIGINT)
    assert "Traceback" not in terminal.read_until("\x1b[?1049l")
    assert terminal.process.wait(10) == 0


def test_it_fits_a_terminal_that_becomes_smaller(terminal: Terminal) -> None:
    terminal.read_until("queued 2")
    terminal.resize(12, 60)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    terminal.read_until("queued 2")
    lines = terminal.read_until("queued 2").replace("\x1b[H", "\n").splitlines()
    plain = [line for line in lines if "\x1b" not in line]
    assert plain
    assert max(map(len, plain)) <= 60
