"""What a leader does: gather, decide, act, for each pool, each address of no pool, what is gone, and the policy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Any

from mailfleet_core import metrics
from mailfleet_core.bus.port import BusUnavailable
from mailfleet_core.clock import Clock
from mailfleet_core.model import wire
from mailfleet_core.model.fleet import Fleet
from mailfleet_operator.decisions import lanes, life, records, senders, status, steering
from mailfleet_operator.decisions.lanes import Held
from mailfleet_operator.decisions.membership import Belonging, belongings, conflicts, naming
from mailfleet_operator.decisions.resources import LANE_LABEL, SOURCE_LABEL, Address, Egress, Pool, PoolSpec
from mailfleet_operator.decisions.senders import Place
from mailfleet_operator.decisions.steering import Known, Room, Steering, View
from mailfleet_operator.settings import OperatorSettings
from mailfleet_operator.shell import telling
from mailfleet_operator.shell.cluster import (
    ADDRESS,
    DEPLOYMENT,
    GATEWAY,
    OWN,
    POLICY,
    POOL,
    Cluster,
    NotLeading,
    Object,
    Refused,
)  # fmt: skip
from mailfleet_operator.shell.informer import Informer
from mailfleet_operator.shell.log_side import LogSide
from mailfleet_operator.shell.policies import Policies
from mailfleet_operator.shell.probing import Probing, Task
from mailfleet_operator.shell.stock import Stock, ready
from mailfleet_operator.shell.work_queue import Key, WorkQueue

log = logging.getLogger(__name__)

THE_POOL, FREE, GONE, THE_POLICY = "pool", "address", "gone", "policy"
"""Kinds of keys: a pool with its sources; an address of no pool; a source whose resource is gone; the traffic policies."""
PROBE_SECONDS = 1.0
LIST_PAUSE_SECONDS = 5.0
"""Between a watch's beginning and the list after it: it tells of each object by itself."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What outlives a term of leading."""

    settings: OperatorSettings
    place: Place
    template: dict[str, Any]
    cluster: Cluster
    log_side: LogSide
    clock: Clock


class Reconciling:
    """One term."""

    def __init__(self, around: Surroundings, probing: Probing) -> None:
        self._around, self._probing = around, probing
        self._cluster, self._log_side, self._clock = around.cluster, around.log_side, around.clock
        self._place = around.place
        self._stock = Stock()
        self._queue = WorkQueue(self._look, self._failed)
        self._given: dict[str, Held] = {}
        """What was given in this term: a status that has not come back yet counts."""
        self._written: dict[tuple[str, str], float] = {}
        self._policies = Policies(around.cluster, around.clock, around.place, self._say)
        self._applied: dict[tuple[str, str], tuple[Object, int]] = {}
        """Children as they were applied last, and the generation that came of it, so that what is the same is not sent again
        unless somebody has changed it since."""
        self._belongings: tuple[int, dict[str, Belonging]] = (-1, {})
        self._named: dict[str, list[str]] = {}
        """Source → the pools that name it, the oldest first; of the same moment."""
        self._began_anew = asyncio.Event()
        self._namespaces: list[str] = []
        self.looked_at = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        await self._find_namespaces()
        await self._list()
        kubeconfig = self._around.settings.kubeconfig
        informer = Informer(self._namespaces, tuple(OWN.values()), kubeconfig, self.changed, self._began_anew.set)
        informer.start()
        loops = [self._resync(), self._list_again(), self._follow_statistics(), self._probe()]
        tasks = [asyncio.ensure_future(each) for each in loops]
        tasks += [asyncio.ensure_future(self._queue.work()) for _ in range(self._around.settings.workers)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await informer.stop()

    # --- what wants a look ---------------------------------------------------------------------------------------------

    def changed(self, kind: str, there: bool, body: Object) -> None:
        """An object was told of."""
        version = self._stock.version
        if self._stock.put(kind, there, body):
            name, labels = body["metadata"]["name"], body["metadata"].get("labels") or {}
            if kind == POOL:
                self._queue.add((THE_POOL, name))
                if self._stock.version != version:
                    self._all_addresses()
            elif kind == ADDRESS:
                self.about(name)
            elif kind == DEPLOYMENT and SOURCE_LABEL in labels:
                self.about(labels[SOURCE_LABEL])
            elif kind == POLICY:
                self._queue.add((THE_POLICY, ""))

    def about(self, source: str) -> None:
        """Something about a source has changed."""
        belonging = self._whose().get(source)
        if belonging is not None:
            self._queue.add((THE_POOL, belonging.pool))
        elif source in self._stock.addresses:
            self._queue.add((FREE, source))
        else:
            self._queue.add((GONE, source))
        for pool in self._named.get(source, ()):
            self._queue.add((THE_POOL, pool))

    def _all_addresses(self) -> None:
        whose = self._whose()
        for name in self._stock.addresses:
            if name not in whose:
                self._queue.add((FREE, name))

    def _all_pools(self) -> None:
        for name in self._stock.pools:
            self._queue.add((THE_POOL, name))

    def _everything(self) -> None:
        self._all_pools()
        self._all_addresses()
        for source in self._log_side.table.sources.values():
            if source.name not in self._stock.addresses and source.by == records.BY:
                self._queue.add((GONE, source.name))
        for pool in self._log_side.table.named_pools:
            if pool not in self._stock.pools:
                self._queue.add((THE_POOL, pool))
        self._queue.add((THE_POLICY, ""))

    async def _find_namespaces(self) -> None:
        """Those where senders may be. One for egress that we may not look into has none: it is there for the proxies."""
        self._namespaces = [self._place.namespace]
        other = self._place.egress_namespace
        if other and other != self._place.namespace:
            try:
                await self._cluster.list(DEPLOYMENT, other, LANE_LABEL)
                self._namespaces.append(other)
            except Refused as error:
                if error.code != 403:
                    raise
                log.warning("senders in the namespace for egress are not looked after", extra={"error": str(error)})

    async def _list(self) -> None:
        for kind in OWN:
            self._stock.replace(kind, *await self._cluster.list(kind, self._place.namespace))
        found = [await self._cluster.list(DEPLOYMENT, namespace, LANE_LABEL) for namespace in self._namespaces]
        senders_there = [each for listed in found for each in listed.objects]
        self._stock.replace(DEPLOYMENT, senders_there, min(listed.version for listed in found))

    async def _resync(self) -> None:
        while True:
            self._everything()
            await asyncio.sleep(self._around.settings.resync_seconds)

    async def _list_again(self) -> None:
        """A watch that began anew does not know what was deleted before; the rest is for what nobody has thought of."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._around.settings.list_seconds):
                    await self._began_anew.wait()
                await asyncio.sleep(LIST_PAUSE_SECONDS)
            self._began_anew.clear()
            try:
                await self._list()
            except Exception as error:
                log.warning("resources cannot be listed", extra={"error": str(error) or type(error).__name__})
                self._began_anew.set()
            self._everything()

    async def _follow_statistics(self) -> None:
        news, version = -1, -1
        while True:
            await asyncio.sleep(self._around.settings.look_seconds)
            fleet = self._log_side.fleet
            metrics.OPERATOR_STATS_AGE.set(self._clock.now() - fleet.oldest_at if fleet.partitions else -1)
            metrics.OPERATOR_QUEUED.set(len(self._queue))
            telling.states(self._stock.addresses.values(), self._whose())
            if version != self._log_side.version:
                self._everything()
            elif news != self._log_side.news:
                self._all_pools()
            news, version = self._log_side.news, self._log_side.version
            for name in self._stock.addresses:
                if self._held(name).releasing:
                    self.about(name)

    async def _probe(self) -> None:
        while True:
            whose = self._whose()
            tasks = [
                Task(address, self._rules(address, whose))
                for address in self._stock.addresses.values()
                if not address.deleting and address.status.state != life.RETIRED
            ]
            self._probing.turn(tasks)
            await asyncio.sleep(PROBE_SECONDS)

    def _rules(self, address: Address, whose: dict[str, Belonging]) -> Pool | None:
        """The pool by whose rules it is looked at: its own, else the first that may take it."""
        belonging = whose.get(address.name)
        if belonging is not None:
            return self._stock.pools.get(belonging.pool)
        may_take = [self._stock.pools[name] for name in self._named.get(address.name, ())]
        return next((pool for pool in may_take if address.name in pool.spec.spares), None)

    # --- one look ------------------------------------------------------------------------------------------------------

    async def _look(self, key: Key) -> None:
        kind, name = key
        with metrics.OPERATOR_RECONCILE_SECONDS.labels(kind).time():
            if kind == THE_POLICY:
                await self._policies.look(self._stock)
            elif kind == GONE:
                await self._gone(name)
            elif kind == FREE:
                await self._free(name)
            else:
                await self._pool(name)
        self.looked_at = self._clock.monotonic()
        metrics.OPERATOR_RECONCILES.labels(kind, "done").inc()

    def _failed(self, key: Key, error: Exception) -> None:
        metrics.OPERATOR_RECONCILES.labels(key[0], "failed").inc()
        if not isinstance(error, NotLeading):
            text = str(error) or type(error).__name__
            log.error("a look failed", extra={"kind": key[0], "resource": key[1], "error": text}, exc_info=error)

    async def _pool(self, name: str) -> None:
        pool = self._stock.pools.get(name)
        if pool is None or pool.deleting:
            if name in self._log_side.table.named_pools:
                await self._log_side.tell_pool(name, None)
            self._all_addresses()
            return
        whose = self._whose()
        members = [self._stock.addresses[source] for source, each in sorted(whose.items()) if each.pool == name]
        view = await self._view(pool, [address for address in members if not address.deleting], whose)
        found = steering.steer(view, self._clock.now())
        self._given |= {source: present.held for source, present in found.present.items()}
        await self._say_pool(pool)
        await self._act(view, found)
        telling.pool(pool.name, found, view)

    async def _free(self, name: str) -> None:
        address = self._stock.addresses.get(name)
        if address is None or name in self._whose():
            return
        view = await self._view(None, [address], {})
        found = steering.steer(view, self._clock.now())
        self._given |= {source: present.held for source, present in found.present.items()}
        await self._act(view, found)

    async def _view(self, pool: Pool | None, members: list[Address], whose: dict[str, Belonging]) -> View:
        fleet = self._log_side.fresh()
        known = [self._known(address, whose.get(address.name), fleet) for address in members]
        room = await self._room([address.name for address in members])
        if pool is None:
            return View(None, known, room)
        free = [
            name
            for name in pool.spec.spares
            if name in self._stock.addresses and name not in whose and self._may_take(self._stock.addresses[name], pool)
        ]
        return View(
            pool,
            known,
            room,
            fleet.pool(pool.name) if fleet is not None else None,
            [fleet.tenant(name) for name in sorted(fleet.tenants)] if fleet is not None else (),
            [each for address in members for each in fleet.troubles_of(address.name)] if fleet is not None else (),
            free,
            conflicts(pool, whose, self._stock.addresses),
        )

    def _may_take(self, spare: Address, pool: Pool) -> bool:
        wanted = spare.spec.state == "Active" and spare.status.state == life.PENDING and not spare.deleting
        return wanted and life.fit(self._probing.look(spare).checks, pool.spec.preflight.require_ptr)

    def _known(self, address: Address, belonging: Belonging | None, fleet: Fleet | None) -> Known:
        there = [each for each in self._stock.lanes_of(address.name).values() if ready(each)]
        serving = frozenset(int(each["metadata"]["labels"][LANE_LABEL]) for each in there)
        told = self._log_side.table.sources.get(address.name)
        stats = fleet.source(address.name) if fleet is not None else None
        return Known(address, self._probing.look(address), belonging, told, stats, serving)

    async def _room(self, members: list[str]) -> Room:
        """All lanes. Nothing is awaited after they were gathered, or two looks might give the same lane."""
        releasing = [lane for name in members for lane, _ in self._held(name).releasing]
        try:
            empty = await self._log_side.empty(releasing) if releasing else frozenset[int]()
        except BusUnavailable:
            empty = frozenset()
        names = set(self._stock.addresses) | set(self._log_side.table.sources) | set(self._given)
        held = {name: self._held(name) for name in names}
        return Room(held, empty, self._log_side.lanes, self._around.settings.settle_seconds)

    def _held(self, name: str) -> Held:
        if name in self._given:
            return self._given[name]
        address, told = self._stock.addresses.get(name), self._log_side.table.sources.get(name)
        if address is not None:
            return steering.held(address, told)
        return Held(told.lanes if told is not None else ())

    def _whose(self) -> dict[str, Belonging]:
        if self._belongings[0] != self._stock.version:
            found = belongings(self._stock.pools.values(), self._stock.addresses)
            self._belongings = (self._stock.version, found)
            self._named = naming(self._stock.pools.values())
        return self._belongings[1]

    # --- acting --------------------------------------------------------------------------------------------------------

    async def _act(self, view: View, found: Steering) -> None:
        """Statuses first: they reserve lanes. Then the log, then children."""
        pool = view.pool
        now = self._clock.now()
        for known in view.known:
            name = known.address.name
            await self._say(ADDRESS, name, known.address.raw_status, found.addresses[name], now)
        if found.records:
            await self._log_side.tell(found.records)
        for known in view.known:
            await self._children(pool, known.address, found.present[known.address.name].held)
        if pool is not None and found.pool is not None:
            await self._say(POOL, pool.name, pool.raw_status, found.pool, now)
        for event in found.events:
            await self._tell(event, now)

    async def _say(self, kind: str, name: str, before: Any, after: dict[str, Any], now: float) -> None:
        written_at = self._written.get((kind, name), 0.0)
        if status.to_write(before, after, written_at, now, self._figures_seconds):
            body = await self._cluster.apply_status(kind, name, self._place.namespace, after)
            self._written[kind, name] = now
            self.changed(kind, True, {**body, "kind": kind})

    @property
    def _figures_seconds(self) -> float:
        """Between two writes of figures alone, of one resource."""
        settings, resources = self._around.settings, len(self._stock.pools) + len(self._stock.addresses)
        return max(settings.status_seconds, 60.0 * resources / settings.figures_per_minute)

    async def _say_pool(self, pool: Pool) -> None:
        record = wire.Pool(pool.name, pool.spec.overflow, self._clock.now())
        if records.news(self._log_side.table.named_pools.get(pool.name), record):
            await self._log_side.tell_pool(pool.name, record)

    async def _children(self, pool: Pool | None, address: Address, held: Held) -> None:
        """Senders of all lanes that are held, and no others."""
        told = self._log_side.table.sources.get(address.name)
        whose = pool if pool is not None else _former(told.pool if told is not None else "", self._place)
        wanted = [
            senders.deployment(self._place, self._around.template, whose, address, address.name, lane)
            for lane in sorted(held.all)
        ]
        for body in wanted:
            await self._apply(body)
        names = {(body["metadata"]["namespace"], body["metadata"]["name"]) for body in wanted}
        for namespace, name in self._stock.lanes_of(address.name).keys() - names:
            self._applied.pop((namespace, name), None)
            await self._cluster.delete(DEPLOYMENT, name, namespace)
        if pool is not None and senders.needs_gateway_policy(pool) and held.all:
            await self._apply(senders.gateway_policy(self._place, pool, address))
        elif (GATEWAY, address.name) in self._applied:
            await self._cluster.delete(GATEWAY, f"{self._place.release}-{self._place.namespace}-{address.name}", "")
            del self._applied[GATEWAY, address.name]

    async def _apply(self, body: Object) -> None:
        about = body["metadata"]
        gateway = body["kind"] == GATEWAY
        key = (GATEWAY, about["labels"][SOURCE_LABEL]) if gateway else (about["namespace"], about["name"])
        before, generation = self._applied.get(key, ({}, 0))
        there = generation if gateway else _generation(self._stock.deployments.get(key))
        if before == body and there == generation:
            return
        applied = await self._cluster.apply(body)
        self._applied[key] = body, _generation(applied)
        if not gateway:
            self._stock.put(DEPLOYMENT, True, {**applied, "kind": DEPLOYMENT})

    async def _gone(self, name: str) -> None:
        """A source whose SendingIP is no more: give up its lanes, let them run empty, then forget it."""
        if name in self._stock.addresses:
            return
        told = self._log_side.table.sources.get(name)
        now = self._clock.now()
        if told is not None and told.by == records.BY:
            record = records.gone(told, now)
            if record is None or records.news(told, record):
                await self._log_side.tell({name: record})
        room = await self._room([name])
        before = room.held.get(name, lanes.NOTHING)
        there = {int(each["metadata"]["labels"][LANE_LABEL]) for each in self._stock.lanes_of(name).values()}
        before = lanes.together(before, there)
        held = lanes.allot({**room.held, name: before}, name, 0, room.empty, room.total, now, room.settle_seconds).held
        self._given[name] = held
        if not held.all:
            del self._given[name]
        for key, body in self._stock.lanes_of(name).items():
            if int(body["metadata"]["labels"][LANE_LABEL]) not in held.all:
                await self._cluster.delete(DEPLOYMENT, key[1], key[0])
        for lane in held.all - there:
            # Its pool has gone too, and took the sender along: what is in the lane wants an answer.
            pool = _former(told.pool if told is not None else "", self._place)
            await self._apply(senders.deployment(self._place, self._around.template, pool, None, name, lane))
        if held.all:
            asyncio.get_running_loop().call_later(self._around.settings.look_seconds, self._queue.add, (GONE, name))

    async def _tell(self, event: steering.Event, now: float) -> None:
        table: dict[str, Any] = {POOL: self._stock.pools, ADDRESS: self._stock.addresses}
        about = table[event.kind].get(event.name)
        log.info(event.message, extra={"resource": f"{event.kind}/{event.name}", "reason": event.reason})
        if about is None:
            return
        reference = {
            "apiVersion": "mailfleet.dev/v1alpha1", "kind": event.kind, "name": event.name, "namespace": about.namespace,
            "uid": about.uid,
        }  # fmt: skip
        try:
            await self._cluster.tell(reference, event.severity, event.reason, event.message, now)
        except NotLeading:
            raise
        except Exception as error:
            log.warning("an event cannot be written", extra={"error": str(error) or type(error).__name__})


def _generation(body: Object | None) -> int:
    """Grows with every change of its spec; 0: there is no such object."""
    return int(body["metadata"].get("generation", 0)) if body is not None else 0


def _former(name: str, place: Place) -> Pool:
    """Stands for a pool that a source does not belong to any more, for the senders that empty its lanes."""
    return Pool(name, place.namespace, "", 0, 0.0, PoolSpec(egress=Egress(mode="PodNetwork")))
