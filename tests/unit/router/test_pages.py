"""The router's pages on the memory log: what they say of mail that waits, and why."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from mailfleet_core.bus import topics
from mailfleet_core.clock import SystemClock
from mailfleet_core.dns.port import DnsTemporary
from mailfleet_core.model import ids, wire
from mailfleet_router.shell.pages import Pages
from support import fleet as building
from support.fleet import Fleet, delivered

SITE = "mx.example.org"
Client = TestClient[web.Request, web.Application]


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[Client]:
    async with served(fleet) as found:
        yield found


def served(fleet: Fleet) -> Client:
    app = web.Application()
    app.add_routes(Pages(fleet.router.owners, SystemClock(), fleet.router._tools.minute, "router-a").routes())
    return TestClient(TestServer(app))


async def page(client: Client, path: str) -> Any:
    async with client.get(path) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def why(client: Client, unit: bytes) -> dict[str, Any]:
    return await page(client, f"/api/why/{ids.text(unit)}")


async def suspend(fleet: Fleet, until: float = 0.0) -> None:
    value = wire.encode(wire.Suspension("they asked", "alice", SystemClock.now(), until))
    await fleet.bus.append(topics.CONTROL, 0, f"suspend|site|{SITE}".encode(), value, topics.tag(topics.PUT))


async def test_a_suspension_is_told_with_its_author_and_its_end(fleet: Fleet, client: Client) -> None:
    until = SystemClock.now() + 600
    await suspend(fleet, until)
    unit = await fleet.put()
    await fleet.until(lambda: "held" in fleet.kinds(unit))
    told = await why(client, unit)
    (reason,) = [reason for reason in told["reasons"] if reason["by"] == "suspension"]
    assert told["summary"] == reason["text"]
    assert "they asked" in reason["text"]
    assert reason["where"].startswith("alice")
    assert (reason["until"], reason["owner"]) == (until, "postmaster")
    assert told["estimate"]["at"] >= until
    assert (told["unit"]["router"], told["unit"]["recipients"]) == ("router-a", ["a@example.org"])


async def test_a_deferral_is_told_with_the_reply_and_when_it_is_tried_again(fleet: Fleet, client: Client) -> None:
    fleet.answer = lambda work: delivered(work, wire.DEFERRED, 451, "greylisted, come back")
    unit = await fleet.put()
    await fleet.until(lambda: fleet.tags(unit) == ["P", "A", "R"])
    told = await why(client, unit)
    (reason,) = told["reasons"]
    assert (told["unit"]["state"], reason["by"], reason["owner"]) == ("deferred", "deferral", "router")
    assert "451 4.2.0 greylisted, come back" in reason["text"]
    assert reason["where"].startswith(
        "what the reply asks for, by rule greylisted, mailfleet_router/policy/responses.yaml:"
    )
    assert reason["until"] == told["unit"]["due_at"] == told["estimate"]["at"] > SystemClock.now()


async def test_the_dns_is_named_when_it_gives_no_answer(fleet: Fleet, client: Client) -> None:
    fleet.dns.answers["example.org"] = DnsTemporary("SERVFAIL")
    unit = await fleet.put()
    await fleet.until(lambda: "deferred" in fleet.kinds(unit) and fleet.tags(unit)[-1] == "R")
    (reason,) = (await why(client, unit))["reasons"]
    assert (reason["by"], reason["owner"]) == ("dns", "dns")
    assert "the DNS gives no answer now" in reason["text"]


async def test_places_in_a_suspended_queue_are_in_order_and_the_site_is_counted(fleet: Fleet, client: Client) -> None:
    await suspend(fleet)
    units = [await fleet.put(f"a{number}@example.org", SITE) for number in range(3)]
    await fleet.until(lambda: "held" in fleet.kinds(units[2]))
    places = [(await why(client, unit))["place"] for unit in units]
    assert places == [{"ahead": number, "of": 3} for number in range(3)]
    (told,) = await page(client, f"/api/site/{SITE}")
    assert (told["queue"]["waiting"], told["queue"]["tenants"]) == (3, {"acme": 3})
    assert told["queue"]["ages"][0] == {"up_to_seconds": 60.0, "units": 3}
    assert [hold["by"] for hold in told["queue"]["holds"]] == ["alice"]
    top = await page(client, "/api/top")
    assert [(site["site"], site["waiting"]) for site in top["sites"]] == [(SITE, 3)]
    (row,) = await page(client, "/api/queues")
    assert (row["waiting"], row["why"]) == (3, f"site {SITE} is suspended: they asked")


async def test_a_site_shows_its_pace_and_its_last_replies(fleet: Fleet, client: Client) -> None:
    fleet.answer = lambda work: delivered(work) if work.attempt > 1 or work.unit.recipients[0].address[0] == "a" \
        else delivered(work, wire.DEFERRED, 421, "busy")  # fmt: skip
    for address in ("a@example.org", "b@example.org"):
        unit = await fleet.put(address, SITE)
        await fleet.until(lambda unit=unit: {"delivered", "deferred"} & {*fleet.kinds(unit)})
    (told,) = await page(client, f"/api/site/{SITE}")
    assert told["pace"]["tenants"] == {"acme": 2}
    assert told["pace"]["outcomes"] == {"delivered": 1, "deferred": 1}
    assert told["pace"]["per_second"] > 0
    assert (told["pace"]["replies"]["4xx"]["text"], told["pace"]["replies"]["2xx"]["code"]) == ("busy", 250)
    (source,) = (await page(client, "/api/top"))["sources"].values()
    assert source == {"attempts": 2, "delivered": 1, "deferred": 1}


async def test_a_full_window_is_told_with_the_setting_that_makes_it() -> None:
    route = {"domains": ["*"], "kind": "smart_host", "name": "office", "hosts": ["10.0.0.9"], "site_window": 1}
    async with building.fleet({"route": [route]}) as fleet, served(fleet) as client:
        fleet.answer = lambda work: None  # type: ignore[assignment, return-value]
        first = await fleet.put("a@example.org", "office")
        await fleet.until(lambda: "attempted" in fleet.kinds(first))
        second = await fleet.put("b@example.org", "office")
        await fleet.until(lambda: "queued" in fleet.kinds(second))
        (reason,) = (await why(client, second))["reasons"]
        assert (reason["by"], reason["where"]) == ("window", "[[route]] office: site_window")
        told = await why(client, first)
        assert (told["unit"]["state"], told["reasons"][0]["owner"]) == ("in flight", "sender")


async def test_a_message_is_asked_for_as_a_whole_and_an_unknown_one_has_no_units(fleet: Fleet, client: Client) -> None:
    await suspend(fleet)
    unit = await fleet.put()
    await fleet.until(lambda: "held" in fleet.kinds(unit))
    message = unit[: ids.MESSAGE_ID_BYTES]
    assert [each["unit"]["unit_id"] for each in await page(client, f"/api/why/{ids.text(message)}")] == [ids.text(unit)]
    assert await page(client, f"/api/why/{ids.text(bytes(16))}") == []
    async with client.get("/api/why/hello") as response:
        assert response.status == 400
