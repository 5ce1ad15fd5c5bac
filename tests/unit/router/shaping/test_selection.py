"""Properties of choosing a source."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.selection import (
    PROBE_SECONDS,
    STICKY_SECONDS,
    Choice,
    Option,
    Request,
    Selector,
    Wait,
)
from mailfleet_router.decisions.shaping.warmup import UNLIMITED

NOW = 1.7e9
INF = float("inf")
options = st.builds(
    lambda weight, allowance, more, score, quarantined, excluded: Option(
        "", weight, allowance, NOW + more if more else 0.0, score, quarantined, excluded, "is paused"
    ),
    st.sampled_from((0.0, 1.0, 3.0)),
    st.sampled_from((0, 1, 50, UNLIMITED)),
    st.sampled_from((0.0, 400.0, 9000.0)),
    st.floats(0, 100),
    st.booleans(),
    st.sampled_from((0.0, 0.0, NOW + 30.0, NOW + 90_000.0, INF)),
)


def named(prefix: str, found: list[Option]) -> list[Option]:
    return [option._replace(source=f"{prefix}{index}") for index, option in enumerate(found)]


pools = st.lists(options, max_size=4).map(lambda found: named("p", found))
overflows = st.lists(options, max_size=2).map(lambda found: named("o", found))
requests = st.builds(Request, st.sampled_from("abc"), st.booleans(), st.sampled_from(("", "p0", "p1", "o0", "gone")))


def chosen(found: Choice | Wait) -> Choice:
    assert isinstance(found, Choice), found
    return found


def waited(found: Choice | Wait) -> Wait:
    assert isinstance(found, Wait), found
    return found


@settings(deadline=None)
@given(st.lists(st.tuples(requests, pools, overflows, st.floats(0, 2000)), max_size=25))
def test_no_source_is_chosen_that_must_not_send_and_every_wait_says_until_when_why_and_by_whom(
    script: list[tuple[Request, list[Option], list[Option], float]],
) -> None:
    selector, now = Selector("site"), NOW
    probes: dict[str, float] = {}
    for request, pool, overflow, gap in script:
        now += gap
        found = selector.choose(request, pool, overflow, now)
        if isinstance(found, Wait):
            assert now < found.until < INF
            assert found.reason
            assert found.by in ("warm-up", "reputation", "greylisting", "excluded", "pool")
            continue
        option = {option.source: option for option in (overflow if found.overflow else pool)}[found.source]
        assert option.weight > 0
        assert option.allowance > 0
        assert option.excluded_until <= now
        assert found.reason
        assert option.quarantined == found.probe
        if found.probe:
            assert now - probes.get(found.source, -INF) >= PROBE_SECONDS
            probes[found.source] = now


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.5, 5), st.sampled_from((10, 100, 1000, UNLIMITED)), st.floats(40, 100)),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 300),
)
def test_over_many_turns_each_source_gets_its_share(found: list[tuple[float, int, float]], turns: int) -> None:
    pool = [Option(f"p{n}", weight, allowance, 0.0, score) for n, (weight, allowance, score) in enumerate(found)]
    selector = Selector("site")
    got = Counter(chosen(selector.choose(Request(f"t{turn}"), pool, (), NOW)).source for turn in range(turns))
    most = max((allowance for _, allowance, _ in found if allowance < UNLIMITED), default=1)
    weights = {f"p{n}": w * min(a, most) / most * s for n, (w, a, s) in enumerate(found)}
    for source, weight in weights.items():
        assert abs(got[source] - turns * weight / sum(weights.values())) <= len(pool)


@settings(deadline=None)
@given(st.lists(st.tuples(requests, pools, overflows, st.floats(0, 2000)), max_size=15))
def test_the_same_history_gives_the_same_choices(
    script: list[tuple[Request, list[Option], list[Option], float]],
) -> None:
    def run() -> list[Choice | Wait]:
        selector, now, found = Selector("site"), NOW, []
        for request, pool, overflow, gap in script:
            now += gap
            found.append(selector.choose(request, pool, overflow, now))
        return found

    assert run() == run()


TWO = (Option("a"), Option("b"))


@settings(deadline=None)
@given(st.lists(st.floats(0, 60), max_size=14))
def test_a_tenant_keeps_its_source_for_a_quarter_of_an_hour(gaps: list[float]) -> None:
    selector, now = Selector("site"), NOW
    first = chosen(selector.choose(Request("t"), TWO, (), now)).source
    for number, gap in enumerate(gaps):
        now += gap
        selector.choose(Request(f"other{number}"), TWO, (), now)
        assert chosen(selector.choose(Request("t"), TWO, (), now)).source == first
    assert chosen(selector.choose(Request("t"), TWO, (), NOW + STICKY_SECONDS - 1)).source == first


def test_after_it_a_tenants_mail_is_shared_out_anew() -> None:
    selector = Selector("site")
    seen = {chosen(selector.choose(Request("t"), TWO, (), NOW + turn * STICKY_SECONDS)).source for turn in range(4)}
    assert seen == {"a", "b"}


def test_sites_begin_with_different_sources() -> None:
    pool = [Option(f"p{n}") for n in range(4)]
    firsts = {chosen(Selector(f"site{n}").choose(Request("t"), pool, (), NOW)).source for n in range(40)}
    assert firsts == {"p0", "p1", "p2", "p3"}


def test_the_retry_of_a_greylisted_unit_goes_by_the_same_source() -> None:
    selector = Selector("site")
    for turn in range(6):
        at = NOW + turn * STICKY_SECONDS
        assert chosen(selector.choose(Request("t", asked="b"), TWO, (), at)).source == "b"
    soon = Option("b", excluded_until=NOW + 300.0, excluded_by="is paused")
    found = waited(selector.choose(Request("t", asked="b"), (TWO[0], soon), (), NOW))
    assert (found.until, found.by) == (NOW + 300.0, "greylisting")
    late = soon._replace(excluded_until=NOW + 90_000.0)
    assert chosen(selector.choose(Request("new", asked="b"), (TWO[0], late), (), NOW)).source == "a"


def test_transactional_mail_leaves_a_source_in_quarantine_at_once() -> None:
    selector = Selector("site")
    source = chosen(selector.choose(Request("t"), TWO, (), NOW)).source
    pool = [option._replace(quarantined=option.source == source, score=20.0) for option in TWO]
    assert chosen(selector.choose(Request("t"), pool, (), NOW + 1)).source != source


def test_bulk_waits_for_its_source_in_quarantine_but_for_one_probe_a_minute() -> None:
    selector = Selector("site")
    source = chosen(selector.choose(Request("t", bulk=True), TWO, (), NOW)).source
    pool = [option._replace(quarantined=option.source == source, score=20.0) for option in TWO]
    probes = 0
    for second in range(600):
        found = selector.choose(Request("t", bulk=True), pool, (), NOW + 1 + second)
        if isinstance(found, Choice):
            assert (found.source, found.probe) == (source, True)
            probes += 1
        else:
            assert found.by == "reputation"
            assert "quarantine" in found.reason
    assert probes == 10
    later = [selector.choose(Request("t", bulk=True), pool, (), NOW + 1000 + n) for n in range(2)]
    assert [chosen(found).probe for found in later] == [True, False]


def test_bulk_does_not_flee_from_a_quarantine_into_the_overflow_pool_and_transactional_mail_does() -> None:
    sick, spare = Option("a", quarantined=True, score=10.0), Option("o")
    selector = Selector("site")
    assert chosen(selector.choose(Request("t"), (sick,), (spare,), NOW)) == Choice(
        "o", "its turn among the sources of the overflow pool", overflow=True
    )
    assert chosen(selector.choose(Request("b", bulk=True), (sick,), (spare,), NOW)).probe
    assert waited(selector.choose(Request("b", bulk=True), (sick,), (spare,), NOW + 1)).until == NOW + PROBE_SECONDS


def test_when_warm_up_is_spent_the_pools_other_sources_then_the_overflow_pool_and_then_time() -> None:
    spent = Option("cold", allowance=0, more_at=NOW + 1800.0)
    warm, spare = Option("warm"), Option("spare")
    for bulk in (False, True):
        selector = Selector("site")
        assert chosen(selector.choose(Request("t1", bulk), (spent, warm), (spare,), NOW)).source == "warm"
        assert chosen(selector.choose(Request("t2", bulk), (spent,), (spare,), NOW)).overflow
        found = waited(selector.choose(Request("t3", bulk), (spent,), (), NOW))
        assert (found.until, found.by) == (NOW + 1800.0, "warm-up")
        assert "cold" in found.reason


def test_a_cold_source_gets_its_allowance_used_beside_a_warm_one() -> None:
    selector, left = Selector("site"), 20
    for turn in range(60):
        pool = (Option("cold", allowance=left, more_at=NOW + 60), Option("warm"))
        if chosen(selector.choose(Request(f"t{turn}"), pool, (), NOW)).source == "cold":
            left -= 1
    assert left == 0


def test_a_pool_without_sources_says_so() -> None:
    found = waited(Selector("site").choose(Request("t"), (), (), NOW))
    assert (found.by, found.until > NOW) == ("pool", True)


def test_what_is_remembered_of_tenants_is_bounded() -> None:
    selector = Selector("site")
    for tenant in range(12_000):
        selector.choose(Request(f"t{tenant}"), TWO[:1], (), NOW)
    assert len(selector._kept) == 10_000
    for tenant in range(12_000):
        selector.choose(Request(f"u{tenant}"), TWO[:1], (), NOW + tenant)
    assert len(selector._kept) < 2_000


@pytest.mark.parametrize("back", [-100_000.0, -10.0])
def test_a_clock_that_went_back_neither_stops_probes_nor_keeps_a_source_for_ever(back: float) -> None:
    selector = Selector("site")
    sick = (Option("a", quarantined=True), Option("b"))
    assert chosen(selector.choose(Request("t", bulk=True), sick, (), NOW)).probe
    assert chosen(selector.choose(Request("t", bulk=True), sick, (), NOW + back)).probe
