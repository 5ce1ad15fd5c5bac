"""The egress proxy on real sockets: what it moves, what it refuses, and what hostile clients come to."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import struct
import sys
import time
from pathlib import Path

import pytest
import uvloop

from mailfleet_core import metrics
from mailfleet_core.settings import SettingsError
from mailfleet_core.socks import wire
from mailfleet_core.socks.client import ProxyFailed, Stage
from mailfleet_core.socks.connecting import Door
from mailfleet_core.socks.proxy import Proxy, proxy_of
from mailfleet_core.socks.seen import seen
from mailfleet_core.socks.wire import Code
from mailfleet_egress.decisions import users
from mailfleet_egress.shell import checking
from mailfleet_egress.shell.service import EgressProxy
from mailfleet_egress.shell.users import LOOK_SECONDS
from support import certificates
from support.egress_proxy import GREETING, HERE, UNPLUMBED, Client, egress_proxy, open_to, server, until


def refusals(reason: str) -> float:
    return float(metrics.EGRESS_REFUSALS.labels(reason)._value.get())


async def tell_peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(writer.get_extra_info("peername")[0].encode() + b"\n")
    await reader.read()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


def door(proxy: EgressProxy, **fields: object) -> Door:
    return Door(Proxy("127.0.0.1", proxy.port), **fields)  # type: ignore[arg-type]


# --- what it is for ---------------------------------------------------------------------------------------------------
async def test_a_connection_comes_from_the_address_that_was_asked_for() -> None:
    async with server(tell_peer) as port, egress_proxy(ports=(port,)) as proxy:
        sock = await door(proxy).connected(HERE, "127.0.0.1", port)
        reader, writer = await asyncio.open_connection(sock=sock)
        assert await reader.readline() == b"127.0.0.7\n"
        writer.close()


async def test_an_address_that_is_not_here_is_told_apart_from_one_that_is_not_listed() -> None:
    async with egress_proxy() as proxy:
        with pytest.raises(ProxyFailed) as failed:
            await door(proxy).connected(UNPLUMBED, "127.0.0.1", 25)
        assert (failed.value.stage, failed.value.code) == (Stage.BIND, Code.FAILED)
        with pytest.raises(ProxyFailed) as failed:
            await door(proxy).connected("127.0.0.8", "127.0.0.1", 25)
        assert (failed.value.stage, failed.value.code) == (Stage.BIND, Code.FORBIDDEN)


async def test_the_health_page_says_which_addresses_are_here() -> None:
    async with egress_proxy() as proxy:
        page = proxy.plumbing.page()
        assert {address: entry["plumbed"] for address, entry in page.items()} == {HERE: True, UNPLUMBED: False}  # type: ignore[index]
        assert proxy.ready
    async with egress_proxy(addresses=(UNPLUMBED,)) as proxy:
        assert not proxy.ready


async def test_a_destination_that_does_not_answer_is_told_as_what_it_is() -> None:
    async with server(echo) as port:
        pass
    async with egress_proxy(ports=(port,)) as proxy:
        with pytest.raises(ProxyFailed) as failed:
            await door(proxy).connected(HERE, "127.0.0.1", port)
        assert (failed.value.stage, failed.value.code) == (Stage.CONNECT, Code.REFUSED)


async def test_everything_arrives_both_ways_whatever_its_size() -> None:
    data = random.Random(1).randbytes(8 << 20)
    before = float(metrics.EGRESS_BYTES.labels(HERE, "out")._value.get())
    async with server(echo) as port, egress_proxy(ports=(port,)) as proxy:
        client = await open_to(proxy, port)

        async def write() -> None:
            client.writer.write(data)
            await client.writer.drain()
            client.writer.write_eof()

        writing = asyncio.create_task(write())
        async with asyncio.timeout(30):
            assert await client.reader.read() == data
        await writing
        client.close()
        await until(lambda: not proxy.hub.connections)
    assert metrics.EGRESS_BYTES.labels(HERE, "out")._value.get() - before == len(data)


async def test_who_has_said_all_may_still_hear_the_answer() -> None:
    async def answer_at_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.read()
        await asyncio.sleep(0.05)
        writer.write(b"you said %d" % len(said))

    async with server(answer_at_the_end) as port, egress_proxy(ports=(port,)) as proxy:
        client = await open_to(proxy, port)
        client.writer.write(b"x" * 100_000)
        client.writer.write_eof()
        assert await client.reader.read() == b"you said 100000"


async def test_a_reset_is_passed_on() -> None:
    async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(1, 13, linger)  # SOL_SOCKET, SO_LINGER
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async with server(reset) as port, egress_proxy(ports=(port,)) as proxy:
        client = await open_to(proxy, port)
        assert await client.ended()
        await until(lambda: not proxy.hub.connections)


async def test_what_the_client_sends_ahead_arrives() -> None:
    async with server(echo) as port, egress_proxy(ports=(port,)) as proxy:
        client = await Client.of(proxy)
        said = GREETING + wire.message(wire.BIND, HERE) + wire.message(wire.CONNECT, "127.0.0.1", port) + b"ahead"
        assert (await client.ask(said, 27))[-5:] == b"ahead"


def test_who_speaks_first_and_at_once_is_heard() -> None:
    """Mail servers do; this one in a process of its own, so that its greeting is there when the connection is. On the loop
    that services run on, which reads earlier than asyncio's."""
    uvloop.run(hear_greetings())


async def hear_greetings() -> None:
    code = (
        "import socket\ns = socket.create_server(('127.0.0.1', 0), backlog=100)\nprint(s.getsockname()[1], flush=True)\n"
        "kept = []\nwhile True:\n    c, _ = s.accept()\n    c.sendall(b'220 mx\\r\\n')\n    kept.append(c)\n"
    )
    mx = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    try:
        assert mx.stdout is not None
        port = int(await mx.stdout.readline())
        async with egress_proxy(ports=(port,)) as proxy:

            async def greeting() -> bytes:
                client = await open_to(proxy, port)
                line = await asyncio.wait_for(client.reader.readline(), 10)
                client.close()
                return line

            assert set(await asyncio.gather(*(greeting() for _ in range(40)))) == {b"220 mx\r\n"}
    finally:
        mx.kill()
        await mx.wait()


# --- who may ----------------------------------------------------------------------------------------------------------
async def test_only_users_of_the_file_get_in(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"clear:secret\nhashed:{users.hashed('other', os.urandom(16))}\n")
    async with server(tell_peer) as port, egress_proxy(ports=(port,), users_file=str(file)) as proxy:
        for user, password in (("clear", "secret"), ("hashed", "other"), ("hashed", "other")):
            way = Door(Proxy("127.0.0.1", proxy.port, user), password)
            (await way.connected(HERE, "127.0.0.1", port)).close()
        for user, password in (("clear", "other"), ("hashed", "secret"), ("nobody", "secret")):
            before = time.monotonic()
            with pytest.raises(ProxyFailed) as failed:
                await Door(Proxy("127.0.0.1", proxy.port, user), password).connected(HERE, "127.0.0.1", port)
            assert failed.value.stage is Stage.PASSWORD
            assert time.monotonic() - before >= 1.0
        with pytest.raises(ProxyFailed, match="authentication"):
            await door(proxy).connected(HERE, "127.0.0.1", port)


async def test_a_changed_users_file_is_read_and_a_broken_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailfleet_egress.shell.users.LOOK_SECONDS", 0.0)
    file = tmp_path / "users"
    file.write_text("a:one\n")
    assert LOOK_SECONDS > 0
    async with server(tell_peer) as port, egress_proxy(ports=(port,), users_file=str(file)) as proxy:
        way = Door(Proxy("127.0.0.1", proxy.port, "a"), "two")
        file.write_text("a:two\nb:three\n")
        (await way.connected(HERE, "127.0.0.1", port)).close()
        file.write_text("nothing that can be read\n")
        (await way.connected(HERE, "127.0.0.1", port)).close()
        file.write_text("")
        (await way.connected(HERE, "127.0.0.1", port)).close()


@pytest.mark.parametrize("content", ["", "# nobody\n", "no colon\n", "a:scrypt$00\n"])
async def test_it_does_not_start_with_a_users_file_that_lets_nobody_or_anybody_in(tmp_path: Path, content: str) -> None:
    file = tmp_path / "users"
    file.write_text(content)
    with pytest.raises(SettingsError, match="users_file"):
        async with egress_proxy(users_file=str(file)):
            pass


async def test_tls_goes_all_the_way_and_a_new_certificate_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mailfleet_core.tls.LOOK_SECONDS", 0.0)
    first, second = (certificates.make(tmp_path / name, "127.0.0.1") for name in ("one", "two"))
    used = (tmp_path / "tls.pem", tmp_path / "tls.key")

    def install(made: certificates.Certificate) -> None:
        for target, source in zip(used, (made.certificate, made.key), strict=True):
            target.write_bytes(source.read_bytes())

    install(first)
    files = {"certificate_file": str(used[0]), "key_file": str(used[1])}
    async with server(tell_peer) as port, egress_proxy(ports=(port,), **files) as proxy:
        url = proxy_of(f"socks5s://127.0.0.1:{proxy.port}")

        async def through(trusted: certificates.Certificate) -> bytes:
            context = ssl.create_default_context(cafile=str(trusted.certificate))
            sock = await Door(url, "", context).connected(HERE, "127.0.0.1", port)
            reader, writer = await asyncio.open_connection(sock=sock)
            line = await reader.readline()
            writer.close()
            return line

        assert await through(first) == b"127.0.0.7\n"
        install(second)
        assert await through(second) == b"127.0.0.7\n"
        with pytest.raises(ProxyFailed) as failed:
            await through(first)
        assert failed.value.stage is Stage.REACH
        client = await Client.of(proxy)
        assert await client.ask(GREETING + wire.message(wire.BIND, HERE), 2) in (b"", b"\x15\x03")
        await until(lambda: not proxy.hub.connections)


# --- hostile clients --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("address", "port", "reason"),
    [("127.0.0.1", 22, "port"), ("10.0.0.1", 25, "inside"), ("169.254.169.254", 25, "inside"), ("::1", 25, "inside")],
)
async def test_it_is_no_way_into_the_network_that_it_lives_in(address: str, port: int, reason: str) -> None:
    before = refusals(reason)
    async with egress_proxy(allowed_inside=("127.0.0.0/8",)) as proxy:
        client = await Client.of(proxy)
        assert await client.bind() == 0
        assert await client.connect(port, address) == Code.FORBIDDEN
        assert await client.ended()
    assert refusals(reason) == before + 1


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"CONNECT mx.example:25 HTTP/1.1\r\n\r\n", b""),
        (b"\x04\x01\x00\x19\x7f\x00\x00\x01\x00", b""),
        (GREETING + wire.message(wire.CONNECT, "127.0.0.1", 25), b"\x05\x00" + wire.message(Code.FORBIDDEN)),
        (GREETING + b"\x05\x03\x00\x01\x00\x00\x00\x00\x00\x00", b"\x05\x00" + wire.message(Code.NO_SUCH_COMMAND)),
        (
            GREETING + b"\x05\x02\x00\x03\x0b127.0.0.007\x00\x00",
            b"\x05\x00" + wire.message(Code.NO_SUCH_ADDRESS_TYPE),
        ),
        (GREETING + wire.message(wire.BIND, "0.0.0.0"), b"\x05\x00" + wire.message(Code.FORBIDDEN)),
    ],
)
async def test_attempts_at_an_open_proxy_come_to_nothing(said: bytes, answer: bytes) -> None:
    async with egress_proxy() as proxy:
        client = await Client.of(proxy)
        assert await client.ask(said, 100) == answer
        await until(lambda: not proxy.hub.connections)


async def test_a_slow_client_is_ended_in_every_phase() -> None:
    steps = [b"", b"\x05", GREETING, GREETING + b"\x05\x02\x00", GREETING + wire.message(wire.BIND, HERE)]
    async with egress_proxy(handshake_seconds=0.3, request_seconds=0.3) as proxy:
        clients = [await Client.of(proxy) for _ in steps]
        for client, step in zip(clients, steps, strict=True):
            client.writer.write(step)
        await until(lambda: not proxy.hub.connections)


async def test_one_octet_at_a_time_does_not_lengthen_the_handshake() -> None:
    async with egress_proxy(handshake_seconds=0.5) as proxy:
        client = await Client.of(proxy)
        began = time.monotonic()
        for octet in b"\x05\xff" + b"\x00" * 100:
            client.writer.write(bytes((octet,)))
            await asyncio.sleep(0.05)
            if client.reader.at_eof() or not proxy.hub.connections:
                break
        assert time.monotonic() - began < 3.0


async def test_garbage_costs_nothing_that_stays() -> None:
    chance = random.Random(7)
    prefixes = [b"", b"\x05", GREETING, GREETING + wire.message(wire.BIND, HERE), GREETING + b"\x05\x01\x00\x03\xff"]
    async with egress_proxy(handshake_seconds=1.0, request_seconds=1.0) as proxy:

        async def attack(number: int) -> None:
            client = await Client.of(proxy)
            client.writer.write(prefixes[number % len(prefixes)] + chance.randbytes(chance.randrange(1, 100_000)))
            await client.ended()
            client.close()

        await asyncio.gather(*(attack(number) for number in range(100)))
        await until(lambda: not proxy.hub.connections)
        assert proxy.hub.doorman.count == 0
        assert (await Client.of(proxy)) is not None


async def test_a_flood_before_the_connection_is_not_read_into_memory() -> None:
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        # Its queue is full, so that a further connection neither comes about nor fails.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        for each in (first, second):
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        async with egress_proxy(ports=(port,), connect_seconds=1.5) as proxy:
            client = await Client.of(proxy)
            assert await client.bind() == 0
            client.writer.write(wire.message(wire.CONNECT, "127.0.0.1", port) + b"x" * (32 << 20))
            await asyncio.sleep(0.5)
            (connection,) = proxy.hub.connections
            assert connection._session.waiting
            assert len(connection._session._buffer) <= 512 << 10
            client.writer.transport.abort()
            await until(lambda: not proxy.hub.connections)


async def test_a_destination_that_does_not_read_slows_the_client_and_fills_nothing() -> None:
    reading = asyncio.Event()

    async def lazy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        await reading.wait()

    async with server(lazy) as port, egress_proxy(ports=(port,)) as proxy:
        client = await open_to(proxy, port)
        client.writer.write(b"x" * (64 << 20))
        await asyncio.sleep(1.0)
        (connection,) = proxy.hub.connections
        assert connection._relay is not None
        there = connection._relay.right.transport
        assert there is not None
        assert there.get_write_buffer_size() < 1 << 20
        assert client.writer.transport.get_write_buffer_size() > 16 << 20
        reading.set()
        client.writer.transport.abort()


async def test_what_is_idle_or_half_closed_for_long_is_ended() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with server(silent) as port, egress_proxy(ports=(port,), idle_seconds=0.5) as proxy:
        client = await open_to(proxy, port)
        assert await client.ended()
    async with server(silent) as port, egress_proxy(ports=(port,), half_close_seconds=0.5) as proxy:
        client = await open_to(proxy, port)
        client.writer.write_eof()
        assert await client.ended()


async def test_one_client_cannot_take_all_places() -> None:
    async with egress_proxy(max_connections_per_client=2) as proxy:
        kept = [await Client.of(proxy) for _ in range(2)]
        assert await kept[1].bind() == 0
        assert await (await Client.of(proxy)).ended()
        kept[0].close()
        await until(lambda: proxy.hub.doorman.count == 1)
        assert await (await Client.of(proxy)).bind() == 0


async def test_clients_of_other_networks_are_not_spoken_to() -> None:
    async with egress_proxy(networks=("192.0.2.0/24",)) as proxy:
        assert await (await Client.of(proxy)).ended()


# --- the end ----------------------------------------------------------------------------------------------------------
async def test_a_drain_lets_end_what_is_open_and_takes_nothing_new() -> None:
    async with server(echo) as port, egress_proxy(ports=(port,), drain_seconds=5.0) as proxy:
        client, early = await open_to(proxy, port), await Client.of(proxy)
        draining = asyncio.create_task(proxy.drain())
        assert await early.ended()
        assert await client.ask(b"still here", 10) == b"still here"
        with pytest.raises(ConnectionError):
            await Client.of(proxy)
        assert not draining.done()
        client.close()
        await asyncio.wait_for(draining, 2.0)


async def test_a_drain_ends_what_does_not() -> None:
    async with server(echo) as port, egress_proxy(ports=(port,), drain_seconds=0.3) as proxy:
        client = await open_to(proxy, port)
        await asyncio.wait_for(proxy.drain(), 3.0)
        assert await client.ended()


# --- seen from outside ------------------------------------------------------------------------------------------------
async def test_outside_it_is_seen_which_address_we_come_from() -> None:
    listener = await checking.listen("127.0.0.1:0")
    port = listener.sockets[0].getsockname()[1]
    target = f"127.0.0.1:{port}"
    async with egress_proxy(ports=(port,)) as proxy:
        url = f"socks5://127.0.0.1:{proxy.port}"
        found = await seen(url, HERE, target)
        assert found.address == HERE
        assert found.mismatches("203.0.113.7")
        assert (await seen("", "127.0.0.9", target)).address == "127.0.0.9"
        for proxied, source in ((url, UNPLUMBED), ("", UNPLUMBED), ("socks5://127.0.0.1:1", HERE)):
            failed = await seen(proxied, source, target)
            assert (failed.address, failed.ours) == ("", True)
        nobody = await seen(url, HERE, "127.0.0.1:1")
        assert (nobody.address, nobody.ours) == ("", False)
    listener.close()


async def test_a_mail_server_says_it_in_its_answer_to_ehlo() -> None:
    async def mx(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[0]
        writer.write(b"220 mx [198.51.100.1] ESMTP\r\n")
        await reader.readline()
        writer.write(f"250-mx at your service, [{peer}]\r\n250 SIZE\r\n".encode())
        await reader.readline()

    async with server(mx) as port:
        assert (await seen("", "127.0.0.9", f"127.0.0.1:{port}")).address == "127.0.0.9"


@pytest.mark.parametrize("said", [b"", b"garbage\n", b"x" * 100_000, b"220-" * 50_000, b"220 hello\r\n\xff\xfe\r\n"])
async def test_a_server_that_says_anything_else_says_nothing(said: bytes) -> None:
    async def odd(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)

    async with server(odd) as port:
        assert (await seen("", "127.0.0.9", f"127.0.0.1:{port}", seconds=2.0)).address == ""
