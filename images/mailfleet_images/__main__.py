"""`make images`: the images as OCI archives in build/images, with a list of what they are called."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from mailfleet_images import oci
from mailfleet_images.contents import Bench, Workspace, base_ingredients, make_base
from mailfleet_images.layers import Store
from mailfleet_images.recipes import ENTRYPOINT, ENVIRONMENT, PYTHON_VERSION, RECIPES, SUITE, USER, Recipe

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
NEEDED = ("mmdebstrap", "tar", "chroot")


class Builder:
    """Builds all images of one checkout."""

    def __init__(self, workspace: Workspace, store: Store, mirror: str) -> None:
        self._workspace, self._store, self._mirror = workspace, store, mirror
        self._machine = platform.machine()
        self._architecture = ARCHITECTURES[self._machine]

    def image(self, recipe: Recipe) -> oci.Image:
        """One image; layers that other images have too are the same."""
        base = self._base()
        common = self._workspace.requirements(["mailfleet-core"])
        all_of_it = self._workspace.requirements(recipe.packages)
        layers = [
            base,
            self._wheels("common", common, base),
            self._wheels(recipe.name, besides(common, all_of_it), base),
            self._own(recipe, base),
        ]
        revision, created = _revision(self._workspace.root)
        labels = recipe.labels(self._workspace.version, revision, created)
        return oci.Image(self._architecture, created, USER, ENVIRONMENT, ENTRYPOINT, recipe.command, labels, layers)

    def _base(self) -> oci.Layer:
        def make(tar: Path) -> None:
            make_base(self._architecture, self._mirror, tar)

        made_by = f"Debian {SUITE} with Python {PYTHON_VERSION}"
        return self._store.layer("base", base_ingredients(self._architecture), make, made_by)

    def _wheels(self, name: str, requirements: dict[str, str], base: oci.Layer) -> oci.Layer:
        def make(tar: Path) -> None:
            with tempfile.TemporaryDirectory(prefix="mailfleet-image-") as directory:
                bench = Bench(base.blob, Path(directory))
                self._workspace.install(requirements.values(), bench.lib, self._machine)
                bench.compile_and_pack(tar)

        ingredients = "\n".join([base.diff_id, *requirements.values()])
        return self._store.layer(f"wheels-{name}", ingredients, make, "locked dependencies")

    def _own(self, recipe: Recipe, base: oci.Layer) -> oci.Layer:
        members = self._workspace.members(recipe.packages)
        with tempfile.TemporaryDirectory(prefix="mailfleet-image-") as directory:
            wheels = Path(directory) / "wheels"
            self._workspace.wheels(members, wheels)

            def make(tar: Path) -> None:
                bench = Bench(base.blob, Path(directory))
                self._workspace.install(members, bench.lib, self._machine, wheels)
                bench.compile_and_pack(tar)

            sums = sorted(f"{each.name} {oci.digest(each.read_bytes())}" for each in wheels.glob("*.whl"))
            return self._store.layer(f"own-{recipe.name}", "\n".join([base.diff_id, *sums]), make, "Mailfleet")


def besides(common: Mapping[str, str], all_of_it: Mapping[str, str]) -> dict[str, str]:
    """The requirements that the common layer does not meet.

    The lock file says of each on which Pythons it is needed, and that may be more for one package than for another: a
    package that both name is in both layers when it says something else.
    """
    return {name: line for name, line in all_of_it.items() if common.get(name) != line}


def _revision(root: Path) -> tuple[str, str]:
    """The commit and its time (RFC 3339); empty and the epoch outside a git checkout."""
    said = subprocess.run(
        ["git", "log", "-1", "--format=%H %ct"], cwd=root, text=True, capture_output=True, check=False
    ).stdout.split()
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or (said[1] if said else 0))
    return (said[0] if said else ""), datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def main() -> None:
    """Build what the command line names, all images by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uv", type=Path, required=True)
    parser.add_argument("--into", type=Path, default=Path("build/images"))
    parser.add_argument("--repository", default="docker.io/library", help="what comes before an image's name")
    parser.add_argument("--mirror", default=os.environ.get("DEBIAN_MIRROR", ""), help="of Debian")
    parser.add_argument("names", nargs="*", choices=[[], *(recipe.name for recipe in RECIPES)])
    options = parser.parse_args()
    if absent := [name for name in NEEDED if not shutil.which(name)]:
        parser.exit(3, f"make images: needs {', '.join(absent)} (Debian: apt-get install mmdebstrap)\n")
    cache = Path(os.environ.get("MAILFLEET_CACHE") or Path.home() / ".cache" / "mailfleet")
    builder = Builder(Workspace(Path.cwd(), options.uv.resolve()), Store(cache / "images"), options.mirror)
    options.into.mkdir(parents=True, exist_ok=True)
    made = {}
    for recipe in RECIPES:
        if options.names and recipe.name not in options.names:
            continue
        image = builder.image(recipe)
        tag = oci.digest(image.configuration())[7:19]
        name = f"{options.repository}/{recipe.name}:{tag}"
        archive = options.into / f"{recipe.name}.tar"
        digest = oci.write(image, name, archive)
        made[recipe.name] = {"name": name, "tag": tag, "digest": digest, "archive": archive.name, "size": image.size}
        print(f"{name}  {image.size / 2**20:.1f} MiB compressed  {archive}")
    (options.into / "images.json").write_text(json.dumps(made, indent=2) + "\n")


if __name__ == "__main__":
    main()
