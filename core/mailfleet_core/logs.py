"""Structured logs: one line an event, JSON or console; never a body, never a secret."""

from __future__ import annotations

import logging
import sys
from typing import Any

import msgspec

from mailfleet_core.model.reply import printable

_encode = msgspec.json.encode
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def _clean(value: object) -> object:
    # Also what is inside of lists and exceptions: one lone surrogate in it would lose the whole line.
    return value if value is None or isinstance(value, int | float) else printable(str(value))


def _escaped(traceback: str) -> str:
    # Indented, so that no line of an exception's text passes for an event of its own.
    return "\n".join(f"    {printable(line)}" for line in traceback.split("\n"))


class Formatter(logging.Formatter):
    """One line an event, and a traceback indented below it; no text of a stranger ends the line or moves a cursor."""

    def __init__(self, service: str, json: bool) -> None:
        super().__init__(datefmt="%H:%M:%S")
        self.service = service
        self.json = json

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        fields: dict[str, Any] = {k: v for k, v in vars(record).items() if k not in _STANDARD}
        fields = {k: _clean(v) for k, v in fields.items()}
        message = printable(record.getMessage())
        error = _escaped(self.formatException(record.exc_info)) if record.exc_info else ""
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
    handler.setFormatter(Formatter(service, form == "json" or (form == "auto" and not sys.stderr.isatty())))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("kafka", "aiohttp.access", "mail.log", "httpx2"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLogger().level))
