"""The words for what a reply means and what follows. The sentence below each word is its entry in docs/response-rules.md."""

from __future__ import annotations

from enum import StrEnum


class ReplyClass(StrEnum):
    """What happened, in twenty words that stay: reports and statistics are kept under them."""

    BAD_MAILBOX = "bad_mailbox"
    """There is no such mailbox."""
    INACTIVE_MAILBOX = "inactive_mailbox"
    """The mailbox exists, but is closed or unused."""
    BAD_DOMAIN = "bad_domain"
    """The domain does not exist, or is not one that the site takes mail for."""
    QUOTA = "quota"
    """The mailbox is full, or has had too much mail."""
    RATE_LIMITED = "rate_limited"
    """We send too fast. Nothing is said about what we are."""
    REPUTATION_BLOCK = "reputation_block"
    """The site, or a block list that it asks, holds us for a bad sender."""
    POLICY_BLOCK = "policy_block"
    """The site refuses us, or such mail, by a rule of its own."""
    SPAM_CONTENT = "spam_content"
    """It takes this message for spam."""
    VIRUS = "virus"
    """It takes this message for harmful."""
    AUTHENTICATION = "authentication"
    """SPF, DKIM, DMARC, reverse DNS, or TLS that the site demands."""
    GREYLISTED = "greylisted"
    """It does not know us yet, and wants the same mail from the same source again."""
    TOO_MANY_CONNECTIONS = "too_many_connections"
    """We have too many connections to it, or open them too fast."""
    TOO_LARGE = "too_large"
    """The message is larger than the site, or the mailbox, takes."""
    PROTOCOL = "protocol"
    """One side does not speak SMTP as the other expects."""
    RELAYING = "relaying"
    """The server is not one for this domain."""
    RECEIVER_TROUBLE = "receiver_trouble"
    """Something is broken or overloaded on their side."""
    NETWORK = "network"
    """No connection, or one that broke."""
    DNS = "dns"
    """The DNS gave no answer, or none that can be used."""
    EXPIRED = "expired"
    """It was tried until its time was over."""
    UNKNOWN = "unknown"
    """No rule matches."""


class Blame(StrEnum):
    """Whose doing it is. Only `recipient` may suppress an address; only `sender_*` may feed a reputation."""

    RECIPIENT = "recipient"
    """The address: it does not exist, is full, or is closed."""
    CONTENT = "content"
    """What the message says."""
    SENDER_IP = "sender_ip"
    """The egress source, as the site knows it: its IP address."""
    SENDER_DOMAIN = "sender_domain"
    """The domain in the sender's address, the signature or the links."""
    TENANT = "tenant"
    """How one tenant sends."""
    RECEIVER = "receiver"
    """The site itself."""
    NETWORK = "network"
    """What lies between us."""
    US = "us"
    """A mistake of ours: settings, DNS, protocol."""


class Effect(StrEnum):
    """What follows for more than this one recipient (but `bounce` and `respect_wait`, which are about the unit)."""

    NONE = "none"
    """Nothing: the reply is counted under its class, and the mail goes its own way."""
    SLOW = "slow"
    """The scope's rate and connections are halved, and rise again while it is clean."""
    PAUSE = "pause"
    """Nothing of the scope is sent for a while; then a probe."""
    DISABLE_SOURCE = "disable_source"
    """A pause of the source for every site."""
    BOUNCE = "bounce"
    """A temporary refusal that never becomes better: the recipient is bounced now."""
    RESPECT_WAIT = "respect_wait"
    """The unit is tried again after the time that the reply names."""


class Scope(StrEnum):
    """What an effect is kept for."""

    SOURCE_SITE = "source_site"
    """One egress source at this site."""
    TENANT_SITE = "tenant_site"
    """One tenant at this site, from whatever source."""
    SITE = "site"
    """Everything for this site."""
    SOURCE = "source"
    """One egress source, at every site."""
    DOMAIN = "domain"
    """The recipient's domain, whatever its site."""
