"""The reference of the policy file."""

import re
import typing

import msgspec
import pytest

from mailfleet_router.decisions.shaping.policy_file import dump, from_data, read
from mailfleet_router.decisions.shaping.policy_reference import example, policy_reference
from mailfleet_router.decisions.shaping.responses import ResponseRule, Samples, Slowed
from mailfleet_router.decisions.shaping.schema import (
    Case,
    Ladder,
    Limit,
    Member,
    Pool,
    Provider,
    Reputation,
    Stream,
    Tenant,
    Term,
    Traffic,
    Warmup,
)
from mailfleet_router.decisions.shaping.values import Citation, Match


def test_every_key_of_every_type_has_a_row_with_a_sentence_and_an_example():
    page = policy_reference(Traffic)
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| `")}
    for kind in (Traffic, Provider, Limit, Case, Ladder, Pool, Member, Stream, Tenant, Match, Citation,
                 ResponseRule, Slowed, Samples, Warmup, Reputation, Term):  # fmt: skip
        assert {f"`{name}`" for name in kind.__struct_encode_fields__} <= rows
    cells = [re.split(r" \| ", line.strip("| ")) for line in page.splitlines() if line.startswith("| `")]
    assert len(cells) > 80
    assert [row[0] for row in cells if len(row) < 5 or len(row[3]) < 8 or row[4].strip("`") in ("", "null")] == []


def keys() -> list[tuple[type[msgspec.Struct], msgspec.inspect.Field]]:
    kinds = (Traffic, Provider, Limit, Case, Ladder, Pool, Member, Stream, Tenant, Match, Citation, ResponseRule, Slowed,
             Samples, Warmup, Reputation, Term)  # fmt: skip
    infos = [(kind, msgspec.inspect.type_info(kind)) for kind in kinds]
    return [(kind, field) for kind, info in infos for field in info.fields]


@pytest.mark.parametrize(
    ("kind", "field"), [pytest.param(*key, id=f"{key[0].__name__}.{key[1].encode_name}") for key in keys()]
)
def test_the_example_of_each_key_alone_is_read_as_part_of_a_policy(kind, field):
    shown = field.type.extra_json_schema["examples"][0]
    hint = typing.get_type_hints(kind, include_extras=True)[field.name]
    assert msgspec.convert(shown, hint) is not None
    whole = example(kind) | {field.encode_name: shown}
    assert read(dump(_around(kind, whole)), "docs/policy.md").traffic


def _around(kind, value):
    """A policy that has `value`, of type `kind`, where such values are written."""
    wheres = {
        Traffic: lambda: value,
        Provider: lambda: {"providers": [value]},
        Limit: lambda: {"limits": [value]},
        Case: lambda: {"limits": [{"name": "a", "cases": [value]}]},
        Match: lambda: {"limits": [{"name": "a", "cases": [{"if": value}]}]},
        Citation: lambda: {"providers": [{"name": "a", "citation": value}]},
        ResponseRule: lambda: {"rules": [value]},
        Slowed: lambda: {"rules": [{"name": "a", "to": value}]},
        Samples: lambda: {"rules": [{"name": "a", "samples": value}]},
        Ladder: lambda: {"ladders": [value]},
        Warmup: lambda: {"warmup": [value]},
        Reputation: lambda: {"reputation": value},
        Term: lambda: {"reputation": {"complaints": value}},
        Pool: lambda: {"pools": [value]},
        Member: lambda: {"pools": [{"name": "a", "sources": [value]}]},
        Stream: lambda: {"streams": [value]},
        Tenant: lambda: {"tenants": [value]},
    }
    return {"version": 1, **wheres[kind]()}


def test_the_example_with_every_key_is_a_policy():
    whole = example(Traffic)
    policy = read(dump(whole), "docs/policy.md")
    assert policy.traffic == from_data(whole, "f").traffic
    assert policy.traffic.limits[0].cases[0].burst == 10
    assert set(whole) == set(Traffic.__struct_encode_fields__)


def test_rates_and_durations_are_called_so():
    page = policy_reference(Traffic)
    assert '| `message_rate` | rate |  | Messages per time. | `"100/m"` |' in page
    assert "| `retry` | list of duration | required |" in page


def test_a_type_that_several_keys_have_bears_all_their_names_and_is_told_once():
    page = policy_reference(Traffic)
    assert page.count("\n## `deferrals`, `hard_bounces`, `block_replies`, `complaints`\n") == 1
    assert page.count("| `quarantine_below` |") == 1


def test_words_and_several_types_are_called_so():
    page = policy_reference(Traffic)
    assert "| `effect` | `none` or `slow` or `pause`" in page
    assert "| `code` | whole number or text or list of whole number or text |" in page
