"""What happened in the last minute: counted once, forgotten in time, bounded."""

from __future__ import annotations

import pytest

from mailfleet_core.model.wire import Event
from mailfleet_router.decisions.shaping import last_minute
from mailfleet_router.decisions.shaping.last_minute import LastMinute, fairness

TO = ((0, "a@example.org"), (1, "b@example.org"))


def tried(site: str = "mx", source: str = "ip-1", tenant: str = "shop", at: float = 0.0) -> Event:
    return Event(b"u" * 18, "attempted", at, TO, 1, 0, tenant, "bulk", site, source)


def ended(kind: str, code: int, text: str, at: float, source: str = "ip-1") -> Event:
    return Event(b"u" * 18, kind, at, TO, 1, 0, "shop", "bulk", "mx", source, code, "", text, "rcpt", "mx1.example.org")


def test_attempts_are_counted_by_source_and_by_tenant_and_recipients_by_verdict() -> None:
    minute = LastMinute(0.0)
    minute.note(
        [tried(), tried(source="ip-2"), tried(tenant="news"), tried(site="other"), ended("deferred", 451, "x", 1)]
    )
    seen = minute.site("mx", 10.0)
    assert (seen.attempts, seen.tenants) == ({"ip-1": 2, "ip-2": 1}, {"shop": 2, "news": 1})
    assert (seen.outcomes, seen.per_second) == ({"deferred": 2}, pytest.approx(0.3))
    assert minute.sources() == {"ip-1": {"attempts": 3, "deferred": 2}, "ip-2": {"attempts": 1}}


def test_what_is_older_than_a_minute_is_forgotten() -> None:
    minute = LastMinute(0.0)
    minute.note([tried()])
    assert not minute.turn(29.0)
    assert minute.turn(30.0)
    assert minute.site("mx", 59.0).per_second == pytest.approx(1 / 59)
    assert minute.turn(60.0)
    assert minute.site("mx", 61.0).attempts == {}
    assert minute.seconds(61.0) == pytest.approx(31.0)


def test_after_a_long_silence_nothing_is_left_and_the_rate_is_of_a_minute() -> None:
    minute = LastMinute(0.0)
    minute.note([tried()])
    minute.turn(4000.0)
    assert minute.site("mx", 4000.0).attempts == {}
    assert minute.seconds(4000.0) == last_minute.HALF_SECONDS


def test_the_last_reply_of_each_class_is_kept() -> None:
    minute = LastMinute(0.0)
    minute.note(
        [ended("deferred", 451, "first", 1), ended("deferred", 421, "second", 2), ended("delivered", 250, "ok", 3)]
    )
    minute.note([ended("deferred", 0, "connection refused", 4)])
    replies = minute.site("mx", 5.0).replies
    assert {group: reply.text for group, reply in replies.items()} == {
        "4xx": "second", "2xx": "ok", "none": "connection refused",
    }  # fmt: skip


def test_memory_is_bounded_whatever_the_sites(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_minute, "MAX_KEYS", 10)
    monkeypatch.setattr(last_minute, "MAX_SITES", 10)
    minute = LastMinute(0.0)
    for number in range(100):
        site = f"mx{number}"
        minute.note([tried(site=site), Event(b"", "delivered", 0.0, TO, site=site, source="ip-1", code=250)])
    assert sum(bool(minute.site(f"mx{number}", 1.0).attempts) for number in range(100)) == 10
    assert minute.site("mx99", 1.0).replies
    assert sum(bool(minute.site(f"mx{number}", 1.0).replies) for number in range(100)) == 10


@pytest.mark.parametrize(
    ("served", "weights", "index"),
    [
        ({"a": 5, "b": 5}, {"a": 1.0, "b": 1.0}, 1.0),
        ({"a": 10}, {"a": 1.0, "b": 1.0}, 0.5),
        ({"a": 30, "b": 10}, {"a": 3.0, "b": 1.0}, 1.0),
    ],
)
def test_fairness_is_of_what_tenants_got_by_their_weight(
    served: dict[str, int], weights: dict[str, float], index: float
) -> None:
    assert fairness(served, weights) == pytest.approx(index)
