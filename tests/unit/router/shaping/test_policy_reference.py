"""The reference of the policy file."""

from mailfleet_router.decisions.shaping.policy_file import dump, from_data, read
from mailfleet_router.decisions.shaping.policy_reference import example, policy_reference
from mailfleet_router.decisions.shaping.schema import (
    Case,
    Ladder,
    Limit,
    Member,
    Pool,
    Provider,
    Stream,
    Tenant,
    Traffic,
)
from mailfleet_router.decisions.shaping.values import Citation, Match


def test_every_key_of_every_type_has_a_row_with_a_sentence_and_an_example():
    page = policy_reference(Traffic)
    rows = {line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| `")}
    for kind in (Traffic, Provider, Limit, Case, Ladder, Pool, Member, Stream, Tenant, Match, Citation):
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
