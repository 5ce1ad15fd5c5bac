"""What is wrong with a policy that can be read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model.wire import RecipientOutcome
from mailfleet_router.decisions.shaping.check import Known, check, covers, shadows, takes_all
from mailfleet_router.decisions.shaping.policy_file import over, read
from mailfleet_router.decisions.shaping.responses import ResponseRule, Responses
from mailfleet_router.decisions.shaping.values import Facts, Match, fits
from mailfleet_router.shell.traffic import shipped

KNOWN = Known(
    frozenset({"bulk", "otp", "transactional"}),
    frozenset({"default"}),
    frozenset({"ip-1", "ip-2"}),
    frozenset({"shop"}),
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


RULE = "rules:\n- "
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
        (RULE + "{name: a, text: x}", "f:3: warning: rule 'a': it has neither a class nor an effect"),
        (
            RULE + "{name: a, class: quota, threshold: 5/1h}",
            "f:3: warning: rule 'a': a threshold without an effect does nothing",
        ),
        (RULE + "{name: a, class: quota, ttl: 1h}", "f:3: warning: rule 'a': a ttl with the effect none does nothing"),
        (
            RULE + "{name: a, effect: pause, to: {rate: 1/s}}",
            "f:3: warning: rule 'a': `to` with the effect pause does nothing; it belongs to slow",
        ),
        (
            RULE + "{name: a, effect: slow, to: {rate: 0/s}}",
            "f:3: warning: rule 'a': a rate of 0/s lets nothing through",
        ),
        (
            RULE + "{name: a, class: bad_mailbox, blame: recipient, effect: pause}",
            "f:3: warning: rule 'a': it blames one recipient, but pause holds up mail for others",
        ),
        (
            RULE + "{name: a, if: {provider: [yaho]}, effect: slow}\nproviders: [{name: yahoo, mx: [a]}]",
            "f:3: error: there is no provider 'yaho'; did you mean 'yahoo'?",
        ),
        (RULE + "{name: a, if: {domain: ['a*.x']}, effect: slow}", "f:3: error: 'a*.x' can never match"),
        (
            RULE + "{name: a, effect: slow}\n- {name: b, code: 421, effect: pause}",
            "f:4: error: rule 'b' can never match: rule 'a' (f:3) comes first and matches all that it does",
        ),
        (
            RULE + "{name: a, code: 4xx, text: [x, y], enhanced: 4.*, if: {domain: ['*.x']}, effect: slow}\n"
            "- {name: b, code: [421, 450], text: y, enhanced: [4.7.1], if: {domain: [a.x], source: [ip-1]}, effect: pause}",
            "f:4: error: rule 'b' can never match: rule 'a' (f:3)",
        ),
        (
            RULE + "{name: b, text: x, effect: slow}\n- {name: p, if: {provider: [y]}, effect: pause}\n"
            "- {name: q, if: {provider: [y]}, text: x, effect: pause}\nproviders: [{name: y, mx: [a]}]",
            "f:5: error: rule 'q' can never match: rule 'p' (f:4)",
        ),
        (
            RULE
            + "{name: a, text: bus, effect: slow}\n- {name: b, text: busy, effect: pause, samples: {match: [421 busy]}}",
            "f:4: error: rule 'b': its sample '421 busy' is taken by rule 'a'",
        ),
        (
            RULE + "{name: a, text: busy, effect: slow, samples: {match: [421 full]}}",
            "f:3: error: rule 'a': it does not match its sample '421 full'",
        ),
        (
            RULE + "{name: a, text: busy, effect: slow, samples: {not: [421 BUSY]}}",
            "f:3: error: rule 'a': it matches its sample '421 BUSY'",
        ),
        (
            RULE + "{name: a, text: busy, effect: slow, samples: {match: [busy]}}",
            "f:3: error: rule 'a': 'busy' is no sample: write [phase] code [enhanced code] text",
        ),
        (
            "warmup: [{name: a, day_caps: [1], sources: [ip-9]}]",
            "f:2: error: there is no source 'ip-9'; did you mean",
        ),
        ("warmup: [{name: conservative}]", "f:2: warning: plan 'conservative' has no sources: nobody goes through it"),
        (
            "warmup: [{name: conservative, sources: ['ip-*']}, {name: linear-45, sources: [ip-2]}]",
            "f:2: error: 'ip-2' goes through plan 'conservative' already",
        ),
        (
            "warmup: [{name: a, sources: [ip-1], day_caps: [10, 20, 15]}]",
            "f:2: warning: the caps of 'a' fall: 20, then 15",
        ),
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
        RULE + "{name: a, class: quota, text: x}\n- {name: b, effect: slow}",
        RULE + "{name: a, code: 4xx, effect: slow}\n- {name: b, code: [4xx, 5xx], effect: slow}",
        RULE + "{name: a, phase: [rcpt], effect: slow}\n- {name: b, effect: slow}",
        RULE + "{name: a, enhanced: '4.7.*', effect: slow}\n- {name: b, code: 4xx, effect: slow}",
        RULE
        + "{name: a, effect: slow}\n- {name: b, if: {provider: [y]}, effect: slow}\nproviders: [{name: y, mx: [a]}]",
        RULE + "{name: a, enhanced: '4.7.*', effect: slow, samples: {match: [421 4.7.1 x, 421 y], not: [421 4.2.1 x]}}",
        "warmup: [{name: conservative, sources: [ip-1]}, {name: b, sources: [ip-2], day_caps: [1, 1, 2]}]",
    ],
)
def test_what_is_well_is_not_complained_of(text):
    assert found(text) == []


def test_a_pool_that_leads_into_a_ring_is_not_in_it():
    findings = found("pools: [{name: a, overflow: b}, {name: b, overflow: c}, {name: c, overflow: b}]")
    assert [finding.split("round: ")[1] for finding in findings] == ["b → c → b"]


def test_a_hot_site_needs_a_source_for_each_shard():
    assert found("sites: [{site: google, shards: 2}]") == []
    (finding,) = found("sites: [{site: google, shards: 3}]")
    assert "'google' has 3 shards, but there are 2 sources" in finding
    assert found("sites: [{site: google, shards: 3}]", Known()) == []


def test_what_the_settings_know_is_not_asked_where_they_are_not_given():
    assert found(CASE + "{if: {stream: [bulks], source: [x], tenant: [y], pool: [z]}, concurrency: 1}", Known()) == []


def test_the_shipped_policy_has_no_findings():
    assert check(shipped(), KNOWN) == ()


def test_own_rules_that_take_what_belongs_to_shipped_ones_are_meant_so():
    own = read("version: 1\nrules: [{name: mine, if: {provider: [google]}, effect: slow}]", "own")
    assert check(over(own, shipped()), KNOWN) == ()


conditions = st.fixed_dictionaries(
    {
        "code": st.sampled_from([(), 421, "42x", "4xx", (421, "5xx")]),
        "enhanced": st.sampled_from([(), "4.7.*", "4.7.1", ("4.2.1", "*.7.1")]),
        "text": st.sampled_from([(), "busy", "full", ("busy", "full")]),
        "phase": st.sampled_from([(), ("rcpt",), ("rcpt", "dot")]),
        "applies": st.sampled_from([Match(), Match(domain=("*.x",)), Match(domain=("a.x",), tenant=("t",))]),
    }
)


replies = st.builds(
    RecipientOutcome,
    index=st.just(0),
    verdict=st.just("deferred"),
    code=st.sampled_from([421, 450, 550]),
    enhanced=st.sampled_from(["4.7.1", "4.2.1", "5.7.1", ""]),
    text=st.sampled_from(["busy", "full", "no"]),
    phase=st.sampled_from(["rcpt", "dot"]),
)


@given(conditions, conditions, replies, st.sampled_from(["a.x", "b.x", "y"]))
def test_a_rule_that_is_called_unreachable_reads_no_reply(first, second, reply, domain):
    earlier, later = ResponseRule(name="earlier", **first), ResponseRule(name="later", **second)
    facts = Facts(tenant="t", domain=domain)
    if takes_all(earlier, later):
        assert Responses([earlier, later]).classify(facts, reply).rule != "later"
