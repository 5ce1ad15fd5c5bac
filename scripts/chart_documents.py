"""What is generated in the chart: its README and schema from the comments in values.yaml, its topics from the code.

`python scripts/chart_documents.py` writes them; `--check` says which are stale, and exits with 1 then.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mailfleet_core.bus.kafka_topics import SAFE_REPLICAS, settings_of
from mailfleet_core.bus.opening import QUEUE_LIFE_SECONDS
from mailfleet_core.bus.topics import topics

CHART = Path(__file__).resolve().parent.parent / "charts" / "mailfleet"
HINT, TEXT = "@schema ", "-- "
MANY = 100_000
"""More partitions than any topic has by itself: shows which counts follow from the settings."""


class Undocumented(ValueError):
    """A value has no description; the text says which."""


@dataclass(slots=True)
class Value:
    """A key of values.yaml."""

    path: str
    default: Any
    text: str
    hints: dict[str, Any]
    children: list[Value] = field(default_factory=list)

    @property
    def leaf(self) -> bool:
        """Is it documented as a whole?"""
        return not self.children


def read(text: str) -> list[Value]:
    """The values in `text`, with what their comments say. Raises Undocumented."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    return list(_keys(root, yaml.safe_load(text), text.splitlines(), ""))


def _keys(node: yaml.MappingNode, defaults: Mapping[str, Any], lines: list[str], path: str) -> Iterator[Value]:
    for key, child in node.value:
        name = f"{path}.{key.value}" if path else key.value
        text, hints = _comment(lines, key.start_mark.line, key.start_mark.column)
        value = Value(name, defaults[key.value], text, hints)
        if isinstance(child, yaml.MappingNode) and child.value and not hints.get("free"):
            value.children = list(_keys(child, defaults[key.value], lines, name))
        elif not text:
            raise Undocumented(f"values.yaml line {key.start_mark.line + 1}: {name} has no description")
        yield value


def _comment(lines: list[str], line: int, column: int) -> tuple[str, dict[str, Any]]:
    """The description and the hints right above a key."""
    words: list[str] = []
    hints: dict[str, Any] = {}
    mark = " " * column + "# "
    while line and lines[line - 1].startswith(mark):
        line -= 1
        text = lines[line].removeprefix(mark)
        if text.startswith(HINT):
            hints |= yaml.safe_load(text.removeprefix(HINT))
        else:
            words.insert(0, text)
    return (" ".join(words).removeprefix(TEXT) if words and words[0].startswith(TEXT) else ""), hints


def schema(values: list[Value]) -> dict[str, Any]:
    """The schema of all values: closed, except the maps that are free."""
    whole = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Values of the chart mailfleet"}
    return whole | _object(values)


def _object(values: list[Value]) -> dict[str, Any]:
    properties = {value.path.rpartition(".")[2]: _schema(value) for value in values}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _schema(value: Value) -> dict[str, Any]:
    described = {"description": value.text} if value.text else {}
    if not value.leaf:
        found = _object(value.children)
        if value.path == "global":  # belongs to all charts of a release
            found["additionalProperties"] = True
        if value.hints.get("subchart"):  # Helm hands the global values down
            found["properties"]["global"] = {"type": "object"}
        return described | found
    kinds = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    hints = {key: hint for key, hint in value.hints.items() if key != "free"}
    return described | {"type": kinds[type(value.default)]} | hints


def tables(values: list[Value]) -> str:
    """The values as tables in Markdown, one for each component."""
    single = [value for value in values if value.leaf]
    parts = [_table("General", single)]
    parts += [_table(f"`{value.path}`", list(_leaves(value))) for value in values if not value.leaf]
    return "\n".join(parts)


def _leaves(value: Value) -> Iterator[Value]:
    if value.leaf:
        yield value
    for child in value.children:
        yield from _leaves(child)


def _table(title: str, values: list[Value]) -> str:
    rows = [
        f"| `{value.path}` | {_default(value.default)} | {value.text.replace('|', chr(92) + '|')} |" for value in values
    ]
    return "\n".join([f"### {title}", "", "| value | default | meaning |", "|---|---|---|", *rows, ""])


def _default(value: object) -> str:
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def topic_list() -> list[dict[str, Any]]:
    """The topics as the chart renders them for Strimzi: partitions by what they follow from, settings by replicas."""
    found = topics(MANY, 2 * MANY, QUEUE_LIFE_SECONDS)
    shares = {MANY: {"share": "queue"}, 2 * MANY: {"share": "lanes"}}
    few = {name: topic.partitions for name, topic in topics(1, 1, QUEUE_LIFE_SECONDS).items()}
    listed = []
    for topic in found.values():
        # A count that shrinks with the queue's is that one, up to a bound.
        bounded = {"share": "queue" if few[topic.name] < topic.partitions else "", "most": topic.partitions}
        entry = {"name": topic.name, "partitions": shares.get(topic.partitions, bounded)}
        listed.append(entry | {"replicated": settings_of(topic, SAFE_REPLICAS), "alone": settings_of(topic, 1)})
    return listed


def documents() -> dict[Path, str]:
    """What each generated file has to be."""
    values = read((CHART / "values.yaml").read_text(encoding="utf-8"))
    frame = (CHART / "README.md.in").read_text(encoding="utf-8")
    return {
        CHART / "README.md": frame.replace("@VALUES@\n", tables(values)),
        CHART / "values.schema.json": _json(schema(values)),
        CHART / "files" / "topics.json": _json(topic_list()),
    }


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main() -> None:
    """Write them, or say which are stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when something is stale")
    check = parser.parse_args().check
    stale = []
    for path, text in documents().items():
        if check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            stale.append(str(path.relative_to(CHART.parent.parent)))
        elif not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if stale:
        sys.exit(f"stale: {', '.join(stale)}; `make chart-docs` writes them anew")


if __name__ == "__main__":
    main()
