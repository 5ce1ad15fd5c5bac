"""The resolver on dnspython: UDP with TCP fallback, its own cache, one question on the wire for many askers."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver
import idna

from mailfleet_core.clock import Clock, SystemClock
from mailfleet_core.dns.port import DnsTemporary, MxAnswer
from mailfleet_core.settings import DnsSettings, SettingsError

MAX_MX_HOSTS = 20
CACHE_ENTRIES = 50_000
SHORTEST_SECONDS = 1.0
"""Kept at least this long, or a TTL of 0 would make every unit of a site a question."""
FAILURE_SECONDS = 5.0
"""A failure is remembered this long, or hundreds of units would wait for the same time-out one after the other."""
NEGATIVE_SECONDS = 300.0
"""For a "no" without an SOA that says how long it holds (RFC 2308)."""
MAX_QUESTIONS = 200
"""On the wire at once; more only fill the socket buffers of the name server."""

V = TypeVar("V")


class TtlCache(Generic[V]):
    """Values until they expire; the oldest go when it is full. A failure is a value too."""

    def __init__(self, entries: int = CACHE_ENTRIES) -> None:
        self._entries = entries
        self._kept: dict[Any, tuple[float, V | DnsTemporary]] = {}

    def get(self, key: object, now: float) -> V | None:
        """The value of `key`, or None. Raises the DnsTemporary that is remembered."""
        found = self._kept.get(key)
        if found is None or found[0] <= now:
            return None
        if isinstance(found[1], DnsTemporary):
            raise DnsTemporary(*found[1].args)
        return found[1]

    def put(self, key: object, value: V | DnsTemporary, until: float) -> None:
        """Keep `value` until the instant `until`."""
        self._kept.pop(key, None)
        if len(self._kept) >= self._entries:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (until, value)


def a_labels(domain: str) -> str:
    """The name to ask for: lower-case A-labels without the last dot. Raises ValueError for what cannot be a name."""
    name = domain.rstrip(".")
    if not name.isascii():
        # UnicodeError is a ValueError, and idna.IDNAError is one of those.
        name = idna.encode(name, uts46=True).decode("ascii")
    labels = name.lower().split(".")
    if not all(0 < len(label) < 64 for label in labels) or len(name) > 253 or not name.isprintable() or " " in name:
        raise ValueError(f"{domain!r} is not a domain name")
    return ".".join(labels)


def literal(text: str) -> str:
    """The address in `192.0.2.1`, `[192.0.2.1]` or `[IPv6:2001:db8::1]`, normalised; empty when it is none."""
    inner = text.strip("[]")
    if inner[:5].lower() == "ipv6:":
        inner = inner[5:]
    try:
        return str(ipaddress.ip_address(inner))
    except ValueError:
        return ""


def best_hosts(records: list[tuple[int, str]]) -> MxAnswer:
    """What a set of MX records says: the best 20 hosts, or that the domain takes no mail (RFC 7505)."""
    hosts = {(preference, name.rstrip(".").lower()) for preference, name in records}
    named = sorted(host for host in hosts if host[1])
    return MxAnswer("mx", tuple(named[:MAX_MX_HOSTS])) if named else MxAnswer("null")


class DnspythonResolver:
    """The resolver port on dnspython."""

    def __init__(self, settings: DnsSettings, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._settings = settings
        self._resolver = _stub(settings)
        self._mx: TtlCache[MxAnswer] = TtlCache()
        self._addresses: TtlCache[tuple[str, ...]] = TtlCache()
        self._asking: dict[tuple[str, str], asyncio.Task[Any]] = {}
        self._places = asyncio.Semaphore(MAX_QUESTIONS)

    async def mx(self, domain: str) -> MxAnswer:
        """Where mail for `domain` (A-labels or U-labels) goes. Raises DnsTemporary."""
        if address := literal(domain) if domain.startswith("[") else "":
            return MxAnswer("implicit", ((0, address),))
        try:
            name = a_labels(domain)
        except ValueError:
            return MxAnswer("missing")
        answer = self._mx.get(name, self._clock.monotonic())
        if answer is not None:
            return answer
        return await self._together("mx", name, self._ask_mx, self._mx)

    async def addresses(self, host: str) -> tuple[str, ...]:
        """IPv4 and IPv6 addresses of a host, as answered; empty when it has none. Raises DnsTemporary."""
        if address := literal(host):
            return (address,)
        try:
            name = a_labels(host)
        except ValueError:
            return ()
        if name == "localhost" or name.endswith(".localhost"):
            # RFC 6761 6.3: never a question, always this machine; the guard of the sender has the last word.
            return ("127.0.0.1", "::1")
        answer = self._addresses.get(name, self._clock.monotonic())
        return (
            await self._together("addresses", name, self._ask_addresses, self._addresses) if answer is None else answer
        )

    async def records(self, domain: str, kind: str) -> tuple[str, ...]:
        """The records of a name as text, asked anew each time; empty when there are none. Raises DnsTemporary."""
        records, _, _ = await self._question(domain, kind)
        return tuple(record.to_text() for record in records)

    async def _together(
        self, kind: str, name: str, ask: Callable[[str], Awaitable[tuple[V, float]]], cache: TtlCache[V]
    ) -> V:
        """Ask once for all that want to know now; nobody's cancellation takes the answer from the others."""
        task = self._asking.get((kind, name))
        if task is None:
            task = asyncio.ensure_future(self._ask_and_keep(name, ask, cache))
            self._asking[kind, name] = task
            task.add_done_callback(lambda _: self._asking.pop((kind, name), None))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        answer: V = await asyncio.shield(task)
        return answer

    async def _ask_and_keep(self, name: str, ask: Callable[[str], Awaitable[tuple[V, float]]], cache: TtlCache[V]) -> V:
        try:
            value, ttl = await ask(name)
        except DnsTemporary as failure:
            cache.put(name, failure, self._clock.monotonic() + FAILURE_SECONDS)
            raise
        lifetime = max(SHORTEST_SECONDS, min(ttl, self._settings.max_ttl_seconds))
        cache.put(name, value, self._clock.monotonic() + lifetime)
        return value

    async def _ask_mx(self, name: str) -> tuple[MxAnswer, float]:
        records, ttl, exists = await self._question(name, "MX")
        if records:
            return best_hosts([(record.preference, record.exchange.to_text()) for record in records]), ttl
        if exists and await self.addresses(name):
            return MxAnswer("implicit", ((0, name),)), ttl
        return MxAnswer("missing"), ttl

    async def _ask_addresses(self, name: str) -> tuple[tuple[str, ...], float]:
        answers = await asyncio.gather(self._question(name, "A"), self._question(name, "AAAA"), return_exceptions=True)
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        addresses = tuple(record.address for records, _, _ in found for record in records)
        if not addresses:
            # Half an answer is enough to connect, but not enough to say that there is no address.
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
        return addresses, min(ttl for _, ttl, _ in found)

    async def _question(self, name: str, kind: str) -> tuple[list[Any], float, bool]:
        """(records, seconds they hold, whether the name exists). Raises DnsTemporary."""
        try:
            async with self._places:
                answer = await self._resolver.resolve(name, kind, search=False, raise_on_no_answer=False)
        except dns.resolver.NXDOMAIN as missing:
            return [], _negative_ttl(missing), False
        except (dns.exception.DNSException, OSError) as error:
            raise DnsTemporary(f"{name}/{kind}: {_reason(error)}") from error
        if answer.rrset is None:
            negative = float(answer.chaining_result.minimum_ttl)
            return [], min(negative, NEGATIVE_SECONDS), True
        return list(answer.rrset), float(answer.chaining_result.minimum_ttl), True


def _stub(settings: DnsSettings) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(configure=not settings.nameservers)
    except dns.resolver.NoResolverConfiguration as error:
        raise SettingsError("[dns] nameservers: the system has none (/etc/resolv.conf); name one") from error
    if settings.nameservers:
        resolver.nameservers = [_nameserver(text) for text in settings.nameservers]
    resolver.cache = None
    resolver.lifetime = settings.timeout_seconds
    resolver.timeout = min(2.0, settings.timeout_seconds / 2)
    resolver.use_edns(0, 0, 1232)  # flag day 2020: no fragments, TCP for what is longer
    return resolver


def _nameserver(text: str) -> dns.nameserver.Nameserver:
    """The name server `address`, `address:port` or `[address]:port`. Raises SettingsError."""
    host, colon, port = text.rpartition(":")
    if not colon or literal(text):
        host, port = text, "53"
    if not literal(host) or not port.isdigit():
        raise SettingsError(f"[dns] nameservers: {text!r} is not an address or address:port")
    return dns.nameserver.Do53Nameserver(literal(host), int(port))


def _negative_ttl(missing: dns.resolver.NXDOMAIN) -> float:
    # The responses are kept by question; chaining finds the SOA's share of the time to live.
    for response in missing.kwargs.get("responses", {}).values():
        return min(float(response.resolve_chaining().minimum_ttl), NEGATIVE_SECONDS)
    return NEGATIVE_SECONDS


def _reason(error: Exception) -> str:
    if isinstance(error, dns.resolver.LifetimeTimeout):
        return "no name server answered in time"
    if isinstance(error, dns.resolver.NoNameservers):
        codes = {str(failure[3]) for failure in error.kwargs.get("errors", ())}
        return f"every name server failed ({', '.join(sorted(codes))})"
    return str(error) or type(error).__name__
