"""Pictures of the dashboards, from a running Mailfleet with mail of every kind: `make pictures`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from mailfleet_monitoring import expressions
from mailfleet_monitoring.dashboards import DASHBOARDS
from mailfleet_monitoring.preview import Window, page, picture
from support.prometheus import prometheus
from support.watched import until, watched

OF_THE_CLUSTER = "operator"
"""Has nothing to show on one machine."""


def main() -> None:
    """Run it, look at it, draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--per-second", type=float, default=12.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, watched(Path(name)) as running:
        rules = sorted(expressions.RULES.glob("*.yaml"))
        with prometheus(Path(name) / "prometheus", running.targets(), rules) as looking:
            with running.load(options.per_second):
                until(looking.up, len(running.targets()))
                began = time.time()
                time.sleep(options.seconds / 3)
                running.flood()
                time.sleep(options.seconds * 2 / 3)
                end = time.time()
            window = Window(looking.url, began, end, "15s")
            for dashboard in DASHBOARDS:
                if dashboard.name != OF_THE_CLUSTER:
                    picture(page(dashboard, window), options.into / f"dashboard-{dashboard.name}.png")
                    print(options.into / f"dashboard-{dashboard.name}.png", file=sys.stderr)


if __name__ == "__main__":
    main()
