"""`python -m simulation.day`: the day with automation and without, its figures and pictures."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from simulation.day.run import Shown, run


def main() -> None:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(prog="simulate-day", description=__doc__)
    parser.add_argument("--mails", type=int, default=0, help="as many mails as this; without it, as the scenario says")
    parser.add_argument("--sources", type=float, default=1.0, help="this share of the scenario's sources")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", choices=("on", "off"), help="automation on or off, instead of both")
    parser.add_argument("--into", type=Path, help="folder for figures and pictures")
    given = parser.parse_args()
    for automation in [given.only == "on"] if given.only else [True, False]:
        name = "on" if automation else "off"
        figures = run(given.mails, given.sources, automation, given.processes, _line(name))
        print(file=sys.stderr)
        for key in ("accepted", "delivered", "bounced", "expired", "deferred", "attempts"):
            print(f"{key} {figures['counts'].get(key, 0)}")
        print(
            json.dumps(
                {
                    k: _plain(v)
                    for k, v in figures.items()
                    if k not in ("queue", "delivered", "waits", "burst_waits", "attempted", "states", "outcomes")
                },
                indent=1,
            )
        )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {" ".join(map(str, key)) if isinstance(key, tuple) else key: _plain(item) for key, item in value.items()}
    return value


def _line(name: str) -> Shown:
    began = time.monotonic()

    def shown(at: float, ended: int, queued: int) -> None:
        rate = ended / max(0.001, time.monotonic() - began)
        clock = f"{int(at // 3600):02d}:{int(at % 3600 // 60):02d}"
        print(
            f"\rautomation {name}  {clock}  {ended:,} mails ended  {rate:,.0f}/s  {queued:,} queued   ",
            end="",
            file=sys.stderr,
        )

    return shown


if __name__ == "__main__":
    main()
