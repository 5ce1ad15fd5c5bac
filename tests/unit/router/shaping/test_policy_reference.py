"""The reference of the policy file."""

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
    assert all(len(line.split(" | ")) >= 5 for line in page.splitlines() if line.startswith("| `"))


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
