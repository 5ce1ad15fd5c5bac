"""Why it waits: the place is where turns put it, the estimate is no sooner than what holds it, nothing is left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.fairness import FLOOR, Fair
from mailfleet_router.decisions.shaping.why import (
    WITHOUT_END,
    Line,
    Place,
    Reason,
    Speed,
    Unit,
    compose,
    estimate,
    place,
)

NOW = 1_800_000_000.0
FAST = Speed(10.0, "as in the last minute")
UNIT = Unit(
    unit_id="U", state="ready", site="mx", domain="d", partition=0, router="r", tenant="t", stream="s", pool="p",
    expires_at=NOW + 86_400,
)  # fmt: skip


def turns_before(lines: list[Line], priority: int, tenant: str, index: int) -> int:
    """How many units `Fair` really gives out before the one at `index` of a tenant's line."""
    weights = {line.tenant: line.weight for line in lines}
    fair: Fair[tuple[int, str, int]] = Fair(weights.__getitem__)
    for line in lines:
        for number in range(line.length):
            fair.add((line.priority, line.tenant, number), line.tenant, line.priority)
    count = 0
    while (unit := fair.next()) != (priority, tenant, index):
        assert unit is not None
        count += 1
    return count


@given(
    lengths=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 5)), min_size=1, max_size=6),
    data=st.data(),
)
def test_the_place_in_one_priority_is_right_to_a_round(lengths: list[tuple[int, int]], data: st.DataObject) -> None:
    lines = [Line(0, f"t{number}", float(weight), length) for number, (length, weight) in enumerate(lengths)]
    mine = data.draw(st.sampled_from(lines))
    index = data.draw(st.integers(0, mine.length - 1))
    told = place(lines, 0, mine.tenant, index)
    assert told.of == sum(line.length for line in lines)
    round_ = sum(line.weight for line in lines)
    assert abs(told.ahead - turns_before(lines, 0, mine.tenant, index)) <= round_


@given(high=st.integers(0, 200), low=st.integers(1, 40), data=st.data())
def test_a_lower_priority_has_the_higher_ones_before_it_but_for_its_floor(
    high: int, low: int, data: st.DataObject
) -> None:
    lines = [Line(0, "a", 1.0, high), Line(1, "b", 1.0, low, FLOOR)]
    index = data.draw(st.integers(0, low - 1))
    assert abs(place(lines, 1, "b", index).ahead - turns_before(lines, 1, "b", index)) <= 1 / FLOOR + 1


def test_another_tenants_million_does_not_put_a_newcomer_back() -> None:
    lines = [Line(0, "bulk", 1.0, 1_000_000), Line(0, "shop", 1.0, 1)]
    assert place(lines, 0, "shop", 0).ahead <= 1


reasons = st.builds(
    Reason,
    by=st.sampled_from(["suspension", "rate", "window", "pause", "deferral", "dns"]),
    text=st.just("x"),
    until=st.one_of(st.just(0.0), st.floats(NOW - 100, NOW + 100_000)),
)


@given(st.lists(reasons, max_size=6), st.integers(0, 1000), st.floats(NOW - 50, NOW + 50_000))
def test_no_estimate_is_sooner_than_anything_that_holds_it(held: list[Reason], ahead: int, due_at: float) -> None:
    told = estimate(NOW, held, ahead, FAST, due_at, NOW + 1e9)
    if any(not reason.until and reason.by in WITHOUT_END for reason in held):
        assert told.at == 0.0
    else:
        assert told.at >= max([NOW, due_at, *(reason.until for reason in held)])
        assert told.at >= NOW + ahead / FAST.per_second


def test_a_suspension_without_an_end_has_no_estimate_but_a_reason() -> None:
    told = estimate(NOW, [Reason("suspension", "site mx is suspended: they asked")], 3, FAST, 0.0, NOW + 10)
    assert (told.at, told.text) == (0.0, "not before that changes: site mx is suspended: they asked")


def test_the_assumptions_of_an_estimate_are_said() -> None:
    told = estimate(NOW, [], 25, FAST, 0.0, NOW + 1000)
    assert told.at == NOW + 2.5
    assert "25 others go before it, at 10 per second, as in the last minute" in told.assumptions


@pytest.mark.parametrize(
    ("speed", "expires_at", "text"),
    [(Speed(), NOW + 1000, "how fast the site takes mail is not known"), (FAST, NOW + 1, "not before it expires")],
)
def test_what_cannot_be_estimated_is_said_and_not_guessed(speed: Speed, expires_at: float, text: str) -> None:
    told = estimate(NOW, [], 100, speed, 0.0, expires_at)
    assert told.at == 0.0
    assert text in told.text


def test_the_reason_that_holds_it_longest_comes_first_and_is_the_summary() -> None:
    held = [Reason("rate", "rate"), Reason("pause", "pause", until=NOW + 60), Reason("suspension", "for good")]
    answer = compose(UNIT, held, Place(0, 1), FAST, NOW)
    assert [reason.text for reason in answer.reasons] == ["for good", "pause", "rate"]
    assert answer.summary == "for good"


def test_what_is_in_a_senders_hands_has_no_estimate() -> None:
    unit = Unit(**{name: getattr(UNIT, name) for name in UNIT.__struct_fields__} | {"state": "in flight"})
    assert compose(unit, [Reason("sender", "attempt 1")], None, FAST, NOW).estimate.text == "it is being tried now"
