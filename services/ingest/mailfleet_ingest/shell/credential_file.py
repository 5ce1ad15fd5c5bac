"""The file of credentials: read, added to, taken from. Used by ingest and by the command line."""

from __future__ import annotations

import os
from pathlib import Path

import argon2
import msgspec

from mailfleet_ingest.decisions import credentials
from mailfleet_ingest.decisions.credentials import BadCredentials, Credential

HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""OWASP's argon2id: 19 MiB, two passes, one lane. The default of the library takes 64 MiB, which a flood multiplies."""


def default_path(settings_file: str | None) -> Path:
    """Where credentials lie when the settings do not say: beside them."""
    return (Path(settings_file).parent if settings_file else Path()) / "credentials.toml"


def load(path: Path) -> dict[str, Credential]:
    """The credentials in `path` by name; none when there is no such file. Raises BadCredentials, OSError."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as error:
        raise BadCredentials(f"{path}: not UTF-8") from error
    try:
        return credentials.parse(text)
    except BadCredentials as error:
        raise BadCredentials(f"{path}: {error}") from error


def listed(path: Path) -> list[Credential]:
    """The credentials in `path`, by name."""
    return [credential for _, credential in sorted(load(path).items())]


def add(path: Path, credential: Credential, password: str) -> Credential:
    """Put `credential` with the hash of `password` into `path`, in place of one of that name. Raises BadCredentials."""
    complete = msgspec.structs.replace(credential, hash=HASHER.hash(password))
    credentials.check(complete)
    _write(path, {**load(path), complete.name: complete})
    return complete


def revoke(path: Path, name: str) -> bool:
    """Take the credential `name` out of `path`; False: there was none."""
    known = load(path)
    if known.pop(name, None) is None:
        return False
    _write(path, known)
    return True


def _write(path: Path, known: dict[str, Credential]) -> None:
    """Replace the file in one step, readable by its owner only: a reader sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(credentials.render(known))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
