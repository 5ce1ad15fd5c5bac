"""Image archives: same content, same bytes; layers are made once."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from pathlib import Path

from mailfleet_images import oci
from mailfleet_images.layers import Store, pack


def tree(root: Path, age: float) -> Path:
    """Some files, one of them a program, with a given time."""
    (root / "app" / "lib").mkdir(parents=True)
    for name, mode in (("b.py", 0o600), ("a.sh", 0o700)):
        path = root / "app" / "lib" / name
        path.write_text(name)
        path.chmod(mode)
        os.utime(path, (age, age))
    return root


def packed(root: Path, tar: Path) -> Path:
    """The tar file of a tree."""
    pack(root, "app/lib", tar)
    return tar


def image(layer: oci.Layer) -> oci.Image:
    """A small image."""
    return oci.Image(
        "amd64", "2026-01-01T00:00:00Z", "1:1", {"A": "b"}, ("python",), ("-V",), {"l": "v"}, [layer, layer]
    )


def test_a_layer_is_the_same_whatever_the_age_and_place_of_its_files(tmp_path: Path) -> None:
    """And readable for every user, for the one in the container owns nothing."""
    first = packed(tree(tmp_path / "one", 1e9), tmp_path / "1.tar")
    second = packed(tree(tmp_path / "two", 1.5e9), tmp_path / "2.tar")
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as archive:
        assert [(each.name, oct(each.mode), each.uid) for each in archive] == [
            ("app/lib", "0o755", 0), ("app/lib/a.sh", "0o755", 0), ("app/lib/b.py", "0o644", 0),
        ]  # fmt: skip


def test_a_layer_is_made_once_for_the_same_ingredients(tmp_path: Path) -> None:
    """Its digests are those of its bytes."""
    made: list[Path] = []

    def make(tar: Path) -> None:
        made.append(tar)
        packed(tree(tmp_path / f"tree{len(made)}", 1e9), tar)

    store = Store(tmp_path / "store")
    layer = store.layer("x", "flour", make, "a test")
    assert store.layer("x", "flour", make, "a test") == layer
    assert len(made) == 1
    store.layer("x", "sugar", make, "a test")
    assert len(made) == 2
    content = layer.blob.read_bytes()
    assert layer.digest == oci.digest(content)
    assert layer.diff_id == oci.digest(gzip.decompress(content))
    assert layer.size == len(content)


def test_an_archive_holds_what_its_index_names(tmp_path: Path) -> None:
    """Every digest leads to a blob with that digest, a layer that is used twice is in it once, and the name is there."""
    blob = tmp_path / "layer"
    blob.write_bytes(gzip.compress(b"layer", mtime=0))
    content = blob.read_bytes()
    layer = oci.Layer(blob, oci.digest(content), oci.digest(b"layer"), len(content), "a test")
    digest = oci.write(image(layer), "docker.io/library/x:1", tmp_path / "x.tar")
    oci.write(image(layer), "docker.io/library/x:1", tmp_path / "again.tar")
    assert (tmp_path / "x.tar").read_bytes() == (tmp_path / "again.tar").read_bytes()
    with tarfile.open(tmp_path / "x.tar") as archive:
        files = {each.name: archive.extractfile(each).read() for each in archive}  # type: ignore[union-attr]
    blobs = {name: data for name, data in files.items() if name.startswith("blobs/sha256/")}
    assert all(hashlib.sha256(data).hexdigest() == name.rpartition("/")[2] for name, data in blobs.items())
    described = json.loads(files["index.json"])["manifests"][0]
    assert described["digest"] == digest
    assert described["annotations"]["io.containerd.image.name"] == "docker.io/library/x:1"
    manifest = json.loads(blobs["blobs/" + digest.replace(":", "/")])
    named = [manifest["config"]["digest"], *(each["digest"] for each in manifest["layers"])]
    assert {"blobs/" + each.replace(":", "/") for each in [digest, *named]} == set(blobs)
    configuration = json.loads(blobs["blobs/" + named[0].replace(":", "/")])
    assert configuration["config"]["User"] == "1:1"
    assert configuration["rootfs"]["diff_ids"] == [layer.diff_id] * 2
