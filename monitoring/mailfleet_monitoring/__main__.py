"""`make dashboards`: write the dashboards into the chart; `--check` says whether they are as the code has them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mailfleet_monitoring import grafana
from mailfleet_monitoring.dashboards import DASHBOARDS

DIRECTORY = Path(__file__).parents[2] / "charts/mailfleet/files/dashboards"


def files() -> dict[str, str]:
    """Name → content."""
    return {f"{dashboard.name}.json": grafana.text(dashboard) for dashboard in DASHBOARDS}


def stale(directory: Path) -> list[str]:
    """Names of files that are not as the code has them, or that it does not have."""
    there = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.json")}
    made = files()
    return sorted(name for name in there.keys() | made.keys() if there.get(name) != made.get(name))


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(prog="mailfleet_monitoring", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 when something is stale")
    arguments = parser.parse_args()
    names = stale(DIRECTORY)
    if arguments.check:
        if names:
            sys.exit(f"stale: {', '.join(names)}; run `make dashboards`")
        return
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name in files():
            (DIRECTORY / name).write_text(files()[name], encoding="utf-8")
        else:
            (DIRECTORY / name).unlink()


if __name__ == "__main__":
    main()
