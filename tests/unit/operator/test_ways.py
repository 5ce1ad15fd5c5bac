"""The way that an address's mail goes, tried through a real egress proxy."""

from __future__ import annotations

import asyncio
from typing import Any

from mailfleet_operator.decisions import resources
from mailfleet_operator.decisions.preflight import Path
from mailfleet_operator.shell.probing import Ways
from support.addresses import free_port
from support.egress_proxy import HERE, UNPLUMBED, egress_proxy, server


def pool(port: int) -> resources.Pool:
    egress = {"mode": "EgressProxy", "proxy": {"endpoints": [f"127.0.0.1:{port}"]}}
    return resources.pool({"metadata": {"name": "tx"}, "spec": {"egress": egress}})


def address(text: str) -> resources.Address:
    return resources.address({"metadata": {"name": "ip-1"}, "spec": {"address": text, "hostname": "mx1.example.org"}})


async def mail_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Says in its answer to EHLO whom it sees."""
    writer.write(b"220 mx.example ESMTP\r\n")
    await reader.readline()
    peer = writer.get_extra_info("peername")[0]
    writer.write(f"250-mx.example at your service, [{peer}]\r\n250 8BITMIME\r\n".encode())
    await reader.readline()


async def tried(source: str, target: str = "", **changes: Any) -> Path:
    async with egress_proxy(**changes) as proxy:
        return await Ways("")(address(source), pool(proxy.port), target)


async def test_a_plumbed_address_is_seen_as_itself() -> None:
    async with server(mail_server) as port:
        found = await tried(HERE, f"127.0.0.1:{port}", ports=(port,))
    assert found == Path(True, True, HERE)


async def test_without_a_target_the_proxy_is_asked_whether_it_has_the_address() -> None:
    assert await tried(HERE) == Path(True)


async def test_an_address_that_no_machine_has_is_not_plumbed() -> None:
    found = await tried(UNPLUMBED)
    assert found.plumbed is False
    assert UNPLUMBED in found.trouble


async def test_a_server_that_is_away_is_not_reached_from_a_plumbed_address() -> None:
    port = free_port()
    found = await tried(HERE, f"127.0.0.1:{port}", ports=(port,))
    assert (found.plumbed, found.reached) == (True, False)


async def test_a_proxy_that_is_away_says_nothing_of_the_address() -> None:
    found = await Ways("")(address(HERE), pool(free_port()), "")
    assert (found.plumbed, found.reached) == (None, None)
    assert "proxy" in found.trouble
