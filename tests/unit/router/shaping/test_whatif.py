"""What-if: true to the rules and limits, the same for the same policy, never sooner for a stricter one; three stories."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from importlib.resources import files

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_core.model.wire import Event
from mailfleet_router.decisions.shaping import policy_file
from mailfleet_router.decisions.shaping.responses import Blame, Effect, ReplyClass, ResponseRule, Scope, Slowed
from mailfleet_router.decisions.shaping.schema import Case, Limit, Traffic
from mailfleet_router.decisions.shaping.values import Match
from mailfleet_router.decisions.shaping.whatif import NOTE, Plan, Report, ScopeReport, SiteReport, plan, what_if
from mailfleet_router.decisions.shaping.whatif_text import lines
from support.replies import shipped_rules

NOW = 1_800_000_000.0
MINUTE = 60.0
SHIPPED = plan(
    policy_file.read(files("mailfleet_router").joinpath("policy/traffic.yaml").read_text("utf-8"), "traffic.yaml"),
    shipped_rules(),
)
TSS04 = "[TSS04] Messages from 203.0.113.7 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1"
RATE_LIMITED = (
    "Gmail has detected an unusual rate of unsolicited email originating from your IP address 203.0.113.7. To protect our "
    "users from spam, email sent from your IP address has been temporarily rate limited. - gsmtp"
)


# --- a story, as events -----------------------------------------------------------------------------------------------
def queued(number: int, at: float, site: str, **more: object) -> Event:
    return Event(unit_id(number), "queued", at, recipients(site), 0, 0, "shop", "bulk", site, **more)  # type: ignore[arg-type]


def answered(number: int, at: float, site: str, kind: str = "delivered", attempt: int = 1, **more: object) -> Event:
    said = {"source": "ip-1", "code": 250, "enhanced": "2.0.0", "text": "ok", "phase": "dot", "seconds": 1.0} | more
    return Event(unit_id(number), kind, at, recipients(site), attempt, 0, "shop", "bulk", site, **said)  # type: ignore[arg-type]


def refused(number: int, at: float, site: str, text: str, code: int = 421, **more: object) -> Event:
    said = {"code": code, "enhanced": "4.7.0" if code else "4.4.1", "text": text, "phase": "mail"} | more
    return answered(number, at, site, "deferred", **said)  # type: ignore[arg-type]


def recipients(site: str) -> tuple[tuple[int, str], ...]:
    return ((0, f"someone@{site}.example"),)


def unit_id(number: int) -> bytes:
    return number.to_bytes(4, "big") * 4


def rule(name: str, text: str, effect: Effect, scope: Scope = Scope.SOURCE_SITE, **more: object) -> ResponseRule:
    return ResponseRule(
        name=name, reply_class=ReplyClass.RATE_LIMITED, blame=Blame.SENDER_IP, text=text, effect=effect, scope=scope,
        **more,
    )  # type: ignore[arg-type]  # fmt: skip


def limited(rate: str | None, burst: int = 1, rules: tuple[ResponseRule, ...] = (), **more: object) -> Plan:
    case = Case(message_rate=rate, burst=burst if rate else None, **more)  # type: ignore[arg-type]
    return Plan(Traffic(version=1, limits=(Limit(name="all", per=("source", "site"), cases=(case,)),)), (rules,))


NO_POLICY = Plan(Traffic(version=1))


def scope_of(report: Report, key: str) -> ScopeReport:
    return next(scope for scope in report.scopes if scope.scope == key)


def site_of(report: Report, name: str) -> SiteReport:
    return next(site for site in report.sites if site.site == name)


# --- properties -------------------------------------------------------------------------------------------------------
RULES = (
    rule("busy", "busy", Effect.SLOW, threshold="2/10m"),
    rule("blocked", "blocked", Effect.PAUSE),
    rule("tenant", "tenant", Effect.PAUSE, Scope.TENANT_SITE),
    rule("listed", "listed", Effect.DISABLE_SOURCE, Scope.SOURCE, ttl="1h"),
    rule("capped", "capped", Effect.SLOW, to=Slowed(rate="1/m"), ttl="30m"),
)
texts = st.sampled_from(["busy", "blocked", "tenant", "listed", "capped", "who knows", ""])
sites = st.sampled_from(["yahoo", "x.example", ""])
reply_events = st.builds(
    Event,
    unit=st.integers(0, 30).map(unit_id),
    kind=st.sampled_from(["queued", "queued", "attempted", "held", "delivered", "deferred", "deferred", "bounced"]),
    at=st.integers(0, 12 * 60).map(lambda tens: NOW + 10.0 * tens),
    recipients=st.sampled_from([(), ((0, "a@b.example"),), ((0, "a@b.example"), (1, "c@d.example"))]),
    attempt=st.integers(0, 2),
    tenant=st.sampled_from(["shop", "news"]),
    site=sites,
    source=st.sampled_from(["ip-1", "ip-2"]),
    code=st.sampled_from([0, 250, 421, 550]),
    enhanced=st.sampled_from(["", "4.7.0", "4.4.1"]),
    text=texts,
    phase=st.sampled_from(["connect", "mail", "dot"]),
    seconds=st.sampled_from([0.0, 1.0, 200.0]),
)
histories = st.lists(reply_events, max_size=60)
pairs_of_rates = st.sampled_from([("10/s", "1/s"), ("1/s", "1/m"), ("1/m", "1/m"), ("6/m", "5/m"), ("1/m", "0/m")])


@settings(deadline=None)
@given(histories)
def test_the_same_policy_on_both_sides_gives_the_same_on_both_sides(events: list[Event]) -> None:
    report = what_if(events, limited("1/m", rules=RULES), limited("1/m", rules=RULES))
    assert all(one.in_force == one.tried for one in report.rules)
    assert all(one.in_force == one.tried for one in report.scopes)
    assert all(one.in_force == one.tried for one in report.sites)
    assert report.not_made_in_force == report.not_made_tried
    assert not any("; after " in line for line in lines(report))


@settings(deadline=None)
@given(histories)
def test_without_rules_nothing_is_paused_and_without_limits_nothing_waits(events: list[Event]) -> None:
    report = what_if(events, NO_POLICY, NO_POLICY)
    assert not any(scope.tried.paused or scope.tried.slowed or scope.tried.disabled for scope in report.scopes)
    assert not report.limits
    if not report.scopes:
        assert report.not_made_tried == 0
        assert all(site.tried.wait_p99_seconds == 0.0 for site in report.sites)


@settings(deadline=None)
@given(histories)
def test_a_scope_is_only_touched_by_a_rule_that_matched_for_it(events: list[Event]) -> None:
    report = what_if(events, NO_POLICY, Plan(Traffic(version=1), (RULES,)))
    for kind in ("paused", "slowed", "disabled"):
        told = sum(getattr(scope.tried, kind) for scope in report.scopes)
        word = "source disabled" if kind == "disabled" else kind
        assert told == sum(one.tried.followed.get(word, 0) for one in report.rules)
    for scope in report.scopes:
        assert scope.tried.paused_seconds <= max(0.0, report.until - report.since)
        assert bool(scope.tried.paused_seconds) <= bool(scope.tried.paused + scope.tried.disabled)


@settings(deadline=None)
@given(histories)
def test_every_refusal_is_counted_once_under_its_rule_or_its_text(events: list[Event]) -> None:
    in_time = sorted(events, key=lambda event: event.at)
    report = what_if(in_time, NO_POLICY, Plan(Traffic(version=1), (RULES,)))
    attempts = {msgspec.msgpack.encode(event): event for event in events if event.kind in ("deferred", "bounced")}
    refusals = sum(len({address for _, address in event.recipients}) or 1 for event in attempts.values())
    matched = sum(one.tried.replies for one in report.rules)
    assert matched + sum(one.replies for one in report.unmatched) == refusals
    assert all(sum(one.tried.followed.values()) == one.tried.replies for one in report.rules)


@settings(deadline=None)
@given(histories, pairs_of_rates)
def test_a_stricter_limit_never_drains_sooner(events: list[Event], rates: tuple[str, str]) -> None:
    loose, strict = (limited(rate, rules=RULES) for rate in rates)
    report = what_if(events, loose, strict)
    for site in report.sites:
        assert site.tried.never >= site.in_force.never
        if not site.tried.never:
            assert site.tried.drained_at >= site.in_force.drained_at - 1e-3
            assert site.tried.wait_p50_seconds >= site.in_force.wait_p50_seconds
            assert site.tried.wait_p99_seconds >= site.in_force.wait_p99_seconds


@settings(deadline=None)
@given(st.integers(1, 200), st.sampled_from([1.0, 7.0, 60.0]), st.integers(1, 20), st.integers(0, 30))
def test_a_queue_drains_no_sooner_than_the_rate_allows(count: int, rate: float, burst: int, gap: int) -> None:
    events = [queued(number, NOW + gap * number / 10, "x") for number in range(count)]
    report = what_if(events, NO_POLICY, limited(f"{rate:g}/m", burst))
    assert site_of(report, "x").tried.drained_at >= NOW + (count - burst) * MINUTE / rate - 1e-3
    assert site_of(report, "x").tried.drained_at >= events[-1].at
    assert site_of(report, "x").in_force.drained_at == events[-1].at


@settings(deadline=None)
@given(st.lists(reply_events, max_size=30), st.data())
def test_the_order_of_equal_instants_does_not_matter(events: list[Event], data: st.DataObject) -> None:
    same = [msgspec.structs.replace(event, at=NOW + event.at % 20) for event in events]
    policy = limited("1/m", rules=RULES)
    assert what_if(data.draw(st.permutations(same)), policy, policy) == what_if(same, policy, policy)


anything = st.builds(
    Event,
    unit=st.binary(max_size=20),
    kind=st.sampled_from(
        ["queued", "attempted", "held", "delivered", "deferred", "bounced", "expired", "in_doubt", "?"]
    ),
    at=st.floats() | st.floats(0, 2e9),
    recipients=st.lists(st.tuples(st.integers(-5, 5), st.text(max_size=8)), max_size=3).map(tuple),
    attempt=st.integers(-1, 3),
    site=st.text(max_size=5),
    source=st.text(max_size=3),
    code=st.integers(-1, 999),
    enhanced=st.sampled_from(["", "4.7.0", "nonsense"]),
    text=st.text(max_size=40) | st.sampled_from([TSS04, RATE_LIMITED]),
    phase=st.text(max_size=5) | st.sampled_from(["connect", "mail"]),
    mx=st.sampled_from(["", "mta5.am0.yahoodns.net", "..", "x"]),
    seconds=st.floats(),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(anything, max_size=25))
def test_arbitrary_events_never_raise_and_the_report_is_json(events: list[Event]) -> None:
    report = what_if(events, NO_POLICY, SHIPPED)
    assert json.loads(json.dumps(msgspec.to_builtins(report), allow_nan=False))["note"] == NOTE
    assert NOTE in lines(report)


def peak_bytes(count: int) -> int:
    """Of a replay of `count` units in the same few scopes, refused now and then."""
    plain = (event for n in range(count) for event in (queued(n, NOW + n, "x"), _now_and_then(n)))
    what_if(plain, limited("1/s", rules=RULES), limited("1/m", rules=RULES))
    tracemalloc.start()
    plain = (event for n in range(count) for event in (queued(n, NOW + n, "x"), _now_and_then(n)))
    what_if(plain, limited("1/s", rules=RULES), limited("1/m", rules=RULES))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _now_and_then(number: int) -> Event:
    at = NOW + number + 5
    return refused(number, at, "x", "busy") if number % 50 == 0 else answered(number, at, "x")


def test_memory_does_not_grow_with_attempts() -> None:
    assert peak_bytes(1200) < peak_bytes(400) * 1.3


# --- stories ----------------------------------------------------------------------------------------------------------
def yahoo_storm() -> Iterator[Event]:
    """Ten good minutes, then 30 in which Yahoo answers TSS04 to all; we send one a second all the time."""
    for second in range(40 * 60):
        at = NOW + second
        yield queued(second, at, "yahoo")
        if second < 600:
            yield answered(second, at + 1, "yahoo", mx="mta5.am0.yahoodns.net")
        else:
            yield refused(second, at + 1, "yahoo", TSS04, mx="mta5.am0.yahoodns.net")


def test_story_a_storm_of_tss04_would_have_been_slowed_by_the_shipped_rules() -> None:
    report = what_if(yahoo_storm(), NO_POLICY, SHIPPED)
    [matched] = report.rules
    assert matched.rule.startswith("yahoo")
    assert matched.in_force.replies == 0
    assert matched.tried.replies == 1800
    assert len(matched.samples) == 3
    assert matched.samples[0].text == TSS04
    assert not report.unmatched
    scope = scope_of(report, "source_site|ip-1|yahoo")
    assert scope.in_force.slowed == 0
    assert scope.tried.slowed + scope.tried.paused >= 5
    assert scope.tried.slowed_seconds + scope.tried.paused_seconds == pytest.approx(1800, abs=90)
    assert scope.recorded.longest_gap_seconds == 1.0
    assert scope.tried.moments[0].at >= NOW + 600
    site = site_of(report, "yahoo")
    assert site.arrivals == 2400
    assert site.in_force.drain_seconds == 0.0
    assert site.tried.drain_seconds > 30 * MINUTE


def test_story_google_4_7_28_names_its_rule_and_what_is_not_understood() -> None:
    events = [queued(number, NOW + number, "google") for number in range(20)]
    events += [
        refused(number, NOW + 30 + number, "google", RATE_LIMITED, enhanced="4.7.28", phase="dot")
        for number in range(10)
    ]
    events += [
        refused(number, NOW + 30 + number, "google", f"strange {number:04}", code=450) for number in range(10, 20)
    ]
    report = what_if(events, SHIPPED, SHIPPED)
    assert [one.rule for one in report.rules] == ["google-address-slowed"]
    assert report.rules[0].tried.followed == {"no change": 9, "slowed": 1}
    assert [(one.text, one.replies) for one in report.unmatched] == [("strange #", 10)]
    assert report.unmatched[0].sample.text == "strange 0010"
    scope = scope_of(report, "source_site|ip-1|google")
    assert (scope.tried.slowed, scope.tried.paused) == (1, 0)
    assert scope.tried.moments[0].what == "slowed to 50 %"


def outage() -> Iterator[Event]:
    """A site of one host and one source is down for an hour; we try once a minute."""
    for minute in range(120):
        at = NOW + MINUTE * minute
        yield queued(minute, at, "corp.example")
        if 20 <= minute < 80:
            down = {"code": 0, "enhanced": "4.4.1", "phase": "connect", "mx": "mx.corp.example"}
            yield refused(minute, at + 5, "corp.example", "connection refused", **down)  # type: ignore[arg-type]
        else:
            yield answered(minute, at + 5, "corp.example", mx="mx.corp.example")


def test_story_a_dead_site_is_told_from_the_third_round_until_a_probe_is_answered() -> None:
    report = what_if(outage(), SHIPPED, SHIPPED)
    scope = scope_of(report, "site|corp.example")
    assert scope.tried.dead == 1
    died, came_back = scope.tried.moments
    assert died.at == NOW + 22 * MINUTE + 5
    assert died.what == "corp.example is dead"
    # Probes wait 15 minutes at most.
    assert NOW + 80 * MINUTE <= came_back.at <= NOW + 96 * MINUTE
    assert scope.tried.dead_seconds == pytest.approx(came_back.at - died.at, abs=0.1)
    assert 40 < report.not_made_tried < 75


def test_a_pause_counts_what_was_sent_meanwhile_and_its_answers_do_nothing() -> None:
    events = [refused(number, NOW + 10.0 * number, "x", "blocked") for number in range(30)]
    report = what_if(events, NO_POLICY, Plan(Traffic(version=1), (RULES,)))
    scope = scope_of(report, "source_site|ip-1|x")
    assert scope.tried.paused == 1
    assert scope.tried.paused_seconds == 290.0
    assert scope.tried.attempts_meanwhile == 29
    assert report.rules[0].tried.followed == {"not made": 29, "paused": 1}


def test_a_pause_moves_back_what_waits() -> None:
    events = [queued(number, NOW, "x") for number in range(60)]
    events += [refused(0, NOW + 10, "x", "listed"), queued(99, NOW + 20, "x")]
    report = what_if(events, limited("1/s"), limited("1/s", rules=RULES), ("ip-1",))
    site = site_of(report, "x")
    assert site.in_force.drained_at == pytest.approx(NOW + 60, abs=0.1)
    # Listed for at least an hour.
    assert site.tried.drained_at >= NOW + 10 + 3600 + 50


def test_a_stop_moves_back_the_last_that_waits_though_nothing_comes_after() -> None:
    waiting = [queued(number, NOW, "x") for number in range(60)]
    down = {"code": 0, "phase": "connect", "seconds": 0.5}
    dead = [refused(number, NOW + 1 + number, "x", "refused", **down) for number in range(3)]  # type: ignore[arg-type]
    for told, stopped_seconds in (([refused(0, NOW + 10, "x", "listed")], 3600), (dead, 60)):
        report = what_if(waiting + told, limited("1/s"), limited("1/s", rules=RULES), ("ip-1",))
        assert site_of(report, "x").tried.drained_at == pytest.approx(NOW + 59 + stopped_seconds, abs=0.1)


def test_arrivals_are_dealt_to_the_sources_that_are_given() -> None:
    events = [queued(number, NOW, "x") for number in range(61)]
    one, two = (what_if(events, NO_POLICY, limited("1/s"), names) for names in (("a",), ("a", "b")))
    assert site_of(one, "x").tried.drained_at == pytest.approx(NOW + 60, abs=0.1)
    assert site_of(two, "x").tried.drained_at == pytest.approx(NOW + 30, abs=0.1)


def test_connections_at_once_are_a_rate_by_how_long_an_attempt_took() -> None:
    events = [answered(1, NOW, "x", seconds=10.0), *(queued(number, NOW + 1, "x") for number in range(102))]
    report = what_if(events, NO_POLICY, limited(None, concurrency=2))
    # Two at once, then one each five seconds.
    assert site_of(report, "x").tried.drained_at == pytest.approx(NOW + 1 + 500, abs=0.1)


def test_recorded_waits_stand_beside_the_predicted_ones() -> None:
    events = [event for number in range(50) for event in (queued(number, NOW, "x"), answered(number, NOW + 101, "x"))]
    site = site_of(what_if(events, NO_POLICY, limited("1/s")), "x")
    assert 100 <= site.recorded.wait_p50_seconds <= 119
    assert 24 <= site.tried.wait_p50_seconds <= 30
    assert 49 <= site.tried.wait_p99_seconds <= 59
    assert site.recorded.drained_at == NOW + 100


def test_a_suspended_case_never_lets_go_and_says_so() -> None:
    events = [queued(1, NOW, "x"), answered(1, NOW + 5, "x")]
    report = what_if(events, NO_POLICY, limited(None, suspend=True))
    assert site_of(report, "x").tried.never == 1
    assert [(one.policy, one.over, one.attempts) for one in report.limits] == [("tried", 1, 1)]
    assert any("1 never go" in line for line in lines(report))


def test_a_limit_counts_the_attempts_that_it_would_have_put_off() -> None:
    events = [answered(number, NOW + number + 1.0, "x") for number in range(60)]
    [limit] = what_if(events, NO_POLICY, limited("6/m")).limits
    assert (limit.limit, limit.case, limit.attempts, limit.over) == ("all", 1, 60, 54)
    assert 0 < limit.longest_wait_seconds <= 10


def test_held_events_are_told_beside_what_would_have_happened() -> None:
    events = [refused(1, NOW, "x", "blocked", source="ip-1"), refused(2, NOW, "x", "tenant", source="ip-2")]
    events.append(Event(unit_id(3), "held", NOW + 9, recipients("x"), 0, 0, "shop", "bulk", "x", text="suspended"))
    report = what_if(events, NO_POLICY, Plan(Traffic(version=1), (RULES,)))
    assert scope_of(report, "tenant_site|shop|x").recorded.held == 1
    assert site_of(report, "x").held == 1


def test_a_policys_own_rules_come_first_and_replace_those_of_their_name() -> None:
    text = "version: 1\nrules:\n- {name: google-address-slowed, class: rate_limited, blame: us, text: gmail, effect: pause}\n"
    report = what_if(
        [refused(1, NOW, "google", RATE_LIMITED)], SHIPPED, plan(policy_file.read(text, "own.yaml"), shipped_rules())
    )
    assert report.rules[0].in_force.followed == {"slowed": 1}
    assert report.rules[0].tried.followed == {"paused": 1}
    assert any("; after 1 replies (1 paused)" in line for line in lines(report))


def test_the_provider_is_known_by_the_mx_host_where_the_site_does_not_say_it() -> None:
    only = rule("only", "busy", Effect.NONE, applies=Match(provider=("yahoo",)))
    policy = Plan(SHIPPED.traffic, ((only,),))
    report = what_if([refused(1, NOW, "mta-set", "busy", mx="mta5.am0.yahoodns.net")], NO_POLICY, policy)
    assert [one.rule for one in report.rules] == ["only"]


def test_the_report_for_people_names_rule_scope_site_and_the_limits_of_what_it_knows() -> None:
    said = "\n".join(lines(what_if(yahoo_storm(), NO_POLICY, SHIPPED)))
    assert said.startswith("2400 attempts from 2027-01-15 08:00:00 to 2027-01-15 08:40:00.")
    assert NOTE in said
    assert "source_site|ip-1|yahoo: before nothing; after slowed" in said
    assert "yahoo: 2400 units came, 2400 attempts, 0 times held" in said
    assert "really: at most 1 s without an attempt" in said


def test_an_empty_record_has_an_empty_report() -> None:
    report = what_if([], SHIPPED, SHIPPED)
    assert (report.attempts, report.rules, report.sites, report.since) == (0, (), (), 0.0)
    assert lines(report)[0].startswith("0 attempts")
