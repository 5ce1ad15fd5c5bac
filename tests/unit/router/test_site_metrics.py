"""Metrics of the busiest sites: bounded, taken away in time, and fair where it was fair."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from mailfleet_core import metrics
from mailfleet_core.model.wire import Event
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.shaping import reputation
from mailfleet_router.decisions.shaping.fairness import Fair
from mailfleet_router.decisions.shaping.last_minute import LastMinute
from mailfleet_router.decisions.shaping.standings import Standings
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.decisions.site_queue import READY, Held, SiteQueue
from mailfleet_router.shell.site_metrics import COUNTED_SITES, OTHERS, REPUTATIONS, SITES, SiteMetrics


def site(name: str, ready: int = 1, tenants: tuple[str, ...] = ("shop",), in_flight: int = 0) -> SiteQueue:
    found = SiteQueue(name, 0.0)
    found.ready = Fair()
    for number in range(ready):
        held = Held(b"u", b"", b"P", 0, state=READY, tenant=tenants[number % len(tenants)])
        found.ready.add(held, held.tenant)
    found.units, found.in_flight = ready + in_flight, in_flight
    return found


def partition(*sites: SiteQueue, standings: Standings | None = None) -> list[Partition]:
    scheduler = SimpleNamespace(sites={each.name: each for each in sites})
    shaper = SimpleNamespace(learned=SimpleNamespace(standings=standings or Standings()))
    return [cast(Partition, SimpleNamespace(scheduler=scheduler, shaper=shaper))]


def shown(gauge: object) -> dict[tuple[str, ...], float]:
    (family,) = gauge.collect()  # type: ignore[attr-defined]
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def served(minute: LastMinute, **tenants: int) -> None:
    minute.note(
        Event(b"u", "attempted", 0.0, tenant=tenant, site="mx", source="ip-1")
        for tenant, count in tenants.items()
        for _ in range(count)
    )


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    """Routers of other tests have told of their sites."""
    ours = (metrics.SITE_UNITS, metrics.SITE_FAIRNESS, metrics.SITE_RECIPIENTS, metrics.SOURCE_RECIPIENTS,
            metrics.REPUTATION_SCORE, metrics.REPUTATION_STATE)  # fmt: skip
    for each in ours:
        each.clear()
    yield
    for each in ours:
        each.clear()


def test_only_the_busiest_sites_have_series_and_the_rest_lose_them() -> None:
    told = SiteMetrics(LastMinute(0.0))
    told.tell(partition(*(site(f"mx{number}", ready=number + 1) for number in range(SITES + 10))), 10.0)
    assert len(shown(metrics.SITE_UNITS)) == 3 * SITES
    assert ("mx0", "ready") not in shown(metrics.SITE_UNITS)
    told.tell(partition(site("mx0", ready=2, in_flight=3)), 20.0)
    assert shown(metrics.SITE_UNITS) == {("mx0", "ready"): 2, ("mx0", "in_flight"): 3, ("mx0", "waiting"): 0}


def test_fairness_is_told_once_several_tenants_have_waited_for_a_minute() -> None:
    minute = LastMinute(0.0)
    told = SiteMetrics(minute)
    queue = partition(site("mx", ready=6, tenants=("bulk", "shop")))
    for now in (10.0, 31.0, 62.0):
        assert shown(metrics.SITE_FAIRNESS) == {}
        served(minute, bulk=9, shop=1)
        told.tell(queue, now)
    told.tell(queue, 70.0)
    assert shown(metrics.SITE_FAIRNESS) == {("mx",): pytest.approx((18 + 2) ** 2 / (2 * (18**2 + 2**2)))}


def test_a_tenant_alone_has_no_fairness() -> None:
    told = SiteMetrics(LastMinute(0.0))
    for now in (10.0, 31.0, 62.0, 70.0):
        told.tell(partition(site("mx", ready=6)), now)
    assert shown(metrics.SITE_FAIRNESS) == {}


def ended(minute: LastMinute, site: str, source: str, verdict: str, recipients: int = 1) -> None:
    minute.note([Event(b"u", verdict, 0.0, site=site, source=source, recipients=("a@example.org",) * recipients)])


def test_what_attempts_came_to_is_counted_by_site_and_by_source() -> None:
    minute = LastMinute(0.0)
    told = SiteMetrics(minute)
    ended(minute, "google", "ip-1", "delivered", 3)
    ended(minute, "google", "ip-2", "deferred")
    told.tell([], 10.0)
    ended(minute, "yahoo", "ip-1", "delivered")
    told.tell([], 20.0)
    sites, sources = totals(metrics.SITE_RECIPIENTS), totals(metrics.SOURCE_RECIPIENTS)
    assert sites == {("google", "delivered"): 3, ("google", "deferred"): 1, ("yahoo", "delivered"): 1}
    assert sources == {("ip-1", "delivered"): 4, ("ip-2", "deferred"): 1}


def test_however_many_sites_there_are_their_counters_are_few_and_nothing_is_left_out() -> None:
    minute = LastMinute(0.0)
    told = SiteMetrics(minute)
    for number in range(COUNTED_SITES + 50):
        ended(minute, f"mx{number}", "ip-1", "delivered", 2 if number == COUNTED_SITES + 40 else 1)
    told.tell([], 10.0)
    found = totals(metrics.SITE_RECIPIENTS)
    assert len(found) == COUNTED_SITES + 1
    assert found[f"mx{COUNTED_SITES + 40}", "delivered"] == 2, "the busiest one has a counter of its own"
    assert found[OTHERS, "delivered"] == 50
    assert sum(found.values()) == COUNTED_SITES + 51


def judged(pairs: dict[tuple[str, str], int]) -> Standings:
    """Sources with so many block replies at sites."""
    standings = Standings()
    for (source, site), blocks in pairs.items():
        stands = standings.of(Facts(source=source, site=site, provider=site), False)
        for kind in [reputation.BLOCKED] * blocks + [reputation.OTHER] * 100:
            standings.add(stands, kind)
    standings.tick(1000.0, reputation.USUAL)
    return standings


def test_the_reputation_of_the_pairs_that_stand_worst_is_told() -> None:
    pairs = {("ip-1", "google"): 60, ("ip-2", "google"): 0}
    SiteMetrics(LastMinute(0.0)).tell(partition(standings=judged(pairs)), 10.0)
    scores, states = shown(metrics.REPUTATION_SCORE), shown(metrics.REPUTATION_STATE)
    assert scores["ip-1", "google"] < 40 < 90 < scores["ip-2", "google"]
    assert states == {("ip-1", "google"): reputation.QUARANTINE, ("ip-2", "google"): reputation.GOOD}


def test_of_very_many_pairs_only_the_worst_have_series() -> None:
    many = {(f"ip-{number}", "google"): 60 * (number % 7 == 0) for number in range(REPUTATIONS + 70)}
    SiteMetrics(LastMinute(0.0)).tell(partition(standings=judged(many)), 10.0)
    states = shown(metrics.REPUTATION_STATE)
    assert len(states) == REPUTATIONS
    assert sum(state == reputation.QUARANTINE for state in states.values()) == sum(map(bool, many.values()))


def totals(counter: object) -> dict[tuple[str, ...], float]:
    (family,) = counter.collect()  # type: ignore[attr-defined]
    return {tuple(s.labels.values()): s.value for s in family.samples if s.name.endswith("_total")}
