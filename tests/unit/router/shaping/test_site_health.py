"""A site is dead only when all its hosts fail, again and again, for enough sources; any answer revives it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model.wire import RecipientOutcome
from mailfleet_router.decisions.shaping import site_health
from mailfleet_router.decisions.shaping.site_health import (
    ALIVE,
    BLOCKED,
    DEAD,
    Contact,
    Site,
    SiteHealth,
    Standing,
    decode,
    encode,
    observe,
    reached,
    standing,
)

BOTH = ("mx1", "mx2")
ONE_SOURCE, THREE_SOURCES = Site("x.example", frozenset(BOTH), 1), Site("x.example", frozenset(BOTH), 3)
sources = st.sampled_from(("a", "b", "c"))
failed = st.sampled_from(((), (), ("mx1",), ("mx2",), BOTH, BOTH, BOTH, ("other",)))
contacts = st.tuples(
    st.sampled_from((0.0, 0.5, 5.0, 61.0, 1000.0)), sources, st.sampled_from((0.1, 1.0, 100.0)), failed
)


def in_order(steps: list[tuple[float, str, float, tuple[str, ...]]]) -> list[Contact]:
    at, events = 1000.0, []
    for gap, source, took, hosts in steps:
        at += gap
        events.append(Contact(source, at - took, at, hosts))
    return events


histories = st.lists(contacts, max_size=40).map(in_order)
sites = st.sampled_from((ONE_SOURCE, THREE_SOURCES))


def fold(site: Site, events: list[Contact], state: SiteHealth | None = None) -> SiteHealth:
    state = state or SiteHealth()
    for event in events:
        state, _ = observe(state, site, event)
    return state


def rounds(source: str, count: int, start: float = 1000.0, hosts: tuple[str, ...] = BOTH) -> list[Contact]:
    return [Contact(source, start + 10 * n, start + 10 * n + 5, hosts) for n in range(count)]


@given(sites, histories)
def test_an_answer_revives_at_once(site: Site, events: list[Contact]) -> None:
    state = fold(site, events)
    state = fold(site, [Contact("c", 9e6, 9e6 + 1)], state)
    assert standing(state, "c", 9e6 + 1) == Standing(ALIVE, 0.0)
    assert not state.dead_since


@given(sites, histories)
def test_one_host_that_answers_keeps_a_site_alive(site: Site, events: list[Contact]) -> None:
    state = SiteHealth()
    for event in events:
        state, _ = observe(state, site, event._replace(failed=tuple(host for host in event.failed if host != "mx2")))
        assert standing(state, event.source, event.at) == Standing(ALIVE, 0.0)


@given(histories)
def test_one_source_of_several_never_makes_a_site_dead(events: list[Contact]) -> None:
    state = SiteHealth()
    for event in events:
        state, _ = observe(state, THREE_SOURCES, event if event.source == "a" else event._replace(failed=()))
        assert not state.dead_since
        assert standing(state, "b", event.at) == Standing(ALIVE, 0.0)


@given(histories)
def test_a_site_that_answers_some_source_between_is_not_dead(events: list[Contact]) -> None:
    state = SiteHealth()
    for event in events:
        for each in (event, Contact("c", event.at, event.at + 0.01)):
            state, _ = observe(state, THREE_SOURCES, each)
            assert not state.dead_since


@given(sites, histories, st.data())
def test_contacts_seen_twice_change_nothing(site: Site, events: list[Contact], data: st.DataObject) -> None:
    state = fold(site, events)
    again = data.draw(st.lists(st.sampled_from(events), max_size=10)) if events else []
    for event in (*again, *events):
        assert observe(state, site, event) == (state, None)


@given(sites, histories)
def test_probes_wait_one_to_fifteen_minutes_and_never_less_than_before(site: Site, events: list[Contact]) -> None:
    state = SiteHealth()
    for event in events:
        before = state
        state, change = observe(state, site, event)
        assert (change is not None) or bool(state.dead_since) == bool(before.dead_since)
        if state.dead_since:
            assert 60.0 <= state.wait_seconds <= 900.0
            assert state.probe_at >= before.probe_at
            wait = standing(state, "c", event.at).wait_until
            assert wait == 0.0 or wait - event.at <= 900.0


@given(
    st.lists(st.builds(Contact, st.text(max_size=2), st.floats(-1e9, 1e9), st.floats(-1e9, 1e9), failed), max_size=40),
    sites,
)
def test_no_sequence_of_contacts_raises_and_memory_is_bounded(events: list[Contact], site: Site) -> None:
    state = fold(site, events)
    assert len(state.failing) <= site_health.MAX_SOURCES
    assert decode(encode(state)) == state


def test_the_only_source_is_enough_for_a_dead_site_after_three_rounds() -> None:
    state = fold(ONE_SOURCE, rounds("a", 2))
    assert standing(state, "a", 1016.0) == Standing(ALIVE, 0.0)
    state, change = observe(state, ONE_SOURCE, rounds("a", 3)[-1])
    assert change is not None
    assert change.what == "x.example is dead"
    assert standing(state, "a", 1030.0) == Standing(DEAD, 1085.0)
    assert standing(state, "b", 1085.0) == Standing(DEAD, 0.0)


def test_of_several_sources_one_is_blocked_and_two_make_the_site_dead() -> None:
    state, change = observe(fold(THREE_SOURCES, rounds("a", 2)), THREE_SOURCES, rounds("a", 3)[-1])
    assert change is not None
    assert change.what == "x.example does not let a in"
    assert standing(state, "a", 1026.0).kind == BLOCKED
    assert standing(state, "b", 1026.0).kind == ALIVE
    state = fold(THREE_SOURCES, rounds("b", 3, 1100.0), state)
    assert standing(state, "c", 1130.0).kind == DEAD


def test_two_blocked_sources_do_not_make_a_site_dead_that_answers_a_third() -> None:
    state = fold(THREE_SOURCES, [*rounds("a", 3), Contact("c", 1040.0, 1041.0), *rounds("b", 3, 1050.0)])
    assert [standing(state, source, 1080.0).kind for source in "abc"] == [BLOCKED, BLOCKED, ALIVE]


def test_connections_that_fail_together_are_one_round() -> None:
    at_once = [Contact("a", 1000.0, 1005.0 + n / 10, BOTH) for n in range(20)]
    assert standing(fold(ONE_SOURCE, at_once), "a", 1010.0) == Standing(ALIVE, 0.0)


def test_hosts_may_fail_in_different_attempts_of_a_round() -> None:
    events = [Contact("a", 1000.0 + 10 * n, 1005.0 + 10 * n, (BOTH[n % 2],)) for n in range(6)]
    assert standing(fold(ONE_SOURCE, events[:5]), "a", 1060.0).kind == ALIVE
    assert standing(fold(ONE_SOURCE, events), "a", 1060.0).kind == DEAD


def test_the_waits_between_probes_double_to_fifteen_minutes() -> None:
    state, waits = fold(ONE_SOURCE, rounds("a", 3)), []
    for _ in range(6):
        probe_at = state.probe_at
        state = fold(ONE_SOURCE, [Contact("a", probe_at, probe_at + 1, BOTH)], state)
        waits.append(state.probe_at - probe_at - 1)
    assert waits == [120.0, 240.0, 480.0, 900.0, 900.0, 900.0]


def test_what_was_under_way_when_a_site_died_does_not_put_off_its_probe() -> None:
    state = fold(ONE_SOURCE, rounds("a", 3))
    assert fold(ONE_SOURCE, [Contact("b", 1030.0, 1040.0, BOTH)], state).probe_at == state.probe_at


def test_a_blocked_source_is_freed_by_its_own_answer_only() -> None:
    state = fold(THREE_SOURCES, rounds("a", 3))
    state = fold(THREE_SOURCES, [Contact("b", 1100.0, 1101.0)], state)
    assert standing(state, "a", 1102.0).kind == BLOCKED
    state, change = observe(state, THREE_SOURCES, Contact("a", 1110.0, 1111.0))
    assert change is not None
    assert standing(state, "a", 1112.0) == Standing(ALIVE, 0.0)


@pytest.mark.parametrize(
    ("code", "enhanced", "phase", "answers"),
    [
        (250, "2.0.0", "dot", True),
        (554, "4.3.2", "greeting", True),
        (0, "4.4.1", "connect", False),
        (0, "5.4.4", "connect", None),
        (0, "4.4.2", "dot", None),
        (0, "4.4.3", "dns", None),
    ],
)
def test_any_reply_shows_that_a_site_answers(code: int, enhanced: str, phase: str, answers: bool | None) -> None:
    assert reached(RecipientOutcome(0, "deferred", code, enhanced, "", phase)) is answers
