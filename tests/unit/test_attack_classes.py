"""docs/attack-classes.md names tests that exist, for every class, on both sides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/attack-classes.md").read_text(encoding="utf-8")
ROWS = {row[0]: row[1:] for line in PAGE.splitlines() if (row := re.split(r" *\| *", line.strip("| ")))[0].isdigit()}
CLASSES = [*range(1, 5), *range(6, 15), *range(16, 22), 25]
WRITTEN = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)


def named(cell: str) -> set[str]:
    return set(re.findall(r"`(test_\w+)`", cell))


def test_every_test_the_page_names_exists() -> None:
    written = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in WRITTEN.findall(path.read_text("utf-8"))
    }
    assert named(PAGE) - written == set()


@pytest.mark.parametrize("number", CLASSES)
def test_every_class_has_a_promise_that_is_kept_and_is_broken_elsewhere(number: int) -> None:
    _, promise, kept, broken = ROWS[str(number)]
    assert promise
    assert named(kept)
    assert named(broken)
    assert not named(kept) & named(broken)
