"""Four receivers with limits for each address that connects, what they answer above them, and how they block one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from exam.behaviours import DOMAIN, labels

TOO_MANY_CONNECTIONS, TOO_FAST, BLOCKED, REFUSED = "too many connections", "too fast", "blocked", "refused"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one source may do at one receiver; `burst` messages or one connection may go at once."""

    messages_per_second: float
    concurrency: int
    messages_per_connection: int
    connections_per_second: float
    burst: int = 1


@dataclass(frozen=True, slots=True)
class Receiver:
    """One site, what it allows and what it says."""

    name: str
    """The first label of its domains."""
    hosts: tuple[str, ...]
    limits: Limits
    """Of each source."""
    site_per_second: float
    """Messages of all sources together."""
    site_window: int
    """Units of it in senders' hands at once."""
    replies: dict[str, str] = field(hash=False)
    """To what it does not like; `BLOCKED` until its rule's threshold, `REFUSED` from then on."""
    accept_seconds: float = 0.05
    """From the dot to the reply."""

    @property
    def domains(self) -> list[str]:
        """Recipient domains whose MX it is."""
        return [f"{label}.{DOMAIN}" for label in labels() if label.rstrip("0123456789") == self.name]


GOOGLE = Receiver(
    "google", ("gmail-smtp-in.l.google.com", "alt1.gmail-smtp-in.l.google.com"),
    Limits(1.0, 2, 10, 0.5), 5.0, 24,
    {
        TOO_FAST: "421 4.7.28 Gmail has detected an unusual rate of email. To protect our users from spam, email has been"
        " temporarily rate limited. - gsmtp",
        TOO_MANY_CONNECTIONS: "421 4.7.0 Try again later, closing connection. (CONNECT) a1b2c3d4e5f6g7 - gsmtp",
        # Its rule for a block reads 5xx only.
        BLOCKED: "550 5.7.1 This message is likely suspicious due to the very low reputation of the sending IP address."
        " To best protect our users from spam, the message has been blocked. - gsmtp",
        REFUSED: "550 5.7.1 The IP you're using to send email is not authorized to send email directly to our servers. Use"
        " the SMTP relay at your service provider instead. - gsmtp",
    },
)  # fmt: skip
MICROSOFT = Receiver(
    "microsoft", ("hotmail-com.olc.protection.outlook.com",),
    Limits(2.0, 2, 5, 1.0), 8.0, 36,
    {
        TOO_FAST: "421 RP-002 The mail server IP connecting to Outlook.com server has exceeded the rate limit allowed on"
        " this connection.",
        TOO_MANY_CONNECTIONS: "451 4.7.652 The mail server [{address}] has exceeded the maximum number of connections."
        " (S3115)",
        BLOCKED: "451 4.7.650 The mail server [{address}] has been temporarily rate limited due to IP reputation. (S775)",
        REFUSED: "550 5.7.1 Unfortunately, messages from [{address}] weren't sent. Please contact your Internet service"
        " provider since part of their network is on our block list (S3150).",
    },
    0.8,
)  # fmt: skip
YAHOO = Receiver(
    "yahoo", ("mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net", "mta7.am0.yahoodns.net"),
    Limits(0.8, 1, 20, 0.2), 4.0, 24,
    {
        TOO_FAST: "421 4.7.0 [TSS04] Messages from {address} temporarily deferred due to unexpected volume or user"
        " complaints - 4.16.55.1",
        TOO_MANY_CONNECTIONS: "421 4.7.0 [TSS05] Connections from {address} deferred due to excessive volume",
        BLOCKED: "421 4.7.1 [TS03] All messages from {address} will be permanently deferred; Retrying will NOT succeed.",
        REFUSED: "553 5.7.1 [BL21] Connections will not be accepted from {address}, because the ip is in Spamhaus's list",
    },
)  # fmt: skip
MIMECAST = Receiver(
    "mimecast", ("eu-smtp-inbound-1.mimecast.com", "eu-smtp-inbound-2.mimecast.com"),
    Limits(1.5, 3, 8, 1.0), 6.0, 36,
    {
        TOO_FAST: "421 4.7.0 Too many messages from {address}, try again later",
        TOO_MANY_CONNECTIONS: "421 4.7.0 Too many connections from {address}, try again later",
        BLOCKED: "421 4.7.1 Local CT IP Reputation - (defer) - https://community.mimecast.com/docs/DOC-1369#550",
        REFUSED: "550 5.7.1 Local CT IP Reputation - (reject) - https://community.mimecast.com/docs/DOC-1369#550",
    },
    0.3,
)  # fmt: skip
RECEIVERS = (GOOGLE, MICROSOFT, YAHOO, MIMECAST)
BY_NAME = {receiver.name: receiver for receiver in RECEIVERS}
SHARES = {"google": 3.6, "microsoft": 6.0, "yahoo": 2.9, "mimecast": 4.5}
"""Recipients a second of the load: less than a receiver allows in the end, more than it allows while it catches up."""


@dataclass(frozen=True, slots=True)
class Block:
    """A receiver turns against one source for a while."""

    source: str
    site: str
    after_seconds: float
    """From the first message that the sink saw."""
    threshold: int
    """So many are answered `BLOCKED`, as many as the rule wants; then the answer is `REFUSED`."""
    seconds: float
    """It relents so long after its first refusal."""


def zones(addresses: dict[str, str]) -> dict[str, list[str]]:
    """The DNS of all receivers; `addresses` is host → address."""
    found = {host: [f"A {address}"] for host, address in addresses.items()}
    for receiver in RECEIVERS:
        for domain in receiver.domains:
            found[domain] = [f"MX {10 * place} {host}." for place, host in enumerate(receiver.hosts, 1)]
    return found


def routes(port: int) -> list[dict[str, Any]]:
    """The limits as `[[route]]` sections of the settings have them; the last one is for everything else."""
    plain = {"kind": "mx", "port": port, "tls": "off"}
    return [*({"name": each.name, "domains": each.domains, **plain, **_route(each)} for each in RECEIVERS),
            {"name": "rest", **plain}]  # fmt: skip


def _route(receiver: Receiver) -> dict[str, Any]:
    limits = receiver.limits
    return {
        "max_connections": limits.concurrency,
        "connections_per_second": limits.connections_per_second,
        "messages_per_second": limits.messages_per_second,
        "messages_per_connection": limits.messages_per_connection,
        "site_messages_per_second": receiver.site_per_second,
        "site_window": receiver.site_window,
    }


def policy() -> dict[str, Any]:
    """The same limits as a traffic policy."""
    sources = [{"if": {"provider": [each.name]}, **_source_case(each.limits)} for each in RECEIVERS]
    sites = [
        {"if": {"provider": [each.name]}, "message_rate": _rate(each.site_per_second), "burst": 1,
         "window": each.site_window}
        for each in RECEIVERS
    ]  # fmt: skip
    retry = ["2s", "4s", "8s", "15s"]
    return {
        "version": 1,
        "limits": [
            {"name": "exam-sources", "per": ["source", "site"], "cases": sources},
            {"name": "exam-sites", "per": ["site"], "cases": sites},
        ],
        "ladders": [{"stream": "transactional", "retry": retry, "expire": "1d"}],
    }


def _source_case(limits: Limits) -> dict[str, Any]:
    return {
        "message_rate": _rate(limits.messages_per_second),
        "burst": limits.burst,
        "connection_rate": _rate(limits.connections_per_second),
        "concurrency": limits.concurrency,
        "messages_per_connection": limits.messages_per_connection,
    }


def _rate(per_second: float) -> str:
    return f"{round(per_second * 60)}/m"


def weights(shares: dict[str, float] | None = None) -> str:
    """`--weights` of the load."""
    return ",".join(f"{name}={share}" for name, share in (shares or SHARES).items())


def source_names(count: int) -> Sequence[str]:
    """The egress sources of the exam."""
    return [f"ip-{number}" for number in range(1, count + 1)]
