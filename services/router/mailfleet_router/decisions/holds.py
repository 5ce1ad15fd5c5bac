"""A postmaster's "not now": suspended sites, domains and tenants."""

from __future__ import annotations

from typing import NamedTuple

from mailfleet_core.model.wire import Suspension


class Hold(NamedTuple):
    """Why a unit is not tried, for people."""

    reason: str
    until: float
    by: str


class Holds:
    """All suspensions in force. Finding none costs one look at an empty dictionary."""

    def __init__(self) -> None:
        self._sites: dict[str, Suspension] = {}
        self._tenants: dict[str, Suspension] = {}

    def __bool__(self) -> bool:
        return bool(self._sites or self._tenants)

    def set(self, kind: str, name: str, suspension: Suspension | None) -> None:
        """`kind` is `site` (of a site or a domain) or `tenant`; None: resumed."""
        table = self._tenants if kind == "tenant" else self._sites
        if suspension is None:
            table.pop(name, None)
        else:
            table[name] = suspension

    def lapse(self, now: float) -> bool:
        """Forget what is over; did anything end?"""
        over = 0
        for table in (self._sites, self._tenants):
            for name in [name for name, hold in table.items() if 0 < hold.until <= now]:
                del table[name]
                over += 1
        return over > 0

    def on_site(self, site: str) -> Hold | None:
        """The hold on a whole site."""
        found = self._sites.get(site)
        return _hold(found, f"site {site}") if found else None

    def on_unit(self, domain: str, tenant: str) -> Hold | None:
        """The hold on one domain of a site, or on a tenant."""
        if found := self._sites.get(domain):
            return _hold(found, f"domain {domain}")
        found = self._tenants.get(tenant)
        return _hold(found, f"tenant {tenant}") if found else None


def _hold(suspension: Suspension, what: str) -> Hold:
    return Hold(f"{what} is suspended: {suspension.reason}", suspension.until, suspension.author)
