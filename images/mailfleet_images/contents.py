"""What goes into the layers: Debian's files, the locked wheels, and our own packages."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path

from mailfleet_images.layers import pack, unpack
from mailfleet_images.recipes import PYTHON_VERSION, SUITE

DEBIAN_PACKAGES = ("python3-minimal", "libpython3-stdlib", "ca-certificates", "tzdata", "netbase", "media-types")
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/lintian/*")
CUSTOMIZE = (
    'echo "mailfleet:x:65532:65532:Mailfleet:/tmp:/usr/sbin/nologin" >>"$1/etc/passwd"',
    'echo "mailfleet:x:65532:" >>"$1/etc/group"',
    'mkdir -p "$1/app/bin" && ln -s /usr/bin/python3 "$1/app/bin/python"',
    'printf \'#!/bin/sh\\nexec python -m mailfleet_cli "$@"\\n\' >"$1/app/bin/mailfleet" && chmod 755 "$1/app/bin/mailfleet"',
)
"""The user, `python` as the entry point has it, and the command for people who look into a pod."""
EPOCH_OF_BASE = "1700000000"


def base_ingredients(architecture: str) -> str:
    """All that the base layer depends on but Debian's own state."""
    return "\n".join([SUITE, architecture, *DEBIAN_PACKAGES, *LEFT_OUT, *CUSTOMIZE])


def make_base(
    architecture: str, mirror: str, tar: Path, packages: Sequence[str] = DEBIAN_PACKAGES, options: Sequence[str] = ()
) -> None:
    """Debian with a Python and nothing more, as a tar file. Takes about a minute, needs root.

    Tests put other `packages` in, with more `options` of mmdebstrap.
    """
    quick = ["eatmydata"] if shutil.which("eatmydata") else []
    command = [
        *quick, "mmdebstrap", "--quiet", "--mode=root", "--variant=essential", f"--architectures={architecture}",
        f"--include={','.join(packages)}",
        *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
        *(f"--customize-hook={hook}" for hook in CUSTOMIZE),
        *options, SUITE, str(tar), *([mirror] if mirror else []),
    ]  # fmt: skip
    subprocess.run(
        command, check=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SOURCE_DATE_EPOCH": EPOCH_OF_BASE}
    )


class Workspace:
    """The checkout as uv sees it."""

    def __init__(self, root: Path, uv: Path) -> None:
        self.root, self._uv = root, uv
        patterns = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["uv"]["workspace"]["members"]
        files = [path for pattern in patterns for path in root.glob(f"{pattern}/pyproject.toml")]
        projects = [(path.parent, tomllib.loads(path.read_text())["project"]) for path in files]
        self._homes = {project["name"]: home for home, project in projects}
        self._wants = {project["name"]: project["dependencies"] for _, project in projects}
        self.version: str = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]

    def members(self, packages: Iterable[str]) -> list[str]:
        """`packages` and the members that they depend on."""
        found: set[str] = set()
        waiting = list(packages)
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                wanted = (re.split(r"[^A-Za-z0-9-]", each)[0] for each in self._wants[name])
                waiting += [each for each in wanted if each in self._homes]
        return sorted(found)

    def requirements(self, packages: Sequence[str]) -> dict[str, str]:
        """What the lock file says `packages` need from others: name → requirement with its sums."""
        chosen = [word for name in packages for word in ("--package", name)]
        text = self._run(
            "export", "--frozen", "--no-dev", "--no-emit-workspace", "--no-header", "--no-annotate", *chosen
        )
        return {re.split(r"[=; ]", block)[0]: block for block in re.split(r"\n(?=\S)", text.strip()) if block}

    def wheels(self, members: Sequence[str], into: Path) -> None:
        """Build the wheels of our own packages."""
        for member in members:
            self._run("build", "--quiet", "--wheel", "--out-dir", str(into), str(self._homes[member]))

    def install(self, requirements: Iterable[str], lib: Path, machine: str, wheels: Path | None = None) -> None:
        """Lay packages into `lib` for the image's Python, nothing built on the way."""
        wanted = lib.parent / "requirements.txt"
        wanted.write_text("\n".join(requirements) + "\n")
        where = ["--no-index", "--find-links", str(wheels)] if wheels else ["--require-hashes"]
        self._run(
            "pip", "install", "--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(lib),
            "--python-version", PYTHON_VERSION, "--python-platform", f"{machine}-manylinux_2_40",
            "--link-mode=copy", *where, "-r", str(wanted),
        )  # fmt: skip
        wanted.unlink()

    def _run(self, *arguments: str) -> str:
        trust = ["--system-certs"] if Path("/etc/ssl/certs/ca-certificates.crt").exists() else []
        done = subprocess.run(
            [str(self._uv), *arguments, *trust], cwd=self.root, text=True, stdout=subprocess.PIPE, check=True
        )
        return done.stdout


class Bench:
    """A directory that looks like the image's root, where packages are laid into and compiled by the image's Python."""

    def __init__(self, base: Path, directory: Path) -> None:
        self.root, self._directory = directory / "root", directory
        unpack(base, self.root)
        self.lib = self.root / "app" / "lib"

    def compile_and_pack(self, tar: Path) -> None:
        """Byte code for all of `lib`, which a read-only container could not keep; then the layer."""
        for leftover in (*self.lib.glob("*.lock"), self.lib / ".lock", *self.lib.glob("*.dist-info/uv_cache.json")):
            leftover.unlink(missing_ok=True)
        shutil.rmtree(self.lib / "bin", ignore_errors=True)
        compile_all = ("-m", "compileall", "-q", "-j", "1", "--invalidation-mode", "unchecked-hash", "/app/lib")
        subprocess.run(["chroot", str(self.root), "/usr/bin/python3", *compile_all], check=True)
        pack(self.root, "app/lib", tar)
        shutil.rmtree(self.lib)
