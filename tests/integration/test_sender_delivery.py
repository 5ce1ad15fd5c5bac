"""The sender on the memory log against a scripted server: what happens to mail, in every phase."""

from __future__ import annotations

from support.scripted_mx import ScriptedMx
from support.sending import CONTENT, Sending, route


async def test_a_dispatch_becomes_a_mail_and_a_result_that_tells_all() -> None:
    sending = Sending()
    async with ScriptedMx() as mx:
        result = await sending.send(route(mx.port))
    (mail,) = mx.mails
    assert mail.content == CONTENT
    assert mail.mail == b"MAIL FROM:<a@example.com> SIZE=%d" % len(CONTENT)
    assert mail.rcpt == [b"RCPT TO:<b@example.net>"]
    assert (result.kind, result.attempt, result.source, result.mx, result.address) == (
        "settled", 1, "default", "mx.test", "127.0.0.1",
    )  # fmt: skip
    (outcome,) = result.outcomes
    assert (outcome.verdict, outcome.code, outcome.enhanced, outcome.text, outcome.phase) == (
        "delivered", 250, "2.0.0", "queued as 1", "dot",
    )  # fmt: skip
