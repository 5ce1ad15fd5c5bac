"""`GET /api/concerned?tenant=…&domain=…`: how many units a command about these names would be about now.

An object: `waiting`, `in_flight` (in senders' hands). 400 with `error` for names that are none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from mailfleet_router.decisions.commands import Commands
from mailfleet_router.decisions.shaping.control import SUSPEND, Controls, command
from mailfleet_router.decisions.shaping.values import PolicyError
from mailfleet_router.decisions.site_queue import ATTEMPTING, IN_FLIGHT
from mailfleet_router.shell.owner import Owner

SLICE_UNITS = 2_000
"""Looked at before others have a turn."""


def route(owners: Mapping[int, Owner]) -> web.RouteDef:
    """The page over these owners."""

    async def concerned(request: web.Request) -> web.Response:
        controls = Controls()
        try:
            controls.set("?", command("?", SUSPEND, dict(request.query), "counted", "counted", 0.0))
        except PolicyError as error:
            return web.json_response({"error": str(error)}, status=400)
        counts = {"waiting": 0, "in_flight": 0}
        for owner in list(owners.values()):
            await _count(owner, controls, counts)
        return web.json_response(counts)

    return web.get("/api/concerned", concerned)


async def _count(owner: Owner, controls: Controls, counts: dict[str, int]) -> None:
    partition = owner.partition
    if partition is None or not owner.live:
        return
    commands = Commands(controls, partition._entry)
    for number, key in enumerate(list(partition.ledger.units), 1):
        held = partition.ledger.units.get(key)
        if held is not None and commands.hold(held) is not None:
            counts["in_flight" if held.state in (ATTEMPTING, IN_FLIGHT) else "waiting"] += 1
        if number % SLICE_UNITS == 0:
            await asyncio.sleep(0)
