"""`docs/policy.md`: every key of the policy file, from the descriptions and examples in the schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from mailfleet_router.decisions.shaping.policy_file import bare, choices, dump
from mailfleet_router.decisions.shaping.values import DURATION_PATTERN, RATE_PATTERN

_INTRODUCTION = """\
A file of one's own is put over the shipped policy: `policy.yaml` beside the settings file, or what `policy_file` of
`[router]` names. Routers obey an edited file within seconds, without a restart; one that is wrong is logged, and what was
in force stays. A changed limit keeps what was taken from it: nothing is refilled. Limits and back-off of the policy hold
for sites that were found by MX; smart hosts and LMTP servers keep the limits of their `[[route]]`.

`mailfleet policy check` looks for mistakes in it, `mailfleet policy explain` says which limits hold for a
mail and which line sets each. Unknown keys are refused.

Rates are messages and time: `100/m`, `20/s`, `5/10s`, `20000/d`. Durations are `90s`, `10m`, `1h30m`, `2d`. A pattern is a
whole word, `*.x` (everything below x), `x*` or `*`; letters' case does not matter.

Pages of their own: [limits](limits.md), [response rules](response-rules.md), [back-off](back-off.md),
[reputation](reputation.md), [warm-up](warm-up.md), and [coming from KumoMTA or PowerMTA](from-kumomta-and-powermta.md).
"""


def policy_reference(kind: type[msgspec.Struct]) -> str:
    """The reference in Markdown: a section for each type, a row for each key, and an example of each section."""
    parts = [f"# Traffic policy\n\n{_INTRODUCTION}", _section("The file", kind, dump(example(kind)))]
    for inner, keys in _inner_types(kind, {}).items():
        # Within a section there are no blank lines.
        parts.append(_section(", ".join(f"`{key}`" for key in keys), inner, dump(example(inner)).replace("\n\n", "\n")))
    return "\n".join(parts)


def example(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """A value of `kind` that has every key, made of the examples."""
    return {field.encode_name: _example(kind, field) for field in _fields(kind)}


def _section(title: str, kind: type[msgspec.Struct], shown: str) -> str:
    rows = "\n".join(_row(kind, field) for field in _fields(kind))
    head = f"## {title}\n\n{_plain(kind.__doc__ or '')}\n\n| key | type | default | meaning | example |\n|---|---|---|---|---|\n"
    return f"{head}{rows}\n\n```yaml\n{shown}```\n"


def _row(kind: type[msgspec.Struct], field: msgspec.inspect.Field) -> str:
    text, shown_example = _described(kind, field)
    shown = msgspec.json.encode(shown_example).decode()
    return (
        f"| `{field.encode_name}` | {_type_name(field.type)} | {_default(field)} | {_cell(text)} | `{_cell(shown)}` |"
    )


def _described(kind: type[msgspec.Struct], field: msgspec.inspect.Field) -> tuple[str, object]:
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


def _inner_types(
    kind: type[msgspec.Struct], found: dict[type[msgspec.Struct], list[str]]
) -> dict[type[msgspec.Struct], list[str]]:
    """The types of keys that have keys of their own → the names of those keys."""
    for field in _fields(kind):
        inner = bare(field.type)
        item = bare(inner.item_type) if isinstance(inner, msgspec.inspect.VarTupleType) else inner
        if isinstance(item, msgspec.inspect.StructType):
            known = item.cls in found
            keys = found.setdefault(item.cls, [])
            if field.encode_name not in keys:
                keys.append(field.encode_name)
            if not known:
                _inner_types(item.cls, found)
    return found


def _fields(kind: type[msgspec.Struct]) -> Iterator[msgspec.inspect.Field]:
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    yield from info.fields


def _type_name(kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.Metadata):
        return _type_name(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return " or ".join(_type_name(part) for part in kind.types if not isinstance(part, msgspec.inspect.NoneType))
    inner = kind
    if isinstance(inner, msgspec.inspect.VarTupleType):
        return f"list of {_type_name(inner.item_type)}"
    if words := choices(inner):
        return " or ".join(f"`{word}`" for word in words)
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
    if value is msgspec.NODEFAULT or value is None or value in ((), "") or isinstance(value, msgspec.Struct):
        return ""
    return f"`{msgspec.json.encode(value).decode()}`"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")
