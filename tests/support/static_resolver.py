"""A resolver with fixed answers, and questions counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from mailfleet_core.dns.port import DnsTemporary, MxAnswer


@dataclass(slots=True)
class StaticResolver:
    """Answers from two tables; a name in neither does not exist, a name in `failing` cannot be asked for now."""

    mx_records: dict[str, MxAnswer] = field(default_factory=dict)
    hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)

    async def mx(self, domain: str) -> MxAnswer:
        """The MX answer of the table, else the domain's own address, else `missing`."""
        self._ask(domain)
        implicit = MxAnswer("implicit", ((0, domain),)) if domain in self.hosts else MxAnswer("missing")
        return self.mx_records.get(domain, implicit)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of the table; none for an unknown host."""
        self._ask(host)
        return self.hosts.get(host, ())

    def _ask(self, name: str) -> None:
        self.asked[name] += 1
        if name in self.failing:
            raise DnsTemporary(f"{name}: SERVFAIL")
