"""Certificates for servers of a test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from support import processes


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate that signs itself, and its key."""

    certificate: Path
    key: Path


def make(directory: Path, *names: str) -> Certificate:
    """A new certificate for `names` (DNS names; those of digits and dots are addresses), files in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    made = Certificate(directory / f"{names[0]}.pem", directory / f"{names[0]}.key")
    kinds = ",".join(("IP:" if name.replace(".", "").isdigit() else "DNS:") + name for name in names)
    processes.run([
        "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
        "-keyout", str(made.key), "-out", str(made.certificate), "-subj", f"/CN={names[0]}",
        "-addext", f"subjectAltName={kinds}",
    ])  # fmt: skip
    return made
