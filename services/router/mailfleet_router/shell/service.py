"""The router as a service: membership, owners, pages, and what is done now and then."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from pathlib import Path

from mailfleet_core import metrics
from mailfleet_core import settings as core_settings
from mailfleet_core.bus import topics
from mailfleet_core.bus.lag import Lag
from mailfleet_core.bus.port import BusUnavailable, Membership
from mailfleet_core.dns.port import Resolver
from mailfleet_core.model import wire
from mailfleet_core.model.sources import Table
from mailfleet_core.model.wire import Event
from mailfleet_core.service import Context
from mailfleet_core.settings import SettingsError
from mailfleet_router.decisions.policy import Policy
from mailfleet_router.decisions.routing import Routing
from mailfleet_router.decisions.shaping.control import Controls
from mailfleet_router.decisions.shaping.last_minute import LastMinute
from mailfleet_router.decisions.shaping.learned import Wide
from mailfleet_router.decisions.shaping.leasing import holder_name
from mailfleet_router.decisions.shaping.rules import Rules
from mailfleet_router.decisions.shaping.values import PolicyError
from mailfleet_router.decisions.spill.space import Room, Spill
from mailfleet_router.settings import RouterSettings
from mailfleet_router.shell import concerned, counting, traffic
from mailfleet_router.shell.audit import Auditor
from mailfleet_router.shell.control import Control
from mailfleet_router.shell.fleet_metrics import FleetMetrics
from mailfleet_router.shell.hearing import Reading
from mailfleet_router.shell.leasing import Leases
from mailfleet_router.shell.owner import GROUP, Owner, Tools
from mailfleet_router.shell.pages import Pages
from mailfleet_router.shell.policy import policy as make_policy
from mailfleet_router.shell.policy import unknown_plans
from mailfleet_router.shell.reload import Reload
from mailfleet_router.shell.reports import Reports
from mailfleet_router.shell.resolving import Resolving
from mailfleet_router.shell.sharding import Sharding
from mailfleet_router.shell.site_metrics import SiteMetrics
from mailfleet_router.shell.spill_file import SpillFile
from mailfleet_router.shell.splitter import Splitter
from mailfleet_router.shell.stats import Telling

log = logging.getLogger(__name__)

COMMIT_SECONDS = 0.2


class Router:
    """Owns the queue partitions that the group gives it."""

    def __init__(self, context: Context, resolver: Resolver) -> None:
        settings = context.settings.section("router", RouterSettings)
        bus_settings = context.settings.section("bus", core_settings.BusSettings)
        egress = core_settings.egress(context.settings)
        own = traffic.own_file(context.settings)
        self._egress, self._settings, self._traffic = egress, settings, _load(own)
        self._table = Table(context.bus.partitions(topics.DISPATCH))
        policy = self._policy()
        self._reload = Reload(own, self._policy_changed) if own else None
        self._reloading: asyncio.Task[None] | None = None
        bus, clock = context.bus, context.clock
        controls, routing = Controls(), Routing(policy)
        minute, wide = LastMinute(clock.now()), Wide()
        control = Control(bus, controls, self._commanded, wide, clock, self._table)
        expire = {stream.name: stream.expire_seconds for stream in egress.streams}["transactional"]
        reports = Reports(bus, clock, control, settings.hostname or socket.getfqdn(), expire)
        resolving = Resolving(resolver, routing, clock, settings.dns_questions, self._resolved)
        self.owners: dict[int, Owner] = {}
        room = Room(settings.memory_units)
        leases = Leases(bus, clock, context.instance, self._shares_grew)
        self._tools = Tools(
            bus, clock, policy, routing, controls, control, reports, leases, resolving, context.instance,
            bus_settings.max_in_flight_bytes, minute, wide, lambda: Spill(room, SpillFile(settings.spill_directory)),
        )  # fmt: skip
        control.on_shards = self._shards_changed
        if egress.from_log:
            control.on_sources = self._sources_changed
        routing.shards = control.shards
        self._sharding = Sharding(bus, clock, control.shards, lambda: self._tools.policy)
        self._site_metrics = SiteMetrics(minute)
        self._telling = Telling(bus, clock, self.owners, context.instance)
        self._auditor: Auditor | None = None
        self._fleet_metrics: FleetMetrics | None = None
        self._splitter = Splitter(bus, policy, context.instance)
        self._membership: Membership | None = None
        self._housekeeping: asyncio.Task[None] | None = None
        self._lag: asyncio.Task[None] | None = None
        self._started = False
        context.routes.extend(Pages(self.owners, clock, minute, context.instance).routes())
        context.routes.append(concerned.route(self.owners))

    async def start(self) -> None:
        """Read control, join the groups."""
        await self._tools.control.start()
        self._tools.controls.lapse(self._tools.clock.now())
        self._tools.leases.start()
        self._housekeeping = asyncio.create_task(self._keep_house())
        self._lag = asyncio.create_task(Lag(self._tools.bus, GROUP, topics.RESULT, self._positions).run())
        if self._reload is not None:
            self._reloading = asyncio.create_task(self._reload.run())
        told, name = (self._assigned, self._revoked), self._tools.instance
        self._membership = await self._tools.bus.join(GROUP, topics.RESULT, *told, name=name)
        await self._splitter.start()
        self._started = True

    async def drain(self) -> None:
        """Begin no attempt, let what is under way become durable, give everything back."""
        self._started = False
        await self._splitter.drain()
        if self._membership is not None:
            await self._membership.leave()
        await self._tools.leases.stop()
        await self._tools.resolving.stop()
        await self._tools.control.stop()
        ours = [task for task in (self._housekeeping, self._reloading, self._lag) if task is not None]
        for task in ours:
            task.cancel()
        await asyncio.gather(*ours, return_exceptions=True)

    @property
    def ready(self) -> bool:
        """Started; it may own nothing when there are more routers than partitions."""
        return self._started and all(owner.live for owner in self.owners.values())

    def _assigned(self, partitions: frozenset[int]) -> None:
        for number in partitions:
            self.owners[number] = Owner(number, self._tools)
        if 0 in partitions:
            self._fleet_metrics = FleetMetrics(self._tools.bus, self._tools.clock)
        if 0 in partitions and self._settings.audit:
            self._auditor = Auditor(
                self._tools.bus, self._tools.clock, self._settings.audit_grace_seconds, self._reading
            )
        log.info("partitions assigned", extra={"partitions": sorted(partitions)})

    def _reading(self, number: int) -> Reading | None:
        owner = self.owners.get(number)
        return owner.reading if owner is not None else None

    async def _revoked(self, partitions: frozenset[int]) -> None:
        gone = [self.owners.pop(number) for number in partitions if number in self.owners]
        if 0 in partitions and self._fleet_metrics is not None:
            await self._fleet_metrics.stop()
            self._fleet_metrics = None
        if 0 in partitions and self._auditor is not None:
            await self._auditor.stop()
            self._auditor = None
        await asyncio.gather(*(owner.stop() for owner in gone))
        log.info("partitions given up", extra={"partitions": sorted(partitions)})

    def _resolved(self, name: str) -> None:
        now = self._tools.clock.now()
        for owner in self.owners.values():
            if owner.partition is not None and owner.live:
                owner.partition.resolved(name, now)
                owner.wake()

    def _commanded(self) -> None:
        now = self._tools.clock.now()
        for owner in self.owners.values():
            if owner.partition is not None and owner.live:
                owner.partition.commanded(now)
                owner.wake()

    def _shards_changed(self, site: str) -> None:
        for owner in self.owners.values():
            if owner.partition is not None and owner.live:
                owner.partition.shards_changed(site)
                owner.wake()

    def _divide(self) -> None:
        first = self.owners.get(0)
        if first is not None and first.live:
            self._sharding.look()
        else:
            self._sharding.forget()

    def _shares_grew(self, holders: set[str]) -> None:
        for owner in self.owners.values():
            if owner.partition is not None and holder_name(owner.number, owner.partition.epoch) in holders:
                owner.wake()

    def _policy(self, shaping: Rules | None = None) -> Policy:
        table = self._table if self._egress.from_log else None
        return make_policy(self._egress, self._settings, self._traffic, table, shaping)

    def _obey(self, policy: Policy) -> None:
        self._tools.policy = policy
        now = self._tools.clock.now()
        for owner in self.owners.values():
            if owner.partition is not None:
                owner.partition.obey(policy, now)
                if owner.live and owner.partition.commands:
                    # What was parked because all its sources are suspended may have others now.
                    owner.partition.commanded(now)
                owner.wake()

    def _sources_changed(self) -> None:
        shaping = self._tools.policy.shaping
        self._obey(self._policy(shaping))
        states = Counter(source.state for source in self._table.sources.values())
        log.info("the sources in the log are others", extra={"states": dict(states)})
        for mistake in (*self._table.mistakes(), *unknown_plans(self._table, shaping)):
            log.warning("a source cannot be used as it should be", extra={"why": mistake})

    def _policy_changed(self, given: traffic.TrafficPolicy) -> None:
        tools, self._traffic = self._tools, given
        self._obey(self._policy())
        now = tools.clock.now()
        counted = f"{len(given.own.limits)} limits and {len(given.own.rules)} rules of its own"
        told = Event(b"", "policy", now, text=f"the traffic policy was changed: {counted}", by=tools.instance)
        tools.bus.append(topics.EVENTS, 0, b"", wire.tell([told]), topics.tag(topics.PUT)).add_done_callback(_unheard)
        log.info(
            "the traffic policy was changed", extra={"limits": len(given.own.limits), "rules": len(given.own.rules)}
        )

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            try:
                if self._tools.controls.lapse(self._tools.clock.now()):
                    self._commanded()
                self._tools.wide.tick(self._tools.clock.now())
                for owner in list(self.owners.values()):
                    owner.sweep()
                    await owner.commit()
                self._divide()
                self._gauge()
                await self._telling.tell()
            except BusUnavailable:
                log.info("positions are committed when the log is back")
            except Exception:
                log.exception("housekeeping failed; the next round tries again")

    def _positions(self) -> dict[int, int]:
        """Of the live partitions: up to where their results are dealt with."""
        live = [owner.partition for owner in self.owners.values() if owner.partition is not None and owner.live]
        return {partition.number: partition.progress.position for partition in live}

    def _gauge(self) -> None:
        counting.tell()
        partitions = [owner.partition for owner in self.owners.values() if owner.partition is not None]
        self._site_metrics.tell(partitions, self._tools.clock.now())
        metrics.OWNED_PARTITIONS.set(len(partitions))
        metrics.LIVE_PARTITIONS.set(sum(owner.live for owner in self.owners.values()))
        metrics.QUEUE_PARTITIONS.set(self._tools.bus.partitions(topics.QUEUE))
        metrics.QUEUED_UNITS.set(sum(len(partition.ledger) for partition in partitions))
        metrics.IN_FLIGHT_UNITS.set(sum(partition.scheduler.in_flight for partition in partitions))


def _unheard(future: asyncio.Future[int]) -> None:
    if not future.cancelled() and future.exception() is not None:
        log.warning("that the policy was changed could not be told in mail.events")


def _load(path: Path | None) -> traffic.TrafficPolicy:
    try:
        return traffic.load_both(traffic.present(path))
    except PolicyError as error:
        raise SettingsError(str(error)) from error
