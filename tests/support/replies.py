"""Replies as tests write them, brought to the rules on the way that real ones take."""

from __future__ import annotations

import msgspec

from mailfleet_core.model import reply as phases
from mailfleet_core.model.reply import Answer, Reply
from mailfleet_core.model.wire import RecipientOutcome
from mailfleet_core.smtp.reply import reply_of
from mailfleet_router.decisions.shaping.responses import ResponseRule
from mailfleet_router.decisions.shaping.values import Facts, Match
from mailfleet_router.shell.traffic import shipped
from mailfleet_sender.decisions.settle import outcome

PHASES = (
    phases.DNS, phases.EGRESS, phases.CONNECT, phases.GREETING, phases.EHLO, phases.STARTTLS, phases.AUTH, phases.MAIL,
    phases.RCPT, phases.DATA, phases.DOT,
)  # fmt: skip


def shipped_rules() -> tuple[ResponseRule, ...]:
    """The rules of the package."""
    return shipped().traffic.rules


def reply(line: str) -> RecipientOutcome:
    """`[phase] code [enhanced code] text` as the router sees it: read by the parser and settled by the sender."""
    words = line.split(" ")
    phase = words.pop(0) if words[0] in PHASES else phases.RCPT
    code, text = int(words[0]), " ".join(words[1:])
    if code:
        return outcome(0, Answer(reply_of(code, [text.encode()]), phase))
    enhanced, _, said = text.partition(" ")
    return outcome(0, Answer(Reply(0, enhanced, said), phase))


def facts_for(applies: Match, provider: str = "") -> Facts:
    """Facts that a rule's `if` matches."""
    named = {
        field: patterns[0].replace("*", "x") for field, patterns in msgspec.structs.asdict(applies).items() if patterns
    }
    return Facts(**({"provider": provider} | named))
