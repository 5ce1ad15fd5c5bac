"""Matching replies: order, scope, normal text, asked waits, refusals of bad rules."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model.wire import RecipientOutcome
from mailfleet_router.decisions.shaping.pattern import pattern
from mailfleet_router.decisions.shaping.reply_text import MAX_WAIT_SECONDS, MIN_WAIT_SECONDS, asked_wait, normal_text
from mailfleet_router.decisions.shaping.responses import (
    Blame,
    Effect,
    ReplyClass,
    ResponseRule,
    Responses,
    Scope,
    Slowed,
    scope_key,
)
from mailfleet_router.decisions.shaping.values import Facts, Match, PolicyError
from support.replies import PHASES, reply, shipped_rules


def rule(name: str, **given: object) -> ResponseRule:
    fields: dict[str, object] = {"reply_class": ReplyClass.UNKNOWN, "blame": Blame.RECEIVER, **given}
    return ResponseRule(name=name, **fields)  # type: ignore[arg-type]


def first(rules: list[ResponseRule], line: str, **facts: str) -> str:
    return Responses(rules).classify(Facts(**facts), reply(line)).rule


def test_the_order_of_the_file_decides_and_rules_of_a_provider_come_first() -> None:
    anybody, second = rule("anybody", text="busy"), rule("second", text="busy")
    theirs = rule("theirs", applies=Match(provider=("a",)), text="busy")
    assert first([anybody, second, theirs], "421 busy", provider="a") == "theirs"
    assert first([anybody, second, theirs], "421 busy", provider="b") == "anybody"


def test_an_earlier_pack_precedes_even_the_provider_rules_of_a_later_one() -> None:
    own = rule("own", text="busy")
    shipped = rule("shipped", applies=Match(provider=("a",)), text="busy")
    assert Responses([own], [shipped]).classify(Facts(provider="a"), reply("421 busy")).rule == "own"


def test_a_rule_for_a_tenant_is_not_remembered_for_another() -> None:
    rules = Responses([rule("theirs", applies=Match(tenant=("t",)), text="busy"), rule("anybody", text="busy")])
    answers = [rules.classify(Facts(tenant=tenant), reply("421 busy")).rule for tenant in ("t", "u", "t", "u")]
    assert answers == ["theirs", "anybody", "theirs", "anybody"]


@pytest.mark.parametrize(
    ("code", "matches"),
    [(421, "421"), ("4xx", "450"), ("45x", "451"), ((450, "55x"), "552"), (0, "0"), ("0", "0"), ((), "599")],
)
def test_a_code_is_one_or_a_decade_or_a_hundred_or_none_at_all(code: object, matches: str) -> None:
    assert first([rule("r", code=code)], f"{matches} x.y busy") == "r"


@pytest.mark.parametrize(
    ("code", "other"), [(421, "422"), ("4xx", "550"), ("45x", "461"), (0, "421"), ((450, 451), "452")]
)
def test_another_code_does_not_match(code: object, other: str) -> None:
    assert first([rule("r", code=code)], f"{other} busy") == ""


def test_enhanced_codes_are_exact_or_open_at_either_end() -> None:
    for wanted, line in (("4.7.1", "450 4.7.1 x"), ("4.7.*", "450 4.7.28 x"), ("*.7.1", "550 5.7.1 x")):
        assert first([rule("r", enhanced=wanted)], line) == "r"
    assert first([rule("r", enhanced="4.7.1")], "450 4.7.10 x") == ""
    assert first([rule("r", enhanced="*.7.1")], "550 5.7.10 x") == ""


def test_a_phase_is_looked_at_even_after_the_same_reply_in_another() -> None:
    rules = Responses([rule("r", phase=("dot",))])
    assert [rules.classify(Facts(), reply(f"{phase} 450 busy")).rule for phase in ("rcpt", "dot", "rcpt")] == [
        "",
        "r",
        "",
    ]


def test_letters_case_does_not_matter_but_escapes_keep_theirs() -> None:
    assert first([rule("r", text=r"BAD\S(?P<Word>Host)\b")], "550 bad-HOST!") == "r"
    assert first([rule("r", text=r"BAD\SHost")], "550 bad host") == ""


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("over quota", {"over quota"}),
        ("mail ?box (is )?full", {"mail"}),
        ("(user|recipient) unknown", {" unknown"}),
        ("(unknown|invalid) (user|box)", {"unknown", "invalid"}),
        ("a|bc", {"a", "bc"}),
        ("(ab)?[0-9]", set()),
        ("(?:spam){2,3}", {"spam"}),
        ("(?i)spam", set()),
        (r"\bspam\b", {"spam"}),
        ("x|", set()),
    ],
)
def test_what_a_pattern_needs_is_in_every_text_that_it_matches(text: str, needs: set[str]) -> None:
    assert set(pattern(text).needs) == needs


@given(st.data())
def test_a_pattern_that_says_no_quickly_says_what_the_expression_says(data: st.DataObject) -> None:
    words = st.sampled_from(
        ("ab", "a", "b?", "(a|bc)", "(ab|)", "[ab]", "(ba){0,2}", "(b|c)+", "^", "c$", "(?!ab)a", "(?=b)", r"\b")
    )
    text = "".join(data.draw(st.lists(words, min_size=1, max_size=4)))
    text = data.draw(st.sampled_from((text, f"{text}|cc", f"({text}|a)c")))
    subject = data.draw(st.text(alphabet="abc ", max_size=12))
    assert pattern(text).found(subject) == (re.search(text, subject) is not None)


def test_what_no_rule_matches_is_unknown_and_has_no_effect() -> None:
    reading = Responses([]).classify(Facts(), reply("450 what"))
    assert (reading.rule, reading.reply_class, reading.effect) == ("", ReplyClass.UNKNOWN, Effect.NONE)


def test_a_reading_carries_what_the_rule_says() -> None:
    given = rule(
        "r",
        effect=Effect.SLOW,
        scope=Scope.TENANT_SITE,
        threshold="5/10m",
        ttl="2h",
        to=Slowed(rate="6/m", concurrency=2),
    )
    reading = Responses([given]).classify(Facts(), reply("450 x"))
    assert (reading.scope, reading.hits, reading.window_seconds) == (Scope.TENANT_SITE, 5, 600.0)
    assert (reading.ttl_seconds, reading.rate_per_second, reading.concurrency) == (7200.0, 0.1, 2)


def test_respect_wait_tells_the_wait_of_each_reply() -> None:
    rules = Responses([rule("grey", effect=Effect.RESPECT_WAIT)])
    waits = [rules.classify(Facts(), reply(f"450 Greylisted for {n} seconds")).wait_seconds for n in (300, 90, 300)]
    assert waits == [300.0, 90.0, 300.0]
    assert rules.classify(Facts(), reply("450 Greylisted")).wait_seconds == 0.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"code": "6xx"}, "no reply code"),
        ({"code": "4x1"}, "no reply code"),
        ({"text": "(" }, "no regular expression"),
        ({"threshold": "5"}, "no threshold"),
        ({"threshold": "0/1h"}, "no threshold"),
        ({"threshold": "5000/1h"}, "no threshold"),
        ({"threshold": "5/0h"}, "no threshold"),
        ({"threshold": "5/soon"}, "no duration"),
        ({"ttl": "2"}, "no duration"),
        ({"to": Slowed(rate="fast")}, "no rate"),
        ({"to": Slowed(concurrency=-1)}, "no number of connections"),
        ({"phase": ("later",)}, "no phase"),
        ({"effect": Effect.DISABLE_SOURCE}, "scope is source"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_meant_is_refused_by_name(given: dict[str, object], says: str) -> None:
    with pytest.raises(PolicyError, match=f"'broken'.*{says}"):
        Responses([rule("broken", **given)])


def test_two_rules_of_one_name_are_refused() -> None:
    with pytest.raises(PolicyError, match="name of its own"):
        Responses([rule("r")], [rule("r")])


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("<User@Example.net>: User Unknown", "@: user unknown"),
        ("blocked (user@example.net:blocked)", "blocked (@:blocked)"),
        ("[203.0.113.7 15] from IP=2001:db8::7, bye", "[ip #] from ip=ip, bye"),
        (
            "see https://support.google.com/mail/?p=NoSuchUser p4si3522070uam - gsmtp",
            "see support.google.com/mail/?p=nosuchuser # - gsmtp",
        ),
        ("visit http://x.example/id?c=4-MIiXod8zf7cN6t9.", "visit x.example/id"),
        ("[TSS04] RP-001 (S3150) OFR004_104 RL000001 5.7.606", "[tss04] rp-001 (s3150) ofr004_104 rl000001 5.7.606"),
        ("Greylisted  for 287 seconds", "greylisted for # seconds"),
    ],
)
def test_normal_text_keeps_words_and_codes_and_nothing_of_the_mail(text: str, normal: str) -> None:
    assert normal_text(text) == normal


@given(st.text(max_size=1000))
def test_normal_text_is_total_and_normal_text_of_it_says_the_same(text: str) -> None:
    once = normal_text(text)
    assert "\n" not in once
    assert normal_text(once) == normal_text(normal_text(once))


addresses = st.from_regex(r"[a-z0-9._+-]{1,20}@[a-z0-9-]{1,10}\.[a-z]{2,5}", fullmatch=True)


@given(addresses, addresses)
def test_an_address_never_changes_what_a_reply_means(one: str, other: str) -> None:
    assert normal_text(f"550 <{one}>: user unknown") == normal_text(f"550 <{other}>: user unknown")


@pytest.mark.parametrize(
    ("text", "wait"),
    [
        ("Recipient address rejected: Greylisted for 300 seconds (see http://postgrey.example/)", 300.0),
        ("Greylisting in action, please come back in 00:05:00", 300.0),
        ("Greylisting in action, please come back in 02:00:00", 7200.0),
        ("Greylisted, please try again in 287 seconds.", 287.0),
        ("You have been greylisted. Try again in 5 minutes", 300.0),
        ("please try again later in 10 min", 600.0),
        ("temporarily deferred, retry after 900s", 900.0),
        ("delayed for 2 hours", 7200.0),
        ("come back in 1 second", MIN_WAIT_SECONDS),
        ("try again in 99999 hours", MAX_WAIT_SECONDS),
        ("try again later", None),
        ("you sent 50 messages in 5 minutes", None),
        ("Server busy. Please try again later from [203.0.113.7]. (S77719)", None),
        ("try again. Limit is 5 minutes", None),
    ],
)
def test_a_wait_is_understood_and_kept_within_bounds(text: str, wait: float | None) -> None:
    assert asked_wait(text) == wait


@given(st.text(max_size=1200))
def test_asking_for_a_wait_never_raises_nor_leaves_the_bounds(text: str) -> None:
    assert MIN_WAIT_SECONDS <= (asked_wait(f"try again in {text}") or MIN_WAIT_SECONDS) <= MAX_WAIT_SECONDS


names = st.text(alphabet="a|%b", max_size=4)


@given(st.sampled_from(Scope), names, names, names, names)
def test_scope_keys_of_different_facts_differ(
    scope: Scope, source: str, site: str, other_source: str, other_site: str
) -> None:
    one, other = Facts(source=source, site=site), Facts(source=other_source, site=other_site)
    if scope is Scope.SOURCE_SITE:
        assert (scope_key(scope, one) == scope_key(scope, other)) == (one == other)
    assert scope_key(scope, one).startswith(f"{scope.value}|")


SHIPPED = Responses(shipped_rules())
replies = st.builds(
    RecipientOutcome,
    index=st.just(0),
    verdict=st.just("deferred"),
    code=st.integers(-1, 700),
    enhanced=st.text(max_size=8),
    text=st.text(max_size=1000),
    phase=st.sampled_from((*PHASES, "")),
)


@given(replies, st.sampled_from(("", "google", "yahoo", "nobody")))
def test_any_reply_is_read_without_an_error_and_twice_alike(outcome: RecipientOutcome, provider: str) -> None:
    facts = Facts(provider=provider)
    assert SHIPPED.classify(facts, outcome) == SHIPPED.classify(facts, outcome)


def test_memory_of_readings_is_bounded() -> None:
    responses = Responses([rule("r", text="busy")], remember=100)
    for n in range(500):
        responses.classify(Facts(), RecipientOutcome(0, "deferred", 450, "4.0.0", f"{'x' * (n + 1)} busy", "rcpt"))
    assert responses.remembered() <= 100
