"""Commands over the whole cluster: one record, exactly the mail that it names."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_router.decisions.shaping.control import ACTIONS, BY, Command, Controls, Subject, command
from mailfleet_router.decisions.shaping.values import Facts, PolicyError

NAMES = st.sampled_from(["a", "b", "C"])
FACTS = st.builds(Facts, *[NAMES | st.just("")] * 8)
SUBJECTS = st.builds(Subject, FACTS, NAMES, st.floats(0, 200))
ABOUT = st.dictionaries(st.sampled_from(BY), NAMES, min_size=1)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    about = draw(ABOUT)
    action = draw(st.sampled_from(ACTIONS if "source" not in about else ("suspend",)))
    until = draw(st.sampled_from([0.0, 120.0, 180.0]))
    return command(
        draw(st.text("xyz", min_size=1, max_size=3)), action, about, "why", "who", 100.0, until, "p" * (action == "reroute")
    )  # fmt: skip


def plainly(given_: Command, subject: Subject, now: float) -> bool:
    """What `Controls.on` promises, said without an index."""
    facts = subject.facts
    values = {"message": subject.message, **facts._asdict()}
    values |= {"domain": facts.domain.lower(), "site": facts.site.lower()}
    if 0 < given_.until <= now or (given_.action in ("bounce", "retry") and subject.accepted_at > given_.at):
        return False
    return all(values[name] == value for name, value in given_.about)


@given(st.lists(commands()), SUBJECTS, st.sampled_from([100.0, 150.0, 200.0]))
def test_a_command_is_about_exactly_what_it_names(given_: list[Command], subject: Subject, now: float) -> None:
    controls = Controls()
    for one in given_:
        controls.set(one.id, one)
    standing = {one.id: one for one in given_}
    found = controls.on(subject, now)
    assert {one.id for one in found} == {one.id for one in standing.values() if plainly(one, subject, now)}


@given(st.lists(commands()), SUBJECTS)
def test_what_was_taken_back_holds_nobody(given_: list[Command], subject: Subject) -> None:
    controls = Controls()
    for one in (*given_, *given_):
        controls.set(one.id, one)
    for one in given_:
        controls.set(one.id, None)
    assert not controls
    assert controls.on(subject, 100.0) == ()


@given(commands())
def test_a_command_is_the_same_after_the_log(one: Command) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(one), type=Command) == one


@given(st.lists(commands()))
def test_what_is_over_is_forgotten_once(given_: list[Command]) -> None:
    controls = Controls()
    for one in given_:
        controls.set(one.id, one)
    over = controls.lapse(150.0)
    assert all(0 < one.until <= 150.0 for one in over)
    assert all(not 0 < one.until <= 150.0 for one in controls)
    assert controls.lapse(150.0) == ()


def test_bouncing_is_about_mail_that_was_there_and_not_about_what_comes_later() -> None:
    controls = Controls()
    purge = command("1", "bounce", {"tenant": "acme", "campaign": "spring"}, "wrong list", "ann", 100.0)
    controls.set("1", purge)
    facts = Facts(tenant="acme", campaign="spring")
    assert controls.ending(Subject(facts, "m", 99.0), 101.0) == purge
    assert controls.ending(Subject(facts, "m", 100.5), 101.0) is None
    assert controls.ending(Subject(facts._replace(campaign="summer"), "m", 99.0), 101.0) is None


def test_suspending_a_source_holds_what_would_go_from_it_only() -> None:
    controls = Controls()
    controls.set("1", command("1", "suspend", {"source": "ip-1"}, "listed", "ann", 100.0))
    assert controls.hold(Subject(Facts(source="ip-1"), "m", 0.0), 101.0)
    assert not controls.hold(Subject(Facts(source="ip-2"), "m", 0.0), 101.0)
    assert not controls.hold(Subject(Facts(), "m", 0.0), 101.0)


def test_the_last_reroute_wins() -> None:
    controls = Controls()
    controls.set("1", command("1", "reroute", {"site": "Yahoo"}, "blocked", "ann", 100.0, pool="spare"))
    controls.set("2", command("2", "reroute", {"tenant": "acme"}, "vip", "ben", 110.0, pool="gold"))
    assert controls.pool(Subject(Facts(tenant="acme", site="yahoo", pool="default"), "m", 0.0), 120.0) == "gold"
    assert controls.pool(Subject(Facts(tenant="other", site="yahoo", pool="default"), "m", 0.0), 120.0) == "spare"
    assert controls.pool(Subject(Facts(tenant="other", site="gmx", pool="default"), "m", 0.0), 120.0) == "default"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"action": "delete"}, "suspend, bounce"),
        ({"about": {}}, "by one or more of"),
        ({"about": {"ip": "x"}}, "tenant"),
        ({"about": {"tenant": ""}}, "with a name"),
        ({"reason": " "}, "why"),
        ({"author": ""}, "who"),
        ({"until": 50.0}, "before the beginning"),
        ({"action": "reroute"}, "pool"),
        ({"pool": "x"}, "pool"),
        ({"action": "bounce", "about": {"source": "ip-1"}}, "has no source"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_to_write(changed: dict, told: str) -> None:
    values = {
        "identifier": "1",
        "action": "suspend",
        "about": {"tenant": "acme"},
        "reason": "r",
        "author": "a",
        "at": 100.0,
    }
    with pytest.raises(PolicyError, match=told):
        command(**{**values, **changed})
