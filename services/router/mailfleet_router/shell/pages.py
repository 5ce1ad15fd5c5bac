"""Pages for people and the command line, on the service's port.

`GET /api/queues`: a JSON array, an object a site: `site`, `partition`, `waiting`, `in_flight`, `deferred`, `oldest_at`,
`next_at` (seconds since 1970, 0 when there is none), `why`.

`GET /api/unit/{id}`: with the id of a unit an object, 404 when it is not queued here; with the id of a message an array
of them. Fields: `unit_id`, `site`, `partition`, `state`, `attempts`, `due_at`, `lane`, `expires_at`, `recipients`, `why`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from mailfleet_core.clock import Clock
from mailfleet_core.model import ids, wire
from mailfleet_router.decisions.partition import Partition
from mailfleet_router.decisions.site_queue import (
    ATTEMPTING,
    DEFERRED,
    ENDING,
    FOLDED,
    IN_FLIGHT,
    PARKED,
    READY,
    RESOLVING,
    Held,
)  # fmt: skip
from mailfleet_router.decisions.sweep import why
from mailfleet_router.shell.owner import Owner

STATES = {
    FOLDED: "waiting", RESOLVING: "resolving", READY: "ready", PARKED: "suspended", DEFERRED: "deferred",
    ATTEMPTING: "in flight", IN_FLIGHT: "in flight", ENDING: "being settled",
}  # fmt: skip


def routes(owners: Mapping[int, Owner], clock: Clock) -> list[web.RouteDef]:
    """The pages over these owners."""

    async def queues(_: web.Request) -> web.Response:
        return web.json_response([row for partition in _live(owners) for row in site_rows(partition)])

    async def unit(request: web.Request) -> web.Response:
        try:
            identifier = ids.parse(request.match_info["id"])
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return _unit_page(identifier, list(_live(owners)))

    return [web.get("/api/queues", queues), web.get("/api/unit/{id}", unit)]


def _live(owners: Mapping[int, Owner]) -> list[Partition]:
    return [owner.partition for owner in owners.values() if owner.partition is not None and owner.live]


def _unit_page(identifier: bytes, partitions: list[Partition]) -> web.Response:
    found = [
        unit_row(partition, held)
        for partition in partitions
        for key, held in partition.ledger.units.items()
        if key.startswith(identifier)
    ]
    if len(identifier) == ids.MESSAGE_ID_BYTES:
        return web.json_response(found)
    return web.json_response(found[0] if found else {"error": "not queued here"}, status=200 if found else 404)


def site_rows(partition: Partition) -> list[dict[str, Any]]:
    """One object a site with waiting mail."""
    rows: dict[str, dict[str, Any]] = {}
    for held in partition.ledger.units.values():
        name = held.site.name if held.site else ""
        row = rows.get(name)
        if row is None:
            row = rows[name] = {
                "site": name, "partition": partition.number, "waiting": 0, "in_flight": 0, "deferred": 0,
                "oldest_at": held.accepted_at, "next_at": 0.0, "why": "",
            }  # fmt: skip
        _add(row, held, partition)
    return list(rows.values())


def _add(row: dict[str, Any], held: Held, partition: Partition) -> None:
    row["oldest_at"] = min(row["oldest_at"], held.accepted_at)
    if held.state in (IN_FLIGHT, ATTEMPTING):
        row["in_flight"] += 1
        return
    row["waiting"] += 1
    if held.state == DEFERRED:
        row["deferred"] += 1
        row["next_at"] = min(row["next_at"] or held.due_at, held.due_at)
        row["why"] = row["why"] or (held.site.why if held.site else "")
    elif held.state in (READY, PARKED, RESOLVING):
        # What keeps mail from being tried says more than what the last attempt came to.
        row["why"] = why(partition, held)[0] or row["why"]


def unit_row(partition: Partition, held: Held) -> dict[str, Any]:
    """One unit, flat."""
    entry = wire.decode(wire.Entry, held.raw)
    last = f"{entry.last.code or ''} {entry.last.text}".strip() if entry.last else ""
    waits = why(partition, held)[0] if held.state in (READY, PARKED, RESOLVING) else ""
    return {
        "unit_id": ids.text(held.key),
        "site": held.site.name if held.site else "",
        "partition": partition.number,
        "state": STATES[held.state],
        "attempts": held.attempts,
        "due_at": held.due_at,
        "lane": held.lane,
        "expires_at": held.expires_at,
        "recipients": " ".join(recipient.address for recipient in entry.unit.recipients),
        "why": waits or last,
    }
