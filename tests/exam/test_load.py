"""The load writes a line about every mail that may have been accepted, also when it is ended early."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

from exam.stage import environment


def test_a_load_ended_early_says_which_mails_are_in_doubt(tmp_path: Path) -> None:
    book = tmp_path / "load.jsonl"
    with socket.create_server(("127.0.0.1", 0)) as server:
        to = f"127.0.0.1:{server.getsockname()[1]}"
        command = [sys.executable, "-m", "exam.load", "--to", to, "--count", "1", "--sessions", "1", "--log", str(book)]
        with subprocess.Popen(command, env=environment()) as load:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as lines:
                connection.sendall(b"220 here\r\n")
                for line in lines:
                    if line == b".\r\n":
                        break
                    if line.startswith((b"EHLO", b"MAIL", b"RCPT")):
                        connection.sendall(b"250 yes\r\n")
                    elif line == b"DATA\r\n":
                        connection.sendall(b"354 go on\r\n")
                load.send_signal(signal.SIGTERM)
                assert load.wait(10) == 0
    assert [json.loads(line)["outcome"] for line in book.read_text().splitlines()] == ["indoubt"]
