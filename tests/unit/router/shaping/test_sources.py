"""Sources of the log: they come, go, drain and return while mail waits, and nothing is refilled for it."""

from __future__ import annotations

from itertools import count

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from mailfleet_core.model import ids, wire
from mailfleet_core.model.sources import Table
from mailfleet_core.model.wire import DRAINING, QUARANTINED, Pool, Route, Source
from mailfleet_router.decisions.policy import Policy, of_table
from mailfleet_router.decisions.shaping import policy_file, telling
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.shaper import NO_SOURCE, Shaper, Wait
from mailfleet_router.decisions.shaping.warmup import DAY
from mailfleet_router.decisions.shaping.ways import Go
from mailfleet_router.decisions.shaping.why import Reason

MORNING = 20_000 * DAY + 3600.0
LIMITS = """
version: 1
base: none
providers: [{name: big, mx: ["*.big.example"]}]
limits: [{name: receivers, per: [source, site], cases: [{message_rate: "10/10s", burst: 2, concurrency: 30}]}]
streams: [{name: otp, priority: 0}, {name: bulk, priority: 1}]
warmup: [{name: gentle, day_caps: [10, 1000], hour_share: 1.0}]
"""
UNLIMITED = LIMITS.replace("10/10s", "1000/s").replace("burst: 2", "burst: 1000")
ONE, TWO = Source("ip-1", "default", lanes=(0,)), Source("ip-2", "default", lanes=(1,))
SPARE = Source("ip-9", "spare", lanes=(2,))


class Office:
    """One owner's shaping of one site, whose sources come from the log."""

    def __init__(self, *sources: Source, text: str = LIMITS, overflow: str = "") -> None:
        self.table, self.now = Table(4), MORNING
        self.rules = Rules(policy_file.read(text, "test"))
        self.shaper = Shaper(self.rules, self.policy())
        self.shaper.since = self.now - 60
        self.site = self.shaper.site("big", ("mx.big.example",), "big.example", Route("mx", ()))
        self.numbers = count()
        self.out: list[bytes] = []
        if overflow:
            self.table.read(b"pool|default", wire.encode(Pool("default", overflow)))
        self.say(*sources)

    def policy(self) -> Policy:
        return Policy(shaping=self.rules, **of_table(self.table, ()))

    def say(self, *sources: Source) -> None:
        for source in sources:
            self.table.read(b"source|" + source.name.encode(), wire.encode(source))
        self.shaper.obey(self.rules, self.policy(), self.now)

    def remove(self, name: str) -> None:
        self.table.read(b"source|" + name.encode(), None)
        self.shaper.obey(self.rules, self.policy(), self.now)

    def facts(self, tenant: str, stream: str):  # type: ignore[no-untyped-def]
        return self.shaper.facts(self.site, tenant, stream, "default", "big.example")

    def offer(self, tenant: str = "shop", stream: str = "otp") -> Go | Wait:
        facts = self.facts(tenant, stream)
        go = self.shaper.admit(self.site, facts, Route("mx", ((0, "mx.big.example"),)), self.now)
        if isinstance(go, Go):
            unit = ids.unit_id(ids.message_id(self.now, next(self.numbers).to_bytes(10, "big")), 0)
            self.shaper.take(unit, go, facts, self.site, self.now)
            self.out.append(unit)
        for warm in self.shaper.wanting.values():
            if warm.reserve(self.now):
                warm.durable()
        self.shaper.wanting.clear()
        return go

    def sent(self, tries: int = 60, **mail: str) -> list[str]:
        """By which sources as much goes at once as may go, when what was out has come back."""
        while self.out:
            self.shaper.freed(self.out.pop())
        gone = [self.offer(**mail) for _ in range(tries)]
        return [go.path.facts.source for go in gone if isinstance(go, Go)]

    def why(self, stream: str = "otp") -> list[Reason]:
        return telling.why(self.shaper, self.site, self.facts("shop", stream), self.now)


def changed(source: Source, **changes: object) -> Source:
    return msgspec.structs.replace(source, **changes)


def test_a_source_that_drains_gets_nothing_new_and_mail_goes_by_the_others() -> None:
    office = Office(ONE, TWO, text=UNLIMITED)
    assert set(office.sent(tenant="a") + office.sent(tenant="b")) == {"ip-1", "ip-2"}
    office.say(changed(ONE, state=DRAINING))
    assert set(office.sent(tenant="a") + office.sent(tenant="b")) == {"ip-2"}
    office.remove("ip-1")
    assert set(office.sent(tenant="a")) == {"ip-2"}
    office.say(ONE)
    assert "ip-1" in {source for number in range(8) for source in office.sent(2, tenant=f"t{number}")}


def test_a_tenant_keeps_its_source_when_others_come_and_go() -> None:
    office = Office(ONE, TWO, text=UNLIMITED)
    (kept,) = set(office.sent(5))
    office.say(Source("ip-3", "default", 50, lanes=(3,)))
    assert set(office.sent(5)) == {kept}
    other = "ip-1" if kept == "ip-2" else "ip-2"
    office.remove(other)
    assert set(office.sent(5)) == {kept}


SAID = st.one_of(
    st.tuples(st.just("say"), st.sampled_from([wire.ACTIVE, DRAINING, QUARANTINED]), st.sampled_from(["ip-1", "ip-2"])),
    st.tuples(st.just("remove"), st.just(""), st.sampled_from(["ip-1", "ip-2"])),
    st.tuples(st.just("lanes"), st.sampled_from(["0", "03", ""]), st.just("ip-1")),
    st.tuples(st.just("offer"), st.sampled_from("ab"), st.just("")),
    st.tuples(st.just("offer"), st.sampled_from("ab"), st.just("")),
    st.tuples(st.just("answer"), st.just(""), st.just("")),
    st.tuples(st.just("wait"), st.sampled_from(["0.1", "1", "7"]), st.just("")),
)


@settings(max_examples=150)
@given(st.lists(SAID, min_size=20, max_size=120))
def test_nothing_is_refilled_however_sources_come_and_go(steps: list[tuple[str, str, str]]) -> None:
    office = Office(ONE, TWO)
    gone: dict[str, list[float]] = {"ip-1": [], "ip-2": []}
    for step, what, name in steps:
        if step == "say":
            office.say(changed(ONE if name == "ip-1" else TWO, state=what))
        elif step == "remove" and name in office.table.sources:
            office.remove(name)
        elif step == "lanes":
            office.say(changed(ONE, lanes=tuple(int(lane) for lane in what)))
        elif step == "wait":
            office.now += float(what)
        elif step == "answer" and office.out:
            office.shaper.freed(office.out.pop(0))
        elif step == "offer":
            go = office.offer(what)
            if isinstance(go, Go):
                source = go.path.facts.source
                assert office.table.takes(source, go.lane)
                gone[source].append(office.now)
        assert sum(path.in_flight for path in office.site.paths.values()) == len(office.out)
    for instants in gone.values():
        for first, begin in enumerate(instants):
            for last in range(first, len(instants)):
                assert last - first + 1 <= (instants[last] - begin) + 2 + 1e-3


def test_mail_of_a_pool_that_drains_goes_by_its_overflow_pool() -> None:
    office = Office(ONE, SPARE, text=UNLIMITED, overflow="spare")
    assert set(office.sent(3)) == {"ip-1"}
    office.say(changed(ONE, state=DRAINING))
    assert set(office.sent(3) + office.sent(3, stream="bulk")) == {"ip-9"}
    office.say(ONE)
    assert set(office.sent(3)) == {"ip-1"}


def test_bulk_mail_does_not_flee_from_a_pool_in_quarantine() -> None:
    office = Office(changed(ONE, state=QUARANTINED, reason="listed", by="ann"), SPARE, text=UNLIMITED, overflow="spare")
    assert set(office.sent(3)) == {"ip-9"}
    waits = office.offer(stream="bulk")
    assert isinstance(waits, Wait)
    assert (waits.by, waits.reason) == (
        NO_SOURCE, "pool default has no source that takes mail: ip-1 is quarantined: listed (ann)",
    )  # fmt: skip
    (reason,) = office.why("bulk")
    assert (reason.text, reason.where) == (waits.reason, "pool default in `mailfleet sources`")
    assert office.why("otp") == []


def test_mail_waits_without_a_source_and_why_says_who_closed_it() -> None:
    office = Office(changed(ONE, state=DRAINING, reason="new network", by="ann"))
    assert isinstance(office.offer(), Wait)
    assert [reason.text for reason in office.why()] == [
        "pool default has no source that takes mail: ip-1 is draining: new network (ann)"
    ]


def test_where_the_others_wait_too_why_also_names_the_closed_ones() -> None:
    office = Office(ONE, changed(TWO, state=QUARANTINED, reason="listed"))
    office.sent()
    assert [(reason.by, reason.text) for reason in office.why()][1:] == [("closed", "ip-2 is quarantined: listed")]


def test_a_pool_that_nobody_knows_is_the_default_one() -> None:
    policy = Office(ONE).policy()
    assert policy.pool("gone") == policy.pool("default") == (("ip-1", 1),)


def test_a_source_warms_up_by_the_plan_that_the_log_names() -> None:
    office = Office(changed(ONE, warmup="gentle", started_at=MORNING), text=UNLIMITED)
    office.offer()
    assert len(office.sent(30)) == 5, "half of the plan's ten, for a provider that is none of the big four"
    office.say(ONE)
    assert len(office.sent(30)) == 30


def test_a_warm_up_that_begins_anew_is_at_its_first_stage_and_refills_nothing() -> None:
    office = Office(changed(ONE, warmup="gentle", started_at=MORNING), text=UNLIMITED)
    office.offer()
    assert len(office.sent(30)) == 5
    office.say(changed(ONE, warmup="gentle", started_at=MORNING + 60))
    assert office.sent(30) == []
    warm = office.shaper.warms["warmup|ip-1|big"]
    warm.state = msgspec.structs.replace(warm.state, stage=1)
    office.now += DAY
    office.offer()
    assert len(office.sent(30)) > 5
    office.say(changed(ONE, warmup="gentle", started_at=office.now))
    assert (warm.state.stage, office.sent(30)) == (0, [])


def test_a_warm_up_of_which_the_last_owner_wrote_goes_on_unless_another_one_began() -> None:
    office = Office(changed(ONE, warmup="gentle", started_at=MORNING), text=UNLIMITED)
    office.offer()
    office.sent(30)
    written = {key: warm.state for key, warm in office.shaper.warms.items()}
    for began, stage in ((MORNING, 1), (MORNING + 60, 0)):
        heir = Office(text=UNLIMITED)
        for key, state in written.items():
            heir.shaper.warm_states[key] = msgspec.msgpack.encode(msgspec.structs.replace(state, stage=1))
        heir.say(changed(ONE, warmup="gentle", started_at=began))
        heir.offer()
        assert heir.shaper.warms["warmup|ip-1|big"].state.stage == stage
