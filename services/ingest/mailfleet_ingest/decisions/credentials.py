"""Credentials as values, and their file's text."""

from __future__ import annotations

import ipaddress
import json
import tomllib
from collections.abc import Mapping

import msgspec

from mailfleet_ingest.decisions.policy import Identity


class BadCredentials(ValueError):
    """The text is no list of credentials; it says where."""


class Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may hand in mail, and as whom."""

    name: str
    """What the client gives as user name."""
    tenant: str
    hash: str
    """argon2id, in its own text form."""
    domains: tuple[str, ...]
    """Of MAIL FROM: `example.org`, `*.example.org` for all below it, `*` for all."""
    networks: tuple[str, ...] = ()
    """Clients it may be used from; empty: from everywhere."""
    stream: str = "transactional"
    pool: str = "default"
    max_connections: int = 0
    null_sender: bool = False

    def identity(self, expire_seconds: float) -> Identity:
        """What a session that proved it is."""
        return Identity(
            self.name,
            self.tenant,
            self.stream,
            self.pool,
            frozenset(domain.lower() for domain in self.domains),
            self.null_sender,
            expire_seconds,
            self.max_connections,
        )

    def usable_from(self, client: str) -> bool:
        """Whether the client's address is in its networks."""
        if not self.networks:
            return True
        address = ipaddress.ip_address(client)
        return any(address in ipaddress.ip_network(network, strict=False) for network in self.networks)


class _File(msgspec.Struct, forbid_unknown_fields=True):
    credential: list[Credential] = []


def parse(text: str) -> dict[str, Credential]:
    """The credentials in `text` (TOML, or JSON of the same shape) by name. Raises BadCredentials."""
    try:
        if text.lstrip().startswith("{"):
            file = msgspec.json.decode(text, type=_File)
        else:
            file = msgspec.convert(tomllib.loads(text), _File)
    except (tomllib.TOMLDecodeError, msgspec.MsgspecError) as error:
        raise BadCredentials(str(error)) from error
    found: dict[str, Credential] = {}
    for credential in file.credential:
        check(credential)
        if credential.name in found:
            raise BadCredentials(f"two credentials are called {credential.name!r}")
        found[credential.name] = credential
    return found


def check(credential: Credential) -> None:
    """Raises BadCredentials for one that could never work."""
    name = credential.name
    if not name or len(name) > 255 or not name.isprintable():
        raise BadCredentials(f"{name!r} cannot be a user name")
    if not credential.hash.startswith("$argon2id$"):
        raise BadCredentials(f"{name}: hash is not argon2id")
    if not credential.domains:
        raise BadCredentials(f"{name}: domains is empty, so it could send nothing; `*` allows all")
    for network in credential.networks:
        try:
            ipaddress.ip_network(network, strict=False)
        except ValueError:
            raise BadCredentials(f"{name}: {network!r} is not a network") from None


def render(credentials: Mapping[str, Credential]) -> str:
    """The text of the file."""
    blocks = [_block(credentials[name]) for name in sorted(credentials)]
    return "\n".join(["# Written by `mailfleet credential`; hashes only, no passwords.", *blocks])


def _block(credential: Credential) -> str:
    lines = ["[[credential]]"]
    # A JSON string, number, boolean or list of strings is the same in TOML.
    for key, value in msgspec.to_builtins(credential).items():
        lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
