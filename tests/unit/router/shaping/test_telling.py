"""What shaping tells of itself: every limit and pause with its line, and a reason for each unit that may not go."""

from __future__ import annotations

import json
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_core.model import ids, wire
from mailfleet_core.model.wire import BOUNCED, DEFERRED, DELIVERED, RecipientOutcome, Result, Route
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.shaping import policy_file, telling
from mailfleet_router.decisions.shaping.backoff import BackOff, Hit, hit
from mailfleet_router.decisions.shaping.gate import Scope
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.shaper import Shaper, Wait
from mailfleet_router.decisions.shaping.ways import Go
from mailfleet_router.decisions.shaping.why import Reason, Speed
from mailfleet_router.decisions.shaping.wording import scope_text

NOW = 1_800_000_000.0
TEXT = """\
version: 1
base: none
providers: [{name: big, mx: ["*.big.example"]}]
limits:
  - name: receivers
    per: [source, site]
    cases: [{message_rate: 10/10s, burst: 2, concurrency: 3, messages_per_connection: 20}]
  - name: everything
    per: [site]
    cases:
      - if: {tenant: [frozen]}
        suspend: true
      - {window: 5}
rules:
  - {name: blocked, text: blocked, class: reputation_block, blame: sender_ip, effect: pause}
  - {name: busy, text: busy, class: rate_limited, effect: slow}
  - {name: tenant-blocked, text: spam, class: reputation_block, blame: content, effect: pause, scope: tenant_site}
streams: [{name: otp, priority: 0}, {name: bulk, priority: 1, floor: 0.1}]
"""
WARMING = TEXT + "warmup: [{name: conservative, sources: [ip-1, ip-2]}]\n"


class Office:
    """One site's shaping, and what was given out."""

    def __init__(self, text: str = TEXT, sources: tuple[str, ...] = ("ip-1", "ip-2")) -> None:
        lanes = {source: (number,) for number, source in enumerate(sources)}
        rules = Rules(policy_file.read(text, "own.yaml"))
        self.policy = Policy(pools={"default": tuple((name, 1) for name in sources)}, lanes=lanes, shaping=rules)
        self.shaper = Shaper(rules, self.policy)
        self.shaper.since = NOW
        self.now = NOW + 60
        self.site = self.shaper.site("big", ("mx.big.example",), "big.example", Route("mx", ()))
        self.out: list[wire.Entry] = []
        self._numbers = count()

    def facts(self, tenant: str = "shop", stream: str = "bulk"):  # type: ignore[no-untyped-def]
        return self.shaper.facts(self.site, tenant, stream, "default", "big.example")

    def why(self, tenant: str = "shop", stream: str = "bulk") -> list[Reason]:
        return telling.why(self.shaper, self.site, self.facts(tenant, stream), self.now)

    def offer(self, tenant: str = "shop", stream: str = "bulk") -> Go | Wait:
        facts = self.facts(tenant, stream)
        go = self.shaper.admit(self.site, facts, Route("mx", ((0, "mx.big.example"),)), self.now)
        if isinstance(go, Go):
            message = ids.message_id(next(self._numbers), bytes(10))
            unit = wire.Unit(ids.unit_id(message, 0), "big", wire.Envelope(
                message, "", tenant, stream, "default", wire.BodyRef(0, (), 1), self.now, self.now + 9e5
            ), (wire.Recipient(0, "r@big.example"),))  # fmt: skip
            self.shaper.take(unit.unit_id, go, facts, self.site, self.now)
            self.out.append(wire.Entry(unit, 1, source=go.path.facts.source))
        return go

    def answer(self, verdict: str = DELIVERED, text: str = "ok", code: int = 250) -> None:
        entry = self.out.pop(0)
        outcome = RecipientOutcome(0, verdict, code, "", text, "rcpt")
        result = Result(entry.unit.unit_id, 0, 1, "settled", entry.source, self.now - 1, self.now, (outcome,))
        self.shaper.freed(entry.unit.unit_id)
        self.shaper.answered(entry, result, self.site, "big.example", ("mx.big.example",), self.now)

    def fill(self) -> None:
        while isinstance(self.offer(), Go):
            pass


def test_a_unit_that_may_go_is_held_by_nothing() -> None:
    assert Office().why() == []


def test_a_full_window_is_told_with_the_line_that_sets_it() -> None:
    office = Office(TEXT.replace("10/10s, burst: 2", "1000/s, burst: 100"))
    office.fill()
    assert len(office.out) == 5
    (reason,) = office.why()
    assert (reason.by, reason.where) == ("window", "own.yaml:13")
    assert "5 of 5 units" in reason.text


def test_a_rate_that_is_used_up_is_told_until_the_next_one_may_go() -> None:
    office = Office(sources=("ip-1",))
    office.fill()
    (reason,) = office.why()
    assert (reason.by, reason.where, reason.owner) == ("rate", "own.yaml:7", "router")
    assert office.now < reason.until <= office.now + 1
    office.now = reason.until
    assert office.why() == []
    assert isinstance(office.offer(), Go)


def test_a_suspension_by_the_policy_is_told_to_whom_it_concerns_only() -> None:
    office = Office()
    (reason,) = office.why("frozen")
    assert (reason.by, reason.where, reason.until) == ("limit", "own.yaml:12", 0.0)
    assert office.why("shop") == []


def test_a_paused_source_is_told_with_the_reply_the_rule_and_its_line() -> None:
    office = Office(sources=("ip-1",))
    assert isinstance(office.offer(), Go)
    office.answer(BOUNCED, "you are blocked here", 550)
    (reason,) = [reason for reason in office.why() if reason.by == "pause"]
    assert reason.text.startswith("source ip-1 at site big is paused: rule blocked by the reply 550")
    assert "you are blocked here" in reason.text
    assert (reason.where, reason.until) == ("own.yaml:15", office.now + 300)
    paused = telling.paused(office.shaper, office.now)
    assert [(scope["scope"], scope["until"]) for scope in paused] == [("source ip-1 at site big", office.now + 300)]
    office.now = reason.until + 1
    assert isinstance(office.offer(), Go)
    assert {each.by for each in office.why()} == {"probe"}


def test_a_source_that_is_paused_holds_nothing_while_another_may_go() -> None:
    office = Office()
    assert isinstance(office.offer(), Go)
    office.answer(BOUNCED, "blocked", 550)
    assert office.why() == []


def test_a_paused_tenant_is_held_whatever_the_source_and_another_is_not() -> None:
    office = Office()
    assert isinstance(office.offer("shop"), Go)
    office.answer(BOUNCED, "this is spam", 550)
    assert [reason.text.partition(":")[0] for reason in office.why("shop")] == ["tenant shop at site big is paused"]
    assert office.why("news") == []


def test_a_source_that_is_disabled_everywhere_is_told() -> None:
    office = Office(sources=("ip-1",))
    state, _ = hit(BackOff(), Hit(office.now, office.now, True, "listed", "554 listed at a blocklist"))
    office.shaper.wide.sources["ip-1"] = Scope("source|ip-1", state, office.now)
    (reason,) = office.why()
    assert reason.text.startswith("source ip-1 everywhere is paused: rule listed")
    assert reason.where == "rule listed, which is in the policy no more"


def test_a_warm_up_without_allowance_is_told_with_its_plan() -> None:
    office = Office(WARMING)
    assert {reason.by for reason in office.why()} == {"warm-up"}
    assert {reason.where for reason in office.why()} == {"warm-up plan conservative"}


def test_a_pool_without_sources_is_told() -> None:
    (reason,) = Office(sources=()).why()
    assert (reason.by, reason.until) == ("source", 0.0)


def test_sources_suspended_by_command_hold_what_has_no_other() -> None:
    office = Office()
    said = {source: Reason("suspension", f"source {source} is suspended: audit") for source in ("ip-1", "ip-2")}
    facts = office.facts()
    assert telling.why(office.shaper, office.site, facts, office.now, {"ip-1": said["ip-1"]}) == []
    assert telling.why(office.shaper, office.site, facts, office.now, said) == list(said.values())


def test_speed_is_what_was_seen_unless_limits_allow_less() -> None:
    office = Office()
    seen, fast = Speed(0.5, "seen"), Speed(50.0, "seen")
    assert telling.speed(office.shaper, office.site, office.facts(), seen, office.now) == seen
    assert telling.speed(office.shaper, office.site, office.facts(), fast, office.now).per_second == pytest.approx(2.0)


def test_the_story_of_a_site_is_json_and_names_its_limits_and_scopes() -> None:
    office = Office(WARMING.replace("ip-1, ip-2", "ip-2"))
    assert isinstance(office.offer(), Go)
    office.answer(DEFERRED, "busy", 421)
    story = json.loads(json.dumps(telling.site_story(office.shaper, office.site, office.now), allow_nan=False))
    assert (story["provider"], story["policy_applies"], story["hosts"]) == ("big", True, ["mx.big.example"])
    first = story["sources"]["ip-1"]
    assert {(limit["quantity"], limit["value"], limit["where"]) for limit in first["limits"]} >= {
        ("message_rate", "10/10s", "own.yaml:7"), ("window", 5, "own.yaml:13"),
    }  # fmt: skip
    assert [(scope["scope"], scope["what"], scope["factor"]) for scope in story["scopes"]] == [
        ("source ip-1 at site big", "slowed", 0.5)
    ]
    assert story["replies"]["rate_limited"]["text"].startswith("421")
    assert story["health"] == {"dead": False, "probe_at": 0.0, "blocked": []}


def test_keys_of_scopes_are_words() -> None:
    assert scope_text("source_site|ip%7C1|big") == "source ip|1 at site big"
    assert scope_text("something else") == "something else"


steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from(["shop", "news", "frozen"])),
        st.tuples(st.just("answer"), st.sampled_from(["ok", "ok", "busy", "blocked", "spam"])),
        st.tuples(st.just("time"), st.sampled_from(["0.3", "5", "70", "400"])),
    ),
    max_size=60,
)
SAID = {"ok": (DELIVERED, "ok", 250), "busy": (DEFERRED, "busy", 421), "blocked": (BOUNCED, "blocked", 550),
        "spam": (BOUNCED, "spam", 550)}  # fmt: skip


@settings(deadline=None)
@given(steps, st.sampled_from([("ip-1",), ("ip-1", "ip-2")]))
def test_whoever_may_not_go_is_told_why_and_nobody_else(
    script: list[tuple[str, str]], sources: tuple[str, ...]
) -> None:
    office = Office(sources=sources)
    for what, which in script:
        if what == "offer":
            told = office.why(which)
            assert bool(told) == isinstance(office.offer(which), Wait)
        elif what == "answer" and office.out:
            office.answer(*SAID[which])
        elif what == "time":
            office.now += float(which)


def test_of_a_route_of_the_settings_its_own_limits_are_told_and_not_the_policys() -> None:
    office = Office()
    route = Route("smart_host", ((0, "relay"),), max_connections=2, messages_per_second=1.0)
    office.site = office.shaper.site("office", ("relay",), "office.example", route)
    office.fill()
    (reason,) = {each.where for each in office.why()}
    assert reason == "messages_per_second of its [[route]] in the settings"
    story = telling.site_story(office.shaper, office.site, office.now)
    assert {(limit["quantity"], limit["value"]) for limit in story["sources"]["ip-1"]["limits"]} == {
        ("message_rate", 1.0), ("concurrency", 2), ("messages_per_connection", 100),
    }  # fmt: skip
