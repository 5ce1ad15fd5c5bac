"""AUTH (RFC 4954): a client says who it is, once, and only where that may be said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mailfleet_ingest.decisions import parameters, reply, sasl
from mailfleet_ingest.decisions.policy import Policy
from mailfleet_ingest.decisions.reading import WAIT, Reading
from mailfleet_ingest.decisions.reply import Reply


class Authenticating(Reading):
    """The exchange of a mechanism; the shell looks whether the password is right."""

    def __init__(self, policy: Policy, commands: Callable[[Any], bool], *, tls: bool) -> None:
        super().__init__(policy, commands)
        self.tls = tls
        self.authenticated_by_password = False
        self._auth_failures = 0
        self._exchange: sasl.Exchange = sasl.Plain()

    def authentication_refused(self, answer: Reply) -> None:
        """It was not, or we cannot tell now (`answer` is a 4yz)."""
        self._auth_failures += 1
        self._read = self._commands
        if answer.wire.startswith(b"421") or self._auth_failures >= self.policy.limits.auth_failures:
            self.close(answer if answer.wire.startswith(b"421") else reply.AUTH_TOO_MANY)
        else:
            self._say(answer)

    def _auth(self, argument: bytes) -> None:
        if not self.policy.offers_auth(self.tls):
            raise parameters.Refused(reply.AUTH_NEEDS_TLS if self.policy.auth else reply.BAD_SEQUENCE)
        if self.authenticated_by_password:
            raise parameters.Refused(reply.BAD_SEQUENCE)
        mechanism, _, initial = argument.partition(b" ")
        if mechanism.upper() not in sasl.MECHANISMS:
            raise parameters.Refused(reply.AUTH_MECHANISM)
        self._exchange = sasl.MECHANISMS[mechanism.upper()]()
        if initial:
            self._auth_step(initial)
        else:
            self._challenge()

    def _challenge(self) -> None:
        self._say(self._exchange.challenge)
        self._read = READ_AUTH

    def _read_auth(self) -> bool:
        line = self._line()
        if line is None:
            return False
        self._read = self._commands
        if line == b"*":
            self._error(reply.AUTH_CANCELLED)
        else:
            self._auth_step(line)
        return True

    def _auth_step(self, response: bytes) -> None:
        try:
            said = self._exchange.step(response)
        except sasl.Malformed:
            self._error(reply.AUTH_MALFORMED)
            return
        if said is None:
            self._challenge()
        else:
            self._read = WAIT
            self._events.append(said)


READ_AUTH = Authenticating._read_auth
