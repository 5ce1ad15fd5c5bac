"""What the commands in force mean for the units of one partition: who is held, ended, sent elsewhere or tried now."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from mailfleet_core.model import ids
from mailfleet_core.model.site import domain_of
from mailfleet_core.model.wire import Cancelled, Entry
from mailfleet_router.decisions.shaping.control import BOUNCE, REROUTE, RETRY, SUSPEND, Command, Controls, Subject
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.decisions.site_queue import Held

ANY_TIME = 0.0
"""What is over is taken out of `Controls` five times a second; nobody looks at the clock for each unit."""


class Hold(NamedTuple):
    """Why a unit is not tried, for people."""

    reason: str
    until: float
    by: str


class Commands:
    """Questions about units. When there is no command, each costs one look at an empty dictionary."""

    def __init__(self, controls: Controls, entry_of: Callable[[Held], Entry]) -> None:
        self._controls = controls
        self._entry_of = entry_of
        self._holds: dict[str, Hold] = {}
        """By command id: the reason of a million units is one text."""

    def __bool__(self) -> bool:
        return bool(self._controls)

    @property
    def work(self) -> frozenset[str]:
        """Ids of the commands that are about mail that is there: all units must be looked at once for each."""
        return frozenset(given.id for given in self._controls if given.action in (BOUNCE, RETRY))

    def on_site(self, site: str) -> Hold | None:
        """What suspends a site for everybody."""
        if not self._controls.say(SUSPEND):
            return None
        given = self._controls.on_site(site)
        return self._hold(given) if given else None

    def hold(self, held: Held) -> Hold | None:
        """What suspends this unit."""
        if not self._controls.say(SUSPEND):
            return None
        found = (self._controls.hold(subject, ANY_TIME) for subject in self._subjects(held))
        given = next((given for given in found if given), None)
        return self._hold(given) if given else None

    def cancelled(self, held: Held) -> Cancelled | None:
        """What ends it, or some of its recipients."""
        if not self._controls.say(BOUNCE):
            return None
        subjects = list(self._subjects(held))
        for subject in subjects:
            given = self._controls.ending(subject, ANY_TIME)
            if given is not None:
                of_domain = len(subjects) > 1 and any(name == "domain" for name, _ in given.about)
                text = f"ended by {given.author}: {given.reason}"[:1000]
                return Cancelled(text, subject.facts.domain if of_domain else "", given.quiet)
        return None

    def hurried(self, held: Held) -> bool:
        """Is it to be tried now? Only what was not tried since the command was given: else it would be without end."""
        if not self._controls.say(RETRY):
            return False
        tried_at = self._entry_of(held).attempted_at
        found = (given for subject in self._subjects(held) for given in self._controls.on(subject, ANY_TIME))
        return any(given.action == RETRY and tried_at <= given.at for given in found)

    @property
    def narrow(self) -> bool:
        """May units of one tenant, stream and pool be commanded differently?"""
        return any(self._controls.say(field) for field in ("message", "domain", "campaign"))

    def pool(self, held: Held) -> str:
        """The pool whose sources it is to use."""
        if not self._controls.say(REROUTE):
            return held.pool
        return self._controls.pool(next(self._subjects(held)), ANY_TIME)

    def sources(self, held: Held) -> dict[str, Hold]:
        """Sources that it may not use, and why."""
        if not self._controls.say("source"):
            return {}
        found: dict[str, Command] = {}
        for subject in self._subjects(held):
            found |= self._controls.sources(subject, ANY_TIME)
        return {source: self._hold(given) for source, given in found.items()}

    def _subjects(self, held: Held) -> Iterator[Subject]:
        """The unit as commands see it; one for each domain, where a static route lets several share a unit."""
        controls = self._controls
        message = ids.text(held.key[: ids.MESSAGE_ID_BYTES]) if controls.say("message") else ""
        campaign = self._entry_of(held).unit.envelope.campaign if controls.say("campaign") else ""
        site = held.site.base if held.site else ""
        for name in self._domains(held):
            facts = Facts(held.tenant, held.stream, held.pool, "", site, "", name, campaign)
            yield Subject(facts, message, held.accepted_at)

    def _domains(self, held: Held) -> list[str]:
        if held.domain is None:
            return [""]
        if held.domain.rule.site and self._controls.say("domain"):
            return sorted({domain_of(recipient.address) for recipient in self._entry_of(held).unit.recipients})
        return [held.domain.name]

    def _hold(self, given: Command) -> Hold:
        found = self._holds.get(given.id)
        if found is None:
            if len(self._holds) > 1_000:
                self._holds.clear()
            reason = f"{given.what} is suspended: {given.reason}"
            found = self._holds[given.id] = Hold(reason, given.until, given.author)
        return found
