"""One queue partition, owned: records, results and time in; what to write, ask and tell out.

Nothing here waits. The order of things is kept by the log itself: what this object writes to its own partition it acts
on when it reads it back (`fold`), because only then is it certain that no newer claim lies before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from sys import intern

import msgspec

from mailfleet_core.model import wire
from mailfleet_core.model.shards import site_of
from mailfleet_core.model.site import partition_of
from mailfleet_core.model.tags import ATTEMPT, CLAIM, DONE, NOTE, PUT, RETRY, tag
from mailfleet_core.model.wire import BOUNCED, Dispatch, Entry, Malformed, Result
from mailfleet_router.decisions import story
from mailfleet_router.decisions.commands import Hold
from mailfleet_router.decisions.hot_sites import NOTHING, HotSites
from mailfleet_router.decisions.journal import Pending, Waiting
from mailfleet_router.decisions.outbox import Append
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.progress import Progress
from mailfleet_router.decisions.retry import next_attempt, spread
from mailfleet_router.decisions.routing import HOPELESS, KNOWN, TEMPORARY, Domain, Routing
from mailfleet_router.decisions.settle import Ending, settle
from mailfleet_router.decisions.shaped import Shaped
from mailfleet_router.decisions.shaping.control import Controls
from mailfleet_router.decisions.shaping.learned import Wide
from mailfleet_router.decisions.shaping.leasing import holder_name
from mailfleet_router.decisions.shaping.shaper import LOOK_AGAIN_SECONDS, NO_SOURCE, UNIT, Wait
from mailfleet_router.decisions.shaping.ways import Go, Leases
from mailfleet_router.decisions.site_queue import (
    ATTEMPTING,
    ENDING,
    FOLDED,
    IN_FLIGHT,
    RESOLVING,
    TOLD,
    Held,
    SiteQueue,
)  # fmt: skip
from mailfleet_router.decisions.spill.space import Spill
from mailfleet_router.decisions.spill.store import Finder
from mailfleet_router.decisions.splitting import divide

Record = tuple[int, bytes, bytes, bytes | None]
"""Offset, key, tag, value: what the bus gives."""

UNIT_STATES = b"".join((ATTEMPT, RETRY, DONE))
"""Kinds of records that only an owner writes."""
MAX_HOPS = 8
"""A domain whose answers change all the time stays where it is after so many moves."""
PUMP_UNITS = 500
"""Attempts begun in one go: results and new mail are looked at in between."""
GIVE_BACK_SECONDS = 0.2
"""Before a unit is offered again that a sender did not try."""
NOT_OUT_SECONDS = 5.0
"""The same where our own way out failed: long enough to tell a proxy that restarts from one that is gone."""
TAKE_UP_UNITS = 200
"""Units of the fold taken up in one go: they come to their turn while the partition is live."""


class Partition(Shaped):
    """All decisions about the units of one queue partition."""

    def __init__(
        self, number: int, partitions: int, policy: Policy, routing: Routing, controls: Controls, wide: Wide | None = None,
        leases: Leases | None = None, spill: Spill | None = None,
    ) -> None:  # fmt: skip
        super().__init__(number, policy, controls, wide or Wide(), leases, spill)
        self.partitions = partitions
        self.routing = routing
        self.live = False
        self.hot = HotSites(routing.shards, number, partitions, self.shaper)
        self._told_again: frozenset[bytes] = frozenset()
        self._taking_up = False
        self._suspects: dict[bytes, None] = {}
        self._asked: dict[str, list[Held]] = {}
        self._back = 0
        """Records of ours that came back."""
        self._skipped: deque[tuple[int, list[int]]] = deque()
        """(records of ours that were written before, result) of results without effects."""
        self.ledger.store.finder = Finder(self._site, self._domain)

    def _site(self, name: str) -> SiteQueue:
        return self.scheduler.site(name, 0.0)

    def _domain(self, name: str) -> Domain:
        return self.routing.domain("@" + name)

    # --- becoming the owner --------------------------------------------------------------------------------------
    def claimed(self, epoch: int, position: int) -> None:
        """Our claim is in the log at offset `epoch`; results are read from `position`."""
        self.epoch, self._mine = epoch, epoch.to_bytes(8, "big")
        self.progress = Progress(position)
        self.shaper.holder = holder_name(self.number, epoch)

    @property
    def folded(self) -> bool:
        """Has the fold reached our own claim?"""
        return self.ledger.newest >= self.epoch >= 0

    def restore(self, now: float) -> None:
        """The fold is complete: take up the units in flight, which may get their results now (`results`)."""
        self.shaper.since = now
        self._states.restore(now)
        for held in [held for held in self.ledger.units.values() if held.kind == ATTEMPT]:
            self._take_up(held, now)
        self.live = True

    def resume(self, now: float) -> None:
        """The results that lay there are known: go on with everything, what waits little by little (`tick`)."""
        for key in self._suspects:
            self._repair(key, 0)
        self._suspects.clear()
        for held in list(self.ledger.units.values()):
            if held.state == IN_FLIGHT:
                self._dispatch_again(held)
        if self.commands:
            self.commanded(now)
        self._told_again = frozenset(self.ledger.newest_puts)
        self.ledger.newest_puts.clear()
        self._taking_up = True

    @property
    def taking_up(self) -> bool:
        """Are there units of the fold that are not taken up yet?"""
        return self._taking_up

    def _take_up_some(self, now: float) -> None:
        folded, units = self.ledger.folded, self.ledger.units
        for _ in range(min(TAKE_UP_UNITS, len(folded))):
            held = folded.popleft()
            if held.state != FOLDED or units.get(held.key) is not held:
                continue
            entry = self._take_up(held, now)
            if entry is not None:
                if held.key in self._told_again and held.kind == PUT:
                    self._begin_story(held, entry, now)
                if self.commands:
                    self._walk.append(held.key)
                self._go_on(held, now, entry)
        if not folded:
            self._taking_up, self._told_again = False, frozenset()

    # --- the log -------------------------------------------------------------------------------------------------
    def fold(self, records: Iterable[Record], now: float) -> None:
        """Records of the queue partition, in order."""
        self.ledger.store.count()
        for offset, key, mark, value in records:
            if self.stopped:
                return
            kind = mark[:1]
            if kind == CLAIM and self.epoch >= 0 and offset > self.epoch:
                self.stopped = True
            elif not self.live:
                if kind != NOTE and self.ledger.replay(offset, key, mark, value):
                    self._suspects[key] = None
            elif kind == PUT:
                self._put(key, mark, value, now)
            elif kind not in UNIT_STATES:
                pass
            elif mark[1:9] == self._mine:
                self._came_back(self._pending.popleft(), key, now)
            else:
                self.out.counts.append(("stale", "mail.queue", "", 1))
                self._repair(key, int.from_bytes(mark[9:11], "big"))

    def results(self, records: Iterable[Record], now: float) -> None:
        """Records of the result partition, in order."""
        for offset, key, _, value in records:
            if self.stopped:
                return
            held = self.ledger.units.get(key)
            if held is None or held.state != IN_FLIGHT or value is None:
                self._skip(offset)
                continue
            try:
                result = wire.decode(Result, value)
            except Malformed:
                self.out.counts.append(("malformed", "mail.result", "", 1))
                self._skip(offset)
                continue
            if result.attempt != held.attempts or result.hop != held.hop:
                self._skip(offset)
            else:
                self._settle(held, result, offset, now)

    def _skip(self, offset: int) -> None:
        """A result without effects was read. It is dealt with when a record of ours has come back that was written later:
        who lost the partition, and has not read so far, would hide the result from the new owner."""
        self._skipped.append((self._back + len(self._pending), self.progress.begin(offset)))

    def resolved(self, name: str, now: float) -> None:
        """There is news of a domain (see `Routing.answered`)."""
        for held in self._asked.pop(name, ()):
            if held.state == RESOLVING:
                held.domain = self.routing.domain("@" + name)
                self._place(held, now)

    def tick(self, now: float, may_send: bool = True) -> None:
        """Time passes: due units become ready, ready ones are offered to senders."""
        if self.stopped or not self.live:
            return
        if self._taking_up:
            self._take_up_some(now)
        for held in self.scheduler.due(now):
            self._place(held, now)
        if may_send:
            self._carry_out(now)
            self.scheduler.pump(now, PUMP_UNITS, lambda held, site: self._attempt(held, site, now))
        self._look_at_learned(now)
        self.hot.tick()

    # --- units come ----------------------------------------------------------------------------------------------
    def _put(self, key: bytes, mark: bytes, value: bytes | None, now: float) -> None:
        hop = int.from_bytes(mark[9:11], "big")
        held = self.ledger.put(key, hop, value)
        if held is None:
            if self.ledger.knows(key, hop):
                # Compaction would keep this repetition and forget what became of the unit.
                self._repair(key, hop)
            return
        entry = self._take_up(held, now)
        if entry is not None:
            self._keep_decoded(held, entry)
            self._begin_story(held, entry, now)
            self._go_on(held, now, entry)

    def _take_up(self, held: Held, now: float) -> Entry | None:
        """Fill in what the bytes of a unit say."""
        try:
            entry = wire.decode(Entry, held.raw)
            unit, envelope = entry.unit, entry.unit.envelope
            held.domain = self.routing.domain(unit.recipients[0].address)
        except (Malformed, IndexError):
            # It stays in the log for people to look at, and does not stop the others.
            del self.ledger.units[held.key]
            self.out.counts.append(("malformed", "mail.queue", "", 1))
            return None
        held.attempts, held.due_at, held.lane = entry.attempts, entry.due_at, entry.lane
        held.accepted_at, held.expires_at = envelope.accepted_at, envelope.expires_at
        held.tenant, held.pool, held.stream = intern(envelope.tenant), intern(envelope.pool), intern(envelope.stream)
        held.delay, held.since = TOLD if entry.delay_reported else 0, now
        held.site = self.scheduler.site(unit.site, now)
        held.site.units += 1
        self.pools[held.pool] += 1
        if held.kind == ATTEMPT:
            held.state, held.since = IN_FLIGHT, entry.attempted_at
            self.scheduler.took(held.site)
            shape = self._shape(held.site, held.domain)
            self.shaper.took(held.key, shape, self._facts(held, shape), entry.source)
        return entry

    def _go_on(self, held: Held, now: float, entry: Entry | None = None) -> None:
        """Do what the state of a unit that is in nobody's hands calls for."""
        entry = entry or self._entry(held)
        if held.kind == RETRY and self._finish(held, entry, now):
            return
        if len(entry.unit.recipients) > 1:
            kept, cut = divide(entry.unit, self.policy)
            if cut:
                self._cut(held, msgspec.structs.replace(entry, unit=kept), cut)
                return
        if self._condemned(held):
            return
        if entry.due_at > now:
            # Written by a router whose clock was days ahead, it would wait for days.
            self.scheduler.defer(held, min(entry.due_at, now + self.policy.ladder(held.stream).longest), now)
        else:
            self._place(held, now)

    def _finish(self, held: Held, entry: Entry, now: float) -> bool:
        """Is it on its way out? Then go on with that, whoever began it."""
        bounced = entry.last is not None and entry.last.verdict == BOUNCED
        if entry.cancelled is not None or bounced or entry.due_at >= held.expires_at:
            self._end(held, entry, now)
        elif partition_of(entry.unit.site, self.partitions) != self.number:
            mark = tag(PUT, 0, held.hop)
            home = partition_of(entry.unit.site, self.partitions)
            self._put_elsewhere(held, [Append(home, held.key, held.raw, mark)], None)
        else:
            return False
        return True

    def _cut(self, held: Held, kept: Entry, cut: list[wire.Unit]) -> None:
        puts = [
            Append(
                partition_of(unit.site, self.partitions), unit.unit_id,
                wire.encode(msgspec.structs.replace(kept, unit=msgspec.structs.replace(unit, hop=0))), tag(PUT),
            )
            for unit in cut
        ]  # fmt: skip
        self._put_elsewhere(held, puts, kept)

    def _put_elsewhere(self, held: Held, puts: list[Append], entry: Entry | None) -> None:
        held.state = ENDING
        waiting = Waiting(held, entry, None, len(puts))
        for put in puts:
            self.out.moves.append((self._token_for(waiting), put))

    # --- units wait ----------------------------------------------------------------------------------------------
    def _place(self, held: Held, now: float) -> None:
        """Where does a unit wait that is due?"""
        domain, site = held.domain, held.site
        assert domain is not None
        assert site is not None
        state = domain.look(now)
        if now >= held.expires_at:
            self.expire(held, now)
        elif self._condemned(held):
            return
        elif state == KNOWN:
            if (name := self._home(held, site.name, domain.site)) != site.name:
                self._rehome(held, site, name, now)
            else:
                self._ready(held, site, now)
        elif state == HOPELESS:
            entry = wire.decode(Entry, held.raw)
            self._retry(held, msgspec.structs.replace(entry, last=domain.outcome), "go on")
        elif state == TEMPORARY:
            self._defer_unrouted(held, now)
        else:
            held.state, held.since = RESOLVING, now
            self._ask(domain.name).append(held)

    def _ready(self, held: Held, site: SiteQueue, now: float) -> None:
        if site.rule is None and held.domain is not None:
            site.rule = held.domain.rule
        self._shape(site, held.domain)
        self.scheduler.ready(held, site, now)
        if (hold := self.scheduler.hold_on(held)) is not None and held.reported != hold.reason:
            self.tell_held(held, hold.reason, hold.until, hold.by, now)

    def _hurry(self, held: Held, now: float) -> None:
        domain = held.domain
        if domain is not None and domain.look(now) == TEMPORARY:
            # To be tried now means to ask anew, not to be deferred once more by the answer that is there.
            held.state, held.since = RESOLVING, now
            self._ask(domain.name).append(held)
        else:
            self._place(held, now)

    def _ask(self, name: str) -> list[Held]:
        if name not in self._asked:
            self._asked[name] = []
            self.out.asks.append(name)
        return self._asked[name]

    def _home(self, held: Held, name: str, site: str) -> str:
        # After many moves it stays at its site, but not at a shard that is not its own any more: that moves it once a map.
        where = site if held.hop < MAX_HOPS else site_of(name)
        return self.hot.home(name, where, held.key, self.commands.pool(held))

    def shards_changed(self, site: str) -> None:
        """There is a new map of a hot site. Units move when it is their turn; those in senders' hands settle here."""
        self.hot.changed(site)
        for queue in self.scheduler.sites.values():
            if queue.base == site:
                if queue.shape is not None:
                    self.shaper.divide(queue.shape)
                self.scheduler.rouse(queue)

    def _rehome(self, held: Held, site: SiteQueue, name: str, now: float) -> None:
        if held.domain is not None and site_of(name) != site.base:
            self.out.lessons.append((held.domain.name, site_of(name)))
        if partition_of(name, self.partitions) == self.number:
            # Nobody else sees the difference, so there is nothing to write: a new owner moves it in the same way.
            held.site = self.scheduler.site(name, now)
            held.site.units += 1
            self._left(site)
            self._ready(held, held.site, now)
            return
        entry = wire.decode(Entry, held.raw)
        held.hop += 1
        unit = msgspec.structs.replace(entry.unit, site=name, hop=held.hop)
        self._retry(held, msgspec.structs.replace(entry, unit=unit, due_at=0.0), "go on")

    def _defer_unrouted(self, held: Held, now: float) -> None:
        entry = wire.decode(Entry, held.raw)
        outcome = held.domain.outcome if held.domain else None
        rung, attempts = entry.rung + 1, entry.attempts + 1
        ladder = self.policy.ladder(held.stream)
        due = next_attempt(ladder, rung, now, held.expires_at, spread(held.key, attempts))
        held.attempts = attempts
        entry = msgspec.structs.replace(
            entry,
            rung=rung,
            attempts=attempts,
            attempted_at=now,
            last=outcome,
            due_at=held.expires_at if due is None else due,
        )
        if due is not None and outcome is not None:
            ending = Ending(wire.DEFERRED, outcome, entry.unit.recipients)
            self.out.events.append(story.ended(entry, ending, None, now, due))
            self.out.counts.append(("recipients", wire.DEFERRED, held.stream, len(entry.unit.recipients)))
        self._retry(held, entry, "go on")

    def expire(self, held: Held, now: float) -> None:
        """Its time ran out while it waited. First written, then told: another owner may be delivering it."""
        entry = wire.decode(Entry, held.raw)
        self._retry(held, msgspec.structs.replace(entry, due_at=max(now, held.expires_at)), "go on")

    # --- attempts ------------------------------------------------------------------------------------------------
    def _attempt(self, held: Held, site: SiteQueue, now: float) -> Wait | None:
        domain, shape = held.domain, site.shape
        if now >= held.expires_at:
            self.expire(held, now)
            return None
        if self.commands and self._set_aside(held, now):
            return None
        if domain is None or shape is None or domain.look(now) != KNOWN:
            self._place(held, now)
            return None
        hot = self.hot.concern(site.name)
        if hot and self._home(held, site.name, domain.site) != site.name:
            self._place(held, now)
            return None
        if now >= domain.fresh_until and not domain.rule.site:
            self._ask(domain.name)
        facts = self._facts(held, shape)
        asked = self.shaper.asked(self._entry(held), shape, domain.name) if held.attempts else ""
        without = self.commands.sources(held) if self.commands else {}
        barred = self.hot.barred(site.name, self.policy.reach(facts.pool), now) if hot else NOTHING
        if isinstance(barred, Wait):
            return barred
        go = self.shaper.admit(shape, facts, domain.route, now, asked, barred.union(without))
        if isinstance(go, Wait) and without:
            return self._without(held, go, without, now)
        if isinstance(go, Wait):
            if go.by == NO_SOURCE and held.reported != go.reason:
                self.tell_held(held, go.reason, 0.0, go.by, now)
            return go
        self._begin(held, site, go, now)
        self.shaper.take(held.key, go, facts, shape, now)
        return None

    def _without(self, held: Held, waits: Wait, sources: dict[str, Hold], now: float) -> Wait | None:
        """No source may take it, and some are suspended for it."""
        if waits.by == NO_SOURCE:
            self._park(held, next(iter(sources.values())), now)
            return None
        if self.commands.narrow:
            # Others of its tenant, stream and pool may use those sources.
            return waits._replace(until=min(waits.until, now + LOOK_AGAIN_SECONDS), who=UNIT)
        return waits

    def _begin(self, held: Held, site: SiteQueue, go: Go, now: float) -> None:
        entry = self._entry(held)
        unit = entry.unit
        if unit.site != site.name:
            unit = msgspec.structs.replace(unit, site=site.name)
        held.attempts += 1
        held.lane, held.state, held.since, held.reported = go.lane, ATTEMPTING, now, ""
        source = go.path.facts.source
        entry = Entry(
            unit, held.attempts, entry.due_at, go.lane, source, now, entry.last, entry.delay_reported, entry.client_name,
            entry.rung,
        )  # fmt: skip
        held.raw, held.kind = wire.encode(entry), ATTEMPT
        self._keep_decoded(held, entry)
        dispatch = wire.encode(Dispatch(unit, held.attempts, self.number, self.epoch, source, go.route, False))
        self.scheduler.took(site)
        self._write(held, Pending(held.key, "dispatch", held, None, entry, dispatch))

    def _dispatch_again(self, held: Held) -> None:
        entry = wire.decode(Entry, held.raw)
        route = held.domain.route if held.domain else self.policy.rules[-1].route
        route = self.shaper.route_of(held.key, route)
        work = Dispatch(entry.unit, entry.attempts, self.number, self.epoch, entry.source, route, True)
        self.out.dispatches.append(Append(entry.lane, held.key, wire.encode(work), tag(PUT)))

    def _settle(self, held: Held, result: Result, offset: int, now: float) -> None:
        entry, site = self._entry(held), held.site
        held.entry = None
        assert site is not None
        known = self.shaper.freed(held.key)
        self.scheduler.freed(site)
        held.state = ENDING
        waiting = Waiting(held, None, self.progress.begin(offset), 1)
        if result.kind == wire.SETTLED:
            lesson = self._lesson(held, site, entry, result, known, now)
            settled = settle(entry, result, self.policy.ladder(held.stream), lesson)
            waiting.entry = settled.entry
            self._tell(waiting, entry, settled.endings, result, result.ended_at)
        elif result.kind == wire.LOST:
            self.out.events.append(story.in_doubt(entry, result))
            self.out.counts.append(("in_doubt", "", "", 1))
            waiting.entry = msgspec.structs.replace(entry, due_at=0.0)
        else:
            seconds = self._not_out(held, site, entry, result, now) if result.outcomes else GIVE_BACK_SECONDS
            waiting.entry = msgspec.structs.replace(entry, due_at=result.ended_at + seconds)
        if self.out.events:
            self._batches.setdefault(self._batch, []).append(waiting)
        else:
            self._one_less(waiting)

    def _not_out(self, held: Held, site: SiteQueue, entry: Entry, result: Result, now: float) -> float:
        """The source could not get out. Seconds until the unit is offered again."""
        outcome = result.outcomes[0]
        domain = held.domain.name if held.domain is not None else ""
        self.shaper.not_out(entry, result, self._shape(site, held.domain), domain, now)
        until = result.ended_at + NOT_OUT_SECONDS
        reason = f"{entry.source} could not get out: {outcome.text}"[:1000]
        self.out.events.append(story.held(entry, result.ended_at, reason, until, outcome.phase))
        return NOT_OUT_SECONDS

    # --- what came back ------------------------------------------------------------------------------------------
    def _still(self, key: bytes, held: Held | None, then: str) -> bool:
        """Is it still the unit of which this was written? One that waits may have been put into the store since."""
        if then:
            return self.ledger.units.get(key) is held
        return self.ledger.hop(key) == (-1 if held is None else held.hop)

    def _came_back(self, pending: Pending, key: bytes, now: float) -> None:
        """A record of ours is in the log, and no newer claim before it."""
        if pending.key != key:
            # One before it is missing: an append failed. Only a new fold knows what is in the log.
            self.stopped = True
            return
        self._back += 1
        while self._skipped and self._skipped[0][0] < self._back:
            self.progress.done(self._skipped.popleft()[1])
        held, then, entry = pending.held, pending.then, pending.entry
        if pending.item is not None:
            self.progress.done(pending.item)
        if not self._still(key, held, then):
            # It came with a higher hop after this was written: compaction would forget what came.
            self._repair(key, held.hop if held else 0)
        elif held is None or not then:
            return
        elif then == "dispatch":
            held.state = IN_FLIGHT
            self.out.dispatches.append(Append(held.lane, key, pending.dispatch, tag(PUT)))
            assert entry is not None
            self.out.events.append(story.attempted(entry))
        elif then == "gone":
            self.ledger.end(key, held.hop)
            if held.site is not None:
                self.pools[held.pool] -= 1
                self._left(held.site)
        elif then == "go on":
            self._go_on(held, now, entry)
