"""The fleet as the records of its routers tell it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_core.model import reputation, stats
from mailfleet_core.model.fleet import FORGET_SECONDS, Fleet
from mailfleet_core.model.reputation import BOUNCED, COMPLAINED, DELIVERED, OTHER
from mailfleet_core.model.stats import PoolStats, SourceStats, Stats, TenantStats, Trouble
from mailfleet_core.model.wire import Malformed

NOW = 1_800_000_000.0


@dataclass
class Answers:
    """Counts by kind."""

    weights: list[float] = field(default_factory=lambda: [0.0] * 6)

    def with_(self, kind: int, number: float) -> Answers:
        self.weights[kind] = number
        return self

    def of(self, source: str, worst: int = 0) -> SourceStats:
        seen = tuple(int(weight) for weight in self.weights)
        return SourceStats(source, 1, 0.5, 10, -1, tuple(self.weights), seen, worst)


def fleet(*said: Stats) -> Fleet:
    found = Fleet()
    for each in said:
        found.read(each)
    return found


def test_nothing_is_known_of_a_fleet_that_has_not_spoken() -> None:
    nobody = fleet()
    assert not nobody.complete
    assert nobody.source("a").score == 100.0
    assert nobody.source("a").day_cap == -1
    assert nobody.pool("p").ready == 0
    assert nobody.tenant("t").state == reputation.GOOD
    assert nobody.troubles == ()


def test_pools_are_summed_and_the_oldest_is_the_oldest_of_all() -> None:
    of = fleet(
        Stats(0, "r", NOW, (PoolStats("p", 5, 2, NOW - 10, 1.5),), partitions=3),
        Stats(1, "s", NOW, (PoolStats("p", 7, 0, 0.0, 0.5), PoolStats("q", 1, 1, NOW, 0.0))),
    )
    assert of.pool("p") == ("p", 12, 2, NOW - 10, 2.0)
    assert of.pools == {"p", "q"}
    assert not of.complete
    of.read(Stats(2, "s", NOW))
    assert of.complete


def test_a_score_is_computed_from_sums_and_is_not_the_mean_of_scores() -> None:
    good, bad = Answers().with_(OTHER, 9000.0), Answers().with_(OTHER, 40.0).with_(BOUNCED, 60.0)
    of = fleet(Stats(0, "r", NOW, sources=(good.of("a"),)), Stats(1, "r", NOW, sources=(bad.of("a", 3),)))
    alone = fleet(Stats(1, "r", NOW, sources=(bad.of("a", 3),))).source("a")
    assert alone.state == reputation.QUARANTINE
    assert of.source("a").state == reputation.GOOD
    assert of.source("a").worst_state == reputation.QUARANTINE
    assert of.source("a").delivered == 9040.0
    assert of.source("a").bounced == 60.0
    assert of.source("a").in_flight == 2


def test_the_policy_of_the_routers_judges() -> None:
    strict = reputation.USUAL._replace(borders=(99.9, 99.0, 98.0))
    bad = Answers().with_(OTHER, 1000.0).with_(BOUNCED, 20.0)
    said = Stats(0, "r", NOW, sources=(bad.of("a"),))
    assert fleet(said).source("a").state == reputation.GOOD
    of = fleet(said, Stats(1, "r", NOW + 1, tuning=strict))
    assert of.source("a").state == reputation.QUARANTINE


def test_complaints_of_a_tenant_are_a_rate_of_what_was_delivered_where_they_are_reported() -> None:
    weights = Answers().with_(DELIVERED, 10_000.0).with_(OTHER, 50_000.0).with_(COMPLAINED, 41.0).weights
    tenant = TenantStats("acme", tuple(weights), tuple(int(w) for w in weights), 2)
    acme = fleet(Stats(0, "r", NOW, tenants=(tenant,))).tenant("acme")
    few = fleet(Stats(0, "r", NOW, tenants=(TenantStats("b", (10.0, 0, 0, 0, 0, 1.0), (10, 0, 0, 0, 0, 1)),))).tenant(
        "b"
    )
    assert acme.complaint_rate > 0.0018
    assert "complaints" in acme.worst
    assert few.complaint_rate < 0.001


def test_a_source_that_warms_up_tells_what_counts_against_its_cap_and_nothing_else() -> None:
    of = fleet(
        Stats(0, "r", NOW, sources=(SourceStats("a", 0, 0.0, 40, 50),)),
        Stats(1, "r", NOW, sources=(SourceStats("a", 0, 0.0, 1000),)),
        Stats(2, "r", NOW, sources=(SourceStats("a", 0, 0.0, 5, 20),)),
    )
    assert (of.source("a").sent_today, of.source("a").day_cap) == (45, 70)


def test_a_zombie_does_not_speak_for_its_partition() -> None:
    of = fleet(Stats(0, "new", NOW, (PoolStats("p", 1, 1, NOW, 0.0),), epoch=9))
    of.read(Stats(0, "old", NOW + 5, (PoolStats("p", 500, 500, NOW, 0.0),), epoch=4))
    assert of.pool("p").waiting == 1
    of.read(Stats(0, "new", NOW + 6, epoch=9))
    assert of.pools == frozenset()


def test_what_nobody_confirms_is_forgotten() -> None:
    of = fleet(Stats(0, "r", NOW, (PoolStats("p", 1, 1, NOW, 0.0),)), Stats(1, "r", NOW + 60))
    assert of.pools == {"p"}
    of.forget(NOW + FORGET_SECONDS + 1)
    assert of.partitions == {1}
    assert of.pools == frozenset()
    assert of.oldest_at == NOW + 60


def test_of_each_source_at_each_site_the_worst_trouble_is_told_and_the_worst_first() -> None:
    slowed = Trouble("a", "google", stats.SLOWED, 0.0, "rate", "421", NOW)
    held = Trouble("a", "google", stats.QUARANTINE, 0.0, "reputation", "score 20", NOW)
    paused = Trouble("", "yahoo", stats.PAUSED, NOW + 300, "block", "553", NOW)
    of = fleet(Stats(0, "r", NOW, troubles=(slowed, paused)), Stats(1, "r", NOW, troubles=(held,)))
    assert of.troubles == (held, paused)
    assert (of.troubles_of("a"), of.troubles_of(""), of.troubles_of("b")) == ((held,), (paused,), ())


def test_a_copy_stays_as_it_was_and_the_original_goes_on() -> None:
    bounced = Answers().with_(OTHER, 40.0).with_(BOUNCED, 60.0)
    of = fleet(Stats(0, "r", NOW, sources=(Answers().with_(OTHER, 100.0).of("a"),)))
    before = of.source("a").score
    copy = of.copy()
    of.read(Stats(0, "r", NOW + 5, sources=(bounced.of("a"),)))
    assert copy.source("a").score == before
    assert of.source("a").score < before
    copy.forget(NOW + FORGET_SECONDS + 1)
    assert copy.partitions == frozenset()
    assert of.partitions == {0}


@given(st.permutations([(0, 3, NOW), (0, 3, NOW + 5), (0, 7, NOW + 1), (1, 2, NOW), (1, 2, NOW + 9)]))
def test_the_order_in_which_records_are_read_does_not_matter(order: list[tuple[int, int, float]]) -> None:
    said = [Stats(p, f"{e}", at, (PoolStats("p", int(at - NOW) + 1, 0, 0.0, 0.0),), epoch=e) for p, e, at in order]
    assert fleet(*said).pool("p").waiting == 2 + 10


def test_a_record_that_is_the_same_on_both_sides() -> None:
    said = Stats(0, "r", NOW, (PoolStats("p", 1, 1, NOW, 0.5),), epoch=3, partitions=8)
    assert stats.decode(stats.encode(said)) == said
    with pytest.raises(Malformed):
        stats.decode(b"\x93\x01")
