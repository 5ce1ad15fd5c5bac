"""Settings files for tests, from dictionaries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Sections = Mapping[str, Any]
"""Section → its keys; a list of dictionaries is an array of tables, in a section or instead of one."""


def dumps(sections: Sections) -> str:
    """The TOML text of `sections`."""
    return "\n".join(block for name, content in sections.items() for block in _blocks(name, content))


def merged(base: Sections, over: Sections) -> dict[str, Any]:
    """`base` with the keys of `over` in its sections; arrays of tables are replaced."""
    result = dict(base)
    for name, content in over.items():
        old = result.get(name)
        result[name] = {**old, **content} if isinstance(old, dict) and isinstance(content, dict) else content
    return result


def _blocks(name: str, content: Any) -> list[str]:
    if isinstance(content, list):
        return [_table(f"[[{name}]]", table) for table in content]
    tables = {key: value for key, value in content.items() if _is_tables(value)}
    plain = {key: value for key, value in content.items() if key not in tables}
    return [
        _table(f"[{name}]", plain),
        *(block for key, value in tables.items() for block in _blocks(f"{name}.{key}", value)),
    ]


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) for item in value)


def _table(header: str, content: Mapping[str, Any]) -> str:
    return "".join([header + "\n", *(f"{key} = {_value(value)}\n" for key, value in content.items())])


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(str(value) if not isinstance(value, bool | int | float) else value)
