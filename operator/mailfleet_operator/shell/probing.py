"""Looks at addresses: PTR, EHLO name, blocklists, and, through an egress proxy, the way that their mail goes."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import pathlib
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple, Protocol

from mailfleet_core import metrics
from mailfleet_core.clock import Clock
from mailfleet_core.dns.port import DnsTemporary
from mailfleet_core.socks.client import ProxyFailed, Stage
from mailfleet_core.socks.connecting import Door
from mailfleet_core.socks.proxy import Proxy, users
from mailfleet_core.socks.proxy import proxy_of as proxy_url
from mailfleet_core.socks.seen import asked
from mailfleet_operator.decisions import life, preflight
from mailfleet_operator.decisions.conditions import TRUE, UNKNOWN, Verdict
from mailfleet_operator.decisions.preflight import Answer, Findings, Listing, Named, Path, Seen
from mailfleet_operator.decisions.records import proxy_of
from mailfleet_operator.decisions.resources import POD_NETWORK, Address, Pool, Preflight
from mailfleet_operator.decisions.status import Look
from mailfleet_operator.decisions.times import instant

log = logging.getLogger(__name__)

AT_ONCE = 20
SOON_SECONDS = 10.0
"""Until the next look at what seems to be wrong, or is not through its preflight."""
CONNECT_SECONDS = 10.0


class Dns(Protocol):
    """Questions to the DNS, each asked anew."""

    async def records(self, domain: str, kind: str) -> tuple[str, ...]:
        """Records as text; empty when there are none. Raises DnsTemporary."""


class Way(Protocol):
    """Tries the way that an address's mail goes."""

    async def __call__(self, address: Address, pool: Pool | None, target: str) -> Path:
        """What came of it; never raises for what networks do."""


class Task(NamedTuple):
    """An address to be looked at, by the rules of a pool."""

    address: Address
    pool: Pool | None


class Probing:
    """What is known of each address, and when it is looked at again."""

    def __init__(self, dns: Dns, way: Way, clock: Clock, changed: Callable[[str], None]) -> None:
        """`changed` is told the name of an address of which something else is known than before."""
        self._dns, self._way, self._clock, self._changed = dns, way, clock, changed
        self._seen: dict[str, Seen] = {}
        self._looks: dict[str, Look] = {}
        self._due: dict[str, float] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._under_way: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: set[tuple[str, str]] = set()
        """Series of metrics."""

    def look(self, address: Address) -> Look:
        """What is known of it; until it was looked at, what its status remembers."""
        return self._looks.get(address.name) or _remembered(address)

    def turn(self, tasks: list[Task]) -> None:
        """Begin to look at those that are due; forget those that are gone."""
        now = self._clock.monotonic()
        names = {task.address.name for task in tasks}
        for table in (self._seen, self._looks, self._due):
            for name in set(table) - names:
                table.pop(name, None)
        for task in tasks:
            name = task.address.name
            if name not in self._under_way and self._due.get(name, 0.0) <= now:
                self._under_way.add(name)
                probe = asyncio.create_task(self._probe(task))
                self._tasks.add(probe)
                probe.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Look no more."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _probe(self, task: Task) -> None:
        address, name = task.address, task.address.name
        rules = task.pool.spec.preflight if task.pool is not None else Preflight()
        try:
            async with self._places:
                findings = await self._findings(task, rules)
            found = preflight.judge(
                findings, address.spec.hostname, address.spec.address or address.spec.address6, rules.port25
            )
            before = self._seen.get(name) or Seen(_remembered(address).checks, {})
            seen = self._seen[name] = preflight.confirm(before, found)
            self._looks[name] = Look(seen.checks, findings.at, preflight.listings(findings.answers), findings.path.seen)
            soon = seen.unconfirmed or not life.fit(seen.checks, rules.require_ptr)
            wait = min(SOON_SECONDS, rules.interval_seconds) if soon else rules.interval_seconds
            self._due[name] = self._clock.monotonic() + wait * (1 + 0.1 * self._clock.jitter())
            self._tell(name, seen)
            if seen.checks != before.checks:
                self._changed(name)
        except Exception:
            log.exception("an address could not be looked at", extra={"source": name})
            self._due[name] = self._clock.monotonic() + SOON_SECONDS
        finally:
            self._under_way.discard(name)

    def _tell(self, name: str, seen: Seen) -> None:
        for kind, verdict in seen.checks.items():
            if verdict.status != UNKNOWN:
                metrics.OPERATOR_CHECKS.labels(name, kind).set(verdict.status == TRUE)
                self._told.add((name, kind))
            elif (name, kind) in self._told:
                metrics.OPERATOR_CHECKS.remove(name, kind)
                self._told.discard((name, kind))

    async def _findings(self, task: Task, rules: Preflight) -> Findings:
        spec = task.address.spec
        addresses = [each for each in (spec.address, spec.address6) if each]
        path = self._way(task.address, task.pool, rules.port25)
        names, answers, found = await asyncio.gather(
            asyncio.gather(*(self._named(each, spec.hostname) for each in addresses)),
            asyncio.gather(*(self._listed(each, zone) for zone in rules.blocklists for each in addresses)),
            path,
        )
        return Findings(self._clock.now(), tuple(names), tuple(answers), found)

    async def _named(self, address: str, hostname: str) -> Named:
        pointer = ipaddress.ip_address(address).reverse_pointer
        kind = "AAAA" if ":" in address else "A"
        return Named(address, await self._ask(pointer, "PTR"), await self._ask(hostname, kind))

    async def _listed(self, address: str, zone: str) -> Answer:
        return Answer(zone, address, await self._ask(preflight.reversed_name(address, zone), "A"))

    async def _ask(self, domain: str, kind: str) -> tuple[str, ...] | None:
        try:
            return await self._dns.records(domain, kind)
        except DnsTemporary:
            return None


def _remembered(address: Address) -> Look:
    checks = {
        each["type"]: Verdict(each["status"], each["reason"], each.get("message", ""))
        for each in address.status.conditions
        if each.get("type") in life.CHECKS
    }
    raw = address.raw_status
    known = [Listing(each["zone"], each["verdict"], each.get("answer", "")) for each in raw.get("blocklists") or ()]
    return Look(checks, instant(raw.get("lastChecked")), known, raw.get("seenAddress", ""))


class Ways:
    """Tries as far as it can be seen from the operator's pod."""

    def __init__(self, proxy_users_file: str) -> None:
        """`proxy_users_file`: lines of `user:password`, for proxies that ask for one; empty: none."""
        self._users_file = proxy_users_file

    async def __call__(self, address: Address, pool: Pool | None, target: str) -> Path:
        """Through the egress proxy as mail goes; from a pod of the pod network as far as a connection; else not at all."""
        if pool is None:
            return Path()
        if url := proxy_of(address, pool):
            return await self._through(proxy_url(url), address, target)
        if pool.spec.egress.mode == POD_NETWORK and target:
            return await _direct(target)
        return Path(trouble="only the senders know")

    async def _through(self, proxy: Proxy, address: Address, target: str) -> Path:
        """Without a target, as far as the proxy's answer whether it has the address."""
        source = address.spec.bind_address or address.spec.address or address.spec.address6
        try:
            door = Door(proxy, self._password(proxy), ssl.create_default_context() if proxy.tls else None)
            if not target:
                await door.try_source(source)
                return Path(True)
            connection = await door.connected(source, *await _resolved(target, source))
        except ProxyFailed as error:
            return _failed(proxy, source, error)
        except (OSError, ValueError) as error:
            return Path(trouble=f"{target or proxy}: {error}")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return Path(True, True, (await asked(connection, address.spec.hostname)).address)
        except (OSError, TimeoutError):
            return Path(True, True)

    def _password(self, proxy: Proxy) -> str:
        if not proxy.user or not self._users_file:
            return ""
        return users(pathlib.Path(self._users_file).read_text(encoding="utf-8")).get(proxy.user, "")


def _failed(proxy: Proxy, source: str, error: ProxyFailed) -> Path:
    """A proxy that is away, or does not let us in, says nothing of the address."""
    if error.stage < Stage.BIND:
        return Path(trouble=f"the proxy {proxy}: {error}")
    if error.stage == Stage.BIND:
        return Path(False, None, trouble=f"the proxy {proxy} cannot bind {source}: {error}")
    return Path(True, False, trouble=str(error))


async def _resolved(target: str, source: str) -> tuple[str, int]:
    host, _, port = target.rpartition(":")
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), family=family)
    return str(found[0][4][0]), int(port)


async def _direct(target: str) -> Path:
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError, ValueError) as error:
        return Path(None, False, trouble=str(error) or "no answer in time")
    writer.close()
    return Path(None, True)
