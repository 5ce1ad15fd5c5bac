"""Answers and complaints counted by the owner of a partition, their sums, and what a new owner makes of the log."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import complaint, ids, reputation
from mailfleet_core.model.complaint import Complaint
from mailfleet_core.model.reputation import BOUNCED, COMPLAINED, DEFERRED, DELIVERED, OTHER
from mailfleet_core.model.wire import BOUNCED as REFUSED
from mailfleet_core.model.wire import DEFERRED as PUT_OFF
from mailfleet_core.model.wire import DELIVERED as TAKEN
from mailfleet_router.decisions.shaping.reputation import DAY
from mailfleet_router.decisions.shaping.standings import ELSEWHERE, JUDGE_SECONDS, Standings
from mailfleet_router.decisions.shaping.values import Facts

NOW = 20_000 * DAY + 1000.0
YAHOO = Facts("acme", "bulk", "p", "ip-1", "yahoo", "yahoo", "yahoo.example")
SMALL = Facts("acme", "bulk", "p", "ip-1", "mx.tiny.example", "", "tiny.example")


def complained(
    number: int, facts: Facts = YAHOO, at: float = NOW, delivered_at: float = NOW - 60, offset: int = -1
) -> tuple[str, int, Complaint]:
    """A record, as it lies in the log at `offset` (100 and on)."""
    key = complaint.key(ids.message_id(number, bytes(10)), 0).decode()
    said = Complaint(
        at,
        delivered_at,
        facts.tenant,
        facts.stream,
        facts.source,
        facts.site,
        facts.domain,
        f"mx.{facts.domain}",
        "abuse",
    )
    return key, offset if offset >= 0 else 100 + number, said


def total(standings: Standings, now: float, source: str = "ip-1") -> tuple[float, ...]:
    return standings.sources[source].at(now)


def test_the_total_of_a_source_is_the_sum_of_its_sites() -> None:
    standings = Standings()
    for facts in (YAHOO, YAHOO._replace(site="google", provider="google")):
        for verdict in (TAKEN, TAKEN, PUT_OFF, REFUSED):
            standings.count(facts, verdict, "recipient" if verdict == REFUSED else "", False)
    standings.tick(NOW, reputation.USUAL)
    assert [round(weight, 3) for weight in total(standings, NOW)] == [0.0, 2.0, 2.0, 4.0, 0.0, 0.0]
    assert standings.sources["ip-1"].seen == [0, 2, 2, 4, 0, 0]
    assert standings.tenants["acme"].seen == [0, 2, 2, 4, 0, 0]


@given(st.integers(0, 2**32))
def test_totals_are_what_adding_everything_up_would_give(seed: int) -> None:
    chance, standings, now = random.Random(seed), Standings(), NOW
    for _ in range(60):
        site = chance.choice(("yahoo", "google", "apple"))
        verdict = chance.choice((TAKEN, TAKEN, TAKEN, PUT_OFF, REFUSED))
        standings.count(YAHOO._replace(site=site, provider=site), verdict, "recipient", False)
        now += chance.choice((0.0, 10.0, 3600.0, DAY / 2))
        standings.tick(now, reputation.USUAL)
    for _ in range(2):
        now += JUDGE_SECONDS
        for stand in standings.stands.values():
            standings._touch(stand)
        standings.tick(now, reputation.USUAL)
    parts = [stand.decision.reading for key, stand in standings.stands.items() if key[0] == "source|site"]
    sums = [sum(part.weights[kind] for part in parts) for kind in range(6)]
    together = [sums[OTHER] + sums[DELIVERED], *sums[DEFERRED:OTHER], *sums[OTHER + 1 :]]
    told = total(standings, now)
    assert [told[OTHER], *told[DEFERRED:OTHER], *told[OTHER + 1 :]] == pytest.approx(together, abs=1e-6)
    assert standings.sources["ip-1"].seen[BOUNCED] == sum(part.seen[BOUNCED] for part in parts)


def test_a_source_with_much_mail_for_small_sites_does_not_look_bad_by_a_few_of_them() -> None:
    standings = Standings()
    for number in range(5000):
        site = f"mx{number}.example"
        standings.count(SMALL._replace(site=site), TAKEN, "", False)
    for number in range(12):
        standings.count(SMALL._replace(site=f"mx{number}.example"), REFUSED, "recipient", False)
    standings.tick(NOW, reputation.USUAL)
    said = standings.sources["ip-1"]
    assert reputation.read(said.at(NOW), said.seen).score == 100.0
    assert ("source|site", "ip-1", ELSEWHERE) in standings.stands
    assert len(standings.stands) < 50


# --- complaints -------------------------------------------------------------------------------------------------------
def test_a_complaint_counts_for_the_source_the_tenant_and_the_stream() -> None:
    standings = Standings()
    standings.obey(frozenset({"yahoo"}))
    for _ in range(1000):
        standings.count(YAHOO, TAKEN, "", False)
    standings.tick(NOW, reputation.USUAL)
    assert all(standings.complained(*complained(number), "yahoo") for number in range(4))
    standings.tick(NOW + 5, reputation.USUAL)
    for key in (("source|site", "ip-1", "yahoo"), ("tenant|site", "acme", "yahoo"), ("tenant|stream", "acme", "bulk")):
        decision = standings.stands[key].decision
        assert decision is not None
        assert decision.reading.seen == (1000, 0, 0, 0, 0, 4)
    assert standings.state("source|site", "ip-1", "yahoo") > reputation.GOOD
    assert standings.sources["ip-1"].seen[COMPLAINED] == standings.tenants["acme"].seen[COMPLAINED] == 4
    assert standings.tenants["acme"].seen[DELIVERED] == 1000


def test_the_same_complaint_counts_once_however_often_it_is_told() -> None:
    standings = Standings()
    assert standings.complained(*complained(1), "yahoo")
    assert not standings.complained(*complained(1), "yahoo")
    assert not standings.complained(*complained(1, at=NOW + 500), "yahoo")
    standings.tick(NOW, reputation.USUAL)
    assert standings.sources["ip-1"].seen[COMPLAINED] == 1


def take_over(first: Standings, records: list[tuple[str, int, Complaint]]) -> Standings:
    """A new owner, who knows what the first one has written and these complaints."""
    second = Standings()
    for key, value in first.changed():
        if value is not None and not key.startswith("complaint|"):
            second.read(key, value)
    for record in records:
        second.complained(*record, "yahoo")
    second.tick(NOW + 60, reputation.USUAL)
    return second


@pytest.mark.parametrize("written", [0, 1, 3])
def test_a_new_owner_counts_each_complaint_once_however_many_the_old_one_had_written(written: int) -> None:
    first, records = Standings(), [complained(number) for number in range(3)]
    for _ in range(10):
        first.count(YAHOO, TAKEN, "", False)
    for record in records[:written]:
        first.complained(*record, "yahoo")
    first.tick(NOW, reputation.USUAL)
    for record in records[written:]:
        first.complained(*record, "yahoo")  # and it dies before it has judged them
    second = take_over(first, records)
    assert second.sources["ip-1"].seen == [10, 0, 0, 0, 0, 3]


def test_a_complaint_that_was_told_again_counts_once_when_only_the_last_record_is_left() -> None:
    first = Standings()
    first.count(YAHOO, TAKEN, "", False)
    first.complained(*complained(1, offset=7), "yahoo")
    first.tick(NOW, reputation.USUAL)
    first.complained(*complained(1, offset=9), "yahoo")
    first.tick(NOW + 5, reputation.USUAL)
    key, _, _ = complained(1)
    again = dict(first.changed())
    assert again[key] is not None
    third = Standings()
    for name, value in again.items():
        if value is not None and name != key:
            third.read(name, value)
    assert third.complained(key, 11, complaint.decode(again[key] or b""), "yahoo")
    third.tick(NOW + 60, reputation.USUAL)
    assert third.sources["ip-1"].seen == [1, 0, 0, 0, 0, 1]
    assert key not in dict(third.changed())


def test_what_was_delivered_is_no_denominator_where_nobody_reports_complaints() -> None:
    standings = Standings()
    google = YAHOO._replace(site="google", provider="google")
    for facts in (YAHOO, google):
        for _ in range(100):
            standings.count(facts, TAKEN, "", False)
    standings.tick(NOW, reputation.USUAL)
    assert standings.tenants["acme"].seen == [0, 0, 0, 200, 0, 0]
    standings.complained(*complained(1), "yahoo")
    standings.tick(NOW + 5, reputation.USUAL)
    assert standings.tenants["acme"].seen == [100, 0, 0, 100, 0, 1]


def test_the_first_complaints_of_a_provider_are_a_share_of_what_it_had_taken_before() -> None:
    standings = Standings()
    for _ in range(9_000):
        standings.count(YAHOO, TAKEN, "", False)
    standings.tick(NOW, reputation.USUAL)
    for number in range(5):
        standings.complained(*complained(number), "yahoo")
    standings.tick(NOW + 5, reputation.USUAL)
    assert standings.state("source|site", "ip-1", "yahoo") == reputation.GOOD
    assert standings.state("tenant|stream", "acme", "bulk") == reputation.GOOD


def test_a_site_without_a_name_is_known_by_its_first_complaint_and_judged_by_later_mail() -> None:
    standings = Standings()
    for number in range(10):
        standings.complained(*complained(number, SMALL), "")
    standings.tick(NOW, reputation.USUAL)
    assert standings.state("source|site", "ip-1", SMALL.site) == reputation.GOOD
    for _ in range(100):
        standings.count(SMALL, TAKEN, "", False)
    for number in range(10, 20):
        standings.complained(*complained(number, SMALL, NOW + 90, NOW + 60), "")
    standings.tick(NOW + 100, reputation.USUAL)
    stand = standings.stands["source|site", "ip-1", SMALL.site]
    assert stand.decision is not None
    assert (stand.decision.reading.seen[DELIVERED], stand.decision.reading.seen[COMPLAINED]) == (100, 10)


def test_a_policy_may_say_who_reports_and_take_it_back() -> None:
    standings = Standings()
    for _ in range(10):
        standings.count(YAHOO, TAKEN, "", False)
    for providers, delivered in ((frozenset({"yahoo"}), 10), (frozenset(), 0)):
        standings.obey(providers)
        standings.tick(NOW, reputation.USUAL)
        standings.tick(NOW + JUDGE_SECONDS, reputation.USUAL)
        assert standings.sources["ip-1"].seen[DELIVERED] == delivered


def test_a_complaint_that_counts_no_more_is_dropped_from_the_log() -> None:
    standings = Standings()
    key, offset, said = complained(1)
    standings.complained(key, offset, said, "yahoo")
    standings.tick(NOW, reputation.USUAL)
    list(standings.changed())
    standings.tick(NOW + 13 * DAY, reputation.USUAL)
    assert key not in dict(standings.changed())
    standings.tick(NOW + 15 * DAY, reputation.USUAL)
    assert dict(standings.changed())[key] is None
