"""Pages for people and the command line, on the service's port. Instants are seconds since 1970, 0 when there is none.

`GET /api/queues`: a JSON array, an object a site: `site`, `partition`, `waiting`, `in_flight`, `deferred`, `oldest_at`,
`next_at`, `why`, `window` (how many may be in flight; 0: not known), `per_second` (attempts in the last minute).

`GET /api/unit/{id}`: with the id of a unit an object, 404 when it is not queued here; with the id of a message an array
of them. Fields: `unit_id`, `site`, `partition`, `state`, `attempts`, `due_at`, `lane`, `expires_at`, `recipients`, `why`.

`GET /api/why/{id}`: the same, why it waits: `unit`, `summary`, `reasons`, `place`, `estimate` (`shaping/why.py`).

`GET /api/site/{name}`: a JSON array, an object a partition that has units of the site or has sent some lately: `site`,
`partition`, `router`, `queue` (`SiteCensus.story`), `pace` (`LastMinute.site`), `window`, `shaping` (`telling.site_story`).

`GET /api/top`: an object: `router`, `queued`, `in_flight`, `seconds`, `sites` (those with most units), `sources`,
`paused`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from aiohttp import web

from mailfleet_core.clock import Clock
from mailfleet_core.model import ids, wire
from mailfleet_router.decisions import census, holding
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.shaping import telling
from mailfleet_router.decisions.shaping.last_minute import LastMinute
from mailfleet_router.decisions.shaping.why import Speed
from mailfleet_router.decisions.site_queue import PARKED, READY, RESOLVING, Held, SiteQueue
from mailfleet_router.decisions.sweep import why
from mailfleet_router.shell.owner import Owner

TOP_SITES = 50
TOLD_SITES = 200
"""Of whose waiting mail it is looked up what holds it; of the others it is told what the router knows anyway."""


class Pages:
    """The pages over the owners of one process."""

    def __init__(self, owners: Mapping[int, Owner], clock: Clock, minute: LastMinute, instance: str) -> None:
        self._owners = owners
        self._clock = clock
        self._minute = minute
        self._instance = instance

    def routes(self) -> list[web.RouteDef]:
        """Where they are."""
        return [
            web.get("/api/queues", self._queues),
            web.get("/api/unit/{id}", self._unit),
            web.get("/api/why/{id}", self._why),
            web.get("/api/site/{name}", self._site),
            web.get("/api/top", self._top),
        ]

    async def _queues(self, request: web.Request) -> web.Response:
        found: list[dict[str, Any]] = []
        served, seconds = self._minute.tenants(), self._minute.seconds(self._clock.now())
        for partition in self._live():
            sites = census.Sites()
            for _ in sites.look(partition):
                await asyncio.sleep(0)
            busiest = heapq.nlargest(TOLD_SITES, sites.rows.values(), key=lambda row: int(row["waiting"]))
            for row in busiest:
                site = partition.scheduler.sites.get(row["site"])
                if site is not None and len(site.ready):
                    row["why"] = holding.summary(partition, site, self._clock.now()) or row["why"]
            for row in sites.rows.values():
                row["per_second"] = sum(served.get(row["site"], {}).values()) / seconds
                found.append(row)
        return web.json_response(found)

    async def _unit(self, request: web.Request) -> web.Response:
        return self._of_unit(request, lambda partition, held: unit_row(partition, held))

    async def _why(self, request: web.Request) -> web.Response:
        now = self._clock.now()

        def answer(partition: Partition, held: Held) -> Any:
            site = held.site.base if held.site else ""
            pace = Speed(self._minute.site(site, now).per_second, "as in the last minute")
            return msgspec.to_builtins(holding.answer(partition, held, pace, self._instance, now))

        return self._of_unit(request, answer)

    def _of_unit(self, request: web.Request, row: Any) -> web.Response:
        try:
            identifier = ids.parse(request.match_info["id"])
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        found = [row(partition, held) for partition in self._live() for held in _units(partition, identifier)]
        if len(identifier) == ids.MESSAGE_ID_BYTES:
            return web.json_response(found)
        return web.json_response(found[0] if found else {"error": "not queued here"}, status=200 if found else 404)

    async def _site(self, request: web.Request) -> web.Response:
        name, now = request.match_info["name"].lower(), self._clock.now()
        found = []
        for partition in self._live():
            for site in _queues(partition, name):
                counted = census.SiteCensus(now)
                for _ in counted.look(partition, site.name):
                    await asyncio.sleep(0)
                found.append(self._site_page(partition, site, counted, now))
        return web.json_response(found)

    def _site_page(
        self, partition: Partition, site: SiteQueue, counted: census.SiteCensus, now: float
    ) -> dict[str, Any]:
        minute = self._minute.site(site.base, now)
        return {
            "site": site.name,
            "partition": partition.number,
            "router": self._instance,
            "queue": counted.story(),
            "pace": {**msgspec.to_builtins(minute), "per_second": minute.per_second},
            "window": holding.window(site),
            "shaping": telling.site_story(partition.shaper, site.shape, now) if site.shape else {},
        }

    async def _top(self, _: web.Request) -> web.Response:
        partitions = list(self._live())
        now = self._clock.now()
        sites = [
            (partition, site)
            for partition in partitions
            for site in partition.scheduler.sites.values()
            if site.units > 0
        ]
        return web.json_response(
            {
                "router": self._instance,
                "queued": sum(len(partition.ledger) for partition in partitions),
                "in_flight": sum(partition.scheduler.in_flight for partition in partitions),
                "seconds": self._minute.seconds(now),
                "sites": [
                    _top_row(partition, site, now)
                    for partition, site in heapq.nlargest(TOP_SITES, sites, key=lambda each: each[1].units)
                ],
                "sources": _top_sources(self._minute.sources(), partitions),
                "paused": [scope for partition in partitions for scope in telling.paused(partition.shaper, now)],
            }
        )

    def _live(self) -> Iterator[Partition]:
        for owner in list(self._owners.values()):
            if owner.partition is not None and owner.live:
                yield owner.partition


def _units(partition: Partition, identifier: bytes) -> list[Held]:
    ledger = partition.ledger
    if len(identifier) == ids.MESSAGE_ID_BYTES:
        return ledger.of_message(identifier)
    held = ledger.look_up(identifier)
    return [held] if held is not None else []


def _top_sources(sources: dict[str, dict[str, int]], partitions: list[Partition]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {name: dict(counts) for name, counts in sources.items()}
    for partition in partitions:
        for source, standing in telling.standings(partition.shaper).items():
            found.setdefault(source, {})["standing"] = standing
    return found


def _queues(partition: Partition, name: str) -> list[SiteQueue]:
    """The queue of a site here, or those of its shards."""
    sites = partition.scheduler.sites
    if name in partition.routing.shards:
        return [site for site in sites.values() if site.base == name and site.units > 0]
    return [sites[name]] if name in sites else []


def _top_row(partition: Partition, site: SiteQueue, now: float) -> dict[str, Any]:
    return {
        "site": site.name,
        "waiting": site.units - site.in_flight,
        "ready": len(site.ready),
        "in_flight": site.in_flight,
        "why": holding.summary(partition, site, now),
    }


def unit_row(partition: Partition, held: Held) -> dict[str, Any]:
    """One unit, flat."""
    entry = wire.decode(wire.Entry, held.raw)
    last = f"{entry.last.code or ''} {entry.last.text}".strip() if entry.last else ""
    waits = why(partition, held)[0] if held.state in (READY, PARKED, RESOLVING) else ""
    return {
        "unit_id": ids.text(held.key),
        "site": held.site.name if held.site else "",
        "partition": partition.number,
        "state": holding.STATES[held.state],
        "attempts": held.attempts,
        "due_at": held.due_at,
        "lane": held.lane,
        "expires_at": held.expires_at,
        "recipients": " ".join(recipient.address for recipient in entry.unit.recipients),
        "why": waits or last,
    }
