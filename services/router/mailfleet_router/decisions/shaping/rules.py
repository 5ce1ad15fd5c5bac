"""A traffic policy as the running router asks it: compiled once, replaced as a whole when the policy changes."""

from __future__ import annotations

from functools import lru_cache

from mailfleet_router.decisions.shaping import sections, warmup
from mailfleet_router.decisions.shaping.fairness import FLOOR
from mailfleet_router.decisions.shaping.limits import Limits, provider_of
from mailfleet_router.decisions.shaping.policy_file import Policy
from mailfleet_router.decisions.shaping.responses import Responses
from mailfleet_router.decisions.shaping.schema import Traffic
from mailfleet_router.decisions.shaping.values import FIELDS, Facts


class Rules:
    """What a policy says, ready to be asked."""

    def __init__(self, policy: Policy) -> None:
        traffic = policy.traffic
        self.policy = policy
        self.limits = Limits(traffic)
        self.responses = Responses(*policy.packs())
        self.feedback = frozenset(provider.name for provider in traffic.providers if provider.feedback)
        """Providers that report complaints."""
        self.tuning = sections.tuning(traffic.reputation)
        self.narrow = self.limits.fields & {FIELDS.index("domain"), FIELDS.index("campaign")}
        """Fields by which units of one tenant, stream and pool differ to the limits."""
        self.overflow = {pool.name: pool.overflow for pool in traffic.pools}
        self._streams = {stream.name: stream for stream in traffic.streams}
        self._weights = {tenant.name: float(tenant.weight) for tenant in traffic.tenants}
        self._named = frozenset(provider.name for provider in traffic.providers)
        self.by_domain = any(provider.domains for provider in traffic.providers)
        """Some domains are a provider's whatever their MX says."""
        self.provider = lru_cache(maxsize=50_000)(self._provider)
        self.plan = lru_cache(maxsize=4096)(self._plan)
        self.plan_named = lru_cache(maxsize=256)(self._plan_named)

    def priority(self, stream: str) -> int:
        """A lower number goes first."""
        found = self._streams.get(stream)
        return found.priority if found else 1

    def floor(self, priority: int) -> float:
        """The share of a site's turns that a priority has in any case."""
        return max((each.floor for each in self._streams.values() if each.priority == priority), default=FLOOR)

    def weight(self, tenant: str) -> float:
        """A tenant's share of a busy site, next to the others'."""
        return self._weights.get(tenant, 1.0)

    def bulk(self, stream: str) -> bool:
        """Does this mail wait rather than flee to another source?"""
        return self.priority(stream) > 0

    def label(self, facts: Facts) -> str:
        """What of `facts` differs to the limits among units of one tenant, stream and pool."""
        return "|".join([facts[index] for index in sorted(self.narrow)])

    def _provider(self, site: str, hosts: tuple[str, ...], domain: str) -> str:
        named = provider_of(self.policy.traffic.providers, hosts, domain)
        return named or (site if site in self._named else "")

    def _plan(self, source: str, provider: str) -> warmup.Plan | None:
        found = sections.plan_of(self.policy.traffic, source)
        return found.for_provider(provider) if found else None

    def _plan_named(self, name: str, provider: str) -> warmup.Plan:
        return (sections.plan_named(self.policy.traffic, name) or warmup.CONSERVATIVE).for_provider(provider)


NO_RULES = Rules(Policy(Traffic(version=1), {}))
"""Nothing is limited and no reply means anything."""
