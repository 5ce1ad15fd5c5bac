"""A partition's shaping: what it is told of units and sites, and what of it is written, told and restored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mailfleet_core.model import wire
from mailfleet_core.model.tags import CLAIM, PUT, epoch_of, tag
from mailfleet_core.model.wire import Entry, Result
from mailfleet_router.decisions.carrying import Carrying
from mailfleet_router.decisions.hot_sites import HotSites
from mailfleet_router.decisions.outbox import Append
from mailfleet_router.decisions.policy import LAST_RESORT, Policy
from mailfleet_router.decisions.routing import Domain
from mailfleet_router.decisions.settle import NOTHING
from mailfleet_router.decisions.shaping.control import Controls
from mailfleet_router.decisions.shaping.learned import Lesson, Wide
from mailfleet_router.decisions.shaping.shaper import Shaper
from mailfleet_router.decisions.shaping.site_shape import SiteShape
from mailfleet_router.decisions.shaping.states import States
from mailfleet_router.decisions.shaping.values import Facts
from mailfleet_router.decisions.shaping.warming import Warm
from mailfleet_router.decisions.shaping.ways import Go, Leases
from mailfleet_router.decisions.site_queue import Held, SiteQueue
from mailfleet_router.decisions.spill.space import Spill

Record = tuple[int, bytes, bytes, bytes | None]
"""Offset, key, tag, value: what the bus gives."""

LOOK_SECONDS = 5.0
"""Between two looks at what was learned: what clean time has raised, how sources stand."""


class Shaped(Carrying):
    """The shaper of a partition, and its place between the units and the log."""

    def __init__(
        self, number: int, policy: Policy, controls: Controls, wide: Wide, leases: Leases | None, spill: Spill | None
    ) -> None:
        super().__init__(number, policy, controls, spill)
        self.shaper = Shaper(policy.shaping, policy, wide, leases)
        self.hot: HotSites
        self._states = States(self.shaper)
        self._look_at = 0.0
        self._warms: dict[int, Warm] = {}
        self.pools: Counter[str] = Counter()
        """Units by their pool."""

    def learned(self, records: Iterable[Record]) -> None:
        """Records of `mail.site`: until we are live what others left, then only what must be put right."""
        for offset, key, mark, value in records:
            if mark[:1] != CLAIM:
                self._states.read(key, epoch_of(mark), value, self.epoch, offset)

    def obey(self, policy: Policy, now: float) -> None:
        """Another policy holds from now on."""
        self.policy = policy
        self.scheduler.rules = policy.shaping
        self.shaper.obey(policy.shaping, policy, now)
        self.hot.obey()
        self.scheduler.stir()

    def _look_at_learned(self, now: float) -> None:
        if not 0 <= now - self._look_at < LOOK_SECONDS:
            self._look_at = now
            self.shaper.learned.tick(now)
            self._write_learned()
        if self.shaper.wanting:
            self._reserve(now)

    def _write_learned(self) -> None:
        """What receivers taught us is told, and kept for the next owner."""
        learned = self.shaper.learned
        self.out.events += learned.events
        learned.events = []
        self.out.wide += learned.changed_everywhere()
        for key, value in (*learned.changed(), *self._states.repairs()):
            self.out.states.append((0, self._state(key, value)))

    def _reserve(self, now: float) -> None:
        """Ask for more of what warm-up allows: it may be used when it is in the log."""
        wanting, self.shaper.wanting = self.shaper.wanting, {}
        for key, warm in wanting.items():
            value = warm.reserve(now)
            if value is not None:
                self._token += 1
                self._warms[self._token] = warm
                self.out.states.append((self._token, self._state(key, value)))

    def _state(self, key: str, value: bytes | None) -> Append:
        return Append(self.number, key.encode(), value, tag(PUT, self.epoch))

    def kept(self, token: int) -> None:
        """A record of `mail.site` is durable."""
        if (warm := self._warms.pop(token, None)) is not None:
            warm.durable()

    def _shape(self, site: SiteQueue, domain: Domain | None) -> SiteShape:
        """What shaping knows of a site; `domain` is one whose mail goes there."""
        shape = site.shape
        hosts = domain.hosts if domain is not None else ()
        if shape is None:
            base = domain.rule.route if domain is not None else LAST_RESORT.route
            shape = site.shape = self.shaper.site(site.base, hosts, domain.name if domain is not None else "", base)
            if self.hot.concern(site.name):
                self.shaper.divide(shape)
        elif not shape.hosts.issuperset(hosts):
            self.shaper.know_hosts(shape, hosts)
        return shape

    def _facts(self, held: Held, shape: SiteShape) -> Facts:
        domain = held.domain.name if held.domain is not None else ""
        campaign = self._entry(held).unit.envelope.campaign if self.policy.shaping.narrow else ""
        return self.shaper.facts(shape, held.tenant, held.stream, self.commands.pool(held), domain, campaign)

    def _lesson(
        self, held: Held, site: SiteQueue, entry: Entry, result: Result, known: tuple[Go, SiteShape, Facts] | None, now: float
    ) -> Lesson:  # fmt: skip
        """What an attempt has taught, which may be nothing."""
        outcomes = result.outcomes
        if len(outcomes) == 1 and outcomes[0].verdict == wire.DELIVERED and self.shaper.delivered(known):
            return NOTHING
        name = held.domain.name if held.domain is not None else ""
        lesson = self.shaper.answered(
            entry,
            result,
            self._shape(site, held.domain),
            name,
            (held.domain.hosts if held.domain is not None else ()),
            now,
        )
        if self.shaper.learned.events:
            self._write_learned()
        return lesson

    def _left(self, site: SiteQueue) -> None:
        if self.scheduler.leave(site):
            self.shaper.forget(site.name)
