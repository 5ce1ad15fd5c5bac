"""Hostile clients. Each attack is run against ours, where it fails, and against stock aiosmtpd, where it succeeds."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email
import ssl
import threading
import tracemalloc
import warnings
from pathlib import Path

import pytest
from aiosmtpd.smtp import AuthResult

from mailfleet_core.clock import SystemClock
from mailfleet_core.logs import Formatter
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.deadlines import Deadlines
from mailfleet_ingest.decisions.dialogue import Authenticate
from mailfleet_ingest.shell.authenticator import Authenticator, Book
from support import certificates
from support.dialogue import Dialogue
from support.ingest_server import IngestServer, StockServer

warnings.filterwarnings("ignore", module="aiosmtpd")
MAIL = b"Subject: x\r\n\r\nhello\r\n"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    return certificates.make(tmp_path_factory.mktemp("tls"), "mx.example")


@pytest.fixture
def context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


def submission(certificate, kind="submission"):
    files = {"certificate_file": str(certificate.certificate), "key_file": str(certificate.key)}
    return {"kind": kind, "greeting_delay_seconds": 0.0, **files}


# --- 1 smuggling
async def test_content_with_a_bare_newline_is_refused(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        answer = await client.mail(b"Subject: x\r\n\r\na\n.\nMAIL FROM:<evil@b.example>\r\n")
        assert answer.startswith("550 5.6.0")
        assert await server.taken() == []


async def test_content_with_a_bare_newline_is_accepted_by_the_stock_server():
    async with StockServer() as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(b"Subject: x\r\n\r\na\n.\nMAIL FROM:<evil@b.example>\r\n")).startswith("250")


async def test_a_command_that_ends_in_a_bare_newline_ends_the_session(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        assert await client.codes(b"NOOP\nNOOP\r\n", 1) == ["500"]
        assert await client.ended()


async def test_a_command_that_ends_in_a_bare_newline_is_obeyed_by_the_stock_server():
    async with StockServer() as server:
        client = await Dialogue.greeted(server.port)
        assert await client.codes(b"NOOP\nNOOP\r\n", 2) == ["250", "250"]


# --- 2 STARTTLS injection
async def test_plain_text_behind_starttls_drops_the_connection(tmp_path, certificate):
    async with IngestServer(tmp_path, [submission(certificate)]) as server:
        client = await Dialogue.greeted(server.port)
        client.send(b"STARTTLS\r\nMAIL FROM:<evil@b.example>\r\n")
        assert await client.reply() == ""


async def test_a_second_starttls_is_a_bad_sequence(tmp_path, certificate):
    async with IngestServer(tmp_path, [submission(certificate)]) as server:
        client = await Dialogue.greeted(server.port)
        await client.starttls()
        assert (await client.ask(b"STARTTLS")).startswith("503")
        assert (await client.ask(b"NOOP")).startswith("250")


async def test_a_second_starttls_is_begun_by_the_stock_server(context):
    async with StockServer(context) as server:
        client = await Dialogue.greeted(server.port)
        await client.starttls()
        assert (await client.ask(b"STARTTLS")).startswith("220")


# --- 4 envelope injection
ENCODED = b"=?utf-8?b?YQ0KREFUQQ==?=@e.example"


async def test_an_address_that_looks_like_an_encoded_word_passes_unchanged(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(MAIL, b"a@b.example", ENCODED)).startswith("250")
        assert (await server.taken())[0].recipients[0].address == ENCODED.decode()


async def test_an_address_that_looks_like_an_encoded_word_becomes_another_in_the_stock_server():
    async with StockServer() as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(MAIL, b"a@b.example", ENCODED)).startswith("250")
        assert server.envelopes[0].rcpt_tos == ["a\r\nDATA@e.example"]


# --- 6 open relay
async def test_without_auth_nobody_relays(tmp_path, certificate):
    listeners = [submission(certificate), {**submission(certificate, "implicit_tls"), "name": "tls"}]
    async with IngestServer(tmp_path, listeners) as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(MAIL)).startswith("530 5.7.0")
        await client.starttls()
        assert (await client.mail(MAIL)).startswith("530 5.7.0")
        client = await Dialogue.greeted(server.service.ports["tls"], tls=True)
        assert (await client.mail(MAIL)).startswith("530 5.7.0")
        assert await server.taken() == []


async def test_a_trusted_listener_is_closed_to_other_networks(tmp_path):
    async with IngestServer(tmp_path, [{"networks": ["192.0.2.0/24"]}]) as server:
        client = await Dialogue.open(server.port)
        assert (await client.reply()).startswith("554 5.7.1")
        assert await client.ended()


async def test_without_auth_everybody_relays_by_the_stock_server(context):
    async with StockServer(context) as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(MAIL)).startswith("250")


async def test_a_tenant_sends_only_from_its_own_domains(tmp_path, certificate):
    async with IngestServer(tmp_path, [submission(certificate)]) as server:
        server.add_credential("app", "secret", "b.example")
        client = await Dialogue.greeted(server.port)
        await client.starttls()
        assert (await client.login("app", "secret")).startswith("235")
        assert (await client.mail(MAIL, b"a@other.example")).startswith("550 5.7.1")
        assert (await client.mail(MAIL, b"a@b.example")).startswith("250")
        [taken] = await server.taken()
        assert taken.envelope.tenant == "acme"
        assert b"with ESMTPSA id" in taken.content


# --- 7 guessing passwords
async def test_three_wrong_passwords_end_the_connection(tmp_path, certificate):
    async with IngestServer(tmp_path, [submission(certificate)]) as server:
        server.add_credential("app", "secret")
        client = await Dialogue.greeted(server.port)
        await client.starttls()
        answers = [await client.login(name, "wrong") for name in ("app", "app2", "app3")]
        assert [answer[:3] for answer in answers] == ["535", "535", "421"]
        assert await client.ended()


async def test_wrong_passwords_are_not_counted_by_the_stock_server(context):
    async with StockServer(context) as server:
        client = await Dialogue.greeted(server.port)
        await client.starttls()
        answers = [await client.login("app", "wrong") for _ in range(30)]
        assert {answer[:3] for answer in answers} == {"535"}


# --- 8 AUTH and TLS
async def test_auth_needs_tls_and_works_on_implicit_tls_in_any_letter_case(tmp_path, certificate):
    listeners = [submission(certificate), {**submission(certificate, "implicit_tls"), "name": "tls"}]
    async with IngestServer(tmp_path, listeners) as server:
        server.add_credential("app", "secret")
        client = await Dialogue.greeted(server.port)
        assert (await client.login("app", "secret")).startswith("538")
        client = await Dialogue.greeted(server.service.ports["tls"], tls=True)
        answer = await client.ask(b"auth plain " + base64.b64encode(b"\0app\0secret"))
        assert answer.startswith("235")
        assert (await client.mail(MAIL)).startswith("250")


async def test_auth_on_implicit_tls_is_refused_by_the_stock_server(context):
    async with StockServer(context, implicit=True) as server:
        client = await Dialogue.greeted(server.port, tls=True)
        assert (await client.login("app", "secret")).startswith("538")


# --- 9 AUTH as load
class Held:
    """Verifies a password when it is told to."""

    def __init__(self, seconds=20.0):
        self.release = threading.Event()
        self.seconds = seconds
        self.running = self.most = self.finished = 0
        self._lock = threading.Lock()

    def __call__(self, *_):
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.release.wait(self.seconds)
        with self._lock:
            self.running -= 1
            self.finished += 1
        return AuthResult(success=False)


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def logins(count, *, verify, threads=2, **limit):
    """So many logins at once, under way."""
    found = Authenticator(Book(Path("/nowhere")), SystemClock(), threads, {}, verify, **limit)
    said = [Authenticate("PLAIN", b"user%d" % number, b"wrong") for number in range(count)]
    tasks = [asyncio.create_task(found.identify("192.0.2.1", each)) for each in said]
    try:
        yield tasks
    finally:
        verify.release.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        found.close()


async def test_a_password_being_verified_keeps_nobody_else_waiting(tmp_path, certificate):
    held = Held()
    async with IngestServer(tmp_path, [submission(certificate)]) as server:
        server.service.hub.authenticator = Authenticator(Book(server.credentials), SystemClock(), 2, {}, held)
        client, other = [await Dialogue.greeted(server.port) for _ in range(2)]
        await client.starttls()
        client.send(b"AUTH PLAIN AGEAYg==\r\n")
        await until(lambda: held.most)
        assert (await other.ask(b"NOOP")).startswith("250")
        assert not held.finished
        held.release.set()
        assert (await client.reply()).startswith("535")


async def test_a_password_being_verified_keeps_everybody_waiting_at_the_stock_server(context):
    async with StockServer(context) as server:
        server.verify = held = Held(0.3)
        client, other = [await Dialogue.greeted(server.port) for _ in range(2)]
        await client.starttls()
        client.send(b"AUTH PLAIN AGEAYg==\r\n")
        await until(lambda: held.most)
        assert (await other.ask(b"NOOP")).startswith("250")
        assert held.finished


async def test_passwords_take_memory_a_fixed_number_of_times():
    held = Held()
    async with logins(20, verify=held):
        await until(lambda: held.most)
        await asyncio.sleep(0.1)
        assert held.most == 2


async def test_passwords_take_memory_as_often_as_threads_let_them():
    held = Held()
    async with logins(20, verify=held, threads=20):
        await until(lambda: held.most == 20)


async def test_the_65th_login_that_waits_is_put_off():
    async with logins(100, verify=Held()) as tasks:
        done, waiting = await asyncio.wait(tasks, timeout=0.2)
        assert {task.result() for task in done} == {reply.AUTH_BUSY}
        assert len(waiting) == 64


async def test_without_a_limit_every_login_waits():
    async with logins(100, verify=Held(), max_waiting=10**9) as tasks:
        done, waiting = await asyncio.wait(tasks, timeout=0.2)
        assert (len(done), len(waiting)) == (0, 100)


async def test_a_password_is_verified_each_time_by_the_stock_server(context):
    async with StockServer(context) as server:
        for _ in range(3):
            client = await Dialogue.greeted(server.port)
            await client.starttls()
            await client.login("app", "secret")
        assert server.authentications == 3


# --- 10 slow clients
async def test_noop_does_not_keep_a_session_for_ever(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        codes = await client.codes(b"NOOP\r\n" * 150, 101)
        assert codes[-1] == "421"
        assert await client.ended()


async def test_noop_keeps_a_session_for_ever_at_the_stock_server():
    async with StockServer() as server:
        client = await Dialogue.greeted(server.port)
        assert await client.codes(b"NOOP\r\n" * 150, 150) == ["250"] * 150


async def _reads_nothing(server):
    """A client that asks and asks, and reads none of the replies."""
    client = await Dialogue.greeted(server.port)
    client.writer.transport.pause_reading()
    return asyncio.create_task(_flood(client))


IMPATIENT = {"max_errors": 10**9, "max_commands_without_mail": 10**9}


async def test_a_client_that_does_not_read_is_cut_off(tmp_path):
    async with IngestServer(tmp_path, write_seconds=0.2, **IMPATIENT) as server:
        flood = await _reads_nothing(server)
        async with asyncio.timeout(20):
            while server.service.hub.connections:
                await asyncio.sleep(0.1)
                server.service.look()
        flood.cancel()


async def test_a_client_that_does_not_read_stays_where_writing_has_no_limit(tmp_path):
    async with IngestServer(tmp_path, write_seconds=1e9, **IMPATIENT) as server:
        flood = await _reads_nothing(server)
        for _ in range(15):
            await asyncio.sleep(0.1)
            server.service.look()
        assert server.service.hub.connections
        flood.cancel()


async def test_a_client_that_does_not_read_stays_at_the_stock_server_beyond_its_timeout():
    async with StockServer(timeout=0.3) as server:
        flood = await _reads_nothing(server)
        transport = server.sessions[0].transport
        await until(transport.is_closing)
        await asyncio.sleep(1)
        assert server.sessions[0].transport is transport
        assert transport.get_write_buffer_size() > 0
        flood.cancel()
        transport.abort()


async def _flood(client):
    while True:
        client.send(b"HELP\r\n" * 10_000)
        await client.writer.drain()


async def _drips(server, seconds):
    """A client that sends content a byte at a time; whether it is still connected after `seconds`."""
    client = await Dialogue.greeted(server.port)
    await client.codes(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\n", 3)
    for _ in range(int(seconds / 0.02)):
        client.send(b"x")
        await asyncio.sleep(0.02)
        server.service.look()
        if not server.service.hub.connections:
            break
    return bool(server.service.hub.connections)


@pytest.mark.parametrize(("least", "stays"), [(500.0, False), (0.0, True)], ids=["guarded", "without the guard"])
async def test_content_that_drips_is_cut_off_and_would_not_be_without_a_least_speed(tmp_path, least, stays):
    async with IngestServer(tmp_path) as server:
        server.service.hub.deadlines = Deadlines(grace_seconds=0.2, min_bytes_per_second=least)
        assert await _drips(server, 1.0) is stays


# --- 11 floods
@pytest.mark.parametrize("limit", ["max_connections", "max_connections_per_address"])
async def test_connections_of_one_address_and_in_all_are_limited(tmp_path, limit):
    async with IngestServer(tmp_path, **{limit: 2}) as server:
        first, second = [await Dialogue.greeted(server.port) for _ in range(2)]
        assert (await (await Dialogue.open(server.port)).reply()).startswith("421 4.7.0")
        first.close()
        async with asyncio.timeout(5):
            while len(server.service.hub.connections) > 1:
                await asyncio.sleep(0.01)
        assert (await (await Dialogue.open(server.port)).reply()).startswith("220")
        second.close()


async def test_connections_have_no_limit_at_the_stock_server():
    async with StockServer() as server:
        clients = [await Dialogue.greeted(server.port) for _ in range(300)]
        assert len(server.sessions) == 300
        for client in clients:
            client.close()


async def test_the_1001st_recipient_gets_452(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        await client.ask(b"MAIL FROM:<a@b.example>")
        assert await client.codes(b"RCPT TO:<c@d.example>\r\n" * 1001, 1001) == ["250"] * 1000 + ["452"]
        assert (await client.ask(b"DATA")).startswith("354")
        assert (await client.ask(MAIL + b".")).startswith("250")
        assert len((await server.taken())[0].recipients) == 1000


async def test_the_1001st_recipient_is_accepted_by_the_stock_server():
    async with StockServer() as server:
        client = await Dialogue.greeted(server.port)
        await client.ask(b"MAIL FROM:<a@b.example>")
        assert await client.codes(b"RCPT TO:<c@d.example>\r\n" * 1001, 1001) == ["250"] * 1001


# --- 12 long lines and headers
async def _memory_of_an_endless_line(port):
    client = await Dialogue.greeted(port)
    for command in (b"MAIL FROM:<a@b.example>", b"RCPT TO:<c@d.example>", b"DATA"):
        await client.ask(command)
    tracemalloc.start()
    block = b"x" * 65_536
    with contextlib.suppress(ConnectionError):
        for _ in range(300):
            client.send(block)
            await client.writer.drain()
            await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    grown_bytes = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    client.close()
    return grown_bytes


async def test_an_endless_line_does_not_grow_memory(tmp_path):
    async with IngestServer(tmp_path, max_message_bytes=1 << 20) as server:
        assert await _memory_of_an_endless_line(server.port) < 2 << 20


async def test_an_endless_line_grows_the_memory_of_the_stock_server():
    async with StockServer(data_size_limit=1 << 20) as server:
        assert await _memory_of_an_endless_line(server.port) > 8 << 20


@pytest.mark.parametrize("header", [b"X: " + b"y" * 70 + b"\r\n" * 1, b"X: y\r\n"], ids=["bytes", "fields"])
async def test_a_header_section_has_limits(tmp_path, header):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(header * 1500 + b"\r\nhello\r\n")).startswith("552 5.3.4")


async def test_a_header_section_has_no_limits_at_the_stock_server():
    async with StockServer() as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(b"X: y\r\n" * 1500 + b"\r\nhello\r\n")).startswith("250")


def _bomb():
    parts = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(3000))
    return b"Subject: x\r\n" + parts


async def test_a_mail_of_3000_nested_parts_passes_unread(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(_bomb())).startswith("250")
        assert (await server.taken())[0].content.endswith(_bomb())


def test_a_mail_of_3000_nested_parts_breaks_the_stock_parser():
    with pytest.raises(RecursionError):
        email.message_from_bytes(_bomb())


# --- 13 early talkers
async def test_who_talks_before_the_greeting_is_refused(tmp_path):
    async with IngestServer(tmp_path, [{"greeting_delay_seconds": 0.5}]) as server:
        client = await Dialogue.open(server.port)
        assert (await client.ask(b"EHLO x")).startswith("554 5.5.0")
        assert await client.ended()


async def test_who_talks_before_the_greeting_of_a_trusted_listener_is_served(tmp_path):
    """By design: there we know the clients, and they need not wait; who wants otherwise sets greeting_delay_seconds."""
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.open(server.port)
        assert (await client.ask(b"EHLO x")).startswith("220")
        assert (await client.reply()).startswith("250")


async def test_who_talks_before_the_greeting_is_served_by_the_stock_server():
    async with StockServer() as server:
        client = await Dialogue.open(server.port)
        assert (await client.ask(b"EHLO x")).startswith("220")
        assert (await client.reply()).startswith("250")


# --- 14 shared state
async def _long_mail_with_a_neighbour(port):
    client = await Dialogue.greeted(port)
    neighbour = await Dialogue.open(port)
    await neighbour.reply()
    command = b"MAIL FROM:<" + b"x" * 60 + b"@" + b"d" * 60 + b".example> SIZE=1"
    answer = await client.ask(command.ljust(525))
    neighbour.close()
    return answer


async def test_a_neighbour_changes_no_limit(tmp_path):
    async with IngestServer(tmp_path) as server:
        assert (await _long_mail_with_a_neighbour(server.port)).startswith("250")


async def test_a_neighbour_changes_the_limits_of_the_stock_server():
    async with StockServer() as server:
        assert (await _long_mail_with_a_neighbour(server.port)).startswith("500")


# --- 15 BDAT
async def test_tls_that_ends_in_the_middle_of_a_chunk_accepts_nothing_and_harms_nobody(tmp_path, certificate):
    async with IngestServer(tmp_path, [submission(certificate, "implicit_tls")]) as server:
        server.add_credential("app", "secret")
        client = await Dialogue.greeted(server.port, tls=True)
        await client.login("app", "secret")
        assert await client.codes(b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n", 2) == ["250", "250"]
        client.send(b"BDAT 1000 LAST\r\nSubject: x\r\n")
        await client.writer.drain()
        client.writer.close()
        other = await Dialogue.greeted(server.port, tls=True)
        await other.login("app", "secret")
        assert (await other.mail(MAIL)).startswith("250")
        assert len(await server.taken()) == 1


async def test_chunks_over_the_limit_are_refused_and_huge_sizes_end_the_session(tmp_path):
    async with IngestServer(tmp_path, max_message_bytes=1000) as server:
        client = await Dialogue.greeted(server.port)
        envelope = b"MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n"
        over = b"S: x\r\n\r\n" + b"x\r\n" * 500
        assert await client.codes(envelope + b"BDAT %d LAST\r\n" % len(over) + over, 3) == ["250", "250", "552"]
        assert await client.codes(envelope + b"BDAT 99999999999999999999 LAST\r\n" + over, 3) == ["250", "250", "501"]
        assert await client.ended()
        assert await server.taken() == []


# --- 16 DSN and AUTH parameters
PARAMETERS = [b"AUTH=<>", b"RET=HDRS ENVID=QQ314159"]


@pytest.mark.parametrize("parameters", PARAMETERS)
async def test_dsn_and_auth_parameters_are_taken(tmp_path, parameters):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.ask(b"MAIL FROM:<a@b.example> " + parameters)).startswith("250")
        assert (await client.ask(b"RCPT TO:<c@d.example> ORCPT=rfc822;Bob@D.example NOTIFY=NEVER")).startswith("250")
        await client.ask(b"DATA")
        await client.ask(MAIL + b".")
        [taken] = await server.taken()
        assert taken.recipients[0].orcpt == "rfc822;Bob@D.example"
        assert taken.envelope.envid == ("QQ314159" if b"ENVID" in parameters else "")


@pytest.mark.parametrize("parameters", PARAMETERS)
async def test_dsn_and_auth_parameters_are_refused_by_the_stock_server(parameters):
    async with StockServer() as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.ask(b"MAIL FROM:<a@b.example> " + parameters)).startswith("555")


# --- 17 SMTPUTF8
async def test_an_address_of_invalid_utf8_is_refused(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.ask(b"MAIL FROM:<\xff@b.example> SMTPUTF8")).startswith("553")
        assert (await client.ask(b"MAIL FROM:<a\xe2\x80\xaeb@b.example> SMTPUTF8")).startswith("553")


async def test_an_address_of_invalid_utf8_is_accepted_by_the_stock_server():
    async with StockServer(enable_SMTPUTF8=True) as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.ask(b"MAIL FROM:<\xff@b.example> SMTPUTF8")).startswith("250")


# --- 18 loops
async def test_mail_that_goes_round_is_refused(tmp_path):
    async with IngestServer(tmp_path) as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(b"Received: x\r\n" * 51 + MAIL)).startswith("554 5.4.6")
        assert (await client.mail(b"Received: x\r\n" * 50 + MAIL)).startswith("250")


async def test_mail_that_goes_round_is_accepted_by_the_stock_server():
    async with StockServer() as server:
        client = await Dialogue.greeted(server.port)
        assert (await client.mail(b"Received: x\r\n" * 51 + MAIL)).startswith("250")


# --- 25 secrets in logs
async def _says_secrets(client):
    await client.starttls()
    await client.codes(b"AUTH LOGIN\r\n", 1)
    await client.codes(base64.b64encode(b"app") + b"\r\n", 1)
    await client.codes(base64.b64encode(b"pa55word") + b"\r\n", 1)
    await client.login("app", "pa55word")
    await client.mail(b"Subject: x\r\n\r\nthe body\r\n")
    await client.ask(b"pa55word")


def _logged(caplog):
    lines = [Formatter("ingest", json=True).format(record) for record in caplog.records]
    secrets = ["pa55word", base64.b64encode(b"pa55word").decode(), base64.b64encode(b"\0app\0pa55word").decode()]
    return [secret for secret in [*secrets, "the body"] if any(secret in line for line in lines)]


@pytest.mark.parametrize("right", [True, False])
async def test_neither_a_password_nor_a_body_is_ever_logged(tmp_path, certificate, caplog, right):
    caplog.set_level("DEBUG")
    async with IngestServer(tmp_path, [submission(certificate)]) as server:
        server.add_credential("app", "pa55word" if right else "another")
        await _says_secrets(await Dialogue.greeted(server.port))
        assert len(await server.taken()) == right
    assert _logged(caplog) == []


async def test_passwords_and_bodies_are_logged_by_the_stock_server(context, caplog):
    caplog.set_level("DEBUG")
    async with StockServer(context) as server:
        await _says_secrets(await Dialogue.greeted(server.port))
    assert {"pa55word", "the body"} <= set(_logged(caplog))
