"""What the images consist of and how they start. The Dockerfile says the same; a test compares the two."""

from __future__ import annotations

from dataclasses import dataclass

USER = "65532:65532"
ENVIRONMENT = {
    "PATH": "/app/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONPATH": "/app/lib",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
}
ENTRYPOINT = ("python", "-m")
SUITE = "trixie"
PYTHON_VERSION = "3.13"


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image."""

    name: str
    title: str
    """For people who look at a list of images."""
    packages: tuple[str, ...]
    """Members of the workspace that it contains, with all that they depend on."""
    command: tuple[str, ...]
    """What runs when nobody says what: the module, then its arguments."""

    def labels(self, version: str, revision: str, created: str) -> dict[str, str]:
        """The labels that registries, scanners and people look for (OCI image specification, annotations)."""
        names = {
            "title": self.title,
            "version": version,
            "revision": revision,
            "created": created,
            "licenses": "Apache-2.0",
            "vendor": "Mailfleet",
        }
        return {f"org.opencontainers.image.{name}": value for name, value in names.items() if value}


MAILFLEET = Recipe(
    "mailfleet",
    "Mailfleet: ingest, router, sender, egress proxy and command line",
    ("mailfleet-cli", "mailfleet-egress"),
    ("mailfleet_cli", "--help"),
)
OPERATOR = Recipe(
    "mailfleet-operator", "Mailfleet: operator for Kubernetes", ("mailfleet-operator",), ("mailfleet_operator",)
)
RECIPES = (MAILFLEET, OPERATOR)
