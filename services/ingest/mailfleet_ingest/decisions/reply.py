"""Every reply the server gives, once: code, enhanced code (RFC 3463) and a fixed text.

Texts are constants on purpose: nothing a client sent and nothing that broke inside us is ever put into a reply.
"""

from __future__ import annotations

from typing import NamedTuple


class Reply(NamedTuple):
    """One reply as it goes out; `reason` is its name in the metrics when it is a refusal."""

    wire: bytes
    reason: str = ""

    @property
    def code(self) -> str:
        """The three digits."""
        return self.wire[:3].decode()


def reply(text: str, reason: str = "") -> Reply:
    """A reply of one line."""
    return Reply(text.encode("ascii") + b"\r\n", reason)


# --- all is well
MAIL_OK = reply("250 2.1.0 Sender ok")
RCPT_OK = reply("250 2.1.5 Recipient ok")
DATA_GO = reply("354 End data with <CR><LF>.<CR><LF>")
RESET_OK = reply("250 2.0.0 Reset")
NOOP_OK = reply("250 2.0.0 Ok")
CHUNK_OK = reply("250 2.0.0 Chunk received")
VRFY_MAYBE = reply("252 2.1.5 Send some mail, we will try")
HELP = reply("214 2.0.0 RFC 5321")
BYE = reply("221 2.0.0 Bye")
TLS_GO = reply("220 2.0.0 Ready to start TLS")
AUTH_OK = reply("235 2.7.0 Authentication successful")
AUTH_PLAIN_GO = reply("334 ")
AUTH_LOGIN_NAME = reply("334 VXNlcm5hbWU6")
AUTH_LOGIN_PASSWORD = reply("334 UGFzc3dvcmQ6")

# --- the command is wrong
UNKNOWN_COMMAND = reply("500 5.5.1 Command not recognized", "unknown_command")
BARE_NEWLINE = reply("500 5.5.2 Lines end with <CR><LF>, without bare CR, LF or NUL", "bare_newline")
LINE_TOO_LONG = reply("500 5.5.6 Line too long", "line_too_long")
SYNTAX = reply("501 5.5.4 Syntax error in parameters", "syntax")
BAD_SEQUENCE = reply("503 5.5.1 Bad sequence of commands", "sequence")
EARLY_TALKER = reply("554 5.5.0 Wait for the greeting", "early_talker")
EARLY_PIPELINING = reply("554 5.5.0 Wait for the reply to EHLO", "early_pipelining")
UNKNOWN_PARAMETER = reply("555 5.5.4 Parameter not recognized", "unknown_parameter")
TOO_MANY_ERRORS = reply("421 4.7.0 Too many errors", "errors")
TOO_MANY_COMMANDS = reply("421 4.7.0 Too many commands without mail", "commands")

# --- who may send what
AUTH_REQUIRED = reply("530 5.7.0 Authentication required", "auth_required")
TLS_REQUIRED = reply("530 5.7.0 Must issue a STARTTLS command first", "tls_required")
AUTH_NEEDS_TLS = reply("538 5.7.11 Encryption required for authentication", "auth_without_tls")
AUTH_MECHANISM = reply("504 5.5.4 Mechanism not supported", "auth_mechanism")
AUTH_CANCELLED = reply("501 5.7.0 Authentication cancelled", "auth_cancelled")
AUTH_MALFORMED = reply("501 5.5.2 Cannot decode", "auth_malformed")
AUTH_REFUSED = reply("535 5.7.8 Authentication credentials invalid", "auth_refused")
AUTH_TOO_MANY = reply("421 4.7.0 Too many authentication failures", "auth_failures")
AUTH_BUSY = reply("454 4.7.0 Temporary authentication failure", "auth_busy")
NOT_YOURS = reply("550 5.7.1 Sender address not allowed for this account", "sender_not_owned")
NULL_SENDER = reply("550 5.7.1 Null sender not allowed for this account", "null_sender")
CLIENT_REFUSED = reply("554 5.7.1 Access denied", "client_network")

# --- addresses
BAD_SENDER = reply("553 5.1.7 Sender address syntax", "bad_sender")
BAD_RECIPIENT = reply("553 5.1.3 Recipient address syntax", "bad_recipient")
NEEDS_SMTPUTF8 = reply("553 5.6.7 Address needs SMTPUTF8", "smtputf8")
TOO_MANY_RECIPIENTS = reply("452 4.5.3 Too many recipients", "recipients")
NO_RECIPIENTS = reply("503 5.5.1 No valid recipients", "no_recipients")

# --- content
BARE_IN_CONTENT = reply("550 5.6.0 Message contains bare CR or bare LF", "bare_in_content")
NUL_IN_CONTENT = reply("550 5.6.0 Message contains NUL", "nul_in_content")
LONG_LINE = reply("550 5.6.0 Message has a line longer than 998 octets", "long_line")
HEADER_TOO_BIG = reply("552 5.3.4 Message header too big", "header")
TOO_BIG = reply("552 5.3.4 Message too big", "size")
LOOP = reply("554 5.4.6 Routing loop, too many Received lines", "loop")

# --- not now
CONTENT_TROUBLE = reply("451 4.3.0 Temporary failure, try again later", "temporary")
OVERLOADED = reply("452 4.3.1 Insufficient system storage, try again later", "overloaded")
TROUBLE = reply("421 4.3.0 Temporary failure, try again later", "trouble")
SHUTDOWN = reply("421 4.3.2 Service shutting down", "shutdown")
IDLE = reply("421 4.4.2 Timeout", "idle")
TOO_SLOW = reply("421 4.4.2 Too slow", "too_slow")
TOO_MANY_CONNECTIONS = reply("421 4.7.0 Too many connections", "connections")

OUR_FAULT = (CONTENT_TROUBLE, OVERLOADED, TROUBLE, AUTH_BUSY)
"""Refusals of what we should have taken."""


def greeting(hostname: str) -> Reply:
    """The banner; it names no product and no version."""
    return reply(f"220 {hostname} ESMTP")


def accepted(message_id: str) -> Reply:
    """The 250 that means: durable."""
    return Reply(b"250 2.0.0 Accepted %b\r\n" % message_id.encode())


def lines(code: int, texts: list[str]) -> Reply:
    """One reply of several lines, in one piece: clients that read a packet as a reply misread anything else."""
    head = [f"{code}-{text}\r\n" for text in texts[:-1]]
    return Reply("".join([*head, f"{code} {texts[-1]}\r\n"]).encode("ascii"))
