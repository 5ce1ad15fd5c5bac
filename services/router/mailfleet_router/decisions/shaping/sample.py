"""Replies as rules show them: `[phase] code [enhanced code] text`."""

from __future__ import annotations

import re

from mailfleet_core.model import reply as phases
from mailfleet_core.model.reply import Reply
from mailfleet_core.model.wire import BOUNCED, DEFERRED, RecipientOutcome
from mailfleet_core.smtp.reply import reply_of
from mailfleet_router.decisions.shaping.responses import PHASES

_SAMPLE = re.compile(rf"(?:({'|'.join(PHASES)}) )?(0|[2-5][0-9][0-9])(?: (.*))?\Z", re.DOTALL)
_EARLY = (phases.DNS, phases.CONNECT, phases.GREETING, phases.EHLO, phases.STARTTLS, phases.AUTH)


def sample(line: str) -> RecipientOutcome | None:
    """The outcome that a sample shows; its phase is rcpt where none is written, its code 0 where no reply came.

    The enhanced code is empty where the sender would put one of its own: where the site gave none, and where a 5yz
    before MAIL is a deferral. None: it is no sample.
    """
    found = _SAMPLE.match(line)
    if found is None:
        return None
    phase, code, text = found[1] or phases.RCPT, int(found[2]), found[3] or ""
    reply = reply_of(code, [text.encode()])
    if not code:
        enhanced, _, said = text.partition(" ")
        reply = Reply(0, enhanced, said)
    early = code >= 500 and phase in _EARLY
    verdict = BOUNCED if reply.enhanced.startswith("5") and not early else DEFERRED
    return RecipientOutcome(0, verdict, code, "" if early else reply.enhanced, reply.text, phase)
