"""What people told the whole cluster to do with mail: one record each, however many units it is about.

A command names what it is about by any of `BY`; what it names must all be so. Suspending, and going elsewhere, hold while
the command is in force; bouncing and trying now are about mail that was accepted before the command was given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from mailfleet_core.model.wire import Malformed, Suspension
from mailfleet_router.decisions.shaping.values import Facts, PolicyError

BY = ("message", "tenant", "stream", "campaign", "domain", "site", "source", "pool")
"""What a command may name; earlier ones are the more selective, and find a command without looking at all of them."""
SUSPEND, BOUNCE, REROUTE, RETRY = "suspend", "bounce", "reroute", "retry"
ACTIONS = (SUSPEND, BOUNCE, REROUTE, RETRY)
CARRIED_OUT_SECONDS = 6 * 3600.0
"""How long a command about mail that is there stays known without an end of its own: an owner that was away then carries
it out when it comes back."""


class Command(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record of `mail.control`. Fields may only be added at the end, with a default."""

    id: str
    action: str
    about: tuple[tuple[str, str], ...]
    """(one of `BY`, the exact name, in lower case for domains and sites)."""
    reason: str
    author: str
    at: float
    """When it was given, seconds since 1970."""
    until: float = 0.0
    """When it ends; 0: when it is taken back."""
    pool: str = ""
    """reroute: where to."""
    quiet: bool = False
    """bounce: senders are not told."""

    @property
    def what(self) -> str:
        """What it is about, for people."""
        return ", ".join(f"{name} {value}" for name, value in self.about)


class Subject(NamedTuple):
    """A unit, as commands see it."""

    facts: Facts
    message: str
    accepted_at: float


_decoder = msgspec.msgpack.Decoder(Command)


def decode(value: bytes) -> Command:
    """The command in a record of `mail.control` under `command|…`. Raises Malformed."""
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError as error:
        raise Malformed(f"not a command: {error}") from error


def suspensions(kind: str, name: str, said: Suspension | None) -> dict[str, Command | None]:
    """What a record under `suspend|kind|name` means, by command id. `site` is the name of a site or of a domain, so that
    it becomes two commands."""
    found: dict[str, Command | None] = {}
    for field in ("site", "domain") if kind == "site" else (kind,):
        key = f"suspend|{kind}|{name}|{field}"
        about = ((field, _spelled(field, name)),)
        found[key] = Command(key, SUSPEND, about, said.reason, said.author, said.at, said.until) if said else None
    return found


def command(
    identifier: str, action: str, about: dict[str, str], reason: str, author: str, at: float, until: float = 0.0, pool: str = ""
) -> Command:  # fmt: skip
    """A valid command. Raises PolicyError with what to write instead."""
    if action not in ACTIONS:
        raise PolicyError(f"there is no action {action!r}; it is one of {', '.join(ACTIONS)}")
    unknown = [name for name in about if name not in BY]
    if unknown or not about or not all(about.values()):
        raise PolicyError(f"say what it is about by one or more of {', '.join(BY)}, each with a name")
    if not reason.strip() or not author.strip():
        raise PolicyError("say why, and who you are: others will read it")
    if 0 < until <= at:
        raise PolicyError("the end lies before the beginning")
    if (action == REROUTE) != bool(pool):
        raise PolicyError("reroute, and nothing else, needs the pool to go to")
    if "source" in about and action != SUSPEND:
        raise PolicyError(f"mail that waits has no source yet; {action} by tenant, pool, site, …")
    if not until and action in (BOUNCE, RETRY):
        until = at + CARRIED_OUT_SECONDS
    told = tuple(sorted((name, _spelled(name, value)) for name, value in about.items()))
    return Command(identifier, action, told, reason, author, at, until, pool)


def _spelled(name: str, value: str) -> str:
    return value.lower() if name in ("domain", "site") else value


class Controls:
    """All commands in force. When there are none, asking costs one look at an empty dictionary."""

    def __init__(self) -> None:
        self._commands: dict[str, Command] = {}
        self._index: dict[tuple[str, str], dict[str, Command]] = {}
        """By the most selective thing that a command names."""
        self._said: Counter[str] = Counter()
        """How many commands there are of an action, and how many that name a field."""

    def __bool__(self) -> bool:
        return bool(self._commands)

    def __iter__(self) -> Iterator[Command]:
        return iter(self._commands.values())

    def say(self, word: str) -> bool:
        """Is there a command of this action, or one that names this field?"""
        return self._said[word] > 0

    def set(self, identifier: str, given: Command | None) -> None:
        """A command came, or (None) was taken back. Said twice it changes nothing."""
        old = self._commands.pop(identifier, None)
        if old is not None:
            self._said.subtract(_words(old))
            place = self._index[_place(old)]
            del place[identifier]
            if not place:
                del self._index[_place(old)]
        if given is not None:
            self._commands[identifier] = given
            self._said.update(_words(given))
            self._index.setdefault(_place(given), {})[identifier] = given

    def lapse(self, now: float) -> tuple[Command, ...]:
        """Forget what is over, and return it."""
        over = tuple(given for given in self._commands.values() if 0 < given.until <= now)
        for given in over:
            self.set(given.id, None)
        return over

    def on(self, subject: Subject, now: float) -> tuple[Command, ...]:
        """Everything in force about this unit, the first given first. `facts.source` empty: what holds from any source."""
        if not self._commands:
            return ()
        names, found = _names(subject), []
        for named in names.items():
            for given in self._index.get(named, _NONE).values():
                if not 0 < given.until <= now and _about(given, names, subject.accepted_at):
                    found.append(given)
        if len(found) > 1:
            found.sort(key=lambda given: (given.at, given.id))
        return tuple(found)

    def hold(self, subject: Subject, now: float) -> Command | None:
        """What suspends this unit, whatever its source."""
        return next((given for given in self.on(subject, now) if given.action == SUSPEND), None)

    def on_site(self, site: str) -> Command | None:
        """What suspends a site for everybody."""
        given = self._index.get(("site", site), {}).values()
        return next((one for one in given if one.action == SUSPEND and len(one.about) == 1), None)

    def sources(self, subject: Subject, now: float) -> dict[str, Command]:
        """Sources that this unit may not use, each with what suspends it."""
        names, found = _names(subject), {}
        for given in self._commands.values():
            source = (
                dict(given.about).get("source", "") if given.action == SUSPEND and not 0 < given.until <= now else ""
            )
            if source and _about(given, {**names, "source": source}, subject.accepted_at):
                found[source] = given
        return found

    def ending(self, subject: Subject, now: float) -> Command | None:
        """What bounces it."""
        return next((given for given in self.on(subject, now) if given.action == BOUNCE), None)

    def pool(self, subject: Subject, now: float) -> str:
        """The pool it is to use: its own, or where the last command sent it."""
        moves = [given for given in self.on(subject, now) if given.action == REROUTE]
        return moves[-1].pool if moves else subject.facts.pool


def _words(given: Command) -> tuple[str, ...]:
    return (given.action, *(name for name, _ in given.about))


def _place(given: Command) -> tuple[str, str]:
    return min(given.about, key=lambda named: BY.index(named[0]))


def _names(subject: Subject) -> dict[str, str]:
    """What the unit is called by each of `BY`; a million units ask, so nothing is left out that is empty."""
    facts = subject.facts
    return {
        "message": subject.message, "tenant": facts.tenant, "stream": facts.stream, "campaign": facts.campaign,
        "domain": facts.domain.lower(), "site": facts.site.lower(), "source": facts.source, "pool": facts.pool,
    }  # fmt: skip


def _about(given: Command, names: dict[str, str], accepted_at: float) -> bool:
    if accepted_at > given.at and given.action in (BOUNCE, RETRY):
        return False
    for name, value in given.about:  # noqa: SIM110 - all() costs as much again
        if names.get(name) != value:
            return False
    return True


_NONE: dict[str, Command] = {}
