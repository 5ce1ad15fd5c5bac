"""What a connection may do: values that the shell builds from settings and credentials."""

from __future__ import annotations

from dataclasses import dataclass, field

from mailfleet_core.model.site import domain_of
from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.parameters import Mail
from mailfleet_ingest.decisions.reply import Reply


@dataclass(frozen=True, slots=True)
class Identity:
    """On whose behalf a session sends."""

    name: str
    """Of the credential; empty for a trusted network."""
    tenant: str
    stream: str = "transactional"
    pool: str = "default"
    domains: frozenset[str] = frozenset({"*"})
    """Domains of the reverse path: `example.org`, `*.example.org` for all below it, `*` for all."""
    null_sender: bool = False
    expire_seconds: float = 5 * 86400.0
    max_connections: int = 0
    """At once, in one ingest process; 0: as many as any."""

    def owns(self, reverse_path: str) -> bool:
        """Whether mail may say it comes from `reverse_path` (not empty)."""
        if "*" in self.domains:
            return True
        domain = domain_of(reverse_path)
        if domain in self.domains:
            return True
        parts = domain.split(".")
        return any("*." + ".".join(parts[cut:]) in self.domains for cut in range(1, len(parts)))


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of anything one session may do."""

    message_bytes: int = 50 << 20
    recipients: int = 1000
    commands_without_mail: int = 100
    errors: int = 20
    auth_failures: int = 3
    header_bytes: int = 100_000
    header_fields: int = 1000
    received_fields: int = 50
    line_octets: int = 998


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one listener."""

    hostname: str
    identity: Identity | None = None
    """Who a client is without AUTH: set on trusted listeners only, or the server would be an open relay."""
    starttls: bool = False
    auth: bool = False
    auth_without_tls: bool = False
    repair_bare_lf: bool = False
    address_literals: bool = False
    limits: Limits = field(default_factory=Limits)
    campaign: bytes = b""
    """What begins the line that names the campaign (`headers.campaign_mark`)."""

    def offers_auth(self, tls: bool) -> bool:
        """Whether AUTH is announced and taken."""
        return self.auth and (tls or self.auth_without_tls)

    def extensions(self, tls: bool) -> list[str]:
        """What EHLO announces."""
        names = ["PIPELINING", f"SIZE {self.limits.message_bytes}", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"]
        names += ["DSN", "CHUNKING"]
        if self.starttls and not tls:
            names.append("STARTTLS")
        if self.offers_auth(tls):
            names.append("AUTH PLAIN LOGIN")
        return names

    def refusal(self, mail: Mail, identity: Identity) -> Reply | None:
        """Why `identity` may not send this mail, if it may not."""
        if mail.size > self.limits.message_bytes:
            return reply.TOO_BIG
        if not mail.reverse_path:
            return None if identity.null_sender else reply.NULL_SENDER
        return None if identity.owns(mail.reverse_path) else reply.NOT_YOURS
