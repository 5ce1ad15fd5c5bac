"""Which limits apply."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping import limits
from mailfleet_router.decisions.shaping.limits import Limits, counter_key, least, provider_of
from mailfleet_router.decisions.shaping.schema import Case, Limit, Provider, Traffic
from mailfleet_router.decisions.shaping.values import FIELDS, Facts, Match

words = st.sampled_from(["", "a", "b", "a.example", "x.a.example", "ip-1", "ip-2", "A"])
patterns = st.lists(st.sampled_from(["a", "b", "*", "*.example", "*.a.example", "ip-*"]), max_size=2).map(tuple)
matches = st.builds(Match, **dict.fromkeys(FIELDS, patterns))
facts = st.builds(Facts, **dict.fromkeys(FIELDS, words))
cases = st.builds(
    Case,
    when=matches,
    message_rate=st.sampled_from([None, "10/s", "100/m", "1/d"]),
    burst=st.sampled_from([None, 1, 50]),
    connection_rate=st.sampled_from([None, "1/s", "30/m"]),
    concurrency=st.none() | st.integers(0, 9),
    messages_per_connection=st.none() | st.integers(1, 9),
    window=st.none() | st.integers(0, 9),
    suspend=st.booleans(),
)
some_limits = st.lists(
    st.builds(
        Limit,
        name=st.sampled_from(["one", "two", "three"]),
        per=st.lists(st.sampled_from(FIELDS), max_size=3).map(tuple),
        cases=st.lists(cases, max_size=4).map(tuple),
    ),
    max_size=4,
).map(tuple)
policies = st.builds(Traffic, version=st.just(1), limits=some_limits)


def policy(*several):
    return Traffic(version=1, limits=several)


@settings(max_examples=50, deadline=None)
@given(policies, facts)
def test_in_each_limit_the_first_case_that_matches_counts_and_no_other(traffic, some):
    found = {limit.limit_number: limit for limit in Limits(traffic).effective(some)}
    for index, limit in enumerate(traffic.limits):
        first = next((number for number, case in enumerate(limit.cases) if case.when.matches(some)), None)
        assert (found[index].case_number if index in found else None) == first


@settings(max_examples=50, deadline=None)
@given(policies, st.lists(facts, min_size=1, max_size=8))
def test_what_is_remembered_is_what_would_be_found_anew(traffic, several):
    remembering = Limits(traffic)
    for some in several + several:
        assert remembering.effective(some) == Limits(traffic).effective(some)


@settings(max_examples=50, deadline=None)
@given(policies, facts)
def test_the_least_of_each_quantity_decides(traffic, some):
    applied = Limits(traffic).effective(some)
    values = least(applied)
    for name in ("message_rate", "connection_rate", "concurrency", "messages_per_connection", "window"):
        given_values = [getattr(each.values, name) for each in applied if getattr(each.values, name) is not None]
        assert getattr(values, name) == (min(given_values) if given_values else None)
    assert values.suspend == any(each.values.suspend for each in applied)


@given(st.lists(st.text(max_size=6), min_size=2, max_size=4), st.lists(st.text(max_size=6), min_size=2, max_size=4))
@example(["a|b", "c"], ["a", "b|c"])
@example(["a%7C", "c"], ["a|", "c"])
def test_counters_of_different_things_have_different_keys(one, other):
    same = [part.lower() for part in one] == [part.lower() for part in other]
    assert (counter_key(one[0], one[1:]) == counter_key(other[0], other[1:])) == same


def test_the_burst_is_that_of_the_least_message_rate():
    fast = Limit(name="fast", cases=(Case(message_rate="10/s", burst=50),))
    slow = Limit(name="slow", cases=(Case(message_rate="60/m"),))
    for several in ((fast, slow), (slow, fast)):
        values = least(Limits(policy(*several)).effective(Facts()))
        assert (values.message_rate, values.burst) == (1.0, 1.0)


def test_a_changed_value_keeps_the_counter():
    some = Facts(source="ip-1", site="yahoo")
    slow, fast = (
        Limits(policy(Limit(name="l", per=("source", "site"), cases=(Case(message_rate=rate),)))).effective(some)[0]
        for rate in ("1/m", "9/s")
    )
    assert slow.key == fast.key == "l|ip-1|yahoo"
    assert slow.values != fast.values


@pytest.mark.parametrize(
    ("case", "keeper"),
    [
        (Case(concurrency=1), limits.SENDER),
        (Case(connection_rate="1/s", messages_per_connection=3), limits.SENDER),
        (Case(message_rate="1/s"), limits.ROUTER),
        (Case(window=10), limits.ROUTER),
        (Case(suspend=True), limits.ROUTER),
        (Case(concurrency=1, message_rate="1/s"), limits.BOTH),
        (Case(concurrency=1, suspend=True), limits.BOTH),
    ],
)
def test_the_sender_keeps_what_concerns_connections_and_the_router_the_rest(case, keeper):
    assert Limits(policy(Limit(name="l", cases=(case,)))).effective(Facts())[0].enforced_by == keeper


def test_a_limit_without_site_spans_partitions():
    several = policy(
        Limit(name="all", per=("tenant",), cases=(Case(window=1),)),
        Limit(name="here", per=("tenant", "site"), cases=(Case(window=1),)),
    )
    assert [limit.spans_partitions for limit in Limits(several).effective(Facts())] == [True, False]


def test_the_cache_starts_anew_when_it_is_full(monkeypatch):
    monkeypatch.setattr(limits, "MOST_CACHED", 3)
    table = Limits(policy(Limit(name="l", per=("domain",), cases=(Case(window=1),))))
    for number in range(10):
        assert table.effective(Facts(domain=f"d{number}"))[0].key == f"l|d{number}"
    assert len(table._known) <= 3


def test_fields_that_no_limit_names_do_not_fill_the_cache():
    table = Limits(policy(Limit(name="l", per=("site",), cases=(Case(window=1),))))
    for number in range(10):
        table.effective(Facts(site="s", domain=f"d{number}", campaign=str(number)))
    assert len(table._known) == 1


PROVIDERS = (
    Provider(name="wide", mx=("*.outlook.example",)),
    Provider(name="narrow", mx=("*.olc.outlook.example",)),
    Provider(name="named", domains=("special.example", "*.named.example")),
)


@pytest.mark.parametrize(
    ("hosts", "domain", "name"),
    [
        (["a.outlook.example."], "", "wide"),
        (["A.OLC.outlook.example", "b.olc.outlook.example"], "", "narrow"),
        (["a.outlook.example", "b.olc.outlook.example"], "", ""),
        (["a.outlook.example", "mx.elsewhere.example"], "", ""),
        (["outlook.example"], "", ""),
        ([], "", ""),
        (["a.outlook.example"], "special.example", "named"),
        (["a.outlook.example"], "x.named.example", "named"),
    ],
)
def test_a_provider_is_named_by_the_domain_or_by_all_its_mx_hosts(hosts, domain, name):
    assert provider_of(PROVIDERS, hosts, domain) == name
    assert provider_of(PROVIDERS, reversed(hosts), domain) == name
