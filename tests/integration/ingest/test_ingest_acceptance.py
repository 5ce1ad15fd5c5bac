"""What the 250 means: durable, once, whatever the client does; and what is said while that cannot be promised."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct

import pytest

from mailfleet_core.bus import topics
from mailfleet_core.bus.port import BusUnavailable
from mailfleet_core.clock import SystemClock
from mailfleet_core.model import ids
from mailfleet_core.settings import SettingsError
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.dialogue import Authenticate
from mailfleet_ingest.decisions.policy import Identity
from mailfleet_ingest.shell import authenticator, credential_file
from mailfleet_ingest.shell.authenticator import Authenticator, Book
from support import certificates
from support.dialogue import Dialogue
from support.ingest_server import IngestServer

MAIL = b"Subject: x\r\n\r\nhello\r\n"


async def until(condition):
    """Wait for something that happens soon."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_mail_arrives_with_its_envelope_and_its_trace(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        answer = await client.mail(MAIL, b"a@b.example", b"c@d.example")
        [taken] = await server.taken()
        assert answer == f"250 2.0.0 Accepted {ids.text(taken.envelope.message_id)}\r\n"
        assert taken.site == "d.example"
        assert taken.envelope.reverse_path == "a@b.example"
        assert taken.envelope.client == "127.0.0.1"
        assert taken.envelope.expires_at - taken.envelope.accepted_at == 5 * 86400
        assert taken.envelope.body.length == len(taken.content)
        assert taken.content.endswith(MAIL)
        assert taken.content.startswith(
            b"Received: from client.example ([127.0.0.1])\r\n\tby mx.example with ESMTP id "
        )
        assert f"Message-ID: {taken.envelope.header_message_id}\r\n".encode() in taken.content


async def test_recipients_of_several_sites_are_one_record_for_a_router(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        await client.mail(MAIL, b"a@b.example", b"c@d.example", b"e@f.example")
        [taken] = await server.taken()
        assert taken.site == ""
        assert [recipient.address for recipient in taken.recipients] == ["c@d.example", "e@f.example"]


async def test_what_the_control_topic_teaches_about_domains_is_used(tmp_path):
    async with IngestServer(tmp_path) as server:
        await server.bus.append(topics.CONTROL, 0, b"site|d.example", b"google")
        await server.bus.append(topics.CONTROL, 0, b"site|f.example", b"google")
        await until(lambda: len(server.service._sites.table) == 2)
        client = await Dialogue.greeted(server.port)
        await client.mail(MAIL, b"a@b.example", b"c@d.example", b"e@F.example")
        assert (await server.taken())[0].site == "google"


@pytest.mark.parametrize("size", [100 << 10, 3 << 20])
async def test_a_long_mail_arrives_byte_for_byte_in_chunks_that_fit(tmp_path, size):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        content = MAIL + b"".join(b"%08d" % number + b"." * 60 + b"\r\n" for number in range(size // 70))
        assert (await client.mail(content)).startswith("250")
        [taken] = await server.taken()
        assert taken.content.endswith(content)
        assert len(taken.envelope.body.offsets) >= len(content) / topics.MAX_CHUNK_BYTES


async def test_the_250_comes_only_after_body_and_queue_record_are_durable(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        server.bus.hold()
        answer = asyncio.create_task(client.mail(MAIL))
        await until(lambda: len(server.bus._pending) == 1)
        server.bus.release(1)
        await until(lambda: len(server.bus._pending) == 1)
        await asyncio.sleep(0.05)
        assert not answer.done()
        server.bus.release()
        assert (await answer).startswith("250")


@pytest.mark.parametrize("reset", [False, True])
async def test_a_client_that_goes_away_neither_cancels_nor_repeats_the_write(tmp_path, reset):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        server.bus.hold()
        asking = asyncio.create_task(client.mail(MAIL))
        await until(lambda: len(server.bus._pending) == 1)
        asking.cancel()
        if reset:
            linger = struct.pack("ii", 1, 0)
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.close()
        if reset:
            await until(lambda: not server.service.hub.connections)
        server.bus.release()
        await server.service.hub.acceptance.settle()
        await until(lambda: not server.service.hub.connections)
        assert len(await server.taken()) == 1


async def test_a_half_closed_client_still_gets_its_answer(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        server.bus.hold()
        client.send(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n" + MAIL + b".\r\n")
        client.writer.write_eof()
        await until(lambda: len(server.bus._pending) == 1)
        server.bus.release()
        assert [(await client.reply())[:3] for _ in range(4)] == ["250", "250", "354", "250"]


async def test_a_log_that_fails_is_451_and_says_nothing_of_itself(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        server.bus.hold()
        asking = asyncio.create_task(client.mail(MAIL))
        await until(lambda: len(server.bus._pending) == 1)
        server.bus.drop(BusUnavailable("broker-0.kafka.svc:9092 is down\r\n250 injected"))
        server.bus.release()
        assert await asking == "451 4.3.0 Temporary failure, try again later\r\n"
        assert (await client.mail(MAIL)).startswith("250")


async def test_mail_is_refused_before_memory_grows_while_the_log_is_away_or_behind(tmp_path):
    async with IngestServer(tmp_path, max_held_bytes=10_000) as server:
        client = await Dialogue.greeted(server.port)
        server.bus.failing = BusUnavailable("away")
        assert await client.mail(MAIL) == "452 4.3.1 Insufficient system storage, try again later\r\n"
        server.bus.failing = None
        other = await Dialogue.greeted(server.port)
        await other.codes(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n", 3)
        other.send(b"x\r\n" * 10_000)
        await until(lambda: server.service.hub.held_bytes > 10_000)
        assert (await client.mail(MAIL)).startswith("452 4.3.1")
        other.close()
        await until(lambda: server.service.hub.held_bytes == 0)
        assert (await client.mail(MAIL)).startswith("250")


async def test_bytes_the_log_has_not_taken_hold_back_long_mails(tmp_path):
    async with IngestServer(tmp_path) as server:
        server.service.hub.max_in_flight_bytes = 1 << 20
        client = await Dialogue.greeted(server.port)
        await client.codes(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n", 3)
        server.bus.hold()
        content = b"S: x\r\n\r\n" + b"x" * 60 + b"\r\n"
        client.send(content + (b"x" * 70 + b"\r\n") * 200_000 + b".\r\n")
        await until(lambda: server.bus.in_flight_bytes > 1 << 20)
        await asyncio.sleep(0.3)
        assert server.bus.in_flight_bytes < 3 << 20
        server.bus.release()
        assert (await client.reply()).startswith("250")


async def test_a_drain_lets_the_mail_under_way_end_and_tells_the_others(tmp_path):
    async with IngestServer(tmp_path) as server:
        idle, busy = await Dialogue.greeted(server.port), await Dialogue.greeted(server.port)
        await busy.codes(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n", 3)
        draining = asyncio.create_task(server.service.drain())
        assert (await idle.reply()).startswith("421 4.3.2")
        assert not server.service.ready
        answers = await busy.codes(MAIL + b".\r\n", 2)
        assert answers == ["250", "421"]
        await draining
        assert len(await server.taken()) == 1


async def test_the_proxy_header_says_who_the_client_is_and_strangers_are_not_believed(tmp_path):
    listeners = [
        {"proxy_protocol": True, "networks": ["192.0.2.0/24"]},
        {"name": "strange", "proxy_protocol": True, "proxy_networks": ["198.51.100.0/24"]},
    ]
    async with IngestServer(tmp_path, listeners) as server:
        client = await Dialogue.open(server.port)
        client.send(b"PROXY TCP4 192.0.2.7 10.0.0.1 5000 25\r\n")
        assert (await client.reply()).startswith("220")
        await client.ask(b"EHLO x")
        await client.mail(MAIL)
        assert (await server.taken())[0].envelope.client == "192.0.2.7"
        outsider = await Dialogue.open(server.port)
        outsider.send(b"PROXY TCP4 203.0.113.9 10.0.0.1 5000 25\r\n")
        assert (await outsider.reply()).startswith("554")
        assert await (await Dialogue.open(server.service.ports["strange"])).reply() == ""


async def test_a_changed_certificate_is_used_without_a_restart_and_a_broken_one_is_not(tmp_path):
    old = certificates.make(tmp_path / "a", "mx.example")
    new = certificates.make(tmp_path / "b", "new.example")
    listener = {"kind": "implicit_tls", "certificate_file": str(old.certificate), "key_file": str(old.key)}
    async with IngestServer(tmp_path, [listener]) as server:
        [(_, built)] = server.service._listeners
        assert built.certificates is not None
        shown = [await _certificate(server.port)]
        for text in (b"nonsense", new.certificate.read_bytes()):
            old.certificate.write_bytes(text)
            old.key.write_bytes(new.key.read_bytes())
            built.certificates._looked_at = float("-inf")
            shown.append(await _certificate(server.port))
        assert shown[0] == shown[1]
        assert shown[2] == ssl.PEM_cert_to_DER_cert(new.certificate.read_text())


async def _certificate(port):
    client = await Dialogue.open(port, tls=True)
    await client.reply()
    shown = client.writer.get_extra_info("ssl_object").getpeercert(True)
    client.close()
    return shown


# --- passwords


async def test_credentials_are_added_and_revoked_without_a_restart(tmp_path):
    book = Book(tmp_path / "credentials.toml")
    found = Authenticator(book, SystemClock(), 1, {"transactional": 60.0})
    said = Authenticate("PLAIN", b"app", b"secret")
    assert await found.identify("192.0.2.1", said) == reply.AUTH_REFUSED
    wanted = authenticator.Credential(name="app", tenant="acme", hash="", domains=("b.example",))
    credential_file.add(tmp_path / "credentials.toml", wanted, "secret")
    identity = await found.identify("192.0.2.1", said)
    assert isinstance(identity, Identity)
    assert (identity.tenant, identity.expire_seconds) == ("acme", 60.0)
    assert (tmp_path / "credentials.toml").stat().st_mode & 0o777 == 0o600
    assert credential_file.revoke(tmp_path / "credentials.toml", "app")
    assert await found.identify("192.0.2.1", said) == reply.AUTH_REFUSED


async def test_a_right_password_is_verified_once_a_minute_and_a_wrong_one_each_time(tmp_path):
    class Counting:
        """The passwords, counted."""

        calls = 0
        inner = authenticator.Passwords()

        def __call__(self, *arguments):
            self.calls += 1
            return self.inner(*arguments)

    path = tmp_path / "credentials.toml"
    credential_file.add(path, authenticator.Credential(name="app", tenant="t", hash="", domains=("*",)), "secret")
    counting = Counting()
    found = Authenticator(Book(path), SystemClock(), 1, {}, counting)
    for _ in range(5):
        assert isinstance(await found.identify("192.0.2.1", Authenticate("PLAIN", b"app", b"secret")), Identity)
    assert counting.calls == 1
    await found.identify("192.0.2.1", Authenticate("PLAIN", b"nobody", b"wrong"))
    assert counting.calls == 2


async def test_a_flood_of_logins_is_put_off_instead_of_queued_without_end(tmp_path):
    found = Authenticator(Book(tmp_path / "none.toml"), SystemClock(), 1, {})
    logins = [asyncio.create_task(found.identify("::1", Authenticate("PLAIN", b"u", b"p"))) for _ in range(200)]
    done, _ = await asyncio.wait(logins, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result() for task in done} == {reply.AUTH_BUSY}
    for task in logins:
        task.cancel()
    await asyncio.gather(*logins, return_exceptions=True)
    found.close()


async def test_a_credential_in_use_too_often_is_told_so(tmp_path):
    files = certificates.make(tmp_path / "tls", "mx.example")
    listener = {"kind": "implicit_tls", "certificate_file": str(files.certificate), "key_file": str(files.key)}
    async with IngestServer(tmp_path, [listener], max_connections_per_credential=1) as server:
        server.add_credential("app", "secret")
        first, second = [await Dialogue.greeted(server.port, tls=True) for _ in range(2)]
        assert (await first.login("app", "secret")).startswith("235")
        assert (await second.login("app", "secret")).startswith("421 4.7.0")


@pytest.mark.parametrize(
    "listener",
    [
        {"kind": "submision"},
        {"kind": "submission"},
        {"networks": ["x"]},
        {"stream": "nonsense"},
        {"kind": "submission", "certificate_file": "/nowhere"},
    ],
)
async def test_listeners_that_cannot_work_stop_the_start(tmp_path, listener):
    with pytest.raises(SettingsError, match="listeners"):
        await IngestServer(tmp_path, [listener]).__aenter__()


async def test_several_processes_listen_on_one_port(tmp_path):
    async with IngestServer(tmp_path) as first, IngestServer(tmp_path, [{"port": first.port}]) as second:
        assert first.port == second.port


class SlowClock(SystemClock):
    """Two minutes pass whenever it is told so."""

    late = 0.0

    def monotonic(self) -> float:
        return SystemClock.monotonic() + self.late


async def test_a_body_that_waited_long_for_its_end_is_written_anew(tmp_path):
    server = IngestServer(tmp_path, idle_seconds=3600, min_bytes_per_second=0)
    server.clock = clock = SlowClock()
    line = b"x" * 900 + b"\r\n"
    async with server:
        client = await Dialogue.greeted(server.port)
        await client.ask(b"MAIL FROM:<a@b.example>")
        await client.ask(b"RCPT TO:<c@d.example>")
        await client.ask(b"DATA")
        client.send(b"Subject: x\r\n\r\n" + line * 2500)
        await until(lambda: len(server.bus._log.records(topics.BODY, server_partition(server))) > 1)
        before = await server.bus.end(topics.BODY, server_partition(server))
        clock.late = 120.0
        assert (await client.ask(line + b".")).startswith("250")
        [taken] = await server.taken()
        assert taken.content.endswith(line * 2501)
        assert min(taken.envelope.body.offsets) >= before


def server_partition(server):
    """The partition of `mail.body` that is written to now."""
    return server.service.hub.acceptance._body_partition
