"""One client connection: bytes from the socket to the state machine, its events to whoever acts on them."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Coroutine
from typing import cast

from mailfleet_core import metrics
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.admission import within
from mailfleet_ingest.decisions.deadlines import Look, Watch
from mailfleet_ingest.decisions.dialogue import Authenticate, Block, Close, Complete, Event, StartTls
from mailfleet_ingest.decisions.policy import Identity
from mailfleet_ingest.decisions.reply import Reply
from mailfleet_ingest.decisions.session import Session
from mailfleet_ingest.shell.acceptance import Draft
from mailfleet_ingest.shell.hub import Hub, Listener

log = logging.getLogger(__name__)
HANDSHAKE_SECONDS = 30.0
CLOSE_SECONDS = 10.0
MAX_AHEAD_BYTES = 64 << 10
"""Commands a client may send ahead while it waits for us; then we stop reading."""


class Connection(asyncio.Protocol):
    """Runs one session. All its rules are in Session; here are sockets, tasks and counters only."""

    def __init__(self, hub: Hub, listener: Listener, client: str = "") -> None:
        self._hub = hub
        self._listener = listener
        self._client = client
        """Set when a proxy said who it is; else the peer of the socket."""
        self._transport: asyncio.Transport | None = None
        self._session: Session | None = None
        self._draft: Draft | None = None
        self._credential = ""
        self._finished = False
        """It will send no more."""
        self._greeted = False
        self._listening = False
        """What comes is for the session: it has greeted, no handshake is under way, it is not closing."""
        self._handshaking = False
        self._after_handshake = b""
        self._counted = False
        self._closing_at: float | None = None
        self._held_bytes = 0
        self._received_bytes = 0
        self._holds: set[str] = set()
        self._watch = Watch(hub.clock.monotonic())
        self._tasks: set[asyncio.Task[None]] = set()

    # --- asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the client, and greet it unless it talks first."""
        hub, listener = self._hub, self._listener
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        peer = transport.get_extra_info("peername")
        self._client = self._client or (str(peer[0]).removeprefix("::ffff:") if peer else "127.0.0.1")
        refused = self._admit()
        if refused is not None:
            self._refuse_connection(refused)
            return
        self._session = Session(listener.policy, self._client, refusal=hub.refusal)
        if listener.implicit_tls:
            self._session.tls_started()
        if listener.greeting_delay_seconds:
            asyncio.get_running_loop().call_later(listener.greeting_delay_seconds, self._greet)
        else:
            self._greet()

    def data_received(self, data: bytes) -> None:
        """Run the session on what came."""
        session, transport = self._session, self._transport
        if not self._listening or session is None or transport is None:
            self._received_out_of_turn(data)
            return
        answer = session.at_once(data)
        if answer is not None:
            transport.write(answer)
        else:
            self._received_bytes += len(data)
            self._run(session, data)

    def _received_out_of_turn(self, data: bytes) -> None:
        session = self._session
        if session is None or self._closing_at is not None:
            return
        if self._handshaking:
            # Decrypted already, but the task that does the handshake has not run yet: our transport is still the plain one.
            self._after_handshake += data
        elif not self._greeted:
            session.close(reply.EARLY_TALKER)
            self._flush(session)
            self._close()

    def eof_received(self) -> bool:
        """The client has finished sending; it may still read the answer to what it sent."""
        session = self._session
        self._finished = True
        return session is not None and session.waiting and not session.tls

    def pause_writing(self) -> None:
        """The client does not read our replies: do not read its commands."""
        self._hold("unread replies")

    def resume_writing(self) -> None:
        """It does again."""
        self._release("unread replies")

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client; a write that was begun goes on without it."""
        self._transport = None
        self._leave()

    # --- the session

    def _run(self, session: Session, data: bytes) -> None:
        try:
            for event in session.receive(data):
                self._act(session, event)
        except Exception:
            # A defect of ours: the client hears nothing of it but "later", and keeps the mail.
            log.exception("session ended", extra={"client": self._client})
            session.close(reply.TROUBLE)
            self._flush(session)
            self._close()
            return
        self._flush(session)
        self._account(session)

    def _account(self, session: Session) -> None:
        held = session.held_bytes
        if held != self._held_bytes:
            self._hub.held_bytes += held - self._held_bytes
            self._held_bytes = held
        if held > MAX_AHEAD_BYTES and session.waiting:
            self._hold("sent ahead")
        elif self._holds:
            self._release("sent ahead")

    def _flush(self, session: Session) -> None:
        out = session.output()
        if out and self._transport is not None:
            self._transport.write(out)
        if session.rejections:
            self._hub.count(session.rejections)

    def _act(self, session: Session, event: Event) -> None:
        if isinstance(event, Complete):
            draft = self._draft_of(session, event)
            self._draft = None
            self._hub.acceptance.finish(draft, event.data, self._written)
        elif isinstance(event, Block):
            self._stream(session, event)
        elif isinstance(event, Close):
            self._flush(session)
            self._close(abort=event.abort)
        elif isinstance(event, StartTls):
            self._flush(session)
            self._begin_tls()
        else:
            self._start(self._authenticate(session, event))

    def _draft_of(self, session: Session, event: Block | Complete) -> Draft:
        if self._draft is None or self._draft.transaction is not event.transaction:
            self._draft = self._hub.acceptance.begin(session, event.transaction)
        return self._draft

    def _stream(self, session: Session, event: Block) -> None:
        """Write a part of a long message; read on when the log has room."""
        appended = self._hub.acceptance.append(self._draft_of(session, event), event.data)
        if appended is None:
            return
        if self._hub.bus.in_flight_bytes > self._hub.max_in_flight_bytes:
            self._hold("log")
        appended.add_done_callback(self._appended)

    def _appended(self, appended: asyncio.Future[int]) -> None:
        if not appended.cancelled() and appended.exception() is not None and self._session is not None:
            self._session.refuse_content(reply.CONTENT_TROUBLE)
        self._release("log")

    def _written(self, answer: Reply) -> None:
        session = self._session
        if session is None:
            return
        session.stored(answer)
        if self._hub.draining:
            session.close(reply.SHUTDOWN)
            self._flush(session)
            self._close()
            return
        if session.ahead:
            self._run(session, b"")
        else:
            self._flush(session)
            self._account(session)
        if self._finished and not session.waiting:
            self._close()

    async def _authenticate(self, session: Session, said: Authenticate) -> None:
        found = await self._hub.authenticator.identify(self._client, said)
        if self._session is None:
            return
        if isinstance(found, Identity):
            refused = self._hub.admission.admit_credential(found.name, found.max_connections)
            if refused is None:
                self._credential = found.name
                session.authenticated(found)
            else:
                session.authentication_refused(refused)
        else:
            metrics.AUTH_FAILURES.labels(self._listener.label).inc()
            log.warning("authentication refused", extra={"client": self._client, "listener": self._listener.label})
            session.authentication_refused(found)
        self._run(session, b"")

    def _begin_tls(self) -> None:
        assert self._transport is not None
        self._handshaking, self._listening = True, False
        # At once: nothing may be read as plain text between our 220 and the handshake.
        self._transport.pause_reading()
        self._start(self._handshake(self._transport))

    async def _handshake(self, plain: asyncio.Transport) -> None:
        certificates = self._listener.certificates
        assert certificates is not None, "TLS is offered only with a certificate"
        try:
            secure = await asyncio.get_running_loop().start_tls(
                plain, self, certificates.context(), server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        except (OSError, ssl.SSLError, RuntimeError) as error:
            log.info("TLS handshake failed: %s", error, extra={"client": self._client})
            plain.abort()
            self._leave()
            return
        session = self._session
        if session is None or secure is None:
            return
        self._transport, self._handshaking, self._listening = secure, False, self._closing_at is None
        session.tls_started()
        if self._after_handshake:
            data, self._after_handshake = self._after_handshake, b""
            self._run(session, data)

    # --- coming and going

    def _admit(self) -> Reply | None:
        if self._hub.draining:
            return reply.SHUTDOWN
        if self._listener.networks and not within(self._client, self._listener.networks):
            return reply.CLIENT_REFUSED
        refused = self._hub.admission.admit(self._client)
        if refused is None:
            self._counted = True
            self._hub.connections.add(self)
            self._listener.gauge.inc()
        return refused

    def _refuse_connection(self, answer: Reply) -> None:
        assert self._transport is not None
        self._transport.write(answer.wire)
        self._hub.count([answer])
        self._transport.close()

    def _greet(self) -> None:
        session = self._session
        if session is not None and self._closing_at is None:
            self._greeted = self._listening = True
            session.greet()
            self._flush(session)

    def _leave(self) -> None:
        if not self._counted:
            return
        self._counted = False
        hub = self._hub
        hub.connections.discard(self)
        hub.admission.leave(self._client)
        hub.held_bytes -= self._held_bytes
        self._held_bytes = 0
        self._listener.gauge.dec()
        if self._credential:
            hub.admission.leave_credential(self._credential)
        for task in self._tasks:
            task.cancel()
        self._session = self._draft = None
        hub.changed.set()

    def _close(self, *, abort: bool = False) -> None:
        if self._transport is None:
            return
        self._listening = False
        if self._closing_at is None:
            self._closing_at = self._hub.clock.monotonic()
        if abort:
            self._transport.abort()
        else:
            self._transport.close()

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _hold(self, reason: str) -> None:
        """Read no more while there is a reason not to."""
        self._holds.add(reason)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def _release(self, reason: str) -> None:
        if reason not in self._holds:
            return
        self._holds.discard(reason)
        if not self._holds and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def look(self, now: float) -> None:
        """Once a second: end it when the client keeps us waiting too long."""
        transport, session = self._transport, self._session
        if transport is None or session is None:
            return
        if self._closing_at is not None:
            # close() waits for the client to read; one that never does would stay for ever.
            if now - self._closing_at > CLOSE_SECONDS:
                transport.abort()
            return
        unsent = transport.get_write_buffer_size()
        waiting = session.waiting or "log" in self._holds
        seen = Look(waiting, session.in_content, session.commands, session.messages, self._received_bytes, unsent)
        overdue = self._watch.judge(seen, self._hub.deadlines, now)
        if overdue is None:
            return
        if overdue.answer is not None:
            session.close(overdue.answer)
            self._flush(session)
        self._close(abort=overdue.answer is None)

    def drain(self) -> None:
        """End it when no transaction is under way; else it ends after that."""
        session = self._session
        if session is not None and session.between_mails and self._closing_at is None:
            session.close(reply.SHUTDOWN)
            self._flush(session)
            self._close()

    def abort(self) -> None:
        """End it now."""
        self._close(abort=True)
