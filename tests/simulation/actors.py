"""The processes of the simulation: ingest, routers with the real decisions, senders by the rules of ARCHITECTURE."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from mailfleet_core.bus import topics
from mailfleet_core.model import ids, shards, wire
from mailfleet_core.model.site import domain_of, partition_of
from mailfleet_core.model.sources import Table
from mailfleet_core.model.tags import ATTEMPT, CLAIM, EPOCH_KEY, PUT, tag
from mailfleet_router.decisions import dsn
from mailfleet_router.decisions.outbox import Append, Report
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.policy import Policy, of_table
from mailfleet_router.decisions.routing import Routing
from mailfleet_router.decisions.shaping import control, leasing
from mailfleet_router.decisions.shaping.control import Controls
from mailfleet_router.decisions.shaping.granting import Granting
from mailfleet_router.decisions.shaping.leases import Limit
from mailfleet_router.decisions.shaping.leasing import Holding
from mailfleet_router.decisions.spill.space import Room, Spill
from mailfleet_router.decisions.splitting import split
from mailfleet_router.decisions.sweep import Sweep
from simulation.log import Client, Log
from support.spaces import DictSpace

PARTITIONS, LANES, MOVING_LANES = 2, 2, 3
HOST = "mx.ours.example"

Key = tuple[bytes, int]
"""Message id and index of a recipient."""


@dataclass
class Outside:
    """The world as it really is: who accepted what, what the DNS says, what a site answers."""

    rng: Random
    healed: bool = False
    accepted: dict[Key, tuple[str, float]] = field(default_factory=dict)
    """What was answered 250: whom to, and when it was accepted."""
    received: dict[Key, int] = field(default_factory=dict)
    """How often a recipient's site said 250."""
    dns: dict[str, tuple[str, tuple[tuple[int, str], ...]]] = field(default_factory=dict)
    sequence: int = 0
    attempts: dict[tuple[bytes, int, int], str] = field(default_factory=dict)
    """Unit, hop and number of those that routers began, with the source."""

    def ask(self, domain: str) -> tuple[str, tuple[tuple[int, str], ...]]:
        if self.healed:
            return self.dns.get(domain, ("mx", ((10, f"mx.{domain}"),)))
        draw = self.rng.random()
        if draw < 0.10:
            return "temporary", ()
        if draw < 0.25:
            # Domains move between sites, and so between partitions.
            hosts = ((10, f"mx{self.rng.randrange(4)}.shared.example"),)
            self.dns[domain] = ("mx", hosts)
        elif draw < 0.28:
            return ("null" if self.rng.random() < 0.5 else "missing"), ()
        return self.dns.get(domain, ("mx", ((10, f"mx.{domain}"),)))

    def smtp(self, address: str) -> tuple[str, int]:
        draw = self.rng.random()
        if self.healed or draw < 0.6:
            return wire.DELIVERED, 250
        return (wire.DEFERRED, 451) if draw < 0.85 else (wire.BOUNCED, 550)


class Ingest:
    """Accepts mails."""

    def __init__(self, log: Log, outside: Outside, rng: Random) -> None:
        self.client = Client(log, rng)
        self._log, self._outside, self._rng = log, outside, rng

    def step(self) -> None:
        self.client.step()

    def accept(self) -> None:
        """A mail comes in; it counts as accepted when its record is acknowledged."""
        outside, rng, now = self._outside, self._rng, self._log.now
        outside.sequence += 1
        message = ids.message_id(now, outside.sequence.to_bytes(10, "big"))
        addresses = [f"u{n}@d{rng.randrange(6)}.example" for n in range(rng.choice((1, 1, 1, 2, 4)))]
        recipients = tuple(wire.Recipient(n, address) for n, address in enumerate(addresses))
        envelope = wire.Envelope(
            message_id=message, reverse_path=rng.choice(("s@d0.example", "", "s@elsewhere.example")), tenant="t",
            stream="s", pool="default", body=wire.BodyRef(0, (0,), 100), accepted_at=now,
            expires_at=now + rng.choice((60.0, 7200.0, 36000.0)), campaign=rng.choice(("", "spring")),
        )  # fmt: skip
        sites = tuple(self._site(address, message) for address in addresses)

        def answered(offset: int | None) -> None:
            if offset is not None:
                outside.accepted.update({(message, r.index): (r.address, now) for r in recipients})

        if len(set(sites)) == 1:
            unit = wire.Unit(ids.unit_id(message, 0), sites[0], envelope, recipients)
            home = partition_of(sites[0], PARTITIONS)
            self.client.append(topics.QUEUE, home, unit.unit_id, wire.encode(wire.Entry(unit)), tag(PUT), answered)
        else:
            value = wire.encode(wire.Accepted(envelope, recipients, sites))
            self.client.append(topics.ACCEPT, 0, message, value, tag(PUT), answered)

    def _site(self, address: str, message: bytes) -> str:
        # The learned table is as old as it likes, and so are maps of hot sites.
        domain = domain_of(address)
        site = self._rng.choice((domain, "mx1.shared.example")) if self._rng.random() < 0.2 else domain
        maps: dict[str, shards.Numbered] = {}
        for offset, key, _, value in self._log.line(topics.CONTROL, 0).records[: self._rng.randrange(50)]:
            shards.learn(maps, offset, key, value)
        return shards.home(site, site, maps.get(site), message, "default")


class RouterOwner:
    """What `shell/owner.py` does, one step at a time."""

    def __init__(self, router: Router, number: int, make: Callable[..., Partition]) -> None:
        self.router, self.number, self.make = router, number, make
        self.partition: Partition | None = None
        self.failed = False
        self._sweep: Sweep | None = None
        self._queue_at = 0
        self._results_at = 0
        self._states_at, self._mark = 0, -1
        self._resumed = False
        self._reports: deque[Report] = deque()
        self._asks: deque[str] = deque()
        self._committed = -1
        router.client.append(topics.QUEUE, number, EPOCH_KEY, b"x", tag(CLAIM), self._claimed)

    def _claimed(self, epoch: int | None) -> None:
        if epoch is None:
            self.failed = True
            return
        client, number = self.router.client, self.number
        client.append(
            topics.CONTROL,
            0,
            b"epoch|%d" % number,
            epoch.to_bytes(8, "big"),
            tag(PUT),
            lambda _: self._published(epoch),
        )

    def _published(self, epoch: int) -> None:
        router = self.router
        position = router.log.positions.get(("routers", topics.RESULT, self.number), 0)
        self.partition = self.make(
            self.number, PARTITIONS, router.policy, router.routing, router.controls, None, router.shares,
            spill=Spill(router.room, DictSpace()),
        )  # fmt: skip
        self.partition.claimed(epoch, position)
        if self.number == 0:
            router.shares.grant_as(epoch)
        self._sweep, self._results_at, self._committed = Sweep(self.partition), position, position
        router.client.append(topics.SITE, self.number, EPOCH_KEY, b"", tag(CLAIM, epoch), self._marked)

    def _marked(self, offset: int | None) -> None:
        self._written(offset)
        self._mark = offset if offset is not None else -1

    @property
    def over(self) -> bool:
        return self.failed or (self.partition is not None and self.partition.stopped)

    def step(self) -> None:
        partition, rng = self.partition, self.router.rng
        if partition is None or self.over:
            return
        if not partition.live:
            self._fold(20)
            self._states(20)
            if partition.folded and 0 <= self._mark < self._states_at and not self.over:
                partition.restore(self.router.log.now)
            return
        if not self._resumed:
            if not self._results(20):
                self._resumed = True
                partition.resume(self.router.log.now)
            return
        acts = (self._fold, self._results, self._flush, self._report, self._answer, self._commit, self._states)
        for act in rng.sample(acts, 3):
            act(rng.randrange(1, 8))

    def settle_down(self) -> None:
        """Everything it can do now."""
        self.step()
        if self._resumed and not self.over:
            for act in (self._fold, self._results, self._flush, self._report, self._answer, self._commit):
                act(1000)

    def _fold(self, most: int) -> None:
        assert self.partition is not None
        batch = self.router.log.line(topics.QUEUE, self.number).after(self._queue_at, most)
        if batch:
            self.partition.fold(batch, self.router.log.now)
            self._queue_at = batch[-1][0] + 1

    def _states(self, most: int) -> None:
        assert self.partition is not None
        batch = self.router.log.line(topics.SITE, self.number).after(self._states_at, most)
        if batch:
            self.partition.learned(batch)
            self._states_at = batch[-1][0] + 1

    def _results(self, most: int) -> bool:
        assert self.partition is not None
        batch = self.router.log.line(topics.RESULT, self.number).after(self._results_at, most)
        if batch:
            self.partition.results(batch, self.router.log.now)
            self._results_at = batch[-1][0] + 1
        return bool(batch)

    def _flush(self, _: int) -> None:
        partition, client = self.partition, self.router.client
        assert partition is not None
        assert self._sweep is not None
        self._sweep.step(self.router.log.now)
        partition.tick(self.router.log.now)
        out = partition.take()
        self.router.look_at_attempts(out.own)
        for put in out.own:
            client.append(topics.QUEUE, put.partition, put.key, put.value, put.tag, self._written)
        for put in out.dispatches:
            client.append(topics.DISPATCH, put.partition, put.key, put.value, put.tag, self._written)
        for token, put in out.states:
            client.append(
                topics.SITE, put.partition, put.key, put.value, put.tag, lambda at, token=token: self._kept(at, token)
            )
        for token, put in out.moves:
            client.append(
                topics.QUEUE, put.partition, put.key, put.value, put.tag, lambda at, token=token: self._moved(at, token)
            )
        if out.events:
            client.append(topics.EVENTS, 0, b"", wire.tell(out.events), tag(PUT), lambda at: self._told(at, out.batch))
        self._reports += out.reports
        self._asks += out.asks

    def _written(self, offset: int | None) -> None:
        self.failed = self.failed or offset is None

    def _kept(self, offset: int | None, token: int) -> None:
        self._written(offset)
        if offset is not None and self.partition is not None:
            self.partition.kept(token)

    def _moved(self, offset: int | None, token: int) -> None:
        self._written(offset)
        if offset is not None and self.partition is not None:
            self.partition.carried_out(token)

    def _told(self, offset: int | None, batch: int) -> None:
        self._written(offset)
        if offset is not None and self.partition is not None:
            self.partition.durable(batch)

    def _report(self, most: int) -> None:
        for _ in range(min(most, len(self._reports))):
            report = self._reports.popleft()
            key, home, value = report_unit(report, self.router.log.now)
            self.router.client.append(
                topics.QUEUE, home, key, value, tag(PUT), lambda at, token=report.token: self._moved(at, token)
            )

    def _answer(self, most: int) -> None:
        assert self.partition is not None
        now = self.router.log.now
        for _ in range(min(most, len(self._asks))):
            name = self._asks.popleft()
            self.router.routing.answered(name, *self.router.outside.ask(name), now)
            self.partition.resolved(name, now)

    def _commit(self, _: int) -> None:
        assert self.partition is not None
        position = self.partition.progress.position
        if position > self._committed:
            self.router.log.positions["routers", topics.RESULT, self.number] = self._committed = position


def report_unit(report: Report, now: float) -> tuple[bytes, int, bytes]:
    """What `shell/reports.py` queues for a report: (unit id, queue partition, entry)."""
    about = report.entry.unit.envelope
    made = dsn.build(
        report.entry, report.purpose, report.endings, report.at, b"Subject: x\r\n\r\nx\r\n", HOST, report.mx
    )
    envelope = wire.Envelope(made.message_id, "", "t", "s", "default", about.body, now, now + 36000.0)
    site = domain_of(about.reverse_path)
    recipient = wire.Recipient(0, about.reverse_path, wire.NOTIFY_NEVER)
    unit = wire.Unit(ids.unit_id(made.message_id, 0), site, envelope, (recipient,))
    return unit.unit_id, partition_of(site, PARTITIONS), wire.encode(wire.Entry(unit))


class Shares:
    """What `shell/leasing.py` does for one process: its holders, and the granter if it owns partition 0."""

    def __init__(self, log: Log, client: Client, rng: Random) -> None:
        self._log, self._client, self._rng = log, client, rng
        self.holding = Holding()
        self._granting: Granting | None = None
        self._at = self._granter_at = 0

    def grant_as(self, epoch: int) -> None:
        self._granting, self._granter_at = Granting(epoch), 0
        self._write([leasing.claim(epoch, "x")])

    def step(self, everything: bool = False) -> None:
        now, line = self._log.now, self._log.line(topics.LEASE, 0)
        if everything or self._rng.random() < 0.7:
            for offset, key, mark, value in line.after(self._at, 1000):
                self._at = offset + 1
                self.holding.heard(leasing.read(key, mark, value), now)
        if self._granting is not None and (everything or self._rng.random() < 0.7):
            for offset, key, mark, value in line.after(self._granter_at, 1000):
                self._granter_at = offset + 1
                self._granting.heard(leasing.read(key, mark, value), now)
            self._write(leasing.grants(self._granting.epoch, self._granting.grant(now)))
        self._write(self.holding.ask(now))

    def _write(self, records: list[leasing.Record]) -> None:
        for record in records:
            self._client.append(topics.LEASE, 0, record.key, record.value, record.tag)

    # --- as a partition asks ---------------------------------------------------------------------------------------
    def want(self, counter: str, holder: str, limit: Limit, demand: float, used: float) -> None:
        self.holding.want(counter, holder, limit, demand, self._log.now, used)

    def demand(self, counter: str, holder: str, waiting: int) -> float:
        return self.holding.demand(counter, holder, waiting, self._log.now)

    def usable(self, counter: str, holder: str) -> float:
        return self.holding.usable(counter, holder, self._log.now)

    def wait(self, counter: str, holder: str) -> float:
        return self.holding.wait(counter, holder, self._log.now)

    def take(self, counter: str, holder: str) -> None:
        self.holding.take(counter, holder, self._log.now)

    def release(self, counter: str, holder: str) -> None:
        self.holding.release(counter, holder)

    def counters(self, holder: str) -> list[str]:
        return self.holding.counters(holder)


class Router:
    """A router process: owners, and a splitter for `mail.accept[0]`."""

    def __init__(
        self, log: Log, outside: Outside, rng: Random, policy: Policy, make: Callable[..., Partition],
        table: Table | None = None,
    ) -> None:  # fmt: skip
        self.table = table
        """Sources of the log, if they come from there."""
        self.client = Client(log, rng)
        self.log, self.outside, self.rng, self.policy, self.make = log, outside, rng, policy, make
        self.routing, self.controls, self.room = Routing(policy), Controls(), Room()
        self.owners: dict[int, RouterOwner] = {}
        self.splits = False
        self.shares = Shares(log, self.client, rng)
        self._control_at = 0
        self.hear()
        self._accept_at = -1
        self._splitting = 0

    def own(self, number: int) -> None:
        self.owners[number] = RouterOwner(self, number, self.make)

    def hear(self) -> None:
        """Read commands: all there are before anything is owned, later ones some time."""
        heard = sources = False
        for offset, key, _, value in self.log.line(topics.CONTROL, 0).after(self._control_at, 1000):
            self._control_at = offset + 1
            sources |= self.table is not None and self.table.read(key, value)
            if key.startswith(b"command|"):
                self.controls.set(key[8:].decode(), None if value is None else control.decode(value))
                heard = True
            if (site := shards.learn(self.routing.shards, offset, key, value)) is not None:
                for owner in self.owners.values():
                    if owner.partition is not None and owner.partition.live:
                        owner.partition.shards_changed(site)
        if sources and self.table is not None:
            self.policy = replace(self.policy, **of_table(self.table, ()))
            for owner in self.owners.values():
                if owner.partition is not None:
                    owner.partition.obey(self.policy, self.log.now)
        heard = bool(self.controls.lapse(self.log.now)) or heard or sources
        for owner in self.owners.values():
            if heard and owner.partition is not None and owner.partition.live:
                owner.partition.commanded(self.log.now)

    def look_at_attempts(self, puts: Iterable[Append]) -> None:
        """Nothing new goes by a source that is known not to be active."""
        for put in puts if self.table is not None else ():
            if put.tag[:1] == ATTEMPT and put.value is not None:
                entry = wire.decode(wire.Entry, put.value)
                attempt = (put.key, entry.unit.hop, entry.attempts)
                if attempt not in self.outside.attempts:
                    # Afterwards it may be written again, whatever has become of its source.
                    self.outside.attempts[attempt] = entry.source
                    assert self.table is not None
                    assert self.table.takes(entry.source, entry.lane), f"{attempt} goes by {entry.source}"

    def step(self) -> None:
        self.client.step()
        if self.rng.random() < 0.3:
            self.hear()
        self.shares.step()
        for owner in list(self.owners.values()):
            owner.step()
            self._drop(owner)
        if self.splits:
            self.split()

    def settle_down(self) -> None:
        self.client.step(everything=True)
        self.hear()
        self.shares.step(everything=True)
        for owner in list(self.owners.values()):
            owner.settle_down()
            self._drop(owner)
        self.split()

    def _drop(self, owner: RouterOwner) -> None:
        if owner.over:
            del self.owners[owner.number]
            if owner.partition is not None:
                self.shares.holding.left(owner.partition.shaper.holder)

    def split(self) -> None:
        if self._splitting > 0:
            return
        where = ("splitters", topics.ACCEPT, 0)
        if self._accept_at < 0:
            self._accept_at = self.log.positions.get(where, 0)
        for offset, _, _, value in self.log.line(topics.ACCEPT, 0).after(self._accept_at, 1):
            assert value is not None
            units = split(wire.decode(wire.Accepted, value), self.policy)
            self._splitting = len(units)

            def done(at: int | None, offset: int = offset) -> None:
                self._splitting -= 1
                if at is None:
                    self._splitting += 1_000_000
                if self._splitting == 0:
                    self._accept_at = offset + 1
                    self.log.positions[where] = offset + 1
                elif self._splitting % 1_000_000 == 0:
                    self._splitting, self._accept_at = 0, -1

            for unit in units:
                home = partition_of(unit.site, PARTITIONS)
                self.client.append(topics.QUEUE, home, unit.unit_id, wire.encode(wire.Entry(unit)), tag(PUT), done)


class Sender:
    """The owner of one lane: TAKEN first; what lies before it and has no durable result is `lost`."""

    TAKEN = b"T"

    def __init__(
        self, log: Log, outside: Outside, rng: Random, lane: int, faults: frozenset[str], table: Table | None = None
    ) -> None:
        self.table = table
        """Sources of the log, if they come from there."""
        self.client = Client(log, rng)
        self.log, self.outside, self.rng, self.lane, self.faults = log, outside, rng, lane, faults
        self.stopped = False
        self._inherited = False
        self._taken: int | None = None
        self._at = log.positions.get(("senders", topics.DISPATCH, lane), 0)
        self._epochs: dict[int, int] = {}
        self._control_at = 0
        for offset, key, _, value in log.line(topics.CONTROL, 0).records:
            self._control_at = offset + 1
            if key.startswith(b"epoch|") and value is not None:
                number = int(key[6:])
                self._epochs[number] = max(self._epochs.get(number, -1), int.from_bytes(value, "big"))
            elif table is not None:
                table.read(key, value)
        self._answers: dict[tuple[bytes, int], bytes | None] = {}
        """None: in hand."""
        self._hand: deque[tuple[wire.Dispatch, int]] = deque()
        self._sent: deque[tuple[wire.Dispatch, int, wire.Result]] = deque()
        self._open: dict[int, None] = {}
        self.client.append(topics.DISPATCH, lane, b"!lane", b"", self.TAKEN, self._took)

    def _took(self, offset: int | None) -> None:
        self._taken = offset
        self.stopped = offset is None
        # Before the first owner of a lane nobody can have begun anything.
        before = self.log.line(topics.DISPATCH, self.lane).records
        self._inherited = any(
            mark[:1] == self.TAKEN and at != offset for at, _, mark, _ in before if at < (offset or 0)
        )

    def step(self) -> None:
        self.client.step()
        if self._taken is None or self.stopped:
            return
        acts = (self._read, self._deliver, self._answer, self._commit, *([self._hear] if self.table else []))
        for act in self.rng.sample(acts, 2):
            act(self.rng.randrange(1, 6))

    def settle_down(self) -> None:
        self.client.step(everything=True)
        if self._taken is not None and not self.stopped:
            for act in (self._hear, self._read, self._deliver, self._answer, self._commit):
                act(1000)

    def _hear(self, most: int) -> None:
        """Read of sources; what may not be begun any more is given back."""
        changed = False
        for offset, key, _, value in self.log.line(topics.CONTROL, 0).after(self._control_at, most):
            self._control_at = offset + 1
            changed |= self.table is not None and self.table.read(key, value)
        if not changed:
            return
        back = [(work, offset) for work, offset in self._hand if not self._takes(work)]
        self._hand = deque((work, offset) for work, offset in self._hand if self._takes(work))
        if "sender gives back what it began" in self.faults:
            back += [(work, offset) for work, offset, _ in self._sent if not self._takes(work)]
            self._sent = deque(sent for sent in self._sent if self._takes(sent[0]))
        for work, offset in back:
            if "sender forgets what it gives back" in self.faults:
                self._open.pop(offset, None)
            else:
                self._give(work, offset, wire.NOT_ATTEMPTED)

    def _takes(self, work: wire.Dispatch) -> bool:
        return self.table is None or self.table.takes(work.source, self.lane)

    def _read(self, most: int) -> None:
        assert self._taken is not None
        for offset, _, mark, value in self.log.line(topics.DISPATCH, self.lane).after(self._at, most):
            self._at = offset + 1
            if mark[:1] == self.TAKEN:
                if offset > self._taken:
                    self.stopped = True
                    return
                continue
            assert value is not None
            self._meet(wire.decode(wire.Dispatch, value), offset)

    def _meet(self, work: wire.Dispatch, offset: int) -> None:
        assert self._taken is not None
        newest = self._epochs.get(work.queue_partition, -1)
        inherited = offset < self._taken and self._inherited
        if inherited and "sender drops what it inherits" in self.faults:
            inherited = work.epoch >= newest
        if work.epoch < newest and not inherited:
            return
        self._epochs[work.queue_partition] = max(newest, work.epoch)
        key = (work.unit.unit_id, work.attempt)
        if key in self._answers and "sender has no memory" not in self.faults:
            if (given := self._answers[key]) is not None:
                self._tell(work, offset, given)
        elif inherited:
            # Whatever its epoch: a former owner of the lane may have begun it while that epoch was the newest.
            self._give(work, offset, wire.LOST)
        elif (
            (work.again and "sender does again what it never saw" not in self.faults)
            or not self._takes(work)
            or self.rng.random() < 0.05
        ):
            self._give(work, offset, wire.NOT_ATTEMPTED)
        else:
            self._answers[key] = None
            self._open[offset] = None
            self._hand.append((work, offset))

    def _give(self, work: wire.Dispatch, offset: int, kind: str, outcomes: Any = ()) -> None:
        now = self.log.now
        result = wire.Result(work.unit.unit_id, work.unit.hop, work.attempt, kind, work.source, now, now, outcomes)
        value = wire.encode(result)
        self._answers[work.unit.unit_id, work.attempt] = value
        self._tell(work, offset, value)

    def _tell(self, work: wire.Dispatch, offset: int, value: bytes) -> None:
        self._open[offset] = None

        def durable(at: int | None) -> None:
            if at is None:
                self._tell(work, offset, value)
            else:
                self._open.pop(offset, None)

        self.client.append(topics.RESULT, work.queue_partition, work.unit.unit_id, value, tag(PUT), durable)

    def _deliver(self, most: int) -> None:
        """The site says 250, or something else. A crash after this and before the result is durable is the one double
        delivery that cannot be avoided."""
        for _ in range(min(most, len(self._hand))):
            work, offset = self._hand.popleft()
            outcomes = []
            for recipient in work.unit.recipients:
                verdict, code = self.outside.smtp(recipient.address)
                if verdict == wire.DELIVERED:
                    key = (work.unit.envelope.message_id, recipient.index)
                    self.outside.received[key] = self.outside.received.get(key, 0) + 1
                enhanced = f"{code // 100}.0.0"
                outcomes.append(wire.RecipientOutcome(recipient.index, verdict, code, enhanced, "said", "dot"))
            now = self.log.now
            result = wire.Result(
                work.unit.unit_id, work.unit.hop, work.attempt, wire.SETTLED, work.source, now, now, tuple(outcomes)
            )
            self._sent.append((work, offset, result))

    def _answer(self, most: int) -> None:
        for _ in range(min(most, len(self._sent))):
            work, offset, result = self._sent.popleft()
            value = wire.encode(result)
            self._answers[work.unit.unit_id, work.attempt] = value
            self._tell(work, offset, value)

    def _commit(self, _: int) -> None:
        self.log.positions["senders", topics.DISPATCH, self.lane] = min(self._open, default=self._at)
