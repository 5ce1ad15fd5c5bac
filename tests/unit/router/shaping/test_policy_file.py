"""Reading and writing the traffic policy."""

import json
import re
from importlib.resources import files

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping import policy_file
from mailfleet_router.decisions.shaping.limits import provider_of
from mailfleet_router.decisions.shaping.policy_file import Place, dump, from_data, over, read
from mailfleet_router.decisions.shaping.responses import Effect, ReplyClass, ResponseRule, Responses, Samples
from mailfleet_router.decisions.shaping.schema import (
    NAMED,
    Case,
    Ladder,
    Limit,
    Pool,
    Provider,
    Reputation,
    Stream,
    Tenant,
    Term,
    Traffic,
    Warmup,
)
from mailfleet_router.decisions.shaping.values import (
    DURATION_PATTERN,
    RATE_PATTERN,
    Citation,
    Facts,
    Match,
    PolicyError,
    rate_per_second,
    seconds,
)
from support.replies import reply

SHIPPED = (files("mailfleet_router") / "policy" / "traffic.yaml").read_text(encoding="utf-8")

EXAMPLE = """\
version: 1
providers:
  - name: yahoo
    mx: ["*.yahoodns.net"]
limits:
  - name: receivers
    per: [source, site]
    cases:
      - if: {provider: [yahoo]}
        message_rate: 100/m
        concurrency: 5
      - concurrency: 10
"""


def refusal(text):
    with pytest.raises(PolicyError) as caught:
        read(text, "traffic.yaml")
    return str(caught.value)


def said_by(action):
    try:
        action()
    except PolicyError as error:
        return str(error)
    return "f: it is read"


def test_a_policy_is_read_with_the_line_of_each_part():
    policy = read(EXAMPLE, "traffic.yaml")
    assert policy.traffic.limits[0].cases[0].message_rate == "100/m"
    assert policy.place("limits", 0, "cases", 0, "concurrency") == Place("traffic.yaml", 11)
    assert policy.place("limits", 0, "cases", 1) == Place("traffic.yaml", 12)
    assert policy.place("limits", 0, "cases", 1, "burst") == Place("traffic.yaml", 12)
    assert str(policy.place("nothing")) == "traffic.yaml:1"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("providers:", "provider:", "traffic.yaml:2: the policy has no key 'provider'; did you mean 'providers'?"),
        ("concurrency: 5", "concurency: 5", ":11: limits[0].cases[0] has no key 'concurency'; did you mean 'concurrency'?"),
        ("{provider: [yahoo]}", "{providr: [yahoo]}", ":9: limits[0].cases[0].if has no key 'providr'; did you mean 'provider'?"),
        ("{provider: [yahoo]}", "{provider: yahoo}", ":9: limits[0].cases[0].if.provider is a list: write [yahoo]"),
        ("[source, site]", "[source, sites]", ":7: limits[0].per[1]: 'sites' is not known here; did you mean 'site'?"),
        ("100/m", "100", "traffic.yaml:10: limits[0].cases[0].message_rate: expected text or nothing, got a whole number"),
        ("100/m", "100 a minute", ":10: limits[0].cases[0].message_rate: '100 a minute' is no rate: write messages and time"),
        ("100/m", "5/0s", ":10: limits[0].cases[0].message_rate: '5/0s' is not written as it should be, such as 100/m"),
        ("concurrency: 5", "concurrency: -5", ":11: limits[0].cases[0].concurrency: expected a whole number >= 0"),
        ("concurrency: 5", "concurrency: many", ":11: limits[0].cases[0].concurrency: expected a whole number"),
        ("concurrency: 5", "concurrency: true", ":11: limits[0].cases[0].concurrency: expected a whole number or nothing, got"),
        ("concurrency: 5", "suspend: no", ":11: no is read as true or false by some and as text by others"),
        ("[source, site]", "[source, no]", ":7: no is read as true or false by some and as text by others"),
        ("concurrency: 5", "concurrency: 1:30", ":11: 1:30 is read as a whole number by some"),
        ("concurrency: 5", "concurrency: 010", ":11: 010 is read as a whole number by some"),
        ("concurrency: 5", "concurrency: 1_000", ":11: 1_000 is read as a whole number by some"),
        ("concurrency: 5", "concurrency: .inf", ":11: .inf is read as a number by some"),
        ("concurrency: 5", "message_rate: 1/s", ":11: limits[0].cases[0].message_rate is written twice; keep one"),
        ("name: yahoo", "domains: []", "traffic.yaml:3: providers[0] needs the key 'name'"),
        ("name: yahoo", "name: ''", "traffic.yaml:3: providers[0].name: it must not be empty"),
        ("version: 1", "version: 2", "traffic.yaml:1: version: 2 is not known here (there are: 1)"),
        ("version: 1", "base: none", "traffic.yaml:1: the policy needs the key 'version'"),
        ("version: 1", "version: 1\nlimits:", "written twice"),
        ("version: 1", "- version", "traffic.yaml:2: not YAML"),
        ("concurrency: 5", "<<: {concurrency: 5}", ":11: `<<` is not read"),
        ("concurrency: 5", "concurrency: !!python/name:os.system x", ":11: tags such as"),
        ("concurrency: 5", "concurrency: !!int '5'", ":11: tags such as"),
        ("cases:", "cases: !mine", ":8: tags such as"),
        ("concurrency: 5", "5: 5", ":11: a key is text; put it in quotes"),
        ("concurrency: 5", "? [a]\n        : 5", ":11: a key is text"),
        ("[source, site]", "&x [source, *x]", ":7: not YAML: aliases are not read"),
        ("concurrency: 5", "concurrency: \x01", "traffic.yaml: not YAML"),
        ("version: 1", "version: 1\n---\nversion: 1", "traffic.yaml:2: not YAML"),
        ("  - name: yahoo", "  - name: yahoo\n  - name: yahoo", "traffic.yaml:4: providers: there are two of the name 'yahoo'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_with_its_line_and_what_to_write(old, new, said):
    assert old in EXAMPLE
    assert said in refusal(EXAMPLE.replace(old, new, 1))


def test_an_empty_file_is_refused():
    assert "a policy begins with `version: 1`" in refusal("# nothing\n")
    assert "expected keys and values" in refusal("just text")


def test_aliases_that_grow_or_hold_themselves_are_refused():
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
    assert "aliases are not read" in refusal(bomb)
    assert "aliases are not read" in refusal("a: &a [*a]\n")


def test_depth_and_size_are_bounded():
    assert "levels deep" in refusal("reputation: " + "[" * 50_000)
    assert "levels deep" in refusal("reputation: " + "{a: " * 500)
    assert "are too many" in refusal("# " + "x" * policy_file.MAX_CHARACTERS)


@settings(max_examples=150)
@given(st.text(max_size=60) | st.text(alphabet="ab:-[]{}&*!'\"#%\n \t0/,?|>", max_size=60))
def test_any_text_is_read_or_refused_and_nothing_else(text):
    assert said_by(lambda: read("version: 1\nproviders:\n- name: " + text, "f")).startswith("f")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(max_size=8) | st.sampled_from([0.5, -2.25, 1e-9]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(json_values)
def test_any_value_in_place_of_the_policy_is_refused_in_words(value):
    assert said_by(lambda: from_data(value, "f")).startswith("f: ")


@given(
    st.sampled_from(sorted({*NAMED, "reputation"})),
    json_values,
)
def test_any_value_in_place_of_a_section_is_read_or_refused_in_words(section, value):
    assert said_by(lambda: from_data({"version": 1, section: value}, "f")).startswith(
        ("f: it is read", "f: " + section)
    )


texts = st.text(max_size=5) | st.sampled_from(
    ["no", "on", "1:30", "~", "2026-11-22", "0x1f", "1e3", "=", "<<", "- a", "'", "#"]
)
names = texts.filter(bool)
rates = st.from_regex(RATE_PATTERN, fullmatch=True)
durations = st.from_regex(DURATION_PATTERN, fullmatch=True)
citations = st.none() | st.builds(Citation, url=texts, date=texts)
matches = st.builds(
    Match, provider=st.lists(texts, max_size=2).map(tuple), domain=st.lists(texts, max_size=1).map(tuple)
)


def unique(strategy, key="name"):
    return st.lists(strategy, max_size=2, unique_by=lambda item: getattr(item, key)).map(tuple)


cases = st.builds(
    Case, when=matches, message_rate=st.sampled_from([None, "100/m"]), suspend=st.booleans(), citation=citations
)
limits = st.builds(
    Limit, name=names, per=st.sampled_from([(), ("site",)]), cases=st.lists(cases, max_size=2).map(tuple)
)
rules = st.builds(
    ResponseRule,
    name=names,
    reply_class=st.sampled_from(ReplyClass),
    applies=matches,
    code=st.sampled_from([(), 421, "4xx", (450, "55x")]),
    text=st.sampled_from(["", "busy", r"\bno\b|#"]) | st.lists(names.map(re.escape), max_size=2).map(tuple),
    effect=st.sampled_from([Effect.NONE, Effect.SLOW]),
    samples=st.builds(Samples, never=st.lists(texts, max_size=2).map(tuple)),
)
policies = st.builds(
    Traffic,
    version=st.just(1),
    providers=unique(st.builds(Provider, name=names, mx=st.lists(texts, max_size=2).map(tuple))),
    limits=unique(limits),
    ladders=unique(st.builds(Ladder, stream=names, retry=st.just(("1m", "2m"))), "stream"),
    rules=unique(rules),
    warmup=unique(
        st.builds(Warmup, name=names, day_caps=st.just((1, 2)), sources=st.lists(texts, max_size=2).map(tuple))
    ),
    reputation=st.builds(
        Reputation,
        complaints=st.builds(Term, limit=st.sampled_from([None, 0.5])),
        margin=st.sampled_from([None, 5.0]),
        clean=st.sampled_from([None, "1h30m"]),
    ),
    pools=unique(st.builds(Pool, name=names, overflow=texts)),
    streams=unique(st.builds(Stream, name=names, floor=st.sampled_from([0.0, 1e-7, 0.1, 1.0]))),
    tenants=unique(st.builds(Tenant, name=names)),
)


@settings(max_examples=40, deadline=None)
@given(policies)
def test_what_is_written_is_read_back_the_same(traffic):
    assert read(dump(traffic), "f").traffic == traffic


@settings(max_examples=20, deadline=None)
@given(policies)
def test_a_policy_survives_json(traffic):
    assert from_data(json.loads(json.dumps(msgspec.to_builtins(traffic))), "f").traffic == traffic


def test_json_text_is_read_as_well():
    traffic = read(EXAMPLE, "f").traffic
    assert read(json.dumps(msgspec.to_builtins(traffic)), "f").traffic == traffic
    read_back = read(
        '{"version": 1, "reputation": {"complaints": {"prior": 1e-09}, "margin": 2E+1}}', "f"
    ).traffic.reputation
    assert (read_back.complaints.prior, read_back.margin) == (1e-9, 20.0)


@given(rates)
def test_every_text_that_the_schema_takes_for_a_rate_is_one(text):
    assert rate_per_second(text) >= 0


@given(durations)
def test_every_text_that_the_schema_takes_for_a_duration_is_one(text):
    assert seconds(text) >= 0


def test_a_written_policy_is_easy_on_the_eye():
    assert (
        dump(read(EXAMPLE, "f").traffic)
        == """\
version: 1

providers:
- name: yahoo
  mx: ['*.yahoodns.net']

limits:
- name: receivers
  per: [source, site]
  cases:
  - if:
      provider: [yahoo]
    message_rate: 100/m
    concurrency: 5
  - {concurrency: 10}
"""
    )


def test_an_own_policy_replaces_by_name_and_puts_what_is_new_first():
    base = read("version: 1\nproviders:\n- name: a\n  mx: [a.x]\n- name: b\n  mx: [b.x]\nrules:\n- name: r\n", "base")
    own = read("version: 1\nrules:\n- name: mine\nproviders:\n- name: b\n  mx: [c.x]\n- name: z\n", "own")
    both = over(own, base)
    assert [(p.name, p.mx) for p in both.traffic.providers] == [("z", ()), ("a", ("a.x",)), ("b", ("c.x",))]
    assert [rule.name for rule in both.traffic.rules] == ["mine", "r"]
    assert both.place("providers", 1, "mx") == Place("base", 4)
    assert both.place("providers", 2, "mx") == Place("own", 6)
    assert both.place("rules", 0) == Place("own", 3)
    assert both.place("rules", 1) == Place("base", 8)


def test_own_rules_come_before_all_shipped_ones_even_those_of_a_provider():
    base = read(
        "version: 1\nrules:\n- {name: old, text: a}\n- {name: theirs, if: {provider: [a]}, text: busy}\n", "base"
    )
    own = read("version: 1\nrules:\n- {name: mine, text: busy}\n- {name: old, text: busy}\n", "own")
    both = over(own, base)
    assert [[rule.name for rule in pack] for pack in both.packs()] == [["mine"], ["old", "theirs"]]
    reading = Responses(*both.packs()).classify(Facts(provider="a"), reply("421 busy"))
    assert reading.rule == "mine"


def test_reputation_is_put_over_the_shipped_one_key_by_key():
    base = read("version: 1\nreputation: {margin: 5, complaints: {limit: 0.5, least: 7}}", "base")
    own = read("version: 1\nreputation: {complaints: {limit: 0.25}, clean: 1h}", "own")
    found = over(own, base).traffic.reputation
    assert (found.margin, found.clean, found.complaints.limit, found.complaints.least) == (5.0, "1h", 0.25, 7)


def test_what_contradicts_only_together_is_refused_when_it_is_put_together():
    base = read("version: 1\nreputation: {complaints: {prior: 0.001}}", "base")
    own = read("version: 1\nreputation:\n  complaints: {limit: 0.0005}", "own")
    with pytest.raises(PolicyError, match=r"own:3: reputation.complaints: the prior \(0.001\) must be less than"):
        over(own, base)


RULE = "version: 1\nrules:\n- name: busy\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (RULE + "  text: '(x'", "f:4: rules[0].text: '(x' is no regular expression: missing )"),
        (RULE + "  text:\n  - x\n  - '[z-a]'", "f:6: rules[0].text[1]: '[z-a]' is no regular expression: bad character"),
        (RULE + "  txet: x", "f:4: rules[0] has no key 'txet'; did you mean 'text'?"),
        (RULE + "  effect: slwo", "f:4: rules[0].effect: 'slwo' is not known here; did you mean 'slow'?"),
        (RULE + "  class: bad_mailbx", "f:4: rules[0].class: 'bad_mailbx' is not known here; did you mean 'bad_mailbox'?"),
        (RULE + "  code: 6xx", "f:4: rules[0].code: '6xx' is no reply code: write 421, 45x, 4xx, or 0"),
        (RULE + "  phase: [end]", "f:4: rules[0].phase: 'end' is no phase: write one of"),
        (RULE + "  threshold: often", "f:4: rules[0].threshold: 'often' is no threshold: write hits"),
        (RULE + "  ttl: 5", "f:4: rules[0].ttl: expected text or nothing, got a whole number"),
        (RULE + "  ttl: soon", "f:4: rules[0].ttl: 'soon' is no duration: write 90s"),
        (RULE + "  to: {rate: 5}", "f:4: rules[0].to.rate: expected text or nothing, got a whole number"),
        (RULE + "  effect: disable_source\n  scope: site", "f:5: rules[0].scope: disable_source takes the source from every"),
        (RULE + "  samples: {never: [x]}", "f:4: rules[0].samples has no key 'never' (there are: match, not)"),
        ("version: 1\nwarmup:\n- name: conservativ", "f:3: warmup[0].name: 'conservativ' is no shipped plan (conservative,"),
        ("version: 1\nwarmup:\n- {name: a, day_caps: [0]}", "f:3: warmup[0].day_caps[0]: expected a whole number >= 1"),
        ("version: 1\nwarmup:\n- {name: a, cap: 1}", "f:3: warmup[0] has no key 'cap'"),
        ("version: 1\nreputation: {complaint: {}}", "f:2: reputation has no key 'complaint'; did you mean 'complaints'?"),
        ("version: 1\nreputation: {complaints: {limit: 3}}", "f:2: reputation.complaints.limit: expected a number <= 1.0"),
        ("version: 1\nreputation:\n  deferrals: {prior: 0.4}", "f:3: reputation.deferrals: the prior (0.4) must be less than"),
        ("version: 1\nreputation: {slow_below: 90}", "f:2: reputation: watch_below (80), slow_below (90)"),
        ("version: 1\nreputation:\n  margin: 30", "f:3: reputation.margin: no score is 110"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_rules_plans_and_reputation_is_refused_with_its_line(text, said):
    assert refusal(text).startswith(said.replace("f:", "traffic.yaml:", 1))


def test_an_own_policy_may_stand_alone():
    own = read("version: 1\nbase: none\n", "own")
    assert over(own, read(SHIPPED, "shipped")) is own


def test_nothing_over_the_shipped_policy_is_the_shipped_policy():
    shipped = read(SHIPPED, "shipped")
    assert over(read("version: 1", "own"), shipped).traffic == shipped.traffic


def test_each_shipped_number_bears_its_source():
    shipped = read(SHIPPED, "traffic.yaml").traffic
    for limit in shipped.limits:
        for case in limit.cases:
            assert case.citation
            assert case.citation.url.startswith("http")
            assert len(case.citation.date) == 10


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("gmail-smtp-in.l.google.com", "google"),
        ("hotmail-com.olc.protection.outlook.com", "microsoft"),
        ("example-com.mail.protection.outlook.com", "microsoft365"),
        ("mx-aol.mail.gm0.yahoodns.net", "yahoo"),
        ("mx01.mail.icloud.com", "apple"),
        ("smtp-in.orange.fr", "orange"),
        ("mx00.gmx.net", "united-internet"),
        ("mx-ha02.web.de", "united-internet"),
        ("163mx01.mxmail.netease.com", "netease"),
        ("mxs.mail.ru", "mail-ru"),
        ("mx1.free.fr", "free"),
        ("in1-smtp.messagingengine.com", "fastmail"),
        ("mx1.mail.yahoo.co.jp", "yahoo-japan"),
        ("mfsmax.docomo.ne.jp", "docomo"),
        ("mail.example.org", ""),
    ],
)
def test_well_known_hosts_have_their_provider(host, name):
    assert provider_of(read(SHIPPED, "traffic.yaml").traffic.providers, [host]) == name
