"""Which proxy: `socks5://user@host:port`, or `socks5s://…` with TLS; and the file that has the users' passwords."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import unquote, urlsplit

PORT = 1080


class Proxy(NamedTuple):
    """An egress proxy, as the settings name it."""

    host: str
    port: int = PORT
    user: str = ""
    tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def proxy_of(text: str) -> Proxy:
    """The proxy that `text` names. Raises ValueError with what to write instead."""
    parts = urlsplit(text)
    if parts.scheme not in ("socks5", "socks5s") or not parts.hostname or parts.path or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no proxy: write socks5://host:port, or socks5s://user@host:port")
    if parts.password is not None:
        raise ValueError("a proxy's password is not written here, but in the file that proxy_users_file names")
    try:
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no proxy: {error}") from None
    return Proxy(parts.hostname, PORT if port is None else port, unquote(parts.username or ""), parts.scheme[-1] == "s")


def users(text: str) -> dict[str, str]:
    """Lines of `user:password` in `text`; empty ones and those that begin with # are left out. Raises ValueError."""
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        user, colon, password = line.strip().partition(":")
        if not colon or not user or not password:
            raise ValueError(f"line {number} is not user:password")
        if user in found:
            raise ValueError(f"line {number}: {user!r} is there already")
        found[user] = password
    return found
