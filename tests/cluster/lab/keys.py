"""The certificates of a cluster: one authority, a server, a client for each component, and the file each one connects with."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cluster.lab.places import API, NODE, NODE_NAME

CLIENTS = {
    "admin": ("admin", "system:masters"),
    "kubelet": (f"system:node:{NODE_NAME}", "system:nodes"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", "system:node-proxier"),
}
"""Component → common name (the user) and organisation (the group)."""
SERVER_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "127.0.0.1",
    "10.96.0.1",
    NODE,
)
CERTIFIES = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip
DAYS = 30


@dataclass(frozen=True, slots=True)
class Keys:
    """Files of keys and certificates in one directory."""

    directory: Path

    def key(self, name: str) -> Path:
        """A private key."""
        return self.directory / f"{name}.key"

    def certificate(self, name: str) -> Path:
        """A certificate; `authority` is what all are signed by."""
        return self.directory / f"{name}.crt"

    def configuration(self, name: str) -> Path:
        """What a client connects to the cluster with (a kubeconfig)."""
        return self.directory / f"{name}.conf"


def make(directory: Path) -> Keys:
    """Make all of them."""
    directory.mkdir(parents=True, exist_ok=True)
    keys = Keys(directory)
    signer = _key(keys.key("authority"))
    root = _name("lab", "")
    authority = (
        _unsigned(root, root, signer, signer)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(CERTIFIES, critical=True)
    )
    _write(authority.sign(signer, hashes.SHA256()), keys.certificate("authority"))
    for name, (user, group) in {**CLIENTS, "server": ("kube-apiserver", "")}.items():
        own = _key(keys.key(name))
        names = SERVER_NAMES if name == "server" else (NODE_NAME, NODE)
        unsigned = _unsigned(_name(user, group), root, own, signer).add_extension(_alternatives(names), critical=False)
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        _write(unsigned.add_extension(usage, critical=False).sign(signer, hashes.SHA256()), keys.certificate(name))
    accounts = _key(keys.key("accounts"))
    keys.directory.joinpath("accounts.pub").write_bytes(
        accounts.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for name in CLIENTS:
        keys.configuration(name).write_text(json.dumps(_connection(keys, name)))
    return keys


def _connection(keys: Keys, name: str) -> dict[str, object]:
    cluster = {"server": API, "certificate-authority": str(keys.certificate("authority"))}
    user = {"client-certificate": str(keys.certificate(name)), "client-key": str(keys.key(name))}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "lab", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": name}}],
        "current-context": "lab",
    }


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    path.chmod(0o600)
    return key


def _name(user: str, group: str) -> x509.Name:
    group_part = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    return x509.Name([*group_part, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _alternatives(names: Sequence[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([
        x509.IPAddress(ipaddress.ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names
    ])  # fmt: skip


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """With the identifiers of both keys, which Python 3.13 asks for."""
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _write(certificate: x509.Certificate, path: Path) -> None:
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
