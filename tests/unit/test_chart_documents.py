"""The chart's README and schema follow from the comments in its values."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "chart_documents.py"
VALUES = """\
# Not about anything.

# -- How many.
# @schema {minimum: 0}
replicas: 2
# -- Whatever
# you like.
# @schema {free: true}
labels: {a: b}
tls:
  # -- A secret | or none.
  secret: ""
"""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("chart_documents", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["chart_documents"] = module
    spec.loader.exec_module(module)
    return module


def test_the_schema_is_closed_but_for_what_is_free(script: ModuleType) -> None:
    schema = script.schema(script.read(VALUES))
    assert schema["additionalProperties"] is False
    assert schema["properties"]["replicas"] == {"description": "How many.", "type": "integer", "minimum": 0}
    assert schema["properties"]["labels"] == {"description": "Whatever you like.", "type": "object"}
    assert schema["properties"]["tls"]["additionalProperties"] is False


def test_every_value_is_in_the_table_with_its_default(script: ModuleType) -> None:
    text = script.tables(script.read(VALUES))
    assert "| `replicas` | `2` | How many. |" in text
    assert '| `tls.secret` | `""` | A secret \\| or none. |' in text


def test_a_value_without_a_description_is_refused_with_its_line(script: ModuleType) -> None:
    with pytest.raises(script.Undocumented, match=r"line 14: tls\.key has no description"):
        script.read(VALUES + "\n  key: 1\n")


def test_what_is_generated_is_fresh(script: ModuleType) -> None:
    stale = [path.name for path, text in script.documents().items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "`make chart-docs` writes them anew"
