"""The SASL mechanisms PLAIN (RFC 4616) and LOGIN."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Protocol

from mailfleet_ingest.decisions import reply
from mailfleet_ingest.decisions.dialogue import Authenticate
from mailfleet_ingest.decisions.reply import Reply


class Malformed(ValueError):
    """Not what the mechanism sends."""


def decoded(response: bytes) -> bytes:
    """The bytes of a base64 response; `=` is the empty one (RFC 4954 4). Raises Malformed."""
    if response == b"=":
        return b""
    try:
        return base64.b64decode(response, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed from None


class Exchange(Protocol):
    """One run of a mechanism."""

    @property
    def challenge(self) -> Reply:
        """What to ask the client next."""

    def step(self, response: bytes) -> Authenticate | None:
        """Take a response: who the client says it is, or None to ask on. Raises Malformed."""


class Plain:
    """One response with everything; acting for another user is not supported."""

    challenge = reply.AUTH_PLAIN_GO

    def step(self, response: bytes) -> Authenticate | None:
        """As Exchange."""
        parts = decoded(response).split(b"\0")
        if len(parts) != 3 or not parts[1] or (parts[0] and parts[0] != parts[1]):
            raise Malformed
        return Authenticate("PLAIN", parts[1], parts[2])


class Login:
    """User name, then password."""

    challenge = reply.AUTH_LOGIN_NAME

    def __init__(self) -> None:
        self._user: bytes | None = None

    def step(self, response: bytes) -> Authenticate | None:
        """As Exchange."""
        if self._user is None:
            self._user = decoded(response)
            self.challenge = reply.AUTH_LOGIN_PASSWORD
            return None
        return Authenticate("LOGIN", self._user, decoded(response))


MECHANISMS: Mapping[bytes, Callable[[], Exchange]] = {b"PLAIN": Plain, b"LOGIN": Login}
