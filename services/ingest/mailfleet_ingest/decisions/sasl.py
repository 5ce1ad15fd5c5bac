"""SASL responses of PLAIN (RFC 4616) and LOGIN, decoded."""

from __future__ import annotations

import base64
import binascii


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


def plain(response: bytes) -> tuple[bytes, bytes]:
    """(user, password) of a PLAIN response. Raises Malformed; acting for another user is malformed too."""
    parts = decoded(response).split(b"\0")
    if len(parts) != 3 or not parts[1] or (parts[0] and parts[0] != parts[1]):
        raise Malformed
    return parts[1], parts[2]
