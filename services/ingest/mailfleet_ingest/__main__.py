"""`python -m mailfleet_ingest`: wiring only."""

from __future__ import annotations

from mailfleet_core import service
from mailfleet_ingest.shell.service import Ingest


def main(arguments: list[str] | None = None) -> None:
    """Run the ingest service until it is told to stop."""
    service.main("ingest", Ingest, arguments)


if __name__ == "__main__":
    main()
