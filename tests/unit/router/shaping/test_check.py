"""What is wrong with a policy that can be read."""

from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.check import Known, check, covers, shadows
from mailfleet_router.decisions.shaping.policy_file import read
from mailfleet_router.decisions.shaping.values import Facts, Match, fits

KNOWN = Known(
    frozenset({"bulk", "transactional"}), frozenset({"default"}), frozenset({"ip-1", "ip-2"}), frozenset({"shop"})
)

words = st.text(alphabet="ab.", max_size=5)
patterns = st.one_of(words, words.map("*.".__add__), words.map(lambda word: word + "*"), st.just("*"))


def found(text, known=KNOWN):
    return [str(finding) for finding in check(read("version: 1\n" + text, "f"), known)]


@given(patterns, patterns, words)
def test_a_pattern_that_covers_another_fits_all_that_it_fits(wide, narrow, word):
    if covers(wide, narrow) and fits(narrow, word):
        assert fits(wide, word)


@given(patterns)
def test_a_pattern_covers_itself(pattern):
    assert covers(pattern, pattern)
    assert covers("*", pattern)


few = st.lists(patterns, max_size=2).map(tuple)
some_matches = st.builds(Match, site=few, domain=few)


@given(some_matches, some_matches, words, words)
def test_a_shadowed_case_matches_nothing_that_the_earlier_one_does_not(earlier, later, site, domain):
    facts = Facts(site=site, domain=domain)
    if shadows(earlier, later) and later.matches(facts):
        assert earlier.matches(facts)


CASE = "limits:\n- name: l\n  per: [source, site]\n  cases:\n  - "


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CASE + "{concurrency: 0}", "f:6: error: concurrency 0 lets nothing through, for ever; say `suspend: true`"),
        (CASE + "{message_rate: 0/s}", "f:6: error: message_rate 0 lets nothing through"),
        (
            CASE + "{concurrency: 9, window: 5}",
            "f:6: warning: 9 connections are more than the window of 5 units can use",
        ),
        (CASE + "{concurrency: 9, burst: 5}", "f:6: warning: a burst without a message_rate does nothing"),
        (CASE + "{if: {domain: [a.x]}}", "f:6: warning: limits[0].cases[0] sets nothing"),
        (
            CASE + "{concurrency: 1}\n  - {if: {domain: [a.x]}, concurrency: 2}",
            "f:7: error: limits[0].cases[1] can never match: case 0 (f:6) matches all that it does",
        ),
        (
            CASE
            + "{if: {domain: ['*.x']}, concurrency: 1}\n  - {if: {domain: [a.x, b.x], source: [ip-1]}, concurrency: 2}",
            "f:7: error: limits[0].cases[1] can never match",
        ),
        (
            CASE + "{if: {provider: [yaho]}, concurrency: 1}\nproviders: [{name: yahoo, mx: [a]}]",
            "no provider 'yaho'; did you mean 'yahoo'?",
        ),
        (
            CASE + "{if: {stream: [bulks]}, concurrency: 1}",
            "f:6: error: there is no stream 'bulks'; did you mean 'bulk'?",
        ),
        (CASE + "{if: {pool: [other]}, concurrency: 1}", "f:6: error: there is no pool 'other' (there are: default)"),
        (CASE + "{if: {source: [ip-3]}, concurrency: 1}", "f:6: error: there is no source 'ip-3'; did you mean"),
        (
            CASE + "{if: {tenant: [shops]}, concurrency: 1}",
            "f:6: error: there is no tenant 'shops'; did you mean 'shop'?",
        ),
        (CASE + "{if: {domain: ['a*.x']}, concurrency: 1}", "f:6: error: 'a*.x' can never match: `*` stands for"),
        (CASE + "{if: {domain: ['']}, concurrency: 1}", "f:6: error: '' can never match: it is empty"),
        ("limits: [{name: l, per: [site, site], cases: []}]", "f:2: warning: limit 'l' names a field of `per` twice"),
        (
            "limits: [{name: l, per: [tenant], cases: [{concurrency: 1}]}]",
            "f:2: warning: concurrency is kept for each source and site",
        ),
        ("providers: [{name: a}]", "f:2: warning: provider 'a' has neither mx nor domains"),
        (
            "providers: [{name: a, mx: ['*.x.']}]",
            "f:2: error: '*.x.' can never match: it has a dot or a space at its end",
        ),
        (
            "providers: [{name: a, mx: ['*.x']}, {name: b, mx: ['*.X']}]",
            "f:2: error: '*.x' is a pattern of both 'a' and 'b'",
        ),
        (
            "providers: [{name: a, mx: ['*.x']}, {name: b, mx: [m.x]}]",
            "f:2: warning: '*.x' of 'a' and 'm.x' of 'b' overlap; the longer counts: 'b'",
        ),
        (
            "ladders: [{stream: bulk, retry: [1h, 2h, 4h], expire: 3h, delay_dsn: 1h}]",
            "f:2: warning: wait 2 (2h) ends after the mail has expired (3h)",
        ),
        ("ladders: [{stream: bulk, retry: [1h], expire: 1h, delay_dsn: 0s}]", "f:2: error: wait 1 (1h) ends after"),
        ("ladders: [{stream: bulk, retry: []}]", "f:2: error: the ladder of 'bulk' has no waits"),
        ("ladders: [{stream: bulk, retry: [1m], expire: 3h}]", "f:2: warning: the delay is told after 4h"),
        ("ladders: [{stream: news, retry: [1m]}]", "f:2: error: there is no stream 'news'"),
        ("pools: [{name: a, overflow: b}, {name: b, overflow: a}]", "f:2: error: the overflow goes round: a → b → a"),
        ("pools: [{name: a, overflow: a}]", "f:2: error: the overflow goes round: a → a"),
        ("pools: [{name: a, overflow: c}]", "f:2: error: there is no pool 'c'"),
        ("pools: [{name: a, sources: [{source: ip-9}]}]", "f:2: error: there is no source 'ip-9'"),
        (
            "streams: [{name: bulk, floor: 0.6}, {name: transactional, floor: 0.6}]",
            "f:2: error: the floors of all streams together are more than 1",
        ),
        ("streams: [{name: news}]", "f:2: error: there is no stream 'news'"),
        ("tenants: [{name: shops}]", "f:2: error: there is no tenant 'shops'; did you mean 'shop'?"),
    ],
)
def test_each_mistake_is_found_with_its_line_and_nothing_else_is(text, said):
    findings = found(text)
    assert [finding for finding in findings if said in finding] == findings[:1]
    assert len(findings) == 1


@pytest.mark.parametrize(
    "text",
    [
        CASE + "{suspend: true}",
        CASE + "{concurrency: 0, suspend: true}",
        CASE + "{if: {domain: [a.x]}, concurrency: 1}\n  - {concurrency: 2}",
        CASE + "{if: {domain: [a.x]}, concurrency: 1}\n  - {if: {domain: ['*.x']}, concurrency: 2}",
        CASE + "{if: {domain: [a.x], source: [ip-1]}, concurrency: 1}\n  - {if: {domain: [a.x]}, concurrency: 2}",
        CASE + "{if: {source: ['ip-*'], domain: ['*.x', 'y*', '*']}, concurrency: 1}",
        "pools: [{name: a, overflow: b}, {name: b, overflow: c}, {name: c, overflow: default}]",
        "pools: [{name: a, overflow: b}, {name: b}]",
        "providers: [{name: a, mx: ['*.x']}, {name: b, mx: ['*.y']}]",
    ],
)
def test_what_is_well_is_not_complained_of(text):
    assert found(text) == []


def test_a_pool_that_leads_into_a_ring_is_not_in_it():
    findings = found("pools: [{name: a, overflow: b}, {name: b, overflow: c}, {name: c, overflow: b}]")
    assert [finding.split("round: ")[1] for finding in findings] == ["b → c → b"]


def test_what_the_settings_know_is_not_asked_where_they_are_not_given():
    assert found(CASE + "{if: {stream: [bulks], source: [x], tenant: [y], pool: [z]}, concurrency: 1}", Known()) == []


def test_the_shipped_policy_has_no_findings():
    shipped = (files("mailfleet_router") / "policy" / "traffic.yaml").read_text(encoding="utf-8")
    assert check(read(shipped, "traffic.yaml"), KNOWN) == ()
