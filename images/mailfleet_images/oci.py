"""An OCI image archive from layers: what `ctr images import` and `skopeo copy oci-archive:` read. Same input, same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIGURATION = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class Layer:
    """A part of an image's file system, compressed."""

    blob: Path
    digest: str
    """Of the compressed bytes."""
    diff_id: str
    """Of the bytes before compression."""
    size: int
    """Compressed, in bytes."""
    made_by: str

    def descriptor(self) -> dict[str, object]:
        """As a manifest has it."""
        return {"mediaType": LAYER, "digest": self.digest, "size": self.size}


@dataclass(frozen=True, slots=True)
class Image:
    """How an image starts and what is in it."""

    architecture: str
    """As Go and OCI name it: amd64, arm64."""
    created: str
    """RFC 3339."""
    user: str
    environment: Mapping[str, str]
    entrypoint: Sequence[str]
    command: Sequence[str]
    labels: Mapping[str, str]
    layers: Sequence[Layer]

    @property
    def size(self) -> int:
        """Of all layers, compressed, in bytes: what a node pulls."""
        return sum(layer.size for layer in self.layers)

    def configuration(self) -> bytes:
        """The image's configuration; its digest is the image's ID."""
        return _json({
            "created": self.created,
            "architecture": self.architecture,
            "os": "linux",
            "config": {
                "User": self.user,
                "Env": [f"{name}={value}" for name, value in self.environment.items()],
                "Entrypoint": list(self.entrypoint),
                "Cmd": list(self.command),
                "WorkingDir": "/",
                "Labels": dict(self.labels),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            "history": [{"created": self.created, "created_by": layer.made_by} for layer in self.layers],
        })  # fmt: skip

    def manifest(self) -> bytes:
        """The image's manifest; its digest is what a deployment pins."""
        configuration = self.configuration()
        return _json({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIGURATION, "digest": digest(configuration), "size": len(configuration)},
            "layers": [layer.descriptor() for layer in self.layers],
        })  # fmt: skip


def write(image: Image, name: str, path: Path) -> str:
    """Write the archive of `image` under the name `name` (repository:tag) and return its manifest's digest."""
    manifest, configuration = image.manifest(), image.configuration()
    platform = {"os": "linux", "architecture": image.architecture}
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    described = {"mediaType": MANIFEST, "digest": digest(manifest), "size": len(manifest)}
    index = {"schemaVersion": 2, "manifests": [described | {"platform": platform, "annotations": names}]}
    arriving = path.with_suffix(".arriving")
    with tarfile.open(arriving, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", _json(index))
        for content in (manifest, configuration):
            _add(archive, _place(digest(content)), content)
        for layer in {layer.digest: layer for layer in image.layers}.values():
            with layer.blob.open("rb") as blob:
                entry = tarfile.TarInfo(_place(layer.digest))
                entry.size = layer.size
                archive.addfile(entry, blob)
    arriving.rename(path)
    return digest(manifest)


def digest(content: bytes) -> str:
    """As OCI writes it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _place(of: str) -> str:
    return "blobs/" + of.replace(":", "/")


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
