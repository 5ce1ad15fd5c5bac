"""Pages that people write and in which the code has its say: tables, example files, what a command prints.

    <!-- made: table reply-classes -->      a table from the code (document_tables.TABLES)
    <!-- made: file policy.yaml -->         a file of docs/examples/<page>/
    <!-- made: run mailfleet policy check policy.yaml -->     a command, and what it prints there
    <!-- made: readings policy.yaml -->      what the samples of its rules mean without it and with it
    <!-- made: trace events.jsonl ann@mail.example -->     the story of a recorded mail
    <!-- end -->

What stands between the two lines is written by `make docs`. A page's commands run one after the other in one copy of its
folder, so that one can use what another wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from click.testing import CliRunner

from mailfleet_cli import output
from mailfleet_cli.document_tables import TABLES, readings
from mailfleet_cli.main import mailfleet
from mailfleet_cli.story import from_json, question, stories, tell

_BEGIN, _END = "<!-- made: ", "<!-- end -->"
_PART = re.compile(r"<!-- made: (\w+) (.+?) -->\n(.*?)<!-- end -->\n", re.DOTALL)
_LANGUAGES = {".yaml": "yaml", ".toml": "toml"}


class UnknownPart(Exception):
    """A page asks for something that the code cannot make."""


def written_pages(directory: Path) -> Iterator[str]:
    """The names of the pages that have made parts."""
    for path in sorted(directory.glob("*.md")):
        if _BEGIN in path.read_text(encoding="utf-8"):
            yield path.name


def filled(page: Path) -> str:
    """The page with all its parts made anew. Raises UnknownPart."""
    text = page.read_text(encoding="utf-8")
    if not len(_PART.findall(text)) == text.count(_BEGIN) == text.count(_END):
        raise UnknownPart(f"{page.name}: a part has no end, or an end no part")
    examples = page.parent / "examples" / page.stem
    with tempfile.TemporaryDirectory() as place:
        if examples.is_dir():
            shutil.copytree(examples, place, dirs_exist_ok=True)
        return _PART.sub(lambda part: _part(part[1], part[2], Path(place)), text)


def _part(kind: str, name: str, place: Path) -> str:
    if kind == "table" and name in TABLES:
        made = TABLES[name]()
    elif kind == "file" and (place / name).is_file():
        made = _block((place / name).read_text(encoding="utf-8"), _LANGUAGES.get(Path(name).suffix, ""))
    elif kind == "readings":
        made = readings(place / name)
    elif kind == "trace":
        made = _block(_traced(place, *name.split()), "console")
    elif kind == "run" and name.startswith("mailfleet "):
        made = _block(f"$ {name}\n{_printed(name, place)}", "console")
    else:
        raise UnknownPart(f"there is no {kind} {name!r}")
    return f"<!-- made: {kind} {name} -->\n{made}<!-- end -->\n"


def _block(text: str, language: str) -> str:
    return f"\n```{language}\n{text.rstrip()}\n```\n\n"


def _printed(command: str, place: Path) -> str:
    """Output and errors of a command of ours, as they would appear on a terminal."""
    with contextlib.chdir(place), utc():
        result = CliRunner().invoke(mailfleet, shlex.split(command)[1:])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise UnknownPart(f"`{command}` breaks") from result.exception
    return result.output


def _traced(place: Path, name: str, recipient: str) -> str:
    """As `mailfleet trace` tells it."""
    events = [from_json(json.loads(line)) for line in (place / name).read_text(encoding="utf-8").splitlines()]
    mine = {event.message_id for event in events if question(recipient).means(event)}
    told = stories((event for event in events if event.message_id in mine), question(recipient))
    lines = [f"$ mailfleet trace {recipient}"]
    with utc():
        for message_id, story in told.items():
            lines.append(message_id)
            for event in story:
                again = f"; again {output.clock(event.until)}" if event.until else ""
                lines.append(f"  {output.clock(event.at)}  {event.kind:<10} {tell(event)}{again}")
    return "\n".join(lines)


@contextlib.contextmanager
def utc() -> Iterator[None]:
    """Commands show times in the zone of the machine; pages must not depend on it."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()
