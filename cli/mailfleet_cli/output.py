"""What people see: colours on terminals only, JSON for scripts, times in the machine's zone, errors without tracebacks."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

import click
import msgspec
from rich.console import Console

from mailfleet_core.model.reply import printable

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Failure(click.ClickException):
    """An error whose text says what to do."""

    def show(self, file: Any = None) -> None:
        """Print it as one paragraph."""
        err.print("[bold red]error:[/] ", end="")
        err.print(self.format_message(), markup=False)


def fail(text: str) -> NoReturn:
    """Stop with exit code 1 and `text`."""
    raise Failure(text)


def json(value: object) -> None:
    """Print `value` as one line of JSON."""
    sys.stdout.write(msgspec.json.encode(value, enc_hook=str).decode() + "\n")


def clean(text: str) -> str:
    """Text from outside (replies, headers, addresses) made harmless for a terminal and for rich's markup."""
    return printable(text).replace("[", "\\[")


def clock(at: float) -> str:
    """An instant as people on this machine read it."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M:%S")


def moment(at: float, now: float) -> str:
    """An instant in few letters: the time of day, and the day where it is not today's."""
    text = clock(at)
    return text[11:] if text[:10] == clock(now)[:10] else text[5:16]


def span(seconds: float) -> str:
    """A length of time in its two largest units."""
    left = round(max(seconds, 0))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size} {unit}")
            left %= size
    return " ".join(parts[:2])


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, on stderr; the function given is told how far the work is, of how much."""
    if not err.is_terminal:
        yield lambda _, __: None
        return
    from rich.progress import Progress

    with Progress(console=err, transient=True) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)
