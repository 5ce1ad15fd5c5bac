"""Domain → next hop and site, as far as this process knows them."""

from __future__ import annotations

import msgspec

from mailfleet_core.model.shards import Numbered
from mailfleet_core.model.site import domain_of, site_name
from mailfleet_core.model.wire import BOUNCED, DEFERRED, RecipientOutcome, Route
from mailfleet_router.decisions.policy import Policy, Rule

KEEP_SECONDS = 300.0
"""After this the DNS is asked again, while mail goes on by the old answer (the resolver's own cache knows the TTL)."""
STALE_SECONDS = 1800.0
"""After this mail waits for the new answer."""
ASK_AGAIN_SECONDS = 15.0
"""A question without an answer is not asked again for this long; mail for the domain is deferred at once."""

UNKNOWN, KNOWN, TEMPORARY, HOPELESS = "unknown", "known", "temporary", "hopeless"


class Domain:
    """What is known of one recipient domain. One object a domain, shared by all units and partitions."""

    __slots__ = ("fresh_until", "hosts", "name", "outcome", "route", "rule", "site", "state")

    def __init__(self, name: str, rule: Rule) -> None:
        self.name = name
        self.rule = rule
        self.state = UNKNOWN
        self.site = ""
        self.route = rule.route
        self.hosts = tuple([host for _, host in rule.route.hosts])
        self.fresh_until = 0.0
        self.outcome: RecipientOutcome | None = None
        """Why it cannot be routed."""

    def look(self, now: float) -> str:
        """The state at `now`; UNKNOWN also when what is known is too old to act on."""
        if self.rule.site:
            return KNOWN
        grace = STALE_SECONDS - KEEP_SECONDS if self.state == KNOWN else 0.0
        return self.state if now < self.fresh_until + grace else UNKNOWN


class Routing:
    """All domains this process has met."""

    def __init__(self, policy: Policy, keep: int = 200_000) -> None:
        self.policy = policy
        self.shards: dict[str, Numbered] = {}
        """Maps of hot sites, as `mail.control` has them."""
        self._keep = keep
        self._domains: dict[str, Domain] = {}

    def domain(self, address: str) -> Domain:
        """The domain of `address`. An address without one is local to its route, if a static route takes it."""
        name = domain_of(address)
        found = self._domains.get(name)
        if found is None:
            if len(self._domains) >= self._keep:
                # Units hold their Domain; forgetting it here only means that the DNS is asked once more.
                del self._domains[next(iter(self._domains))]
            rule = self.policy.rule(name)
            found = self._domains[name] = Domain(name, rule)
            if rule.site:
                found.site, found.state = rule.site, KNOWN
        return found

    def answered(self, name: str, kind: str, hosts: tuple[tuple[int, str], ...], now: float) -> Domain:
        """The DNS said `kind` (see `MxAnswer`), or could not be asked (`temporary`)."""
        domain = self._domains.get(name) or Domain(name, self.policy.rule(name))
        self._domains[name] = domain
        if kind in ("mx", "implicit") and hosts:
            domain.state, domain.outcome = KNOWN, None
            domain.route = _with_hosts(domain.rule.route, hosts)
            domain.hosts = tuple([host for _, host in hosts])
            domain.site = site_name(host for _, host in hosts)
            domain.fresh_until = now + KEEP_SECONDS
        elif kind == "temporary":
            if domain.state != KNOWN or now >= domain.fresh_until + STALE_SECONDS - KEEP_SECONDS:
                domain.state, domain.outcome = (
                    TEMPORARY,
                    _outcome(DEFERRED, "4.4.3", "the DNS gives no answer now", name),
                )
            domain.fresh_until = now + ASK_AGAIN_SECONDS
        else:
            text = (
                "the domain says that it takes no mail (null MX)" if kind == "null" else "there is no such mail domain"
            )
            domain.state = HOPELESS
            domain.outcome = _outcome(BOUNCED, "5.1.10" if kind == "null" else "5.1.2", text, name)
            domain.fresh_until = now + ASK_AGAIN_SECONDS
        return domain


def _with_hosts(route: Route, hosts: tuple[tuple[int, str], ...]) -> Route:
    return msgspec.structs.replace(route, hosts=hosts)


def _outcome(verdict: str, enhanced: str, text: str, name: str) -> RecipientOutcome:
    return RecipientOutcome(-1, verdict, 0, enhanced, f"{text}: {name}"[:1000], "dns")
