"""The shipped response rules: every one is reachable, true to its samples, cited and safe."""

from __future__ import annotations

import re
import time
from datetime import date
from pathlib import Path

import msgspec
import pytest

from mailfleet_router.decisions.shaping.reply_text import normal_text
from mailfleet_router.decisions.shaping.responses import Effect, ReplyClass, ResponseRule, Responses
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.shell.traffic import shipped
from support.replies import facts_for, reply, shipped_rules

RULES = shipped_rules()
RESPONSES = Responses(RULES)
PROVIDERS = {provider.name for provider in shipped().traffic.providers}
matching = [
    pytest.param(rule, line, id=f"{rule.name}-{n}") for rule in RULES for n, line in enumerate(rule.samples.match)
]
refusing = [
    pytest.param(rule, line, id=f"{rule.name}-{n}") for rule in RULES for n, line in enumerate(rule.samples.never)
]


@pytest.mark.parametrize(("rule", "line"), matching)
def test_a_sample_is_read_by_its_own_rule_and_no_earlier_one(rule: ResponseRule, line: str) -> None:
    assert RESPONSES.classify(facts_for(rule.applies), reply(line)).rule == rule.name


@pytest.mark.parametrize(("rule", "line"), refusing)
def test_a_sample_that_a_rule_must_not_match_it_does_not_match_even_alone(rule: ResponseRule, line: str) -> None:
    assert Responses([rule]).classify(facts_for(rule.applies), reply(line)).rule == ""


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_has_samples_of_both_kinds_and_a_source(rule: ResponseRule) -> None:
    assert rule.samples.match
    assert rule.samples.never
    assert rule.citation is not None
    assert re.match(r"https?://[a-z0-9.-]+\.[a-z]+/?", rule.citation.url)
    assert date.fromisoformat(rule.citation.date)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_provider_of_a_rule_is_sampled_and_known(rule: ResponseRule) -> None:
    assert set(rule.applies.provider) <= PROVIDERS
    for provider in rule.applies.provider:
        facts = Facts(provider=provider)
        assert any(RESPONSES.classify(facts, reply(line)).rule == rule.name for line in rule.samples.match)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_pattern_of_a_rule_can_match_normal_text(rule: ResponseRule) -> None:
    for text in (rule.text,) if isinstance(rule.text, str) else rule.text:
        assert text == text.lower()
        # A number of two digits and more that stands alone is `#` by then, and a URL has lost its scheme.
        assert not re.search(r"(?<![\w.\\\[{(|-])\d\d+(?![\w\]},])", text), text
        assert "://" not in text


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_blame_on_a_recipient_has_no_effect_on_anybody_else(rule: ResponseRule) -> None:
    if rule.blame == "recipient":
        assert rule.effect in (Effect.NONE, Effect.BOUNCE)


def hostile_texts() -> list[str]:
    words = [
        "a",
        "ip ",
        "user ",
        "mailbox ",
        "too many ",
        "not ",
        "exceeded ",
        "recipient address ",
        "(",
        "blocked ",
        "0:",
    ]
    texts = [(word * 1000)[:1000] for word in words]
    texts += [f"{word * 40}{'x' * 200}"[:1000] for word in words]
    return [*texts, "[ip] " * 200, "a-" * 500, " " * 1000, "1." * 500, "<a@" * 333, "http://" * 142, "é" * 1000]


@pytest.mark.parametrize("text", hostile_texts(), ids=range(len(hostile_texts())))
def test_no_pattern_is_slow_on_a_hostile_text(text: str) -> None:
    outcomes = [msgspec.structs.replace(reply(f"{code} x"), text=text, code=code) for code in (421, 450, 550, 554, 0)]
    begun = time.process_time()
    for provider in (*PROVIDERS, ""):
        for outcome in outcomes:
            RESPONSES.classify(Facts(provider=provider), outcome)
    # 75 questions; a pattern that backtracks takes minutes. A thousand letters take some milliseconds.
    assert time.process_time() - begun < 5.0


def test_no_pattern_repeats_a_repetition_or_reaches_without_bound() -> None:
    for rule in RULES:
        for text in (rule.text,) if isinstance(rule.text, str) else rule.text:
            assert not re.search(r"[+*}]\)[+*{]", text), text
            assert not re.search(r"(\.|\])[+*]", text), text


def test_normal_text_fits_the_largest_reply() -> None:
    assert len(normal_text("x" * 1000)) <= 1000


def corpus() -> list[tuple[str, str, str]]:
    lines = Path(__file__).with_name("reply_corpus.txt").read_text("utf-8").splitlines()
    parts = [line.split(" | ", 2) for line in lines if line and not line.startswith("#")]
    return [("" if provider == "-" else provider, expected, line) for provider, expected, line in parts]


def test_every_provider_of_the_corpus_is_one_of_the_policy() -> None:
    assert {provider for provider, _, _ in corpus()} <= {*PROVIDERS, ""}


@pytest.mark.parametrize(("provider", "expected", "line"), corpus())
def test_a_real_reply_has_the_class_that_people_give_it(provider: str, expected: str, line: str) -> None:
    reading = RESPONSES.classify(Facts(provider=provider), reply(line))
    assert reading.reply_class == expected, reading.rule


def test_every_pattern_is_found_in_some_sample_or_real_reply() -> None:
    lines = [line for rule in RULES for line in rule.samples.match] + [line for _, _, line in corpus()]
    texts = [normal_text(reply(line).text) for line in lines]
    for rule in RULES:
        for pattern in (rule.text,) if isinstance(rule.text, str) else rule.text:
            assert any(re.search(pattern, text) for text in texts), f"{rule.name}: {pattern}"


def test_the_corpus_is_large_and_is_understood() -> None:
    readings = [RESPONSES.classify(Facts(provider=provider), reply(line)) for provider, _, line in corpus()]
    assert len(readings) >= 150
    assert sum(reading.rule != "" for reading in readings) >= 0.95 * len(readings)
    # Receivers say nothing of our own way out.
    assert {reading.reply_class for reading in readings} == set(ReplyClass) - {ReplyClass.EGRESS}


def test_the_corpus_is_understood_even_where_the_provider_is_not_known() -> None:
    readings = [RESPONSES.classify(Facts(), reply(line)) for _, _, line in corpus()]
    assert sum(reading.rule != "" for reading in readings) >= 0.90 * len(readings)
