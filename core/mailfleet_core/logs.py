"""Structured logs: one line an event, JSON or console; never a body, never a secret."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec

_encode = msgspec.json.Encoder(enc_hook=repr).encode
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def printable(text: str) -> str:
    """`text` with control characters and lone surrogates escaped, fit for a log line, a terminal and UTF-8."""
    return "".join(
        c
        if c.isprintable()
        else c.encode("utf-8", "backslashreplace").decode()
        if ord(c) > 0xD7FF
        else f"\\x{ord(c):02x}"
        for c in text
    )


class _Formatter(logging.Formatter):
    def __init__(self, service: str, json: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self.service = service
        self.json = json

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        fields = {k: printable(v) if isinstance(v, str) else v for k, v in fields.items()}
        message = printable(record.getMessage())
        error = self.formatException(record.exc_info) if record.exc_info else ""
        if self.json:
            line = {"at": record.created, "level": record.levelname.lower(), "service": self.service, "logger": record.name,
                    "message": message, **fields}  # fmt: skip
            if error:
                line["error"] = error
            return _encode(line).decode()
        tail = " ".join(f"{k}={v}" for k, v in fields.items())
        head = f"{self.formatTime(record, self.datefmt)} {self.service:<9} {record.levelname.lower():<7} {message}"
        return " ".join(filter(None, (head, tail))) + (f"\n{error}" if error else "")


def setup(service: str, form: str, level: str) -> None:
    """Send this process's logs to standard error; `form` is json, console or auto."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(service, form == "json" or (form == "auto" and not sys.stderr.isatty())))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("kafka", "aiohttp.access", "mail.log"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
