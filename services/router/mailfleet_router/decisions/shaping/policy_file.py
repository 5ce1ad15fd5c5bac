"""YAML or JSON values ↔ the traffic policy. What is refused is refused with file, line, key, and the nearest right word.

Only what JSON can say is read: no aliases, no tags, no two keys of one name, and no plain word that other readers of YAML
take for something else (`no`, `on`, `1:30`, `0o17`), so that a file means the same as a Kubernetes resource.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
import yaml

from mailfleet_router.decisions.shaping.responses import ResponseRule, refusal
from mailfleet_router.decisions.shaping.schema import NAMED, Reputation, Traffic
from mailfleet_router.decisions.shaping.sections import reputation_refusal, warmup_refusal
from mailfleet_router.decisions.shaping.values import (
    DURATION_PATTERN,
    RATE_PATTERN,
    PolicyError,
    Refusal,
    rate_per_second,
    seconds,
)

Path = tuple[str | int, ...]
"""Keys and numbers from the top: `("limits", 0, "cases", 1, "burst")`."""

MAX_CHARACTERS = 1 << 20
"""Of a file. A Kubernetes resource could not be larger either: etcd refuses requests above 1.5 MiB."""

MAX_DEPTH = 32
"""Of mappings and lists in each other; the format itself needs eight."""


class Place(NamedTuple):
    """Where something is written. Line 0: not known, the policy did not come from text."""

    origin: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.origin}:{self.line}" if self.line else self.origin


class Policy(NamedTuple):
    """A policy that was read, and where each of its parts was written."""

    traffic: Traffic
    places: Mapping[Path, Place]
    rules_above: int = 0
    """So many of the rules come from a file that was put over another one: they are looked at before all others."""

    def packs(self) -> tuple[tuple[ResponseRule, ...], ...]:
        """The rules in packs, as `Responses` takes them."""
        rules = self.traffic.rules
        return rules[: self.rules_above], rules[self.rules_above :]

    def place(self, *path: str | int) -> Place:
        """Where `path`, or else the nearest thing around it, is written."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place("policy"))


def read(text: str, origin: str) -> Policy:
    """The policy in the text of a YAML or JSON file. Raises PolicyError."""
    data, lines = _values(text, origin)
    return from_data(data, origin, lines)


def from_data(data: object, origin: str, lines: Mapping[Path, int] | None = None) -> Policy:
    """The policy in values such as JSON gives; `lines` says where each path is written. Raises PolicyError."""
    places = {path: Place(origin, line) for path, line in (lines or {(): 0}).items()}
    try:
        policy = Policy(msgspec.convert(data, Traffic), places)
    except msgspec.ValidationError as error:
        raise PolicyError(_explained(str(error), data, Policy(Traffic(version=1), places))) from error
    _refuse_namesakes(policy)
    _refuse_contradictions(policy)
    return policy


def over(own: Policy, base: Policy) -> Policy:
    """`own` put over `base`, unless it says `base: none`: its items replace those of the same name, new ones come first."""
    if own.traffic.base == "none":
        return own
    lists: dict[str, Any] = {}
    places: dict[Path, Place] = {(): own.place(), **_under("reputation", base), **_under("reputation", own)}
    for section in NAMED:
        chosen = list(_layered(section, own, base))
        lists[section] = tuple(getattr(policy.traffic, section)[index] for policy, index in chosen)
        for number, (policy, index) in enumerate(chosen):
            places |= {
                (section, number, *path[2:]): place
                for path, place in policy.places.items()
                if path[:2] == (section, index)
            }
    lists["reputation"] = _merged(own.traffic.reputation, base.traffic.reputation)
    both = Policy(msgspec.structs.replace(own.traffic, **lists), places, _new(own, base) + base.rules_above)
    _refuse_contradictions(both)
    return both


def dump(data: object) -> str:
    """A policy (or its data) as YAML for people: a blank line before each section, short things on one line."""
    return "\n".join(_section({key: value}) for key, value in msgspec.to_builtins(data).items())


def _section(section: dict[str, Any]) -> str:
    short = None if any(isinstance(value, dict | list | tuple) for value in section.values()) else False
    return yaml.dump(section, Dumper=_Dumper, sort_keys=False, default_flow_style=short, allow_unicode=True, width=120)


def nearest(word: str, known: Iterator[str] | tuple[str, ...] | list[str]) -> str:
    """`; did you mean …?`, or the words that there are, to end a sentence about an unknown one."""
    words = sorted(known)
    near = difflib.get_close_matches(word, words, n=1)
    return f"; did you mean {near[0]!r}?" if near else f" (there are: {', '.join(words) or 'none'})"


def _under(section: str, policy: Policy) -> dict[Path, Place]:
    return {path: place for path, place in policy.places.items() if path[:1] == (section,)}


def _layered(section: str, own: Policy, base: Policy) -> Iterator[tuple[Policy, int]]:
    mine, theirs = _names(own.traffic, section), _names(base.traffic, section)
    yield from ((own, index) for index, name in enumerate(mine) if name not in theirs)
    yield from ((own, mine.index(name)) if name in mine else (base, index) for index, name in enumerate(theirs))


def _new(own: Policy, base: Policy) -> int:
    there = _names(base.traffic, "rules")
    return sum(name not in there for name in _names(own.traffic, "rules"))


def _merged(own: Reputation, base: Reputation) -> Reputation:
    values = msgspec.to_builtins(base)
    for key, value in msgspec.to_builtins(own).items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return msgspec.convert(values, Reputation)


def _names(traffic: Traffic, section: str) -> list[str]:
    return [getattr(item, NAMED[section]) for item in getattr(traffic, section)]


def _refuse_namesakes(policy: Policy) -> None:
    for section in NAMED:
        seen: set[str] = set()
        for index, name in enumerate(_names(policy.traffic, section)):
            if name in seen:
                where = policy.place(section, index)
                raise PolicyError(f"{where}: {section}: there are two of the name {name!r}; keep one")
            seen.add(name)


def _refuse_contradictions(policy: Policy) -> None:
    """What types cannot say: expressions that are none, plans without caps, borders in the wrong order."""
    traffic = policy.traffic
    found: list[tuple[Path, Refusal | None]] = [
        (("rules", index), refusal(rule)) for index, rule in enumerate(traffic.rules)
    ]
    found += [(("warmup", index), warmup_refusal(plan)) for index, plan in enumerate(traffic.warmup)]
    found.append((("reputation",), reputation_refusal(traffic.reputation)))
    for path, refused in found:
        if refused is not None:
            whole = (*path, *refused.path)
            raise PolicyError(f"{policy.place(*whole)}: {dotted(whole)}: {refused.text}")


# --- text to values ----------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # Between single quotes PyYAML writes the rarer line breaks as they are, and folds them when it reads;
        # and what only others take for a number it would not quote.
        style = '"' if _BREAKS.search(data) or _JSON_ONLY.match(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_BREAKS = re.compile("[\\n\\r\\x85\\u2028\\u2029]")
_Dumper.add_representer(str, _Dumper.represent_str)


class _Loader(yaml.SafeLoader):
    """Composes nodes; knows no aliases, so that nothing can be many times as large as its text, or hold itself."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise self._refusal("aliases are not read: write the value out")
        if self.depth > MAX_DEPTH:
            raise self._refusal(f"more than {MAX_DEPTH} levels deep")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _refusal(self, why: str) -> yaml.MarkedYAMLError:
        return yaml.MarkedYAMLError(None, None, why, self.peek_event().start_mark)  # type: ignore[no-untyped-call]


def _values(text: str, origin: str) -> tuple[object, dict[Path, int]]:
    if len(text) > MAX_CHARACTERS:
        raise PolicyError(f"{origin}: {len(text)} characters are too many; a policy has at most {MAX_CHARACTERS}")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise PolicyError(f"{Place(origin, line)}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise PolicyError(f"{origin}: not YAML: {error}") from error
    if node is None:
        raise PolicyError(f"{origin}: nothing is written here; a policy begins with `version: 1`")
    lines: dict[Path, int] = {}
    return _value(node, (), lines, origin), lines


def _value(node: yaml.Node, path: Path, lines: dict[Path, int], origin: str) -> object:
    place = Place(origin, node.start_mark.line + 1)
    lines.setdefault(path, place.line)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, place)
    if node.tag not in ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        raise PolicyError(f"{place}: tags such as {node.tag!r} are not read")
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, index), lines, origin) for index, item in enumerate(node.value)]
    found: dict[str, object] = {}
    for key_node, value_node in node.value:
        key_place = Place(origin, key_node.start_mark.line + 1)
        key = _scalar(key_node, key_place) if isinstance(key_node, yaml.ScalarNode) else None
        if not isinstance(key, str):
            raise PolicyError(f"{key_place}: a key is text; put it in quotes")
        if key in found:
            raise PolicyError(f"{key_place}: {dotted((*path, key))} is written twice; keep one")
        lines[(*path, key)] = key_place.line
        found[key] = _value(value_node, (*path, key), lines, origin)
    return found


_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})\.[0-9]+([eE][-+]?[0-9]{1,2})?\Z")

_JSON_ONLY = re.compile(r"-?(0|[1-9][0-9]{0,17})[eE][-+]?[0-9]{1,2}\Z")
"""Numbers in JSON and in YAML 1.2, but text in YAML 1.1."""


def _scalar(node: yaml.ScalarNode, place: Place) -> object:
    kind, text = node.tag.removeprefix("tag:yaml.org,2002:"), node.value
    if node.style is None and _JSON_ONLY.match(text):
        return float(text)
    if kind == "str" or (kind == "timestamp" and node.style is None):
        return text
    if node.style is None:
        if kind == "null":
            return None
        if kind == "bool" and text in ("true", "false"):
            return text == "true"
        if kind == "int" and _INTEGER.match(text):
            return int(text)
        if kind == "float" and _NUMBER.match(text):
            return float(text)
        if kind in ("bool", "int", "float"):
            word = {"bool": "true or false", "int": "a whole number", "float": "a number"}[kind]
            raise PolicyError(
                f"{place}: {text} is read as {word} by some and as text by others: write '{text}' or {word}"
            )
        if kind == "merge":
            raise PolicyError(f"{place}: `<<` is not read: write the keys out")
    raise PolicyError(f"{place}: tags such as {node.tag!r} are not read")


# --- what msgspec says, in words of the file ----------------------------------------------------------------------------

_AT = re.compile(r"(.*?)(?: - at `\$(.*)`)?\Z", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_QUOTED = re.compile(r"`([^`]*)`")
_WORDS = {
    "array": "a list", "object": "keys and values", "str": "text", "int": "a whole number", "float": "a number",
    "bool": "true or false", "null": "nothing",
}  # fmt: skip


def dotted(path: Path) -> str:
    """`limits[0].cases[1].burst`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _explained(error: str, data: object, policy: Policy) -> str:
    found = _AT.match(error)
    assert found
    steps = _STEP.findall(found[2] or "")
    path: Path = tuple(int(number) if number else name for name, number in steps)
    return _sentence(found[1], path, data, policy)


def _sentence(said: str, path: Path, data: object, policy: Policy) -> str:
    kind, value = _kind_at(path), _at(data, path)
    name = dotted(path) or "the policy"
    quoted = _QUOTED.findall(said)
    if said.startswith("Object contains unknown field"):
        known = [field.encode_name for field in kind.fields] if isinstance(kind, msgspec.inspect.StructType) else []
        return f"{policy.place(*path, quoted[0])}: {name} has no key {quoted[0]!r}{nearest(quoted[0], known)}"
    where = policy.place(*path)
    if said.startswith("Object missing required field"):
        return f"{where}: {name} needs the key {quoted[0]!r}"
    if said.startswith("Invalid enum value"):
        return f"{where}: {name}: {value!r} is not known here{nearest(str(value), choices(kind))}"
    if isinstance(kind, msgspec.inspect.StrType) and isinstance(value, str):
        return f"{where}: {name}: {_wrong_text(value, kind, said)}"
    if isinstance(kind, msgspec.inspect.VarTupleType) and isinstance(value, str):
        return f"{where}: {name} is a list: write [{value}]"
    plain = _QUOTED.sub(lambda word: " or ".join(_WORDS.get(part, part) for part in word[1].split(" | ")), said)
    return f"{where}: {name}: {plain[:1].lower()}{plain[1:]}"


def _wrong_text(value: str, kind: msgspec.inspect.StrType, said: str) -> str:
    parse = {RATE_PATTERN: rate_per_second, DURATION_PATTERN: seconds}.get(kind.pattern or "")
    if parse is None:
        return "it must not be empty" if not value else said
    try:
        parse(value)
    except PolicyError as error:
        return str(error)
    return f"{value!r} is not written as it should be, such as {'100/m' if parse is rate_per_second else '1h30m'}"


def _kind_at(path: Path) -> msgspec.inspect.Type | None:
    kind: msgspec.inspect.Type | None = msgspec.inspect.type_info(Traffic)
    for step in path:
        if isinstance(kind, msgspec.inspect.StructType):
            kind = next((bare(field.type) for field in kind.fields if field.encode_name == step), None)
        elif isinstance(kind, msgspec.inspect.VarTupleType):
            kind = bare(kind.item_type)
        else:
            return None
    return kind


def bare(kind: msgspec.inspect.Type) -> msgspec.inspect.Type:
    """A type without its description, and without `or nothing`."""
    if isinstance(kind, msgspec.inspect.Metadata):
        return bare(kind.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        return next(bare(part) for part in kind.types if not isinstance(part, msgspec.inspect.NoneType))
    return kind


def choices(kind: msgspec.inspect.Type | None) -> list[str]:
    """The words of a type that has only so many."""
    if isinstance(kind, msgspec.inspect.EnumType):
        return [str(member.value) for member in kind.cls]
    return [str(value) for value in kind.values] if isinstance(kind, msgspec.inspect.LiteralType) else []


def _at(data: object, path: Path) -> object:
    for step in path:
        try:
            data = data[step]  # type: ignore[index]
        except (LookupError, TypeError):
            return None
    return data
