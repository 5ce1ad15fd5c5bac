"""Log lines, whatever strangers have written into them; and what the standard library makes of the same."""

from __future__ import annotations

import json
import logging
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.logs import Formatter

HOSTILE = "550 \x1b[2J\x00\x9b1m\r\n12:00:00 ingest info credentials revoked\u2028\u202e\udcff\ufeff"
anything = st.text(st.characters(codec=None), max_size=60)


def record(text: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("mailfleet", logging.WARNING, "", 0, "refused: %s", (text,), None)
    vars(made).update(fields)
    return made


def failed(text: str) -> logging.LogRecord:
    made = record("x")
    try:
        raise ValueError(text)
    except ValueError:
        made.exc_info = sys.exc_info()
    return made


def printed(form: str, made: logging.LogRecord) -> str:
    return Formatter("sender", json=form == "json").format(made)


@pytest.mark.parametrize("form", ["json", "console"])
@given(text=anything | st.just(HOSTILE))
def test_whatever_a_stranger_says_is_one_printable_line(form: str, text: str) -> None:
    line = printed(form, record(text, mx=text, addresses=[text], error=ValueError(text)))
    assert line.isprintable()
    assert line.encode()
    if form == "json":
        assert json.loads(line)["mx"].isprintable()


@pytest.mark.parametrize("form", ["json", "console"])
@given(text=anything | st.just(HOSTILE))
def test_no_line_of_a_traceback_passes_for_an_event(form: str, text: str) -> None:
    first, *rest = printed(form, failed(text)).split("\n")
    assert first.isprintable()
    assert all(line.startswith("    ") and line.isprintable() for line in rest)


def test_hostile_text_is_several_lines_and_no_utf_8_in_the_standard_librarys_format() -> None:
    line = logging.Formatter("%(asctime)s %(message)s").format(record(HOSTILE))
    assert len(line.splitlines()) > 1
    assert "\x1b[2J" in line
    with pytest.raises(UnicodeEncodeError):
        line.encode()
