"""`docs/policy.md`: every key of the policy file, from the descriptions and examples in the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from mailfleet_router.decisions.shaping.policy_file import bare, dump
from mailfleet_router.decisions.shaping.schema import DURATION_PATTERN, RATE_PATTERN
from mailfleet_router.decisions.shaping.values import Citation, Match

_FOREIGN: dict[type, dict[str, tuple[str, object]]] = {
    Match: {
        "tenant": ("On whose behalf.", ["shop"]),
        "stream": ("Class of mail.", ["bulk"]),
        "pool": ("Egress pool.", ["default"]),
        "source": ("Egress source.", ["ip-1"]),
        "site": ("Site: a provider's name, or its MX hosts.", ["mx.example.org"]),
        "provider": ("A provider of this policy.", ["yahoo"]),
        "domain": ("Recipient domain.", ["*.example.org"]),
        "campaign": ("The client's own label.", ["spring"]),
    },
    Citation: {
        "url": ("The public page.", "https://senders.yahooinc.com/best-practices/"),
        "date": ("The day it was read.", "2026-11-22"),
    },
}
"""Types that others share, which bear no examples themselves."""


def policy_reference(kind: type[msgspec.Struct]) -> str:
    """The reference in Markdown: a section for each type, a row for each key, and an example of each section."""
    parts = [_section("The file", kind)]
    for title, inner in _inner_types(kind, {}).items():
        parts.append(_section(title, inner))
    return "# Traffic policy\n\n" + "\n".join(parts)


def example(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """A value of `kind` that has every key, made of the examples."""
    return {field.encode_name: _example(kind, field) for field in _fields(kind)}


def _section(title: str, kind: type[msgspec.Struct]) -> str:
    rows = "\n".join(_row(kind, field) for field in _fields(kind))
    head = f"## {title}\n\n{_plain(kind.__doc__ or '')}\n\n| key | type | default | meaning | example |\n|---|---|---|---|---|\n"
    return f"{head}{rows}\n\n```yaml\n{dump(example(kind))}```\n"


def _row(kind: type[msgspec.Struct], field: msgspec.inspect.Field) -> str:
    text, _ = _described(kind, field)
    shown = msgspec.json.encode(_described(kind, field)[1]).decode()
    return (
        f"| `{field.encode_name}` | {_type_name(field.type)} | {_default(field)} | {_cell(text)} | `{_cell(shown)}` |"
    )


def _described(kind: type[msgspec.Struct], field: msgspec.inspect.Field) -> tuple[str, object]:
    if kind in _FOREIGN:
        return _FOREIGN[kind][field.encode_name]
    schema = (field.type.extra_json_schema or {}) if isinstance(field.type, msgspec.inspect.Metadata) else {}
    return str(schema["description"]), schema["examples"][0]


def _example(kind: type[msgspec.Struct], field: msgspec.inspect.Field) -> object:
    inner = bare(field.type)
    if isinstance(inner, msgspec.inspect.StructType):
        return example(inner.cls)
    if isinstance(inner, msgspec.inspect.VarTupleType) and isinstance(
        item := bare(inner.item_type), msgspec.inspect.StructType
    ):
        return [example(item.cls)]
    return _described(kind, field)[1]


def _inner_types(kind: type[msgspec.Struct], found: dict[str, type[msgspec.Struct]]) -> dict[str, type[msgspec.Struct]]:
    for field in _fields(kind):
        inner = bare(field.type)
        item = bare(inner.item_type) if isinstance(inner, msgspec.inspect.VarTupleType) else inner
        if isinstance(item, msgspec.inspect.StructType) and item.cls not in found.values():
            found[f"`{field.encode_name}`" if item is inner else f"`{field.encode_name}`, each"] = item.cls
            _inner_types(item.cls, found)
    return found


def _fields(kind: type[msgspec.Struct]) -> Iterator[msgspec.inspect.Field]:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    yield from info.fields


def _type_name(kind: msgspec.inspect.Type) -> str:
    inner = bare(kind)
    if isinstance(inner, msgspec.inspect.VarTupleType):
        return f"list of {_type_name(inner.item_type)}"
    if isinstance(inner, msgspec.inspect.LiteralType):
        return " or ".join(f"`{value}`" for value in inner.values)
    if isinstance(inner, msgspec.inspect.StrType) and inner.pattern in (RATE_PATTERN, DURATION_PATTERN):
        return "rate" if inner.pattern == RATE_PATTERN else "duration"
    names = {
        msgspec.inspect.StrType: "text", msgspec.inspect.IntType: "whole number", msgspec.inspect.FloatType: "number",
        msgspec.inspect.BoolType: "true or false",
    }  # fmt: skip
    return names.get(type(inner), "keys, below" if isinstance(inner, msgspec.inspect.StructType) else "keys and values")


def _default(field: msgspec.inspect.Field) -> str:
    if field.required:
        return "required"
    value = field.default
    if value is msgspec.NODEFAULT or value is None or value in ((), ""):
        return ""
    return f"`{msgspec.json.encode(value).decode()}`"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")
