"""From answers to outcomes: exactly one for each recipient."""

from __future__ import annotations

from collections.abc import Sequence

from mailfleet_core.model import reply as phases
from mailfleet_core.model.reply import MAX_TEXT, Answer, Reply
from mailfleet_core.model.wire import BOUNCED, DEFERRED, DELIVERED, Recipient, RecipientOutcome

_FINAL = frozenset({phases.MAIL, phases.RCPT, phases.DATA, phases.DOT})
"""Phases whose 5yz is about this mail. Before, it is about the connection: another host, or later (RFC 5321 3.1)."""
_DIGIT = {DELIVERED: "2", DEFERRED: "4", BOUNCED: "5"}
_OURS = {
    phases.DNS: "4.3", phases.CONNECT: "4.1", phases.GREETING: "3.2", phases.EHLO: "3.2", phases.STARTTLS: "7.4",
    phases.AUTH: "7.8",
}  # fmt: skip
"""Subject and detail where the site gave none: 4.4.1 for a connection that failed, and so on."""
_SILENT = Answer(Reply(0, "4.4.2", "no answer"), phases.DOT)


def settle(recipients: Sequence[Recipient], answers: Sequence[Answer | None]) -> tuple[RecipientOutcome, ...]:
    """One outcome for each recipient, in their order. The same answers give the same outcomes."""
    if len(recipients) == 1 == len(answers):
        return (outcome(recipients[0].index, answers[0] or _SILENT),)
    pairs = zip(recipients, answers, strict=True)
    return tuple([outcome(recipient.index, answer or _SILENT) for recipient, answer in pairs])


def outcome(index: int, answer: Answer) -> RecipientOutcome:
    """What an answer means for the recipient `index`."""
    (code, enhanced, text), phase = answer
    decided = verdict(answer)
    digit = _DIGIT[decided]
    if enhanced[:1] != digit:
        enhanced = f"{digit}.{_OURS.get(phase, '0.0')}"
    return RecipientOutcome(index, decided, code, enhanced, text[:MAX_TEXT], phase)


def verdict(answer: Answer) -> str:
    """delivered, deferred or bounced; what is not understood is deferred."""
    kind = answer.reply.code // 100
    if kind == 2:
        # Any 2yz to the final dot is an acceptance (RFC 5321 4.2.1), and nothing else is.
        return DELIVERED if answer.phase == phases.DOT else DEFERRED
    if kind == 5:
        return BOUNCED if answer.phase in _FINAL else DEFERRED
    if kind == 0:
        return BOUNCED if answer.reply.enhanced[:1] == "5" else DEFERRED
    return DEFERRED
