"""How the sink treats mail, by the first label of the recipient's domain, and what must become of that mail."""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN = "ledger.test"
REPORTS = "sender"
"""The label whose mail is our own reports: the reverse path of every message of the ledger."""

DELIVERED, BOUNCED = "delivered", "bounced"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sink does at one step; the default is a plain "yes"."""

    reply: bytes = b""
    """Instead of the usual reply."""
    delay: float = 0.0
    cut: bool = False
    """Close the connection instead of replying."""
    accept: bool = True
    """At the dot: is the message taken?"""
    close: bool = False
    """Close the connection after replying."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One kind of site: what it does at which step, the first time only or always."""

    ends: str
    weight: int
    at: dict[str, Answer]
    once: bool = True
    """True: only the first time that the same mail comes to that step."""
    domains: int = 1


YES = Answer()
ODD = b" \xff\xfe\x1b[31m\x00 \rnot UTF-8 \xc3\x28"

BEHAVIOURS: dict[str, Behaviour] = {
    "ok": Behaviour(DELIVERED, 560, {}, domains=8),
    "slow": Behaviour(DELIVERED, 80, {"dot": Answer(delay=0.3)}, once=False, domains=2),
    "grey": Behaviour(DELIVERED, 40, {"rcpt": Answer(b"451 4.7.1 Greylisted, come back")}),
    "tempmail": Behaviour(DELIVERED, 20, {"mail": Answer(b"451 4.3.0 Later")}),
    "temprcpt": Behaviour(DELIVERED, 20, {"rcpt": Answer(b"450 4.2.1 Later")}),
    "tempdata": Behaviour(DELIVERED, 20, {"data": Answer(b"451 4.3.0 Later")}),
    "tempdot": Behaviour(DELIVERED, 20, {"dot": Answer(b"452 4.3.1 Full", accept=False)}),
    "nomail": Behaviour(BOUNCED, 20, {"mail": Answer(b"550 5.7.1 Not from you")}, once=False),
    "norcpt": Behaviour(BOUNCED, 30, {"rcpt": Answer(b"550 5.1.1 Unknown")}, once=False),
    "nodata": Behaviour(BOUNCED, 20, {"data": Answer(b"554 5.6.0 No data")}, once=False),
    "nodot": Behaviour(BOUNCED, 20, {"dot": Answer(b"550 5.7.1 Spam", accept=False)}, once=False),
    "busy": Behaviour(DELIVERED, 20, {"rcpt": Answer(b"421 4.3.2 Too busy", close=True)}),
    "closed": Behaviour(DELIVERED, 20, {"greeting": Answer(b"421 4.3.2 Go away", close=True)}),
    "dropdata": Behaviour(DELIVERED, 20, {"data": Answer(cut=True)}),
    "dropdot": Behaviour(DELIVERED, 20, {"dot": Answer(cut=True, accept=False)}),
    "indoubt": Behaviour(DELIVERED, 20, {"dot": Answer(cut=True)}),
    "tarpit": Behaviour(DELIVERED, 10, {"greeting": Answer(delay=2.0), "rcpt": Answer(delay=1.0)}, once=False),
    "odd": Behaviour(DELIVERED, 20, {"rcpt": Answer(b"451 4.0.0" + ODD), "dot": Answer(b"250 2.0.0" + ODD)}),
    "oddno": Behaviour(BOUNCED, 20, {"rcpt": Answer(b"550 5.1.1" + ODD)}, once=False),
    "hang": Behaviour(DELIVERED, 0, {"greeting": Answer(delay=3600.0)}, once=False),
    REPORTS: Behaviour(DELIVERED, 0, {}),
    "google": Behaviour(DELIVERED, 0, {}, domains=3),
    "microsoft": Behaviour(DELIVERED, 0, {}, domains=2),
    "yahoo": Behaviour(DELIVERED, 0, {}),
    "mimecast": Behaviour(DELIVERED, 0, {}, domains=2),
}
"""The last four are the domains of the receivers in `exam.receivers`, which have limits."""


def labels() -> list[str]:
    """The first labels of all domains: a behaviour and, where it has several domains, a number."""
    return [f"{name}{number or ''}" for name, behaviour in BEHAVIOURS.items() for number in range(behaviour.domains)]


def behaviour_of(domain: str) -> str:
    """The behaviour of a recipient's domain (or of its first label)."""
    return domain.partition(".")[0].rstrip("0123456789")
