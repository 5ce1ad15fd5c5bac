"""One history: processes, what happens to them, and what must hold at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from mailfleet_core.bus import topics
from mailfleet_core.model import ids, wire
from mailfleet_core.model.shards import KEY, Numbered, learn
from mailfleet_core.model.site import domain_of
from mailfleet_core.model.sources import Table
from mailfleet_core.model.tags import PUT, tag
from mailfleet_core.model.wire import Route
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.policy import LAST_RESORT, Ladder, Policy, Rule
from mailfleet_router.decisions.shaping import policy_file
from mailfleet_router.decisions.shaping.control import BOUNCE, REROUTE, RETRY, SUSPEND, Command, command
from mailfleet_router.decisions.shaping.rules import NO_RULES, Rules
from mailfleet_router.decisions.shaping.sharding import plan
from simulation.actors import LANES, MOVING_LANES, PARTITIONS, Ingest, Outside, Router, Sender
from simulation.log import COMPACTION_LAG_SECONDS, Log
from support.spaces import Tight

POLICY = Policy(
    ladders={"s": Ladder((60.0, 300.0, 900.0), 0.2, 1800.0)},
    pools={"default": (("a", 2), ("b", 1)), "spare": (("b", 1),)},
    lanes={"a": (0,), "b": (1,)},
    rules=(
        Rule(("d4.example", "d5.example"), Route("smart_host", ((0, "relay.example"),)), "relay"),
        LAST_RESORT,
    ),
    recipients_per_unit=2,
    recent_units=1000,
)

SHAPED = """
version: 1
base: none
limits:
  - {name: receivers, per: [source, site], cases: [{message_rate: 6/m, burst: 2, concurrency: 2}]}
  - {name: sites, per: [site], cases: [{window: 3}]}
rules:
  - {name: blocked, code: 550, phase: [dot], class: reputation_block, blame: sender_ip, effect: pause, threshold: 2/1h}
  - {name: busy, code: 451, class: rate_limited, effect: slow}
warmup: [{name: new, sources: [b], day_caps: [200, 400, 800], hour_share: 0.5}]
pools: [{name: default, overflow: spare}]
"""
"""A traffic policy that holds things up wherever it can."""

STEPS = 320


class World:
    """Everything, under one seed."""

    def __init__(
        self, seed: int, make: Callable[..., Partition] = Partition, faults: frozenset[str] = frozenset(),
        senders_die: bool = True, spills: bool = False, shaped: bool = False, moving: bool = False,
    ) -> None:  # fmt: skip
        self.rng = Random(seed)
        self.moving = moving
        """Sources come from the log, and come and go."""
        self.lanes = MOVING_LANES if moving else LANES
        rules = Rules(policy_file.read(SHAPED, "simulation")) if shaped else NO_RULES
        self.policy = replace(POLICY, shaping=rules)
        self._beat = 40 if shaped else 8
        """Turns between two leaps of time in peace. Shares of a limit end during each and are asked for anew after it."""
        self.log = Log(self.rng)
        self.outside = Outside(self.rng)
        self.make, self.faults, self.senders_die, self.spills = make, faults, senders_die, spills
        self.ingest = Ingest(self.log, self.outside, self.rng)
        self.commands: dict[str, Command] = {}
        """In force."""
        self.given: list[Command] = []
        """Ever."""
        if moving:
            self._usual_sources()
        self.routers = [self._router(), self._router()]
        self.zombies: list[Any] = []
        self.senders = [self._sender(lane) for lane in range(self.lanes)]
        for number in range(PARTITIONS):
            self.routers[number % 2].own(number)
        self.routers[0].splits = True
        # Some histories are nearly quiet, in some hardly anything survives.
        self._fault_share = self.rng.choice((0.01, 0.04, 0.12))
        self._turns = 0
        self._paused: dict[object, int] = {}
        """Processes that were stopped (SIGSTOP), until which turn. What they believe grows old meanwhile."""
        self._jump_share = self.rng.choice((0.005, 0.04))

    def run(self) -> None:
        """A history with faults, then peace until nothing moves."""
        for _ in range(STEPS):
            self._step()
        self._peace()

    # --- what may happen -----------------------------------------------------------------------------------------
    def _step(self) -> None:
        rng = self.rng
        self._one_owner_a_source()
        if rng.random() < 0.05:
            self.ingest.accept()
        elif rng.random() < self._jump_share:
            self.log.now += rng.choice((1.0, 30.0, 120.0, 600.0))
        elif rng.random() < self._fault_share:
            for _ in range(rng.choice((1, 1, 2, 3))):
                self._fault()
        else:
            self.log.now += 0.01
            self._turns += 1
            actor = rng.choice((self.ingest, *self.routers, *self.routers, *self.senders, *self.zombies))
            if self._paused.get(actor, 0) < self._turns:
                actor.step()

    def _fault(self) -> None:
        fault = self.rng.choice(
            (
                self._router_dies, self._router_dies, self._partition_moves, self._partition_moves, self._router_pauses,
                self._router_pauses, self._sender_dies, self._sender_is_replaced, self._ingest_dies, self._appends_fail,
                self._compaction, self._command, self._command, self._shards_change,
                *([self._sources_change, self._sources_change, self._lane_has_nobody] if self.moving else []),
            )
        )  # fmt: skip
        fault()

    def _router_dies(self) -> None:
        index = self.rng.randrange(2)
        old = self.routers[index]
        old.client.die()
        self.routers[index] = fresh = self._router()
        heir = fresh if self.rng.random() < 0.5 else self.routers[1 - index]
        for number in old.owners:
            heir.own(number)
        (fresh if self.rng.random() < 0.5 else self.routers[1 - index]).splits |= old.splits

    def _router_pauses(self) -> None:
        """It does nothing for a while, and the other one is told to take its partitions."""
        router, other = self.rng.sample(self.routers, 2)
        self._paused[router] = self._turns + self.rng.randrange(20, 120)
        for number in list(router.owners):
            if self.rng.random() < 0.8:
                other.own(number)

    def _partition_moves(self) -> None:
        """The group gives a partition to the other router, and the old owner does not hear of it."""
        number = self.rng.randrange(PARTITIONS)
        self.rng.choice(self.routers).own(number)
        self.rng.choice(self.routers).splits = True

    def _sender_dies(self) -> None:
        if self.senders_die:
            lane = self.rng.randrange(self.lanes)
            self.senders[lane].client.die()
            self.senders[lane] = self._sender(lane)

    def _sender_is_replaced(self) -> None:
        if self.senders_die:
            lane = self.rng.randrange(self.lanes)
            self.zombies.append(self.senders[lane])
            self.senders[lane] = self._sender(lane)

    def _ingest_dies(self) -> None:
        self.ingest.client.die()
        self.ingest = Ingest(self.log, self.outside, self.rng)

    def _appends_fail(self) -> None:
        self.rng.choice(self.routers).client.fail()

    def _compaction(self) -> None:
        self.log.compact((topics.QUEUE, self.rng.randrange(PARTITIONS)))

    def _command(self) -> None:
        """A postmaster tells the cluster something, or takes it back."""
        rng = self.rng
        if self.commands and rng.random() < 0.4:
            self._take_back(rng.choice(list(self.commands)))
            return
        about = {
            "tenant": "t", "site": f"mx{rng.randrange(4)}.shared.example", "domain": f"d{rng.randrange(6)}.example",
            "campaign": "spring", "source": "a", "stream": "s",
        }  # fmt: skip
        action = rng.choice((SUSPEND, SUSPEND, BOUNCE, REROUTE, RETRY))
        names = rng.sample([name for name in about if name != "source" or action == SUSPEND], rng.choice((1, 1, 2)))
        if action == BOUNCE and names in (["tenant"], ["stream"]) and rng.random() < 0.7:
            return  # it would end nearly all there is
        until = self.log.now + 900.0 if rng.random() < 0.3 else 0.0
        said = {name: about[name] for name in names}
        pool = "spare" if action == REROUTE else ""
        given = command(f"c{len(self.given)}", action, said, "test", "me", self.log.now, until, pool)
        self.given.append(given)
        self.commands[given.id] = given
        self.log.write((topics.CONTROL, 0), b"command|" + given.id.encode(), wire.encode(given), tag(PUT))

    def _shards_change(self) -> None:
        """A site is divided anew."""
        site = f"mx{self.rng.randrange(4)}.shared.example"
        known: dict[str, Numbered] = {}
        for offset, key, _, value in self.log.line(topics.CONTROL, 0).records:
            learn(known, offset, key, value)
        old = known[site].map if site in known else None
        found = plan(old, self.rng.choice((1, 2, 2)) if old else 1, self.rng.choice(("ab", "ab", "a")), POLICY.pools)
        self.log.write((topics.CONTROL, 0), KEY + site.encode(), wire.encode(found), tag(PUT))

    def _sources_change(self) -> None:
        """Sources come and go, drain and return, and their lanes become others'."""
        rng = self.rng
        for _ in range(rng.choice((1, 1, 2))):
            name = rng.choice("abc")
            state = rng.choice((wire.ACTIVE, wire.ACTIVE, wire.DRAINING, wire.QUARANTINED))
            lanes = tuple(rng.sample(range(self.lanes), rng.choice((1, 1, 2))))
            pool = rng.choice(("default", "default", "spare"))
            source = wire.Source(
                name, pool, rng.choice((1, 2)), lanes=lanes, state=state, reason="test", at=self.log.now
            )
            self._write_source(name, None if rng.random() < 0.25 else source)
        if rng.random() < 0.2:
            overflow = rng.choice(("", "spare"))
            self._write(b"pool|default", wire.encode(wire.Pool("default", overflow, self.log.now)))

    def _lane_has_nobody(self) -> None:
        """No sender takes a lane for a while."""
        if self.senders_die:
            lane = self.rng.randrange(self.lanes)
            self.senders[lane].client.die()
            self.senders[lane] = self._sender(lane)
            self._paused[self.senders[lane]] = self._turns + self.rng.randrange(20, 200)

    def _usual_sources(self) -> None:
        self._write_source("a", wire.Source("a", "default", 2, lanes=(0,)))
        self._write_source("b", wire.Source("b", "spare", 1, lanes=(1,)))
        self._write_source("c", None)
        self._write(b"pool|default", wire.encode(wire.Pool("default", "spare")))

    def _write_source(self, name: str, source: wire.Source | None) -> None:
        self._write(b"source|" + name.encode(), None if source is None else wire.encode(source))

    def _write(self, key: bytes, value: bytes | None) -> None:
        self.log.write((topics.CONTROL, 0), key, value, tag(PUT))

    def _take_back(self, identifier: str) -> None:
        del self.commands[identifier]
        self.log.write((topics.CONTROL, 0), b"command|" + identifier.encode(), None, tag(PUT))

    def _one_owner_a_source(self) -> None:
        """Of a hot site no source is used by two owners at once, whatever they have read."""
        users: dict[str, str] = {}
        for router in self.routers:
            for owner in router.owners.values():
                if owner.partition is None:
                    continue
                holder = owner.partition.shaper.holder
                for counter in router.shares.counters(holder):
                    if counter.startswith("shard|") and router.shares.usable(counter, holder) >= 1:
                        assert users.setdefault(counter, holder) == holder, f"{counter}: {holder} and {users[counter]}"

    # --- peace ---------------------------------------------------------------------------------------------------
    def _peace(self) -> None:
        """No more faults. Zombies say what they have to say, the newest owners go on until the queue is empty."""
        self._compact_and_start_again()
        self.outside.healed = True
        if self.moving:
            self._usual_sources()
        for given in list(self.commands.values()):
            if given.action != BOUNCE:
                self._take_back(given.id)
        self._own_all()
        self.routers[0].splits = True
        for turn in range(100 * self._beat):
            # So long that a right, which ends within seconds, is asked for, given and used.
            self.log.now += 0.7 if turn % self._beat else 400.0
            for actor in (self.ingest.client, *self.zombies, *self.routers, *self.senders):
                (actor.settle_down if not hasattr(actor, "append") else lambda a=actor: a.step(everything=True))()
            if turn > 12 and turn % 4 == 0 and self.quiet():
                return
            self._own_all()
        raise AssertionError(f"after peace something still waits: {self._waiting()}")

    def _compact_and_start_again(self) -> None:
        """When every owner has repaired what it read, the last record of each key must be all that is needed."""
        for _ in range(12):
            for router in self.routers:
                router.settle_down()
            self._own_all()
        for number in range(PARTITIONS):
            self.log.now += COMPACTION_LAG_SECONDS
            self.log.compact((topics.QUEUE, number))
            self.log.now -= COMPACTION_LAG_SECONDS
        for router in self.routers:
            router.client.die()
        self.routers = [self._router(), self._router()]

    def _own_all(self) -> None:
        for number in range(PARTITIONS):
            if not any(number in router.owners for router in self.routers):
                self.routers[0].own(number)

    def _waiting(self) -> list[str]:
        return [
            f"{ids.text(held.key)} kind {held.kind!r} state {held.state} p{number}"
            for router in self.routers
            for number, owner in router.owners.items()
            if owner.partition is not None
            for held in owner.partition.ledger.units.values()
        ][:5]

    def quiet(self) -> bool:
        """Is nothing queued by anybody's account?"""
        owned = [owner for router in self.routers for owner in router.owners.values()]
        live = [owner for owner in owned if owner.partition is not None and owner.partition.live and not owner.over]
        done = self.log.positions.get(("splitters", topics.ACCEPT, 0), 0)
        return (
            len({owner.number for owner in live}) == PARTITIONS
            and not any(len(owner.partition.ledger) for owner in live if owner.partition)
            and all(owner.partition.quiet for owner in live if owner.partition)
            and not self.log.line(topics.ACCEPT, 0).after(done, 1)
        )

    # --- judgement -----------------------------------------------------------------------------------------------
    def judge(self) -> None:
        """Raises AssertionError for a broken promise."""
        ends: dict[tuple[str, int], set[tuple[str, str]]] = {}
        doubts: dict[tuple[str, int], set[str]] = {}
        for event in self.events():
            for index, _ in event.recipients:
                if event.kind in wire.TERMINAL_KINDS:
                    ends.setdefault((event.message_id, index), set()).add((event.id, event.kind))
                elif event.kind == "in_doubt":
                    doubts.setdefault((event.message_id, index), set()).add(event.id)
        for message, index in self.outside.accepted:
            found = ends.get((ids.text(message), index), set())
            assert len(found) == 1, f"{ids.text(message)}/{index}: ends {found or 'never'}"
        for key, endings in ends.items():
            assert len(endings) == 1, f"{key}: ends {endings}"
            ((_, kind),) = endings
            copies = self.outside.received.get((ids.parse(key[0]), key[1]), 0)
            doubt = len(doubts.get(key, ()))
            assert copies <= 1 + doubt, f"{key}: {copies} copies, {doubt} doubts"
            assert copies or kind != "delivered", f"{key}: said to be delivered, and was not"
            assert not copies or kind == "delivered" or doubt, f"{key}: delivered, and told as {kind}"
            assert not doubt or self.senders_die, f"{key}: in doubt although no sender died"
            assert kind != "cancelled" or self._was_to_end(*key), f"{key}: cancelled without a command"
        for message, index in self.outside.received:
            assert (ids.text(message), index) in ends, f"{ids.text(message)}/{index}: delivered and never told"

    def _was_to_end(self, message: str, index: int) -> bool:
        address, accepted_at = self.outside.accepted.get((ids.parse(message), index), ("", 0.0))
        # Not all that is told of was answered 250; and its site changes, so nobody knows what it was when.
        return not address or any(
            given.action == BOUNCE
            and accepted_at <= given.at
            and all(name != "domain" or value == domain_of(address) for name, value in given.about)
            for given in self.given
        )

    def events(self) -> list[wire.Event]:
        """Everything told."""
        return [
            event
            for _, _, _, value in self.log.line(topics.EVENTS, 0).records
            if value is not None
            for event in wire.told(value)
        ]

    # --- making --------------------------------------------------------------------------------------------------
    def _router(self) -> Router:
        table = Table(self.lanes) if self.moving else None
        router = Router(self.log, self.outside, self.rng, self.policy, self.make, table)
        if self.spills:
            router.room = Tight()
        return router

    def _sender(self, lane: int) -> Sender:
        table = Table(self.lanes) if self.moving else None
        return Sender(self.log, self.outside, self.rng, lane, self.faults, table)
